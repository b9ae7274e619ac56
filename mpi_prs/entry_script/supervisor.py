"""The worker's side of a user process: start it, hand it work, notice every way in which it can end.

::

    start() ──► STARTING ──READY──► READY ──stop()──► STOPPING ──► GONE
                   │ init failed       │ timeout, crash, closed channel
                   └───────► GONE ◄────┘        (the worker starts a new one)

A user process leads a session and a process group of its own, so a kill takes along what its script started. It is
killed by SIGKILL: a hung C or CUDA call, or a script that ignores SIGTERM, does not survive that. After a timeout it
first gets a signal at which it writes the stack of every thread to its log.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpi_prs.entry_script.channel import CHANNEL_LOST_EXIT, WORK_HEADER, Activity, Frame, Kind, Phase, Slot, WorkerEnd
from mpi_prs.entry_script.failure import Failure, FailureKind
from mpi_prs.entry_script.guard_client import Guard
from mpi_prs.output.record import RECORD

if TYPE_CHECKING:
    from mpi_prs.data.manifest import Loaded

_HOST = Path(__file__).with_name("host.py")
_DUMP_SIGNAL = signal.SIGRTMIN + 9  # host.DUMP_SIGNAL; importing host here would pull in what only the child needs
_DUMP_SECONDS = 0.3
_LOG_TAIL = 4096


@dataclass(frozen=True)
class ProcessSettings:
    """What all user processes of a worker have in common.

    Attributes:
        interpreter: path of the Python that runs the script.
        entry_script, source_directory, arguments: see the job config.
        environment: the complete environment variables of the process.
        to_csv: pandas options for DataFrame rows; ``None`` when rows are only counted.
        run_invocation_timeout, task_overhead_timeout, init_timeout: seconds.
        logging_level: of the root logger of the script.
        node: this node's name.
        spill: folder for rows that are too large for a message.
    """

    interpreter: str
    entry_script: str
    source_directory: str
    arguments: Sequence[str]
    to_csv: Mapping[str, Any] | None
    run_invocation_timeout: float
    task_overhead_timeout: float
    init_timeout: float
    logging_level: str
    node: str
    spill: str


@dataclass(frozen=True)
class ProcessPlace:
    """What is one user process's own: its number on the node, its folder, its logs, its environment."""

    number: int
    scratch: Path
    stdout: Path
    stderr: Path
    error: Path
    environment: Mapping[str, str]
    placement: str


class State(enum.Enum):
    """Where a user process stands."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    GONE = "gone"


@dataclass
class Chunk:
    """Consecutive mini-batches at the same attempt: ``first`` … ``first + count - 1``."""

    first: int
    count: int
    attempt: int


@dataclass
class News:
    """What a user process brought since it was last asked."""

    became_ready: bool = False
    records: list[bytes] = field(default_factory=list)  # of finished mini-batches, 48 bytes each, joined or not
    rows: list[bytes] = field(default_factory=list)  # their rows, in the same order
    finished: int = 0
    spilled: list[tuple[bytes, str]] = field(default_factory=list)  # record, path
    failures: list[Failure] = field(default_factory=list)  # of attempts
    gone: bool = False
    init_failure: Failure | None = None
    unstarted: list[Chunk] = field(default_factory=list)  # was handed over, and is not the fault of what happened


class UserProcess:
    """One user process, from start to end. After ``GONE``, make a new object."""

    def __init__(self, settings: ProcessSettings, place: ProcessPlace, guard: Guard) -> None:
        self.settings = settings
        self.place = place
        self.state = State.STARTING
        self.outstanding: deque[Chunk] = deque()
        self.outstanding_count = 0
        self.finished_any = False
        self._guard = guard
        self._kill_reason: tuple[FailureKind, str] | None = None
        self._kill_at = 0.0
        self._suspect: Activity | None = None
        self._stop_by = 0.0
        self._init_failure: Failure | None = None
        self._start()

    # Starting

    def _start(self) -> None:
        place = self.place
        for log in (place.stdout, place.stderr, place.error):
            log.parent.mkdir(parents=True, exist_ok=True)
        place.scratch.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        self._slot, slot_descriptor = Slot.create()
        try:
            with open(place.stdout, "ab") as stdout, open(place.stderr, "ab") as stderr:
                self._stderr_start = stderr.tell()
                command = [self.settings.interpreter, "-u", str(_HOST), str(theirs.fileno()), str(slot_descriptor)]
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=place.scratch,
                    env=dict(place.environment),
                    pass_fds=(theirs.fileno(), slot_descriptor),
                    start_new_session=True,
                )
                self.pid = self._child.pid
                self.death = os.pidfd_open(self.pid)  # readable when it has ended, for a selector
                self._guard.add(self.pid)
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                header = f"--- user process {place.number} on {self.settings.node}, pid {self.pid}, {now}, {place.placement}\n"
                stdout.write(header.encode())
        finally:
            theirs.close()
            os.close(slot_descriptor)
        self.started = time.monotonic()
        self._slot.write(Phase.INIT, -1, self.started)
        self.channel = WorkerEnd(ours)
        settings = {
            "parent": os.getpid(),
            "process": place.number,
            "node": self.settings.node,
            "entry_script": self.settings.entry_script,
            "source_directory": self.settings.source_directory,
            "arguments": list(self.settings.arguments),
            "to_csv": self.settings.to_csv,
            "logging_level": self.settings.logging_level,
            "spill": self.settings.spill,
        }
        self.channel.send(Kind.SETTINGS, 0, json.dumps(settings).encode())

    # Work

    def send(self, loaded: Loaded, attempt: int) -> None:
        """Hand over a range of loaded mini-batches; never waits."""
        self.outstanding.append(Chunk(loaded.first, loaded.count, attempt))
        self.outstanding_count += loaded.count
        header = WORK_HEADER.pack(loaded.first, attempt)
        self.channel.send(Kind.WORK, loaded.count, header, loaded.items, loaded.sizes, loaded.payload)

    def stop(self, by: float) -> None:
        """Ask for ``shutdown()`` and an end; at ``by`` (monotonic seconds) the process is killed."""
        if self.state is State.STARTING:
            self.kill()
        elif self.state is State.READY:
            self.state = State.STOPPING
            self._stop_by = by
            self.channel.send(Kind.STOP, 0)

    def skip_unstarted(self) -> None:
        """Let it finish the mini-batch that it is at; it gives back the others."""
        self._slot.skip_unstarted()

    def kill(self) -> None:
        """Kill the process group now; :meth:`poll` then tells that it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def activity(self) -> Activity:
        """What the process is doing, as it says itself."""
        return self._slot.read()

    # Listening

    def poll(self, now: float) -> News:
        """Everything that happened: answers, a timeout, an end. Call it when the channel is readable, and now and then."""
        news = News()
        if self.state is State.GONE:
            return news
        ended = self._child.poll() is not None  # asked before reading: then what was read is all there is
        for frame in self.channel.receive():
            self._take(frame, news)
        if ended:
            self._finish(news, now)
        elif self._kill_reason is None:
            self._check(news, now)
        elif now >= self._kill_at:
            self.kill()
        return news

    def _take(self, frame: Frame, news: News) -> None:
        if frame.kind == Kind.RESULTS:
            size = RECORD.size * frame.mini_batches
            news.records.append(bytes(frame.body[:size]))
            news.rows.append(bytes(frame.body[size:]))
            news.finished += frame.mini_batches
            self._answered(frame.mini_batches)
        elif frame.kind == Kind.SPILLED:
            news.spilled.append((bytes(frame.body[: RECORD.size]), os.fsdecode(bytes(frame.body[RECORD.size :]))))
            self._answered(1)
        elif frame.kind == Kind.FAILED:
            failure = self._located(Failure.from_json(bytes(frame.body)))
            self._write_error_log(failure)
            news.failures.append(failure)
            self._answered(1)
        elif frame.kind == Kind.READY:
            self.state = State.READY
            news.became_ready = True
        elif frame.kind == Kind.INIT_FAILED:
            self._init_failure = self._located(Failure.from_json(bytes(frame.body)))

        elif frame.kind == Kind.SKIPPED:
            news.unstarted += self._answered(frame.mini_batches)

    def _answered(self, count: int) -> list[Chunk]:
        """Take the next ``count`` mini-batches off what is outstanding."""
        self.finished_any = True
        self.outstanding_count -= count
        taken = []
        while count:
            chunk = self.outstanding[0]
            part = Chunk(chunk.first, min(count, chunk.count), chunk.attempt)
            taken.append(part)
            chunk.first += part.count
            chunk.count -= part.count
            count -= part.count
            if not chunk.count:
                self.outstanding.popleft()
        return taken

    def _check(self, news: News, now: float) -> None:
        """Is it doing what it does for too long, or deaf?"""
        if self.channel.closed:
            self._condemn(FailureKind.CRASH, _CHANNEL_CLOSED, now, dump=False)
            return
        if self.state is State.STOPPING:
            if now >= self._stop_by:
                self._log(f"shutdown() did not end in time on process {self.place.number}; the process was killed\n")
                self.kill()
            return
        activity = self._slot.read()
        limit, kind, message = self._limit(activity)
        if limit is None or now - activity.since <= limit:
            self._suspect = None
        elif self._suspect != activity:
            self._suspect = activity  # the slot may have been read half-written: look again next time
        else:
            self._condemn(kind, message, now, dump=True)

    def _limit(self, activity: Activity) -> tuple[float | None, FailureKind, str]:
        settings = self.settings
        if activity.phase == Phase.INIT:
            limit = settings.init_timeout
            return limit, FailureKind.INIT, f"init() did not end within init_timeout ({limit:g} s)"
        if activity.phase == Phase.RUNNING:
            limit = settings.run_invocation_timeout
            return limit, FailureKind.TIMEOUT, f"run() did not end within run_invocation_timeout ({limit:g} s)"
        if activity.phase in (Phase.PREPARING, Phase.ENCODING):
            limit = settings.task_overhead_timeout
            doing = "making the mini-batch" if activity.phase == Phase.PREPARING else "turning the result into rows"
            return limit, FailureKind.OVERHEAD_TIMEOUT, f"{doing} took longer than task_overhead_timeout ({limit:g} s)"
        return None, FailureKind.CRASH, ""

    def _condemn(self, kind: FailureKind, message: str, now: float, *, dump: bool) -> None:
        self._kill_reason = (kind, message)
        self._kill_at = now
        if dump:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, _DUMP_SIGNAL)
            self._kill_at = now + _DUMP_SECONDS
        else:
            self.kill()

    # The end

    def _finish(self, news: News, now: float) -> None:
        """The process is dead and its last words are read: who is to blame, and what was not started."""
        was = self.state
        self.state = State.GONE
        news.gone = True
        self.kill()  # what the script started may live on in the group
        self._guard.remove(self.pid)
        activity = self._slot.read()
        kind, message = self._kill_reason or (FailureKind.CRASH, describe_exit(self._child.returncode))
        tail = self._stderr_tail()
        if was is State.STARTING:
            news.init_failure = self._init_failure or self._located(
                Failure(
                    FailureKind.INIT,
                    message if self._kill_reason else f"{message} during init()",
                    tail,
                    seconds=now - self.started,
                )
            )
        elif was is State.READY:
            blamed = activity.mini_batch if activity.phase in (Phase.PREPARING, Phase.RUNNING, Phase.ENCODING) else -1
            for chunk in self.outstanding:
                if chunk.first <= blamed < chunk.first + chunk.count:
                    before = Chunk(chunk.first, blamed - chunk.first, chunk.attempt)
                    after = Chunk(blamed + 1, chunk.first + chunk.count - blamed - 1, chunk.attempt)
                    news.unstarted += [part for part in (before, after) if part.count]
                    seconds = now - activity.since
                    failure = self._located(Failure(kind, message, tail, blamed, chunk.attempt, seconds=seconds))
                    self._write_error_log(failure)
                    news.failures.append(failure)
                else:
                    news.unstarted.append(chunk)
        else:
            news.unstarted.extend(self.outstanding)
        self.outstanding = deque()
        self.outstanding_count = 0
        if news.init_failure:
            self._write_error_log(news.init_failure)

    def close(self) -> None:
        """Free what is left of it, once it is gone and no selector looks at it any more."""
        self.channel.close()
        self._slot.close()
        os.close(self.death)

    def _located(self, failure: Failure) -> Failure:
        located = {**failure.to_dict(), "process": self.place.number, "node": self.settings.node}
        return Failure.from_dict({**located, "log": str(self.place.error)})

    def _write_error_log(self, failure: Failure) -> None:
        where = f"mini-batch {failure.mini_batch}, try {failure.attempt}" if failure.mini_batch >= 0 else "init()"
        self._log(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {where}: {failure.message}\n{failure.traceback}\n")

    def _log(self, text: str) -> None:
        with contextlib.suppress(OSError), open(self.place.error, "a", encoding="utf-8", errors="replace") as file:
            file.write(text)

    def _stderr_tail(self) -> str:
        """The last lines that this process wrote to stderr: a stack dump, or what a library said before it died."""
        try:
            with open(self.place.stderr, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._stderr_start, end - _LOG_TAIL))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


_CHANNEL_CLOSED = (
    "the user process closed its connection to the worker "
    "(the script closes file descriptors that it did not open); it was killed"
)

_SIGNAL_HINTS = {
    signal.SIGKILL: "often the kernel's out-of-memory killer: see the memory limit of the job and dmesg",
    signal.SIGSEGV: "a crash in native code: see the stack in the process's stderr log",
    signal.SIGBUS: "a crash in native code, or a memory-mapped file that was cut or a full disk",
    signal.SIGABRT: "a library called abort(): see the process's stderr log",
    signal.SIGILL: "a library built for another processor",
    signal.SIGXCPU: "the CPU time limit",
    signal.SIGTERM: "somebody or the system asked it to end",
}


def describe_exit(code: int) -> str:
    """A sentence on how a process ended; ``code`` as ``subprocess`` gives it (negative: a signal)."""
    if code == CHANNEL_LOST_EXIT:
        return _CHANNEL_CLOSED
    if code >= 0:
        return f"the user process exited with code {code} (os._exit, or a library that ends the process)"
    try:
        name = signal.Signals(-code).name
        hint = _SIGNAL_HINTS.get(signal.Signals(-code))
    except ValueError:
        name, hint = f"signal {-code}", None
    return f"the user process was killed by {name}" + (f" ({hint})" if hint else "")

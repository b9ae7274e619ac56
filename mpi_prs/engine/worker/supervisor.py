"""The worker's side of a user process: start it, hand it work, notice every way in which it can end.

::

    start() ──► STARTING ──READY──► READY ──stop()──► STOPPING ──► GONE
                   │ init failed     ▲ │ timeout, crash, closed channel
                   │          RESTING┘ │
                   └───────► GONE ◄────┘        (the worker starts a new one)

A ParallelRunException of the script's may lead from READY to RESTING and back, or to STOPPING.

A user process leads a session and a process group of its own, and what it starts inherits a mark in the environment, so
a kill takes along what its script started. It is killed by SIGKILL: a hung C or CUDA call, or a script that ignores
SIGTERM, does not survive that. After a timeout it first gets a signal at which it writes the stack of every thread to
its log.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mpi_prs.core.environ import PROCESS_FOLDER
from mpi_prs.core.files import own_file
from mpi_prs.core.guard import kill_below, kill_marked
from mpi_prs.engine.awake import AwakeClock
from mpi_prs.engine.worker.answers import is_answer
from mpi_prs.engine.worker.guard_client import Guard
from mpi_prs.engine.worker.trust import Trust
from mpi_prs.wire.channel import DUMP_SIGNAL, WORK_HEADER, Activity, Frame, Kind, ProcessPhase, Slot, WorkerEnd
from mpi_prs.wire.failure import (
    CHANNEL_CLOSED,
    CHANNEL_GARBLED,
    RESTART,
    SLEEP,
    STOP,
    Failure,
    FailureKind,
    describe_exit,
    late_end,
    name_of,
    ran_too_long,
    unpack_failures,
)
from mpi_prs.wire.record import MINI_BATCH, RECORD
from mpi_prs.wire.settings import ProcessSettings
from mpi_prs.wire.work import Chunk, News, ProcessPlace, State

if TYPE_CHECKING:
    from mpi_prs.inputs.manifest import Loaded

_HOST = Path(__file__).parents[2] / "child" / "host.py"
_DUMP_SECONDS = 0.3
_ENDING_SECONDS = 0.5
_HELD = 1.0  # for so long nothing else in the event loop can have been cancelled
_EXIT_SECONDS = 1.0  # for a process whose init() has failed to end by itself
_LOG_TAIL = 4096
_PREEMPTION_SECONDS = 1.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class _Sentence(NamedTuple):
    """Why a process ends: what to say, which mini-batch has the blame (-1: none), when to kill it."""

    kind: FailureKind
    message: str
    blamed: int
    kill_at: float
    out_of_memory: bool = False  # for all that is known, the kernel has killed it


class UserProcess:
    """One user process, from start to end. After ``GONE``, make a new object.

    Every ``now`` is of ``clock``: time in which the worker was stopped is no time of the process either.
    """

    def __init__(
        self, settings: ProcessSettings, place: ProcessPlace, guard: Guard, trust: Trust, clock: AwakeClock
    ) -> None:
        self.settings = settings
        self.place = place
        self.trust = trust
        self.state = State.STARTING
        self.outstanding: deque[Chunk] = deque()
        self.outstanding_count = 0
        self.at_once = 1  # mini-batches that it works on
        self.is_alone = False  # what it has is to be run alone: one of several may have killed a process
        self.finished_any = False
        self.is_replaced = True  # when it has ended by itself
        self._guard = guard
        self._clock = clock
        self._condemned: _Sentence | None = None
        self._suspect: Activity | None = None
        self._handed_over = 0.0
        self._closed_at = 0.0
        self._withdrawn = False
        self._draining = False
        self._ended_at = 0.0
        self._out_of_step = False
        self._announced: set[str] = set()  # files with rows that are the master's business now
        self._stop_by = 0.0
        self._init_failure: Failure | None = None
        self._items_failed: dict[int, list[Failure]] = {}  # of mini-batches that are not answered yet
        self._start()

    # Starting

    def _start(self) -> None:
        place = self.place
        for log in (place.stdout, place.stderr, place.error):
            log.parent.mkdir(parents=True, exist_ok=True)
        place.scratch.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        self._slot, slot_descriptor = Slot.create(self.settings.mini_batches_in_flight)
        try:
            with (
                open(place.stdout, "ab", buffering=0, opener=own_file) as stdout,
                open(place.stderr, "ab", opener=own_file) as stderr,
            ):
                self._stderr_start = stderr.tell()
                command = [self.settings.interpreter, "-u", str(_HOST), str(theirs.fileno()), str(slot_descriptor)]
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=place.scratch,
                    env={**place.environment, PROCESS_FOLDER.name: f"{place.scratch}/"},
                    pass_fds=(theirs.fileno(), slot_descriptor),
                    start_new_session=True,
                )
                self.pid = self._child.pid
                self.death = os.pidfd_open(self.pid)  # readable when it has ended, for a selector
                self._death_poll = select.poll()
                self._death_poll.register(self.death, select.POLLIN)
                self._guard.add(self.pid)
                who = f"user process {place.number} on {self.settings.node}, pid {self.pid}"
                with contextlib.suppress(OSError):  # of a full disk the script will speak
                    stdout.write(f"--- {who}, {time.strftime('%Y-%m-%d %H:%M:%S')}, {place.placement}\n".encode())
        finally:
            theirs.close()
            os.close(slot_descriptor)
        self.started = self._clock()
        self._slot.write(ProcessPhase.INIT, -1, time.monotonic())
        self.channel = WorkerEnd(ours)
        self._process_settings = replace(self.settings, process=place.number, patience=self.trust.patience)
        self.channel.send(Kind.SETTINGS, 0, self._process_settings.pack())

    # Work

    def send(self, loaded: Loaded, attempt: int) -> None:
        """Hand over a range of loaded mini-batches; never waits."""
        self.outstanding.append(Chunk(loaded.first, loaded.count, attempt))
        self.outstanding_count += loaded.count
        self._handed_over = self._clock()
        header = WORK_HEADER.pack(loaded.first, attempt)
        self.channel.send(Kind.WORK, loaded.count, header, loaded.items, loaded.sizes, loaded.payload)

    def stop(self, by: float) -> None:
        """Ask for ``shutdown()`` and an end; at ``by`` (seconds of the clock) the process is killed."""
        if self.state is State.STARTING:
            self.kill()
        elif self.state in (State.READY, State.RESTING):
            self.state = State.STOPPING
            self._stop_by = by
            self.channel.send(Kind.STOP, 0)
        elif self.state is State.STOPPING:
            self._stop_by = min(self._stop_by, by)

    def retire(self, now: float) -> None:
        """It has nothing to do: let it end, and be replaced."""
        self.state, self._stop_by = State.STOPPING, now + self.settings.task_overhead_timeout
        self.channel.send(Kind.STOP, 0)

    def skip_unstarted(self) -> None:
        """Let it finish the mini-batch that it is at; it gives back the others."""
        self._draining = True
        self._slot.skip_unstarted()

    def runs(self, number: int) -> bool:
        """Whether it is at this mini-batch now."""
        activity = self._slot.read()
        return activity.mini_batch == number and any(number in chunk for chunk in self.outstanding)

    def kill(self) -> None:
        """Kill it now. :meth:`poll` then tells that it is gone, and that its work was not started: it has no blame."""
        self._withdrawn = True
        self._kill_group()

    def _kill_group(self) -> None:
        kill_below(self.pid)  # what has left the group is lost to us as soon as the group's first process is dead
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    # Listening

    def poll(self, now: float) -> News:
        """What happened: answers, a timeout, an end. Call it when the channel is readable, and now and then."""
        news = News()
        if self.state is State.GONE:
            return news
        ended = self._has_ended()  # asked before reading: then what was read is all there is
        for frame in self.channel.receive():
            if self._out_of_step or not is_answer(
                frame, self.state, self.outstanding, self._draining, self._process_settings, self.at_once == 1
            ):
                self._out_of_step = True  # forged, or what it is an answer to was taken from the channel
                break
            self._take(frame, now, news)
        if ended:
            if not self._may_be_preempted(now):
                self._finish(news, now)
        elif self._condemned is None:
            self._check(now)
            if self._condemned is not None:
                news.killed = f"{self._condemned.message} (pid {self.pid}, {self._slot.read()})"
        elif now >= self._condemned.kill_at:
            self._kill_group()
        return news

    def _has_ended(self) -> bool:
        """Whether it has. It stays a zombie, so that until ``_finish`` its number is no other process's."""
        return bool(self._death_poll.poll(0))

    def _may_be_preempted(self, now: float) -> bool:
        """Killed by a stop signal, perhaps as one of all processes of the job: that shows when the master drains."""
        if self._draining or not self._died_of_a_stop_signal():
            return False
        self._ended_at = self._ended_at or now
        return now - self._ended_at < _PREEMPTION_SECONDS

    def _died_of_a_stop_signal(self) -> bool:
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return end is not None and end.si_code == os.CLD_KILLED and end.si_status in _STOP_SIGNALS

    def _take(self, frame: Frame, now: float, news: News) -> None:
        if frame.kind == Kind.RESULTS:
            size = RECORD.size * frame.mini_batches
            news.records.append(bytes(frame.body[:size]))
            news.rows.append(bytes(frame.body[size:]))
            news.finished += frame.mini_batches
            for chunk in self._have_answer(frame.body[:size]):
                self._tell_failed_items(chunk, news)
            self.trust.has_done()
        elif frame.kind == Kind.SPILLED:
            path = os.fsdecode(bytes(frame.body[RECORD.size :]))
            self._announced.add(path)
            news.spilled.append((bytes(frame.body[: RECORD.size]), path))
            for chunk in self._have_answer(frame.body[: RECORD.size]):
                self._tell_failed_items(chunk, news)
            self.trust.has_done()
        elif frame.kind == Kind.ITEMS_FAILED:
            failures = unpack_failures(bytes(frame.body))
            self._items_failed.setdefault(failures[0].mini_batch, []).extend(failures)
        elif frame.kind == Kind.FAILED:
            failure = self._located(Failure.from_json(bytes(frame.body)))
            self._write_error_log(failure)
            news.failures.append(failure)
            self._take_off(failure.mini_batch)
            self._items_failed.pop(failure.mini_batch, None)
            self.trust.has_failed()
            self._heed(failure, now, news)
        elif frame.kind == Kind.READY:
            if self.state in (State.STARTING, State.RESTING):
                self.state = State.READY
                self.at_once = max(1, min(frame.mini_batches, self.settings.mini_batches_in_flight))
                news.became_ready = True
        elif frame.kind == Kind.INIT_FAILED:
            self._init_failure = self._located(Failure.from_json(bytes(frame.body)))
            self.state, self._stop_by = State.STOPPING, now + _EXIT_SECONDS
        elif frame.kind == Kind.HEADER:
            news.header = bytes(frame.body)
        elif frame.kind == Kind.SKIPPED:
            take = self._answered if self.at_once == 1 else self._take_last
            news.unstarted += take(frame.mini_batches)

    def _have_answer(self, records: memoryview) -> list[Chunk]:
        """Take the mini-batches of these records off what is outstanding."""
        if self.at_once == 1:
            return self._answered(len(records) // RECORD.size)
        return [self._take_off(fields[MINI_BATCH]) for fields in RECORD.iter_unpack(records)]

    def _take_off(self, number: int) -> Chunk:
        """Take one off; it is outstanding."""
        self.finished_any = True
        for place, chunk in enumerate(self.outstanding):
            if number in chunk:
                self.outstanding_count -= 1
                del self.outstanding[place]
                for part in reversed(chunk.without(number)):
                    self.outstanding.insert(place, part)
                return Chunk(number, 1, chunk.attempt)
        raise KeyError(number)

    def _take_last(self, count: int) -> list[Chunk]:
        """Take the last mini-batches off what is outstanding: they are begun in the order of the work."""
        left = self.outstanding_count - count
        taken, self.outstanding = self.outstanding, deque()
        self.outstanding_count = left
        unstarted = []
        for chunk in taken:
            begun = min(left, chunk.count)
            left -= begun
            if begun:
                self.outstanding.append(Chunk(chunk.first, begun, chunk.attempt))
            if begun < chunk.count:
                unstarted.append(Chunk(chunk.first + begun, chunk.count - begun, chunk.attempt))
        return unstarted

    def _tell_failed_items(self, answered: Chunk, news: News) -> None:
        """Of these mini-batches, now that the rest of them is done."""
        if not self._items_failed:
            return
        for number in answered:
            for failure in map(self._located, self._items_failed.pop(number, ())):
                self._write_error_log(failure)
                news.items_failed.append(failure)

    def _heed(self, failure: Failure, now: float, news: News) -> None:
        """If the script asked for a pause or an end, the process starts nothing more of what it has."""
        if self.state is not State.READY or failure.code not in (RESTART, STOP, SLEEP):
            return
        news.unstarted += self._answered(self.outstanding_count)
        self._items_failed.clear()
        if failure.code == SLEEP:
            self.state = State.RESTING
            news.rests = True
            self.channel.send(Kind.CLEAR, 0)
        else:
            self.is_replaced = failure.code != STOP
            self.state, self._stop_by = State.STOPPING, now + self.settings.task_overhead_timeout

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

    def _check(self, now: float) -> None:
        """Is it doing what it does for too long, or deaf?"""
        if self.state is State.STOPPING:
            if now >= self._stop_by:
                activity = self._slot.read()
                self._condemn(FailureKind.TIMEOUT, late_end(activity.phase), now, activity, dump=True)
        elif self._out_of_step:
            oldest = self.outstanding[0].first if self.outstanding else -1
            activity = Activity(ProcessPhase.IDLE, oldest, now)
            self._condemn(FailureKind.CRASH, CHANNEL_GARBLED, now, activity, dump=False)
        elif self.channel.garbled:
            self._condemn(FailureKind.CRASH, CHANNEL_GARBLED, now, self._slot.read(), dump=False)
        elif self.channel.closed:  # a process that ends closes it a little before it is dead
            self._closed_at = self._closed_at or now
            if now - self._closed_at > _ENDING_SECONDS:
                self._condemn(FailureKind.CRASH, CHANNEL_CLOSED, now, self._slot.read(), dump=False)
        else:
            activity = self._longest(now)
            since, limit, kind, message = self._limit(activity)
            if now - since <= limit:
                self._suspect = None
            elif self._suspect != activity:
                self._suspect = activity  # it may go on as soon as this machine lets it: look again next time
            else:
                self._condemn(kind, message, now, activity, dump=True)

    def _longest(self, now: float) -> Activity:
        """What it has done for too long, if anything: what holds the event loop, or else what is in flight."""
        activity = self._slot.read()
        if self.at_once == 1 or (activity.phase != ProcessPhase.IDLE and now - self._clock.at(activity.since) > _HELD):
            return activity
        in_flight = self._in_flight()
        for each in in_flight:
            since, limit, _, _ = self._limit(each)
            if now - since > limit:
                return each
        return in_flight[0] if in_flight else activity

    def _in_flight(self) -> list[Activity]:
        """The mini-batches that run now."""
        activities = (lane.read() for lane in self._slot.lanes)
        return [activity for activity in activities if activity.phase != ProcessPhase.IDLE]

    def _limit(self, activity: Activity) -> tuple[float, float, FailureKind, str]:
        """Since when it does what it does, for how long it may, and what to say if it goes on."""
        settings, since = self.settings, self._clock.at(activity.since)
        if activity.phase == ProcessPhase.INIT:
            limit = settings.init_timeout
            return since, limit, FailureKind.INIT, f"init() did not end within init_timeout ({limit:g} s)"
        if activity.phase == ProcessPhase.RUNNING:
            limit = settings.run_invocation_timeout
            if self.at_once == 1:
                return since, limit, FailureKind.TIMEOUT, ran_too_long(limit)
            if activity == self._slot.read():
                return since, limit, FailureKind.TIMEOUT, f"{ran_too_long(limit)}: it holds the event loop"
            grace = settings.task_overhead_timeout
            message = f"{ran_too_long(limit)}, and not {grace:g} s after it was cancelled"
            return since, limit + grace, FailureKind.TIMEOUT, message
        if activity.phase == ProcessPhase.IDLE:
            if not self.outstanding_count:
                return since, float("inf"), FailureKind.CRASH, ""
            since = max(since, self._handed_over)
            doing = "taking the mini-batch up (does another thread of the script hold the interpreter?)"
        elif activity.phase == ProcessPhase.RESTING:
            doing = "coming back from the pause that the script asked for"
        elif activity.phase == ProcessPhase.PREPARING:
            doing = "load() of an item, or making the mini-batch," if settings.loaders else "making the mini-batch"
        else:
            doing = "turning the result into rows"
        limit = settings.task_overhead_timeout
        return (
            since,
            limit,
            FailureKind.OVERHEAD_TIMEOUT,
            f"{doing} took longer than task_overhead_timeout ({limit:g} s)",
        )

    def _condemn(self, kind: FailureKind, message: str, now: float, activity: Activity, *, dump: bool) -> None:
        """Kill it, at once or when it has had the time to write its stacks."""
        blamed = (
            self.outstanding[0].first
            if activity.phase == ProcessPhase.IDLE and self.outstanding
            else activity.mini_batch
        )
        self._condemned = _Sentence(kind, message, blamed, now + _DUMP_SECONDS if dump else now)
        if dump:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, DUMP_SIGNAL)  # the script runs in a child of it
        else:
            self._kill_group()

    # The end

    def _finish(self, news: News, now: float) -> None:
        """The process is dead and its last words are read: who is to blame, and what was not started."""
        was = self.state
        self.state = State.GONE
        news.gone = True
        self._kill_group()  # what the script started may live on in the group
        kill_marked(str(self.place.scratch), PROCESS_FOLDER.name)  # or have left it
        self._remove_unfinished_rows()
        preempted = self._draining and self._died_of_a_stop_signal()
        code = self._child.wait()
        self._guard.remove(self.pid)
        activity = self._slot.read()
        verdict = self._condemned or _Sentence(
            FailureKind.CRASH, describe_exit(code), activity.mini_batch, now, out_of_memory=code == -signal.SIGKILL
        )
        tail = self._stderr_tail()
        if self._init_failure is not None:
            news.init_failure = self._init_failure
        elif self._withdrawn or preempted:
            pass
        elif was is State.STARTING or (was is State.READY and not self.finished_any and not self.outstanding):
            when = "during init()" if was is State.STARTING else "before its first mini-batch"
            message = verdict.message if self._condemned else f"{verdict.message} {when}"
            seconds = now - self.started
            news.init_failure = self._located(Failure(FailureKind.INIT, message, tail, seconds=seconds))
        elif was is State.READY:
            self._share_out(news, verdict, tail, now - self._clock.at(activity.since))
        elif was is State.RESTING:
            self._log(f"during a pause: {verdict.message}\n{tail}")
        elif code or self._condemned:
            self._log(f"while it was to end (shutdown() and after): {verdict.message}\n{tail}")
        news.unstarted.extend(self.outstanding)
        self.outstanding = deque()
        self.outstanding_count = 0
        if news.init_failure:
            self._write_error_log(news.init_failure)

    def _remove_unfinished_rows(self) -> None:
        """What it was putting into a file when it ended; the next start would do so, but it may be gigabytes."""
        for path in Path(self.settings.spill).glob(f"{self.settings.node}-{self.place.number}-{self.pid}-*.rows"):
            if str(path) not in self._announced:
                with contextlib.suppress(OSError):
                    path.unlink()
        for path in Path(self.settings.spill).glob(f"{self.settings.node}-{self.place.number}-{self.pid}-*.files"):
            if f"{path}.rows" not in self._announced:
                shutil.rmtree(path, ignore_errors=True)

    def _share_out(self, news: News, verdict: _Sentence, tail: str, seconds: float) -> None:
        """One mini-batch has the blame, if it is still without an answer; the others were not started.

        If it cannot be told which, and the process has never answered anything, it is the first: so each process does
        or costs something, and a script that always dies comes to an end.
        """
        blamed = verdict.blamed
        if self.at_once > 1 and not any(blamed in chunk for chunk in self.outstanding):
            in_flight = {activity.mini_batch for activity in self._in_flight()}
            suspects = [number for chunk in self.outstanding for number in chunk if number in in_flight]
            if len(suspects) == 1:
                blamed = suspects[0]
            elif suspects:  # nobody loses a try; the next time each runs alone
                news.unstarted += [*map(self._take_off, suspects), *self.outstanding]
                news.suspects = len(suspects)
                self.outstanding.clear()
                return
        if not self.finished_any and not any(blamed in chunk for chunk in self.outstanding):
            blamed = self.outstanding[0].first
        for chunk in self.outstanding:
            if blamed in chunk:
                news.unstarted += chunk.without(blamed)
                failure = self._located(
                    Failure(verdict.kind, verdict.message, tail, blamed, chunk.attempt, seconds=seconds)
                )
                failure = replace(failure, out_of_memory=verdict.out_of_memory)
                self._write_error_log(failure)
                news.failures.append(failure)
            else:
                news.unstarted.append(chunk)
        self.outstanding.clear()

    def close(self) -> None:
        """Free what is left of it, once it is gone and no selector looks at it any more."""
        self.channel.close()
        self._slot.close()
        os.close(self.death)

    def _located(self, failure: Failure) -> Failure:
        located = {**failure.to_dict(), "process": self.place.number, "node": self.settings.node}
        return Failure.from_dict({**located, "log": str(self.place.error)})

    def _write_error_log(self, failure: Failure) -> None:
        where = f"{name_of(failure)}, try {failure.attempt}" if failure.mini_batch >= 0 else "init()"
        self._log(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {where}: {failure.message}\n{failure.traceback}\n")

    def _log(self, text: str) -> None:
        with (
            contextlib.suppress(OSError),
            open(self.place.error, "a", encoding="utf-8", errors="replace", opener=own_file) as file,
        ):
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

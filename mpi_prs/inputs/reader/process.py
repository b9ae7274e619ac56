"""A reader process, seen from its rank: start it, notice that it dies or computes for ever, say why it ended.

It is exec'ed, by our own Python, without what makes a process a rank. It dies with the thread that has started it
(``PR_SET_PDEATHSIG``) and at the end of its connections; at a worker the guard knows it by a mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mpi_prs.core.environ import HERE, PROCESS_FOLDER, without_rank
from mpi_prs.core.errors import MpiPrsError
from mpi_prs.inputs.reader.connection import ConnectionLost, MessageKind, ReaderConnection, ReaderMessage

NOT_STARTED = "the process that reads tables cannot be started"

_PROGRAM = Path(__file__).with_name("serving.py")
_STEP = 0.5  # seconds between two looks at what it does
_SILENCE = 10  # times what it may compute: nobody answers, and nobody computes
_ENDING_SECONDS = 5.0
_LAST_WORDS = 4096
_HEALTHY = {b"R", b"D"}  # computes, waits for a disk or for memory
_TICKS = os.sysconf("SC_CLK_TCK")


class ReaderLost(Exception):
    """The reader process is gone; the text says how it ended, as a sentence about it."""


class ReaderProcess:
    """One reader process. Make a new one when it is lost.

    Args:
        settings: what it is for, JSON values; secrets may be among them.
        connections: how many threads will ask it.
        mark: the folder by which the guard of a worker knows it; ``None``: there is no guard.

    Attributes:
        connections: those that nobody has taken yet; whoever takes one closes it.
        is_condemned: whether it was killed because it computed for too long.

    Raises:
        MpiPrsError: it cannot be started.
    """

    def __init__(self, settings: Mapping[str, Any], connections: int = 1, mark: Path | None = None) -> None:
        pairs = [socket.socketpair() for _ in range(connections)]
        self._words = os.memfd_create("mpi_prs_reader_stderr", os.MFD_CLOEXEC)
        theirs = [end.fileno() for _, end in pairs]
        environment = without_rank(HERE)
        if mark is not None:
            environment[PROCESS_FOLDER.name] = f"{mark}/"
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), str(os.getpid()), *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                env=environment,
                pass_fds=theirs,
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._words)
            for ours, _ in pairs:
                ours.close()
            raise MpiPrsError(f"{NOT_STARTED}: {error}") from error
        finally:
            for _, end in pairs:
                end.close()
        self.pid = self._process.pid
        self.connections = [ReaderConnection(ours) for ours, _ in pairs]
        self.is_condemned = False
        self._lock = threading.Lock()
        self._ended = ""
        with contextlib.suppress(ConnectionLost):  # it has died: whoever asks it first is told so
            self.connections[0].send_json(MessageKind.SETTINGS, settings)

    def answer(self, connection: ReaderConnection, limit: Callable[[], float], thread: int = 0) -> ReaderMessage:
        """The next message.

        Args:
            limit: says how many seconds of the processor may go by without a message; of waiting ten times that.
            thread: of the reader that is asked, by the kernel's number; 0: all threads count.

        Raises:
            ConnectionLost: the reader is gone; :meth:`end` says why.
            ReaderLost: it computed for too long, and was killed.
        """
        if connection.wait(_STEP):
            return connection.receive()
        most, waited = limit(), _STEP
        began, _ = self._look_at(thread)
        while not connection.wait(_STEP):
            computed, rests = self._look_at(thread)
            waited += _STEP if rests else 0.0  # by our own steps: while we are stopped, nobody waits
            if computed - began > most:
                self.condemn(f"computed for more than {most:.0f} s without an end and was killed")
            elif waited > _SILENCE * most:
                self.condemn(f"did not answer within {_SILENCE * most:.0f} s and was killed")
        return connection.receive()

    def _look_at(self, thread: int) -> tuple[float, bool]:
        """Of a thread, or of all where ``thread`` is 0: seconds of the processor's time so far, and whether none waits
        for the processor or a filesystem."""
        process = f"/proc/{self.pid}"
        if thread:
            seconds, *states = _stat(f"{process}/task/{thread}")
        else:
            seconds, *states = _stat(process)
            with contextlib.suppress(OSError):  # it has ended
                states += [_stat(f"{process}/task/{each}")[1] for each in os.listdir(f"{process}/task")]
        return seconds, _HEALTHY.isdisjoint(states)

    def condemn(self, how: str) -> NoReturn:
        """Kill it for what it does. Raises ReaderLost."""
        self.is_condemned = True
        self._process.kill()
        raise ReaderLost(how)

    def end(self) -> str:
        """Wait for its end, kill it if need be, and say how it ended: as a sentence about it. For any thread."""
        with self._lock:
            if not self._ended:
                code = self._wait()
                words = self._last_words()
                self._ended = _how(code) + (f" ({words})" if words else "")
                self._free()
            return self._ended

    def _wait(self) -> int:
        try:
            return self._process.wait(_ENDING_SECONDS)  # a connection of it has ended, so it is about to end
        except subprocess.TimeoutExpired:
            self._process.kill()
        try:
            return self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:  # it hangs in the kernel, and dies when that lets it
            return -signal.SIGKILL

    def _last_words(self) -> str:
        """What a library said before it ended the process, in a line."""
        size = os.fstat(self._words).st_size
        text = os.pread(self._words, _LAST_WORDS, max(0, size - _LAST_WORDS)).decode("utf-8", "replace")
        said, *more = re.split(r"Fatal Python error|Traceback", text)
        lines = [line.strip() for line in said.splitlines()][-3:]
        if more and "Fatal Python error" not in text:
            lines += more[-1].splitlines()[-1:]  # of a traceback the error
        return "; ".join(filter(None, lines))

    def close(self) -> None:
        """Kill it; everything that it holds is free then. For any thread."""
        self._process.kill()
        self.end()

    def _free(self) -> None:
        os.close(self._words)
        while self.connections:
            self.connections.pop().close()


def _stat(folder: str) -> tuple[float, bytes]:
    """Seconds of the processor's time, and the state, of the process or thread that has this folder in ``/proc``."""
    try:
        with open(f"{folder}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS, fields[0]
    except (OSError, ValueError, IndexError):
        return 0.0, b"X"  # it has ended


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code == signal.SIGKILL:
        name += ", often by the kernel's out-of-memory killer"
    return f"was killed by {name}"

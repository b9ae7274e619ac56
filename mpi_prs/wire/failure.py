"""What went wrong with an attempt, in a form that travels: user process → worker → master → journal.

Standard library only: the user process imports this module.
"""

from __future__ import annotations

import enum
import json
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mpi_prs.wire.channel import CHANNEL_LOST_EXIT, ProcessPhase
from mpi_prs.wire.parts import is_copy, is_part, mini_batch_of


class FailureKind(str, enum.Enum):
    """Why an attempt (or the start of a user process) failed."""

    EXCEPTION = "exception"
    """``run()`` raised."""
    WRONG_TYPE = "wrong type"
    """``run()`` returned something that has no rows."""
    TIMEOUT = "timeout"
    """``run()`` took longer than ``run_invocation_timeout``; its process was killed."""
    OVERHEAD_TIMEOUT = "overhead timeout"
    """Making the mini-batch or encoding the rows took longer than ``task_overhead_timeout``; the process was killed."""
    CRASH = "crash"
    """The user process ended during the attempt: a signal, an exit code, a closed descriptor."""
    LOAD = "load"
    """The mini-batch could not be read."""
    WORKER_LOST = "worker lost"
    """The mini-batch's workers were lost again and again."""
    OUTPUT_FULL = "output full"
    """The disk of the output is full, or a quota there: nobody can go on."""
    SCRATCH_FULL = "scratch full"
    """The scratch folder of the node is full: nobody there can go on."""
    CODE_CHANGED = "code changed"
    """The process has other code, models or side inputs than the run was begun with: nobody may go on."""
    INIT = "init"
    """The script could not be imported, or ``init()`` raised, crashed or took longer than ``init_timeout``."""


FULL_DISKS = (FailureKind.OUTPUT_FULL, FailureKind.SCRATCH_FULL)
"""The site's trouble: it costs no mini-batch a try."""

NO_RETRY, RESTART, STOP, SLEEP = "NoRetry", "RestartProcess", "StopProcess", "Sleep"
"""What a script may ask for; see :class:`mpi_prs.child.parallel_run.ParallelRunExceptionCode`."""


@dataclass(frozen=True)
class Failure:
    """One failed attempt, or one failed start of a user process (``mini_batch`` is -1), or one failed item.

    Attributes:
        kind: why.
        message: one line.
        traceback: the user's own traceback, or the last lines of the process's log; may be empty.
        mini_batch: its number, from 0; or that of a part, see :mod:`mpi_prs.wire.parts`.
        attempt: the try that failed, from 1.
        process: number of the user process on its node, from 0.
        node: the node's name.
        seconds: how long the attempt had been running.
        log: the process's error log, where the whole story is.
        code: what the script asked for by a ParallelRunException, or its process by itself; empty: nothing.
        pause: seconds, where it asked for a pause.
        out_of_memory: whether that is why, as far as it shows.
        item: which of its items failed, from 0, where the others did not; -1: all of them.
        items: how many items the mini-batch has, or the part; 0: that is not known.
        place: where the item stands, where that is more than its number.
    """

    kind: FailureKind
    message: str
    traceback: str = ""
    mini_batch: int = -1
    attempt: int = 0
    process: int = -1
    node: str = ""
    seconds: float = 0.0
    log: str = ""
    code: str = ""
    pause: float = 0.0
    out_of_memory: bool = False
    item: int = -1
    items: int = 0
    place: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "kind": self.kind.value}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Failure:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**fields, "kind": FailureKind(fields["kind"])})

    def to_json(self) -> bytes:
        """As UTF-8 JSON; a lone surrogate (from a file name) is escaped, so this never fails."""
        return json.dumps(self.to_dict()).encode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> Failure:
        """The inverse of :meth:`to_json`."""
        return cls.from_dict(json.loads(data))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was not enough memory, of the machine or of a GPU."""
    if isinstance(error, MemoryError):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "ResourceExhaustedError"}:  # PyTorch and CuPy; TensorFlow
        return True
    try:
        text = str(error)
    except Exception:  # of the script's own making
        return False
    return any(words in text for words in _OUT_OF_GPU_MEMORY)


_OUT_OF_GPU_MEMORY = (
    *("CUDA out of memory", "CUDA error: out of memory", "CUDA_ERROR_OUT_OF_MEMORY", "HIP out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "RESOURCE_EXHAUSTED: Out of memory"),
)


def name_of(failure: Failure) -> str:
    """What failed, in a few words."""
    of = "part of " if is_part(failure.mini_batch) else "copy of " if is_copy(failure.mini_batch) else ""
    item = f"item {failure.item} of " if failure.item >= 0 else ""
    return f"{item}{of}mini-batch {mini_batch_of(failure.mini_batch)}"


def pack_failures(failures: Iterable[Failure]) -> bytes:
    """Several of them as UTF-8 JSON."""
    return json.dumps([failure.to_dict() for failure in failures]).encode("ascii")


def unpack_failures(data: bytes) -> list[Failure]:
    """The inverse of :func:`pack_failures`."""
    return [Failure.from_dict(fields) for fields in json.loads(data)]


def shorten(text: str, most: int) -> str:
    """``text`` with its middle left out, so that it has at most about ``most`` characters; its end says the most."""
    if len(text) <= most:
        return text
    head = most // 4
    return f"{text[:head]} … {len(text) - most} characters left out … {text[head - most :]}"


CHANNEL_CLOSED = (
    "the user process closed its connection to the worker "
    "(the script closes file descriptors that it did not open); it was killed"
)

CHANNEL_GARBLED = (
    "something else than answers came from the user process's connection to the worker "
    "(the script reads from or writes into file descriptors that it did not open); it was killed"
)

_END_LATE: dict[int, str] = {
    ProcessPhase.INIT: "the process did not end by itself after init() had failed; it was killed",
    ProcessPhase.SHUTDOWN: "shutdown() did not end in time; the process was killed",
    ProcessPhase.EXITING: "the process did not end in time after shutdown(): a thread that is not a daemon, an atexit "
    "function or a destructor holds it; it was killed",
}

_SIGNAL_HINTS = {
    signal.SIGKILL: "often the kernel's out-of-memory killer: see the memory limit of the job and dmesg",
    signal.SIGSEGV: "a crash in native code: see the stack in the process's stderr log",
    signal.SIGBUS: "a crash in native code, or a memory-mapped file that was cut or a full disk",
    signal.SIGABRT: "a library called abort(): see the process's stderr log",
    signal.SIGILL: "a library built for another processor",
    signal.SIGXCPU: "the CPU time limit",
    signal.SIGTERM: "somebody or the system asked it to end",
}


def ran_too_long(limit: float) -> str:
    """A sentence on a ``run()`` that took more than so many seconds."""
    return f"run() did not end within run_invocation_timeout ({limit:g} s)"


def describe_exit(code: int) -> str:
    """A sentence on how a process ended; ``code`` as ``subprocess`` gives it (negative: a signal)."""
    if code == CHANNEL_LOST_EXIT:
        return CHANNEL_CLOSED
    if code >= 0:
        return f"the user process exited with code {code} (os._exit, or a library that ends the process)"
    try:
        name = signal.Signals(-code).name
        hint = _SIGNAL_HINTS.get(signal.Signals(-code))
    except ValueError:
        name, hint = f"signal {-code}", None
    return f"the user process was killed by {name}" + (f" ({hint})" if hint else "")


def late_end(phase: int) -> str:
    """A sentence on a process that was to end and did not; ``phase`` is what it was doing."""
    return _END_LATE.get(phase, "the process did not end in time; it was killed")

"""What went wrong with an attempt, in a form that travels: user process → worker → master → journal.

Standard library only: the user process imports this module.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass
from typing import Any


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
    INIT = "init"
    """The script could not be imported, or ``init()`` raised, crashed or took longer than ``init_timeout``."""


@dataclass(frozen=True)
class Failure:
    """One failed attempt, or one failed start of a user process (``mini_batch`` is -1).

    Attributes:
        kind: why.
        message: one line.
        traceback: the user's own traceback, or the last lines of the process's log; may be empty.
        mini_batch: its number, from 0.
        attempt: the try that failed, from 1.
        process: number of the user process on its node, from 0.
        node: the node's name.
        seconds: how long the attempt had been running.
        log: the process's error log, where the whole story is.
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

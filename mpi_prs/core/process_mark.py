"""A process, named such that others can tell later whether it still lives. Standard library only, Python 3.7."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessMark:
    """One process of one machine; its number may be another's after it has ended, its start is not.

    Attributes:
        host: name of the machine.
        pid: its number there.
        started: when it began, in ticks since the machine did; with ``boot`` it tells two of a number apart.
        boot: names the time since the machine was started; empty where that is not known.
    """

    host: str
    pid: int
    started: int
    boot: str

    @classmethod
    def of_this_process(cls) -> ProcessMark:
        """That of the caller."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()) or 0, _boot())

    def is_alive(self) -> bool | None:
        """Whether it still runs; ``None``: it belongs to another machine, so that nobody can tell here."""
        if self.host != socket.gethostname():
            return None
        return self.boot == _boot() and _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    """``None``: there is no such process, or it has ended and nobody has asked how."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""

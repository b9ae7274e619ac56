"""The worker's end of the guard (see ``core/guard.py``)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from mpi_prs.core import guard
from mpi_prs.core.environ import PROCESS_FOLDER


class Guard:
    """A process that outlives this one just long enough to kill the user processes left behind."""

    def __init__(self, scratch: Path) -> None:
        command = [sys.executable, "-I", "-S", guard.__file__, str(scratch), PROCESS_FOLDER.name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", start_new_session=True)

    def add(self, group: int) -> None:
        """Watch over a process group."""
        self._tell(b"+%d\n" % group)

    def remove(self, group: int) -> None:
        """The group is gone."""
        self._tell(b"-%d\n" % group)

    def close(self) -> None:
        """Let it kill what is left, remove the scratch folder and end; wait for that."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # without its guard a worker still does its work
            self._process.stdin.write(line)
            self._process.stdin.flush()

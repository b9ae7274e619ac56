"""The logs of a run as one stream: which files there are, and what is new in them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpi_prs.core.errors import OutputError
from mpi_prs.core.files import end_of_text
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import printable

USER_STREAMS = ("stdout", "stderr", "error")
_LAST_LINES = 20
_PIECE = 1 << 16
_LAST_BYTES = 64 << 10


@dataclass(frozen=True)
class LogChoice:
    """Which logs.

    Attributes:
        job_id: the Slurm job whose log holds what the others would say without a process or a node; ``None``: there is
            no such job.
        process: a user process's stdout, stderr and errors, by its number on its node.
        node: those of one node alone; without a process, the program's own logs of that node.
    """

    job_id: str | None = None
    process: int | None = None
    node: str | None = None

    def files(self, run: RunDirectory) -> list[Path]:
        """The files that are there by now, in an order that stays."""
        anywhere = "*" if self.node is None else glob.escape(self.node)
        if self.process is not None:
            patterns = [_below(run, run.user_log(stream, "\0", self.process), anywhere) for stream in USER_STREAMS]
            return [path for pattern in patterns for path in _found(pattern)]
        if self.node is not None:
            return _found(_below(run, run.node_log("\0", "\1"), anywhere))
        if self.job_id is not None and (log := run.slurm_log(self.job_id)).exists():
            return [log]
        return [
            *(path for path in (run.progress_overview,) if path.exists()),
            *_found(_below(run, run.node_log("\0", "master"), anywhere)),
        ]

    def explain_nothing(self, run: RunDirectory) -> OutputError:
        """What to say where there is no such log."""
        if self.process is None and self.node is None:
            return OutputError(f"there is no log in {run.logs} yet: the run has not begun, or is listing its inputs")
        of = [f"process {self.process}"] if self.process is not None else []
        of += [f"node {self.node}"] if self.node is not None else []
        nodes = sorted(path.parent.name for path in _found(_below(run, run.node_log("\0", "\1"), "*")))
        known = f"the nodes are {', '.join(dict.fromkeys(nodes))}" if nodes else "no node has a log yet"
        return OutputError(f"there is no log of {' of '.join(of)} in {run.logs}; {known}")


def _below(run: RunDirectory, path: Path, node: str) -> str:
    """A pattern of the paths that are as ``path``, whose node is written NUL, and whose rank may be."""
    relative = str(path.relative_to(run.root))
    return str(Path(glob.escape(str(run.root)), relative.replace("\0", node).replace("\1", "*")))


def _found(pattern: str) -> list[Path]:
    return [Path(name) for name in sorted(glob.glob(pattern))]


def last_lines(path: Path, count: int = _LAST_LINES) -> list[str]:
    """The last lines of a log that are not empty, printable; of a log that is not there none."""
    lines = [line for line in end_of_text(path, _LAST_BYTES).splitlines() if line.strip()]
    return [printable(line, keep="\t") for line in lines[-count:]]


class Tail:
    """Reads on in files that others write; one that was replaced by a shorter one is read anew.

    Args:
        last_lines_only: begin with the last lines of what is there already.
    """

    def __init__(self, *, last_lines_only: bool) -> None:
        self._last_lines_only = last_lines_only
        self._offsets: dict[Path, int] = {}

    def new_in(self, path: Path) -> Iterator[bytes]:
        """What has come since the last time, in pieces. A file that has gone away has nothing."""
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                offset = self._offsets.get(path)
                if offset is None:
                    offset = _start_of_last_lines(file.fileno(), size) if self._last_lines_only else 0
                elif size < offset:
                    offset = 0
                file.seek(offset)
                while piece := file.read(_PIECE):
                    offset += len(piece)
                    yield piece
                self._offsets[path] = offset
        except FileNotFoundError:
            return

    def from_now_on_all(self) -> None:
        """Of files that appear later everything is new."""
        self._last_lines_only = False


def _start_of_last_lines(descriptor: int, size: int) -> int:
    """Where the last lines begin, at most a piece before the end."""
    begin = max(0, size - _PIECE)
    piece = os.pread(descriptor, size - begin, begin)
    at = len(piece)
    for _ in range(_LAST_LINES + 1):
        at = piece.rfind(b"\n", 0, at)
        if at < 0:
            return begin
    return begin + at + 1

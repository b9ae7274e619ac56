"""What is known of a user process, as plain data: its place, where it stands, and what it brought."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpi_prs.wire.failure import Failure


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
    RESTING = "resting"
    STOPPING = "stopping"
    GONE = "gone"


@dataclass
class Chunk:
    """Consecutive mini-batches at the same attempt: ``first`` … ``first + count - 1``."""

    first: int
    count: int
    attempt: int

    def __contains__(self, mini_batch: int) -> bool:
        return self.first <= mini_batch < self.first + self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.first + self.count))

    def without(self, mini_batch: int) -> list[Chunk]:
        """What is before one of them, and what behind it; at most two, of which none is empty."""
        before = Chunk(self.first, mini_batch - self.first, self.attempt)
        behind = Chunk(mini_batch + 1, self.first + self.count - mini_batch - 1, self.attempt)
        return [part for part in (before, behind) if part.count]


@dataclass
class News:
    """What a user process brought since it was last asked."""

    became_ready: bool = False
    rests: bool = False  # it gets nothing until it is ready again
    header: bytes | None = None  # the line above all rows
    records: list[bytes] = field(default_factory=list)  # of finished mini-batches, 48 bytes each, joined or not
    rows: list[bytes] = field(default_factory=list)  # their rows, in the same order
    finished: int = 0
    spilled: list[tuple[bytes, str]] = field(default_factory=list)  # record, path
    failures: list[Failure] = field(default_factory=list)  # of attempts
    items_failed: list[Failure] = field(default_factory=list)  # of single items of what is finished or spilled
    killed: str = ""  # why it has been condemned to be killed
    gone: bool = False
    init_failure: Failure | None = None
    unstarted: list[Chunk] = field(default_factory=list)  # was handed over, and is not the fault of what happened
    suspects: int = (
        0  # the first mini-batches of that which ran at once when the process died, and one may be the cause
    )

"""What is known of a user process, as plain data: its settings, its place, where it stands, and what it brought."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_prs.wire.failure import Failure


@dataclass(frozen=True)
class ProcessSettings:
    """What all user processes of a worker have in common.

    Attributes:
        interpreter: path of the Python that runs the script.
        entry_script, source_directory, arguments: see the job config.
        row_form: how rows are encoded, see :func:`~mpi_prs.child.rows.encoding.encode_rows`; ``None``: they are only
        counted.
        run_invocation_timeout, task_overhead_timeout, init_timeout: seconds.
        logging_level: of the root logger of the script.
        payloads, tables: what the mini-batches are made from, see :class:`~mpi_prs.inputs.manifest.Manifest`.
        node: this node's name.
        header: the file by which the processes of a run agree on the line with the column names.
        spill: folder for rows that are too large for a message.
    """

    interpreter: str
    entry_script: str
    source_directory: str
    arguments: Sequence[str]
    row_form: Mapping[str, Any] | None
    run_invocation_timeout: float
    task_overhead_timeout: float
    init_timeout: float
    logging_level: str
    payloads: str
    tables: bool
    node: str
    header: str
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
    gone: bool = False
    init_failure: Failure | None = None
    unstarted: list[Chunk] = field(default_factory=list)  # was handed over, and is not the fault of what happened

"""The journal as numpy columns: some ten thousand mini-batches at a time, for everything that is computed from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mpi_prs.core.errors import OutputError
from mpi_prs.output.journal import RECORD_TYPE, JournalEntry, LostItems, Results, read_journal
from mpi_prs.wire.parts import WAYS
from mpi_prs.wire.record import RECORD

GROUP = 1 << 14


@dataclass(frozen=True)
class Columns:
    """Finished mini-batches, in the order of the journal.

    Attributes:
        records: structured array; the fields are those of :class:`mpi_prs.wire.record.Record`. In place of a part there
            is the mini-batch that it is of.
        ways: 0, or which part of the mini-batch it is, int64; see :mod:`mpi_prs.wire.parts`.
        workers: the rank that had each, uint32.
        offsets: where the rows of each start in the file in order of arrival, uint64.
        nodes: rank → node, of the start that these are from.
    """

    records: Any
    ways: Any
    workers: Any
    offsets: Any
    nodes: dict[int, str]


class Listener(Protocol):
    """Somebody who computes something from a journal while it is read once for all of them: see :func:`listen`."""

    def take_columns(self, columns: Columns) -> None:
        """Some thousand finished mini-batches."""

    def take_lost(self, lost: LostItems, *, answered: bool) -> None:
        """Items that failed each for itself; ``answered``: they were named with an answer of the others."""

    def take_event(self, event: dict[str, Any]) -> None:
        """Anything else, in its order."""


def listen(journal: Path, *listeners: Listener, mini_batches: int | None = None) -> None:
    """Read a journal once, and tell every listener what is in it; cost and errors as of :func:`read_columns`.

    Args:
        mini_batches: how many the run has, where that is known; a journal that names another is refused.
    """
    for part in read_columns(journal):
        if mini_batches is not None:
            _check(part, mini_batches, journal)
        for listener in listeners:
            if isinstance(part, Columns):
                listener.take_columns(part)
            elif isinstance(part, JournalEntry):
                answered = part.results is not None and bool(part.results.records)
                for lost in part.lost:
                    listener.take_lost(lost, answered=answered)
            else:
                listener.take_event(part)


def _check(part: Columns | JournalEntry | dict[str, Any], mini_batches: int, journal: Path) -> None:
    if isinstance(part, Columns):
        numbers = part.records["mini_batch"]
    elif isinstance(part, JournalEntry):
        numbers = np.array([lost.mini_batch for lost in part.lost])
    else:
        numbers = np.array([part.get("mini_batch", 0)])
    if numbers.min() < 0 or numbers.max() >= mini_batches:
        raise OutputError(
            f"{journal} names a mini-batch that the run does not have, of {mini_batches}: it is not as it was written"
        )


def read_columns(journal: Path, group: int = GROUP) -> Iterator[Columns | JournalEntry | dict[str, Any]]:
    """The finished mini-batches in groups of about ``group``, entries with failed items, and the events as written.

    Events and items come in their order. Mini-batches come a little late, though never later than the next ``start`` or
    ``workers`` event. Costs about 3 µs a frame and 0.1 µs a mini-batch; memory: one group.

    Raises:
        OutputError, FileNotFoundError: see :func:`mpi_prs.output.journal.read_journal`.
    """
    nodes: dict[int, str] = {}
    frames: list[Results] = []
    waiting = 0
    for entry in read_journal(journal):
        if entry.lost:
            yield entry
        if entry.results is not None and entry.results.records:
            frames.append(entry.results)
            waiting += len(entry.results.records) // RECORD.size
            if waiting >= group:
                yield _columns(frames, nodes)
                frames, waiting = [], 0
        elif entry.event is not None:
            if entry.event["event"] in ("start", "workers") and frames:
                yield _columns(frames, nodes)
                frames, waiting = [], 0
            if entry.event["event"] == "workers":
                nodes = {int(rank): node for rank, node in entry.event["nodes"].items()}
            yield entry.event
    if frames:
        yield _columns(frames, nodes)


def _sane(records: Any) -> Any:
    """Records whose times can be shown; those of ours always can."""
    if all(((records[name] >= 0) & (records[name] <= most)).all() for name, most in _MOST.items()):
        return records
    records = records.copy()
    for name, most in _MOST.items():
        records[name] = np.clip(np.nan_to_num(records[name]), 0, most)
    return records


_MOST = {"started": 2.5e11, "run": 1e9, "overhead": 1e9}
"""Seconds: the year 9892, and 30 years."""


def _columns(frames: list[Results], nodes: dict[int, str]) -> Columns:
    records = _sane(np.frombuffer(b"".join(frame.records for frame in frames), RECORD_TYPE))
    ways = records["mini_batch"] // WAYS
    if ways.any():
        records = records.copy()
        records["mini_batch"] %= WAYS
    counts = [len(frame.records) // RECORD.size for frame in frames]
    before = np.cumsum(records["length"]) - records["length"]  # bytes of rows before each one, in this group
    firsts = np.cumsum([0, *counts[:-1]])
    starts = np.array([frame.offset for frame in frames], np.uint64) - before[firsts]
    workers = np.fromiter(
        chain.from_iterable(repeat(frame.worker, n) for frame, n in zip(frames, counts, strict=True)), np.uint32
    )
    return Columns(records, ways, workers, before + np.repeat(starts, counts), nodes)

"""Numbers about a run, computed from its journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpi_prs.monitor.columns import Columns, listen
from mpi_prs.output.journal import LostItems
from mpi_prs.wire.failure import FailureKind
from mpi_prs.wire.parts import is_part


@dataclass
class Work:
    """Mini-batches that were finished by somebody, or in some time.

    Attributes:
        mini_batches: how many.
        items: items of theirs that succeeded.
        run_seconds: spent in ``run()``.
        overhead_seconds: spent on making the mini-batches and encoding the rows.
    """

    mini_batches: int = 0
    items: int = 0
    run_seconds: float = 0.0
    overhead_seconds: float = 0.0

    @property
    def mean_run(self) -> float:
        """Seconds of ``run()`` for a mini-batch; 0 when there is none."""
        return self.run_seconds / self.mini_batches if self.mini_batches else 0.0

    def add(self, mini_batches: int, items: int, run_seconds: float, overhead_seconds: float) -> None:
        """Some more."""
        self.mini_batches += mini_batches
        self.items += items
        self.run_seconds += run_seconds
        self.overhead_seconds += overhead_seconds


@dataclass
class Start:
    """One start of the run.

    Attributes:
        work: what it finished.
        failures: attempts that failed, by kind.
        failed_seconds: how long these had been running, in all.
        first, last: when something was first and last heard of it, in seconds since 1970.
    """

    work: Work = field(default_factory=Work)
    failures: Counter[str] = field(default_factory=Counter)
    failed_seconds: float = 0.0
    first: float = float("inf")
    last: float = float("-inf")

    @property
    def elapsed(self) -> float:
        """Seconds from the first to the last that is known of it, however it ended."""
        return max(0.0, self.last - self.first)

    def saw(self, first: float, last: float) -> None:
        """Something of this start happened between these times."""
        self.first, self.last = min(self.first, first), max(self.last, last)


@dataclass
class Statistics:
    """The whole run, with all its starts.

    Attributes:
        failed: mini-batches that failed for good.
        items_failed: their items, those that failed each for itself, and those that ``run()`` did not return of others.
        items_alone: of these, those that failed each for itself.
        ended: attempts that were ended, because another one of the same mini-batch was done first.
        ended_seconds: how long these had run, for nothing.
        parts: calls of ``run()`` with a part of a mini-batch, done and failed.
        short: mini-batches, and parts, of which ``run()`` returned fewer rows than it got items.
        short_example: of the first of these: its number, the rows that came, and its items.
        rows_above: rows that ``run()`` returned beyond one an item.
        retried: failed attempts that were followed by another one.
        failures: attempts that failed, by kind (see :class:`mpi_prs.wire.failure.FailureKind`).
        total: all finished mini-batches, and parts of some.
        done: mini-batches that are finished, or a part of which is.
        nodes: what each node finished.
        workers: what each worker finished; the key is its node and its rank.
        starts: each start.
        lost_workers: how many workers were lost.
        failed_on_two_nodes: how many mini-batches have failed on two nodes or more.
        benched: node → why it got no more work, of the latest start.
        run_p50, run_p95, run_max: seconds of ``run()``: half of the mini-batches, 95 % of them, all took at most
            this; 0 when there is none.
    """

    failed: int = 0
    items_failed: int = 0
    items_alone: int = 0
    ended: int = 0
    ended_seconds: float = 0.0
    parts: int = 0
    short: int = 0
    short_example: tuple[int, int, int] | None = None
    rows_above: int = 0
    retried: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    total: Work = field(default_factory=Work)
    done: int = 0
    nodes: dict[str, Work] = field(default_factory=dict)
    workers: dict[tuple[str, int], Work] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    lost_workers: int = 0
    failed_on_two_nodes: int = 0
    benched: dict[str, str] = field(default_factory=dict)
    run_p50: float = 0.0
    run_p95: float = 0.0
    run_max: float = 0.0

    @property
    def latest(self) -> Start:
        """The latest start."""
        return self.starts[-1] if self.starts else Start()

    @property
    def elapsed(self) -> float:
        """Seconds of all starts."""
        return sum(start.elapsed for start in self.starts)


def read_statistics(journal: Path, items_of: Callable[[int], int]) -> Statistics:
    """Compute the statistics. About 0.2 µs a mini-batch and 3 µs a frame; memory: 8 bytes a mini-batch.

    Args:
        journal: the journal; it may still grow.
        items_of: the number of items of a mini-batch.

    Raises:
        OutputError, FileNotFoundError: see :func:`mpi_prs.output.journal.read_journal`.
    """
    reader = StatisticsReader(items_of)
    listen(journal, reader)
    return reader.finish()


class StatisticsReader:
    """Listens to a journal, and makes statistics of it; cost and memory as of :func:`read_statistics`."""

    def __init__(self, items_of: Callable[[int], int]) -> None:
        self._items_of = items_of
        self._statistics = Statistics()
        self._runs = bytearray()  # float32, seconds of every run()
        self._missing = 0  # items that finished mini-batches did not return
        self._items_of_failed = 0
        self._divided: set[int] = set()  # mini-batches of which a part is done or failed
        self._whole: set[int] = set()  # and of these, or others of which items failed, those that are counted as whole
        self._failed_on: dict[int, str] = {}  # mini-batch → node where it failed first; "": it has failed on two

    def take_columns(self, columns: Columns) -> None:
        statistics, records = self._statistics, columns.records
        runs, overheads = records["run"].astype(np.float64), records["overhead"].astype(np.float64)
        items = np.minimum(records["items"], records["returned"]).astype(np.int64)
        self._missing += int(records["items"].sum(dtype=np.int64) - items.sum())
        statistics.rows_above += int(records["returned"].sum(dtype=np.int64) - items.sum())
        if len(short := records[records["returned"] < records["items"]]):
            statistics.short += len(short)
            if statistics.short_example is None:
                statistics.short_example = tuple(short[0][["mini_batch", "returned", "items"]].tolist())
        self._runs += records["run"].tobytes()
        amounts = (len(records), int(items.sum()), float(runs.sum()), float(overheads.sum()))
        statistics.total.add(*amounts)
        if columns.ways.any():
            of_parts = columns.ways > 0
            self._divided.update(records["mini_batch"][of_parts].tolist())
            statistics.parts += int(of_parts.sum())
        statistics.done += int((columns.ways == 0).sum())
        start = self._start()
        start.work.add(*amounts)
        start.saw(float(records["started"].min()), float((records["started"] + runs).max()))
        ranks, indices, counts = np.unique(columns.workers, return_inverse=True, return_counts=True)
        sums = [np.bincount(indices, weights=values) for values in (items, runs, overheads)]
        for rank, mini_batches, got, run, overhead in zip(
            ranks.tolist(), counts.tolist(), *(values.tolist() for values in sums), strict=True
        ):
            node = columns.nodes.get(rank, "?")
            for work in (
                statistics.nodes.setdefault(node, Work()),
                statistics.workers.setdefault((node, rank), Work()),
            ):
                work.add(mini_batches, int(got), run, overhead)

    def take_lost(self, lost: LostItems, *, answered: bool) -> None:
        statistics = self._statistics
        statistics.items_alone += len(lost.at)
        if not is_part(lost.number):
            self._whole.add(lost.mini_batch)
            return
        self._divided.add(lost.mini_batch)
        if not answered:  # the call itself has failed
            statistics.parts += 1
            self._count_failure(lost.failure)

    def _count_failure(self, failure: Mapping[str, Any]) -> None:
        self._start().failures[failure["kind"]] += 1
        self._start().failed_seconds += failure["seconds"]
        self._statistics.failures[failure["kind"]] += 1

    def take_event(self, event: dict[str, Any]) -> None:
        statistics, name = self._statistics, event["event"]
        if name == "start":
            statistics.starts.append(Start())
            statistics.benched.clear()
        elif name in ("attempt_failed", "failed", "halved"):
            self._count_failure(event)
            if name == "halved" and is_part(event["part"]):
                statistics.parts += 1
            elif event["kind"] != FailureKind.WORKER_LOST.value:  # then nobody knows what it was
                self._note_node(event["mini_batch"], event["node"])
            if name == "failed":
                statistics.failed += 1
                self._items_of_failed += self._items_of(event["mini_batch"])
            elif name == "attempt_failed":
                statistics.retried += 1
        elif name == "reopened":
            statistics.failed = statistics.items_alone = self._items_of_failed = 0
        elif name == "attempt_ended":
            statistics.ended += 1
            statistics.ended_seconds += event["seconds"]
        elif name == "worker_lost":
            statistics.lost_workers += 1
        elif name == "benched":
            statistics.benched[event["node"]] = event["why"]
        elif name == "taken_back":
            statistics.benched.pop(event["node"], None)
        if "time" in event and name != "reopened":  # that one comes before the start that it belongs to
            self._start().saw(event["time"], event["time"])

    def _note_node(self, mini_batch: int, node: str) -> None:
        if self._failed_on.setdefault(mini_batch, node) not in (node, ""):
            self._failed_on[mini_batch] = ""
            self._statistics.failed_on_two_nodes += 1

    def _start(self) -> Start:
        if not self._statistics.starts:
            self._statistics.starts.append(Start())
        return self._statistics.starts[-1]

    def finish(self) -> Statistics:
        """The whole run."""
        statistics = self._statistics
        statistics.items_failed = self._missing + self._items_of_failed + statistics.items_alone
        statistics.done += len(self._divided - self._whole)
        runs = np.frombuffer(self._runs, np.float32)
        if len(runs):
            half, most = ((len(runs) * percent + 99) // 100 - 1 for percent in (50, 95))
            ordered = np.partition(runs, (half, most))
            statistics.run_p50, statistics.run_p95 = float(ordered[half]), float(ordered[most])
            statistics.run_max = float(runs.max())
        return statistics

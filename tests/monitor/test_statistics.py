"""The statistics equal what a plain loop computes, over any course of a run."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.monitor.statistics import Statistics, Work, read_statistics
from mpi_prs.wire.failure import FailureKind
from mpi_prs.wire.record import Record
from tests.monitor.test_columns import T0, Writer, record

NODES = {1: "n1", 2: "n1", 3: "n2"}


def items_of(mini_batch: int) -> int:
    return mini_batch % 5 + 1


def nearest_rank(values: Sequence[float], percent: int) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1] if values else 0.0


RECORDS = st.builds(
    record,
    mini_batch=st.integers(0, 1000),
    items=st.integers(1, 20),
    returned=st.integers(0, 25),
    started=st.floats(T0, T0 + 1000),
    run=st.floats(0, 100, width=32),
    overhead=st.floats(0, 1, width=32),
)
STEPS = st.one_of(
    st.tuples(st.just("finish"), st.sampled_from(sorted(NODES)), st.lists(RECORDS, min_size=1, max_size=4)),
    st.tuples(st.just("fail"), st.integers(0, 1000), st.sampled_from(FailureKind), st.booleans()),
    st.just(("start",)),
    st.just(("reopen",)),
)


def naive(steps: Sequence[tuple[Any, ...]]) -> tuple[Statistics, list[float]]:
    known = Statistics()
    missing = failed_items = 0
    runs: list[float] = []
    latest: list[Record] = []
    for step in steps:
        if step[0] == "start":
            latest = []
        elif step[0] == "reopen":
            known.failed = failed_items = 0
        elif step[0] == "fail":
            _, mini_batch, kind, final = step
            known.failures[kind.value] += 1
            known.failed += final
            known.retried += not final
            failed_items += items_of(mini_batch) if final else 0
        else:
            _, worker, records = step
            latest += records
            for one in records:
                runs.append(one.run)
                missing += max(0, one.items - one.returned)
                for work in (
                    known.total,
                    known.nodes.setdefault(NODES[worker], Work()),
                    known.workers.setdefault((NODES[worker], worker), Work()),
                ):
                    work.add(1, min(one.items, one.returned), one.run, one.overhead)
    known.items_failed = missing + failed_items
    return known, [one.run for one in latest]


def assert_same_work(found: Work, expected: Work) -> None:
    assert (found.mini_batches, found.items) == (expected.mini_batches, expected.items)
    assert found.run_seconds == pytest.approx(expected.run_seconds)
    assert found.overhead_seconds == pytest.approx(expected.overhead_seconds)


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=30))
def test_the_statistics_are_those_of_a_plain_loop(steps: Sequence[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder, "journal"))
        writer.start(NODES)
        for step in steps:
            if step[0] == "start":
                writer.start(NODES)
            elif step[0] == "reopen":
                writer.reopen()
            elif step[0] == "fail":
                writer.fail(step[1], kind=step[2], final=step[3], seconds=2.0)
            else:
                writer.finish(step[1], *step[2])
        found = read_statistics(writer.close(), items_of)
    expected, latest_runs = naive(steps)
    runs = [one.run for step in steps if step[0] == "finish" for one in step[2]]
    assert (found.failed, found.items_failed, found.retried) == (
        expected.failed,
        expected.items_failed,
        expected.retried,
    )
    assert found.failures == expected.failures
    assert_same_work(found.total, expected.total)
    assert found.nodes.keys() == expected.nodes.keys()
    for node, work in expected.nodes.items():
        assert_same_work(found.nodes[node], work)
    assert found.workers.keys() == expected.workers.keys()
    for worker, work in expected.workers.items():
        assert_same_work(found.workers[worker], work)
    assert found.run_p50 == nearest_rank(runs, 50)
    assert found.run_p95 == nearest_rank(runs, 95)
    assert found.run_max == max(runs, default=0.0)
    assert len(found.starts) == 1 + sum(step[0] == "start" for step in steps)
    assert found.latest.work.mini_batches == len(latest_runs)
    assert found.latest.work.run_seconds == pytest.approx(sum(latest_runs))


def test_a_killed_start_lasted_as_long_as_something_is_known_of_it(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal")
    writer.start(NODES, time=T0)
    writer.finish(1, record(0, started=T0 + 10, run=5))
    writer.fail(1, final=False, time=T0 + 12)
    writer.reopen()  # belongs to the next start, whatever its time
    writer.start(NODES, time=T0 + 1000)
    writer.fail(1, time=T0 + 1003, seconds=2.5)
    found = read_statistics(writer.close(), items_of)
    assert [start.elapsed for start in found.starts] == [15, 3]
    assert found.elapsed == 18
    assert (found.latest.failures, found.latest.failed_seconds) == (Counter(exception=1), 2.5)


def test_lost_workers_are_counted(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal")
    writer.start(NODES)
    writer.journal.event("worker_lost", worker=1, node="n1", why="gone", time=T0)
    assert read_statistics(writer.close(), items_of).lost_workers == 1


def test_a_mini_batch_that_failed_on_two_nodes_counts_once(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal")
    writer.start(NODES)
    for node in ("n1", "n2", "n3", "n1"):
        writer.fail(1, final=False, node=node)
        writer.fail(2, final=False, node="n1")
        writer.fail(3, final=False, node=node, kind=FailureKind.WORKER_LOST)
    assert read_statistics(writer.close(), items_of).failed_on_two_nodes == 1


def test_the_nodes_that_are_benched_are_those_of_the_latest_start(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal")
    for nodes in (["n1"], ["n2", "n3"]):
        writer.start(NODES)
        for node in nodes:
            writer.journal.event("benched", node=node, why="it is sick", time=T0)
    writer.journal.event("taken_back", node="n3", why="no other is left", time=T0)
    assert read_statistics(writer.close(), items_of).benched == {"n2": "it is sick"}


def test_nothing_divided_by_nothing_is_nothing(tmp_path: Path) -> None:
    found = read_statistics(Writer(tmp_path / "journal").close(), items_of)
    assert (found.total.mean_run, found.run_p50, found.elapsed, found.latest.elapsed) == (0, 0, 0, 0)

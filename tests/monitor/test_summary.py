"""What the summary says of a start, and the one line of advice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.advice import Conditions, advice, busy, slowest
from mpi_prs.monitor.statistics import Start, Statistics, Work, read_statistics
from mpi_prs.monitor.summary import Summary, summarise
from tests.monitor.test_columns import Writer, record

WELL = Conditions(wall_seconds=100.0, init_seconds=2.0, processes=8, run_invocation_timeout=60.0, mini_batch_size=10)


def work(mini_batches: int, mean_run: float, items: int = 10) -> Work:
    return Work(mini_batches, mini_batches * items, mini_batches * mean_run, 0.0)


def statistics(mini_batches: int = 800, mean_run: float = 0.9, **fields: object) -> Statistics:
    """A run in which all went well, but for the fields that are given."""
    known = Statistics(
        total=work(mini_batches, mean_run),
        done=mini_batches,
        nodes={"n1": work(mini_batches // 2, mean_run), "n2": work(mini_batches // 2, mean_run)},
        workers={("n1", 1): work(mini_batches // 2, mean_run), ("n2", 2): work(mini_batches // 2, mean_run)},
        starts=[Start(work=work(mini_batches, mean_run))],
        run_p50=mean_run,
        run_p95=mean_run,
        run_max=mean_run,
    )
    return replace(known, **fields)  # type: ignore[arg-type]


# Advice


def test_all_well_is_no_advice() -> None:
    assert advice(statistics(), WELL) is None


def test_a_run_without_a_single_mini_batch_is_no_advice() -> None:
    assert advice(Statistics(), replace(WELL, processes=0, wall_seconds=0.0)) is None


@pytest.mark.parametrize(
    ("known", "conditions", "expected"),
    [
        # 0.2 ms an item, plenty of items: a second of work
        (statistics(80_000, 0.002), WELL, "take 2 ms or less: make them larger, such as mini_batch_size: 5000"),
        # 0.2 ms an item, few items: four mini-batches for each process
        (statistics(400, 0.002), WELL, "mini_batch_size: 120"),
        (
            statistics(nodes={"n1": work(50, 0.2), "n2": work(50, 0.2), "n3": work(50, 0.5)}),
            WELL,
            "node n3 is 2.5 times as slow as the others (run() takes 500 ms there)",
        ),
        (
            statistics(workers={("n1", 1): work(50, 0.2), ("n1", 2): work(50, 0.8)}),
            WELL,
            "worker 2 on n1 is 4.0 times as slow as the others",
        ),
        (statistics(run_p95=50.0), WELL, "run_invocation_timeout is 1 min: raise it"),
        (
            statistics(starts=[Start(work=work(800, 0.9), failures=Counter(timeout=2))]),
            WELL,
            "2 attempts took longer than run_invocation_timeout (1 min)",
        ),
        (
            statistics(starts=[Start(work=work(800, 0.9), failures=Counter({"overhead timeout": 1}))]),
            WELL,
            "1 attempt took longer than task_overhead_timeout",
        ),
        (
            statistics(100),
            replace(WELL, init_seconds=60.0),
            "busy 11 % of the time, and the first init() took 1 min",
        ),
        (
            statistics(6),
            replace(WELL, wall_seconds=1.0, init_seconds=0.1),
            "2 of 8 user processes had nothing to do, for there were fewer mini-batches than processes: "
            "use a smaller mini_batch_size",
        ),
        (statistics(7), replace(WELL, mini_batch_size=1, wall_seconds=1.0, init_seconds=0.0), "use fewer processes"),
    ],
)
def test_what_is_off_is_said(known: Statistics, conditions: Conditions, expected: str) -> None:
    assert expected in (advice(known, conditions) or "")


@pytest.mark.parametrize(
    ("known", "conditions"),
    [
        (statistics(400, 0.002), replace(WELL, mini_batch_size=100)),  # no size would be much better
        (statistics(workers={("n1", 1): work(50, 0.2), ("n1", 2): work(4, 0.8)}), WELL),  # too few to say
        (statistics(workers={("n1", 1): work(50, 1e-4), ("n1", 2): work(50, 1e-3)}), WELL),  # noise
        (statistics(run_p95=47.0), WELL),
        (statistics(starts=[Start(failures=Counter(timeout=9)), Start(work=work(800, 0.9))]), WELL),  # long ago
        (statistics(100), replace(WELL, init_seconds=20.0)),
        (statistics(100, 0.01), replace(WELL, wall_seconds=0.5, init_seconds=0.3)),  # not worth a word
        (statistics(8), replace(WELL, wall_seconds=1.0, init_seconds=0.0)),
    ],
)
def test_what_is_no_trouble_is_no_advice(known: Statistics, conditions: Conditions) -> None:
    assert advice(known, conditions) is None


def test_short_mini_batches_come_first() -> None:
    known = statistics(80_000, 0.002, run_p95=59.0, nodes={"n1": work(50, 0.2), "n2": work(50, 0.8)})
    assert "make them larger" in (advice(known, WELL) or "")


def test_failed_attempts_keep_a_process_busy_too() -> None:
    known = statistics(starts=[Start(work=work(100, 2.0), failed_seconds=200.0)])
    assert busy(known, WELL) == pytest.approx(0.5)
    assert busy(known, replace(WELL, processes=0)) is None


def test_the_slowest_is_measured_against_the_median_of_the_others() -> None:
    found = slowest({"a": work(9, 1.0), "b": work(9, 1.0), "c": work(9, 3.0), "d": work(9, 9.0), "e": work(1, 99.0)})
    assert found is not None
    assert (found.name, found.mean_run, found.ratio) == ("d", 9.0, 9.0)
    assert slowest({"a": work(9, 1.0)}) is None
    assert slowest({"a": work(9, 0.0), "b": work(9, 0.0)}) is not None


# The text


def summary(known: Statistics, directory: RunDirectory, **changes: object) -> Summary:
    arguments = {
        "wall_seconds": 100.0,
        "init_seconds": 2.0,
        "processes": 8,
        "run_invocation_timeout": 60.0,
        "mini_batch_size": 10,
        "size_unit": "",
        "phase": "complete",
        "reason": "",
        "exit_code": 0,
        "directory": directory,
        "output_file": "rows.txt",
    }
    return summarise(known, **{**arguments, **changes})  # type: ignore[arg-type]


def test_the_summary_of_a_good_run(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_bytes(b"x" * 12_000)
    text = summary(statistics(), RunDirectory(tmp_path)).text()
    assert text.split("\n") == [
        "complete (exit code 0)",
        "  items         8 000 ok, 0 failed",
        "  mini-batches  800 ok, 0 failed, 0 retried",
        "  wall time     1 min 40 s, the first init() done after 2 s",
        "  processes     8, busy 90 % of the time",
        "  throughput    80 items/s",
        "  run()         p50 900 ms, p95 900 ms, longest 900 ms",
        f"  output        {tmp_path}/rows.txt (12 kB)",
        f"  logs          {tmp_path}/_run/logs",
    ]


def test_the_summary_of_a_run_that_was_stopped_shows_the_growing_output_and_what_failed(tmp_path: Path) -> None:
    (tmp_path / "rows.txt.part").write_bytes(b"x")
    starts = [Start(first=1000.0, last=1050.0), Start()]
    known = statistics(starts=starts, items_failed=13, failed=2, retried=5, lost_workers=1)
    found = summary(known, RunDirectory(tmp_path), phase="drained", reason="stopped by a signal", exit_code=75)
    text = found.text()
    assert text.startswith("stopped early: stopped by a signal (exit code 75)\n")
    for line in (
        "items         8 000 ok, 13 failed",
        "mini-batches  800 ok, 2 failed, 5 retried",
        "this start    0 items ok in 0 mini-batches\n",
        "; 2 min 30 s in all 2 starts\n",
        "lost workers  1\n",
        f"{tmp_path}/rows.txt.part (1 byte)",
        f"failed items  {tmp_path}/_run/failed_items.jsonl",
    ):
        assert line in text
    assert "throughput" not in text


def test_the_summary_names_sick_nodes_and_counts_what_failed_on_two(tmp_path: Path) -> None:
    known = statistics(benched={"n1": "5 failed there", "n2": "init() failed"}, failed_on_two_nodes=3)
    text = summary(known, RunDirectory(tmp_path)).text()
    for line in (
        "benched nodes n1: 5 failed there; n2: init() failed\n",
        "on two nodes  3 mini-batches failed on two nodes: look at the data rather than at the nodes\n",
        "advice        leave out what was benched (--exclude=n1,n2 for",
    ):
        assert line in text


def test_the_summary_says_where_rows_and_items_differ_in_number(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal")
    writer.start({1: "n1"})
    writer.finish(1, record(0), record(1, items=5, returned=1), record(2, items=2, returned=9))
    text = summary(read_statistics(writer.path, lambda _: 5), RunDirectory(tmp_path)).text()
    assert "more rows     7 more than items\n" in text
    assert (
        f"too few rows  run() returned 1 row for 5 items in mini-batch 1, and too few in 1 mini-batch in all: "
        f"mpi-prs failed {tmp_path}\n"
    ) in text


def test_a_job_that_went_through_everything_and_got_nothing_has_failed(tmp_path: Path) -> None:
    found = summary(Statistics(), RunDirectory(tmp_path), reason="no item has succeeded", exit_code=1, processes=0)
    assert found.text().split("\n") == [
        "failed: no item has succeeded (exit code 1)",
        "  items         0 ok, 0 failed",
        "  mini-batches  0 ok, 0 failed, 0 retried",
        "  wall time     1 min 40 s, the first init() done after 2 s",
        f"  logs          {tmp_path}/_run/logs",
    ]


def test_the_summary_follows_the_journal(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "journal")
    writer.start({1: "n1", 2: "n2"})
    for number in range(10):
        writer.finish(1, record(number, run=0.1))
        writer.finish(2, record(100 + number, run=0.3, returned=9))
    writer.fail(7)
    found = summary(read_statistics(writer.close(), lambda _: 10), RunDirectory(tmp_path), output_file=None)
    text = found.text()
    assert "items         190 ok, 20 failed" in text
    assert "slowest node  n2: run() takes 300 ms, 3 × the others" in text
    assert "advice        node n2 is 3.0 times as slow" in text
    assert "output  " not in text

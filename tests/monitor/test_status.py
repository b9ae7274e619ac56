"""``status.json`` and what ``status`` says of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.core.errors import OutputError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.status import Status, iso_time, read_status, run_directory_of, status_text, write_status

T0 = 1_700_000_000.0


def a_status(**changes: Any) -> Status:
    """A run in full swing, but for the changes."""
    status = Status(
        phase="running",
        reason="",
        mini_batches=4000,
        mini_batches_done=411,
        mini_batches_failed=1,
        items=40_000,
        items_done=4110,
        items_failed=10,
        retried=2,
        failed_on_two_nodes=0,
        mini_batches_per_second=81.2,
        items_per_second=812.0,
        eta_seconds=72.0,
        elapsed_seconds=6.5,
        workers=4,
        nodes=2,
        benched_nodes=[],
        processes=8,
        processes_ready=7,
        output="/out",
        output_bytes=12_000_000,
        started=iso_time(T0 - 6),
        updated=iso_time(T0),
        pid=123,
        host="n1",
        slurm_job_id=None,
        exit_code=None,
    )
    return replace(status, **changes)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "out")
    directory.root.mkdir(parents=True)
    return directory


def said(run: RunDirectory, now: float = T0 + 1, **changes: Any) -> list[str]:
    write_status(run.status, a_status(**changes))
    return status_text(run, now).split("\n")


def test_a_status_comes_back(run: RunDirectory) -> None:
    status = a_status(slurm_job_id="17", exit_code=75, reason="bytes \udce9")
    assert write_status(run.status, status)
    assert read_status(run.status) == status
    assert [path.name for path in run.root.iterdir()] == ["status.json"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"phase": 3}'])
def test_what_is_no_status_is_no_status(run: RunDirectory, content: bytes) -> None:
    run.status.write_bytes(content)
    assert read_status(run.status) is None


def test_a_status_of_a_wrong_type_is_no_status(run: RunDirectory) -> None:
    write_status(run.status, a_status())
    known = json.loads(run.status.read_text())
    for wrong in ({"mini_batches": "many"}, {"benched_nodes": "n1"}, {"benched_nodes": [1]}):
        run.status.write_text(json.dumps({**known, **wrong}))
        assert read_status(run.status) is None


def test_a_status_of_another_run_is_no_status(run: RunDirectory) -> None:
    run.description.write_text('{"id": "this"}')
    for name, is_ours in {"this": True, "that": False, "": True}.items():
        write_status(run.status, a_status(run=name))
        assert (read_status(run.status) is not None) == is_ours


def test_a_status_that_cannot_be_written_is_no_error(run: RunDirectory) -> None:
    (run.root / "file").touch()
    assert not write_status(run.root / "file" / "status.json", a_status())


def test_a_run_under_way(run: RunDirectory) -> None:
    assert said(run, slurm_job_id="17") == [
        "running",
        "[####------------------------------------] 10 %",
        "items         4 110 of 40 000, 10 failed",
        "mini-batches  411 of 4 000, 1 failed",
        "tried again   2 attempts",
        "rate          812 items/s",
        "time left     about 1 min 12 s",
        "processes     7 of 8 ready, 4 workers on 2 nodes",
        "output        /out (12 MB of rows)",
        "time          6.5 s since 2023-11-14T22:13:14+00:00",
        "master        process 123 on n1, Slurm job 17",
        "last sign     1 s ago",
    ]


def test_sick_nodes_and_bad_data_are_shown(run: RunDirectory) -> None:
    lines = said(run, benched_nodes=["n3", "n\x1b7"], failed_on_two_nodes=1)
    assert lines[5:7] == [
        "on two nodes  1 mini-batch failed on two nodes: look at the data rather than at the nodes",
        "benched nodes n3, n\\x1b7",
    ]


def test_what_is_waited_for_stands_first(run: RunDirectory) -> None:
    lines = said(run, reason="waiting for init() of 8 processes", items_per_second=None, eta_seconds=None, retried=0)
    assert lines[0] == "running: waiting for init() of 8 processes"
    assert not any(line.startswith(("rate", "time left", "tried")) for line in lines)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"phase": "complete", "exit_code": 0}, "complete"),
        ({"phase": "complete", "exit_code": 1, "reason": "no item has succeeded"}, "failed: no item has succeeded"),
        ({"phase": "drained", "exit_code": 75, "reason": "by a signal"}, "stopped early: by a signal"),
        ({"phase": "stopped", "reason": "see the log"}, "stopped: see the log"),
    ],
)
def test_a_run_that_has_ended_says_how_and_is_not_missed(
    run: RunDirectory, changes: dict[str, Any], expected: str
) -> None:
    lines = said(run, now=T0 + 9999, **changes)
    assert lines[0] == expected
    assert lines[-1] == "last sign     2 h 47 min ago"
    assert not any(line.startswith(("rate", "time left", "processes")) for line in lines)


def test_a_run_that_was_killed_is_recognised_by_its_silence(run: RunDirectory) -> None:
    assert said(run, now=T0 + 60)[-1] == "last sign     1 min ago"
    assert said(run, now=T0 + 200)[-1] == (
        "no sign of life for 3 min 20 s: the run was probably killed; the same command resumes it"
    )


def test_a_silent_run_with_nothing_left_may_be_putting_its_output_together(run: RunDirectory) -> None:
    assert "the output is being put together, or" in said(run, now=T0 + 200, mini_batches_done=3999)[-1]


def test_a_run_without_a_status_says_so(run: RunDirectory) -> None:
    assert status_text(run, T0).startswith(f"no status yet in {run.status}")


def test_a_run_is_found_by_its_output_folder_or_its_run_directory(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_directory_of(run.output) == run
    assert run_directory_of(run.root) == run
    monkeypatch.chdir(run.root)
    assert run_directory_of(Path(".")) == run
    assert run_directory_of(Path("..")) == run


def test_where_there_is_no_run_the_message_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"no run in {tmp_path}: expected the folder {tmp_path}/_run"):
        run_directory_of(tmp_path)
    with pytest.raises(OutputError, match="no run in"):
        run_directory_of(tmp_path / "_run")


@pytest.mark.parametrize(
    "content", [b"[" * 10**5, b'{"phase": "running", "elapsed_seconds": NaN}', b"1e999", b"\0", None]
)
def test_a_status_that_nobody_of_us_has_written_is_said_to_be_damaged(run: RunDirectory, content: bytes | None) -> None:
    run.root.mkdir(exist_ok=True)
    run.status.unlink(missing_ok=True)
    os.mkfifo(run.status) if content is None else run.status.write_bytes(content)

    assert status_text(run, T0).startswith(f"{run.status} cannot be read: it is damaged")


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_no_status(run: RunDirectory, number: str) -> None:
    said(run)
    run.status.write_text(run.status.read_text().replace('"elapsed_seconds": ', f'"elapsed_seconds": {number}, "x": '))

    assert read_status(run.status) is None

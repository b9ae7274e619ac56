"""``logs``: which files are shown, and how it follows files that others write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.logs import LogChoice, Tail
from tests.support.jobs import Job, wait_until

LOGS = [sys.executable, "-m", "mpi_prs", "logs"]
SCRIPT = """
import os, pathlib, sys, time

def run(mini_batch):
    print("working on", os.path.basename(mini_batch[0]), flush=True)
    while not pathlib.Path(__file__).with_name("go").exists():
        time.sleep(0.01)
    return mini_batch
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path)
    paths = [run.progress_overview, run.slurm_log("7")]
    for node in ("n1", "n2"):
        paths += [run.node_log(node, name) for name in ("master", "worker1")]
        paths += [run.user_log(stream, node, process) for stream in ("stdout", "stderr") for process in (0, 12)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.name}\n")
    return run


# Which files


def test_by_default_the_progress_and_the_log_of_each_master_are_shown(run: RunDirectory) -> None:
    masters = [run.node_log("n1", "master"), run.node_log("n2", "master")]
    assert LogChoice().files(run) == [run.progress_overview, *masters]


def test_the_log_of_a_slurm_job_has_all_that_and_what_the_launcher_said(run: RunDirectory) -> None:
    assert LogChoice(job_id="7").files(run) == [run.slurm_log("7")]
    assert run.progress_overview in LogChoice(job_id="8").files(run)


def test_of_a_process_all_its_streams_are_shown(run: RunDirectory) -> None:
    streams = [run.user_log(stream, "n2", 12) for stream in ("stdout", "stderr")]
    assert LogChoice("7", process=12, node="n2").files(run) == streams
    assert len(LogChoice(process=12).files(run)) == 4
    assert LogChoice(process=1).files(run) == []


def test_of_a_node_the_programs_own_logs_are_shown(run: RunDirectory) -> None:
    assert LogChoice("7", node="n1").files(run) == [run.node_log("n1", "master"), run.node_log("n1", "worker1")]


@pytest.mark.parametrize("node", ["*", "n?", "../n1"])
def test_a_node_that_does_not_exist_has_no_logs_whatever_it_is_called(run: RunDirectory, node: str) -> None:
    assert LogChoice(node=node).files(run) == []


def test_where_nothing_is_found_the_nodes_are_named(run: RunDirectory) -> None:
    assert "no log of process 3 of node n9" in str(LogChoice(process=3, node="n9").explain_nothing(run))
    assert "the nodes are n1, n2" in str(LogChoice(node="n9").explain_nothing(run))


# Following


def read(tail: Tail, path: Path) -> bytes:
    return b"".join(tail.new_in(path))


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_what_others_append_is_read_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("logs") / "log"
    tail, seen = Tail(last_lines_only=False), b""
    for piece in pieces:
        with open(path, "ab") as file:
            file.write(piece)
        seen += read(tail, path)
        assert read(tail, path) == b""
    assert seen == b"".join(pieces)


def test_following_begins_with_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(100)))
    tail = Tail(last_lines_only=True)
    assert read(tail, path).split(b"\n")[0] == b"line 80"
    tail.from_now_on_all()
    (tmp_path / "later").write_bytes(b"x\n" * 50)
    assert read(tail, tmp_path / "later").count(b"\n") == 50


@pytest.mark.parametrize("text", [b"", b"no end", b"a\nb", b"\n\n", b"x" * 200_000])
def test_a_file_of_few_lines_is_shown_from_its_beginning(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(text)
    assert text.endswith(read(Tail(last_lines_only=True), path))
    if len(text) < 1000:
        assert read(Tail(last_lines_only=True), path) == text


def test_a_file_that_was_replaced_is_read_anew_and_one_that_is_gone_is_no_error(tmp_path: Path) -> None:
    path, tail = tmp_path / "log", Tail(last_lines_only=False)
    path.write_bytes(b"long before\n")
    assert read(tail, path) == b"long before\n"
    path.write_bytes(b"new\n")
    assert read(tail, path) == b"new\n"
    path.unlink()
    assert read(tail, path) == b""


# The command


def test_logs_are_followed_until_the_run_ends(new_job: Callable[..., Job]) -> None:
    job = new_job(SCRIPT, 8)
    running = job.start_local(processes=1)  # another process might take all there is
    wait_until(lambda: "working on" in job.log("stdout"))
    output = str(job.directory.output)
    follower = job.start([*LOGS, output, "--follow"])
    process = job.finish(job.start([*LOGS, output, "--process", "0"]))
    assert process.returncode == 0
    assert "working on item-" in process.stdout
    assert follower.poll() is None
    (job.folder / "go").touch()
    assert job.finish(running).returncode == 0
    followed = job.finish(follower)
    assert followed.returncode == 0
    assert "2 of 2 mini-batches (100 %)" in followed.stdout
    assert f"==> {job.directory.progress_overview} <==" in followed.stdout


def test_logs_that_are_not_there_are_an_error_that_says_where_one_may_look(new_job: Callable[..., Job]) -> None:
    job = new_job(SCRIPT, 4)
    (job.folder / "go").touch()
    assert job.local().returncode == 0
    done = job.finish(job.start([*LOGS, str(job.directory.output), "--process", "99"]))
    assert done.returncode == 2
    assert "there is no log of process 99 in" in done.stdout
    assert "the nodes are" in done.stdout

"""Damaged files kill, or keep busy, a reader process; they cost their own mini-batches, and no rank."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.core.errors import InputError, MpiPrsError
from mpi_prs.inputs.datasets import InputTable
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.reader import process as reader_process
from mpi_prs.inputs.reader.process import ReaderLost, ReaderProcess
from mpi_prs.inputs.reader.survey import plan_apart
from mpi_prs.inputs.reader.tables import TableLoader
from mpi_prs.storage.credentials import Storage
from tests.inputs.test_planning import manifest_of
from tests.support.jobs import REPOSITORY, Job, Mpi, assert_every_row_once, wait_until

NewJob = Callable[..., Job]

SCRIPT = """
def run(mini_batch):
    return mini_batch["text"].tolist()
"""
HARMFUL = """
import os, sys, threading
if any(argument.endswith("reader/serving.py") for argument in sys.orig_argv):
    from mpi_prs.inputs.formats.format import LocalFiles
    opened = LocalFiles.open
    def harmful(self, path):
        what = os.path.basename(path).partition("-")[0]
        surveys = threading.current_thread() is threading.main_thread()
        if what == "abort" and not surveys or what == "surveyed":
            os.write(2, b"terminate called after throwing an instance of 'Damage'\\n")
            os.abort()
        if what == "exit" and not surveys:
            os._exit(3)
        if what == "once" and surveys and not os.path.exists(path + ".seen"):
            open(path + ".seen", "w").close()
            os.abort()
        while what == "loop" and not surveys or what == "endless":
            pass
        return opened(self, path)
    LocalFiles.open = harmful
"""
"""What stands in for faults of a library: the name of a file says what reading it does to the process."""


@pytest.fixture
def table_job(new_job: NewJob) -> Callable[..., Job]:
    """Makes a job over sound files and harmful ones."""

    def make(*harmful: str, sound: int = 8, **settings: Any) -> Job:
        settings = {"mini_batch_size": "10KB", "inputs": [{"table": "in/*.csv"}], "run_max_try": 2, **settings}
        job = new_job(SCRIPT, items=0, **settings)
        job.names += [f"row{number}" for number in range(sound)]
        for name in [*(f"sound-{number}" for number in range(sound)), *harmful]:
            number = name.rpartition("-")[2]
            (job.folder / "in" / f"{name}.csv").write_text(f"id,text\n{number},row{number}\n")
        (job.folder / "sitecustomize.py").write_text(HARMFUL)
        job.environment["PYTHONPATH"] = f"{job.folder}:{REPOSITORY}"
        return job

    return make


def failures(job: Job) -> dict[str, str]:
    """Name of a file → why it has failed."""
    lines = map(json.loads, job.directory.failed_items.read_text().splitlines())
    return {Path(line["item"].partition(",")[0]).stem: line["message"] for line in lines}


@pytest.mark.job
def test_files_that_kill_the_reader_process_cost_their_own_mini_batches_alone(table_job: Callable[..., Job]) -> None:
    job = table_job("abort-1", "abort-2", "exit-3")
    done = job.local(processes=3)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert_harm_is_told(job)


@pytest.mark.mpi
def test_no_rank_dies_of_a_file(table_job: Callable[..., Job], mpi: Mpi) -> None:
    job = table_job("abort-1", "abort-2", "exit-3", processes_per_rank=2)
    done = job.under(mpi)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert_harm_is_told(job)


def assert_harm_is_told(job: Job) -> None:
    reasons = failures(job)
    assert reasons.keys() == {"abort-1", "abort-2", "exit-3"}
    abort = reasons["abort-1"]
    assert abort.startswith(
        f"{job.folder}/in/abort-1.csv, bytes 8 to 14: the process that read it was killed by SIGABRT"
    )
    assert "terminate called after throwing an instance of 'Damage'" in abort
    assert "the file is damaged" in abort
    assert "ended with exit code 3" in reasons["exit-3"]


@pytest.mark.job
def test_a_file_that_is_read_for_ever_fails_alone(table_job: Callable[..., Job]) -> None:
    job = table_job("loop-1", task_overhead_timeout=1, run_max_try=1)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    reason = failures(job)["loop-1"]
    assert "loop-1.csv, bytes 8 to 14: the process that read it computed for more than 1 s" in reason
    assert "task_overhead_timeout" in reason


@pytest.mark.job
@pytest.mark.parametrize("command", ["run", "--dry-run", "debug"])
def test_a_file_that_kills_the_survey_is_named(table_job: Callable[..., Job], command: str) -> None:
    job = table_job("surveyed-1")
    begun = [sys.executable, "-m", "mpi_prs", *(["debug"] if command == "debug" else ["run", "--local", "2"])]
    options = ["--dry-run"] if command == "--dry-run" else []
    done = job.finish(job.start([*begun, str(job.config), *options]))
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout
    assert f"{job.folder}/in/surveyed-1.csv: the process that surveyed it was killed by SIGABRT" in done.stdout


@pytest.mark.parametrize("format", ["parquet", "avro"])
def test_a_file_that_is_not_what_it_is_called_is_the_users_mistake(tmp_path: Path, format: str) -> None:
    (tmp_path / "other.data").write_text("id,value\n1,2\n" * 9)
    planned = plan_apart([InputTable.from_files(str(tmp_path / "other.data"), format)], BatchSize(rows=5))
    with pytest.raises(InputError, match=r"other\.data cannot be read as "):
        list(planned.mini_batches)


@pytest.mark.job
def test_no_file_is_blamed_for_a_survey_that_ends_by_chance(table_job: Callable[..., Job]) -> None:
    job = table_job("once-1")
    done = job.local()
    assert done.returncode == 2, done.stdout
    assert "was killed by SIGABRT, and alone it does no harm: start again" in done.stdout
    assert job.local().returncode == 0


@pytest.mark.job
def test_debug_names_a_file_that_kills_its_reader(table_job: Callable[..., Job]) -> None:
    job = table_job("abort-1")
    job.config.write_text(job.config.read_text().replace("in/*.csv", "in/abort-1.csv"))
    done = job.finish(job.start([sys.executable, "-m", "mpi_prs", "debug", str(job.config)]))
    assert done.returncode == 2, done.stdout
    assert "abort-1.csv, bytes 8 to 14: the process that read it was killed by SIGABRT" in done.stdout


@pytest.mark.job
@pytest.mark.parametrize("file", ["loop-1", "endless-1"])
def test_a_busy_reader_process_dies_with_its_rank(table_job: Callable[..., Job], file: str) -> None:
    job = table_job(file, sound=1)
    process = job.start_local(processes=1)
    wait_until(lambda: any(map(is_busy, job.pids("reader/serving.py"))))
    os.kill(process.pid, signal.SIGKILL)
    job.assert_nothing_left()
    process.communicate()


def is_busy(pid: int) -> bool:
    """Whether a process has computed for longer than its start takes."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) > 1.5 * os.sysconf("SC_CLK_TCK")


SLEEPER = """
import signal, threading, time
def busy():
    while True: pass
signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=busy, daemon=True).start())
open(__file__ + ".ready", "w").close()
time.sleep(60)
"""
"""A reader that answers nobody; asked by a signal, another thread of it computes."""


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReaderProcess]:
    monkeypatch.setattr(reader_process, "_PROGRAM", tmp_path / "sleeper.py")
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    with contextlib.closing(ReaderProcess({})) as process:
        wait_until(lambda: (tmp_path / "sleeper.py.ready").exists() and process._look_at(0)[1])
        yield process


def test_a_survey_with_a_busy_thread_keeps_nobody_waiting(sleeper: ReaderProcess) -> None:
    os.kill(sleeper.pid, signal.SIGUSR1)

    def keeps_nobody_waiting() -> bool:
        seconds, rests = sleeper._look_at(0)
        return seconds > 0.3 and not rests

    wait_until(keeps_nobody_waiting)


def test_a_thread_that_is_gone_is_not_waited_for_for_ever(sleeper: ReaderProcess) -> None:
    with pytest.raises(ReaderLost, match=r"did not answer within 1 s"):
        sleeper.answer(sleeper.connections[0], lambda: 0.1, thread=2**22)  # above every number that the kernel gives


@pytest.mark.parametrize(
    ("python", "how"),
    [
        (sys.executable, r"it ended with exit code 1 \(ModuleNotFoundError: No module named 'nowhere_to_be_found'\)"),
        ("/nowhere/python", r".* No such file or directory"),
    ],
)
def test_no_file_is_blamed_for_a_process_that_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str, how: str
) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    manifest = manifest_of(tmp_path, [InputTable.from_delimited_files(f"{tmp_path}/t.csv")], BatchSize(rows=1))
    monkeypatch.setattr(reader_process, "_PROGRAM", tmp_path / "broken.py")
    monkeypatch.setattr(sys, "executable", python)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    with (
        contextlib.closing(TableLoader(manifest, tmp_path, [Storage()], 1, 60)) as loader,
        pytest.raises(MpiPrsError, match=f"^the process that reads tables cannot be started: {how}"),
    ):
        loader.load(0)

"""EntryScript: where a script is, and a logger whose words end up in the process's own logs."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.child.parallel_run import _LOGGER, EntryScript, _Singleton
from mpi_prs.core.environ import LOG_FOLDER, LOGGING_LEVEL, OUTPUT, PROCESS_NAME, SOURCE_DIRECTORY
from tests.support.jobs import REPOSITORY, Job, Mpi, assert_every_row_once

NewJob = Callable[..., Job]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No EntryScript yet, no variables, and a logger that nobody has configured."""
    monkeypatch.setattr(_Singleton, "_made", {})
    for name in (OUTPUT.name, LOG_FOLDER.name, SOURCE_DIRECTORY.name, PROCESS_NAME.name, LOGGING_LEVEL.name):
        monkeypatch.delenv(name, raising=False)
    logger = logging.getLogger(_LOGGER)
    yield
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)


def in_a_job(monkeypatch: pytest.MonkeyPatch, folder: Path, level: str = "INFO") -> None:
    monkeypatch.setenv(OUTPUT.name, str(folder / "out"))
    monkeypatch.setenv(LOG_FOLDER.name, str(folder / "logs" / "n1"))
    monkeypatch.setenv(SOURCE_DIRECTORY.name, str(folder / "code"))
    monkeypatch.setenv(PROCESS_NAME.name, "process003")
    monkeypatch.setenv(LOGGING_LEVEL.name, level)


def test_it_is_one_object_in_a_process_and_stays_it_when_pickled() -> None:
    assert EntryScript() is EntryScript()
    assert pickle.loads(pickle.dumps(EntryScript())) is EntryScript()


def test_it_says_where_the_script_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_a_job(monkeypatch, tmp_path)
    script = EntryScript()
    assert script.output_dir == f"{tmp_path}/out"
    assert script.log_dir == f"{tmp_path}/logs/n1"
    assert script.working_dir == f"{tmp_path}/code"
    assert script.agent_name == "process003"


def test_outside_a_job_it_is_of_the_working_directory() -> None:
    script = EntryScript()
    assert (script.output_dir, script.log_dir, script.working_dir) == ("output", "logs", ".")
    assert script.agent_name == "process000"
    assert not Path("logs").exists()


def test_outside_a_job_the_logger_writes_to_stderr(tmp_path: Path) -> None:
    code = "from mpi_prs import EntryScript; EntryScript().logger.info('pictures: %d', 3); print('out')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "out\n"
    assert done.stderr.endswith("|ParallelRunStep|<module>()|INFO|pictures: 3\n")
    assert not list(tmp_path.iterdir())


def test_the_logger_writes_a_file_of_the_process_and_what_all_loggers_write_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_a_job(monkeypatch, tmp_path)
    logger = EntryScript().logger
    assert EntryScript().logger is logger
    logger.info("pictures: %d", 3)
    logger.debug("not this")
    [line] = (tmp_path / "logs" / "n1" / "process003.log.txt").read_text().splitlines()
    name = "test_the_logger_writes_a_file_of_the_process_and_what_all_loggers_write_to"
    assert line.split("|", 1)[1] == f"ParallelRunStep|{name}()|INFO|pictures: 3"
    assert [record.message for record in caplog.records] == ["pictures: 3"]


def test_a_name_that_is_no_text_can_be_logged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_a_job(monkeypatch, tmp_path)
    monkeypatch.setattr(logging.getLogger(_LOGGER), "propagate", False)
    EntryScript().logger.info("no such file: \udce9")
    assert "no such file: \\udce9\n" in (tmp_path / "logs" / "n1" / "process003.log.txt").read_text()


@pytest.mark.parametrize(
    ("level", "argument", "expected"),
    [("DEBUG", None, logging.DEBUG), ("WARNING", None, logging.WARNING), ("WARNING", "DEBUG", logging.DEBUG)],
)
def test_the_level_is_the_jobs_unless_the_script_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, level: str, argument: str | None, expected: int
) -> None:
    in_a_job(monkeypatch, tmp_path, level)
    assert EntryScript(argument).logger.level == expected


def test_a_log_that_cannot_be_written_costs_the_file_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_a_job(monkeypatch, tmp_path)
    (tmp_path / "logs").write_text("a file is in the way")
    EntryScript().logger.info("still here")
    assert "EntryScript's log cannot be written" in caplog.text
    assert "still here" in caplog.text


def test_an_unknown_attribute_says_what_is_near() -> None:
    with pytest.raises(AttributeError, match="mpi_prs's EntryScript has no 'outputs_dir'; did you mean output_dir"):
        _ = EntryScript().outputs_dir


# Whole jobs

SCRIPT = """
import json, os, time
from pathlib import Path
from azureml_user.parallel_run import EntryScript

def init():
    script = EntryScript()
    script.logger.info("init of %s", script.agent_name)
    script.logger.debug("only with DEBUG")
    (Path(script.output_dir) / f"{script.agent_name}.json").write_text(json.dumps({
        "output": script.output_dir, "log": script.log_dir, "working": script.working_dir,
        "is_ours": (Path(script.working_dir) / "helper.txt").read_text(), "cwd": os.getcwd(),
        "run": os.environ["AZUREML_RUN_ID"],
    }))

def run(mini_batch):
    EntryScript().logger.warning("pictures: %d", len(mini_batch))
    return [os.path.basename(path) for path in mini_batch]
"""

WAITS_FOR_BOTH = """
    while len(list(Path(EntryScript().output_dir).glob("*.json"))) < 2:
        time.sleep(0.01)
"""
SCRIPT_OF_TWO = SCRIPT.replace("def run(mini_batch):", f"def run(mini_batch):{WAITS_FOR_BOTH.rstrip()}")


@pytest.mark.parametrize("way", ["local", "mpich"])
def test_it_works_in_every_job(new_job: NewJob, way: str, request: pytest.FixtureRequest) -> None:
    job = new_job(SCRIPT_OF_TWO, items=8, mini_batch_size=1)
    (job.folder / "helper.txt").write_text("yes")
    if way == "local":
        done = job.local()
    else:
        mpi: Mpi = request.getfixturevalue("mpich")
        done = job.under(mpi)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    logs = job.directory.logs / "user" / "entry_script_log"
    lines = 0
    for process in range(2):
        name = f"process{process:03d}"
        said = look(job, name)
        assert said["output"] == str(job.directory.output)
        assert said["working"] == str(job.folder)
        assert said["is_ours"] == "yes"
        assert said["cwd"] != said["working"]
        assert said["run"] == "out"
        [log] = logs.glob(f"*/{name}.log.txt")
        assert said["log"] == str(log.parent)
        text = log.read_text()
        assert f"|INFO|init of {name}\n" in text
        assert "only with DEBUG" not in text
        assert text.count("|WARNING|pictures: 1\n") == job.log("stderr", process).count("pictures: 1")
        lines += text.count("pictures: 1")
    assert lines == 8


def look(job: Job, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.directory.output / f"{name}.json").read_text())
    return found


def test_in_debug_the_logger_speaks_on_the_terminal(new_job: NewJob) -> None:
    job = new_job(SCRIPT, items=8, mini_batch_size=2, logging_level="DEBUG")
    (job.folder / "helper.txt").write_text("yes")
    job.directory.output.mkdir()
    done = job.finish(job.start([sys.executable, "-m", "mpi_prs", "debug", str(job.config)]))
    assert done.returncode == 0, done.stdout
    assert "|INFO|init of process000\n" in done.stdout
    assert "|DEBUG|only with DEBUG\n" in done.stdout
    assert "|WARNING|pictures: 2\n" in done.stdout
    said = look(job, "process000")
    assert (said["output"], said["working"], said["run"]) == (str(job.directory.output), str(job.folder), "test-job")

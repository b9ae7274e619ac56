"""``verify``: rows that would come out otherwise today are found, and what has changed is named."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mpi_prs.cli.main import commands
from mpi_prs.cli.session import Session
from tests.support.jobs import Job

SCRIPT = """
import os, sys
import helper

def init():
    global model, side
    model, side = (open(path).read() for path in sys.argv[1:])

def run(mini_batch):
    return [f"{os.path.basename(path)} {helper.VERSION} {model} {side}" for path in mini_batch]
"""


FAILS_LATER = """
import os

def run(mini_batch):
    if any(os.path.exists(f"{path}.broken") for path in mini_batch):
        raise ValueError("it is broken now")
    return mini_batch
"""


@contextmanager
def another_byte(path: Path) -> Iterator[None]:
    """Undone at the end."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1", b"2", 1))
    os.utime(path, (time.time() + 100,) * 2)  # Python takes the same second and size for the same module
    yield
    path.write_bytes(content)


def verify(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands, ["verify", *arguments], obj=Session(None), standalone_mode=False)
    assert done.exception is None
    return done.return_value, done.output


def test_a_changed_byte_is_found_whatever_it_is_in(new_job: Callable[..., Job]) -> None:
    job = new_job(SCRIPT, arguments=["MODEL", "${side_inputs.side}"], side_inputs={"side": "side.bin"})
    files = {"helper.py": "VERSION = 1", "model.bin": "m1", "side.bin": "s1", "unused.py": "NUMBER = 1"}
    for name, text in files.items():
        (job.folder / name).write_text(text)
    job.config.write_text(job.config.read_text().replace("MODEL", str(job.folder / "model.bin")))
    assert job.local().returncode == 0
    before = {path: path.read_bytes() for path in job.directory.root.rglob("*") if path.is_file()}

    code, said = verify(str(job.directory.output), "--sample", "100%")
    assert (code, said) == (0, "10 of 10 mini-batches run again: the same rows\n")
    for name in files:
        with another_byte(job.folder / name):
            code, said = verify(str(job.config))
        assert code == 1
        assert f": {name} has changed\n" in said
        assert ("other rows than on record: mini-batch" in said) == (name != "unused.py")
    with another_byte(job.output):
        code, said = verify(str(job.config), "--sample", "100%")
    assert code == 1
    assert "changed in the output file: mini-batch" in said
    assert "has changed" not in said
    assert {path: path.read_bytes() for path in job.directory.root.rglob("*") if path.is_file()} == before


def test_what_fails_today_is_told_also_where_it_would_be_halved(new_job: Callable[..., Job]) -> None:
    job = new_job(FAILS_LATER, bisect_on_failure=True, run_max_try=1)
    assert job.local().returncode == 0
    (job.folder / "in" / f"{job.names[5]}.broken").touch()
    code, said = verify(str(job.config), "--sample", "100%")
    assert code == 1
    assert "failed: mini-batch 1: ValueError: it is broken now" in said


@pytest.mark.parametrize("sample", ["0", "101%", "x"])
def test_a_sample_is_a_percentage(sample: str) -> None:
    done = CliRunner().invoke(commands, ["verify", "out", "--sample", sample], obj=Session(None))
    assert done.exit_code == 2
    assert "expected a percentage above 0 such as 1%" in done.output


def test_without_an_output_file_numbers_of_rows_are_compared(new_job: Callable[..., Job]) -> None:
    job = new_job("def run(mini_batch):\n    return mini_batch[:1]\n", output_action="summary_only", mini_batch_size=4)
    assert job.local().returncode == 0
    with another_byte(job.folder / "script.py"):
        done = CliRunner().invoke(commands, ["verify", str(job.config)], obj=Session(None))
    assert "other rows than on record: mini-batch" in done.output


@pytest.mark.parametrize("given", ["nowhere", "job.yaml"])
def test_where_there_is_no_run_it_says_so(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").write_text("def run(mini_batch): ...")
    (tmp_path / "job.yaml").write_text(
        "{name: again, entry_script: s.py, inputs: [s.py], output: out, error_threshold: 0}"
    )
    done = CliRunner().invoke(commands, ["verify", given], obj=Session(None))
    assert str(done.exception).startswith("there is no run in ")


def test_a_run_that_names_no_config_needs_it(tmp_path: Path) -> None:
    (tmp_path / "_run").mkdir()
    (tmp_path / "_run" / "provenance.json").write_text(yaml.safe_dump({}))
    done = CliRunner().invoke(commands, ["verify", str(tmp_path)], obj=Session(None))
    assert str(done.exception).endswith("provenance.json names no job config: give that in place of RUN")

"""Real jobs with typed outputs: every row once, in each form, in both orders, and after the whole job was killed."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import h5py
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support.jobs import REPOSITORY, Job, wait_until

FRAME_SCRIPT = """
import os, time
import pandas as pd

def run(mini_batch):
    numbers = [int(open(path).read()) for path in mini_batch]
    time.sleep({seconds})
    frame = pd.DataFrame({{"name": [os.path.basename(path) for path in mini_batch], "number": numbers}})
    frame["score"] = frame["number"] / 4 if 0 in numbers else None
    return frame
"""
SUFFIXES = ["csv", "jsonl", "parquet", "h5"]


def rows_of(job: Job, suffix: str) -> list[tuple[str, int]]:
    """Name and number of each row of the finished output."""
    path = job.directory.output_file(f"rows.{suffix}")
    if suffix == "csv":
        frame = pd.read_csv(path)
    elif suffix == "jsonl":
        frame = pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    elif suffix == "parquet":
        frame = pq.read_table(path).to_pandas()
    else:
        with h5py.File(path) as file:
            frame = pd.DataFrame(
                {"name": file["name"].asstr()[:], "number": file["number"][:], "score": file["score"][:]}
            )
    assert list(frame.columns) == ["name", "number", "score"]
    first = frame[frame["number"] < 4].sort_values("number")
    assert first["score"].tolist() == [0, 0.25, 0.5, 0.75]
    assert frame["score"].isna().sum() == len(frame) - 4
    return list(zip(frame["name"].tolist(), frame["number"].tolist(), strict=True))


def expected(job: Job) -> list[tuple[str, int]]:
    return [(name, number) for number, name in enumerate(job.names)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_row_is_in_the_output_once(new_job: Callable[..., Job], suffix: str) -> None:
    job = new_job(FRAME_SCRIPT.format(seconds=0), append_row_file_name=f"rows.{suffix}")

    done = job.local()

    assert done.returncode == 0, done.stdout
    assert sorted(rows_of(job, suffix)) == expected(job)
    assert sorted(path.name for path in job.directory.output.iterdir()) == ["_run", f"rows.{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_after_a_kill_of_the_whole_job_every_row_is_in_the_output_once(
    new_job: Callable[..., Job], suffix: str
) -> None:
    job = new_job(
        FRAME_SCRIPT.format(seconds=0.02), items=80, append_row_file_name=f"rows.{suffix}", output_order="input"
    )
    process = job.start_local()
    wait_until(lambda: job.directory.journal.exists() and len(job.ledger().done) > 5)
    job.kill_all()
    job.finish(process)
    assert 5 < len(job.ledger().done) < 20
    assert not job.directory.output_file(f"rows.{suffix}").exists()

    done = job.local()

    assert done.returncode == 0, done.stdout
    assert rows_of(job, suffix) == expected(job)


@pytest.mark.parametrize("suffix", ["parquet", "h5"])
def test_a_kill_while_the_final_file_is_made_is_made_good(new_job: Callable[..., Job], suffix: str) -> None:
    job = new_job(FRAME_SCRIPT.format(seconds=0), append_row_file_name=f"rows.{suffix}")
    job.directory.output.mkdir()
    finishing = job.directory.output / f"rows.{suffix}.part.finishing"
    reached = job.folder / "reached"
    (job.folder / "sitecustomize.py").write_text(
        f"""
import os, time
original = os.fsync
def fsync(descriptor):
    if os.readlink(f"/proc/self/fd/{{descriptor}}").endswith(".finishing") and not os.path.exists({str(reached)!r}):
        open({str(reached)!r}, "w").close()
        time.sleep(600)
    original(descriptor)
os.fsync = fsync
"""
    )
    process = start_with(job, job.folder)
    wait_until(reached.exists)
    job.kill_all()
    job.finish(process)
    assert finishing.exists()
    assert len(job.ledger().done) == 10

    done = job.local()

    assert done.returncode == 0, done.stdout
    assert sorted(rows_of(job, suffix)) == expected(job)
    assert not finishing.exists()


def start_with(job: Job, folder: Path) -> subprocess.Popen[str]:
    """A job whose Python imports a ``sitecustomize`` from a folder."""
    command = ["env", f"PYTHONPATH={REPOSITORY}:{folder}", sys.executable, "-m", "mpi_prs", "run", str(job.config)]
    return job.start([*command, "--local", "2"])


def test_failed_mini_batches_can_be_added_later(new_job: Callable[..., Job]) -> None:
    script = FRAME_SCRIPT.format(seconds=0) + (
        "\nreal_run = run\n"
        "def run(mini_batch):\n"
        "    if any('item-0005' in path for path in mini_batch) and not os.path.exists('../mended'):\n"
        "        raise ValueError('not yet')\n"
        "    return real_run(mini_batch)\n"
    )
    job = new_job("", append_row_file_name="rows.parquet", output_order="input", run_max_try=1)
    mended = job.folder / "mended"
    (job.folder / "script.py").write_text(script.replace("'../mended'", repr(str(mended))))

    first = job.local()
    assert first.returncode == 0, first.stdout
    missing = expected(job)[4:8]
    assert rows_of(job, "parquet") == [row for row in expected(job) if row not in missing]

    mended.touch()
    second = job.local("--only-failed")
    assert second.returncode == 0, second.stdout
    assert rows_of(job, "parquet") == expected(job)


def test_rows_too_large_for_a_message_are_stored_typed(new_job: Callable[..., Job]) -> None:
    script = "import numpy as np, pandas as pd\ndef run(b): return pd.DataFrame({'x': np.arange(700_000)})"
    job = new_job(script, items=8, append_row_file_name="rows.parquet", output_order="input")

    done = job.local()

    assert done.returncode == 0, done.stdout
    found = pq.read_table(job.directory.output_file("rows.parquet")).column("x").to_numpy()
    assert found.tolist() == list(range(700_000)) * 2


@pytest.mark.parametrize("suffix", ["jsonl", "h5"])
def test_lists_of_dicts_are_rows_and_other_lists_are_refused(new_job: Callable[..., Job], suffix: str) -> None:
    script = (
        "def run(mini_batch):\n"
        "    rows = [{'number': int(open(path).read())} for path in mini_batch]\n"
        "    return rows if rows[0]['number'] else ['text']\n"
    )
    job = new_job(script, items=12, append_row_file_name=f"rows.{suffix}", run_max_try=1)

    done = job.local()

    assert done.returncode == 0, done.stdout
    assert (
        "run() returned a list whose element 0 is a str; expected a pandas DataFrame or a list of dicts" in done.stdout
    )
    path = job.directory.output_file(f"rows.{suffix}")
    if suffix == "jsonl":
        numbers = [json.loads(line)["number"] for line in path.read_text().splitlines()]
    else:
        with h5py.File(path) as file:
            numbers = file["number"][:].tolist()
    assert sorted(numbers) == list(range(4, 12))


def test_a_user_interpreter_without_pyarrow_ends_the_job_with_a_word(
    new_job: Callable[..., Job], tmp_path: Path
) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    job = new_job(
        "def run(b): return b", append_row_file_name="rows.parquet", environment=str(tmp_path / "bare/bin/python")
    )

    done = job.local()

    assert done.returncode == 1
    assert "needs pyarrow in the Python of the user processes" in done.stdout


def test_separator_and_header_of_a_csv_can_be_set(new_job: Callable[..., Job]) -> None:
    job = new_job(
        FRAME_SCRIPT.format(seconds=0), items=4, append_row_file_name="rows.CSV", to_csv={"sep": ";", "header": False}
    )

    assert job.local().returncode == 0

    assert job.directory.output_file("rows.CSV").read_text().splitlines()[0] == "item-0000.txt;0;0.0"


def test_options_of_text_are_refused_for_another_form(new_job: Callable[..., Job]) -> None:
    job = new_job("def run(b): return b", append_row_file_name="rows.parquet", to_csv={"sep": ";", "index": True})

    done = job.local()

    assert done.returncode == 2
    assert "sep has no use for rows.parquet, whose rows are not separated text" in done.stdout


OTHER_COLUMNS_SCRIPT = """
import os
import pandas as pd

def run(mini_batch):
    numbers = [int(open(path).read()) for path in mini_batch]
    frame = pd.DataFrame({"name": [os.path.basename(path) for path in mini_batch], "number": numbers})
    return frame[["number", "name"]].rename(columns={RENAMED}) if 20 in numbers else frame
"""


@pytest.mark.parametrize("processes", [1, 3])
def test_rows_with_other_columns_than_the_header_fail_and_are_not_written(
    new_job: Callable[..., Job], processes: int
) -> None:
    script = OTHER_COLUMNS_SCRIPT.replace("RENAMED", "'number': 'other'")
    job = new_job(script, append_row_file_name="rows.csv", run_max_try=1)

    done = job.local(processes=processes)

    assert done.returncode == 0, done.stdout
    assert "columns other,name; expected name,number, those that the output file has" in done.stdout
    found = pd.read_csv(job.directory.output_file("rows.csv"))
    assert sorted(found["number"]) == [n for n in range(40) if not 20 <= n < 24]


@pytest.mark.parametrize("name", ["rows.csv", "rows.txt"])
def test_the_columns_of_an_earlier_start_hold(new_job: Callable[..., Job], name: str) -> None:
    script = OTHER_COLUMNS_SCRIPT.replace("RENAMED", "")
    job = new_job(script, append_row_file_name=name)
    assert job.local("--limit", "2").returncode == 0
    script = script.replace("if 20 in numbers else frame", "if 20 not in numbers else frame")
    (job.folder / "script.py").write_text(script)

    done = job.local("--accept-changes")

    assert done.returncode == 0, done.stdout
    names = ["name", "number"]
    found = pd.read_csv(job.directory.output_file(name), **({"sep": " ", "names": names} if name[-1] == "t" else {}))
    assert list(found.columns) == names
    assert sorted(found["number"]) == list(range(40))


def test_dicts_become_rows_of_a_csv_with_a_header(new_job: Callable[..., Job]) -> None:
    script = (
        "def run(mini_batch):\n    return [{'number': int(open(path).read()), 'x': 'a,b'} for path in mini_batch]\n"
    )
    job = new_job(script, append_row_file_name="rows.csv", output_order="input")

    done = job.local()

    assert done.returncode == 0, done.stdout
    lines = job.directory.output_file("rows.csv").read_text().splitlines()
    assert lines == ["number,x", *(f'{number},"a,b"' for number in range(40))]

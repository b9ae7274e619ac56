"""Jobs over tables, end to end: what run() gets, types and order, bad records, faults in the middle."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from tests.support.jobs import Job, Mpi, wait_until

ROWS = 5000

ECHO_SCRIPT = """
def run(mini_batch):
    mini_batch["copy"] = mini_batch["number"] * 1  # it may be written into
    mini_batch.loc[:, "number"] += 0
    assert (mini_batch["copy"] == mini_batch["number"]).all()
    return mini_batch["number"].tolist()
"""

DESCRIBING_SCRIPT = """
def run(mini_batch, context):
    types = " ".join(f"{name}:{kind}" for name, kind in mini_batch.dtypes.items())
    return [f"{context.global_row_index_lower_bound} {len(mini_batch)} {types}"]
"""

NewJob = Callable[..., Job]


def table(rows: int = ROWS) -> pd.DataFrame:
    numbers = np.arange(rows)
    return pd.DataFrame({"number": numbers, "half": numbers / 2, "text": [f"text {n % 7}" for n in numbers]})


def write_csv(path: Path, data: pd.DataFrame) -> None:
    data.to_csv(path, index=False)


def write_parquet(path: Path, data: pd.DataFrame) -> None:
    data.to_parquet(path, row_group_size=700)


def write_json_lines(path: Path, data: pd.DataFrame) -> None:
    data.to_json(path, orient="records", lines=True)


def write_hdf5(path: Path, data: pd.DataFrame) -> None:
    with h5py.File(path, "w") as file:
        for name in data.columns:
            values = data[name].to_list() if name == "text" else data[name].to_numpy()
            file.create_dataset(name, data=values)


WRITERS = {"csv": write_csv, "parquet": write_parquet, "jsonl": write_json_lines, "h5": write_hdf5}


def table_job(new_job: NewJob, script: str, suffix: str = "csv", files: int = 3, **settings: Any) -> Job:
    """A job over the rows of some files, in ``in/part-0.csv`` and so on."""
    settings = {"mini_batch_size": "10KB", "error_threshold": 0, **settings}
    job = new_job(script, items=0, inputs=[{"table": f"in/*.{suffix}"}], **settings)
    for number, rows in enumerate(np.array_split(np.arange(ROWS), files)):
        WRITERS[suffix](job.folder / "in" / f"part-{number}.{suffix}", table().iloc[rows])
    return job


def assert_every_number_once(job: Job) -> None:
    counted = Counter(map(int, job.rows()))
    assert counted == Counter(range(ROWS))


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_row_of_every_format_comes_once(new_job: NewJob, suffix: str) -> None:
    job = table_job(new_job, ECHO_SCRIPT, suffix)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_number_once(job)
    ledger = job.ledger()
    assert (ledger.items, ledger.short, ledger.failed) == (ROWS, 0, set())
    assert len(ledger.done) > 9


def test_under_mpi_as_well(new_job: NewJob, mpi: Mpi) -> None:
    job = table_job(new_job, ECHO_SCRIPT, "parquet", processes_per_rank=2)
    done = job.under(mpi)
    assert done.returncode == 0, done.stdout
    assert_every_number_once(job)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_in_input_order_the_rows_are_those_of_the_files(new_job: NewJob, suffix: str) -> None:
    job = table_job(new_job, ECHO_SCRIPT, suffix, output_order="input")
    assert job.local(processes=3).returncode == 0
    assert list(map(int, job.rows())) == list(range(ROWS))


def test_the_context_counts_rows_where_their_number_is_known(new_job: NewJob) -> None:
    job = table_job(new_job, DESCRIBING_SCRIPT, "parquet", error_threshold=-1, output_order="input")
    assert job.local().returncode == 0
    seen = 0
    for row in job.rows():
        first, count, types = row.split(" ", 2)
        assert int(first) == seen
        assert types.startswith("number:int64 half:float64 text:")
        seen += int(count)
    assert seen == ROWS


def test_hdf5_of_more_dimensions_gives_arrays_that_may_be_written_into(new_job: NewJob) -> None:
    script = """
def run(mini_batch):
    assert sorted(mini_batch) == ["images", "index"]
    images = mini_batch["images"]
    assert images.shape[1:] == (4, 5) and images.dtype == "uint8"
    images += 1
    return [f"{index} {image.sum()}" for index, image in zip(mini_batch["index"], images)]
"""
    job = new_job(script, items=0, inputs=[{"table": "in/images.h5"}], mini_batch_size="30rows", error_threshold=0)
    images = np.random.default_rng(0).integers(0, 255, (100, 4, 5), dtype=np.uint8)
    with h5py.File(job.folder / "in" / "images.h5", "w") as file:
        file["images"], file["index"] = images, np.arange(100)
    done = job.local()
    assert done.returncode == 0, done.stdout
    sums = (images.astype(np.uint8) + np.uint8(1)).reshape(100, -1).sum(axis=1)
    assert sorted(job.rows()) == sorted(f"{index} {total}" for index, total in enumerate(sums))


def test_one_damaged_file_fails_its_mini_batches_alone_and_says_so(new_job: NewJob) -> None:
    job = table_job(new_job, ECHO_SCRIPT, "parquet", error_threshold=-1, run_max_try=2)
    path = job.folder / "in" / "part-1.parquet"
    content = bytearray(path.read_bytes())
    content[40:3000] = bytes(2960)  # its footer stays, so the job begins
    path.write_bytes(content)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert 0 < len(job.ledger().failed) < len(job.ledger().done)
    numbers = list(map(int, job.rows()))
    assert len(numbers) == len(set(numbers))
    assert {n for n in range(ROWS) if not ROWS // 3 < n <= 2 * ROWS // 3 + 1} <= set(numbers)
    assert "part-1.parquet" in job.directory.failed_items.read_text()
    assert "part-1.parquet" in done.stdout


def test_a_compressed_file_that_is_cut_off_fails_alone(new_job: NewJob) -> None:
    job = new_job(ECHO_SCRIPT, items=0, inputs=[{"table": "in/*.csv.gz"}], error_threshold=-1, run_max_try=1)
    for name in "ab":
        table().to_csv(job.folder / "in" / f"{name}.csv.gz", index=False)
    path = job.folder / "in" / "b.csv.gz"
    path.write_bytes(path.read_bytes()[:3000])
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_number_once(job)
    assert len(job.ledger().failed) == 1
    assert "b.csv.gz" in done.stdout


# A bad record


BAD_CSV = "number,half,text\n" + "".join(f"{n},{n / 2},x\n" for n in range(100)) + "100,oops,x\n101,50.5,x\n"


def bad_job(new_job: NewJob, **settings: Any) -> Job:
    inputs = [{"table": "in/bad.csv", "column_types": {"half": "float"}, **settings}]
    job = new_job(ECHO_SCRIPT, items=0, inputs=inputs, mini_batch_size="200", error_threshold=-1, run_max_try=1)
    (job.folder / "in" / "bad.csv").write_text(BAD_CSV)
    return job


def test_a_bad_record_fails_its_mini_batch_with_file_line_and_column(new_job: NewJob) -> None:
    job = bad_job(new_job)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert len(job.ledger().failed) == 1
    for words in ("bad.csv", "line 102", "'half'", "oops"):
        assert words in done.stdout
    assert "100" not in job.rows()


def test_a_bad_record_may_be_skipped_and_counts_as_a_failed_item(new_job: NewJob) -> None:
    job = bad_job(new_job, on_bad_record="skip_and_count")
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert sorted(map(int, job.rows())) == [*range(100), 101]
    assert (job.ledger().items, job.ledger().short) == (102, 1)


@pytest.mark.parametrize("corrected", ["100,5,x", "100,50.25,x"])
def test_a_file_that_was_corrected_has_its_parts_elsewhere_so_no_row_comes_twice_or_gets_lost(
    new_job: NewJob, corrected: str
) -> None:
    job = bad_job(new_job)
    assert job.local().returncode == 0
    path = job.folder / "in" / "bad.csv"
    path.write_text(BAD_CSV.replace("100,oops,x", corrected))
    done = job.local("--only-failed")
    assert f"bad.csv has {path.stat().st_size} bytes, and had {len(BAD_CSV)} when the run was begun" in done.stdout
    numbers = list(map(int, job.rows()))
    assert len(numbers) == len(set(numbers)) < 102
    assert job.ledger().failed


@pytest.mark.parametrize("suffix", ["h5", "parquet"])
def test_a_file_repaired_after_it_was_listed_as_damaged_does_not_count_as_done_without_its_rows(
    new_job: NewJob, suffix: str
) -> None:
    job = table_job(new_job, ECHO_SCRIPT, suffix, error_threshold=-1, run_max_try=1)
    path = job.folder / "in" / f"part-1.{suffix}"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    assert job.local().returncode == 0
    path.write_bytes(whole)
    done = job.local("--only-failed")
    assert f"part-1.{suffix} could not be read when the run was begun" in done.stdout
    assert len(job.ledger().failed) == 1


# Faults in the middle


def slow(script: str) -> str:
    return "import time\n" + script.replace("def run(mini_batch):\n", "def run(mini_batch):\n    time.sleep(0.05)\n")


def test_a_killed_job_goes_on_and_every_row_comes_once(new_job: NewJob) -> None:
    job = table_job(new_job, slow(ECHO_SCRIPT), "parquet")
    process = job.start_local()
    wait_until(lambda: job.directory.journal.exists() and len(job.ledger().done) > 3)
    os.killpg(process.pid, signal.SIGKILL)
    job.finish(process)
    job.assert_nothing_left()
    assert job.local().returncode == 0
    assert_every_number_once(job)


def test_a_stop_signal_gives_back_what_is_loaded_and_the_next_start_does_it(new_job: NewJob) -> None:
    job = table_job(new_job, slow(ECHO_SCRIPT), "csv")
    process = job.start_local()
    wait_until(lambda: job.directory.journal.exists() and len(job.ledger().done) > 3)
    process.send_signal(signal.SIGTERM)
    done = job.finish(process)
    assert done.returncode == 75, done.stdout
    assert job.local().returncode == 0
    assert_every_number_once(job)


def test_a_user_process_that_dies_costs_one_try_of_one_mini_batch(new_job: NewJob) -> None:
    script = slow(ECHO_SCRIPT).replace(
        "    mini_batch[", "    if 7 in mini_batch['number'].values and not os.path.exists(FLAG):\n"
        "        open(FLAG, 'w').close(); os._exit(1)\n    mini_batch[", 1,
    )  # fmt: skip
    job = table_job(new_job, script, "csv")
    flag = job.folder / "died"
    (job.folder / "script.py").write_text(f"import os\nFLAG = {str(flag)!r}\n{script}")
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    assert flag.exists()
    assert "1 retried" in done.stdout
    assert_every_number_once(job)


# Shared memory


KEEPING_SCRIPT = """
kept = []

def run(mini_batch):
    kept.append((mini_batch, mini_batch["number"].copy(), mini_batch["text"].copy(deep=True).tolist()))
    for frame, number, text in kept:  # what a script keeps stays as it is
        assert frame["number"].equals(number) and frame["text"].tolist() == text
    return mini_batch["number"].tolist()
"""


def test_what_a_script_keeps_of_a_mini_batch_is_not_overwritten_by_later_ones(new_job: NewJob) -> None:
    job = table_job(new_job, KEEPING_SCRIPT, "parquet")
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    assert_every_number_once(job)


def test_arrays_that_a_script_keeps_stay_as_they_are(new_job: NewJob) -> None:
    script = """
kept = []

def run(mini_batch):
    kept.append((mini_batch["index"], mini_batch["index"].tolist()))
    assert all(array.tolist() == values for array, values in kept)
    return mini_batch["index"].tolist()
"""
    job = new_job(script, items=0, inputs=[{"table": "in/x.h5"}], mini_batch_size="10rows", error_threshold=0)
    with h5py.File(job.folder / "in" / "x.h5", "w") as file:
        file["images"], file["index"] = np.zeros((300, 2, 2)), np.arange(300)
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    assert sorted(map(int, job.rows())) == list(range(300))


def test_a_low_limit_of_open_files_fails_no_mini_batch(new_job: NewJob) -> None:
    job = table_job(new_job, ECHO_SCRIPT, "csv", files=10, mini_batch_size="100")
    command = [sys.executable, "-m", "mpi_prs", "run", str(job.config), "--local", "4"]
    process = job.start(["sh", "-c", 'ulimit -n 128 && exec "$@"', "sh", *command])
    done = job.finish(process)
    assert done.returncode == 0, done.stdout
    assert "0 failed, 0 retried" in done.stdout
    assert_every_number_once(job)

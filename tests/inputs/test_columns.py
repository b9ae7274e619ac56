"""What people are told of a table's columns is what run() gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mpi_prs.inputs.columns import shown_columns
from mpi_prs.inputs.datasets import HIVE, InputTable
from mpi_prs.inputs.formats.format import BatchSize
from tests.inputs.test_planning import made, manifest_of
from tests.inputs.test_table_jobs import WRITERS

TABLE = pd.DataFrame(
    {
        "id": pd.array([1, None, 2**60 + 1] * 10, "Int64"),
        "number": np.arange(30, dtype=np.int64),
        "half": np.arange(30) / 2,
        "text": [f"t{n % 3}" for n in range(30)],
        "flag": np.arange(30) % 2 == 0,
    }
)
OF_PANDAS = {"string": ("str", "object"), "datetime": ("datetime64[us]", "datetime64[ns]")}


@pytest.mark.parametrize(
    ("suffix", "origin"),
    [
        ("csv", "all 30 records"),
        ("jsonl", "a sample of 30 records"),
        ("parquet", "schema of {file}"),
        ("h5", "dataset in {file}"),
    ],
)
def test_types_are_told_as_they_arrive(tmp_path: Path, suffix: str, origin: str) -> None:
    (tmp_path / "k=1").mkdir()
    file = tmp_path / "k=1" / f"t.{suffix}"
    WRITERS[suffix](file, TABLE if suffix != "h5" else TABLE.drop(columns="id"))
    types = {} if suffix == "h5" else {"column_types": {"number": "float"}}
    names = {"csv": "delimited", "jsonl": "json_lines", "parquet": "parquet", "h5": "hdf5"}
    dataset = InputTable.from_files(
        f"{tmp_path}/k=*/*", names[suffix], partition_format=HIVE, path_column="path", drop_columns=["flag"], **types
    )
    manifest = manifest_of(tmp_path, [dataset], BatchSize(rows=100))
    ((frame, _),) = made(manifest, tmp_path / "scratch")
    title, *lines = shown_columns(manifest)
    assert title == f"table {tmp_path}/k=*/* ({names[suffix]}), {len(lines)} columns:"
    told = {name: (type, origin) for name, type, origin in (line.split(maxsplit=2) for line in lines)}
    assert list(told) == list(frame.columns)
    for name, (type, _) in told.items():
        assert str(frame.dtypes[name]) in OF_PANDAS.get(type, (type,))
    origin = origin.format(file=file)
    expected = {"half": origin, "text": origin, "k": "partition_format", "path": "path_column"}
    if suffix != "h5":
        expected |= {"number": "column_types", "id": f"{origin}, where values are missing"}
    assert {name: told[name][1] for name in expected} == expected


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["debug"]], ids=lambda command: command[-1])
def test_columns_and_doubts_are_told_before_a_run(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "t.csv").write_text("id,price\n" + "".join(f"{n},{n}.5\n" for n in range(99)) + "99,n/a?\n")
    (tmp_path / "s.py").write_text("def run(mini_batch):\n    return list(mini_batch['id'])\n")
    (tmp_path / "job.yaml").write_text(
        "name: prices\nentry_script: s.py\ninputs: [{table: t.csv}]\nmini_batch_size: 500\n"
        "error_threshold: 0\noutput: out\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mpi_prs", *command, "job.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "  price  string  all 100 records" in said
    assert f"{tmp_path}/t.csv, line 101 has 'n/a?'" in said
    assert "mini_batch_size: 500 means 500 bytes of " in said
    assert "about 50 rows a mini-batch, 2 mini-batches in all. Write 500rows if rows are meant" in said


@pytest.mark.parametrize(
    ("size", "warned"), [("500", True), ("999999", False), ("1000000", False), ("1KB", False), ("10rows", False)]
)
def test_bytes_that_may_be_meant_as_rows_are_a_doubt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: str, warned: bool
) -> None:
    (tmp_path / "t.csv").write_text("a\n" + "1234567\n" * 300)
    manifest_of(tmp_path, [InputTable.from_delimited_files(f"{tmp_path}/t.csv")], BatchSize.parse(size))
    assert ["mini_batch_size" in record.message for record in caplog.records] == [True] * warned

"""The tumours job, a table in and a table out: its preparation, the whole job under MPI, its accuracy check."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.job.test_digits import python, run_config
from tests.support.jobs import REPOSITORY, Mpi

TUMOURS = REPOSITORY / "configs" / "tumours"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tumours")
    python(TUMOURS / "prepare.py", "--build", folder)
    return folder


@pytest.mark.mpi
def test_the_whole_job_under_mpi_gives_a_typed_table_with_each_tumour_once(
    build: Path, mpich: Mpi, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    settings = [f"inputs.0.table={build}/data/*.csv", f"side_inputs.model={build}/model.joblib"]
    run_config(mpich, 3, "configs/tumours.yaml", output, *settings)

    found = pd.read_parquet(output / "tumours.parquet")
    truth = pd.read_csv(build / "truth.csv")
    assert sorted(found["tumour"]) == sorted(truth["tumour"])
    assert (found.dtypes["tumour"], found.dtypes["certainty"]) == ("int64", "float64")
    answer = python(TUMOURS / "accuracy.py", output / "tumours.parquet", "--truth", build / "truth.csv")
    assert "of 285 tumours" in answer.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda kinds: kinds, "100.0%", id="all right"),
        pytest.param(lambda kinds: kinds.iloc[1:], "exactly one row", id="a row is missing"),
        pytest.param(lambda kinds: pd.concat([kinds, kinds.iloc[:1]]), "exactly one row", id="a row is there twice"),
        pytest.param(lambda kinds: kinds.assign(kind="benign"), "of 285 tumours", id="all benign"),
    ],
)
def test_the_accuracy_check_asks_for_one_row_a_tumour_and_95_percent(
    build: Path, tmp_path: Path, change: object, words: str
) -> None:
    kinds = pd.read_csv(build / "truth.csv")
    change(kinds).to_parquet(tmp_path / "out.parquet")  # type: ignore[operator]
    answer = python(TUMOURS / "accuracy.py", tmp_path / "out.parquet", "--truth", build / "truth.csv", check=False)
    assert answer.returncode == (0 if words == "100.0%" else 1)
    assert words in answer.stdout + answer.stderr

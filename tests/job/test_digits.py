"""The digits job: its preparation, its entry script, its accuracy check, and the whole job under MPI.

TensorFlow runs in child processes alone: what it warns about at import is not ours to answer for.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.jobs import REPOSITORY, Mpi

DIGITS = REPOSITORY / "configs" / "digits"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ``prepare.py`` has filled, one for all processes of the tests; they leave it as it is."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "digits"
    with open(shared / "digits.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python(DIGITS / "prepare.py", "--build", folder)  # the second one finds everything there
    return folder


@pytest.fixture(scope="session")
def labels(build: Path) -> dict[str, int]:
    with (build / "labels.csv").open(newline="") as file:
        return {row["file"]: int(row["label"]) for row in csv.DictReader(file)}


def test_the_pictures_are_the_held_out_digits_with_their_labels(build: Path, labels: dict[str, int]) -> None:
    from sklearn.datasets import load_digits  # takes a second, which all would pay for whenever tests are collected

    digits = load_digits()
    paths = sorted(build.glob("data/**/*"))
    pictures = [path for path in paths if path.is_file()]

    assert len(pictures) == len(digits.target) - 1000
    assert {path.name for path in pictures} == set(labels)
    assert set(Counter(labels.values())) == set(range(10))
    for path in pictures:
        index = int(path.stem)
        assert path.suffix == ".png"
        assert labels[path.name] == digits.target[index]
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((28, 28), "L")
            grey = np.asarray(picture)
        # The picture is this very digit: scaled down again it is nearly the original, 0 … 16 black to white.
        small = np.asarray(Image.fromarray(grey).resize((8, 8), Image.Resampling.BOX)) * (16 / 255)
        assert np.corrcoef(small.ravel(), digits.images[index].ravel())[0, 1] > 0.9


def test_preparing_again_finds_everything_there_and_touches_nothing(build: Path) -> None:
    before = times_and_contents(build)
    answer = python(DIGITS / "prepare.py", "--build", build)
    assert "everything is there already" in answer.stdout
    assert times_and_contents(build) == before


def test_preparing_again_mends_what_is_torn_or_missing(build: Path, tmp_path: Path) -> None:
    is_prepared = runpy.run_path(str(DIGITS / "prepare.py"))["is_prepared"]
    mended = tmp_path / "digits"
    shutil.copytree(build, mended)
    assert is_prepared(mended)
    (mended / "labels.csv").unlink()
    assert not is_prepared(mended)
    shutil.copy(build / "labels.csv", mended)
    (mended / "models" / "mnist-tf.model.index").write_bytes(b"torn")
    assert not is_prepared(mended)
    (mended / "labels.csv").unlink()

    assert "training" in python(DIGITS / "prepare.py", "--build", mended).stdout

    assert is_prepared(mended)
    assert set(times_and_contents(mended)) == set(times_and_contents(build))
    assert (mended / "labels.csv").read_bytes() == (build / "labels.csv").read_bytes()


def test_the_entry_script_names_95_of_100_digits_right_by_tensors_that_existing_scripts_ask_for(
    build: Path, labels: dict[str, int], tmp_path: Path
) -> None:
    """With a folder relative to the script; the whole job below has it absolute. One process, for one TensorFlow."""
    folder = build / "models"
    classify = """
import json, sys
sys.path.insert(0, sys.argv.pop(1))
paths = json.loads(sys.argv.pop(1))
checkpoint = sys.argv.pop(1)
import digit_identification as script
import tensorflow.compat.v1 as tf

script.init()
print(json.dumps([script.run(paths[start : start + 5]) for start in range(0, len(paths), 5)]))

with tf.Graph().as_default() as graph:
    tf.train.import_meta_graph(checkpoint)
    tensors = [graph.get_tensor_by_name(name) for name in ("network/X:0", "network/output/MatMul:0")]
print(json.dumps([[tensor.op.type, tensor.dtype.name, tensor.shape.as_list()] for tensor in tensors]))
"""
    paths = [str(path) for path in sorted(build.glob("data/**/*.png"))]
    given = [json.dumps(paths), folder / "mnist-tf.model.meta", "--model", os.path.relpath(folder, DIGITS)]
    answer = python("-c", classify, DIGITS, *given, "--of-no-concern", cwd=tmp_path)

    mini_batches, tensors = map(json.loads, answer.stdout.splitlines())
    assert tensors == [["Placeholder", "float32", [None, 784]], ["MatMul", "float32", [None, 10]]]
    assert [len(rows) for rows in mini_batches] == [5] * 159 + [2]
    rows = [row for mini_batch in mini_batches for row in mini_batch]
    assert [row.split(": ")[0] for row in rows] == [Path(path).name for path in paths]
    right = set(rows) & {f"{name}: {label}" for name, label in labels.items()}
    assert len(right) >= 0.95 * len(paths)


TRUTH = {f"{index}.png": index % 10 for index in range(100)}
PERFECT = [f"{name}: {label}" for name, label in TRUTH.items()]


@pytest.mark.parametrize(
    ("rows", "exit_code", "words"),
    [
        pytest.param(PERFECT, 0, "100 of 100 digits (100.0%)", id="all right"),
        pytest.param(PERFECT[::-1], 0, "100 of 100 digits (100.0%)", id="in another order"),
        pytest.param(PERFECT[:95] + [f"{n}.png: x" for n in range(95, 100)], 0, "95 of 100", id="95 right"),
        pytest.param(PERFECT[:94] + [f"{n}.png: x" for n in range(94, 100)], 1, "95% expected", id="94 right"),
        pytest.param(PERFECT[1:], 1, "without a row: 1 (0.png)", id="a row is missing"),
        pytest.param([*PERFECT, PERFECT[7]], 1, "more than one row: 1 (7.png)", id="a row is there twice"),
        pytest.param([*PERFECT, "7.png: 3"], 1, "more than one row: 1 (7.png)", id="two answers for a file"),
        pytest.param([*PERFECT, "cat.png: 3"], 1, "not in the labels: 1 (cat.png)", id="a file of unknown origin"),
        pytest.param([], 1, "without a row: 100 (0.png, 1.png", id="no rows"),
    ],
)
def test_the_accuracy_check_asks_for_one_row_a_file_and_95_percent(
    tmp_path: Path, rows: list[str], exit_code: int, words: str
) -> None:
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{name},{n}\n" for name, n in TRUTH.items()))
    (tmp_path / "out.txt").write_text("".join(f"{row}\n" for row in rows))
    answer = python(DIGITS / "accuracy.py", tmp_path / "out.txt", "--labels", tmp_path / "labels.csv", check=False)
    assert answer.returncode == exit_code
    assert words in answer.stdout + answer.stderr


def test_the_accuracy_check_says_which_file_is_missing(tmp_path: Path) -> None:
    answer = python(DIGITS / "accuracy.py", tmp_path / "nothing.txt", check=False)
    assert answer.returncode == 1
    assert f"no file {tmp_path / 'nothing.txt'}" in answer.stderr


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("config", "inputs", "ranks"),
    [
        ("configs/digits.yaml", "inputs.0.files={build}/data/**/*.png", 3),
        ("configs/digits_hdf5.yaml", "inputs.0.table={build}/digits.h5", 2),
    ],
)
def test_the_whole_job_under_mpi_has_one_row_a_picture(
    build: Path, labels: dict[str, int], mpich: Mpi, tmp_path: Path, config: str, inputs: str, ranks: int
) -> None:
    output = tmp_path / "output"
    run_config(mpich, ranks, config, output, inputs.format(build=build), f"arguments=[--model, {build}/models]")

    rows = (output / "mnist_outputs.txt").read_text().splitlines()
    assert Counter(row.split(": ")[0] for row in rows) == dict.fromkeys(labels, 1)
    python(DIGITS / "accuracy.py", output / "mnist_outputs.txt", "--labels", build / "labels.csv")


def run_config(mpi: Mpi, ranks: int, config: str, output: Path, *settings: str) -> None:
    """Run a config of the repository, with other settings and another output."""
    changes = [word for setting in settings for word in ("--set", setting)]
    job = subprocess.run(
        [*mpi.command(ranks), "run", config, "--output", str(output), *changes],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert job.returncode == 0, job.stdout + job.stderr


def python(*arguments: object, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run this Python with the arguments; with ``check`` a failure shows what it printed."""
    answer = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not check or answer.returncode == 0, answer.stdout + answer.stderr
    return answer


def times_and_contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Relative path → time of the last change in nanoseconds, and content."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

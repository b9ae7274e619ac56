"""The tutorial notebook, executed as a reader does: cell by cell, with the data of the demo."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from mpi_prs.azureml.workspace import Workspace
from tests.job.test_digits import build  # noqa: F401  # a fixture
from tests.support.jobs import MARK, REPOSITORY, Job, Mpi, nothing_left_of

NOTEBOOK = REPOSITORY / "docs" / "tutorial.ipynb"


@pytest.mark.mpi
def test_the_tutorial_runs_from_its_first_cell_to_its_last(build: Path, tmp_path: Path, mpich: Mpi) -> None:  # noqa: F811
    job = Job(tmp_path, [])
    job.environment = {MARK: job.mark, "DIGITS": str(build)}
    ws = Workspace.create("tutorial", folder=tmp_path / "tutorial-workspace")  # which the notebook then takes
    ws.update_settings(backend="local")
    shutil.copy(NOTEBOOK, tmp_path)
    with nothing_left_of(job):
        started = job.start([str(mpich.python), "-m", "mpi_prs", "exec", NOTEBOOK.name])
        done = job.finish(started, timeout=280)
    assert done.returncode == 0, done.stdout
    right, of = map(int, re.findall(r"(\d+) of (\d+) digits are right", done.stdout)[0])
    assert of == 797
    assert right >= 0.95 * of
    assert "predict-digits" in done.stdout
    assert re.search(r"reuse", done.stdout)  # of the first step, when there is a second


def test_the_tutorial_is_kept_without_what_it_has_printed() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 10
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)

"""Pipelines that really run, for the tests of runs: scripts, steps, and what is left of their processes."""

from __future__ import annotations

import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.definition.parallel_run_config import ParallelRunConfig
from mpi_prs.azureml.definition.parallel_run_step import ParallelRunStep
from mpi_prs.azureml.experiment import Experiment
from mpi_prs.azureml.runs.run import PipelineRun
from mpi_prs.azureml.workspace import Workspace
from tests.support.jobs import MARK, REPOSITORY, Job
from tests.support.pipelines import make_workspace

NAMES = """
import os

def run(mini_batch):
    return [os.path.basename(path) for path in mini_batch]
"""

LINES = """
def run(mini_batch):
    return [f"again {line.strip()}" for path in mini_batch for line in open(path)]
"""

WAITING = """
import os, sys, time

def run(mini_batch):
    print("at work", flush=True)
    while not os.path.exists(sys.argv[-1]):
        time.sleep(0.01)
    return [os.path.basename(path) for path in mini_batch]
"""


class Lab:
    """A workspace with data and scripts, whose processes can be counted.

    Attributes:
        folder: ``data/`` has the inputs, ``source/`` the scripts.
        ws: the workspace.
        job: knows the processes of all runs by their mark.
        go: a file that waiting scripts wait for.
    """

    def __init__(self, folder: Path, job: Job, backend: str = "local") -> None:
        self.folder = folder
        self.job = job
        self.ws: Workspace = make_workspace(folder, backend=backend)
        self.source = folder / "source"
        self.source.mkdir()
        self.go = folder / "go"
        self.experiment = Experiment(self.ws, "tests")

    @classmethod
    def at(cls, folder: str) -> Lab:
        """The same in another process."""
        found = cls.__new__(cls)
        found.folder, found.source, found.go = Path(folder), Path(folder, "source"), Path(folder, "go")
        found.ws = Workspace.at(found.folder / "ws")
        found.experiment = Experiment(found.ws, "tests")
        return found

    def files(self, count: int = 6, name: str = "data") -> Any:
        """A dataset of ``item-0.txt`` and so on."""
        data = self.folder / name
        data.mkdir(exist_ok=True)
        for number in range(count):
            (data / f"item-{number}.txt").write_text(f"{number}\n")
        return Dataset.File.from_files(path=str(data), validate=False)

    def step(self, name: str, script: str, inputs: Any, output: Any = None, **changes: Any) -> ParallelRunStep:
        """A step with a script of its own; keys of ParallelRunConfig go there, the others to the step."""
        (self.source / f"{name}.py").write_text(textwrap.dedent(script))
        settings: dict[str, Any] = {
            "environment": None,
            "source_directory": str(self.source),
            "entry_script": f"{name}.py",
            "mini_batch_size": 2,
            "error_threshold": 0,
            "output_action": "append_row",
            "append_row_file_name": "rows.txt",
            "compute_target": "cpucluster",
            "node_count": 1,
            "process_count_per_node": 1,
            "run_max_try": 1,
        }
        of_step = {key: changes.pop(key) for key in ("arguments", "side_inputs", "allow_reuse") if key in changes}
        return ParallelRunStep(name, ParallelRunConfig(**{**settings, **changes}), inputs, output, **of_step)

    def submit(self, *steps: ParallelRunStep, **options: Any) -> PipelineRun:
        run: PipelineRun = self.experiment.submit(list(steps), **options)
        return run

    def rows(self, run: PipelineRun, step: str) -> list[str]:
        """The rows of a step's output, downloaded, sorted."""
        [step_run] = run.find_step_run(step)
        [name] = step_run.get_outputs()
        data = step_run.get_output_data(name)
        target = self.folder / f"download-{uuid.uuid4().hex[:8]}"
        assert data.download(str(target), show_progress=False) == 1
        [file] = [path for path in target.rglob("*") if path.is_file()]
        assert file == target / data.path_on_datastore / "rows.txt"
        return sorted(file.read_text().splitlines())


def items(count: int = 6) -> list[str]:
    """What the script ``NAMES`` returns for :meth:`Lab.files`."""
    return [f"item-{number}.txt" for number in range(count)]


def marked_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """Everything that this test starts carries a mark; at the end nothing of it may live."""
    job = Job(folder, [])
    monkeypatch.setenv(MARK, job.mark)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    try:
        yield job
        monkeypatch.delenv(MARK)
        job.assert_nothing_left()
    finally:
        job.kill_all()

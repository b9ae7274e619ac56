"""What tests of pipelines need: a workspace with a compute target, a script, and steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpi_prs.azureml.compute.target import AmlCompute, ComputeTarget
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.definition.data import PipelineData
from mpi_prs.azureml.definition.parallel_run_config import ParallelRunConfig
from mpi_prs.azureml.definition.parallel_run_step import ParallelRunStep
from mpi_prs.azureml.workspace import Workspace

SCRIPT = "def run(mini_batch):\n    return mini_batch\n"


def make_workspace(folder: Path, *, max_nodes: int = 4, backend: str = "local") -> Workspace:
    """A workspace with the compute target ``cpucluster``."""
    ws = Workspace.create("ws", folder=folder / "ws", show_output=False)
    ws.update_settings(backend=backend)
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", min_nodes=0, max_nodes=max_nodes)
    ComputeTarget.create(ws, "cpucluster", config)
    return ws


def make_source(folder: Path) -> Path:
    """A source directory with ``score.py``."""
    source = folder / "source"
    source.mkdir()
    (source / "score.py").write_text(SCRIPT)
    return source


def make_config(**changes: Any) -> ParallelRunConfig:
    """A config with what is required, and ``changes``."""
    given = {
        "environment": None,
        "entry_script": "score.py",
        "error_threshold": 10,
        "output_action": "append_row",
        "compute_target": "cpucluster",
        "node_count": 2,
    }
    return ParallelRunConfig(**{**given, **changes})


def make_files(folder: Path, count: int = 3) -> Any:
    """A FileDataset of text files."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for number in range(count):
        (data / f"{number}.txt").write_text(f"{number}\n")
    return Dataset.File.from_files(path=str(data), validate=False)


def make_table(folder: Path) -> Any:
    """A TabularDataset of one CSV."""
    path = folder / "table.csv"
    path.write_text("store,price\na,1\nb,2\n")
    return Dataset.Tabular.from_delimited_files(path=str(path), validate=False)


def make_step(name: str, inputs: Any, **changes: Any) -> ParallelRunStep:
    """A step with an output of its own, unless ``changes`` say otherwise."""
    config = changes.pop("parallel_run_config", None) or make_config()
    output = changes.pop("output", ...)
    if output is ...:
        output = PipelineData(name.replace("-", "_"))
    return ParallelRunStep(name=name, parallel_run_config=config, inputs=inputs, output=output, **changes)

"""Outputs that become datasets when their run has completed: ``OutputFileDatasetConfig.register_on_complete``.

Nobody waits for the end of a job on Slurm, so whoever sees first that a step has completed registers its outputs.
"""

from __future__ import annotations

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.run_status import PipelineLook
from mpi_prs.azureml.datasets.dataset import from_definition
from mpi_prs.azureml.runs.pipeline_watch import folder_of
from mpi_prs.child.context.run_record import RunRecord
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.core.records import locked, write_json


def register_outputs(workspace: Workspace, look: PipelineLook) -> None:
    """Register the outputs of the steps that have completed, each once, however many look at the same time.

    Raises:
        WorkspaceError: one cannot be registered.
    """
    for step in look.steps:
        part = step.record.step
        if step.standing.state != states.COMPLETED or part is None or part.reused is not None:
            continue
        if any(output.registration is not None for output in part.outputs.values()):
            _register(workspace, step.record)


def _register(workspace: Workspace, record: RunRecord) -> None:
    assert record.step is not None
    done = folder_of(workspace.layout, record).root / "registered.json"
    if done.exists():
        return
    with locked(done):
        if done.exists():
            return
        versions = {}
        for output in record.step.outputs.values():
            wanted = output.registration
            if wanted is not None:
                dataset = from_definition(workspace, wanted.definition)
                made = dataset.register(
                    workspace, wanted.name, wanted.description, wanted.tags, create_new_version=True
                )
                versions[wanted.name] = made.version
        write_json(done, versions)

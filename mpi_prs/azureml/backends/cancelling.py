"""The end of pipeline runs and step runs before their time, as somebody wants it.

::

    experiments/EXPERIMENT/STEP_RUN/cancelled ─► runner.json's process sees it, within half a second
    _run/cancelled, scancel                  ─► Slurm's job, in the queue or at work
"""

from __future__ import annotations

from mpi_prs.azureml.runs.pipeline_watch import PipelineWatch, backend_of, folder_of
from mpi_prs.child.context.run_record import RunFolder
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import WorkspaceError


def cancel_steps(layout: WorkspaceFolder, experiment: str, run_id: str, only: str | None = None) -> None:
    """Have the steps of a pipeline run stopped that are not over yet. To do it again does no harm.

    Args:
        run_id: of the pipeline run.
        only: id of the one step run that is meant; ``None``: all.

    Raises:
        SlurmError: Slurm does not do it.
        WorkspaceError: the run is not there, or cannot be written.
    """
    look = PipelineWatch(layout, experiment, run_id).look()
    if look.is_over:
        return
    assert look.record.pipeline is not None
    backend = backend_of(look.record.pipeline.backend)
    open_steps = [step.record for step in look.steps if not step.standing.is_over and only in (None, step.record.id)]
    if only is None:
        _mark(RunFolder(layout.run(experiment, run_id)))
    for record in open_steps:
        _mark(folder_of(layout, record))
    for record in reversed(open_steps):  # the last first, so that none begins meanwhile
        backend.cancel(record)


def _mark(folder: RunFolder) -> None:
    try:
        folder.cancelled.touch()
    except OSError as error:
        raise WorkspaceError(f"cannot write to {folder.root}: {error.strerror}. Is it your run?") from error

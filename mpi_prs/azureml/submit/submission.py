"""From a pipeline to a run that is on its way.

::

    values, steps, backend checked ─► run folder: "submitting" ─► planning: each step has a job, or an earlier output
                                              │ anything fails                              │ all is checked
                                              ▼                                             ▼
                                      run.json says why                    the backend starts them ─► "submitted"

Nothing is started before everything has been checked; nothing is kept in memory that the files would not tell.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.definition.pipeline import Pipeline
from mpi_prs.azureml.runs.pipeline_watch import Backend, PipelineWatch, backend_of
from mpi_prs.azureml.store.settings import backend
from mpi_prs.azureml.submit import reuse
from mpi_prs.azureml.submit.compiling import define_step
from mpi_prs.azureml.submit.planning import PlannedStep, Planning, Request, Say
from mpi_prs.child.context.run_record import (
    PIPELINE,
    SUBMITTED,
    SUBMITTING,
    PipelinePart,
    RunFolder,
    RunRecord,
    new_id,
    utc_now,
    write_record,
)
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import MpiPrsError, PipelineError
from mpi_prs.core.process_mark import ProcessMark
from mpi_prs.job.config.model import load_config


def submit(request: Request, say: Say) -> RunRecord:
    """Submit a pipeline; returns the record of its run.

    Args:
        say: is told what is decided, a line each.

    Raises:
        PipelineError, WorkspaceError, ConfigError, ScriptError, InputError, SlurmError: something is wrong with what is
            to be run, or it cannot be started. Nothing runs then; if there is a run already, it says why it failed.
    """
    pipeline, layout = request.pipeline, request.pipeline.workspace.layout
    values = pipeline.values(request.parameters)
    steps = pipeline.steps_in_order()
    definitions = []
    for step in steps:
        step.source(pipeline.default_source_directory)
        definitions.append(define_step(step, values, pipeline.workspace))
    name = _backend_name(pipeline)
    backend = backend_of(name)
    backend.check({})
    run_id = _claim(layout, request.experiment)
    ids = {step: f"{run_id}-{number:02d}-{step.name}" for number, step in enumerate(steps, start=1)}
    record = RunRecord(
        id=run_id,
        experiment=request.experiment,
        kind=PIPELINE,
        name=request.display_name,
        created=utc_now().isoformat(timespec="milliseconds"),
        tags=dict(request.tags),
        properties={} if pipeline.description is None else {"description": pipeline.description},
        pipeline=PipelinePart(
            backend=name,
            steps=list(ids.values()),
            state=SUBMITTING,
            submitter=ProcessMark.of_this_process(),
            parameters={name: _shown(value) for name, value in values.items()},
        ),
    )
    folder = write_record(layout, record)
    with _failing_openly(layout, record):
        planned = Planning(request, definitions, ids, record, _logging(folder, say)).steps()
        _start(layout, folder, backend, planned)
        return _set(layout, record, state=SUBMITTED)


def resume(layout: WorkspaceFolder, experiment: str, run_id: str) -> None:
    """Start what is left of a pipeline run that was stopped, cancelled or lost; what is finished is kept.

    Raises:
        PipelineError: it is under way, has completed, or was never submitted.
    """
    look = PipelineWatch(layout, experiment, run_id).look()
    assert look.record.pipeline is not None
    if not look.is_over:
        raise PipelineError(f"the run {run_id} is under way ({look.state}): there is nothing to resume")
    if look.state == states.COMPLETED:
        raise PipelineError(f"the run {run_id} has completed: there is nothing to resume")
    if look.record.pipeline.problem or len(look.steps) != len(look.record.pipeline.steps):
        raise PipelineError(f"the run {run_id} has never begun, since its submission failed: submit the pipeline again")

    left = [step.record for step in look.steps if step.standing.state != states.COMPLETED]
    folders = {record.id: RunFolder(layout.run(experiment, record.id)) for record in left}
    configs = {record.id: load_config(folders[record.id].job) for record in left}
    backend = backend_of(look.record.pipeline.backend)
    backend.check(configs)
    pipeline = RunFolder(layout.run(experiment, run_id))
    for folder in (pipeline, *folders.values()):
        folder.cancelled.unlink(missing_ok=True)
    backend.start(pipeline, left, configs)
    _set(layout, look.record, state=SUBMITTED)


def _start(layout: WorkspaceFolder, folder: RunFolder, backend: Backend, planned: list[PlannedStep]) -> None:
    to_run = {each.record.id: each.config for each in planned if each.config is not None}
    backend.check(to_run)
    for each in planned:
        write_record(layout, each.record)
        if each.digest is not None and each.config is not None:
            reuse.remember(layout, each.digest, each.record)
    if folder.cancelled.exists():
        raise PipelineError("the run was cancelled while it was being submitted")
    if to_run:
        backend.start(folder, [each.record for each in planned if each.record.id in to_run], to_run)


def _backend_name(pipeline: Pipeline) -> str:
    return backend(pipeline.workspace.settings)


def _claim(layout: WorkspaceFolder, experiment: str) -> str:
    """A new id, and its folder, which nobody else has."""
    while True:
        run_id = new_id(utc_now())
        folder = layout.run(experiment, run_id)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise PipelineError(f"cannot write to {folder.parent}: {error.strerror}. Is it your workspace?") from error
        return run_id


@contextlib.contextmanager
def _failing_openly(layout: WorkspaceFolder, record: RunRecord) -> Iterator[None]:
    """If the block fails, the run says why."""
    try:
        yield
    except BaseException as error:
        problem = str(error) if isinstance(error, MpiPrsError) else f"{type(error).__name__} {error}".strip()
        with contextlib.suppress(MpiPrsError):
            _set(layout, record, problem=problem or type(error).__name__)
        raise


def _set(layout: WorkspaceFolder, record: RunRecord, **changes: Any) -> RunRecord:
    assert record.pipeline is not None
    changed = dataclasses.replace(record, pipeline=dataclasses.replace(record.pipeline, **changes))
    write_record(layout, changed)
    return changed


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _logging(folder: RunFolder, say: Say) -> Say:
    """Tell people, and keep it with the run."""
    folder.logs.mkdir(parents=True, exist_ok=True)

    def both(text: str) -> None:
        say(text)
        with contextlib.suppress(OSError), open(folder.submission_log, "a", encoding="utf-8") as log:
            log.write(f"{utc_now():%Y-%m-%d %H:%M:%S}  {text}\n")

    return both

"""Looks at pipeline runs: what they are, from their descriptions, and where they stand, from what others write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.local_backend import LocalBackend
from mpi_prs.azureml.backends.run_status import Blocked, PipelineLook, RunStatus, StepLook, blocked, overall
from mpi_prs.azureml.backends.slurm_backend import SlurmBackend
from mpi_prs.child.context.run_record import SUBMITTING, PipelinePart, RunFolder, RunRecord, read_record
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import PipelineError, WorkspaceError

if TYPE_CHECKING:
    from typing import Protocol

    class Looking(Protocol):
        """What of a backend is needed to look."""

        def look(self, record: RunRecord, folder: RunFolder, blocked: Blocked | None, given_up: bool) -> RunStatus:
            """Where a step run stands."""


Backend = SlurmBackend | LocalBackend


def backend_of(name: str) -> Backend:
    """The backend ``slurm`` or ``local``."""
    return SlurmBackend() if name == "slurm" else LocalBackend()


class PipelineWatch:
    """Looks at one pipeline run again and again; a look costs some small files, and now and then a question to Slurm.

    Args:
        layout: of the workspace.
        experiment: its name.
        run_id: of the pipeline run.
        backend: default: the run's own.
    """

    def __init__(self, layout: WorkspaceFolder, experiment: str, run_id: str, backend: Looking | None = None) -> None:
        self._layout = layout
        self._experiment = experiment
        self._run_id = run_id
        self._backend = backend
        self._steps: dict[str, RunRecord] = {}

    def look(self) -> PipelineLook:
        """Where it stands now. Raises WorkspaceError: its description is gone or broken."""
        record, part = self._read()
        alive = part.submitter.is_alive() if part.state == SUBMITTING and not part.problem else None
        if alive is False:
            record, part = self._read()  # what it wrote last, it may have written just now
        given_up = bool(part.problem) or (part.state == SUBMITTING and alive is False)
        steps = self._look_at_steps(part, given_up)
        standings = [step.standing for step in steps]
        if part.problem:
            return PipelineLook(record, states.FAILED, f"the submission has failed: {part.problem}", steps)
        if not steps or (part.state == SUBMITTING and not given_up):
            if given_up:
                return PipelineLook(record, states.FAILED, "the submission was interrupted; submit it again", steps)
            return PipelineLook(record, states.PREPARING, f"is being submitted on {part.submitter.host}", steps)
        return PipelineLook(record, *overall(standings), steps)

    def _read(self) -> tuple[RunRecord, PipelinePart]:
        record = read_record(self._layout, self._experiment, self._run_id)
        if record.pipeline is None:
            raise PipelineError(f"{self._run_id} is not the run of a pipeline, but {record.kind}")
        return record, record.pipeline

    def _look_at_steps(self, part: PipelinePart, given_up: bool) -> list[StepLook]:
        backend = self._backend = self._backend or backend_of(part.backend)
        looks: dict[str, StepLook] = {}
        for step_id in part.steps:
            record = self._step(step_id)
            if record is not None:
                looks[step_id] = StepLook(record, self._stand(backend, record, looks, given_up))
        return list(looks.values())

    def _stand(self, backend: Looking, record: RunRecord, earlier: dict[str, StepLook], given_up: bool) -> RunStatus:
        assert record.step is not None
        reused = record.step.reused
        if reused is not None:
            return RunStatus(states.COMPLETED, f"reuses the output of the run {reused.run_id} ({reused.experiment})")
        needs = [earlier[need] for need in record.step.needs if need in earlier]
        folder = RunFolder(self._layout.run(self._experiment, record.id))
        return backend.look(record, folder, blocked(needs), given_up)

    def _step(self, step_id: str) -> RunRecord | None:
        """``None``: it has not been written yet."""
        if step_id not in self._steps:
            try:
                self._steps[step_id] = read_record(self._layout, self._experiment, step_id)
            except WorkspaceError:
                if self._layout.run_description(self._experiment, step_id).exists():
                    raise
                return None
        return self._steps[step_id]


def folder_of(layout: WorkspaceFolder, record: RunRecord) -> RunFolder:
    """The folder of a run."""
    return RunFolder(layout.run(record.experiment, record.id))

"""Where runs stand: Azure's words for it, and how the standings of steps make that of their pipeline. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpi_prs.child.context.run_record import RunRecord
from mpi_prs.monitor.status import Status

NOT_STARTED = "NotStarted"
PREPARING = "Preparing"
QUEUED = "Queued"
RUNNING = "Running"
CANCEL_REQUESTED = "CancelRequested"
COMPLETED = "Completed"
FAILED = "Failed"
CANCELED = "Canceled"

OVER = frozenset([COMPLETED, FAILED, CANCELED])
"""What a run ends as."""


def finished(state: str) -> str:
    """The word for a state that ``get_status()`` of pipeline runs and step runs has: ``Finished`` for ``Completed``."""
    return "Finished" if state == COMPLETED else state


@dataclass(frozen=True)
class RunStatus:
    """Where a step run stands.

    Attributes:
        state: one of the words above.
        detail: what it waits for, or how it ended, in a line; may be empty.
        status: what the engine says; ``None``: nothing yet.
    """

    state: str
    detail: str = ""
    status: Status | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen any more."""
        return self.state in OVER


@dataclass(frozen=True)
class StepLook:
    """A step run, and where it stands."""

    record: RunRecord
    standing: RunStatus


@dataclass(frozen=True)
class PipelineLook:
    """A pipeline run, and where it and its steps stand.

    Attributes:
        record: of the pipeline run.
        state: one of the words above.
        detail: as of a standing.
        steps: in the order of the pipeline.
    """

    record: RunRecord
    state: str
    detail: str
    steps: list[StepLook]

    @property
    def is_over(self) -> bool:
        """Whether nothing will happen any more."""
        return self.state in OVER

    def of_step(self, step_id: str | None) -> PipelineLook:
        """The same as if the pipeline had this step alone; itself where it has no such step."""
        step = next((step for step in self.steps if step.record.id == step_id), None)
        return self if step is None else PipelineLook(self.record, step.standing.state, step.standing.detail, [step])


@dataclass(frozen=True)
class Blocked:
    """Why a step may not start: the step that it needs, and whether that will never complete."""

    step: str
    for_good: bool

    def standing(self) -> RunStatus:
        """Of a step that has not begun."""
        if self.for_good:
            return RunStatus(CANCELED, f"not run, since it needs the step {self.step}, which has not completed")
        return RunStatus(NOT_STARTED, f"waits for the step {self.step}")


def blocked(needs: Sequence[StepLook]) -> Blocked | None:
    """What stands in the way of a step that needs these; ``None``: nothing."""
    unfinished = [need for need in needs if need.standing.state != COMPLETED]
    dead = next((need for need in unfinished if need.standing.is_over), None)
    if dead is not None:
        return Blocked(dead.record.name, for_good=True)
    return Blocked(unfinished[0].record.name, for_good=False) if unfinished else None


def overall(steps: Sequence[RunStatus]) -> tuple[str, str]:
    """The state of a pipeline and a line about it, from those of its steps."""
    states = [step.state for step in steps]
    if all(state == COMPLETED for state in states):
        return COMPLETED, ""
    if all(step.is_over for step in steps):
        worst = FAILED if FAILED in states else CANCELED
        return worst, next((step.detail for step in steps if step.state == worst), "")
    if CANCEL_REQUESTED in states:
        return CANCEL_REQUESTED, ""
    waiting = next((step for step in steps if not step.is_over), None)
    detail = waiting.detail if waiting is not None else ""
    if any(state in (RUNNING, PREPARING) for state in states):
        return RUNNING, ""
    if QUEUED in states:
        return QUEUED, next(step.detail for step in steps if step.state == QUEUED)
    return (RUNNING if COMPLETED in states else NOT_STARTED), detail

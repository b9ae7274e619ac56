"""``runner.json``: how far the process has come that runs a pipeline's steps on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mpi_prs.core.process_mark import ProcessMark

UPDATE_SECONDS = 10.0
SILENCE = 60.0
"""Seconds without an update after which another machine believes that the runner is dead."""


@dataclass(frozen=True)
class StepProgress:
    """One step.

    Attributes:
        exit_code: ``None``: it is at work.
        skipped: why it was not run; empty: it was.
        began: seconds since 1970.
    """

    exit_code: int | None = None
    skipped: str = ""
    began: float = 0.0


@dataclass(frozen=True)
class RunnerRecord:
    """The content of the file.

    Attributes:
        process: the runner.
        updated: seconds since 1970.
        finished: whether it has ended in good order.
        steps: id of each step run that it has come to.
    """

    process: ProcessMark
    updated: float
    finished: bool = False
    steps: dict[str, StepProgress] = field(default_factory=dict)

    def is_alive(self) -> bool:
        """Whether the runner still works; by its last sign of life, where it is on another machine."""
        if self.finished:
            return False
        alive = self.process.is_alive()
        return time.time() - self.updated <= SILENCE if alive is None else alive

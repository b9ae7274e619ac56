"""``wait_for_completion``: look, say what is new, sleep; and tell the user's own traceback at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.run_status import PipelineLook, StepLook
from mpi_prs.azureml.runs.logs import logs_of, why_failed
from mpi_prs.azureml.runs.pipeline_watch import PipelineWatch
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import RunFailed
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import duration, printable
from mpi_prs.monitor.progress import progress_line

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


@dataclass
class _Said:
    """What was said of a step."""

    state: str = ""
    text: str = ""
    due: float = 0.0
    intervals: Iterator[float] = field(default_factory=lambda: chain((1.0, 2.0, 5.0, 10.0, 30.0), repeat(60.0)))


class Narrator:
    """Turns looks into lines: each change of a step's state at once, its progress at growing intervals."""

    def __init__(self) -> None:
        self._steps: dict[str, _Said] = {}

    def lines(self, look: PipelineLook, now: float) -> list[str]:
        """What is new; ``now``: seconds that only go forward."""
        return [line for step in look.steps for line in self._of_step(step, now)]

    def _of_step(self, step: StepLook, now: float) -> Iterator[str]:
        said = self._steps.setdefault(step.record.id, _Said())
        standing = step.standing
        text = _text(step)
        is_new_state = said.state != standing.state
        if not is_new_state and (text == said.text or now < said.due):
            return
        if is_new_state:
            said.intervals = _Said().intervals
        said.state, said.text, said.due = standing.state, text, now + next(said.intervals)
        yield f"{step.record.name}: {states.finished(standing.state)}{f'  {text}' if text else ''}"


def _text(step: StepLook) -> str:
    status = step.standing.status
    if step.standing.state in (states.RUNNING, states.COMPLETED, states.CANCEL_REQUESTED) and status is not None:
        return printable(progress_line(status))
    return printable(step.standing.detail)


def wait_for(
    layout: WorkspaceFolder,
    experiment: str,
    run_id: str,
    *,
    only: str | None,
    show: bool,
    timeout: float,
    raise_on_error: bool,
    say: Callable[[str], None] = print,
) -> PipelineLook:
    """Wait for the end of a pipeline run, or of one of its steps; returns the last look.

    Args:
        run_id: of the pipeline run.
        only: id of the step run that is waited for; ``None``: all.
        show: say how it goes.
        timeout: seconds; then the waiting ends, and says so.
        raise_on_error: otherwise a failure is only said.
        say: is told each line.

    Raises:
        RunFailed: it has failed.
    """
    watch, narrator = PipelineWatch(layout, experiment, run_id), Narrator()
    began, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        look = watch.look().of_step(only)
        if show:
            for line in narrator.lines(look, time.monotonic()):
                say(f"{time.strftime('%H:%M:%S')}  {line}")
        if look.is_over:
            break
        left = timeout - (time.monotonic() - began)
        if left <= 0:
            state = states.finished(look.state)
            say(f"waited {duration(timeout)} for the run {only or run_id}, which goes on ({state})")
            return look
        try:
            time.sleep(min(pause, left))
        except KeyboardInterrupt:
            say(f"the run {only or run_id} goes on; its method cancel() ends it, wait_for_completion() goes on waiting")
            raise
        pause = min(_LONGEST_PAUSE, pause * 1.3)
    if look.state == states.FAILED:
        _fail(layout, look, only or run_id, raise_on_error, say)
    elif show:
        say("\n".join(ending(look)))
    return look


def _fail(
    layout: WorkspaceFolder, look: PipelineLook, run_id: str, raise_on_error: bool, say: Callable[[str], None]
) -> None:
    logs = {step.record.id: logs_of(layout, step.record) for step in look.steps}
    text = f"the run {run_id} has failed\n{why_failed(look, logs)}"
    if raise_on_error:
        raise RunFailed(text)
    say(text)


def ending(look: PipelineLook) -> Iterator[str]:
    """How it went, in lines: the engine's own summary of each step that has run."""
    for step in look.steps:
        part = step.record.step
        assert part is not None
        if part.reused is not None or step.standing.state != states.COMPLETED:
            continue
        yield f"step {step.record.name}"
        try:
            yield RunDirectory(Path(part.folder)).job_result.read_text("utf-8", "replace").rstrip()
        except OSError:
            yield f"  output in {part.folder}"
    yield f"the run {look.record.id} is {states.finished(look.state).lower()}"

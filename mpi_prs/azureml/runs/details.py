"""``RunDetails(run).show()``: how a run goes, live in Jupyter, as text in a terminal.

What is shown of a run is plain data, :class:`RunView`; its forms are text and HTML. In Jupyter a thread looks and
replaces what is displayed until the run is over; it ends with the kernel. IPython is used only where it is imported.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.run_status import PipelineLook, StepLook
from mpi_prs.azureml.runs.logs import CONSOLE, logs_of, why_failed
from mpi_prs.azureml.runs.run import PipelineRun, StepRun
from mpi_prs.azureml.runs.waiting import ending
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import MpiPrsError, PipelineError
from mpi_prs.core.units import count, duration, printable, rate
from mpi_prs.monitor.logs import last_lines
from mpi_prs.monitor.status import failed_on_two

_PAUSE = 1.0
_LONGEST_PAUSE = 5.0
_GROWTH = 1.02
_LOG_LINES = 8
_BAR = 24

_COLOURS = {
    states.COMPLETED: "#2e8540",
    states.FAILED: "#c4262e",
    states.CANCELED: "#8a6d00",
    states.CANCEL_REQUESTED: "#8a6d00",
    states.RUNNING: "#0b6cb8",
}
_GREY = "#777"


class RunDetails(Surface):
    """Shows a pipeline run, or a step run."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "get_widget_data": "use run.get_details()",
        "widget_settings": "there is nothing to set",
    }

    def __init__(self, run_instance: Any) -> None:
        """
        Args:
            run_instance: a PipelineRun or StepRun.

        Raises:
            PipelineError: it is something else.
        """
        if not isinstance(run_instance, (PipelineRun, StepRun)):
            raise PipelineError(
                f"RunDetails shows a PipelineRun or a StepRun, but got {type(run_instance).__name__}; of other runs "
                "run.get_details() and run.get_metrics() tell what there is"
            )
        self._run = run_instance
        self._thread: threading.Thread | None = None

    def show(self, render_lib: object = None, widget_settings: object = None) -> None:
        """Show it: in Jupyter until the run is over, in a terminal once; the program goes on at once in any case.

        Args:
            render_lib, widget_settings: Azure's own; ignored.
        """
        del render_lib, widget_settings
        view = self._view()
        display = _jupyter_display()
        if display is None:
            print(as_text(view))
            return
        update = display(as_html(view))
        if not view.is_over:
            self._thread = threading.Thread(target=self._go_on, args=(update,), name="RunDetails", daemon=True)
            self._thread.start()

    def _view(self) -> Any:
        look = self._run._pipeline_look()
        layout = self._run.experiment.workspace.layout
        return view_of(look, {step.record.id: logs_of(layout, step.record) for step in look.steps}, self._run.folder)

    def _go_on(self, update: Callable[[str], None]) -> None:
        pause, shown = _PAUSE, ""
        stop = threading.Event()
        while not stop.wait(pause):
            try:
                view = self._view()
                html, is_over = as_html(view), view.is_over
            except (MpiPrsError, OSError) as error:
                html, is_over = f"<pre>{escape(str(error))}</pre>", True
            if html != shown:
                update(html)
                shown = html
            if is_over:
                return
            pause = min(_LONGEST_PAUSE, pause * _GROWTH)

    def __repr__(self) -> str:
        return f"RunDetails({self._run!r})"


def _jupyter_display() -> Callable[[str], Callable[[str], None]] | None:
    """Displays HTML and returns what replaces it; ``None``: this is no notebook."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    if ipython is None or getattr(ipython.get_ipython(), "kernel", None) is None:
        return None
    shown = importlib.import_module("IPython.display")

    def show(html: str) -> Callable[[str], None]:
        handle = shown.display(shown.HTML(html), display_id=True)
        return lambda html: handle.update(shown.HTML(html))

    return show


# What is shown


@dataclass(frozen=True)
class StepView:
    """A step.

    Attributes:
        name: of the step.
        state: Azure's word.
        detail: what it waits for, or how it ended; may be empty.
        done: part of its mini-batches that is settled, 0 to 1; ``None``: not known.
        facts: name → value: mini-batches, items, throughput, failures, time left.
    """

    name: str
    state: str
    detail: str
    done: float | None
    facts: Mapping[str, str]


@dataclass(frozen=True)
class RunView:
    """A run.

    Attributes:
        title: its name.
        run_id: its id.
        state: Azure's word.
        steps: in order.
        log: the last lines of what is at work.
        problem: why it failed; empty: it has not.
        summary: how it went, once it is over.
        folder: where it is kept.
    """

    title: str
    run_id: str
    state: str
    steps: tuple[StepView, ...]
    log: tuple[str, ...]
    problem: str
    summary: str
    folder: str

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in states.OVER


def view_of(look: PipelineLook, logs: Mapping[str, Mapping[str, Path]], folder: Path) -> RunView:
    """The view of a pipeline run.

    Args:
        look: where it stands.
        logs: step run → name → file.
        folder: where it is kept.
    """
    at_work = next((step for step in look.steps if step.standing.state in (states.RUNNING, states.PREPARING)), None)
    console = None if at_work is None else logs.get(at_work.record.id, {}).get(CONSOLE)
    return RunView(
        title=look.record.name or look.record.experiment,
        run_id=look.record.id,
        state=look.state,
        steps=tuple(_step_view(step) for step in look.steps),
        log=tuple(last_lines(console, _LOG_LINES)) if console is not None else (),
        problem=why_failed(look, logs) if look.state == states.FAILED else "",
        summary="\n".join(ending(look)) if look.is_over else look.detail,
        folder=str(folder),
    )


def _step_view(step: StepLook) -> StepView:
    status, standing = step.standing.status, step.standing
    if status is None:
        return StepView(step.record.name, standing.state, printable(standing.detail), None, {})
    facts = {
        "mini-batches": f"{count(status.settled)} of {count(status.mini_batches)}",
        "items": f"{count(status.items_done)} of {count(status.items)}",
        "throughput": rate(status.items_per_second) if status.items_per_second else "",
        "failed items": count(status.items_failed) if status.items_failed else "",
        "tried again": count(status.retried) if status.retried else "",
        "on two nodes": failed_on_two(status.failed_on_two_nodes),
        "benched nodes": ", ".join(map(printable, status.benched_nodes)),
        "time left": f"about {duration(status.eta_seconds)}" if status.eta_seconds else "",
    }
    detail = standing.detail or (status.reason if status.under_way else "")
    done = status.settled / status.mini_batches if status.mini_batches else None
    return StepView(
        step.record.name,
        standing.state,
        printable(detail),
        done,
        {name: value for name, value in facts.items() if value},
    )


# Forms


def as_text(view: RunView) -> str:
    """For terminals."""
    lines = [f"{view.title}  {view.run_id}: {states.finished(view.state)}"]
    for step in view.steps:
        lines.append(f"  {step.name}: {states.finished(step.state)}{f'  {step.detail}' if step.detail else ''}")
        if step.done is not None:
            filled = int(_BAR * step.done)
            facts = ", ".join(f"{name} {value}" for name, value in step.facts.items())
            lines.append(f"    [{'#' * filled}{'-' * (_BAR - filled)}] {100 * step.done:.0f} %  {facts}")
    lines += [f"  | {line}" for line in view.log]
    lines += [part for part in (view.problem, view.summary) if part]
    lines.append(f"  {view.folder}")
    return "\n".join(lines)


def as_html(view: RunView) -> str:
    """For Jupyter: no scripts, nothing from elsewhere, and everything that is not ours is escaped."""
    parts = [
        f"<div><b>{escape(view.title)}</b> &nbsp;<code>{escape(view.run_id)}</code> &nbsp;{_badge(view.state)}</div>"
    ]
    if view.steps:
        parts.append(f'<table style="margin:6px 0">{"".join(_row(step) for step in view.steps)}</table>')
    if view.log:
        parts.append(_pre("\n".join(view.log)))
    if view.problem:
        parts.append(_pre(view.problem, "#c4262e"))
    if view.summary:
        parts.append(_pre(view.summary))
    parts.append(f'<div style="color:{_GREY};font-size:90%">{escape(view.folder)}</div>')
    return f'<div style="font-family:sans-serif;line-height:1.5">{"".join(parts)}</div>'


def _row(step: StepView) -> str:
    facts = " · ".join(f"{escape(name)} {escape(value)}" for name, value in step.facts.items())
    bar = "" if step.done is None else _bar(step.done, step.state)
    cell = 'style="text-align:left;vertical-align:top;padding:2px 10px"'
    text = "<br>".join(part for part in (escape(step.detail), bar, facts) if part)
    return f"<tr><td {cell}>{escape(step.name)}</td><td {cell}>{_badge(step.state)}</td><td {cell}>{text}</td></tr>"


def _bar(done: float, state: str) -> str:
    percent = max(0.0, min(100.0, 100 * done))
    inner = f'<div style="background:{_COLOURS.get(state, _GREY)};width:{percent:.1f}%;height:10px"></div>'
    outer = "display:inline-block;vertical-align:middle;width:240px;border:1px solid #999;border-radius:2px"
    return f'<div style="{outer}">{inner}</div> {percent:.0f} %'


def _badge(state: str) -> str:
    style = f"background:{_COLOURS.get(state, _GREY)};color:#fff;border-radius:3px;padding:1px 6px;font-size:90%"
    return f'<span style="{style}">{escape(states.finished(state))}</span>'


def _pre(text: str, colour: str = "inherit") -> str:
    style = f"color:{colour};white-space:pre-wrap;margin:4px 0;font-size:90%"
    return f'<pre style="{style}">{escape(text)}</pre>'

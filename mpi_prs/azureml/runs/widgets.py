"""``RunDetails(run).show()``: how a run goes, live in Jupyter, as text in a terminal.

In Jupyter a thread looks and replaces what is displayed until the run is over; it ends with the kernel.
IPython is used only where it is there already.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import MpiPrsError, PipelineError

_PAUSE = 1.0
_LONGEST_PAUSE = 5.0
_GROWTH = 1.02


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
        from mpi_prs.azureml.runs.run import PipelineRun, StepRun

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
        from mpi_prs.azureml.runs.view import as_html, as_text

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
        from mpi_prs.azureml.runs.logs import logs_of
        from mpi_prs.azureml.runs.view import view_of

        look = self._run._pipeline_look()
        layout = self._run.experiment.workspace.layout
        return view_of(look, {step.record.id: logs_of(layout, step.record) for step in look.steps}, self._run.folder)

    def _go_on(self, update: Callable[[str], None]) -> None:
        from mpi_prs.azureml.runs.view import as_html

        pause, shown = _PAUSE, ""
        stop = threading.Event()
        while not stop.wait(pause):
            try:
                view = self._view()
                html, is_over = as_html(view), view.is_over
            except (MpiPrsError, OSError) as error:
                html, is_over = f"<pre>{_escaped(str(error))}</pre>", True
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


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)

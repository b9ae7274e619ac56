"""Runs: ``Run``, what all have in common, and those of the user's own; ``PipelineRun``; ``StepRun``.

What entry scripts have of them is in :mod:`mpi_prs.child.context.run`, which these extend.
"""

from __future__ import annotations

import datetime
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.cancelling import cancel_steps
from mpi_prs.azureml.backends.run_status import PipelineLook, StepLook
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.runs.logs import CONSOLE, failure_text, logs_of, why_failed
from mpi_prs.azureml.runs.pipeline_watch import PipelineWatch
from mpi_prs.azureml.runs.waiting import wait_for
from mpi_prs.azureml.submit import submission
from mpi_prs.azureml.submit.registering import register_outputs
from mpi_prs.child.context import run as context
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.run import Experiment, made
from mpi_prs.child.context.run_files import all_files, checked_name, copy_files
from mpi_prs.child.context.run_record import OWN, RunRecord, find_experiment, run_ids, utc_now, write_record
from mpi_prs.child.context.slice import at_hand
from mpi_prs.child.context.tags import matches
from mpi_prs.child.context.workspace_paths import AnyWorkspace, layout_of
from mpi_prs.core.errors import PipelineError, RunFailed, WorkspaceError
from mpi_prs.core.records import check_name
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.words import near
from mpi_prs.monitor.status import read_status

_PAUSE = 0.2


class Run(context.Run):
    """A run of an experiment; what it tells is read when it is asked for.

    Attributes:
        experiment: that it belongs to.
        id: unique in the workspace.
    """

    # Those that there are

    @staticmethod
    def get(workspace: AnyWorkspace, run_id: str) -> Any:
        """The run of an id, whatever experiment it belongs to. Raises WorkspaceError: there is none."""
        return made(at_hand(Experiment)(workspace, find_experiment(layout_of(workspace), run_id)), run_id)

    @staticmethod
    def list(
        experiment: Experiment,
        type: str | None = None,
        tags: Any = None,
        properties: Any = None,
        status: str | None = None,
        include_children: bool = False,
    ) -> Iterator[Any]:
        """The runs of an experiment, latest first; see ``Experiment.get_runs``. ``status``: those that stand so."""
        layout = experiment.workspace.layout
        for run_id in reversed(run_ids(layout, experiment.name)):
            run = made(experiment, run_id)
            record = run._record
            if type not in (None, record.kind) or (record.parent is not None and not include_children):
                continue
            if run._fits(tags, properties, status):
                yield run

    # What it is

    def get_details(self) -> dict[str, Any]:
        """What is known of it, under Azure's names."""
        facts = self._facts()
        started, ended = self._times()
        details: dict[str, Any] = {
            "runId": self.id,
            "target": self._target(),
            "status": self._state(),
            "startTimeUtc": started,
            "endTimeUtc": ended,
            "properties": facts.properties,
            "tags": facts.tags,
            "inputDatasets": [],
            "outputDatasets": [],
            "logFiles": {name: str(path) for name, path in self._logs().items()},
        }
        problem = self._problem()
        if problem:
            details["error"] = {"error": {"code": "UserError", "message": problem}}
        return details

    def _target(self) -> str:
        return "local"

    def _times(self) -> tuple[str | None, str | None]:
        ended = self._facts().ended_at
        if not ended:
            return self._record.created, None
        end = datetime.datetime.fromtimestamp(ended, datetime.timezone.utc)
        return self._record.created, end.isoformat(timespec="milliseconds")

    def _problem(self) -> str:
        return self._facts().error

    def get_children(
        self,
        recursive: bool = False,
        tags: Any = None,
        properties: Any = None,
        type: str | None = None,
        status: str | None = None,
    ) -> Iterator[Any]:
        """The runs that are a part of this one, latest first; ``recursive``: also their parts."""
        for run in Run.list(self.experiment, include_children=True):
            if run._record.parent != self.id:
                continue
            if type in (None, run._record.kind) and run._fits(tags, properties, status):
                yield run
            if recursive:
                yield from run.get_children(True, tags, properties, type, status)

    def _fits(self, tags: Any, properties: Any, status: str | None) -> bool:
        if status is not None and self._state() != status and self.get_status() != status:
            return False
        if tags is None and properties is None:
            return True
        facts = self._facts()
        return matches(facts.tags, tags, "tags") and matches(facts.properties, properties, "properties")

    # Its files

    def _logs(self) -> dict[str, Path]:
        """Name → file, of what was logged by the program."""
        return all_files(self._folder.logs, "logs")

    def _files(self) -> dict[str, Path]:
        return {**self._logs(), **all_files(self._folder.artifacts, "")}

    def get_file_names(self) -> Sequence[str]:
        """The names of its logs, and of the files that were uploaded."""
        return sorted(self._files())

    def download_file(self, name: str, output_file_path: str | None = None, **azure: object) -> None:
        """Copy one of its files here.

        Args:
            name: as of :meth:`get_file_names`.
            output_file_path: a file, or an existing folder; default: a file of the same name in the working directory.
            azure: ignored.

        Raises:
            WorkspaceError: there is no such file (names near ones), or it cannot be written.
        """
        del azure
        name = checked_name(name)
        target = given_path("output_file_path", output_file_path) if output_file_path else Path(os.path.basename(name))
        copy_files(self._files(), {name: target / os.path.basename(name) if target.is_dir() else target}, self.id)

    def download_files(
        self,
        prefix: str | None = None,
        output_directory: str | None = None,
        output_paths: Sequence[str] | None = None,
        batch_size: object = 100,
        append_prefix: bool = True,
        timeout_seconds: object = None,
    ) -> None:
        """Copy its files here.

        Args:
            prefix: those whose names begin with it; default: all.
            output_directory: the folder; default: the working directory.
            output_paths: a path for each, in the order of the names.
            append_prefix: whether their paths here begin with the prefix, too.
            batch_size, timeout_seconds: mean nothing here.

        Raises:
            WorkspaceError: not as many paths as files, or something cannot be written.
        """
        del batch_size, timeout_seconds
        files = self._files()
        names = sorted(name for name in files if name.startswith(prefix or ""))
        if output_paths is not None and len(output_paths) != len(names):
            raise WorkspaceError(
                f"download_files: got {len(output_paths)} output_paths for {len(names)} files: {names}"
            )
        paths = output_paths or [name if append_prefix else name[len(prefix or "") :].lstrip("/") for name in names]
        base = given_path("output_directory", output_directory) if output_directory else Path()
        copy_files(files, {name: base / path for name, path in zip(names, paths, strict=True)}, self.id)

    def get_all_logs(self, destination: str | None = None) -> Sequence[str]:
        """Copy all logs to a folder (default: the working directory); returns their paths there."""
        logs = self._logs()
        base = given_path("destination", destination) if destination else Path()
        copy_files(logs, {name: base / name for name in logs}, self.id)
        return [str(base / name) for name in sorted(logs)]

    def get_details_with_logs(self) -> dict[str, Any]:
        """:meth:`get_details`, with the content of each log instead of its path."""
        details = self.get_details()
        details["logFiles"] = {name: path.read_text("utf-8", "replace") for name, path in self._logs().items()}
        return details

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        **azure: object,
    ) -> Model:
        """Register a file or folder of the run as a model.

        Args:
            model_name: name of the model.
            model_path: as it was uploaded; default: the name of the model.
            tags, properties, description: of the model.
            azure: what Azure's service would deploy it by; ignored.

        Raises:
            WorkspaceError: there is no such file.
        """
        del azure
        path = self._folder.artifacts / (model_path or model_name)
        if not path.exists():
            raise WorkspaceError(f"the run {self.id} has no file {model_path or model_name!r}; upload_file() it first")
        return Model.register(
            self.experiment.workspace, str(path), model_name, tags=tags, properties=properties, description=description
        )

    # Its life

    def child_run(self, name: str | None = None, run_id: str | None = None, outputs: object = None) -> Run:
        """A run of one's own that is a part of this one; end it by ``complete()`` or ``fail()``.

        Args:
            name: its display name.
            run_id: its id; default: a new one.
            outputs: means nothing here.

        Raises:
            WorkspaceError: the id is taken, or cannot be one.
        """
        del outputs
        child = check_name(run_id, "a run") if run_id else f"{self.id}-{secrets.token_hex(6)}"
        if self._layout.run_description(self.experiment.name, child).exists():
            raise WorkspaceError(f"there is a run {child!r} already; choose another run_id")
        created = utc_now().isoformat(timespec="milliseconds")
        write_record(self._layout, RunRecord(child, self.experiment.name, OWN, name or "", created, parent=self.id))
        return Run(self.experiment, child)

    def wait_for_completion(
        self,
        show_output: bool = False,
        wait_post_processing: object = False,
        raise_on_error: bool = True,
        timeout_seconds: float = float("inf"),
    ) -> dict[str, Any]:
        """Wait until somebody has said that it is over; returns its details.

        Raises:
            RunFailed: it has failed, and ``raise_on_error``.
        """
        del wait_post_processing, show_output
        deadline = time.monotonic() + timeout_seconds
        while self._state() not in states.OVER and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        if raise_on_error and self._state() == states.FAILED:
            raise RunFailed(
                f"the run {self.display_name} ({self.id}) has failed: {self._problem() or 'nobody said why'}"
            )
        return self.get_details()

    def _repr_html_(self) -> str:

        rows = {"Experiment": self.experiment.name, "Id": self.id, "Type": self.type, "Status": self._safe_state()}
        return _table({**rows, "Folder": str(self._folder.root)})


class StepRun(context.StepRun, Run):
    """The run of a step; in entry scripts ``Run.get_context()`` is it."""

    _pipeline_watch: PipelineWatch | None = None

    def _pipeline_look(self) -> PipelineLook:
        """The look at the pipeline as if this were its only step: where it stands shows in the whole."""
        if self._pipeline_watch is None:
            assert self._record.parent is not None
            self._pipeline_watch = PipelineWatch(self._layout, self.experiment.name, self._record.parent)
        return self._pipeline_watch.look().of_step(self.id)

    def _look(self) -> StepLook:
        return self._pipeline_look().steps[0]

    def _state(self) -> str:
        return self._look().standing.state

    def get_status(self) -> str:
        """``NotStarted``, ``Queued``, ``Preparing``, ``Running``, ``CancelRequested``, ``Finished``, ``Failed`` or
        ``Canceled``."""
        return states.finished(self._state())

    @property
    def is_reused(self) -> bool:
        """Whether the output of an earlier run is used. Not one of Azure's names."""
        return self._part.reused is not None

    @property
    def reused_from(self) -> StepRun | None:
        """The run whose output is used; ``None``: it has run itself. Not one of Azure's names."""
        reused = self._part.reused
        if reused is None:
            return None
        return StepRun(at_hand(Experiment)(self.experiment.workspace, reused.experiment), reused.run_id)

    def _target(self) -> str:
        return self._part.compute

    def _times(self) -> tuple[str | None, str | None]:

        status = read_status(self._directory().status)
        if status is None or self.is_reused:
            return None, None
        return status.started, None if status.under_way else status.updated

    def _problem(self) -> str:
        look = self._look()
        return self._failure_text(look) if look.standing.state == states.FAILED else ""

    def _failure_text(self, look: StepLook) -> str:

        return failure_text(look, self._logs())

    # Logs

    def _directory(self) -> RunDirectory:
        return RunDirectory(Path(self._part.folder))

    def _logs(self) -> dict[str, Path]:
        return logs_of(self._layout, self._record)

    def get_stdout_log(self) -> str:
        """What the user processes have printed, one after the other."""
        return self._joined("logs/user/stdout/")

    def get_stderr_log(self) -> str:
        """What the user processes have printed to stderr."""
        return self._joined("logs/user/stderr/")

    def get_job_log(self, dump_to_file: str | None = None) -> str:
        """What the launcher and the ranks have printed; also into a file."""
        text = self._joined(CONSOLE)
        if dump_to_file:
            Path(dump_to_file).write_text(text, "utf-8")
        return text

    def _joined(self, prefix: str) -> str:
        texts = [
            path.read_text("utf-8", "replace") for name, path in sorted(self._logs().items()) if name.startswith(prefix)
        ]
        return "".join(texts)

    # Its life

    def cancel(self) -> None:
        """Have the step stopped, in the queue or at work; steps that need it do not run. What is finished is kept.

        Raises:
            SlurmError: Slurm does not do it.
        """

        cancel_steps(self._layout, self.experiment.name, str(self._record.parent), only=self.id)

    def wait_for_completion(  # type: ignore[override]  # Azure's own order, which is not that of Run
        self, show_output: bool = True, timeout_seconds: float = float("inf"), raise_on_error: bool = True
    ) -> str:
        """Wait until it is over; returns its status.

        Args:
            show_output: print how it goes.
            timeout_seconds: wait no longer.
            raise_on_error: otherwise its failure is printed.

        Raises:
            RunFailed: it has failed; the text has the user's own traceback.
        """

        assert self._record.parent is not None
        wait_for(
            self._layout,
            self.experiment.name,
            self._record.parent,
            only=self.id,
            show=show_output,
            timeout=timeout_seconds,
            raise_on_error=raise_on_error,
        )
        return self.get_status()


class PipelineRun(context.PipelineRun, Run):
    """The run of a pipeline: ``Experiment.submit`` gives it, and ``PipelineRun(experiment, run_id)`` finds it again."""

    _watch: PipelineWatch | None = None

    def _look(self) -> PipelineLook:
        if self._watch is None:
            self._watch = PipelineWatch(self._layout, self.experiment.name, self.id)
        look = self._watch.look()
        register_outputs(self.experiment.workspace, look)
        return look

    def _pipeline_look(self) -> PipelineLook:
        return self._look()

    def _state(self) -> str:
        return self._look().state

    def get_status(self) -> str:
        """``Preparing``, ``NotStarted``, ``Queued``, ``Running``, ``CancelRequested``, ``Finished``, ``Failed`` or
        ``Canceled``."""
        return states.finished(self._state())

    def _target(self) -> str:
        part = self._record.pipeline
        return "" if part is None else part.backend

    def _times(self) -> tuple[str | None, str | None]:
        times = [step._times() for step in self.get_steps()]
        ends = [end for _, end in times if end is not None]
        return self._record.created, max(ends, default=None) if self._look().is_over else None

    def _problem(self) -> str:
        look = self._look()
        return self._why_failed(look) if look.state == states.FAILED else ""

    def _why_failed(self, look: PipelineLook) -> str:

        return why_failed(look, self._step_logs())

    def _step_logs(self) -> dict[str, Any]:
        return {step.id: step._logs() for step in self.get_steps()}

    # Steps and outputs

    def get_steps(self) -> list[StepRun]:
        """The runs of its steps, in order."""
        return [StepRun(self.experiment, step.record.id) for step in self._look().steps]

    def find_step_run(self, name: str) -> list[StepRun]:
        """The runs of the step of a name: one, or none."""
        return [step for step in self.get_steps() if step._record.name == name]

    def get_pipeline_output(self, pipeline_output_name: str) -> PortDataReference:
        """The data of the output with this ``pipeline_output_name``. Raises PipelineError: there is none."""
        known = {}
        for step in self.get_steps():
            for name, output in step._part.outputs.items():
                if output.pipeline_name:
                    known[output.pipeline_name] = PortDataReference(step, name, output)
        if pipeline_output_name not in known:
            raise PipelineError(
                f"the pipeline has no output {pipeline_output_name!r}{near(str(pipeline_output_name), known)}"
            )
        return known[pipeline_output_name]

    # Its life

    def cancel(self) -> None:
        """Have it stopped: what waits does not begin, what runs ends in good order, what is finished is kept.

        Raises:
            SlurmError: Slurm does not do it.
        """

        cancel_steps(self._layout, self.experiment.name, self.id)

    def resume(self) -> None:
        """Start what is left of it, after it was stopped, cancelled or lost; what is finished is kept. Not one of
        Azure's names.

        Raises:
            PipelineError: it is under way, or has completed.
        """
        submission.resume(self._layout, self.experiment.name, self.id)

    def wait_for_completion(  # type: ignore[override]  # Azure's own order, which is not that of Run
        self, show_output: bool = True, timeout_seconds: float = float("inf"), raise_on_error: bool = True
    ) -> str:
        """Wait until it is over; returns its status. Ctrl-C ends the waiting, and not the run.

        Args:
            show_output: print how it goes: what each step waits for, how far it is, how it ended.
            timeout_seconds: wait no longer.
            raise_on_error: otherwise its failure is printed.

        Raises:
            RunFailed: it has failed; the text has the user's own traceback.
        """

        wait_for(
            self._layout,
            self.experiment.name,
            self.id,
            only=None,
            show=show_output,
            timeout=timeout_seconds,
            raise_on_error=raise_on_error,
        )
        return self.get_status()


class PortDataReference(context.PortDataReference):
    """The data of an output.

    Attributes:
        name: of the output.
        path_on_datastore: its folder in the datastore.
    """

    def download(self, local_path: str, overwrite: bool | None = None, show_progress: bool | None = None) -> int:
        """Copy its files to ``local_path/path_on_datastore/…``; what the job knows about itself (``_run``) stays.

        Args:
            local_path: a folder; it is made.
            overwrite: also what is there already (default: that is left as it is).
            show_progress: whether to print how far it is (default: yes).

        Returns:
            how many files were copied.

        Raises:
            WorkspaceError: there is nothing, or it cannot be written here.
            InputError: it cannot be read.
        """
        copied: int = self.datastore.download(
            local_path,
            prefix=f"{self.path_on_datastore.rstrip('/')}/",
            overwrite=bool(overwrite),
            show_progress=True if show_progress is None else show_progress,
        )
        return copied


class StepRunOutput(context.StepRunOutput):
    """An output of a step run.

    Attributes:
        name: of the output.
        step_run: of which it is.
    """


def _table(rows: Mapping[str, str]) -> str:
    """A small table of names and values."""
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"

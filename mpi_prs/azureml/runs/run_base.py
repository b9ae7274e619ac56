"""``Run``: what all runs have in common; and runs of the user's own. Standard library only at the top, Python 3.7.

What users say about a run (metrics, tags, …) goes to its ``facts``, files to its ``artifacts``; see ``run_record.py``.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Iterator, Mapping  # noqa: UP035  # Python 3.7

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.runs.artifacts import RunArtifacts
from mpi_prs.child.context import script_facts as facts_of_run
from mpi_prs.child.context.run_metrics import RunMetrics
from mpi_prs.child.context.run_record import (
    OWN,
    PIPELINE,
    STEP,
    RunFolder,
    RunRecord,
    find_experiment,
    read_record,
    run_ids,
    utc_now,
    write_record,
)
from mpi_prs.child.context.script_context import script_context
from mpi_prs.child.context.tags import matches
from mpi_prs.child.context.workspace_paths import WorkspaceFolder, layout_of
from mpi_prs.core.errors import PipelineError, RunFailed, WorkspaceError
from mpi_prs.core.records import check_name, names_of

if TYPE_CHECKING:
    from mpi_prs.azureml.experiment import Experiment
    from mpi_prs.azureml.workspace import Workspace

_PAUSE = 0.2


class Run(RunMetrics, RunArtifacts):
    """A run of an experiment; what it tells is read when it is asked for.

    Attributes:
        experiment: that it belongs to.
        id: unique in the workspace.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "get_snapshot_id": "Run.get_details()['properties'] has it, and ws.layout.snapshot(…) the files",
        "restore_snapshot": "the code of a run is below ws.layout.snapshots, see Run.get_details()",
        "take_snapshot": "the code of a step is copied when it is submitted",
        "submit_child": "put the work into a step of the pipeline",
        "create_children": "call child_run() for each",
        "get_secret": "keep secrets in the environment",
        "get_secrets": "keep secrets in the environment",
        "get_environment": "ParallelRunConfig.environment has it",
        "get_submitted_run": "use Run.get_context()",
        "log_accuracy_table": "use log_table",
        "log_confusion_matrix": "use log_table",
        "log_predictions": "use log_table",
        "log_residuals": "use log_table",
        "add_type_providers": "there are no other kinds of runs",
        "wait_post_processing": "there is none",
    }

    def __init__(self, experiment: Experiment, run_id: str, outputs: object = None, **kwargs: object) -> None:
        """The run of an id.

        Args:
            experiment: that it belongs to.
            run_id: its id.
            outputs, kwargs: Azure's own; ignored.

        Raises:
            WorkspaceError: there is no such run; names near ones.
        """
        del outputs
        self.experiment = experiment
        self.id = run_id
        self._folder = RunFolder(self._layout.run(experiment.name, run_id))
        self._kept: RunRecord | None = None
        if kwargs.get("_is_there") is not True:
            self._kept = self._read()

    # Those that there are

    @staticmethod
    def get(workspace: Workspace, run_id: str) -> Any:
        """The run of an id, whatever experiment it belongs to. Raises WorkspaceError: there is none."""
        from mpi_prs.azureml.experiment import Experiment

        return made(Experiment(workspace, find_experiment(layout_of(workspace), run_id)), run_id)

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

    @staticmethod
    def get_context(allow_offline: bool = True, used_for_context_manager: object = False, **kwargs: object) -> Any:
        """In an entry script: the step run that it works for; elsewhere a run that only prints what it is told.

        Args:
            allow_offline: otherwise it is an error to be elsewhere.
            used_for_context_manager, kwargs: Azure's own; ignored.

        Raises:
            PipelineError: this is no entry script of a run.
        """
        del used_for_context_manager, kwargs
        context = script_context()
        if context is None or not context.run_id:
            if not allow_offline:
                raise PipelineError("Run.get_context: this process belongs to no run, and allow_offline is False")
            from mpi_prs.child.context.offline_run import OfflineRun

            return OfflineRun()
        from mpi_prs.azureml.experiment import Experiment
        from mpi_prs.azureml.runs.step_run import StepRun
        from mpi_prs.azureml.workspace import Workspace

        experiment = Experiment(Workspace.at(context.workspace), context.experiment)
        return StepRun(experiment, context.run_id, _is_there=True)  # ten thousand may ask at once

    # What it is

    @property
    def _layout(self) -> WorkspaceFolder:
        return self.experiment.workspace.layout

    @property
    def _record(self) -> RunRecord:
        if self._kept is None:
            self._kept = self._read()
        return self._kept

    def _read(self) -> RunRecord:
        return read_record(self._layout, self.experiment.name, self.id)

    def _facts(self) -> facts_of_run.Facts:
        record = self._record
        return facts_of_run.read(self._folder.facts, record.tags, {**self._own_properties(), **record.properties})

    def _own_properties(self) -> dict[str, str]:
        """What a run of its kind has anyway."""
        return {}

    @property
    def type(self) -> str:
        """``azureml.PipelineRun``, ``azureml.StepRun``, or ``azureml.Run`` for those of the user's own."""
        return self._record.kind

    @property
    def name(self) -> str:
        """Its display name."""
        return self.display_name

    @property
    def display_name(self) -> str:
        """What it is called: of a step run the step's name; it may be set."""
        given = self._facts().display_name
        return self._record.name or self.id if given is None else given

    @display_name.setter
    def display_name(self, name: str) -> None:
        facts_of_run.add(self._folder.facts, facts_of_run.NAME, name=str(name))

    @property
    def number(self) -> int:
        """Which run of its experiment it is, counted from 1."""
        return names_of(self._layout.experiment(self.experiment.name)).index(self.id) + 1

    @property
    def parent(self) -> Any:
        """The run that it is a part of; ``None``: of none."""
        parent = self._record.parent
        return None if parent is None else made(self.experiment, parent)

    @property
    def description(self) -> str:
        return self.properties.get("description", "")

    @property
    def status(self) -> str:
        """Where it stands, as :meth:`get_status`, but ``Completed`` for what pipelines call ``Finished``."""
        return self._state()

    @property
    def folder(self) -> Path:
        """Where everything of it is kept. Not one of Azure's names."""
        return self._folder.root

    def get_status(self) -> str:
        """``Running``, ``Completed``, ``Failed`` or ``Canceled``."""
        return self._state()

    def _state(self) -> str:
        return self._facts().ended or states.RUNNING

    def get_tags(self) -> dict[str, str]:
        """The tags."""
        return self.tags

    def get_properties(self) -> dict[str, str]:
        """The properties."""
        return self.properties

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

    def get_portal_url(self) -> str:
        """The run's folder, which is all the portal that there is."""
        return str(self._folder.root)

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

    # Its life

    def start(self) -> None:
        """Nothing: a run of the user's own has started when it was made."""

    def complete(self, _set_status: object = True) -> None:
        """Say that it has completed."""
        self._end(states.COMPLETED, "")

    def fail(self, error_details: Any = None, error_code: Any = None, _set_status: object = True) -> None:
        """Say that it has failed, and why."""
        self._end(states.FAILED, " ".join(str(part) for part in (error_code, error_details) if part is not None))

    def cancel(self) -> None:
        """Say that it is over before its time."""
        self._end(states.CANCELED, "")

    def _end(self, state: str, error: str) -> None:
        facts_of_run.add(self._folder.facts, facts_of_run.ENDED, status=state, error=error)

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

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.complete()
        else:
            self.fail(f"{kind.__name__}: {error}")

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

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(experiment={self.experiment.name!r}, id={self.id!r}, status={self._safe_state()!r})"
        )

    def _safe_state(self) -> str:
        with contextlib.suppress(WorkspaceError, OSError):
            return self.get_status()
        return "unknown"

    def _repr_html_(self) -> str:
        from mpi_prs.azureml.runs.html import run_table

        rows = {"Experiment": self.experiment.name, "Id": self.id, "Type": self.type, "Status": self._safe_state()}
        return run_table({**rows, "Folder": str(self._folder.root)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and (self.experiment, self.id) == (other.experiment, other.id)

    def __hash__(self) -> int:
        return hash((self.experiment, self.id))


def made(experiment: Experiment, run_id: str) -> Any:
    """The run of an id, as an object of its class. Raises WorkspaceError: there is none."""
    kind = read_record(experiment.workspace.layout, experiment.name, run_id).kind
    if kind == PIPELINE:
        from mpi_prs.azureml.runs.pipeline_run import PipelineRun

        return PipelineRun(experiment, run_id)
    if kind == STEP:
        from mpi_prs.azureml.runs.step_run import StepRun

        return StepRun(experiment, run_id)
    return Run(experiment, run_id)

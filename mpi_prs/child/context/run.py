"""What entry scripts have of runs: ``Run.get_context()``, what they log, the run's inputs, outputs and experiment.

What users say about a run (metrics, tags, …) goes to its ``facts``, files to its ``artifacts``; see ``run_record.py``.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

from mpi_prs.child.context import data, script_facts
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.offline_run import OfflineRun
from mpi_prs.child.context.run_files import put_file, put_folder
from mpi_prs.child.context.run_record import PIPELINE, STEP, Output, RunFolder, RunRecord, StepPart, read_record
from mpi_prs.child.context.script_context import script_context
from mpi_prs.child.context.slice import Slice, at_hand
from mpi_prs.child.context.tags import text_pairs
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.child.context.workspace_paths import AnyWorkspace, WorkspaceFolder, layout_of
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import PipelineError, WorkspaceError
from mpi_prs.core.records import names_of
from mpi_prs.core.words import near

RUNNING, COMPLETED, FAILED, CANCELED = "Running", "Completed", "Failed", "Canceled"
CANCEL_REQUESTED = "CancelRequested"
"""Azure's words for where a run stands."""


class Experiment(Slice):
    """The runs of one name in a workspace.

    Attributes:
        workspace: the workspace.
        name: of the experiment.
    """

    workspace: Any
    name: str

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "archive": "remove its folder, experiment.folder, by hand: it has all its runs",
        "delete": "remove its folder, experiment.folder, by hand: it has all its runs",
        "reactivate": "nothing is archived here",
        "get_docs_url": "see docs/azureml.md",
        "remove_tags": "tags belong to runs: Run.tag, Run.remove_tags",
        "set_tags": "tags belong to runs: Run.set_tags",
        "tag": "tags belong to runs: Run.tag",
        "refresh": "what an experiment tells is read when it is asked for",
    }

    def __init__(self, workspace: AnyWorkspace, name: str, **azure: Any) -> None:
        """The experiment of a name; it is made where there is none.

        Args:
            workspace: where.
            name: letters, digits, spaces and most punctuation.
            azure: Azure's own parameters, all of which begin with an underscore; ignored.

        Raises:
            WorkspaceError: the name cannot be one, or the workspace cannot be written.
        """
        unknown = [key for key in azure if not key.startswith("_")]
        if unknown:
            raise TypeError(f"Experiment() has no parameter {unknown[0]!r}")
        layout = layout_of(workspace)
        self.workspace = workspace
        self.name = name
        folder = layout.experiment(name)
        if not folder.is_dir():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise WorkspaceError(
                    f"cannot write to {folder.parent}: {error.strerror}. Is it your workspace?"
                ) from error

    @property
    def folder(self) -> os.PathLike[str]:
        """Where its runs are kept. Not one of Azure's names."""
        return layout_of(self.workspace).experiment(self.name)

    @property
    def id(self) -> str:
        """Its name, which is unique in the workspace."""
        return self.name

    @property
    def workspace_object(self) -> Any:
        """The workspace."""
        return self.workspace

    @property
    def tags(self) -> dict[str, str]:
        """None: tags belong to runs."""
        return {}

    def __repr__(self) -> str:
        return f"Experiment(name={self.name!r}, workspace={self.workspace.folder.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and (self.workspace, self.name) == (other.workspace, other.name)

    def __hash__(self) -> int:
        return hash((self.workspace, self.name))


class Run(Slice):
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
            return OfflineRun()
        experiment = at_hand(Experiment)(at_hand(Workspace).at(context.workspace), context.experiment)
        return at_hand(StepRun)(experiment, context.run_id, _is_there=True)  # ten thousand may ask at once

    # What it is

    @property
    def _layout(self) -> WorkspaceFolder:
        return layout_of(self.experiment.workspace)

    @property
    def _record(self) -> RunRecord:
        if self._kept is None:
            self._kept = self._read()
        return self._kept

    def _read(self) -> RunRecord:
        return read_record(self._layout, self.experiment.name, self.id)

    def _facts(self) -> script_facts.Facts:
        record = self._record
        return script_facts.read(self._folder.facts, record.tags, {**self._own_properties(), **record.properties})

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
        script_facts.add(self._folder.facts, script_facts.NAME, name=str(name))

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
        return self._facts().ended or RUNNING

    def get_tags(self) -> dict[str, str]:
        """The tags."""
        return self.tags

    def get_properties(self) -> dict[str, str]:
        """The properties."""
        return self.properties

    def get_portal_url(self) -> str:
        """The run's folder, which is all the portal that there is."""
        return str(self._folder.root)

    # What is said about it

    @property
    def tags(self) -> dict[str, str]:
        return self._facts().tags

    @property
    def properties(self) -> dict[str, str]:
        return self._facts().properties

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """One more value of a metric: a number or a text."""
        del description
        self._log(script_facts.scalar(name, value, step))

    def log_list(self, name: str, value: Sequence[Any], description: str = "") -> None:
        """A list of values of a metric."""
        del description
        self._log(script_facts.values(name, value))

    def log_row(self, name: str, description: str = "", **columns: Any) -> None:
        """One more row of a table of this name: a value for each column."""
        del description
        self._log(script_facts.row(name, columns))

    def log_table(self, name: str, value: Mapping[str, Any], description: str = "") -> None:
        """A table: for each column a value, or a list of them."""
        del description
        self._log(script_facts.table(name, value))

    def log_image(self, name: str, path: str | None = None, plot: Any = None, description: str = "") -> None:
        """Keep an image with the run, from a file or as a matplotlib figure (or ``pyplot``); the metric is its path.

        Raises:
            PipelineError: neither or both are given.
        """
        del description
        if (path is None) == (plot is None):
            raise PipelineError(f"log_image({name!r}): give the path of an image or a plot, one of them")
        suffix = ".png" if path is None else given_path("log_image: path", path).suffix
        stored = f"{name}_{time.time_ns()}{suffix}"
        if path is None:
            target = self._folder.artifacts / stored
            target.parent.mkdir(parents=True, exist_ok=True)
            plot.savefig(str(target))
        else:
            put_file(self._folder.artifacts, stored, path)
        self._log(script_facts.scalar(name, str(self._folder.artifacts / stored)))

    def _log(self, metric: Mapping[str, Any]) -> None:
        script_facts.add(self._folder.facts, script_facts.METRIC, **metric)

    def get_metrics(
        self,
        name: str | None = None,
        recursive: bool = False,
        run_type: str | None = None,
        populate: object = False,
    ) -> dict[str, Any]:
        """Name → value: a number or text; a list of all values where there are several; of tables a dict of columns.

        Args:
            name: of the metric; default: all.
            recursive: also those of the runs that are a part of it.
            run_type: of those, the ones of this type.
            populate: means nothing here.
        """
        del populate
        found = self._facts().metrics
        if recursive:
            for child in self.get_children(recursive=True, type=run_type):
                for key, value in child._facts().metrics.items():
                    found.setdefault(key, value)
        return {key: value for key, value in found.items() if name in (None, key)}

    def tag(self, key: str, value: Any = None) -> None:
        """Set one tag."""
        self.set_tags({key: "" if value is None else value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; others stay."""
        script_facts.add(self._folder.facts, script_facts.TAGS, set=text_pairs("tags", tags))

    def remove_tags(self, tags: Any) -> dict[str, str]:
        """Take tags away, by their keys; returns those that are left.

        Raises:
            WorkspaceError: it is neither a key nor a list of keys.
        """
        keys = [tags] if isinstance(tags, str) else tags
        if not isinstance(keys, (list, tuple, set, dict)) or not all(isinstance(key, str) for key in keys):
            raise WorkspaceError(f"remove_tags: expected a key or a list of keys, but got {tags!r}")
        keys = list(keys)
        script_facts.add(self._folder.facts, script_facts.TAGS, removed=keys)
        return self.tags

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Set properties, which cannot be changed afterwards.

        Raises:
            WorkspaceError: one is there already, with another value.
        """
        given, known = text_pairs("properties", properties), self.properties
        for key, value in given.items():
            if known.get(key, value) != value:
                raise WorkspaceError(
                    f"the property {key!r} is {known[key]!r}, and properties cannot be changed; use tags"
                )
        script_facts.add(self._folder.facts, script_facts.PROPERTIES, set=given)

    def flush(self, timeout_seconds: object = 300) -> None:
        """Nothing waits: what was logged is in the run's files already."""
        del timeout_seconds

    # Its files

    def upload_file(
        self, name: str, path_or_stream: str | os.PathLike[str] | IO[Any], datastore_name: object = None
    ) -> Path:
        """Keep a file with the run, in place of one of the same name; returns where it is.

        Args:
            name: relative path, such as ``outputs/model.pkl``.
            path_or_stream: the file, or something to read.
            datastore_name: means nothing here.

        Raises:
            WorkspaceError: the file cannot be read, or the name leads elsewhere.
        """
        del datastore_name
        return put_file(self._folder.artifacts, name, path_or_stream)

    def upload_files(self, names: Sequence[str], paths: Sequence[str], *_: object, **__: object) -> list[Path]:
        """Keep files with the run; see :meth:`upload_file`. Raises WorkspaceError: not as many names as paths."""
        if len(names) != len(paths):
            raise WorkspaceError(
                f"upload_files: got {len(names)} names and {len(paths)} paths; give a name for each path"
            )
        return [self.upload_file(name, path) for name, path in zip(names, paths)]  # noqa: B905

    def upload_folder(self, name: str, path: str | os.PathLike[str], datastore_name: object = None) -> Path:
        """Keep all files of a folder with the run, below ``name``; returns where they are. Raises WorkspaceError."""
        del datastore_name
        return put_folder(self._folder.artifacts, name, given_path("path", path))

    # Its life

    def start(self) -> None:
        """Nothing: a run of the user's own has started when it was made."""

    def complete(self, _set_status: object = True) -> None:
        """Say that it has completed."""
        self._end(COMPLETED, "")

    def fail(self, error_details: Any = None, error_code: Any = None, _set_status: object = True) -> None:
        """Say that it has failed, and why."""
        self._end(FAILED, " ".join(str(part) for part in (error_code, error_details) if part is not None))

    def cancel(self) -> None:
        """Say that it is over before its time."""
        self._end(CANCELED, "")

    def _end(self, state: str, error: str) -> None:
        script_facts.add(self._folder.facts, script_facts.ENDED, status=state, error=error)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.complete()
        else:
            self.fail(f"{kind.__name__}: {error}")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(experiment={self.experiment.name!r}, id={self.id!r}, status={self._safe_state()!r})"
        )

    def _safe_state(self) -> str:
        with contextlib.suppress(WorkspaceError, OSError):
            return self.get_status()
        return "unknown"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and (self.experiment, self.id) == (other.experiment, other.id)

    def __hash__(self) -> int:
        return hash((self.experiment, self.id))


class StepRun(Run):
    """The run of a step; in entry scripts ``Run.get_context()`` is it."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "get_port_data_references": "use get_outputs()",
        "get_outputs_preview": "use get_output_data(NAME).download(FOLDER)",
    }

    def __init__(
        self,
        experiment: Experiment,
        step_run_id: str,
        pipeline_run_id: str | None = None,
        node_id: object = None,
        _service_endpoint: object = None,
        **kwargs: object,
    ) -> None:
        """The step run of an id.

        Args:
            experiment: that it belongs to.
            step_run_id: its id.
            pipeline_run_id: of the pipeline run; it is known from the step run.
            node_id, kwargs: Azure's own; ignored.

        Raises:
            WorkspaceError: there is no such run.
        """
        del node_id, _service_endpoint
        super().__init__(experiment, step_run_id, **kwargs)
        if pipeline_run_id not in (None, self._record.parent):
            raise WorkspaceError(f"the step run {step_run_id} is no part of the run {pipeline_run_id}")

    @property
    def _part(self) -> StepPart:
        part = self._record.step
        if part is None:
            raise PipelineError(f"the run {self.id} is not that of a step, but {self._record.kind}")
        return part

    def _state(self) -> str:
        """Of the run that a script belongs to it is known, of others only by a look at what the backend writes."""
        context = script_context()
        if context is None or self.id not in (context.run_id, _parent_of(self)):
            self._become_whole(f"{type(self).__name__}.get_status")
            return self._state()
        return CANCEL_REQUESTED if self._folder.cancelled.exists() else RUNNING

    def _own_properties(self) -> dict[str, str]:
        part = self._part
        own = {"azureml.runsource": "azureml.StepRun", "azureml.moduleName": self._record.name}
        if self._record.parent:
            own["azureml.pipelinerunid"] = self._record.parent
        own["snapshot"] = part.snapshot
        if part.reused is not None:
            own.update({"azureml.isreused": "true", "azureml.reusedrunid": part.reused.run_id})
        return own

    # Outputs

    def get_outputs(self) -> dict[str, StepRunOutput]:
        """Name → output."""
        return {name: StepRunOutput(self, name, output) for name, output in self._part.outputs.items()}

    def get_output(self, name: str) -> StepRunOutput:
        """The output of a name. Raises PipelineError: there is none."""
        return StepRunOutput(self, *self._output(name))

    def get_output_data(self, name: str) -> PortDataReference:
        """The data of an output, by the name of its PipelineData; of a reused step that of the earlier run.

        Raises:
            PipelineError: there is none; names near ones.
        """
        return PortDataReference(self, *self._output(name))

    def _output(self, name: str) -> Any:
        found = output_of(self._part.outputs, name)
        if found is None:
            known = self._part.outputs
            raise PipelineError(f"the step {self._record.name!r} has no output {name!r}{near(str(name), known)}")
        return found

    @property
    def input_datasets(self) -> Mapping[str, Any]:
        """In the entry script: the inputs and side inputs, by name. What is a path on this node is that path, what is
        not is a dataset."""
        return _InputDatasets(self.experiment)

    def complete(self, _set_status: object = True) -> None:
        """Nothing: a step has completed when all of its mini-batches are done."""

    def fail(self, error_details: Any = None, error_code: Any = None, _set_status: object = True) -> None:
        """Note why the script thinks that the step has failed. Whether it has, is decided by its mini-batches: raise an
        exception in ``run()`` for those that fail."""
        super().fail(error_details, error_code)


class PipelineRun(Run):
    """The run of a pipeline: ``Experiment.submit`` gives it, and ``PipelineRun(experiment, run_id)`` finds it again."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "get_graph": "get_steps() has the steps",
        "publish_pipeline": "keep the script that makes the pipeline, and submit it again",
        "get_pipeline_runs": "use experiment.get_runs()",
        "save": "keep the script that makes the pipeline",
        "update_output": "there is no service that could do it",
    }

    def _state(self) -> str:
        """Of the run that a script belongs to it is known, of others only by a look at what the backend writes."""
        context = script_context()
        if context is None or self.id not in (context.run_id, _parent_of(self)):
            self._become_whole(f"{type(self).__name__}.get_status")
            return self._state()
        return CANCEL_REQUESTED if self._folder.cancelled.exists() else RUNNING

    def _own_properties(self) -> dict[str, str]:
        part = self._record.pipeline
        own = {"azureml.runsource": "azureml.PipelineRun"}
        return own if part is None else {**own, "backend": part.backend, "parameters": repr(part.parameters)}

    def complete(self, _set_status: object = True) -> None:
        """Nothing: a pipeline has completed when its steps have."""

    def fail(self, error_details: Any = None, error_code: Any = None, _set_status: object = True) -> None:
        """Note why somebody thinks that it has failed. Whether it has, is decided by its steps."""
        super().fail(error_details, error_code)


def made(experiment: Experiment, run_id: str) -> Any:
    """The run of an id, as an object of its class. Raises WorkspaceError: there is none."""
    kind = read_record(experiment.workspace.layout, experiment.name, run_id).kind
    return at_hand({PIPELINE: PipelineRun, STEP: StepRun}.get(kind, Run))(experiment, run_id)


class _InputDatasets(typing.Mapping[str, Any]):  # that of collections.abc takes no [ ] in Python 3.8
    """What a script is told of its inputs, made when it is asked for."""

    def __init__(self, experiment: Experiment) -> None:
        context = script_context()
        self._experiment = experiment
        self._told: Mapping[str, Any] = {} if context is None else context.named_inputs

    def __getitem__(self, name: str) -> Any:
        if name not in self._told:
            raise KeyError(f"the step has no input {name!r}{near(name, self._told)}")
        told = self._told[name]
        variable = told.get("variable")
        if variable and variable in HERE:
            return HERE[variable]
        if told.get("definition") is None:
            raise WorkspaceError(f"the input {name!r} is too long, or no dataset: it is not told to entry scripts")
        return data.dataset_of(self._experiment.workspace, told["definition"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._told)

    def __len__(self) -> int:
        return len(self._told)


def _parent_of(run: Run) -> str | None:
    """The id of the pipeline run that this process works for, if that may be this one."""
    context = script_context()
    assert context is not None
    with contextlib.suppress(WorkspaceError):
        return read_record(run._layout, context.experiment, context.run_id).parent
    return None


# Outputs


class PortDataReference(Slice):
    """The data of an output.

    Attributes:
        name: of the output.
        path_on_datastore: its folder in the datastore.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "as_input": "make a dataset: Dataset.File.from_files(output.datastore.path(output.path_on_datastore))",
        "as_mount": "make a dataset: Dataset.File.from_files(output.datastore.path(output.path_on_datastore))",
        "as_download": "make a dataset: Dataset.File.from_files(output.datastore.path(output.path_on_datastore))",
        "create_input_binding": "make a dataset of datastore.path(path_on_datastore)",
        "data_type": "it is a folder",
    }

    def __init__(self, step_run: StepRun, name: str, output: Output) -> None:
        """See ``StepRun.get_output_data``."""
        self.name = name
        self.path_on_datastore = output.path
        self._step_run = step_run
        self._output = output

    @property
    def datastore(self) -> Any:
        """Where it lies. Raises WorkspaceError: the datastore is not registered any more."""
        return at_hand(data.Datastore).get(self._step_run.experiment.workspace, self._output.datastore)

    @property
    def datastore_name(self) -> str:
        """The name of the datastore."""
        return self._output.datastore

    @property
    def url(self) -> str:
        """The path or URL of its folder. Not one of Azure's names."""
        return self._output.url

    @property
    def pipeline_run_id(self) -> str | None:
        """The id of the pipeline run that made it."""
        return self._step_run._record.parent

    def __repr__(self) -> str:
        return (
            f"PortDataReference(name={self.name!r}, datastore={self.datastore_name!r}, "
            f"path_on_datastore={self.path_on_datastore!r})"
        )


class StepRunOutput(Slice):
    """An output of a step run.

    Attributes:
        name: of the output.
        step_run: of which it is.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {"get_destination": "use get_port_data_reference().path_on_datastore"}

    def __init__(self, step_run: StepRun, name: str, output: Output) -> None:
        """See ``StepRun.get_outputs``."""
        self.name = name
        self.step_run = step_run
        self._output = output

    def get_port_data_reference(self) -> PortDataReference:
        """Its data."""
        return PortDataReference(self.step_run, self.name, self._output)

    def __repr__(self) -> str:
        return f"StepRunOutput(name={self.name!r}, step_run={self.step_run.id!r})"


def output_of(outputs: Mapping[str, Output], name: Any) -> tuple[str, Output] | None:
    """The output of a name, which is that of the PipelineData, or the ``output_name`` that it was given."""
    by_name = next(((key, each) for key, each in outputs.items() if key == name), None)
    return by_name or next(((key, each) for key, each in outputs.items() if each.path.rpartition("/")[2] == name), None)

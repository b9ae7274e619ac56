"""What entry scripts have of ``Model``: which there are, and where they lie. Ten thousand processes may ask at once.

What a job's environment says of a model (``MPI_PRS_MODELS``) leads to its file or folder without any listing; only
what is not there is looked up.
"""

# ruff: noqa: ARG002, ARG004  # parameters of Azure's that mean nothing here

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mpi_prs.child.context import finding
from mpi_prs.child.context.script_context import ScriptContext, script_context
from mpi_prs.child.context.slice import Slice, at_hand
from mpi_prs.child.context.tags import matches
from mpi_prs.child.context.workspace_paths import AnyWorkspace, WorkspaceFolder, layout_of
from mpi_prs.core.azure_names import NotRegistered, Registered
from mpi_prs.core.errors import ModelNotFoundException, WorkspaceError
from mpi_prs.core.records import check_name, latest_version, names_with_versions, read_json, versions
from mpi_prs.core.words import near

LOCAL = "azureml-models"
"""A folder in the working directory that may hold models as ``NAME/VERSION/…``, as Azure's SDK leaves them."""
CUSTOM = "Custom"
_SERVING = "nothing is served here: use the model in a ParallelRunStep, or Model.get_model_path in a script"


class UnknownModel(NotRegistered, ModelNotFoundException):
    """What ``ws.models[NAME]`` raises; also a KeyError, as a dict raises."""


class Model(Slice):
    """One version of a registered model.

    Attributes:
        workspace: where it is registered.
        name: its name.
        version: 1, 2, …
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "deploy": _SERVING,
        "package": _SERVING,
        "profile": _SERVING,
        "get_sas_urls": "use model.path: it is a file or folder in the workspace",
        "url": "use model.path: it is a file or folder in the workspace",
        "deserialize": "use Model(ws, name=NAME, version=VERSION)",
        "add_dataset_references": "keep what it was trained on in its tags or properties",
        "datasets": "keep what it was trained on in its tags or properties",
        "run": "its id is in model.run_id; see Run.get(ws, RUN_ID)",
    }

    workspace: AnyWorkspace
    name: str
    version: int

    def __init__(
        self,
        workspace: AnyWorkspace,
        name: str | None = None,
        id: str | None = None,
        tags: Sequence[Any] | None = None,
        properties: Sequence[Any] | None = None,
        version: int | str | None = None,
        run_id: str | None = None,
        model_framework: str | None = None,
        expand: object = True,
    ) -> None:
        """Look a model up: the latest version that has all that is asked for.

        Args:
            name: its name; or
            id: ``NAME:VERSION``.
            tags, properties: keys, or pairs of key and value, that it has.
            version: this one.
            run_id: of the run that registered it.
            model_framework: that it was registered with.
            expand: ignored.

        Raises:
            ModelNotFoundException: there is none; names the near ones.
            WorkspaceError: it cannot be read, or the parameters cannot be.
        """
        layout = layout_of(workspace)
        if id is not None:
            name, number = _parse_id(id)
            version = number if version is None else version
        if name is None:
            raise WorkspaceError("Model(ws, …) needs the name of a model, or the id of one such as 'mnist:3'")
        check_name(name, "a model")
        known = versions(layout.model(name))
        wanted = known[::-1] if version is None else [version_number(version)]
        for number in wanted:
            record = read_record(layout, name, number)
            if record is not None and _has(record, tags, properties, run_id, model_framework):
                self._take(workspace, name, number, record)
                return
        if known and version in (None, *known):
            raise ModelNotFoundException(
                f"no version of the model {name!r} has these tags, properties, run or framework"
            )
        raise no_model(layout, name, version)

    def _take(self, workspace: AnyWorkspace, name: str, version: int, record: dict[str, Any]) -> None:
        self.workspace, self.name, self.version, self._record = workspace, name, version, record
        self._layout = layout_of(workspace)

    @staticmethod
    def list(
        workspace: AnyWorkspace,
        name: str | None = None,
        tags: Sequence[Any] | None = None,
        properties: Sequence[Any] | None = None,
        run_id: str | None = None,
        latest: bool = False,
        dataset_id: None = None,
        expand: object = True,
        page_count: object = 255,
        model_framework: str | None = None,
    ) -> list[Any]:
        """The models of a workspace, by name and then from the latest version to the first.

        Args:
            name: only this one's versions.
            tags, properties: keys, or pairs of key and value, that they have.
            run_id: of the run that registered them.
            latest: only the latest version of each, of those that have what is asked for.
            dataset_id: not known here; must be ``None``.
            expand, page_count: ignored.
            model_framework: that they were registered with.

        Raises:
            WorkspaceError: something cannot be read, or ``dataset_id`` was given.
        """
        layout = layout_of(workspace)
        if dataset_id is not None:
            raise WorkspaceError("a model's datasets are not kept here; keep them in its tags, and list by tags=[…]")
        found: list[Any] = []
        for model in names_with_versions(layout.models) if name is None else [check_name(name, "a model")]:
            for version in versions(layout.model(model))[::-1]:
                record = read_record(layout, model, version)
                if record is None or not _has(record, tags, properties, run_id, model_framework):
                    continue
                one = object.__new__(at_hand(Model))
                one._take(workspace, model, version, record)
                found.append(one)
                if latest:
                    break
        return found

    @staticmethod
    def get_model_path(
        model_name: str, version: int | str | None = None, _workspace: AnyWorkspace | None = None
    ) -> str:
        """The path of a model's file or folder: for entry scripts.

        In a job it is the version that was the latest when the job was submitted, the same for all processes whatever
        is registered meanwhile; it costs each of them one look at one file. A model that was registered later, such as
        by an earlier step, is found as well. Elsewhere it is ``azureml-models/NAME/VERSION`` in the working directory,
        else what the workspace of ``Workspace.from_config()`` has.

        Args:
            model_name: its name.
            version: this one; default: see above, or the latest.
            _workspace: look here, and nowhere else.

        Raises:
            ModelNotFoundException: there is none; names the near ones.
            WorkspaceError: the workspace cannot be found or read.
        """
        number = None if version is None else version_number(version)
        check_name(model_name, "a model")
        if _workspace is not None:
            return str(registered(layout_of(_workspace), model_name, number))
        return str(find(model_name, number))

    # What it is

    @property
    def id(self) -> str:
        """``NAME:VERSION``."""
        return f"{self.name}:{self.version}"

    @property
    def path(self) -> Path:
        """The file or folder. Not one of Azure's names."""
        return self._layout.model_content(self.name, self.version) / str(self._record["entry"])

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._record.get("tags", {}))

    @property
    def properties(self) -> dict[str, str]:
        return dict(self._record.get("properties", {}))

    @property
    def description(self) -> str:
        return str(self._record.get("description", ""))

    @property
    def created_time(self) -> datetime.datetime:
        """When it was registered, in UTC."""
        try:
            return datetime.datetime.fromisoformat(str(self._record.get("created")))
        except ValueError as error:
            path = self._layout.model_description(self.name, self.version)
            raise WorkspaceError(f"{path}: created: {error}. Mend this file") from None

    @property
    def model_framework(self) -> str:
        return str(self._record.get("framework", CUSTOM))

    @property
    def model_framework_version(self) -> str:
        return str(self._record.get("framework_version", ""))

    @property
    def run_id(self) -> str | None:
        """Of the run that registered it; ``None``: it was no run."""
        return str(self._record.get("run_id", "")) or None

    @property
    def experiment_name(self) -> str | None:
        return str(self._record.get("experiment_name", "")) or None

    @property
    def size(self) -> int:
        """Bytes of all its files. Not one of Azure's names."""
        return int(self._record.get("size", 0))

    @property
    def files(self) -> int:
        """The number of its files. Not one of Azure's names."""
        return int(self._record.get("files", 0))

    def serialize(self) -> dict[str, Any]:
        """What is known of it, JSON-able."""
        return {
            "name": self.name,
            "version": self.version,
            "id": self.id,
            "createdTime": self.created_time.isoformat(),
            "description": self.description,
            "tags": self.tags,
            "properties": self.properties,
            "framework": self.model_framework,
            "frameworkVersion": self.model_framework_version,
            "runId": self.run_id,
            "experimentName": self.experiment_name,
            "path": str(self.path),
            "files": self.files,
            "size": self.size,
        }

    def __repr__(self) -> str:
        return f"Model(workspace={self.workspace!r}, name={self.name!r}, id={self.id!r}, version={self.version})"


def models_of(workspace: AnyWorkspace) -> Mapping[str, Any]:
    """All models of a workspace by name, each in its latest version."""
    layout = layout_of(workspace)

    def find(name: str) -> Any:
        try:
            return at_hand(Model)(workspace, name)
        except ModelNotFoundException:
            return None

    return Registered("model", lambda: names_with_versions(layout.models), find, UnknownModel)


def _parse_id(id: object) -> tuple[str, int]:
    name, colon, version = id.rpartition(":") if isinstance(id, str) else ("", "", "")
    if not colon or not version.isdecimal():
        raise WorkspaceError(f"the id of a model is NAME:VERSION, such as 'mnist:3', but got {id!r}")
    return name, int(version)


def _has(
    record: Mapping[str, Any],
    tags: Sequence[Any] | None,
    properties: Sequence[Any] | None,
    run_id: str | None,
    framework: str | None,
) -> bool:
    return (
        matches(record.get("tags", {}), tags, "tags")
        and matches(record.get("properties", {}), properties, "properties")
        and run_id in (None, record.get("run_id"))
        and framework in (None, record.get("framework"))
    )


# Where it is


def version_number(version: object) -> int:
    """A version as users give it, a number or its text. Raises WorkspaceError."""
    number = int(version) if isinstance(version, str) and version.isdecimal() else version
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise WorkspaceError(f"the version of a model is a whole number, at least 1, but got {version!r}")
    return number


def find(name: str, version: int | None) -> Path:
    """The path of a model's file or folder, from the environment of the process or the folder that it is in.

    Raises:
        ModelNotFoundException: there is none; names the near ones.
        WorkspaceError: the workspace cannot be found or read.
    """
    context = script_context()
    if context is not None:
        layout = WorkspaceFolder(Path(context.workspace))
        found = _pinned(layout, name, version, context)
        if found is not None:
            return found
        try:
            return registered(layout, name, version)
        except ModelNotFoundException:
            local = _local(name, version)
            if local is None:
                raise
            return local
    local = _local(name, version)
    if local is not None:
        return local
    try:
        config = finding.find_config(None, None)
        if config is None:
            raise finding.none_found(None, None)
        layout = config.workspace
    except WorkspaceError as error:
        raise ModelNotFoundException(
            f"the model {name!r} is not in {Path(LOCAL).absolute()}, and there is no workspace to look in: {error}"
        ) from None
    return registered(layout, name, version)


def registered(layout: WorkspaceFolder, name: str, version: int | None) -> Path:
    """The path of a registered model's file or folder.

    Raises:
        ModelNotFoundException: there is none; names the near ones.
        WorkspaceError: it cannot be read.
    """
    number = latest_version(layout.model(name)) if version is None else version
    record = None if number is None else read_record(layout, name, number)
    if record is None or number is None:
        raise no_model(layout, name, version)
    return layout.model_content(name, number) / str(record["entry"])


def read_record(layout: WorkspaceFolder, name: str, version: int) -> dict[str, Any] | None:
    """What is known of a version; ``None``: there is none. Raises WorkspaceError when it is broken."""
    path = layout.model_description(name, version)
    try:
        record = read_json(path, f"the model '{name}:{version}'")
    except FileNotFoundError:
        return None
    entry = record.get("entry")
    if not isinstance(entry, str) or entry in ("", ".", "..") or "/" in entry:
        raise WorkspaceError(f"{path}: entry: expected the name of what is in content/, got {entry!r}. Mend this file")
    return record


def no_model(layout: WorkspaceFolder, name: str, version: object) -> ModelNotFoundException:
    """The error for a model or a version that there is not; names the near ones."""
    known = versions(layout.model(name))
    if known and version is not None:
        shown = ", ".join(map(str, known[-8:]))
        return ModelNotFoundException(
            f"there is no version {version} of the model {name!r} in the workspace {layout.root}; there is {shown}"
        )
    others = names_with_versions(layout.models)
    return ModelNotFoundException(f"there is no model {name!r} in the workspace {layout.root}{near(name, others)}")


def _pinned(layout: WorkspaceFolder, name: str, version: int | None, context: ScriptContext) -> Path | None:
    """What the environment says, if it is there."""
    said = _said(context.models, name)
    if said is None or version not in (None, said[0]):
        return None
    number, entry = said
    if entry is None:
        record = read_record(layout, name, number)
        return None if record is None else layout.model_content(name, number) / str(record["entry"])
    path = layout.model_content(name, number) / entry
    return path if path.exists() else None


def _said(models: Mapping[str, int | str], name: str) -> tuple[int, str | None] | None:
    """Version and entry of a model, as ``3`` or ``3/content/mnist`` says them."""
    value = models.get(name)
    if value is None:
        return None
    if isinstance(value, int):
        return value, None
    version, content, entry = [*value.split("/", 2), "", ""][:3]
    if not version.isdecimal() or (content and (content != "content" or not entry or "/" in entry)):
        raise WorkspaceError(f"the environment says {value!r} of the model {name!r}, and should say a version")
    return int(version), entry or None


def _local(name: str, version: int | None) -> Path | None:
    """A model in the folder that Azure's SDK downloads to; what is alone in its version's folder stands for it."""
    folder = Path(LOCAL).absolute() / check_name(name, "a model")
    number = latest_version(folder) if version is None else version
    if number is None or not (folder / str(number)).is_dir():
        return None
    entries = os.listdir(folder / str(number))
    return folder / str(number) / entries[0] if len(entries) == 1 else folder / str(number)

"""``Model``: files that entry scripts load, kept in the workspace under a name and a version.

::

    Model.register ─► models/NAME/VERSION/content/ENTRY   see model_registration.py
    Model.get_model_path ─► the path of ENTRY: on a node that sees the workspace, nothing is copied or downloaded

Standard library only: user processes import this module.
"""

# ruff: noqa: ARG002, ARG003, ARG004  # parameters of Azure's that mean nothing here

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mpi_prs.azureml.models import paths as model_paths
from mpi_prs.azureml.models.registration import add_model, source_of
from mpi_prs.azureml.store.import_files import copy_into
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.tags import matches, text_pairs
from mpi_prs.child.context.workspace_paths import layout_of
from mpi_prs.core.azure_names import NotRegistered, Registered, Surface
from mpi_prs.core.errors import ModelNotFoundException, WorkspaceError
from mpi_prs.core.records import (
    check_name,
    delete_version,
    names_with_versions,
    update_json,
    versions,
)

if TYPE_CHECKING:
    from mpi_prs.azureml.workspace import Workspace

_SERVING = "nothing is served here: use the model in a ParallelRunStep, or Model.get_model_path in a script"


class UnknownModel(NotRegistered, ModelNotFoundException):
    """What ``ws.models[NAME]`` raises; also a KeyError, as a dict raises."""


class Model(Surface):
    """One version of a registered model.

    Attributes:
        workspace: where it is registered.
        name: its name.
        version: 1, 2, …
    """

    class Framework:
        """Azure's names for what made a model; they are only kept."""

        CUSTOM = "Custom"
        KERAS = "Keras"
        ONNX = "Onnx"
        PYTORCH = "PyTorch"
        SCIKITLEARN = "ScikitLearn"
        TENSORFLOW = "TensorFlow"
        TFKERAS = "TfKeras"

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

    workspace: Workspace
    name: str
    version: int

    def __init__(
        self,
        workspace: Workspace,
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
        wanted = known[::-1] if version is None else [model_paths.version_number(version)]
        for number in wanted:
            record = model_paths.read_record(layout, name, number)
            if record is not None and _has(record, tags, properties, run_id, model_framework):
                self._take(workspace, name, number, record)
                return
        if known and version in (None, *known):
            raise ModelNotFoundException(
                f"no version of the model {name!r} has these tags, properties, run or framework"
            )
        raise model_paths.no_model(layout, name, version)

    def _take(self, workspace: Workspace, name: str, version: int, record: dict[str, Any]) -> None:
        self.workspace, self.name, self.version, self._record = workspace, name, version, record
        self._layout = layout_of(workspace)

    @classmethod
    def register(
        cls,
        workspace: Workspace,
        model_path: str | os.PathLike[str],
        model_name: str,
        tags: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        description: str | None = None,
        datasets: object = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        child_paths: Sequence[str] | None = None,
        sample_input_dataset: object = None,
        sample_output_dataset: object = None,
        resource_configuration: object = None,
        *,
        run_id: str | None = None,
        experiment_name: str | None = None,
    ) -> Model:
        """Copy a file or folder into the workspace, as the next version of a model.

        Args:
            model_path: the file or folder; links in it are followed.
            model_name: letters, digits, ``-``, ``_`` and ``.``, for example.
            tags: can be changed later.
            properties: can be added to later.
            description: for people.
            model_framework, model_framework_version: only kept; see :class:`Model.Framework`.
            child_paths: only these files and folders of the folder ``model_path``, relative to it.
            datasets, sample_input_dataset, sample_output_dataset, resource_configuration: for serving, and ignored.
            run_id, experiment_name: of the run that has made it. Not among Azure's parameters.

        Raises:
            WorkspaceError: there is nothing there, or it cannot be copied; then nothing is registered.
        """
        layout = layout_of(workspace)
        check_name(model_name, "a model")
        source = source_of(model_path)
        record: dict[str, Any] = {
            "entry": source.name,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "tags": text_pairs("tags", tags),
            "properties": text_pairs("properties", properties),
            "description": description or "",
            "framework": model_framework or cls.Framework.CUSTOM,
            "framework_version": model_framework_version or "",
            "run_id": run_id or "",
            "experiment_name": experiment_name or "",
        }
        version = add_model(layout, model_name, source, child_paths, record)
        found = cls.__new__(cls)
        found._take(workspace, model_name, version, record)
        return found

    @staticmethod
    def list(
        workspace: Workspace,
        name: str | None = None,
        tags: Sequence[Any] | None = None,
        properties: Sequence[Any] | None = None,
        run_id: str | None = None,
        latest: bool = False,
        dataset_id: None = None,
        expand: object = True,
        page_count: object = 255,
        model_framework: str | None = None,
    ) -> list[Model]:
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
        found: list[Model] = []
        for model in names_with_versions(layout.models) if name is None else [check_name(name, "a model")]:
            for version in versions(layout.model(model))[::-1]:
                record = model_paths.read_record(layout, model, version)
                if record is None or not _has(record, tags, properties, run_id, model_framework):
                    continue
                one = Model.__new__(Model)
                one._take(workspace, model, version, record)
                found.append(one)
                if latest:
                    break
        return found

    @staticmethod
    def get_model_path(model_name: str, version: int | str | None = None, _workspace: Workspace | None = None) -> str:
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
        number = None if version is None else model_paths.version_number(version)
        check_name(model_name, "a model")
        if _workspace is not None:
            return str(model_paths.registered(layout_of(_workspace), model_name, number))
        return str(model_paths.find(model_name, number))

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
        return str(self._record.get("framework", Model.Framework.CUSTOM))

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

    # What can be done with it

    def download(
        self, target_dir: str | os.PathLike[str] = ".", exist_ok: bool = False, exists_ok: object = None
    ) -> str:
        """Copy it into a folder, which is made if need be.

        Args:
            exist_ok: replace what is there of the same name; else that is an error.
            exists_ok: Azure's old name for it.

        Returns:
            the path of the copy.

        Raises:
            WorkspaceError: there is something of that name, or it cannot be copied.
        """
        if not self.path.exists():
            raise self._gone()
        target = given_path("target_dir", target_dir) / self.path.name
        if os.path.lexists(target) and not (exist_ok or exists_ok):
            raise WorkspaceError(f"there is {target} already; give exist_ok=True to replace it, or another target_dir")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(f"cannot make {target.parent}: {error.strerror}") from error
        copy_into(self.path, target)
        return str(target)

    def delete(self) -> None:
        """Remove this version, files and all; its number is not used again.

        Raises:
            ModelNotFoundException: it is gone already.
            WorkspaceError: it cannot be removed.
        """
        if not delete_version(self._layout.model(self.name), self.version):
            raise self._gone()

    def update(
        self,
        tags: Mapping[str, Any] | None = None,
        description: str | None = None,
        sample_input_dataset: object = None,
        sample_output_dataset: object = None,
        resource_configuration: object = None,
    ) -> None:
        """Replace all tags, or the description; what is not given stays, and the rest is ignored.

        Raises:
            ModelNotFoundException: it is gone.
            WorkspaceError: it cannot be written.
        """
        changes: dict[str, Any] = {}
        if tags is not None:
            changes["tags"] = text_pairs("tags", tags)
        if description is not None:
            changes["description"] = description
        self._change(lambda record: {**record, **changes})

    def add_tags(self, tags: Mapping[str, Any]) -> None:
        """Add tags, or change their values. Raises ModelNotFoundException, WorkspaceError."""
        self.update_tags_properties(add_tags=tags)

    def remove_tags(self, tags: Sequence[str]) -> None:
        """Remove tags by their keys. Raises ModelNotFoundException, WorkspaceError."""
        self.update_tags_properties(remove_tags=tags)

    def add_properties(self, properties: Mapping[str, Any]) -> None:
        """Add properties. Raises ModelNotFoundException; WorkspaceError: one has another value already."""
        self.update_tags_properties(add_properties=properties)

    def update_tags_properties(
        self,
        add_tags: Mapping[str, Any] | None = None,
        remove_tags: Sequence[str] | None = None,
        add_properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Change tags, and add properties, which never change.

        Raises:
            ModelNotFoundException: it is gone.
            WorkspaceError: a property has another value already, or it cannot be written.
        """
        more, new = text_pairs("tags", add_tags), text_pairs("properties", add_properties)
        gone = set(remove_tags or ())

        def change(record: dict[str, Any]) -> dict[str, Any]:
            before = record.get("properties", {})
            for key in new.keys() & before.keys():
                if new[key] != before[key]:
                    raise WorkspaceError(
                        f"the property {key!r} of the model {self.id} is {before[key]!r} and stays so; use a tag for "
                        "what changes"
                    )
            tags = {key: value for key, value in record.get("tags", {}).items() if key not in gone}
            return {**record, "tags": {**tags, **more}, "properties": {**before, **new}}

        self._change(change)

    def _change(self, change: Any) -> None:
        path = self._layout.model_description(self.name, self.version)
        try:
            self._record = update_json(path, f"the model {self.id}", change)
        except FileNotFoundError:
            raise self._gone() from None

    def _gone(self) -> ModelNotFoundException:
        return model_paths.no_model(self._layout, self.name, self.version)


def models_of(workspace: Workspace) -> Mapping[str, Model]:
    """All models of a workspace by name, each in its latest version."""
    layout = layout_of(workspace)

    def find(name: str) -> Model | None:
        try:
            return Model(workspace, name)
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

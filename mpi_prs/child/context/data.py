"""What entry scripts have of ``Datastore``, ``Dataset`` and ``Environment``: those that are registered, by name, and
what their records say. Whatever moves data, or makes a new one, is in the whole SDK."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_prs.child.context.slice import NeedsOwnPython, Slice, at_hand, whole
from mpi_prs.child.context.workspace_paths import BLOB_STORE, FILE_STORE, AnyWorkspace, WorkspaceFolder, layout_of
from mpi_prs.core.azure_names import Registered
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import (
    from_json,
    latest_version,
    names_of,
    names_with_versions,
    not_found,
    read_json,
    versions,
)

ANONYMOUS = "anonymous"
DEFAULT_CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
DEFAULT_GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04"

# Datastores


@dataclass(frozen=True)
class DatastoreRecord:
    """What is known of a datastore, without its secrets.

    Attributes:
        kind: ``blob``, ``file_share`` or ``folder``.
        folder: of folders, and of file shares where it was given: where it is mounted, absolute.
        container: of blobs and file shares: the container's or share's name.
        account_name: of both: the storage account.
        protocol, endpoint: as they were given; ``None``: not at all.
        credentials: ``anonymous``, ``environment``, or the kind of the secret.
    """

    kind: str
    folder: str | None = None
    container: str | None = None
    account_name: str | None = None
    protocol: str | None = None
    endpoint: str | None = None
    credentials: str = ANONYMOUS


def read_datastore(layout: WorkspaceFolder, name: str) -> DatastoreRecord | None:
    """The record of a datastore; ``None``: there is none. The two that every workspace has need no file.

    Raises:
        WorkspaceError: the file is broken, or no datastore can be called so.
    """
    what = f"the datastore {name!r}"
    try:
        data = read_json(layout.datastore(name), what)
    except FileNotFoundError:
        folder = {BLOB_STORE: layout.blob_store, FILE_STORE: layout.file_store}.get(name)
        return None if folder is None else DatastoreRecord("folder", folder=str(folder))
    try:
        record = from_json(DatastoreRecord, data)
        if record.kind not in ("blob", "file_share", "folder"):
            raise ValueError(f"kind: {record.kind!r}")
    except ValueError as error:
        raise WorkspaceError(
            f"{what}: {layout.datastore(name)}: {error}. Mend this file, or register the datastore anew with "
            "overwrite=True"
        ) from None
    return record


def datastore_names(layout: WorkspaceFolder) -> list[str]:
    """The names of all datastores, sorted."""
    return sorted({*names_of(layout.datastores, ".json"), BLOB_STORE, FILE_STORE})


class Datastore(Slice):
    """A registered datastore. ``Datastore(ws, name)`` is :meth:`get`.

    Attributes:
        workspace: that it is registered in.
        name: its name there.
    """

    workspace: AnyWorkspace
    name: str
    _record: DatastoreRecord

    def __new__(cls, workspace: AnyWorkspace, name: str | None = None) -> Any:
        """The datastore of a name; without one, the workspace's default. Raises WorkspaceError: there is none."""
        return cls.get_default(workspace) if name is None else cls.get(workspace, name)

    def __init__(self, workspace: AnyWorkspace, name: str | None = None) -> None:
        """See :meth:`__new__`, which does it all: it also says of which kind the datastore is."""

    @staticmethod
    def get(workspace: AnyWorkspace, datastore_name: str) -> Any:
        """The datastore of a name. Raises WorkspaceError: there is none; names the near ones."""
        layout = layout_of(workspace)
        record = read_datastore(layout, datastore_name)
        if record is None:
            raise not_found("datastore", datastore_name, datastore_names(layout))
        kinds = {"blob": AzureBlobDatastore, "file_share": AzureFileDatastore, "folder": FolderDatastore}
        found = object.__new__(at_hand(kinds[record.kind]))
        found.workspace, found.name, found._record = workspace, datastore_name, record
        return found

    @staticmethod
    def get_default(workspace: AnyWorkspace) -> Any:
        """The workspace's default datastore."""
        return workspace.get_default_datastore()

    @property
    def datastore_type(self) -> str:
        """``AzureBlob``, ``AzureFile`` or ``Folder``."""
        return {"blob": "AzureBlob", "file_share": "AzureFile"}.get(self._record.kind, "Folder")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Datastore):
            return NotImplemented
        return (self.workspace, self.name, self._record) == (other.workspace, other.name, other._record)

    def __hash__(self) -> int:
        return hash((self.workspace, self.name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


class _OfAnAccount(Datastore):
    """Something of a storage account."""

    @property
    def container_name(self) -> str:
        """Of the container, or the file share; Azure calls it so."""
        return str(self._record.container)

    @property
    def account_name(self) -> str:
        return str(self._record.account_name)


class AzureBlobDatastore(_OfAnAccount):
    """A container of Azure's blob storage, or of anything that speaks like it."""


class AzureFileDatastore(_OfAnAccount):
    """An Azure file share: the folder that it is mounted at."""


class FolderDatastore(Datastore):
    """A folder that all nodes see."""

    @property
    def folder(self) -> Path:
        """The folder that it is. Not one of Azure's names."""
        return Path(str(self._record.folder))


def datastores_of(workspace: AnyWorkspace) -> Mapping[str, Any]:
    """Name → datastore, of all in a workspace; read when they are asked for."""
    layout = layout_of(workspace)

    def find(name: str) -> Any:
        return at_hand(Datastore).get(workspace, name) if name in datastore_names(layout) else None

    return Registered("datastore", lambda: datastore_names(layout), find)


# Datasets


def dataset_version(layout: WorkspaceFolder, name: str, version: Any = "latest") -> int:
    """Which version of a dataset is meant. Raises WorkspaceError: there is none; names the near ones."""
    known = versions(layout.dataset(name))
    if not known:
        raise not_found("dataset", name, names_with_versions(layout.datasets))
    wanted = known[-1] if version in ("latest", None) else version
    if isinstance(wanted, str) and wanted.isdecimal():
        wanted = int(wanted)
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        raise WorkspaceError(f"the version of a dataset is a number or 'latest', but got {version!r}")
    if wanted not in known:
        raise WorkspaceError(
            f"the dataset {name!r} has no version {wanted}; there is {', '.join(map(str, known[-8:]))}"
        )
    return wanted


def dataset_id(definition: Mapping[str, Any]) -> str:
    """The id of what a definition says."""
    text = json.dumps(definition, sort_keys=True)
    return str(uuid.UUID(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]))


class AbstractDataset(Slice):
    """A dataset that is registered, or that a script is told of.

    Attributes:
        name, version, description: of the registered one; ``None``: it is not.
        tags: those of the registered one.
    """

    name: str | None = None
    version: int | None = None
    description: str | None = None

    _workspace: AnyWorkspace
    _said: Mapping[str, Any]
    _tags: Mapping[str, str]

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """One of the whole SDK."""
        return whole(cls.__name__, f"making a {cls.__name__}")(*arguments, **named)

    @staticmethod
    def get_by_name(workspace: AnyWorkspace, name: str, version: int | str = "latest") -> Any:
        """The dataset that is registered under a name, its latest version or another.

        Raises:
            WorkspaceError: there is none; names the near ones, or the versions that there are.
        """
        layout = layout_of(workspace)
        number = dataset_version(layout, name, version)
        path, what = layout.dataset_version(name, number), f"the dataset {name!r}, version {number}"
        try:
            record = read_json(path, what)
            found = dataset_of(workspace, record["definition"])
        except FileNotFoundError:
            raise WorkspaceError(f"{what}: it was unregistered in this very moment") from None
        except KeyError as error:
            raise WorkspaceError(f"{what}: {path}: this is no description of a dataset ({error!r}). Mend it") from None
        found.name, found.version, found.description = name, number, record.get("description")
        found._tags = record.get("tags") or {}
        return found

    @staticmethod
    def get_all(workspace: AnyWorkspace) -> Mapping[str, Any]:
        """Name → latest version of each registered dataset."""
        return datasets_of(workspace)

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._tags)

    @property
    def id(self) -> str:
        """Says what the dataset is: equal ones have the same, registered or not."""
        return dataset_id(self._said)

    @property
    def partition_keys(self) -> list[str]:
        """The keys that can be read from the paths."""
        written, keys = self._said.get("partition_format"), list(self._said.get("partition_keys", ()))
        if keys or written in (None, "hive"):
            return keys
        found = re.findall(r"\{\{|\}\}|\{([^{}:]+)[^{}]*\}", str(written))
        return [key for key in found if key]

    def definition(self) -> dict[str, Any]:
        """All that the dataset is, as JSON. Not one of Azure's names."""
        return dict(self._said)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AbstractDataset):
            return NotImplemented
        return self.definition() == other.definition()

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        named = f"name={self.name!r}, version={self.version}" if self.name is not None else f"id={self.id!r}"
        return f"{type(self).__name__}({named})"

    def _become_whole(self, what: str) -> None:
        dataset = whole("Dataset", what)
        if self.name is not None:
            self._become(dataset.get_by_name(self._workspace, self.name, self.version))
        else:
            self._become(sys.modules[dataset.__module__].from_definition(self._workspace, self._said))


class FileDataset(AbstractDataset):
    """Files, which a step's ``run()`` gets as paths."""


class TabularDataset(AbstractDataset):
    """Rows, which a step's ``run()`` gets as a DataFrame."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those to read, in this order; empty: all."""
        return tuple(self._said.get("columns", ()))


class Dataset(AbstractDataset):
    """Where datasets are found: ``Dataset.get_by_name``."""


def dataset_of(workspace: AnyWorkspace, definition: Mapping[str, Any]) -> Any:
    """The dataset of a definition. Raises WorkspaceError: it is none."""
    kind = {"file": FileDataset, "tabular": TabularDataset}.get(definition.get("kind", ""))
    if kind is None:
        raise WorkspaceError("this is no definition of a dataset: expected a kind, file or tabular, and paths")
    found = object.__new__(kind)
    found._workspace, found._said, found._tags = workspace, definition, {}
    return found


def datasets_of(workspace: AnyWorkspace) -> Mapping[str, Any]:
    """Name → latest version of each registered dataset; read when they are asked for."""
    layout = layout_of(workspace)

    def find(name: str) -> Any:
        known = latest_version(layout.dataset(name)) is not None
        return at_hand(Dataset).get_by_name(workspace, name) if known else None

    return Registered("dataset", lambda: names_with_versions(layout.datasets), find)


# Environments


def environment_record(workspace: AnyWorkspace, name: str, version: str | int | None) -> tuple[str, dict[str, Any]]:
    """A version of an environment, and its definition. Raises WorkspaceError: there is none."""
    layout = layout_of(workspace)
    known = versions(layout.environment(name))
    if not known and name.lower().startswith("azureml-"):
        raise WorkspaceError(
            f"there is no environment {name!r}: Azure's curated environments are not part of mpi_prs. Define one: "
            "Environment(name), with python.conda_dependencies"
        )
    if not known:
        raise not_found("environment", name, names_with_versions(layout.environments))
    wanted = str(known[-1] if version is None else version)
    if wanted not in map(str, known):
        there = ", ".join(map(str, known))
        raise WorkspaceError(f"there is no version {wanted!r} of the environment {name!r}; there is {there}")
    record = read_json(layout.environment_version(name, int(wanted)), f"the environment {name!r}")
    definition: dict[str, Any] = record["definition"]
    return wanted, definition


class Environment(Slice):
    """What user processes run in, as it was registered.

    Attributes:
        name: its name.
        version: the version, such as ``"2"``.
    """

    name: str
    version: str
    _workspace: AnyWorkspace
    _said: Mapping[str, Any]

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """One of the whole SDK."""
        return whole("Environment", "making an Environment")(*arguments, **named)

    @staticmethod
    def get(workspace: AnyWorkspace, name: str, version: str | int | None = None, label: str | None = None) -> Any:
        """A registered environment, its latest version or another. Raises WorkspaceError: there is none."""
        if label not in (None, "Latest", "latest"):
            raise WorkspaceError(f"there is no label {label!r}: the only one is Latest; give a version")
        found = object.__new__(Environment)
        found._workspace, found.name = workspace, name
        found.version, found._said = environment_record(workspace, name, version)
        return found

    @staticmethod
    def list(workspace: AnyWorkspace) -> dict[str, Any]:
        """The latest version of every registered environment, by name."""
        return dict(environments_of(workspace))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except NeedsOwnPython:  # to be read, but not to be changed
            if name == "environment_variables":
                return dict(self._said.get("environmentVariables") or {})
            if name == "policy":
                return self._said.get("policy")
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name.startswith("_") or name in ("name", "version")):
            self._become_whole(f"Environment.{name}")
            setattr(self, name, value)
        else:
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Environment(name={self.name!r}, version={self.version!r}, policy={self._said.get('policy')!r})"

    def _become_whole(self, what: str) -> None:
        self._become(whole("Environment", what).get(self._workspace, self.name, self.version))


def environments_of(workspace: AnyWorkspace) -> Mapping[str, Any]:
    """The registered environments of a workspace, by name: the latest version of each."""
    folder = layout_of(workspace).environments

    def find(name: str) -> Any:
        return at_hand(Environment).get(workspace, name) if name in names_with_versions(folder) else None

    return Registered("environment", lambda: names_with_versions(folder), find)

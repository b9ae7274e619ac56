"""Datasets under names in a workspace: ``datasets/NAME/VERSION.json``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from mpi_prs.child.context.data import dataset_version
from mpi_prs.child.context.tags import text_pairs
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.child.context.workspace_paths import layout_of
from mpi_prs.core.azure_names import Registered
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import (
    add_json,
    add_version,
    check_name,
    delete_version,
    latest_version,
    locked,
    names_with_versions,
    read_json,
    time_stamp,
    versions,
)

_SAVED = ".saved"
"""The folder of datasets that have an id and no name."""


@dataclass(frozen=True)
class RegisteredVersion:
    """Under which name a dataset is registered, and what is kept with it."""

    workspace: Workspace
    name: str
    version: int
    description: str | None
    tags: Mapping[str, str]


class Definable(Protocol):
    """What is asked of a dataset."""

    @property
    def id(self) -> str: ...

    def definition(self) -> dict[str, Any]: ...


D = TypeVar("D")
Make = Callable[["Workspace | None", Mapping[str, Any], "RegisteredVersion | None"], D]
"""Makes the dataset of a workspace, its definition, and what it is registered as."""


def register(
    workspace: Workspace,
    dataset: Definable,
    name: str,
    description: str | None,
    tags: Mapping[str, str] | None,
    create_new_version: bool,
) -> RegisteredVersion:
    """Write a version down. Raises WorkspaceError."""
    folder = layout_of(workspace).dataset(name)
    tags = text_pairs("tags", tags)
    if description is not None and not isinstance(description, str):
        raise WorkspaceError(f"description is text, but got {description!r}")
    record = {
        "id": dataset.id,
        "description": description,
        "tags": tags,
        "registered": time_stamp(),
        "definition": dataset.definition(),
    }
    with contextlib.nullcontext() if create_new_version else locked(folder):
        if not create_new_version and latest_version(folder) is not None:
            raise WorkspaceError(
                f"there is a dataset {name!r} already; give create_new_version=True to register the next version of "
                "it, or choose another name"
            )
        version = add_version(folder, record)
    return RegisteredVersion(workspace, name, version, description, tags)


def unregister(registration: RegisteredVersion) -> None:
    """Forget all versions of a name. Raises WorkspaceError."""
    folder = registration.workspace.layout.dataset(registration.name)
    for version in versions(folder):
        delete_version(folder, version)


def save(workspace: Workspace, dataset: Definable) -> None:
    """Keep a dataset under its id. Raises WorkspaceError."""
    path = layout_of(workspace).datasets / _SAVED / f"{dataset.id}.json"
    if not path.exists():
        add_json(path, {"id": dataset.id, "definition": dataset.definition()})


def by_name(workspace: Workspace, name: str, version: int | str | None, make: Make[D]) -> D:
    """A version of a name. Raises WorkspaceError."""
    return _read(workspace, name, dataset_version(layout_of(workspace), name, version), make)


def by_id(workspace: Workspace, id: str, make: Make[D]) -> D:
    """The dataset of an id: saved, or any version of any name. Raises WorkspaceError."""
    check_name(id, "a dataset's id")
    layout, what = layout_of(workspace), f"the dataset of id {id}"
    for name in names_with_versions(layout.datasets):
        for version in reversed(versions(layout.dataset(name))):
            try:
                record = read_json(layout.dataset_version(name, version), what)
            except FileNotFoundError:
                continue  # unregistered meanwhile
            if record.get("id") == id:
                return _read(workspace, name, version, make)
    try:
        record = read_json(layout.datasets / _SAVED / f"{id}.json", what)
    except FileNotFoundError:
        raise WorkspaceError(f"no dataset of id {id!r} is registered in {workspace.folder}, or saved there") from None
    return make(workspace, record.get("definition", {}), None)


def all_of(workspace: Workspace, make: Make[D]) -> Mapping[str, D]:
    """Name → latest version."""
    folder = workspace.layout.datasets

    def find(name: str) -> D | None:
        version = latest_version(workspace.layout.dataset(name))
        return None if version is None else _read(workspace, name, version, make)

    return Registered("dataset", lambda: names_with_versions(folder), find)


def _read(workspace: Workspace, name: str, version: int, make: Make[D]) -> D:
    what, path = f"the dataset {name!r}, version {version}", workspace.layout.dataset_version(name, version)
    try:
        record = read_json(path, what)
        definition, tags = record["definition"], record.get("tags", {})
        registration = RegisteredVersion(workspace, name, version, record.get("description"), tags)
        return make(workspace, definition, registration)
    except FileNotFoundError:
        raise WorkspaceError(f"{what}: it was unregistered in this very moment") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WorkspaceError(f"{what}: {path}: this is no description of a dataset ({error!r}). Mend it") from None

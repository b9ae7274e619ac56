"""What is kept of a dataset: where its files are, and under which names and versions a workspace has it.

Its files are at paths of this machine, at URLs, or in datastores. A place in a datastore is kept by the datastore's
name, which is looked up when the files are wanted: what is registered under the name then is what counts.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from mpi_prs.azureml.datastores.datastore import DataPath, Datastore, checked_path
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
from mpi_prs.core.urls import escape, is_glob, is_url, is_web
from mpi_prs.storage.credentials import check_url

_WASB = re.compile(r"wasb(s?)://")
_EXPECTED = (
    "expected a path, a URL, a DataPath such as datastore.path('mnist/'), a tuple (datastore, 'mnist/'), or a list of "
    "these"
)


@dataclass(frozen=True)
class DataSource:
    """One of the places of a dataset.

    Attributes:
        path: an absolute path, a URL, or a path in a datastore; may be a folder or a glob.
        workspace, datastore_name: of the datastore; ``None``: it is in none.
    """

    path: str
    workspace: Workspace | None = None
    datastore_name: str | None = None

    @property
    def datastore(self) -> Datastore | None:
        """Raises WorkspaceError: it is not registered any more."""
        if self.workspace is None or self.datastore_name is None:
            return None
        found: Datastore = Datastore.get(self.workspace, self.datastore_name)
        return found

    @property
    def is_url(self) -> bool:
        """Whether it is a URL that is in no datastore."""
        return self.datastore_name is None and is_url(self.path)

    def root(self) -> tuple[str, str]:
        """The absolute path or URL that it starts from (empty, or with a slash at the end), and its path below that."""
        datastore = self.datastore
        if datastore is not None:
            return datastore.url().rstrip("/") + "/", self.path
        if not self.is_url:
            return "/", self.path.lstrip("/")
        scheme, _, rest = self.path.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host}{slash}", path

    def pattern(self) -> str:
        """What the files are listed by: a path, a URL or a glob.

        Only the path in a datastore may be a glob; the datastore's own folder means itself.
        """
        root, path = self.root()
        if self.datastore_name is None or is_url(root):
            return self.path if self.datastore_name is None else root + path
        whole = root + path
        return whole if not is_glob(path) or os.path.lexists(whole) else escape(root) + path

    def storage(self) -> dict[str, Any]:
        """How to get at it: a job config's ``storage``; empty: nothing needs to be said."""
        datastore = self.datastore
        if datastore is not None:
            return datastore.storage_section()
        return {"anonymous": True} if is_web(self.path) else {}

    def definition(self) -> dict[str, str]:
        """As JSON."""
        if self.datastore_name is not None:
            return {"datastore": self.datastore_name, "path": self.path}
        return {"url" if self.is_url else "path": self.path}

    def __str__(self) -> str:
        return self.path if self.datastore_name is None else f"{self.datastore_name}:{self.path}"


def source_of(workspace: Workspace | None, definition: Mapping[str, Any]) -> DataSource:
    """The inverse of :meth:`DataSource.definition`. Raises WorkspaceError."""
    if "url" in definition:
        return DataSource(str(definition["url"]))
    if "path" not in definition:
        raise WorkspaceError(f"this is no place of a dataset's files: {dict(definition)!r}")
    if "datastore" not in definition:
        return DataSource(str(definition["path"]))
    return DataSource(checked_path(definition["path"]), workspace, str(definition["datastore"]))


def sources(path: Any) -> tuple[DataSource, ...]:
    """What Azure's ``path`` parameters take.

    Raises:
        WorkspaceError: it is none of it, or what is in several stores; names what was expected.
    """
    found = tuple(_each(path))
    if not found:
        raise WorkspaceError(f"path is empty: {_EXPECTED}")
    one_store(found)
    return found


def one_store(found: Iterable[DataSource]) -> dict[str, Any]:
    """How to get at the store of all places that are reached by URL. Raises WorkspaceError: there are several."""
    remote = [source for source in found if is_url(source.root()[0])]
    stores = [source.storage() for source in remote]
    for source, store in zip(remote, stores, strict=True):
        if store != stores[0]:
            raise WorkspaceError(
                f"{remote[0]} and {source} are in different stores; make a dataset of each: a step may have several "
                "inputs"
            )
    return stores[0] if stores else {}


def _each(path: Any) -> Iterator[DataSource]:
    if isinstance(path, DataPath):
        yield _in_datastore(path)
    elif isinstance(path, Datastore):
        yield _in_datastore(path.path())
    elif isinstance(path, (str, os.PathLike)):
        yield _outside(os.fspath(path))
    elif isinstance(path, tuple) and len(path) == 2 and isinstance(path[0], Datastore):
        below = path[1]
        if not isinstance(below, str) and not (
            isinstance(below, Sequence) and below and all(isinstance(each, str) for each in below)
        ):
            raise WorkspaceError(f"path: {path!r}: expected a tuple (datastore, 'mnist/')")
        for each in [below] if isinstance(below, str) else below:
            yield _in_datastore(path[0].path(each))
    elif isinstance(path, (list, tuple)):
        for each in path:
            yield from _each(each)
    else:
        raise WorkspaceError(f"path: {_EXPECTED}; got {path!r} of type {type(path).__name__}")


def _in_datastore(path: DataPath) -> DataSource:
    return DataSource(path.path_on_datastore, path.datastore.workspace, path.datastore.name)


def _outside(path: str | bytes) -> DataSource:
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise WorkspaceError(f"path: {_EXPECTED}; got {path!r}")
    if not is_url(path):
        return DataSource(os.path.abspath(os.path.expanduser(path)))
    if path.startswith("azureml://"):
        raise WorkspaceError(
            f"path: {path}: URIs of Azure's SDK v2 are not taken here; write Datastore.get(ws, NAME).path(PATH)"
        )

    check_url(path)
    return DataSource(_WASB.sub(r"abfs\1://", path))


# Under names in a workspace: ``datasets/NAME/VERSION.json``

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

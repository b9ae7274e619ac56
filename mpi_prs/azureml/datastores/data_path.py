"""``DataPath``: a place in a datastore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError

if TYPE_CHECKING:
    from mpi_prs.azureml.datastores.datastore import Datastore


@dataclass(frozen=True)
class DataPath(Surface):
    """A file, a folder or a glob in a datastore: ``datastore.path("mnist/")``.

    Attributes:
        datastore: where it is.
        path_on_datastore: relative to the datastore's root; empty: all of it.
        name: for people.
    """

    datastore: Datastore
    path_on_datastore: str = ""
    name: str | None = None

    def __post_init__(self) -> None:
        from mpi_prs.azureml.datastores.datastore import Datastore

        if not isinstance(self.datastore, Datastore):
            raise WorkspaceError(
                f"the datastore of a DataPath is a Datastore, such as Datastore.get(ws, NAME), but got "
                f"{self.datastore!r} of type {type(self.datastore).__name__}"
            )
        object.__setattr__(self, "path_on_datastore", checked_path(self.path_on_datastore or ""))

    @property
    def datastore_name(self) -> str:
        return self.datastore.name

    @property
    def data_reference_name(self) -> str | None:
        """``name``, as a DataReference of Azure's calls it."""
        return self.name

    @property
    def url(self) -> str:
        """Its absolute path, or its URL. Not one of Azure's names."""
        return self.datastore.url(self.path_on_datastore)

    def path(self, path: str) -> DataPath:
        """A place below this one."""
        above = self.path_on_datastore.rstrip("/")
        return DataPath(self.datastore, f"{above}/{checked_path(path)}", self.name)

    def __repr__(self) -> str:
        return f"DataPath(datastore={self.datastore.name!r}, path_on_datastore={self.path_on_datastore!r})"


@dataclass(frozen=True, repr=False)
class UploadedPath(DataPath):
    """Where something was uploaded to.

    Attributes:
        uploaded: number of files that were stored.
        skipped: number of files that were there already, and were left as they are.
    """

    uploaded: int = 0
    skipped: int = 0


def checked_path(path: Any) -> str:
    """A path in a datastore, without slashes at its head; a slash at its end stays.

    Raises:
        WorkspaceError: it is no text, or leads out of the datastore.
    """
    if not isinstance(path, str):
        raise WorkspaceError(f"a path in a datastore is text such as 'mnist/', but got {path!r}")
    if "\0" in path or "\n" in path:
        raise WorkspaceError(f"a path in a datastore has no line break or NUL in it, but got {path!r}")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names:
        raise WorkspaceError(f"a path in a datastore does not lead upwards, but got {path!r}")
    return "/".join(names) + ("/" if names and path.endswith("/") else "")

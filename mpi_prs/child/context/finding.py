"""Where a workspace is: by a ``config.json`` in a folder or above it, or by its names below HOME.

HOME/SUBSCRIPTION/GROUP/NAME is where workspaces are that are not given a folder. HOME is ``$MPI_PRS_HOME``, else
``~/.mpi_prs/workspaces``; on a cluster it has to be on a filesystem that all nodes see.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.environ import HOME
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import check_name, names_of, parse_json

FOLDER = "workspace_folder"
AZURE_NAMES = ("subscription_id", "resource_group", "workspace_name")
_PLACES = ("", ".azureml", "aml_config")


@dataclass(frozen=True)
class ConfigFile:
    """What a ``config.json`` says.

    Attributes:
        file: its path.
        folder: the workspace's folder, absolute; ``None``: it is the one of these names.
        names: subscription, resource group and name; empty where they are not given.
    """

    file: Path
    folder: Path | None
    names: tuple[str, str, str]

    @property
    def workspace(self) -> WorkspaceFolder:
        """The workspace, which need not be there. Raises WorkspaceError: the names are none."""
        return WorkspaceFolder(self.folder) if self.folder else below_home(*self.names)


def find_config(path: str | os.PathLike[str] | None, file_name: str | None) -> ConfigFile | None:
    """The first config file in a folder or one above it; others' files of the same name are passed over.

    Raises:
        WorkspaceError: a file cannot be read, is broken, or says only half of what it should; or ``path`` is not there.
    """
    start = given_path("path", "." if path is None else path)
    if start.is_file():
        found = _parse(start)
        if found is None:
            raise WorkspaceError(f"{start} names no workspace: {_EXPECTED}")
        return found
    if path is not None and not start.is_dir():
        raise WorkspaceError(f"there is no file and no folder {start} to find a workspace's config.json in")
    for candidate in _candidates(start, file_name):
        found = _parse(candidate) if candidate.is_file() else None
        if found is not None:
            return found
    return None


def none_found(path: str | os.PathLike[str] | None, file_name: str | None) -> WorkspaceError:
    """The error when there is none, which names files of the same name that are about something else."""
    start = given_path("path", "." if path is None else path)
    others = [str(file) for file in _candidates(start, file_name) if file.is_file()]
    passed = f" ({', '.join(others)} names no workspace)" if others else ""
    return WorkspaceError(
        f"there is no {file_name or 'config.json'} for a workspace in {start} or a folder above it{passed}. "
        f"{_EXPECTED}; or make one: Workspace.create(NAME, folder=FOLDER).write_config()"
    )


_EXPECTED = f'It says {{"{FOLDER}": FOLDER}}, or as Azure\'s own {", ".join(AZURE_NAMES)}'


def _candidates(start: Path, file_name: str | None) -> list[Path]:
    return [folder / place / (file_name or "config.json") for folder in (start, *start.parents) for place in _PLACES]


def _parse(file: Path) -> ConfigFile | None:
    """What a file says; ``None``: it is about something else."""
    try:
        found = parse_json(file.read_bytes(), file, "the workspace's config file")
    except OSError as error:
        raise WorkspaceError(f"{file} cannot be read: {error.strerror}") from error
    if not {FOLDER, *AZURE_NAMES} & found.keys():
        return None
    names = tuple(_text(found, key, file) if key in found else "" for key in AZURE_NAMES)
    if FOLDER in found:
        folder = Path(os.path.expanduser(_text(found, FOLDER, file)))
        return ConfigFile(file, Path(os.path.abspath(file.parent / folder)), (names[0], names[1], names[2]))
    missing = [key for key in AZURE_NAMES if key not in found]
    if missing:
        raise WorkspaceError(f"{file} has no {' and no '.join(missing)}. {_EXPECTED}")
    return ConfigFile(file, None, (names[0], names[1], names[2]))


def _text(found: dict[str, Any], key: str, file: Path) -> str:
    value = found[key]
    if not isinstance(value, str) or not value.strip():
        raise WorkspaceError(f"{file}: {key}: expected text, got {value!r}")
    return value


# Below HOME

SUBSCRIPTION = "local"
GROUP = "default"


def home() -> Path:
    """HOME, absolute; it need not be there."""
    return Path(os.path.abspath(os.path.expanduser(HOME.of() or "~/.mpi_prs/workspaces")))


def below_home(subscription: str, group: str, name: str) -> WorkspaceFolder:
    """The place of a workspace, which need not be there. Raises WorkspaceError: no such names."""
    check_name(subscription, "a subscription")
    check_name(group, "a resource group")
    return WorkspaceFolder(home() / subscription / group / check_name(name, "a workspace"))


def workspaces_below_home(subscription: str | None, group: str | None) -> Iterator[WorkspaceFolder]:
    """The workspaces that there are, of a subscription and a group, or of all."""
    for one in [subscription] if subscription else names_of(home()):
        for other in [group] if group else names_of(home() / one):
            for name in names_of(home() / one / other):
                layout = WorkspaceFolder(home() / one / other / name)
                if layout.is_workspace:
                    yield layout


def completed(about: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """What a ``workspace.json`` says, with what it leaves out if it was written by hand."""
    nothing = {"id": "", "subscription_id": SUBSCRIPTION, "resource_group": GROUP, "location": "", "created": ""}
    return {**nothing, "name": place.name, **about}

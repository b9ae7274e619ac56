"""``config.json``: which workspace belongs to the notebooks and scripts in a folder and below it.

Standard library only: user processes import this module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_prs.child.context.given_path import given_path
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import parse_json, write_json

_FOLDER = "workspace_folder"
_AZURE = ("subscription_id", "resource_group", "workspace_name")
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


def find(path: str | os.PathLike[str] | None, file_name: str | None) -> ConfigFile | None:
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


_EXPECTED = f'It says {{"{_FOLDER}": FOLDER}}, or as Azure\'s own {", ".join(_AZURE)}'


def write(
    base: Path, file_name: str | None, workspace: Path, names: tuple[str, str, str], *, is_below_home: bool
) -> None:
    """Write ``.azureml/config.json`` in ``base``; for a workspace below HOME it is one that Azure reads as well.

    Raises:
        WorkspaceError: it cannot be written.
    """
    folder = base / ".azureml"
    data = {_AZURE[0]: names[0], _AZURE[1]: names[1], _AZURE[2]: names[2]}
    if not is_below_home:
        # What is moved together stays together; else the whole path.
        inside = base in workspace.parents
        data = {_FOLDER: os.path.relpath(workspace, folder) if inside else str(workspace)}
    write_json(folder / (file_name or "config.json"), data)


def _candidates(start: Path, file_name: str | None) -> list[Path]:
    return [folder / place / (file_name or "config.json") for folder in (start, *start.parents) for place in _PLACES]


def _parse(file: Path) -> ConfigFile | None:
    """What a file says; ``None``: it is about something else."""
    try:
        found = parse_json(file.read_bytes(), file, "the workspace's config file")
    except OSError as error:
        raise WorkspaceError(f"{file} cannot be read: {error.strerror}") from error
    if not {_FOLDER, *_AZURE} & found.keys():
        return None
    names = tuple(_text(found, key, file) if key in found else "" for key in _AZURE)
    if _FOLDER in found:
        folder = Path(os.path.expanduser(_text(found, _FOLDER, file)))
        return ConfigFile(file, Path(os.path.abspath(file.parent / folder)), (names[0], names[1], names[2]))
    missing = [key for key in _AZURE if key not in found]
    if missing:
        raise WorkspaceError(f"{file} has no {' and no '.join(missing)}. {_EXPECTED}")
    return ConfigFile(file, None, (names[0], names[1], names[2]))


def _text(found: dict[str, Any], key: str, file: Path) -> str:
    value = found[key]
    if not isinstance(value, str) or not value.strip():
        raise WorkspaceError(f"{file}: {key}: expected text, got {value!r}")
    return value

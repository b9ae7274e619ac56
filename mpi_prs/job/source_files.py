"""The files of a source directory: which are the user's code, and which are not."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from mpi_prs.core.errors import ScriptError
from mpi_prs.core.files import RUN_FOLDER, walk

_IGNORE_FILES = (".amlignore", ".gitignore")
_NEVER = frozenset(["__pycache__", ".git", ".ipynb_checkpoints", RUN_FOLDER])
_OUTPUTS = "outputs"
_NOTEBOOK = ".ipynb"


@dataclass(frozen=True)
class SourceFile:
    """A file of a source directory.

    Attributes:
        name: relative path.
        path: where it is.
        size: in bytes.
        executable: whether its owner may run it.
    """

    name: str
    path: str
    size: int
    executable: bool


def source_files(
    folder: Path,
    places: frozenset[tuple[int, int]] = frozenset(),
    skip: Callable[[str], object] = lambda _name: False,
) -> Iterator[SourceFile]:
    """The files of a source directory, sorted within each folder.

    What ``.amlignore`` names is left out, or where there is none, what ``.gitignore`` names. So are a folder
    ``outputs`` of the source directory, ``__pycache__``, ``.git`` and run directories; and notebooks, since the one
    that submits changes with each cell. Links are followed.

    Args:
        folder: the source directory.
        places: files and folders to leave out, by device and inode, which no link can disguise.
        skip: whether to leave something out; gets its relative path, which ends with a slash if it is a folder.

    Raises:
        ScriptError: it cannot be read.
    """
    is_ignored = _ignored_by(folder)

    def left_out(name: str) -> bool:
        last = name.rstrip("/").rpartition("/")[2]
        if last in _NEVER or name.rstrip("/") == _OUTPUTS or last.endswith(_NOTEBOOK) or is_ignored(name):
            return True
        return bool(skip(name)) or (name.endswith("/") and bool(places) and identity(folder / name) in places)

    try:
        for name in walk(folder, left_out):
            with contextlib.suppress(FileNotFoundError):  # a broken link, or gone meanwhile
                found = os.stat(path := os.path.join(folder, name))
                if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in places:
                    yield SourceFile(name, path, found.st_size, bool(found.st_mode & stat.S_IXUSR))
    except OSError as error:
        where = error.filename or folder
        raise ScriptError(f"cannot read the source directory {where}: {error.strerror}") from error


def identity(path: Path) -> tuple[int, int]:
    """Device and inode. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _ignored_by(folder: Path) -> Callable[[str], bool]:
    for name in _IGNORE_FILES:
        path = folder / name
        try:
            lines = path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ScriptError(f"cannot read {path}: {error}") from error
        try:
            return GitIgnoreSpec.from_lines(lines).match_file
        except ValueError as error:
            raise ScriptError(f"{path}: {error}") from error
    return lambda _name: False

"""The files of a run: those that users give it, and its logs. Standard library only, Python 3.7."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Mapping  # noqa: UP035  # Python 3.7

from mpi_prs.child.context.given_path import given_path
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import arriving, copy_atomically, reason, walk
from mpi_prs.core.words import near


def put_file(folder: Path, name: str, source: str | os.PathLike[str] | IO[Any]) -> Path:
    """Copy a file, or what a stream has, into a folder; it appears whole, in place of one of the same name.

    Args:
        folder: the folder.
        name: relative path in it.
        source: the file or stream.

    Raises:
        WorkspaceError: it cannot be read or written, or the name leads out of the folder.
    """
    target = folder / checked_name(name)
    path = None if hasattr(source, "read") else given_path("the file", source)
    try:
        if path is None:
            with arriving(target) as partial:
                _write_stream(partial, source)
        else:
            copy_atomically(path, target, keep_mode=False)
    except OSError as error:
        what = getattr(source, "name", "the stream") if path is None else path
        raise WorkspaceError(f"cannot copy {what} to {target}: {reason(error)}") from error
    return target


def put_folder(folder: Path, name: str, source: Path) -> Path:
    """Copy all files of a folder below ``name``. Raises WorkspaceError."""
    if not source.is_dir():
        raise WorkspaceError(f"upload_folder: there is no folder {source}")
    for relative, path in all_files(source, "").items():
        put_file(folder, f"{name}/{relative}" if name not in ("", ".") else relative, path)
    return folder / name


def all_files(folder: Path, prefix: str) -> dict[str, Path]:
    """Name → path of each file below a folder; names begin with ``prefix``. What is being written is left out.

    Raises:
        WorkspaceError: a folder cannot be read; one that is not there has no files.
    """
    above = f"{prefix}/" if prefix else ""
    try:
        return {above + name: folder / name for name in walk(folder, _is_being_written)}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise WorkspaceError(f"cannot read {error.filename}: {error.strerror}") from None


def _is_being_written(name: str) -> bool:
    name = name.rpartition("/")[2]
    return name.startswith(".") and name.endswith(".part")


def copy_files(files: Mapping[str, Path], targets: Mapping[str, Path], run_id: str) -> None:
    """Copy files of a run, each to its target; folders are made.

    Args:
        files: name → path, of all that the run has.
        targets: name → where to.
        run_id: for messages.

    Raises:
        WorkspaceError: there is no file of a name (names near ones), or one cannot be copied.
    """
    for name, target in targets.items():
        if name not in files:
            raise WorkspaceError(f"the run {run_id} has no file {name!r}{near(name, files)}")
        put_file(target.parent, target.name, files[name])


def checked_name(name: str) -> str:
    """A relative path that leads nowhere else. Raises WorkspaceError."""
    if not isinstance(name, str) or not name.strip("/"):
        raise WorkspaceError(f"the name of a run's file is a relative path such as outputs/model.pkl, but got {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise WorkspaceError(f"the name of a run's file does not lead upwards, but got {name!r}")
    return "/".join(parts)


def _write_stream(path: Path, stream: Any) -> None:
    with open(str(path), "wb") as file:
        while True:
            piece = stream.read(1 << 20)
            if not piece:
                return
            file.write(piece.encode() if isinstance(piece, str) else piece)

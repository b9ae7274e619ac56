"""The files of a run: those that users give it, and its logs. Standard library only, Python 3.7."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import IO, Any, Mapping  # noqa: UP035  # Python 3.7

from mpi_prs.child.context.given_path import given_path
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import arriving
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
    if not hasattr(source, "read"):
        source = given_path("the file", source)
    try:
        with arriving(target) as partial:
            if hasattr(source, "read"):
                _write_stream(partial, source)
            else:
                shutil.copyfile(str(source), str(partial))
    except OSError as error:
        what = getattr(source, "name", "the stream") if hasattr(source, "read") else source
        raise WorkspaceError(f"cannot copy {what} to {target}: {error.strerror or error}") from error
    return target


def put_folder(folder: Path, name: str, source: Path) -> Path:
    """Copy all files of a folder below ``name``. Raises WorkspaceError."""
    if not source.is_dir():
        raise WorkspaceError(f"upload_folder: there is no folder {source}")
    for relative, path in all_files(source, "").items():
        put_file(folder, f"{name}/{relative}" if name not in ("", ".") else relative, path)
    return folder / name


def end_of_text(file: Path, most: int) -> str:
    """The last bytes of a text, ``most`` of them; empty where it cannot be read."""
    try:
        with open(file, "rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - most))
            return opened.read().decode("utf-8", "replace")
    except OSError:
        return ""


def all_files(folder: Path, prefix: str) -> dict[str, Path]:
    """Name → path of each file below a folder; names begin with ``prefix``. What is being written is left out."""
    found = {}
    for above, _folders, names in os.walk(str(folder)):
        for name in names:
            if not (name.startswith(".") and name.endswith(".part")):
                path = Path(above, name)
                relative = path.relative_to(folder).as_posix()
                found[f"{prefix}/{relative}" if prefix else relative] = path
    return found


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

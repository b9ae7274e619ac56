"""Snapshots: what a run executes is a copy of the source directory as it was when the run was submitted.

::

    source directory ──.amlignore, .gitignore──► files ──digest of names and contents──► snapshots/DIGEST/  there?
                                                                └─ no ─► snapshots/.incoming/… ──rename──┘

The name of a snapshot is its content, so those of the same code are one folder, and two submitters at once make the
same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mpi_prs.azureml.store.import_files import incoming_folder
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import PipelineError, ScriptError, WorkspaceError
from mpi_prs.core.files import claim_folder
from mpi_prs.core.units import size
from mpi_prs.job.source_files import SourceFile, identity, source_files

LIMIT = 300_000_000
"""Bytes of a snapshot; Azure ML's limit."""

_PIECE = 1 << 20
_SHOWN = 3


def take_snapshot(folder: Path, layout: WorkspaceFolder) -> str:
    """Copy a source directory into the workspace, unless the same is there already; returns its digest.

    It has what :func:`~mpi_prs.job.source_files.source_files` gives, without the workspace.

    Raises:
        PipelineError: it has too many bytes, or cannot be read or copied.
    """
    try:
        files = list(source_files(folder, _own_places(folder, layout)))
    except ScriptError as error:
        raise PipelineError(str(error)) from error
    total = sum(file.size for file in files)
    if total > LIMIT:
        raise _too_large(folder, files, total)
    digest = _digest(files, lambda _name, _executable, pieces: _drain(pieces))
    if layout.snapshot(digest).is_dir():
        return digest
    try:
        with incoming_folder(layout.snapshots / ".incoming") as copy:
            # What was copied is what counts: somebody may be editing
            digest = _digest(files, lambda name, executable, pieces: _copy(copy / name, executable, pieces))
            claim_folder(copy, layout.snapshot(digest))  # unless somebody else was first, with the same
    except WorkspaceError as error:
        raise PipelineError(f"cannot copy {folder} to {layout.snapshots}: {error}") from error
    return digest


def _own_places(folder: Path, layout: WorkspaceFolder) -> frozenset[tuple[int, int]]:
    """The workspace, by what cannot be disguised by links. Of one that is the source directory itself, its parts."""
    places = [layout.root]
    with contextlib.suppress(OSError):
        if os.path.samefile(folder, layout.root):
            places = [layout.description, layout.computes, layout.datastores, layout.secrets, layout.blob_store]
            places += [layout.file_store, layout.datasets, layout.models, layout.environments, layout.snapshots]
            places += [layout.experiments, layout.reuse]
    found = set()
    for place in places:
        with contextlib.suppress(OSError):
            found.add(identity(place))
    return frozenset(found)


def _digest(files: list[SourceFile], take: Callable[[str, bool, Iterator[bytes]], None]) -> str:
    """The digest of names, permission to run, and contents; each content goes through ``take``."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        content = hashlib.sha256()
        try:
            with open(file.path, "rb") as reader:
                take(file.name, file.executable, _hashed(iter(lambda: reader.read(_PIECE), b""), content.update))
        except PermissionError as error:
            raise PipelineError(
                f"cannot read {file.path}: {error.strerror}. Name it in .amlignore if it is no part of the code"
            ) from error
        except FileNotFoundError as error:
            raise PipelineError(
                f"{file.path} has gone away while the source directory was copied; try again"
            ) from error
        whole.update(os.fsencode(file.name) + b"\0x" * file.executable + b"\0" + content.digest())
    return whole.hexdigest()[:32]


def _hashed(pieces: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece


def _drain(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


def _copy(target: Path, executable: bool, pieces: Iterator[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb") as writer:
        writer.writelines(pieces)
    if executable:
        target.chmod(target.stat().st_mode | stat.S_IXUSR)


def _too_large(folder: Path, files: list[SourceFile], total: int) -> PipelineError:
    largest = sorted(files, key=lambda file: -file.size)[:_SHOWN]
    shown = ", ".join(f"{file.name} ({size(file.size)})" for file in largest)
    return PipelineError(
        f"the source directory {folder} has {size(total)} in {len(files)} files, and each run keeps a copy of it, "
        f"which may have {size(LIMIT)}. Give a folder that has the code alone as source_directory, or name what is no "
        f"code in {folder / '.amlignore'}, which is written as a .gitignore. The largest: {shown}"
    )

"""Uploads to a datastore and downloads from it: which files, and their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_prs.azureml.datastores.transfer import Moved, Progress, bring, files_below, put, storage_of
from mpi_prs.child.context.given_path import given_path
from mpi_prs.core.errors import InputError, WorkspaceError

if TYPE_CHECKING:
    from mpi_prs.azureml.datastores.datastore import Datastore


def files_of_folder(folder: str | os.PathLike[str]) -> list[tuple[Path, str]]:
    """All files below a folder, with their paths relative to it.

    Raises:
        WorkspaceError: it is no folder, cannot be read, or has no files.
    """
    path = given_path("src_dir", folder)
    if not path.is_dir():
        what = "is a file: use upload_files" if path.exists() else "is not there"
        raise WorkspaceError(f"src_dir is the folder to upload, but {path} {what}")
    found = files_below(path, run_directories=True)
    if not found:
        raise WorkspaceError(f"there are no files below {path} to upload")
    return found


def named_files(
    files: Sequence[str | os.PathLike[str]], relative_root: str | os.PathLike[str] | None
) -> list[tuple[Path, str]]:
    """Files, with their paths relative to the root, or else to the folder that they have in common.

    Raises:
        WorkspaceError: one is no file, or not below the root.
    """
    if isinstance(files, str | bytes | os.PathLike) or not isinstance(files, Sequence):
        raise WorkspaceError(f"files is a list of paths, but got {files!r}")
    if not files:
        raise WorkspaceError("files is a list of paths, but it is empty")
    paths = [given_path(f"files[{index}]", file) for index, file in enumerate(files)]
    for path in paths:
        if not path.is_file():
            what = "is a folder: use upload" if path.is_dir() else "is not there"
            raise WorkspaceError(f"files: {path} {what}")
    if relative_root is None:
        root = Path(os.path.commonpath([path.parent for path in paths]))
    else:
        root = given_path("relative_root", relative_root)
    for path in paths:
        if root not in path.parents:
            raise WorkspaceError(f"files: {path} is not below relative_root, {root}")
    return [(path, str(path.relative_to(root))) for path in dict.fromkeys(paths)]


def upload(datastore: Datastore, files: Sequence[tuple[Path, str]], target: str, overwrite: bool, show: bool) -> Moved:
    """Upload files under names relative to a folder of the datastore. Raises as :meth:`Datastore.upload`."""
    above = f"{target.rstrip('/')}/" if target else ""
    if datastore.folder is not None:
        pairs = [(path, str(datastore.folder / (above + name))) for path, name in files]
    else:
        pairs = [(path, datastore.url() + above + name) for path, name in files]
    progress = Progress("uploading", "uploaded", f"to {datastore.name}/{above}".rstrip("/"), show)
    return put(pairs, datastore.storage_section(), overwrite=overwrite, progress=progress)


def download(datastore: Datastore, root: Path, prefix: str, overwrite: bool, show: bool) -> Moved:
    """Download what is at a prefix. Raises as :meth:`Datastore.download`."""
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"target_path is the folder to download to, but {root} is a file")
    found = _files_at(datastore, prefix)
    if prefix and not found:
        raise WorkspaceError(f"there is nothing at {prefix!r} in {datastore!r} to download")
    pairs = [(source, root / name) for source, name in found]
    progress = Progress("downloading", "downloaded", f"from {datastore.name}/{prefix}".rstrip("/"), show)
    return bring(pairs, datastore.storage_section(), overwrite=overwrite, progress=progress)


def _files_at(datastore: Datastore, prefix: str) -> list[tuple[str, str]]:
    """Path or URL of each file at a prefix, and its name in the datastore as a local path."""
    if datastore.folder is not None:
        place = datastore.folder / prefix
        if place.is_file():
            return [(str(place), prefix.rstrip("/"))]
        above = f"{prefix.rstrip('/')}/" if prefix else ""
        return [(str(path), above + name) for path, name in files_below(place)] if place.is_dir() else []
    return _blobs_at(datastore, prefix)


def _blobs_at(datastore: Datastore, prefix: str) -> list[tuple[str, str]]:
    from mpi_prs.storage.remote import store_of
    from mpi_prs.storage.stores import StoreProblem, safe_path

    storage, url, root = storage_of(datastore.storage_section()), datastore.url(prefix), datastore.url()
    try:
        found = [each.url for each in store_of(url, storage).list(url, True)]
    except StoreProblem as problem:
        raise InputError(f"cannot list {url}: {problem}") from None
    return [(blob, safe_path(blob.removeprefix(root))) for blob in found]

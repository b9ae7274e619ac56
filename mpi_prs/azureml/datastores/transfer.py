"""Files between this machine and a datastore, many at once, with progress; each appears complete or not at all.

To do it again does no harm: what is there already is left as it is, unless it should be overwritten.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.shims.finder import resolve
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import RUN_FOLDER, copy_atomically, reason, walk
from mpi_prs.core.units import count, duration, many, size
from mpi_prs.core.urls import Names, is_url
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.downloading import begin_download, finish
from mpi_prs.storage.remote import list_any
from mpi_prs.storage.stores import safe_path
from mpi_prs.storage.upload import upload_all

_log = logging.getLogger("mpi_prs.datastores")

_COPIES_AT_ONCE = 8
_LINE_SECONDS = 10.0
_BAR_SECONDS = 0.1


@dataclass
class Moved:
    """What came of a transfer: numbers of files, and the bytes of those that were moved."""

    done: int = 0
    skipped: int = 0
    bytes: int = 0


def storage_of(section: Mapping[str, Any]) -> Any:
    """The ``mpi_prs.storage.credentials.Storage`` of a job config's ``storage`` section, for use in this process.

    Its files are read now: a process keeps its connections, and a key that was registered anew needs another one.

    Raises:
        InputError: a file of credentials cannot be read.
    """
    return Storage(**section).resolved()


def bring(
    pairs: Sequence[tuple[str, Path]], storage: Mapping[str, Any], *, overwrite: bool, progress: TransferProgress
) -> Moved:
    """Bring files here.

    Args:
        pairs: URL or absolute path of each file, and its path here; folders are made.
        storage: how to get at URLs, a job config's ``storage`` section.
        overwrite: what is here already; otherwise it is skipped.

    Raises:
        InputError: a URL cannot be read, or the disk cannot be written.
        WorkspaceError: a path cannot be read, or cannot be written here.
    """
    wanted = [pair for pair in pairs if overwrite or not os.path.lexists(pair[1])]
    with progress.over(len(pairs)) as moved:
        progress.skip(len(pairs) - len(wanted))
        if remote := [pair for pair in wanted if is_url(pair[0])]:
            download = begin_download(
                remote, storage_of(storage), fetched=lambda path: progress.step(os.stat(path).st_size)
            )
            finish(download)
        _copy_all([(Path(source), target) for source, target in wanted if not is_url(source)], progress)
    return moved


def put(
    pairs: Sequence[tuple[Path, str]], storage: Mapping[str, Any], *, overwrite: bool, progress: TransferProgress
) -> Moved:
    """Store files; the inverse of :func:`bring`.

    Raises:
        OutputError: the store refuses or cannot be reached.
        WorkspaceError: a file cannot be read, or cannot be written.
    """

    def stored(path: Path, is_new: bool) -> None:
        if is_new:
            progress.step(os.stat(path).st_size)
        else:
            progress.skip(1)

    with progress.over(len(pairs)) as moved:
        if remote := [pair for pair in pairs if is_url(pair[1])]:
            upload_all(remote, storage_of(storage), replace=overwrite, stored=stored)
        local = [(source, Path(target)) for source, target in pairs if not is_url(target)]
        wanted = [pair for pair in local if overwrite or not os.path.lexists(pair[1])]
        progress.skip(len(local) - len(wanted))
        _copy_all(wanted, progress)
    return moved


def files_below(folder: Path, *, run_directories: bool = False) -> list[tuple[Path, str]]:
    """All files below a folder with their paths relative to it, sorted; hidden ones too, links are followed. A broken
    link, or what is no file, is left out with a warning.

    Args:
        run_directories: also what jobs know about themselves, ``_run``.

    Raises:
        WorkspaceError: a folder cannot be read.
    """
    own = f"{RUN_FOLDER}/"
    try:
        names = list(walk(folder, lambda name: not run_directories and f"/{name}".endswith(f"/{own}")))
    except OSError as error:
        raise WorkspaceError(f"cannot read {error.filename}: {error.strerror}") from None
    found = []
    for name in names:
        if (path := folder / name).is_file():
            found.append((path, name))
        else:
            _log.warning("%s is left out: it is a broken link, or no file", path)
    return found


def _copy_all(pairs: Sequence[tuple[Path, Path]], progress: TransferProgress) -> None:
    if not pairs:
        return
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        copies = [pool.submit(copy_file, source, target) for source, target in pairs]
        try:
            for copy in as_completed(copies):
                progress.step(copy.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def copy_file(source: Path, target: Path) -> int:
    """Copy a file with its permissions; it has its name when it is complete, whoever else copies to the same name.

    Returns:
        its size in bytes.

    Raises:
        WorkspaceError: it cannot be read or written.
    """
    try:
        return copy_atomically(source, target)
    except OSError as error:
        raise WorkspaceError(f"cannot copy {source} to {target}: {reason(error)}") from error


@dataclass
class TransferProgress:
    """Tells people how far a transfer is: a bar in a terminal, elsewhere a line now and then. For any thread.

    Attributes:
        doing, done: such as ``uploading`` and ``uploaded``.
        place: from where or to where.
        show: whether to tell anything.
    """

    doing: str
    done: str
    place: str
    show: bool
    _moved: Moved = field(default_factory=Moved)
    _total: int = 0
    _told: float = 0.0
    _bar: Any = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def over(self, total: int) -> Iterator[Moved]:
        """The time of the transfer of so many files; what is yielded grows with it."""
        self._total, self._moved = total, Moved()
        began = self._told = time.monotonic()
        if self.show and total and sys.stdout.isatty():
            self._bar = resolve("mpi_prs.monitor.bar:Bar")(sys.stdout)  # rich, for a terminal alone
        try:
            yield self._moved
        except BaseException:
            self._close()
            raise
        self._tell(0.0)
        self._close()
        if self.show:
            self._say(self._result(time.monotonic() - began))

    def step(self, size: int) -> None:
        """Another file is done."""
        with self._lock:
            self._moved.done += 1
            self._moved.bytes += size
        self._tell(_LINE_SECONDS if self._bar is None else _BAR_SECONDS)

    def skip(self, count: int) -> None:
        """So many files were there already."""
        with self._lock:
            self._moved.skipped += count

    def _tell(self, seconds: float) -> None:
        now = time.monotonic()
        with self._lock:
            if not self.show or now - self._told < seconds:
                return
            self._told = now
            if self._bar is not None:
                self._bar.update(self._moved.done + self._moved.skipped, self._total, f"{self.doing} {self._counted()}")
            elif seconds:
                self._say(f"{self.doing} {self._counted()} {self.place}")

    def _counted(self) -> str:
        moved = self._moved
        return f"{count(moved.done + moved.skipped)} of {count(self._total)} files, {size(moved.bytes)}"

    def _result(self, seconds: float) -> str:
        moved = self._moved
        text = f"{self.done} {many(moved.done, 'file')} ({size(moved.bytes)}) {self.place} in {duration(seconds)}"
        if moved.skipped:
            text += f"; {count(moved.skipped)} were there already (overwrite=True replaces them)"
        return text

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _say(self, text: str) -> None:
        print(text, flush=True)


# To and from a datastore


class TransferStore(Protocol):
    """What is asked of a datastore."""

    name: str

    @property
    def folder(self) -> Path | None: ...

    def url(self, path: str = "") -> str: ...

    def storage_section(self) -> dict[str, Any]: ...


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


def upload(
    datastore: TransferStore, files: Sequence[tuple[Path, str]], target: str, overwrite: bool, show: bool
) -> Moved:
    """Upload files under names relative to a folder of the datastore. Raises as :meth:`Datastore.upload`."""
    above = f"{target.rstrip('/')}/" if target else ""
    if datastore.folder is not None:
        pairs = [(path, str(datastore.folder / (above + name))) for path, name in files]
    else:
        pairs = [(path, datastore.url() + above + name) for path, name in files]
    progress = TransferProgress("uploading", "uploaded", f"to {datastore.name}/{above}".rstrip("/"), show)
    return put(pairs, datastore.storage_section(), overwrite=overwrite, progress=progress)


def download(datastore: TransferStore, root: Path, prefix: str, overwrite: bool, show: bool) -> Moved:
    """Download what is at a prefix. Raises as :meth:`Datastore.download`."""
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"target_path is the folder to download to, but {root} is a file")
    found = _files_at(datastore, prefix)
    if prefix and not found:
        raise WorkspaceError(f"there is nothing at {prefix!r} in {datastore!r} to download")
    pairs = [(source, root / name) for source, name in found]
    progress = TransferProgress("downloading", "downloaded", f"from {datastore.name}/{prefix}".rstrip("/"), show)
    return bring(pairs, datastore.storage_section(), overwrite=overwrite, progress=progress)


def _files_at(datastore: TransferStore, prefix: str) -> list[tuple[str, str]]:
    """Path or URL of each file at a prefix, and its name in the datastore as a local path."""
    if datastore.folder is not None:
        place = datastore.folder / prefix
        if place.is_file():
            return [(str(place), prefix.rstrip("/"))]
        above = f"{prefix.rstrip('/')}/" if prefix else ""
        return [(str(path), above + name) for path, name in files_below(place)] if place.is_dir() else []
    return _blobs_at(datastore, prefix)


def _blobs_at(datastore: TransferStore, prefix: str) -> list[tuple[str, str]]:
    storage, url, root = storage_of(datastore.storage_section()), datastore.url(prefix), datastore.url()
    found = [each.url for each in list_any(url, storage, Names.ALL)]
    return [(blob, safe_path(blob.removeprefix(root))) for blob in found]

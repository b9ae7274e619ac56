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
from typing import Any

from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import copy_atomically, reason, walk
from mpi_prs.core.run_directory import RUN_FOLDER

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
    from mpi_prs.storage.credentials import Storage

    return Storage(**section).resolved()


def bring(
    pairs: Sequence[tuple[str, Path]], storage: Mapping[str, Any], *, overwrite: bool, progress: Progress
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
    from mpi_prs.storage.credentials import is_url
    from mpi_prs.storage.downloading import begin_download, finish

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


def put(pairs: Sequence[tuple[Path, str]], storage: Mapping[str, Any], *, overwrite: bool, progress: Progress) -> Moved:
    """Store files; the inverse of :func:`bring`.

    Raises:
        OutputError: the store refuses or cannot be reached.
        WorkspaceError: a file cannot be read, or cannot be written.
    """
    from mpi_prs.storage.credentials import is_url
    from mpi_prs.storage.upload import upload_all

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


def _copy_all(pairs: Sequence[tuple[Path, Path]], progress: Progress) -> None:
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
class Progress:
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
            from mpi_prs.monitor.bar import Bar

            self._bar = Bar(sys.stdout)
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
        from mpi_prs.core.units import count, size

        moved = self._moved
        return f"{count(moved.done + moved.skipped)} of {count(self._total)} files, {size(moved.bytes)}"

    def _result(self, seconds: float) -> str:
        from mpi_prs.core.units import count, duration, many, size

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

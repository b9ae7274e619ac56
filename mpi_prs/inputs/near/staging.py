"""Files brought to node-local scratch for one mini-batch, and removed after it.

::

    stage(number, urls) ──► scratch/<number>/<container>/<path> … ──► run() ──► release()

The space is bounded (see :mod:`mpi_prs.inputs.near.scratch_space`).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from mpi_prs.core.errors import InputError
from mpi_prs.core.files import copy_atomically
from mpi_prs.core.urls import is_url
from mpi_prs.inputs.near.scratch_space import ScratchFull, Space
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.downloading import begin_download, begin_sizes, finish, local_name
from mpi_prs.storage.stores import disk

_log = logging.getLogger("mpi_prs.loading")

T = TypeVar("T")


@dataclass
class Staged:
    """The files of a mini-batch, here.

    Attributes:
        paths: in the order they were asked for.
        bytes: what they take.
        release: removes them, beside the caller; the second call does nothing.
    """

    paths: list[str]
    bytes: int
    release: Callable[[], None]


class Staging:
    """Brings files to a scratch folder and removes them; for any number of threads.

    Args:
        scratch: a folder of its own; made when it is needed, removed by :meth:`close`.
        storage: how to get at remote files. Paths of a filesystem are copied.
        limit: bytes that may be staged and being staged together. A single mini-batch that is larger is let through
            alone, with a warning, if the disk has the space.
    """

    def __init__(self, scratch: Path, storage: Storage, limit: int) -> None:
        self._scratch = scratch
        self._storage = storage
        self._space = Space(limit)
        self._under_way: set[Future[Any]] = set()
        self._folders: set[str] = set()
        self._lock = threading.Lock()
        self._rubbish: SimpleQueue[tuple[Path, int] | None] = SimpleQueue()
        self._remover: threading.Thread | None = None

    def stage(self, number: int, urls: Sequence[str]) -> Staged:
        """Bring the files of a mini-batch here; blocks until they are complete.

        Args:
            number: of the mini-batch.
            urls: URLs and absolute paths; one that is there twice is brought once.

        Raises:
            InputError: a file cannot be had (with its URL and the cause), the disk is full, or :meth:`close` was
                called.
        """
        folder = self._new_folder(number)
        try:
            names = place_files(urls, self._storage)
            pairs = [(url, folder / name) for url, name in names.items()]
            size = self._bring(number, folder, pairs)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            self._forget(folder)
            raise
        released = threading.Event()

        def release() -> None:
            if not released.is_set():
                released.set()
                self._remove_later(folder, size)

        return Staged([str(folder / names[url]) for url in urls], size, release)

    def _bring(self, number: int, folder: Path, pairs: Sequence[tuple[str, Path]]) -> int:
        """Bring files here within the space; how many bytes they have, which stay taken."""
        if (share := self._space.begin(len(pairs))) is not None:
            try:
                self._fetch(pairs, share.take)
                return share.bytes
            except ScratchFull:
                shutil.rmtree(folder, ignore_errors=True)
                share.give_back()
            except BaseException:
                share.give_back()
                raise
        size = sum(self._sizes([url for url, _ in pairs]))
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(_existing(self._scratch)).free
            if size > free + self._space.used:
                raise InputError(
                    f"mini-batch {number} has {size:,} bytes, and the scratch folder {self._scratch} has {free:,} "
                    "free: set scratch to a larger node-local folder, or lower mini_batch_size"
                )
        if size > self._space.limit:
            _log.warning(
                "mini-batch %d has %d bytes, more than scratch_limit (%d): it is fetched alone; raise scratch_limit or "
                "lower mini_batch_size to keep the processes busy",
                *(number, size, self._space.limit),
            )
        share = self._space.wait_for(size)
        try:
            self._fetch(pairs, lambda _size: None)
        except BaseException:
            share.give_back()
            raise
        return size

    def _fetch(self, pairs: Sequence[tuple[str, Path]], reserve: Callable[[int], None]) -> None:
        remote = [pair for pair in pairs if is_url(pair[0])]
        if remote:
            self._finish(begin_download(remote, self._storage, reserve=reserve))
        for source, target in pairs:
            if not is_url(source):
                copy(source, target, reserve, self._space.check_open)

    def _sizes(self, urls: Sequence[str]) -> list[int]:
        remote = [url for url in urls if is_url(url)]
        found = self._finish(begin_sizes(remote, self._storage)) if remote else []
        sizes = iter(found)
        return [next(sizes) if is_url(url) else _look_up(url).st_size for url in urls]

    def _finish(self, future: Future[T]) -> T:
        """Wait for what :meth:`close` can cancel."""
        with self._lock:
            self._under_way.add(future)
        try:
            return finish(future, self._space.check_open)
        finally:
            with self._lock:
                self._under_way.discard(future)

    # Folders

    def _new_folder(self, number: int) -> Path:
        """A mini-batch that was withdrawn may come again while its first folder is still there."""
        with self._lock:
            self._space.check_open()
            name = next(
                name
                for again in itertools.count()
                if (name := f"{number}-{again}" if again else str(number)) not in self._folders
            )
            self._folders.add(name)
        return self._scratch / name

    def _forget(self, folder: Path) -> None:
        with self._lock:
            self._folders.discard(folder.name)

    def _remove_later(self, folder: Path, size: int) -> None:
        with self._lock:
            if self._remover is None:
                self._remover = threading.Thread(target=self._remove, name="remover", daemon=True)
                self._remover.start()
        self._rubbish.put((folder, size))

    def _remove(self) -> None:
        while (rubbish := self._rubbish.get()) is not None:
            folder, size = rubbish
            shutil.rmtree(folder, ignore_errors=True)
            self._forget(folder)
            self._space.give_back(size)

    def close(self) -> None:
        """End what is under way, and remove everything; later calls of :meth:`stage` raise InputError."""
        with self._lock:
            self._space.close()
            under_way = list(self._under_way)
        for future in under_way:
            future.cancel()
        self._rubbish.put(None)
        shutil.rmtree(self._scratch, ignore_errors=True)


# Files


def place_files(urls: Sequence[str], storage: Storage) -> dict[str, str]:
    """A relative path for each different URL and path. No two are the same, and none is a folder of another."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    folders: set[str] = set()
    for number, url in enumerate(dict.fromkeys(urls)):
        name = local_name(url, storage) if is_url(url) else url.lstrip("/")
        above = list(_folders_above(name))
        if name in taken or name in folders or not taken.isdisjoint(above):
            # Stores have blobs a and a/b side by side; and two accounts may have the same container
            name = f"{number}~/{name}"
            above = list(_folders_above(name))
        names[url] = name
        taken.add(name)
        folders.update(above)
    return names


def _folders_above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def copy(source: str, target: Path, reserve: Callable[[int], None], check: Callable[[], None]) -> None:
    """Copy a file; it has its name when it is complete.

    Args:
        reserve: told the size before.
        check: called now and then; what it raises ends the copy.

    Raises:
        InputError: it cannot be read or written.
    """
    reserve(_look_up(source).st_size)
    with disk(target.parent):
        try:
            copy_atomically(source, target, check=check)
        except OSError as error:
            if error.filename != source:
                raise
            raise _unreadable(source, error) from None


def _look_up(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror or error}")


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


# The scratch folder

"""Files brought to node-local scratch for one mini-batch, and removed after it.

::

    stage(number, sources) ──► scratch/<number>/<container>/<path> … ──► run() ──► release()

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
from typing import Any, NamedTuple, TypeVar

from mpi_prs.core.errors import InputError
from mpi_prs.core.files import arriving, copy_atomically
from mpi_prs.core.urls import is_url
from mpi_prs.inputs.near.scratch_space import ScratchFull, Space
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.downloading import begin_download, begin_sizes, finish, local_name
from mpi_prs.storage.stores import disk

_log = logging.getLogger("mpi_prs.loading")

T = TypeVar("T")


class Extract(NamedTuple):
    """Bytes of a file of the filesystem that become a file of their own.

    Attributes:
        name: an absolute path that nothing else has; it decides where the copy lies.
        file: where the bytes are.
        file_size: that it had when it was listed; another one is refused.
        offset, size: which bytes.
    """

    name: str
    file: str
    file_size: int
    offset: int
    size: int


class FileContent(NamedTuple):
    """Bytes in memory that become a file; ``name`` as of :class:`Extract`."""

    name: str
    data: memoryview

    @property
    def size(self) -> int:
        return len(self.data)


Source = str | Extract | FileContent
"""A URL or an absolute path, a part of a file, or bytes."""


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

    def stage(self, number: int, sources: Sequence[Source], others: Sequence[Extract] = ()) -> Staged:
        """Bring the files of a mini-batch here; blocks until they are complete.

        Args:
            number: of the mini-batch.
            sources: one that is there twice is brought once.
            others: what is to lie beside them, and is not in :attr:`Staged.paths`.

        Raises:
            InputError: a file cannot be had (with its URL and the cause), the disk is full, or :meth:`close` was
                called.
        """
        folder = self._new_folder(number)
        try:
            by_name = {_name_of(source): source for source in (*sources, *others)}
            names = place_files(list(by_name), self._storage)
            pairs = [(by_name[name], folder / place) for name, place in names.items()]
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

        return Staged([str(folder / names[_name_of(source)]) for source in sources], size, release)

    def _bring(self, number: int, folder: Path, pairs: Sequence[tuple[Source, Path]]) -> int:
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
        size = sum(self._sizes([source for source, _ in pairs]))
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

    def _fetch(self, pairs: Sequence[tuple[Source, Path]], reserve: Callable[[int], None]) -> None:
        remote = [(source, target) for source, target in pairs if isinstance(source, str) and is_url(source)]
        if remote:
            self._finish(begin_download(remote, self._storage, reserve=reserve))
        for source, target in pairs:
            if isinstance(source, FileContent):
                reserve(source.size)
                with disk(target.parent), arriving(target) as partial:
                    partial.write_bytes(source.data)
            elif isinstance(source, Extract) or not is_url(source):
                copy(source, target, reserve, self._space.check_open)

    def _sizes(self, sources: Sequence[Source]) -> list[int]:
        remote = [source for source in sources if isinstance(source, str) and is_url(source)]
        found: list[int] = self._finish(begin_sizes(remote, self._storage)) if remote else []
        sizes = dict(zip(remote, found, strict=True))

        def size_of(source: Source) -> int:
            if not isinstance(source, str):
                return source.size
            return sizes[source] if source in sizes else _look_up(source).st_size

        return list(map(size_of, sources))

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


def copy(source: str | Extract, target: Path, reserve: Callable[[int], None], check: Callable[[], None]) -> None:
    """Copy a file, or a part of one; it has its name when it is complete.

    Args:
        reserve: told the size before.
        check: called now and then; what it raises ends the copy.

    Raises:
        InputError: it cannot be read or written, or has changed since it was listed.
    """
    file = source if isinstance(source, str) else source.file
    size = _look_up(file).st_size
    if isinstance(source, Extract) and size != source.file_size:
        raise InputError(
            f"{file} has {size} bytes, and had {source.file_size} when the run was begun: its members are elsewhere. "
            "Restore it, or start the run anew with --overwrite"
        )
    span = None if isinstance(source, str) else (source.offset, source.size)
    reserve(size if span is None else span[1])
    with disk(target.parent):
        try:
            copy_atomically(file, target, check=check, span=span)
        except OSError as error:
            if error.filename != file:
                raise
            raise _unreadable(file, error) from None


def _name_of(source: Source) -> str:
    return source if isinstance(source, str) else source.name


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

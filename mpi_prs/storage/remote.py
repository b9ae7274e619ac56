"""Data in a remote store: whatever fsspec opens, Azure's blob storage (by way of adlfs) above all.

::

    list_urls(pattern)   master: URLs and sizes, by the rules of inputs/listing.py
    RemoteFiles          workers: parts of a file, by ranged reads
    download(pairs)      workers: whole files, many at a time          (storage/downloading.py)

Nothing of fsspec, adlfs or asyncio is imported before the first URL: most jobs have none. What goes wrong in passing is
tried again for a while (:data:`~mpi_prs.storage.stores.PATIENCE`); what cannot get better is said at once.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from mpi_prs.child.shims.finder import resolve
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.core.urls import Names
from mpi_prs.storage.accounts import is_azure, parse
from mpi_prs.storage.credentials import ENVIRONMENT, Storage, check_url
from mpi_prs.storage.stores import Listed, Store, StoredFile, StoreProblem, run

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from mpi_prs.storage.azure import AzureStore


def list_urls(pattern: str, storage: Storage, names: Names = Names.SEEN) -> Iterator[tuple[str, int]]:
    """The files that a URL names, with their sizes in bytes: itself, all below it, or what it matches as a glob.

    The rules are those of :func:`mpi_prs.inputs.listing.list_files`, as far as a store without folders allows: a
    blob that exists is taken as it is; a folder stands for all blobs under it; what a glob means is said in
    :mod:`mpi_prs.core.urls`. Globs look only below their part without wildcards. In a URL that begins with ``http``
    names are percent-encoded.

    Args:
        pattern: the URL.
        storage: how to get at the store.
        names: those that wildcards match.

    Yields:
        In the order of the store, which is that of the names. One page (5,000 blobs) and the next are in memory.

    Raises:
        InputError: nothing is found, or the store cannot be reached or refuses.
    """
    return ((each.url, each.size) for each in list_versions(pattern, storage, names))


def list_versions(pattern: str, storage: Storage, names: Names = Names.SEEN) -> Iterator[Listed]:
    """As :func:`list_urls`, with what each file's content is known by."""
    found = False
    for each in list_any(pattern, storage, names):
        found = True
        yield each
    if not found:
        raise InputError(
            f"nothing is found at {pattern}: there is neither a file of this name nor any file below it or matching it"
            + ("" if names is Names.ALL else _UNCOUNTED[names])
            + ("; // in it stands for a folder without a name" if "//" in pattern.partition("://")[2] else "")
        )


_UNCOUNTED = {
    Names.SEEN: " (hidden ones do not count)",
    Names.DATA: " (hidden ones do not count, nor do names with a leading underscore)",
}


def list_any(pattern: str, storage: Storage, names: Names = Names.SEEN) -> Iterator[Listed]:
    """As :func:`list_versions`, and it may be that nothing is found."""
    check_url(pattern)
    try:
        yield from store_of(pattern, storage).list(pattern, names)
    except StoreProblem as problem:
        raise InputError(f"cannot list {pattern}: {problem}") from None


def check_container(url: str, storage: Storage) -> None:
    """Look whether a container is there and can be listed: one request.

    Args:
        url: of the container, such as ``abfs://container``.
        storage: how to get at the store.

    Raises:
        InputError: it is not there, or the store refuses or cannot be reached.
    """
    # A generator that is closed after the first blob: the listing behind it ends
    with closing(cast("Generator[Listed]", list_any(url, storage, Names.ALL))) as listing:
        next(listing, None)


def create_container(url: str, storage: Storage) -> bool:
    """Make a container of Azure's blob storage, unless it is there; whether it was made.

    Raises:
        OutputError: the store refuses or cannot be reached.
        InputError: a file of credentials cannot be read.
    """
    check_url(url)
    try:
        store = cast("AzureStore", store_of(url, storage))
        return run(store.create_container, url)
    except StoreProblem as problem:
        raise OutputError(f"cannot make the container {url}: {problem}") from None


class RemoteFiles:
    """Opens and measures files by URL; implements :class:`~mpi_prs.inputs.formats.format.Files`. For any thread.

    What a store says of a file is asked for once, where the store also tells its versions: each read names the one that
    was found, and the store refuses when there is another by then.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[str, tuple[Store, StoredFile]] = {}

    def open(self, path: str) -> BinaryIO:
        """Open for reading, seekable; each read is a ranged request (or several at once) to the store.

        A blob that is replaced while it is open is not read as a mixture: the read raises InputError.

        Raises:
            InputError: it does not exist, or the store cannot be reached or refuses.
        """
        store, found = self._look_up(path)
        file = _RangedFile(store, path, found.size, found.version, partial(self._known.pop, path, None))
        return io.BufferedReader(file, _BUFFER)

    def size(self, path: str) -> int:
        """In bytes. Raises InputError."""
        return self._look_up(path)[1].size

    def _look_up(self, url: str) -> tuple[Store, StoredFile]:
        if (known := self._known.get(url)) is not None:
            return known
        check_url(url)
        with reading(url):
            store = store_of(url, self._storage)
            found = run(store.look_up, url)
        if found.version:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[url] = store, found
        return store, found


_MOST_KNOWN = 10_000
"""Files; some 5 MB."""
_BUFFER = 256 * 1024


class _RangedFile(io.RawIOBase):
    """A file of a store, without a buffer. ``forget`` is called when it cannot be read: it may be another one now."""

    def __init__(self, store: Store, url: str, size: int, version: str, forget: Callable[[], object]) -> None:
        self._store = store
        self._url = url
        self._size = size
        self._version = version
        self._forget = forget
        self._place = 0
        self.name = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence])
        return self._place

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size - self._place)
        if length <= 0:
            return 0
        try:
            with reading(self._url):
                run(self._store.read_into, self._url, self._place, view[:length], self._version)
        except InputError:
            self._forget()
            raise
        self._place += length
        return length


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Turn a store's problem with a URL into an InputError."""
    try:
        yield
    except StoreProblem as problem:
        raise InputError(f"cannot read {url}: {problem}") from None


# The stores of this process

_stores: dict[str, Store] = {}
_stores_lock = threading.Lock()


def store_of(url: str, storage: Storage) -> Store:
    """The store of a URL; one for each place and set of credentials, kept as long as the process.

    Raises:
        StoreProblem: the URL or the credentials cannot be used, or a package is missing.
        InputError: a file of credentials cannot be read.
    """
    of_azure = is_azure(url, storage)
    place = parse(url, storage).account_in_url if of_azure else url.partition("://")[0]
    environment = [HERE.get(name) for name in ENVIRONMENT]
    key = json.dumps([place, of_azure, dataclasses.asdict(storage), environment], default=repr)
    with _stores_lock:
        if key not in _stores:
            kind = "mpi_prs.storage.azure:AzureStore" if of_azure else "mpi_prs.storage.fsspec_store:FsspecStore"
            _stores[key] = resolve(kind)(url, storage.resolved())
        return _stores[key]

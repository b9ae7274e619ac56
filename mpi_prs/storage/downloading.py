"""Whole files from a remote store to here, many at a time; a file has its name only when it is complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import TypeVar

from mpi_prs.core.errors import InputError
from mpi_prs.core.files import arriving
from mpi_prs.storage.credentials import Storage, check_url
from mpi_prs.storage.remote import reading, store_of
from mpi_prs.storage.stores import Store, StoreProblem, disk, for_each, safe_path, submit

T = TypeVar("T")

_FILES_AT_ONCE = 32
"""Of one download."""


def download(
    pairs: Sequence[tuple[str, Path]], storage: Storage, *, reserve: Callable[[int], None] | None = None
) -> None:
    """Bring files here and wait for them; see :func:`begin_download`."""
    finish(begin_download(pairs, storage, reserve=reserve))


def begin_download(
    pairs: Sequence[tuple[str, Path]],
    storage: Storage,
    *,
    reserve: Callable[[int], None] | None = None,
    fetched: Callable[[Path], None] = lambda _path: None,
) -> Future[None]:
    """Start to bring files here; the future can be cancelled, and then removes what it had begun.

    Large files come in ranges, several at once; memory is bounded by :data:`~mpi_prs.storage.stores.SLOTS` ranges of
    :data:`~mpi_prs.storage.stores.RANGE` bytes for the whole process. What fails in passing is tried
    again, range by range.

    Args:
        pairs: the URL and the path of each file; folders are made.
        storage: how to get at the store.
        reserve: told the size of each file before any of it is written; what it raises ends the download.
        fetched: told of each file that is here, in another thread.

    Raises (both at once and by the future, see :func:`finish`):
        InputError: naming the URL and the cause: a file does not exist, the store refuses or cannot be reached for too
            long; or the disk is full or cannot be written.
    """
    work = []
    for url, path in pairs:
        check_url(url)
        with reading(url):
            work.append((store_of(url, storage), url, path))
    return submit(_download_all, work, reserve or (lambda _size: None), fetched)


async def _download_all(
    work: Sequence[tuple[Store, str, Path]],
    reserve: Callable[[int], None],
    fetched: Callable[[Path], None],
) -> None:
    """Fetch files; each that is here is told. Raises InputError naming the URL."""

    async def one(item: tuple[Store, str, Path]) -> None:
        store, url, path = item
        with reading(url):
            await _download(store, url, path, reserve)
        fetched(path)

    await for_each(work, one, min(_FILES_AT_ONCE, len(work)))


async def _download(store: Store, url: str, path: Path, reserve: Callable[[int], None]) -> None:
    with disk(path.parent), arriving(path) as partial, open(partial, "xb") as file:
        size = await store.fetch(url, file.fileno(), path.parent, reserve)
        written = os.fstat(file.fileno()).st_size
        if written != size:
            raise StoreProblem(f"{written} bytes came of {size}")


def begin_sizes(urls: Sequence[str], storage: Storage) -> Future[list[int]]:
    """Start to ask for the sizes of files in bytes, many at a time. Raises InputError as :func:`begin_download`."""
    work = []
    for url in urls:
        check_url(url)
        with reading(url):
            work.append((store_of(url, storage), url))
    return submit(_sizes, work)


async def _sizes(work: Sequence[tuple[Store, str]]) -> list[int]:
    """The sizes of files. Raises InputError naming the URL."""
    sizes = [0] * len(work)

    async def one(number: int) -> None:
        store, url = work[number]
        with reading(url):
            sizes[number] = (await store.look_up(url)).size

    await for_each(range(len(work)), one, min(_FILES_AT_ONCE, len(work)))
    return sizes


def finish(future: Future[T], check: Callable[[], None] = lambda: None) -> T:
    """Wait for what was begun.

    Args:
        check: called now and then; what it raises ends the work.

    Raises:
        InputError: what it failed with, or that it was cancelled.
    """
    try:
        while not wait([future], timeout=0.5).done:
            check()
        return future.result()
    except CancelledError:
        raise InputError("the download was called off, since the job is ending") from None
    finally:
        future.cancel()


def local_name(url: str, storage: Storage) -> str:
    """A relative path for a file's copy: container and path, made such that any filesystem takes them.

    Names keep their extension; no two different names become the same; ``..`` leads nowhere.
    """
    with reading(url):
        return safe_path(store_of(url, storage).path_of(url))

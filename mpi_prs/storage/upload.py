"""Files, the finished output above all, in a remote store: each appears there complete or not at all.

To upload it again does no harm, so whoever was interrupted simply does it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mpi_prs.core.errors import OutputError
from mpi_prs.core.secrecy import scrub
from mpi_prs.storage.credentials import Storage, check_url
from mpi_prs.storage.remote import store_of
from mpi_prs.storage.stores import NotThere, Store, StoreProblem, for_each, run

_FILES_AT_ONCE = 8
"""Of one upload; each takes a few blocks of memory."""


def upload(file: Path, url: str, storage: Storage) -> None:
    """Store a file under a URL in place of what is there.

    Azure: in blocks, several at once, each with its checksum and tried again by itself; the blob is replaced when all
    are there. Elsewhere: under ``<name>.part``, then renamed. The stored size is compared in the end.

    Raises:
        OutputError: the file cannot be read, the URL names no file, or the store refuses or cannot be reached for too
            long. The local file is left as it is.
    """
    upload_all([(file, url)], storage)


def upload_all(
    pairs: Sequence[tuple[Path, str]],
    storage: Storage,
    *,
    replace: bool = True,
    stored: Callable[[Path, bool], None] = lambda _path, _is_new: None,
) -> None:
    """Store files, each under its URL, some at once; as :func:`upload`, and the first failure ends it.

    Args:
        replace: what is there; otherwise it stays as it is.
        stored: told of each file, and whether it was stored or there already; in another thread.

    Raises:
        OutputError: as of :func:`upload`, naming the file.
    """

    async def put(work: tuple[Store, Path, str]) -> None:
        store, file, url = work
        is_new = True
        with _uploading(file, url):
            if not replace:
                with contextlib.suppress(NotThere):
                    await store.look_up(url)
                    is_new = False
            if is_new:
                await store.put(file, url)
        stored(file, is_new)

    work = []
    for file, url in pairs:
        check_url(url)
        with _uploading(file, url):
            work.append((store_of(url, storage), file, url))
    run(for_each, work, put, min(_FILES_AT_ONCE, len(work)))


@contextlib.contextmanager
def _uploading(file: Path, url: str) -> Iterator[None]:
    """Turn what goes wrong into an OutputError."""
    try:
        yield
    except StoreProblem as problem:
        raise OutputError(
            f"cannot upload {file} to {scrub(url)}: {problem}. The file is complete where it is: the same command "
            "tries the upload again"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot upload {file} to {scrub(url)}: {error.strerror or error}") from None


def check_upload(url: str, storage: Storage) -> None:
    """Try whether something can be stored under a URL, without leaving anything: better at the start than at the end.

    Raises:
        OutputError: see :func:`upload`.
    """
    try:
        check_url(url)
        run(store_of(url, storage).check_put, url)
    except StoreProblem as problem:
        raise OutputError(f"cannot store the output as {scrub(url)}: {problem}") from None

"""The finished output, in a remote store: it appears there complete or not at all.

To upload it again does no harm, so whoever was interrupted simply does it again.
"""

from __future__ import annotations

from pathlib import Path

from mpi_prs.errors import OutputError
from mpi_prs.storage.credentials import Storage, check_url, scrub
from mpi_prs.storage.remote import store_of


def upload(file: Path, url: str, storage: Storage) -> None:
    """Store a file under a URL in place of what is there.

    Azure: in blocks, several at once, each with its checksum and tried again by itself; the blob is replaced when all
    are there. Elsewhere: under ``<name>.part``, then renamed. The stored size is compared in the end.

    Raises:
        OutputError: the file cannot be read, the URL names no file, or the store refuses or cannot be reached for too
            long. The local file is left as it is.
    """
    from mpi_prs.storage.stores import StoreProblem, run

    try:
        check_url(url)
        run(store_of(url, storage).put, file, url)
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
    from mpi_prs.storage.stores import StoreProblem, run

    try:
        check_url(url)
        run(store_of(url, storage).check_put, url)
    except StoreProblem as problem:
        raise OutputError(f"cannot store the output as {scrub(url)}: {problem}") from None

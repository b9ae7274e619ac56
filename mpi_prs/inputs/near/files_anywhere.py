"""Files by path or by URL, opened alike."""

from __future__ import annotations

from typing import BinaryIO

from mpi_prs.core.urls import is_url
from mpi_prs.inputs.formats.format import Files, LocalFiles
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.remote import RemoteFiles


class AnyFiles:
    """Opens paths and URLs; the store is connected to at the first URL."""

    def __init__(self, storage: Storage) -> None:
        self._local = LocalFiles()
        self._storage = storage
        self._remote: RemoteFiles | None = None

    def _store(self, path: str) -> Files:
        if not is_url(path):
            return self._local
        if self._remote is None:
            self._remote = RemoteFiles(self._storage)
        return self._remote

    def open(self, path: str) -> BinaryIO:
        """Open for reading, seekable. Raises InputError."""
        return self._store(path).open(path)

    def size(self, path: str) -> int:
        """In bytes. Raises InputError."""
        return self._store(path).size(path)

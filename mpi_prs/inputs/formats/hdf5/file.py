"""An HDF5 file open for reading, on a filesystem or in a remote store; whatever is wrong with it is told by InputError.

A file on a filesystem is opened by its path, with a shared lock: a file that is being written elsewhere is noticed.
Filesystems without locks are none the worse for it. ``HDF5_USE_FILE_LOCKING=FALSE`` switches the locks off.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import h5py

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.format import Files

_log = logging.getLogger("mpi_prs.inputs")
_OF_H5PY = (OSError, RuntimeError, ValueError, KeyError)


class DamagedFile(InputError):
    """One file is not what its name says, or cannot be read to its end; others may be sound."""


class Hdf5File:
    """One open file; use it within :meth:`asking`.

    Attributes:
        path: as it was given.
        root: the ``h5py.File``.
    """

    def __init__(self, path: str, store: Files, cache: Mapping[str, int] | None = None) -> None:
        """Open it, with these settings of the chunk cache (``rdcc_…`` of ``h5py.File``). Raises InputError."""
        self.path = path
        source = store.open(path)  # also of a local file, which h5py opens once more: here what is missing is told
        self._remote = None if os.path.isabs(path) else _Remote(source)
        try:
            with self.asking():
                if self._remote is None:
                    source.close()
                    self.root = _open_locked(path, cache or {})
                else:
                    self._remote.read_head()
                    atexit.register(self.close)  # HDF5 ends in a segmentation fault with a file object still open
                    self.root = h5py.File(self._remote, "r", **(cache or {}))
        except BaseException:
            source.close()
            atexit.unregister(self.close)
            raise

    @contextlib.contextmanager
    def asking(self) -> Iterator[Any]:
        """Everything that h5py raises in the block becomes an InputError that says what is wrong with the file."""
        try:
            yield self.root if hasattr(self, "root") else None
        except InputError:
            raise
        except Exception as error:
            store_failed = self._remote is not None and self._remote.error is not None
            if store_failed or isinstance(error, _OF_H5PY):
                raise self._explained(error) from error
            raise

    def _explained(self, error: Exception) -> InputError:
        if self._remote is not None and self._remote.error is not None:
            error = self._remote.error
            return error if isinstance(error, InputError) else DamagedFile(f"cannot read {self.path}: {error}")
        text = str(error)
        if "unable to lock file" in text:
            return InputError(
                f"{self.path} is open for writing elsewhere; wait until it is closed there, or set the environment "
                "variable HDF5_USE_FILE_LOCKING=FALSE if you know that nothing changes in it"
            )
        if "already open for write" in text:
            return InputError(
                f"{self.path} was not closed by the program that wrote it; check it, and mend it with h5clear -s"
            )
        if "signature not found" in text:
            return DamagedFile(f"{self.path} is not an HDF5 file; check the format of this input")
        if "filter" in text and ("not registered" in text or "plugin" in text):
            return InputError(
                f"{self.path} is compressed with a filter that this HDF5 lacks ({text}); install its plugin and set "
                "HDF5_PLUGIN_PATH"
            )
        return DamagedFile(f"{self.path} is damaged or cannot be read: {' '.join(text.split())}")

    def close(self) -> None:
        """Close it; errors no longer matter."""
        with contextlib.suppress(Exception):
            self.root.close()
        if self._remote is not None:
            self._remote.close()
            atexit.unregister(self.close)


def _open_locked(path: str, cache: Mapping[str, int]) -> Any:
    try:
        return h5py.File(path, "r", locking="best-effort", **cache)
    except OSError as error:
        if "unable to lock file" in str(error) and error.errno not in (errno.EAGAIN, errno.EACCES):
            return h5py.File(path, "r", locking=False, **cache)  # the filesystem has no locks, in its own words
        if "already open for write" in str(error):
            with contextlib.suppress(OSError):  # it is not open as one that others may read meanwhile
                file = h5py.File(path, "r", swmr=True, locking="best-effort", **cache)
                _log.info("%s is being written (SWMR): the rows that are in it now are read", path)
                return file
        raise


_HEAD = 1 << 16
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class _Remote:
    """A file object as HDF5 wants it; :attr:`error` keeps what went wrong, since HDF5 tells it in words of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: Exception | None = None
        self._head = b""

    def read_head(self) -> None:
        """Have the beginning here before HDF5 asks for it: a file that it cannot open makes it crash at the exit."""
        try:
            self._head = self._file.read(_HEAD)
            self._file.seek(0)
        except Exception as error:
            self.error = error
            raise
        if not any(self._head[at : at + 8] == _SIGNATURE for at in (0, 512, 1024, 2048, 4096, 8192)):
            raise OSError("signature not found")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """All of it: what HDF5 takes for granted."""
        view = memoryview(buffer).cast("B")
        done = 0
        place = self._file.tell()
        if place + len(view) <= len(self._head):
            view[:] = self._head[place : place + len(view)]
            self._file.seek(place + len(view))
            return len(view)
        try:
            while done < len(view):
                piece = self._file.read(len(view) - done)
                if not piece:
                    raise EOFError("the file ends too early")
                view[done : done + len(piece)] = piece
                done += len(piece)
        except Exception as error:
            self.error = self.error or error
            raise
        return done

    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()

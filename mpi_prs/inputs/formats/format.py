"""What every table format offers, and the plain data that passes between splitting and reading.

::

    master    survey(files) ──► JSON, kept in the manifest ──┐
              split(file)   ──► parts ──► mini-batches       │
    worker    reader(survey) ◄───────────────────────────────┘
              read(part)    ──► Batch ──► the user process
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

from mpi_prs.core import values
from mpi_prs.core.errors import InputError
from mpi_prs.core.urls import is_url
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.remote import RemoteFiles

TOLD = 10
"""Bad records that a batch tells of."""
MOST_TOLD = 1_000_000
"""The same, where each of them is to be named."""
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz", ".zip": "zip"}
"""Suffix of a compressed file of text → how it is compressed."""
MAX_RECORD_SIZE = 64 * 2**20
"""A record of text that goes on for longer, in bytes, is rather a quote or a line break that is missing."""


@dataclass(frozen=True)
class BatchSize:
    """About how much of a table one mini-batch gets: exactly one of the two is given, and it is at least 1.

    Attributes:
        bytes: of the file (delimited text, JSON lines, ORC, Arrow) or of the values in memory (Parquet, HDF5).
        rows: rows.
        bare: the bytes were given without a unit, so that they may have been meant as rows.
    """

    bytes: int | None = None
    rows: int | None = None
    bare: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> BatchSize:
        """``1024``, ``1024KB``, ``10MB``, ``1GB`` (1 KB is 1024 bytes) or ``5000rows``.

        Raises:
            ValueError: anything else; the text says what is expected.
        """
        return cls(*values.size(text))

    def in_bytes(self, per_row: float, whole: int) -> int:
        """As bytes of a file in which a row has about so many, at least 1; given in rows, no more than the whole."""
        return self.bytes or max(1, int(min((self.rows or 1) * per_row, whole)))


class Part(NamedTuple):
    """Consecutive rows of one file.

    Attributes:
        file: absolute path (as :func:`os.fsdecode` gives it) or URL.
        start, stop: byte offsets (delimited text, JSON lines) or row numbers (all others) in the file.
        rows: how many rows; an estimate, at least 1, where ``first_row`` is -1.
        first_row: number of the first row in the file, from 0; -1: neither it nor the number of rows is known.
        group: neighbouring parts of a file with the same number share what is decoded (a row group); -1: none.
    """

    file: str
    start: int
    stop: int
    rows: int
    first_row: int = -1
    group: int = -1


@dataclass(frozen=True)
class BadRecord:
    """A record that is not what the table's schema says; ``line`` counts lines, or rows of a binary file, from 1."""

    file: str
    line: int
    column: str | None
    problem: str

    @property
    def place(self) -> str:
        """File and line, for a message."""
        return f"{self.file}, line {self.line}"

    def __str__(self) -> str:
        column = f", column {self.column!r}" if self.column is not None else ""
        return f"{self.place}{column}: {self.problem}"


@dataclass
class Batch:
    """The rows of one part.

    Attributes:
        data: a ``pyarrow.Table``, or a dict of numpy arrays with equal first dimensions.
        skipped: records left out (``on_bad_record: skip_and_count``), on top of the rows in ``data``.
        bad: the first :data:`TOLD` of these, or all.
    """

    data: Any
    skipped: int = 0
    bad: list[BadRecord] = field(default_factory=list)


class Files(Protocol):
    """Where files are read from; ``LocalFiles``, or a remote store."""

    def open(self, path: str) -> BinaryIO:
        """Open for reading, seekable. Raises InputError."""

    def size(self, path: str) -> int:
        """In bytes. Raises InputError."""


class LocalFiles:
    """The filesystem."""

    def open(self, path: str) -> BinaryIO:
        with reading(path):
            return open(path, "rb")

    def size(self, path: str) -> int:
        with reading(path):
            return os.stat(path).st_size


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


@contextmanager
def reading(path: str) -> Iterator[None]:
    """What a filesystem says of a file becomes an InputError; so does an EOFError: it has become shorter."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except EOFError as error:
        raise InputError(f"{path} is shorter than when it was listed; start the run anew with --overwrite") from error


def length_of(file: BinaryIO) -> int:
    """The bytes of an open file, which then stands at its end; asks a remote store for nothing."""
    return file.seek(0, os.SEEK_END)


def check_record_size(value: int) -> None:
    """Raises InputError: a ``max_record_size`` is no number of bytes, at least 1."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"max_record_size: {value!r}: expected a number of bytes, at least 1")


def record_too_long(path: str, line: int, longest: int, about: str = "") -> InputError:
    """What to say of a record of which the end is not found.

    Args:
        line: on which it begins, from 1.
        longest: bytes that it may have.
        about: how sure the line is.
    """
    return InputError(
        f"{path}, line {line}{about and f' {about}'}: the record does not end within max_record_size "
        f"({longest / 2**20:.6g}MB); if a line break or the end of a quoted value is missing, correct that, else raise "
        "max_record_size"
    )


def check_counted(part: Part) -> None:
    """A part without rows stands for a file that was damaged when it was listed; now it can be read.

    Raises:
        InputError: it is such a part: its rows are in no mini-batch.
    """
    if part.start == part.stop:
        raise InputError(
            f"{part.file} could not be read when the run was begun, so its rows are in no mini-batch; start the run "
            "anew with --overwrite"
        )


class DamagedFile(InputError):
    """One file is not what its name says, or cannot be read to its end; others may be sound."""


class Reader(Protocol):
    """Reads parts of one dataset's files, in one thread; it may keep a file open, and what it decoded last."""

    def read(self, part: Part) -> Batch:
        """The rows of a part. Raises InputError: the file is damaged, or has a bad record that may not be skipped."""

    def close(self) -> None:
        """Close what is open."""


@runtime_checkable
class TellsOfBadRecords(Protocol):
    """A reader of text, which can leave bad records out."""

    def tell_of_all_bad_records(self) -> None:
        """Leave them out from now on, and tell of each."""


class TableFormat(Protocol):
    """A format with its options: a frozen dataclass of plain values, so that it can be kept as JSON.

    ``columns`` (select, in this order), ``column_types`` and ``on_bad_record`` (``fail``, ``skip_and_count``) are
    options of every format that can have them.
    """

    def survey(self, files: Callable[[], Iterator[str]], store: Files) -> dict[str, Any]:
        """What must be known of the whole dataset before any row is read, such as its schema; JSON values.

        Under ``told`` is what people are told of it, see :class:`~mpi_prs.inputs.formats.told.Told`.

        Looks at a sample where that will do. Raises InputError: no table can be made of the files; names both files
        and the column where two do not agree.
        """

    def split(self, file: str, size: BatchSize, survey: dict[str, Any], store: Files) -> Iterator[Part]:
        """The parts of one file, in order; none for a file without rows. Never reads more than it has to."""

    def reader(self, survey: dict[str, Any], store: Files) -> Reader:
        """A reader of parts."""


def place_of(part: Part, row: int, column: str) -> str:
    """Where a value stands, for a message; ``row`` counts from 0 in the part."""
    if part.first_row >= 0:
        return f"{part.file}, row {part.first_row + row + 1}, column {column!r}"
    return f"{part.file}, column {column!r}, row {row + 1} of those that begin at byte {part.start}"


def quoted(names: Sequence[str]) -> str:
    """Column names for a message."""
    return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")

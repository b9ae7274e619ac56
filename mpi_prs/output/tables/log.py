"""The growing file of a typed output: an Arrow IPC stream for each mini-batch, one behind the other."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from mpi_prs.core.errors import OutputError
from mpi_prs.output.ordering import read_places

_PIECE_BYTES = 32 << 20
_PIECE_BATCHES = 1000
_HEAD = 4096
_MESSAGE = struct.Struct("<Ii")  # marker, bytes of metadata
_MARKER = 0xFFFFFFFF


class TableLog:
    """Reads the log; memory: one piece of some 32 MiB, and 32 bytes a mini-batch.

    Attributes:
        rows: how many there are in all.
    """

    def __init__(self, path: Path, journal: Path, *, in_input_order: bool) -> None:
        self._path = path
        places = read_places(journal, in_input_order=in_input_order)
        self._offsets = places.offsets
        self.rows = int(places.returned.sum())

    def schemas(self) -> list[Any]:
        """The different schemas, in the order in which they first appear. One short read a mini-batch."""
        found: dict[bytes, Any] = {}
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for offset in self._offsets:
                head = os.pread(descriptor, _HEAD, offset)
                marker, length = _MESSAGE.unpack_from(head) if len(head) >= _MESSAGE.size else (0, 0)
                if marker != _MARKER:
                    raise self._damaged("an Arrow stream was expected")
                message = head[: _MESSAGE.size + length]
                if len(message) < _MESSAGE.size + length:
                    message = os.pread(descriptor, _MESSAGE.size + length, offset)
                if message not in found:
                    with self._reading():
                        found[message] = pa.ipc.read_schema(pa.py_buffer(message))
        finally:
            os.close(descriptor)
        return list(found.values())

    def tables(self) -> Iterator[Any]:
        """The rows as tables of some 32 MiB at most, each with the schema of its mini-batches."""
        schema: Any = None
        batches: list[Any] = []
        size = 0
        with pa.OSFile(str(self._path)) as file:
            for offset in self._offsets:
                with self._reading():
                    file.seek(int(offset))
                    stream = pa.ipc.open_stream(file)
                if batches and not stream.schema.equals(schema, check_metadata=True):
                    yield _table(batches)
                    batches, size = [], 0
                schema = stream.schema
                while (batch := self._next(stream)) is not None:
                    batches.append(batch)
                    size += batch.nbytes
                    if size >= _PIECE_BYTES or len(batches) >= _PIECE_BATCHES:
                        yield _table(batches)
                        batches, size = [], 0
        if batches:
            yield _table(batches)

    def _next(self, stream: Any) -> Any:
        with self._reading():
            try:
                return stream.read_next_batch()
            except StopIteration:
                return None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None):
                raise
            raise self._damaged(str(error)) from error

    def _damaged(self, problem: str) -> OutputError:
        return OutputError(
            f"{self._path} is not as its journal says ({problem}): somebody else has changed it, or the disk has. "
            "Start the run anew with --overwrite"
        )


def _table(batches: list[Any]) -> Any:
    table = pa.Table.from_batches(batches)
    return table.combine_chunks() if len(batches) > 1 else table

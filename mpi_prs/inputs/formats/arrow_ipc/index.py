"""Where the record batches of a file of Arrow are, and what their metadata says; no values are read.

pyarrow tells neither how many rows a batch has nor how many nulls without reading it. Both stand in its metadata: flat
buffers, of which we need a few fields (https://arrow.apache.org/docs/format/Columnar.html).
"""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

MAGIC = b"ARROW1"
"""With this a file begins, and ends."""
_CONTINUED = 0xFFFFFFFF
_RECORD_BATCH, _SCHEMA, _DICTIONARY = 3, 1, 2
_MOST_METADATA = 2**28
_OF_STRUCT = (struct.error, IndexError)


class StoredBatch(NamedTuple):
    """A record batch.

    Attributes:
        offset: of its message in the file.
        rows: in it.
        bytes: of its values, as they are stored.
        nulls: how many each node has: a column, and, behind it, the columns within it.
    """

    offset: int
    rows: int
    bytes: int
    nulls: tuple[int, ...]


def nodes_of(type: Any) -> int:
    """How many nodes a column of a type has."""
    if isinstance(type, pa.BaseExtensionType):
        return nodes_of(type.storage_type)
    if pa.types.is_dictionary(type):
        return 1
    if pa.types.is_run_end_encoded(type):
        return 1 + nodes_of(type.run_end_type) + nodes_of(type.value_type)
    return 1 + sum(nodes_of(type.field(number).type) for number in range(type.num_fields))


def batches_of_file(file: BinaryIO, size: int) -> list[StoredBatch]:
    """The batches of a file with a footer; reads that, and the metadata of each. Raises ValueError: it is damaged."""
    try:
        file.seek(size - 10)
        (length,) = struct.unpack("<i", file.read(10)[:4])
        if not 0 < length < size:
            raise ValueError("its footer is damaged")
        file.seek(size - 10 - length)
        footer = file.read(length)
        blocks = _Table.root(footer).structs(3, 24)
        return [_batch(file, struct.unpack_from("<q", footer, block)[0]) for block in blocks]
    except _OF_STRUCT as error:
        raise ValueError("its metadata is damaged") from error


def batches_of_stream(file: BinaryIO) -> list[StoredBatch]:
    """The batches of a stream; reads the metadata of its messages, one after the other.

    Raises:
        ValueError: it is damaged.
    """
    batches = []
    end = file.seek(0, os.SEEK_END)
    offset = 0
    try:
        while offset < end and (message := _message(file, offset)) is not None:
            if message.kind == _RECORD_BATCH:
                batches.append(_of_message(message, offset))
            elif message.kind not in (_SCHEMA, _DICTIONARY):
                raise ValueError(f"a message of the unknown kind {message.kind}")
            offset = message.end
    except _OF_STRUCT as error:
        raise ValueError("its metadata is damaged") from error
    if offset > end:
        raise ValueError("its last record batch is not whole")
    return batches


class _Message(NamedTuple):
    kind: int
    header: _Table
    bytes: int
    end: int


def _batch(file: BinaryIO, offset: int) -> StoredBatch:
    message = _message(file, offset)
    if message is None or message.kind != _RECORD_BATCH:
        raise ValueError("a record batch is not where its footer says")
    return _of_message(message, offset)


def _of_message(message: _Message, offset: int) -> StoredBatch:
    header = message.header
    rows = header.number(0, "<q")
    if rows < 0:
        raise ValueError("a record batch has less than no rows")
    nodes = header.structs(1, 16)
    if nodes and struct.unpack_from("<q", header.data, nodes[0])[0] != rows:
        raise ValueError("a record batch does not have the rows of its columns")
    nulls = tuple(struct.unpack_from("<q", header.data, node + 8)[0] for node in nodes)
    return StoredBatch(offset, rows, message.bytes, nulls)


def _message(file: BinaryIO, offset: int) -> _Message | None:
    """The message at an offset; ``None``: the stream ends there."""
    file.seek(offset)
    start = file.read(8)
    first, second = struct.unpack("<II", start.ljust(8, b"\0"))
    length, begin = (second, 8) if first == _CONTINUED else (first, 4)  # before Arrow 0.15
    if not length:
        return None
    if length > _MOST_METADATA:
        raise ValueError("its metadata is damaged")
    file.seek(offset + begin)
    metadata = file.read(length)
    if len(metadata) < length:
        raise ValueError("it ends within the metadata of a record batch")
    table = _Table.root(metadata)
    size = table.number(3, "<q")
    if size < 0:
        raise ValueError("its metadata is damaged")
    return _Message(table.number(1, "<B"), table.table(2), size, offset + begin + length + size)


class _Table:
    """A table of a flat buffer; fields are known by their numbers."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self._at = at

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _place(self, field: int) -> int | None:
        """Where a field's value is; ``None``: it has its default."""
        table = self._at - struct.unpack_from("<i", self.data, self._at)[0]
        if table < 0:
            raise IndexError
        if 4 + 2 * field >= struct.unpack_from("<H", self.data, table)[0]:
            return None
        offset: int = struct.unpack_from("<H", self.data, table + 4 + 2 * field)[0]
        return self._at + offset if offset else None

    def number(self, field: int, form: str) -> int:
        place = self._place(field)
        return 0 if place is None else int(struct.unpack_from(form, self.data, place)[0])

    def _followed(self, field: int) -> int:
        place = self._place(field)
        if place is None:
            raise IndexError
        return place + int(struct.unpack_from("<I", self.data, place)[0])

    def table(self, field: int) -> _Table:
        return _Table(self.data, self._followed(field))

    def structs(self, field: int, size: int) -> range:
        """Where the structs of a vector are, each of so many bytes."""
        if self._place(field) is None:
            return range(0)
        at = self._followed(field)
        (count,) = struct.unpack_from("<I", self.data, at)
        if at + 4 + count * size > len(self.data):
            raise IndexError
        return range(at + 4, at + 4 + count * size, size)

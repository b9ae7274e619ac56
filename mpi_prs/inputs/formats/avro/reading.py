"""Avro: blocks of records, decoded by fastavro, an extra of ours; types as the schema in each file says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple
from uuid import UUID

import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow_files.agreement import Footer, read_columns, whose_nulls_matter
from mpi_prs.inputs.formats.arrow_files.reading import ArrowFiles, Group, GroupedFile
from mpi_prs.inputs.formats.format import Files

_SYNC = 16
_PLAIN = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_LOGICAL = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
}


@dataclass(frozen=True)
class Avro(ArrowFiles):
    """Avro files; see :class:`~mpi_prs.inputs.formats.arrow_files.reading.ArrowFiles`.

    A column of whole numbers or booleans that may be null by its schema is pandas' nullable type. Enums and UUIDs are
    text, records are structs. Sizes in bytes are those in the file, all columns included. Needs the extra ``avro``.
    """

    def opened(self, path: str, store: Files) -> _Opened:
        return _Opened(path, store)


class _Block(NamedTuple):
    offset: int
    rows: int
    bytes: int


class _Opened(GroupedFile):
    """An open Avro file; where its blocks are is known."""

    format = "Avro"

    def _look(self) -> None:
        reader = self._reader()
        self._schema, self._without_type = _schema_of(reader.writer_schema, self.path)
        self._has_uuids = reader.has_uuids
        self._blocks = list(_blocks(self._raw, self._store.size(self.path), reader.metadata_sync))

    def _reader(self) -> _BlockReader:
        self._raw.seek(0)
        return _BlockReader(self._raw, self.path)

    def measured(self, _names: Sequence[str]) -> list[Group]:
        return [Group(block.rows, block.bytes) for block in self._blocks]

    def footer(self, columns: Sequence[str], cast: Sequence[str]) -> Footer:
        read = read_columns(self._schema, columns)
        if (name := next((each for each in read if each in self._without_type), None)) is not None:
            raise InputError(
                f"{self.path}: column {name!r} is a union of types, or holds itself, and no column of one type can "
                "hold that; select the others with columns, or convert it to Parquet"
            )
        wanted = whose_nulls_matter(self._schema, read, cast)
        rows = sum(self.groups())
        nulls = {each.name for each in self._schema if rows and pa.types.is_null(each.type)}
        uncounted = {each.name for each in self._schema if each.nullable and each.name in wanted}
        return Footer(self.path, rows, self._schema, nulls | uncounted, uncounted - nulls, {})

    def batches(self, groups: Sequence[int], names: Sequence[str], _rows: int) -> Iterator[Any]:
        reader = self._reader()
        for number in groups:
            block = self._blocks[number]
            records = reader.records(block.offset)
            if len(records) != block.rows:
                raise ValueError("a block does not have the records that it should have")
            if not records:
                continue
            columns = []
            for name in names:
                values = [record[name] for record in records]
                values = _without_uuids(values) if self._has_uuids else values
                columns.append(pa.array(values, self._schema.field(name).type, from_pandas=False))
            yield pa.RecordBatch.from_arrays(columns, names=list(names))


class _BlockReader:
    """What fastavro reads of a file; whatever it raises becomes a ValueError."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        try:
            import fastavro
        except ImportError:
            raise InputError(
                f"{path}: Avro is read by fastavro, which is not installed: pip install 'mpi_prs[avro]'"
            ) from None
        self._file = file
        try:
            self._reader = fastavro.block_reader(file)
            self.writer_schema: Any = self._reader.writer_schema
            self.metadata_sync: bytes = self._reader._header["sync"]
            self.has_uuids = "uuid" in self._reader.metadata["avro.schema"]
        except Exception as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def records(self, offset: int) -> list[dict[str, Any]]:
        """Those of the block at an offset."""
        self._file.seek(offset)
        try:
            return list(next(self._reader))
        except Exception as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _blocks(file: BinaryIO, size: int, sync: bytes) -> Iterator[_Block]:
    """The blocks of a file that stands behind its header; their records are not read. Raises ValueError."""
    offset = file.tell()
    while offset < size:
        file.seek(offset)
        head = file.read(20)
        rows, used = _long(head, 0)
        length, used = _long(head, used)
        end = offset + used + length + _SYNC
        if rows < 0 or length < 0 or end > size:
            raise ValueError("a block is torn")
        file.seek(end - _SYNC)
        if file.read(_SYNC) != sync:
            raise ValueError("a block does not end where it should")
        yield _Block(offset, rows, length)
        offset = end


def _long(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
    raise ValueError("a block is torn")


def _without_uuids(value: Any) -> Any:
    """A value as Arrow takes it: UUIDs in it are text."""
    if isinstance(value, list):
        return [_without_uuids(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_uuids(each) for key, each in value.items()}
    return str(value) if isinstance(value, UUID) else value


# Types


def _schema_of(schema: Any, path: str) -> tuple[Any, list[str]]:
    """Arrow's schema of a file's records, and the columns for which it has no type. Raises InputError: no records."""
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise InputError(f"{path} holds values that are no records, so there are no columns; convert it to Parquet")
    fields, without_type = [], []
    for field in schema["fields"]:
        named: dict[str, Any] = {}
        _note(schema, named)
        found = _type_of(field["type"], named, ())
        if found is None:
            without_type.append(field["name"])
        fields.append(pa.field(field["name"], *(found or (pa.null(), True))))
    return pa.schema(fields), without_type


def _note(schema: Any, named: dict[str, Any]) -> None:
    """The types that have names, wherever they are defined."""
    if isinstance(schema, list):
        for each in schema:
            _note(each, named)
    elif isinstance(schema, dict):
        if "name" in schema and schema.get("type") in ("record", "enum", "fixed", "error"):
            named[schema["name"]] = schema
        for each in (*schema.get("fields", ()), schema.get("items"), schema.get("values"), schema.get("type")):
            if not isinstance(each, str):
                _note(each, named)


def _type_of(schema: Any, named: Mapping[str, Any], within: tuple[str, ...]) -> tuple[Any, bool] | None:
    """The type, and whether values may be null; ``None``: no one type can hold the values."""
    if isinstance(schema, list):
        others = [each for each in schema if each != "null"]
        if len(others) > 1:
            return None
        found = _type_of(others[0], named, within) if others else (pa.null(), True)
        return found and (found[0], True)
    if isinstance(schema, str):
        if schema in _PLAIN:
            return _PLAIN[schema], schema == "null"
        if schema in within or schema not in named:
            return None
        return _type_of(named[schema], named, within)
    kind, logical = schema["type"], schema.get("logicalType")
    if not isinstance(kind, str):
        return _type_of(kind, named, within)
    if logical == "decimal":
        digits, scale = schema["precision"], schema.get("scale", 0)
        return (pa.decimal128 if digits <= 38 else pa.decimal256)(digits, scale), False
    if logical == "uuid" or kind == "enum":
        return pa.string(), False
    if logical in _LOGICAL:
        return _LOGICAL[logical], False
    if kind == "fixed":
        return pa.binary(schema["size"]), False
    if kind in ("array", "map"):
        inner = _type_of(schema["items" if kind == "array" else "values"], named, within)
        if inner is None:
            return None
        return (pa.list_(inner[0]) if kind == "array" else pa.map_(pa.string(), inner[0])), False
    if kind == "record":
        fields = []
        for field in schema["fields"]:
            inner = _type_of(field["type"], named, (*within, schema["name"]))
            if inner is None:
                return None
            fields.append(pa.field(field["name"], inner[0], inner[1]))
        return pa.struct(fields), False
    return _type_of(kind, named, within)

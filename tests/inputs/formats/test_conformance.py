"""Files in the variants that libraries write, each cut in many places: equal to the reference reader, or refused.

``docs/formats.md`` has the table of them; ``python -m tests.inputs.formats.test_conformance`` writes it.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, orc

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.datasets import InputTable
from mpi_prs.inputs.decoding import Decoder
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.manifest import Manifest, write_manifest
from mpi_prs.inputs.planning import plan
from tests.inputs.formats.test_text_conformance import CODECS, CSV, JSON, JSON_ARRAYS
from tests.support.tables import at_the_user

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"
SIZES = (BatchSize(rows=3), BatchSize(bytes=300), BatchSize(rows=10**6))
ROWS = 23
BIG = 2**60 + 1


@dataclass(frozen=True)
class Variant:
    """A kind of file.

    Attributes:
        what: for the page.
        make: writes it to a path, or a folder of that name.
        refused: what the message has; empty: it is read, and equal to the reference.
        options: of the dataset.
    """

    what: str
    make: Callable[[Path], object]
    refused: str = ""
    options: dict[str, Any] = field(default_factory=dict)


# Parquet

_DAY = datetime.date(2024, 2, 29)
_MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 1, 250_000)
_VALUES: dict[str, tuple[Any, list[Any]]] = {
    **{
        f"int{bits}": (getattr(pa, f"int{bits}")(), [-(2 ** (bits - 1)), 7, 2 ** (bits - 1) - 1])
        for bits in (8, 16, 32, 64)
    },
    **{f"uint{bits}": (getattr(pa, f"uint{bits}")(), [0, 7, 2**bits - 1]) for bits in (8, 16, 32, 64)},
    "float16": (pa.float16(), [np.float16(0.5), np.float16(-2)]),
    "float32": (pa.float32(), [0.5, float("nan"), float("-inf")]),
    "float64": (pa.float64(), [0.1, float("nan"), 1e300]),
    "bool": (pa.bool_(), [True, False]),
    "string": (pa.string(), ["", "größe", "a\nb", "\0"]),
    "large_string": (pa.large_string(), ["", "数"]),
    "string_view": (pa.string_view(), ["", "a longer text than twelve bytes"]),
    "binary": (pa.binary(), [b"", b"\xff\0"]),
    "fixed binary": (pa.binary(3), [b"abc", b"\0\0\0"]),
    "date32": (pa.date32(), [_DAY, datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]),
    "date64": (pa.date64(), [_DAY]),
    "time32[ms]": (pa.time32("ms"), [datetime.time(1, 2, 3, 4000)]),
    "time64[us]": (pa.time64("us"), [datetime.time(1, 2, 3, 4)]),
    "time64[ns]": (pa.time64("ns"), [datetime.time(1, 2, 3, 4)]),
    **{
        f"timestamp[{unit}]": (pa.timestamp(unit), [_MOMENT.replace(microsecond=0)]) for unit in ("s", "ms", "us", "ns")
    },
    "timestamp with a zone": (pa.timestamp("us", "Europe/Berlin"), [_MOMENT.replace(tzinfo=datetime.timezone.utc)]),
    "timestamp with an offset": (pa.timestamp("us", "+02:00"), [_MOMENT.replace(tzinfo=datetime.timezone.utc)]),
    "duration": (pa.duration("us"), [datetime.timedelta(days=1, microseconds=1)]),
    "decimal128": (pa.decimal128(20, 3), [decimal.Decimal("12345678901234567.891")]),
    "decimal256": (pa.decimal256(60, 2), [decimal.Decimal(10**57)]),
    "null": (pa.null(), [None]),
    "category": (pa.dictionary(pa.int8(), pa.string()), ["red", "green"]),
    "list": (pa.list_(pa.int64()), [[BIG, None], [], [1]]),
    "large_list": (pa.large_list(pa.string()), [["a", None], []]),
    "fixed list": (pa.list_(pa.float32(), 2), [[0.5, 1.5]]),
    "struct": (pa.struct([("id", pa.int64()), ("s", pa.string())]), [{"id": BIG, "s": "x"}, {"id": None, "s": None}]),
    "list of structs": (pa.list_(pa.struct([("id", pa.int64())])), [[{"id": BIG}, None, {"id": None}], []]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", BIG)], []]),
}


def column(kind: str, *, nulls: bool) -> Any:
    type, values = _VALUES[kind]
    listed = [values[number % len(values)] for number in range(ROWS)]
    if nulls:
        listed[3] = listed[10] = None
    if pa.types.is_dictionary(type):
        return pa.array(listed, pa.string()).dictionary_encode()
    return pa.array(listed, type)


def plain() -> Any:
    """Something of everything that all encodings can write."""
    return pa.table(
        {
            "id": pa.array(range(BIG, BIG + ROWS)),
            "n": column("int32", nulls=True),
            "x": column("float64", nulls=True),
            "s": column("string", nulls=True),
            "b": column("bool", nulls=False),
            "l": column("list", nulls=True),
        }
    )


def written(table: Any = None, **options: Any) -> Callable[[Path], object]:
    options = {"row_group_size": 10, "data_page_size": 32, "write_batch_size": 4, **options}
    return lambda path: pq.write_table(plain() if table is None else table, path, **options)


def encoded(name: str, encoding: str) -> Variant:
    table = plain().select([name])
    return Variant(f"encoding {encoding}", written(table, use_dictionary=False, column_encoding={name: encoding}))


def with_empty_groups(path: Path) -> None:
    table = plain()
    with pq.ParquetWriter(path, table.schema) as writer:
        for first, rows in ((0, 0), (0, 9), (9, 0), (9, ROWS), (0, 0)):
            writer.write_table(table.slice(first, rows))


def as_spark_does(folder: Path) -> None:
    for name in ("_temporary/0/task/part-9.parquet", "k=1/part-0.parquet", "_SUCCESS", "._SUCCESS.crc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        written(plain() if "part-0" in name else pa.table({"other": [1]}))(folder / name)


def as_delta_does(folder: Path) -> None:
    (folder / "_delta_log").mkdir(parents=True)
    (folder / "_delta_log" / f"{0:020}.json").write_text("{}\n")
    written()(folder / "part-0.parquet")


def by_pandas(frame: pd.DataFrame) -> Callable[[Path], object]:
    return lambda path: frame.to_parquet(path, row_group_size=4)


def encrypted(in_plain: bool) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        encryption = pytest.importorskip("pyarrow.parquet.encryption")

        class Keys(encryption.KmsClient):  # type: ignore[name-defined,misc]
            def __init__(self, _: Any) -> None:
                encryption.KmsClient.__init__(self)

            def wrap_key(self, key: bytes, _: str) -> bytes:
                return base64.b64encode(key)

        properties = encryption.CryptoFactory(Keys).file_encryption_properties(
            encryption.KmsConnectionConfig(),
            encryption.EncryptionConfiguration("f", column_keys={"c": ["id"]}, plaintext_footer=in_plain),
        )
        with pq.ParquetWriter(path, plain().schema, encryption_properties=properties) as writer:
            writer.write_table(plain())

    return make


def torn(path: Path) -> None:
    written()(path)
    path.write_bytes(path.read_bytes()[:-20])


_FRAME = pd.DataFrame(
    {
        "nullable": pd.array([BIG, None, 3, 4, 5], "Int64"),
        "arrow": pd.array([BIG, None, 3, 4, 5], "int64[pyarrow]"),
        "flag": [True, None, False, True, True],
        "kind": pd.Categorical(list("abcab"), categories=list("cbaz"), ordered=True),
        "when": pd.date_range("2024-01-01", periods=5, tz="Asia/Tokyo"),
    }
)

PARQUET = (
    *(
        Variant(f"compression {codec}", written(compression=codec))
        for codec in ("none", "snappy", "gzip", "brotli", "zstd", "lz4")
    ),
    *(Variant(f"data pages {version}", written(data_page_version=version)) for version in ("1.0", "2.0")),
    *(Variant(f"format version {version}", written(version=version)) for version in ("1.0", "2.4", "2.6")),
    Variant("without dictionaries", written(use_dictionary=False)),
    encoded("id", "DELTA_BINARY_PACKED"),
    encoded("s", "DELTA_LENGTH_BYTE_ARRAY"),
    encoded("s", "DELTA_BYTE_ARRAY"),
    encoded("x", "BYTE_STREAM_SPLIT"),
    Variant("checksums of pages", written(write_page_checksum=True)),
    Variant("page index", written(write_page_index=True)),
    Variant("without statistics", written(write_statistics=False)),
    Variant("without Arrow's schema", written(store_schema=False)),
    Variant(
        "times as INT96",
        written(pa.table({"t": column("timestamp[ns]", nulls=True)}), use_deprecated_int96_timestamps=True),
    ),
    Variant("row groups without rows", with_empty_groups),
    Variant("no rows at all", written(plain().slice(0, 0))),
    *(Variant(f"{kind}", written(pa.table({"v": column(kind, nulls=False)}))) for kind in _VALUES if kind != "null"),
    *(Variant(f"{kind} with nulls", written(pa.table({"v": column(kind, nulls=True)}))) for kind in _VALUES),
    Variant("index and types of pandas", by_pandas(_FRAME.set_index(pd.Index(list("vwxyz"), name="key")))),
    Variant("Spark's folder, with what a killed job leaves", as_spark_does, options={"partition_format": "hive"}),
    Variant("a table of Delta Lake", as_delta_does, "is a table of Delta Lake"),
    Variant("encrypted columns", encrypted(True), "the columns 'id' are encrypted"),
    Variant("encrypted footer", encrypted(False), "is encrypted, and there is no key"),
    Variant("cut off", torn, "cannot be read as Parquet"),
    Variant(
        "two columns of one name",
        lambda path: pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"]), path),
        "has columns of the same name: 'a'",
    ),
    Variant(
        "times finer than a microsecond",
        written(pa.table({"t": pa.array([1001], pa.time64("ns"))})),
        "row 1, column 't': .* is beyond what Python's time",
    ),
    Variant(
        "dates beyond the year 9999",
        written(pa.table({"d": pa.array([3_000_000], pa.date32())})),
        "row 1, column 'd': .* is beyond what Python's time",
    ),
    Variant(
        "an unknown time zone",
        written(pa.table({"t": pa.array([1], pa.timestamp("us", "Mars/Base"))})),
        "the time zone 'Mars/Base' of column 't' is not known",
    ),
)


def reference_parquet(path: Path) -> pd.DataFrame:
    """As pandas reads it, but for our one rule: whole numbers and booleans that may be missing are nullable."""
    files = sorted(path.rglob("part-*.parquet")) if path.is_dir() else [path]
    table = pq.read_table(files[0] if path.is_file() else path, ignore_prefixes=["_", "."])
    with pq.ParquetFile(files[0]) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    is_counted = all(group.column(0).statistics is not None for group in groups if group.num_rows)
    frame = with_nullable_types(table, is_counted)
    if path.is_dir():
        frame["k"] = frame["k"].astype("str")  # a key of a folder is text, unless its types are known
    return frame


def with_nullable_types(table: Any, is_counted: bool = True) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True)
    for each in table.schema:
        is_exact = pa.types.is_integer(each.type) or pa.types.is_boolean(each.type)
        is_plain = each.name in frame and isinstance(frame[each.name].dtype, np.dtype)
        if is_exact and is_plain and (table[each.name].null_count or not is_counted):
            dtype = "boolean" if pa.types.is_boolean(each.type) else str(each.type).replace("i", "I").replace("u", "U")
            frame[each.name] = pd.array(table[each.name].to_pylist(), dtype)
    return frame


# ORC and Arrow's own files

_IN_ORC = (
    *("int8", "int16", "int32", "int64", "float32", "float64", "bool", "string", "binary", "date32"),
    *("timestamp[ns]", "decimal128", "list", "struct", "list of structs", "map"),
)
"""What ORC can hold, among the types above."""


def written_orc(table: Any = None, **options: Any) -> Callable[[Path], object]:
    made = plain() if table is None else table
    return lambda path: orc.write_table(made, path, **{"stripe_size": 1024, "batch_size": 8, **options})


def written_ipc(table: Any = None, *, stream: bool = False, **options: Any) -> Callable[[Path], object]:
    made = plain() if table is None else table

    def write(path: Path) -> None:
        new = pa.ipc.new_stream if stream else pa.ipc.new_file
        with (
            pa.OSFile(str(path), "wb") as file,
            new(file, made.schema, options=pa.ipc.IpcWriteOptions(**options)) as to,
        ):
            to.write_table(made, max_chunksize=5)

    return write


def of_columns(kinds: Iterable[str], *, nulls: bool) -> Any:
    return pa.table({kind: column(kind, nulls=nulls) for kind in kinds})


def many_rows() -> Any:
    """So many that there are stripes of them."""
    numbers = range(1_100)
    return pa.table({"id": pa.array([None if n == 700 else BIG + n for n in numbers]), "n": pa.array(numbers)})


_REPEATED = pa.table({"v": pa.RunEndEncodedArray.from_arrays([9, 20, ROWS], [BIG, None, 3])})
_LISTED = pa.array([["a"], ["b"]]).cast(pa.list_(pa.dictionary(pa.int32(), pa.string())))
_FAR = pa.table({"t": pa.array([datetime.datetime(9999, 12, 31)], pa.timestamp("s"))})
_UNION = pa.table({"u": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["x"])])})

ORC = (
    *(
        Variant(f"compression {codec}", written_orc(compression=codec))
        for codec in ("uncompressed", "snappy", "zlib", "lz4", "zstd")
    ),
    Variant("many stripes", written_orc(many_rows())),
    Variant("dictionaries", written_orc(dictionary_key_size_threshold=1.0)),
    Variant("no rows at all", written_orc(plain().slice(0, 0))),
    Variant(f"columns of {', '.join(_IN_ORC)}", written_orc(of_columns(_IN_ORC, nulls=False))),
    Variant("the same with nulls", written_orc(of_columns(_IN_ORC, nulls=True))),
    Variant("a name with a dot", written_orc(pa.table({"a.b": [1, 2], "a": pa.array([{"b": 1}, None])}))),
    Variant("a column of two types", written_orc(_UNION), "column 'u' has values of type sparse_union"),
    Variant(
        "a time beyond nanoseconds", written_orc(_FAR), "out of range for nanosecond resolution; leave the column out"
    ),
    Variant("cut off", lambda path: path.write_bytes(b"ORC"), "cannot be read as ORC"),
)
ARROW = (
    *(Variant(f"compression {codec}", written_ipc(compression=codec)) for codec in (None, "lz4", "zstd")),
    Variant("a stream", written_ipc(stream=True)),
    Variant("a compressed stream", written_ipc(stream=True, compression="zstd")),
    Variant("a stream of an old version", written_ipc(stream=True, use_legacy_format=True)),
    Variant(
        "a stream with categories",
        written_ipc(of_columns(["category"], nulls=False), stream=True),
        "column 'category' is of type dictionary.*, which is not read from a stream",
    ),
    Variant(
        "a stream with categories in lists",
        written_ipc(pa.table({"l": _LISTED}), stream=True),
        "column 'l' is of type list.*, which is not read from a stream",
    ),
    Variant("Feather", lambda path: feather.write_feather(plain(), path, chunksize=7)),
    Variant(
        "Feather of version 1",
        lambda path: path.write_bytes(b"FEA1" + bytes(40)),
        "is a Feather file of version 1",
    ),
    Variant("index and types of pandas", written_ipc(pa.Table.from_pandas(_FRAME.set_index(_FRAME.index + 7)))),
    Variant("no rows at all", written_ipc(plain().slice(0, 0))),
    Variant("columns of all types that are listed for Parquet", written_ipc(of_columns(_VALUES, nulls=False))),
    Variant("the same with nulls", written_ipc(of_columns(_VALUES, nulls=True))),
    Variant("repeated values (run-end encoded)", written_ipc(_REPEATED)),
    Variant("a column of two types", written_ipc(_UNION), "column 'u' has values of type sparse_union"),
    Variant("cut off", lambda path: path.write_bytes(b"ARROW1" + bytes(40)), "cannot be read as a file of Arrow"),
)


def reference_orc(path: Path) -> pd.DataFrame:
    """As Arrow reads it, but for our one rule."""
    return with_nullable_types(orc.read_table(path))


def reference_arrow(path: Path) -> pd.DataFrame:
    """As Arrow reads it, but for our one rule."""
    with pa.OSFile(str(path)) as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        table = pa.ipc.open_file(file).read_all() if is_file else pa.ipc.open_stream(file).read_all()
    for number, each in enumerate(table.schema):
        if pa.types.is_run_end_encoded(each.type):
            values = table.column(number).combine_chunks()
            table = table.set_column(number, each.name, pa.compute.run_end_decode(values))
    return with_nullable_types(table)


# Avro

_UUID = {"type": "string", "logicalType": "uuid"}
_AN_UUID = "12345678-1234-5678-1234-567812345678"
_AVRO: dict[str, tuple[Any, list[Any]]] = {
    "int": ("int", [-(2**31), 7]),
    "long": ("long", [BIG, -1]),
    "float": ("float", [0.5, float("inf")]),
    "double": ("double", [0.1, float("nan")]),
    "boolean": ("boolean", [True, False]),
    "string": ("string", ["", "größe"]),
    "bytes": ("bytes", [b"", b"\xff\0"]),
    "enum": ({"type": "enum", "name": "E", "symbols": ["red", "green"]}, ["red", "green"]),
    "fixed": ({"type": "fixed", "name": "F", "size": 3}, [b"abc"]),
    "array": ({"type": "array", "items": ["null", "long"]}, [[BIG, None], []]),
    "map": ({"type": "map", "values": "long"}, [{"a": BIG}, {}]),
    "record": (
        {"type": "record", "name": "R", "fields": [{"name": "id", "type": ["null", "long"]}]},
        [{"id": BIG}, {"id": None}],
    ),
    "date": ({"type": "int", "logicalType": "date"}, [_DAY]),
    "time-micros": ({"type": "long", "logicalType": "time-micros"}, [datetime.time(1, 2, 3, 4)]),
    "timestamp-millis": (
        {"type": "long", "logicalType": "timestamp-millis"},
        [_MOMENT.replace(tzinfo=datetime.timezone.utc)],
    ),
    "decimal": ({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}, [decimal.Decimal("1.234")]),
    "uuid": (_UUID, [_AN_UUID]),
    "uuids": ({"type": "array", "items": ["null", _UUID]}, [[_AN_UUID, None], []]),
}


def written_avro(nulls: bool, **options: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        fastavro = pytest.importorskip("fastavro")
        fields = [
            {"name": name.replace("-", "_"), "type": ["null", type] if nulls else type}
            for name, (type, _) in _AVRO.items()
        ]
        rows = [
            {
                name.replace("-", "_"): None if nulls and row in (3, 10) else values[row % len(values)]
                for name, (_, values) in _AVRO.items()
            }
            for row in range(ROWS)
        ]
        with path.open("wb") as file:
            schema = {"type": "record", "name": "T", "fields": fields}
            fastavro.writer(file, fastavro.parse_schema(schema), rows, sync_interval=300, **options)

    return write


def union_avro(path: Path) -> None:
    fastavro = pytest.importorskip("fastavro")
    fields = [{"name": "u", "type": ["int", "string"]}, {"name": "id", "type": "long"}]
    with path.open("wb") as file:
        schema = fastavro.parse_schema({"type": "record", "name": "T", "fields": fields})
        fastavro.writer(file, schema, [{"u": 1, "id": BIG}, {"u": "x", "id": -1}])


def torn_avro(path: Path) -> None:
    written_avro(True)(path)
    path.write_bytes(path.read_bytes()[:-20])


AVRO = (
    *(Variant(f"codec {codec}", written_avro(True, codec=codec)) for codec in ("null", "deflate", "bzip2", "xz")),
    Variant(f"columns of {', '.join(_AVRO)}", written_avro(False)),
    Variant("the same with nulls", written_avro(True)),
    Variant("a column of two types", union_avro, "column 'u' is a union of types"),
    Variant("cut off", torn_avro, "cannot be read as Avro"),
)


def _with_text(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_with_text, value))
    return str(value) if isinstance(value, uuid.UUID) else value


def reference_avro(path: Path) -> pd.DataFrame:
    """As fastavro reads it, in the types of its schema."""
    fastavro = pytest.importorskip("fastavro")
    with path.open("rb") as file:
        reader = fastavro.reader(file)
        rows = list(reader)
        fields = {each["name"]: each["type"] for each in reader.writer_schema["fields"]}
    types: dict[str, Any] = {
        **{"int": pa.int32(), "float": pa.float32(), "fixed": pa.binary(3), "map": pa.map_(pa.string(), pa.int64())},
        **{"timestamp_millis": pa.timestamp("ms", "UTC"), "decimal": pa.decimal128(20, 3)},
    }
    columns = {}
    for name in fields:
        columns[name] = pa.array([_with_text(row[name]) for row in rows], types.get(name))
    return with_nullable_types(pa.table(columns))


# HDF5


def datasets(**made: Any) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with h5py.File(path, "w", track_order=True) as file:
            for name, values in made.items():
                if isinstance(values, tuple):
                    file.create_dataset(name, data=values[0], **values[1])
                else:
                    file[name] = values

    return make


def of_pandas(path: Path) -> None:
    datasets(**{"df/table": [1]})(path)
    with h5py.File(path, "r+") as file:
        file["df"].attrs["pandas_type"] = "frame_table"


def odd(kind: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            rows = h5py.h5s.create_simple((3,))
            if kind == "time":
                h5py.h5d.create(file.id, b"a", h5py.h5t.UNIX_D64LE, rows)
            else:
                properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                properties.set_chunk((2,))
                properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
                h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_INT64, rows, properties)

    return make


_NUMBERS = np.arange(ROWS)
_TEXTS = np.array([f"größe {number}" for number in range(ROWS)], dtype=h5py.string_dtype())
_RECORDS = np.zeros(ROWS, [("n", "<i4"), ("x", ">f8"), ("s", "S6")])
_RECORDS["n"], _RECORDS["x"], _RECORDS["s"] = _NUMBERS, _NUMBERS / 7, b"text"
_CHUNKED = {"chunks": (5,), "maxshape": (None,)}
HDF5 = (
    *(
        Variant(f"numbers {kind}", datasets(v=_NUMBERS.astype(kind)))
        for kind in ("i1", "u2", "<i4", ">i4", "i8", "u8", "<f2", ">f4", "f8", "?")
    ),
    Variant("text of variable length", datasets(s=_TEXTS)),
    Variant("text of fixed length", datasets(s=np.array([b"ab", b"c"] * 10, "S4"))),
    *(
        Variant(
            f"compressed with {name}", datasets(n=(_NUMBERS, {**_CHUNKED, "compression": name}), s=(_TEXTS, _CHUNKED))
        )
        for name in ("gzip", "lzf")
    ),
    Variant("shuffle and checksums", datasets(n=(_NUMBERS, {**_CHUNKED, "shuffle": True, "fletcher32": True}))),
    Variant("records (a compound type)", datasets(r=_RECORDS)),
    Variant("more dimensions, as arrays", datasets(a=np.arange(ROWS * 6).reshape(ROWS, 2, 3))),
    Variant("enums, as their numbers", datasets(e=np.array([0, 1, 1], h5py.enum_dtype({"no": 0, "yes": 1}, "i1")))),
    Variant("types for times", odd("time"), "'a' is of HDF5's type for times"),
    Variant("a filter that is not there", odd("filter"), r"'a' is compressed with the filter 32001 \(Blosc\)"),
    Variant(
        "a link that leads nowhere", datasets(a=h5py.SoftLink("/b"), c=[1]), "'a' is a link to /b, which is not there"
    ),
    Variant("a frame of pandas' to_hdf", of_pandas, "'/df' was written by pandas' to_hdf"),
    Variant("complex numbers", datasets(a=np.zeros(2, complex)), "'a' is of type complex128"),
)


def reference_hdf5(path: Path) -> pd.DataFrame | dict[str, Any]:
    """As h5py reads it."""
    with h5py.File(path) as file:
        found = {}
        for name, dataset in file.items():
            values = dataset.asstr()[:] if h5py.check_string_dtype(dataset.dtype) else dataset[:]
            if values.dtype.kind == "S":
                values = np.array([value.decode() for value in values])
            if values.dtype.names:
                found |= {each: values[each] for each in values.dtype.names}
            else:
                found[name] = values
    if any(values.ndim > 1 for values in found.values()):
        return found
    native = {name: values.astype(values.dtype.newbyteorder("=")) for name, values in found.items()}
    texts = {
        name: [v.decode() if isinstance(v, bytes) else v for v in values]
        for name, values in native.items()
        if values.dtype.kind in "SOU"
    }
    return pd.DataFrame({**native, **texts})


# The test

FORMATS: dict[str, tuple[str, tuple[Variant, ...], Callable[[Path], Any]]] = {
    "parquet": (".parquet", PARQUET, reference_parquet),
    "orc": (".orc", ORC, reference_orc),
    "arrow": (".arrow", ARROW, reference_arrow),
    "avro": (".avro", AVRO, reference_avro),
    "hdf5": (".h5", HDF5, reference_hdf5),
}
CASES = [(name, variant) for name, (_, variants, _) in FORMATS.items() for variant in variants]


def mini_batches(folder: Path, dataset: InputTable, size: BatchSize) -> Iterator[Any]:
    """What ``run()`` gets, one after the other."""
    path = folder / "manifest.arrow"
    write_manifest(path, plan([dataset], size))
    manifest = Manifest.open(path)
    decoder = Decoder(manifest, [dataset.storage])
    try:
        for number in range(manifest.mini_batches):
            data = decoder.decode(number).data
            yield data if isinstance(data, dict) else at_the_user(data)
    finally:
        decoder.leave()
        path.unlink()


def plain_values(values: Any) -> Any:
    """For a comparison in which NaN equals NaN, and an array its values."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, (list, tuple)):
        return [plain_values(value) for value in values]
    if isinstance(values, dict):
        return {key: plain_values(value) for key, value in values.items()}
    return repr(values)


@pytest.mark.parametrize(("format", "variant"), CASES, ids=[f"{name}: {variant.what}" for name, variant in CASES])
def test_a_variant_is_equal_to_the_reference_or_refused(tmp_path: Path, format: str, variant: Variant) -> None:
    suffix, _, reference = FORMATS[format]
    path = tmp_path / f"t{suffix}"
    variant.make(path)
    dataset = InputTable.from_files(str(path), format, **variant.options)
    if variant.refused:
        with pytest.raises(InputError, match=variant.refused):
            list(mini_batches(tmp_path, dataset, SIZES[0]))
        return
    whole = reference(path)
    for size in SIZES:
        if not len(whole):
            with pytest.raises(InputError, match="hold no items"):
                list(mini_batches(tmp_path, dataset, size))
            continue
        frames = list(mini_batches(tmp_path, dataset, size))
        if isinstance(whole, dict):
            found = {name: np.concatenate([frame[name] for frame in frames]) for name in whole}
            assert {name: values.dtype for name, values in found.items()} == {n: v.dtype for n, v in whole.items()}
            assert plain_values(found) == plain_values(whole)
            continue
        for frame in frames:
            assert frame.dtypes.to_dict() == whole.dtypes.to_dict()
        together = pd.concat(frames)
        assert [plain_values(together[name]) for name in whole] == [plain_values(whole[name]) for name in whole]
        if not isinstance(whole.index, pd.RangeIndex):
            assert together.index.equals(whole.index)


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastavro", None)
    path = tmp_path / "t.avro"
    path.write_bytes(b"Obj\x01")
    with pytest.raises(InputError, match=r"fastavro, which is not installed: pip install 'mpi_prs\[avro\]'"):
        list(mini_batches(tmp_path, InputTable.from_files(str(path), "avro"), SIZES[0]))


def test_columns_beside_a_union_in_avro_can_be_selected(tmp_path: Path) -> None:
    union_avro(tmp_path / "t.avro")
    dataset = InputTable.from_files(str(tmp_path / "t.avro"), "avro", columns=("id",))
    assert [frame["id"].tolist() for frame in mini_batches(tmp_path, dataset, SIZES[2])] == [[BIG, -1]]


def page() -> str:
    """The page of the documentation."""
    lines = [
        "# Which files of tables are read, and how",
        "",
        "Written by `python -m tests.inputs.formats.test_conformance`, and checked by the tests. A file of each kind",
        "is cut in many places, and all mini-batches together are compared with what the reference reader makes of",
        "the whole (Arrow and pandas, h5py for HDF5), in values and in types; text with the table that was written.",
        "The one difference by intent: whole numbers and booleans that may be missing are pandas' nullable types",
        "(`Int64`, `boolean`), where pandas would make floats or objects.",
        "",
    ]
    for name, writers in (("delimited", CSV), ("json_lines", JSON), ("json", JSON_ARRAYS)):
        lines += [f"## {name}", "", "| as written by | outcome |", "| --- | --- |"]
        lines += [f"| {each} | equal |" for each in [*writers, *(f"compressed, `{suffix}`" for suffix in CODECS)]]
        lines.append("")
    for name, (_, variants, _) in FORMATS.items():
        lines += [f"## {name}", "", "| variant | outcome |", "| --- | --- |"]
        lines += [f"| {each.what} | {_outcome(each)} |" for each in variants]
        lines.append("")
    return "\n".join(lines)


def _outcome(variant: Variant) -> str:
    if not variant.refused:
        return "equal"
    return "refused: … " + re.sub(r"\\(.)", r"\1", variant.refused).replace(".*", "…").replace("|", "\\|") + " …"


def test_the_page_is_what_the_variants_say() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.inputs.formats.test_conformance"


if __name__ == "__main__":
    PAGE.write_text(page())

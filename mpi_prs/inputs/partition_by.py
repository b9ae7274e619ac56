"""A copy of a table partitioned by columns, in Parquet files under folders named ``key=value``; and its types again.

::

    sales/_common_metadata                     the schema of the whole table, key columns included
    sales/store=2/brand=dominicks/part-000000-0.parquet
    sales/store=2/brand=dominicks/part-000001-0.parquet

A folder's name is text, so what ``store=01`` meant, a number or a string, stands in ``_common_metadata`` alone.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import date, datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.core.files import move
from mpi_prs.inputs.formats.arrow import repeated
from mpi_prs.inputs.formats.format import quoted
from mpi_prs.inputs.partition_format import HIVE_NULL

COMMON_METADATA = "_common_metadata"
CHUNK_BYTES = 128 * 2**20
MAX_OPEN_FILES = 256

_KEY_TYPES = "text, whole numbers, floating-point numbers, true or false, dates and timestamps"
_UNFIT_NAME = "/=%\0"


def partition_by(
    tables: Iterable[Any], columns: Sequence[str], target: Path, *, chunk_bytes: int = CHUNK_BYTES
) -> None:
    """Write a copy of a table, partitioned by the values of some of its columns.

    Works through the table in chunks: each is sorted by the key columns (rows with equal keys stay in order) and
    written, files in parallel, while the next one is read. So a combination of keys has one file for each chunk that it
    occurs in, and their names are in the order of the rows. The folder appears under its name when it is complete.

    Memory: about six chunks and 200 MiB, whatever the size of the table. Files open at once: at most 256.

    Args:
        tables: pieces of the table, ``pyarrow.Table`` or ``RecordBatch``, all of one schema.
        columns: the key columns, outermost folder first; at least one other column must be left.
        target: a folder that does not exist yet, or is empty.
        chunk_bytes: more makes fewer files, and takes more memory.

    Raises:
        InputError: a column does not exist, is of a type that cannot be a folder's name, or has a value that cannot;
            the pieces are not of one schema; there is none.
        OutputError: the target is not empty, or cannot be written.
    """
    _check_target(target)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex}.partial"
    try:
        with _explaining(target, columns):
            partial.mkdir(parents=True)
        _write(iter(tables), columns, partial, chunk_bytes, lambda: _explaining(target, columns))
        with _explaining(target, columns):
            move(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def _explaining(target: Path, columns: Sequence[str]) -> Iterator[None]:
    """Says what went wrong with the writing; not around what reads the tables, whose errors are its own."""
    try:
        yield
    except pa.ArrowException as error:
        raise InputError(f"the partitioned table {target} cannot be written as Parquet: {error}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(
                f"a value of {quoted(columns)} is too long for the name of a folder (255 bytes with what is escaped): "
                "partition by shorter values"
            ) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"cannot write the partitioned table {target}: {reason}") from error


def _check_target(target: Path) -> None:
    try:
        if target.is_dir() and not any(target.iterdir()):
            return
        if not os.path.lexists(target):
            return
    except OSError as error:
        raise OutputError(f"cannot look into {target}: {error.strerror}. Check its permissions") from error
    raise OutputError(
        f"{target} is there already and is not an empty folder: remove it, or name another folder for the partitioned "
        "table"
    )


def _write(
    tables: Iterator[Any],
    columns: Sequence[str],
    folder: Path,
    chunk_bytes: int,
    explaining: Callable[[], AbstractContextManager[None]],
) -> None:
    import pyarrow.parquet as pq

    first = next(tables, None)
    if first is None:
        raise InputError("there is nothing to partition: not one table came, so not even the columns are known")
    key_schema = _key_schema(first.schema, columns)
    with explaining():
        pq.write_metadata(first.schema, str(folder / COMMON_METADATA))
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for number, chunk in enumerate(_chunks(chain([first], tables), chunk_bytes)):
            with explaining():
                chunk = _sorted(chunk, key_schema)
            if writing is not None:
                with explaining():
                    writing.result()
            writing = writer.submit(_write_chunk, chunk, key_schema, folder, number)
        if writing is not None:
            with explaining():
                writing.result()


def _chunks(pieces: Iterator[Any], chunk_bytes: int) -> Iterator[Any]:
    """Tables of about so many bytes, whatever the sizes of the pieces."""
    schema = None
    held: list[Any] = []
    size = 0
    for piece in pieces:
        schema = schema or piece.schema
        if not piece.schema.equals(schema):
            raise _differs(schema, piece.schema)
        table = pa.Table.from_batches([piece]) if isinstance(piece, pa.RecordBatch) else piece
        rows = max(1, chunk_bytes * table.num_rows // max(1, table.nbytes))
        for start in range(0, table.num_rows, rows):
            held.append(table.slice(start, rows))
            size += held[-1].nbytes
            if size >= chunk_bytes:
                yield pa.concat_tables(held)
                held, size = [], 0
    if held:
        yield pa.concat_tables(held)


def _sorted(chunk: Any, key_schema: Any) -> Any:
    """The rows by key, in their order where keys are equal; key columns in the types in which they are written.

    So each combination is written at once: where 10,000 of them take turns, each row would open its file again.
    """
    for key in key_schema:
        index = chunk.schema.get_field_index(key.name)
        chunk = chunk.set_column(index, key, _key_column(chunk.column(index), key))
    import pyarrow.compute as pc  # only who writes pays for it; types are looked at by every job

    return chunk.take(pc.sort_indices(chunk, sort_keys=[(key.name, "ascending") for key in key_schema]))


def _write_chunk(chunk: Any, key_schema: Any, folder: Path, number: int) -> None:
    import pyarrow.dataset as ds  # imports pandas where it is installed; only who writes pays for it

    ds.write_dataset(
        chunk,
        str(folder),
        format="parquet",
        partitioning=ds.partitioning(key_schema, flavor="hive"),
        basename_template=f"part-{number:06d}-{{i}}.parquet",
        existing_data_behavior="overwrite_or_ignore",  # the folder is ours, and the number is in the name
        max_partitions=chunk.num_rows,
        max_open_files=MAX_OPEN_FILES,
        use_threads=False,  # else rows change places; encoding and writing take several threads all the same
    )


# Key columns


def _key_schema(schema: Any, columns: Sequence[str]) -> Any:
    """The fields of the key columns, of the types in which they are written."""
    if not columns:
        raise InputError("partition_by: no column is named; expected one or more to partition by")
    if len(set(columns)) < len(columns):
        raise InputError(f"partition_by: {quoted(columns)}: expected each column once")
    fields = []
    for name in columns:
        indices = schema.get_all_field_indices(name)
        if len(indices) != 1:
            there = "there is no such column" if not indices else "there are several of this name"
            raise InputError(f"partition_by: column {name!r}: {there}; the columns are {quoted(schema.names)}")
        if not name or any(character in name for character in _UNFIT_NAME):
            raise InputError(
                f"partition_by: column {name!r} cannot name folders key=value: its name is empty or has a /, = or %. "
                "Rename it first"
            )
        fields.append(pa.field(name, _written_type(name, schema.field(name).type)))
    if len(columns) == len(schema):
        raise InputError(f"partition_by: {quoted(columns)} are all columns of the table: at least one must be left")
    return pa.schema(fields)


def _written_type(name: str, type: Any) -> Any:
    if pa.types.is_dictionary(type):
        type = type.value_type
    if _is_text(type):
        return pa.string()
    if pa.types.is_date(type):
        return pa.date32()
    if pa.types.is_timestamp(type):
        return pa.timestamp("us", type.tz)
    if pa.types.is_integer(type) or pa.types.is_float32(type) or pa.types.is_float64(type) or pa.types.is_boolean(type):
        return type
    raise InputError(
        f"partition_by: column {name!r} is of type {type}, which cannot be a partition key: expected {_KEY_TYPES}. "
        "Convert it first"
    )


def _key_column(column: Any, key: Any) -> Any:
    try:
        column = column.cast(key.type)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"partition_by: column {key.name!r} has values that a partition key cannot have, such as times finer than "
            f"a microsecond: {error}"
        ) from error
    if pa.types.is_string(key.type):
        import pyarrow.compute as pc

        for unfit in (HIVE_NULL, "\0"):
            if pc.any(pc.match_substring(column, unfit)).as_py():
                raise InputError(
                    f"partition_by: column {key.name!r} has a value with {unfit!r} in it, which cannot be told from "
                    "another one in the name of a folder: replace it first"
                )
    return column


def _is_text(type: Any) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type) or str(type) == "string_view")


def _differs(first: Any, other: Any) -> InputError:
    for name in dict.fromkeys([*first.names, *other.names]):
        types = [schema.field(name).type if name in schema.names else "missing" for schema in (first, other)]
        if types[0] != types[1]:
            return InputError(
                f"the pieces of the table differ: column {name!r} is {types[0]} in the first one and {types[1]} in a "
                "later one; give all of them the same columns and types"
            )
    return InputError(
        f"the pieces of the table differ in the order of their columns: {quoted(first.names)} in the first one, "
        f"{quoted(other.names)} in a later one"
    )


# Types again


def partitioned_columns(target: Path) -> Any | None:
    """The ``pyarrow.Schema`` of a partitioned table, key columns included; ``None`` if nothing says it.

    Types are those that Parquet has: a ``date64`` that was written is a ``date32``.

    Raises:
        InputError: ``_common_metadata`` is there and cannot be read.
    """
    import pyarrow.parquet as pq

    path = Path(target) / COMMON_METADATA
    try:
        return pq.read_schema(str(path))
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"cannot read {path}, which has the types of the partition keys: {error}. Make the partitioned copy again, "
            "or remove this file: keys are text then"
        ) from error


def key_types(keys: Iterable[str], schema: Any | None) -> dict[str, Any]:
    """The ``pyarrow.DataType`` of each key: ``string`` where the schema does not know it."""
    known = {} if schema is None else {field.name: field.type for field in schema}
    return {key: known.get(key, pa.string()) for key in keys}


def typed_values(values: Mapping[str, str | None], schema: Any | None) -> dict[str, Any]:
    """The values of a file's folders in the types of the key columns.

    Whole numbers become ``int``, floating-point ones ``float``, dates ``date``, timestamps ``datetime`` (those with a
    time zone in UTC); text, and what is of no type that a key can have, stays ``str``.

    Raises:
        InputError: a value is not one of its type; names key, value and type.
    """
    typed: dict[str, Any] = {}
    for key, type in key_types(values, schema).items():
        text = values[key]
        try:
            typed[key] = None if text is None else _from_text(type)(text)
        except ValueError as error:
            raise InputError(
                f"the folder {key}={text} has no value of type {type}, which {COMMON_METADATA} gives for {key!r}: "
                "leave it out of the inputs, or make the partitioned copy again"
            ) from error
    return typed


def with_key_columns(table: Any, values: Mapping[str, Any], schema: Any | None) -> Any:
    """The table of a part with its key columns back.

    Each has the type that the schema says, and its place in it where all columns of the schema are there; otherwise key
    columns come last.

    Args:
        values: of the keys, typed.
    """
    for key, type in key_types(values, schema).items():
        if key not in table.column_names:
            table = table.append_column(key, repeated(values[key], type, table.num_rows))
    if schema is not None and set(schema.names) == set(table.column_names):
        table = table.select(schema.names)
    return table


def _from_text(type: Any) -> Callable[[str], Any]:
    if pa.types.is_dictionary(type):
        type = type.value_type
    if pa.types.is_integer(type):
        return int
    if pa.types.is_floating(type):
        return float
    if pa.types.is_boolean(type):
        return _boolean
    if pa.types.is_date(type):
        return date.fromisoformat
    if pa.types.is_timestamp(type):
        return _timestamp if type.tz is None else _timestamp_utc
    return str


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _timestamp(text: str) -> datetime:
    whole, _, fraction = text.partition(".")
    if len(fraction) > 6 and fraction[6:].strip("0"):
        raise ValueError(text)
    # Python 3.10 reads three or six digits of a second, and no other number
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}" if fraction else whole)


def _timestamp_utc(text: str) -> datetime:
    return _timestamp(text.removesuffix("Z")).replace(tzinfo=timezone.utc)

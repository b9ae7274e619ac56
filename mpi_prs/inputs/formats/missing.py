"""Whole numbers and booleans that may be missing: one rule for all formats.

NumPy has no missing integer, so pandas makes ``float64`` of a column with one: ids beyond 2^53 lose digits, and the
type of a column would depend on the mini-batch. So a column of integers or booleans in which a null cannot be ruled out
is pandas' nullable type (``Int64``, ``UInt8``, ``boolean`` …) in every mini-batch. Every other one is NumPy's, and a
mini-batch with a null in it fails (:func:`refuse_nulls`).

A type in ``column_types`` is obeyed to the letter: ``Int64`` is nullable, ``int64`` is not, ``int`` is what the rule
makes of it. ``numpy_types`` makes NumPy's of all that ``column_types`` does not name.

What a column is stands in the metadata that pandas keeps in Arrow schemas, and ``to_pandas`` obeys; nothing else needs
to be passed on to the user process. Nullable rather than Arrow-backed: pandas has had these since 1.0, ``apply`` over
rows works, and ``numpy.asarray``, TensorFlow and JSON take both alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow import nullable_dtype, nullable_in_pandas
from mpi_prs.inputs.formats.casting import Cast
from mpi_prs.inputs.formats.format import Part, place_of

_NUMPY_TYPES = re.compile(r"u?int\d+|float\d+|bool|object")


def for_pandas(schema: Any, lacking: Collection[str], chosen: Mapping[str, Cast], numpy_types: bool) -> Any:
    """The schema with which ``to_pandas`` gives each column the same type in every mini-batch.

    Its fields are nullable where the type in pandas is.

    Args:
        schema: ``pyarrow.Schema`` of the mini-batches, with or without pandas' metadata.
        lacking: columns in which a null cannot be ruled out, anywhere in the dataset.
        chosen: by ``column_types``.
        numpy_types: NumPy's types where ``column_types`` says nothing else.
    """
    schema = _of_columns_that_are_there(schema)
    own = _types_in_pandas(schema)
    index = pandas_metadata(schema).get("index_columns", [])
    fields = []
    nullable: list[str] = []
    plain: list[str] = []
    for field in schema:
        if nullable_dtype(field.type) is None:
            fields.append(field)
            continue
        wanted = chosen[field.name].nullable if field.name in chosen else None
        is_own = wanted is None and not numpy_types and field.name in own  # as the file itself says
        if wanted is None:
            wanted = field.name in lacking and not numpy_types
        if not is_own:
            (nullable if wanted else plain).append(field.name)
        fields.append(field.with_nullable((is_own or wanted) and field.name not in index))
    return nullable_in_pandas(_plain_in_pandas(pa.schema(fields, schema.metadata), plain), nullable)


def _of_columns_that_are_there(schema: Any) -> Any:
    """The schema, without word to pandas of other columns: a partition key of such a name is of a type of its own."""
    told = pandas_metadata(schema)
    columns = told.get("columns", [])
    left = [column for column in columns if column.get("field_name", column["name"]) in schema.names]
    if len(left) == len(columns):
        return schema
    return schema.with_metadata({**schema.metadata, b"pandas": json.dumps({**told, "columns": left}).encode()})


def _types_in_pandas(schema: Any) -> dict[str, str]:
    """The columns to which pandas gives types of its own, by the schema's metadata."""
    columns = pandas_metadata(schema).get("columns", [])
    types = {column.get("field_name", column["name"]): column["numpy_type"] for column in columns}
    return {name: type for name, type in types.items() if not _NUMPY_TYPES.fullmatch(type)}


def _plain_in_pandas(schema: Any, names: Collection[str]) -> Any:
    """The schema, without word to pandas of types of its own for these columns."""
    if not _types_in_pandas(schema).keys() & set(names):
        return schema
    told = pandas_metadata(schema)
    for column in told["columns"]:
        if column.get("field_name", column["name"]) in names:
            column["numpy_type"] = "object"
    return schema.with_metadata({**schema.metadata, b"pandas": json.dumps(told).encode()})


def refuse_nulls(table: Any, part: Part) -> None:
    """The last look at a part's rows before they become a DataFrame.

    Raises:
        InputError: there is a null in a column of integers or booleans that cannot hold one; names file, row, column.
    """
    with_nulls = [
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if column.null_count and nullable_dtype(column.type) is not None
    ]
    if not with_nulls:
        return
    index = pandas_metadata(table.schema).get("index_columns", [])
    own = _types_in_pandas(table.schema)
    for name in with_nulls:
        if name in index or name not in own:
            column = table[name]
            raise _null_found(part, name, pc.index(pc.is_null(column), True).as_py(), column.type, name in index)


def _null_found(part: Part, name: str, row: int, type: Any, is_index: bool) -> InputError:
    place = place_of(part, row, name)
    plain = "bool" if pa.types.is_boolean(type) else str(type)
    if is_index:
        return InputError(
            f"{place}: the value is missing, and an index of {plain} cannot hold a missing one; give it another type "
            f"with column_types ({{{name}: float}}), or write the files without an index"
        )
    return InputError(
        f"{place}: the value is missing, and a column of NumPy's type {plain} cannot hold a missing one; name pandas' "
        f"type in column_types ({{{name}: {nullable_dtype(type)}}}) or, of a partition key, leave out numpy_types; or "
        "mend the value"
    )


def pandas_metadata(schema: Any) -> dict[str, Any]:
    """What pandas keeps in an Arrow schema; empty where it keeps nothing."""
    found: dict[str, Any] = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    return found

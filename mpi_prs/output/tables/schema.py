"""One schema for the tables of all mini-batches, and their columns cast to it.

A column that only some have is null in the others. Types are promoted to one that can hold them all (``int64`` and
``double``: ``double``, as long as every value fits); where there is none, or where a file cannot hold it, the column
becomes text. So no row is lost, and what was done is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mpi_prs.child.rows.arrow import EMPTY, MARK, TEXT


class DoesNotFit(Exception):
    """A value of a column does not fit its common type.

    Attributes:
        column: its name.
        why: in words.
    """

    def __init__(self, column: str, why: str) -> None:
        super().__init__(column, why)
        self.column = column
        self.why = why


@dataclass(frozen=True)
class Agreed:
    """The schema, and the columns that became text: name → why."""

    schema: Any
    texts: dict[str, str]


def agree(schemas: Sequence[Any], can_hold: Callable[[Any], bool], texts: Mapping[str, str]) -> Agreed:
    """The common schema; columns in the order in which they first appear.

    Args:
        schemas: those of the mini-batches, with the marks of :mod:`mpi_prs.child.rows.arrow`.
        can_hold: whether a file can hold a type.
        texts: columns that are known to have to become text → why.
    """
    fields: dict[str, list[Any]] = {}
    for schema in schemas:
        for field in schema:
            fields.setdefault(field.name, []).append(field)
    why = dict(texts)
    agreed = []
    for name, alike in fields.items():
        type = pa.string() if name in why else _common_type(alike)
        if type is None:
            why[name] = " and ".join(dict.fromkeys(str(field.type) for field in _trusted(alike)))
        elif not can_hold(type):
            why[name] = f"{type}, which the file cannot hold"
        elif any(_mark(field) == TEXT for field in alike):
            why.setdefault(name, "values of different types")
        agreed.append(pa.field(name, pa.string() if name in why else type))
    return Agreed(pa.schema(agreed), why)


def _mark(field: Any) -> bytes | None:
    mark: bytes | None = (field.metadata or {}).get(MARK)
    return mark


def _trusted(fields: Sequence[Any]) -> list[Any]:
    """Without those that have no value; all, where none has."""
    return [field for field in fields if _mark(field) != EMPTY] or list(fields)


def _common_type(fields: Sequence[Any]) -> Any:
    """``None``: there is none."""
    types = list(dict.fromkeys(field.type for field in _trusted(fields)))
    if len(types) == 1:
        return types[0]
    if pa.float16() in types:  # Arrow's own promotion takes it for wide enough for any integer
        types = [pa.float64() if type == pa.float16() else type for type in types]
    try:
        alternatives = [pa.schema([("x", type)]) for type in types]
        return pa.unify_schemas(alternatives, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return types[0] if all(_mark(field) == EMPTY for field in fields) else None


def conform(table: Any, agreed: Agreed) -> Any:
    """The same rows with the common schema.

    Raises:
        DoesNotFit: a value does not.
    """
    columns = []
    for field in agreed.schema:
        at = table.schema.get_field_index(field.name)
        if at < 0 or table.column(at).null_count == table.num_rows:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)]))
            continue
        column = table.column(at)
        if field.name in agreed.texts:
            columns.append(_as_text(column))
        elif column.type == field.type:
            columns.append(column)
        else:
            try:
                columns.append(column.cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DoesNotFit(field.name, f"{column.type} that does not fit {field.type}") from error
    return pa.Table.from_arrays(columns, schema=agreed.schema)


def _as_text(column: Any) -> Any:
    if pa.types.is_string(column.type):
        return column
    if not (pa.types.is_nested(column.type) or pa.types.is_binary(column.type)):
        try:
            return pc.cast(column, pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    texts = [None if value is None else _told(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])  # imports pandas, where it is installed: seldom needed


def _told(value: Any) -> str:
    """Bytes as the text that they are, or escaped; lists and structs as JSON."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return json.dumps(value, default=str, ensure_ascii=False)

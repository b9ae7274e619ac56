"""What many files say of themselves, and the one table that they make together."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow import nullable_dtype
from mpi_prs.inputs.formats.casting import Cast
from mpi_prs.inputs.formats.format import quoted
from mpi_prs.inputs.formats.missing import for_pandas, pandas_metadata
from mpi_prs.inputs.formats.told import MISSING

_log = logging.getLogger("mpi_prs.inputs")


class Footer(NamedTuple):
    """What one file says of itself without its values.

    Attributes:
        path: of the file.
        rows: in the file.
        schema: of all its columns.
        nulls: columns of integers or booleans, and other columns asked for, that hold nulls or may hold some; and
            those that hold nothing else.
        uncounted: those of them of which only a lack of statistics says so.
        categories: values of the dictionary columns, as far as they are wanted.
    """

    path: str
    rows: int
    schema: Any
    nulls: set[str]
    uncounted: set[str]
    categories: dict[str, Any]


def read_columns(schema: Any, columns: Sequence[str]) -> list[str]:
    """The columns of a file that are read where these are selected: all if none are, and those of pandas' index."""
    names: list[str] = schema.names
    index = [name for name in pandas_metadata(schema).get("index_columns", []) if isinstance(name, str)]
    chosen = list(columns) or names
    return [*chosen, *(name for name in index if name in names and name not in chosen)]


def whose_nulls_matter(schema: Any, read: Collection[str], cast: Collection[str]) -> set[str]:
    """The columns among those that are read of which must be known whether they hold nulls.

    Args:
        cast: columns that are to have another type.
    """
    names = set(read)
    return {
        each.name
        for each in schema
        if each.name in names and (each.name in cast or nullable_dtype(each.type) is not None)
    }


def united(first: Any | None, second: Any) -> Any:
    """The values of two arrays, each once, in the order in which they are met."""
    if first is None or first.equals(second):
        return second
    return pa.concat_arrays([first, second.cast(first.type)]).unique()


class Agreement:
    """One schema for all files.

    Args:
        columns: to select, in order; empty: all of the first file.
        chosen: columns that are to have another type.
        numpy_types: see :func:`~mpi_prs.inputs.formats.missing.for_pandas`.

    Attributes:
        first: the first file with rows, or the first of all; ``None`` before :meth:`add`.
        nulls: as in :class:`Footer`, of all files.
        categories: column → all values, for columns that come out as categories.
    """

    def __init__(self, columns: Sequence[str], chosen: Mapping[str, Cast], numpy_types: bool = False) -> None:
        self._columns = columns
        self._chosen = chosen
        self._numpy_types = numpy_types
        self.first: Footer | None = None
        self.nulls: set[str] = set()
        self._counted: set[str] = set()  # nulls that are there
        self.categories: dict[str, Any] = {}
        self._agreed: dict[str, tuple[Any, str]] = {}

    def add(self, footer: Footer) -> None:
        """One more file; one without rows counts for nothing beside others.

        Raises:
            InputError: it does not go with the files before it, or lacks a column.
        """
        if self.first is not None and not footer.rows:
            return
        if self.first is None or not self.first.rows:
            self.first = footer
            self.nulls, self._counted, self.categories = set(), set(), {}
            self._agreed = {name: (footer.schema.field(name).type, footer.path) for name in self._selected(footer)}
        else:
            self._compare(self.first, footer)
        for name, cast in self._chosen.items():
            if footer.schema.get_field_index(name) >= 0:
                cast.check(name, footer.schema.field(name).type, f" in {footer.path}")
        self.nulls |= footer.nulls
        self._counted |= footer.nulls - footer.uncounted
        for name, values in footer.categories.items():
            if name in self._agreed and name not in self._chosen:
                self.categories[name] = united(self.categories.get(name), values)

    def schema(self) -> Any:
        """The types that every mini-batch has, with the metadata that pandas keeps in Arrow's schemas."""
        assert self.first is not None
        described = pandas_metadata(self.first.schema)
        of_pandas = {column.get("field_name", column["name"]): column for column in described.get("columns", [])}
        fields = []
        for name, (agreed, _) in self._agreed.items():
            field = self.first.schema.field(name)
            type = self._chosen[name].type if name in self._chosen else agreed
            column = of_pandas.get(name, {"numpy_type": "object"})
            if type != field.type:
                column["numpy_type"] = "object"  # else pandas makes of it what it was in the first file
                field = field.remove_metadata()
            if name in self.categories:
                type = pa.dictionary(pa.int32(), self.categories[name].type, type.ordered)
            fields.append(field.with_type(type).with_nullable(True))
        metadata = dict(self.first.schema.metadata or {})
        if described:
            metadata[b"pandas"] = json.dumps(described).encode()
        schema = pa.schema(fields, metadata=metadata or None)
        _check_zones(schema, self.first.path)
        _refuse_unions(schema, self.first.path)
        schema = for_pandas(schema, self.nulls, self._chosen, self._numpy_types)
        if doubtful := self._without_statistics(schema):
            _log.info(
                "no statistics rule out missing values in %s: their types in pandas are nullable (Int64, boolean); "
                "column_types or numpy_types gives others",
                quoted(doubtful),
            )
        return schema

    def _without_statistics(self, schema: Any) -> list[str]:
        """The columns of which the type in pandas is nullable only since no statistics rule out a null."""
        return [
            each.name
            for each in schema
            if nullable_dtype(each.type) and each.nullable and each.name in self.nulls - self._counted
            if each.name not in self._chosen or self._chosen[each.name].nullable is None
        ]

    def origins(self, schema: Any) -> dict[str, str]:
        """Where the types in :meth:`schema` are from, column by column, for people."""
        doubtful = self._without_statistics(schema)
        found = {}
        for name, (_, path) in self._agreed.items():
            field = schema.field(name)
            is_nullable = field.nullable and nullable_dtype(field.type) is not None
            why = ", without statistics of missing values" if name in doubtful else MISSING if is_nullable else ""
            found[name] = f"schema of {path}{why}"
        return found

    def _selected(self, footer: Footer) -> list[str]:
        names = footer.schema.names
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(f"{footer.path} has columns of the same name: {quoted(twice)}; give each its own name")
        for what, asked in (("columns", self._columns), ("column_types", self._chosen)):
            missing = [name for name in asked if name not in names]
            if missing:
                raise InputError(
                    f"{what}: {quoted(missing)} not found in {footer.path}, whose columns are {quoted(names)}"
                )
        return read_columns(footer.schema, self._columns)

    def _compare(self, first: Footer, footer: Footer) -> None:
        if footer.schema.equals(first.schema):
            return
        names = set(footer.schema.names)
        for name in self._agreed:
            if name not in names:
                raise _lacking(footer.path, name, first.path)
        if not self._columns:
            for name in footer.schema.names:
                if name not in self._agreed:
                    raise _lacking(first.path, name, footer.path)
        for name, (agreed, path) in self._agreed.items():
            type = footer.schema.field(name).type
            if type == agreed or name in self._chosen:
                continue
            together = _common_type(agreed, type)
            if together is None:
                raise InputError(
                    f"column {name!r} is {agreed} in {path} but {type} in {footer.path}: give it one type with "
                    "column_types, or make the files alike"
                )
            if together != agreed:
                self._agreed[name] = (together, footer.path)
            if together not in (agreed, type) or (pa.types.is_floating(together) and type != agreed):
                _log.info(
                    "column %r is %s in %s but %s in %s: it is read as %s",
                    name,
                    agreed,
                    path,
                    type,
                    footer.path,
                    together,
                )


def _refuse_unions(schema: Any, path: str) -> None:
    for field in schema:
        if (found := _without_counterpart(field.type)) is not None:
            raise InputError(
                f"{path}: column {field.name!r} has values of type {found}, for which pandas has none; select "
                "the other columns with columns"
            )


def _without_counterpart(type: Any) -> Any | None:
    if pa.types.is_union(type) or pa.types.is_run_end_encoded(type):
        return type
    inner = (type.field(number).type for number in range(type.num_fields if pa.types.is_nested(type) else 0))
    return next((found for each in inner if (found := _without_counterpart(each)) is not None), None)


def _check_zones(schema: Any, path: str) -> None:
    for field in schema:
        zone = getattr(field.type, "tz", None)
        if not zone or re.fullmatch(r"[+-]\d\d:\d\d", zone):
            continue
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InputError(
                f"{path}: the time zone {zone!r} of column {field.name!r} is not known here; install tzdata, or read "
                f"it without its zone, as UTC, with column_types ({{{field.name}: datetime}})"
            ) from None


def _lacking(path: str, name: str, other: str) -> InputError:
    return InputError(
        f"{path} has no column {name!r}, which {other} has: all files need the same columns; "
        "select those that they share with columns"
    )


def _common_type(first: Any, second: Any) -> Any | None:
    """A type that holds the values of both, or ``None``."""
    kinds = {pa.types.is_binary(type) or pa.types.is_large_binary(type) for type in (first, second)}
    if len(kinds) > 1 and not pa.types.is_null(first) and not pa.types.is_null(second):
        return None  # Arrow would make bytes of text
    try:
        schemas = [pa.schema([pa.field("", type)]) for type in (first, second)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None

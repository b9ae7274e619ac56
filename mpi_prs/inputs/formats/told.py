"""What people are told of a table's columns: types, where each came from, and what is doubtful about them.

A survey has it under the key ``told``, as plain JSON, so that whoever has the manifest can say it without a second look
at the files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from mpi_prs.inputs.formats.arrow import nullable_dtype

_NAMES = {pa.float64(): "float64", pa.float32(): "float32", pa.timestamp("us"): "datetime", pa.large_string(): "string"}


MISSING = ", where values are missing"
"""What is added to where a type came from that is nullable for this reason."""


class ToldColumn(NamedTuple):
    """A column.

    Attributes:
        name: of the column.
        type: as ``column_types`` names it where it can.
        origin: where the type came from.
    """

    name: str
    type: str
    origin: str


class Doubt(NamedTuple):
    """Something that may be other than the user thinks; a whole sentence. ``column``: ``None`` where it is of all."""

    column: str | None
    text: str


class Told(NamedTuple):
    """The columns in their order, and the doubts."""

    columns: list[ToldColumn]
    doubts: list[Doubt]

    @classmethod
    def of(cls, survey: Mapping[str, Any]) -> Told:
        """What a survey says; nothing where it is of a version that told nothing."""
        told = survey.get("told", {"columns": [], "doubts": []})
        return cls([ToldColumn(*each) for each in told["columns"]], [Doubt(*each) for each in told["doubts"]])

    def without(self, names: Collection[str]) -> Told:
        """The same of the other columns."""
        return Told(
            [each for each in self.columns if each.name not in names],
            [each for each in self.doubts if each.column not in names],
        )

    def to_json(self) -> dict[str, Any]:
        """For a survey."""
        return {"columns": [list(each) for each in self.columns], "doubts": [list(each) for each in self.doubts]}


def told_columns(schema: Any, origin: str, chosen: Collection[str], others: Mapping[str, str]) -> list[ToldColumn]:
    """The columns of a schema that :func:`~mpi_prs.inputs.formats.missing.for_pandas` has made.

    Args:
        origin: where the types came from.
        chosen: columns of ``column_types``.
        others: column → where its type came from, if that is another place.
    """
    columns = []
    for field in schema:
        type = type_name(field.type, field.nullable)
        found = "column_types" if field.name in chosen else others.get(field.name, origin)
        if found == origin and type == nullable_dtype(field.type) and field.nullable:
            found += MISSING
        columns.append(ToldColumn(field.name, type, found))
    return columns


def type_name(type: Any, nullable: bool) -> str:
    """The name of a type; ``nullable``: of whole numbers and booleans, whether they are pandas' nullable type."""
    if nullable and (dtype := nullable_dtype(type)) is not None:
        return dtype
    if pa.types.is_dictionary(type):
        return f"category of {type_name(type.value_type, False)}"
    return _NAMES.get(type) or str(type)

"""Columns to leave out: known once the files have been surveyed, they become a selection of the others.

So a format reads no more than is wanted, and need not know of dropping.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa

from mpi_prs.inputs.formats.arrow import pack_schema, unpack_schema
from mpi_prs.inputs.formats.format import TableFormat
from mpi_prs.inputs.formats.told import Told

F = TypeVar("F", bound=TableFormat)


def columns_of(survey: Mapping[str, Any]) -> list[str]:
    """The columns that a survey has found, or was told to select; of arrays, their names."""
    if "columns" in survey:
        return list(survey["columns"])
    names: list[str] = unpack_schema(survey.get("final") or survey["schema"]).names
    return names


def without_columns(format: F, survey: Mapping[str, Any], dropped: Collection[str]) -> tuple[F, dict[str, Any]]:
    """A format that selects all columns but these, and the survey as it would have made it.

    Args:
        format: with its options.
        survey: of that format.
        dropped: names that need not be there; at least one other column must be left.
    """
    kept = [name for name in columns_of(survey) if name not in dropped]
    left = dict(survey)
    for key in ("schema", "read", "final"):
        if key in survey:
            schema = unpack_schema(survey[key])
            fields = [each for each in schema if each.name not in dropped]
            left[key] = pack_schema(pa.schema(fields, metadata=schema.metadata))
    for key in ("objects", "nulls"):
        if key in survey:
            left[key] = [name for name in survey[key] if name not in dropped]
    if "categories" in survey:
        left["categories"] = {name: each for name, each in survey["categories"].items() if name not in dropped}
    if "told" in survey:
        left["told"] = Told.of(survey).without(dropped).to_json()
    if "columns" in survey:
        left["columns"] = kept
        types = dict(zip(survey["columns"], survey["types"], strict=True))
        left["types"] = [types[name] for name in kept]
    return replace(format, columns=tuple(kept)), left  # type: ignore[type-var]  # a protocol cannot say: a dataclass

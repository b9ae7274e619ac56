"""What a job's tables are, for people: columns, their types, and where each type came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mpi_prs.core.partition_values import partition_values
from mpi_prs.inputs.formats import BY_CLASS
from mpi_prs.inputs.formats.arrow import unpack_schema
from mpi_prs.inputs.formats.told import Told, ToldColumn, type_name
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.partition_by import key_types
from mpi_prs.inputs.payload import unpack

_MOST = 200
"""Columns of an input that are shown."""


def shown_columns(manifest: Manifest) -> Iterator[str]:
    """Lines about each table among the inputs; of files there are none."""
    for number, described in enumerate(manifest.inputs):
        if described["kind"] != "table":
            continue
        columns = Told.of(described["survey"]).columns
        own = {column.name for column in columns}
        columns += [column for column in _of_the_paths(manifest, number) if column.name not in own]
        yield (
            f"table {described['files'][0]}{' …' if len(described['files']) > 1 else ''} "
            f"({BY_CLASS[described['format']].name}), {len(columns)} {'column' if len(columns) == 1 else 'columns'}:"
        )
        widths = [max((len(column[at]) for column in columns[:_MOST]), default=0) for at in (0, 1)]
        for column in columns[:_MOST]:
            yield f"  {column.name:{widths[0]}}  {column.type:{widths[1]}}  {column.origin}"
        if len(columns) > _MOST:
            yield f"  … and {len(columns) - _MOST} more"


def _of_the_paths(manifest: Manifest, input: int) -> list[ToldColumn]:
    """Those that the path of a file gives: partition keys, and the path itself."""
    described = manifest.inputs[input]
    number = next((n for n in range(manifest.mini_batches) if manifest.input_of(n) == input), None)
    values: dict[str, Any] = {}
    if number is not None:
        columns = unpack(manifest.payload(number))[0].get("columns")
        values = partition_values(columns[0]) if columns else {}
    schema = described.get("partition_schema")
    found = [
        ToldColumn(key, type_name(type, key in described["keys_without_value"]), "partition_format")
        for key, type in key_types(values, schema and unpack_schema(schema)).items()
    ]
    if described["path_column"]:
        found.append(ToldColumn(described["path_column"], "string", "path_column"))
    return found

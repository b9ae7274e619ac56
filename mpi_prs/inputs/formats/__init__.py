"""Tables: a folder a format, and the one list of them.

Nothing of a format is imported before it is asked for: a rank whose job has no CSV does without its library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mpi_prs.child.shims.finder import resolve
from mpi_prs.inputs.formats.format import COMPRESSIONS, TableFormat


@dataclass(frozen=True)
class FormatEntry:
    """A table format.

    Attributes:
        name: as users write it.
        target: ``module:class`` of its :class:`TableFormat`; manifests name the class.
        suffixes: of its files' names.
        options: keys of a job config's input that have a meaning for it.
        in_rows: whether its parts are counted in rows, and not in bytes.
    """

    name: str
    target: str
    suffixes: tuple[str, ...]
    options: tuple[str, ...]
    in_rows: bool

    @property
    def class_name(self) -> str:
        """As manifests have it."""
        return self.target.rpartition(":")[2]

    def make(self, **options: Any) -> TableFormat:
        """The format with its options. Raises InputError, TypeError: an option is not what it should be."""
        made: TableFormat = resolve(self.target)(**options)
        return made


_ENTRIES = (
    FormatEntry(
        "delimited",
        "mpi_prs.inputs.formats.delimited.splitting:Delimited",
        (".csv", ".tsv", ".txt"),
        (
            *("separator", "header", "encoding", "quote", "support_multi_line", "decimal", "na_values", "columns"),
            *("column_types", "on_bad_record", "fill_missing_fields", "max_record_size", "infer_column_types"),
            *("empty_as_string", "numpy_types", "skip_rows", "comment", "escape", "thousands"),
        ),
        in_rows=False,
    ),
    FormatEntry(
        "parquet",
        "mpi_prs.inputs.formats.parquet.reading:Parquet",
        (".parquet", ".parq"),
        ("columns", "column_types", "numpy_types"),
        in_rows=True,
    ),
    FormatEntry(
        "orc",
        "mpi_prs.inputs.formats.orc.reading:Orc",
        (".orc",),
        ("columns", "column_types", "numpy_types"),
        in_rows=True,
    ),
    FormatEntry(
        "arrow",
        "mpi_prs.inputs.formats.arrow_ipc.reading:ArrowIpc",
        (".feather", ".arrow", ".arrows", ".ipc"),
        ("columns", "column_types", "numpy_types"),
        in_rows=True,
    ),
    FormatEntry(
        "avro",
        "mpi_prs.inputs.formats.avro.reading:Avro",
        (".avro",),
        ("columns", "column_types", "numpy_types"),
        in_rows=True,
    ),
    FormatEntry(
        "json_lines",
        "mpi_prs.inputs.formats.json_lines.reading:JsonLines",
        (".jsonl", ".ndjson"),
        ("columns", "column_types", "on_bad_record", "max_record_size", "numpy_types"),
        in_rows=False,
    ),
    FormatEntry(
        "json",
        "mpi_prs.inputs.formats.json_lines.reading:JsonArrays",
        (".json",),
        ("columns", "column_types", "on_bad_record", "max_record_size", "numpy_types"),
        in_rows=False,
    ),
    FormatEntry(
        "hdf5",
        "mpi_prs.inputs.formats.hdf5.reading:Hdf5",
        (".h5", ".hdf5", ".hdf"),
        ("columns", "dataset", "numpy_types"),
        in_rows=True,
    ),
)

FORMATS: Mapping[str, FormatEntry] = {entry.name: entry for entry in _ENTRIES}
"""Name → format."""

BY_CLASS: Mapping[str, FormatEntry] = {entry.class_name: entry for entry in _ENTRIES}
"""Name of the class, as in a manifest → format."""


def made_of(class_name: str, options: Mapping[str, Any]) -> TableFormat:
    """The format with its options, of what JSON makes of :func:`dataclasses.asdict`."""
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return BY_CLASS[class_name].make(**given)


_BY_SUFFIX = {suffix: entry for entry in _ENTRIES for suffix in entry.suffixes}


def suffix_of(pattern: str) -> str:
    """The suffix of a path, glob or URL that tells a format, in lower case and without that of a compression."""
    name = re.sub(r"[?#].*", "", pattern) if pattern.startswith(("http://", "https://")) else pattern
    name = name.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return PurePosixPath(name).suffix


def format_by_suffix(pattern: str) -> FormatEntry | None:
    """The format that the suffix of a path, glob or URL tells; ``None``: it tells none."""
    return _BY_SUFFIX.get(suffix_of(pattern))

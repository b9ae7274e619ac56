"""Delimited text to columns of texts: the slow and careful way, which knows of every record where it is."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from mpi_prs.inputs.formats.delimited.records import Dialect, Records, inside_quotes

_AT_ONCE = 2**25
"""Bytes that are parsed in one go; Arrow cannot do more than 2 GiB."""


class Texts(NamedTuple):
    """Columns of texts.

    Attributes:
        columns: name → list of binary arrays; missing values are null.
        rows: the number, among the records, of each row; int64.
        misshapen: the number of each record that is none, and why.
    """

    columns: dict[str, list[Any]]
    rows: Any
    misshapen: list[tuple[int, str]]


def texts_of(
    text: bytes,
    records: Records,
    dialect: Dialect,
    names: Sequence[str],
    wanted: Sequence[str],
    missing: Sequence[str],
    fill: bool,
) -> Texts:
    """Columns of some records.

    Args:
        text: UTF-8, valid or not.
        records: of this text.
        dialect: of the text.
        names: of the fields of a record.
        wanted: the columns to give, of these names.
        missing: texts that stand for a missing value.
        fill: fields that a record lacks at its end are missing values; else it is misshapen.
    """
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    if len(text) <= _AT_ONCE and records.plain and not records.open.any():
        counts = field_counts(text, records.starts, dialect)
        if (counts == len(names)).all():
            if wanted and len(counts):
                table = _parsed(text, len(counts), dialect, names, wanted, missing)
                columns = {name: table[name].chunks for name in wanted}
            return Texts(columns, np.arange(len(counts)), [])
    misshapen = [(number, _open_quote(dialect)) for number in np.flatnonzero(records.open).tolist()]
    rows: list[Any] = [np.zeros(0, np.int64)]
    left = np.flatnonzero(~records.open)
    sizes = np.cumsum(records.stops[left] - records.starts[left] + 1)
    total = int(sizes[-1]) if len(left) else 0
    groups = np.searchsorted(sizes, np.arange(_AT_ONCE, total, _AT_ONCE))
    for numbers in np.split(left, groups):
        well = _well_shaped(text, records, numbers, dialect, names, fill, misshapen)
        rows.append(np.array([number for number, _ in well], np.int64))
        if well and wanted:
            joined = b"\n".join([record for _, record in well])
            table = _parsed(joined, len(well), dialect, names, wanted, missing)
            for name in wanted:
                columns[name] += table[name].chunks
    return Texts(columns, np.concatenate(rows), sorted(misshapen))


def _open_quote(dialect: Dialect) -> str:
    if dialect.multi_line:
        return "the quoted value that begins here does not end in this file"
    return "a quoted value does not end in this line; if values hold line breaks, set support_multi_line: true"


def _well_shaped(
    text: bytes,
    records: Records,
    numbers: Any,
    dialect: Dialect,
    names: Sequence[str],
    fill: bool,
    misshapen: list[tuple[int, str]],
) -> list[tuple[int, bytes]]:
    """The records, filled up to the number of names; others are noted as misshapen."""
    starts, stops = records.starts[numbers], records.stops[numbers]
    found = [text[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    counts = field_counts(b"\n".join(found), np.cumsum(stops - starts + 1) - (stops - starts + 1), dialect)
    well = []
    for number, record, count in zip(numbers.tolist(), found, counts.tolist(), strict=True):
        if count > len(names) or (count < len(names) and not fill):
            few = "" if count > len(names) else ", and fill_missing_fields is not set"
            misshapen.append((number, f"{count} field{'s'[: count > 1]} where {len(names)} are expected{few}"))
        else:
            well.append((number, record + dialect.separator * (len(names) - count)))
    return well


def field_counts(text: bytes, starts: Any, dialect: Dialect) -> Any:
    """How many fields each record of a text has; int64. No quoted value in it is open."""
    array: Any = np.frombuffer(text, np.uint8)
    separators = np.flatnonzero(array == dialect.separator[0])
    if dialect.quote:
        hidden, _ = inside_quotes(text, array, separators, dialect, False)
        separators = separators[~hidden]
    return np.diff(np.searchsorted(separators, starts), append=len(separators)) + 1


def _parsed(
    text: bytes,
    rows: int,
    dialect: Dialect,
    names: Sequence[str],
    wanted: Sequence[str],
    missing: Sequence[str],
) -> Any:
    table = pc.read_csv(
        pa.BufferReader(_shielded(text)),
        pc.ReadOptions(use_threads=False, block_size=len(text) + 2, column_names=list(names)),
        parse_options(dialect),
        pc.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.binary()),
            include_columns=list(wanted),
            null_values=list(missing),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )
    if table.num_rows != rows:
        raise AssertionError(f"{table.num_rows} rows came of {rows} records")
    return table


def parse_options(dialect: Dialect) -> Any:
    """A dialect as Arrow takes it; a block of text is always parsed as a whole."""
    return pc.ParseOptions(
        delimiter=dialect.separator.decode(),
        quote_char=dialect.quote.decode() or False,
        newlines_in_values=bool(dialect.quote),
    )


def _shielded(text: bytes) -> bytes:
    """Arrow drops a byte order mark at the beginning; this one is part of the text."""
    return b"\n" + text if text.startswith(codecs.BOM_UTF8) else text

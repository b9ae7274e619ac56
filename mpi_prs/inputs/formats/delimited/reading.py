"""Reads parts of delimited text: with Arrow alone where that gives what pandas gives, carefully where it does not."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow import nullable_dtype
from mpi_prs.inputs.formats.compression import compression_of, decompressed
from mpi_prs.inputs.formats.delimited.encoding import Encoding, encoding_of
from mpi_prs.inputs.formats.delimited.records import (
    Dialect,
    Records,
    begins_inside,
    ends_of_values,
    inside_quotes,
    line_breaks,
    masked,
    records_of,
)
from mpi_prs.inputs.formats.delimited.text import (
    LongRecord,
    Opener,
    Text,
    bytes_between,
    column_names,
    count_line_breaks,
    lines_between,
    squeezed_chunks,
    too_long,
)
from mpi_prs.inputs.formats.format import MOST_TOLD, TOLD, BadRecord, Batch, Part, length_of, reading
from mpi_prs.inputs.formats.text_columns import FALSE, TRUE, NumberStyle, is_integer_text, to_datetimes, to_values

_LOOK_BACK = 2**16
"""Bytes before a part in which a quoted value that goes on in it is looked for."""
_AT_ONCE = 2**25
"""Bytes that are parsed in one go; Arrow cannot do more than 2 GiB."""
_ONE_BLOCK = 2**25
"""Text up to this size is parsed as one block; of longer text, Arrow takes blocks of this size."""
_SOMETHING = re.compile(rb"[^\r\n]")


class _Doubt(Exception):
    """Arrow may have read something in another way than pandas would."""


@dataclass(frozen=True)
class ColumnTypes:
    """What the columns of a table are.

    Attributes:
        schema: the columns to give, in order, with their types; one that is not nullable has a value in every record.
        formats: datetime format of each column that has one.
        style: of numbers.
        missing: texts that stand for a missing value.
        whole_texts: in a column of text none does.
        fill: fields that a record lacks at its end are missing values.
    """

    schema: Any
    formats: dict[str, str]
    style: NumberStyle
    missing: tuple[str, ...]
    whole_texts: bool
    fill: bool


class _Bad(NamedTuple):
    """What is wrong with a record: in which column, if in one; ``type``: one that would take the value, or empty."""

    column: str | None
    problem: str
    type: str


class DelimitedReader:
    """Reads parts; keeps the file open.

    Args:
        opener: of the dataset's files.
        columns: to give.
        names: of the fields of every file's records; ``None``: each file's own header tells.
        headed: the file that has a header, if only one has; ``None``: none has, or ``names`` is ``None``.
        all_headed: whether all files have one.
        skip: leave bad records out.
        watched: lines may be pieces of quoted values with line breaks, which the sample did not show.
    """

    def __init__(
        self,
        opener: Opener,
        columns: ColumnTypes,
        names: Sequence[str] | None,
        headed: str | None,
        all_headed: bool,
        skip: bool,
        watched: bool,
    ) -> None:
        self._opener = opener
        self._columns = columns
        # Comments are left out as soon as text is read
        self._dialect = opener.dialect._replace(comment=b"")
        self._names = names
        self._headed = headed
        self._all_headed = all_headed
        self._skip = skip
        self._most_told = TOLD
        self._watched = watched
        self._convert = _convert_options(columns, False)
        self._convert_grouped = _convert_options(columns, True)
        types = columns.schema
        self._integers = any(pa.types.is_integer(each.type) for each in types)
        self._floats = [each.name for each in types if pa.types.is_floating(each.type)]
        self._full = [each.name for each in types if not each.nullable]
        self._path = ""
        self._file: BinaryIO | None = None
        self._size = 0
        self._encoding = Encoding(opener.encoding, 1, 0)
        self._own_names: Sequence[str] = ()
        self._floor = 0

    def tell_of_all_bad_records(self) -> None:
        self._skip, self._most_told = True, MOST_TOLD

    def read(self, part: Part) -> Batch:
        """The rows of a part. Memory: its bytes, its columns, and as much again while Arrow parses.

        Costs what ``pyarrow.csv.read_csv`` costs and 3 to 13 % more; about six times that for a part in which something
        is unusual: a bad record, one with too few fields, a number such as ``+1``, blank lines of a table with quotes.

        Raises:
            InputError: the file cannot be read, or has a bad record that may not be skipped.
        """
        try:
            with reading(part.file):
                names, text = self._text(part)
        except InputError:
            self.close()  # the next try opens it anew
            raise
        if _SOMETHING.search(text.data, text.start, text.stop) is None:
            return Batch(self._columns.schema.empty_table())
        if self._watched and begins_inside(text.before, text.data, text.start, text.stop, self._dialect):
            raise self._torn(part, text, 0, "it seems to be inside a quoted value that began before")
        try:
            return Batch(self._finished(self._quickly(text, names)))
        except (pa.ArrowException, _Doubt):
            return self._carefully(part, names, text)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._path = ""

    def _text(self, part: Part) -> tuple[Sequence[str], Text]:
        """The names of a record's fields, and the text of a part, without comments.

        Raises OSError, EOFError, InputError.
        """
        names, text = self._raw_text(part)
        return names, text.without_comments(self._opener.dialect)

    def _raw_text(self, part: Part) -> tuple[Sequence[str], Text]:
        if compression_of(part.file):
            return self._decompressed(part.file)
        if self._file is None or self._path != part.file:
            self.close()
            head = self._opener.head(part.file) if self._names is None or self._opener.skipped else None
            self._floor = head.start if head else 0
            self._own_names = column_names(head.fields) if head and self._names is None else self._names or ()
            self._file = self._opener.store.open(part.file)
            self._size = length_of(self._file)
            self._file.seek(0)
            self._encoding = encoding_of(self._opener.encoding, self._file.read(4))
            self._path = part.file
        if self._dialect.multi_line:
            return self._own_names, bytes_between(self._file, self._encoding, part.start, part.stop)
        longest = self._opener.longest
        try:
            look_back = _LOOK_BACK if self._watched else 0
            text = lines_between(
                self._file, self._encoding, part.start, part.stop, self._size, longest, look_back, self._floor
            )
        except LongRecord as error:
            raise too_long(self._file, self._encoding, part.file, error, longest) from None
        return self._own_names, text

    def _decompressed(self, path: str) -> tuple[Sequence[str], Text]:
        with self._opener.store.open(path) as file:
            data = decompressed(file, path)
        head = self._opener.head_of(data, True, path)
        assert head is not None  # the whole file is there
        self._encoding = head.encoding
        names = column_names(head.fields) if self._names is None else self._names
        start = head.second if self._all_headed or path == self._headed else head.start
        return names, Text.of(head.encoding, data, start, len(data), start)

    # All at once

    def _quickly(self, text: Text, names: Sequence[str]) -> Any:
        """The rows, read by Arrow. Raises ArrowException or _Doubt: look closer."""
        dialect = self._dialect
        is_escaped = bool(dialect.escape) and text.has(dialect.escape)
        if self._integers and (text.has(b"x") or text.has(b"X")):
            _doubt_if(is_escaped or _has_hexadecimal(text))
        if len(names) == 1 and any(text.has(bytes([blank])) for blank in dialect.blanks):
            _doubt_if(_has_line_of_blanks(text))
        _doubt_if(text.data.startswith(codecs.BOM_UTF8, text.start))  # Arrow drops it, but here it is text
        size = text.stop - text.start
        table = pa.csv.read_csv(
            pa.BufferReader(pa.py_buffer(text.data).slice(text.start, size)),
            pa.csv.ReadOptions(use_threads=False, block_size=min(size + 1, _ONE_BLOCK), column_names=list(names)),
            parse_options(dialect),
            self._convert_grouped if self._is_grouped(text) else self._convert,
        )
        if is_escaped or (dialect.quote and text.has(dialect.quote)):
            self._check_quotes(text, table.num_rows)
        table = self._ungrouped(table)
        for name in self._floats:
            _doubt_if(pc.any(pc.is_nan(table[name])).as_py())  # pandas takes NAN for text
        for name in self._full:
            _doubt_if(table[name].null_count)
        return table

    def _is_grouped(self, text: Text) -> bool:
        """Whether there may be numbers with separated thousands, which Arrow does not read."""
        return bool(self._columns.style.thousands) and text.has(self._columns.style.thousands.encode())

    def _ungrouped(self, table: Any) -> Any:
        """The table with numbers of the columns that were read as text for that."""
        for number, field in enumerate(self._columns.schema):
            column = table.column(number)
            if column.type == field.type or field.name in self._columns.formats:
                continue
            chunks = [to_values(chunk, field.type, style=self._columns.style) for chunk in column.chunks]
            _doubt_if(sum(chunk.null_count for chunk in chunks) > column.null_count)
            table = table.set_column(number, field.name, pa.chunked_array(chunks, field.type))
        return table

    def _check_quotes(self, text: Text, rows: int) -> None:
        """Arrow takes line breaks inside quotes, and behind an escape, and a quoted value that does not end."""
        dialect = self._dialect
        if dialect.escape and text.has(dialect.escape):
            content = masked(text.content, dialect)
            text = Text(content, 0, len(content), text.offset)
        if not dialect.quote:
            _doubt_if(text.has(dialect.escape))
            return
        if dialect.multi_line:
            _doubt_if(text.count(dialect.quote) % 2 == 1)
            return
        _doubt_if(self._watched and text.count(dialect.quote) % 2 == 1)
        data, end = text.data, text.stop
        lines = text.count(b"\n")
        if text.has(b"\r"):
            lines += text.count(b"\r") - data.count(b"\r\n", text.start, end)
        while end > text.start and data[end - 1] in b"\r\n":
            end -= 1
        _doubt_if(lines + (end == text.stop) != rows)
        start = max(data.rfind(b"\n", text.start, end), data.rfind(b"\r", text.start, end), text.start - 1) + 1
        _doubt_if(bool(records_of(data[start:end], dialect).open.any()))

    def _finished(self, table: Any) -> Any:
        """The table with its datetimes, and with what pandas is to be told."""
        for name, format in self._columns.formats.items():
            number = table.column_names.index(name)
            chunks = [to_datetimes(chunk, format) for chunk in table.column(number).chunks]
            _doubt_if(sum(chunk.null_count for chunk in chunks) > table.column(number).null_count)
            table = table.set_column(number, name, pa.chunked_array(chunks, pa.timestamp("us")))
        return table.replace_schema_metadata(self._columns.schema.metadata)

    # Value by value

    def _carefully(self, part: Part, names: Sequence[str], text: Text) -> Batch:
        columns = self._columns
        dialect = self._dialect
        content = text.content
        records = records_of(content, dialect)
        wanted = [name for name in columns.schema.names if name in set(names)]
        if self._watched:
            self._check_lines(part, text, records)
        is_whole = {each.name for each in columns.schema if columns.whole_texts and pa.types.is_string(each.type)}
        others = [name for name in wanted if name not in is_whole]
        texts = texts_of(content, records, dialect, names, others, columns.missing, columns.fill)
        if is_whole:
            whole = [name for name in wanted if name in is_whole]
            texts.columns.update(texts_of(content, records, dialect, names, whole, (), columns.fill).columns)
        bad = {number: _Bad(None, problem, "") for number, problem in texts.misshapen}
        misfits: Any = np.zeros(len(texts.rows), bool)
        arrays = []
        for field in columns.schema:
            if field.name in texts.columns:
                column = pa.chunked_array(texts.columns[field.name], pa.binary()).combine_chunks()
            else:
                column = pa.nulls(len(texts.rows), pa.binary())
            values, wrong = self._values(field, column)
            arrays.append(values)
            for row in wrong[: self._most_told].tolist():
                bad.setdefault(int(texts.rows[row]), _misfit(field, column.slice(row, 1), columns))
            misfits[wrong] = True
        table = pa.Table.from_arrays(arrays, names=columns.schema.names)
        table = table.replace_schema_metadata(columns.schema.metadata)
        if not bad:
            return Batch(table)
        told = self._told(part, text, records, bad)
        if not self._skip:
            raise InputError(f"{told[0]}; {self._advice(bad[min(bad)])}")
        kept = pa.Array.from_buffers(
            pa.bool_(), len(misfits), [None, pa.py_buffer(np.packbits(~misfits, bitorder="little").tobytes())]
        )
        skipped = len(texts.misshapen) + int(misfits.sum())
        return Batch(table.filter(kept), skipped, told)

    def _values(self, field: Any, texts: Any) -> tuple[Any, Any]:
        """A column's values, and the numbers of the rows in which there is none although there should be."""
        format = self._columns.formats.get(field.name)
        values = to_values(texts, field.type, format=format, style=self._columns.style)
        missing = pc.is_null(values)
        wrong = pc.indices_nonzero(pc.and_(pc.is_valid(texts), missing) if field.nullable else missing)
        return values, np.frombuffer(wrong.buffers()[1], np.uint64, len(wrong)).astype(np.int64)

    def _check_lines(self, part: Part, text: Text, records: Records) -> None:
        """Raises InputError: one of the lines seems to be a piece of a quoted value."""
        if records.open.any():
            number = int(records.open.argmax())
            problem = f"a {_open_value(self._dialect)} does not end in this line"
            raise self._torn(part, text, int(records.lines[number]), problem)
        if self._dialect.quote and (ends := ends_of_values(text.content, records, self._dialect)):
            problem = "it seems to be the end of a quoted value that began on a line before"
            raise self._torn(part, text, int(records.lines[ends[0]]), problem)

    def _torn(self, part: Part, text: Text, lines: int, problem: str) -> InputError:
        """What to say of a part whose lines may be pieces of values; the problem is after so many of its lines."""
        with reading(part.file):
            line = self._lines_before(part.file, text.offset) + lines + 1
        return InputError(
            f"{BadRecord(part.file, line, None, problem)}. Nothing of this mini-batch is read, as its lines may be "
            "pieces of values: set support_multi_line: true if values hold line breaks, or quote: '' if quotes are none"
        )

    def _told(self, part: Part, text: Text, records: Records, bad: dict[int, _Bad]) -> list[BadRecord]:
        """The first of the bad records, with their lines. Reads the file up to the part, to count them."""
        with reading(part.file):
            before = self._lines_before(part.file, text.offset)
        return [
            BadRecord(part.file, before + int(records.lines[number]) + 1, bad[number].column, bad[number].problem)
            for number in sorted(bad)[: self._most_told]
        ]

    def _advice(self, bad: _Bad) -> str:
        also = ""
        if bad.type:
            also = f", name the column's type in column_types (such as {bad.column}: {bad.type})"
        elif bad.column is not None:
            also = f", set encoding (it is {self._opener.encoding} now)"
        return f"correct it{also}, or leave such records out with on_bad_record: skip_and_count"

    def _lines_before(self, path: str, offset: int) -> int:
        encoding = self._encoding
        if compression_of(path):
            with self._opener.store.open(path) as file:
                return count_line_breaks(iter([encoding.squeezed(decompressed(file, path)[:offset])]))
        assert self._file is not None
        return count_line_breaks(squeezed_chunks(self._file, encoding, encoding.bom, offset))


def _doubt_if(condition: object) -> None:
    if condition:
        raise _Doubt


def _convert_options(columns: ColumnTypes, numbers_as_text: bool) -> Any:
    as_text = set(columns.formats)
    if numbers_as_text:
        as_text |= {each.name for each in columns.schema if pa.types.is_integer(each.type)}
        as_text |= {each.name for each in columns.schema if pa.types.is_floating(each.type)}
    return pa.csv.ConvertOptions(
        column_types={each.name: pa.string() if each.name in as_text else each.type for each in columns.schema},
        include_columns=columns.schema.names,
        include_missing_columns=True,
        null_values=list(columns.missing),
        strings_can_be_null=not columns.whole_texts,
        quoted_strings_can_be_null=True,
        true_values=list(TRUE),
        false_values=list(FALSE),
        decimal_point=columns.style.decimal,
    )


def _has_hexadecimal(text: Text) -> bool:
    """Whether ``0x`` is anywhere: Arrow reads ``0x1F`` as an integer."""
    for piece in text.pieces(overlap=1):
        found = (piece[1:] | 0x20) == ord("x")
        found &= piece[:-1] == ord("0")
        if found.any():
            return True
    return False


def _has_line_of_blanks(text: Text) -> bool:
    """Whether a line may hold only blanks: Arrow takes them for the value of a table's only column."""
    array: Any = np.frombuffer(text.data, np.uint8, text.stop - text.start, text.start)
    _, starts = line_breaks(array)
    starts = np.concatenate([[0], starts])
    first = array[starts[starts < len(array)]]
    return bool(((first == ord(" ")) | (first == ord("\t"))).any())


def shown(value: bytes) -> str:
    """A value for a message."""
    text = value.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 100 else text[:100] + "…")


def _misfit(field: Any, texts: Any, columns: ColumnTypes) -> _Bad:
    """Why a text is no value of a column.

    Args:
        texts: binary array of this one, null where the value is missing.
    """
    described = _described(field, columns)
    if texts.null_count:
        problem = f"a value is missing, where {described} is expected in every record"
        return _Bad(field.name, problem, nullable_dtype(field.type) or "")
    problem = f"{shown(texts[0].as_py())} is not {described}"
    if pa.types.is_string(field.type):
        return _Bad(field.name, problem, "")
    is_fraction = not to_values(texts, pa.float64(), style=columns.style).null_count
    is_fraction &= not is_integer_text(texts, columns.style)[0].as_py()
    return _Bad(field.name, problem, "float64" if is_fraction else "string")


def _described(field: Any, columns: ColumnTypes) -> str:
    if field.name in columns.formats:
        return f"a datetime of the format {columns.formats[field.name]}"
    if pa.types.is_timestamp(field.type):
        return "a datetime such as 2024-01-31 12:30:00"
    if pa.types.is_string(field.type):
        return "text in the file's encoding"
    name = re.sub("^double$", "float64", re.sub("^float$", "float32", str(field.type)))
    return f"{'an' if name[0] in 'iu' else 'a'} {name}"


# Columns of texts: the slow and careful way, which knows of every record where it is


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
        return f"the {_open_value(dialect)} that begins here does not end in this file"
    return (
        f"a {_open_value(dialect)} does not end in this line; if values hold line breaks, set support_multi_line: true"
    )


def _open_value(dialect: Dialect) -> str:
    return "value with an escaped or quoted line break" if dialect.escape else "quoted value"


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
    text = masked(text, dialect)
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
    table = pa.csv.read_csv(
        pa.BufferReader(_shielded(text)),
        pa.csv.ReadOptions(use_threads=False, block_size=len(text) + 2, column_names=list(names)),
        parse_options(dialect),
        pa.csv.ConvertOptions(
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
    return pa.csv.ParseOptions(
        delimiter=dialect.separator.decode(),
        quote_char=dialect.quote.decode() or False,
        escape_char=dialect.escape.decode() or False,
        newlines_in_values=dialect.may_break_lines,
    )


def _shielded(text: bytes) -> bytes:
    """Arrow drops a byte order mark at the beginning; this one is part of the text."""
    return b"\n" + text if text.startswith(codecs.BOM_UTF8) else text

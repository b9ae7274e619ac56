"""Delimited text (CSV and its kin), read as ``pandas.read_csv`` reads it, in parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow import pack_schema, unpack_schema
from mpi_prs.inputs.formats.casting import casts
from mpi_prs.inputs.formats.compression import COMPRESSED, compression_of
from mpi_prs.inputs.formats.delimited.encoding import may_be_half_of_another, normal_name
from mpi_prs.inputs.formats.delimited.reading import ColumnTypes, DelimitedReader
from mpi_prs.inputs.formats.delimited.records import Dialect, record_ends, without_comments
from mpi_prs.inputs.formats.delimited.survey import OddValue, SampleFindings, choose, sample
from mpi_prs.inputs.formats.delimited.text import (
    Head,
    Opener,
    OpenQuote,
    column_names,
    count_line_breaks,
    squeezed_chunks,
)
from mpi_prs.inputs.formats.format import (
    MAX_RECORD_SIZE,
    BatchSize,
    DamagedFile,
    Files,
    Part,
    check_record_size,
    quoted,
    reading,
    record_too_long,
)
from mpi_prs.inputs.formats.inference import Mixture, type_of
from mpi_prs.inputs.formats.lines import parts_at_ends
from mpi_prs.inputs.formats.missing import for_pandas
from mpi_prs.inputs.formats.text_columns import MISSING, NumberStyle
from mpi_prs.inputs.formats.told import Doubt, Told, told_columns

_BLANKS = 2**16
"""So many bytes at the end of a file may turn out to be blank lines."""
_SHOWN = 80
"""Characters of a value in a message."""

Header = Literal["all_files_have_same_headers", "only_first_file_has_headers", "no_header", "combine_all_files_headers"]
_HEADERS = (
    "all_files_have_same_headers",
    "only_first_file_has_headers",
    "no_header",
    "combine_all_files_headers",
)


@dataclass(frozen=True)
class Delimited:
    """Delimited text. All mini-batches together are what ``pandas.read_csv`` makes of the whole, exact floats included.

    Columns and their types come from a sample of at most 8 MiB: the beginnings of files, the ends, and places between;
    a smaller dataset is looked at as a whole. They are the same in all mini-batches, and a value that does not fit
    makes its record bad; so does a missing one in a column of whole numbers or booleans, unless the sample has some,
    too, or ``column_types`` says ``Int64`` or ``boolean``. What differs from pandas:

    - Whole numbers and booleans beside missing values are ``Int64`` and ``boolean``, not float64 and object: no number
      loses digits.
    - A record with more fields than there are columns, or with fewer, is bad; pandas may make an index of the former,
      and fills the latter up.
    - Without ``support_multi_line``, and if the sample does not show that it is wanted, each line is a record. Where a
      quoted value does not end in its line, all of the part fails, as its lines may be pieces of values; of such lines
      in the sample that line breaks inside quotes do not explain, each alone is bad.
    - A column of integers beyond 64 bits is text; so is one of numbers with two ``thousands`` next to each other.
    - A line with nothing but blanks before its comment is none.

    Files are cut at line breaks by the readers, so that splitting reads nothing but the header. With
    ``support_multi_line`` each file is read once to find the ends of its records, as a stream. A compressed file (see
    :mod:`~mpi_prs.inputs.formats.compression`) is one mini-batch.

    Attributes:
        separator: between values; one ASCII character.
        header: whether the first record has names of columns. In the files of ``combine_all_files_headers`` columns may
            differ, and those that a file lacks are missing values; with ``no_header`` they are ``Column1`` and so on.
        encoding: one that Python knows and that contains ASCII, or UTF-16, or UTF-32; a byte order mark is passed over.
        quote: around values, doubled inside them; one ASCII character, or empty for none.
        support_multi_line: line breaks may be inside quotes.
        columns: to select, in this order; default: all.
        column_types: column → type, see :func:`~mpi_prs.inputs.formats.types.parse_column_type`.
        on_bad_record: the mini-batch fails, or the record is left out and counted.
        decimal: the decimal point.
        thousands: what may stand between the digits of a number, before the decimal point; one ASCII character, which
            may be the separator where numbers are quoted; empty: nothing.
        escape: one ASCII character, or empty for none: the one behind it is part of a value, whatever it is.
        comment: one ASCII character, or empty for none: outside quotes, the rest of its line is passed over.
        skip_rows: lines at the beginning of each file that are passed over, be they blank or comments.
        na_values: texts that stand for a missing value, on top of those of pandas.
        fill_missing_fields: fields that a record lacks at its end are missing values.
        max_record_size: bytes that are read, at most, to find where a record ends.
        infer_column_types: else every column is text, but for those of ``column_types``.
        empty_as_string: nothing in a column of text is a missing value: empty fields are empty text, ``NA`` is ``NA``.
        numpy_types: see :mod:`~mpi_prs.inputs.formats.missing`.

    Raises:
        InputError: an option is not as described here.
    """

    separator: str = ","
    header: Header = "all_files_have_same_headers"
    encoding: str = "utf-8"
    quote: str = '"'
    support_multi_line: bool = False
    columns: tuple[str, ...] = ()
    column_types: Mapping[str, str] = field(default_factory=dict)
    on_bad_record: Literal["fail", "skip_and_count"] = "fail"
    decimal: str = "."
    thousands: str = ""
    escape: str = ""
    comment: str = ""
    skip_rows: int = 0
    na_values: tuple[str, ...] = ()
    fill_missing_fields: bool = False
    max_record_size: int = MAX_RECORD_SIZE
    infer_column_types: bool = True
    empty_as_string: bool = False
    numpy_types: bool = False

    def __post_init__(self) -> None:
        self._check_characters()
        if not isinstance(self.skip_rows, int) or self.skip_rows < 0:
            raise InputError(f"skip_rows: {self.skip_rows!r}: expected a number of lines, at least 0")
        for name, value, known in (
            ("header", self.header, _HEADERS),
            ("on_bad_record", self.on_bad_record, ("fail", "skip_and_count")),
        ):
            if value not in known:
                raise InputError(f"{name}: {value!r}: expected one of {', '.join(known)}")
        if len(set(self.columns)) < len(self.columns):
            raise InputError(f"columns: {quoted(self.columns)}: a column can be selected once only")
        try:
            normal_name(self.encoding)
        except ValueError as error:
            raise InputError(f"encoding: {error}") from None
        for name in ("quote", "escape", "comment"):
            character = getattr(self, name)
            if character and may_be_half_of_another(character, normal_name(self.encoding)):
                raise InputError(
                    f"{name}: {character!r} can be half of another character in the encoding {self.encoding}; convert "
                    "the files to UTF-8, such as with iconv"
                )
        check_record_size(self.max_record_size)
        casts(self.column_types)

    def _check_characters(self) -> None:
        names = ("separator", "quote", "decimal", "thousands", "escape", "comment")
        given = {name: value for name in names if (value := getattr(self, name)) or name in ("separator", "decimal")}
        for name, value in given.items():
            if len(value) != 1 or not value.isascii() or value in "\r\n\0":
                also = "" if name in ("separator", "decimal") else ", or empty for none"
                raise InputError(f"{name}: {value!r}: expected one ASCII character, no line break{also}")
        for first, second in itertools.combinations(given, 2):
            quoted_numbers = {first, second} == {"separator", "thousands"} and self.quote
            if given[first] == given[second] and not quoted_numbers:
                raise InputError(f"{first} and {second} are both {given[first]!r}: they must be different")
        if self.thousands.isalnum() or self.thousands in ("+", "-"):
            raise InputError(f"thousands: {self.thousands!r} is itself a part of numbers or words")

    def survey(self, files: Callable[[], Iterator[str]], store: Files) -> dict[str, Any]:
        """Columns and types from a sample; about 0.2 s, and the time to open at most 257 files.

        With ``combine_all_files_headers`` all files are opened, for their headers. Where the sample shows line breaks
        inside quotes, the dataset is read with ``support_multi_line``, and that is told as a doubt.

        Raises:
            InputError: a file cannot be read, two of those of the sample do not have the same header, or a column
                does not exist.
        """
        multi_line = self.support_multi_line and bool(self.quote or self.escape)
        problem: OpenQuote | None = None
        try:
            survey, found = self._surveyed(files, store, multi_line)
        except OpenQuote as error:
            problem = error
        if multi_line or (problem is None and not found.torn):
            if problem is not None:
                raise problem
            return survey
        with suppress(InputError):
            other, found = self._surveyed(files, store, True)
            if (found.multi_line or problem is not None) and found.multi_line >= found.torn:
                return _doubted(
                    other,
                    f"{other['first']}: quoted values hold line breaks, so support_multi_line is on: each file is read "
                    "once before the first mini-batch. Set it in the job config to say so, or quote: '' if quotes mean "
                    "nothing",
                )
        if problem is not None:
            raise problem
        return _doubted(
            {**survey, "watched": False},
            f"{survey['first']}: in some lines quotes do not open and close values as they should; each line is taken "
            "for a record, and one in which a quoted value does not end is bad. Set quote: '' if quotes mean nothing",
        )

    def _surveyed(
        self, files: Callable[[], Iterator[str]], store: Files, multi_line: bool
    ) -> tuple[dict[str, Any], SampleFindings]:
        """The survey, and what the sample tells, if line breaks may be inside quotes, or may not."""
        opener = self._opener(store, multi_line)
        first, names = self._first(files, opener)
        survey: dict[str, Any] = {"first": first, "names": names, "multi_line": multi_line}
        lacking: set[str] = set()
        if self.header == "combine_all_files_headers":
            lacking = _combine(files, opener, names)
        found = SampleFindings()
        for piece in sample(
            choose(files()),
            lambda path, head: self._names(path, head, survey),
            lambda path, head: self._body(path, head, survey),
            opener,
        ):
            if piece is None:
                found.whole = False
            else:
                found.add(piece, opener, self._missing(), self.fill_missing_fields, self._style())
        if first is not None:
            for key, asked in (("columns", self.columns), ("column_types", tuple(self.column_types))):
                if unknown := [name for name in asked if name not in names]:
                    raise InputError(f"{key}: {quoted(unknown)} not found in {first}; its columns are {quoted(names)}")
        chosen = casts(self.column_types)
        looked_at = f"{'all' if found.whole else 'a sample of'} {found.records:,} records"
        origins: dict[str, str] = {}
        doubts: list[Doubt] = []
        fields, may_be_missing = [], []
        for name in self.columns or names:
            seen = found.seen.get(name, set()) | ({"missing"} if name in lacking else set())
            if name in chosen:
                type = chosen[name].type
            elif self.infer_column_types and not (self.empty_as_string and seen <= {"missing"}):
                type = type_of(seen, found.whole)
                if not seen - {"missing"}:
                    origins[name] = f"no value in {looked_at}"
                if pa.types.is_floating(type) and "long" in seen:
                    doubts.append(
                        Doubt(
                            name,
                            f"column {name!r} has fractions, and whole numbers beyond 2^53, which lose digits as "
                            "float64; string in column_types keeps them",
                        )
                    )
                if pa.types.is_string(type) and name in found.odd and found.mixtures[name].nearly_numbers:
                    doubts.append(_nearly_numbers(name, found.mixtures[name], found.odd[name], store))
            else:
                type = pa.string()
                origins[name] = "empty_as_string" if self.infer_column_types else "infer_column_types: false"
            fields.append(pa.field(name, type))
            if "missing" in seen:
                may_be_missing.append(name)
        schema = pa.schema(fields if first is not None else [])
        schema = for_pandas(schema, may_be_missing, chosen, self.numpy_types)
        survey["schema"] = pack_schema(schema)
        survey["told"] = Told(told_columns(schema, looked_at, chosen, origins), doubts).to_json()
        survey["bytes_per_record"] = max(found.bytes / max(found.records, 1), 1.0)
        survey["longest_record"] = found.longest
        survey["watched"] = bool(self.quote or self.escape) and not multi_line and not found.whole
        return survey, found

    def split(self, file: str, size: BatchSize, survey: dict[str, Any], store: Files) -> Iterator[Part]:
        """Parts of about equal size, not shorter than the longest record of the sample.

        Reads the header; with ``support_multi_line`` the whole file, as the parts are asked for: 4 MiB at a time, at
        some hundred MB/s. A number of rows is turned into bytes by the sample.

        Raises:
            InputError: the file cannot be read, or its header is not that of the first file.
        """
        opener = self._opener(store, survey["multi_line"])
        try:
            head = opener.head(file)
        except DamagedFile:
            yield Part(file, 0, store.size(file), 1)  # a damaged file fails by itself, when it is read
            return
        if not head.fields:
            return
        self._names(file, head, survey)
        body = self._body(file, head, survey)
        if body >= head.second and not head.more:
            return
        length = store.size(file)
        per_record = survey["bytes_per_record"] * head.encoding.unit
        if compression_of(file):
            yield Part(file, 0, length, max(1, round(length * COMPRESSED / per_record)))
            return
        step = size.in_bytes(per_record, length)
        if survey["multi_line"]:
            yield from self._split_at_ends(file, body, length, step, head, opener)
            return
        longest = survey["longest_record"] * head.encoding.unit
        count = max(1, min(-(-(length - body) // step), (length - body) // longest))
        units = (length - body) // head.encoding.unit
        at = [body + units * number // count * head.encoding.unit for number in range(count)]
        for start, stop in zip(at, [*at[1:], length], strict=True):
            yield Part(file, start, stop, max(1, round((stop - start) / per_record)))

    def reader(self, survey: dict[str, Any], store: Files) -> DelimitedReader:
        """A reader of parts."""
        schema = unpack_schema(survey["schema"])
        chosen = casts(self.column_types)
        columns = ColumnTypes(
            schema,
            {name: cast.format for name, cast in chosen.items() if cast.format and name in schema.names},
            self._style(),
            self._missing(),
            self.empty_as_string,
            self.fill_missing_fields,
        )
        combined = self.header == "combine_all_files_headers"
        return DelimitedReader(
            self._opener(store, survey["multi_line"]),
            columns,
            None if combined else survey["names"],
            survey["first"] if self.header == "only_first_file_has_headers" else None,
            combined or self.header == "all_files_have_same_headers",
            self.on_bad_record == "skip_and_count",
            survey["watched"],
        )

    def _opener(self, store: Files, multi_line: bool) -> Opener:
        characters = (self.separator.encode(), self.quote.encode())
        dialect = Dialect(*characters, multi_line, self.escape.encode(), self.comment.encode())
        return Opener(store, normal_name(self.encoding), dialect, self.max_record_size, self.skip_rows)

    def _style(self) -> NumberStyle:
        return NumberStyle(self.decimal, self.thousands)

    def _missing(self) -> tuple[str, ...]:
        return (*MISSING, *self.na_values)

    def _first(self, files: Callable[[], Iterator[str]], opener: Opener) -> tuple[str | None, list[str]]:
        """The first file that is not empty, and the names of its columns. Raises DamagedFile: none can be read."""
        damaged: DamagedFile | None = None
        for path in files():
            try:
                fields = opener.head(path).fields
            except DamagedFile as error:  # it fails by itself, when it is read
                if self.header == "only_first_file_has_headers":
                    raise DamagedFile(f"{error}: as the first file it has the header") from None
                damaged = damaged or error
                continue
            if fields:
                if self.header == "no_header":
                    return path, [f"Column{number}" for number in range(1, len(fields) + 1)]
                return path, column_names(fields)
        if damaged is not None:
            raise damaged
        return None, []

    def _names(self, path: str, head: Head, survey: dict[str, Any]) -> list[str]:
        """The names of the fields of a file's records. Raises InputError: the header is not that of the first file."""
        names: list[str] = survey["names"]
        if self.header in ("no_header", "only_first_file_has_headers"):
            return names
        own = column_names(head.fields)
        if self.header == "all_files_have_same_headers" and own != names:
            number = next((at for at, pair in enumerate(zip(own, names, strict=False)) if pair[0] != pair[1]), None)
            if number is None:
                difference = f"has {len(own)} columns where {survey['first']} has {len(names)}"
            else:
                difference = f"has column {own[number]!r} where {survey['first']} has {names[number]!r}"
            raise InputError(
                f"{path} {difference}; set header: combine_all_files_headers if files have different columns, or "
                "no_header or only_first_file_has_headers if there is no header in them"
            )
        return own

    def _body(self, path: str, head: Head, survey: dict[str, Any]) -> int:
        """The offset at which the records begin."""
        if self.header == "no_header" or (self.header == "only_first_file_has_headers" and path != survey["first"]):
            return head.start
        return head.second

    def _split_at_ends(
        self, file: str, body: int, length: int, step: int, head: Head, opener: Opener
    ) -> Iterator[Part]:
        """Parts that end with records, as the file streams by."""
        unit = head.encoding.unit
        last = body
        with reading(file), opener.store.open(file) as stream:
            try:
                chunks = squeezed_chunks(stream, head.encoding, body, length)
                ends = (each * unit + body for each in record_ends(chunks, opener.dialect, opener.longest))
                for part in parts_at_ends(file, body, ends, step, length):
                    if part.stop < length or not self._is_blank(stream, part, head, opener):
                        yield part
                    last = part.stop
            except OverflowError:
                line = count_line_breaks(squeezed_chunks(stream, head.encoding, head.encoding.bom, last)) + 1
                raise record_too_long(file, line, opener.longest, "at the earliest") from None

    def _is_blank(self, stream: BinaryIO, part: Part, head: Head, opener: Opener) -> bool:
        if part.stop - part.start > _BLANKS:
            return False
        stream.seek(part.start)
        text = head.encoding.squeezed(stream.read(part.stop - part.start))
        return not without_comments(text, opener.dialect).strip(opener.dialect.blanks + b"\r\n")


def _doubted(survey: dict[str, Any], doubt: str) -> dict[str, Any]:
    """The survey with one more doubt."""
    columns, doubts = Told.of(survey)
    return {**survey, "told": Told(columns, [*doubts, Doubt(None, doubt)]).to_json()}


def _nearly_numbers(name: str, mixture: Mixture, odd: OddValue, store: Files) -> Doubt:
    looked_at = mixture.numbers + mixture.others
    return Doubt(
        name,
        f"column {name!r} is text, though {mixture.numbers:,} of {looked_at:,} values are numbers: {odd.place(store)} "
        f"has {odd.text[:_SHOWN]!r}. Correct it, or name it in na_values if it stands for a missing value, or give the "
        f"type in column_types ({name}: float makes a bad record of it, {name}: string keeps the text)",
    )


def _combine(files: Callable[[], Iterator[str]], opener: Opener, names: list[str]) -> set[str]:
    """Add the columns of all files to the names; return those that some file with records lacks."""
    headers: set[frozenset[str]] = set()
    for path in files():
        try:
            head = opener.head(path)
        except DamagedFile:
            continue
        own = column_names(head.fields)
        names += [name for name in own if name not in names]
        if head.more:
            headers.add(frozenset(own))
    return {name for name in names for own in headers if name not in own}

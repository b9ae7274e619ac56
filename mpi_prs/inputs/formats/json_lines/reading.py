"""JSON lines: an object a line, decoded by Arrow; looked at line by line only where something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.json as pj

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow import pack_schema, unpack_schema
from mpi_prs.inputs.formats.casting import casts
from mpi_prs.inputs.formats.compression import COMPRESSED, compression_of, decompressed
from mpi_prs.inputs.formats.foreign import check_is_text
from mpi_prs.inputs.formats.format import (
    MAX_RECORD_SIZE,
    MOST_TOLD,
    TOLD,
    BadRecord,
    Batch,
    BatchSize,
    DamagedFile,
    Files,
    Part,
    check_counted,
    check_record_size,
    length_of,
    quoted,
    reading,
    record_too_long,
)
from mpi_prs.inputs.formats.json_lines.array import as_lines, begin_of, record_ends
from mpi_prs.inputs.formats.json_lines.types import (
    MAX_DEPTH,
    NUL,
    Checker,
    Misfit,
    Place,
    SampleColumns,
    as_json_text,
    depth_of_type,
    key_given_twice,
    long_integers,
    may_hide_integers,
    parsed,
    readable,
    records_in,
    shown,
    type_of,
    undated,
)
from mpi_prs.inputs.formats.lines import (
    PIECE_BYTES,
    Lines,
    SampleLines,
    line_number,
    lines_of,
    parts_at_ends,
    pieces_of,
    sample,
    spread,
)
from mpi_prs.inputs.formats.missing import for_pandas
from mpi_prs.inputs.formats.told import Told, told_columns

_BY_HAND = 5000
"""Records of the sample, at most, that are looked at one by one where Arrow finds something wrong."""
_CHUNK = 2**22
_SAMPLED = 2**28
"""So much of the beginning of an array is looked at for a sample."""
_BLOCK = 2**31 - 1
_FAILURES = (pa.ArrowException, UnicodeError)


@dataclass(frozen=True)
class JsonLines:
    """JSON lines: UTF-8, one object a line; blank lines are passed over; a missing key is a missing value.

    Columns and types come from a sample of at most 8 MiB: the beginnings, the ends, and places between. Types are as
    ``pandas.read_json(lines=True, dtype=False, convert_axes=False, precise_float=True)`` gives them (text stays text,
    dates too), with these differences:

    - A column is of one type. Where the sample has two (text and numbers), it is the first, and records of the other
      are bad; ``string`` in ``column_types`` takes numbers and booleans as they are written. ``json`` takes whatever
      there is, objects and lists of any shape among it: a cell is the text of the value, as it is written in the file
      (``"text"`` with its quotes), or missing where it is ``null``; ``json.loads`` makes a value of it.
    - Whole numbers and booleans beside missing values are ``Int64`` and ``boolean``, not float64 and object. Where the
      sample has no missing value, a record without one is bad, unless ``column_types`` names one of these.
    - Objects arrive as ``dict`` with all keys of the sample, ``None`` where one is missing; lists as numpy arrays.

    Misfits, keys that the sample lacks among them (unless columns are selected), are bad records; so are whole numbers
    beyond 64 bits, unless their column is to be ``string`` or ``float64``, and what is nested more than 64 deep. A
    compressed file (see :mod:`~mpi_prs.inputs.formats.compression`) is one mini-batch.

    Attributes:
        columns: to select, in this order; default: all of the sample, in the order in which they are met.
        column_types: column → type, see :func:`~mpi_prs.inputs.formats.types.parse_column_type`.
        on_bad_record: the mini-batch fails, or the record is left out and counted.
        numpy_types: see :mod:`~mpi_prs.inputs.formats.missing`.
        max_record_size: bytes that are read, at most, to find where a record ends.
    """

    columns: tuple[str, ...] = ()
    column_types: Mapping[str, str] = field(default_factory=dict)
    on_bad_record: Literal["fail", "skip_and_count"] = "fail"
    numpy_types: bool = False
    max_record_size: int = MAX_RECORD_SIZE

    def __post_init__(self) -> None:
        check_record_size(self.max_record_size)

    def survey(self, files: Callable[[], Iterator[str]], store: Files) -> dict[str, Any]:
        """Columns and types from a sample; about 0.1 s, and the time to open at most 32 files.

        Raises:
            InputError: a file cannot be opened, there is no record in the sample, or a column is not in it.
        """
        found = SampleColumns()
        size = lines = 0
        chosen = casts(self.column_types, json=True)
        pieces = list(sample(files, lambda path, most: self._pieces(path, most, store)))
        for piece in pieces:
            size += len(piece.data)
            lines += piece.data.count(b"\n") or 1
            _look(piece, as_json_text(piece.data, chosen), found, _BY_HAND // len(pieces))
        if pieces and not found.types:
            _refuse(pieces[0].file, pieces[0].lines)
        names = self.columns or tuple(dict.fromkeys([*found.types, *chosen]))
        missing = [name for name in names if name not in found.types and name not in chosen]
        if missing and pieces:
            raise InputError(
                f"columns: {quoted(missing)} not found in a sample of the records, whose columns are "
                f"{quoted(list(found.types))}; if it is there but rare, name its type in column_types"
            )
        read, final = [], []
        for name in names if pieces else ():
            there = readable(found.types.get(name, pa.null()))
            type = there if name not in chosen else chosen[name].type
            if name in chosen:
                there = _to_read(there, type)
                chosen[name].check(name, there)
            read.append(pa.field(name, there))
            final.append(pa.field(name, type))
        types = {name: found.types[name] for name in names if name in found.types and name not in chosen}
        doubts = found.check_agreement(types, self.on_bad_record == "fail")
        if self.on_bad_record == "fail":
            doubts += found.check_long(types)
        doubts += found.mixed_columns(types, store)
        schema = for_pandas(pa.schema(final), found.lacking, chosen, self.numpy_types)
        looked_at = f"a sample of {found.records:,} records"
        valueless = {each.name: f"no value in {looked_at}" for each in read if pa.types.is_null(each.type)}
        return {
            "read": pack_schema(pa.schema(read)),
            "final": pack_schema(schema),
            "files": found.files,
            "bytes_per_record": max(size / max(lines, 1), 1.0),
            "told": Told(told_columns(schema, looked_at, chosen, valueless), doubts).to_json(),
        }

    def _pieces(self, path: str, most: int, store: Files) -> Iterator[SampleLines]:
        return pieces_of(path, most, store, self.max_record_size)

    def split(self, file: str, size: BatchSize, survey: dict[str, Any], store: Files) -> Iterator[Part]:
        """Equal ranges of bytes; nothing is read. A number of rows is turned into bytes by the sample."""
        length = store.size(file)
        per_record = survey["bytes_per_record"]
        if not length:
            return
        if compression_of(file):
            yield Part(file, 0, length, max(1, round(length * COMPRESSED / per_record)))
            return
        step = size.in_bytes(per_record, length)
        step = -(-length // -(-length // step))
        for start in range(0, length, step):
            stop = min(start + step, length)
            yield Part(file, start, stop, max(1, round((stop - start) / per_record)))

    def reader(self, survey: dict[str, Any], store: Files) -> JsonLinesReader:
        """A reader of parts."""
        return JsonLinesReader(self, survey, store)


def _to_read(found: Any, chosen: Any) -> Any:
    """What to read a column as that is to be of a chosen type: what JSON can have, the rest is a cast."""
    number = pa.types.is_integer(chosen) or pa.types.is_floating(chosen)
    if number and (pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_null(found)):
        return chosen
    if pa.types.is_string(chosen) or (pa.types.is_null(found) and not pa.types.is_boolean(chosen)):
        return pa.string()
    return chosen if pa.types.is_null(found) else found


def _look(piece: SampleLines, data: bytes, found: SampleColumns, by_hand: int) -> None:
    """Columns and types of some lines; of the first of them only, where Arrow finds something wrong."""
    if not data.strip():
        return
    most = None
    try:
        if NUL in data:
            raise pa.ArrowInvalid("it may be in a key")
        table = _read(data, None, "infer")
        types = {each.name: undated(each.type) for each in table.schema}
        columns = dict(zip(table.column_names, table.columns, strict=True))
    except _FAILURES:
        most = by_hand
    else:
        deep = any(depth_of_type(type) >= MAX_DEPTH for type in types.values())
        if not deep and not any(may_hide_integers(chunk) for column in columns.values() for chunk in column.chunks):
            lacking = [name for name, column in columns.items() if column.null_count]
            found.add(types, lacking, table.num_rows, Place(piece.file, piece.lines.offset, 0))
            return
    for number, line in [(n, line) for n, line in enumerate(data.split(b"\n")) if line.strip()][:most]:
        try:
            record = parsed(line)
        except Misfit:
            continue
        types = {name: type_of(value) for name, value in record.items()}
        found.add(types, _without_value(record), 1, Place(piece.file, piece.lines.offset, piece.lines.number(number)))
        found.note_long(long_integers(record, ()))


def _without_value(record: Mapping[str, Any]) -> list[str]:
    return [name for name, value in record.items() if value is None]


def _refuse(file: str, lines: Lines) -> None:
    check_is_text(file, lines.data)
    for number, line in enumerate(lines.data.split(b"\n")):
        if line.strip():
            try:
                parsed(line)
            except Misfit as misfit:
                raise InputError(str(BadRecord(file, lines.number(number) + 1, None, misfit.problem))) from None
            raise InputError(f"{file} and the other files have records without any key: there are no columns")


class JsonLinesReader:
    """Reads parts; keeps the file open."""

    def __init__(self, format: JsonLines, survey: dict[str, Any], store: Files) -> None:
        self._schema = unpack_schema(survey["read"])
        self._final = unpack_schema(survey["final"])
        self._full = [each.name for each in self._final if not each.nullable]
        self._files: dict[str, str] = survey["files"]
        self._format = format
        self._chosen = casts(format.column_types, json=True)
        self._selected = bool(format.columns)
        self._longest = format.max_record_size
        self._skip = format.on_bad_record == "skip_and_count"
        self._most_told = TOLD
        self._store = store
        self._open: tuple[str, BinaryIO] | None = None
        nested = any(pa.types.is_nested(each.type) for each in self._schema)
        # "ignore" would also leave out unknown keys within the selected columns, and lose what they say
        self._unexpected = "error" if not self._selected else "infer" if nested else "ignore"

    def tell_of_all_bad_records(self) -> None:
        self._skip, self._most_told = True, MOST_TOLD

    def read(self, part: Part) -> Batch:
        """The rows of a part. Memory: its bytes, and its columns.

        Raises:
            InputError: the file cannot be read, or has a bad record that may not be skipped.
        """
        try:
            with reading(part.file):
                lines = self._lines(part)
                lines = lines._replace(data=as_json_text(lines.data, self._chosen))
        except InputError:
            self.close()  # the next try opens it anew
            raise
        try:
            if NUL not in lines.data:  # it may be in a key
                return Batch(self._table(lines.data, self._schema, self._unexpected))
        except _FAILURES:
            pass
        return self._carefully(part, lines)

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _lines(self, part: Part) -> Lines:
        if compression_of(part.file):
            with self._store.open(part.file) as file:
                return Lines(0, decompressed(file, part.file), first=1)
        return lines_of(self._file(part.file), part.start, part.stop, part.file, self._longest)

    def _file(self, path: str) -> BinaryIO:
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = path, self._store.open(path)
        return self._open[1]

    def _table(self, data: bytes, schema: Any, unexpected: str) -> Any:
        """Raises one of _FAILURES: something does not fit; which, it does not say."""
        if not data.strip():
            table = pa.Table.from_batches([], schema=schema)
        else:
            table = _read(data, schema, unexpected).select(schema.names)
            if table.schema.types != schema.types:
                raise pa.ArrowInvalid("unknown keys")
            table.validate(full=True)
        columns = []
        for each, column in zip(schema, table.columns, strict=True):
            final = self._final.field(each.name)
            if not final.nullable and column.null_count:
                raise pa.ArrowInvalid("a value is missing")
            cast = self._chosen.get(each.name, _as_it_is)
            columns.append(pa.chunked_array(map(cast, column.chunks), final.type))
        return pa.Table.from_arrays(columns, names=schema.names).replace_schema_metadata(self._final.metadata)

    def _carefully(self, part: Part, lines: Lines) -> Batch:
        """Line by line: leave out what is bad, and read again."""
        types = {each.name: each.type for each in self._schema}
        checker = Checker(types, self._full, self._chosen, self._selected)
        bad: list[tuple[int, Misfit]] = []
        good: list[tuple[int, bytes]] = []
        for number, line in enumerate(lines.data.split(b"\n")):
            if line.strip():
                try:
                    good.append((number, checker.fitting(line)))
                except Misfit as misfit:
                    bad.append((number, misfit))
        table, refused = self._sifted(good, self._schema)
        bad = sorted(bad + refused, key=lambda each: each[0])
        if not bad:
            return Batch(table)
        first = lines.first
        if not first:
            with reading(part.file):
                first = line_number(self._file(part.file), lines.offset)
        told = [
            BadRecord(
                part.file, first + lines.number(at), misfit.column, misfit.problem + self._elsewhere(misfit, part.file)
            )
            for at, misfit in bad[: self._most_told]
        ]
        if not self._skip:
            first_bad = bad[0][1]
            also = f", name the column's type in column_types (such as {first_bad.column}: {first_bad.type})"
            raise InputError(
                f"{told[0]} (one of {len(bad)} bad records in this mini-batch); correct it"
                f"{also if first_bad.type else ''}, or leave such records out with on_bad_record: skip_and_count"
            )
        return Batch(table, len(bad), told)

    def _elsewhere(self, misfit: Misfit, file: str) -> str:
        """Where the type is from that a value is not of."""
        source = self._files.get(misfit.column or "", file)
        return f", as in {source}" if misfit.type and source != file and misfit.column not in self._chosen else ""

    def _sifted(self, lines: Sequence[tuple[int, bytes]], schema: Any) -> tuple[Any, list[tuple[int, Misfit]]]:
        """The table of the lines that Arrow takes, and the others: what the checker cannot know, such as ranges."""
        kept = list(lines)
        refused: list[tuple[int, Misfit]] = []
        while True:
            try:
                return self._table(b"\n".join(line for _, line in kept), schema, "ignore"), refused
            except _FAILURES:
                wrong = self._wrong(kept, schema)
            refused += wrong
            numbers = {number for number, _ in wrong}
            kept = [each for each in kept if each[0] not in numbers]

    def _wrong(self, lines: Sequence[tuple[int, bytes]], schema: Any) -> list[tuple[int, Misfit]]:
        """The lines that Arrow does not take, found by halving."""
        if len(lines) == 1:
            return [(lines[0][0], self._why(lines[0][1], schema))]
        middle = len(lines) // 2
        halves = [half for half in (lines[:middle], lines[middle:]) if not self._fits(half, schema)]
        return [each for half in halves or [lines[:1]] for each in self._wrong(half, schema)]

    def _fits(self, lines: Sequence[tuple[int, bytes]], schema: Any) -> bool:
        try:
            self._table(b"\n".join(line for _, line in lines), schema, "ignore")
        except _FAILURES:
            return False
        return True

    def _why(self, line: bytes, schema: Any) -> Misfit:
        if (key := key_given_twice(line)) is not None:
            return Misfit(None, f"the key {key!r} is in it twice")
        for each in schema:
            if not self._fits([(0, line)], pa.schema([each])):
                value = shown(parsed(line).get(each.name))
                problem = f"{value} cannot be read as {self._final.field(each.name).type}"
                return Misfit(each.name, problem, "" if pa.types.is_nested(each.type) else "string")
        return Misfit(None, "it cannot be read together with the others")


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _read(data: bytes, schema: Any | None, unexpected: str) -> Any:
    """The rows of some lines.

    Raises:
        pyarrow.ArrowException: it is no JSON, or not one object a line (Arrow takes objects across lines, and many on
            one).
    """
    records = records_in(data)
    if records is None:
        raise pa.ArrowInvalid("a line that is no object, or nested too deep")
    table = pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=min(len(data) + 1, _BLOCK)),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected),
    )
    if table.num_rows != records:
        raise pa.ArrowInvalid("not one object a line")
    return table


# An array in a file


@dataclass(frozen=True)
class JsonArrays(JsonLines):
    """One array of objects in a file: ``[{…}, {…}]``; all else is as in :class:`JsonLines`.

    Each file is streamed once before the first mini-batch, to find where its records end, at some hundred MB/s; the
    sample is from the first 256 MB of each file that it looks at.
    """

    def _pieces(self, path: str, most: int, store: Files) -> Iterator[SampleLines]:
        if compression_of(path):
            yield SampleLines(path, self.whole(path, store))
            return
        with reading(path), store.open(path) as file, store.open(path) as again:
            size = min(length_of(file), _SAMPLED)
            start = self._begin(file, path)
            for first, last in spread(self._ends(file, start, path), start, max(size // most, 1)):
                again.seek(first)
                yield SampleLines(path, as_lines(again.read(last - first), first))
                if last > size:
                    return

    def split(self, file: str, size: BatchSize, survey: dict[str, Any], store: Files) -> Iterator[Part]:
        """Parts of whole records, of about equal size. Reads the file, as the parts are asked for."""
        length = store.size(file)
        if compression_of(file):
            yield from super().split(file, size, survey, store)
            return
        step = size.in_bytes(survey["bytes_per_record"], length)
        try:
            with reading(file), store.open(file) as stream, store.open(file) as again:
                start = self._begin(stream, file)
                for part in parts_at_ends(file, start, self._ends(stream, start, file), step):
                    again.seek(part.start)
                    if part.stop - part.start > PIECE_BYTES or again.read(part.stop - part.start).strip():
                        yield part
        except DamagedFile:
            yield Part(file, 0, 0, 1)  # so that it is counted, and fails alone

    def reader(self, survey: dict[str, Any], store: Files) -> JsonArraysReader:
        """A reader of parts."""
        return JsonArraysReader(self, survey, store)

    def whole(self, path: str, store: Files) -> Lines:
        """All records of a file. Raises DamagedFile, InputError."""
        with reading(path), store.open(path) as file:
            text = decompressed(file, path) if compression_of(path) else file.read()
        start = begin_of(text, path)
        for _ in record_ends(iter([text[start:]]), start, len(text), path):
            pass
        return as_lines(text[start:], start)._replace(first=1 + text.count(b"\n", 0, start))

    def _begin(self, file: BinaryIO, path: str) -> int:
        """Where the first record begins, at which the file then stands."""
        file.seek(0)
        start = begin_of(file.read(PIECE_BYTES), path)
        file.seek(start)
        return start

    def _ends(self, file: BinaryIO, start: int, path: str) -> Iterator[Any]:
        """Offsets behind the records of a file that stands at the first one. Raises DamagedFile, InputError."""
        try:
            yield from record_ends(iter(partial(file.read, _CHUNK), b""), start, self.max_record_size, path)
        except OverflowError as error:
            raise record_too_long(path, line_number(file, error.args[0]), self.max_record_size) from None


class JsonArraysReader(JsonLinesReader):
    """Reads parts; keeps the file open."""

    _format: JsonArrays

    def _lines(self, part: Part) -> Lines:
        if compression_of(part.file) or part.start == part.stop:
            lines = self._format.whole(part.file, self._store)
            if not compression_of(part.file):
                check_counted(part)
            return lines
        file = self._file(part.file)
        file.seek(part.start)
        text = file.read(part.stop - part.start)
        if len(text) < part.stop - part.start:
            raise EOFError
        return as_lines(text, part.start)

"""Delimited text in its files: what is at the beginning of a file, and what is read of a part."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.compression import compression_of, decompressed
from mpi_prs.inputs.formats.delimited.encoding import Encoding, encoding_of
from mpi_prs.inputs.formats.delimited.records import LINE_BREAK, Dialect, records_of, without_comments
from mpi_prs.inputs.formats.foreign import check_is_text
from mpi_prs.inputs.formats.format import Files, reading, record_too_long

HEAD_BYTES = 2**16
_CHUNK = 2**20
_LOOKAHEAD = 2**14
_PIECE = 2**17
_OPEN = "check quote, and set support_multi_line: true if values hold line breaks"


class OpenQuote(InputError):
    """The first record of a file has a quoted value that does not end where the record does."""


class Head(NamedTuple):
    """The beginning of a file.

    Attributes:
        encoding: of the file.
        fields: of its first record; empty: there is none.
        start: offset in bytes at which the text begins, behind the lines that are skipped.
        second: offset at which the next line begins.
        more: whether there is, or may be, another record.
    """

    encoding: Encoding
    fields: tuple[str, ...]
    start: int
    second: int
    more: bool


@dataclass(frozen=True)
class Opener:
    """Opens files of one dataset.

    Attributes:
        store: where they are.
        encoding: as :func:`~mpi_prs.inputs.formats.delimited.encoding.normal_name` gives it.
        dialect: of the text.
        longest: bytes that are read, at most, to find where a record ends.
        skipped: lines at the beginning of each file that are no text of the table.
    """

    store: Files
    encoding: str
    dialect: Dialect
    longest: int
    skipped: int = 0

    def head(self, path: str) -> Head:
        """Look at the beginning of a file; reads 64 KiB, more only if the first record is longer.

        Raises:
            InputError: it cannot be read or decompressed, or its first record does not end.
        """
        size = HEAD_BYTES
        while True:
            with reading(path), self.store.open(path) as file:
                data = decompressed(file, path, size) if compression_of(path) else file.read(size)
            check_is_text(path, data)
            found = self.head_of(data, len(data) < size - len(codecs.BOM_UTF8), path)
            if found is not None:
                return found
            if size > self.longest:
                raise record_too_long(path, 1 + self.skipped, self.longest)
            size *= 4

    def head_of(self, data: bytes, whole: bool, path: str) -> Head | None:
        """The head in the first bytes of a file; ``None``: more bytes are needed.

        Args:
            data: these bytes.
            whole: the file has no more.
            path: for a message.
        """
        encoding, dialect = encoding_of(self.encoding, data), self.dialect
        text = encoding.squeezed(data[encoding.bom :])
        if not whole and text.endswith(b"\r"):
            text = text[:-1]  # it is not known whether an LF follows
        start = _behind_lines(text, self.skipped)
        if start is None:
            return Head(encoding, (), len(data), len(data), False) if whole else None
        offset = encoding.bom + start * encoding.unit
        text = without_comments(text[start:], dialect, same_length=True)
        records = records_of(text, dialect)
        if not len(records.starts):
            return Head(encoding, (), offset, len(data), False) if whole else None
        first, stop = int(records.starts[0]), int(records.stops[0])
        if not whole and (stop == len(text) or (records.open[0] and dialect.multi_line)):
            return None
        if records.open[0]:
            raise OpenQuote(f"{path}: the first record has a quoted value that does not end; {_OPEN}")
        after = LINE_BREAK.match(text, stop)
        second = after.end() if after else stop
        raw = encoding.to_utf8(data[offset + first * encoding.unit : offset + stop * encoding.unit])
        record = without_comments(raw, dialect).decode("utf-8", "backslashreplace")
        fields = _fields(record, dialect, path)
        more = not whole or len(records.starts) > 1
        return Head(encoding, fields, offset, offset + second * encoding.unit, more)


def _behind_lines(text: bytes, lines: int) -> int | None:
    """Where the text goes on behind so many lines; ``None``: it does not."""
    at = 0
    for _ in range(lines):
        found = LINE_BREAK.search(text, at)
        if found is None:
            return None
        at = found.end()
    return at


def _fields(record: str, dialect: Dialect, path: str) -> tuple[str, ...]:
    quote = dialect.quote.decode() or None
    reader = csv.reader(
        io.StringIO(record, newline=""),
        delimiter=dialect.separator.decode(),
        quotechar=quote,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        escapechar=dialect.escape.decode() or None,
    )
    try:
        return tuple(next(reader))
    except csv.Error as error:
        raise InputError(f"{path}: the first record cannot be read: {error}") from error


def column_names(header: tuple[str, ...]) -> list[str]:
    """Names that are all different, as pandas makes them: ``a``, ``a.1``; ``Unnamed: 2`` where there is none."""
    names = [name or f"Unnamed: {number}" for number, name in enumerate(header)]
    order = [number for number, name in enumerate(header) if name]
    order += [number for number, name in enumerate(header) if not name]
    used: Counter[str] = Counter()
    for number in order:
        plain = name = names[number]
        count = used[name]
        while count > 0:
            used[plain] = count + 1
            name = f"{plain}.{count}"
            count = count + 1 if name in names else used[name]
        names[number] = name
        used[name] = count + 1
    return names


class Text(NamedTuple):
    """Text of a file.

    Attributes:
        data: UTF-8, with something around it: text is not copied without need.
        start, stop: where in it the text is.
        offset: where the text begins in the file, in bytes.
        before: some of what is before it in the file, squeezed.
    """

    data: bytes
    start: int
    stop: int
    offset: int
    before: bytes = b""

    @classmethod
    def of(cls, encoding: Encoding, data: bytes, start: int, stop: int, offset: int) -> Text:
        """Text in any encoding."""
        if encoding.codec == "utf-8":
            return cls(data, start, stop, offset)
        converted = encoding.to_utf8(data[start:stop])
        return cls(converted, 0, len(converted), offset)

    @property
    def content(self) -> bytes:
        """The text and nothing around it."""
        return self.data[self.start : self.stop]

    def pieces(self, overlap: int = 0) -> Iterator[Any]:
        """Its bytes, in pieces that stay in the processor's cache; each has ``overlap`` bytes of the next one."""
        array: Any = np.frombuffer(self.data, np.uint8, self.stop - self.start, self.start)
        for start in range(0, len(array), _PIECE):
            yield array[start : start + _PIECE + overlap]

    def count(self, byte: bytes) -> int:
        """How often a byte is in it; five times faster than ``bytes.count`` where it is not rare."""
        return sum(int(np.count_nonzero(piece == byte[0])) for piece in self.pieces())

    def without_comments(self, dialect: Dialect) -> Text:
        """The same without comments, of a text that begins with a record."""
        if not dialect.comment or not (self.has(dialect.comment) or dialect.comment in self.before):
            return self
        content = without_comments(self.content, dialect)
        return Text(content, 0, len(content), self.offset, without_comments(self.before, dialect))

    def has(self, what: bytes) -> bool:
        """Whether something is in it."""
        return self.data.find(what, self.start, self.stop) >= 0


def lines_between(
    file: BinaryIO,
    encoding: Encoding,
    start: int,
    stop: int,
    size: int,
    longest: int,
    look_back: int = 0,
    floor: int = 0,
) -> Text:
    """The lines of which the first byte is in a range. Reads the range and as far as the last line goes.

    Args:
        size: of the file.
        longest: so far it may go.
        look_back: bytes that are read before the range, too; a multiple of 4.
        floor: where a line begins before which nothing is looked at.

    Raises:
        EOFError: the file is shorter than it was.
        LongRecord: a line goes farther.
    """
    unit = encoding.unit
    floor = max(floor, encoding.bom)
    start = max(start, floor)
    lead = min(start - floor, unit + look_back)  # what is before tells whether a line begins at `start`
    file.seek(start - lead)
    data = file.read(max(stop - start, 0) + lead)
    if len(data) < stop - start + lead:
        raise EOFError
    begin = 0
    before = b""
    if lead:
        text = encoding.squeezed(data)
        found = LINE_BREAK.search(text, lead // unit - 1)
        begin = found.end() * unit if found else len(data)
        if begin >= len(data):
            return Text(b"", 0, 0, stop)
        before = text[: begin // unit] if look_back else b""
    if stop < size:
        try:
            data += _rest_of_line(file, encoding, encoding.squeezed(data[-unit:]), longest)
        except OverflowError:
            text = encoding.squeezed(data)
            last = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
            raise LongRecord(start - lead + last * unit) from None
    return Text.of(encoding, data, begin, len(data), start - lead + begin)._replace(before=before)


class LongRecord(Exception):
    """A record goes on for longer than records may; the argument is the offset at which it begins."""


def too_long(file: BinaryIO, encoding: Encoding, path: str, record: LongRecord, longest: int) -> InputError:
    """What to say of a record; reads the file up to it, to count the lines."""
    line = count_line_breaks(squeezed_chunks(file, encoding, encoding.bom, record.args[0])) + 1
    return record_too_long(path, line, longest)


def _rest_of_line(file: BinaryIO, encoding: Encoding, last: bytes, longest: int) -> bytes:
    """The bytes from where a file stands to the end of the line; ``last`` is the character before, squeezed.

    Raises:
        OverflowError: they are more than ``longest``.
    """
    pieces: list[bytes] = []
    length = 0
    while last != b"\n" and (more := file.read(_LOOKAHEAD if length < _CHUNK else _CHUNK)):
        text = encoding.squeezed(more)
        if last == b"\r":  # the line has ended, unless this is the second half of its end
            pieces.append(more[: encoding.unit] if text.startswith(b"\n") else b"")
            break
        found = LINE_BREAK.search(text)
        pieces.append(more[: found.end() * encoding.unit] if found else more)
        length += len(pieces[-1])
        if length > longest:
            raise OverflowError
        if found and found.end() < len(text):
            break
        last = text[-1:]
    return b"".join(pieces)


def bytes_between(file: BinaryIO, encoding: Encoding, start: int, stop: int) -> Text:
    """A range that begins and ends with records. Raises EOFError: the file is shorter than it was."""
    start = max(start, encoding.bom)
    file.seek(start)
    data = file.read(max(stop - start, 0))
    if len(data) < stop - start:
        raise EOFError
    return Text.of(encoding, data, 0, len(data), start)


def squeezed_chunks(file: BinaryIO, encoding: Encoding, start: int, stop: int) -> Iterator[bytes]:
    """The code units of a range, squeezed, some MiB at a time."""
    file.seek(start)
    while start < stop and (chunk := file.read(min(stop - start, 4 * _CHUNK))):
        start += len(chunk)
        if odd := len(chunk) % encoding.unit:  # a short read
            chunk += file.read(encoding.unit - odd)
            start += encoding.unit - odd
        yield encoding.squeezed(chunk)


def count_line_breaks(chunks: Iterator[bytes]) -> int:
    """How many line breaks there are in a text."""
    count = 0
    last = b""
    for chunk in chunks:
        count += chunk.count(b"\n")
        if b"\r" in chunk:
            count += chunk.count(b"\r") - chunk.count(b"\r\n")
        count -= last == b"\r" and chunk.startswith(b"\n")
        last = chunk[-1:]
    return count

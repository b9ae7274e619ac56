"""Delimited text in its files: how it is encoded, where records begin and end, what is read of a part.

A quote opens a quoted value at the beginning of a value only, as in pandas and Arrow. Most text is regular: counting
quotes tells what is inside. Where some quote stands elsewhere, a regular expression walks from quoted value to quoted
value. How wide a character's unit is tells where a file can be cut, and how lines are found in it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.compression import compression_of, decompressed
from mpi_prs.inputs.formats.foreign import check_is_text
from mpi_prs.inputs.formats.format import Files, reading, record_too_long

# Encodings

_BOMS = {
    "utf-8": (codecs.BOM_UTF8,),
    "utf-16-le": (codecs.BOM_UTF16_LE,),
    "utf-16-be": (codecs.BOM_UTF16_BE,),
    "utf-32-le": (codecs.BOM_UTF32_LE,),
    "utf-32-be": (codecs.BOM_UTF32_BE,),
}
_ASCII = bytes(range(128))
_UNREADABLE = "mpi_prs.unreadable"
# One lone surrogate for what cannot be decoded: as UTF-8 it is invalid again, so the value is found and told of
codecs.register_error(_UNREADABLE, lambda error: ("\udcff", error.end))  # type: ignore[attr-defined]


class Encoding(NamedTuple):
    """The encoding of one file.

    Attributes:
        codec: Python's name of it, with the byte order.
        unit: bytes of a code unit: 1, 2 or 4. A line break is always at a multiple of it.
        bom: bytes of the byte order mark that the file begins with, or 0.
    """

    codec: str
    unit: int
    bom: int

    def squeezed(self, data: bytes) -> bytes:
        """A byte for each code unit: the same where it is below 255, else 255; so that line breaks can be searched."""
        if self.unit == 1:
            return data
        order = "<" if self.codec.endswith("le") else ">"
        units: Any = np.frombuffer(data, f"{order}u{self.unit}", len(data) // self.unit)
        return bytes(np.minimum(units, 255).astype(np.uint8).tobytes())

    def to_utf8(self, data: bytes) -> bytes:
        """The same text in UTF-8; invalid where it is invalid."""
        if self.codec == "utf-8":
            return data
        try:
            return data.decode(self.codec).encode("utf-8")
        except UnicodeError:
            return data.decode(self.codec, _UNREADABLE).encode("utf-8", "surrogatepass")


def normal_name(encoding: str) -> str:
    """Python's name of an encoding.

    Raises:
        ValueError: it is not known, or not one in which lines can be found from the middle of a file.
    """
    try:
        name = codecs.lookup(encoding).name
        name = {"utf-8-sig": "utf-8", "ascii": "utf-8"}.get(name, name)
        if name.startswith(("utf-16", "utf-32")) or _ASCII.decode(name) == _ASCII.decode("ascii"):
            return name
    except (LookupError, UnicodeError):
        pass
    raise ValueError(
        f"{encoding!r} is not supported: expected utf-8, utf-16, utf-32, latin-1, cp1252, shift_jis, gbk or "
        "another encoding that Python knows and that contains ASCII"
    )


def may_be_half_of_another(character: str, encoding: str) -> bool:
    """Whether the byte of an ASCII character is, in an encoding, the second one of other characters, too."""
    if encoding.startswith(("utf-16", "utf-32")):
        return False
    for lead in range(128, 256):
        with suppress(UnicodeError):
            if len(bytes([lead, ord(character)]).decode(encoding)) == 1:
                return True
    return False


def encoding_of(name: str, head: bytes) -> Encoding:
    """How a file is encoded.

    Args:
        name: as :func:`normal_name` gives it.
        head: the first bytes of the file, at least 4 if it has so many.
    """
    if name in ("utf-16", "utf-32"):
        orders = (f"{name}-le", f"{name}-be")
        native = orders[sys.byteorder == "big"]
        name = next((order for order in orders if head.startswith(_BOMS[order])), native)
    bom = next((len(mark) for mark in _BOMS.get(name, ()) if head.startswith(mark)), 0)
    unit = 2 if name.startswith("utf-16") else 4 if name.startswith("utf-32") else 1
    return Encoding(name, unit, bom)


# Records

LINE_BREAK = re.compile(rb"\r\n?|\n")
_LF, _CR = 10, 13


class Dialect(NamedTuple):
    """How values and records are told apart.

    Attributes:
        separator: one byte.
        quote: one byte, or none.
        multi_line: line breaks may be inside quotes, and behind an escape; else each line is a record.
        escape: one byte, or none: the character behind it means nothing, be it inside quotes or not.
        comment: one byte, or none: outside quotes, it and what follows in its line is no text of the table.
    """

    separator: bytes
    quote: bytes
    multi_line: bool
    escape: bytes = b""
    comment: bytes = b""

    @property
    def blanks(self) -> bytes:
        """A line of nothing but these is no record."""
        return b" \t".replace(self.separator, b"")

    @property
    def may_break_lines(self) -> bool:
        """Whether there is a way to write a line break in a value."""
        return bool(self.quote or self.escape)


_MEANINGLESS = b"xx"


def masked(text: bytes, dialect: Dialect) -> bytes:
    """A text of the same length, in which escaped characters and their escapes are letters: none means anything.

    An escape stays at the end of the text, and at the end of a line where each line is a record.
    """
    if not dialect.escape or dialect.escape not in text:
        return text
    escaped = b"." if dialect.multi_line else rb"[^\r\n]"
    return re.sub(re.escape(dialect.escape) + escaped, _MEANINGLESS, text, flags=re.DOTALL)


def without_comments(text: bytes, dialect: Dialect, inside: bool = False, same_length: bool = False) -> bytes:
    """A text without its comments; line breaks stay, so that a line of nothing else is a blank one.

    Args:
        text: it begins with a record, or inside a quoted value.
        dialect: of the text.
        inside: whether it begins inside a quoted value.
        same_length: there are blanks in place of comments.
    """
    if not dialect.comment or dialect.comment not in text:
        return text
    blank = dialect.blanks[:1]

    def kept(found: re.Match[bytes]) -> bytes:
        if not found[0].startswith(dialect.comment):
            return found[0]
        return blank * len(found[0]) if same_length else b""

    start = 0
    if inside and (rest := _closing(dialect).match(text)):
        start = rest.end() + text.startswith(dialect.comment, rest.end())
    return text[:start] + _with_comments(dialect, start == 0).sub(kept, text[start:])


def _with_comments(dialect: Dialect, at_start: bool) -> re.Pattern[bytes]:
    """Finds comments, and what they are not in: quoted values, and escaped characters."""
    comment, escape, quote = map(re.escape, (dialect.comment, dialect.escape, dialect.quote))
    any_byte = b"." if dialect.multi_line else rb"[^\r\n]"
    kinds = [comment + rb"[^\r\n]*"]
    if quote:
        inner = b"[^" + escape + quote + (b"" if dialect.multi_line else rb"\r\n") + b"]|" + quote * 2
        inner += b"|" + escape + any_byte if escape else b""
        before = b"(?<=[" + re.escape(dialect.separator) + rb"\r\n])" + (rb"|\A" if at_start else b"")
        kinds.append(b"(?:" + before + b")" + quote + b"(?:" + inner + b")*(?:" + quote + comment + b"?)?")
    if escape:
        kinds.append(b"(?:" + escape + any_byte + b")+" + (quote + b"*" if quote else b""))
    return re.compile(b"|".join(kinds), re.DOTALL)


class Records(NamedTuple):
    """The records of some text; blank lines are none.

    Attributes:
        starts, stops: where each is, without its line break; int64.
        lines: how many lines are before each; int64.
        open: whether a quoted value does not end where the record does; bool.
        plain: whether what is between the records are line breaks only, no other blanks.
    """

    starts: Any
    stops: Any
    lines: Any
    open: Any
    plain: bool


def records_of(text: bytes, dialect: Dialect) -> Records:
    """The records of a text that begins with one and has no comments; some ns a byte."""
    raw, text = text, masked(text, dialect)
    array: Any = np.frombuffer(text, np.uint8)
    breaks, ends = line_breaks(array)
    lines = breaks if text is raw else line_breaks(np.frombuffer(raw, np.uint8))[0]
    ending: Any = np.ones(len(breaks), bool)
    open_end = bool(dialect.escape) and text.endswith(dialect.escape)
    if dialect.quote and dialect.multi_line:
        inside, is_open_end = inside_quotes(text, array, breaks, dialect, False)
        ending = ~inside
        open_end |= is_open_end
    starts = np.concatenate([[0], ends[ending]])
    stops = np.concatenate([breaks[ending], [len(text)]])
    is_open: Any = np.zeros(len(starts), bool)
    if dialect.quote and not dialect.multi_line:
        is_open[_open_lines(text, array, starts, stops, dialect)] = True
    if dialect.escape and text and not dialect.multi_line:
        is_open[(starts < stops) & (array[stops - 1] == dialect.escape[0])] = True
    is_open[-1] |= open_end
    empty = starts == stops
    blank = empty | _of_blanks(text, array, starts, stops, dialect)
    plain = not (blank & ~empty).any()
    starts, stops = starts[~blank], stops[~blank]
    return Records(starts, stops, np.searchsorted(lines, starts), is_open[~blank], plain)


def line_breaks(array: Any) -> tuple[Any, Any]:
    """Where line breaks (LF, CR LF or CR) begin, and where the next line does."""
    is_lf, is_cr = array == _LF, array == _CR
    if not is_cr.any():
        breaks = np.flatnonzero(is_lf)
        return breaks, breaks + 1
    second: Any = np.zeros(len(array) + 1, bool)  # the LF of a CR LF
    second[1:-1] = is_lf[1:] & is_cr[:-1]
    breaks = np.flatnonzero((is_lf | is_cr) & ~second[:-1])
    return breaks, breaks + 1 + second[breaks + 1]


def inside_quotes(text: bytes, array: Any, places: Any, dialect: Dialect, inside: bool) -> tuple[Any, bool]:
    """Which of some places are inside quotes, and whether the end of the text is.

    Args:
        text: it begins with a record, or inside a quoted value; see :func:`masked`.
        array: its bytes.
        places: none of them is a quote.
        dialect: with a quote.
        inside: whether it begins inside a quoted value.
    """
    quotes = np.flatnonzero(array == dialect.quote[0])
    if _regular(array, quotes[inside::2], dialect):
        before = np.searchsorted(quotes, places) + inside
        return (before & 1).astype(bool), bool((len(quotes) + inside) & 1)
    spans, open_end = _quoted_values(text, dialect, inside)
    bounds: Any = np.array(spans, np.int64).reshape(-1)
    return (np.searchsorted(bounds, places, side="right") & 1).astype(bool), open_end


def _regular(array: Any, opening: Any, dialect: Dialect) -> bool:
    """Whether quotes that open a value, if each opens or closes one in turn, stand where they can.

    That is behind a separator, a line break, or the quote that they are doubled with.
    """
    before = array[opening[opening > 0] - 1]
    return bool(np.isin(before, np.frombuffer(_before_opening(dialect), np.uint8)).all())


def _before_opening(dialect: Dialect) -> bytes:
    return dialect.separator + b"\r\n" + dialect.quote


def _quoted_values(text: bytes, dialect: Dialect, inside: bool) -> tuple[list[tuple[int, int]], bool]:
    """From where to where each quoted value goes, and whether the last one does not end."""
    quote = re.escape(dialect.quote)
    opening = re.compile(quote + b"(?<=[" + re.escape(dialect.separator) + rb"\r\n]" + quote + b")")
    closing = _closing(dialect._replace(escape=b""))
    spans: list[tuple[int, int]] = []
    at = 0
    start = 0 if inside or text.startswith(dialect.quote) else -1
    if start == 0 and not inside:
        at = 1
    while True:
        if start < 0:
            found = opening.search(text, at)
            if found is None:
                return spans, False
            start, at = found.span()
        end = closing.match(text, at)
        assert end is not None  # it matches the empty text
        at = end.end()
        spans.append((start, at))
        if not end[1]:
            return spans, True
        start = -1


def _closing(dialect: Dialect) -> re.Pattern[bytes]:
    """The rest of a quoted value; its group 1 is the quote at the end, if there is one."""
    quote, escape = re.escape(dialect.quote), re.escape(dialect.escape)
    pairs = quote * 2 + (b"|" + escape + b"." if escape else b"")
    other = b"[^" + quote + escape + b"]*"
    return re.compile(other + b"(?:(?:" + pairs + b")" + other + b")*(" + quote + b"?)", re.DOTALL)


def _open_lines(text: bytes, array: Any, starts: Any, stops: Any, dialect: Dialect) -> Any:
    """The numbers of the lines in which a quoted value does not end."""
    quotes = np.flatnonzero(array == dialect.quote[0])
    if not len(quotes):
        return quotes
    line = np.searchsorted(starts, quotes, side="right") - 1
    first = np.searchsorted(line, line)  # of the quotes in the same line
    opening = ((np.arange(len(quotes)) - first) & 1) == 0
    before = array[quotes - 1]
    may_open = np.isin(before, np.frombuffer(_before_opening(dialect), np.uint8)) | (quotes == starts[line])
    irregular = np.unique(line[opening & ~may_open])
    odd = np.flatnonzero(np.bincount(line, minlength=len(starts)) & 1)
    looked_at = [number for number in irregular.tolist() if _ends_open(text[starts[number] : stops[number]], dialect)]
    return np.concatenate([odd[~np.isin(odd, irregular)], np.array(looked_at, np.int64)])


def _ends_open(line: bytes, dialect: Dialect) -> bool:
    return _quoted_values(line, dialect, False)[1]


def _begins_inside(line: bytes, dialect: Dialect) -> bool | None:
    """Whether a line with quotes begins inside a quoted value, which ends in it; ``None``: it does not tell."""
    quote = re.escape(dialect.quote)
    doubled = re.match(b"[^%b]*(?:%b%b[^%b]*)*" % ((quote,) * 4), line)
    at = doubled.end() if doubled else 0
    if at == len(line):
        return None
    if line[at + 1 : at + 2] not in (b"", dialect.separator):
        return False
    if line.count(dialect.quote) % 2 and not _ends_open(line, dialect):
        return True
    first = line.find(dialect.quote)
    return False if first == 0 or line[first - 1 : first] == dialect.separator else None


def ends_of_values(text: bytes, records: Records, dialect: Dialect) -> list[int]:
    """The numbers of the records, a line each, that look like the end of a quoted value that began before."""
    text = masked(text, dialect)
    array: Any = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(array == dialect.quote[0])
    if not len(quotes) or not len(records.starts):
        return []
    line = np.searchsorted(records.starts, quotes, side="right") - 1
    odd = np.flatnonzero(np.bincount(line[line >= 0], minlength=len(records.starts)) & 1)
    return [n for n in odd.tolist() if _begins_inside(text[records.starts[n] : records.stops[n]], dialect)]


def begins_inside(before: bytes, text: bytes, start: int, stop: int, dialect: Dialect) -> bool:
    """Whether some lines seem to begin inside a quoted value.

    Args:
        before: some of what is before them, without comments.
        text: they are in it, without comments.
        start, stop: where in it.
        dialect: with a quote or an escape.
    """
    if dialect.escape:
        before, text = masked(before, dialect), masked(text[start:stop], dialect)
        start, stop = 0, len(text)
        last_line = re.sub(rb"(\r\n?|\n)\Z", b"", before)
        if last_line.endswith(dialect.escape) or not dialect.quote:
            return last_line.endswith(dialect.escape)
    at = start
    while (quote := text.find(dialect.quote, at, stop)) >= 0:
        line, _, at = _line_around(text, quote, start, stop)
        if (inside := _begins_inside(line, dialect)) is not None:
            return inside
    end = len(before)
    while (quote := before.rfind(dialect.quote, 0, end)) >= 0:
        line, end, _ = _line_around(before, quote, 0, end)
        if _ends_open(line, dialect):
            return True
        if _begins_inside(line, dialect) is not None:
            return False
    return False


def _line_around(text: bytes, place: int, first: int, last: int) -> tuple[bytes, int, int]:
    """The line that a place is in, its start and its end."""
    start = max(text.rfind(b"\n", first, place), text.rfind(b"\r", first, place), first - 1) + 1
    found = LINE_BREAK.search(text, place, last)
    stop = found.start() if found else last
    return text[start:stop], start, stop


def closes_well(record: bytes, dialect: Dialect) -> bool:
    """Whether each quoted value of a record is followed by a separator or by the record's end."""
    record = masked(record, dialect)
    if not dialect.quote:
        return True
    spans, is_open = _quoted_values(record, dialect, False)
    return not is_open and all(record[stop : stop + 1] in (b"", dialect.separator) for _, stop in spans)


def _of_blanks(text: bytes, array: Any, starts: Any, stops: Any, dialect: Dialect) -> Any:
    blank: Any = np.zeros(len(starts), bool)
    if len(array):
        first = array[np.minimum(starts, len(array) - 1)]
        for number in np.flatnonzero(
            (starts < stops) & np.isin(first, np.frombuffer(dialect.blanks, np.uint8))
        ).tolist():
            blank[number] = not text[starts[number] : stops[number]].strip(dialect.blanks)
    return blank


def blocks(chunks: Iterator[bytes], longest: int) -> Iterator[bytes]:
    """The same text in blocks that end with a line break, but for the last; a CR LF is never torn.

    Raises:
        OverflowError: there is no line break for longer than records may be.
    """
    rest: list[bytes] = []
    held = 0
    for chunk in chunks:
        if rest and rest[-1].endswith(b"\r") and not chunk.startswith(b"\n"):
            yield b"".join(rest)
            rest, held = [], 0
        cut = max(chunk.rfind(b"\n"), chunk.rfind(b"\r", 0, -1)) + 1
        if cut:
            yield b"".join([*rest, chunk[:cut]])
            rest, held = [], 0
        rest.append(chunk[cut:])
        held += len(chunk) - cut
        if held > longest:
            raise OverflowError
    if held:
        yield b"".join(rest)


def record_ends(chunks: Iterator[bytes], dialect: Dialect, longest: int) -> Iterator[Any]:
    """The offsets behind the ends of records (int64, an array for each block of the text), as the text streams by.

    Raises:
        OverflowError: a record goes on for more than ``longest``.
    """
    inside = False
    offset = last = 0
    for raw in blocks(chunks, longest):
        text = masked(without_comments(raw, dialect, inside, same_length=True), dialect)
        array: Any = np.frombuffer(text, np.uint8)
        breaks, ends = line_breaks(array)
        if dialect.quote:
            hidden, inside = inside_quotes(text, array, breaks, dialect, inside)
            ends = ends[~hidden]
        if len(ends):
            last = offset + int(ends[-1])
        offset += len(text)
        if offset - last > longest:
            raise OverflowError
        yield ends + (offset - len(text))


# Files

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
        encoding: as :func:`~mpi_prs.inputs.formats.delimited.text.normal_name` gives it.
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

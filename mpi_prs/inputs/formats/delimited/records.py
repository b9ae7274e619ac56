"""Where records of delimited text begin and end.

A quote opens a quoted value at the beginning of a value only, as in pandas and Arrow. Most text is regular: counting
quotes tells what is inside. Where some quote stands elsewhere, a regular expression walks from quoted value to quoted
value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

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

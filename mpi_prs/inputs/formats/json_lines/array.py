"""One array of objects in a file: where its records begin, found as the text streams by, and the same as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mpi_prs.inputs.formats.format import DamagedFile
from mpi_prs.inputs.formats.lines import BOM, Lines

_OPEN, _CLOSE, _COMMA, _QUOTE, _BACKSLASH = 1, 2, 3, 34, 92
_KINDS: Any = np.zeros(256, np.uint8)
for _characters, _kind in ((b"[{", _OPEN), (b"]}", _CLOSE), (b",", _COMMA)):
    _KINDS[list(_characters)] = _kind
_BLANK = b" \t\r\n"


class Found(NamedTuple):
    """What is in some text of an array.

    Attributes:
        ends: places of the commas between its records.
        close: place of its closing bracket; -1: it is not there.
        breaks: places of the line breaks that are not in strings.
    """

    ends: Any
    close: int
    breaks: Any


class Scanner:
    """Looks at the text of an array from its first record on, piece by piece; some ns a byte.

    Attributes:
        depth: how many objects and arrays are open, the array itself among them; 0: it has ended.
    """

    def __init__(self) -> None:
        self.depth = 1
        self._inside = False  # a string
        self._escaped = False  # a backslash was last

    def look(self, text: bytes) -> Found:
        """The next piece."""
        array: Any = np.frombuffer(text, np.uint8)
        quotes = np.flatnonzero(array == _QUOTE)
        if self._escaped or _BACKSLASH in text:
            quotes = quotes[~np.isin(quotes, self._escaped_places(array))]
        kinds = _KINDS[array]
        places = np.flatnonzero(kinds)
        places = places[~self._in_strings(places, quotes)]
        kinds = kinds[places]
        depths = self.depth + np.cumsum((kinds == _OPEN).astype(np.int64) - (kinds == _CLOSE))
        ended = np.flatnonzero(depths == 0)
        last = int(ended[0]) if len(ended) else len(places)
        breaks = np.flatnonzero((array == 10) | (array == 13))
        breaks = breaks[~self._in_strings(breaks, quotes)]
        ends = places[:last][(kinds[:last] == _COMMA) & (depths[:last] == 1)]
        self._inside ^= bool(len(quotes) & 1)
        self.depth = 0 if len(ended) else int(depths[-1]) if len(depths) else self.depth
        return Found(ends, int(places[last]) if len(ended) else -1, breaks)

    def _in_strings(self, places: Any, quotes: Any) -> Any:
        return ((np.searchsorted(quotes, places) + self._inside) & 1).astype(bool)

    def _escaped_places(self, array: Any) -> Any:
        """Places of the characters behind an odd number of backslashes."""
        slashes = np.flatnonzero(array == _BACKSLASH)
        first = np.flatnonzero(np.diff(slashes, prepend=-2) > 1)
        starts = slashes[first]
        lengths = np.diff(first, append=len(slashes))
        escaped = (starts + lengths)[(lengths + (self._escaped & (starts == 0))) & 1 == 1]
        if self._escaped and not (len(starts) and starts[0] == 0):
            escaped = np.append(escaped, 0)
        self._escaped = bool((escaped == len(array)).any())
        return escaped


def begin_of(text: bytes, path: str) -> int:
    """Where, in the first bytes of a file, the text behind the opening bracket begins. Raises DamagedFile."""
    start = len(BOM) if text.startswith(BOM) else 0
    rest = text[start:].lstrip(_BLANK)
    if not rest.startswith(b"["):
        raise DamagedFile(
            f"{path} is no array of objects: it begins with {rest[:1].decode('latin-1')!r} and not with '['. Give the "
            "key format: json_lines if each line is an object; else convert it, such as "
            "pandas.read_json(FILE).to_json(FILE.jsonl, orient='records', lines=True)"
        )
    return len(text) - len(rest) + 1


def check_end(rest: bytes, path: str) -> None:
    """Raises DamagedFile: something is behind the closing bracket."""
    if rest.strip(_BLANK):
        raise DamagedFile(f"{path} goes on behind the array that it should be: check that it is one array of objects")


def torn(path: str) -> DamagedFile:
    """What to say of a file in which the array does not end."""
    return DamagedFile(f"{path} ends before its array does: a bracket or a quote is missing; check that it is whole")


def record_ends(chunks: Iterator[bytes], offset: int, longest: int, path: str) -> Iterator[Any]:
    """Offsets behind the records (int64, an array for each chunk), as the text streams by.

    Args:
        chunks: from the first record on.
        offset: of the first one in the file.
        longest: bytes that a record may have.

    Raises:
        DamagedFile: the array does not end, or something is behind it.
        OverflowError: a record is longer; the argument is where it begins.
    """
    scanner = Scanner()
    last = offset
    for chunk in chunks:
        if not scanner.depth:
            check_end(chunk, path)
            continue
        found = scanner.look(chunk)
        ends = found.ends + (offset + 1)
        if found.close >= 0:
            check_end(chunk[found.close + 1 :], path)
            ends = np.append(ends, offset + found.close)
        offset += len(chunk)
        if len(ends):
            last = int(ends[-1])
        if scanner.depth and offset - last > longest:
            raise OverflowError(last)
        yield ends
    if scanner.depth:
        raise torn(path)


def as_lines(text: bytes, offset: int) -> Lines:
    """Whole records of an array, and the commas behind them, as lines of a record each.

    Args:
        text: of them; what follows the array's end is left out.
        offset: of the text.
    """
    found = Scanner().look(text)
    lines: Any = np.frombuffer(text, np.uint8).copy()
    lines[found.breaks] = ord(" ")
    lines[found.ends] = ord("\n")
    data = lines[: found.close].tobytes() if found.close >= 0 else lines.tobytes()
    starts = np.concatenate([[0], found.ends + 1])
    feeds = np.flatnonzero(np.frombuffer(text, np.uint8) == 10)
    firsts = [at + len(text[at : at + 1024]) - len(text[at : at + 1024].lstrip(_BLANK)) for at in starts.tolist()]
    return Lines(offset, data, np.searchsorted(feeds, firsts))

"""Files of lines: cut at any byte, sampled in places, decompressed as a stream.

A part is a range of bytes chosen without a look at the file; a line belongs to the part in which its first byte lies.
So the parts of a file need no reading to be made, and together they hold every line once.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mpi_prs.inputs.formats.compression import compression_of, decompressed
from mpi_prs.inputs.formats.format import MAX_RECORD_SIZE, DamagedFile, Files, Part, length_of, reading, record_too_long

_CHUNK = 2**16
BOM = codecs.BOM_UTF8
PIECES = 64
PIECE_BYTES = 2**17
"""A sample is at most this many pieces of at most this size: 8 MiB."""


class Lines(NamedTuple):
    """Whole lines of a file.

    Attributes:
        offset: where the first one begins.
        data: these lines.
        numbers: of each, how many lines of the file are between ``first`` and it; ``None``: as many as here.
        first: number of the line at ``offset``, from 1; 0: it is not known.
    """

    offset: int
    data: bytes
    numbers: Any = None
    first: int = 0

    def number(self, line: int) -> int:
        """How many lines of the file are before one of these, from the offset on."""
        return line if self.numbers is None else int(self.numbers[line])


class SampleLines(NamedTuple):
    """Lines of a sample."""

    file: str
    lines: Lines

    @property
    def data(self) -> bytes:
        """The lines."""
        return self.lines.data


def lines_of(file: BinaryIO, start: int, stop: int, path: str = "", longest: int = MAX_RECORD_SIZE) -> Lines:
    """The lines that begin in a range of bytes. Reads the range, and as far as the last line goes.

    Args:
        path: for a message.
        longest: so many bytes it may have.

    Raises:
        InputError: it has more.
    """
    before = 1 if start else 0  # the byte before tells whether a line begins at `start`
    file.seek(start - before)
    data = file.read(stop - start + before)
    if before:
        end_of_other = data.find(b"\n", 0, len(data) - 1)
        if end_of_other < 0:
            return Lines(stop, b"")
        start += end_of_other
        data = data[end_of_other + 1 :]
    if not data.endswith(b"\n"):
        rest = _rest_of_line(file, longest)
        if rest is None:
            raise record_too_long(path, line_number(file, start + data.rfind(b"\n") + 1), longest)
        data += rest
    if start == 0 and data.startswith(BOM):
        return Lines(len(BOM), data[len(BOM) :])
    return Lines(start, data)


def _rest_of_line(file: BinaryIO, longest: int) -> bytes | None:
    """``None``: it is longer than that."""
    chunks = []
    length = 0
    while chunk := file.read(_CHUNK):
        end = chunk.find(b"\n") + 1
        chunks.append(chunk[:end] if end else chunk)
        length += len(chunks[-1])
        if length > longest:
            return None
        if end:
            break
    return b"".join(chunks)


def parts_at_ends(file: str, start: int, ends: Iterator[Any], step: int, stop: int | None = None) -> Iterator[Part]:
    """Parts of about equal size that end where records do.

    Args:
        start: offset of the first record.
        ends: offsets behind the records (int64), some at a time.
        step: bytes of a part, at least; the last one may have fewer.
        stop: where the text ends; default: with the last record.
    """
    rows = 0
    last = start
    for offsets in ends:
        done = 0
        while (number := int(offsets.searchsorted(start + step))) < len(offsets):
            last = int(offsets[number])
            yield Part(file, start, last, max(1, rows + number + 1 - done))
            start, rows, done = last, 0, number + 1
        rows += len(offsets) - done
        last = int(offsets[-1]) if len(offsets) else last
    stop = last if stop is None else stop
    if start < stop:
        yield Part(file, start, stop, max(1, rows))


def spread(ends: Iterator[Any], start: int, step: int) -> Iterator[tuple[int, int]]:
    """From where to where pieces of a sample go, one for each ``step`` bytes, of whole records.

    Args:
        ends: offsets behind the records (int64), some at a time.
        start: offset of the first record.
    """
    bounds: Any = np.array([start])
    target = start
    for offsets in ends:
        bounds = np.append(bounds[-1:], offsets)
        while (first := int(bounds.searchsorted(target))) < len(bounds) - 1:
            last = max(int(bounds.searchsorted(bounds[first] + PIECE_BYTES, "right")) - 1, first + 1)
            yield int(bounds[first]), int(bounds[last])
            target = max(int(bounds[last]), int(bounds[first]) + step)


def line_number(file: BinaryIO, offset: int) -> int:
    """The number, from 1, of the line that begins at an offset. Reads the file up to there."""
    file.seek(0)
    number = 1
    while offset > 0 and (chunk := file.read(min(offset, 2**20))):
        number += chunk.count(b"\n")
        offset -= len(chunk)
    return number


def sample(
    files: Callable[[], Iterator[str]], pieces: Callable[[str, int], Iterator[SampleLines]]
) -> Iterator[SampleLines]:
    """Pieces of files, spread over all of them. A file that is damaged is passed over, unless all of them are.

    Args:
        pieces: gives so many of a file. Raises DamagedFile, InputError.
    """
    damaged: DamagedFile | None = None
    sound = False
    count = sum(1 for _ in files())
    chosen = min(count, max(PIECES // 2, 1))  # of each the beginning and the end at least
    wanted = {number * (count - 1) // max(chosen - 1, 1) for number in range(chosen)}
    for number, path in enumerate(files()):
        if number in wanted:
            try:
                yield from pieces(path, PIECES // chosen)
                sound = True
            except DamagedFile as error:  # it fails by itself when it is read
                damaged = damaged or error
    if damaged is not None and not sound:
        raise damaged


def pieces_of(path: str, most: int, store: Files, longest: int) -> Iterator[SampleLines]:
    """Whole lines from the beginning, the end and places between; of a compressed file only from the beginning.

    A line longer than a piece is left out, unless it is the first of the file.

    Raises:
        InputError: a line has more than ``longest`` bytes.
    """
    if compression_of(path):
        with store.open(path) as file:
            data = decompressed(file, path, PIECE_BYTES)
        cut = data.rfind(b"\n") + 1 if len(data) >= PIECE_BYTES - len(BOM) else 0
        yield SampleLines(path, Lines(0, data[:cut] if cut else data))
        return
    with reading(path), store.open(path) as file:
        size = length_of(file)
        count = min(most, -(-size // PIECE_BYTES))
        for number in range(count):
            start = number * (size - PIECE_BYTES) // max(count - 1, 1) if number else 0
            lines = lines_of(file, start, min(start + PIECE_BYTES, size), path, longest)
            if lines.data:
                yield SampleLines(path, lines)

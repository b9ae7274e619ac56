"""A sample of delimited text: what there is in its columns, and how long its records are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mpi_prs.inputs.formats.compression import compression_of, decompressed
from mpi_prs.inputs.formats.delimited.encoding import Encoding
from mpi_prs.inputs.formats.delimited.reading import field_counts, texts_of
from mpi_prs.inputs.formats.delimited.records import (
    Dialect,
    Records,
    closes_well,
    ends_of_values,
    inside_quotes,
    line_breaks,
    masked,
    records_of,
    without_comments,
)
from mpi_prs.inputs.formats.delimited.text import (
    Head,
    LongRecord,
    Opener,
    bytes_between,
    count_line_breaks,
    lines_between,
    squeezed_chunks,
    too_long,
)
from mpi_prs.inputs.formats.format import DamagedFile, Files, length_of, reading
from mpi_prs.inputs.formats.inference import Mixture, look
from mpi_prs.inputs.formats.text_columns import NumberStyle

SAMPLE_BYTES = 2**23
SAMPLE_FILES = 128
_PIECE_BYTES = 2**18
_RECORDS_TOLD = 1000
"""So many records of a piece tell how its quotes are meant."""


class SampleRecords(NamedTuple):
    """Whole records of a sample, in UTF-8, and the names of their fields."""

    text: bytes
    names: Sequence[str]
    file: str
    offset: int
    """Of the file, or of its decompressed content, in bytes."""
    encoding: Encoding


class OddValue(NamedTuple):
    """A value of a column of a sample: the ``line``-th, from 0, of those from an offset on."""

    text: str
    file: str
    offset: int
    line: int
    encoding: Encoding

    def place(self, store: Files) -> str:
        """File and line, for a message; reads the file up to there."""
        with reading(self.file), store.open(self.file) as file:
            if compression_of(self.file):
                chunks = iter([self.encoding.squeezed(decompressed(file, self.file, self.offset))])
            else:
                chunks = squeezed_chunks(file, self.encoding, self.encoding.bom, self.offset)
            return f"{self.file}, line {count_line_breaks(chunks) + self.line + 1}"


@dataclass
class SampleFindings:
    """What a sample tells.

    Attributes:
        seen: column → what there is in it, see :func:`~mpi_prs.inputs.formats.inference.look`.
        mixtures: column → how many numbers there are in it.
        odd: column → its first value that is no number.
        bytes, records: of the sample.
        longest: bytes of its longest record.
        whole: nothing has been left out.
        torn: lines that seem to be pieces of quoted values with line breaks; where these are read as such, records of
            which the quotes do not close as they should.
        multi_line: records with line breaks in quoted values.
    """

    seen: dict[str, set[str]] = field(default_factory=dict)
    mixtures: dict[str, Mixture] = field(default_factory=dict)
    odd: dict[str, OddValue] = field(default_factory=dict)
    bytes: int = 0
    records: int = 0
    longest: int = 1
    whole: bool = True
    torn: int = 0
    multi_line: int = 0

    def add(self, piece: SampleRecords, opener: Opener, missing: Sequence[str], fill: bool, style: NumberStyle) -> None:
        """Look at all values of a piece."""
        records = records_of(piece.text, opener.dialect)
        self.bytes += len(piece.text)
        self.records += len(records.starts)
        if len(records.starts):
            self.longest = max(self.longest, int((records.stops - records.starts).max()) + 2)
        if opener.dialect.may_break_lines:
            self._add_quotes(piece, records, opener.dialect)
        texts = texts_of(piece.text, records, opener.dialect, piece.names, piece.names, missing, fill)
        for name, chunks in texts.columns.items():
            seen = self.seen.setdefault(name, set())
            mixture = self.mixtures.setdefault(name, Mixture())
            row = 0
            for chunk in chunks:
                seen |= look(chunk, style, seen)
                if (place := mixture.add(chunk, seen, style)) is not None:
                    line = int(records.lines[texts.rows[row + place]])
                    text = chunk[place].as_py().decode("utf-8", "replace")
                    self.odd[name] = OddValue(text, piece.file, piece.offset, line, piece.encoding)
                row += len(chunk)

    def _add_quotes(self, piece: SampleRecords, records: Records, dialect: Dialect) -> None:
        text = piece.text
        self.torn += int(records.open.sum())
        if not dialect.multi_line:
            self.torn += len(ends_of_values(text, records, dialect)) if dialect.quote else 0
            return
        breaks, _ = line_breaks(np.frombuffer(text, np.uint8))
        inside = np.searchsorted(breaks, records.stops) > np.searchsorted(breaks, records.starts)
        for number in np.flatnonzero(inside & ~records.open)[:_RECORDS_TOLD].tolist():
            if closes_well(text[records.starts[number] : records.stops[number]], dialect):
                self.multi_line += 1
            else:
                self.torn += 1


class Chosen(NamedTuple):
    """Files of which a sample is taken.

    Attributes:
        files: spread evenly over all, the first and the last among them.
        all: there are no others.
    """

    files: list[str]
    all: bool


def choose(files: Iterator[str]) -> Chosen:
    """At most ``2 · SAMPLE_FILES`` files; lists them all, keeps no more than that in memory."""
    kept: list[str] = []
    step = 1
    last = ""
    for number, path in enumerate(files):
        last = path
        if number % step == 0:
            if len(kept) == 2 * SAMPLE_FILES:
                kept = kept[::2]
                step *= 2
                if number % step:
                    continue
            kept.append(path)
    if kept and kept[-1] != last:
        kept.append(last)
    return Chosen(kept, step == 1)


def sample(
    chosen: Chosen, names_of: Callable[[str, Head], Sequence[str]], body_of: Callable[[str, Head], int], opener: Opener
) -> Iterator[SampleRecords | None]:
    """Records of the beginnings, the ends and places between; ``None``: something has been left out.

    At most 8 MiB in all, and of each file a piece.

    Args:
        chosen: files.
        names_of: the names of the fields of a file's records.
        body_of: the offset at which they begin.
        opener: of the files.
    """
    budget = SAMPLE_BYTES // max(len(chosen.files), 1)
    plain = [path for path in chosen.files if not compression_of(path)]
    small = sum(map(opener.store.size, plain)) <= SAMPLE_BYTES
    if not chosen.all:
        yield None
    for number, path in enumerate(chosen.files):
        try:
            head = opener.head(path)
        except DamagedFile:
            yield None  # a damaged file fails by itself, when it is read
            continue
        body = body_of(path, head)
        if not head.fields or not (body < head.second or head.more):
            continue
        names = names_of(path, head)
        place = number / max(len(chosen.files) - 1, 1)
        most = SAMPLE_BYTES if small and path in plain else budget
        try:
            for found in _pieces(path, head.encoding, body, most, place, len(names), opener):
                if found is None:
                    yield None
                else:
                    text = without_comments(found[1], opener.dialect)
                    yield SampleRecords(text, names, path, found[0], head.encoding)
        except DamagedFile:
            yield None  # its beginning is sound, and further on it is damaged


def _pieces(
    path: str, encoding: Encoding, body: int, budget: int, place: float, fields: int, opener: Opener
) -> Iterator[tuple[int, bytes] | None]:
    """Offsets, and the records there."""
    with reading(path), opener.store.open(path) as file:
        if compression_of(path):
            yield from _beginning(decompressed(file, path, body + budget), encoding, body, budget, opener)
            return
        size = length_of(file)
        if size - body <= budget:
            yield body, bytes_between(file, encoding, body, size).content
            return
        yield None
        count = max(budget // _PIECE_BYTES, 1)
        piece = max(budget // count, 1)
        places = np.linspace(0, 1, count) if count > 1 else [place]
        for at in places:
            start = body + int((size - body - piece) * at)
            start -= (start - encoding.bom) % encoding.unit
            stop = start + piece - piece % encoding.unit
            if start <= body:
                yield body, _whole_records(bytes_between(file, encoding, body, stop).content, opener)
            elif opener.dialect.multi_line and opener.dialect.may_break_lines:
                first, text = _synchronised(bytes_between(file, encoding, start, stop).content, fields, opener)
                yield start + first * encoding.unit, text
            else:
                try:
                    lines = lines_between(file, encoding, start, stop, size, opener.longest)
                    yield lines.offset, lines.content
                except LongRecord as error:
                    raise too_long(file, encoding, path, error, opener.longest) from None


def _beginning(
    data: bytes, encoding: Encoding, body: int, budget: int, opener: Opener
) -> Iterator[tuple[int, bytes] | None]:
    whole = len(data) < body + budget - 3
    text = encoding.to_utf8(data[body:])
    if whole:
        yield body, text
        return
    yield None
    yield body, _whole_records(text, opener)


def _whole_records(text: bytes, opener: Opener) -> bytes:
    """Without the last record, of which the end may be missing."""
    records = records_of(without_comments(text, opener.dialect, same_length=True), opener.dialect)
    return text[: int(records.starts[-1])] if len(records.starts) > 1 else b""


def _synchronised(data: bytes, fields: int, opener: Opener) -> tuple[int, bytes]:
    """The records within some bytes from the middle of a file, if it is clear whether these begin inside quotes, and
    where in these bytes they begin."""
    dialect = opener.dialect
    if fields == 1:
        return 0, b""
    possible = []
    for inside in (False, True) if dialect.quote else (False,):
        text = masked(without_comments(data, dialect, inside, same_length=True), dialect)
        array: Any = np.frombuffer(text, np.uint8)
        breaks, ends = line_breaks(array)
        hidden, _ = inside_quotes(text, array, breaks, dialect, inside) if dialect.quote else (breaks < 0, False)
        ending = ends[~hidden]
        if len(ending) > 1:
            text = data[int(ending[0]) : int(ending[-1])]
            if _is_table(text, fields, opener):
                possible.append((int(ending[0]), text))
    return possible[0] if len(possible) == 1 else (0, b"")


def _is_table(text: bytes, fields: int, opener: Opener) -> bool:
    text = without_comments(text, opener.dialect)
    records = records_of(text, opener.dialect)
    counts = field_counts(text, records.starts, opener.dialect)
    return not records.open.any() and bool((counts == fields).all())

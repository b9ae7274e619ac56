"""ORC: stripes decoded as a whole, and what the end of a file says.

pyarrow tells neither how many rows a stripe has nor whether a column holds nulls, but hands out the end of the file in
which both stand: Protocol Buffers, of which we need a few fields (https://orc.apache.org/specification/ORCv1/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.orc

from mpi_prs.inputs.formats.arrow_files.agreement import Footer, read_columns, whose_nulls_matter
from mpi_prs.inputs.formats.arrow_files.reading import ArrowFiles, Group, GroupedFile, first_line
from mpi_prs.inputs.formats.format import DamagedFile, Files


@dataclass(frozen=True)
class Orc(ArrowFiles):
    """ORC files; see :class:`~mpi_prs.inputs.formats.arrow_files.reading.ArrowFiles`.

    Sizes in bytes are those in the file, compressed, of the selected columns where the file tells. A stripe is decoded
    as a whole, but for columns that are not selected.
    """

    def opened(self, path: str, store: Files) -> _Opened:
        return _Opened(path, store)


class _Column(NamedTuple):
    """What the end of a file says of a column: whether it holds nulls (``None``: it does not say), and its bytes."""

    nulls: bool | None
    bytes: int


class _Opened(GroupedFile):
    """An open ORC file."""

    format = "ORC"

    def _look(self) -> None:
        self._file = pa.orc.ORCFile(self._raw)
        self._schema = self._file.schema
        self._stripes, self._columns = _parsed(self._file.reader.serialized_file_tail(), self._schema.names)

    def measured(self, names: Sequence[str]) -> list[Group]:
        whole = sum(column.bytes for column in self._columns.values())
        share = sum(self._columns[name].bytes for name in names if name in self._columns) / whole if whole else 1
        return [Group(stripe.rows, round(stripe.bytes * share)) for stripe in self._stripes]

    def footer(self, columns: Sequence[str], cast: Sequence[str]) -> Footer:
        wanted = whose_nulls_matter(self._schema, read_columns(self._schema, columns), cast)
        said = {name: self._columns[name].nulls for name in wanted}
        nulls = {name for name, found in said.items() if found is not False}
        return Footer(
            self.path, sum(self.groups()), self._schema, nulls, {name for name in nulls if said[name] is None}, {}
        )

    def batches(self, groups: Sequence[int], names: Sequence[str], _rows: int) -> Iterator[Any]:
        # A dot in a name means a field of a struct there
        columns = None if any("." in name for name in names) else list(names)
        for number in groups:
            if self._stripes[number].rows:
                yield self._file.read_stripe(number, columns)

    def damaged(self, error: Exception) -> DamagedFile:
        why = first_line(error)
        if "out of range for nanosecond" in why:
            return DamagedFile(f"{self.path}: {why}; leave the column out: select the others with columns")
        return super().damaged(error)


class _Stripe(NamedTuple):
    rows: int
    bytes: int


def _parsed(tail: bytes, names: Sequence[str]) -> tuple[list[_Stripe], dict[str, _Column]]:
    """Stripes and columns in the end of a file. Raises ValueError: it is not what it should be."""
    try:
        return _stripes_and_columns(tail, names)
    except (TypeError, LookupError):  # a field is missing, or of another kind
        raise ValueError("its end is damaged") from None


def _stripes_and_columns(tail: bytes, names: Sequence[str]) -> tuple[list[_Stripe], dict[str, _Column]]:
    footer = dict(_fields(tail))[2]
    rows = 0
    stripes: list[_Stripe] = []
    types: list[bytes] = []
    statistics: list[bytes] = []
    for number, value in _fields(footer):
        if number == 3:
            stripe = dict(_fields(value))
            stripes.append(_Stripe(stripe.get(5, 0), sum(stripe.get(length, 0) for length in (2, 3, 4))))
        elif number == 4:
            types.append(value)
        elif number == 6:
            rows = value
        elif number == 7:
            statistics.append(value)
    if sum(stripe.rows for stripe in stripes) != rows or not types:
        raise ValueError("its stripes do not have the rows that it should have")
    firsts = [number for field, value in _fields(types[0]) if field == 2 for number in _numbers(value)]
    if len(firsts) != len(names):
        raise ValueError("its columns are not those of its schema")
    columns = {}
    for name, first, end in zip(names, firsts, [*firsts[1:], len(types)], strict=True):
        said = [dict(_fields(each)) for each in statistics[first:end]]
        nulls = None
        if said and 10 in said[0]:
            nulls = bool(said[0][10])
        elif said and 1 in said[0]:
            nulls = said[0][1] < rows
        columns[name] = _Column(nulls, sum(each.get(11, 0) for each in said))
    return stripes, columns


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers and values of a message of Protocol Buffers. Raises ValueError: it is torn."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            value = message[at : at + length]
            at += length
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
            value = message[at : at + length]
            at += length
        else:
            raise ValueError("its end is damaged")
        if at > len(message):
            raise ValueError("its end is torn")
        yield key >> 3, value


def _numbers(value: int | bytes) -> Iterator[int]:
    """A repeated number, packed or not."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
    raise ValueError("its end is torn")

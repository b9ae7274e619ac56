"""Where each mini-batch's rows are in the growing file; ``output_order: input`` copies them into the inputs' order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpi_prs.core.errors import OutputError
from mpi_prs.output.journal import RECORD_TYPE, read_journal, write_all
from mpi_prs.wire.parts import WAYS

_PIECE = 4 << 20
_HEADER = -1  # stands before mini-batch 0
_DEEPEST = 34  # bits that the way to a part may have


def finishing_file(part: Path) -> Path:
    """Where the final file is made of the growing file ``part``, unless it can be taken as it is."""
    return part.with_name(f"{part.name}.finishing")


class Places(NamedTuple):
    """Of every piece of rows, in the order of the file or of the mini-batches: three int64 arrays.

    Attributes:
        offsets, lengths: where it is, in bytes; pieces without bytes are left out.
        returned: how many rows it has; 0 for the header.
    """

    offsets: Any
    lengths: Any
    returned: Any


def put_in_order(source: int, journal: Path, target: Path) -> None:
    """Copy the rows in the file ``source`` (a descriptor) to ``target``, in the order of the mini-batches.

    One pass over the journal, 32 bytes of memory a mini-batch; neighbours that stand together are copied in one piece.
    """
    places = read_places(journal, in_input_order=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for offset, length in _joined(places.offsets, places.lengths):
            _copy(source, descriptor, offset, length)
        os.fdatasync(descriptor)
    except OSError:
        target.unlink(missing_ok=True)  # on a full disk its room is needed
        raise
    finally:
        os.close(descriptor)


def read_places(journal: Path, *, in_input_order: bool) -> Places:
    """The places of all rows on record. One pass over the journal, 32 bytes of memory a mini-batch."""
    nothing: Any = np.empty(0, np.int64)
    numbers, offsets, lengths, returned = [nothing], [nothing], [nothing], [nothing]
    for entry in read_journal(journal):
        results = entry.results
        if results is None:
            continue
        records = np.frombuffer(results.records, RECORD_TYPE)
        if not len(records):
            numbers.append(np.array([_HEADER]))
            offsets.append(np.array([results.offset]))
            lengths.append(np.array([results.length]))
            returned.append(np.array([0]))
            continue
        sizes = records["length"].astype(np.int64)
        numbers.append(records["mini_batch"])
        offsets.append(results.offset + np.cumsum(sizes) - sizes)
        lengths.append(sizes)
        returned.append(records["returned"].astype(np.int64))
    places = Places(np.concatenate(offsets), np.concatenate(lengths), np.concatenate(returned))
    order: Any = np.flatnonzero(places.lengths)
    if in_input_order:
        order = order[_by_input(np.concatenate(numbers)[order])]
    return Places(*(values[order] for values in places))


def _by_input(numbers: Any) -> Any:
    """What sorts them as the input: mini-batches, and of each its parts; the header is the first."""
    ways = numbers // WAYS  # -1 of the header
    if not (ways > 0).any():
        return np.argsort(numbers, kind="stable")
    depths = np.frexp(ways.astype(np.float64))[1]
    places = np.where(ways > 0, ways << (_DEEPEST - depths), 0)  # a way is a binary fraction
    return np.lexsort((places, np.where(ways < 0, _HEADER, numbers % WAYS)))


def _joined(offsets: Any, lengths: Any) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of each stretch that can be copied in one go."""
    if not len(offsets):
        return
    breaks: Any = np.flatnonzero(offsets[1:] != offsets[:-1] + lengths[:-1]) + 1
    starts = np.concatenate(([0], breaks))
    ends = np.concatenate((breaks, [len(offsets)]))
    for start, end in zip(starts, ends, strict=True):
        yield int(offsets[start]), int(offsets[end - 1] + lengths[end - 1] - offsets[start])


def _copy(source: int, target: int, offset: int, length: int) -> None:
    while length:
        piece = os.pread(source, min(length, _PIECE), offset)
        if not piece:
            raise OutputError("the output is shorter than its journal says: somebody else has changed it")
        write_all(target, piece)
        offset += len(piece)
        length -= len(piece)

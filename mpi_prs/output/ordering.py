"""``output_order: input``: the rows, written as they arrived, copied into the order of the mini-batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mpi_prs.errors import OutputError
from mpi_prs.output.journal import read_journal, write_all
from mpi_prs.output.record import RECORD_FIELDS, RECORD_TYPES

_PIECE = 4 << 20
_RECORD = np.dtype(list(zip(RECORD_FIELDS, RECORD_TYPES, strict=True)))
_HEADER = -1  # stands before mini-batch 0


def ordered_file(part: Path) -> Path:
    """Where the growing file ``part`` is put in the input's order."""
    return part.with_name(f"{part.name}.ordered")


def put_in_order(source: int, journal: Path, target: Path) -> None:
    """Copy the rows in the file ``source`` (a descriptor) to ``target``, in the order of the mini-batches.

    One pass over the journal, 24 bytes of memory a mini-batch; neighbours that stand together are copied in one piece.
    """
    numbers, offsets, lengths = _places(journal)
    order = np.argsort(numbers, kind="stable")
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        for offset, length in _joined(offsets[order], lengths[order]):
            _copy(source, descriptor, offset, length)
        os.fdatasync(descriptor)
    except OSError:
        target.unlink(missing_ok=True)  # on a full disk its room is needed
        raise
    finally:
        os.close(descriptor)


def _places(journal: Path) -> tuple[Any, Any, Any]:
    """Of every piece of rows: its mini-batch, its offset in the output, its length; three int64 arrays."""
    nothing: Any = np.empty(0, np.int64)
    numbers, offsets, lengths = [nothing], [nothing], [nothing]
    for entry in read_journal(journal):
        results = entry.results
        if results is None:
            continue
        records = np.frombuffer(results.records, _RECORD)
        if not len(records):
            numbers.append(np.array([_HEADER]))
            offsets.append(np.array([results.offset]))
            lengths.append(np.array([results.length]))
            continue
        sizes = records["length"].astype(np.int64)
        numbers.append(records["mini_batch"])
        offsets.append(results.offset + np.cumsum(sizes) - sizes)
        lengths.append(sizes)
    return np.concatenate(numbers), np.concatenate(offsets), np.concatenate(lengths)


def _joined(offsets: Any, lengths: Any) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of each stretch that can be copied in one go."""
    wanted = lengths > 0
    offsets, lengths = offsets[wanted], lengths[wanted]
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

"""The record of one finished mini-batch: 48 bytes, packed once.

The user process packs it; the worker, the message to the master and the journal carry the very same bytes. So the cost
of a finished mini-batch on the way is a copy of 48 bytes, and whoever wants the fields unpacks them.

Standard library only: the user process imports this module.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

RECORD = struct.Struct("<qIIIIQdff")
RECORD_FIELDS = ("mini_batch", "items", "returned", "attempt", "process", "length", "started", "run", "overhead")
RECORD_TYPES = ("<i8", "<u4", "<u4", "<u4", "<u4", "<u8", "<f8", "<f4", "<f4")  # for numpy.dtype

# Positions in an unpacked record, for loops that cannot afford a named tuple.
MINI_BATCH, ITEMS, RETURNED, ATTEMPT, PROCESS, LENGTH, STARTED, RUN, OVERHEAD = range(9)


class Record(NamedTuple):
    """One finished mini-batch.

    Attributes:
        mini_batch: its number, from 0.
        items: items given to ``run()``, so without those that failed before, each for itself.
        returned: length of what ``run()`` returned: the items that succeeded.
        attempt: the try that succeeded, from 1.
        process: number of the user process on its node, from 0.
        length: bytes of its rows in the output.
        started: when ``run()`` was called, in seconds since 1970.
        run: seconds in ``run()``.
        overhead: seconds spent on making the mini-batch and encoding the rows.
    """

    mini_batch: int
    items: int
    returned: int
    attempt: int
    process: int
    length: int
    started: float
    run: float
    overhead: float


def unpack_records(data: bytes | memoryview) -> list[Record]:
    """All records in ``data``, whose length is a multiple of 48. About 1 µs a record."""
    return [Record._make(fields) for fields in RECORD.iter_unpack(data)]

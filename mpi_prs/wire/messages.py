"""Everything that crosses MPI: the tags, and how each body is packed and unpacked.

=====================  ==================================================================================
worker → master
``HELLO``              JSON: node, pid, what the rank may use of its node
``SEES``               JSON: whether it sees the run directory, in answer to START
``READY``              JSON: a user process has finished ``init()``
``INIT_FAILED``        JSON: a Failure; the worker waits for RESTART
``HEADER``             the line above all rows, before a worker's first rows
``RESULTS``            number of records, records of 48 bytes, then their rows in the same order
``SPILLED``            one record, then the path of the file that holds its rows
``FAILED``             JSON: the Failure of one attempt
``ITEMS_FAILED``       JSON: Failures of single items of a mini-batch, whose RESULTS or SPILLED follow
``GONE``               JSON: a user process has ended, and whether it is replaced; or it pauses until it is READY again
``GIVEN_BACK``         ranges that were not started: while draining, or since no user process is there for them
``HEARTBEAT``          empty: I am alive; the master says so too
``BYE``                JSON: everything of this worker is stopped; a file that the script left, what held the end up
master → worker
``START``              JSON: :class:`~mpi_prs.wire.settings.WorkerSettings`
``GO``                 empty: every worker sees the run directory; start the user processes
``ASSIGN``             ranges of mini-batches: first, count, attempt
``END_ATTEMPT``        one such range of one mini-batch: another attempt was done first, this one counts no more
``RESTART``            JSON: try again to start this user process
``DRAIN``              JSON: start nothing new; what runs may go on for some seconds
``STOP``               JSON: end all user processes, say BYE, leave with this exit code
``FAREWELL``           empty: the master has done all that it had to; MPI can be finished
=====================  ==================================================================================

No path and no data goes out to the workers: they open the manifest themselves. Each pair of functions below is one
message, packed at one side and unpacked at the other.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterable
from typing import Any

from mpi_prs.wire.record import RECORD


class Tag(enum.IntEnum):
    """The kind of a message; it is the MPI tag as well."""

    HELLO = 1
    READY = 2
    INIT_FAILED = 3
    RESULTS = 4
    SPILLED = 5
    FAILED = 6
    HEARTBEAT = 7
    BYE = 8
    GONE = 9
    GIVEN_BACK = 10
    HEADER = 11
    SEES = 12
    ITEMS_FAILED = 13
    START = 20
    ASSIGN = 21
    DRAIN = 22
    STOP = 23
    RESTART = 24
    GO = 25
    FAREWELL = 26
    END_ATTEMPT = 27


def pack_json(**fields: Any) -> bytes:
    """A small message as JSON."""
    return json.dumps(fields).encode()


def unpack_json(body: bytes) -> dict[str, Any]:
    """The inverse of :func:`pack_json`."""
    fields: dict[str, Any] = json.loads(body)
    return fields


_RANGE = struct.Struct("<qII")


def pack_ranges(ranges: Iterable[tuple[int, int, int]]) -> bytes:
    """Ranges of mini-batches ``(first, count, attempt)``, 16 bytes each."""
    return b"".join(_RANGE.pack(*item) for item in ranges)


def unpack_ranges(body: bytes) -> list[tuple[int, int, int]]:
    """The inverse of :func:`pack_ranges`."""
    return list(_RANGE.iter_unpack(body))


_COUNT = struct.Struct("<I")


def pack_results(count: int, records: Iterable[bytes], rows: Iterable[bytes]) -> bytes:
    """Results of ``count`` mini-batches: one copy of everything, nothing a mini-batch."""
    return b"".join((_COUNT.pack(count), *records, *rows))


def unpack_results(body: bytes) -> tuple[memoryview, memoryview]:
    """The records and the rows of a RESULTS message; no copy."""
    (count,) = _COUNT.unpack_from(body)
    view = memoryview(body)
    end = _COUNT.size + count * RECORD.size
    return view[_COUNT.size : end], view[end:]


def pack_spilled(record: bytes, path: str) -> bytes:
    """A record, and the file with its rows."""
    return record + path.encode("utf-8", "surrogateescape")


def unpack_spilled(body: bytes) -> tuple[bytes, str]:
    """The inverse of :func:`pack_spilled`."""
    return body[: RECORD.size], body[RECORD.size :].decode("utf-8", "surrogateescape")

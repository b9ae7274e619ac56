"""The journal: the append-only ledger that, with the manifest, decides what is left to do.

A line that names the run, and frames. Each has a CRC, so a torn tail is recognised and dropped::

    mpi_prs journal 2 <run> \\n
    length u32 │ crc32 u32 │ kind u8 │ body

``RESULTS``   worker u32, output offset u64, output length u64, CRC of these rows u32, records (48 bytes each)
``EVENT``     JSON: ``{"event": "start" | "attempt_failed" | "failed" | "synced" | "damaged" | "complete" | …}``
``ITEMS``     bytes of RESULTS u32, and these, as above; JSON: items that failed each for itself (:class:`LostItems`)

Items that failed stand in one frame with the results of the others, so that they are on record together. In records and
in LostItems the number of a mini-batch may be that of a part (:mod:`mpi_prs.wire.parts`). A version that knows neither
refuses such a journal.

A RESULTS frame is written after its rows, so rows that no frame names are cut off at the next start. A process that is
killed loses nothing by this: what was written is in the kernel. A machine that dies may lose, or fill with zeros, what
was not synced yet, and not in the order of writing. Therefore each frame carries the CRC of its rows; a ``synced``
event says up to where everything is on disk, and at the next start the rows after that are read and compared; a
``damaged`` one, that the next start does so with all of them.

A journal of version 1 names no run: it goes on as it is.
"""

from __future__ import annotations

import enum
import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mpi_prs.core.errors import OutputError
from mpi_prs.core.files import NoRegularFile, own_file
from mpi_prs.output.tracebacks import ReadTracebacks
from mpi_prs.wire.failure import shorten
from mpi_prs.wire.parts import mini_batch_of
from mpi_prs.wire.record import RECORD, RECORD_FIELDS, RECORD_TYPES

RECORD_TYPE = np.dtype(list(zip(RECORD_FIELDS, RECORD_TYPES, strict=True)))
"""The records of a RESULTS frame as a structured array."""

_MARK = b"mpi_prs journal "
_NAMELESS = _MARK + b"1\n"
_NAMED = _MARK + b"2 "
_HEAD = re.compile(_NAMED + rb"([0-9a-f]{32})\n")
_HEAD_BYTES = len(_NAMED) + 32 + 1
_TORN_HEAD = re.compile(_NAMED + rb"[0-9a-f]{0,32}")
_FRAME = struct.Struct("<IIB")
_RESULTS = struct.Struct("<IQQI")
_ITEMS = struct.Struct("<I")
_LARGEST = 1 << 28


class FrameKind(enum.IntEnum):
    """The kind of a frame."""

    RESULTS = 1
    EVENT = 2
    ITEMS = 3


class Results(NamedTuple):
    """Mini-batches whose rows stand together in the output.

    Attributes:
        worker: the rank that had them.
        offset, length: where their rows are in the output, in bytes.
        crc: CRC-32 of these rows.
        records: 48 bytes for each mini-batch; see :mod:`mpi_prs.wire.record`.
    """

    worker: int
    offset: int
    length: int
    crc: int
    records: bytes

    @property
    def end(self) -> int:
        """Where in the output their rows end."""
        return self.offset + self.length


@dataclass(frozen=True)
class LostItems:
    """Items of a mini-batch that failed each for itself, and for the same reason.

    Attributes:
        number: of the mini-batch, or the part, that they failed in.
        items: how many the mini-batch has.
        at: which of these they are, from 0.
        failure: as of an attempt, with "kind", "message", "traceback", "attempt", "node", "process", "log", "seconds".
    """

    number: int
    items: int
    at: list[int]
    failure: Mapping[str, Any]

    @property
    def mini_batch(self) -> int:
        """The mini-batch that they are of."""
        return mini_batch_of(self.number)


@dataclass(frozen=True)
class JournalEntry:
    """One frame as it was read: results, an event, or failed items, these perhaps with the results that they belong to.

    ``end`` is the offset in the journal behind it.
    """

    results: Results | None
    event: dict[str, Any] | None
    end: int
    lost: Sequence[LostItems] = ()


def is_journal(path: Path) -> bool:
    """Whether a file begins as a journal does, of whatever version and run."""
    try:
        with open(path, "rb", opener=own_file) as file:
            return file.read(len(_MARK)) == _MARK
    except OSError:
        return False


class Journal:
    """The journal, open for appending. Cost: one ``write`` a frame, and a CRC over its bytes."""

    def __init__(self, path: Path, size: int, run: str = "") -> None:
        """Open it and cut off what lies behind ``size``; 0 starts a new one, of the run with this id."""
        self._path = path
        self._descriptor = own_file(str(path), os.O_RDWR | os.O_CREAT)
        if size:
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
        else:
            os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, b"%s%s\n" % (_NAMED, run.encode()) if run else _NAMELESS)

    def results(self, results: Results, lost: Sequence[LostItems] = ()) -> None:
        """Record finished mini-batches, once their rows are written, and those of their items that failed."""
        head = _RESULTS.pack(results.worker, results.offset, results.length, results.crc)
        if not lost:
            self._append(FrameKind.RESULTS, head + results.records)
            return
        told = json.dumps([asdict(each) for each in lost]).encode()
        self._append(FrameKind.ITEMS, _ITEMS.pack(len(head) + len(results.records)) + head + results.records + told)

    def event(self, event: str, **fields: Any) -> None:
        """Record anything else."""
        self._append(FrameKind.EVENT, json.dumps({"event": event, **fields}).encode())

    def _append(self, kind: FrameKind, body: bytes) -> None:
        tail = bytes((kind,)) + body
        write_all(self._descriptor, struct.pack("<II", len(body), zlib.crc32(tail)) + tail)

    def fileno(self) -> int:
        """For ``fsync``."""
        return self._descriptor

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_journal(path: Path, run: str | None = None) -> Iterator[JournalEntry]:
    """The entries of a journal, up to its end or to the first damaged one (a torn tail).

    About 0.2 µs a record, read in one pass with bounded memory.

    Args:
        run: the id of the run that it must be of, empty for one from before there were ids; ``None``: of any.

    Raises:
        OutputError: the file is not a journal of this version, is of another run, or has an entry that is not ours.
        FileNotFoundError: there is none.
    """
    tracebacks = ReadTracebacks()
    with _opened(path) as file:
        head = file.read(_HEAD_BYTES)
        found = _HEAD.match(head)
        end = _HEAD_BYTES if found else len(_NAMELESS)
        if not found and not head.startswith(_NAMELESS):
            begun = head.rstrip(b"\0")
            if _NAMELESS.startswith(begun) or _NAMED.startswith(begun) or _TORN_HEAD.fullmatch(begun):
                return  # torn, or filled with zeros, while it was created: empty
            raise OutputError(f"{path} is not a journal of this version; start the run anew with --overwrite")
        if run is not None and run != (found[1].decode() if found else ""):
            raise OutputError(
                f"{path} is the journal of another run than that of {path.with_name('run.json')}: put the right one "
                "back, or start the run anew with --overwrite"
            )
        file.seek(end)
        size = os.fstat(file.fileno()).st_size
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            length, crc, kind = _FRAME.unpack(head)
            if end + _FRAME.size + length > size or length > _LARGEST:
                return
            body = file.read(length)
            if zlib.crc32(body, zlib.crc32(head[-1:])) != crc:
                return
            end += _FRAME.size + length
            try:
                entry = _parse(kind, body, end, tracebacks)
            except (ValueError, RecursionError, struct.error) as error:
                raise OutputError(
                    f"{path} has an entry before byte {end} that is not of ours ({error}): start the run anew with "
                    "--overwrite"
                ) from None
            yield entry


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb", opener=own_file)
    except NoRegularFile as error:
        raise OutputError(str(error)) from None


def _parse(kind: int, body: bytes, end: int, tracebacks: ReadTracebacks) -> JournalEntry:
    """Raises ValueError, RecursionError, struct.error: its CRC is right, but nobody of us has written it."""
    if kind == FrameKind.RESULTS:
        return JournalEntry(_results(body), None, end)
    if kind == FrameKind.ITEMS:
        (length,) = _ITEMS.unpack_from(body)
        told = json.loads(body[_ITEMS.size + length :])
        if not isinstance(told, list):
            raise ValueError("it tells of no items")
        lost = [_lost_items(each, tracebacks) for each in told]
        return JournalEntry(_results(body[_ITEMS.size : _ITEMS.size + length]), None, end, lost)
    if kind != FrameKind.EVENT:
        raise ValueError(f"it is of the kind {kind}")
    event = json.loads(body)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise ValueError("it is no event")
    fields = _FIELDS.get(event["event"])
    if fields is not None:
        event = _checked(event, fields, event["event"])
    return JournalEntry(None, tracebacks.take(event), end)


def _results(body: bytes) -> Results:
    worker, offset, length, rows_crc = _RESULTS.unpack_from(body)
    records = body[_RESULTS.size :]
    if len(records) % RECORD.size:
        raise ValueError("a record is cut off")
    return Results(worker, offset, length, rows_crc, records)


def _lost_items(told: Any, tracebacks: ReadTracebacks) -> LostItems:
    if not isinstance(told, dict):
        raise ValueError("it tells of no items")
    found = _checked(told, _ITEMS_FIELDS, "items")
    failure = tracebacks.take({"event": "items", **_checked(found["failure"], _FAILURE, "items")})
    at = found["at"]
    if not at or not all(_is_like(item, _COUNT) and item < found["items"] for item in at):
        raise ValueError(f"items: at is {shorten(repr(at), 40)}")
    return LostItems(found["number"], found["items"], at, failure)


def _checked(told: Mapping[str, Any], fields: Mapping[str, Any], what: str) -> dict[str, Any]:
    """With the defaults of what is not there; raises ValueError for what is not as it should be."""
    found = {name: default for name, default in fields.items() if default is not _COUNT}
    found |= {name: 0.0 if _is_infinite(value) else value for name, value in told.items()}
    for name, default in fields.items():
        if not _is_like(found.get(name), default):
            raise ValueError(f"{what}: {name} is {shorten(repr(found.get(name)), 40)}")
    if not _is_like(found.get("traceback_id", 0), _COUNT):
        raise ValueError(f"{what}: traceback_id is {shorten(repr(told['traceback_id']), 40)}")
    if not _is_like(found.get("time", 0.0), 0.0):
        raise ValueError(f"{what}: time is {shorten(repr(told['time']), 40)}")
    return found


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(value, bool):
        return False
    if default is _COUNT:
        return isinstance(value, int) and value >= 0
    if isinstance(default, dict) and default is not _ANY_DICT:
        return isinstance(value, dict) and all(rank.isdecimal() and isinstance(value[rank], str) for rank in value)
    return isinstance(value, int | float if isinstance(default, float) else type(default))


_COUNT = object()
_ANY_DICT: dict[str, Any] = {}
_FAILURE: dict[str, Any] = {
    **{"mini_batch": _COUNT, "attempt": _COUNT, "kind": "exception", "message": "", "traceback": ""},
    **{"node": "", "process": -1, "log": "", "seconds": 0.0},
}
_ITEMS_FIELDS: dict[str, Any] = {"number": _COUNT, "items": _COUNT, "at": [], "failure": _ANY_DICT}
_FIELDS: dict[str, dict[str, Any]] = {
    "start": {},
    "traceback": {"id": _COUNT, "text": ""},
    "attempt_failed": _FAILURE,
    "failed": _FAILURE,
    "halved": {**_FAILURE, "items": _COUNT, "part": _COUNT},
    "synced": {"output": _COUNT, "modified": 0},
    "damaged": {"output": _COUNT},
    "workers": {"nodes": {}},
    "attempt_ended": {"seconds": 0.0},
    "worker_lost": {},
    "benched": {"node": "", "why": ""},
    "taken_back": {"node": ""},
}
"""Event → what its readers need of it, with defaults; a count must be there. Every time is a number."""


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """``os.write`` until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

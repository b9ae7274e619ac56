"""What is done already: the journal replayed, after all that cannot be trusted is dropped."""

from __future__ import annotations

import contextlib
import copy
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mpi_prs.output.journal import Entry, Results, read_journal
from mpi_prs.wire.record import ITEMS, MINI_BATCH, RECORD, RETURNED

_PIECE = 4 << 20


class Numbers(Set[int]):
    """A set of mini-batch numbers at one byte each: 10 million mini-batches take 10 MB."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._marks = bytearray()
        self._count = 0
        for number in numbers:
            self.add(number)

    def add(self, number: int) -> None:
        """About 0.2 µs."""
        if number >= len(self._marks):
            self._marks.extend(bytes(max(number + 1 - len(self._marks), len(self._marks))))
        self._count += not self._marks[number]
        self._marks[number] = 1

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number < len(self._marks) and bool(self._marks[number])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        number = self._marks.find(1)
        while number >= 0:
            yield number
            number = self._marks.find(1, number + 1)


@dataclass
class Ledger:
    """What a journal says.

    Attributes:
        journal_end: bytes of the journal that hold.
        output_end: bytes of the output that hold.
        done: mini-batches that are done.
        items: items of these.
        short: how many of these items had no row in what ``run()`` returned.
        failed: mini-batches that failed for good.
        attempts: mini-batch → failed tries so far, of those that are neither done nor failed.
        starts: how often the run was started.
        complete: whether the run was completed (and not reopened since).
    """

    journal_end: int = 0
    output_end: int = 0
    done: Numbers = field(default_factory=Numbers)
    items: int = 0
    short: int = 0
    failed: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    starts: int = 0
    complete: bool = False

    def take(self, entry: Entry) -> None:
        """Add one entry. About 0.5 µs a record."""
        if entry.results is not None:
            for record in RECORD.iter_unpack(entry.results.records):
                self.done.add(record[MINI_BATCH])
                self.items += record[ITEMS]
                self.short += max(0, record[ITEMS] - record[RETURNED])
                self.attempts.pop(record[MINI_BATCH], None)
            self.output_end = entry.results.offset + entry.results.length
        elif entry.event is not None:
            self._take_event(entry.event)
        self.journal_end = entry.end

    def _take_event(self, event: dict[str, object]) -> None:
        kind, number = event["event"], event.get("mini_batch")
        if kind == "start":
            self.starts += 1
        elif kind == "attempt_failed":
            self.attempts[int(str(number))] = int(str(event["attempt"]))
        elif kind == "failed":
            self.failed.add(int(str(number)))
            self.attempts.pop(int(str(number)), None)
        elif kind == "complete":
            self.complete = True
        elif kind == "reopened":
            self.complete = False
            self.failed.clear()


def read_ledger(journal: Path, output: Path | None) -> Ledger:
    """What a journal says; with an ``output``, as far as its rows are there, see :meth:`Replay.checked`."""
    replay = Replay(journal)
    return replay.claimed() if output is None else replay.checked(output)


class Replay:
    """A journal, read in one pass. Memory: a ledger, and the entries of the last seconds, which may not be on disk.

    Rows up to the last ``synced`` event are on disk for certain; those after it have to be read and compared with
    their CRC.
    """

    def __init__(self, journal: Path) -> None:
        """Raises OutputError, FileNotFoundError: see :func:`mpi_prs.output.journal.read_journal`."""
        self._ledger = Ledger()
        self._doubtful: deque[Entry] = deque()
        for entry in read_journal(journal):
            self._doubtful.append(entry)
            if entry.event is not None and entry.event["event"] == "synced":
                synced = int(entry.event["output"])
                while self._doubtful and _end_of_rows(self._doubtful[0]) <= synced:
                    self._ledger.take(self._doubtful.popleft())

    def claimed(self) -> Ledger:
        """What the journal says, whatever has become of the rows."""
        return self._with(self._doubtful)

    def checked(self, output: Path) -> Ledger:
        """What holds: an entry whose rows are not in the output as they were written is dropped, and all behind it."""
        return self._with(_that_hold(self._doubtful, output))

    def _with(self, entries: Iterable[Entry]) -> Ledger:
        ledger = copy.deepcopy(self._ledger)
        for entry in entries:
            ledger.take(entry)
        return ledger


def _end_of_rows(entry: Entry) -> int:
    return 0 if entry.results is None else entry.results.offset + entry.results.length


def _that_hold(entries: Iterable[Entry], output: Path) -> Iterator[Entry]:
    """The entries up to the first one whose rows are not in the output as they were written."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(output, "rb")) if output.exists() else None
        for entry in entries:
            results = entry.results
            rows_hold = results is None or not results.length or (file is not None and _rows_hold(file, results))
            if not rows_hold:
                return
            yield entry


def _rows_hold(file: BinaryIO, results: Results) -> bool:
    crc, position, end = 0, results.offset, results.offset + results.length
    while position < end:
        piece = os.pread(file.fileno(), min(_PIECE, end - position), position)
        if not piece:
            return False
        crc = zlib.crc32(piece, crc)
        position += len(piece)
    return crc == results.crc

"""What is done already: the journal replayed, after all that cannot be trusted is dropped."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

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
    """Replay a journal; with an ``output``, entries whose rows are not in it as they were written are dropped.

    Rows up to the last ``synced`` event are on disk for certain; those after it are read and compared with their CRC.
    """
    trusted = 0 if output is None else _synced(journal)
    ledger = Ledger()
    with contextlib.ExitStack() as stack:
        file = None
        if output is not None and output.exists():
            file = stack.enter_context(open(output, "rb"))
        for entry in read_journal(journal):
            results = entry.results
            if output is not None and results is not None and results.offset + results.length > trusted:
                if file is None and results.length:
                    break
                if file is not None and not _rows_hold(file.fileno(), results):
                    break
            ledger.take(entry)
    return ledger


def _synced(journal: Path) -> int:
    """Up to which byte the output is on disk for certain."""
    synced = 0
    for entry in read_journal(journal):
        if entry.event is not None and entry.event["event"] == "synced":
            synced = int(entry.event["output"])
    return synced


def _rows_hold(descriptor: int, results: Results) -> bool:
    crc, position, end = 0, results.offset, results.offset + results.length
    while position < end:
        piece = os.pread(descriptor, min(_PIECE, end - position), position)
        if not piece:
            return False
        crc = zlib.crc32(piece, crc)
        position += len(piece)
    return crc == results.crc

"""What is done already: the journal replayed, after all that cannot be trusted is dropped."""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from mpi_prs.core.errors import OutputError
from mpi_prs.core.files import own_file
from mpi_prs.core.units import many
from mpi_prs.output.journal import JournalEntry, LostItems, read_journal
from mpi_prs.output.verification import first_damaged
from mpi_prs.wire.parts import halves, is_part, mini_batch_of, part_of_one
from mpi_prs.wire.record import ITEMS, MINI_BATCH, RECORD, RETURNED

_log = logging.getLogger("mpi_prs.output")

_TOLERANCE = 2 * 10**9
"""Nanoseconds. Rows are written before their frame, but a file server may set both times in another order."""


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

    def discard(self, number: int) -> None:
        """Take it out, if it is in."""
        if number in self:
            self._marks[number] = 0
            self._count -= 1

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
class Divided:
    """A mini-batch whose items did not fare alike.

    Attributes:
        items: how many it has.
        left: its parts that are neither done nor failed; see :mod:`mpi_prs.wire.parts`.
        failed: the items that failed each for itself.
    """

    items: int
    left: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)


@dataclass
class Ledger:
    """What a journal says.

    Attributes:
        mini_batches: how many the run has.
        journal_end: bytes of the journal that hold.
        output_end: bytes of the output that hold.
        done: mini-batches that are done.
        divided: mini-batches of which some items failed for themselves, or some parts are left.
        items: items of what is done, but for those that failed for themselves.
        short: how many of these items had no row in what ``run()`` returned.
        failed: mini-batches that failed for good.
        attempts: mini-batch → failed tries so far, of those that are neither done nor failed.
        starts: how often the run was started.
        complete: whether the run was completed (and not reopened since).
    """

    mini_batches: int = 1 << 30
    journal_end: int = 0
    output_end: int = 0
    done: Numbers = field(default_factory=Numbers)
    items: int = 0
    short: int = 0
    divided: dict[int, Divided] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    starts: int = 0
    complete: bool = False

    @property
    def failed_items(self) -> int:
        """Items that failed for themselves."""
        return sum(len(each.failed) for each in self.divided.values())

    @property
    def has_failed(self) -> bool:
        """Whether there is anything that could be tried again."""
        return bool(self.failed) or any(each.failed for each in self.divided.values())

    def take(self, entry: JournalEntry) -> None:
        """Add one entry. About 0.5 µs a record. Raises OutputError: it names a mini-batch twice, or one too many."""
        if entry.results is not None:
            for record in RECORD.iter_unpack(entry.results.records):
                self._settle(record[MINI_BATCH])
                self.items += record[ITEMS]
                self.short += max(0, record[ITEMS] - record[RETURNED])
            self.output_end = entry.results.end
            for lost in entry.lost:
                self._lose(lost)
        elif entry.event is not None:
            self._take_event(entry.event)
        self.journal_end = entry.end

    def _settle(self, number: int) -> None:
        """A mini-batch or a part of one: its items are done or failed."""
        if not is_part(number):
            self._check(number)
            self.done.add(number)
            self.attempts.pop(number, None)
            return
        divided = self.divided.get(mini_batch_of(number))
        if divided is None or number not in divided.left:
            raise OutputError(
                f"the journal names a part of mini-batch {mini_batch_of(number)} that is not to be done: it is not as "
                "it was written. Start the run anew with --overwrite"
            )
        divided.left.remove(number)
        if not divided.left:
            self.done.add(mini_batch_of(number))
            if not divided.failed:
                del self.divided[mini_batch_of(number)]

    def _lose(self, lost: LostItems) -> None:
        """Some items of what has just been settled, or all of a part."""
        if lost.mini_batch not in self.done:
            self._check(lost.mini_batch)
        divided = self.divided.setdefault(lost.mini_batch, Divided(lost.items))
        divided.failed.update(lost.at)
        if lost.number in divided.left:
            self._settle(lost.number)

    def _check(self, number: int) -> None:
        if number in self.done or not 0 <= number < self.mini_batches:
            what = "twice" if number in self.done else f"of {self.mini_batches}"
            raise OutputError(
                f"the journal names mini-batch {number} {what}: it is not as it was written. Start the run anew with "
                "--overwrite"
            )

    def _take_event(self, event: dict[str, Any]) -> None:
        kind, number = event["event"], event.get("mini_batch", -1)
        if kind == "start":
            self.starts += 1
        elif kind == "attempt_failed":
            self._check(number)
            self.attempts[number] = event["attempt"]
        elif kind == "failed":
            self._check(number)
            self.failed.add(number)
            self.attempts.pop(number, None)
        elif kind == "halved":
            self._check(number)
            divided = self.divided.setdefault(number, Divided(event["items"]))
            if is_part(event["part"]):
                divided.left.discard(event["part"])
            divided.left.update(halves(event["part"]))
            self.attempts.pop(number, None)
        elif kind == "complete":
            self.complete = True
        elif kind == "reopened":
            self.reopen()

    def reopen(self) -> None:
        """What has failed is to be tried again: of a mini-batch of which the rest is done, each item on its own."""
        self.complete = False
        self.failed.clear()
        for number, divided in self.divided.items():
            divided.left.update(part_of_one(number, item, divided.items) for item in divided.failed)
            divided.failed.clear()
            self.done.discard(number)


def read_ledger(journal: Path, output: Path | None, run: str | None = None, mini_batches: int | None = None) -> Ledger:
    """What a journal says; with an ``output``, as far as its rows are there, see :meth:`Replay.checked`."""
    replay = Replay(journal, run, mini_batches)
    return replay.claimed() if output is None else replay.checked(output)


class Replay:
    """A journal, read in one pass. Memory: a ledger, and the entries of the last seconds, which may not be on disk.

    Rows up to the last ``synced`` event are on disk for certain, unless the output's size or time says that somebody
    has changed it since; those after it have to be read and compared with their CRC.
    """

    def __init__(self, journal: Path, run: str | None = None, mini_batches: int | None = None) -> None:
        """As :func:`mpi_prs.output.journal.read_journal`, which see for what it raises.

        Args:
            mini_batches: how many the run has, where that is known.
        """
        self._journal = journal
        self._new = functools.partial(Ledger) if mini_batches is None else functools.partial(Ledger, mini_batches)
        self._ledger = self._new()
        self._doubtful: deque[JournalEntry] = deque()
        self._modified = 0
        self._is_damaged = False
        for entry in read_journal(journal, run):
            self._doubtful.append(entry)
            if entry.event is None:
                continue
            if entry.event["event"] == "synced":
                synced = int(entry.event["output"])
                self._modified = int(entry.event.get("modified", 0))
                while self._doubtful and _end_of_rows(self._doubtful[0]) <= synced:
                    self._ledger.take(self._doubtful.popleft())
            elif entry.event["event"] in ("damaged", "start"):  # each start has compared them all
                self._is_damaged = entry.event["event"] == "damaged"

    def claimed(self) -> Ledger:
        """What the journal says, whatever has become of the rows."""
        return self._with(self._doubtful)

    def checked(self, output: Path) -> Ledger:
        """What holds: an entry whose rows are not in the output as they were written is dropped, and all behind it.

        Without an output it is what certainly was on disk: whoever opens it will miss that.
        """
        try:
            descriptor = own_file(str(output), os.O_RDONLY)
        except FileNotFoundError:
            lost = next(filter(_end_of_rows, self._doubtful), None)
            if lost is not None and not self._ledger.output_end:
                _log.warning("%s is gone: all mini-batches on record are done again", output)
            return self._with(_before(self._doubtful, lost))
        try:
            why = self._doubt(os.fstat(descriptor))
            if why:
                _log.warning("%s %s: its rows are compared with the journal", output, why)
                damaged = first_damaged(read_journal(self._journal), descriptor)
            else:
                damaged = first_damaged(self._doubtful, descriptor, self._ledger.output_end)
        finally:
            os.close(descriptor)
        if damaged is None:
            return self.claimed()
        if why:
            held = self._new()
            for entry in _before(read_journal(self._journal), damaged):
                held.take(entry)
        else:
            held = self._with(_before(self._doubtful, damaged))
        _log.warning(
            "%s is not as it was written from byte %d on: %s on record are done again",
            output,
            held.output_end,
            many(len(self.claimed().done) - len(held.done), "mini-batch"),
        )
        return held

    def _doubt(self, found: os.stat_result) -> str:
        """Why the output is not as the last sync has left it; empty: it may well be."""
        if self._is_damaged:
            return "has rows that are not as they were written"
        if found.st_size < self._ledger.output_end:
            return "is shorter than its journal says"
        if found.st_mtime_ns < self._modified:
            return "is older than its journal says"
        if found.st_mtime_ns > self._journal.stat().st_mtime_ns + _TOLERANCE:
            return "was changed after its journal"
        return ""

    def _with(self, entries: Iterable[JournalEntry]) -> Ledger:
        ledger = copy.deepcopy(self._ledger)
        for entry in entries:
            ledger.take(entry)
        return ledger


def _before(entries: Iterable[JournalEntry], stop: JournalEntry | None) -> Iterator[JournalEntry]:
    return takewhile(lambda entry: stop is None or entry.end != stop.end, entries)


def _end_of_rows(entry: JournalEntry) -> int:
    return 0 if entry.results is None else entry.results.end

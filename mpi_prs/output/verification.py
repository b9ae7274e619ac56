"""Whether the rows on disk are those that were written: read again, and compared with the CRCs in the journal."""

from __future__ import annotations

import logging
import os
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from mpi_prs.core.units import percent, size
from mpi_prs.output.journal import JournalEntry, Results

_log = logging.getLogger("mpi_prs.output")

_PIECE = 1 << 20
_GROUP_BYTES = 32 << 20
_GROUP_FRAMES = 1 << 12
_MOST_THREADS = 4
_SAY_SECONDS = 10.0


def first_damaged(entries: Iterable[JournalEntry], descriptor: int, begin: int = 0) -> JournalEntry | None:
    """The first entry whose rows are not in the output as they were written, or not behind those of the one before.

    Reads all rows, in some threads, and tells the log how far it has come. Memory: a MiB a thread, and some ten
    thousand entries.

    Args:
        entries: of the journal, in their order.
        descriptor: the output.
        begin: where the rows of the first entry should begin.

    Raises:
        OSError: the output cannot be read.
    """
    whole = os.fstat(descriptor).st_size
    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    say_at = time.monotonic() + _SAY_SECONDS
    running: deque[Future[JournalEntry | None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for group in _groups(entries):
            running.append(pool.submit(_first_damaged_of, group, descriptor, begin, whole))
            begin = _end(group[-1])
            if len(running) > 2 * threads and (found := running.popleft().result()) is not None:
                return found
            if time.monotonic() > say_at:
                say_at = time.monotonic() + _SAY_SECONDS
                _log.info("checking the rows: %s of %s (%d %%)", size(begin), size(whole), percent(begin, whole))
        return next((found for future in running if (found := future.result()) is not None), None)


def _groups(entries: Iterable[JournalEntry]) -> Iterator[list[JournalEntry]]:
    """Those with results, so many at a time as are worth a thread's while."""
    group: list[JournalEntry] = []
    waiting = 0
    for entry in entries:
        if entry.results is not None:
            group.append(entry)
            waiting += entry.results.length
            if waiting >= _GROUP_BYTES or len(group) >= _GROUP_FRAMES:
                yield group
                group, waiting = [], 0
    if group:
        yield group


def _end(entry: JournalEntry) -> int:
    assert entry.results is not None
    return entry.results.end


def _first_damaged_of(group: list[JournalEntry], descriptor: int, begin: int, whole: int) -> JournalEntry | None:
    rows = _Rows(descriptor)
    for entry in group:
        results = entry.results
        assert results is not None
        if results.offset != begin or results.end > whole or rows.crc(results) != results.crc:
            return entry
        begin = results.end
    return None


class _Rows:
    """A file that is read from front to back; neighbours come with one read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = memoryview(bytearray(_PIECE))
        self._start = self._stop = 0

    def crc(self, results: Results) -> int:
        """What the CRC of these rows is now."""
        crc, position = 0, results.offset
        while position < results.end:
            if not self._start <= position < self._stop:
                self._start = position
                self._stop = position + os.preadv(self._descriptor, [self._buffer], position)
                if self._stop == position:  # it has become shorter meanwhile
                    return -1
            stop = min(results.end, self._stop)
            crc = zlib.crc32(self._buffer[position - self._start : stop - self._start], crc)
            position = stop
        return crc

"""Copies of stragglers: a second attempt of a mini-batch that runs for too long, while nothing else is left to do.

::

    nothing waits ──► a process is idle ──► Assign: a copy of what has run longest ──┬── finished(): the other is ended
                                                                                    └── failed, or the worker is lost:
                                                                                        the other goes on

Long is what takes more than 1.5 times as long as 95 % of the mini-batches before. A mini-batch has one copy, and a copy
none. All of this exists only with ``speculative_copies``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mpi_prs.engine.scheduler.states import WorkerState
from mpi_prs.wire.parts import FIRST_COPY, mini_batch_of
from mpi_prs.wire.record import OVERHEAD, RECORD, RUN

_REMEMBERED = 1000  # mini-batches, the latest
_PERCENT = 95
_FACTOR = 1.5


@dataclass
class Pair:
    """A mini-batch that is at work twice.

    Attributes:
        original, copy: the workers that have it; ``None``: that one has failed, or was given back or lost.
    """

    original: int | None
    copy: int | None


class Copies:
    """What is known for them.

    Attributes:
        pairs: mini-batch → who has it twice.
    """

    def __init__(self) -> None:
        self.pairs: dict[int, Pair] = {}
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._limit: float | None = None
        self._had_one: set[int] = set()

    def learn(self, records: memoryview | bytes) -> None:
        """How long these mini-batches took."""
        self._seconds.extend(
            fields[RUN] + fields[OVERHEAD] for fields in RECORD.iter_unpack(records) if fields[0] < FIRST_COPY
        )
        self._limit = None

    @property
    def limit(self) -> float:
        """Seconds after which a mini-batch runs for too long; infinite while none is done."""
        if self._limit is None:
            ordered = sorted(seconds for seconds in self._seconds if seconds >= 0)  # a NaN is neither
            place = (len(ordered) * _PERCENT + 99) // 100 - 1
            self._limit = _FACTOR * ordered[place] if ordered else float("inf")
        return self._limit

    def note(self, known: WorkerState, now: float) -> None:
        """What this worker runs now: the first of what it holds, as many as it can run at once."""
        running = known.running
        for number in [number for number in running if number not in known.held]:
            del running[number]
        at_once = len(known.ready) * known.at_once
        for number in known.held:
            if len(running) >= at_once:
                break
            running.setdefault(number, now)

    def longest(self, workers: dict[int, WorkerState], now: float) -> list[tuple[float, int, int]]:
        """What runs for too long and may have a copy, the longest first: since when, worker, mini-batch."""
        since = now - self.limit
        return sorted(
            (started, worker, number)
            for worker, known in workers.items()
            for number, started in known.running.items()
            if started < since and number < FIRST_COPY and number not in self._had_one and number in known.held
        )

    def is_slow(self, known: WorkerState) -> bool:
        """Whether what this worker does mostly takes too long: it would not be ready first."""
        return known.mean_seconds > self.limit

    def begin(self, mini_batch: int, original: int, copy: int) -> None:
        """The copy is handed out."""
        self.pairs[mini_batch] = Pair(original, copy)
        self._had_one.add(mini_batch)

    def drop(self, number: int) -> bool:
        """This attempt is at an end without having been done. Returns whether the other one still goes on."""
        pair = self.pairs.get(mini_batch_of(number))
        if pair is None:
            return False
        if number >= FIRST_COPY:
            pair.copy = None
        else:
            pair.original = None
        if pair.copy is None and pair.original is None:
            del self.pairs[mini_batch_of(number)]
            return False
        return True

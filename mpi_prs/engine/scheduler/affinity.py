"""Which mini-batches a worker has to itself, where neighbours share what is decoded for them.

A *stay* is a run of neighbours, such as the slices of one row group. A worker that has begun with one goes on in it.
When all stays are taken, who has nothing left gets half of what is left of the longest.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from mpi_prs.engine.scheduler.states import PENDING

Stay = tuple[int, int]
"""First mini-batch, and the one before which it stops."""


class Affinity:
    """The stays of all workers.

    Args:
        stop_of: the mini-batch before which the stay of a mini-batch ends.
        states: one byte a mini-batch; the scheduler's own, looked at and never changed here.
        end: of the mini-batches that are to be handed out.
    """

    def __init__(self, stop_of: Callable[[int], int], states: bytearray, end: int) -> None:
        self._stop_of = stop_of
        self._states = states
        self._end = end
        self._cursor = 0  # no stay begins below it that nobody has
        self._of: dict[int, Stay] = {}
        # Once all are taken: length when last looked at (negative), worker and stop of each, the longest first
        self._longest: list[tuple[int, int, int]] | None = None

    def of(self, worker: int) -> Stay:
        """Where a worker finds its next mini-batch; an empty range when nothing is left."""
        stay = self._of.get(worker, (0, 0))
        if self._states.find(PENDING, *stay) < 0:
            stay = self._next()
            self._set(worker, stay)
        return stay

    def forget(self, worker: int) -> None:
        """A worker is lost; others find what it has left."""
        self._of.pop(worker, None)

    def given_back(self, number: int) -> None:
        """Nobody has started this mini-batch."""
        self._cursor = min(self._cursor, number)

    def _next(self) -> Stay:
        first = self._states.find(PENDING, self._cursor, self._end)
        if first >= 0:
            self._cursor = min(self._stop_of(first), self._end)
            return first, self._cursor
        self._cursor = self._end
        first = self._states.find(PENDING, 0, self._end)
        if first < 0:
            return 0, 0
        return self._half_of_the_longest() or (first, first + 1)

    def _half_of_the_longest(self) -> Stay | None:
        """``None``: nobody has more than one mini-batch left."""
        if self._longest is None:
            self._longest = []
            for worker, stay in self._of.items():
                self._note(worker, stay)
        while self._longest:
            length, worker, stop = self._longest[0]
            start, now_stop = self._of.get(worker, (0, 0))
            left = self._states.count(PENDING, start, now_stop)
            if now_stop != stop or not left:  # it is lost, has another one by now, or is through with it
                heapq.heappop(self._longest)
            elif left < -length:
                heapq.heapreplace(self._longest, (-left, worker, stop))
            else:
                middle = (self._states.find(PENDING, start, stop) + stop) // 2
                if self._states.find(PENDING, middle, stop) < 0:
                    return None
                self._of[worker] = start, middle
                heapq.heapreplace(self._longest, (start - middle, worker, middle))
                return middle, stop
        return None

    def _set(self, worker: int, stay: Stay) -> None:
        self._of[worker] = stay
        if self._longest is not None:
            self._note(worker, stay)

    def _note(self, worker: int, stay: Stay) -> None:
        assert self._longest is not None
        if stay[1] - stay[0] > 1:
            heapq.heappush(self._longest, (stay[0] - stay[1], worker, stay[1]))

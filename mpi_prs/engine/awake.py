"""Time in which this process could do something: what every timeout of a rank is measured by.

A job may be stopped as a whole (``scontrol suspend``, gang scheduling, SIGSTOP, the pause of a virtual machine), or a
rank may wait for a filesystem that hangs. Nobody was heard meanwhile, and nobody else may have run either: such time
counts against nobody. A rank's loop looks at its clock many times a second, so it knows its own gaps: of what lies
between two looks at most :data:`LONGEST` seconds count.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable

LONGEST = 0.25
"""Seconds between two looks that count. A rank looks every few milliseconds; far less than any timeout."""


class AwakeClock:
    """Seconds, as of ``clock`` without the gaps. Called, it looks; it must be called often, by one thread.

    Args:
        clock: seconds, only forward, and the same in all processes of the node.

    Attributes:
        lost: seconds in gaps so far.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.lost = 0.0
        self._clock = clock
        self._looked = clock()
        self._ends: list[float] = []  # of each gap, by ``clock``
        self._lost_by_then: list[float] = []

    def __call__(self) -> float:
        now = self._clock()
        gap = now - self._looked - LONGEST
        if gap > 0:
            self.lost += gap
            self._ends.append(now)
            self._lost_by_then.append(self.lost)
        self._looked = now
        return now - self.lost

    def at(self, moment: float) -> float:
        """What this clock showed when ``clock`` showed ``moment``, as another process of the node has noted it."""
        before = bisect_right(self._ends, moment)
        lost = self._lost_by_then[before - 1] if before else 0.0
        if before < len(self._ends):
            begin = self._ends[before] - (self._lost_by_then[before] - lost)
            lost += max(0.0, moment - begin)
        return moment - lost

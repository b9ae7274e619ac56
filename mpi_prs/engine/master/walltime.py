"""The end of the time that a job is allowed: when nothing more should be started."""

from __future__ import annotations

from collections import deque

from mpi_prs.wire.record import OVERHEAD, RECORD, RUN

_KNOWN = 1000
_LAST_WRITES = 5.0


class TimeLimit:
    """Decides when to stop handing out, so that what is started is finished too.

    Until :meth:`begin` it only learns how long mini-batches take. Then it lets the job go on for as long as one more of
    them would probably fit: 95 % of the last thousand were not longer.

    Args:
        lead: seconds between the warning and the limit.
        stop_grace: seconds that ``shutdown()`` may take; they are kept free before the limit, as far as a third of the
            lead goes.
    """

    def __init__(self, lead: float, stop_grace: float) -> None:
        self._lead = lead
        self._reserve = min(lead / 3, stop_grace + _LAST_WRITES)
        self._seconds: deque[float] = deque(maxlen=_KNOWN)
        self._ends: float | None = None

    def learn(self, records: memoryview | bytes) -> None:
        """Take one of the records that came together, in some 0.5 µs: they are many when they are short."""
        fields = RECORD.unpack_from(records, len(records) - RECORD.size)
        self._seconds.append(fields[RUN] + fields[OVERHEAD])

    def begin(self, now: float) -> bool:
        """The warning has come. Returns whether it is the first."""
        first = self._ends is None
        if first:
            self._ends = now + self._lead
        return first

    def long_run(self) -> float:
        """Seconds within which 95 % of the mini-batches are done; 0 as long as none is."""
        known = sorted(self._seconds)
        return known[len(known) * 95 // 100] if known else 0.0

    def left(self, now: float) -> float:
        """Seconds for mini-batches; without a warning, for ever."""
        return float("inf") if self._ends is None else max(0.0, self._ends - self._reserve - now)

    def left_for_shutdown(self, now: float) -> float:
        """Seconds for everything that follows; without a warning, for ever."""
        return float("inf") if self._ends is None else max(0.0, self._ends - _LAST_WRITES - now)

    def is_due(self, now: float) -> bool:
        """Whether another mini-batch would probably be cut off."""
        return self.left(now) <= self.long_run()

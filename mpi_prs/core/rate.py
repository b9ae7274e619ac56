"""The rate of late, for the time that is left."""

from __future__ import annotations

from collections import deque

_WINDOW = 30.0  # seconds
_ENOUGH = 20  # mini-batches; where they take minutes, the window is longer


class Rate:
    """How fast mini-batches and items are being finished: over half a minute, or as long as twenty mini-batches take.

    Memory: some hundred samples.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def restart(self, now: float, mini_batches: int, items: int) -> None:
        """Nothing runs yet; what is finished already, by earlier starts, says nothing of the rate."""
        self._samples.clear()
        self._samples.append((now, mini_batches, items))

    def add(self, now: float, mini_batches: int, items: int) -> None:
        """Totals now; call it a few times a second."""
        samples = self._samples
        if not samples or samples[-1][1] != mini_batches:
            samples.append((now, mini_batches, items))
        while len(samples) > 2 and now - samples[1][0] >= _WINDOW and mini_batches - samples[1][1] >= _ENOUGH:
            samples.popleft()

    def at(self, now: float) -> tuple[float, float] | None:
        """Mini-batches and items a second; ``None`` as long as nothing has been finished."""
        if not self._samples:
            return None
        (since, *first), (_, *last) = self._samples[0], self._samples[-1]
        if first[0] == last[0] or now <= since:
            return None
        return (last[0] - first[0]) / (now - since), (last[1] - first[1]) / (now - since)

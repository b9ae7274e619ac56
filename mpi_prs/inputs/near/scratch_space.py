"""The bytes of scratch that mini-batches take while they are here.

How much a mini-batch needs shows only while its files come: sizes are not asked for first, which would cost another
round trip for each file. So a mini-batch begins when it most likely fits, by what the ones before needed. Does it not
fit after all, it gives its space back, asks for the sizes, and waits in a queue for all of it at once: no two can wait
for each other.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from mpi_prs.core.errors import InputError


class ScratchFull(Exception):
    """The files of a mini-batch do not fit beside the others."""


@dataclass
class Reservation:
    """What one mini-batch has taken."""

    space: Space
    bytes: int = 0

    def take(self, size: int) -> None:
        """Raises ScratchFull."""
        self.space.take(size)
        self.bytes += size

    def give_back(self) -> None:
        self.space.give_back(self.bytes)
        self.bytes = 0


@dataclass
class Space:
    """So many bytes, and who waits for some."""

    limit: int
    used: int = 0
    _closed: bool = False
    _mean: float = 0
    _queue: deque[object] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def begin(self, files: int) -> Reservation | None:
        """A share that grows as sizes become known; ``None`` if others wait, or it would most likely not fit."""
        with self._changed:
            if self._queue or (self.used and self.used + files * self._mean > self.limit):
                return None
            return Reservation(self)

    def take(self, size: int) -> None:
        """Raises ScratchFull, and InputError after :meth:`close`."""
        with self._changed:
            self.check_open()
            self._mean = self._mean + 0.1 * (size - self._mean) if self._mean else size
            if self.used + size > self.limit:
                raise ScratchFull
            self.used += size

    def wait_for(self, size: int) -> Reservation:
        """Take all at once, in turn; alone where it is more than the limit. Raises InputError after :meth:`close`."""
        turn = object()
        with self._changed:
            self._queue.append(turn)
            try:
                self._changed.wait_for(
                    lambda: (
                        self._closed or (self._queue[0] is turn and (not self.used or self.used + size <= self.limit))
                    )
                )
                self.check_open()
                self.used += size
            finally:
                self._queue.remove(turn)
                self._changed.notify_all()
        return Reservation(self, size)

    def give_back(self, size: int) -> None:
        with self._changed:
            self.used -= size
            self._changed.notify_all()

    def check_open(self) -> None:
        """Raises InputError after :meth:`close`."""
        if self._closed:
            raise InputError("files are no longer fetched, since the job is ending")

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

"""How master and workers reach each other: a small interface, and its in-process implementation.

The MPI implementation is :mod:`mpi_prs.engine.mpi`. Neither ``send`` nor ``receive`` ever waits. Waiting is
:class:`Waiter`'s business, because a rank that blocks inside MPI spins at 100 %.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from typing import Protocol

MASTER = 0


class Transport(Protocol):
    """One rank's view of the world."""

    @property
    def rank(self) -> int:
        """This rank's number; 0 is the master."""

    @property
    def size(self) -> int:
        """The number of ranks."""

    @property
    def wake_descriptor(self) -> int | None:
        """Readable when a message may have come; ``None`` where only asking tells (MPI)."""

    @property
    def under_way(self) -> bool:
        """Whether something is on its way out or in, so that the transport must be asked again soon."""

    def send(self, to: int, tag: int, body: bytes = b"") -> None:
        """Send without waiting; order is kept between two ranks. To a lost rank: nothing happens."""

    def receive(self) -> tuple[int, int, bytes] | None:
        """The next message as ``(source, tag, body)``, or ``None``."""

    def lost(self) -> list[int]:
        """Ranks that are known to have died since this was last asked."""

    def abandoned(self) -> bool:
        """Whether the launcher that started the ranks is gone: nobody waits for a result any more."""

    def give_up(self) -> None:
        """Some ranks do not answer any more: :meth:`close` is not to wait for them."""

    def close(self, exit_code: int) -> None:
        """The end: wait until what was sent has left; this rank is about to exit with that code."""


class LocalTransport:
    """A rank of an in-process world: a queue, and a descriptor that wakes its reader."""

    under_way = False

    def __init__(self, world: list[LocalTransport], rank: int) -> None:
        self.rank = rank
        self._world = world
        self._inbox: deque[tuple[int, int, bytes]] = deque()
        self._lost: deque[int] = deque()
        self._lock = threading.Lock()
        self.wake_descriptor: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    @property
    def size(self) -> int:
        return len(self._world)

    def send(self, to: int, tag: int, body: bytes = b"") -> None:
        self._world[to]._put((self.rank, tag, body))

    def _put(self, message: tuple[int, int, bytes]) -> None:
        self._inbox.append(message)
        with self._lock:
            if self.wake_descriptor is not None:
                os.eventfd_write(self.wake_descriptor, 1)

    def receive(self) -> tuple[int, int, bytes] | None:
        if not self._inbox:
            with self._lock:
                if self.wake_descriptor is not None and not self._inbox:
                    try:
                        os.eventfd_read(self.wake_descriptor)
                    except BlockingIOError:
                        return None
        return self._inbox.popleft() if self._inbox else None

    def lost(self) -> list[int]:
        return [self._lost.popleft() for _ in range(len(self._lost))]

    def report_lost(self, rank: int) -> None:
        """Tell this rank that another one has died (a worker thread that raised)."""
        self._lost.append(rank)
        with self._lock:
            if self.wake_descriptor is not None:
                os.eventfd_write(self.wake_descriptor, 1)

    def abandoned(self) -> bool:
        return False

    def give_up(self) -> None:
        pass

    def close(self, exit_code: int = 0) -> None:
        del exit_code  # it is the whole process's business
        with self._lock:
            if self.wake_descriptor is not None:
                os.close(self.wake_descriptor)
                self.wake_descriptor = None


def local_world(size: int) -> list[LocalTransport]:
    """``size`` ranks in this process; rank 0 is the master's."""
    world: list[LocalTransport] = []
    world.extend(LocalTransport(world, rank) for rank in range(size))
    return world


class Waiter:
    """Waits for the next message: spins briefly, then sleeps a tenth of the time it has waited so far.

    On MPI a waiting rank can only ask again. Asking costs about 1 µs; a sleep costs some 60 µs of latency and, at 1 ms,
    3 % of a core. So the first tries come at once, a message is noticed with a delay of a tenth of its waiting time,
    and an idle rank ends at ``longest`` seconds between two tries.
    """

    _SPIN = 20
    _SHORTEST = 0.00005

    def __init__(self, transport: Transport, longest: float, *, patient: bool = False) -> None:
        """With ``patient`` every wait is the longest: for a rank that others do not wait for."""
        self._descriptor = transport.wake_descriptor
        self._longest = longest
        self._patient = patient
        self._tries = 0
        self._waited = 0.0

    def reset(self) -> None:
        """Something came: start again with short waits."""
        self._tries = 0
        self._waited = 0.0

    def next_timeout(self, at_most: float) -> float:
        """How long to sleep now, in seconds, not longer than ``at_most``; 0 while it still spins."""
        if self._descriptor is not None:
            return at_most
        if self._patient:
            return min(self._longest, at_most)
        self._tries += 1
        if self._tries <= self._SPIN:
            return 0.0
        sleep = min(max(self._SHORTEST, self._waited / 10), self._longest, at_most)
        self._waited += sleep
        return sleep

    def wait(self, at_most: float) -> None:
        """Sleep until a message may have come, at most so many seconds."""
        timeout = self.next_timeout(at_most)
        if self._descriptor is not None:
            poll = select.poll()  # select() ends at descriptor 1024
            poll.register(self._descriptor, select.POLLIN)
            poll.poll(1000 * timeout)
        elif timeout:
            time.sleep(timeout)

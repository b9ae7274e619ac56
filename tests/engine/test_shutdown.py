"""The end of the workers: who is waited for, and how long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mpi_prs.engine.master.shutdown import dismiss
from mpi_prs.engine.transport import LocalTransport, local_world
from mpi_prs.wire import messages
from mpi_prs.wire.messages import Tag

GRACE = 30.0


class Clock:
    """A second passes at each look; then a worker may say something."""

    def __init__(self, speaker: LocalTransport, tag: Tag | None) -> None:
        self.now = 0.0
        self.speaker, self.tag = speaker, tag

    def __call__(self) -> float:
        self.now += 1.0
        if self.tag is not None and self.now % 5 == 0:
            self.speaker.send(0, self.tag, messages.pack_json(left="", remarks=[]))
        return self.now


@pytest.fixture
def world() -> Iterator[list[LocalTransport]]:
    world = local_world(3)
    yield world
    for transport in world:
        transport.close()


@pytest.mark.parametrize(
    ("silent", "says", "seconds"),
    [
        (set(), None, 50),  # what ends a worker may take long
        ({1, 2}, None, 2),
        ({1}, Tag.HEARTBEAT, 50),  # the other one has still something to do
        ({1}, None, 15),  # its words are held back
        ({1}, Tag.BYE, 7),
    ],
)
def test_nobody_waits_long_for_workers_that_cannot_speak(
    world: list[LocalTransport], silent: set[int], says: Tag | None, seconds: float
) -> None:
    clock = Clock(world[2], says)
    dismiss(world[0], 0, grace=GRACE, silent=silent, interval=5.0, clock=clock)
    assert seconds - 3 <= clock.now <= seconds + 3

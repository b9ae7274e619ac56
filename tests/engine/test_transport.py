"""The in-process transport, and waiting: order is kept, nothing is lost, and a sleeper wakes when something comes."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from mpi_prs.engine.transport import LocalTransport, Transport, Waiter, local_world

FOREVER = 60.0  # nothing here waits so long unless it is broken


@pytest.fixture
def world() -> Iterator[list[LocalTransport]]:
    ranks = local_world(3)
    yield ranks
    for rank in ranks:
        rank.close()


def readable(transport: LocalTransport) -> bool:
    assert transport.wake_descriptor is not None
    return bool(select.select([transport.wake_descriptor], [], [], 0)[0])


def everything(transport: LocalTransport) -> list[tuple[int, int, bytes]]:
    return list(iter(transport.receive, None))


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_every_rank_knows_its_number_and_the_size_of_the_world(world: list[LocalTransport]) -> None:
    transports: list[Transport] = [*world]
    assert [(transport.rank, transport.size) for transport in transports] == [(0, 3), (1, 3), (2, 3)]


def test_a_message_arrives_with_its_sender_and_tag(world: list[LocalTransport]) -> None:
    world[2].send(0, 7, b"hello")
    world[2].send(0, 8)
    assert everything(world[0]) == [(2, 7, b"hello"), (2, 8, b"")]
    assert everything(world[1]) == everything(world[2]) == []


def test_a_rank_can_send_to_itself(world: list[LocalTransport]) -> None:
    world[1].send(1, 3, b"note")
    assert everything(world[1]) == [(1, 3, b"note")]


def test_receiving_does_not_wait(world: list[LocalTransport]) -> None:
    assert world[0].receive() is None


def test_the_descriptor_is_readable_while_there_are_messages_and_not_after(world: list[LocalTransport]) -> None:
    assert not readable(world[0])
    for _ in range(3):
        world[1].send(0, 1)
    for _ in range(3):
        assert readable(world[0])
        assert world[0].receive() is not None
    assert world[0].receive() is None
    assert not readable(world[0])


def test_messages_from_many_threads_all_arrive_each_thread_s_in_order(world: list[LocalTransport]) -> None:
    count = 5_000

    def chatter(sender: int) -> None:
        for number in range(count):
            world[sender].send(0, number)

    threads = [threading.Thread(target=chatter, args=(sender,)) for sender in (1, 2)]
    for thread in threads:
        thread.start()
    got: dict[int, list[int]] = {1: [], 2: []}
    waiter = Waiter(world[0], 0.01)
    while len(got[1]) + len(got[2]) < 2 * count:
        message = world[0].receive()
        if message is None:
            waiter.wait(FOREVER)  # a message whose wake-up got lost would leave us here
        else:
            got[message[0]].append(message[1])
    for thread in threads:
        thread.join()
    assert got == {1: list(range(count)), 2: list(range(count))}


def test_a_lost_rank_is_reported_once_and_wakes_the_reader(world: list[LocalTransport]) -> None:
    assert world[0].lost() == []
    world[0].report_lost(2)
    assert readable(world[0])
    assert world[0].lost() == [2]
    assert world[0].lost() == []


def test_sending_to_a_rank_that_has_closed_does_nothing(world: list[LocalTransport]) -> None:
    world[1].close()
    world[0].send(1, 1, b"are you there?")
    world[1].report_lost(2)
    assert world[1].wake_descriptor is None


def test_what_came_before_the_close_can_still_be_read(world: list[LocalTransport]) -> None:
    world[0].send(1, 1, b"last words")
    world[1].close()
    assert everything(world[1]) == [(0, 1, b"last words")]


def test_closing_twice_is_closing_and_leaves_no_descriptor_behind() -> None:
    before = open_descriptors()
    ranks = local_world(4)
    assert len(open_descriptors()) == len(before) + 4
    for rank in [*ranks, *ranks]:
        rank.close()
    assert open_descriptors() == before


# Waiting


def mpi_rank() -> Transport:
    """As far as waiting goes: there is no descriptor, only asking tells."""
    return cast(Transport, SimpleNamespace(wake_descriptor=None))


def timeouts(waiter: Waiter, count: int, at_most: float = 1.0) -> list[float]:
    return [waiter.next_timeout(at_most) for _ in range(count)]


def test_waiting_begins_with_asking_again_at_once() -> None:
    assert timeouts(Waiter(mpi_rank(), 0.02), 20) == [0.0] * 20


def test_then_a_sleep_is_about_a_tenth_of_the_time_waited_so_far() -> None:
    waiter = Waiter(mpi_rank(), 1000.0)
    timeouts(waiter, 20)
    waited = 0.0
    for sleep in timeouts(waiter, 100, at_most=FOREVER):
        assert sleep == pytest.approx(max(0.00005, waited / 10))
        waited += sleep


def test_a_sleep_is_never_longer_than_the_longest_nor_than_what_is_asked_for() -> None:
    waiter = Waiter(mpi_rank(), 0.02)
    assert timeouts(waiter, 200)[-1] == 0.02
    assert timeouts(waiter, 1, at_most=0.001) == [0.001]


def test_after_a_message_waiting_begins_anew() -> None:
    waiter = Waiter(mpi_rank(), 0.02)
    timeouts(waiter, 200)
    waiter.reset()
    assert timeouts(waiter, 20) == [0.0] * 20
    assert waiter.next_timeout(1.0) == 0.00005


def test_a_patient_waiter_always_takes_the_longest_sleep() -> None:
    assert timeouts(Waiter(mpi_rank(), 0.002, patient=True), 3) == [0.002] * 3
    assert timeouts(Waiter(mpi_rank(), 0.002, patient=True), 1, at_most=0.001) == [0.001]


@pytest.mark.parametrize("patient", [False, True])
def test_where_there_is_a_descriptor_the_sleep_lasts_until_it_is_readable(
    world: list[LocalTransport], patient: bool
) -> None:
    waiter = Waiter(world[0], 0.02, patient=patient)
    assert waiter.next_timeout(FOREVER) == FOREVER
    speaker = threading.Timer(0.05, world[1].send, (0, 1, b"wake up"))
    speaker.start()
    waiter.wait(FOREVER)
    assert world[0].receive() == (1, 1, b"wake up")
    speaker.join()


def test_a_wait_without_a_descriptor_ends_by_itself() -> None:
    waiter = Waiter(mpi_rank(), 0.0001)
    for _ in range(30):
        waiter.wait(0.0001)

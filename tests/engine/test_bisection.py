"""Bisection in the pure scheduler: whichever items are bad, these alone fail, and few calls find them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.engine.scheduler.events import (
    Assign,
    AttemptFailed,
    Command,
    DrainAsked,
    EndAttempt,
    Excuse,
    Fail,
    FailItems,
    GivenBack,
    Halve,
    HandOut,
    ItemsFailed,
    ProcessReady,
    Retry,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from mpi_prs.engine.scheduler.scheduler import Scheduler
from mpi_prs.engine.scheduler.states import JobPhase, Policy
from mpi_prs.wire.failure import Failure, FailureKind
from mpi_prs.wire.parts import bounds, copy_of, halves, is_part, mini_batch_of, part_of_one
from mpi_prs.wire.record import RECORD


class World:
    """Mini-batches of ``items`` items, some of them bad, and workers that do what they are given, one after the other.

    Attributes:
        calls: how often ``run()`` was called with a mini-batch or part, by mini-batch.
        done, failed: items, by mini-batch.
    """

    def __init__(
        self, items: list[int], bad: set[tuple[int, int]], *, workers: int = 2, memory: bool = False, **policy: object
    ) -> None:
        self.items, self.bad, self.memory = items, bad, memory
        self.policy = Policy(**{"bisect_on_failure": True, **policy})  # type: ignore[arg-type]
        self.calls = dict.fromkeys(range(len(items)), 0)
        self.done: dict[int, list[int]] = {number: [] for number in self.calls}
        self.failed: dict[int, list[int]] = {number: [] for number in self.calls}
        self.given_up = dict.fromkeys(self.calls, False)
        self.left: dict[int, set[int]] = {}  # of those that are in parts
        self.has: dict[int, list[tuple[int, int]]] = {}
        self.said: list[Command] = []
        self.scheduler = Scheduler(len(items), items.__getitem__, self.policy, 0.0, items=sum(items))
        for worker in range(1, workers + 1):
            self.add(worker)

    def add(self, worker: int) -> None:
        self.has[worker] = []
        self.tell(WorkerJoined(worker, 1, f"node{worker}"))
        self.tell(ProcessReady(worker, 0))

    def tell(self, event: object) -> None:
        for command in self.scheduler.handle(event, 0.0):  # type: ignore[arg-type]
            self.said.append(command)
            if isinstance(command, Assign):
                for first, count, attempt in command.ranges:
                    self.has[command.worker] += [(number, attempt) for number in range(first, first + count)]
            elif isinstance(command, FailItems):
                number = mini_batch_of(command.failure.mini_batch)
                assert command.items == self.items[number]
                self.failed[number] += range(command.start, command.stop)
                self.left[number].remove(command.failure.mini_batch)
            elif isinstance(command, Fail):
                number = command.failure.mini_batch
                self.failed[number] += range(self.items[number])
                self.given_up[number] = True
            elif isinstance(command, Halve):
                number = mini_batch_of(command.failure.mini_batch)
                self.left.setdefault(number, set()).discard(command.failure.mini_batch)
                self.left[number].update(halves(command.failure.mini_batch))
            elif isinstance(command, EndAttempt):
                self.has[command.worker].remove((command.mini_batch, command.attempt))

    def restart(self) -> None:
        """A new start: it knows what is on record, which are the items and parts that are done or failed."""
        self.scheduler = Scheduler(len(self.items), self.items.__getitem__, self.policy, 0.0, items=sum(self.items))
        for number, items in enumerate(self.items):
            if len(self.done[number]) == items:
                self.scheduler.restore_done([number], items, 0)
            elif self.given_up[number]:
                self.scheduler.restore_failed(number)
            elif number in self.left:
                self.scheduler.restore_done([] if self.left[number] else [number], len(self.done[number]), 0)
                self.scheduler.restore_failed_items(len(self.failed[number]))
                if self.left[number]:
                    self.scheduler.restore_parts(number, items, self.left[number])
        self.scheduler.check()
        workers, self.has = list(self.has), {}
        for worker in workers:
            self.add(worker)

    def step(self, worker: int) -> None:
        """The worker runs what it has had longest."""
        number, attempt = self.has[worker].pop(0)
        mini_batch = mini_batch_of(number)
        start, stop = bounds(number, self.items[mini_batch])
        self.calls[mini_batch] += 1
        if any((mini_batch, item) in self.bad for item in range(start, stop)):
            failure = Failure(FailureKind.EXCEPTION, "no", "", number, attempt, items=stop - start)
            if self.memory:
                failure = Failure(**{**failure.to_dict(), "kind": failure.kind, "out_of_memory": True})
            self.tell(AttemptFailed(worker, failure))
            return
        record = RECORD.pack(number, stop - start, stop - start, attempt, 0, 0, 0.0, 0.01, 0.0)
        assert self.scheduler.finished(worker, record, 0.0) is None
        self.done[mini_batch] += range(start, stop)
        if is_part(number):
            self.left[mini_batch].remove(number)
        self.tell(Tick())

    def run(self, steps: int = 10**6) -> None:
        """Until it is over, or so many calls of run() are made."""
        while self.scheduler.phase is JobPhase.RUNNING and steps:
            self.tell(HandOut())
            busy = [worker for worker, has in self.has.items() if has]
            assert busy, "work is left, and nobody gets it"
            for worker in busy[:steps]:
                steps -= 1
                self.step(worker)

    def kinds(self) -> list[type]:
        return [type(each) for each in self.said if isinstance(each, (Retry, Excuse, Fail, Halve, FailItems))]

    def check(self) -> None:
        """Exactly the bad items have failed, each once; all others are done, each once."""
        for number, items in enumerate(self.items):
            bad = [item for item in range(items) if (number, item) in self.bad]
            assert sorted(self.failed[number]) == bad
            assert sorted(self.done[number]) == [item for item in range(items) if item not in set(bad)]
            tries = 1 if self.memory and items > 1 else self.policy.run_max_try
            further = 2 * len(bad) * math.ceil(math.log2(items)) if items > 1 else 0
            assert self.calls[number] <= (tries + further if bad else 1)
        counts = self.scheduler.counts()
        assert counts.done + counts.failed == len(self.items)
        assert (counts.items_done, counts.items_failed) == (sum(self.items) - len(self.bad), len(self.bad))


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(sizes=SIZES, data=st.data(), workers=st.integers(1, 4), tries=st.integers(1, 3), memory=st.booleans())
def test_exactly_the_bad_items_fail_and_few_calls_find_them(
    sizes: list[int], data: st.DataObject, workers: int, tries: int, memory: bool
) -> None:
    every = [(number, item) for number, items in enumerate(sizes) for item in range(items)]
    bad = data.draw(st.sets(st.sampled_from(every)))
    world = World(sizes, bad, workers=workers, run_max_try=tries, memory=memory)
    world.run()
    assert world.scheduler.phase is JobPhase.COMPLETE
    world.check()


@given(items=st.integers(1, 10**6), data=st.data())
def test_parts_are_named_by_the_way_to_them(items: int, data: st.DataObject) -> None:
    number, item = data.draw(st.integers(0, 2**30 - 1)), data.draw(st.integers(0, items - 1))
    part = part_of_one(number, item, items)
    assert (mini_batch_of(part), bounds(part, items)) == (number, (item, item + 1))
    assert bounds(number, items) == bounds(copy_of(number), items) == (0, items)
    at = number
    while bounds(at, items) != (item, item + 1):
        first, second = halves(at)
        assert bounds(first, items)[1] == bounds(second, items)[0]
        assert (bounds(first, items)[0], bounds(second, items)[1]) == bounds(at, items)
        at = first if item < bounds(first, items)[1] else second
    assert part in (at, halves(at)[0])  # the latter of a mini-batch of one item
    assert is_part(part) and 0 < part < 2**63


def test_no_part_without_the_setting() -> None:
    world = World([4], {(0, 1)}, bisect_on_failure=False, run_max_try=2)
    world.run()
    assert world.kinds() == [Retry, Fail]
    assert world.failed[0] == [0, 1, 2, 3]


def test_a_part_that_was_lost_with_its_worker_gets_another_try() -> None:
    world = World([4], {(0, 1)}, workers=1, run_max_try=1)
    world.run(1)
    world.tell(HandOut())
    assert world.has[1]
    world.add(2)
    del world.has[1]
    world.tell(WorkerLost(1, "gone"))
    world.run()
    world.check()


def test_the_items_of_a_part_that_loses_its_workers_fail_and_no_more_workers_are_spent() -> None:
    world = World([4, 1], {(0, 3)}, workers=1, run_max_try=1)
    world.run(1)
    lost: list[int] = []
    while not world.failed[0]:
        world.tell(HandOut())
        worker = max(world.has)
        lost += [number for number, _ in world.has.pop(worker)]
        world.add(worker + 1)
        world.tell(WorkerLost(worker, "gone"))
    (culprit,) = (number for number in set(lost) if is_part(number) and lost.count(number) == 2)
    assert world.failed[0] == list(range(*bounds(culprit, 4)))
    world.run()
    assert world.scheduler.phase is JobPhase.COMPLETE
    assert sorted(world.done[0] + world.failed[0]) == [0, 1, 2, 3]


def test_what_a_draining_worker_gives_back_is_left_for_the_next_start() -> None:
    world = World([8], {(0, 5)}, workers=1, run_max_try=1)
    world.run(2)
    world.tell(HandOut())
    world.tell(DrainAsked("a signal"))
    world.tell(GivenBack(1, [(number, 1, attempt) for number, attempt in world.has[1]]))
    assert world.scheduler.phase is JobPhase.DRAINED
    assert world.scheduler.left == 1


def test_a_later_start_goes_on_with_what_is_left() -> None:
    world = World([8, 8], {(0, 5), (1, 2)}, run_max_try=1)
    _, right = halves(0)
    world.scheduler.restore_done((), 4, 0)
    world.scheduler.restore_parts(0, 8, {right})
    world.left[0] = {right}
    world.scheduler.restore_done([1], 7, 0)
    world.scheduler.restore_failed_items(1)
    world.done[0], world.done[1], world.failed[1], world.calls[1] = [0, 1, 2, 3], [0, 1, 3, 4, 5, 6, 7], [2], 1
    world.scheduler.check()
    world.run()
    assert world.scheduler.phase is JobPhase.COMPLETE
    world.check()


def test_items_that_failed_before_run_count_when_the_answer_of_the_others_is_accepted() -> None:
    world = World([5, 5], set(), workers=1, bisect_on_failure=False, error_threshold=1)
    world.tell(HandOut())
    world.tell(ItemsFailed(1, 0, 1, 2))
    world.tell(ItemsFailed(1, 1, 7, 2))  # of an attempt that it does not have
    assert world.scheduler.counts().items_failed == 0
    assert world.scheduler.finished(1, RECORD.pack(0, 3, 3, 1, 0, 0, 0.0, 0.1, 0.0), 0.0) is None
    counts = world.scheduler.counts()
    assert (counts.items_done, counts.items_failed, counts.items_alone) == (3, 2, 2)
    assert world.scheduler.phase is JobPhase.ABORTED


@pytest.mark.parametrize(
    ("policy", "bad", "reason"),
    [
        ({"error_threshold": 1}, 2, "2 items failed"),
        ({"error_threshold": 2}, 2, ""),
        ({"allowed_failed_count": 1}, 2, "2 items failed, more than allowed_failed_count allows (1)"),
        ({"allowed_failed_count": 2}, 2, ""),
        ({"allowed_failed_percent": 5.0}, 2, "10 % of the items failed, more than allowed_failed_percent (5)"),
        ({"allowed_failed_percent": 10.0}, 2, ""),
    ],
)
def test_thresholds_count_items(policy: dict[str, float], bad: int, reason: str) -> None:
    world = World([10, 10], {(number, 4) for number in range(bad)}, run_max_try=1, **policy)
    world.run()
    assert world.scheduler.phase is (JobPhase.ABORTED if reason else JobPhase.COMPLETE)
    assert reason in world.scheduler.reason


@given(
    sizes=SIZES,
    data=st.data(),
    tries=st.integers(1, 3),
    copies=st.booleans(),
    moves=st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["lose", "give back", "restart"])), max_size=5),
)
def test_whatever_happens_meanwhile_every_item_is_settled_once(
    sizes: list[int], data: st.DataObject, tries: int, copies: bool, moves: list[tuple[int, str]]
) -> None:
    """Workers are lost, what they have is given back, the master is killed: no item is done twice, or lost."""
    every = [(number, item) for number, items in enumerate(sizes) for item in range(items)]
    bad = data.draw(st.sets(st.sampled_from(every), max_size=4))
    world = World(sizes, bad, run_max_try=tries, speculative_copies=copies)
    for steps, move in moves:
        world.run(steps)
        if world.scheduler.phase is not JobPhase.RUNNING:
            break
        world.tell(HandOut())
        worker = max(world.has)
        if move == "lose":
            world.add(worker + 1)
            del world.has[worker]
            world.tell(WorkerLost(worker, "gone"))
        elif move == "give back":
            given, world.has[worker] = world.has[worker], []
            world.tell(GivenBack(worker, [(number, 1, attempt) for number, attempt in given]))
        else:
            world.restart()
    world.run()
    assert world.scheduler.phase is JobPhase.COMPLETE
    for number, items in enumerate(sizes):
        assert sorted(world.done[number] + world.failed[number]) == list(range(items))
        assert {item for item in range(items) if (number, item) in bad} <= set(world.failed[number])
    counts = world.scheduler.counts()
    assert counts.done + counts.failed == len(sizes)
    assert counts.items_done == sum(map(len, world.done.values()))
    assert counts.items_failed == sum(map(len, world.failed.values()))

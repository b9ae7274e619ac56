"""Copies of stragglers in the pure scheduler, in virtual time."""

from __future__ import annotations

import heapq

from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.engine.scheduler.events import (
    Assign,
    AttemptFailed,
    Bench,
    Command,
    EndAttempt,
    Event,
    Excuse,
    Fail,
    GivenBack,
    HandOut,
    ProcessReady,
    Retry,
    Tick,
    WorkerHeard,
    WorkerJoined,
    WorkerLost,
)
from mpi_prs.engine.scheduler.scheduler import Scheduler
from mpi_prs.engine.scheduler.states import JobPhase, Policy
from mpi_prs.wire.failure import Failure, FailureKind
from mpi_prs.wire.parts import is_copy, mini_batch_of
from mpi_prs.wire.record import RECORD


class World:
    """Workers that take so many seconds for a mini-batch; the clock jumps from one thing that happens to the next.

    Attributes:
        seconds: of a mini-batch, at each worker; another number where ``odd`` has one.
        accepted: by which worker each mini-batch was done; a second answer fails the test.
    """

    def __init__(self, mini_batches: int, seconds: list[float], processes: int = 1, **policy: object) -> None:
        self.policy = Policy(**{"speculative_copies": True, **policy})  # type: ignore[arg-type]
        self.scheduler = Scheduler(mini_batches, lambda _: 1, self.policy, 0.0)
        self.now = 0.0
        self.seconds = dict(enumerate(seconds, 1))
        self.odd: dict[tuple[int, int], float] = {}
        self.failing: set[tuple[int, int]] = set()
        self.processes = processes
        self.waiting: dict[int, list[tuple[int, int]]] = {worker: [] for worker in self.seconds}
        self.running: dict[int, dict[int, tuple[int, float]]] = {worker: {} for worker in self.seconds}
        self.events: list[tuple[float, int, int]] = []  # when, worker, number
        self.said: list[Command] = []
        self.accepted: dict[int, int] = {}
        for worker in self.seconds:
            self.tell(WorkerJoined(worker, processes, f"node{worker}"))
            for process in range(processes):
                self.tell(ProcessReady(worker, process))

    def tell(self, event: Event) -> None:
        for command in self.scheduler.handle(event, self.now):
            self.said.append(command)
            if isinstance(command, Assign):
                for first, count, attempt in command.ranges:
                    self.waiting[command.worker] += [(number, attempt) for number in range(first, first + count)]
                    if is_copy(first):
                        assert self.scheduler.left == self.scheduler.held  # nothing waits, no retries either
            elif isinstance(command, EndAttempt):
                self.running[command.worker].pop(command.mini_batch, None)
                item = (command.mini_batch, command.attempt)
                if item in self.waiting[command.worker]:
                    self.waiting[command.worker].remove(item)

    def begin(self) -> None:
        for worker, waiting in self.waiting.items():
            while waiting and len(self.running[worker]) < self.processes:
                number, attempt = waiting.pop(0)
                seconds = self.odd.get((worker, mini_batch_of(number)), self.seconds[worker])
                self.running[worker][number] = attempt, self.now
                heapq.heappush(self.events, (self.now + seconds, worker, number))

    def run(self, until: float = float("inf")) -> None:
        tick = 0.1
        while self.scheduler.phase is JobPhase.RUNNING and self.now < until:
            self.tell(HandOut())
            self.begin()
            when = self.events[0][0] if self.events else float("inf")
            if when > self.now + tick:
                self.now += tick
                self.tell(Tick())
                for worker in self.scheduler.workers:
                    self.tell(WorkerHeard(worker))
                continue
            when, worker, number = heapq.heappop(self.events)
            self.now = max(self.now, when)
            attempt, began = self.running.get(worker, {}).pop(number, (0, 0.0))
            if attempt:
                self.answer(worker, number, attempt, self.now - began)

    def answer(self, worker: int, number: int, attempt: int, seconds: float) -> None:
        if (worker, mini_batch_of(number)) in self.failing:
            self.tell(AttemptFailed(worker, Failure(FailureKind.EXCEPTION, "no", "", number, attempt, items=1)))
        elif self.scheduler.finished(worker, RECORD.pack(number, 1, 1, attempt, 0, 0, 0, seconds, 0), self.now) is None:
            assert mini_batch_of(number) not in self.accepted
            self.accepted[mini_batch_of(number)] = worker
            self.tell(WorkerHeard(worker))

    def lose(self, worker: int) -> None:
        for of_worker in (self.waiting, self.running, self.seconds):
            of_worker.pop(worker)  # type: ignore[attr-defined]
        self.tell(WorkerLost(worker, "gone"))

    def copies(self) -> list[int]:
        return [
            mini_batch_of(first)
            for each in self.said
            if isinstance(each, Assign)
            for first, _, _ in each.ranges
            if is_copy(first)
        ]

    def of(self, kind: type) -> list[Command]:
        return [each for each in self.said if isinstance(each, kind)]


def test_one_of_four_workers_ten_times_slower_holds_nobody_up() -> None:
    world = World(200, [1.0, 1.0, 1.0, 10.0])
    world.run()
    assert world.scheduler.phase is JobPhase.COMPLETE
    ideal = 200 / 3.1
    assert world.now <= 1.1 * ideal
    wasted = sum(each.seconds for each in world.of(EndAttempt))  # type: ignore[attr-defined]
    assert 0 < wasted <= 0.03 * 4 * world.now


def test_who_is_slow_itself_gets_none() -> None:
    world = World(200, [1.0] * 9 + [10.0])
    world.odd = {(worker, number): 100.0 for worker in range(1, 10) for number in range(191, 200)}
    world.run(until=60)
    assert not world.running[10]
    assert not world.waiting[10]
    given: list[Assign] = world.of(Assign)  # type: ignore[assignment]
    assert not [each for each in given if each.worker == 10 and is_copy(each.ranges[0][0])]


def test_without_the_setting_there_are_none() -> None:
    world = World(20, [1.0, 1.0, 30.0], speculative_copies=False)
    world.run()
    assert world.copies() == []


def test_the_processes_of_one_worker_help_each_other() -> None:
    world = World(16, [1.0], processes=4)
    world.odd[1, 15] = 1e9
    world.run(until=8.0)
    assert world.copies() == [15]


def test_what_takes_not_much_longer_has_no_copy() -> None:
    world = World(20, [1.0, 1.0])
    world.odd.update({(1, 19): 1.4, (2, 19): 1.4})
    world.run()
    assert world.copies() == []


def test_a_copy_has_no_copy_and_a_benched_node_gets_none() -> None:
    world = World(9, [1.0, 1.0, 1.0])
    world.odd.update({(worker, 8): 50.0 for worker in (1, 2, 3)})
    world.run(until=20.0)
    assert world.copies() == [8]
    world = World(9, [1.0, 1.0])
    world.odd.update({(worker, 8): 50.0 for worker in (1, 2)})
    world.run(until=4.0)
    for known in world.scheduler.workers.values():
        known.node.benched = "sick"
    world.run(until=20.0)
    assert world.copies() == []


def straggler() -> tuple[World, int, int]:
    """A world in which mini-batch 8 runs twice; who has the first attempt, and who has the copy."""
    world = World(9, [1.0, 1.0, 1.0], run_max_try=1)
    world.odd.update({(worker, 8): 50.0 for worker in (1, 2, 3)})
    world.run(until=10.0)
    (original,) = (worker for worker, running in world.running.items() if 8 in running)
    (copier,) = (worker for worker, running in world.running.items() if any(map(is_copy, running)))
    return world, original, copier


def test_when_one_of_the_two_fails_the_other_goes_on_and_no_try_is_lost() -> None:
    for place in (0, 1):
        world, *workers = straggler()
        world.failing.add((workers[place], 8))
        world.odd[workers[place], 8] = 0.0
        number, (attempt, _) = next(iter(world.running[workers[place]].items()))
        world.running[workers[place]].clear()
        world.answer(workers[place], number, attempt, 1.0)
        world.run()
        assert world.scheduler.counts().done == 9
        assert len(world.of(Excuse)) == 1
        assert not world.of(Retry) and not world.of(Fail)


def test_when_both_fail_it_is_one_failed_try() -> None:
    world, original, copier = straggler()
    world.failing.update({(original, 8), (copier, 8)})
    world.run()
    (failed,) = world.of(Fail)
    assert failed.failure.mini_batch == 8  # type: ignore[attr-defined]
    assert world.scheduler.counts().failed == 1


def test_when_the_worker_of_one_is_lost_the_other_goes_on() -> None:
    for place in (0, 1):
        world, *workers = straggler()
        world.lose(workers[place])
        world.run()
        assert world.accepted[8] == workers[1 - place]
        assert world.scheduler.counts().done == 9


def test_what_is_given_back_is_the_others_now() -> None:
    for place in (0, 1):
        world, *workers = straggler()
        number, (attempt, _) = next(iter(world.running[workers[place]].items()))
        world.running[workers[place]].clear()
        world.tell(GivenBack(workers[place], [(number, 1, attempt)]))
        world.run()
        assert world.accepted[8] == workers[1 - place]


@given(
    seconds=st.lists(st.sampled_from([0.5, 1.0, 1.0, 1.0, 7.0]), min_size=1, max_size=4),
    processes=st.integers(1, 3),
    mini_batches=st.integers(1, 40),
    odd=st.dictionaries(st.tuples(st.integers(1, 4), st.integers(0, 39)), st.sampled_from([0.1, 5.0, 40.0])),
    failing=st.sets(st.tuples(st.integers(1, 4), st.integers(0, 39)), max_size=8),
    lost=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 4)), max_size=2),
)
def test_whatever_happens_each_is_settled_once_and_has_one_copy_at_most(
    seconds: list[float],
    processes: int,
    mini_batches: int,
    odd: dict[tuple[int, int], float],
    failing: set[tuple[int, int]],
    lost: list[tuple[float, int]],
) -> None:
    world = World(mini_batches, seconds, processes, run_max_try=2)
    world.odd, world.failing = odd, failing
    for when, worker in sorted(lost):
        world.run(until=when)
        if worker in world.seconds and len(world.seconds) > 1 and world.scheduler.phase is JobPhase.RUNNING:
            world.lose(worker)
    world.run()
    assert world.scheduler.phase is JobPhase.COMPLETE
    counts = world.scheduler.counts()
    assert counts.done == len(world.accepted)
    assert counts.done + counts.failed == mini_batches
    assert world.scheduler.held == 0
    assert len(set(world.copies())) == len(world.copies())
    assert not world.of(Bench)

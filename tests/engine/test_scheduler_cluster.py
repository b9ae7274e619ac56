"""The scheduler on a simulated cluster: balance of the work, and cost at thousands of workers."""

from __future__ import annotations

import heapq
import random
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from mpi_prs.engine.scheduler.events import Assign, HandOut, ProcessReady, WorkerJoined
from mpi_prs.engine.scheduler.scheduler import Scheduler
from mpi_prs.engine.scheduler.states import JobPhase, Policy
from tests.support.scheduling import ITEMS, Job, ask, failed, record

LATENCY = 0.0005  # of a message, either way


@dataclass
class Cluster:
    """Nodes with a worker and some processes each; every answer is a message of its own; the master takes no time.

    Attributes:
        speeds: of the processes of each worker; 1 is the speed that durations are meant for.
        longest_queue: the most work, in seconds, that was ever waiting per process at a worker.
    """

    scheduler: Scheduler
    durations: Sequence[float]
    speeds: Sequence[float]
    processes: int = 1
    fails: Callable[[int, int], bool] = lambda _worker, _number: False
    longest_queue: float = 0.0

    def run(self) -> float:
        """The seconds that the job takes."""
        scheduler = self.scheduler
        queues: list[deque[tuple[int, int]]] = [deque() for _ in self.speeds]
        idle = [self.processes for _ in self.speeds]
        events: list[tuple[float, int, str, int, Any]] = []
        order = iter(range(10**9))

        def later(at: float, kind: str, worker: int, what: Any = None) -> None:
            heapq.heappush(events, (at, next(order), kind, worker, what))

        def hand_out(now: float) -> None:
            for command in scheduler.handle(HandOut(), now):
                if isinstance(command, Assign):
                    later(now + LATENCY, "assigned", command.worker, command.ranges)

        for worker in range(len(self.speeds)):
            scheduler.handle(WorkerJoined(worker, self.processes, f"node{worker}"), 0.0)
            for process in range(self.processes):
                scheduler.handle(ProcessReady(worker, process), 0.0)
        hand_out(0.0)
        now = 0.0
        while events:
            now, _order, kind, worker, what = heapq.heappop(events)
            if kind == "assigned":
                for first, count, attempt in what:
                    queues[worker].extend((number, attempt) for number in range(first, first + count))
            elif kind == "ran":
                idle[worker] += 1
                later(now + LATENCY, "answered", worker, what)
            else:
                number, attempt = what
                if self.fails(worker, number):
                    scheduler.handle(failed(worker, number, attempt), now)
                else:
                    seconds = self.durations[number] / self.speeds[worker]
                    assert scheduler.finished(worker, record(number, attempt, run=seconds), now) is None
                hand_out(now)
            while idle[worker] and queues[worker]:
                idle[worker] -= 1
                number, attempt = queues[worker].popleft()
                later(now + self.durations[number] / self.speeds[worker], "ran", worker, (number, attempt))
            waiting = sum(self.durations[number] for number, _attempt in queues[worker])
            self.longest_queue = max(self.longest_queue, waiting / self.speeds[worker] / self.processes)
        return now


def mixed(seed: int, count: int, *kinds: tuple[float, float]) -> list[float]:
    """Durations of which a given share (first) is about so long (second)."""
    rng = random.Random(seed)
    shares, lengths = zip(*kinds, strict=True)
    return [rng.uniform(0.5, 1.5) * length for length in rng.choices(lengths, shares, k=count)]


@pytest.mark.parametrize(
    ("durations", "speeds", "processes"),
    [
        pytest.param(mixed(1, 20_000, (1, 10.0)), [1.0] * 200, 1, id="10 s each"),
        pytest.param(mixed(2, 100_000, (1, 0.001)), [1.0] * 20, 1, id="1 ms each"),
        pytest.param(mixed(3, 20_000, (1, 0.02)), [1.0] * 100, 4, id="20 ms each, 4 processes a worker"),
        pytest.param(mixed(4, 20_000, (0.99, 0.001), (0.01, 10.0)), [1.0] * 100, 1, id="1 of 100 takes 10 s"),
        pytest.param(mixed(5, 50_000, (0.999, 0.001), (0.001, 5.0)), [1.0] * 20, 1, id="1 of 1000 takes 5 s"),
        pytest.param(mixed(6, 10_000, (1, 0.3)), [1.0] * 7, 64, id="64 processes a worker"),
        pytest.param(mixed(7, 10_000, (1, 5.0)), [1.0] * 90 + [0.1] * 10, 1, id="a tenth of the nodes is slow"),
        pytest.param(
            [*mixed(8, 10_000, (1, 0.001)), *mixed(8, 1_000, (1, 10.0))], [1.0] * 100, 1, id="the long ones come last"
        ),
        pytest.param(
            [*mixed(9, 1_000, (1, 10.0)), *mixed(9, 50_000, (1, 0.001))], [1.0] * 100, 1, id="the long ones come first"
        ),
        pytest.param(mixed(10, 300, (1, 10.0)), [1.0] * 100, 2, id="hardly more mini-batches than processes"),
    ],
)
def test_the_work_ends_at_nearly_the_same_time_everywhere(
    durations: list[float], speeds: list[float], processes: int
) -> None:
    scheduler = Scheduler(len(durations), lambda _number: ITEMS, Policy(), 0.0)
    cluster = Cluster(scheduler, durations, speeds, processes)
    began = time.perf_counter()
    makespan = cluster.run()
    cost = (time.perf_counter() - began) / len(durations)
    ideal = sum(durations) / (sum(speeds) * processes)
    longest = max(durations) / min(speeds)
    print(
        f"makespan {makespan:.2f} s, ideal {ideal:.2f} s, longest mini-batch {longest:.2f} s, longest queue "
        f"{cluster.longest_queue:.2f} s, {1e6 * cost:.1f} µs a mini-batch with the simulation"
    )
    assert scheduler.counts().done == len(durations)
    assert makespan <= 1.1 * ideal + longest


@pytest.mark.parametrize("processes", [1, 8])
def test_a_node_on_which_everything_fails_is_benched_and_costs_no_mini_batch(processes: int) -> None:
    durations = mixed(11, 2_000 * processes, (1, 1.0))
    scheduler = Scheduler(len(durations), lambda _number: ITEMS, Policy(run_max_try=2), 0.0)
    broken = 3
    speeds = [1.0] * 20
    speeds[broken] = 1000.0
    cluster = Cluster(scheduler, durations, speeds, processes, fails=lambda worker, _number: worker == broken)
    makespan = cluster.run()
    assert (scheduler.phase, scheduler.counts().failed) == (JobPhase.COMPLETE, 0)
    assert list(scheduler.nodes.benched) == ["node3"]
    assert scheduler.counts().retried <= 3 * processes + 8
    assert makespan <= 1.1 * sum(durations) / 19 / processes + max(durations)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 0.99, 1.0])
def test_bad_data_hold_no_node_back(share: float) -> None:
    tries, nodes = 3, 40
    rng = random.Random(12)
    bad = {number for number in range(40 * nodes) if rng.random() < share}
    durations = [2.0 if number in bad else 1.0 for number in range(40 * nodes)]
    scheduler = Scheduler(len(durations), lambda _number: ITEMS, Policy(run_max_try=tries), 0.0)
    makespan = Cluster(scheduler, durations, [1.0] * nodes, fails=lambda _worker, number: number in bad).run()
    ideal = sum(seconds * (tries if number in bad else 1) for number, seconds in enumerate(durations)) / nodes
    assert (scheduler.counts().failed, scheduler.nodes.failed_on_two) == (len(bad), len(bad))
    assert not scheduler.nodes.benched
    assert makespan <= 1.1 * ideal + 2 * tries


# Size


def run_through(job: Job, worker: int, run: float) -> None:
    scheduler = job.scheduler
    while scheduler.phase is JobPhase.RUNNING:
        for first, count, attempt in ask(scheduler, worker):
            numbers = range(first, first + count)
            scheduler.finished(worker, b"".join(record(number, attempt, run=run) for number in numbers), 0.0)


@pytest.mark.long
def test_a_million_mini_batches_take_little_memory() -> None:
    tracemalloc.start()
    try:
        job = Job(1_000_000, workers=1)
        run_through(job, 1, 0.0001)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert job.phase is JobPhase.COMPLETE
    assert peak < 20 * 1_000_000


class CountedWorkers(dict[int, Any]):
    """Counts how many workers are looked at one after the other."""

    looks = 0

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.looks += 1
            yield value

    def __iter__(self) -> Iterator[int]:
        return self._counted(super().__iter__())

    def values(self) -> Iterator[Any]:  # type: ignore[override]
        return self._counted(iter(super().values()))

    def items(self) -> Iterator[Any]:  # type: ignore[override]
        return self._counted(iter(super().items()))


def large_job(workers: int, mini_batches: int, **policy: Any) -> tuple[Job, CountedWorkers]:
    job = Job(mini_batches, workers=workers, **policy)
    job.scheduler.workers = counted = CountedWorkers(job.scheduler.workers)
    return job, counted


def test_an_assignment_costs_the_same_with_ten_thousand_workers() -> None:
    job, counted = large_job(10_000, 100_000)
    began = time.perf_counter()
    job.finish_all()
    print(f"{1e6 * (time.perf_counter() - began) / 100_000:.1f} µs a mini-batch with 10,000 workers")
    assert job.phase is JobPhase.COMPLETE
    assert counted.looks == 0


def test_thousands_of_retries_at_thousands_of_workers_cost_a_few_looks_each() -> None:
    job, counted = large_job(5_000, 10_000, run_max_try=2)
    job.assign_all()
    retries = 0
    for worker in list(job.has):
        for number in list(job.has[worker]):
            job.fail(worker, number)
            retries += 1
    job.finish_all()
    assert job.phase is JobPhase.COMPLETE
    assert retries >= 5_000
    assert counted.looks < 3 * retries


def test_init_failing_at_ten_thousand_workers_costs_no_look_at_the_others() -> None:
    job, counted = large_job(0, 10)
    for worker in range(10_000):
        job.add(worker, ready=False)
    for _ in range(2):
        for worker in range(10_000):
            job.init_failed(worker, 0)
    assert job.phase is JobPhase.ABORTED
    assert counted.looks == 0


def seconds_to_hand_out(mini_batches: int, workers: int, stay: int) -> float:
    """CPU time to hand out everything, when each worker asks for more whenever it has done two mini-batches."""
    scheduler = Scheduler(mini_batches, lambda _: 1, Policy(), 0.0, lambda number: (number // stay + 1) * stay)
    held: dict[int, list[tuple[int, int]]] = {worker: [] for worker in range(workers)}
    for worker in held:
        scheduler.handle(WorkerJoined(worker, 1, "node"), 0.0)
        scheduler.handle(ProcessReady(worker, 0), 0.0)
    began = time.process_time()
    while scheduler.phase is JobPhase.RUNNING:
        for worker, holds in held.items():
            for first, count, attempt in ask(scheduler, worker):
                holds += [(number, attempt) for number in range(first, first + count)]
        for worker, holds in held.items():
            done, holds[:] = holds[:2], holds[2:]
            scheduler.finished(worker, b"".join(record(number, attempt=attempt) for number, attempt in done), 1.0)
    return time.process_time() - began


def test_stays_that_are_fewer_than_workers_cost_no_look_at_every_worker() -> None:
    assert seconds_to_hand_out(20_000, 3000, 50) < 5 * seconds_to_hand_out(20_000, 3000, 1)

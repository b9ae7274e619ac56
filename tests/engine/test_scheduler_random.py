"""The scheduler in a random world: any order of events, against a naive model that adds up everything anew."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mpi_prs.engine.scheduler.events import (
    Assign,
    Bench,
    Command,
    DrainAsked,
    Event,
    Excuse,
    Fail,
    GivenBack,
    GiveUp,
    HandOut,
    InitFailed,
    Lose,
    ProcessGone,
    ProcessReady,
    ProcessStopped,
    Restart,
    Retry,
    StopAsked,
    TakeBack,
    Tick,
    WorkerHeard,
    WorkerJoined,
    WorkerLost,
)
from mpi_prs.engine.scheduler.scheduler import Scheduler
from mpi_prs.engine.scheduler.states import JobPhase, Policy
from tests.support.scheduling import failed, record

PATIENCE = 10.0
DURATIONS = [0.0, 1e-6, 0.01, 10.0, math.nan]
NODES = st.sampled_from(["n1", "n1", "n2", "n3"])


@dataclass
class ModelWorker:
    """What a worker really has, as opposed to what the scheduler believes."""

    processes: int
    node: str
    heard: float
    held: dict[int, int] = field(default_factory=dict)
    ready: set[int] = field(default_factory=set)
    init_failures: dict[int, int] = field(default_factory=dict)  # in a row
    stopped: set[int] = field(default_factory=set)

    def starting(self, tries: int) -> list[int]:
        return [p for p in range(self.processes) if p not in self.ready and not self.is_over(p, tries)]

    def given_up(self, tries: int) -> bool:
        return all(self.is_over(process, tries) for process in range(self.processes))

    def is_over(self, process: int, tries: int) -> bool:
        return process in self.stopped or self.init_failures.get(process, 0) >= tries


class RandomWorld(RuleBasedStateMachine):
    """Any order of events. The model keeps one entry a mini-batch, adds up everything anew, and knows no shortcut."""

    @initialize(
        mini_batches=st.integers(1, 60),
        policy=st.builds(
            Policy,
            run_max_try=st.integers(1, 4),
            error_threshold=st.one_of(st.just(-1), st.integers(0, 60)),
            allowed_failed_count=st.one_of(st.none(), st.integers(-1, 12)),
            allowed_failed_percent=st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 20.0, 50.0, 100.0])),
            heartbeat_timeout=st.just(PATIENCE),
            progress_update_timeout=st.one_of(st.none(), st.just(2 * PATIENCE)),
            init_tries=st.integers(1, 3),
            limit=st.one_of(st.none(), st.integers(0, 50)),
            most_waiting=st.integers(1, 8),
        ),
        stay=st.sampled_from([None, 1, 3, 20]),
        data=st.data(),
    )
    def first_start(self, mini_batches: int, policy: Policy, stay: int | None, data: st.DataObject) -> None:
        self.stop_of_stay = None if stay is None else lambda number: (number // stay + 1) * stay
        self.sizes = [1 + number * number % 5 for number in range(mini_batches)]
        self.policy, self.now, self.next_worker = policy, 0.0, 1
        self.settled: dict[int, int | None] = {}  # mini-batch → items that succeeded, None: failed
        self.tries: dict[int, int] = {}
        self.begin(data)

    def begin(self, data: st.DataObject) -> None:
        """A start of the run: all that is known is what is settled, and how many tries have failed."""
        self.scheduler = Scheduler(len(self.sizes), self.sizes.__getitem__, self.policy, self.now, self.stop_of_stay)
        self.end = len(self.sizes) if self.policy.limit is None else min(self.policy.limit, len(self.sizes))
        self.losses: dict[int, int] = {}
        self.to_retry: set[int] = set()
        self.retried = 0
        self.benched: set[str] = set()
        self.workers: dict[int, ModelWorker] = {}
        self.ghosts: dict[int, dict[int, int]] = {}
        self.ever_ready = False
        self.moved = self.now
        self.phase = JobPhase.RUNNING
        done = {number: good for number, good in self.settled.items() if good is not None}
        items = sum(self.sizes[number] for number in done)
        self.scheduler.restore_done(done, items, items - sum(done.values()))
        for number in set(self.settled) - set(done):
            self.scheduler.restore_failed(number)
        for number, attempts in self.tries.items():
            self.scheduler.restore_attempts(number, attempts)
            self.tries[number] = min(attempts, self.policy.run_max_try - 1)
        self.scheduler.check()
        self.judge()
        for processes in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4), "processes of each worker"):
            self.add_worker(processes, data.draw(NODES, "node"))
        if data.draw(st.sampled_from([True, True, False]), "init() works"):
            for name, worker in self.workers.items():
                for process in range(worker.processes):
                    self.becomes_ready(name, process)

    @precondition(lambda self: self.phase not in (JobPhase.RUNNING, JobPhase.DRAINING))
    @rule(seed=st.integers(0, 999), kept=st.sampled_from([0.0, 0.5, 1.0]), max_try=st.integers(1, 4), data=st.data())
    def next_start(self, seed: int, kept: float, max_try: int, data: st.DataObject) -> None:
        """The run is resumed; a machine that died may have forgotten some of it, and the policy may be another."""
        rng = random.Random(seed)
        self.settled = {number: done for number, done in self.settled.items() if rng.random() < kept}
        self.tries = {number: tries for number, tries in self.tries.items() if rng.random() < kept}
        self.policy = replace(self.policy, run_max_try=max_try)
        self.begin(data)

    def tell(self, event: Event) -> list[Command]:
        """What is to be done; that nodes are benched and taken back is looked at in general, not for each event."""
        worker = getattr(event, "worker", None)
        if worker in self.workers:  # anything that it says is a sign of life
            self.workers[worker].heard = self.now
        commands = self.scheduler.handle(event, self.now)
        for command in commands:
            if isinstance(command, Bench):
                assert command.node not in self.benched
                self.benched.add(command.node)
            elif isinstance(command, TakeBack):
                self.benched.remove(command.node)
        return [command for command in commands if not isinstance(command, (Bench, TakeBack))]

    # What the model expects

    def failed_items(self) -> int:
        return sum(self.sizes[n] - (0 if done is None else done) for n, done in self.settled.items())

    def threshold_is_exceeded(self) -> bool:
        policy, failed = self.policy, sum(done is None for done in self.settled.values())
        return (
            (policy.error_threshold >= 0 and self.failed_items() > policy.error_threshold)
            or (policy.allowed_failed_count not in (None, -1) and failed > (policy.allowed_failed_count or 0))
            or (
                policy.allowed_failed_percent not in (None, -1.0)
                and 100 * failed > (policy.allowed_failed_percent or 0) * len(self.sizes)
            )
        )

    def left(self) -> set[int]:
        return set(range(self.end)) - set(self.settled)

    def held(self) -> list[int]:
        return [number for worker in self.workers.values() for number in worker.held]

    def judge(self, *, workers_changed: bool = False) -> None:
        """Which phase must follow from what has just happened."""
        tries = self.policy.init_tries
        if self.phase not in (JobPhase.RUNNING, JobPhase.DRAINING):
            return
        if self.threshold_is_exceeded():
            self.phase = JobPhase.ABORTED
        elif not self.left():
            self.phase = JobPhase.COMPLETE
        elif self.phase is JobPhase.DRAINING and not self.held():
            self.phase = JobPhase.DRAINED
        elif workers_changed and not self.workers:
            self.phase = JobPhase.STRANDED
        elif workers_changed:
            everywhere = all(
                worker.init_failures.get(process, 0) >= 2
                for worker in self.workers.values()
                for process in range(worker.processes)
            )
            given_up = all(worker.given_up(tries) for worker in self.workers.values())
            if given_up or (everywhere and not self.ever_ready):
                self.phase = JobPhase.ABORTED

    # What may happen

    def some_worker(self, data: st.DataObject, *, holding: bool = False) -> int:
        names = [name for name, worker in self.workers.items() if worker.held or not holding]
        return data.draw(st.sampled_from(names), "worker")

    def somebody_holds(self) -> bool:
        return bool(self.held())

    def add_worker(self, processes: int, node: str) -> None:
        self.workers[self.next_worker] = ModelWorker(processes, node, self.now)
        assert not self.tell(WorkerJoined(self.next_worker, processes, node))
        self.next_worker += 1

    def nodes_alive(self) -> set[str]:
        """Those that are not benched, with processes that are ready or may become so."""
        alive = {worker.node for worker in self.workers.values() if not worker.given_up(self.policy.init_tries)}
        return alive - set(self.scheduler.nodes.benched)

    def is_benched(self, name: int) -> bool:
        return name in self.workers and self.workers[name].node in self.scheduler.nodes.benched

    @rule(processes=st.integers(1, 3), node=NODES)
    def worker_reports(self, processes: int, node: str) -> None:
        self.add_worker(processes, node)

    def becomes_ready(self, name: int, process: int) -> None:
        self.ever_ready = True
        self.workers[name].ready.add(process)
        assert not self.tell(ProcessReady(name, process))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def processes_are_ready(self, data: st.DataObject) -> None:
        name = self.some_worker(data)
        starting = self.workers[name].starting(self.policy.init_tries)
        for process in data.draw(st.sets(st.sampled_from(starting), min_size=1)) if starting else ():
            self.becomes_ready(name, process)

    @precondition(lambda self: any(worker.ready for worker in self.workers.values()))
    @rule(data=st.data())
    def process_ends(self, data: st.DataObject) -> None:
        """It has worked before, so whatever happened before that is forgotten."""
        name = data.draw(st.sampled_from([name for name, worker in self.workers.items() if worker.ready]), "worker")
        process = data.draw(st.sampled_from(sorted(self.workers[name].ready)))
        self.workers[name].ready.remove(process)
        self.workers[name].init_failures.pop(process, None)
        assert not self.tell(ProcessGone(name, process))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), everywhere=st.sampled_from([False, False, False, True]))
    def processes_are_stopped(self, data: st.DataObject, everywhere: bool) -> None:
        """By the script, for good: after run() or init()."""
        names = list(self.workers) if everywhere else [self.some_worker(data)]
        for name in names:
            worker, tries = self.workers[name], self.policy.init_tries
            alive = worker.starting(tries) + sorted(worker.ready)
            for process in (
                alive if everywhere else data.draw(st.sets(st.sampled_from(alive)) if alive else st.just(()))
            ):
                worker.ready.discard(process)
                worker.stopped.add(process)
                assert not self.tell(ProcessStopped(name, process))
                assert not self.tell(ProcessStopped(name, process))  # told twice: it counts once
                if worker.given_up(tries):
                    worker.held.clear()
                self.judge(workers_changed=True)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), times=st.integers(1, 6))
    def init_fails(self, data: st.DataObject, times: int) -> None:
        """Or a process that is ready ends before it has done anything."""
        name = self.some_worker(data)
        worker, tries = self.workers[name], self.policy.init_tries
        for _ in range(times):
            alive = worker.starting(tries) + sorted(worker.ready)
            if not alive:
                return
            process = data.draw(st.sampled_from(alive))
            worker.ready.discard(process)
            worker.init_failures[process] = worker.init_failures.get(process, 0) + 1
            commands = self.tell(InitFailed(name, process))
            if worker.given_up(tries):
                worker.held.clear()
            self.judge(workers_changed=True)
            again = worker.init_failures[process] < tries and self.phase is JobPhase.RUNNING
            assert commands == [Restart(name, process) if again else GiveUp(name, process)]

    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        name = data.draw(st.integers(0, self.next_worker), "worker, known or not")
        self.hand_out(name)

    @rule()
    def hand_out_to_all(self) -> None:
        """Nobody is forgotten: who could run more has been asked, and gets nothing when asked again."""
        self.hand_out()
        for name, worker in self.workers.items():
            if len(worker.held) < len(worker.ready):
                assert not self.hand_out(name)

    def hand_out(self, only: int | None = None) -> int:
        taken = 0
        for command in self.tell(HandOut(only)):
            assert isinstance(command, Assign)
            assert only in (None, command.worker)
            taken += self.take(command)
        return taken

    def take(self, command: Assign) -> int:
        taken, name = 0, command.worker
        for first, count, attempt in command.ranges:
            assert self.phase is JobPhase.RUNNING
            assert self.workers[name].ready
            assert not self.is_benched(name)
            for number in range(first, first + count):
                assert number in self.left()
                assert number not in self.held()
                assert attempt == self.tries.get(number, 0) + 1 <= self.policy.run_max_try
                self.workers[name].held[number] = attempt
                self.to_retry.discard(number)
                taken += 1
        return taken

    @precondition(lambda self: self.phase is JobPhase.RUNNING)
    @rule(seed=st.integers(0, 999), rounds=st.integers(1, 6), good=st.sampled_from([1.0, 0.95, 0.9, 0.5, 0.0]))
    def work_goes_on(self, seed: int, rounds: int, good: float) -> None:
        """Everybody gets what there is, and answers some of it, well or badly."""
        rng = random.Random(seed)
        for _ in range(rounds):
            for name in list(self.workers):
                self.hand_out(name)
                held = self.workers[name].held
                for number in rng.sample(sorted(held), rng.randint(0, len(held))):
                    if number in held and rng.random() < good:
                        self.answer(name, [number], dict(held), [self.sizes[number]], rng.choice(DURATIONS))
                    elif number in held:
                        self.failure(name, number, held[number])

    @precondition(somebody_holds)
    @rule(data=st.data())
    def answers_come(self, data: st.DataObject) -> None:
        name = self.some_worker(data, holding=True)
        held = self.workers[name].held
        numbers = data.draw(st.lists(st.sampled_from(sorted(held)), min_size=1, max_size=6))
        self.answer(name, numbers, dict(held), *self.some_results(numbers, data))

    @rule(data=st.data())
    def forged_answers_come(self, data: st.DataObject) -> None:
        """From anybody, for anything, at any attempt."""
        name = data.draw(st.integers(0, self.next_worker), "worker, known or not")
        numbers = data.draw(st.lists(st.integers(0, len(self.sizes) - 1), max_size=4))
        attempts = {number: data.draw(st.integers(0, 5)) for number in numbers}
        self.answer(name, numbers, attempts, *self.some_results(numbers, data))

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def ghost_answers(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.ghosts)), "lost worker")
        numbers = list(self.ghosts[name])
        self.answer(name, numbers, self.ghosts[name], *self.some_results(numbers, data))

    def some_results(self, numbers: Sequence[int], data: st.DataObject) -> tuple[list[int], float]:
        """For each mini-batch the items that it returns, right or wrong; and the seconds that each took."""
        wrong = [data.draw(st.sampled_from([0, 0, 0, 1, -1])) for _ in numbers]
        returned = [self.sizes[number] + more for number, more in zip(numbers, wrong, strict=True)]
        return returned, data.draw(st.sampled_from(DURATIONS))

    def answer(
        self, name: int, numbers: Sequence[int], attempts: dict[int, int], returned: Sequence[int], run: float
    ) -> None:
        message, expected = b"", []
        held = self.workers[name].held if name in self.workers else {}
        for number, good in zip(numbers, returned, strict=True):
            size = self.sizes[number]
            message += record(number, attempts[number], returned=good, items=size, run=run)
            expected.append(number in held and held[number] == attempts[number])
            if expected[-1]:
                del held[number]
                assert number not in self.settled
                self.settled[number] = min(good, size)
                self.moved = self.now
        if name in self.workers:
            self.workers[name].heard = self.now
        accepted = self.scheduler.finished(name, message, self.now)
        assert accepted == (None if all(expected) else expected)
        self.judge()

    @precondition(somebody_holds)
    @rule(data=st.data())
    def attempt_fails(self, data: st.DataObject) -> None:
        name = self.some_worker(data, holding=True)
        held = self.workers[name].held
        number = data.draw(st.sampled_from(sorted(held)))
        self.failure(name, number, held[number], may_retry=data.draw(st.sampled_from([True, True, True, False])))

    @rule(data=st.data(), attempt=st.integers(0, 5))
    def forged_failure_comes(self, data: st.DataObject, attempt: int) -> None:
        name = data.draw(st.integers(0, self.next_worker), "worker, known or not")
        self.failure(name, data.draw(st.integers(0, len(self.sizes) - 1)), attempt)

    def failure(self, name: int, number: int, attempt: int, *, may_retry: bool = True) -> None:
        held = self.workers[name].held if name in self.workers else {}
        event = failed(name, number, attempt, may_retry=may_retry)
        expected: list[Command] = []
        if held.get(number) == attempt:
            del held[number]
            self.moved = self.now
            if self.is_benched(name):
                expected = [Excuse(name, event.failure)]
                self.to_retry.add(number)
            elif attempt == self.policy.run_max_try or not may_retry:
                expected = [Fail(name, event.failure)]
                self.settled[number] = None
                self.tries[number] = attempt
            else:
                expected = [Retry(name, event.failure)]
                self.to_retry.add(number)
                self.retried += 1
                self.tries[number] = attempt
        assert self.tell(event) == expected
        self.judge()

    @precondition(somebody_holds)
    @rule(data=st.data())
    def some_is_given_back(self, data: st.DataObject) -> None:
        name = self.some_worker(data, holding=True)
        held = self.workers[name].held
        ranges = []
        for number in data.draw(st.lists(st.sampled_from(sorted(held)), max_size=5)):
            attempt = data.draw(st.sampled_from([held.get(number, 1), held.get(number, 1), 5]))
            ranges.append((number, 1, attempt))
            if held.get(number) == attempt:
                del held[number]
        assert not self.tell(GivenBack(name, ranges))
        self.judge()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_is_lost(self, data: st.DataObject) -> None:
        self.lose(self.some_worker(data))

    def lose(self, name: int) -> None:
        failed = self.lost(name)
        lose, *fails = self.tell(WorkerLost(name, "gone"))
        assert lose == Lose(name, "gone")
        assert {fail.failure.mini_batch for fail in fails if isinstance(fail, Fail)} == failed
        assert len(fails) == len(failed)
        assert not self.tell(WorkerLost(name, "gone again"))
        self.judge(workers_changed=True)

    def lost(self, name: int) -> set[int]:
        """Returns the mini-batches that have failed for good by that."""
        worker = self.workers.pop(name)
        self.ghosts[name] = worker.held
        failed = set()
        for number in worker.held:
            self.losses[number] = self.losses.get(number, 0) + 1
            if self.losses[number] >= max(2, self.policy.run_max_try):
                self.settled[number] = None
                failed.add(number)
            else:
                self.to_retry.add(number)
        return failed

    @rule(seconds=st.sampled_from([0.0, 1.0, 0.9 * PATIENCE, 1.1 * PATIENCE]), data=st.data())
    def time_passes(self, seconds: float, data: st.DataObject) -> None:
        self.now += seconds
        quiet = data.draw(
            st.sets(st.sampled_from(sorted(self.workers)), max_size=2) if self.workers else st.just(set())
        )
        for name in set(self.workers) - quiet:
            self.workers[name].heard = self.now
            assert not self.tell(WorkerHeard(name))
        silent = [name for name, worker in self.workers.items() if self.now - worker.heard > PATIENCE]
        if not self.ever_ready:
            self.moved = self.now
        limit = self.policy.progress_update_timeout
        if self.phase is JobPhase.RUNNING and limit is not None and self.now - self.moved > limit:
            self.phase = JobPhase.STRANDED
        failed = set()
        for name in silent:
            failed |= self.lost(name)
            self.judge(workers_changed=True)
        commands = self.tell(Tick())
        assert [command.worker for command in commands if isinstance(command, Lose)] == silent
        assert {command.failure.mini_batch for command in commands if isinstance(command, Fail)} == failed

    @rule(odds=st.integers(0, 9))
    def drain(self, odds: int) -> None:
        if odds == 0:
            assert not self.tell(DrainAsked("a signal"))
            if self.phase is JobPhase.RUNNING:
                self.phase = JobPhase.DRAINING
                self.judge()

    @rule(odds=st.integers(0, 19))
    def stop(self, odds: int) -> None:
        if odds == 0:
            assert not self.tell(StopAsked("two signals"))
            if self.phase in (JobPhase.RUNNING, JobPhase.DRAINING):
                self.phase = JobPhase.STOPPED

    # What always holds

    @invariant()
    def the_scheduler_agrees_with_the_model(self) -> None:
        counts = self.scheduler.counts()
        done = {number: good for number, good in self.settled.items() if good is not None}
        assert self.scheduler.phase is self.phase
        assert self.scheduler.left == len(self.left())
        assert self.scheduler.held == len(self.held()) == len(set(self.held()))
        assert counts.mini_batches == len(self.sizes)
        assert (counts.done, counts.failed) == (len(done), len(self.settled) - len(done))
        assert (counts.items_done, counts.items_failed) == (sum(done.values()), self.failed_items())
        assert counts.retried == self.retried
        assert bool(self.scheduler.reason) == (self.phase not in (JobPhase.RUNNING, JobPhase.COMPLETE))

    @invariant()
    def work_that_is_left_is_held_or_handed_out(self) -> None:
        at_work = {worker.node for name, worker in self.workers.items() if worker.ready and not self.is_benched(name)}
        if (
            self.phase is JobPhase.RUNNING and at_work and not self.nodes_alive() - at_work
        ):  # else it may wait for those
            handed_out = 0
            if not self.held():
                handed_out = self.hand_out()
            assert self.held() or handed_out

    @invariant()
    def nobody_is_benched_unless_another_node_is_left(self) -> None:
        alive = {worker.node for worker in self.workers.values() if not worker.given_up(self.policy.init_tries)}
        assert self.nodes_alive() or not alive

    @invariant()
    def it_was_said_who_is_benched(self) -> None:
        self.tell(WorkerHeard(0))  # what followed from results is said with the next event
        assert self.benched == set(self.scheduler.nodes.benched)

    def teardown(self) -> None:
        """From wherever it got to, the job comes to its end as soon as nothing more goes wrong."""
        if not hasattr(self, "phase"):
            return
        if self.phase is JobPhase.RUNNING:
            self.add_worker(1, "another node")
            for name, worker in self.workers.items():
                for process in worker.starting(self.policy.init_tries):
                    self.becomes_ready(name, process)
        for _ in range(3 * len(self.sizes) + 3):
            for name in list(self.workers):
                self.hand_out(name)
                for number, attempt in list(self.workers[name].held.items()):
                    self.answer(name, [number], {number: attempt}, [self.sizes[number]], 0.01)
            self.judge()
        self.the_scheduler_agrees_with_the_model()
        assert self.phase not in (JobPhase.RUNNING, JobPhase.DRAINING)


TestRandomWorld = RandomWorld.TestCase
TestRandomWorld.settings = settings(
    max_examples=int(os.environ.get("MPI_PRS_RANDOM_EXAMPLES", "40")),  # 300 and more, to look hard
    stateful_step_count=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

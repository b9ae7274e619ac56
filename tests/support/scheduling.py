"""What the tests of the scheduler share: records, and a job whose workers do what a test says."""

from __future__ import annotations

from typing import Any

from mpi_prs.engine.scheduler.events import (
    Assign,
    AttemptFailed,
    Bench,
    Command,
    DrainAsked,
    Event,
    Excuse,
    Fail,
    GivenBack,
    HandOut,
    InitFailed,
    Lose,
    ProcessGone,
    ProcessReady,
    ProcessStopped,
    Range,
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
from mpi_prs.wire.failure import NO_RETRY, Failure, FailureKind
from mpi_prs.wire.record import RECORD

ITEMS = 5


def record(
    number: int, attempt: int = 1, *, returned: int = ITEMS, run: float = 0.0, overhead: float = 0.0, items: int = ITEMS
) -> bytes:
    return RECORD.pack(number, items, returned, attempt, 0, 0, 0.0, run, overhead)


def failed(worker: int, number: int, attempt: int, *, may_retry: bool = True) -> AttemptFailed:
    code = "" if may_retry else NO_RETRY
    return AttemptFailed(worker, Failure(FailureKind.EXCEPTION, "no", mini_batch=number, attempt=attempt, code=code))


def ask(scheduler: Scheduler, worker: int) -> list[Range]:
    """What one worker is given, when it alone is asked."""
    commands = scheduler.handle(HandOut(only=worker), 0.0)
    return [each for command in commands if isinstance(command, Assign) for each in command.ranges]


class Job:
    """A scheduler, and what its workers hold: so that tests can say who does what."""

    def __init__(
        self, mini_batches: int, workers: int = 0, processes: int = 1, stay: int | None = None, **policy: Any
    ) -> None:
        stop_of_stay = None if stay is None else lambda number: (number // stay + 1) * stay
        self.scheduler = Scheduler(mini_batches, lambda _number: ITEMS, Policy(**policy), 0.0, stop_of_stay)
        self.has: dict[int, dict[int, int]] = {}  # worker → mini-batch → attempt
        self.changes: list[Bench | TakeBack] = []
        for worker in range(1, workers + 1):
            self.add(worker, processes)

    def tell(self, event: Event, now: float = 0.0) -> list[Command]:
        commands = self.scheduler.handle(event, now)
        self.changes += [command for command in commands if isinstance(command, (Bench, TakeBack))]
        return commands

    def add(self, worker: int, processes: int = 1, *, ready: bool = True, node: str | None = None) -> None:
        """A worker; on a node of its own, unless told otherwise."""
        self.tell(WorkerJoined(worker, processes, node or f"node{worker}"))
        self.has[worker] = {}
        for process in range(processes if ready else 0):
            self.ready(worker, process)

    def ready(self, worker: int, process: int, at_once: int = 1) -> None:
        self.tell(ProcessReady(worker, process, at_once))

    def gone(self, worker: int, process: int) -> None:
        self.tell(ProcessGone(worker, process))

    def stopped(self, worker: int, process: int) -> None:
        self.tell(ProcessStopped(worker, process))

    def init_failed(self, worker: int, process: int) -> bool:
        """Whether it is started again."""
        return Restart(worker, process) in self.tell(InitFailed(worker, process))

    def assign(self, worker: int) -> dict[int, int]:
        got = {
            number: attempt
            for command in self.tell(HandOut(only=worker))
            if isinstance(command, Assign)
            for first, count, attempt in command.ranges
            for number in range(first, first + count)
        }
        if got:
            self.has[worker].update(got)
        return got

    def assign_all(self) -> None:
        for worker in self.has:
            self.assign(worker)

    def finish(self, worker: int, *numbers: int, run: float = 0.0, overhead: float = 0.0, now: float = 0.0) -> None:
        """These, or everything that the worker has."""
        answers = [(number, self.has[worker].pop(number)) for number in numbers or list(self.has[worker])]
        data = b"".join(record(*answer, run=run, overhead=overhead) for answer in answers)
        assert self.scheduler.finished(worker, data, now) is None
        self.tell(WorkerHeard(worker), now)  # what else follows from results is said with the next event

    def attempt_failed(
        self, worker: int, number: int, attempt: int, now: float = 0.0, *, may_retry: bool = True
    ) -> type[Command] | None:
        """What follows: another try, the end of the mini-batch; ``None``: nothing."""
        commands = self.tell(failed(worker, number, attempt, may_retry=may_retry), now)
        return next((type(command) for command in commands if isinstance(command, (Retry, Excuse, Fail))), None)

    def fail(self, worker: int, number: int, now: float = 0.0) -> type[Command] | None:
        return self.attempt_failed(worker, number, self.has[worker].pop(number), now)

    def given_back(self, worker: int, ranges: list[Range]) -> None:
        self.tell(GivenBack(worker, ranges))

    def lose(self, worker: int, why: str = "it is gone") -> list[int]:
        """Returns the mini-batches that have failed for good by that."""
        self.has.pop(worker, None)
        commands = self.tell(WorkerLost(worker, why))
        return [command.failure.mini_batch for command in commands if isinstance(command, Fail)]

    def tick(self, now: float) -> list[tuple[int, str]]:
        """The workers that are lost because they were silent, and why."""
        return [(command.worker, command.why) for command in self.tell(Tick(), now) if isinstance(command, Lose)]

    def drain(self, reason: str) -> None:
        self.tell(DrainAsked(reason))

    def stop(self, reason: str) -> None:
        self.tell(StopAsked(reason))

    def finish_all(self) -> None:
        """Nothing goes wrong any more."""
        while self.phase is JobPhase.RUNNING:
            self.assign_all()
            busy = [worker for worker, has in self.has.items() if has]
            assert busy, "work is left, and nobody gets it"
            for worker in busy:
                self.finish(worker)

    @property
    def phase(self) -> JobPhase:
        return self.scheduler.phase

    @property
    def reason(self) -> str:
        return self.scheduler.reason

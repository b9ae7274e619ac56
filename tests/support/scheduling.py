"""What the tests of the scheduler share: records, and a job whose workers do what a test says."""

from __future__ import annotations

from typing import Any

from mpi_prs.engine.scheduler.scheduler import Scheduler
from mpi_prs.engine.scheduler.states import Phase, Policy, Verdict
from mpi_prs.wire.record import RECORD

ITEMS = 5


def record(
    number: int, attempt: int = 1, *, returned: int = ITEMS, run: float = 0.0, overhead: float = 0.0, items: int = ITEMS
) -> bytes:
    return RECORD.pack(number, items, returned, attempt, 0, 0, 0.0, run, overhead)


class Job:
    """A scheduler, and what its workers hold: so that tests can say who does what."""

    def __init__(
        self, mini_batches: int, workers: int = 0, processes: int = 1, stay: int | None = None, **policy: Any
    ) -> None:
        stop_of_stay = None if stay is None else lambda number: (number // stay + 1) * stay
        self.scheduler = Scheduler(mini_batches, lambda _number: ITEMS, Policy(**policy), 0.0, stop_of_stay)
        self.has: dict[int, dict[int, int]] = {}  # worker → mini-batch → attempt
        for worker in range(1, workers + 1):
            self.add(worker, processes)

    def add(self, worker: int, processes: int = 1, *, ready: bool = True, node: str | None = None) -> None:
        """A worker; on a node of its own, unless told otherwise."""
        self.scheduler.add_worker(worker, processes, node or f"node{worker}", 0.0)
        self.has[worker] = {}
        for process in range(processes if ready else 0):
            self.scheduler.process_ready(worker, process)

    def assign(self, worker: int) -> dict[int, int]:
        got = {
            number: attempt
            for first, count, attempt in self.scheduler.assign(worker)
            for number in range(first, first + count)
        }
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

    def fail(self, worker: int, number: int, now: float = 0.0) -> Verdict:
        return self.scheduler.attempt_failed(worker, number, self.has[worker].pop(number), now)

    def lose(self, worker: int) -> list[int]:
        self.has.pop(worker)
        return self.scheduler.worker_lost(worker, "it is gone")

    def finish_all(self) -> None:
        """Nothing goes wrong any more."""
        while self.phase is Phase.RUNNING:
            self.assign_all()
            busy = [worker for worker, has in self.has.items() if has]
            assert busy, "work is left, and nobody gets it"
            for worker in busy:
                self.finish(worker)

    @property
    def phase(self) -> Phase:
        return self.scheduler.phase

    @property
    def reason(self) -> str:
        return self.scheduler.reason

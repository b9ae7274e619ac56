"""Who does what next, and when a job is over: every decision of the master, and nothing else.

The scheduler does no MPI, touches no file and has no clock: time is an argument. The MPI master, the in-process run and
the tests drive the same object. A mini-batch goes this way::

    PENDING ──assign──► HELD (by one worker) ──finished──► DONE
                         ▲  │
              assign ────┘  ├──── failed, or its worker lost; tries are left ──► RETRY
                            └──── no tries left ──► FAILED

States live in one byte a mini-batch (10 million mini-batches: 10 MB). What a worker holds is a small dictionary, so an
answer is accepted only from the worker that holds the mini-batch, for the attempt it was given: whatever comes late or
twice is dropped here.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mpi_prs.output.record import RECORD

PENDING, HELD, RETRY, DONE, FAILED = range(5)

Range = tuple[int, int, int]
"""``(first mini-batch, count, attempt)``."""


@dataclass(frozen=True)
class Policy:
    """The numbers a job is run by; names and meanings as in the job config.

    Attributes:
        limit: work on the mini-batches below this number only; ``None``: on all.
        window: seconds of work that a user process may have waiting at its worker.
        most_waiting: mini-batches that a user process may have waiting, however short they are.
    """

    run_max_try: int = 3
    error_threshold: int = -1
    allowed_failed_count: int | None = None
    allowed_failed_percent: float | None = None
    heartbeat_timeout: float = 120.0
    progress_update_timeout: float | None = None
    init_tries: int = 3
    limit: int | None = None
    window: float = 0.03
    most_waiting: int = 4096


class Phase(enum.Enum):
    """Where the whole job stands."""

    RUNNING = "running"
    DRAINING = "draining"
    """Nothing new is handed out; what runs may finish."""
    COMPLETE = "complete"
    """Every mini-batch is done or failed."""
    DRAINED = "drained"
    """Nothing is running any more, and something is left to do."""
    STOPPED = "stopped"
    """Stopped at once, with work in hand."""
    ABORTED = "aborted"
    """A threshold is exceeded, or no user process can be started; ``reason`` says which."""
    STRANDED = "stranded"
    """No worker is left, or nothing has moved for too long; the job can be resumed. ``reason`` says which."""


class Verdict(enum.Enum):
    """What became of a failed attempt."""

    RETRY = "retry"
    FAILED = "failed"
    STALE = "stale"
    """Not held by that worker at that attempt: the answer was dropped."""


@dataclass
class Worker:
    """One worker, as the scheduler sees it."""

    processes: int
    node: str
    heard: float
    ready: set[int] = field(default_factory=set)
    init_failures: dict[int, int] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)
    held: dict[int, int] = field(default_factory=dict)  # mini-batch → attempt
    mean_run: float = 0.0  # seconds, moving average; 0: nothing measured yet


@dataclass(frozen=True)
class Counts:
    """Totals so far, of this start and the ones before."""

    mini_batches: int
    done: int
    failed: int
    items_done: int
    items_failed: int
    retried: int


class Scheduler:
    """The state of a job.

    Args:
        mini_batches: how many there are.
        items_of: the number of items of a mini-batch.
        policy: see :class:`Policy`.
        now: seconds, from any clock that only goes forward; all other ``now`` are from the same.
    """

    def __init__(self, mini_batches: int, items_of: Callable[[int], int], policy: Policy, now: float) -> None:
        self.policy = policy
        self.workers: dict[int, Worker] = {}
        self.lost_workers: dict[int, str] = {}
        self.phase = Phase.RUNNING
        self.reason = ""
        self._items_of = items_of
        self._states = bytearray(mini_batches)
        self._end = mini_batches if policy.limit is None else min(policy.limit, mini_batches)
        self._cursor = 0  # no PENDING mini-batch below it
        self._left = self._end  # mini-batches below _end that are neither DONE nor FAILED
        self._retries: deque[tuple[int, int]] = deque()  # mini-batch, the worker to avoid
        self._attempts: dict[int, int] = {}  # failed tries so far, where there are any
        self._losses: dict[int, int] = {}  # how often its worker was lost
        self._done = self._failed = self._items_done = self._items_failed = self._retried = 0
        self._moved = now  # when a mini-batch was last done or failed
        self._ever_ready = False

    # What is known from earlier starts

    def restore_done(self, number: int, items: int, returned: int) -> None:
        """This mini-batch is done already: so many items, and so many that succeeded."""
        self._settle(number, DONE)
        short = max(0, items - returned)
        self._items_done += items - short
        self._items_failed += short

    def restore_failed(self, number: int) -> None:
        """This mini-batch has failed already."""
        self._settle(number, FAILED)
        self._items_failed += self._items_of(number)

    def restore_attempts(self, number: int, attempts: int) -> None:
        """So many tries of this mini-batch have failed already."""
        self._attempts[number] = attempts

    def _settle(self, number: int, state: int) -> None:
        self._states[number] = state
        self._done += state == DONE
        self._failed += state == FAILED
        if number < self._end:
            self._left -= 1

    # Workers

    def add_worker(self, worker: int, processes: int, node: str, now: float) -> None:
        """A worker has reported; its user processes are being started."""
        self.workers[worker] = Worker(processes, node, now)

    def process_ready(self, worker: int, process: int) -> None:
        """``init()`` is done in this user process (the first one, or a replacement)."""
        if worker in self.workers:
            self._ever_ready = True
            self.workers[worker].ready.add(process)
            self.workers[worker].init_failures.pop(process, None)

    def process_gone(self, worker: int, process: int) -> None:
        """This user process has ended; a replacement is on its way."""
        if worker in self.workers:
            self.workers[worker].ready.discard(process)

    def init_failed(self, worker: int, process: int) -> bool:
        """A user process could not be started. Whether the worker should try again.

        A process is given up after ``init_tries`` failures in a row. If none has ever come up and every one has failed
        at least twice, ``init()`` fails everywhere: the job is aborted without waiting for the rest.
        """
        if worker not in self.workers:
            return False
        known = self.workers[worker]
        known.ready.discard(process)
        known.init_failures[process] = failures = known.init_failures.get(process, 0) + 1
        if failures >= self.policy.init_tries:
            known.given_up.add(process)
        if not self._ever_ready and all(self._failing_everywhere(other) for other in self.workers.values()):
            self._abort(f"init() failed in all {sum(w.processes for w in self.workers.values())} user processes")
        elif all(len(other.given_up) == other.processes for other in self.workers.values()):
            self._abort("no user process is left: init() failed again and again in each of them")
        return process not in known.given_up and self.phase is Phase.RUNNING

    @staticmethod
    def _failing_everywhere(worker: Worker) -> bool:
        return len(worker.init_failures) == worker.processes and min(worker.init_failures.values()) >= 2

    def heard_from(self, worker: int, now: float) -> None:
        """A sign of life."""
        if worker in self.workers:
            self.workers[worker].heard = now

    def worker_lost(self, worker: int, why: str) -> list[int]:
        """A worker is dead or silent: its mini-batches go back. Returns those that have failed for good by that.

        It is not known which of them killed it, if any did; so a loss is no attempt, but a mini-batch that has lost
        ``run_max_try`` workers is failed.
        """
        known = self.workers.pop(worker, None)
        if known is None:
            return []
        self.lost_workers[worker] = why
        failed = []
        for number in known.held:
            self._losses[number] = losses = self._losses.get(number, 0) + 1
            if losses >= self.policy.run_max_try:
                self._fail(number)
                failed.append(number)
            else:
                self._states[number] = RETRY
                self._retries.append((number, worker))
        self._check_thresholds()
        self._check_end()
        if not self.workers and self.phase in (Phase.RUNNING, Phase.DRAINING):
            self.phase, self.reason = Phase.STRANDED, f"no worker is left (the last one: {why})"
        return failed

    # Handing out

    def assign(self, worker: int) -> list[Range]:
        """What this worker should get now, on top of what it holds. Call it after anything has changed.

        It gets work for :attr:`Policy.window` seconds, by the measured duration of ``run()``, and at least one
        mini-batch ahead of each process; near the end less, so that no worker sits on what another could start at once.
        """
        known = self.workers.get(worker)
        if self.phase is not Phase.RUNNING or known is None or not known.ready:
            return []
        room = self._target(known) - len(known.held)
        if room <= 0 or (room < len(known.held) // 3):  # wait until a message is worth it
            return []
        ranges = self._take_retries(worker, known, room)
        room -= len(ranges)
        while room > 0:
            found = self._take_pending(known, room)
            if found is None:
                break
            ranges.append(found)
            room -= found[1]
        return ranges

    def _target(self, worker: Worker) -> int:
        processes = len(worker.ready)
        if not worker.mean_run:
            waiting = 1
        else:
            waiting = min(self.policy.most_waiting, max(1, math.ceil(self.policy.window / worker.mean_run)))
        all_processes = sum(len(other.ready) for other in self.workers.values())
        unassigned = self._left - sum(len(other.held) for other in self.workers.values())
        fair = max(0, unassigned) // (2 * all_processes)  # per process, half of what would be its share of the rest
        return processes * (1 + min(waiting, fair))

    def _take_retries(self, worker: int, known: Worker, room: int) -> list[Range]:
        """Retries that this worker may take: those of other workers, or its own when no other one could."""
        ranges: list[Range] = []
        for _ in range(min(len(self._retries), 64)):
            if len(ranges) >= room:
                break
            number, avoid = self._retries.popleft()
            alone = all(other == worker or not others.ready for other, others in self.workers.items())
            if avoid == worker and not alone and self._someone_else_is_free(worker):
                self._retries.append((number, avoid))
                continue
            ranges.append(self._hold(known, number, 1))
        return ranges

    def _someone_else_is_free(self, worker: int) -> bool:
        return any(w != worker and len(other.held) < 2 * len(other.ready) for w, other in self.workers.items())

    def _take_pending(self, known: Worker, room: int) -> Range | None:
        """The next mini-batches that nobody has tried in this start, as one range of equal attempts."""
        first = self._states.find(PENDING, self._cursor, self._end)
        if first < 0:
            self._cursor = self._end
            return None
        attempt = self._attempts.get(first, 0)
        last = first + 1
        most = min(first + room, self._end)
        while last < most and self._states[last] == PENDING and self._attempts.get(last, 0) == attempt:
            last += 1
        self._cursor = last
        return self._hold(known, first, last - first)

    def _hold(self, known: Worker, first: int, count: int) -> Range:
        attempt = self._attempts.get(first, 0) + 1
        self._states[first : first + count] = bytes((HELD,)) * count
        known.held.update(dict.fromkeys(range(first, first + count), attempt))
        return first, count, attempt

    # Answers

    def finished(self, worker: int, records: memoryview | bytes, now: float) -> list[bool] | None:
        """Take the records of finished mini-batches. About 1 µs a mini-batch.

        Returns:
            ``None`` when all are accepted; else, for each record, whether it is.
        """
        known = self.workers.get(worker)
        held = known.held if known is not None else {}
        states = self._states
        accepted: list[bool] = []
        settled = done_items = short = 0
        seconds = 0.0
        for number, items, returned, attempt, _process, _length, _started, run, _overhead in RECORD.iter_unpack(
            records
        ):
            if held.get(number) != attempt:
                accepted.append(False)
                continue
            del held[number]
            states[number] = DONE
            accepted.append(True)
            settled += 1
            seconds += run
            if returned < items:
                short += items - returned
            done_items += items
        if not settled:
            return accepted
        assert known is not None
        self._left -= settled
        self._done += settled
        self._items_done += done_items - short
        self._items_failed += short
        self._moved = now
        mean = seconds / settled
        known.mean_run = mean if not known.mean_run else 0.7 * known.mean_run + 0.3 * mean
        if short:
            self._check_thresholds()
        self._check_end()
        return None if settled == len(accepted) else accepted

    def attempt_failed(self, worker: int, number: int, attempt: int, now: float) -> Verdict:
        """An attempt has failed: try again elsewhere, or give the mini-batch up."""
        known = self.workers.get(worker)
        if known is None or known.held.get(number) != attempt:
            return Verdict.STALE
        del known.held[number]
        self._moved = now
        self._attempts[number] = attempt
        if attempt >= self.policy.run_max_try:
            self._fail(number)
            self._check_thresholds()
            self._check_end()
            return Verdict.FAILED
        self._retried += 1
        self._states[number] = RETRY
        self._retries.append((number, worker))
        self._check_end()
        return Verdict.RETRY

    def given_back(self, worker: int, ranges: Iterable[Range]) -> None:
        """A draining worker has not started these."""
        known = self.workers.get(worker)
        for first, count, _attempt in ranges:
            for number in range(first, first + count):
                if known is not None and known.held.pop(number, None) is not None:
                    self._states[number] = PENDING
                    self._cursor = min(self._cursor, number)
        self._check_end()

    def _fail(self, number: int) -> None:
        self._states[number] = FAILED
        self._failed += 1
        self._left -= 1
        self._items_failed += self._items_of(number)

    # The whole

    def tick(self, now: float) -> list[tuple[int, str]]:
        """Look at the clock: returns workers that have been silent for too long (then call :meth:`worker_lost`)."""
        policy = self.policy
        quiet = [
            (worker, f"no sign of life for {now - known.heard:.0f} s")
            for worker, known in self.workers.items()
            if now - known.heard > policy.heartbeat_timeout
        ]
        limit = policy.progress_update_timeout
        if limit is not None and self.phase is Phase.RUNNING and now - self._moved > limit:
            self.phase = Phase.STRANDED
            self.reason = f"no mini-batch has finished for {limit:g} s (progress_update_timeout)"
        return quiet

    def drain(self, reason: str) -> None:
        """Hand out nothing more; the job ends when nothing is held any more."""
        if self.phase is Phase.RUNNING:
            self.phase, self.reason = Phase.DRAINING, reason
            self._check_end()

    def stop(self, reason: str) -> None:
        """End at once, whatever is running; what is not on record will be done again by the next start."""
        if self.phase in (Phase.RUNNING, Phase.DRAINING):
            self.phase, self.reason = Phase.STOPPED, reason

    def check(self) -> None:
        """Decide whether the job is over already; call it once everything is restored."""
        self._check_thresholds()
        self._check_end()

    def counts(self) -> Counts:
        """The totals."""
        return Counts(len(self._states), self._done, self._failed, self._items_done, self._items_failed, self._retried)

    @property
    def has_retries(self) -> bool:
        """Whether a mini-batch waits to be tried again."""
        return bool(self._retries)

    @property
    def held(self) -> int:
        """Mini-batches that are at a worker now."""
        return sum(len(worker.held) for worker in self.workers.values())

    @property
    def left(self) -> int:
        """Mini-batches, up to the limit, that are neither done nor failed."""
        return self._left

    def _check_end(self) -> None:
        if self.phase not in (Phase.RUNNING, Phase.DRAINING):
            return
        if not self._left:
            self.phase, self.reason = Phase.COMPLETE, ""
        elif self.phase is Phase.DRAINING and not self.held:
            self.phase = Phase.DRAINED

    def _check_thresholds(self) -> None:
        policy = self.policy
        if 0 <= policy.error_threshold < self._items_failed:
            self._abort(
                f"{self._items_failed} items failed, more than error_threshold allows ({policy.error_threshold})"
            )
        count = policy.allowed_failed_count
        if count is not None and 0 <= count < self._failed:
            self._abort(f"{self._failed} mini-batches failed, more than allowed_failed_count allows ({count})")
        percent = policy.allowed_failed_percent
        if percent is not None and 100.0 * self._failed > percent * len(self._states):
            share = 100.0 * self._failed / len(self._states)
            self._abort(f"{share:.3g} % of the mini-batches failed, more than allowed_failed_percent ({percent:g})")

    def _abort(self, reason: str) -> None:
        if self.phase in (Phase.RUNNING, Phase.DRAINING):
            self.phase, self.reason = Phase.ABORTED, reason

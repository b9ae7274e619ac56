"""Who does what next, and when a job is over: every decision of the master, and nothing else.

The scheduler does no MPI, touches no file and has no clock: time is an argument. It is told what has happened, and
answers with what is to be done (:mod:`mpi_prs.engine.scheduler.events`); the MPI master, the in-process run and the
tests drive the same object. A mini-batch goes this way::

    PENDING ──Assign──► HELD (by one worker) ──finished()──► DONE
                         ▲  │
              Assign ────┘  ├──── AttemptFailed or WorkerLost ──► Retry, Excuse: RETRY
                            ├──── no tries left ───────────────► Fail: FAILED
                            └──── the same, bisect_on_failure ─► Halve: IN_PARTS ──► DONE, when no part is left

    part ──Assign──► held ──┬── finished()
                            ├── AttemptFailed ──► Halve: two parts more; FailItems: it has one item
                            └── WorkerLost ─────► the same part again, or FailItems

Who is asked whether there is work for it is decided here as well. An event makes its worker one *to ask*; a worker that
could run more than it got is *idle*. At ``HandOut`` those to ask come first, then the idle ones, until they get nothing
more: what was handed to one may be what another had to wait for. So nobody is forgotten, and while there is plenty of
work nobody is looked at who has said nothing.

What fails on one node is tried again on another: :mod:`mpi_prs.engine.scheduler.health` tells sick nodes from bad
data, and says which nodes a retry should go to.

States live in one byte a mini-batch (10 million mini-batches: 10 MB). What a worker holds is a small dictionary, so an
answer is accepted only from the worker that holds the mini-batch, for the attempt it was given: whatever comes late or
twice is dropped here. Sums over all workers are kept up to date, so no decision costs more with ten thousand of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from mpi_prs.core.units import many_are
from mpi_prs.engine.scheduler.affinity import Affinity
from mpi_prs.engine.scheduler.bisection import Bisection
from mpi_prs.engine.scheduler.copies import Copies
from mpi_prs.engine.scheduler.events import (
    Assign,
    AttemptFailed,
    Command,
    DrainAsked,
    EndAttempt,
    Event,
    Excuse,
    Fail,
    FailItems,
    GivenBack,
    GiveUp,
    Halve,
    HandOut,
    InitFailed,
    ItemsFailed,
    Lose,
    ProcessGone,
    ProcessReady,
    ProcessStopped,
    Range,
    Restart,
    Retry,
    StopAsked,
    Tick,
    WorkerHeard,
    WorkerJoined,
    WorkerLost,
)
from mpi_prs.engine.scheduler.health import Nodes
from mpi_prs.engine.scheduler.retries import Retries
from mpi_prs.engine.scheduler.states import (
    DONE,
    FAILED,
    HELD,
    IN_PARTS,
    PENDING,
    RETRY,
    Counts,
    JobPhase,
    Node,
    Policy,
    WorkerState,
)
from mpi_prs.wire.failure import FULL_DISKS, NO_RETRY, Failure, FailureKind
from mpi_prs.wire.parts import FIRST_PART, WAYS, copy_of, is_copy, is_part, mini_batch_of
from mpi_prs.wire.record import RECORD


class Scheduler:
    """The state of a job.

    Args:
        mini_batches: how many there are.
        items_of: the number of items of a mini-batch.
        policy: see :class:`Policy`.
        now: seconds, from any clock that only goes forward; all other ``now`` are from the same.
        stop_of_stay: the mini-batch before which those end that should stay at one worker with the given one, because
            they share what is decoded for them; ``None``: each stands for itself.
        items: how many all mini-batches have together; only a threshold that is a percentage of items asks for it.
    """

    def __init__(
        self,
        mini_batches: int,
        items_of: Callable[[int], int],
        policy: Policy,
        now: float,
        stop_of_stay: Callable[[int], int] | None = None,
        items: int = 0,
    ) -> None:
        self.policy = policy
        self._commands: list[Command] = []  # since the last event
        self._to_ask: set[int] = set()  # workers that may have room: something has changed about them
        self._idle: set[int] = set()  # workers that could run more than they got when last asked
        self._changed = False  # whether an idle one may get something now
        self.nodes = Nodes(self._commands)
        self.workers: dict[int, WorkerState] = {}
        self.lost_workers: dict[int, str] = {}
        self.phase = JobPhase.RUNNING
        self.reason = ""
        self._items_of = items_of
        self._items = items
        self._items_given_up = 0  # those of failed mini-batches, and those that failed alone
        self._states = bytearray(mini_batches)
        self._end = mini_batches if policy.limit is None else min(policy.limit, mini_batches)
        self._cursor = 0  # no PENDING mini-batch below it
        self._affinity = None if stop_of_stay is None else Affinity(stop_of_stay, self._states, self._end)
        self._left = self._end  # mini-batches below _end that are neither DONE nor FAILED
        self._held = 0  # mini-batches that are at a worker
        self._retries = Retries(self.nodes)
        self._attempts: dict[int, int] = {}  # failed tries so far, where there are any
        self._losses: dict[int, int] = {}  # how often its worker was lost
        self._copies = Copies() if policy.speculative_copies else None
        self._bisection = Bisection()
        self._done = self._failed = self._items_done = self._items_failed = self._items_alone = self._retried = 0
        self._moved = now  # when a mini-batch was last done or failed
        self._mean_seconds = 0.0  # as Worker.mean_seconds, over all workers
        self._ever_ready = False
        # User processes of all workers: all, with init() behind them, given up; and, until the first one comes up,
        # those that have failed to start twice.
        self._processes = self._ready = self._given_up = self._failing = 0

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take what has happened; returns what is to be done, in this order."""
        match event:
            case HandOut():
                self._hand_out(event.only, now)
            case WorkerHeard():
                if event.worker in self.workers:
                    self.workers[event.worker].heard = now
            case Tick():
                self._tick(now)
            case WorkerLost():
                self._lose(event.worker, event.why)
            case DrainAsked():
                if self.phase is JobPhase.RUNNING:
                    self.phase, self.reason = JobPhase.DRAINING, event.reason
                    self._check_end()
            case StopAsked():
                if self.phase in (JobPhase.RUNNING, JobPhase.DRAINING):
                    self.phase, self.reason = JobPhase.STOPPED, event.reason
            case WorkerJoined():
                self.workers[event.worker] = WorkerState(
                    event.processes, self.nodes.joined(event.node, event.processes), now
                )
                self._processes += event.processes
                self._changed = True
            case _:
                known = self.workers.get(event.worker)
                if known is not None:
                    known.heard = now
                    self._to_ask.add(event.worker)
                    self._changed = True
                    self._handle_worker(event, known, now)
        commands = self._commands[:]
        self._commands.clear()
        return commands

    def _handle_worker(
        self,
        event: ProcessReady | ProcessGone | ProcessStopped | InitFailed | AttemptFailed | ItemsFailed | GivenBack,
        known: WorkerState,
        now: float,
    ) -> None:
        match event:
            case AttemptFailed():
                self._attempt_failed(event.worker, known, event.failure, now)
            case ItemsFailed():
                if known.held.get(event.mini_batch) == event.attempt:
                    known.items_failed[event.mini_batch] = event.items
            case ProcessReady():
                known.at_once = event.at_once
                self._process_ready(known, event.process)
            case ProcessGone():
                self._not_ready(known, event.process)
                known.init_failures.pop(event.process, None)
            case ProcessStopped():
                self._process_stopped(known, event.process)
            case InitFailed():
                if event.failure is not None:
                    self._heed_full_disk(known, event.failure)
                self._init_failed(event.worker, known, event.process)
            case GivenBack():
                for first, count, attempt in event.ranges:
                    self._take_back(known, [n for n in range(first, first + count) if known.held.get(n) == attempt])
                self._check_end()

    # What is known from earlier starts

    def restore_done(self, mini_batches: Iterable[int], items: int, short: int) -> None:
        """These are done already: so many items in all, and so many of them had no row."""
        for number in mini_batches:
            self._settle(number, DONE)
        self._items_done += items - short
        self._items_failed += short

    def restore_failed(self, number: int) -> None:
        """This mini-batch has failed already."""
        self._settle(number, FAILED)

    def restore_failed_items(self, items: int) -> None:
        """So many items have failed each for itself."""
        self._fail_alone(items)

    def restore_parts(self, number: int, items: int, parts: Iterable[int]) -> None:
        """Of this mini-batch, which has so many items, these parts are left to do."""
        if self._states[number] >= IN_PARTS:
            return
        self._states[number] = IN_PARTS
        if number < self._end:
            nobody = WorkerState(0, Node(""), 0.0)
            for part in self._bisection.restore(number, items, parts):
                self._retries.add(part, nobody, last=self._bisection.is_of_one(part))

    def restore_attempts(self, number: int, attempts: int) -> None:
        """So many tries of this mini-batch have failed already; one more is always left."""
        self._attempts[number] = min(attempts, self.policy.run_max_try - 1)

    def _settle(self, number: int, state: int) -> None:
        """Done or failed, for good: what is settled once stays as it is."""
        if self._states[number] < DONE:
            self._states[number] = state
            self._left -= number < self._end
            if state == DONE:
                self._done += 1
            else:
                self._failed += 1
                self._items_failed += self._items_of(number)
                self._items_given_up += self._items_of(number)
                self.nodes.is_given_up(number)

    # Workers

    def _process_ready(self, known: WorkerState, process: int) -> None:
        if process in known.ready:
            return
        self._ever_ready = True
        known.ready.add(process)
        self._ready += 1
        self.nodes.ready(known.node, 1)

    def _process_stopped(self, known: WorkerState, process: int) -> None:
        if process in known.given_up:
            return
        self._not_ready(known, process)
        known.stopped += 1
        self.nodes.stopped(known.node)
        self._give_up(known, process)
        self._check_end()
        self._check_workers()

    def _give_up(self, known: WorkerState, process: int) -> None:
        known.given_up.add(process)
        self._given_up += 1
        if len(known.given_up) == known.processes:  # what waits there would wait for ever
            self._take_back(known, list(known.held))

    def _not_ready(self, known: WorkerState, process: int) -> None:
        if process in known.ready:
            known.ready.remove(process)
            self._ready -= 1
            self.nodes.ready(known.node, -1)

    def _init_failed(self, worker: int, known: WorkerState, process: int) -> None:
        """A process is given up after ``init_tries`` failures in a row.

        If none has ever come up and every one has failed at least twice, ``init()`` fails everywhere: the job is
        aborted without waiting for the rest.
        """
        self._not_ready(known, process)
        known.init_failures[process] = failures = known.init_failures.get(process, 0) + 1
        self._failing += failures == 2
        if failures == self.policy.init_tries:
            self.nodes.given_up(known.node)
            self._give_up(known, process)
        self._check_end()
        self._check_workers()
        again = process not in known.given_up and self.phase is JobPhase.RUNNING
        self._commands.append(Restart(worker, process) if again else GiveUp(worker, process))

    def _lose(self, worker: int, why: str) -> None:
        """A worker is dead or silent: its mini-batches go back.

        It is not known which of them killed it, if any did; so a loss is no attempt, but a mini-batch that has lost
        :attr:`Policy.most_losses` workers is failed.
        """
        known = self.workers.pop(worker, None)
        if known is None:
            return
        self.lost_workers[worker] = why
        self._commands.append(Lose(worker, why))
        self._to_ask.discard(worker)
        self._idle.discard(worker)
        self._changed = True
        if self._affinity is not None:
            self._affinity.forget(worker)
        self._processes -= known.processes
        self._ready -= len(known.ready)
        self._failing -= sum(failures >= 2 for failures in known.init_failures.values())
        self._given_up -= len(known.given_up)
        lost = [number for number in known.held if not self._another_goes_on(number)]
        self._held -= len(lost)
        self.nodes.left(known.node, known.processes - len(known.given_up), len(known.ready))
        most = self.policy.most_losses
        for number in map(_without_copy, lost):
            self._losses[number] = losses = self._losses.get(number, 0) + 1
            if losses >= most:
                message = f"its workers were lost {most} times"
                failure = Failure(FailureKind.WORKER_LOST, message, mini_batch=number, node=known.node.name)
                self._fail(worker, failure)
            else:
                self._try_again(number, known)
        self.check()
        self._check_workers()

    def _check_workers(self) -> None:
        """Is there anybody left to do the work?"""
        if not self.workers and self.phase is JobPhase.RUNNING:
            why = next(reversed(self.lost_workers.values()))
            self.phase, self.reason = JobPhase.STRANDED, f"no worker is left (the last one: {why})"
        elif not self._ever_ready and self._failing == self._processes:
            self._abort(f"init() failed in all {self._processes} user processes")
        elif self._given_up == self._processes:
            self._abort(f"no user process is left: {self._why_none_is_left()}")

    def _why_none_is_left(self) -> str:
        stopped = sum(known.stopped for known in self.workers.values())
        if not stopped:
            return "init() failed again and again in each of them"
        others = "; in the others init() failed again and again" if stopped < self._processes else ""
        left = f"{many_are(self._left, 'mini-batch')} left, and the same command goes on with them"
        return f"the script has stopped {stopped} of {self._processes} (ParallelRunException){others}. {left}"

    # Handing out

    def _hand_out(self, only: int | None, now: float) -> None:
        """To those about whom something has changed, then to the idle ones."""
        if only is not None:
            self._assign(only, now)
            return
        asked, self._to_ask = self._to_ask, set()
        for worker in asked:
            self._assign(worker, now)
        if not self._changed:
            return
        self._changed = False
        held = -1
        while self._idle and self._to_do > self._held != held and self.phase is JobPhase.RUNNING:
            held = self._held
            for worker in tuple(self._idle):
                self._assign(worker, now)
        if self._copies is not None and self._to_do == self._held and self.phase is JobPhase.RUNNING:
            self._hand_out_copies(self._copies, now)

    def _hand_out_copies(self, copies: Copies, now: float) -> None:
        """Nothing waits any more, no retries either: who is idle gets a copy of what runs for too long."""
        takers = [
            (worker, known)
            for worker in self._idle
            if (known := self.workers[worker]) and known.can_take and not copies.is_slow(known)
        ]
        for _since, original, number in copies.longest(self.workers, now):
            if not takers:
                return
            worker, known = takers[-1]
            copies.begin(number, original, worker)
            known.held[copy_of(number)] = attempt = self.workers[original].held[number]
            self._commands.append(Assign(worker, [(copy_of(number), 1, attempt)]))
            copies.note(known, now)
            if not known.can_take:
                takers.pop()

    def _another_goes_on(self, number: int) -> bool:
        """Whether there is another attempt of this mini-batch, beside one that has ended without being done."""
        return self._copies is not None and self._copies.drop(number)

    def _win(self, number: int, now: float) -> int:
        """One of two attempts was done: the other one is ended. Returns the mini-batch."""
        assert self._copies is not None
        pair = self._copies.pairs.pop(mini_batch_of(number))
        mini_batch = _without_copy(number)
        loser, other = (pair.original, mini_batch) if is_copy(number) else (pair.copy, copy_of(mini_batch))
        if loser is not None:
            known = self.workers[loser]
            attempt = known.held.pop(other)
            known.items_failed.pop(other, None)
            self._commands.append(EndAttempt(loser, other, attempt, now - known.running.pop(other, now)))
            self._to_ask.add(loser)
        return mini_batch

    def _assign(self, worker: int, now: float) -> None:
        known = self.workers.get(worker)
        if known is None or self.phase is not JobPhase.RUNNING:
            return
        ranges = self._work_for(worker, known)
        if ranges:
            self._commands.append(Assign(worker, ranges))
        if self._copies is not None:
            self._copies.note(known, now)
        if len(known.held) < len(known.ready) * known.at_once:
            self._idle.add(worker)
        else:
            self._idle.discard(worker)

    def _work_for(self, worker: int, known: WorkerState) -> list[Range]:
        """What this worker should get now, on top of what it holds.

        It gets work for :attr:`Policy.window` seconds, by the measured duration of its mini-batches, and at least
        :attr:`Policy.least_waiting` of them ahead of each process; near the end less, so that no worker sits on what
        another could start at once.
        """
        if not known.ready or known.node.benched:
            return []
        processes, ahead = len(known.ready) * known.at_once, self._ahead(known)
        room = processes * (1 + ahead) - len(known.held)
        if room <= 0 or room < processes * (ahead - 1) // 3:  # so much waits there still: no message is worth it yet
            return []
        if known.node.suspicions and (most := self.nodes.room(known.node)) is not None:
            room = min(room, most - len(known.held))
        ranges: list[Range] = []
        while room > 0 and (number := self._retries.take(known)) is not None:
            ranges.append(self._hold_again(known, number))
            room -= 1
        while room > 0:
            found = self._take_pending(worker, known, room)
            if found is None:
                break
            ranges.append(found)
            room -= found[1]
        while room > 0 and len(known.held) < processes:
            number = self._retries.take_rather_than_idle(known, self.workers.values(), all_idle=not self._held)
            if number is None:
                break
            ranges.append(self._hold_again(known, number))
            room -= 1
        return ranges

    def _ahead(self, known: WorkerState) -> int:
        """Mini-batches that each process of this worker may have waiting behind the one it runs."""
        # for each that a process runs, half of what is still to be handed out
        share = (self._to_do - self._held) / (2 * self._ready * known.at_once)
        mean = known.mean_seconds
        if not mean:
            return int(min(self.policy.first_waiting, share))
        share *= min(1.0, self._mean_seconds / mean)  # a slow worker would be the last to be ready with it
        wanted = math.ceil(min(self.policy.window / mean, self.policy.most_waiting))
        return int(min(share, max(self.policy.least_waiting, wanted)))

    def _try_again(self, number: int, origin: WorkerState) -> None:
        if not is_part(number):
            self._states[number] = RETRY
        if self._losses.get(number) == self.policy.most_losses - 1:
            self._retries.add_last_chance(number)
        else:
            self._retries.add(number, origin, last=self._next_attempt(number) >= self.policy.last_try)

    def _next_attempt(self, number: int) -> int:
        if not is_part(number):
            return self._attempts.get(number, 0) + 1
        return self.policy.run_max_try + self._bisection.is_of_one(number)

    def _take_pending(self, worker: int, known: WorkerState, room: int) -> Range | None:
        """The next mini-batches that nobody has started, as one range of equal attempts."""
        start, stop = (self._cursor, self._end) if self._affinity is None else self._affinity.of(worker)
        first = self._states.find(PENDING, start, stop)
        if first < 0:
            self._cursor = self._end
            return None
        attempt = self._attempts.get(first, 0)
        last = first + 1
        most = min(first + room, stop)
        while last < most and self._states[last] == PENDING and self._attempts.get(last, 0) == attempt:
            last += 1
        if self._affinity is None:
            self._cursor = last
        return self._hold(known, first, last - first)

    def _hold(self, known: WorkerState, first: int, count: int) -> Range:
        attempt = self._attempts.get(first, 0) + 1
        self._states[first : first + count] = bytes((HELD,)) * count
        known.held.update(dict.fromkeys(range(first, first + count), attempt))
        self._held += count
        return first, count, attempt

    def _hold_again(self, known: WorkerState, number: int) -> Range:
        """One that waits for another try, or a part."""
        if not is_part(number):
            return self._hold(known, number, 1)
        known.held[number] = attempt = self._next_attempt(number)
        self._held += 1
        return number, 1, attempt

    def _take_back(self, known: WorkerState, numbers: Iterable[int]) -> None:
        """Nobody has started these."""
        for number in numbers:
            del known.held[number]
            known.items_failed.pop(number, None)
            if self._another_goes_on(number):
                continue
            number = _without_copy(number)
            self._held -= 1
            if is_part(number):
                self._try_again(number, known)
                continue
            self._states[number] = PENDING
            self._cursor = min(self._cursor, number)
            if self._affinity is not None:
                self._affinity.given_back(number)

    # Answers

    def finished(self, worker: int, records: memoryview | bytes, now: float) -> list[bool] | None:
        """Take the records of finished mini-batches, all of a message at once. About 1 µs a mini-batch.

        What else follows from them, the next :meth:`handle` returns.

        Returns:
            ``None`` when all are accepted; else, for each record, whether it is.
        """
        known = self.workers.get(worker)
        held: dict[int, int] = {}
        if known is not None:
            held, known.heard = known.held, now
            self._to_ask.add(worker)
            self._changed = True
        states, failed, in_parts = self._states, self.nodes.failed, self._bisection.in_parts
        items_failed = known.items_failed if known is not None else {}
        pairs = self._copies.pairs if self._copies is not None else {}
        is_special = bool(items_failed or pairs or in_parts)
        accepted: list[bool] = []
        settled = parts = done_items = short = alone = 0
        seconds = 0.0
        for fields in RECORD.iter_unpack(records):
            number, items, returned, attempt, _process, _length, _started, run, overhead = fields
            if held.get(number) != attempt:
                accepted.append(False)
                continue
            del held[number]
            if is_special:
                alone += items_failed.pop(number, 0)
                if number % WAYS in pairs:
                    number = self._win(number, now)
                if number >= FIRST_PART:
                    parts += 1
                    accepted.append(True)
                    short += max(0, items - returned)
                    done_items += items
                    self._part_is_settled(number)
                    continue
            states[number] = DONE
            if failed and number in failed:
                assert known is not None
                self.nodes.is_done(number, known.node)
            accepted.append(True)
            settled += 1
            seconds += run + overhead
            if returned < items:
                short += items - returned
            done_items += items
        if not settled and not parts:
            return accepted or None
        assert known is not None
        if known.node.trust:
            self.nodes.succeeded(known.node)
        self._held -= settled + parts
        self._left -= settled
        self._done += settled
        self._items_done += done_items - short
        self._items_failed += short
        if alone:
            self._fail_alone(alone)
        self._moved = now
        if self._copies is not None:
            self._copies.learn(records)
        if 0 < seconds < math.inf:
            known.mean_seconds = _moving_mean(known.mean_seconds, seconds, settled, known.processes)
            self._mean_seconds = _moving_mean(self._mean_seconds, seconds, settled, self._processes)
        self.check()
        return None if settled + parts == len(accepted) else accepted

    def _attempt_failed(self, worker: int, known: WorkerState, failure: Failure, now: float) -> None:
        """Try again elsewhere, or give it up. On a benched node, or for a full disk, it costs no try."""
        number, attempt = failure.mini_batch, failure.attempt
        if known.held.get(number) != attempt:
            return
        del known.held[number]
        known.items_failed.pop(number, None)
        self._moved = now
        self._heed_full_disk(known, failure)
        if self._another_goes_on(number):
            self._commands.append(Excuse(worker, failure, "another attempt goes on"))
            self.check()
            return
        if is_copy(number):
            number = _without_copy(number)
            failure = replace(failure, mini_batch=number)
        self._held -= 1
        if known.node.benched or failure.kind in FULL_DISKS:
            self._commands.append(Excuse(worker, failure))
            self._try_again(number, known)
        elif is_part(number):
            if self._bisection.is_of_one(number):
                self._fail(worker, failure)
            else:
                self._halve(worker, known, failure)
        else:
            self._attempts[number] = attempt
            self.nodes.has_failed(number, known.node)
            can_be_halved = self.policy.bisect_on_failure and failure.items > 1
            is_too_large = can_be_halved and failure.out_of_memory  # the same again would fail again
            if failure.code != NO_RETRY and attempt < self.policy.run_max_try and not is_too_large:
                self._commands.append(Retry(worker, failure))
                self._retried += 1
                self._try_again(number, known)
            elif can_be_halved:
                self._halve(worker, known, failure)
            else:
                self._fail(worker, failure)
        self.check()

    def _fail(self, worker: int, failure: Failure) -> None:
        """For good: a mini-batch, or all items of a part."""
        number = failure.mini_batch
        if not is_part(number):
            self._commands.append(Fail(worker, failure))
            self._settle(number, FAILED)
            return
        start, stop = self._bisection.bounds(number)
        self._commands.append(FailItems(worker, failure, start, stop, self._bisection.items_in_all(number)))
        self._fail_alone(stop - start)
        self._part_is_settled(number)

    def _fail_alone(self, items: int) -> None:
        self._items_failed += items
        self._items_alone += items
        self._items_given_up += items

    def _halve(self, worker: int, known: WorkerState, failure: Failure) -> None:
        """A mini-batch or part of more than one item has failed: its halves are tried, elsewhere if possible."""
        number = failure.mini_batch
        if not is_part(number):
            self._states[number] = IN_PARTS
            self.nodes.is_given_up(number)  # how its parts fare says nothing of where it has failed
            self._losses.pop(number, None)
        parts = self._bisection.halve(number, failure.items)
        self._commands.append(Halve(worker, failure, self._bisection.items_in_all(number)))
        for part in parts:
            self._try_again(part, known)

    def _part_is_settled(self, part: int) -> None:
        """Its items are done or failed, for good. With the last part the mini-batch is done."""
        self._losses.pop(part, None)
        if self._bisection.settle(part):
            self._settle(mini_batch_of(part), DONE)

    def _heed_full_disk(self, known: WorkerState, failure: Failure) -> None:
        """Of the output: nobody can go on. Of a node's scratch: others go on without it, if there are any."""
        if failure.kind not in FULL_DISKS or self.phase not in (JobPhase.RUNNING, JobPhase.DRAINING):
            return
        if failure.kind is FailureKind.OUTPUT_FULL or not self.nodes.bench_full(known.node, failure.message):
            self.phase, self.reason = JobPhase.STOPPED, failure.message  # for the queue would be no help

    # The whole

    def _tick(self, now: float) -> None:
        self._changed |= self._copies is not None  # what runs has become longer
        if not self._ever_ready:  # until then init_timeout watches
            self._moved = now
        limit = self.policy.progress_update_timeout
        if limit is not None and self.phase is JobPhase.RUNNING and now - self._moved > limit:
            self.phase = JobPhase.STRANDED
            self.reason = f"no mini-batch has finished for {limit:g} s (progress_update_timeout)"
        timeout = self.policy.heartbeat_timeout
        for worker, known in list(self.workers.items()):
            if (silence := now - known.heard) > timeout:
                self._lose(worker, f"no sign of life for {silence:.0f} s")

    def check(self) -> None:
        """Decide whether the job is over already; call it once everything is restored."""
        self._check_thresholds()
        self._check_end()

    def counts(self) -> Counts:
        """The totals."""
        items = self._items_done, self._items_failed, self._items_alone
        return Counts(len(self._states), self._done, self._failed, *items, self._retried)

    @property
    def _to_do(self) -> int:
        """Mini-batches that are neither done nor failed, and in place of one that is in parts these."""
        return self._left + self._bisection.parts_more

    def items_in_all(self, part: int) -> int | None:
        """How many items the mini-batch has that this part is of; ``None``: none of its parts is left."""
        found = self._bisection.in_parts.get(mini_batch_of(part))
        return None if found is None else found.items

    @property
    def held(self) -> int:
        """Mini-batches that are at a worker now."""
        return self._held

    @property
    def left(self) -> int:
        """Mini-batches, up to the limit, that are neither done nor failed."""
        return self._left

    def _check_end(self) -> None:
        if self.phase not in (JobPhase.RUNNING, JobPhase.DRAINING):
            return
        if not self._left:
            self.phase, self.reason = JobPhase.COMPLETE, ""
        elif self.phase is JobPhase.DRAINING and not self._held:
            self.phase = JobPhase.DRAINED

    def _check_thresholds(self) -> None:
        policy, items, failed, all_of_them = self.policy, self._items_failed, self._failed, len(self._states)
        what = "mini-batches"
        if policy.bisect_on_failure:  # then it is items that fail
            what, failed, all_of_them = "items", self._items_given_up, max(1, self._items)
        if 0 <= policy.error_threshold < items:
            self._abort(f"{items} items failed, more than error_threshold allows ({policy.error_threshold})")
        count = policy.allowed_failed_count
        if count is not None and 0 <= count < failed:
            self._abort(f"{failed} {what} failed, more than allowed_failed_count allows ({count})")
        percent = policy.allowed_failed_percent
        if percent is not None and 0 <= percent * all_of_them < 100.0 * failed:
            share = 100.0 * failed / all_of_them
            self._abort(f"{share:.3g} % of the {what} failed, more than allowed_failed_percent ({percent:g})")

    def _abort(self, reason: str) -> None:
        if self.phase in (JobPhase.RUNNING, JobPhase.DRAINING):
            self.phase, self.reason = JobPhase.ABORTED, reason


def _without_copy(number: int) -> int:
    """The mini-batch in place of its copy; a part as it is."""
    return mini_batch_of(number) if is_copy(number) else number


def _moving_mean(mean: float, seconds: float, count: int, processes: int) -> float:
    """The mean over about the last 32 mini-batches of each process, after ``count`` more that took ``seconds``.

    So long a memory, because one minute-long mini-batch among hundreds of short ones should not find thirty others
    waiting behind it; yet one of them is enough to be noticed at once.
    """
    keep = (1 - 1 / (32 * processes)) ** count if mean else 0.0
    return keep * mean + (1 - keep) * seconds / count

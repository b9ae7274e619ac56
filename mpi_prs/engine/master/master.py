"""The master: rank 0. It hands out mini-batches, writes the output and the journal, and never runs user code.

One thread, one loop::

    message ──► event ──► scheduler (decides) ──► commands ──► ASSIGN, RESTART, journal, log
        └──RESULTS──► rows, then journal record

It asks for messages without blocking, and sleeps for two milliseconds when there are none: the workers hold enough
work to bridge that.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_FAILED, EXIT_RESUMABLE, JobStopped, LaunchError, OutputError
from mpi_prs.engine.awake import AwakeClock
from mpi_prs.engine.master.node_share import NodeShares
from mpi_prs.engine.master.shutdown import dismiss
from mpi_prs.engine.master.walltime import TimeLimit
from mpi_prs.engine.node import RankResources
from mpi_prs.engine.scheduler.events import (
    Assign,
    AttemptFailed,
    Bench,
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
from mpi_prs.engine.scheduler.states import Counts, JobPhase
from mpi_prs.engine.transport import Transport, Waiter
from mpi_prs.output.append_row import AppendRow
from mpi_prs.output.journal import LostItems
from mpi_prs.wire import messages
from mpi_prs.wire.failure import FULL_DISKS, NO_RETRY, STOP, Failure, FailureKind, name_of, unpack_failures
from mpi_prs.wire.messages import Tag
from mpi_prs.wire.parts import bounds, is_copy, is_part, mini_batch_of, without_copies
from mpi_prs.wire.record import ATTEMPT, MINI_BATCH, RECORD
from mpi_prs.wire.settings import WorkerSettings

_log = logging.getLogger("mpi_prs.master")

_WAIT = 0.002  # between two looks for messages, in seconds; the workers have more work than that in hand
_TICK = 0.1
_MESSAGES_IN_A_ROW = 256
_HELLO_SECONDS = 120.0
_SEES_SECONDS = 60.0
_SAY_SECONDS = 5.0
_REMARKS = {Fail: " (given up)", FailItems: " (given up)", Halve: " (halved)"}
_LAUNCHER_GONE = "the launcher (mpirun, srun) is gone"


class StopRequest(enum.IntEnum):
    """What a signal asks for."""

    NONE = 0
    CLOSE = 1
    """The time limit is near: go on with what still fits."""
    DRAIN = 2
    """Start nothing more; what runs may finish."""
    NOW = 3


@dataclass
class Tally:
    """What this start has seen, for the progress and the summary."""

    started: float
    mini_batches: int = 0
    ready_processes: int = 0
    init_seconds: float = 0.0  # until the first user process was ready
    failures: Counter[str] = field(default_factory=Counter)
    init_failures: list[Failure] = field(default_factory=list)
    lost_workers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ending:
    """How it ended: the phase, the reason in words, and the exit code that goes with it."""

    phase: JobPhase
    reason: str
    exit_code: int


class Master:
    """The master of one start of a run.

    Args:
        transport: rank 0's view.
        scheduler: with everything restored that earlier starts have done.
        output: the open output and journal.
        settings: what the workers need to know; ``share`` is filled in here.
        stop_requested: asked often; what signals have asked for so far.
        on_tick: called about ten times a second, for the progress.
        lead: seconds that are left when :attr:`StopRequest.CLOSE` is asked for.
        clock: seconds, only forward; the scheduler's time is what the master was awake of it.
    """

    def __init__(
        self,
        transport: Transport,
        scheduler: Scheduler,
        output: AppendRow,
        settings: WorkerSettings,
        stop_requested: Callable[[], StopRequest],
        on_tick: Callable[[Master], None],
        lead: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scheduler = scheduler
        self.tally = Tally(clock())
        self._limit_clock = clock  # the time limit counts all of it
        self._clock = AwakeClock(clock)
        self._lost = 0.0  # seconds in which the master could do nothing, as far as it was said
        self.nodes: dict[int, str] = {}  # rank → node
        self.gpus: dict[str, list[str]] = {}  # node → what its GPUs are
        self._transport = transport
        self._output = output
        self._settings = settings
        self._stop_requested = stop_requested
        self._on_tick = on_tick
        self._time_limit = TimeLimit(lead, settings.stop_grace)
        self._waiter = Waiter(transport, _WAIT, patient=True)
        self._ticked = self._beat_at = 0.0
        self._dead: set[int] = set()
        self._put_off: list[tuple[int, int, bytes]] = []  # came while another kind of message was waited for
        self._lost_items: dict[tuple[int, int, int], list[LostItems]] = {}  # rank, mini-batch, attempt: answer follows
        self._shares = NodeShares(settings.processes, settings.gpus_per_process)

    def run(self) -> Ending:
        """The whole start; workers are stopped at the end in any case.

        Raises:
            LaunchError: no worker reported, or one cannot use the run directory or its scratch folder.
            JobStopped: the output cannot be written, no node has room, or no launcher is left; what is on record holds.
        """
        exit_code, graceful = EXIT_FAILED, False  # what an error of our own, a bug, leaves with
        try:
            if self.scheduler.phase is JobPhase.RUNNING:  # else all was decided by earlier starts
                self._gather_workers()
                self._start_workers()
            ending = self._serve()
            exit_code, graceful = ending.exit_code, ending.phase in (JobPhase.COMPLETE, JobPhase.DRAINED)
            return ending
        except (LaunchError, OutputError, JobStopped) as error:
            exit_code = error.exit_code
            raise
        finally:
            dismiss(
                self._transport,
                exit_code,
                grace=min(self._settings.stop_grace, self._time_limit.left_for_shutdown(self._limit_clock()))
                if graceful
                else None,
                dead=self._note_dead(),
                silent=set(self.scheduler.lost_workers),
                interval=self._settings.heartbeat_interval,
                hurried=lambda: self._stop_requested() is StopRequest.NOW,
                clock=self._clock,
            )

    # Beginning: HELLO ─► START ─► SEES ─► GO

    def _gather_workers(self) -> None:
        """Every worker says HELLO; the job begins without those that do not within two minutes."""
        ranks = set(range(1, self._transport.size))
        hellos = self._collect(Tag.HELLO, ranks, _HELLO_SECONDS)
        for rank in sorted(hellos):
            self._enter(rank, hellos[rank])
        missing = ranks - set(hellos)
        if missing and not self._is_to_stop():
            if not hellos:
                raise LaunchError(f"{self._absent(missing)} within {_HELLO_SECONDS:.0f} s")
            _log.warning("%s within %.0f s: going on without them", self._absent(missing), _HELLO_SECONDS)

    def _start_workers(self) -> None:
        """Tell them what to do; when all see the run directory, let them start their user processes."""
        ranks = set(self.nodes)
        for rank in sorted(ranks):
            self._greet(rank)
        for remark in self._shares.remarks():
            _log.warning("%s", remark)
        seen = self._collect(Tag.SEES, ranks, _SEES_SECONDS)
        full = {rank: seen.pop(rank)["problem"] for rank in sorted(seen) if seen[rank]["full"]}
        problems = sorted({fields["problem"] for fields in seen.values() if fields["problem"] is not None})
        if problems:
            raise LaunchError("; ".join(problems[:5]))
        if full and not seen:
            said = sorted({f"node {self._node(rank)}: {problem}" for rank, problem in full.items()})
            raise JobStopped(f"{'; '.join(said[:5])}. Make room, and give the same command again")
        for rank, problem in full.items():
            self._leave_out(rank, problem)
        if not seen and not self._is_to_stop():
            raise LaunchError(f"{self._absent(ranks)} within {_SEES_SECONDS:.0f} s; see the logs of their nodes")
        self._admit(sorted(seen))
        processes = len(seen) * self._settings.processes
        nodes = len(set(self.nodes.values()))
        _log.info("workers: %d, nodes: %d, user processes: %d", len(seen), nodes, processes)

    def _absent(self, ranks: set[int]) -> str:
        dead = ranks & self._dead
        died = f", {len(dead)} of them have died" if dead else ""
        return f"ranks {', '.join(map(str, sorted(ranks)))} have not reported{died}"

    def _collect(self, tag: Tag, ranks: set[int], seconds: float) -> dict[int, dict[str, Any]]:
        """One JSON message of this kind from each of the ranks, as far as they come in time; a stop signal ends it."""
        answers: dict[int, dict[str, Any]] = {}
        waiting = set(ranks)
        say_at = self._clock() + _SAY_SECONDS
        deadline = self._clock() + seconds
        while waiting and (now := self._clock()) < deadline and not self._is_to_stop():
            if now > say_at:
                say_at = deadline
                _log.info("waiting for %d of %d ranks, at most %.0f s", len(waiting), len(ranks), seconds)
            message = self._transport.receive()
            if message is None:
                if self._transport.abandoned():
                    raise JobStopped(f"{_LAUNCHER_GONE} before the first mini-batch; the same command starts again")
                waiting -= self._note_dead()
                self._waiter.wait(0.05)
            elif message[1] == tag:
                waiting.discard(message[0])
                answers[message[0]] = messages.unpack_json(message[2])
            else:
                self._put_off.append(message)
        return {rank: fields for rank, fields in answers.items() if rank not in self._dead}

    def _enter(self, rank: int, fields: dict[str, Any]) -> None:
        self.nodes[rank] = fields["node"]
        resources = RankResources.from_fields(fields["resources"])
        if resources.gpu_models:
            self.gpus[fields["node"]] = list(resources.gpu_models)
        self._shares.enter(rank, fields["node"], resources)

    def _greet(self, rank: int) -> None:
        settings = replace(self._settings, share=self._shares.share(rank))
        self._transport.send(rank, Tag.START, settings.pack())

    def _admit(self, ranks: Sequence[int]) -> None:
        now = self._clock()
        for rank in ranks:
            self._transport.send(rank, Tag.GO)
            self._tell(WorkerJoined(rank, self._settings.processes, self.nodes[rank]), now)
        nodes = {str(rank): self.nodes[rank] for rank in self.scheduler.workers}
        self._output.event("workers", nodes=nodes, processes=self._settings.processes, time=time.time())

    def _take_late(self, rank: int, tag: int, fields: dict[str, Any]) -> None:
        """A worker that reports when the others are at work already."""
        if tag == Tag.HELLO:
            self._enter(rank, fields)
            self._greet(rank)
        elif fields["problem"] is not None:
            self._leave_out(rank, fields["problem"])
        else:
            self._admit([rank])
            _log.info("worker %d on %s has joined", rank, self.nodes[rank])

    def _leave_out(self, rank: int, problem: str) -> None:
        node = self.nodes.pop(rank)
        _log.error("worker %d on %s gets no work in this start: %s", rank, node, problem)
        self._output.event("benched", node=node, why=problem, time=time.time())

    def _is_to_stop(self) -> bool:
        return self._stop_requested() >= StopRequest.DRAIN

    def _note_dead(self) -> set[int]:
        """Ranks that MPI knows to be dead."""
        self._dead.update(self._transport.lost())
        return self._dead

    # The loop

    def _serve(self) -> Ending:
        scheduler = self.scheduler
        self._ticked = self._clock()
        for early in self._put_off:
            self._take(*early)
        while scheduler.phase in (JobPhase.RUNNING, JobPhase.DRAINING):
            taken = 0
            while taken < _MESSAGES_IN_A_ROW and (message := self._transport.receive()) is not None:
                self._take(*message)
                taken += 1
            for rank in self._note_dead() & set(self.scheduler.workers):
                self._tell(WorkerLost(rank, "its MPI process has died"), self._clock())
            now = self._clock()
            self._tell(HandOut(), now)
            self._output.sync_if_due(now)
            if now - self._ticked >= _TICK:
                self._tick(now, idle=taken < _MESSAGES_IN_A_ROW)
            if not taken:
                self._waiter.wait(_TICK)
        return self._ending()

    def _tell(self, event: Event, now: float) -> None:
        """Tell the scheduler, and do what it wants done."""
        for command in self.scheduler.handle(event, now):
            match command:
                case Assign():
                    self._transport.send(command.worker, Tag.ASSIGN, messages.pack_ranges(command.ranges))
                case Restart():
                    self._transport.send(command.worker, Tag.RESTART, messages.pack_json(process=command.process))
                case EndAttempt():
                    self._end_attempt(command)
                case Retry() | Excuse() | Fail() | Halve() | FailItems():
                    self._record_failure(command)
                case GiveUp():
                    _log.warning("process %d on %s is given up", command.process, self._node(command.worker))
                case Lose():
                    self._record_loss(command)
                case Bench():
                    _log.error("node %s is benched, it gets no more work in this start: %s", command.node, command.why)
                    self._output.event("benched", node=command.node, why=command.why, time=time.time())
                case TakeBack():
                    _log.warning("node %s is taken back: %s", command.node, command.why)
                    self._output.event("taken_back", node=command.node, why=command.why, time=time.time())

    def _node(self, rank: int) -> str:
        return self.nodes.get(rank, "?")

    def _take(self, source: int, tag: int, body: bytes) -> None:
        """Translate a message: into an event, or into rows."""
        now = self._clock()
        if tag == Tag.RESULTS:
            self._take_results(source, body, now)
        elif tag == Tag.SPILLED:
            self._take_spilled(source, body, now)
        elif tag == Tag.FAILED:
            self._tell(AttemptFailed(source, Failure.from_json(body)), now)
        elif tag == Tag.ITEMS_FAILED:
            self._take_failed_items(source, unpack_failures(body), now)
        elif tag == Tag.READY:
            self._take_ready(source, messages.unpack_json(body), now)
        elif tag == Tag.GONE:
            fields = messages.unpack_json(body)
            if fields.get("replaced", True):
                self._tell(ProcessGone(source, fields["process"]), now)
            else:
                self._take_stop(source, fields["process"], now)
        elif tag == Tag.INIT_FAILED:
            self._take_init_failure(source, Failure.from_json(body), now)
        elif tag == Tag.GIVEN_BACK:
            self._tell(GivenBack(source, messages.unpack_ranges(body)), now)
        elif tag == Tag.BYE:
            self._tell(WorkerLost(source, "it has left"), now)
        else:
            self._tell(WorkerHeard(source), now)
            if tag == Tag.HEADER:
                self._output.append_header(body)
            elif tag in (Tag.HELLO, Tag.SEES):
                self._take_late(source, tag, messages.unpack_json(body))

    def _take_results(self, source: int, body: bytes, now: float) -> None:
        """The hot path: some 3 µs a mini-batch in the scheduler, some 15 µs a message for the two writes."""
        records, rows = messages.unpack_results(body)
        accepted = self.scheduler.finished(source, records, now)
        self._time_limit.learn(records)
        lost = self._lost_of(source, records, accepted)
        if self.scheduler.policy.speculative_copies:
            records = without_copies(records)
        if accepted is None:
            self._output.append(source, records, rows, lost)
        else:
            _log.warning("dropped %d answers of worker %d that came late", accepted.count(False), source)
            self._output.append_some(source, records, rows, accepted, lost)
        self.tally.mini_batches += len(records) // RECORD.size

    def _take_spilled(self, source: int, body: bytes, now: float) -> None:
        record, name = messages.unpack_spilled(body)
        path = Path(name)
        self._time_limit.learn(record)
        accepted = self.scheduler.finished(source, record, now)
        lost = self._lost_of(source, record, accepted)
        if self.scheduler.policy.speculative_copies:
            record = bytes(without_copies(record))
        if accepted is None:
            self._output.append_file(source, record, path, lost)
            self.tally.mini_batches += 1
        with contextlib.suppress(OSError):
            path.unlink()

    def _take_failed_items(self, source: int, failures: list[Failure], now: float) -> None:
        """They are written down with the answer of their mini-batch, which follows."""
        number, attempt = failures[0].mini_batch, failures[0].attempt
        items = self.scheduler.items_in_all(number) if is_part(number) else failures[0].items
        if items is None:
            return  # its answer will come too late
        start, _ = bounds(number, items)
        self._lost_items[source, number, attempt] = [
            LostItems(
                mini_batch_of(number) if is_copy(number) else number, items, [start + failure.item], failure.to_dict()
            )
            for failure in failures
        ]
        self._tell(ItemsFailed(source, number, attempt, len(failures)), now)
        _log.warning("%s on %s: %s", name_of(failures[0]), failures[0].node, failures[0].message)
        if len(failures) > 1:
            _log.warning("… and %d more items of mini-batch %d", len(failures) - 1, mini_batch_of(number))

    def _lost_of(
        self, source: int, records: memoryview | bytes, accepted: Sequence[bool] | None
    ) -> Sequence[LostItems]:
        """What failed of the items of these mini-batches, as far as their answers are accepted."""
        if not self._lost_items:
            return ()
        lost = []
        for index, fields in enumerate(RECORD.iter_unpack(records)):
            found = self._lost_items.pop((source, fields[MINI_BATCH], fields[ATTEMPT]), [])
            if accepted is None or accepted[index]:
                lost += found
        return lost

    def _take_ready(self, source: int, fields: dict[str, float], now: float) -> None:
        if not self.tally.ready_processes:
            self.tally.init_seconds = now - self.tally.started
            _log.info("the first user process is ready after %.1f s", self.tally.init_seconds)
        self.tally.ready_processes += 1
        self._tell(ProcessReady(source, int(fields["process"]), int(fields["at_once"])), now)

    def _take_stop(self, source: int, process: int, now: float) -> None:
        _log.warning("process %d on %s is stopped by the script", process, self._node(source))
        self._tell(ProcessStopped(source, process), now)

    def _take_init_failure(self, source: int, failure: Failure, now: float) -> None:
        if failure.kind is FailureKind.CODE_CHANGED:
            if self.scheduler.phase is JobPhase.RUNNING:
                _log.error("%s", failure.message)
                self._drain(failure.message, self._settings.stop_grace, now)
            return
        self.tally.init_failures.append(failure)
        _log.warning("process %d on %s: %s", failure.process, failure.node, failure.message)
        if len(self.tally.init_failures) == 1 and failure.traceback:
            _log.warning("the traceback, shown once:\n%s", failure.traceback.rstrip())
        if failure.code in (NO_RETRY, STOP):
            self._take_stop(source, failure.process, now)
        else:
            self._tell(InitFailed(source, failure.process, failure), now)

    def _record_failure(self, command: Retry | Excuse | Fail | Halve | FailItems) -> None:
        failure = command.failure
        if not isinstance(command, Excuse):  # that was no try
            self.tally.failures[failure.kind.value] += 1
        said = {**failure.to_dict(), "worker": command.worker, "time": time.time()}
        match command:
            case Retry():
                self._output.failure("attempt_failed", **said)
            case Fail():
                self._output.failure("failed", **said)
            case Halve():
                number = failure.mini_batch
                told = {"mini_batch": mini_batch_of(number), "part": number, "items": command.items}
                self._output.failure("halved", **{**said, **told})
            case FailItems():
                at = list(range(command.start, command.stop))
                self._output.append(
                    command.worker, b"", b"", [LostItems(failure.mini_batch, command.items, at, failure.to_dict())]
                )
        if failure.kind is FailureKind.WORKER_LOST:
            return  # the loss itself was said
        excuse = "no try is lost" if failure.kind in FULL_DISKS else "no try is lost: the node is benched"
        if isinstance(command, Excuse) and command.why:
            excuse = f"no try is lost: {command.why}"
        remark = f" ({excuse})" if isinstance(command, Excuse) else ""
        _log.warning(
            "%s, try %d, process %d on %s: %s%s",
            name_of(failure),
            failure.attempt,
            failure.process,
            failure.node,
            failure.message,
            _REMARKS.get(type(command), remark),
        )

    def _end_attempt(self, command: EndAttempt) -> None:
        body = messages.pack_ranges([(command.mini_batch, 1, command.attempt)])
        self._transport.send(command.worker, Tag.END_ATTEMPT, body)
        number, node = mini_batch_of(command.mini_batch), self._node(command.worker)
        which = "copy" if is_copy(command.mini_batch) else "first attempt"
        _log.info("mini-batch %d is done: its %s on %s is ended after %.3g s", number, which, node, command.seconds)
        said = {"worker": command.worker, "node": node, "seconds": command.seconds, "time": time.time()}
        self._output.event("attempt_ended", mini_batch=number, **said)

    def _record_loss(self, command: Lose) -> None:
        rank, why, node = command.worker, command.why, self._node(command.worker)
        _log.error("worker %d on %s is lost (%s): its mini-batches are handed out again", rank, node, why)
        self.tally.lost_workers.append(f"worker {rank} on {node}: {why}")
        self._output.event("worker_lost", worker=rank, node=node, why=why, time=time.time())

    def _tick(self, now: float, *, idle: bool) -> None:
        self._ticked = now
        if (lost := self._clock.lost - self._lost) > 2.0:
            self._lost = self._clock.lost
            _log.warning("the master could do nothing for %.1f s (stopped, or a filesystem that did not answer?)", lost)
        if idle:  # what was said while the master was busy has been read: silence now is silence
            self._tell(Tick(), now)
        if now - self._beat_at >= self._settings.heartbeat_interval:
            self._beat_at = now
            for rank in self.nodes:  # also those that count as lost: they may only have been stopped
                self._transport.send(rank, Tag.HEARTBEAT)
        if self._transport.abandoned():
            self._tell(StopAsked(_LAUNCHER_GONE), now)
        self._heed(self._stop_requested(), now, self._limit_clock())
        self._on_tick(self)

    def _heed(self, request: StopRequest, now: float, limit_now: float) -> None:
        """Do what a signal asks for; ``limit_now`` is of the clock that the time limit runs by."""
        if request is StopRequest.NOW:
            self._tell(StopAsked("stopped at once by a second signal"), now)
        if self.scheduler.phase is not JobPhase.RUNNING or request is StopRequest.NONE:
            return
        if request is StopRequest.CLOSE:
            if self._time_limit.begin(limit_now):
                _log.warning(
                    "the time limit is near: for %.0f s more, mini-batches are started that are probably done by then",
                    self._time_limit.left(limit_now),
                )
            if self._time_limit.is_due(limit_now):
                self._drain("stopped before the time limit", self._time_limit.left(limit_now), now)
        elif request is StopRequest.DRAIN:
            self._drain("stopped by a signal", min(self._settings.stop_grace, self._time_limit.left(limit_now)), now)

    def _drain(self, reason: str, grace: float, now: float) -> None:
        _log.warning("stopping: running mini-batches may finish within %.3g s; a second signal stops at once", grace)
        self._tell(DrainAsked(reason), now)
        for rank in self.scheduler.workers:
            self._transport.send(rank, Tag.DRAIN, messages.pack_json(grace=grace))

    # The end

    def _ending(self) -> Ending:
        scheduler = self.scheduler
        if scheduler.phase is JobPhase.COMPLETE:
            return Ending(scheduler.phase, "", EXIT_COMPLETE)
        if scheduler.phase is JobPhase.ABORTED:
            return Ending(scheduler.phase, scheduler.reason, EXIT_FAILED)
        return Ending(scheduler.phase, scheduler.reason, EXIT_RESUMABLE)

    @property
    def counts(self) -> Counts:
        """The totals."""
        return self.scheduler.counts()

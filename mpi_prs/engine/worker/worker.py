"""The worker: holds mini-batches, keeps its user processes busy, reports what came of it.

::

    master ──ASSIGN──► supply: waiting, loaded ──► user process (one frame ahead of what it runs)
    master ◄──RESULTS, coalesced── answers ◄──────────┘

One thread, one loop. While something runs it sleeps on the processes' channels; it looks for messages every few
milliseconds. It never runs user code and imports little: ten thousand of them start from one shared filesystem.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import selectors
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path

from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import EXIT_RESUMABLE
from mpi_prs.core.free_space import free_space, has_room, speaks_of_a_full_disk
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.engine.awake import AwakeClock
from mpi_prs.engine.log_file import log_file
from mpi_prs.engine.node import gpu_models, node_name, rank_resources, threads
from mpi_prs.engine.transport import MASTER, Transport, Waiter
from mpi_prs.engine.worker.code_check import CodeCheck
from mpi_prs.engine.worker.guard_client import Guard
from mpi_prs.engine.worker.outbox import Outbox
from mpi_prs.engine.worker.own_folder import make_folder, remove_leftovers
from mpi_prs.engine.worker.process_slots import left_behind, make_places
from mpi_prs.engine.worker.start_check import NoRoom, NotUsable, WorkerView, look
from mpi_prs.engine.worker.supervisor import UserProcess
from mpi_prs.engine.worker.supply import Portion, Supply, make_supply
from mpi_prs.engine.worker.trust import Trust
from mpi_prs.wire import messages
from mpi_prs.wire.failure import Failure, FailureKind, name_of, pack_failures
from mpi_prs.wire.messages import Tag
from mpi_prs.wire.parts import bounds, mini_batch_of
from mpi_prs.wire.record import ATTEMPT, MINI_BATCH, RECORD
from mpi_prs.wire.settings import WorkerSettings
from mpi_prs.wire.work import Chunk, News, ProcessPlace, State

_LONGEST_WAIT = 0.02  # between two looks for messages, in seconds: 0.5 % of a core
_CHECK_EVERY = 0.05  # looks at clocks and slots
_FRAME_MINI_BATCHES = 512
_RESTART_PAUSE = 0.2
_UNKILLABLE_SECONDS = 10.0
_LONG_RUN = 0.05  # seconds; a mini-batch that takes longer is not put behind another while a process is free


class Worker:
    """One worker rank, from HELLO to BYE.

    Attributes:
        dismissed: whether the master has said that it is the end; else it was the launcher, or the master's silence.
    """

    def __init__(self, transport: Transport) -> None:
        self.dismissed = False
        self._transport = transport
        self._clock = AwakeClock()
        self._lost = 0.0  # seconds in which this worker was stopped, as far as the log knows
        self._node = node_name()
        self._selector = selectors.DefaultSelector()
        self._waiter = Waiter(transport, _LONGEST_WAIT)
        self._log = logging.getLogger(f"mpi_prs.worker{transport.rank}")
        self._processes: dict[int, UserProcess] = {}
        self._trust: dict[int, Trust] = {}
        self._restart_at: dict[int, float] = {}
        self._suspects = 0  # how many of those that come next are to be run alone
        self._pauses: dict[int, float] = {}  # user process → seconds that its init() has asked for
        self._outbox = Outbox(partial(self._send, Tag.RESULTS))
        self._sent_at = self._clock()
        self._checked_at = 0.0
        self._heard_at = self._clock()  # of the master
        self._drain_by: float | None = None
        self._exit_code: int | None = None
        self._graceful = False
        self._settings: WorkerSettings | None = None
        self._sight: WorkerView
        self._supply: Supply
        self._set_up_so_far = contextlib.ExitStack()  # what is to be undone at the end
        self._places: dict[int, ProcessPlace] = {}
        self._ended: set[tuple[int, int]] = set()  # mini-batches and attempts that others have done first
        self._remarks: list[str] = []  # what held up the end
        self._no_start: Failure | None = None  # why no user process is started
        self._code: CodeCheck | None = None

    def run(self) -> int:
        """Work until the master says stop; returns the exit code that the master asked for."""
        if self._transport.wake_descriptor is not None:
            self._selector.register(self._transport.wake_descriptor, selectors.EVENT_READ)
        resources = asdict(replace(rank_resources(HERE, os.sched_getaffinity(0)), gpu_models=gpu_models()))
        self._send(Tag.HELLO, messages.pack_json(node=self._node, pid=os.getpid(), resources=resources))
        settings = self._wait_for_start()
        if settings is None:
            self._say_bye()
            return EXIT_RESUMABLE if self._exit_code is None else self._exit_code
        directory = RunDirectory(Path(settings.run_root))
        path = directory.node_log(self._node, f"worker{self._transport.rank:03d}")
        self._log.propagate = False  # what concerns the job is shown by the master
        loading = logging.getLogger("mpi_prs.loading")  # of bad records, and processes that files have killed
        level = settings.process.logging_level
        with log_file(self._log, path, level), log_file(loading, path, level):
            try:
                self._set_up(settings)
                self._work()
                self._stop_processes()
            finally:
                left = left_behind(place.scratch for place in self._places.values())
                self._tear_down()
                self._say_bye(left)
                self._log.info("the end")
        assert self._exit_code is not None
        return self._exit_code

    def _work(self) -> None:
        """The loop, until the master says stop."""
        while self._exit_code is None:
            if self._take_messages():
                self._waiter.reset()
            self._dispatch()
            self._send_results_if_due()
            for process in self._sleep():
                self._take_news(process, self._clock())
            self._look_around()

    # Beginning and end

    def _wait_for_start(self) -> WorkerSettings | None:
        """START, an answer to it, GO; ``None`` when the master has ended it before that."""
        settings = None
        while self._exit_code is None:
            message = self._transport.receive()
            if message is None:
                if self._master_is_gone():
                    return None
                self._waiter.wait(0.05)
            elif message[1] == Tag.START:
                settings = WorkerSettings.unpack(message[2])
                self._send(Tag.SEES, messages.pack_json(**self._look_at_filesystems(settings)))
            elif message[1] == Tag.GO:
                return settings
            elif message[1] == Tag.STOP:
                self._exit_code = messages.unpack_json(message[2])["exit_code"]
                self.dismissed = True
        return None

    def _look_at_filesystems(self, settings: WorkerSettings) -> dict[str, str | bool | None]:
        """What is wrong with what this node sees of them, if anything is; and whether it is only that one is full."""
        try:
            self._sight = look(settings, self._node)
        except NotUsable as error:
            return {"problem": str(error), "full": isinstance(error, NoRoom)}
        return {"problem": None, "full": False}

    def _set_up(self, settings: WorkerSettings) -> None:
        self._settings = settings
        for folder in remove_leftovers(self._sight.scratch):
            self._log.info("removed %s, which a worker had left that is dead", folder)
        self._scratch, holder = make_folder(self._sight.scratch, self._transport.rank)
        undo = self._set_up_so_far
        undo.callback(os.close, holder)
        undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
        self._guard = Guard(self._scratch)
        undo.callback(self._guard.close)
        self._supply = make_supply(self._sight.manifest, settings, self._scratch)
        undo.callback(self._supply.close)
        if self._supply.wake_descriptor is not None:
            self._selector.register(self._supply.wake_descriptor, selectors.EVENT_READ)
        settings = self._with_side_inputs(settings)
        self._places = make_places(settings, self._node, self._scratch)
        self._process_settings = replace(settings.process, node=self._node, loaders=self._loaders_of(settings))
        if settings.checks_code:
            self._code = CodeCheck(RunDirectory(Path(settings.run_root)).sources, self._log)
        for number in self._places:
            self._start_process(number)
        numbers = ", ".join(map(str, self._places))
        self._log.info("worker %d, pid %d: user processes %s", self._transport.rank, os.getpid(), numbers)

    def _loaders_of(self, settings: WorkerSettings) -> int:
        """Threads of a user process that load items."""
        asked = settings.process.loaders
        if asked >= 0:
            return asked
        return threads(HERE, settings.processes, settings.share, len(os.sched_getaffinity(0)))

    def _with_side_inputs(self, settings: WorkerSettings) -> WorkerSettings:
        """Have the side inputs here; returns the settings with their paths in arguments and environment variables."""
        if not settings.side_inputs:
            return settings
        side_inputs = import_module("mpi_prs.engine.worker.side_inputs")  # a rank that has none does without
        try:
            provided = side_inputs.provide_meanwhile(
                settings, self._sight.scratch, self._listen, self._is_stopped, self._clock
            )
        except side_inputs.NotProvided as error:
            self._no_start = Failure(FailureKind.INIT, str(error))
            return settings
        self._set_up_so_far.callback(provided.close)
        found: WorkerSettings = side_inputs.with_paths(settings, provided)
        return found

    def _listen(self) -> None:
        """What is due while nothing runs yet."""
        self._take_messages()
        self._heartbeat(self._clock())
        if self._master_is_gone():
            self._exit_code = EXIT_RESUMABLE

    def _is_stopped(self) -> bool:
        return self._exit_code is not None or self._drain_by is not None

    def _start_process(self, number: int) -> None:
        if self._no_start is not None:
            self._report_no_process(number, self._no_start)
            return
        trust = self._trust.setdefault(number, Trust())
        trust.start()
        try:
            process = UserProcess(self._process_settings, self._places[number], self._guard, trust, self._clock)
        except OSError as error:  # no such interpreter on this node, no more processes or descriptors allowed
            self._report_no_process(number, Failure(FailureKind.INIT, f"the user process cannot be started: {error}"))
            return
        self._processes[number] = process
        self._selector.register(process.channel, selectors.EVENT_READ, process)
        self._selector.register(process.death, selectors.EVENT_READ, process)
        self._log.info("user process %d on %s: %s, pid %d", number, self._node, process.place.placement, process.pid)

    def _report_no_process(self, number: int, failure: Failure) -> None:
        self._log.warning("user process %d: %s", number, failure.message)
        failure = self._blame_full_disk(replace(failure, process=number, node=self._node))
        self._send(Tag.INIT_FAILED, failure.to_json())

    def _other_code(self) -> Failure | None:
        """Why a process that comes up now may not go on, nor any after it: it is of another version than the run."""
        if self._code is not None and self._no_start is None and (path := self._code.changed()) is not None:
            message = (
                f"{path} has changed since the run was begun, and rows of two versions would mix (seen on node "
                f"{self._node}): put it back, go on with --accept-changes, or start anew with --overwrite"
            )
            self._no_start = Failure(FailureKind.CODE_CHANGED, message)
        return self._no_start

    def _stop_processes(self) -> None:
        """End all user processes: ``shutdown()`` for those that have nothing to do, SIGKILL for the rest."""
        assert self._settings is not None
        by = self._clock() + (self._settings.stop_grace if self._graceful else 0.0)
        for process in self._processes.values():
            if process.outstanding_count or not self._graceful:
                process.kill()
            else:
                process.stop(by)
        self._supply.withdraw()
        give_up = by + _UNKILLABLE_SECONDS
        while any(process.state is not State.GONE for process in self._processes.values()):
            if self._clock() > give_up:
                self._log.error("a user process cannot be killed: it hangs in the kernel (a dead filesystem?)")
                break
            self._selector.select(_CHECK_EVERY)
            self._supply.notice()  # else its descriptor would stay readable
            self._take_messages()  # a second stop signal
            now = self._clock()
            for process in self._processes.values():
                if process.state is State.GONE:
                    continue
                if not self._graceful:
                    process.kill()
                news = process.poll(now)
                if news.gone:
                    self._forget(process)
                if news.killed and self._graceful:
                    self._remarks.append(f"process {process.place.number} on {self._node}: {news.killed}")
            self._heartbeat(now)

    def _tear_down(self) -> None:
        for process in self._processes.values():
            if process.state is not State.GONE:
                process.kill()
        self._set_up_so_far.close()
        self._selector.close()

    # Messages

    def _take_messages(self) -> bool:
        taken = False
        while (message := self._transport.receive()) is not None:
            taken = True
            self._heard_at = self._clock()
            _source, tag, body = message
            if tag == Tag.ASSIGN:
                for item in messages.unpack_ranges(body):
                    self._supply.add(Chunk(*item))
                self._leave_work_to_others()  # it was sent before the master knew that nobody is there for it
            elif tag == Tag.RESTART:
                number = messages.unpack_json(body)["process"]
                self._restart_at[number] = self._clock() + max(_RESTART_PAUSE, self._pauses.pop(number, 0.0))
            elif tag == Tag.END_ATTEMPT:
                for first, _, attempt in messages.unpack_ranges(body):
                    self._end_attempt(first, attempt)
            elif tag == Tag.DRAIN:
                self._drain(messages.unpack_json(body)["grace"])
            elif tag == Tag.STOP:
                fields = messages.unpack_json(body)
                self._exit_code, self._graceful = fields["exit_code"], fields["graceful"]
                self.dismissed = True
        return taken

    def _end_attempt(self, number: int, attempt: int) -> None:
        """It was done elsewhere: the process that runs it is replaced, unless it runs others beside it."""
        self._ended.add((number, attempt))
        for process in self._processes.values():
            if process.state is State.READY and process.at_once == 1 and process.runs(number):
                self._log.info(
                    "user process %d is replaced: another has done its mini-batch first", process.place.number
                )
                process.kill()

    def _drain(self, grace: float) -> None:
        """Give back what no process has, and let the processes finish what they have."""
        self._drain_by = self._clock() + grace
        self._log.info("draining: running mini-batches may go on for %g s", grace)
        self._give_back(self._supply.withdraw())
        for process in self._processes.values():
            if process.state is not State.GONE:
                process.skip_unstarted()

    def _say_bye(self, left: str = "") -> None:
        self._send(Tag.BYE, messages.pack_json(left=left, remarks=self._remarks))

    def _give_back(self, chunks: list[Chunk]) -> None:
        self._outbox.send()
        ranges = messages.pack_ranges((chunk.first, chunk.count, chunk.attempt) for chunk in chunks)
        self._send(Tag.GIVEN_BACK, ranges)

    def _send(self, tag: Tag, body: bytes = b"") -> None:
        self._transport.send(MASTER, tag, body)
        self._sent_at = self._clock()

    # User processes

    def _take_news(self, process: UserProcess, now: float) -> None:
        if process.state is State.GONE:
            return
        news = process.poll(now)
        number = process.place.number
        if news.became_ready and not process.finished_any and (refusal := self._other_code()) is not None:
            process.kill()
            self._report_no_process(number, refusal)
        elif news.became_ready:
            seconds = now - process.started
            self._send(Tag.READY, messages.pack_json(process=number, seconds=seconds, at_once=process.at_once))
        if news.killed:
            self._log.warning("user process %d is killed: %s", number, news.killed)
        if news.header is not None:
            self._send(Tag.HEADER, news.header)
        if self._supply.has_bad_records:
            news.items_failed += self._bad_records(number, news)
        if news.items_failed:  # they go before what they are items of
            self._report_failed_items(number, news.items_failed)
        if news.finished:
            self._outbox.collect(news, now)
        failures = [self._with_items(failure) for failure in news.failures]
        self._supply.answered(_answered(news))
        if news.spilled or news.failures or news.gone:
            self._outbox.send()  # what was finished before goes first
        for record, path in news.spilled:
            self._send(Tag.SPILLED, messages.pack_spilled(record, path))
        for failure in map(self._blame_full_disk, failures):
            self._log.warning("user process %d, %s: %s", number, name_of(failure), failure.message)
            self._send(Tag.FAILED, failure.to_json())
        if news.unstarted:
            self._put_back(news.unstarted)
        if news.suspects and self._drain_by is None:
            self._log.warning("%d mini-batches ran when it ended: they run again, each alone", news.suspects)
            self._suspects = news.suspects
        if news.rests:
            self._rest(number)
        if news.gone:
            self._forget(process)
            self._plan_restart(process, news, now)

    def _bad_records(self, process: int, news: News) -> Iterator[Failure]:
        """Of what is done, the records that could not be read."""
        done = [*news.records, *(record for record, _path in news.spilled)]
        for fields in RECORD.iter_unpack(b"".join(done)):
            number, attempt = fields[MINI_BATCH], fields[ATTEMPT]
            for item, place, problem in self._supply.bad_records(number):
                yield Failure(
                    FailureKind.LOAD,
                    problem,
                    mini_batch=number,
                    attempt=attempt,
                    process=process,
                    node=self._node,
                    item=item,
                    items=self._supply.items_of(number),
                    place=place,
                )

    def _with_items(self, failure: Failure) -> Failure:
        """With what only the supply knows: how many items it had."""
        return replace(failure, items=self._supply.items_of(failure.mini_batch))

    def _report_failed_items(self, process: int, failures: list[Failure]) -> None:
        for number, group in itertools.groupby(failures, lambda failure: failure.mini_batch):
            items = list(group)
            self._log.warning("user process %d, %s: %s", process, name_of(items[0]), items[0].message)
            if len(items) > 1:
                self._log.warning("… and %d more items of mini-batch %d", len(items) - 1, mini_batch_of(number))
            self._send(Tag.ITEMS_FAILED, pack_failures(items))

    def _blame_full_disk(self, failure: Failure) -> Failure:
        """If it failed for a disk that is still full, it is that disk's failure."""
        if not speaks_of_a_full_disk(f"{failure.message}\n{failure.traceback}"):
            return failure
        assert self._settings is not None
        directory = RunDirectory(Path(self._settings.run_root))
        for folder, kind in (
            (directory.root, FailureKind.OUTPUT_FULL),
            (directory.output, FailureKind.OUTPUT_FULL),
            (self._scratch, FailureKind.SCRATCH_FULL),
        ):
            if not has_room(folder):
                message = f"{folder} on node {self._node} is full ({free_space(folder)}); {failure.message}"
                return replace(failure, kind=kind, message=message)
        return failure

    def _put_back(self, chunks: list[Chunk]) -> None:
        """What a process had not started: for another one here, or back to the master."""
        chunks = self._without_ended(chunks)
        if self._drain_by is not None:
            self._supply.answered(number for chunk in chunks for number in chunk)
            self._give_back(chunks)
        else:
            self._supply.put_back(chunks)

    def _without_ended(self, chunks: list[Chunk]) -> list[Chunk]:
        """What others have not done first."""
        left = list(chunks)
        for number, attempt in self._ended:
            for place, chunk in enumerate(left):
                if number in chunk and attempt == chunk.attempt:
                    left[place : place + 1] = chunk.without(number)
                    self._supply.answered([number])
                    break
        return left

    def _rest(self, number: int) -> None:
        """A user process pauses."""
        self._log.info("user process %d pauses: the script has asked for it", number)
        self._send(Tag.GONE, messages.pack_json(process=number))
        self._leave_work_to_others()

    def _leave_work_to_others(self) -> None:
        """If no process of this worker does the work now or soon, other workers should."""
        at_work = any(process.state in (State.READY, State.STARTING) for process in self._processes.values())
        if not at_work and not self._restart_at and self._supply.queued:
            self._give_back(self._supply.withdraw())

    def _forget(self, process: UserProcess) -> None:
        for key in [key for key in self._selector.get_map().values() if key.data is process]:
            self._selector.unregister(key.fileobj)
        process.close()

    def _plan_restart(self, process: UserProcess, news: News, now: float) -> None:
        """A user process ended by itself: replace it, soon."""
        number = process.place.number
        if news.init_failure is not None:
            failure = self._blame_full_disk(news.init_failure)
            self._log.warning("user process %d: %s", number, failure.message)
            self._pauses[number] = failure.pause
            self._send(Tag.INIT_FAILED, failure.to_json())
            return  # the master says whether to go on with it
        self._send(Tag.GONE, messages.pack_json(process=number, replaced=process.is_replaced))
        if not process.is_replaced:
            self._log.info("user process %d has ended for good: the script has asked for it", number)
            self._leave_work_to_others()
            return
        # A process that dies while it has nothing to do, time after time, must not be restarted in a tight loop.
        self._restart_at[number] = now if process.finished_any or news.failures else now + 1.0

    def _dispatch(self) -> None:
        """Hand mini-batches to every process that will soon run dry."""
        supply = self._supply
        supply.notice()
        if not supply.queued:
            return
        assert self._settings is not None
        ready = [process for process in self._processes.values() if process.state is State.READY]
        if not ready:
            return
        # A frame takes half of the window, so that one waits in the channel while another is worked on.
        at_once = max(process.at_once for process in ready)
        most = int(self._settings.window / 2 / self._outbox.mean_run * at_once) if self._outbox.mean_run else 1
        most = max(1, min(_FRAME_MINI_BATCHES, most, supply.queued // len(ready)))
        loads_ahead = self._process_settings.loaders_ahead if self._process_settings.loaders else 0
        waiting = max(most, loads_ahead, at_once if at_once > 1 else 0)  # of several at once many may end together
        while supply.queued:
            process = min(ready, key=lambda process: (process.outstanding_count, process.trust.in_doubt))
            if process.outstanding_count >= process.at_once + waiting:
                return
            if process.outstanding_count and (self._suspects or process.is_alone):
                return
            if (
                process.outstanding_count >= process.at_once
                and self._outbox.mean_run > _LONG_RUN
                and supply.queued < len(ready)
            ):
                return
            portion = self._portion_for(process, 1 if self._suspects else most)
            if portion is None:
                return
            if self._ended and (left := self._without_ended([portion.chunk])) != [portion.chunk]:
                supply.put_back(left)
                continue
            process.is_alone = self._suspects > 0
            self._suspects = max(0, self._suspects - 1)
            if portion.loaded is not None:
                process.send(portion.loaded, portion.chunk.attempt)
            else:
                self._report_load_failure(portion)

    def _portion_for(self, process: UserProcess, most: int) -> Portion | None:
        """What this process may have next of what waits; see :mod:`mpi_prs.engine.worker.trust`."""
        assert self._settings is not None
        supply, trust = self._supply, process.trust
        attempt = supply.next_attempt()
        if attempt <= 1 or (supply.next_is_part() and attempt < self._settings.last_try):  # to fail costs no item yet
            return supply.take(most)
        if not trust.in_doubt:
            return None if process.outstanding_count >= process.at_once else supply.take(1)
        portion = supply.take_first_try(most)
        if portion is not None or process.outstanding_count:
            return portion
        if attempt >= self._settings.last_try and trust.is_worth_replacing:
            self._log.info("user process %d is replaced before a last try: it failed last", process.place.number)
            process.retire(self._clock())
            return None
        return supply.take(1)

    def _report_load_failure(self, portion: Portion) -> None:
        first, attempt = portion.chunk.first, portion.chunk.attempt
        manifest = self._sight.manifest
        start, stop = bounds(first, manifest.items_of(mini_batch_of(first))) if manifest.exact else (0, 0)
        failure = Failure(FailureKind.LOAD, portion.problem, "", first, attempt, node=self._node, items=stop - start)
        failure = self._blame_full_disk(failure)
        self._log.warning("mini-batch %d cannot be loaded: %s", first, failure.message)
        self._send(Tag.FAILED, failure.to_json())

    def _send_results_if_due(self) -> None:
        """At once when mini-batches are long, or no process has anything to do; else in larger pieces."""
        if self._outbox.is_due(self._clock()) or not any(p.outstanding_count for p in self._processes.values()):
            self._outbox.send()

    # Time

    def _look_around(self) -> None:
        now = self._clock()
        if now - self._checked_at < _CHECK_EVERY:
            return
        self._checked_at = now
        if self._clock.lost > self._lost + 2.0:
            self._log.warning("could do nothing for %.1f s: no timeout counts them", self._clock.lost - self._lost)
            self._lost = self._clock.lost
        self._heartbeat(now)
        for process in list(self._processes.values()):
            self._take_news(process, now)
        for number, at in list(self._restart_at.items()):
            if now >= at and self._drain_by is None:
                del self._restart_at[number]
                self._start_process(number)
        if self._drain_by is not None and now >= self._drain_by:
            self._drain_by = float("inf")
            for process in self._processes.values():
                if process.outstanding_count:
                    self._log.info("user process %d did not finish within the grace time", process.place.number)
                    process.kill()
        assert self._settings is not None
        silence = now - self._heard_at
        if silence > self._settings.master_timeout:
            self._log.error("no sign of life of the master for %.0f s; stopping", silence)
            self._transport.give_up()
            self._exit_code, self._graceful = EXIT_RESUMABLE, False
        elif self._master_is_gone():
            self._log.error("the master or the launcher is gone; stopping")
            self._exit_code, self._graceful = EXIT_RESUMABLE, False

    def _heartbeat(self, now: float) -> None:
        assert self._settings is not None
        if now - self._sent_at > self._settings.heartbeat_interval:
            self._send(Tag.HEARTBEAT)

    def _master_is_gone(self) -> bool:
        return MASTER in self._transport.lost() or self._transport.abandoned()

    def _sleep(self) -> set[UserProcess]:
        """Until a process says something, or it is time to look for messages. Returns the processes that spoke."""
        idle = 0
        blocked = self._transport.under_way
        for process in self._processes.values():
            idle += process.state is State.READY and not process.outstanding_count
            if process.state is not State.GONE and process.channel.wants_to_write:  # long settings, too
                process.channel.flush()
                blocked |= process.channel.wants_to_write
        if (left := self._outbox.seconds_left(self._clock())) is not None:
            timeout = left
        elif idle > self._supply.queued:  # the next message is what we wait for; whatever is loaded wakes us by itself
            timeout = self._waiter.next_timeout(_LONGEST_WAIT)
        else:
            timeout = _LONGEST_WAIT
        if blocked:
            timeout = min(timeout, 0.001)
        return {key.data for key, _ in self._selector.select(timeout) if key.data is not None}


def _answered(news: News) -> Iterator[int]:
    """The mini-batches that are done or failed."""
    for records in news.records:
        for fields in RECORD.iter_unpack(records):
            yield fields[MINI_BATCH]
    for record, _path in news.spilled:
        yield RECORD.unpack(record)[MINI_BATCH]
    for failure in news.failures:
        yield failure.mini_batch


def leave_stop_signals_to_the_master() -> None:
    """A launcher sends stop signals to every rank; the master decides, and tells the workers.

    A handler that does nothing, not SIG_IGN: that would be inherited by the user processes.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])


def _wait_for_farewell(transport: Transport) -> None:
    """Stay out of MPI_Finalize, in which a rank spins, until the master is ready for it, too."""
    waiter = Waiter(transport, _LONGEST_WAIT, patient=True)
    while not (MASTER in transport.lost() or transport.abandoned()):
        message = transport.receive()
        if message is None:
            waiter.wait(_LONGEST_WAIT)
        elif message[1] == Tag.FAREWELL:
            return


def serve(transport: Transport) -> int:
    """The life of a worker rank: returns the exit code that the master asked for."""
    leave_stop_signals_to_the_master()
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    worker = Worker(transport)
    exit_code = worker.run()
    if worker.dismissed:
        _wait_for_farewell(transport)
    transport.close(exit_code)
    return exit_code

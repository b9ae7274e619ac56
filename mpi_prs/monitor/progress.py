"""Progress while a job runs: a bar on a terminal, else lines at growing intervals; and ``status.json``.

Every line also goes to ``logs/job_progress_overview.txt``. None of this may end a job: what cannot be written, because
the disk is full or nobody reads standard error any more, is left out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from typing import TYPE_CHECKING, TextIO

from mpi_prs.child.shims.finder import resolve
from mpi_prs.core.environ import HERE, SLURM_JOB_ID
from mpi_prs.core.files import own_file
from mpi_prs.core.rate import Rate
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.secrecy import scrub
from mpi_prs.core.units import count, duration, many, percent, printable, rate
from mpi_prs.engine.master.master import Master
from mpi_prs.engine.scheduler.states import JobPhase
from mpi_prs.monitor.status import Status, iso_time, outcome, write_status

if TYPE_CHECKING:
    from mpi_prs.monitor.bar import Bar

_log = logging.getLogger("mpi_prs.progress")

_LOOK_SECONDS = 0.25  # between two redrawings of the bar, and two samples of the rate
_GONE = (OSError, ValueError)  # nobody reads the stream any more, or it is closed
_UNFINISHED = "it has ended early: the log says why"


def _intervals() -> Iterator[float]:
    """Seconds between two lines: soon a first word, later no flood."""
    return chain((1.0, 2.0, 5.0, 10.0, 30.0), repeat(60.0))


class Progress:
    """Tells people and programs how a job goes, from the listing to the end.

    ::

        listing(…)* ──► begin(…) ──► on_tick(…)* ──► finish(…) ──► close()

    Args:
        stream: where it is shown; a bar when this is a terminal.
        clock: seconds that only go forward.
        wall: seconds since 1970.
        status_seconds: between two updates of ``status.json``.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        status_seconds: float = 2.0,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._wall = wall
        self._status_seconds = status_seconds
        self._terminal = stream.isatty() and HERE.get("TERM") != "dumb"
        self._bar: Bar | None = None
        self._directory: RunDirectory | None = None
        self._output_bytes: Callable[[], int] = lambda: 0
        self._status: Status | None = None
        self._rate = Rate()
        self._begun = clock()
        self._restored: int | None = None  # mini-batches that earlier starts have finished
        self._moving = False  # something has been finished in this start
        self._look_at = self._status_at = 0.0
        self._space = _intervals()
        self._line_at = clock() + next(self._space)
        self._failed_to_write = False
        self._benched: set[str] = set()  # of which it was said

    # The life of a job

    def listing(self, items: int) -> None:
        """So many items have been listed so far."""
        now = self._clock()
        text = f"listing the inputs: {many(items, 'item')}"
        if self._terminal and now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._show(0, None, text)
        if now >= self._line_at:
            self._line_at = now + next(self._space)
            self._say(text)

    def begin(
        self, directory: RunDirectory, mini_batches: int, items: int, output_bytes: Callable[[], int] | None = None
    ) -> None:
        """The run is open: it has so many mini-batches and items. ``output_bytes`` tells the size of its rows."""
        now, wall = self._clock(), self._wall()
        self._directory = directory
        self._output_bytes = output_bytes or self._output_bytes
        self._begun = now
        self._look_at = 0.0
        self._space = _intervals()
        self._line_at = now + next(self._space)
        self._status = Status(
            phase="starting",
            reason="waiting for the workers to report",
            mini_batches=mini_batches,
            mini_batches_done=0,
            mini_batches_failed=0,
            items=items,
            items_done=0,
            items_failed=0,
            retried=0,
            failed_on_two_nodes=0,
            mini_batches_per_second=None,
            items_per_second=None,
            eta_seconds=None,
            elapsed_seconds=0.0,
            workers=0,
            nodes=0,
            benched_nodes=[],
            processes=0,
            processes_ready=0,
            output=str(directory.output),
            output_bytes=self._output_bytes(),
            started=iso_time(wall),
            updated=iso_time(wall),
            pid=os.getpid(),
            host=socket.gethostname(),
            slurm_job_id=str(job_id) if (job_id := SLURM_JOB_ID.of()) is not None else None,
            exit_code=None,
            run=directory.run_id(),
        )
        self._store(self._status, now)
        if self._terminal:
            self._show(0, mini_batches, self._status.reason)

    def on_tick(self, master: Master) -> None:
        """Called some ten times a second. Some microseconds when nothing is due."""
        now = self._clock()
        counts = master.counts
        settled = counts.done + counts.failed
        if self._restored is None:
            self._restored = settled
        starts_moving = not self._moving and settled > self._restored
        if now < self._look_at and not starts_moving:
            return
        self._look_at = now + _LOOK_SECONDS
        self._say_benched(master)
        if master.tally.ready_processes:
            self._rate.add(now, settled, counts.items_done)
        else:
            self._rate.restart(now, settled, counts.items_done)
        if starts_moving:
            self._moving = True
            self._space = _intervals()
            self._line_at = now
        if self._bar is None and now < self._line_at and now < self._status_at:
            return
        status = self._observe(master, now)
        if self._bar is not None:
            self._show(status.settled, status.mini_batches, bar_text(status))
        if now >= self._line_at:
            self._line_at = now + next(self._space)
            self._say(progress_line(status))
        if now >= self._status_at:
            self._store(status, now)

    def _say_benched(self, master: Master) -> None:
        benched = master.scheduler.nodes.benched
        for node in benched.keys() - self._benched:
            text = f"node {node} is benched, it gets no more work: {benched[node]}"
            self._say(text)
            if self._bar is not None:
                self.print(text)
        self._benched = set(benched)

    def finish(self, master: Master, phase: str, reason: str, exit_code: int) -> None:
        """The start has ended: the last line and the last status."""
        now = self._clock()
        self._say_benched(master)
        status = self._observe(master, now)
        status = replace(status, phase=phase, reason=scrub(reason), eta_seconds=None, exit_code=exit_code)
        if self._bar is not None:
            self._show(status.settled, status.mini_batches, bar_text(status))
        self._say(progress_line(status))
        self._store(status, now)

    def close(self) -> None:
        """Give the terminal back. A job that has begun and not been finished is noted as ended early."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._terminal = False
        status = self._status
        if status is not None and status.under_way:
            now = self._clock()
            status = replace(
                status,
                phase=JobPhase.STOPPED.value,
                reason=_UNFINISHED,
                eta_seconds=None,
                elapsed_seconds=now - self._begun,
                updated=iso_time(self._wall()),
            )
            self._store(status, now)

    def print(self, text: str) -> None:
        """A line for the person who watches; above the bar, if there is one."""
        with contextlib.suppress(*_GONE):
            text = printable(scrub(text), keep="\n\t")
            if self._bar is not None:
                self._bar.print(text)
            else:
                self._stream.write(text + "\n")
                self._stream.flush()

    def log(self, text: str) -> None:
        """A line of the program's log; with its time, where lines stay."""
        self.print(text if self._terminal else f"{self._time()}  {text}")

    # How it is shown

    def _observe(self, master: Master, now: float) -> Status:
        assert self._status is not None
        scheduler, counts = master.scheduler, master.counts
        workers = list(scheduler.workers.values())
        rates = self._rate.at(now)
        return replace(
            self._status,
            phase=scheduler.phase.value,
            reason=self._wait(master),
            mini_batches=counts.done + counts.failed + scheduler.left,
            mini_batches_done=counts.done,
            mini_batches_failed=counts.failed,
            items_done=counts.items_done,
            items_failed=counts.items_failed,
            retried=counts.retried,
            failed_on_two_nodes=scheduler.nodes.failed_on_two,
            mini_batches_per_second=rates[0] if rates else None,
            items_per_second=rates[1] if rates else None,
            eta_seconds=scheduler.left / rates[0] if rates else None,
            elapsed_seconds=now - self._begun,
            workers=len(workers),
            nodes=len({worker.node for worker in workers}),
            benched_nodes=list(scheduler.nodes.benched),
            processes=sum(worker.processes for worker in workers),
            processes_ready=sum(len(worker.ready) for worker in workers),
            output_bytes=self._output_bytes(),
            updated=iso_time(self._wall()),
        )

    def _wait(self, master: Master) -> str:
        """What the job is waiting for, or nothing when mini-batches are being finished."""
        scheduler, tally = master.scheduler, master.tally
        if scheduler.phase is JobPhase.DRAINING:
            return f"stopping: {many(scheduler.held, 'mini-batch')} may still finish"
        if self._moving:
            return ""
        workers = scheduler.workers.values()
        if any(worker.ready for worker in workers):
            return "waiting for the first results"
        missing = sum(worker.processes - len(worker.given_up) for worker in workers)
        failures = f" (failed {many(len(tally.init_failures), 'time')} so far)" if tally.init_failures else ""
        return f"waiting for init() of {many(missing, 'process')}{failures}"

    def _show(self, done: int, total: int | None, text: str) -> None:
        with contextlib.suppress(*_GONE):
            if self._bar is None:
                self._bar = resolve("mpi_prs.monitor.bar:Bar")(self._stream)  # rich, for a terminal alone
            self._bar.update(done, total, printable(text))

    def _say(self, text: str) -> None:
        """A line: to the stream, unless there is a bar, and to the overview."""
        text = printable(scrub(text))
        if self._bar is None:
            self.print(f"{self._time()}  {text}")
        if self._directory is not None and self._directory.root.is_dir():  # it is not made anew where it was removed
            path = self._directory.progress_overview
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "a", encoding="utf-8", opener=own_file) as file:
                    file.write(f"{self._time('%Y-%m-%d %H:%M:%S')}  {text}\n")
            except OSError as error:
                self._warn(f"cannot write {path}: {error.strerror}")

    def _time(self, form: str = "%H:%M:%S") -> str:
        return time.strftime(form, time.localtime(self._wall()))

    def _store(self, status: Status, now: float) -> None:
        assert self._directory is not None
        self._status = status
        self._status_at = now + self._status_seconds
        if not self._directory.root.is_dir() or not write_status(self._directory.status, status):
            self._warn(f"cannot write {self._directory.status}: what `status` says will be out of date")

    def _warn(self, text: str) -> None:
        if not self._failed_to_write:
            self._failed_to_write = True
            _log.warning("%s", text)


def progress_line(status: Status) -> str:
    """``412 of 4 000 mini-batches (10 %)  4 120 items  812 items/s  3 failed items  about 1 min 12 s left``."""
    done = f"{_settled(status)} ({percent(status.settled, status.mini_batches)} %)"
    return "  ".join([done, *_amounts(status), *_left(status), *_state(status)])


def bar_text(status: Status) -> str:
    """The same for a bar, which may cut off the end: the time left first, and last the processes that are ready."""
    done = f"{percent(status.settled, status.mini_batches)} %"
    parts = [done, *_left(status), *_amounts(status), *_state(status), _settled(status)]
    if status.under_way:
        parts.append(f"{count(status.processes_ready)} of {many(status.processes, 'process')} ready")
    return "  ".join(parts)


def _settled(status: Status) -> str:
    return f"{count(status.settled)} of {many(status.mini_batches, 'mini-batch')}"


def _amounts(status: Status) -> Iterator[str]:
    if status.items_done or not status.reason:
        yield many(status.items_done, "item")
    if status.items_per_second is not None and status.under_way:
        yield rate(status.items_per_second)
    if status.items_failed:
        yield many(status.items_failed, "failed item")
    if status.retried:
        yield f"{count(status.retried)} retried"
    if status.benched_nodes:
        yield f"{many(len(status.benched_nodes), 'benched node')}"


def _left(status: Status) -> Iterator[str]:
    if status.eta_seconds is not None and status.settled < status.mini_batches:
        yield f"about {duration(max(1.0, status.eta_seconds))} left"


def _state(status: Status) -> Iterator[str]:
    if not status.under_way:
        yield outcome(status.phase, status.reason, status.exit_code)
    elif status.reason:
        yield status.reason

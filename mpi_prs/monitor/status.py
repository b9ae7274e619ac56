"""``status.json``: where a run stands, for ``status`` and for other programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_RESUMABLE, OutputError
from mpi_prs.core.records import read_dataclass, write_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import count, duration, many, percent, printable, rate, size

SILENCE = 60.0
"""Seconds without an update after which a run that says it is under way is believed dead."""

_BAR = 40


@dataclass(frozen=True)
class Status:
    """Where a run stands; the fields are the keys of the file.

    Attributes:
        phase: ``starting``, or a value of :class:`mpi_prs.engine.scheduler.scheduler.Phase`.
        reason: what is waited for, or why it ended.
        mini_batches, items: how many there are to do; with ``--limit``, all items nevertheless.
        mini_batches_done, mini_batches_failed, items_done, items_failed: of all starts.
        retried: attempts of this start that failed and were followed by another.
        mini_batches_per_second, items_per_second: of late; ``None`` as long as nothing is known.
        eta_seconds: until everything is done, at that rate.
        elapsed_seconds: of this start.
        failed_on_two_nodes: mini-batches of this start that failed on two nodes, so that these are not to blame.
        workers, nodes: those at work.
        benched_nodes: names of the nodes that get no more work in this start, because they are sick.
        processes, processes_ready: user processes, and those of them whose ``init()`` is done.
        output, output_bytes: the output folder, and the size of the rows so far.
        started, updated: ISO 8601, UTC.
        pid, host, slurm_job_id: of the master.
        exit_code: once it has ended.
        run: names the run.
    """

    phase: str
    reason: str
    mini_batches: int
    mini_batches_done: int
    mini_batches_failed: int
    items: int
    items_done: int
    items_failed: int
    retried: int
    failed_on_two_nodes: int
    mini_batches_per_second: float | None
    items_per_second: float | None
    eta_seconds: float | None
    elapsed_seconds: float
    workers: int
    nodes: int
    benched_nodes: list[str]
    processes: int
    processes_ready: int
    output: str
    output_bytes: int
    started: str
    updated: str
    pid: int
    host: str
    slurm_job_id: str | None
    exit_code: int | None
    run: str = ""

    @property
    def under_way(self) -> bool:
        """Whether the run is at work, or was when it was killed."""
        return self.phase in ("starting", "running", "draining")

    def age(self, now: float) -> float:
        """Seconds since it was written; ``now`` in seconds since 1970. 0 where it does not tell."""
        try:
            return max(0.0, now - datetime.fromisoformat(self.updated).timestamp())
        except ValueError:
            return 0.0

    @property
    def settled(self) -> int:
        """Mini-batches that are done or failed."""
        return self.mini_batches_done + self.mini_batches_failed


def outcome(phase: str, reason: str, exit_code: int | None) -> str:
    """How it stands or how it ended, in a few words. A job may have worked on everything and have failed even so."""
    word = {None: phase, EXIT_COMPLETE: phase, EXIT_RESUMABLE: "stopped early"}.get(exit_code, "failed")
    return f"{word}: {reason}" if reason else word


def write_status(path: Path, status: Status) -> bool:
    """Replace the file. Returns whether that worked: a full disk is no reason to end a job."""
    try:
        write_dataclass(path, status)
    except OSError:
        return False
    return True


def read_status(path: Path) -> Status | None:
    """The status, or ``None`` when there is none that can be read, or that of another run."""
    status = read_dataclass(Status, path)
    if status is not None and status.run and RunDirectory(path.parent.parent).run_id() not in ("", status.run):
        return None
    return status


def iso_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def run_directory_of(folder: Path) -> RunDirectory:
    """The run whose output folder this is; its run directory ``_run`` is taken as well.

    Raises:
        OutputError: there is no run.
    """
    output = Path(os.path.abspath(folder))
    if output.name == "_run" and os.path.isdir(output):
        output = output.parent
    run = RunDirectory(output)
    if os.path.islink(run.root):
        raise OutputError(f"{run.root} is a link, and so no run directory: expected a folder")
    if not os.path.isdir(run.root):
        raise OutputError(
            f"there is no run in {folder}: expected the folder {run.root}. RUN is the output folder of a job, "
            "the `output` of its config"
        )
    return run


def status_text(run: RunDirectory, now: float) -> str:
    """Where the run stands, for people; ``now`` in seconds since 1970."""
    status = read_status(run.status)
    if status is None and run.status.exists():
        return f"{run.status} cannot be read: it is damaged, or not of this program. A run that is at work replaces it"
    if status is None:
        return f"no status yet in {run.status}: the run is listing its inputs, or has ended before it began"
    age = status.age(now)
    done = percent(status.settled, status.mini_batches)
    filled = _BAR * done // 100
    state = printable(outcome(status.phase, status.reason, status.exit_code))
    rows = [
        ("items", _of(status.items_done, status.items, status.items_failed)),
        ("mini-batches", _of(status.mini_batches_done, status.mini_batches, status.mini_batches_failed)),
        ("tried again", many(status.retried, "attempt") if status.retried else ""),
        ("on two nodes", failed_on_two(status.failed_on_two_nodes)),
        ("benched nodes", ", ".join(map(printable, status.benched_nodes))),
    ]
    if status.under_way:
        rows += [
            ("rate", "" if status.items_per_second is None else rate(status.items_per_second)),
            ("time left", "" if status.eta_seconds is None else f"about {duration(status.eta_seconds)}"),
            ("processes", _processes(status)),
        ]
    rows += [
        ("output", f"{printable(status.output)} ({size(status.output_bytes)} of rows)"),
        ("time", f"{duration(status.elapsed_seconds)} since {status.started}"),
        ("master", f"process {status.pid} on {status.host}" + _slurm(status)),
        ("last sign", f"{duration(round(age))} ago"),
    ]
    lines = [state, f"[{'#' * filled}{'-' * (_BAR - filled)}] {done} %"]
    lines += [f"{name:<14}{value}" for name, value in rows if value]
    if status.under_way and age > SILENCE:
        lines.append(_silence(status, age))
    return "\n".join(lines)


def _silence(status: Status, age: float) -> str:
    if status.settled >= status.mini_batches:
        return (
            f"no sign of life for {duration(age)}, after the last mini-batch: the output is being put together, or the "
            "run was killed while it was; then the same command completes it"
        )
    return f"no sign of life for {duration(age)}: the run was probably killed; the same command resumes it"


def failed_on_two(mini_batches: int) -> str:
    """What such mini-batches mean; nothing when there is none."""
    if not mini_batches:
        return ""
    return f"{many(mini_batches, 'mini-batch')} failed on two nodes: look at the data rather than at the nodes"


def _of(done: int, whole: int, failed: int) -> str:
    return f"{count(done)} of {count(whole)}" + (f", {count(failed)} failed" if failed else "")


def _processes(status: Status) -> str:
    if not status.workers:
        return ""
    return (
        f"{count(status.processes_ready)} of {count(status.processes)} ready, "
        f"{many(status.workers, 'worker')} on {many(status.nodes, 'node')}"
    )


def _slurm(status: Status) -> str:
    return f", Slurm job {status.slurm_job_id}" if status.slurm_job_id else ""

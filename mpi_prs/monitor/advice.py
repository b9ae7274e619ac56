"""One line of advice when the numbers of a run say that it could go better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from mpi_prs.core.units import count, duration, many
from mpi_prs.monitor.statistics import Statistics, Work
from mpi_prs.wire.failure import FailureKind

SHORT_RUN = 0.01
"""Seconds of ``run()`` below which a mini-batch costs more than it should."""

_GOOD_RUN = 1.0  # seconds; long beside all that a mini-batch costs, short beside a retry
_MINI_BATCHES_A_PROCESS = 4  # at least, so that all end at about the same time
_ENOUGH = 5  # mini-batches, to say that somebody is slow
_SLOW = 2.0
_NEAR_TIMEOUT = 0.8
_BUSY = 0.5
_LONG_INIT = 0.25  # of the wall time


@dataclass(frozen=True)
class Conditions:
    """Under which a start was run.

    Attributes:
        wall_seconds: of this start.
        init_seconds: until the first user process was ready.
        processes: user processes.
        run_invocation_timeout: seconds.
        mini_batch_size: items, on average.
        size_unit: what follows a number of items in the config; ``None`` where the size cannot be chosen.
    """

    wall_seconds: float
    init_seconds: float
    processes: int
    run_invocation_timeout: float
    mini_batch_size: float
    size_unit: str | None = ""


@dataclass(frozen=True)
class Slowest:
    """Who takes longest: its mean ``run()`` in seconds, and how many times the median of the others that is."""

    name: str
    mean_run: float
    ratio: float


def slowest(works: Mapping[str, Work]) -> Slowest | None:
    """The slowest of two or more that have each done at least five mini-batches."""
    means = {name: work.mean_run for name, work in works.items() if work.mini_batches >= _ENOUGH}
    if len(means) < 2:
        return None
    name = max(means, key=lambda name: means[name])
    others = median(mean for other, mean in means.items() if other != name)
    return Slowest(name, means[name], means[name] / others if others else 1.0)


def busy(statistics: Statistics, conditions: Conditions) -> float | None:
    """The part of this start's time, 0 to 1, that the user processes spent in ``run()``, failed attempts included."""
    available = conditions.wall_seconds * conditions.processes
    if available <= 0:
        return None
    start = statistics.latest
    return min(1.0, (start.work.run_seconds + start.failed_seconds) / available)


def advice(statistics: Statistics, conditions: Conditions) -> str | None:
    """The first thing that is off, and what to do; ``None`` when all is well."""
    return (
        _sick_nodes(statistics)
        or _larger_mini_batches(statistics, conditions)
        or _slow_part(statistics)
        or _near_timeout(statistics, conditions)
        or _timeouts(statistics, conditions)
        or _long_init(statistics, conditions)
        or _idle_processes(statistics, conditions)
    )


def _larger_mini_batches(statistics: Statistics, conditions: Conditions) -> str | None:
    total, processes = statistics.total, max(1, conditions.processes)
    unit = conditions.size_unit
    if not total.items or not total.run_seconds or statistics.run_p50 >= SHORT_RUN or unit is None:
        return None
    good = _GOOD_RUN * total.items / total.run_seconds
    size = _round(min(good, total.items / (processes * _MINI_BATCHES_A_PROCESS)))
    if size < 2 * conditions.mini_batch_size:
        return None
    return (
        f"half of the mini-batches take {duration(statistics.run_p50)} or less: make them larger, such as "
        f"mini_batch_size: {size}{unit} (a new run)"
    )


def _round(size: float) -> int:
    """Down to two digits: 12345 → 12000."""
    whole = int(size)
    unit = int(10 ** max(0, len(str(whole)) - 2))
    return whole // unit * unit


def _sick_nodes(statistics: Statistics) -> str | None:
    if not statistics.benched:
        return None
    names = ",".join(statistics.benched)
    return f"leave out what was benched (--exclude={names} for sbatch or srun) until its GPUs and disks are looked at"


def _slow_part(statistics: Statistics) -> str | None:
    workers = {f"worker {rank} on {node}": work for (node, rank), work in statistics.workers.items()}
    nodes = {f"node {name}": work for name, work in statistics.nodes.items()}
    for works in (nodes, workers):
        found = slowest(works)
        if found is not None and found.ratio >= _SLOW and found.mean_run >= SHORT_RUN:
            return (
                f"{found.name} is {found.ratio:.1f} times as slow as the others (run() takes "
                f"{duration(found.mean_run)} there): look at its load, its GPU and its disk"
            )
    return None


def _near_timeout(statistics: Statistics, conditions: Conditions) -> str | None:
    limit = conditions.run_invocation_timeout
    if statistics.run_p95 <= _NEAR_TIMEOUT * limit:
        return None
    return (
        f"one mini-batch in twenty takes {duration(statistics.run_p95)} or more, and run_invocation_timeout is "
        f"{duration(limit)}: raise it, or make the mini-batches smaller"
    )


def _timeouts(statistics: Statistics, conditions: Conditions) -> str | None:
    failures = statistics.latest.failures
    if late := failures[FailureKind.TIMEOUT.value]:
        return (
            f"{many(late, 'attempt')} took longer than run_invocation_timeout "
            f"({duration(conditions.run_invocation_timeout)}): raise it, or see in the error log where run() hangs"
        )
    if late := failures[FailureKind.OVERHEAD_TIMEOUT.value]:
        return f"{many(late, 'attempt')} took longer than task_overhead_timeout to read: raise it, or look at the disk"
    return None


def _long_init(statistics: Statistics, conditions: Conditions) -> str | None:
    used = busy(statistics, conditions)
    if used is None or used >= _BUSY or conditions.init_seconds < _LONG_INIT * conditions.wall_seconds:
        return None
    if conditions.init_seconds < _GOOD_RUN:
        return None
    return (
        f"the user processes were busy {100 * used:.0f} % of the time, and the first init() took "
        f"{duration(conditions.init_seconds)}: use fewer processes for so little work, or make init() faster"
    )


def _idle_processes(statistics: Statistics, conditions: Conditions) -> str | None:
    start = statistics.latest
    tried = start.work.mini_batches + sum(start.failures.values())
    idle = conditions.processes - tried
    if not tried or idle <= 0:
        return None
    can_be_smaller = conditions.mini_batch_size > 1 and conditions.size_unit is not None
    remedy = "a smaller mini_batch_size" if can_be_smaller else "fewer processes"
    return (
        f"{count(idle)} of {many(conditions.processes, 'user process')} had nothing to do, for there were fewer "
        f"mini-batches than processes: use {remedy}"
    )

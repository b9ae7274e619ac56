"""The summary at the end of a start: for the terminal and for ``job_result.txt``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import count, duration, many, printable, rate, size
from mpi_prs.monitor.advice import Conditions, Slowest, advice, busy, slowest
from mpi_prs.monitor.statistics import Statistics
from mpi_prs.monitor.status import failed_on_two, outcome


@dataclass(frozen=True)
class Summary:
    """How a start of a run went.

    Attributes:
        phase, reason, exit_code: how it ended; the phase is a value of
        :class:`mpi_prs.engine.scheduler.scheduler.Phase`.
        statistics: the whole run, with all its starts.
        conditions: of this start.
        busy: part of the time that the user processes spent in ``run()``, 0 to 1; ``None``: there were none.
        items_per_second: of this start, over its whole wall time.
        slowest_node: where more than one node did enough.
        output: the file with the rows; ``None``: there is none.
        directory: the paths of the run.
        advice: one line, when something is off.
    """

    phase: str
    reason: str
    exit_code: int
    statistics: Statistics
    conditions: Conditions
    busy: float | None
    items_per_second: float
    slowest_node: Slowest | None
    output: Path | None
    directory: RunDirectory
    advice: str | None

    def text(self) -> str:
        """About a dozen lines, aligned."""
        statistics = self.statistics
        rows = [
            ("items", f"{count(statistics.total.items)} ok, {count(statistics.items_failed)} failed"),
            (
                "mini-batches",
                f"{count(statistics.done)} ok, {count(statistics.failed)} failed, {count(statistics.retried)} retried",
            ),
            ("in parts", self._in_parts()),
            ("copies", self._copies()),
            ("too few rows", self._too_few_rows()),
            ("more rows", f"{count(statistics.rows_above)} more than items" if statistics.rows_above else ""),
            ("this start", self._this_start()),
            ("wall time", self._wall_time()),
            ("processes", self._processes()),
            ("throughput", rate(self.items_per_second) if self.items_per_second else ""),
            ("run()", self._run()),
            ("slowest node", self._slowest_node()),
            ("lost workers", count(statistics.lost_workers) if statistics.lost_workers else ""),
            ("benched nodes", "; ".join(f"{node}: {why}" for node, why in statistics.benched.items())),
            ("on two nodes", failed_on_two(statistics.failed_on_two_nodes)),
            ("output", self._output()),
            ("failed items", str(self.directory.failed_items) if statistics.items_failed else ""),
            ("logs", str(self.directory.logs)),
            ("advice", self.advice or ""),
        ]
        return "\n".join([self._headline(), *(f"  {name:<14}{printable(value)}" for name, value in rows if value)])

    def _headline(self) -> str:
        return printable(outcome(self.phase, self.reason, self.exit_code)) + f" (exit code {self.exit_code})"

    def _wall_time(self) -> str:
        text = duration(self.conditions.wall_seconds)
        if self.conditions.init_seconds:
            text += f", the first init() done after {duration(self.conditions.init_seconds)}"
        earlier = self.statistics.starts[:-1]
        if earlier:
            seconds = sum(start.elapsed for start in earlier) + self.conditions.wall_seconds
            text += f"; {duration(seconds)} in all {len(earlier) + 1} starts"
        return text

    def _this_start(self) -> str:
        """What the time, the throughput and the advice are about, where the counts are of all starts."""
        if len(self.statistics.starts) < 2:
            return ""
        work = self.statistics.latest.work
        return f"{many(work.items, 'item')} ok in {many(work.mini_batches, 'mini-batch')}"

    def _too_few_rows(self) -> str:
        if self.statistics.short_example is None:
            return ""
        number, returned, items = self.statistics.short_example
        return (
            f"run() returned {many(returned, 'row')} for {many(items, 'item')} in mini-batch {number}, and too few in "
            f"{many(self.statistics.short, 'mini-batch')} in all: mpi-prs failed {self.directory.output}"
        )

    def _processes(self) -> str:
        if self.busy is None:
            return ""
        return f"{count(self.conditions.processes)}, busy {100 * self.busy:.0f} % of the time"

    def _run(self) -> str:
        statistics = self.statistics
        if not statistics.total.mini_batches:
            return ""
        p50, p95, longest = map(duration, (statistics.run_p50, statistics.run_p95, statistics.run_max))
        return f"p50 {p50}, p95 {p95}, longest {longest}"

    def _in_parts(self) -> str:
        statistics = self.statistics
        if not statistics.parts and not statistics.items_alone:
            return ""
        alone = f"{many(statistics.items_alone, 'item')} failed alone"
        return f"{alone}, {many(statistics.parts, 'call')} of run() with parts" if statistics.parts else alone

    def _copies(self) -> str:
        statistics = self.statistics
        if not statistics.ended:
            return ""
        attempts = f"{many(statistics.ended, 'attempt')} ended, as another was done first"
        share = 100 * statistics.ended_seconds / max(statistics.total.run_seconds + statistics.ended_seconds, 1e-9)
        return f"{attempts}: {duration(statistics.ended_seconds)} wasted ({share:.2g} % of all run() time)"

    def _slowest_node(self) -> str:
        found = self.slowest_node
        if found is None or f"{found.ratio:.2g}" == "1":
            return ""
        return f"{found.name}: run() takes {duration(found.mean_run)}, {found.ratio:.2g} × the others"

    def _output(self) -> str:
        if self.output is None:
            return ""
        try:
            return f"{self.output} ({size(self.output.stat().st_size)})"
        except OSError:
            return f"{self.output}"


def summarise(
    statistics: Statistics,
    *,
    wall_seconds: float,
    init_seconds: float,
    processes: int,
    run_invocation_timeout: float,
    mini_batch_size: float,
    size_unit: str | None,
    phase: str,
    reason: str,
    exit_code: int,
    directory: RunDirectory,
    output_file: str | None,
) -> Summary:
    """Make the summary of the latest start of a run.

    Args:
        statistics: see :func:`mpi_prs.monitor.statistics.read_statistics`.
        output_file: name of the ``append_row`` file; ``None`` when there is none. Its partial name is shown as long as
            it has no other.
        Others: see :class:`Summary` and :class:`mpi_prs.monitor.advice.Conditions`.
    """
    conditions = Conditions(wall_seconds, init_seconds, processes, run_invocation_timeout, mini_batch_size, size_unit)
    output = None
    if output_file is not None:
        places = directory.output_file(output_file), directory.partial_output_file(output_file)
        output = next((path for path in places if path.exists()), None)
    return Summary(
        phase=phase,
        reason=reason,
        exit_code=exit_code,
        statistics=statistics,
        conditions=conditions,
        busy=busy(statistics, conditions),
        items_per_second=statistics.latest.work.items / wall_seconds if wall_seconds > 0 else 0.0,
        slowest_node=slowest(statistics.nodes),
        output=output,
        directory=directory,
        advice=advice(statistics, conditions),
    )

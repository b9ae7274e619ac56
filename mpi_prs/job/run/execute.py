"""Execute one start of a run on a given transport: restore, master, completion, reports.

What is done here is the same under MPI and in this process; only the transport differs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from mpi_prs.child.rows.row_format import encoding, form_of
from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_FAILED, EXIT_RESUMABLE, JobStopped, MpiPrsError, OutputError
from mpi_prs.core.files import empty_folder, move, replacing
from mpi_prs.core.secrecy import scrub
from mpi_prs.core.units import many, many_are
from mpi_prs.engine.log_file import log_file
from mpi_prs.engine.master.master import Ending, Master
from mpi_prs.engine.node import node_name
from mpi_prs.engine.scheduler.scheduler import Scheduler
from mpi_prs.engine.scheduler.states import JobPhase, Policy
from mpi_prs.engine.stop_signals import StopSignals
from mpi_prs.engine.transport import LocalTransport, Transport, local_world
from mpi_prs.engine.worker.worker import Worker
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.job.config.model import JobConfig, hints
from mpi_prs.job.run.opening import OpenRun, RunOptions
from mpi_prs.job.run.provenance import Provenance
from mpi_prs.job.run.uploading import upload_output
from mpi_prs.monitor.progress import Progress
from mpi_prs.monitor.report import write_reports
from mpi_prs.monitor.statistics import read_statistics
from mpi_prs.monitor.summary import Summary, summarise
from mpi_prs.wire.messages import Tag, pack_json
from mpi_prs.wire.settings import ProcessSettings, Share, WorkerSettings

_log = logging.getLogger("mpi_prs.job")

WINDOW_SECONDS = 0.03
"""Work that a user process may have waiting: long enough that it never waits for the master, short enough that neither
the end of a job nor a lost worker is felt."""

_MASTER_PATIENCE = 5
"""As many times longer than for a worker. A master that waits for its filesystem says nothing, which takes minutes when
a file server is replaced by its twin; and to start anew costs more than a worker."""


class LookAhead(NamedTuple):
    """What a user process may have waiting: seconds of work, and mini-batches while their duration is not known."""

    seconds: float
    first: int


_OF_PATHS = LookAhead(WINDOW_SECONDS, 1)
_OF_TABLES = LookAhead(0.2, 2)  # several are decoded meanwhile
_OF_REMOTE_FILES = LookAhead(1.0, 8)  # many are under way at once


@dataclass(frozen=True)
class Outcome:
    """How a start ended: a word, the reason and what to do next if there is something to say, and the exit code."""

    phase: str
    reason: str
    exit_code: int


def execute(
    config: JobConfig,
    options: RunOptions,
    run: OpenRun,
    transport: Transport,
    progress: Progress,
    taking_over: Callable[[], None],
    signals: StopSignals,
    lead: float = 0.0,
) -> Summary:
    """Work on everything that is left of an open run, as rank 0 of ``transport``.

    Args:
        signals: entered already; the master heeds them.
        lead: seconds between the warning of a time limit and the limit.
        taking_over: called just before the master begins, who then tells the workers how it ends; before that, and
            if this raises before that, the caller has to.

    Raises:
        LaunchError: the workers cannot do their work.
    """
    assert run.output is not None
    log = log_file(logging.getLogger("mpi_prs"), run.directory.node_log(node_name(), "master"), config.logging_level)
    with log:
        scheduler = _restored_scheduler(config, options, run)
        _say_what_is_left(scheduler, run)
        _say_what_is_fetched(config)
        for hint in hints(config):
            _log.info("%s", hint)
        settings = _worker_settings(config, options, run, scheduler.policy.last_try)
        provenance = Provenance(config, run.directory, run.id)

        def on_tick(master: Master) -> None:
            progress.on_tick(master)
            provenance.on_tick(master)

        master = Master(transport, scheduler, run.output, settings, signals, on_tick, lead)
        signals.hold_back()
        taking_over()
        try:
            outcome = _close_the_books(config, options, run, master.run(), master, provenance)
        except JobStopped as error:  # the disk is full: what is on record holds
            if not run.directory.journal.exists():  # nothing is made anew where somebody has removed it all
                raise
            outcome = Outcome(JobPhase.STOPPED.value, str(error), error.exit_code)
        except MpiPrsError as error:
            progress.finish(master, "failed", str(error), error.exit_code)
            provenance.end("failed", error.exit_code)
            raise
        outcome = replace(outcome, reason=scrub(outcome.reason))
        summary = _report(config, run, master, outcome)
        progress.finish(master, outcome.phase, outcome.reason, outcome.exit_code)
        provenance.end(outcome.phase, outcome.exit_code)
        return summary


def run_in_this_process(
    config: JobConfig,
    options: RunOptions,
    run: OpenRun,
    processes: int,
    progress: Progress,
    signals: StopSignals,
    lead: float = 0.0,
) -> Summary:
    """:func:`execute` without MPI: one worker in a thread, with ``processes`` user processes."""
    config = config.model_copy(update={"processes_per_rank": processes})
    world = local_world(2)
    thread = threading.Thread(target=_local_worker, args=(world,), name="worker")
    thread.start()
    taken_over = False

    def take_over() -> None:
        nonlocal taken_over
        taken_over = True

    try:
        return execute(config, options, run, world[0], progress, take_over, signals, lead)
    finally:
        if not taken_over:
            world[0].send(1, Tag.STOP, pack_json(exit_code=EXIT_FAILED, graceful=False))
        thread.join()
        for transport in world:
            transport.close()


def work_through(config: JobConfig, run: OpenRun, processes: int, signals: StopSignals) -> Ending:
    """Work on what is left of a run, in this process and without its books: no status, no reports, no completion.

    Args:
        signals: entered already.

    Raises:
        LaunchError, JobStopped: as :func:`execute`.
    """
    assert run.output is not None
    config = config.model_copy(update={"processes_per_rank": processes})
    options = RunOptions(accept_changes=True)
    scheduler = _restored_scheduler(config, options, run)
    settings = _worker_settings(config, options, run, scheduler.policy.last_try)
    world = local_world(2)
    thread = threading.Thread(target=_local_worker, args=(world,), name="worker")
    thread.start()
    try:
        return Master(world[0], scheduler, run.output, settings, signals, lambda _master: None).run()
    finally:
        thread.join()
        for transport in world:
            transport.close()


def _local_worker(world: list[LocalTransport]) -> None:
    try:
        Worker(world[1]).run()
    except Exception:
        logging.getLogger("mpi_prs.worker1").exception("the worker has failed")
        world[0].report_lost(1)


def _policy(config: JobConfig, options: RunOptions, manifest: Manifest) -> Policy:
    ahead = _look_ahead(config, manifest)
    least = 1 if config.loaders is None else config.loaders_ahead
    return Policy(
        run_max_try=config.run_max_try,
        bisect_on_failure=config.bisect_on_failure,
        speculative_copies=config.speculative_copies,
        error_threshold=config.error_threshold,
        allowed_failed_count=config.allowed_failed_count,
        allowed_failed_percent=config.allowed_failed_percent,
        heartbeat_timeout=config.heartbeat_timeout,
        progress_update_timeout=config.progress_update_timeout,
        limit=options.limit,
        window=ahead.seconds,
        first_waiting=max(ahead.first, least),
        least_waiting=least,
    )


def _restored_scheduler(config: JobConfig, options: RunOptions, run: OpenRun) -> Scheduler:
    manifest, ledger = run.manifest, run.ledger
    policy = _policy(config, options, manifest)
    stop_of_stay = manifest.stop_of_stay if manifest.stays else None
    now = time.monotonic()
    scheduler = Scheduler(manifest.mini_batches, manifest.items_of, policy, now, stop_of_stay, manifest.items)
    scheduler.restore_done(ledger.done, ledger.items, ledger.short)
    scheduler.restore_failed_items(ledger.failed_items)
    for number, divided in ledger.divided.items():
        if divided.left:
            scheduler.restore_parts(number, divided.items, divided.left)
    for number in ledger.failed:
        scheduler.restore_failed(number)
    for number, attempts in ledger.attempts.items():
        scheduler.restore_attempts(number, attempts)
    scheduler.check()
    return scheduler


def _look_ahead(config: JobConfig, manifest: Manifest) -> LookAhead:
    """The longer it takes to load, the more is loaded ahead."""
    if not manifest.needs_loading:
        return _OF_PATHS
    return _OF_REMOTE_FILES if any(dataset.is_remote for dataset in config.datasets()) else _OF_TABLES


def _say_what_is_left(scheduler: Scheduler, run: OpenRun) -> None:
    counts = scheduler.counts()
    if run.ledger.starts:
        _log.info(
            "resuming: %d of %d mini-batches are done, %d have failed, %d are left (the inputs are not listed again)",
            counts.done,
            counts.mini_batches,
            counts.failed,
            scheduler.left,
        )
    else:
        about = "" if run.manifest.exact else "about "
        what = f"{many(run.manifest.items, 'item')} in {many(counts.mini_batches, 'mini-batch')}"
        _log.info("%s%s", about, what)


def _say_what_is_fetched(config: JobConfig) -> None:
    """Before the first ``init()``, which may wait for it for long."""
    fetched = [f"{side.name} ({scrub(side.path)})" for side in config.side_input_list() if side.is_fetched]
    if fetched:
        _log.info("each node fetches its side inputs before init(): %s", ", ".join(fetched))


def _worker_settings(config: JobConfig, options: RunOptions, run: OpenRun, last_try: int) -> WorkerSettings:
    process = ProcessSettings(
        interpreter=str(config.environment or sys.executable),
        entry_script=str(config.entry_script),
        source_directory=str(config.source_directory),
        arguments=config.arguments,
        row_form=encoding(config.append_row_file_name, config.to_csv.model_dump())
        if config.output_action == "append_row"
        else None,
        run_invocation_timeout=config.run_invocation_timeout,
        task_overhead_timeout=config.task_overhead_timeout,
        init_timeout=config.init_timeout,
        logging_level=config.logging_level,
        payloads=run.manifest.kind,
        tables=run.manifest.of_tables,
        columns=str(run.directory.columns),
        run=run.id,
        spill=str(run.directory.spill),
        loaders=config.loaders if isinstance(config.loaders, int) else -1 if config.loaders else 0,
        load_tries=config.run_max_try,
        loaders_ahead=config.loaders_ahead,
        loaders_memory=config.loaders_memory,
        mini_batches_in_flight=config.mini_batches_in_flight,
    )
    return WorkerSettings(
        last_try=last_try,
        bisect_on_failure=config.bisect_on_failure,
        run_root=str(config.output),
        run=run.id,
        token=run.token,
        processes=config.processes_per_rank,
        share=Share.alone(config.processes_per_rank),
        gpus_per_process=config.slurm.gpus_per_process,
        environment_variables=dict(config.environment_variables),
        checks_code=run.directory.sources.exists() and not options.accept_changes,
        azureml=config.azureml,
        heartbeat_interval=min(5.0, config.heartbeat_timeout / 4),
        master_timeout=_MASTER_PATIENCE * config.heartbeat_timeout,
        window=WINDOW_SECONDS,
        scratch=config.scratch,
        scratch_limit=config.scratch_limit,
        storages=[dataset.storage.secret() if dataset.is_remote else {} for dataset in config.datasets()],
        side_inputs=[side.secret() for side in config.side_input_list()],
        stop_grace=config.stop_grace,
        process=process,
    )


def _close_the_books(
    config: JobConfig, options: RunOptions, run: OpenRun, ending: Ending, master: Master, provenance: Provenance
) -> Outcome:
    """Give the output its name when everything is done, or put what there is on disk."""
    assert run.output is not None
    counts = master.counts
    left = counts.mini_batches - counts.done - counts.failed
    phase = ending.phase.value
    if ending.phase is JobPhase.COMPLETE and not left:
        if config.output_action == "append_row" and not counts.items_done:
            run.output.sync()
            reason = f"no item has succeeded ({counts.items_failed} have failed), so there is no output"
            return Outcome(phase, reason, EXIT_FAILED)
        if config.output_order == "input":
            _log.info("putting the rows into the order of the inputs")
        run.output.complete(
            run.directory.output_file(config.append_row_file_name) if config.output_action == "append_row" else None,
            run.directory.kept_rows,
            in_input_order=config.output_order == "input",
            keep=counts.failed > 0 or counts.items_alone > 0,
            verify=config.verify_output,
            metadata=provenance.essentials() if form_of(config.append_row_file_name).is_made_at_the_end else None,
        )
        with contextlib.suppress(OSError):
            empty_folder(run.directory.spill)  # of processes that were killed
        upload_output(config, run.directory)
        return Outcome(phase, "", EXIT_COMPLETE)
    run.output.sync()
    what_is_left = f"{many_are(left, 'mini-batch')} left"
    if ending.phase is JobPhase.COMPLETE:
        reason = (
            f"{many_are(left, 'mini-batch')} left, the same command without --limit goes on (--limit {options.limit})"
        )
        return Outcome("limit reached", reason, EXIT_COMPLETE)
    if ending.phase is JobPhase.ABORTED:
        return Outcome(phase, ending.reason, EXIT_FAILED)
    return Outcome(phase, f"{ending.reason}; {what_is_left}: the same command resumes", EXIT_RESUMABLE)


def _report(config: JobConfig, run: OpenRun, master: Master, outcome: Outcome) -> Summary:
    """Everything that people read afterwards. The job's end does not hang on it: a full disk is only logged."""
    directory = run.directory
    try:
        statistics, failed = write_reports(directory, run.manifest)
        if failed:
            _log.info("what failed is listed in %s", directory.failed_items)
    except (OSError, OutputError) as error:
        _log.warning("the reports could not be written: %s", error)
        try:
            statistics = read_statistics(directory.journal, run.manifest.items_of)
        except OSError as error:
            raise JobStopped(f"the run directory {directory.root} cannot be read any more: {error.strerror}") from error
    summary = summarise(
        statistics,
        wall_seconds=time.monotonic() - master.tally.started,
        init_seconds=master.tally.init_seconds,
        processes=len(master.nodes) * config.processes_per_rank,
        run_invocation_timeout=config.run_invocation_timeout,
        mini_batch_size=run.manifest.items / run.manifest.mini_batches,
        size_unit=None if config.partition_keys else "rows" if run.manifest.of_tables else "",
        phase=outcome.phase,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        directory=directory,
        output_file=config.append_row_file_name if config.output_action == "append_row" else None,
    )
    with contextlib.suppress(OSError):  # those of earlier starts are kept
        move(directory.job_result, directory.earlier_job_result(len(statistics.starts) - 1))
    with contextlib.suppress(OSError), replacing(directory.job_result) as file:
        file.write((summary.text() + "\n").encode("utf-8", "backslashreplace"))
    return summary

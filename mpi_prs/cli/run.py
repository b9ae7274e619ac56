"""``run``: from a job config to an exit code, with what a person wants to see on the way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from mpi_prs.cli.job_file import load_job
from mpi_prs.cli.options import check_together, options_of_a_run
from mpi_prs.cli.session import Session
from mpi_prs.core.environ import AZUREML, HERE
from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_RESUMABLE, ConfigError, InputError, JobStopped, ScriptError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import count, many
from mpi_prs.engine.scheduler.states import JobPhase
from mpi_prs.engine.stop_signals import StopSignals
from mpi_prs.engine.worker.worker import serve
from mpi_prs.inputs.columns import shown_columns
from mpi_prs.inputs.manifest import Manifest, write_manifest
from mpi_prs.inputs.payload import names
from mpi_prs.inputs.reader.survey import plan_apart
from mpi_prs.inputs.since import SECONDS, look_again
from mpi_prs.job.config.model import JobConfig, check_entry_script, default_config, hints
from mpi_prs.job.run.execute import execute, run_in_this_process
from mpi_prs.job.run.opening import OpenRun, RunOptions, open_run
from mpi_prs.job.run.uploading import check_destination, upload_output
from mpi_prs.monitor.progress import Progress
from mpi_prs.slurm.environment import SlurmEnvironment
from mpi_prs.slurm.requeue import put_back

_log = logging.getLogger("mpi_prs.slurm")

_MOST_WARNINGS = 50
_CHECKOUT = Path(__file__).resolve().parents[2]
_CHECK = Path(__file__).parent.parent / "child" / "check.py"


@click.command()
@click.option("--local", type=click.IntRange(min=1), metavar="N", help="Without MPI: N user processes on this machine.")
@options_of_a_run
@click.option("--dry-run", is_flag=True, help="List inputs and mini-batches and check the script; run nothing.")
@click.pass_obj
def run(
    session: Session,
    config: Path,
    local: int | None = None,
    overrides: tuple[str, ...] = (),
    output: str | None = None,
    step: str | None = None,
    overwrite: bool = False,
    only_failed: bool = False,
    accept_changes: bool = False,
    accept_owner: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
) -> int:
    """Run the job CONFIG, or resume it; under mpirun or srun on all ranks.

    CONFIG is a job config, or Azure ML's v2 YAML with a step of type parallel.
    """
    check_together(overwrite, only_failed)
    if not dry_run and local is None and session.ranks().rank != 0:  # a launcher that __main__ does not know
        session.workers_told = True
        sys.exit(serve(session.ranks()))
    job = load_job(config, overrides, output, step, makes_folders=not dry_run)
    options = RunOptions(overwrite, only_failed, accept_changes, accept_owner, limit)
    if dry_run:
        return show_plan(job, limit)
    return run_job(session, job, options, local)


def run_default(context: click.Context) -> int:
    """``run`` of the config that is meant where nothing is said, under a launcher. Raises ConfigError: there is none.

    For who types the name alone, what can be typed.
    """
    session: Session = context.obj
    if session.transport is None:
        click.echo(context.get_help())
        return 2  # as for other commands that cannot be meant
    config = default_config(Path.cwd())
    if config is None:
        raise ConfigError(
            "no command, and no job config: give one (mpirun -n 8 python -m mpi_prs run CONFIG), set MPI_PRS_CONFIG, "
            "or put mpi_prs.yaml into this folder. All commands: python -m mpi_prs --help"
        )
    click.echo(f"no command given: running the default config {config}", err=True)
    try:
        code: int = context.invoke(run, config=config)
    except InputError as error:
        if config.parent != _CHECKOUT / "configs":
            raise
        raise InputError(f"{error} `make demo` in {_CHECKOUT} makes the demo's data, and runs it") from None
    return code


def run_job(session: Session, config: JobConfig, options: RunOptions, local: int | None) -> int:
    """Run or resume the job; returns the exit code. A job of Slurm's that is stopped early goes back into the queue."""
    slurm = SlurmEnvironment.of()
    lead = slurm.signal_lead if slurm else None
    progress = Progress(sys.stderr)
    with StopSignals(knows_the_limit=lead is not None) as signals, _console(progress):
        goes_on = False
        try:
            signals.raise_them()
            exit_code, goes_on = _run(session, config, options, local, progress, signals, lead or 0.0)
        except JobStopped:
            goes_on = bool(signals.received)  # else a full disk or the like, and the queue would be no help
            raise
        finally:
            if slurm and goes_on and not signals.by_hand:
                _log.warning("%s", put_back(slurm.job_id, RunDirectory(config.output), config.slurm.max_requeues))
    return exit_code


def _run(
    session: Session,
    config: JobConfig,
    options: RunOptions,
    local: int | None,
    progress: Progress,
    signals: StopSignals,
    lead: float,
) -> tuple[int, bool]:
    """Returns the exit code, and whether another start would go on where this one was stopped."""
    check_entry_script(config)
    transport = None if local is not None else session.ranks()
    run = open_run(config, options, progress.listing)
    try:
        if run.output is None:
            upload_output(config, run.directory)
            return _say_complete(config, run), False
        check_destination(config)
        output = run.output
        progress.begin(run.directory, run.manifest.mini_batches, run.manifest.items, lambda: output.size)
        progress.print(f"{config.name}: output in {config.output}")
        if transport is None:
            assert local is not None
            summary = run_in_this_process(config, options, run, local, progress, signals, lead)
        else:
            summary = execute(config, options, run, transport, progress, session.master_takes_over, signals, lead)
    finally:
        run.close()
    progress.close()
    click.echo(summary.text(), err=True)
    stranded = summary.phase == JobPhase.STRANDED.value
    return summary.exit_code, summary.exit_code == EXIT_RESUMABLE and (stranded or bool(signals.received))


@contextlib.contextmanager
def _console(progress: Progress) -> Iterator[None]:
    """The program's log goes to the console too, above the progress."""
    log = logging.getLogger("mpi_prs")
    console = _ConsoleLog(progress)
    log.addHandler(console)
    log.setLevel(logging.INFO)  # until the run is open, and has a log of its own level
    try:
        yield
    finally:
        log.removeHandler(console)
        progress.close()


def _say_complete(config: JobConfig, run: OpenRun) -> int:
    failed = len(run.ledger.failed)
    click.echo(
        f"{config.name} is complete already: {many(len(run.ledger.done), 'mini-batch')} done, {failed} failed", err=True
    )
    click.echo(f"output: {config.output}", err=True)
    if failed:
        click.echo("--only-failed tries the failed ones again; --overwrite starts anew", err=True)
    if changed := _what_has_changed(config, run):
        click.echo(changed, err=True)
    return EXIT_COMPLETE


def _what_has_changed(config: JobConfig, run: OpenRun) -> str:
    """What is to be said of inputs that are others than when they were listed; empty: nothing."""
    try:
        since = look_again(config.datasets(), run.manifest)
    except InputError as error:
        return f"its inputs can no longer be listed: {error}"
    text = ""
    if str(since):
        text = (
            f"files of its inputs since they were listed: {since}. The run knows nothing of that: --overwrite starts "
            "anew, --output DIR writes elsewhere"
        )
    if not since.whole:
        text += f"{'; ' if text else ''}its inputs were looked at for {SECONDS:.0f} s: {count(since.seen)} files"
    return text


class _ConsoleLog(logging.Handler):
    """Shows the program's log above the progress; after many warnings the log file alone has them."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress
        self._warnings = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._warnings += 1
            if self._warnings == _MOST_WARNINGS + 1:
                self._progress.print("(further warnings are in the log and in the output of `mpi-prs failed`)")
            if self._warnings > _MOST_WARNINGS and record.levelno < logging.ERROR:
                return
        self._progress.log(record.getMessage())


def show_plan(config: JobConfig, limit: int | None) -> int:
    """``--dry-run``: what would be run, and whether the script can be."""
    check_entry_script(config)
    with tempfile.TemporaryDirectory(prefix="mpi_prs-") as folder:
        path = Path(folder, "manifest.arrow")
        write_manifest(path, plan_apart(config.datasets(), config.batch_size(), config.partition_keys))
        manifest = Manifest.open(path)
        about = "" if manifest.exact else "about "
        count = manifest.mini_batches if limit is None else min(limit, manifest.mini_batches)
        click.echo(
            f"{config.name}: {about}{many(manifest.items, 'item')} in {many(manifest.mini_batches, 'mini-batch')}"
        )
        if limit is not None:
            click.echo(f"--limit: the first {count} of them")
        for line in shown_columns(manifest):
            click.echo(line)
        for number in sorted({*range(min(2, count)), count - 1}):
            described = names(manifest, number)
            click.echo(f"mini-batch {number}: {about}{many(manifest.items_of(number), 'item')}")
            for name in [*described[:3], *(["…"] if len(described) > 3 else [])]:
                click.echo(f"  {os.fsencode(name).decode('utf-8', 'replace')}")
    _import_script(config)
    click.echo(f"entry script: {config.entry_script} imports, and has run()")
    for hint in hints(config):
        click.echo(hint)
    click.echo(f"output: {config.output} (nothing has been written)")
    return EXIT_COMPLETE


def _import_script(config: JobConfig) -> None:
    """Import the script where it would be imported: with its interpreter, in a process of its own."""
    settings = {
        "entry_script": str(config.entry_script),
        "source_directory": str(config.source_directory),
        "arguments": list(config.arguments),
        "loads": config.loaders is not None,
    }
    done = subprocess.run(
        [str(config.environment or sys.executable), str(_CHECK)],
        input=json.dumps(settings).encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**HERE, AZUREML.name: config.azureml, **config.environment_variables},
        check=False,
    )
    if done.returncode:
        text = done.stderr.decode("utf-8", "replace").strip()
        raise ScriptError(f"the entry script {config.entry_script} cannot be imported:\n{text}")

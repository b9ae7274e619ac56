"""``submit``: the job as a batch job of Slurm, and the way to follow it."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mpi_prs.cli.job_file import load_job
from mpi_prs.cli.options import check_together, options_of_a_run
from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_RESUMABLE, ConfigError, SlurmError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import many
from mpi_prs.job.batch import MPIRUN, batch_job, processes_per_rank
from mpi_prs.job.config.model import JobConfig, check_entry_script
from mpi_prs.job.config.secret_overrides import refuse_secrets
from mpi_prs.job.run.opening import RunOptions, is_complete_already
from mpi_prs.monitor.status import read_status, status_text
from mpi_prs.slurm.control import job_state, mpi_types
from mpi_prs.slurm.job_record import has_ended, latest_job
from mpi_prs.slurm.script import render
from mpi_prs.slurm.submission import hand_in
from mpi_prs.slurm.watch import RunWatch

_PAUSE = 2.0


@click.command()
@options_of_a_run
@click.option("--dry-run", is_flag=True, help="Show the batch script; submit nothing.")
@click.option("--wait", is_flag=True, help="Wait for the end of the job, and exit with its exit code.")
def submit(
    config: Path,
    overrides: tuple[str, ...],
    output: str | None,
    step: str | None,
    overwrite: bool,
    only_failed: bool,
    accept_changes: bool,
    accept_owner: bool,
    limit: int | None,
    dry_run: bool,
    wait: bool,
) -> int:
    """Submit the job CONFIG to Slurm, as a batch job of its own."""
    check_together(overwrite, only_failed)
    options = RunOptions(overwrite, only_failed, accept_changes, accept_owner, limit)
    submission = Submission(config, overrides, output, step, options)
    return submit_job(load_job(config, overrides, output, step), submission, dry_run, wait)


@dataclass(frozen=True)
class Submission:
    """What the command line asks for.

    Attributes:
        config_file: as given.
        overrides: of ``--set``.
        output: of ``--output``.
        step: of ``--step``.
        options: how to open the run.
    """

    config_file: Path
    overrides: Sequence[str]
    output: str | None
    step: str | None
    options: RunOptions

    def arguments(self) -> list[str]:
        """Of ``mpi_prs`` in the job: the same, from whatever folder."""
        words = ["run", os.path.abspath(self.config_file)]
        words += [word for override in self.overrides for word in ("--set", override)]
        words += [] if self.output is None else ["--output", os.path.abspath(self.output)]
        words += [] if self.step is None else ["--step", self.step]
        flags = {
            "--overwrite": self.options.overwrite,
            "--only-failed": self.options.only_failed,
            "--accept-changes": self.options.accept_changes,
            "--accept-owner": self.options.accept_owner,
        }
        words += [flag for flag, is_set in flags.items() if is_set]
        return words if self.options.limit is None else [*words, "--limit", str(self.options.limit)]


def submit_job(config: JobConfig, submission: Submission, dry_run: bool, wait: bool) -> int:
    """Render the script, submit it and say how to follow it; returns the exit code, with ``wait`` the job's."""
    check_entry_script(config)
    refuse_secrets(config, submission.config_file, submission.overrides)
    script = render(batch_job(config, submission.arguments(), Path.cwd()))
    if dry_run:
        click.echo(script, nl=False)
        return EXIT_COMPLETE
    _check_mpi(config)
    run = RunDirectory(config.output)
    if is_complete_already(config, submission.options) and config.output_url is None:
        click.echo(f"{config.name} is complete already: the output is in {config.output}. Nothing is submitted")
        return EXIT_COMPLETE
    _refuse_a_second_job(run)
    job_id = hand_in(run, script)
    _say_how_to_follow(config, job_id)
    return _wait_for_the_end(run) if wait else EXIT_COMPLETE


def _check_mpi(config: JobConfig) -> None:
    """A wrong type would keep all nodes idle until five steps have failed. Raises ConfigError."""
    wanted, types = config.slurm.mpi, mpi_types()
    if wanted in (None, MPIRUN) or not types or any(each == wanted or each.startswith(f"{wanted}_") for each in types):
        return
    raise ConfigError(
        f"slurm.mpi: srun cannot start MPI by {wanted!r} here, but by {', '.join(types)} (`srun --mpi=list`); or give "
        f"{MPIRUN}"
    )


def _refuse_a_second_job(run: RunDirectory) -> None:
    earlier = latest_job(run)
    if earlier is None or has_ended(read_status(run.status), earlier):
        return
    state = job_state(earlier)
    if state is not None and not state.is_over:
        raise SlurmError(
            f"Slurm job {earlier} is at work on {run.output} or waits to be ({state.state.lower()}). Follow it with "
            f"{_command('status', run.output)} --watch, or end it with {_command('cancel', run.output)}"
        )


def _say_how_to_follow(config: JobConfig, job_id: str) -> None:
    nodes, processes = config.node_count, config.process_count_per_node
    click.echo(f"submitted as Slurm job {job_id}: {many(nodes, 'node')} with {many(processes, 'process')} each")
    if processes_per_rank(config) != config.processes_per_rank:
        click.echo("so large a job gets one worker rank on each node for all its processes (processes_per_rank)")
    click.echo(f"  {_command('status', config.output)} --watch")
    click.echo(f"  {_command('logs', config.output)} --follow")
    click.echo(f"  {_command('cancel', config.output)}")


def _command(name: str, output: Path) -> str:
    return f"mpi-prs {name} {shlex.quote(str(output))}"


def _wait_for_the_end(run: RunDirectory) -> int:
    watch, said = RunWatch(run), ""
    while not (look := watch.look(time.time())).is_over:
        if look.queue not in ("", said):
            said = look.queue
            click.echo(said)
        time.sleep(_PAUSE)
    click.echo("\n".join(part for part in (status_text(run, time.time()) if look.status else "", look.queue) if part))
    if look.exit_code != EXIT_COMPLETE:
        click.echo(f"what it has said: {_command('logs', run.output)}")
    return EXIT_RESUMABLE if look.exit_code is None else look.exit_code

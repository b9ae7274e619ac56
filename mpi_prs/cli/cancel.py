"""``cancel``: the end of a run's Slurm job, in the queue or at work."""

from __future__ import annotations

from pathlib import Path

import click

from mpi_prs.cli.options import run_argument
from mpi_prs.core.errors import EXIT_COMPLETE, SlurmError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.status import Status, read_status, run_directory_of
from mpi_prs.slurm.submission import call_off


@click.command()
@run_argument
def cancel(run_folder: Path) -> int:
    """Cancel the Slurm job of the run in the output folder RUN."""
    return cancel_run(run_directory_of(run_folder))


def cancel_run(run: RunDirectory) -> int:
    """Cancel the run's job; what is finished stays, and the same command resumes.

    Raises:
        SlurmError: the run has no Slurm job, or Slurm does not do it.
        OutputError: the run belongs to somebody else.
    """
    job_id, was_called_off = call_off(run)
    status = read_status(run.status)
    if job_id is None:
        raise SlurmError(f"{run.output} has no Slurm job, {_otherwise(status)}")
    if was_called_off:
        click.echo(f"Slurm job {job_id} is cancelled; what is finished is kept, and submitting again resumes it")
    else:
        click.echo(f"Slurm job {job_id} is over already, {_otherwise(status)}")
    return EXIT_COMPLETE


def _otherwise(status: Status | None) -> str:
    if status is None or not status.under_way or status.slurm_job_id is not None:
        return "and nothing else is at work there"
    return (
        "but it was started without Slurm: press Ctrl-C where it runs, or send SIGTERM to process "
        f"{status.pid} on {status.host}. It ends in good order, and the same command resumes"
    )

"""``cancel``: the end of a run's Slurm job, in the queue or at work."""

from __future__ import annotations

import click

from mpi_prs.errors import EXIT_COMPLETE, OutputError, SlurmError
from mpi_prs.monitor.status import Status, read_status
from mpi_prs.run_directory import RunDirectory
from mpi_prs.slurm.control import cancel, job_state
from mpi_prs.slurm.job_record import has_ended, latest_job


def cancel_run(run: RunDirectory) -> int:
    """Cancel the run's job; what is finished stays, and the same command resumes.

    Raises:
        SlurmError: the run has no Slurm job, or Slurm does not do it.
        OutputError: the run belongs to somebody else.
    """
    job_id, status = latest_job(run), read_status(run.status)
    if job_id is None:
        raise SlurmError(f"{run.output} has no Slurm job, {_otherwise(status)}")
    if has_ended(status, job_id) or (state := job_state(job_id)) is None or state.is_over:
        click.echo(f"Slurm job {job_id} is over already, {_otherwise(status)}")
        return EXIT_COMPLETE
    try:
        run.cancelled.touch()  # first: a job that is just stopping must not go back into the queue
    except OSError as error:
        raise OutputError(f"cannot write to {run.root}: {error.strerror}. Is it your run?") from error
    cancel(job_id)
    click.echo(f"Slurm job {job_id} is cancelled; what is finished is kept, and submitting again resumes it")
    return EXIT_COMPLETE


def _otherwise(status: Status | None) -> str:
    if status is None or not status.under_way or status.slurm_job_id is not None:
        return "and nothing else is at work there"
    return (
        "but it was started without Slurm: press Ctrl-C where it runs, or send SIGTERM to process "
        f"{status.pid} on {status.host}. It ends in good order, and the same command resumes"
    )

"""A run's batch script handed in to Slurm, and its job called off again.

::

    hand_in      _run/slurm/submit.sh ─► sbatch ─► _run/slurm/job.json
    call_off     _run/cancelled ─► scancel          the mark first: a job that is just stopping must not come back
"""

from __future__ import annotations

import os

from mpi_prs.core.errors import OutputError
from mpi_prs.core.files import own_file, replacing
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.status import read_status
from mpi_prs.slurm.control import cancel, job_state, submit
from mpi_prs.slurm.job_record import has_ended, keep_submitted_job, latest_job


def hand_in(run: RunDirectory, script: str) -> str:
    """Submit the batch script of a run, and keep it and the job's id in the run directory; returns the id.

    Raises:
        SlurmError: Slurm is not here, refuses the job, or does not answer.
        OutputError: the run directory cannot be written.
    """
    try:
        with replacing(run.slurm_script, mode=0o600) as file:
            file.write(script.encode())
        job_id = submit(script)
        keep_submitted_job(run, job_id)
    except OSError as error:
        raise OutputError(f"cannot write to {run.slurm}: {error.strerror}; choose another output") from error
    return job_id


def call_off(run: RunDirectory) -> tuple[str | None, bool]:
    """Cancel the latest job of a run, in the queue or at work; what is finished stays.

    Returns:
        the job's id (``None``: the run has none), and whether it was not over already.

    Raises:
        SlurmError: Slurm is not here, refuses, or does not answer.
        OutputError: the run belongs to somebody else.
    """
    job_id = latest_job(run)
    if job_id is None:
        return None, False
    if has_ended(read_status(run.status), job_id):
        return job_id, False
    state = job_state(job_id)
    if state is None or state.is_over:
        return job_id, False
    try:
        os.close(own_file(str(run.cancelled), os.O_WRONLY | os.O_CREAT))
    except OSError as error:
        raise OutputError(f"cannot write to {run.root}: {error.strerror}. Is it your run?") from error
    cancel(job_id)
    return job_id, True

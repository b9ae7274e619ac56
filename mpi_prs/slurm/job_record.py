"""Which Slurm job works on a run: what ``submit`` wrote down, or what the run itself said."""

from __future__ import annotations

import json

from mpi_prs.core.errors import EXIT_RESUMABLE
from mpi_prs.core.files import replacing
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.status import Status, read_status


def write_record(run: RunDirectory, job_id: str) -> None:
    """Keep the id of the job that was just submitted. Raises OSError."""
    with replacing(run.slurm_job, lasting=True) as file:
        file.write(json.dumps({"job_id": job_id}).encode() + b"\n")


def submitted_job(run: RunDirectory) -> str | None:
    """The job that ``submit`` submitted last; ``None`` if there is none."""
    try:
        found = json.loads(run.slurm_job.read_bytes())
    except (OSError, ValueError):
        return None
    job_id = found.get("job_id") if isinstance(found, dict) else None
    return job_id if isinstance(job_id, str) and job_id.isdecimal() else None


def has_ended(status: Status | None, job_id: str) -> bool:
    """Whether the run itself says that this job has ended for good, so that Slurm need not be asked."""
    return status is not None and status.slurm_job_id == job_id and status.exit_code not in (None, EXIT_RESUMABLE)


def latest_job(run: RunDirectory) -> str | None:
    """The latest Slurm job of the run, submitted by ``submit`` or otherwise; ``None``: none is known.

    Slurm counts its jobs upwards, so of two the latest has the larger number.
    """
    status = read_status(run.status)
    known = [submitted_job(run), status.slurm_job_id if status else None]
    return max((job for job in known if job and job.isdecimal()), key=int, default=None)

"""Which Slurm job works on a run: what ``submit`` wrote down, or what the run itself said."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpi_prs.core.errors import EXIT_RESUMABLE
from mpi_prs.core.records import read_dataclass, write_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.status import Status, read_status


@dataclass(frozen=True)
class SubmittedJob:
    """The content of ``slurm_job.json``."""

    job_id: str


def keep_submitted_job(run: RunDirectory, job_id: str) -> None:
    """Keep the id of the job that was just submitted. Raises OSError."""
    write_dataclass(run.slurm_job, SubmittedJob(job_id), lasting=True)


def submitted_job(run: RunDirectory) -> str | None:
    """The job that ``submit`` submitted last; ``None`` if there is none."""
    found = read_dataclass(SubmittedJob, run.slurm_job)
    return found.job_id if found is not None and _is_job(found.job_id) else None


def _is_job(text: str) -> bool:
    return re.fullmatch("[0-9]{1,18}", text) is not None


def has_ended(status: Status | None, job_id: str) -> bool:
    """Whether the run itself says that this job has ended for good, so that Slurm need not be asked."""
    return status is not None and status.slurm_job_id == job_id and status.exit_code not in (None, EXIT_RESUMABLE)


def latest_job(run: RunDirectory) -> str | None:
    """The latest Slurm job of the run, submitted by ``submit`` or otherwise; ``None``: none is known.

    Slurm counts its jobs upwards, so of two the latest has the larger number.
    """
    status = read_status(run.status)
    known = [submitted_job(run), status.slurm_job_id if status else None]
    return max((job for job in known if job and _is_job(job)), key=int, default=None)

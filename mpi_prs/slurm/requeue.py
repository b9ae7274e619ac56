"""Back into the queue: what a job that was stopped early asks of Slurm, once, at its very end.

A time limit, preemption and ``scancel`` end a job by the same signals. What tells them apart is the job's state: only a
cancelled one is not running any more while its processes still are.
"""

from __future__ import annotations

import logging

from mpi_prs.core.errors import SlurmError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.slurm.control import JobState, controller_version, job_state, requeue

_log = logging.getLogger("mpi_prs.slurm")

# From this version on Slurm requeues a job that ends in its grace time (PreemptMode=REQUEUE). It would do so once more
# after a requeue by ours, at the end of the next start: what marks the job as preempted is not taken off by that.
# See commit a689104d15 of Slurm, "Treat jobs completing after being signalled for GraceTime as preempted".
_SLURM_PUTS_BACK = (24, 5)


def put_back(job_id: str, directory: RunDirectory, most: int) -> str:
    """Requeue this job if that is right; returns a sentence that says what becomes of it.

    Slurm then ends what is left of the job, so everything must be on disk before. Where Slurm does not answer, nothing
    is lost: the same command resumes.

    Args:
        job_id: of the job that this process belongs to.
        directory: of the run.
        most: how many times a job may be requeued in all.
    """
    try:
        state = job_state(job_id)
        why_not = "Slurm does not know it" if state is None else objection(state, directory.cancelled.exists(), most)
        if state is None or why_not:
            return f"job {job_id} is not put back into the queue: {why_not}"
        if state.preempted and controller_version() >= _SLURM_PUTS_BACK:
            return (
                f"job {job_id} was preempted: Slurm puts it back into the queue at its end, "
                "if the partition's PreemptMode is REQUEUE; otherwise submit it again"
            )
        _log.warning("job %s goes back into the queue (%d of %d times)", job_id, state.restarts + 1, most)
        requeue(job_id)
    except SlurmError as error:
        return f"{error}; submit the job again to go on"
    return f"job {job_id} is in the queue again, and resumes from there"


def objection(state: JobState, cancelled: bool, most: int) -> str:
    """Why a job should not be requeued; empty when it should.

    Args:
        state: of the job, while this process of it still runs.
        cancelled: whether ``mpi-prs cancel`` has asked for its end.
        most: how many times a job may be requeued in all.
    """
    if cancelled or state.state == "CANCELLED":
        return "it was cancelled"
    if state.state != "RUNNING":
        return f"Slurm is ending it already ({state.state})"
    if not state.is_batch:
        return "it was not submitted by sbatch"
    if not state.requeue:
        return "it was submitted with --no-requeue"
    if state.restarts >= most:
        return f"it has been requeued {state.restarts} times, and max_requeues allows {most}"
    return ""

"""Where the Slurm job of a run is, for those who look from outside: from the run's own files as far as they tell.

::

    status.json of this job ─► at work, and fresh? or ended for good? ─► Slurm is not asked
                 │ neither
                 └─► one question, and its answer holds for some seconds
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mpi_prs.core.errors import EXIT_RESUMABLE, SlurmError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import many
from mpi_prs.monitor.status import SILENCE, Status, read_status
from mpi_prs.slurm.control import JobState, job_state
from mpi_prs.slurm.job_record import has_ended, latest_job

ASK_SECONDS = 10.0
"""Between two questions: Slurm's controller serves the whole cluster."""
_LOG_PAUSE = 2.0
_LOG_LOOKS = 15

# Reasons of a job that waits for ever, and what is wrong: "JOB REASON CODES" in squeue's manual
_NEVER = {
    "BadConstraints": "no node has what is asked for",
    "PartitionConfig": "the partition has no such nodes, or does not allow this; see `scontrol show partition`",
    "PartitionNodeLimit": "node_count is more than the partition has or allows",
    "PartitionTimeLimit": "slurm.time is above the partition's limit",
}


@dataclass(frozen=True)
class Look:
    """One look at a run.

    Attributes:
        status: what the run itself says; ``None``: nothing yet.
        queue: a line about its Slurm job; empty where the status says it all.
        is_over: nothing will happen any more without a new command.
        exit_code: of the job, once it is over; ``None`` where that is not known.
        job: what Slurm says, where it was asked and knows the job.
    """

    status: Status | None
    queue: str
    is_over: bool
    exit_code: int | None = None
    job: JobState | None = None


class RunWatch:
    """Looks at a run again and again.

    Args:
        run: its directory.
        ask: the question to Slurm.
        clock: seconds that only go forward.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        run: RunDirectory,
        ask: Callable[[str], JobState | None] = job_state,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run = run
        self._ask = ask
        self._clock = clock
        self._sleep = sleep
        self._asked: tuple[float, str] | None = None
        self._answer: JobState | SlurmError | None = None

    def look(self, now: float) -> Look:
        """Reads one or two small files, and asks Slurm where these do not tell; ``now`` in seconds since 1970."""
        status, job_id = read_status(self._run.status), latest_job(self._run)
        if job_id is None:
            over = status is not None and not status.under_way
            return Look(status, "", over, status.exit_code if status else None)
        own = status if status is not None and status.slurm_job_id == job_id else None
        if own is not None and has_ended(own, job_id):
            return Look(status, "", True, own.exit_code)
        # A cancelled job may be killed before it has written how it ended
        if own is not None and own.under_way and own.age(now) <= SILENCE and not self._run.cancelled.exists():
            return Look(status, "", False)
        answer = self._answer_about(job_id)
        if isinstance(answer, SlurmError):
            return Look(status, str(answer), False)
        if answer is None:
            return Look(status, f"Slurm does not know job {job_id} any more", True, own.exit_code if own else None)
        exit_code = _exit_code(answer) if answer.is_over else None
        return Look(status, _about(job_id, answer), answer.is_over, exit_code, answer)

    def wait_for_log(self) -> None:
        """Wait until the log of a job is whole that has ended by the run's own word, at most half a minute.

        The run writes its last word itself, but what it prints reaches the log through the launcher, which may take
        longer. Slurm is asked whether the batch script has ended; where it cannot tell, nobody waits.
        """
        job_id = latest_job(self._run)
        for _ in range(_LOG_LOOKS if job_id is not None else 0):
            try:
                state = self._ask(str(job_id))
            except SlurmError:
                return
            if state is None or state.state != "RUNNING":
                return
            self._sleep(_LOG_PAUSE)

    def _answer_about(self, job_id: str) -> JobState | SlurmError | None:
        now = self._clock()
        if self._asked is None or self._asked[1] != job_id or now - self._asked[0] >= ASK_SECONDS:
            self._asked = (now, job_id)
            try:
                self._answer = self._ask(job_id)
            except SlurmError as error:
                self._answer = error
        return self._answer


def _about(job_id: str, state: JobState) -> str:
    reason = f" ({state.reason})" if state.reason else ""
    if (why := _NEVER.get(state.reason)) is not None:
        reason += f". It will never start as it is: {why}. Cancel it, and submit it with other values"
    again = f", requeued {many(state.restarts, 'time')} so far" if state.restarts else ""
    when = ""
    if state.state == "PENDING" and state.start_time:
        when = f", expected to start at {state.start_time.replace('T', ' ')}"
    return f"Slurm job {job_id}: {state.state.lower()}{reason}{when}{again}"


def _exit_code(state: JobState) -> int:
    """Slurm gives 0 to what it ended before it had begun."""
    return state.exit_code if state.exit_code or state.state == "COMPLETED" else EXIT_RESUMABLE

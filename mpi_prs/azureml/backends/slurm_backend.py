"""Pipelines on Slurm: a batch job for each step, the later ones waiting for the earlier; nobody stays behind.

::

    step 1 ─► sbatch ─► 17            step 2, which needs it ─► sbatch --dependency=afterok:17 --kill-on-invalid-dep=yes

Where a step stands is what ``_run/status.json`` and Slurm say; see ``slurm/watch.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.run_status import Blocked, RunStatus
from mpi_prs.child.context.run_record import RunFolder, RunRecord
from mpi_prs.core.errors import MpiPrsError, PipelineError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.job.batch import batch_job
from mpi_prs.job.config.model import JobConfig
from mpi_prs.monitor.status import outcome
from mpi_prs.slurm.control import JobState, job_state
from mpi_prs.slurm.job_record import latest_job
from mpi_prs.slurm.script import render
from mpi_prs.slurm.submission import call_off, hand_in
from mpi_prs.slurm.watch import ASK_SECONDS, Look, RunWatch

_STARTING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT")


class SlurmAnswers:
    """Asks Slurm about jobs, all together at most once in ten seconds; else the last answer holds.

    A job that was never asked about is asked about at once. Of the others it is the turn of the one whose answer is
    the oldest, as long as it is not over.
    """

    def __init__(
        self, ask: Callable[[str], JobState | None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._asked = float("-inf")
        self._answers: dict[str, tuple[float, JobState | None]] = {}
        self._lock = threading.Lock()  # a notebook has RunDetails and a cell that waits

    def __call__(self, job_id: str) -> JobState | None:
        """What Slurm says, or said. Raises SlurmError."""
        with self._lock:
            now = self._clock()
            waiting = [job for job, (_, answer) in self._answers.items() if answer is not None and not answer.is_over]
            oldest = min(waiting, key=lambda job: self._answers[job][0], default=job_id)
            if job_id not in self._answers or (job_id == oldest and now - self._asked >= ASK_SECONDS):
                self._asked = now
                self._answers[job_id] = (now, (self._ask or job_state)(job_id))
            return self._answers[job_id][1]


_patience = SlurmAnswers()
"""Of this process: however many runs are looked at, Slurm is asked no more often."""


class SlurmBackend:
    """Runs pipelines as batch jobs, and knows where they stand.

    Args:
        ask: the question to Slurm.
    """

    def __init__(self, ask: Callable[[str], JobState | None] | None = None) -> None:
        self._ask = ask or _patience
        self._watches: dict[str, RunWatch] = {}

    # Starting

    def check(self, configs: Mapping[str, JobConfig]) -> None:
        """Whether batch jobs can be made of these; nothing is submitted.

        Raises:
            PipelineError: there is no Slurm here.
            ConfigError, SlurmError: a job cannot be put to Slurm as it is.
        """
        if shutil.which("sbatch") is None:
            raise PipelineError(
                "there is no sbatch on this machine: submit from a login node of the cluster (its Slurm module may "
                'have to be loaded), or let runs stay on this machine: ws.update_settings(backend="local")'
            )
        for config in configs.values():
            _script(config, Path("job.yaml"), [])

    def start(self, pipeline: RunFolder, steps: Sequence[RunRecord], configs: Mapping[str, JobConfig]) -> None:
        """Submit the steps, each after those that it needs; if one is refused, those before it are called off.

        Args:
            pipeline: the folder of the pipeline run.
            steps: those to run, in order; what else they need has completed.
            configs: id of a step run → its job config.

        Raises:
            SlurmError: Slurm refuses one.
        """
        jobs: dict[str, str] = {}
        try:
            for record in steps:
                assert record.step is not None
                folder = RunFolder(pipeline.root.with_name(record.id))
                after = [jobs[need] for need in record.step.needs if need in jobs]
                script = _script(configs[record.id], folder.job, after)
                jobs[record.id] = hand_in(RunDirectory(Path(record.step.folder)), script)
        except BaseException:
            for record in steps:
                if record.id in jobs and record.step is not None:
                    with contextlib.suppress(MpiPrsError):
                        call_off(RunDirectory(Path(record.step.folder)))
            raise

    # Looking

    def look(self, record: RunRecord, folder: RunFolder, blocked: Blocked | None, given_up: bool) -> RunStatus:
        """Where a step run stands.

        Args:
            record, folder: the step run.
            blocked: what stands in its way.
            given_up: whether whoever should have submitted it will not do so any more.
        """
        assert record.step is not None
        run = RunDirectory(Path(record.step.folder))
        job_id = latest_job(run)
        if job_id is None or not run.status.exists():
            if blocked is not None:
                if folder.cancelled.exists():
                    return RunStatus(states.CANCELED, "canceled before it began")
                return blocked.standing()
            if job_id is None and given_up:
                return RunStatus(states.FAILED, "it was never submitted to Slurm: the submission was interrupted")
            if job_id is None:
                return RunStatus(states.NOT_STARTED, "is being submitted")
        if record.id not in self._watches:
            self._watches[record.id] = RunWatch(run, self._ask)
        look = self._watches[record.id].look(time.time())
        return standing_of(look, folder.cancelled.exists() or run.cancelled.exists())

    # Ending

    def cancel(self, record: RunRecord) -> None:
        """Have a step's job ended, in the queue or at work. Raises SlurmError, OutputError."""
        assert record.step is not None
        call_off(RunDirectory(Path(record.step.folder)))


def standing_of(look: Look, cancelled: bool) -> RunStatus:
    """Where a submitted step stands.

    Args:
        look: at its run.
        cancelled: whether somebody wants it to stop.
    """
    status = look.status
    if look.is_over:
        if look.exit_code == 0:
            return RunStatus(states.COMPLETED, "", status)
        if cancelled or (look.job is not None and look.job.state == "CANCELLED"):
            return RunStatus(states.CANCELED, look.queue or "canceled", status)
        own = status is not None and status.exit_code is not None
        detail = outcome(status.phase, status.reason, status.exit_code) if own and status is not None else look.queue
        return RunStatus(states.FAILED, detail, status)
    if cancelled:
        return RunStatus(states.CANCEL_REQUESTED, look.queue, status)
    if status is not None and status.under_way and (look.job is None or look.job.state in _STARTING):
        return RunStatus(states.RUNNING, look.queue, status)
    if look.job is not None and look.job.state in _STARTING:
        return RunStatus(states.PREPARING, look.queue, status)
    return RunStatus(states.QUEUED, look.queue, status)


def _script(config: JobConfig, job: Path, after: Sequence[str]) -> str:
    """The batch script of a step; ``after``: the Slurm jobs that must have completed before."""
    batch = batch_job(config, ["run", str(job)], job.parent)
    if after:
        wait = (f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes")
        batch = dataclasses.replace(batch, options=(*batch.options, *wait))
    return render(batch)

"""Pipelines on this machine: a process of their own runs the steps one after the other; see ``local_runner.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.run_status import Blocked, RunStatus
from mpi_prs.azureml.backends.runner_record import RunnerRecord
from mpi_prs.child.context.run_record import RunFolder, RunRecord
from mpi_prs.core.errors import PipelineError
from mpi_prs.core.records import read_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.job.batch import processes_per_rank
from mpi_prs.job.config.model import JobConfig
from mpi_prs.monitor.status import Status, outcome, read_status

_START_SECONDS = 120.0
_MOST_PROCESSES = 64


class LocalBackend:
    """Runs pipelines here, and knows where they stand. The methods are those of ``SlurmBackend``."""

    def check(self, configs: Mapping[str, JobConfig]) -> None:
        """Whether this machine can have the processes of each step.

        Raises:
            ConfigError: they cannot be divided among ranks.
            PipelineError: they are too many.
        """
        most = max(_MOST_PROCESSES, 4 * (os.cpu_count() or 1))
        for config in configs.values():
            processes_per_rank(config)
            if config.process_count_per_node > most:
                raise PipelineError(
                    f"step {config.name!r}: process_count_per_node: got {config.process_count_per_node}, but this "
                    f"machine, on which the step would run, takes at most {most}; ask for fewer, or submit on a login "
                    "node of the cluster"
                )

    def start(
        self,
        pipeline: RunFolder,
        steps: Sequence[RunRecord],  # noqa: ARG002  # the runner reads what there is to do
        configs: Mapping[str, JobConfig],  # noqa: ARG002
    ) -> None:
        """Start the runner, and wait until it says that it is at work.

        Raises:
            PipelineError: it cannot be started.
        """
        command = [sys.executable, "-m", "mpi_prs.azureml.backends.local_runner", "--detach", str(pipeline.root)]
        pipeline.logs.mkdir(parents=True, exist_ok=True)
        try:
            with open(pipeline.runner_log, "ab") as log:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=pipeline.root,  # what Python imports first is not the user's random.py
                    start_new_session=True,
                    timeout=_START_SECONDS,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PipelineError(f"cannot start {' '.join(command)}: {error}") from error
        if done.returncode:
            said = pipeline.runner_log.read_text("utf-8", "replace").strip().splitlines()
            raise PipelineError(
                f"cannot start the process that runs the pipeline: {said[-1] if said else done.returncode} (see "
                f"{pipeline.runner_log})"
            )

    def look(self, record: RunRecord, folder: RunFolder, blocked: Blocked | None, given_up: bool) -> RunStatus:
        """Where a step run stands; see ``SlurmBackend.look``."""
        assert record.step is not None and record.parent is not None
        path = RunFolder(folder.root.with_name(record.parent)).runner
        runner = read_dataclass(RunnerRecord, path)
        alive = runner is not None and runner.is_alive()
        if runner is not None and not alive:
            runner = read_dataclass(RunnerRecord, path)  # what it wrote last, it may have written just now
        status = read_status(RunDirectory(Path(record.step.folder)).status)
        return standing_of(record, runner, alive, status, folder.cancelled.exists(), blocked, given_up)

    def cancel(self, record: RunRecord) -> None:
        """The runner sees the step's mark ``cancelled`` by itself."""


def standing_of(
    record: RunRecord,
    runner: RunnerRecord | None,
    alive: bool,
    status: Status | None,
    cancelled: bool,
    blocked: Blocked | None,
    given_up: bool,
) -> RunStatus:
    """Where a step stands.

    Args:
        record: the step run.
        runner: what the runner says; ``None``: nothing yet.
        alive: whether the runner lives.
        status: what the engine says.
        cancelled: whether somebody wants the step to stop.
        blocked: what stands in its way.
        given_up: whether whoever should have started the runner will not do so any more.
    """
    progress = runner.steps.get(record.id) if runner is not None else None
    ended = status is not None and not status.under_way
    if progress is not None and progress.exit_code is not None:
        if progress.exit_code == 0:
            return RunStatus(states.COMPLETED, "", status)
        if cancelled:
            return RunStatus(states.CANCELED, progress.skipped or "canceled", status)
        if progress.skipped:
            return RunStatus(states.CANCELED, progress.skipped, status)
        if status is not None and ended:
            return RunStatus(states.FAILED, outcome(status.phase, status.reason, status.exit_code), status)
        return RunStatus(states.FAILED, f"it ended with exit code {progress.exit_code}", status)
    if alive:
        if progress is None:
            return blocked.standing() if blocked is not None else RunStatus(states.NOT_STARTED, "is about to start")
        if cancelled:
            return RunStatus(states.CANCEL_REQUESTED, "", status)
        has_begun = status is not None and (status.under_way or _seconds(status.started) >= int(progress.began))
        return RunStatus(states.RUNNING, "", status) if has_begun else RunStatus(states.PREPARING)
    if runner is None and not given_up:
        return RunStatus(states.NOT_STARTED, "is being submitted")
    if status is not None and status.exit_code == 0:
        return RunStatus(states.COMPLETED, "", status)
    if cancelled:
        return RunStatus(states.CANCELED, "canceled", status)
    if blocked is not None and blocked.for_good:
        return blocked.standing()
    what = "the process that ran the pipeline was lost" if runner is not None else "the submission was interrupted"
    return RunStatus(
        states.FAILED, f"{what} (killed, or the machine was restarted); resume() goes on from there", status
    )


def _seconds(iso_time: str) -> float:
    """Since 1970; 0 for what is no time."""
    try:
        return datetime.fromisoformat(iso_time).timestamp()
    except ValueError:
        return 0.0

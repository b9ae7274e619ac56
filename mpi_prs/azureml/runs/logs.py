"""The logs of a step run, by name; and why a run has failed, in the user's own words: the traceback of the script, or
what the program said at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.run_status import PipelineLook, StepLook
from mpi_prs.child.context.run_files import all_files
from mpi_prs.child.context.run_record import RunFolder, RunRecord
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import EXIT_RESUMABLE, MpiPrsError
from mpi_prs.core.files import end_of_text
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import printable
from mpi_prs.monitor.failed import main_reason
from mpi_prs.monitor.logs import last_lines
from mpi_prs.slurm.job_record import latest_job

CONSOLE = "logs/console.txt"
"""What the launcher and the ranks have printed."""
_TRACEBACK = "Traceback (most recent call last):"
_TAIL = 64 << 10  # bytes
_ERRORS = "logs/user/error/"


def logs_of(layout: WorkspaceFolder, record: RunRecord) -> dict[str, Path]:
    """Name → file: ParallelRunStep's tree of logs, what was found at submission, and the launcher's output; of a reused
    step those of the run that is used."""
    assert record.step is not None
    run = RunDirectory(Path(record.step.folder))
    found = all_files(run.logs, "logs")
    if record.step.reused is None:
        found.update(all_files(RunFolder(layout.run(record.experiment, record.id)).logs, "logs"))
    job_id = latest_job(run)
    if job_id is not None and run.slurm_log(job_id).exists():
        found[CONSOLE] = run.slurm_log(job_id)
    return found


def why_failed(look: PipelineLook, logs: Mapping[str, Mapping[str, Path]]) -> str:
    """Of a pipeline run.

    Args:
        look: where it stands.
        logs: step run → name → file.
    """
    failed = [step for step in look.steps if step.standing.state == states.FAILED]
    if not failed:
        return look.detail
    parts = [failure_text(step, logs.get(step.record.id, {})) for step in failed]
    if look.record.pipeline is not None and look.record.pipeline.problem:
        parts.insert(0, look.detail)
    return "\n\n".join(parts)


def failure_text(step: StepLook, logs: Mapping[str, Path]) -> str:
    """Of a step run; ``logs``: name → file."""
    assert step.record.step is not None
    run = RunDirectory(Path(step.record.step.folder))
    lines = [f"step {step.record.name}: {printable(step.standing.detail)}"]
    try:
        reason = main_reason(run) if run.journal.exists() else ""
    except MpiPrsError as error:
        reason = str(error)
    reason = reason or _last_traceback(logs)
    if reason:
        lines += [f"  {line}" for line in reason.splitlines()]
    else:
        lines += [f"  {line}" for line in (last_lines(logs[CONSOLE], 15) if CONSOLE in logs else ())]
    if step.standing.status is not None and step.standing.status.exit_code == EXIT_RESUMABLE:
        lines.append("PipelineRun.resume() goes on from there")
    lines.append(f"logs: {run.logs if run.logs.exists() else logs.get(CONSOLE, run.output)}")
    return "\n".join(lines)


def _last_traceback(logs: Mapping[str, Path]) -> str:
    """Of the user processes, when no mini-batch has failed: that of ``init()``, say."""
    for name in sorted(logs):
        if name.startswith(_ERRORS):
            text = end_of_text(logs[name], _TAIL)
            at = text.rfind(_TRACEBACK)
            if at >= 0:
                return printable(text[at:].strip(), keep="\n\t")
    return ""

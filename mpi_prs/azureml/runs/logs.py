"""The logs of a step run, by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpi_prs.child.context.run_files import all_files
from mpi_prs.child.context.run_record import RunFolder

if TYPE_CHECKING:
    from mpi_prs.child.context.run_record import RunRecord
    from mpi_prs.child.context.workspace_paths import WorkspaceFolder

CONSOLE = "logs/console.txt"
"""What the launcher and the ranks have printed."""


def logs_of(layout: WorkspaceFolder, record: RunRecord) -> dict[str, Path]:
    """Name → file: ParallelRunStep's tree of logs, what was found at submission, and the launcher's output; of a reused
    step those of the run that is used."""
    from mpi_prs.core.run_directory import RunDirectory
    from mpi_prs.slurm.job_record import latest_job

    assert record.step is not None
    run = RunDirectory(Path(record.step.folder))
    found = all_files(run.logs, "logs")
    if record.step.reused is None:
        found.update(all_files(RunFolder(layout.run(record.experiment, record.id)).logs, "logs"))
    job_id = latest_job(run)
    if job_id is not None and run.slurm_log(job_id).exists():
        found[CONSOLE] = run.slurm_log(job_id)
    return found

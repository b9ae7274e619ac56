"""The guard kills and removes what a worker leaves behind."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from mpi_prs.core.environ import PROCESS_FOLDER
from mpi_prs.engine.worker.guard_client import Guard


@pytest.mark.job
def test_at_the_end_of_the_worker_its_groups_what_left_them_and_its_folder_are_gone(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    (scratch / "process000").mkdir(parents=True)
    marked = {PROCESS_FOLDER.name: f"{scratch}/process000/"}
    guard = Guard(scratch)
    left = [subprocess.Popen(["sleep", "60"], start_new_session=True, env=environment) for environment in ({}, marked)]
    guard.add(left[0].pid)
    guard.close()
    try:
        assert [process.wait(10) for process in left] == [-signal.SIGKILL] * 2
    finally:
        for process in left:
            process.kill()
    assert not scratch.exists()

"""The guard kills and removes what a worker leaves behind, and the next worker what guard and worker leave."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from mpi_prs.core.environ import PROCESS_FOLDER
from mpi_prs.engine.worker.guard_client import Guard
from mpi_prs.engine.worker.own_folder import make_folder, remove_leftovers


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


def test_the_next_worker_removes_folders_that_nobody_holds_with_what_belongs_to_them(tmp_path: Path) -> None:
    dead, holder = make_folder(tmp_path, 3)
    os.close(holder)
    held, holder = make_folder(tmp_path, 4)
    stranger = tmp_path / "mpi_prs-worker"
    stranger.mkdir()
    link = tmp_path / "mpi_prs-worker5-abc"
    link.symlink_to(stranger)
    for folder in (dead, held, stranger):
        os.utime(folder, (0, 0))
    young, other = make_folder(tmp_path, 6)
    os.close(other)
    left = subprocess.Popen(["sleep", "60"], env={PROCESS_FOLDER.name: f"{dead}/process000/"})
    try:
        assert remove_leftovers(tmp_path) == [dead]
        assert left.wait(10) == -signal.SIGKILL
    finally:
        left.kill()
        os.close(holder)
    assert sorted(tmp_path.iterdir()) == sorted([held, stranger, link, young])
    assert remove_leftovers(tmp_path) == [held]
    assert remove_leftovers(tmp_path / "gone") == []

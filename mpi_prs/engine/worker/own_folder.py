"""A worker's own folder in scratch: made, held, and removed by the next one on the node where its owner could not.

The guard removes it when the worker dies; but both may die together, as when a cgroup is killed. A folder is held by a
lock on itself, which ends with its holder however that ends, and in whatever container it was.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

from mpi_prs.core.environ import PROCESS_FOLDER
from mpi_prs.core.guard import kill_marked
from mpi_prs.core.locks import try_alone

_NAME = re.compile(r"mpi_prs-worker\d+-\w+")
_AGE = 60.0  # seconds; between its making and its lock a folder is nobody's


def make_folder(scratch: Path, rank: int) -> tuple[Path, int]:
    """A folder for this worker alone, and the descriptor that holds it until it is closed.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"mpi_prs-worker{rank}-", dir=scratch))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # where there are no locks nobody finds out either that it is held by nobody
        try_alone(descriptor)
    return folder, descriptor


def remove_leftovers(scratch: Path) -> list[Path]:
    """Remove the folders of workers that are dead, with the processes that belong to them; returns which.

    Only those of this user, and none that is younger than a minute. What cannot be removed stays.
    """
    removed = []
    try:
        names = os.listdir(scratch)
    except OSError:
        return []
    for name in names:
        folder = scratch / name
        if _NAME.fullmatch(name) and _is_nobodys(folder):
            kill_marked(str(folder), PROCESS_FOLDER.name)
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _is_nobodys(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        is_old = time.time() - status.st_mtime > _AGE
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and is_old and try_alone(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)

"""What a worker sees of the filesystems of its node, before it starts anything there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.core.free_space import free_space, has_room
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.engine.awake import AwakeClock
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.near.scratch_folder import scratch_folder
from mpi_prs.wire.settings import WorkerSettings

_PATIENCE = 10.0
_PAUSE = 0.2


class NotUsable(Exception):
    """A filesystem cannot be used; the text says which, on which node, and what to do."""


class NoRoom(NotUsable):
    """Its scratch folder is full: the node alone has to do without."""


class WorkerView(NamedTuple):
    """The manifest, and the folder for what is only of this node."""

    manifest: Manifest
    scratch: Path


def look(settings: WorkerSettings, node: str) -> WorkerView:
    """Look at the run directory and the scratch folder; a shared filesystem may need some seconds.

    Raises:
        NotUsable: one of them is not there, or has no room.
    """
    try:
        manifest = _manifest(settings)
    except OutputError as error:
        raise NotUsable(
            f"node {node} does not see the run directory: {error}. The output folder must be on a filesystem that all "
            "nodes share"
        ) from error
    try:
        scratch = scratch_folder(settings.scratch, HERE)
    except InputError as error:
        raise NotUsable(f"node {node}: {error}") from error
    if not has_room(scratch):
        raise NoRoom(f"the scratch folder {scratch} is full ({free_space(scratch)})")
    return WorkerView(manifest, scratch)


def _manifest(settings: WorkerSettings) -> Manifest:
    directory = RunDirectory(Path(settings.run_root))
    clock = AwakeClock()
    deadline = clock() + _PATIENCE
    while True:
        try:
            if settings.token in directory.token.read_text():
                return Manifest.open(directory.manifest, settings.run)
            problem = f"{directory.token} has another content here than on the master's node"
        except (OSError, OutputError) as error:
            problem = str(error)
        if clock() > deadline:
            raise OutputError(problem)
        time.sleep(_PAUSE)

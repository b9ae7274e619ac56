"""The places of a worker's user processes: number, folder, logs, environment.

What a user process got of its node stands in the first line of its stdout log (its stderr is the script's alone), and
in the worker's own log.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from mpi_prs.core.environ import (
    AZUREML,
    HERE,
    LOG_FOLDER,
    LOGGING_LEVEL,
    OUTPUT,
    PROCESS_NAME,
    RUN_ID,
    SERVICE_RUN_ID,
    SOURCE_DIRECTORY,
    without_rank,
)
from mpi_prs.core.files import walk
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.engine.node import describe, placement, ranges
from mpi_prs.wire.settings import WorkerSettings
from mpi_prs.wire.work import ProcessPlace


def make_places(settings: WorkerSettings, node: str, scratch: Path) -> dict[int, ProcessPlace]:
    """Number on the node → place, for each user process of a worker whose own folder is ``scratch``."""
    directory = RunDirectory(Path(settings.run_root))
    cores = os.sched_getaffinity(0)  # the user processes inherit it
    places = {}
    for index in range(settings.processes):
        number = settings.share.first_process + index
        environment = {
            **without_rank(HERE),
            **placement(HERE, index, settings.processes, settings.share, len(cores), settings.gpus_per_process),
            AZUREML.name: settings.azureml,
            OUTPUT.name: settings.run_root,
            LOG_FOLDER.name: str(directory.entry_script_logs(node)),
            SOURCE_DIRECTORY.name: settings.process.source_directory,
            PROCESS_NAME.name: f"process{number:03d}",
            LOGGING_LEVEL.name: settings.process.logging_level,
            **({} if settings.azureml == "never" else {SERVICE_RUN_ID.name: _run_id(settings)}),
            **settings.environment_variables,
        }
        environment.update(_whole_paths(environment))
        places[number] = ProcessPlace(
            number=number,
            scratch=scratch / f"process{number:03d}",
            stdout=directory.user_log("stdout", node, number),
            stderr=directory.user_log("stderr", node, number),
            error=directory.user_log("error", node, number),
            environment=environment,
            placement=describe(environment, ranges(cores)),
        )
    return places


def left_behind(folders: Iterable[Path]) -> str:
    """A file that the script has left in one of its working folders, which go with the job; empty: none.

    Nothing is lost of what a link leads to.
    """
    for folder in folders:
        with contextlib.suppress(OSError):
            if left := next(walk(folder, partial(_is_link, folder)), ""):
                return left
    return ""


def _is_link(folder: Path, name: str) -> bool:
    return (folder / name).is_symlink()


def _whole_paths(environment: Mapping[str, str]) -> dict[str, str]:
    """PYTHONPATH as it is meant where the job was started: the user processes work in folders of their own."""
    paths = environment.get("PYTHONPATH", "")
    if not paths:
        return {}
    with contextlib.suppress(FileNotFoundError):  # the current folder has been removed
        paths = os.pathsep.join(path and os.path.abspath(path) for path in paths.split(os.pathsep))
    return {"PYTHONPATH": paths}


def _run_id(settings: WorkerSettings) -> str:
    """The step run's, or what names a job that is no step: its output folder."""
    return RUN_ID.of(settings.environment_variables) or Path(settings.run_root).name

"""The places of a worker's user processes: number, folder, logs, environment.

What a user process got of its node stands in the first line of its stdout log (its stderr is the script's alone), and
in the worker's own log.
"""

from __future__ import annotations

import os
from pathlib import Path

from mpi_prs.engine.messages import WorkerSettings
from mpi_prs.engine.node import describe, placement, ranges, user_environment
from mpi_prs.entry_script.user_process import ProcessPlace
from mpi_prs.run_directory import RunDirectory


def make_places(settings: WorkerSettings, node: str, scratch: Path) -> dict[int, ProcessPlace]:
    """Number on the node → place, for each user process of a worker whose own folder is ``scratch``."""
    directory = RunDirectory(Path(settings.run_root))
    cores = os.sched_getaffinity(0)  # the user processes inherit it
    places = {}
    for index in range(settings.processes):
        number = settings.share.first_process + index
        environment = {
            **user_environment(os.environ),
            **placement(os.environ, index, settings.processes, settings.share, len(cores), settings.gpus_per_process),
            "AZUREML_BI_OUTPUT_PATH": settings.run_root,
            **settings.environment_variables,
        }
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

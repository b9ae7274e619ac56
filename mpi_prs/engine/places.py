"""The places of a worker's user processes: number, folder, logs, environment."""

from __future__ import annotations

import os
from pathlib import Path

from mpi_prs.engine.messages import WorkerSettings
from mpi_prs.engine.node import placement, user_environment
from mpi_prs.entry_script.user_process import ProcessPlace
from mpi_prs.run_directory import RunDirectory


def make_places(settings: WorkerSettings, node: str, scratch: Path) -> dict[int, ProcessPlace]:
    """Number on the node → place, for each user process of a worker whose own folder is ``scratch``."""
    directory = RunDirectory(Path(settings.run_root))
    places = {}
    for number in range(settings.first_process, settings.first_process + settings.processes):
        variables = placement(os.environ, number, settings.processes, settings.node_processes)
        places[number] = ProcessPlace(
            number=number,
            scratch=scratch / f"process{number:03d}",
            stdout=directory.user_log("stdout", node, number),
            stderr=directory.user_log("stderr", node, number),
            error=directory.user_log("error", node, number),
            environment={
                **user_environment(os.environ),
                **variables,
                "AZUREML_BI_OUTPUT_PATH": settings.run_root,
                **settings.environment_variables,
            },
            placement=" ".join(f"{key}={value}" for key, value in variables.items()) or "all cores",
        )
    return places

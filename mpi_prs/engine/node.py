"""This node: its name, and what of it belongs to each user process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_OF_A_RANK = (
    *("PMI_", "PMIX_", "PMI2_", "OMPI_", "PRTE_", "HYDI_", "HYDRA_", "MPI_LOCAL"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"),
)
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def node_name() -> str:
    """The node's name: Slurm's where there is one (several Slurm nodes may share a host), else the host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def user_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment without what makes a process a rank.

    A script that imports mpi4py or asks for its rank (as training frameworks do) would else take itself for the worker,
    and disturb it.
    """
    return {name: value for name, value in environ.items() if not name.startswith(_OF_A_RANK)}


def placement(
    environ: Mapping[str, str],
    number: int,
    processes: int,
    node_processes: int,
    *,
    cores: int | None = None,
    node_cores: int | None = None,
) -> dict[str, str]:
    """The variables that give user process ``number`` of this node its share; what the user has set stays.

    Args:
        environ: the worker's environment.
        number: the process's number on its node, from 0: it gets that GPU of those that are visible.
        processes: user processes of this worker.
        node_processes: user processes of all workers on this node.
        cores: cores that this worker may use (default: asked of the system).
        node_cores: cores of the node (default: asked of the system).
    """
    cores = cores or len(os.sched_getaffinity(0))
    node_cores = node_cores or os.cpu_count() or cores
    # A worker that is bound to some cores shares them among its own processes, else all share the node.
    threads = cores // processes if cores < node_cores else cores // node_processes
    share = {name: str(max(1, threads)) for name in _THREADS if name not in environ}
    for name in _DEVICES:
        devices = [device for device in environ.get(name, "").split(",") if device]
        if len(devices) > 1:
            share[name] = devices[number % len(devices)]
    return share

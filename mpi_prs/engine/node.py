"""This node: its name, what a rank has of it, and what of that belongs to each user process.

::

    environment, affinity ──► RankResources ──HELLO──► master: who shares what ──START──► Share ──► placement()
    (Slurm, the launcher)    a rank's view     (node_share.py)                 of a rank   of a user process

A GPU here is what one entry of ``CUDA_VISIBLE_DEVICES`` names: an index, a UUID, a MIG slice.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi_prs.core.environ import (
    SLURM_CPUS_ON_NODE,
    SLURM_CPUS_PER_TASK,
    SLURM_GPUS_PER_TASK,
    SLURM_JOB_GPUS,
    SLURM_NODE_NAME,
    SLURM_STEP_GPUS,
)
from mpi_prs.wire.settings import Share

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_VISIBLE_BELOW = "ROCR_VISIBLE_DEVICES"
"""AMD's lower layer, whose devices the upper two count: where one of those is set, it is the one to be narrowed."""
_ALLOCATED = (SLURM_STEP_GPUS, SLURM_JOB_GPUS)
_NO_DEVICE = ("", "-1", "NoDevFiles")
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@dataclass(frozen=True)
class RankResources:
    """What a rank may use of its node, as far as the environment and the system tell.

    Attributes:
        cores: as ranges, such as ``0-7,16``.
        gpus: their names, in order.
        own_gpus: whether they are this rank's alone, although other ranks may call theirs by the same names.
        gpu_models: what the node's driver calls its GPUs.
    """

    cores: str
    gpus: tuple[str, ...]
    own_gpus: bool
    gpu_models: tuple[str, ...] = ()

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> RankResources:
        """The inverse of :func:`dataclasses.asdict`, from what JSON makes of it."""
        return cls(fields["cores"], tuple(fields["gpus"]), fields["own_gpus"], tuple(fields["gpu_models"]))


def node_name() -> str:
    """The node's name: Slurm's where there is one (several Slurm nodes may share a host), else the host's."""
    return SLURM_NODE_NAME.of() or socket.gethostname()


def rank_resources(environ: Mapping[str, str], cores: Iterable[int]) -> RankResources:
    """What a rank with this environment and this CPU affinity may use.

    The GPUs are those that a variable leaves visible, else those that Slurm says it gave to the step or to the job.
    """
    gpus = visible_gpus(environ)
    per_task = (SLURM_GPUS_PER_TASK.of(environ) or "").rsplit(":", 1)[-1]  # a number, perhaps after a type
    # In a cgroup of its own each task counts its GPUs from 0.
    narrowed = len(gpus) == 1 < len(_expanded(SLURM_JOB_GPUS.of(environ) or ""))
    return RankResources(ranges(cores), gpus, own_gpus=narrowed or (bool(gpus) and per_task == str(len(gpus))))


def gpu_models(driver: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """What the driver calls the GPUs of this node, such as ``NVIDIA H200``; none where it does not say."""
    found = []
    for file in sorted(driver.glob("*/information")):
        with contextlib.suppress(OSError):
            lines = file.read_text(errors="replace").splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(found)


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the GPUs that a process with this environment is to use."""
    for name in (*_VISIBLE, _VISIBLE_BELOW):
        if name in environ:
            return _names(environ[name])
    return next((_expanded(given) for each in _ALLOCATED if (given := each.of(environ))), ())


def _names(value: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in value.split(",")) if name not in _NO_DEVICE)


def _expanded(value: str) -> tuple[str, ...]:
    """The names in a list of Slurm's, such as ``0-2,5``."""
    names: list[str] = []
    for part in _names(value):
        first, _, last = part.partition("-")
        is_range = first.isdecimal() and last.isdecimal()
        names += map(str, range(int(first), int(last) + 1)) if is_range else [part]
    return tuple(names)


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in short: 0, 1, 2, 5 are ``0-2,5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def placement(
    environ: Mapping[str, str],
    index: int,
    processes: int,
    share: Share,
    cores: int,
    gpus_per_process: int | None = None,
) -> dict[str, str]:
    """The variables that give one user process its share of the node; thread counts that the user has set stay.

    Args:
        environ: the worker's environment.
        index: of the user process among those of its worker, from 0.
        processes: user processes of this worker.
        share: where this worker stands among those of its node.
        cores: how many cores this worker may run on.
        gpus_per_process: how many of the visible GPUs a user process gets; ``None``: one, if there are any.
    """
    count = str(threads(environ, processes, share, cores))
    variables = {name: count for name in _THREADS if name not in environ}
    if gpus_per_process == 0:
        return {**variables, _VISIBLE[0]: ""}
    resources = rank_resources(environ, ())
    turn = index if resources.own_gpus else share.first_on_gpus + index
    chosen = gpus_of(resources.gpus, turn, gpus_per_process or 1)
    if not chosen:
        return variables
    upper = [name for name in _VISIBLE if name in environ]
    names = upper or [_VISIBLE_BELOW if _VISIBLE_BELOW in environ else _VISIBLE[0]]
    return {**variables, **{name: ",".join(chosen) for name in names if environ.get(name) != ",".join(chosen)}}


def gpus_of(gpus: tuple[str, ...], turn: int, each: int) -> tuple[str, ...]:
    """The GPUs of the process that is the ``turn``-th to take ``each`` of them; after the last group the first again.

    A remainder that is too small for another group is left unused; where there are fewer than ``each``, all share all.
    """
    groups = max(1, len(gpus) // each)
    first = turn % groups * each
    return gpus[first : first + each]


def threads(environ: Mapping[str, str], processes: int, share: Share, cores: int) -> int:
    """How many threads a user process may keep busy, at least 1.

    Cores that several ranks may run on count once, whether these are all cores of the node or a cpuset of the job.
    Where Slurm confines nothing (task/none) its variables still tell what it gave: to the job on this node, and to a
    task; the latter says nothing of a user process where a task has several.
    """
    limits = [cores // max(1, share.core_processes)]
    if (on_node := SLURM_CPUS_ON_NODE.of(environ)) is not None:
        limits.append(on_node // max(1, share.node_processes))
    if processes == 1 and (of_task := SLURM_CPUS_PER_TASK.of(environ)) is not None:
        limits.append(of_task)
    return max(1, min(limits))


def describe(environ: Mapping[str, str], cores: str) -> str:
    """The placement of a process with this environment in words: ``GPU 3, 4 threads, cores 12-15``."""
    words = []
    if any(name in environ for name in (*_VISIBLE, _VISIBLE_BELOW)):
        gpus = visible_gpus(environ)
        words.append(f"GPU{'s' * (len(gpus) > 1)} {','.join(gpus)}" if gpus else "no GPU")
    count = environ.get("OMP_NUM_THREADS", "1")
    words.append(f"{count} thread{'s' * (count != '1')}")
    words.append(f"core{'s' * (not cores.isdecimal())} {cores}")
    return ", ".join(words)

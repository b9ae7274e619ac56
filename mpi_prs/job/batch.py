"""From a job config to the batch job that Slurm is given."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from mpi_prs.core.errors import ConfigError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.job.config.model import JobConfig, SlurmSection
from mpi_prs.slurm.script import BatchJob

MOST_RANKS = 256
"""Above so many workers each node gets one rank for all its user processes: MPI starts sooner, and the master has fewer
to talk to."""

MPIRUN = "mpirun"  # as slurm.mpi: for a site where srun starts no MPI
_AFTERWARDS = 30.0  # seconds to write down what there is, and to ask for the requeue
_MOST_LEAD = 65535  # sbatch takes no more


def batch_job(config: JobConfig, arguments: Sequence[str], folder: Path) -> BatchJob:
    """The batch job of a config.

    Args:
        arguments: of ``mpi_prs``, such as ``run /home/me/job.yaml``; each rank gets them.
        folder: the working directory of the job.

    Raises:
        ConfigError: the processes of a node cannot be divided among ranks.
    """
    slurm, processes = config.slurm, config.process_count_per_node
    per_rank = processes_per_rank(config)
    command = [*program(), *arguments]
    if per_rank != config.processes_per_rank:
        command += ["--set", f"processes_per_rank={per_rank}"]
    log = RunDirectory(config.output).slurm_log("\0")
    return BatchJob(
        name=config.name,
        folder=str(folder),
        log=str(log).replace("%", "%%").replace("\0", "%j"),
        nodes=config.node_count,
        processes=processes,
        ranks=processes // per_rank,
        signal_lead=signal_lead(config),
        mpi=None if slurm.mpi == MPIRUN else slurm.mpi,
        mpirun=_mpirun() if slurm.mpi == MPIRUN else None,
        options=_options(slurm, processes),
        setup=slurm.setup,
        command=tuple(command),
    )


def program() -> list[str]:
    """How this program is started again: by its name where Python would take an ``mpi_prs.py`` of the user's for it."""
    return [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", "mpi_prs"]


def processes_per_rank(config: JobConfig) -> int:
    """User processes under a worker rank: those of the config, or all of a node where the job is large.

    Raises:
        ConfigError: they do not divide the processes of a node.
    """
    processes, per_rank = config.process_count_per_node, config.processes_per_rank
    if "processes_per_rank" not in config.model_fields_set:
        return processes if config.node_count * processes > MOST_RANKS else 1
    if processes % per_rank:
        raise ConfigError(
            f"processes_per_rank: got {per_rank}, but a node has process_count_per_node: {processes}; "
            "expected a number that divides it"
        )
    return per_rank


def signal_lead(config: JobConfig) -> int:
    """Seconds before the time limit at which Slurm warns the job.

    Early does no harm, since whatever still fits is done; but a warning while the ranks are just starting would end
    them, so of a short time limit it is a third at most.
    """
    if config.slurm.signal_lead is not None:
        return config.slurm.signal_lead
    lead = config.run_invocation_timeout + config.task_overhead_timeout + config.stop_grace + _AFTERWARDS
    limit = limit_seconds(config.slurm.time) if config.slurm.time else math.inf
    return max(1, math.ceil(min(lead, limit / 3, _MOST_LEAD)))


def limit_seconds(time: str) -> float:
    """A time limit as Slurm writes it: ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``,
    ``days-hours:minutes`` or ``days-hours:minutes:seconds``; infinite for ``UNLIMITED``."""
    if time.upper() in ("UNLIMITED", "INFINITE"):
        return math.inf
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return float(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds)


def _mpirun() -> str:
    """That of pip's MPI, which is beside Python and not always in the PATH; else the site's."""
    beside = Path(sys.executable).with_name(MPIRUN)
    return str(beside) if beside.exists() else MPIRUN


def _options(slurm: SlurmSection, processes: int) -> tuple[str, ...]:
    gpus = slurm.gpus_per_process
    given = {
        "cpus-per-task": slurm.cpus_per_process,
        "gpus-per-node": processes * gpus if gpus else None,
        "mem": slurm.mem,
        "time": slurm.time,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "reservation": slurm.reservation,
    }
    return (*(f"--{name}={value}" for name, value in given.items() if value is not None), *slurm.extra)

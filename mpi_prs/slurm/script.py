"""The batch script that ``submit`` hands in; ``slurm/run.sh`` is the same by hand.

::

    allocation: N nodes × P tasks        rank 0 (schedules)   worker ranks, their user processes
    one step:   N × R + 1 ranks          1 on the first node  R on each node
    again, on the nodes that are left, when the step was taken down
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from mpi_prs.errors import SlurmError

_MOST_STEPS = 10
_RANKS = "# One rank more than there are workers, on the first node: it schedules, and needs next to nothing for that."


@dataclass(frozen=True)
class BatchJob:
    """What a batch script is made of.

    Attributes:
        name: the job's name.
        folder: the working directory, absolute.
        log: file for what the script and the launcher say; ``%j`` stands for the job's id.
        nodes: nodes of the job.
        processes: user processes on each node; Slurm grants as many tasks there.
        ranks: worker ranks on each node, which run the user processes.
        signal_lead: seconds before the time limit at which Slurm sends SIGUSR2.
        mpi: how srun starts MPI, such as ``pmi2``; ``None``: as the site has set it.
        mpirun: the program that starts MPI where srun does not; ``None``: srun does.
        options: further options of sbatch, such as ``--partition=gpu``.
        setup: shell lines to run before the job.
        command: what each rank runs.
    """

    name: str
    folder: str
    log: str
    nodes: int
    processes: int
    ranks: int
    signal_lead: int
    mpi: str | None
    mpirun: str | None
    options: tuple[str, ...]
    setup: tuple[str, ...]
    command: tuple[str, ...]


def render(job: BatchJob) -> str:
    """The script, as text.

    Raises:
        SlurmError: a path or option has a character that sbatch does not take.
    """
    return "\n".join(
        (
            "#!/bin/bash",
            "# Rendered by `mpi-prs submit`. Submitted again by hand it resumes the same run.",
            "",
            *(f"#SBATCH {_quoted(option)}" for option in _options(job)),
            "",
            f"export MPI_PRS_SIGNAL_LEAD={job.signal_lead}",
            *job.setup,
            "",
            *(_with_srun(job) if job.mpirun is None else _with_mpirun(job, shlex.quote(job.mpirun))),
            "",
        )
    )


def _options(job: BatchJob) -> Iterator[str]:
    yield f"--job-name={job.name}"
    yield f"--chdir={job.folder}"
    yield f"--output={job.log}"
    yield "--open-mode=append"
    yield f"--nodes={job.nodes}"
    yield f"--ntasks-per-node={job.processes}"
    yield "--requeue"
    if job.mpirun is None:
        yield "--no-kill"
        yield f"--signal=USR2@{job.signal_lead}"
    else:  # mpirun does not survive a lost node, so Slurm may as well requeue the job; and a signal ends its daemons
        yield f"--signal=B:USR2@{job.signal_lead}"
    yield from job.options


def _with_srun(job: BatchJob) -> Iterator[str]:
    ranks = _ranks("nodes", job)
    mpi = "" if job.mpi is None else f" --mpi={shlex.quote(job.mpi)}"
    yield _RANKS
    yield "# Exit codes 0, 1, 2 and 75 are its own; with any other a node or MPI was lost: go on with what is left."
    yield "export SLURM_EXIT_ERROR=71  # of srun itself, which would else be 1"
    yield "unset SLURM_NTASKS_PER_NODE"
    yield "trap 'stopped=yes' TERM  # the ranks have been told as well: let them end in good order"
    yield "nodes=$SLURM_JOB_NUM_NODES stopped="
    yield f"for ((step = 0; step < {_MOST_STEPS}; step++)); do"
    yield "    srun --overlap --no-kill --kill-on-bad-exit=0 --overcommit --distribution=block \\"
    yield f'        --nodes="$nodes" --ntasks=$(({ranks})){mpi} \\'
    yield f"        {shlex.join(job.command)}"
    yield "    code=$?"
    yield "    case $code in 0 | 1 | 2 | 75) break ;; esac"
    yield "    sleep $((5 * step))  # Slurm may need a while to see that a node is lost"
    yield '    [ -z "$stopped" ] || break'
    yield '    left=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%D)'
    yield "    nodes=${left:-$nodes}"
    yield "done"
    yield 'exit "$code"'


def _with_mpirun(job: BatchJob, mpirun: str) -> Iterator[str]:
    ranks = _ranks("SLURM_JOB_NUM_NODES", job)
    yield _RANKS
    yield "unset SLURM_NTASKS_PER_NODE"
    yield f"if [[ $({mpirun} --version) == *'Open MPI'* ]]; then"
    yield "    warning=USR2 options=(--map-by node:OVERSUBSCRIBE --bind-to none)"
    yield "else"
    yield "    warning=TERM options=(-ppn 1)  # MPICH's passes no other signal on"
    yield "fi"
    yield "trap 'kill -s $warning $mpirun' USR2  # Slurm warns this shell alone"
    yield "trap : TERM  # the ranks have been told as well: let them end in good order"
    yield f'{mpirun} "${{options[@]}}" -n $(({ranks})) \\'
    yield f"    {shlex.join(job.command)} &"
    yield "mpirun=$!"
    yield "while kill -0 $mpirun 2> /dev/null; do"
    yield "    wait $mpirun"
    yield "    code=$?"
    yield "done"
    yield 'exit "$code"'


def _ranks(nodes: str, job: BatchJob) -> str:
    return f"{nodes} + 1" if job.ranks == 1 else f"{nodes} * {job.ranks} + 1"


def _quoted(option: str) -> str:
    """An option for a ``#SBATCH`` line, which knows quotes as a shell does, and takes a backslash even in them."""
    if any(character in option for character in "\n\r\\"):
        raise SlurmError(f"sbatch takes no line break and no backslash, but got {option!r}; choose another name")
    return shlex.quote(option)

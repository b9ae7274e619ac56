"""The batch script that ``submit`` hands in. ``slurm/run.sh`` is the same by hand: read that one first.

::

    allocation: N nodes × P tasks        rank 0 (schedules)   worker ranks, their user processes
    a step:     N × R + 1 ranks          1 on the first node  R on each node
    │
    ├── rank 0 has left its exit code: the script ends with it
    ├── it never began (exit code 1, 2, 126, 127): so does the script
    └── else a node or MPI was lost: another step, on the nodes that are left
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from mpi_prs.core.environ import SIGNAL_LEAD
from mpi_prs.core.errors import SlurmError


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
            f"export {SIGNAL_LEAD.name}={job.signal_lead}",
            *([] if job.mpi is None else [f"export SLURM_MPI_TYPE={shlex.quote(job.mpi)}"]),
            *((_CHECKED, *job.setup, "trap - ERR") if job.setup else ()),
            f"workers={job.ranks} # on each node",
            "",
            _PREPARATION,
            *([] if job.mpirun is None else _about_mpirun(shlex.quote(job.mpirun))),
            "",
            _SENTINEL,
            "",
            _STEPS,
            *(_srun(job.command) if job.mpirun is None else _mpirun(shlex.quote(job.mpirun), job.command)),
            _WHAT_CAME_OF_IT,
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
    yield "--no-kill"
    whom = "" if job.mpirun is None else "B:"  # the script alone: the signal would end the daemons of mpirun
    yield f"--signal={whom}USR2@{job.signal_lead}"
    yield from job.options


_CHECKED = """\
# A line of slurm.setup that fails ends the job; what fails inside a file that it reads is that file's affair.
trap 'code=$?
    if [ ${#BASH_SOURCE[@]} = 1 ]; then
        echo "error: this line of slurm.setup failed with exit code $code: $BASH_COMMAND" >&2
        echo "Where that does not matter, as of a file whose last line is a test, put || true behind it" >&2
        exit 2
    fi' ERR"""

_PREPARATION = """\
unset SLURM_NTASKS_PER_NODE # else srun takes it for its own
export SLURM_OVERLAP=1      # what is left of a step that lost a node stands in nobody's way
export SLURM_EXIT_ERROR=71  # of srun itself, else 1
# Rank 0 leaves its exit code here. That of srun or mpirun says little when a node was lost.
for word in /tmp/mpi_prs.*.*; do # of scripts that were killed: the name has their process
    owner=${word#/tmp/mpi_prs.}
    if [ -O "$word" ] && ! kill -0 "${owner%%.*}" 2> /dev/null; then rm -f "$word"; fi
done
MPI_PRS_EXIT_CODE=$(mktemp "/tmp/mpi_prs.$$.XXXXXX") || exit
export MPI_PRS_EXIT_CODE
# An mpirun that has lost a node leaves its srun behind, which Slurm, from 24 on, may not find by its process group.
# shellcheck disable=SC2154 # the loop is its own
trap 'rm -f "$MPI_PRS_EXIT_CODE"
    for left in $(pgrep -u "$UID" -f "srun .*--external-launcher"); do
        grep -qsz "^SLURM_JOB_ID=$SLURM_JOB_ID$" "/proc/$left/environ" && kill -KILL "$left"
    done' EXIT
trap 'stopped=yes' TERM # the ranks are told as well: let them end in good order"""

_SENTINEL = """\
# Slurm keeps a job that has lost its first node, and with it this script. Then the second node, which gets a line a
# minute from here, hears nothing for ten, and puts the job back into the queue.
# shellcheck disable=SC2016 # the variables are that node's
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    while sleep 60; do echo; done | srun --nodes=1 --ntasks=1 --relative=1 --no-kill --mpi=none bash -c '
        trap "" USR2 # the warning before the time limit
        while read -r -t 600 || { [ $? -le 128 ] || scontrol requeue "$SLURM_JOB_ID"; exit; }; do :; done' &
fi"""

_STEPS = """\
nodes=$SLURM_JOB_NUM_NODES names=$SLURM_JOB_NODELIST stopped=
for pause in 5 15 60 240 0; do
    export SLURM_JOB_NUM_NODES=$nodes SLURM_NNODES=$nodes SLURM_TASKS_PER_NODE="$workers(x$nodes)"
    export SLURM_JOB_NODELIST=$names SLURM_NODELIST=$names
    # One rank more than there are workers, on the first node: it schedules, and needs next to nothing.
    ranks=$((nodes * workers + 1))"""

_WHAT_CAME_OF_IT = """\
    read -r word < "$MPI_PRS_EXIT_CODE" && exit "$word"
    case $code in 1 | 2 | 126 | 127) exit $code ;; esac # it has never begun
    # A node or MPI was lost: go on with what is left. Slurm may need 5 minutes to see that (SlurmdTimeout).
    [ $pause = 0 ] || echo "rank 0 has left no word (exit code $code): the next step begins in $pause s" >&2
    sleep $pause
    [ -z "$stopped" ] || break
    read -r nodes names _ <<< "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format='%D %N') $nodes $names"
    export MPI_PRS_LATER_STEP=1 # which waits a while for what is left of the last one
done
exit $((code == 0 ? 75 : code))"""


def _srun(command: tuple[str, ...]) -> Iterator[str]:
    yield (
        "    srun --no-kill --kill-on-bad-exit=0 --overcommit --distribution=block "
        '--nodes="$nodes" --ntasks="$ranks" \\'
    )
    yield f"        {shlex.join(command)}"
    yield "    code=$?"


def _about_mpirun(mpirun: str) -> Iterator[str]:
    yield f"if [[ $({mpirun} --version) == *'Open MPI'* ]]; then"
    yield "    options=(--map-by slot:OVERSUBSCRIBE --bind-to none) warning=USR2"
    yield "else"
    yield "    options=() warning=TERM # MPICH's hands no other signal on to the ranks"
    yield "fi"
    yield "trap 'kill -s $warning $!' USR2"


def _mpirun(mpirun: str, command: tuple[str, ...]) -> Iterator[str]:
    yield f'    {mpirun} "${{options[@]}}" -n "$ranks" \\'
    yield f"        {shlex.join(command)} &"
    yield "    while wait $!; code=$?; kill -0 $!; do :; done 2> /dev/null # a signal ends a wait"


def _quoted(option: str) -> str:
    """An option for a ``#SBATCH`` line, which knows quotes as a shell does, and takes a backslash even in them."""
    if any(character in option for character in "\n\r\\"):
        raise SlurmError(f"sbatch takes no line break and no backslash, but got {option!r}; choose another name")
    return shlex.quote(option)

#!/bin/bash
# mpi_prs as a Slurm batch job. Copy this, edit it, and then:  sbatch run.sh job.yaml [options of `run`]
# Without arguments it runs the default config, as `mpi-prs` does.
# After a time limit, a preemption or a lost node it goes on by itself. To stop it in good order: scancel JOBID.
# Exit code 75 means stopped early: the same sbatch command goes on from there.

#SBATCH --job-name=mpi_prs
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --time=02:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=USR2@120
# 2 nodes × 8 tasks run 16 user processes, each with --cpus-per-task cores.
# #SBATCH --partition=…
# #SBATCH --account=…
# #SBATCH --gpus-per-node=…

# Seconds before the time limit, as in --signal above; more than a mini-batch and stop_grace (30) take together.
export MPI_PRS_SIGNAL_LEAD=120
# How srun starts MPI, where the site's default is not right (`srun --mpi=list`): pmi2 for MPICH, pmix for Open MPI.
# export SLURM_MPI_TYPE=pmix
# The site's modules, and the environment that mpi_prs is installed in:
# module load openmpi
# source ~/venvs/prs/bin/activate

[ $# -eq 0 ] || set -- run "$@"
workers=${SLURM_NTASKS_PER_NODE:?} # on each node

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
trap 'stopped=yes' TERM # the ranks are told as well: let them end in good order

# Slurm keeps a job that has lost its first node, and with it this script. Then the second node, which gets a line a
# minute from here, hears nothing for ten, and puts the job back into the queue.
# shellcheck disable=SC2016 # the variables are that node's
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    while sleep 60; do echo; done | srun --nodes=1 --ntasks=1 --relative=1 --no-kill --mpi=none bash -c '
        trap "" USR2 # the warning before the time limit
        while read -r -t 600 || { [ $? -le 128 ] || scontrol requeue "$SLURM_JOB_ID"; exit; }; do :; done' &
fi

nodes=$SLURM_JOB_NUM_NODES names=$SLURM_JOB_NODELIST stopped=
for pause in 5 15 60 240 0; do
    export SLURM_JOB_NUM_NODES=$nodes SLURM_NNODES=$nodes SLURM_TASKS_PER_NODE="$workers(x$nodes)"
    export SLURM_JOB_NODELIST=$names SLURM_NODELIST=$names
    # One rank more than there are workers, on the first node: it schedules, and needs next to nothing.
    ranks=$((nodes * workers + 1))
    srun --no-kill --kill-on-bad-exit=0 --overcommit --distribution=block --nodes="$nodes" --ntasks="$ranks" \
        mpi-prs "$@"
    code=$?
    # Where srun starts no MPI, mpirun in its place, and above --signal=B:USR2@120. With Open MPI add to its options
    # --map-by slot:OVERSUBSCRIBE --bind-to none, and write -USR2 for -TERM, which it does not hand on to the ranks.
    # mpirun -n "$ranks" mpi-prs "$@" &
    # trap 'kill -TERM $!' USR2
    # while wait $!; code=$?; kill -0 $!; do :; done 2> /dev/null # a signal ends a wait
    read -r word < "$MPI_PRS_EXIT_CODE" && exit "$word"
    case $code in 1 | 2 | 126 | 127) exit $code ;; esac # it has never begun
    # A node or MPI was lost: go on with what is left. Slurm may need 5 minutes to see that (SlurmdTimeout).
    [ $pause = 0 ] || echo "rank 0 has left no word (exit code $code): the next step begins in $pause s" >&2
    sleep $pause
    [ -z "$stopped" ] || break
    read -r nodes names _ <<< "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format='%D %N') $nodes $names"
    export MPI_PRS_LATER_STEP=1 # which waits a while for what is left of the last one
done
exit $((code == 0 ? 75 : code))

#!/bin/bash
# Rendered by `mpi-prs submit`. Submitted again by hand it resumes the same run.

#SBATCH --job-name=predict-digits
#SBATCH '--chdir=/home/me/my work'
#SBATCH --output=/scratch/me/50%%/_run/slurm/job-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=USR2@180
#SBATCH --cpus-per-task=2
#SBATCH --gpus-per-node=8
#SBATCH --time=02:00:00
#SBATCH --partition=gpu
#SBATCH --exclusive

export MPI_PRS_SIGNAL_LEAD=180
export SLURM_MPI_TYPE=pmi2
# A line of slurm.setup that fails ends the job; what fails inside a file that it reads is that file's affair.
trap 'code=$?
    if [ ${#BASH_SOURCE[@]} = 1 ]; then
        echo "error: this line of slurm.setup failed with exit code $code: $BASH_COMMAND" >&2
        echo "Where that does not matter, as of a file whose last line is a test, put || true behind it" >&2
        exit 2
    fi' ERR
module load cuda
source "$HOME/venv/bin/activate"
trap - ERR
workers=8 # on each node

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
        /home/me/venv/bin/python -m mpi_prs run '/home/me/it'"'"'s a job.yaml' --set 'name=$(x)'
    code=$?
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

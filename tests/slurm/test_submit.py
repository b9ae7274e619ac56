"""``submit``, ``status``, ``logs`` and ``cancel``, on a real Slurm; and what they refuse without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mpi_prs.cli.logs import show_logs
from mpi_prs.cli.watch import show_status
from mpi_prs.core.errors import ConfigError, SlurmError
from mpi_prs.job.config.model import load_config
from mpi_prs.job.config.secret_overrides import refuse_secrets
from mpi_prs.monitor.status import read_status
from mpi_prs.slurm.control import JobState
from mpi_prs.slurm.job_record import keep_submitted_job, latest_job, submitted_job
from mpi_prs.slurm.watch import ASK_SECONDS, RunWatch
from tests.support.jobs import MARK, NAMES_SCRIPT, Job, Mpi, assert_every_row_once, need, wait_until
from tests.support.slurm_cluster import SlurmCluster, has_pmix

WAITING_SCRIPT = """
import os, pathlib, time

def run(mini_batch):
    print("working on", os.path.basename(mini_batch[0]), flush=True)
    while not pathlib.Path(__file__).with_name("go").exists():
        time.sleep(0.01)
    return [os.path.basename(path) for path in mini_batch]
"""


class Cli:
    """The commands, as somebody at a login node of a cluster gives them for one job."""

    def __init__(self, job: Job, slurm: SlurmCluster | None = None) -> None:
        self.job = job
        job.environment |= slurm.full_environment({MARK: job.mark}) if slurm else {"PATH": "/nowhere"}

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        target = self.job.config if command == "submit" else self.job.directory.output
        return self.job.start([sys.executable, "-m", "mpi_prs", command, str(target), *arguments])

    def __call__(self, command: str, *arguments: str, code: int = 0) -> str:
        done = self.job.finish(self.start(command, *arguments))
        assert done.returncode == code, done.stdout
        return done.stdout

    def job_id(self) -> int:
        job_id = submitted_job(self.job.directory)
        assert job_id is not None
        return int(job_id)


def let_go(job: Job) -> None:
    (job.folder / "go").touch()


def begun(job: Job) -> Callable[[], object]:
    logs = job.directory.logs
    return lambda: any("working on" in path.read_text() for path in logs.glob("user/stdout/*/*"))


# On a cluster


def test_a_submitted_job_can_be_followed_to_its_end(slurm: SlurmCluster, new_job: Callable[..., Job]) -> None:
    job = new_job(WAITING_SCRIPT, 40, node_count=3, process_count_per_node=2, slurm={"cpus_per_process": 2})
    cli = Cli(job, slurm)
    said = cli("submit")
    assert f"submitted as Slurm job {cli.job_id()}: 3 nodes with 2 processes each" in said
    assert f"mpi-prs status {job.directory.output} --watch" in said
    follower, watcher = cli.start("logs", "--follow"), cli.start("status", "--watch")
    wait_until(begun(job))
    wait_until(lambda: (status := read_status(job.directory.status)) and status.processes_ready == 6)
    assert "6 of 6 ready, 6 workers on 3 nodes" in cli("status")
    assert f"Slurm job {cli.job_id()} is at work on {job.directory.output}" in cli("submit", code=2)
    let_go(job)
    slurm.wait(cli.job_id(), "COMPLETED")
    assert_every_row_once(job)
    assert "complete" in job.finish(watcher).stdout
    assert "10 of 10 mini-batches (100 %)" in job.finish(follower).stdout
    assert "working on item-" in cli("logs", "--process", "1", "--node", "n2")
    assert f"the output is in {job.directory.output}. Nothing is submitted" in cli("submit")
    assert "is over already" in cli("cancel")


def test_a_cancelled_job_stays_cancelled_and_resumes_when_it_is_submitted_again(
    slurm: SlurmCluster, new_job: Callable[..., Job]
) -> None:
    job = new_job(WAITING_SCRIPT, 40, node_count=2, stop_grace=1)
    cli = Cli(job, slurm)
    cli("submit")
    first = cli.job_id()
    wait_until(begun(job))
    assert f"Slurm job {first} is cancelled" in cli("cancel")
    slurm.wait(first, "CANCELLED")
    slurm.wait_gone(first)
    assert slurm.show("job", first)["Restarts"] == "0"
    job.assert_nothing_left()
    assert "is over already" in cli("cancel")
    assert f"Slurm job {first}: cancelled" in cli("status", "--watch")
    let_go(job)
    assert "complete" in cli("submit", "--wait")
    assert cli.job_id() > first
    assert_every_row_once(job)
    assert not job.directory.cancelled.exists()


def test_a_job_that_waits_in_the_queue_is_shown_there_and_can_be_cancelled(
    slurm: SlurmCluster, new_job: Callable[..., Job]
) -> None:
    job = new_job(NAMES_SCRIPT, 4, slurm={"extra": ["--hold"]})
    cli = Cli(job, slurm)
    cli("submit")
    assert f"Slurm job {cli.job_id()}: pending (JobHeldUser)" in cli("status")
    assert f"Slurm job {cli.job_id()} is at work" in cli("submit", code=2)
    waiting = cli.start("submit", "--wait")
    assert job.finish(waiting).returncode == 2
    cli("cancel")
    assert f"Slurm job {cli.job_id()}: cancelled" in cli("status", "--watch")


def test_waiting_for_a_job_ends_with_its_exit_code(slurm: SlurmCluster, new_job: Callable[..., Job]) -> None:
    job = new_job("def run(mini_batch):\n    raise ValueError('no')\n", 4, error_threshold=0, run_max_try=1)
    said = Cli(job, slurm)("submit", "--wait", code=1)
    assert "1 failed" in said
    assert f"mpi-prs logs {job.directory.output}" in said


def test_a_requeued_job_that_overwrites_does_not_throw_away_its_own_work(
    slurm: SlurmCluster, new_job: Callable[..., Job]
) -> None:
    job = new_job(WAITING_SCRIPT, 12, mini_batch_size=1, process_count_per_node=2, stop_grace=0)
    cli = Cli(job, slurm)
    let_go(job)
    assert job.local("--limit", "3").returncode == 0
    (job.folder / "go").unlink()
    cli("submit", "--overwrite")
    wait_until(lambda: (status := read_status(job.directory.status)) and status.slurm_job_id)
    wait_until(begun(job))
    created = json.loads(job.directory.description.read_bytes())
    slurm.scontrol("requeue", cli.job_id())
    slurm.wait(cli.job_id(), "PENDING")
    assert "requeued 1 time so far" in cli("status")
    let_go(job)
    slurm.hurry(cli.job_id())
    slurm.wait(cli.job_id(), "COMPLETED", within=90)
    assert_every_row_once(job)
    assert json.loads(job.directory.description.read_bytes()) == created
    assert "resuming" in job.directory.slurm_log(str(cli.job_id())).read_text()


def test_of_an_array_of_the_same_job_one_does_the_work_and_the_others_are_refused(
    slurm: SlurmCluster, new_job: Callable[..., Job]
) -> None:
    job = new_job(WAITING_SCRIPT, 20)
    cli = Cli(job, slurm)
    script = job.folder / "submit.sh"
    script.write_text(cli("submit", "--dry-run"))
    job.directory.slurm.mkdir(parents=True)
    slurm.sbatch("--array=0-1", script, cwd=job.folder, env=job.environment)
    logs = job.directory.slurm
    wait_until(lambda: any("another run is at work" in log.read_text() for log in logs.glob("*.log")), 60)
    let_go(job)
    slurm.wait_idle()
    assert_every_row_once(job)
    assert job.ledger().starts == 1


BUSY_SCRIPT = """
import os, pathlib, time

def run(mini_batch):
    if not pathlib.Path(__file__).with_name("go").exists():
        time.sleep(0.1)
    return [os.path.basename(path) for path in mini_batch]
"""


def submit_with(mpi: Mpi, way: str, slurm: SlurmCluster, job: Job) -> Cli:
    """Submit a job by the Python of an MPI, to be started in one of the ways of ``slurm.mpi``; waits until it works."""
    cli = Cli(job, slurm)
    for name in ("OMPI", "PRTE"):
        job.environment |= {f"{name}_ALLOW_RUN_AS_ROOT": "1", f"{name}_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [str(mpi.python), "-m", "mpi_prs", "submit", str(job.config), "--set", f"slurm.mpi={way}"]
    done = job.finish(job.start(command))
    assert done.returncode == 0, done.stdout
    log = job.directory.slurm_log(str(cli.job_id()))
    wait_until(
        lambda: job.directory.journal.exists() and len(job.ledger().done) > 5,
        60,
        lambda: log.read_text(errors="replace") if log.exists() else slurm.logs(),
    )
    return cli


def assert_requeued_and_complete(cli: Cli, slurm: SlurmCluster) -> None:
    slurm.wait(cli.job_id(), "PENDING")
    let_go(cli.job)
    slurm.hurry(cli.job_id())
    slurm.wait(cli.job_id(), "COMPLETED")
    assert slurm.show("job", cli.job_id())["Restarts"] == "1"
    assert_every_row_once(cli.job)
    assert not cli.job.ledger().attempts, "a try was cut off"
    slurm.wait_gone(cli.job_id())


def test_a_submitted_job_goes_back_into_the_queue_before_its_time_limit(
    slurm: SlurmCluster, new_job: Callable[..., Job], mpich: Mpi
) -> None:
    job = new_job(BUSY_SCRIPT, 900, mini_batch_size=1, node_count=2, stop_grace=1, slurm={"signal_lead": 4})
    cli = submit_with(mpich, "mpirun", slurm, job)
    slurm.end_in(cli.job_id(), 34)  # 30 of which Slurm may be early
    assert_requeued_and_complete(cli, slurm)


def test_mpirun_of_open_mpi_hands_the_warning_on_to_the_ranks(
    slurm: SlurmCluster, new_job: Callable[..., Job], openmpi: Mpi
) -> None:
    job = new_job(BUSY_SCRIPT, 300, mini_batch_size=1, node_count=2, stop_grace=1, slurm={"signal_lead": 4})
    cli = submit_with(openmpi, "mpirun", slurm, job)
    slurm.scancel("--batch", "--signal=USR2", cli.job_id())  # as --signal=B:USR2@4 does
    assert_requeued_and_complete(cli, slurm)


def test_a_submitted_job_is_started_by_srun_with_pmix(
    slurm: SlurmCluster, new_job: Callable[..., Job], openmpi: Mpi
) -> None:
    if not has_pmix():
        need("PMIx for Slurm, libpmix-dev: make test installs it")
    cli = submit_with(openmpi, "pmix", slurm, new_job(BUSY_SCRIPT, 40, mini_batch_size=1, node_count=2))
    let_go(cli.job)
    slurm.wait(cli.job_id(), "COMPLETED")
    assert_every_row_once(cli.job)
    slurm.wait_gone(cli.job_id())


def test_what_slurm_refuses_is_told_in_its_own_words(slurm: SlurmCluster, new_job: Callable[..., Job]) -> None:
    job = new_job(NAMES_SCRIPT, 4, slurm={"partition": "gpux"})
    cli = Cli(job, slurm)
    assert "invalid partition specified: gpux" in cli("submit", code=2)
    assert submitted_job(job.directory) is None


# Without one


def test_a_dry_run_shows_the_script_and_writes_nothing(new_job: Callable[..., Job]) -> None:
    job = new_job(NAMES_SCRIPT, 4)
    said = Cli(job)("submit", "--dry-run", "--set", "mini_batch_size=2", "--output", "other", "--limit", "1")
    assert f"run {job.config} --set mini_batch_size=2 --output {job.folder}/other --limit 1\n" in said
    assert f"#SBATCH --output={job.folder}/other/_run/slurm/job-%j.log\n" in said
    assert not (job.folder / "other").exists()


def test_without_slurm_submitting_says_what_is_missing(new_job: Callable[..., Job]) -> None:
    assert "there is no sbatch on this machine" in Cli(new_job(NAMES_SCRIPT, 4))("submit", code=2)


def test_a_run_without_a_slurm_job_is_stopped_in_another_way(new_job: Callable[..., Job]) -> None:
    job = new_job(WAITING_SCRIPT, 4)
    cli = Cli(job)
    running = job.start_local()
    wait_until(begun(job))
    assert f"send SIGTERM to process {running.pid} on " in cli("cancel", code=2)
    assert "has no Slurm job" in cli("cancel", code=2)
    let_go(job)
    assert job.finish(running).returncode == 0
    assert "complete" in cli("status", "--watch")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("storage.connection_string=x", "storage.connection_string"),
        ("environment_variables.API_KEY=x", "environment_variables.API_KEY"),
        ("environment_variables={HF_TOKEN: x}", "environment_variables.HF_TOKEN"),
        ("arguments=[--token, x]", "arguments"),
    ],
)
def test_a_secret_never_gets_into_a_batch_script(new_job: Callable[..., Job], override: str, key: str) -> None:
    job = new_job(NAMES_SCRIPT, 4)
    with pytest.raises(ConfigError, match=f"--set {key}.*: this looks like a secret"):
        refuse_secrets(load_config(job.config, [override]), job.config, [override])


def test_what_only_sounds_like_a_secret_may_be_set(new_job: Callable[..., Job], tmp_path: Path) -> None:
    job = new_job(NAMES_SCRIPT, 4)
    for override in (f"storage.account_key_file={tmp_path}/key", "arguments=[--epochs, 3]", "inputs=[in/author]"):
        refuse_secrets(load_config(job.config, [override]), job.config, [override])


# Looking again and again

PENDING = JobState("PENDING", "Resources", "2024-05-01T10:00:00", is_batch=True, requeue=True, restarts=0, exit_code=0)


class Slurm:
    """Answers, and counts how often it is asked."""

    def __init__(self, answer: JobState | SlurmError | None) -> None:
        self.answer = answer
        self.asked = 0
        self.now = 0.0

    def __call__(self, _job_id: str) -> JobState | None:
        self.asked += 1
        if isinstance(self.answer, SlurmError):
            raise self.answer
        return self.answer


def watch_of(job: Job, slurm: Slurm) -> RunWatch:
    job.directory.slurm.mkdir(parents=True, exist_ok=True)
    keep_submitted_job(job.directory, "12")
    return RunWatch(job.directory, slurm, lambda: slurm.now)


def test_slurm_is_asked_no_more_often_than_every_few_seconds(new_job: Callable[..., Job]) -> None:
    slurm = Slurm(PENDING)
    watch = watch_of(new_job(NAMES_SCRIPT, 4), slurm)
    for _ in range(5):
        look = watch.look(0.0)
        assert (look.is_over, look.queue) == (
            False,
            "Slurm job 12: pending (Resources), expected to start at 2024-05-01 10:00:00",
        )
    assert slurm.asked == 1
    slurm.now += ASK_SECONDS
    watch.look(0.0)
    assert slurm.asked == 2


def test_a_job_that_will_never_start_says_what_is_wrong(new_job: Callable[..., Job]) -> None:
    look = watch_of(new_job(NAMES_SCRIPT, 4), Slurm(replace(PENDING, reason="PartitionNodeLimit"))).look(0.0)
    assert "(PartitionNodeLimit). It will never start as it is: node_count is more than " in look.queue


def test_while_a_run_has_no_status_its_jobs_last_words_are_shown(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = new_job(NAMES_SCRIPT, 4)
    watch = watch_of(job, Slurm(replace(PENDING, state="RUNNING")))
    monkeypatch.setattr("mpi_prs.cli.watch.RunWatch", lambda _: watch)
    job.directory.slurm_log("12").write_text("".join(f"line {number}\n\n" for number in range(9)))
    assert show_status(job.directory, watch=False) == 0
    first, *said = capsys.readouterr().out.splitlines()
    assert first.startswith("Slurm job 12: running")
    assert said[1:] == [f"  line {number}" for number in range(4, 9)]


def test_a_stopped_run_that_goes_on_by_itself_says_so_first(
    new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = new_job(NAMES_SCRIPT, 4)
    job.environment["SLURM_JOB_ID"] = "12"
    assert job.local("--limit", "1").returncode == 0
    watch = watch_of(job, Slurm(replace(PENDING, restarts=1)))
    status = json.loads(job.directory.status.read_bytes())
    job.directory.status.write_text(json.dumps({**status, "phase": "drained", "exit_code": 75}))
    monkeypatch.setattr("mpi_prs.cli.watch.RunWatch", lambda _: watch)
    assert show_status(job.directory, watch=False) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("Slurm job 12: pending (Resources)")


def test_a_way_to_start_mpi_that_srun_does_not_have_is_refused_before_any_node_waits(
    new_job: Callable[..., Job], tmp_path: Path
) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\necho 'MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix_v4' >&2\n")
    srun.chmod(0o755)
    for mpi, said in (("pmi3", "by 'pmi3' here, but by none, pmi2, pmix_v4"), ("pmix", "there is no sbatch")):
        cli = Cli(new_job(NAMES_SCRIPT, 4, slurm={"mpi": mpi}))
        cli.job.environment["PATH"] = str(tmp_path)
        assert said in cli("submit", code=2)


def test_a_controller_that_does_not_answer_ends_no_watch(new_job: Callable[..., Job]) -> None:
    look = watch_of(new_job(NAMES_SCRIPT, 4), Slurm(SlurmError("the state is not known"))).look(0.0)
    assert (look.is_over, look.queue) == (False, "the state is not known")


def test_a_job_that_slurm_has_forgotten_is_over(new_job: Callable[..., Job]) -> None:
    look = watch_of(new_job(NAMES_SCRIPT, 4), Slurm(None)).look(0.0)
    assert (look.is_over, look.exit_code) == (True, None)


def test_a_job_that_was_ended_before_it_began_has_no_exit_code_of_success(new_job: Callable[..., Job]) -> None:
    cancelled = JobState("CANCELLED", "", "", is_batch=True, requeue=True, restarts=0, exit_code=0)
    look = watch_of(new_job(NAMES_SCRIPT, 4), Slurm(cancelled)).look(0.0)
    assert (look.is_over, look.exit_code) == (True, 75)


def test_who_follows_a_log_sees_what_the_launcher_passes_on_after_the_end(
    new_job: Callable[..., Job], capsys: pytest.CaptureFixture[str]
) -> None:
    job = new_job(NAMES_SCRIPT, 4)
    job.environment["SLURM_JOB_ID"] = "12"
    assert job.local().returncode == 0
    log = job.directory.slurm_log("12")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("the first line\n")
    states = iter(["RUNNING", "COMPLETING"])

    def ask(_job_id: str) -> JobState:
        state = next(states)
        if state != "RUNNING":
            log.write_text("the first line\nthe last line\n")
        return replace(PENDING, state=state)

    assert show_logs(job.directory, None, None, True, RunWatch(job.directory, ask, sleep=lambda _: None)) == 0
    assert capsys.readouterr().out == "the first line\nthe last line\n"


def test_the_later_of_two_jobs_is_the_one_that_counts(new_job: Callable[..., Job]) -> None:
    job = new_job(NAMES_SCRIPT, 4)
    job.environment["SLURM_JOB_ID"] = "9"
    assert job.local().returncode == 0
    assert latest_job(job.directory) == "9"
    slurm = Slurm(PENDING)
    assert watch_of(job, slurm).look(0.0).queue.startswith("Slurm job 12")
    assert latest_job(job.directory) == "12"
    keep_submitted_job(job.directory, "5")
    assert latest_job(job.directory) == "9"
    look = RunWatch(job.directory, slurm).look(0.0)  # whose end is on file
    assert (look.is_over, look.exit_code, slurm.asked) == (True, 0, 1)

"""The batch script, and what Slurm's environment and answers are taken for."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.core.errors import ConfigError, SlurmError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.job.batch import batch_job, limit_seconds, signal_lead
from mpi_prs.job.config.model import JobConfig, load_config
from mpi_prs.slurm import requeue
from mpi_prs.slurm.control import JobState, job_state, parse_job, submit
from mpi_prs.slurm.environment import SlurmEnvironment
from mpi_prs.slurm.script import BatchJob, render
from tests.support.jobs import NAMES_SCRIPT, REPOSITORY, make_job, need

GOLDEN = Path(__file__).parent / "golden"
JOB = BatchJob(
    name="predict-digits",
    folder="/home/me/my work",
    log="/scratch/me/50%%/_run/slurm/job-%j.log",
    nodes=4,
    processes=8,
    ranks=8,
    signal_lead=180,
    mpi="pmi2",
    mpirun=None,
    options=("--cpus-per-task=2", "--gpus-per-node=8", "--time=02:00:00", "--partition=gpu", "--exclusive"),
    setup=("module load cuda", 'source "$HOME/venv/bin/activate"'),
    command=("/home/me/venv/bin/python", "-m", "mpi_prs", "run", "/home/me/it's a job.yaml", "--set", "name=$(x)"),
)


def config_of(tmp_path: Path, **settings: object) -> JobConfig:
    return load_config(make_job(tmp_path / "job", NAMES_SCRIPT, 1, **settings).config)


def script_of(config: JobConfig, *arguments: str) -> str:
    return render(batch_job(config, ["run", "job.yaml", *arguments], Path("/")))


# The script


@pytest.mark.parametrize(
    ("name", "job"), [("srun", JOB), ("mpirun", replace(JOB, mpi=None, mpirun="/opt/mpi/bin/mpirun", ranks=1))]
)
def test_the_script_is_the_one_that_was_looked_at(name: str, job: BatchJob) -> None:
    assert render(job) == (GOLDEN / f"submit-{name}.sh").read_text()


def test_the_script_goes_on_after_a_fault_as_run_sh_does() -> None:
    by_hand = (REPOSITORY / "slurm" / "run.sh").read_text().replace('mpi-prs "$@"\n', "COMMAND\n", 1)
    rendered = render(JOB).replace(shlex.join(JOB.command), "COMMAND")
    begin = "\nunset SLURM_NTASKS_PER_NODE"
    for_mpirun = re.compile(r"^    # Where srun starts no MPI(.*\n)+?    # while .*\n", re.MULTILINE)
    assert for_mpirun.sub("", by_hand[by_hand.index(begin) :]) == rendered[rendered.index(begin) :]


@pytest.mark.parametrize("name", ["srun", "mpirun"])
def test_shellcheck_has_nothing_to_say_about_the_script(name: str) -> None:
    if shutil.which("shellcheck") is None:
        need("shellcheck: apt-get install shellcheck")
    # SC1091: what the user's set-up sources is not here to be read. SC2016: what looks like $(x) is not to be run
    done = subprocess.run(
        ["shellcheck", "--exclude=SC1091,SC2016", GOLDEN / f"submit-{name}.sh"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stdout


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=4))
def test_whatever_is_in_an_argument_the_shell_hands_it_on_unchanged(arguments: list[str]) -> None:
    script = render(replace(JOB, command=("python", *arguments)))
    command = script[script.index("        python") : script.index("\n    code=$?")]
    assert shlex.split(command) == ["python", *arguments]


@pytest.mark.parametrize(
    ("setup", "code", "words"),
    [
        (["module load cuda"], 2, ["line of slurm.setup failed with exit code 127: module load cuda"]),
        (["for each in 1 2; do", "false; done"], 2, ["failed with exit code 1: false"]),
        (["source ./venv"], 0, ["ready"]),  # in which something fails that nobody minds
        (["source ./none"], 2, ["failed with exit code 1: source ./none", "put || true behind it"]),
        (["if false; then", "exit 3; fi", "false || true"], 0, ["ready"]),
    ],
)
def test_a_line_of_the_setup_that_fails_ends_the_job_with_that_line(
    tmp_path: Path, setup: list[str], code: int, words: list[str]
) -> None:
    (tmp_path / "venv").write_text("false\ntrue\n")
    head = render(replace(JOB, setup=tuple(setup))).partition("workers=")[0]
    (tmp_path / "job.sh").write_text(f"{head}\nfalse; echo ready\n")
    done = subprocess.run(["bash", "job.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert [word for word in words if word not in done.stdout + done.stderr] == []


@pytest.mark.parametrize("folder", ["/home/a\n#SBATCH --account=b", "/home/a\\b"])
def test_what_sbatch_cannot_take_is_refused(folder: str) -> None:
    with pytest.raises(SlurmError, match="no line break and no backslash"):
        render(replace(JOB, folder=folder))


def test_what_the_config_leaves_out_is_left_to_the_cluster(tmp_path: Path) -> None:
    script = script_of(config_of(tmp_path))
    for option in ("cpus", "gpus", "mem", "time", "partition", "account", "qos", "constraint", "reservation"):
        assert f"--{option}" not in script
    assert "SLURM_MPI_TYPE" not in script


def test_gpus_are_asked_for_by_the_node_and_cores_by_the_process(tmp_path: Path) -> None:
    slurm = {"gpus_per_process": 2, "cpus_per_process": 3, "mem": "64G", "extra": ["--exclusive"]}
    script = script_of(config_of(tmp_path, process_count_per_node=4, slurm=slurm))
    for option in ("--ntasks-per-node=4", "--gpus-per-node=8", "--cpus-per-task=3", "--mem=64G", "--exclusive"):
        assert f"#SBATCH {option}\n" in script


def test_a_large_job_gets_one_rank_a_node_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    large = config_of(tmp_path / "a", node_count=40, process_count_per_node=8)
    assert "\nworkers=1 #" in script_of(large)
    assert "--set processes_per_rank=8" in script_of(large)
    chosen = config_of(tmp_path / "b", node_count=40, process_count_per_node=8, processes_per_rank=2)
    assert "\nworkers=4 #" in script_of(chosen)
    assert "--set" not in script_of(chosen)
    small = config_of(tmp_path / "c", node_count=32, process_count_per_node=8)
    assert "\nworkers=8 #" in script_of(small)


def test_processes_that_do_not_divide_among_ranks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"processes_per_rank: got 3.*process_count_per_node: 8"):
        script_of(config_of(tmp_path, process_count_per_node=8, processes_per_rank=3))


# The warning before the time limit


def test_the_warning_leaves_time_for_a_whole_run_call(tmp_path: Path) -> None:
    assert signal_lead(config_of(tmp_path / "a", run_invocation_timeout=600, stop_grace=60)) >= 660
    assert signal_lead(config_of(tmp_path / "b", run_invocation_timeout=1e6)) == 65535
    assert signal_lead(config_of(tmp_path / "c", slurm={"signal_lead": 7})) == 7


def test_of_a_short_time_limit_the_warning_takes_a_third_at_most(tmp_path: Path) -> None:
    assert signal_lead(config_of(tmp_path, slurm={"time": "1"})) == 20


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("02:00:01", 7201),
        ("1-2", 93600),
        ("1-2:3", 93780),
        ("1-2:3:4", 93784),
        ("unlimited", math.inf),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(time: str, seconds: float) -> None:
    assert limit_seconds(time) == seconds


# The environment


def test_outside_slurm_there_is_no_slurm_environment() -> None:
    assert SlurmEnvironment.of({}) is None
    assert SlurmEnvironment.of({"SLURM_JOB_ID": "x"}) is None


def test_the_environment_of_a_rank_under_srun() -> None:
    environ = {
        "SLURM_JOB_ID": "12",
        "SLURM_RESTART_COUNT": "3",
        "SLURM_STEP_NUM_TASKS": "5",
        "MPI_PRS_SIGNAL_LEAD": "90",
    }
    slurm = SlurmEnvironment.of(environ)
    assert slurm == SlurmEnvironment(job_id="12", is_restart=True, signal_lead=90.0)
    assert slurm.by_batch_script


def test_another_step_of_a_job_is_a_restart_as_well() -> None:
    first = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "1"}  # the step that watches over the first node is step 0
    assert SlurmEnvironment.of(first) == SlurmEnvironment(job_id="12", is_restart=False, signal_lead=None)
    later = {**first, "MPI_PRS_LATER_STEP": "1"}
    assert SlurmEnvironment.of(later) == SlurmEnvironment(job_id="12", is_restart=True, signal_lead=None)


# What Slurm says

SHOWN = (
    "JobId={id} JobName={name} UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=42 Nice=0 Account=(null) "
    "JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0 "
    "StartTime=2024-05-01T10:00:00 EndTime=2024-05-01T11:00:00 NumNodes=3 "
)
RUNNING = JobState("RUNNING", "", "2024-05-01T10:00:00", is_batch=True, requeue=True, restarts=2, exit_code=0)


def test_what_slurm_says_about_a_job_is_read() -> None:
    assert parse_job(SHOWN.format(id=12, name="a"), "12") == RUNNING


def test_a_job_name_that_looks_like_an_answer_changes_nothing() -> None:
    assert parse_job(SHOWN.format(id=12, name="x JobState=FAILED Requeue=0"), "12") == RUNNING


def test_of_an_array_the_job_itself_is_read() -> None:
    shown = SHOWN.format(id=11, name="a").replace("RUNNING", "PENDING") + "\n" + SHOWN.format(id=12, name="a")
    assert parse_job(shown, "12") == RUNNING
    assert parse_job(shown, "1") is None


@pytest.mark.parametrize(("version", "asked"), [((22, 5), ["7"]), ((23, 11), ["7"]), ((24, 5), []), ((24, 11), [])])
def test_a_preempted_job_is_put_back_once_by_slurm_or_by_us(
    version: tuple[int, ...], asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = SHOWN.format(id=7, name="a") + "PreemptTime=2024-05-01T10:20:00 "
    requeued: list[str] = []
    monkeypatch.setattr(requeue, "job_state", lambda job_id: parse_job(shown, job_id))
    monkeypatch.setattr(requeue, "controller_version", lambda: version)
    monkeypatch.setattr(requeue, "requeue", requeued.append)
    said = requeue.put_back("7", RunDirectory(tmp_path), most=100)
    assert requeued == asked
    assert ("Slurm puts it back" in said) == (not asked)


@pytest.mark.parametrize(("shown", "code"), [("75:0", 75), ("0:15", 143), ("0:0", 0)])
def test_an_exit_code_is_told_as_a_shell_tells_it(shown: str, code: int) -> None:
    state = parse_job(SHOWN.format(id=12, name="a").replace("ExitCode=0:0", f"ExitCode={shown}"), "12")
    assert state is not None
    assert state.exit_code == code


@pytest.mark.parametrize(("state", "is_over"), [("PENDING", False), ("COMPLETING", False), ("TIMEOUT", True)])
def test_a_job_is_over_when_it_has_left_the_queue_for_good(state: str, is_over: bool) -> None:
    assert replace(RUNNING, state=state).is_over is is_over


def fake(folder: Path, program: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_where_there_is_no_slurm_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match=r"has not been submitted: there is no sbatch on this machine.*login node"):
        submit("#!/bin/sh\n")


def test_a_refusal_is_told_in_slurms_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1", monkeypatch)
    with pytest.raises(SlurmError, match="has not been submitted: invalid partition specified: x"):
        submit("#!/bin/sh\n")


def test_the_job_id_is_read_with_or_without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "sbatch", "echo '12;alps'", monkeypatch)
    assert submit("#!/bin/sh\n") == "12"


def test_a_job_that_slurm_has_forgotten_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", monkeypatch)
    assert job_state("12") is None


def test_a_controller_that_is_down_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(
        tmp_path,
        "scontrol",
        "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
        monkeypatch,
    )
    with pytest.raises(SlurmError, match=r"the state of job 12 is not known: .*Unable to contact slurm controller"):
        job_state("12")

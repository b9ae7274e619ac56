"""Faults of a whole job: kill its parts at any moment, stop it, fill its disk; resume; then count the rows."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpi_prs.job.batch import program
from tests.support.jobs import (
    NAMES_SCRIPT,
    REPOSITORY,
    Job,
    Mpi,
    assert_every_row_once,
    done_so_far,
    master_pid,
    need,
    wait_for_progress,
    wait_until,
    worker_pids,
)

NewJob = Callable[..., Job]

SLOW_SCRIPT = """
import os, time

def run(mini_batch):
    time.sleep({seconds})
    return [os.path.basename(path) for path in mini_batch]
"""

WITH_GRANDCHILD = """
import os, subprocess, time

def init():
    subprocess.Popen(["sleep", "1000"])

def run(mini_batch):
    time.sleep(0.005)
    return [os.path.basename(path) for path in mini_batch]
"""


# Killed


@pytest.mark.parametrize("victim", ["master", "worker", "mpirun"])
def test_nothing_is_left_of_a_killed_job_and_it_resumes(new_job: NewJob, mpi: Mpi, victim: str) -> None:
    job = new_job(WITH_GRANDCHILD, items=2000, mini_batch_size=2)
    process = job.start_under(mpi)
    wait_for_progress(job, process, 20)
    assert job.pids("sleep 1000")
    pid = {"master": master_pid(job), "worker": worker_pids(job)[0], "mpirun": process.pid}[victim]
    os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    job.assert_nothing_left()
    finished = done_so_far(job)
    assert 20 < finished < 1000
    (job.folder / "script.py").write_text(SLOW_SCRIPT.format(seconds=0))
    done = job.under(mpi, "--accept-changes")
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


def test_with_fault_tolerant_open_mpi_a_killed_worker_does_not_end_the_job(new_job: NewJob, openmpi: Mpi) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.02), items=600, mini_batch_size=2)
    process = job.start_under(openmpi, ranks=4, launcher=("--with-ft", "ulfm"))
    wait_for_progress(job, process, 20)
    os.kill(worker_pids(job)[0], signal.SIGKILL)
    done = job.finish(process)
    assert done.returncode == 0, done.stdout
    assert "is lost" in done.stdout
    assert_every_row_once(job)


@pytest.mark.parametrize("victim", ["master", "worker"])
def test_a_rank_that_dies_while_the_output_is_put_together_does_not_keep_the_others(
    new_job: NewJob, openmpi: Mpi, victim: str
) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.02), items=60, mini_batch_size=2, output_order="input")
    process = job.start_under(openmpi, ranks=4, launcher=("--with-ft", "ulfm"))
    wait_for_progress(job, process, 1)
    master, workers = master_pid(job), worker_pids(job)
    wait_until(lambda: any("the end" in path.read_text() for path in job.directory.logs.glob("sys/node/*/worker*.txt")))
    os.kill(master, signal.SIGSTOP)  # as long as it takes to order or to upload much
    time.sleep(1)
    os.kill(master if victim == "master" else workers[1], signal.SIGKILL)
    if victim == "worker":
        time.sleep(1)
        os.kill(master, signal.SIGCONT)
    done = job.finish(process, timeout=60)
    assert ("complete (exit code 0)" in done.stdout) == (victim == "worker")
    assert job.under(openmpi).returncode == 0
    assert_every_row_once(job)


def test_a_master_without_its_launcher_does_not_wait_for_ranks_that_never_report(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(NAMES_SCRIPT)
    mute = [str(mpich.python), "-c", "import time; from mpi4py import MPI; time.sleep(100)"]
    process = job.start([*mpich.command(1), "run", str(job.config), ":", "-n", "1", *mute])
    wait_until(job.directory.status.exists)
    master = master_pid(job)
    os.kill(process.pid, signal.SIGKILL)
    for pid in job.pids("hydra"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: master not in job.processes(), 30)
    job.kill_all()
    process.communicate()


# Stopped by a signal

PHASES = {
    "while the inputs are listed": lambda job: job.directory.lock.exists(),
    "during init()": lambda job: bool(job.user_processes()),
    "in the middle": lambda job: done_so_far(job) > 5,
}


@pytest.mark.parametrize("phase", PHASES)
def test_sigterm_in_each_phase_ends_the_job_resumable(new_job: NewJob, phase: str) -> None:
    script = SLOW_SCRIPT.format(seconds=0.05)
    if phase == "during init()":
        script += "\ndef init():\n    time.sleep(1)\n"
    job = new_job(script, items=400, mini_batch_size=2)
    process = job.start_local()
    wait_until(lambda: process.poll() is not None or PHASES[phase](job))
    process.send_signal(signal.SIGTERM)
    done = job.finish(process, timeout=30)
    assert done.returncode in (75, -signal.SIGTERM) if phase == "while the inputs are listed" else done.returncode == 75
    assert "Traceback" not in done.stdout
    job.assert_nothing_left()
    (job.folder / "script.py").write_text(SLOW_SCRIPT.format(seconds=0))
    done = job.local("--accept-changes")
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_the_first_signal_drains_what_runs_and_starts_nothing_new(new_job: NewJob, number: signal.Signals) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.5), items=100, mini_batch_size=2)
    process = job.start_local()
    wait_for_progress(job, process, 1)
    process.send_signal(number)
    done = job.finish(process, timeout=30)
    assert done.returncode == 75, done.stdout
    assert "the same command resumes" in done.stdout
    ledger = job.ledger()
    assert 4 <= len(ledger.done) <= 6, "the two that ran have finished, nothing else was started"
    assert not ledger.attempts


def test_the_second_signal_stops_at_once(new_job: NewJob) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=1000), items=10, run_invocation_timeout=2000, stop_grace=600)
    process = job.start_local()
    wait_until(lambda: len(job.user_processes()) == 2 and job.directory.status.exists())
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: any("second signal" in p.read_text() for p in job.directory.logs.glob("sys/node/*/master.txt")))
    process.send_signal(signal.SIGTERM)
    done = job.finish(process, timeout=30)
    assert done.returncode == 75, done.stdout


def test_what_does_not_end_within_the_grace_time_is_killed_and_done_again(new_job: NewJob) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=1000), items=10, run_invocation_timeout=2000, stop_grace=0.5)
    process = job.start_local()
    wait_until(lambda: len(job.user_processes()) == 2 and job.directory.status.exists())
    process.send_signal(signal.SIGTERM)
    done = job.finish(process, timeout=30)
    assert done.returncode == 75, done.stdout
    (job.folder / "script.py").write_text(SLOW_SCRIPT.format(seconds=0))
    assert job.local("--accept-changes").returncode == 0
    assert_every_row_once(job)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_mpirun_drains_the_job(new_job: NewJob, mpich: Mpi, number: signal.Signals) -> None:
    """Hydra passes these on to the ranks. (Open MPI kills them a moment later: it passes on SIGUSR2 instead.)"""
    job = new_job(SLOW_SCRIPT.format(seconds=0.1), items=800, mini_batch_size=2)
    process = job.start_under(mpich)
    wait_for_progress(job, process, 5)
    process.send_signal(number)
    done = job.finish(process, timeout=60)
    assert done.returncode == 75, done.stdout
    assert "the same command resumes" in done.stdout


def test_sigusr2_to_open_mpis_mpirun_drains_the_job(new_job: NewJob, openmpi: Mpi) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.1), items=800, mini_batch_size=2)
    process = job.start_under(openmpi)
    wait_for_progress(job, process, 5)
    process.send_signal(signal.SIGUSR2)
    done = job.finish(process, timeout=60)
    assert done.returncode == 75, done.stdout
    assert "the same command resumes" in done.stdout


# The disk

LONG_ROWS = """
import os
def run(mini_batch):
    return [os.path.basename(path) + " " + "x" * 20000 for path in mini_batch]
"""


def long_rows(job: Job) -> list[str]:
    return [f"{name} {'x' * 20000}" for name in job.names]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False).returncode
    if mounted:
        need("the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_job_with_a_clear_word_and_it_resumes(new_job: NewJob, small_disk: Path) -> None:
    job = new_job(LONG_ROWS, items=250, output=str(small_disk / "out"))
    done = job.local()
    assert done.returncode == 75, done.stdout
    assert "the disk is full" in done.stdout
    assert "Traceback" not in done.stdout
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    done = job.local()
    assert done.returncode == 0, done.stdout
    rows = (small_disk / "out" / "parallel_run_step.txt").read_text().splitlines()
    assert sorted(rows) == long_rows(job)


FLOODS = {
    "run()": "def run(mini_batch):\n    print('y' * 300_000, flush=True)\n    return mini_batch\n",
    "init()": "def init():\n    print('y' * 6_000_000, flush=True)\n\ndef run(mini_batch):\n    return mini_batch\n",
}


@pytest.mark.parametrize("where", FLOODS)
def test_words_that_the_disk_of_the_output_cannot_take_cost_no_try(
    new_job: NewJob, small_disk: Path, where: str
) -> None:
    job = new_job(FLOODS[where], items=40, mini_batch_size=2, run_max_try=1, output=str(small_disk / "out"))
    done = job.local()
    assert done.returncode == 75, done.stdout
    assert f"{small_disk / 'out' / '_run'} on node {socket.gethostname()} is full (" in done.stdout
    assert "bytes and" in done.stdout
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert len((small_disk / "out" / "parallel_run_step.txt").read_text().splitlines()) == 40


def test_a_node_without_scratch_gets_no_work_and_alone_it_stops_the_job(
    new_job: NewJob, mpich: Mpi, small_disk: Path
) -> None:
    job = new_job(NAMES_SCRIPT)
    (small_disk / "full").write_bytes(bytes(4 << 20))
    job.environment["TMPDIR"] = str(small_disk)
    done = job.local()
    assert done.returncode == 75, done.stdout
    assert f"the scratch folder {small_disk} is full (0 bytes and" in done.stdout
    del job.environment["TMPDIR"]
    one_without = ["-n", "1", "env", f"TMPDIR={small_disk}", str(mpich.python), "-m", "mpi_prs", "run", str(job.config)]
    done = job.finish(job.start([*mpich.command(2), "run", str(job.config), ":", *one_without]))
    assert done.returncode == 0, done.stdout
    assert "worker 2" in done.stdout
    assert "gets no work in this start" in done.stdout
    assert_every_row_once(job)


def test_a_script_that_fills_the_scratch_of_the_only_node_stops_the_job(new_job: NewJob, small_disk: Path) -> None:
    script = "def run(mini_batch):\n    open('big', 'ab').write(bytes(1 << 20))\n    return mini_batch\n"
    job = new_job(script, items=20, run_max_try=1, scratch=str(small_disk))
    done = job.local(processes=1)
    assert done.returncode == 75, done.stdout
    assert "is full (" in done.stdout
    assert not job.ledger().failed


def test_a_file_size_limit_stops_the_job_with_a_clear_word_and_it_resumes(new_job: NewJob) -> None:
    job = new_job(LONG_ROWS, items=250)
    limit = 2 << 20
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        process = job.start_local()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    done = job.finish(process)
    assert done.returncode == 75, done.stdout
    assert "size limit" in done.stdout
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, long_rows(job))


def test_a_torn_journal_and_a_longer_output_are_mended_on_resume(new_job: NewJob) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0), items=100)
    assert job.local("--limit", "10").returncode == 0
    with open(job.directory.journal, "ab") as journal:
        journal.write(b"\x40\x00\x00\x00torn")
    with open(job.directory.partial_output_file("parallel_run_step.txt"), "a") as output:
        output.write("half a row that no record na")
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


# Thresholds


TWO_VERSIONS = """
import os, sys
import helper

def init():
    global version
    version = [open(path).read() for path in sys.argv[1:]] + [helper.VERSION]

def run(mini_batch):
    if mini_batch[0].endswith("item-0008.txt") and os.path.exists(FOLDER + "new"):
        os.rename(FOLDER + "new", FOLDER + open(FOLDER + "which").read())
        os._exit(1)
    return [f"{os.path.basename(path)} {' '.join(version)}" for path in mini_batch]
"""


@pytest.mark.parametrize("which", ["helper.py", "script.py", "model.bin", "side.bin"])
def test_a_process_that_would_have_other_code_or_another_model_is_refused_and_stops_the_job(
    new_job: NewJob, which: str
) -> None:
    job = new_job(
        TWO_VERSIONS,
        items=40,
        run_max_try=2,
        side_inputs={"side": "side.bin"},
        arguments=["model.bin", "${side_inputs.side}"],
    )
    folder = job.folder
    script = f"FOLDER = {f'{folder}/'!r}\n{TWO_VERSIONS}"
    job.config.write_text(job.config.read_text().replace("- model.bin", f"- {folder}/model.bin"))
    old = {"helper.py": "VERSION = 'old'", "script.py": script, "model.bin": "old", "side.bin": "old"}
    for name, text in old.items():
        (folder / name).write_text(text)
    (folder / "which").write_text(which)
    (folder / "new").write_text(old[which].replace("old", "new").replace("join(version)", "join(version).upper()"))

    done = job.local(processes=1)

    assert done.returncode == 75, done.stdout
    assert f"{folder / which} has changed since the run was begun, and rows of two versions would mix" in done.stdout
    assert "the same command resumes" in done.stdout
    refused = job.local(processes=1)
    assert refused.returncode == 2
    assert which in refused.stdout
    (folder / which).write_text(old[which])
    assert job.local().returncode == 0
    assert_every_row_once(job, [f"{name} old old old" for name in job.names])


def test_above_the_error_threshold_the_job_is_aborted_and_says_so(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job("def run(mini_batch):\n    raise OSError('broken image')\n", error_threshold=10, run_max_try=1)
    done = job.under(mpich)
    assert done.returncode == 1, done.stdout
    assert "more than error_threshold allows (10)" in done.stdout
    assert not job.output.exists()


def test_no_successful_item_at_all_fails_the_job(new_job: NewJob) -> None:
    job = new_job("def run(mini_batch):\n    return []\n")
    done = job.local()
    assert done.returncode == 1, done.stdout
    assert "no item has succeeded" in done.stdout
    assert not job.output.exists()


# Pauses, preemption, and what is in the environment


@pytest.mark.parametrize("wakes", [True, False])
def test_a_worker_that_falls_silent_is_replaced_and_does_not_hold_up_the_end(
    new_job: NewJob, mpi: Mpi, wakes: bool
) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.05), items=200, mini_batch_size=2, heartbeat_timeout=2)
    process = job.start_under(mpi, ranks=4)
    wait_for_progress(job, process, 5)
    silent = worker_pids(job)[0]
    os.kill(silent, signal.SIGSTOP)
    log = next(job.directory.logs.glob("sys/node/*/master.txt"))
    wait_until(lambda: "is lost (no sign of life" in log.read_text())
    if wakes:
        os.kill(silent, signal.SIGCONT)
    # Stopped in the very moment in which it writes into Open MPI's shared queue, it keeps the others' words back, too:
    # then the master waits for them as long as it ever does.
    done = job.finish(process, timeout=120)
    assert "complete (exit code 0)" in done.stdout
    assert_every_row_once(job)


def test_a_pause_of_the_master_costs_no_worker(new_job: NewJob, mpi: Mpi) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.05), items=200, mini_batch_size=2, heartbeat_timeout=1)
    process = job.start_under(mpi)
    wait_for_progress(job, process, 5)
    master = master_pid(job)
    os.kill(master, signal.SIGSTOP)
    time.sleep(3)  # the pause itself
    os.kill(master, signal.SIGCONT)
    done = job.finish(process, timeout=60)
    assert done.returncode == 0, done.stdout
    assert "is lost" not in done.stdout
    assert_every_row_once(job)


SAYS_WHEN_IT_RUNS = """
import os, time
def run(mini_batch):
    open(os.environ["AZUREML_BI_OUTPUT_PATH"] + "/running", "w").close()
    for _ in range(15):  # not at its end when it is woken
        time.sleep(0.1)
    return [os.path.basename(path) for path in mini_batch]
"""


def test_time_in_which_the_whole_job_is_stopped_counts_against_nobody(new_job: NewJob) -> None:
    timeouts = {"run_invocation_timeout": 3, "heartbeat_timeout": 2, "progress_update_timeout": 3}
    job = new_job(SAYS_WHEN_IT_RUNS, items=1, run_max_try=1, **timeouts)
    process = job.start_local(processes=1)
    wait_until((job.folder / "out" / "running").exists)
    stopped = list(job.processes())
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4)  # longer than any of them allows
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    done = job.finish(process)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


def test_workers_that_hear_nothing_of_their_master_end_and_the_job_resumes(new_job: NewJob, mpi: Mpi) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.05), items=200, mini_batch_size=2, heartbeat_timeout=1)
    process = job.start_under(mpi)
    wait_for_progress(job, process, 5)
    os.kill(master_pid(job), signal.SIGSTOP)  # as when its node is lost: nothing closes, nothing answers
    wait_until(lambda: not job.user_processes(), 30, lambda: str(job.processes()))
    job.kill_all()
    process.communicate()
    logs = [path.read_text() for path in job.directory.logs.glob("sys/node/*/worker*.txt")]
    assert any("no sign of life of the master" in log for log in logs)  # the first to notice ends the others
    assert not job.ledger().complete
    assert job.under(mpi).returncode == 0
    assert_every_row_once(job)


def test_a_master_that_has_nothing_to_say_for_long_is_not_taken_for_lost(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=4), items=2, mini_batch_size=1, heartbeat_timeout=0.5)  # lost after 2.5 s
    done = job.under(mpich)
    assert done.returncode == 0, done.stdout
    assert job.ledger().starts == 1
    assert_every_row_once(job)


def test_preemption_that_signals_every_process_costs_no_try(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.3), items=100, mini_batch_size=2, run_max_try=1)
    process = job.start_under(mpich)
    wait_for_progress(job, process, 2)
    for pid in [*job.user_processes(), *worker_pids(job), master_pid(job)]:
        os.kill(pid, signal.SIGTERM)
    done = job.finish(process, timeout=60)
    assert done.returncode == 75, done.stdout
    assert not job.ledger().failed
    (job.folder / "script.py").write_text(SLOW_SCRIPT.format(seconds=0))
    assert job.under(mpich, "--accept-changes").returncode == 0
    assert_every_row_once(job)


def test_a_second_signal_also_ends_a_shutdown_that_hangs(new_job: NewJob) -> None:
    script = SLOW_SCRIPT.format(seconds=0) + "\ndef shutdown():\n    print('shutting down')\n    time.sleep(1000)\n"
    job = new_job(script, items=4, stop_grace=600)
    process = job.start_local(processes=1)
    wait_until(lambda: "shutting down" in job.log("stdout"))
    wait_until(lambda: process.poll() is not None or process.send_signal(signal.SIGTERM))  # two at once may merge
    done = job.finish(process, timeout=30)
    assert "complete" in done.stdout
    assert_every_row_once(job)


def test_a_script_that_uses_mpi4py_is_a_world_of_its_own(new_job: NewJob, mpi: Mpi) -> None:
    script = """
import os
from mpi4py import MPI

def run(mini_batch):
    assert MPI.COMM_WORLD.size == 1
    return [os.path.basename(path) for path in mini_batch]
"""
    job = new_job(script, items=20)
    done = job.under(mpi)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


def test_a_run_directory_without_room_for_logs_ends_no_job(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(NAMES_SCRIPT)
    assert job.local("--limit", "1").returncode == 0
    shutil.rmtree(job.directory.logs / "sys")
    (job.directory.logs / "sys").touch()
    done = job.under(mpich)
    assert done.returncode == 0, done.stdout
    assert "going on without the log" in done.stdout
    assert_every_row_once(job)


LATE_WORKER = """
import os, sys, time
import mpi_prs.engine.master.master, mpi_prs.engine.worker.worker
from mpi_prs.__main__ import main

worker = mpi_prs.engine.worker.worker.Worker
run, see = worker.run, mpi_prs.engine.worker.worker.look
if os.environ["PMI_RANK"] == "1":
    worker.run = lambda self: time.sleep(4) or run(self)
elif os.environ["WHEN"] == "while the others look for the run directory":
    mpi_prs.engine.worker.worker.look = lambda *arguments: time.sleep(4) or see(*arguments)
mpi_prs.engine.master.master._HELLO_SECONDS = 2
sys.exit(main())
"""


@pytest.mark.parametrize("when", ["while the others work", "while the others look for the run directory"])
def test_a_worker_that_comes_late_joins(new_job: NewJob, mpich: Mpi, when: str) -> None:
    """The first worker says HELLO two seconds after the master has stopped waiting for it."""
    job = new_job(SLOW_SCRIPT.format(seconds=0.1), items=200, mini_batch_size=2)
    job.environment["WHEN"] = when
    command = [*mpich.mpirun, "-n", "3", str(mpich.python), "-c", LATE_WORKER, "run", str(job.config)]
    done = job.finish(job.start(command))
    assert done.returncode == 0, done.stdout
    assert "going on without them" in done.stdout
    assert "has joined" in done.stdout
    assert_every_row_once(job)
    assert len(list(job.directory.logs.glob("user/stdout/*/*"))) == 2


UNREADABLE = """
import sys, threading
from mpi_prs.__main__ import main
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.core.errors import OutputError

load = Manifest.load

def failing(self, first, count):
    if first <= 3 < first + count and threading.current_thread().name == "worker":
        raise OutputError("the manifest is damaged")
    return load(self, first, count)

Manifest.load = failing
sys.exit(main())
"""


def test_a_mini_batch_that_cannot_be_loaded_fails_and_the_others_go_on(new_job: NewJob) -> None:
    job = new_job(NAMES_SCRIPT, items=40)
    command = [sys.executable, "-c", UNREADABLE, "run", str(job.config), "--local", "1"]
    done = job.finish(job.start(command))
    assert done.returncode == 0, done.stdout
    assert "the manifest is damaged" in done.stdout
    assert job.ledger().failed == {3}
    assert not job.ledger().attempts, "its neighbours in the same range have lost no try"
    assert done.stdout.count("the manifest is damaged") == 3
    assert_every_row_once(job, [*job.names[:12], *job.names[16:]])


# What a user's shell and folder are like

NEEDS_A_LIBRARY = """
import logging, os, pickle
import library

logging.basicConfig(filename=os.environ["AZUREML_BI_OUTPUT_PATH"] + "/own.log", level="DEBUG", format="OWN %(message)s")

class Model:
    pass

def init():
    assert pickle.loads(b"c__main__\\nModel\\n.") is Model

def run(mini_batch):
    logging.debug("here")
    return [os.path.basename(path) for path in mini_batch]
"""
SURROUNDINGS = {
    "as usual": {},
    "a locale without our letters": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "a path without the script's folder": {"PYTHONSAFEPATH": "1"},
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_script_runs_as_by_itself_wherever_its_user_stands(new_job: NewJob, name: str) -> None:
    job = new_job(NEEDS_A_LIBRARY, items=2)
    library = job.folder / "library"
    library.mkdir()
    (library / "library.py").touch()
    for module in ("signal", "inspect", "json", "typing", "click", "yaml"):
        (job.folder / f"{module}.py").write_text("raise SystemExit('this is the file of the user')")
    job.environment |= {"PYTHONPATH": f"{library}:{REPOSITORY}", **SURROUNDINGS[name]}
    (job.folder / "script").mkdir()
    (job.folder / "script.py").rename(job.folder / "script" / "script.py")
    done = job.local("--set", "entry_script=script/script.py")
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert set((job.folder / "out" / "own.log").read_text().splitlines()) == {"OWN here"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P is new in 3.11")
def test_what_we_start_ourselves_is_no_file_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "mpi_prs.py").write_text("raise SystemExit('this is the file of the user')")
    done = subprocess.run([*program(), "schema"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"entry_script"' in done.stdout


@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-", ">/dev/full 2>&1", "2>&1 | head -n 1"])
def test_words_that_nobody_can_read_do_not_change_the_end(new_job: NewJob, streams: str) -> None:
    job = new_job(SLOW_SCRIPT.format(seconds=0.05), items=20)
    shell = f'("$0" -m mpi_prs run "$1" --local 1; echo $? > code) {streams}'
    job.finish(job.start(["sh", "-c", shell, sys.executable, str(job.config)]))
    assert (job.folder / "code").read_text() == "0\n"
    assert_every_row_once(job)


def test_a_current_folder_that_is_gone_is_told(new_job: NewJob) -> None:
    job = new_job(NAMES_SCRIPT)
    shell = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" -m mpi_prs run "$1" --local 1'
    done = job.finish(job.start(["sh", "-c", shell, sys.executable, str(job.config)]))
    assert done.returncode == 2, done.stdout
    assert done.stdout == "error: the current folder has been removed: change to one that is there, such as cd $HOME\n"

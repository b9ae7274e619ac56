"""Faults of user code, as data: whatever a script does, it costs the mini-batches that did it, and no others.

Each fault is a piece of script that is executed for the first, a middle and the last mini-batch of a real job. At the
end the rows are counted: those of all other mini-batches are there, each once, and no process is left (``new_job``
sees to that). A fault at every try ends as a failed mini-batch with a reason; a fault that happens once costs a try.
"""

from __future__ import annotations

import csv
import os
import signal
import textwrap
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.output.journal import read_journal
from tests.support.jobs import NAMES_SCRIPT, Job, Mpi, assert_every_row_once, pids_of, wait_until

NewJob = Callable[..., Job]

MINI_BATCHES = 30
ITEMS = 2  # in a mini-batch
FAULTY = (0, 14, 29)
FLOOD = (1 << 30) if os.environ.get("MPI_PRS_TEST_LONG") else (16 << 20)
"""Bytes that a flooding script prints in one mini-batch; set the variable for 1 GiB."""

SCRIPT = """
import ctypes, logging, multiprocessing, os, resource, signal, socket, subprocess, sys, threading, time

FAULTY, TRIES = {faulty}, {tries}

def names_of(mini_batch):
    return [os.path.basename(path) for path in mini_batch]

def fault(mini_batch):
{body}
    return names_of(mini_batch)

def run(mini_batch, context):
    if context.minibatch_index in FAULTY and context.retry_count < TRIES:
        return fault(mini_batch)
    return names_of(mini_batch)
"""


@dataclass(frozen=True)
class Fault:
    """One way in which ``run()`` goes wrong.

    Attributes:
        body: statements for the faulty mini-batches; ``mini_batch`` is there.
        reason: words that the reason must have.
        replaced: whether the user process must be replaced.
        trace: words that the traceback must have; by default the name of the user's file.
        settings: keys of the job config.
    """

    body: str
    reason: str
    replaced: bool = False
    trace: str = "script.py"
    settings: dict[str, Any] = field(default_factory=dict)


SOON = {"run_invocation_timeout": 0.4}
TOO_SLOW = "run() did not end within run_invocation_timeout (0.4 s)"
DESCRIPTORS = "closes file descriptors that it did not open"

FAILING = {
    "raises": Fault("raise ValueError('the picture is broken')", "ValueError: the picture is broken"),
    "raises without a text": Fault("assert not mini_batch", "AssertionError"),
    "raises what it cannot describe": Fault(
        """
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("no text")
        raise Mute()
        """,
        "Mute",
    ),
    "raises a novel": Fault("raise ValueError('word ' * 2_000_000)", "characters left out"),
    "raises with bytes that are no text": Fault("raise ValueError('caf\\udce9')", "ValueError: caf"),
    "recurses for ever": Fault(
        """
        sys.setrecursionlimit(5_000)
        def deeper(depth):
            return deeper(depth + 1)
        deeper(0)
        """,
        "RecursionError",
    ),
    "runs out of its memory limit": Fault(
        """
        limits = resource.getrlimit(resource.RLIMIT_AS)
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), limits[1]))
        try:
            bytearray(1 << 30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        """,
        "MemoryError",
    ),
    "interrupts itself": Fault("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "calls sys.exit(0)": Fault("sys.exit(0)", "the script called sys.exit(0)"),
    "returns None": Fault("return None", "run() returned None", trace=""),
    "returns a str": Fault("return 'one'", "run() returned a str", trace=""),
    "returns a dict": Fault("return {}", "run() returned a dict", trace=""),
    "returns a generator": Fault("return (name for name in mini_batch)", "run() returned a generator", trace=""),
    "returns a set": Fault("return set(mini_batch)", "run() returned a set", trace=""),
    "returns what has no str()": Fault(
        """
        class Row:
            def __str__(self):
                raise ValueError("this row is broken")
        return [Row()]
        """,
        "ValueError: this row is broken",
    ),
    "ends with os._exit(0)": Fault("os._exit(0)", "exited with code 0", replaced=True, trace=""),
    "segfaults": Fault("ctypes.string_at(0)", "killed by SIGSEGV", replaced=True),
    "aborts": Fault("os.abort()", "killed by SIGABRT", replaced=True),
    "is killed as by the out-of-memory killer": Fault(
        "os.kill(os.getpid(), signal.SIGKILL)", "out-of-memory killer", replaced=True, trace=""
    ),
    "is terminated": Fault("os.kill(os.getpid(), signal.SIGTERM)", "killed by SIGTERM", replaced=True, trace=""),
    "kills its parent": Fault(
        """
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1000)
        """,
        "killed by SIGKILL",
        replaced=True,
        trace="",
    ),
    "kills its session": Fault("os.killpg(os.getsid(0), signal.SIGKILL)", "killed by SIGKILL", replaced=True, trace=""),
    "dies in a thread": Fault(
        """
        threading.Thread(target=os._exit, args=(3,)).start()
        threading.Event().wait()
        """,
        "exited with code 3",
        replaced=True,
        trace="",
    ),
    "sleeps past the timeout": Fault("time.sleep(1000)", TOO_SLOW, replaced=True, settings=SOON),
    "sleeps in C with the interpreter locked and all signals blocked": Fault(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ctypes.PyDLL(None).sleep(1000)
        """,
        TOO_SLOW,
        replaced=True,
        trace="",
        settings=SOON,
    ),
    "ignores SIGTERM and spins": Fault(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            pass
        """,
        TOO_SLOW,
        replaced=True,
        settings=SOON,
    ),
    "stops itself": Fault("os.kill(os.getpid(), signal.SIGSTOP)", TOO_SLOW, replaced=True, trace="", settings=SOON),
    "hangs in str() of a row": Fault(
        """
        class Row:
            def __str__(self):
                time.sleep(1000)
        return [Row()]
        """,
        "turning the result into rows took longer than task_overhead_timeout (0.4 s)",
        replaced=True,
        settings={"task_overhead_timeout": 0.4},
    ),
    "closes every descriptor above 2": Fault("os.closerange(3, 4096)", DESCRIPTORS, replaced=True, trace=""),
    "closes every descriptor": Fault("os.closerange(0, 4096)", DESCRIPTORS, replaced=True, trace=""),
    "closes every descriptor and hangs": Fault(
        "os.closerange(0, 4096); time.sleep(1000)", DESCRIPTORS, replaced=True, trace=""
    ),
    "opens files under the numbers of descriptors that it closed": Fault(
        """
        os.closerange(3, 4096)
        files = [open("own.txt", "a") for _ in range(20)]
        """,
        DESCRIPTORS,
        replaced=True,
        trace="",
    ),
    "opens sockets under the numbers of descriptors that it closed": Fault(
        """
        os.closerange(0, 4096)
        pairs = [socket.socketpair() for _ in range(20)]
        names_of.kept = pairs
        """,
        DESCRIPTORS,
        replaced=True,
        trace="",
    ),
    "writes into descriptors of others": Fault(
        """
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"hello, is there anybody in there?")
            except OSError:
                pass
        time.sleep(1000)
        """,
        "writes into file descriptors that it did not open",
        replaced=True,
        trace="",
    ),
}

LONG_SLEEP = "['sleep', '1000']"

HARMLESS = {
    "leaves a child": f"subprocess.Popen({LONG_SLEEP})",
    "leaves a child in a session of its own": f"subprocess.Popen({LONG_SLEEP}, start_new_session=True)",
    "leaves a daemon": f"""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 4096)
                os.chdir("/")
                os.execvp("sleep", {LONG_SLEEP})
            os._exit(0)
        os.wait()
        """,
    "forks, and the child comes back": """
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        """,
    "forks, and the child raises": """
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        else:
            raise ValueError("only in the child")
        """,
    "forks, and the child comes back much later": """
        if not os.fork():
            time.sleep(0.1)
        """,
    "forks, and the child stays": """
        if not os.fork():
            time.sleep(1000)
        """,
    "uses processes of its own": """
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
        """,
    "starts a daemon thread that never ends": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "changes its surroundings": """
        os.chdir("/")
        os.environ.clear()
        os.umask(0o777)
        sys.argv.clear()
        sys.path.clear()
        sys.stdout = sys.stderr = None
        """,
    "deletes its working directory": """
        try:
            os.rmdir(os.getcwd())
        except FileNotFoundError:  # this process has done so before
            pass
        """,
    "closes sys.stdout and sys.stderr": "sys.stdout.close(); sys.stderr.close()",
    "closes descriptors 0 to 2": "os.closerange(0, 3)",
    "writes to descriptors 1 and 2": "os.write(1, bytes(range(256))); os.write(2, bytes(range(256)))",
    "floods stdout": f"for _ in range({FLOOD} >> 20): print('x' * ((1 << 20) - 1))",
    "shuts logging down": """
        logging.shutdown()
        logging.getLogger().handlers.clear()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        """,
    "raises in a thread": """
        thread = threading.Thread(target=int, args=("no number",))
        thread.start()
        thread.join()
        """,
}


def make_faulty(new_job: NewJob, body: str, *, tries: int, faulty: tuple[int, ...] = FAULTY, **settings: Any) -> Job:
    """A job whose mini-batches ``faulty`` execute ``body`` in their first so many tries."""
    script = SCRIPT.format(faulty=faulty, tries=tries, body=textwrap.indent(textwrap.dedent(body.strip("\n")), "    "))
    return new_job(script, items=MINI_BATCHES * ITEMS, mini_batch_size=ITEMS, **settings)


def one_fault_each(bodies: list[str], tries: int) -> tuple[str, int]:
    """A script with many faults, the n-th in mini-batch 2n + 1, and the number of mini-batches."""
    functions = []
    for number, body in enumerate(bodies):
        statements = textwrap.indent(textwrap.dedent(body.strip("\n")), "    ")
        functions.append(f"def fault{number}(mini_batch):\n{statements}\n    return names_of(mini_batch)\n")
    choice = 'return globals()[f"fault{int(mini_batch.task_id) // 2}"](mini_batch)'
    faulty = tuple(range(1, 2 * len(bodies), 2))
    script = SCRIPT.format(faulty=faulty, tries=tries, body=f"    {choice}")
    return "\n".join([script, *functions]), 2 * len(bodies) + 1


def rows_without(job: Job, mini_batches: tuple[int, ...]) -> list[str]:
    return [name for number, name in enumerate(job.names) if number // ITEMS not in mini_batches]


def events(job: Job, *kinds: str) -> list[dict[str, Any]]:
    """What the journal says happened."""
    found = [entry.event for entry in read_journal(job.directory.journal) if entry.event is not None]
    return [event for event in found if event["event"] in kinds]


def processes_started(job: Job) -> int:
    logs = job.directory.logs.glob("user/stdout/*/*")
    return sum(log.read_text(errors="replace").count("--- user process") for log in logs)


def assert_says(failure: dict[str, Any], fault: Fault) -> None:
    """The reason has the decisive words, the traceback begins in the user's file, and the log named tells the same."""
    assert fault.reason in failure["message"]
    assert len(failure["message"]) < 1000
    assert len(failure["traceback"]) < 20_000
    assert fault.trace in failure["traceback"]
    if "Traceback (most recent call last)" in failure["traceback"]:
        assert 'script.py", line' in failure["traceback"].splitlines()[1]
    log = Path(failure["log"]).read_text(errors="replace")
    assert f"mini-batch {failure['mini_batch']}, try {failure['attempt']}" in log
    assert fault.reason.split("\n")[0] in log


# run()

KILLING = [name for name, fault in FAILING.items() if fault.replaced]
MILD = [name for name, fault in FAILING.items() if not fault.replaced]


@pytest.mark.parametrize("name", ["raises", *KILLING])
def test_a_faulty_mini_batch_costs_its_own_rows_and_no_others(new_job: NewJob, name: str) -> None:
    fault = FAILING[name]
    processes = 3 if fault.settings else 2  # those with a timeout wait for it side by side
    job = make_faulty(new_job, fault.body, tries=99, run_max_try=1, **fault.settings)
    done = job.local(processes=processes, timeout=60)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, rows_without(job, FAULTY))
    failures = events(job, "failed")
    assert sorted(failure["mini_batch"] for failure in failures) == list(FAULTY)
    for failure in failures:
        assert_says(failure, fault)
    assert processes_started(job) >= 3 if fault.replaced else processes_started(job) == 2


def test_what_a_process_survives_does_not_cost_the_process(new_job: NewJob) -> None:
    script, mini_batches = one_fault_each([FAILING[name].body for name in MILD], tries=99)
    job = new_job(script, items=mini_batches, mini_batch_size=1, run_max_try=1)
    done = job.local()
    assert done.returncode == 0, done.stdout
    failures = {failure["mini_batch"]: failure for failure in events(job, "failed")}
    assert_every_row_once(job, [name for number, name in enumerate(job.names) if number not in failures])
    assert sorted(failures) == list(range(1, mini_batches, 2))
    for number, name in enumerate(MILD):
        assert_says(failures[2 * number + 1], FAILING[name])
    assert processes_started(job) == 2


@pytest.mark.parametrize("name", HARMLESS)
def test_bad_manners_cost_nothing(new_job: NewJob, name: str) -> None:
    job = make_faulty(new_job, HARMLESS[name], tries=99)
    done = job.local(timeout=60)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert events(job, "attempt_failed", "failed") == []
    assert processes_started(job) == 2
    assert job.log("error", 0) + job.log("error", 1) == ""


def test_what_a_process_has_left_dies_with_it_while_the_job_goes_on(new_job: NewJob) -> None:
    script = f"""
import ctypes, os, subprocess, time

HERE = os.path.dirname(__file__)

def run(mini_batch, context):
    if context.retry_count == 0:
        subprocess.Popen({LONG_SLEEP}, start_new_session=True)
        open(os.path.join(HERE, "started"), "w").close()
        ctypes.string_at(0)
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.01)
    return [os.path.basename(path) for path in mini_batch]
"""
    job = new_job(script, items=1)
    process = job.start_local(processes=1)
    wait_until((job.folder / "started").exists)
    wait_until(lambda: not job.pids("sleep 1000"))
    assert process.poll() is None
    (job.folder / "go").touch()
    done = job.finish(process)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


DAEMON = """
import os, subprocess, time

subprocess.Popen(["sleep", "{seconds}"], env={{}}, start_new_session=True)
open(os.path.join(os.path.dirname(__file__), "started"), "w").close()

def run(mini_batch, context):
    if context.retry_count == 0:
        time.sleep({duration})
    return [os.path.basename(path) for path in mini_batch]
"""


@pytest.mark.parametrize("end", ["the job's", "a timeout", "the worker is killed", "worker and guard are killed"])
def test_a_daemon_without_our_mark_in_a_session_of_its_own_ends_with_its_script(new_job: NewJob, end: str) -> None:
    seconds = f"1000.{uuid.uuid4().int}"
    script = DAEMON.format(seconds=seconds, duration=0 if end == "the job's" else 1000)
    job = new_job(script, items=1, run_invocation_timeout=0.5 if end == "a timeout" else 1000)
    process = job.start_local(processes=1)
    wait_until((job.folder / "started").exists)
    wait_until(lambda: process.poll() is not None or job.user_processes())
    if "killed" in end:
        assert pids_of(f"sleep {seconds}")
        victims = [process.pid, *(job.pids("guard.py") if "guard" in end else [])]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    done = job.finish(process)
    assert done.returncode == (-signal.SIGKILL if "killed" in end else 0), done.stdout
    try:
        wait_until(lambda: not pids_of(f"sleep {seconds}"))
    finally:
        for pid in pids_of(f"sleep {seconds}"):
            os.kill(pid, signal.SIGKILL)


def test_every_fault_once_in_one_job_and_every_row_is_there(new_job: NewJob, mpi: Mpi) -> None:
    bodies = [*(fault.body for fault in FAILING.values()), *HARMLESS.values()]
    script, mini_batches = one_fault_each(bodies, tries=1)
    settings = {**SOON, "task_overhead_timeout": 0.4, "run_max_try": 4}
    job = new_job(script, items=mini_batches, mini_batch_size=1, **settings)
    done = job.under(mpi, ranks=3, timeout=60)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    failed = {failure["mini_batch"] for failure in events(job, "attempt_failed")}
    assert failed >= set(range(1, 2 * len(FAILING), 2))


POISONS = {
    "a context that is lost": """
        poisoned = False

        def run(mini_batch, context):
            global poisoned
            poisoned |= "item-0014" in mini_batch[0]
            return [][1] if poisoned else mini_batch
        """,
    "descriptors that leak": """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        kept = []

        def run(mini_batch, context):
            kept.append(open(mini_batch[0]))
            return [][1] if "item-0014" in mini_batch[0] else mini_batch
        """,
}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", POISONS)
def test_an_item_that_poisons_its_process_costs_no_other_item(new_job: NewJob, name: str, processes: int) -> None:
    job = new_job(textwrap.dedent(POISONS[name]), items=MINI_BATCHES, mini_batch_size=1)
    done = job.local(processes=processes)
    assert done.returncode == 0, done.stdout
    assert [failure["mini_batch"] for failure in events(job, "failed")] == [14]
    assert len(job.rows()) == MINI_BATCHES - 1


def test_where_every_item_fails_processes_are_not_replaced_for_ever(new_job: NewJob) -> None:
    job = new_job("def run(mini_batch):\n    return [][1]\n", items=60, mini_batch_size=1)
    done = job.local(processes=1)
    assert done.returncode == 1, done.stdout
    assert len(events(job, "attempt_failed")) == 2 * 60
    assert processes_started(job) < 12


def test_a_script_that_reads_the_work_of_others_loses_no_row(new_job: NewJob) -> None:
    body = """
        import select
        for descriptor in range(3, 64):
            try:
                os.fstat(descriptor)
            except OSError:
                continue
            if select.select([descriptor], [], [], 0)[0]:
                os.read(descriptor, 1 << 20)
        """
    job = make_faulty(new_job, body, tries=1, task_overhead_timeout=0.4)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


def test_a_script_that_forges_answers_loses_its_own_rows_alone(new_job: NewJob) -> None:
    body = """
        import stat, struct
        for descriptor in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, struct.pack("<3sBIQ", b"prs", 8, 1, 2) + b"{}")
            except OSError:
                pass
        """
    job = make_faulty(new_job, body, tries=99)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, rows_without(job, FAULTY))
    assert all("something else than answers" in failure["message"] for failure in events(job, "failed"))


def test_what_the_end_of_the_grace_time_cuts_off_is_no_failed_try(new_job: NewJob) -> None:
    script = """
import os, time

HERE = os.path.dirname(__file__)

def run(mini_batch):
    if not os.path.exists(os.path.join(HERE, "go")):
        open(os.path.join(HERE, "started"), "w").close()
        time.sleep(1000)
    return [os.path.basename(path) for path in mini_batch]
"""
    job = new_job(script, run_max_try=1, stop_grace=0.2)
    process = job.start_local()
    wait_until((job.folder / "started").exists)
    process.terminate()
    assert job.finish(process, timeout=30).returncode == 75
    assert events(job, "attempt_failed", "failed") == []
    (job.folder / "go").touch()
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


def test_a_mini_batch_that_kills_is_tried_as_often_as_allowed_and_then_given_up(new_job: NewJob) -> None:
    job = make_faulty(new_job, "ctypes.string_at(0)", tries=99, faulty=(5,), run_max_try=3)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, rows_without(job, (5,)))
    tried = [
        (event["event"], event["mini_batch"], event["attempt"]) for event in events(job, "attempt_failed", "failed")
    ]
    assert tried == [("attempt_failed", 5, 1), ("attempt_failed", 5, 2), ("failed", 5, 3)]


@pytest.mark.parametrize("name", ["returns None", "sleeps past the timeout"])
def test_with_a_threshold_of_zero_the_job_ends_with_the_reason(new_job: NewJob, name: str) -> None:
    fault = FAILING[name]
    job = make_faulty(new_job, fault.body, tries=99, run_max_try=1, error_threshold=0, **fault.settings)
    done = job.local()
    assert done.returncode == 1, done.stdout
    assert "more than error_threshold allows (0)" in done.stdout
    assert fault.reason in done.stdout
    assert not job.output.exists()


# What run() returns


def test_too_few_rows_are_failed_items_and_too_many_are_not(new_job: NewJob) -> None:
    body = "return names_of(mini_batch)[:1] if mini_batch.task_id != '14' else names_of(mini_batch) * 3"
    job = make_faulty(new_job, body, tries=99)
    done = job.local()
    assert done.returncode == 0, done.stdout
    short = [job.names[1], job.names[59]]
    more = job.names[28:30] * 2
    assert_every_row_once(job, [*(name for name in job.names if name not in short), *more])
    with open(job.directory.processed_mini_batches) as file:
        returned = {int(line["mini_batch"]): line["returned"] for line in csv.DictReader(file)}
    assert [returned[number] for number in FAULTY] == ["1", "6", "1"]
    over = job.local("--overwrite", "--set", "error_threshold=1")
    assert over.returncode == 1, over.stdout
    assert "2 items failed, more than error_threshold allows (1)" in over.stdout


def test_rows_of_a_hundred_megabytes_pass_and_leave_no_file_behind(new_job: NewJob) -> None:
    body = "return ['x' * (50 << 20), 'y' * (50 << 20)]"
    job = make_faulty(new_job, body, tries=99, faulty=(14,))
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert job.output.stat().st_size == (100 << 20) + 2 + sum(len(name) + 1 for name in rows_without(job, (14,)))
    assert sorted(len(row) for row in job.rows())[-2:] == [50 << 20, 50 << 20]
    assert list(job.directory.spill.glob("*")) == []


def test_a_file_with_rows_that_a_process_was_writing_when_it_died_goes_with_it(new_job: NewJob) -> None:
    body = """
        import builtins
        really_open = open
        def open_and_die(name, *arguments, **keywords):
            file = really_open(name, *arguments, **keywords)
            if str(name).endswith(".rows"):
                os.write(file.fileno(), bytes(1 << 20))
                os._exit(9)
            return file
        builtins.open = open_and_die
        return ["x" * (5 << 20)]
        """
    job = make_faulty(new_job, body, tries=1, faulty=(14,))
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert list(job.directory.spill.glob("*")) == []


def test_names_that_are_no_text_reach_the_output_as_they_are_on_disk(new_job: NewJob) -> None:
    names = [b"caf\xe9-\xff.txt", b"two\nlines.txt", "日本.txt".encode(), b" space \\ \t\"quote'.txt", b"-n.txt"]
    job = new_job(NAMES_SCRIPT.replace("return", "[open(path).close() for path in mini_batch]; return"), items=0)
    for name in names:
        Path(os.fsdecode(os.fsencode(job.folder / "in") + b"/" + name)).touch()
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert sorted(job.output.read_bytes().split(b"\n")) == sorted(b"\n".join([*names, b""]).split(b"\n"))


def test_names_that_are_no_text_fail_like_others(new_job: NewJob) -> None:
    job = new_job("def run(mini_batch): raise ValueError('cannot read ' + mini_batch[0])", items=1, run_max_try=1)
    Path(os.fsdecode(os.fsencode(job.folder / "in") + b"/caf\xe9\n.txt")).touch()
    done = job.local("--set", "mini_batch_size=1")
    assert done.returncode == 1, done.stdout
    assert "no item has succeeded" in done.stdout
    messages = [failure["message"] for failure in events(job, "failed")]
    assert any(message.endswith("/in/caf\udce9") for message in messages), messages


def test_a_file_that_vanishes_after_listing_fails_its_own_mini_batch(new_job: NewJob) -> None:
    script = """
import os

def init():
    for name in ("item-0000.txt", "item-0030.txt", "item-0059.txt"):
        try:
            os.unlink(os.path.join(os.path.dirname(__file__), "in", name))
        except FileNotFoundError:  # the other process was faster
            pass

def run(mini_batch):
    for path in mini_batch:
        open(path).close()
    return [os.path.basename(path) for path in mini_batch]
"""
    job = new_job(script, items=MINI_BATCHES * ITEMS, mini_batch_size=ITEMS, run_max_try=1)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, rows_without(job, (0, 15, 29)))
    assert {failure["message"].split(":")[0] for failure in events(job, "failed")} == {"FileNotFoundError"}


# init()

ALWAYS = {
    "raises": ("def init(): raise ValueError('no model')", "ValueError: no model"),
    "exits": ("def init(): sys.exit(0)", "sys.exit(0)"),
    "ends with os._exit(0)": ("def init(): os._exit(0)", "exited with code 0"),
    "segfaults": ("def init(): ctypes.string_at(0)", "killed by SIGSEGV"),
    "hangs": ("def init(): time.sleep(1000)", "init() did not end within init_timeout (0.5 s)"),
    "closes its descriptors": ("def init(): os.closerange(3, 4096)", DESCRIPTORS),
    "cannot be imported": ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
    "raises, and a thread of it goes on": (
        "def init():\n    threading.Thread(target=threading.Event().wait).start()\n    raise ValueError('no model')",
        "ValueError: no model",
    ),
}


def with_init(text: str) -> str:
    return SCRIPT.format(faulty=(), tries=0, body="    pass") + "\n" + text


@pytest.mark.parametrize("name", ALWAYS)
def test_init_that_fails_everywhere_ends_the_job_soon(new_job: NewJob, name: str) -> None:
    text, reason = ALWAYS[name]
    job = new_job(with_init(text), **({"init_timeout": 0.5} if name == "hangs" else {}))
    done = job.local(timeout=40)
    assert done.returncode == 1, done.stdout
    assert reason in done.stdout
    assert "init() failed in all 2 user processes" in done.stdout
    assert done.stdout.count("the traceback, shown once") <= 1
    if "raise " in text:
        shown = done.stdout.split("the traceback, shown once")[1]
        assert 'script.py", line' in shown.split("Traceback (most recent call last):")[1].splitlines()[1]
        assert done.stdout.count("Traceback (most recent call last)") == 1
    assert reason in job.log("error")


def test_init_that_fails_everywhere_ends_the_job_under_mpirun(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(with_init(ALWAYS["raises"][0]), processes_per_rank=2)
    done = job.under(mpich, ranks=3, timeout=40)
    assert done.returncode == 1, done.stdout
    assert "init() failed in all 4 user processes" in done.stdout
    assert done.stdout.count("Traceback (most recent call last)") == 1


ONCE = {
    "raises": "raise ValueError('not yet')",
    "hangs": "time.sleep(1000)",
    "segfaults": "ctypes.string_at(0)",
}


@pytest.mark.parametrize("name", ONCE)
def test_init_that_fails_once_is_tried_again(new_job: NewJob, name: str) -> None:
    text = f"""
def init():
    marker = os.path.join(os.path.dirname(__file__), "tried")
    try:
        os.mkdir(marker)
    except FileExistsError:
        return
    {ONCE[name]}
"""
    job = new_job(with_init(text), **({"init_timeout": 2} if name == "hangs" else {}))
    done = job.local(processes=1, timeout=40)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert processes_started(job) == 2


def test_one_process_whose_init_always_fails_does_not_keep_the_others_from_working(new_job: NewJob) -> None:
    text = """
def init():
    if os.getcwd().endswith("process001"):
        raise ValueError("not here")
"""
    job = new_job(with_init(text))
    done = job.local(timeout=40)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


def test_init_that_forks_and_comes_back_twice_is_one_process(new_job: NewJob) -> None:
    job = new_job(with_init("def init(): os.fork()"))
    done = job.local(timeout=40)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


# shutdown(), and the end of the process

AT_THE_END = {
    "raises": ("raise ValueError('cannot close')", "stderr", "ValueError: cannot close"),
    "exits": ("sys.exit(0)", "stderr", "shutdown() failed"),
    "hangs": ("time.sleep(1000)", "error", "shutdown() did not end in time"),
    "ends with os._exit(3)": ("os._exit(3)", "error", "exited with code 3"),
    "segfaults": ("ctypes.string_at(0)", "error", "killed by SIGSEGV"),
    "kills itself": ("os.kill(os.getpid(), signal.SIGKILL)", "error", "killed by SIGKILL"),
    "closes every descriptor": ("os.closerange(0, 4096)", "stdout", "user process"),
    "forks": ("os.fork()", "stdout", "user process"),
    "leaves a child": (f"subprocess.Popen({LONG_SLEEP}, start_new_session=True)", "stdout", "user process"),
    "leaves a thread": ("threading.Thread(target=threading.Event().wait).start()", "error", "a thread that is not"),
    "hangs at exit": (
        "import atexit; atexit.register(time.sleep, 1000)",
        "error",
        "did not end in time after shutdown()",
    ),
    "hangs in a destructor": (
        "shutdown.kept = type('Kept', (), {'__del__': lambda self: time.sleep(1000)})()",
        "error",
        "did not end in time after shutdown()",
    ),
}


@pytest.mark.parametrize("name", AT_THE_END)
def test_a_fault_at_the_end_costs_no_row(new_job: NewJob, name: str) -> None:
    body, stream, words = AT_THE_END[name]
    job = new_job(with_init(f"def shutdown():\n    {body}\n"), stop_grace=0.5)
    done = job.local(processes=1, timeout=40)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert words in job.log(stream)
    if "did not end in time" in words or "a thread" in words:  # nobody looks there for what has cost half a minute
        assert words in done.stdout


def test_shutdown_is_called_once_after_the_last_mini_batch(new_job: NewJob) -> None:
    text = """
def init():
    print("init")

def run(mini_batch):
    print("run", mini_batch.task_id)
    return mini_batch

def shutdown():
    print("shutdown")
"""
    job = new_job(with_init(text), items=8)
    assert job.local(processes=1).returncode == 0
    assert job.log("stdout").splitlines()[1:] == ["init", "run 0", "run 1", "shutdown"]

"""ParallelRunException: what a script may ask for when a mini-batch has failed, from the class to a whole job."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.child.parallel_run import LONGEST_PAUSE, ParallelRunException, ParallelRunExceptionCode
from mpi_prs.child.script import ScriptFunctions
from mpi_prs.engine.scheduler.events import Fail
from mpi_prs.engine.scheduler.states import JobPhase
from mpi_prs.output.journal import read_journal
from mpi_prs.wire.channel import Frame, Kind, ProcessPhase
from mpi_prs.wire.work import State
from tests.child.test_host import User, work
from tests.support.jobs import Job, Mpi, assert_every_row_once, wait_until
from tests.support.processes import PLAIN
from tests.support.scheduling import Job as Scheduling
from tests.support.supervised import Supervised

NewJob = Callable[..., Job]

# The class


def test_it_says_what_went_wrong_and_what_is_to_happen() -> None:
    error = ParallelRunException("the picture is empty", code="NoRetry")
    assert (error.message, error.code) == ("the picture is empty", ParallelRunExceptionCode.NoRetry)
    assert str(error) == "the picture is empty (NoRetry)"
    assert str(ParallelRunException("busy", ParallelRunException.Sleep, 60)) == "busy (Sleep 60 s)"
    assert str(ParallelRunException("as any other")) == "as any other"
    assert str(ParallelRunException(code="StopProcess")) == "(StopProcess)"


@pytest.mark.parametrize("code", [*ParallelRunExceptionCode, "NoRetry", "noretry", "SLEEP"])
def test_a_code_is_a_member_or_its_name(code: Any) -> None:
    error = ParallelRunException("why", code)
    assert error.code is not None
    assert error.code.value.lower() == str(code).lower()


def test_code_and_message_may_change_places() -> None:
    error = ParallelRunException(ParallelRunException.RestartProcess, "out of memory")
    assert (error.code, error.message) == (ParallelRunExceptionCode.RestartProcess, "out of memory")
    assert ParallelRunException(ParallelRunException.StopProcess).message == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"code": "Retry"}, "one of NoRetry, RestartProcess, StopProcess, Sleep, but got 'Retry'"),
        ({"code": "Sleep", "seconds": -1}, "a number from 0, but got -1"),
        ({"code": "Sleep", "seconds": "60"}, "a number from 0, but got '60'"),
        ({"code": "Sleep", "seconds": float("nan")}, "a number from 0, but got nan"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ParallelRunException("why", **arguments)


def test_a_pause_has_a_default_and_a_bound() -> None:
    assert ParallelRunException("busy", "Sleep").seconds == 30
    assert ParallelRunException("busy", "Sleep", 1e9).seconds == LONGEST_PAUSE


def test_it_survives_a_process_pool() -> None:
    error = pickle.loads(pickle.dumps(ParallelRunException("busy", "Sleep", 7)))
    assert (str(error), error.seconds) == ("busy (Sleep 7 s)", 7)


# The user process


class Channel:
    """Of a host that may pause: what was sent is there, later frames come when the test says so."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.waited: list[float] = []
        self.during_pause: list[Frame | None] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        if not self.during_pause:
            return False
        frame = self.during_pause.pop(0)
        self.user.channel.work[:0] = [] if frame is None else [frame]
        return True


CLEAR = Frame(Kind.CLEAR, 0, memoryview(b""))
STOP = Frame(Kind.STOP, 0, memoryview(b""))


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path, PLAIN)
    yield user
    user.slot.close()


@pytest.fixture
def pause(user: User, monkeypatch: pytest.MonkeyPatch) -> Channel:
    channel = Channel(user)
    monkeypatch.setattr(user.channel, "wait", channel.wait, raising=False)
    return channel


def asking(code: str | None, *, for_: str = "b", error: Callable[..., BaseException] = ParallelRunException) -> Any:
    def run(mini_batch: list[str]) -> list[str]:
        if for_ in mini_batch:
            raise error("it went wrong", code, 20)
        return mini_batch

    return run


def serve(user: User, run: Callable[..., Any], shutdown: Callable[[], Any] = lambda: None) -> None:
    """Everything that its channel has."""
    user.host.serve(ScriptFunctions(lambda: None, run, shutdown, takes_context=False))


def test_without_a_code_the_host_goes_on(user: User) -> None:
    user.serve(asking(None), ["a"], ["b"], ["c"])
    assert user.rows == b"a\nc\n"
    assert [failure.code for failure in user.failures] == [""]


def test_after_no_retry_the_host_goes_on(user: User) -> None:
    user.serve(asking("NoRetry"), ["a"], ["b"], ["c"])
    assert user.rows == b"a\nc\n"
    (failure,) = user.failures
    assert (failure.code, failure.mini_batch) == ("NoRetry", 1)
    assert failure.message == "ParallelRunException: it went wrong (NoRetry)"
    assert "in run" in failure.traceback


@pytest.mark.parametrize("code", ["RestartProcess", "StopProcess"])
def test_a_process_that_asks_for_its_end_starts_nothing_more_and_shuts_down(user: User, code: str) -> None:
    shut_down = []
    user.channel.work = [work(0, 1, ["a"], ["b"], ["c"]), work(3, 1, ["d"])]
    serve(user, asking(code), lambda: shut_down.append(1))

    assert user.rows == b"a\n"
    assert user.kinds == [Kind.RESULTS, Kind.FAILED]
    assert user.failures[0].code == code
    assert shut_down == [1]
    assert user.slot.read().phase == ProcessPhase.EXITING


def test_a_subclass_counts_and_another_exception_with_a_code_does_not(user: User) -> None:
    class Mine(ParallelRunException):
        pass

    class Other(Exception):
        code = "NoRetry"

    user.serve(asking("NoRetry", error=Mine), ["b"])
    user.serve(asking("NoRetry", error=Other), ["b"])
    assert [failure.code for failure in user.failures] == ["NoRetry", ""]


def test_a_pause_drops_what_others_do_meanwhile_and_ends_with_ready(user: User, pause: Channel) -> None:
    seen = []
    pause.during_pause = [work(7, 1, ["late"])]
    monitored = pause.wait

    def wait(seconds: float) -> bool:
        seen.append(user.slot.read())
        return monitored(seconds)

    user.channel.wait = wait  # type: ignore[attr-defined]
    # The worker hears of the pause when it has sent another frame, and says CLEAR.
    user.channel.work = [work(0, 1, ["a"], ["b"], ["c"]), work(3, 1, ["d"]), CLEAR]
    serve(user, asking("Sleep"))

    assert user.rows == b"a\n"
    assert user.kinds == [Kind.RESULTS, Kind.FAILED, Kind.READY]
    assert user.failures[0].pause == 20
    assert {activity.phase for activity in seen} == {ProcessPhase.RESTING}
    assert 19 < seen[0].since - time.monotonic() <= 20
    assert all(0 < seconds <= 20 for seconds in pause.waited)


def test_work_after_a_pause_is_done(user: User, pause: Channel) -> None:
    user.channel.work = [work(0, 1, ["b"]), CLEAR, work(1, 2, ["c"])]
    serve(user, asking("Sleep"))
    assert pause.waited
    assert user.kinds == [Kind.FAILED, Kind.READY, Kind.RESULTS]
    assert user.rows == b"c\n"


@pytest.mark.parametrize("frames", [[STOP], [CLEAR]], ids=["before it is cleared", "while it waits"])
def test_a_stop_ends_a_pause(user: User, pause: Channel, frames: list[Frame]) -> None:
    shut_down = []
    user.channel.work = [work(0, 1, ["b"]), *frames]
    pause.during_pause = [STOP]
    serve(user, asking("Sleep"), lambda: shut_down.append(1))
    assert user.kinds == [Kind.FAILED]
    assert shut_down == [1]


def test_a_pause_ends_with_the_worker(user: User, pause: Channel) -> None:
    user.channel.work = [work(0, 1, ["b"]), CLEAR]
    pause.during_pause = [None]  # the end of the connection
    serve(user, asking("Sleep"))
    assert user.kinds == [Kind.FAILED]


# The supervisor, with a real process

SCRIPT = """
import os, sys, time
from azureml_user.parallel_run import ParallelRunException

def run(mini_batch):
    words = mini_batch[0].split()
    if words[0] != "fine":
        raise ParallelRunException("as the test says", words[0], float(words[1]))
    return mini_batch

def shutdown():
    print("shutdown of", os.getpid(), flush=True)
"""


@pytest.mark.parametrize(("code", "is_replaced"), [("RestartProcess", True), ("StopProcess", False)])
def test_the_supervisor_takes_back_what_was_not_started_before_an_end(
    supervised: Callable[..., Supervised], code: str, is_replaced: bool
) -> None:
    one = supervised(SCRIPT)
    one.send(0, "fine 0", f"{code} 0", "fine 2")
    one.send(3, "fine 3", attempt=2)
    one.wait(lambda: one.gone)

    assert one.rows == b"fine 0\n"
    assert one.failed == [code]
    assert one.unstarted == [(2, 1, 1), (3, 1, 2)]
    assert one.process.outstanding_count == 0
    assert one.process.is_replaced == is_replaced
    assert "shutdown of" in one.place.stdout.read_text()


def test_a_process_that_hangs_in_the_end_it_asked_for_is_killed(supervised: Callable[..., Supervised]) -> None:
    script = SCRIPT + "    time.sleep(1000)\n"
    one = supervised(script, task_overhead_timeout=0.5)
    one.send(0, "RestartProcess 0", "fine 1")
    one.wait(lambda: one.gone)
    assert one.failed == ["RestartProcess"]
    assert one.unstarted == [(1, 1, 1)]
    assert "shutdown() did not end in time" in one.place.error.read_text()


def test_a_process_that_pauses_gives_back_what_it_has_and_comes_back(supervised: Callable[..., Supervised]) -> None:
    one = supervised(SCRIPT)
    one.send(0, "fine 0", "Sleep 0.3", "fine 2")
    one.send(3, "fine 3")
    one.wait(lambda: one.rests)
    assert one.process.state is State.RESTING
    assert one.unstarted == [(2, 1, 1), (3, 1, 1)]
    one.wait(lambda: one.readies == 2)
    assert one.process.state is State.READY
    one.send(2, "fine 2")
    one.wait(lambda: one.process.outstanding_count == 0)
    assert one.rows == b"fine 0\nfine 2\n"
    assert not one.gone


def test_a_pause_is_no_timeout_and_an_end_of_the_job_is_not_kept_waiting(
    supervised: Callable[..., Supervised],
) -> None:
    one = supervised(SCRIPT, run_invocation_timeout=0.2, task_overhead_timeout=0.2)
    one.send(0, "Sleep 3000")
    one.wait(lambda: one.rests)
    until = time.monotonic() + 0.6
    one.wait(lambda: time.monotonic() > until)
    assert one.process.state is State.RESTING

    one.process.stop(time.monotonic() + 20)
    one.wait(lambda: one.gone)
    assert "shutdown of" in one.place.stdout.read_text()
    assert not one.place.error.read_text().count("killed")


def test_a_process_that_dies_in_its_pause_has_no_mini_batch_to_blame(supervised: Callable[..., Supervised]) -> None:
    one = supervised(SCRIPT)
    one.send(0, "Sleep 3000", "fine 1")
    one.wait(lambda: one.rests)
    os.kill(one.process.pid, signal.SIGSEGV)
    one.wait(lambda: one.gone)
    assert one.failed == ["Sleep"]
    assert one.unstarted == [(1, 1, 1)]
    assert one.process.is_replaced
    assert "during a pause: the user process was killed by SIGSEGV" in one.place.error.read_text()


# The scheduler


def test_no_retry_fails_a_mini_batch_at_its_first_try() -> None:
    job = Scheduling(3, workers=2, run_max_try=3)
    job.assign(1)
    number = next(iter(job.has[1]))
    attempt = job.has[1].pop(number)
    assert job.attempt_failed(1, number, attempt, 0.0, may_retry=False) is Fail
    job.finish_all()
    assert (job.scheduler.counts().done, job.scheduler.counts().failed) == (2, 1)
    assert job.scheduler.counts().retried == 0


def test_no_retry_counts_for_the_thresholds() -> None:
    job = Scheduling(3, workers=1, run_max_try=3, error_threshold=4)
    job.assign(1)
    assert job.attempt_failed(1, 0, 1, 0.0, may_retry=False) is Fail
    assert job.phase is JobPhase.ABORTED


def test_a_worker_whose_processes_are_all_stopped_gets_nothing_and_keeps_nothing() -> None:
    job = Scheduling(40, workers=2, processes=2)
    job.assign_all()
    had = set(job.has[1])
    job.stopped(1, 0)
    assert job.phase is JobPhase.RUNNING
    job.finish(1, had.pop())
    job.stopped(1, 1)
    job.has[1].clear()
    assert job.assign(1) == {}
    job.finish_all()  # what it had has gone to the other
    assert (job.phase, job.scheduler.counts().done) == (JobPhase.COMPLETE, 40)
    assert not job.scheduler.nodes.benched


def test_with_the_last_process_the_job_ends_and_says_why() -> None:
    job = Scheduling(40, workers=2, processes=1)
    job.assign_all()
    job.stopped(1, 0)
    assert job.phase is JobPhase.RUNNING
    job.stopped(2, 0)
    assert job.phase is JobPhase.ABORTED
    assert job.reason == (
        "no user process is left: the script has stopped 2 of 2 (ParallelRunException). 40 mini-batches are left, and "
        "the same command goes on with them"
    )


def test_stopped_and_failing_processes_together_are_all_there_are() -> None:
    job = Scheduling(40, workers=2, processes=1, init_tries=1)
    job.stopped(1, 0)
    job.gone(2, 0)
    assert job.init_failed(2, 0) is False
    assert job.phase is JobPhase.ABORTED
    assert "stopped 1 of 2 (ParallelRunException); in the others init() failed" in job.reason


def test_a_stop_that_is_told_twice_or_of_a_lost_worker_counts_once() -> None:
    job = Scheduling(40, workers=2, processes=2)
    for _ in range(2):
        job.stopped(1, 0)
    job.lose(1)
    job.stopped(1, 1)
    job.finish_all()
    assert job.phase is JobPhase.COMPLETE


def test_a_process_that_pauses_gets_nothing_until_it_is_ready_again() -> None:
    job = Scheduling(40, workers=2)
    job.gone(1, 0)
    assert job.assign(1) == {}
    assert job.assign(2)
    job.ready(1, 0)
    assert job.assign(1)


# Whole jobs

BEGINNING = """
import os, time
from azureml_user.parallel_run import EntryScript, ParallelRunException

def names_of(mini_batch):
    return [os.path.basename(path) for path in mini_batch]

def init():
    print("init of", os.getpid())
"""

NO_RETRY = (
    BEGINNING
    + """
def run(mini_batch, context):
    if context.minibatch_index in (0, 7):
        raise ParallelRunException("broken", code="NoRetry")
    if context.minibatch_index == 3 and context.retry_count == 0:
        raise ParallelRunException("for once")
    return names_of(mini_batch)
"""
)


def failures(job: Job) -> list[dict[str, Any]]:
    """What the journal says of failed tries, in order."""
    events = [entry.event for entry in read_journal(job.directory.journal) if entry.event is not None]
    return [event for event in events if event["event"] in ("failed", "attempt_failed")]


@pytest.fixture(params=["local", "mpich"])
def finish(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a job to its end, in one process tree or under mpirun."""
    if request.param == "local":
        return lambda job, processes=2: job.local(processes=processes)
    mpi: Mpi = request.getfixturevalue("mpich")
    return lambda job, processes=2: job.under(mpi, ranks=1 + processes)


def test_no_retry_costs_the_mini_batch_its_tries(new_job: NewJob, finish: Callable[..., Any]) -> None:
    job = new_job(NO_RETRY)
    done = finish(job)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, [name for number, name in enumerate(job.names) if number // 4 not in (0, 7)])
    found = [(event["event"], event["mini_batch"], event["attempt"], event["code"]) for event in failures(job)]
    assert sorted(found) == [("attempt_failed", 3, 1, ""), ("failed", 0, 1, "NoRetry"), ("failed", 7, 1, "NoRetry")]
    items = [json.loads(line) for line in job.directory.failed_items.read_text().splitlines()]
    assert len(items) == 8
    assert {item["message"] for item in items} == {"ParallelRunException: broken (NoRetry)"}


RESTART = (
    BEGINNING
    + """
def run(mini_batch, context):
    if context.minibatch_index % 3 == 0 and context.retry_count == 0:
        raise ParallelRunException(ParallelRunException.RestartProcess, "out of GPU memory")
    return [f"{name} {os.getpid()}" for name in names_of(mini_batch)]

def shutdown():
    print("shutdown of", os.getpid())
"""
)


def test_restart_gives_a_fresh_process_and_loses_no_row(new_job: NewJob, finish: Callable[..., Any]) -> None:
    job = new_job(RESTART)
    done = finish(job)
    assert done.returncode == 0, done.stdout
    rows = [row.split() for row in job.rows()]
    assert sorted(name for name, _ in rows) == job.names
    logs = "".join(path.read_text() for path in job.directory.logs.glob("user/stdout/*/*.txt"))
    started = {line.split()[-1] for line in logs.splitlines() if line.startswith("init of")}
    ended = {line.split()[-1] for line in logs.splitlines() if line.startswith("shutdown of")}
    assert len(started) >= 2 + 3  # mini-batches 0, 3, 6, 9 cost a process each; the last may need no other any more
    assert {pid for _, pid in rows} <= ended <= started  # one that is still starting at the end is not needed any more
    assert len(ended) >= 4
    assert [event["attempt"] for event in failures(job)] == [1, 1, 1, 1]


STOP_ONE = (
    BEGINNING
    + """
FIRST = os.path.join(EntryScript().output_dir, "first")

def init():
    print("init of", os.getpid())
    try:
        os.symlink(str(os.getpid()), FIRST)
    except FileExistsError:
        pass

def run(mini_batch):
    first = os.readlink(FIRST)
    if first == str(os.getpid()):
        raise ParallelRunException("this GPU is broken", code="StopProcess")
    while os.path.exists(f"/proc/{first}"):
        time.sleep(0.01)
    return names_of(mini_batch)
"""
)


def test_a_stopped_process_is_not_replaced_and_the_others_do_all(new_job: NewJob, finish: Callable[..., Any]) -> None:
    job = new_job(STOP_ONE)
    done = finish(job)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert [event["code"] for event in failures(job)] == ["StopProcess"]
    assert done.stdout.count("is stopped by the script") == 1
    logs = "".join(path.read_text() for path in job.directory.logs.glob("user/stdout/*/*.txt"))
    assert logs.count("init of") == 2


STOP_ALL = (
    BEGINNING
    + """
seen = []

def run(mini_batch):
    seen.append(mini_batch)
    if len(seen) > 2:
        raise ParallelRunException("enough", code="StopProcess")
    return names_of(mini_batch)
"""
)


def test_when_all_are_stopped_the_job_ends_with_the_reason_and_goes_on_later(
    new_job: NewJob, finish: Callable[..., Any]
) -> None:
    job = new_job(STOP_ALL, run_max_try=50)
    done = finish(job)
    assert done.returncode == 1
    assert "no user process is left: the script has stopped 2 of 2" in done.stdout
    assert len(job.ledger().done) == 4
    for _ in range(2):
        done = finish(job)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


def test_init_may_stop_its_process_too(new_job: NewJob) -> None:
    script = BEGINNING.replace('print("init of", os.getpid())', "raise ParallelRunException('no GPU', 'StopProcess')")
    job = new_job(f"{script}\ndef run(mini_batch): return mini_batch")
    done = job.local()
    assert done.returncode == 1
    assert "no user process is left: the script has stopped 2 of 2" in done.stdout
    assert done.stdout.count("init of") == 0
    assert done.stdout.count("is stopped by the script") == 2  # at the first try of each


SLEEP = (
    BEGINNING
    + """
def run(mini_batch, context):
    if context.minibatch_index in (1, 4) and context.retry_count == 0:
        raise ParallelRunException("the service is busy", code="Sleep", seconds=0.5)
    return [f"{name} {os.getpid()} {time.monotonic()}" for name in names_of(mini_batch)]
"""
)


def test_a_pause_is_kept_and_costs_no_row(new_job: NewJob, finish: Callable[..., Any]) -> None:
    job = new_job(SLEEP)
    began = time.monotonic()
    done = finish(job, processes=1)
    assert done.returncode == 0, done.stdout
    rows = [row.split() for row in job.rows()]
    assert sorted(row[0] for row in rows) == job.names
    assert len({row[1] for row in rows}) == 1  # one process did it all
    assert time.monotonic() - began >= 1.0
    times = sorted({float(row[2]) for row in rows})
    assert sum(later - earlier >= 0.5 for earlier, later in itertools.pairwise(times)) == 2


def test_the_work_of_a_process_that_pauses_is_done_by_others(new_job: NewJob, finish: Callable[..., Any]) -> None:
    script = SLEEP.replace("seconds=0.5", "seconds=3000").replace("(1, 4)", "(1,)")
    job = new_job(script)
    done = finish(job)
    assert done.returncode == 0, done.stdout
    assert sorted(row.split()[0] for row in job.rows()) == job.names


def test_a_stop_signal_does_not_wait_for_a_pause(new_job: NewJob) -> None:
    job = new_job(SLEEP.replace("seconds=0.5", "seconds=3000"))
    process = job.start_local(processes=1)
    wait_until(lambda: job.directory.journal.exists() and failures(job))
    process.send_signal(signal.SIGTERM)
    done = job.finish(process, timeout=30)
    assert done.returncode == 75, done.stdout
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert sorted(row.split()[0] for row in job.rows()) == job.names


def test_a_pause_in_init_comes_before_the_next_try(new_job: NewJob) -> None:
    job = new_job(
        BEGINNING
        + """
MARK = os.path.join(EntryScript().output_dir, "tried")

def init():
    if not os.path.exists(MARK):
        with open(MARK, "w") as file:
            file.write(repr(time.monotonic()))
        raise ParallelRunException("the licence server is busy", code="Sleep", seconds=1)

def run(mini_batch):
    return [f"{name} {time.monotonic()}" for name in names_of(mini_batch)]
"""
    )
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    tried = float((job.directory.output / "tried").read_text())
    assert min(float(row.split()[1]) for row in job.rows()) - tried >= 1


def test_tables_go_back_too(new_job: NewJob) -> None:
    """What is loaded ahead is given back to the loader, and loaded again elsewhere."""
    job = new_job(
        BEGINNING
        + """
def run(frame, context):
    if context.minibatch_index == 1 and context.retry_count == 0:
        raise ParallelRunException("the service is busy", code="Sleep", seconds=0.2)
    if context.minibatch_index == 5 and context.retry_count == 0:
        raise ParallelRunException("out of memory", code="RestartProcess")
    return list(frame["number"])
""",
        items=0,
        inputs=[{"table": "in/*.csv"}],
        mini_batch_size="10rows",
    )
    (job.folder / "in" / "table.csv").write_text("number\n" + "".join(f"{number}\n" for number in range(200)))
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    assert sorted(map(int, job.rows())) == list(range(200))
    assert sorted(event["code"] for event in failures(job)) == ["RestartProcess", "Sleep"]

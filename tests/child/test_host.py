"""The user process's side, driven in this process: what it answers to work, and to what scripts get up to."""

from __future__ import annotations

import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mpi_prs.child import host
from mpi_prs.child.host import Host
from mpi_prs.child.mini_batch import MiniBatchContext
from mpi_prs.child.parallel_run import ParallelRunException, ParallelRunExceptionCode
from mpi_prs.child.script import ScriptFunctions
from mpi_prs.wire.channel import (
    SPILL_THRESHOLD,
    WORK_HEADER,
    ChannelLost,
    ChildEnd,
    Frame,
    Kind,
    ProcessPhase,
    Slot,
    WorkerEnd,
)
from mpi_prs.wire.failure import NO_RETRY, RESTART, Failure, FailureKind, unpack_failures
from mpi_prs.wire.record import RECORD, Record, unpack_records
from tests.support.processes import PLAIN, process_settings

PROCESS = 3


class FakeChannel:
    """Gives out the frames of the worker, then its end; keeps the answers."""

    def __init__(self) -> None:
        self.work: list[Frame] = []
        self.answers: list[tuple[Kind, int, bytes]] = []

    def receive(self) -> Frame | None:
        return self.work.pop(0) if self.work else None

    def send(self, kind: Kind, count: int, *parts: bytes) -> None:
        self.answers.append((kind, count, b"".join(parts)))

    def check(self) -> None:
        pass


class Clock:
    """Time passes only when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.7e9 + self.now


class User:
    """A user process without a process: its host, and what it has answered."""

    def __init__(self, spill: Path, row_form: dict[str, Any] | None) -> None:
        self.channel = FakeChannel()
        self.slot, descriptor = Slot.create()
        os.close(descriptor)
        self.spill = spill
        self.settings = process_settings(
            process=PROCESS, row_form=row_form, columns=str(spill.parent / "columns"), spill=str(spill)
        )
        self.host = Host(self.channel, self.slot, self.settings)  # type: ignore[arg-type]

    def serve(
        self,
        run: Callable[..., Any],
        *mini_batches: list[str],
        first: int = 0,
        attempt: int = 1,
        takes_context: bool = False,
        shutdown: Callable[[], Any] = lambda: None,
        stop: bool = False,
    ) -> None:
        """Hand it one frame of work, then the end of the connection or the word to stop."""
        self.channel.work = [work(first, attempt, *mini_batches)] if mini_batches else []
        if stop:
            self.channel.work.append(Frame(Kind.STOP, 0, memoryview(b"")))
        self.host.serve(ScriptFunctions(lambda: None, run, shutdown, takes_context))

    @property
    def kinds(self) -> list[Kind]:
        return [kind for kind, _, _ in self.channel.answers]

    @property
    def results(self) -> list[tuple[list[Record], bytes]]:
        """The records and the rows of each frame of results."""
        answers = [(count, body) for kind, count, body in self.channel.answers if kind == Kind.RESULTS]
        return [(unpack_records(body[: count * RECORD.size]), body[count * RECORD.size :]) for count, body in answers]

    @property
    def rows(self) -> bytes:
        return b"".join(rows for _, rows in self.results)

    @property
    def items_failed(self) -> list[Failure]:
        answers = [body for kind, _, body in self.channel.answers if kind == Kind.ITEMS_FAILED]
        return [failure for body in answers for failure in unpack_failures(body)]

    @property
    def failures(self) -> list[Failure]:
        return [
            Failure.from_json(body) for kind, _, body in self.channel.answers if kind in (Kind.FAILED, Kind.INIT_FAILED)
        ]


def work(first: int, attempt: int, *mini_batches: list[str]) -> Frame:
    payloads = [b"\0".join(map(os.fsencode, paths)) for paths in mini_batches]
    count = len(mini_batches)
    body = (
        WORK_HEADER.pack(first, attempt)
        + struct.pack(f"<{count}I", *map(len, mini_batches))
        + struct.pack(f"<{count}I", *map(len, payloads))
        + b"".join(payloads)
    )
    return Frame(Kind.WORK, count, memoryview(bytearray(body)))


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path, PLAIN)
    yield user
    user.slot.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(host, "time", clock)
    return clock


def names_of(mini_batch: list[str]) -> list[str]:
    return [Path(path).name for path in mini_batch]


# Results


def test_each_mini_batch_is_run_with_its_own_paths_and_answered_in_order(user: User) -> None:
    user.serve(names_of, ["/d/a", "/d/b"], ["/d/c"], ["/d/d\udce9", "/d/e"], first=7)

    assert user.rows == b"a\nb\nc\nd\xe9\ne\n"
    assert [record.mini_batch for records, _ in user.results for record in records] == [7, 8, 9]


def test_a_record_says_who_did_what_when_and_for_how_long(user: User, clock: Clock) -> None:
    def run(mini_batch: list[str]) -> list[str]:
        clock.now += 0.25
        return mini_batch[:2]

    user.serve(run, ["a", "b", "c"], first=5, attempt=2)

    (((record,), rows),) = user.results
    assert rows == b"a\nb\n"
    assert record == Record(5, 3, 2, 2, PROCESS, 4, 1.7e9 + 1000.0, 0.25, 0.0)


def test_more_results_than_items_are_counted_as_they_are(user: User) -> None:
    user.serve(lambda batch: batch * 3, ["a", "b"])

    (((record,), _),) = user.results
    assert (record.items, record.returned) == (2, 6)


def test_with_summary_only_the_results_are_counted_and_dropped(tmp_path: Path) -> None:
    user = User(tmp_path, None)
    user.serve(lambda _: ["x" * (SPILL_THRESHOLD + 1)], ["a"])

    (((record,), rows),) = user.results
    assert (record.returned, record.length, rows) == (1, 0, b"")
    user.slot.close()


def test_the_context_names_the_mini_batch_and_counts_the_tries_before(user: User) -> None:
    seen: list[tuple[int, int]] = []

    def run(mini_batch: list[str], context: MiniBatchContext) -> list[str]:
        seen.append((context.minibatch_index, context.retry_count))
        return mini_batch

    user.serve(run, ["a"], ["b"], first=4, attempt=3, takes_context=True)

    assert seen == [(4, 2), (5, 2)]


def test_while_run_is_busy_the_worker_sees_with_what_and_since_when(user: User, clock: Clock) -> None:
    seen = []

    def run(mini_batch: list[str]) -> list[str]:
        seen.append(user.slot.read())
        clock.now += 1
        return mini_batch

    user.serve(run, ["a"], ["b"], first=4)

    assert seen == [(ProcessPhase.RUNNING, 4, 1000.0), (ProcessPhase.RUNNING, 5, 1001.0)]
    assert user.slot.read() == (ProcessPhase.IDLE, -1, 1002.0)


# Together or one by one


def test_answers_of_short_mini_batches_go_together(user: User, clock: Clock) -> None:
    user.host._flushed = clock.now
    user.serve(names_of, *([str(number)] for number in range(100)))

    assert user.kinds == [Kind.RESULTS]
    assert user.rows == b"".join(b"%d\n" % number for number in range(100))


def test_an_answer_goes_at_once_when_the_last_one_was_some_time_ago(user: User, clock: Clock) -> None:
    sent_before: list[int] = []

    def run(mini_batch: list[str]) -> list[str]:
        sent_before.append(len(user.channel.answers))
        clock.now += 0.01
        return mini_batch

    user.serve(run, ["a"], ["b"], ["c"])

    assert sent_before == [0, 1, 2]


def test_rows_do_not_pile_up_beyond_some_kibibytes(user: User, clock: Clock) -> None:
    user.host._flushed = clock.now
    user.serve(lambda _: ["x" * 20_000], *([str(number)] for number in range(20)))

    assert [len(records) for records, _ in user.results] == [4, 4, 4, 4, 4]


# Large rows


def test_rows_of_many_mebibytes_go_through_a_file(user: User, clock: Clock) -> None:
    large = "x" * SPILL_THRESHOLD
    user.host._flushed = clock.now
    user.serve(lambda batch: [large, "end"] if batch == ["large"] else batch, ["a"], ["large"], ["b"], first=1)

    assert user.kinds == [Kind.RESULTS, Kind.SPILLED, Kind.RESULTS]
    _, count, body = user.channel.answers[1]
    (record,) = unpack_records(body[: RECORD.size])
    assert count == 1
    assert (record.mini_batch, record.returned, record.length) == (2, 2, SPILL_THRESHOLD + 5)
    path = Path(os.fsdecode(body[RECORD.size :]))
    assert path.parent == user.spill
    assert path.read_bytes() == f"{large}\nend\n".encode()
    assert user.rows == b"a\nb\n"


def test_rows_that_just_fit_go_with_the_others(user: User) -> None:
    user.serve(lambda _: ["x" * (SPILL_THRESHOLD - 1)], ["a"])

    assert user.kinds == [Kind.RESULTS]
    assert list(user.spill.iterdir()) == []


def test_each_file_of_rows_has_a_name_of_its_own(user: User) -> None:
    user.serve(lambda _: ["x" * (SPILL_THRESHOLD + 1)], ["a"], ["b"])

    assert len(list(user.spill.iterdir())) == 2


def test_a_folder_for_large_rows_that_is_gone_fails_the_attempt_and_not_the_process(user: User) -> None:
    user.spill.rmdir()

    user.serve(lambda batch: ["x" * SPILL_THRESHOLD] if batch == ["large"] else batch, ["large"], ["b"])

    assert user.kinds == [Kind.FAILED, Kind.RESULTS]
    assert user.failures[0].kind is FailureKind.EXCEPTION
    user.spill.mkdir()


# Failures


class Odd(Exception):
    def __str__(self) -> str:
        raise TypeError("no words")


def raising(error: BaseException) -> Callable[[list[str]], Any]:
    def run(_: list[str]) -> Any:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("too dark"), "ValueError: too dark"),
        (ValueError("two\nlines"), "ValueError: two"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (SystemExit(0), "the script called sys.exit(0)"),
        (SystemExit("no model"), "the script called sys.exit('no model')"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (OSError(2, "No such file", "caf\udce9"), r"FileNotFoundError: [Errno 2] No such file: 'caf\udce9'"),
        (Odd(), "Odd"),
    ],
)
def test_whatever_run_raises_fails_that_attempt_alone(user: User, error: BaseException, message: str) -> None:
    def run(mini_batch: list[str]) -> Any:
        return raising(error)(mini_batch) if mini_batch == ["b"] else mini_batch

    user.serve(run, ["a"], ["b"], ["c"], first=7, attempt=2)

    (failure,) = user.failures
    assert (failure.kind, failure.message) == (FailureKind.EXCEPTION, message)
    assert (failure.mini_batch, failure.attempt, failure.process) == (8, 2, PROCESS)
    assert "in raising" in failure.traceback or "in run" in failure.traceback
    assert [record.mini_batch for records, _ in user.results for record in records] == [7, 9]


@pytest.mark.parametrize(
    ("batches", "codes"),
    [
        ("bbb", ["", "", RESTART]),
        ("bbbb", ["", "", RESTART]),
        ("bbgbbg", ["", "", "", ""]),
        ("bnnb", ["", NO_RETRY, NO_RETRY, RESTART]),
    ],
)
def test_after_failures_in_a_row_the_process_asks_to_be_replaced(user: User, batches: str, codes: list[str]) -> None:
    def run(mini_batch: list[str]) -> list[str]:
        if mini_batch == ["n"]:
            raise ParallelRunException("no", ParallelRunExceptionCode.NoRetry)
        return mini_batch if mini_batch == ["g"] else [mini_batch[1]]

    user.host._settings = replace(user.settings, patience=3)
    user.serve(run, *([each] for each in batches))
    assert [failure.code for failure in user.failures] == codes


def test_a_failure_comes_after_the_answers_before_it(user: User, clock: Clock) -> None:
    user.host._flushed = clock.now
    user.serve(lambda batch: None if batch == ["c"] else batch, ["a"], ["b"], ["c"], ["d"])

    assert user.kinds == [Kind.RESULTS, Kind.FAILED, Kind.RESULTS]
    assert [len(records) for records, _ in user.results] == [2, 1]


@pytest.mark.parametrize(
    ("result", "name"),
    [(None, "None"), ("text", "a str"), ({}, "a dict"), (iter([]), "a list_iterator"), (7, "an int")],
)
def test_a_result_without_rows_fails_the_attempt_and_names_the_type(user: User, result: Any, name: str) -> None:
    user.serve(lambda _: result, ["a"])

    (failure,) = user.failures
    assert failure.kind is FailureKind.WRONG_TYPE
    assert failure.message.startswith(f"run() returned {name}")
    assert failure.traceback == "", "it would show nothing but ours"


def test_an_element_that_has_no_text_fails_the_attempt(user: User) -> None:
    user.serve(lambda _: [Odd()], ["a"])

    assert user.failures[0].message == "TypeError: no words"


def test_endless_words_are_cut_to_a_length_that_travels(user: User) -> None:
    user.serve(raising(ValueError("x" * 10_000_000)), ["a"])

    assert len(user.channel.answers[0][2]) < 40_000


def test_a_failure_says_how_long_the_attempt_had_run(user: User, clock: Clock) -> None:
    def run(_: list[str]) -> None:
        clock.now += 2.5
        raise ValueError

    user.serve(run, ["a"])

    assert user.failures[0].seconds == 2.5


# Being told to skip, to stop, or nothing any more


def test_what_is_not_started_is_given_back_when_the_worker_says_so(user: User, clock: Clock) -> None:
    user.host._flushed = clock.now

    def run(mini_batch: list[str]) -> list[str]:
        if mini_batch == ["b"]:
            user.slot.skip_unstarted()
        return mini_batch

    user.serve(run, ["a"], ["b"], ["c"], ["d"], ["e"])

    assert [(kind, count) for kind, count, _ in user.channel.answers] == [(Kind.RESULTS, 2), (Kind.SKIPPED, 3)]
    assert user.rows == b"a\nb\n"


def test_at_the_word_to_stop_shutdown_is_called(user: User) -> None:
    seen: list[int] = []
    user.serve(names_of, ["a"], stop=True, shutdown=lambda: seen.append(user.slot.read().phase))

    assert seen == [ProcessPhase.SHUTDOWN]
    assert user.rows == b"a\n"


def test_a_shutdown_that_fails_is_told_in_the_log_and_ends_well(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    def shutdown() -> None:
        raise SystemExit("half done")

    user.serve(names_of, stop=True, shutdown=shutdown)

    shown = capsys.readouterr().err
    assert shown.startswith("shutdown() failed:\n")
    assert "half done" in shown


def test_when_the_worker_is_gone_it_ends_without_shutdown(user: User) -> None:
    called: list[str] = []
    user.serve(names_of, ["a"], shutdown=lambda: called.append("shutdown"))

    assert called == []


# Forks

# pytest, numpy and others have threads; from Python 3.12 on a fork then warns.
IN_SPITE_OF_THREADS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@IN_SPITE_OF_THREADS
def test_a_forked_copy_that_comes_back_from_run_ends_at_once(user: User) -> None:
    codes: list[int] = []

    def run(mini_batch: list[str]) -> list[str]:
        pid = os.fork()
        if not pid:
            return ["from the copy"]
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return mini_batch

    user.serve(run, ["a"])

    assert codes == [0]
    assert user.rows == b"a\n"


@IN_SPITE_OF_THREADS
def test_a_forked_copy_that_raises_out_of_run_ends_and_its_traceback_is_logged(
    user: User, capfd: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []

    def run(mini_batch: list[str]) -> list[str]:
        pid = os.fork()
        if not pid:
            raise ValueError("in the copy")
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return mini_batch

    user.serve(run, ["a"])

    assert codes == [1]
    assert user.kinds == [Kind.RESULTS]
    assert "ValueError: in the copy" in capfd.readouterr().err


# Beginning


@pytest.fixture
def start(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], ScriptFunctions | None]]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))

    def write_and_start(text: str) -> ScriptFunctions | None:
        path = tmp_path / "script_under_test.py"
        path.write_text(text)
        settings = replace(user.settings, entry_script=str(path), source_directory=str(tmp_path))
        return Host(user.channel, user.slot, settings).start()  # type: ignore[arg-type]

    with mock.patch.dict(sys.modules):
        yield write_and_start


def test_after_init_it_says_that_it_is_ready(user: User, start: Callable[[str], ScriptFunctions | None]) -> None:
    script = start("ready = []\ndef init(): ready.append('yes')\ndef run(batch): return ready")

    assert script is not None
    assert script.run([]) == ["yes"]
    assert user.kinds == [Kind.READY]
    assert user.slot.read()[:2] == (ProcessPhase.IDLE, -1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def init(): raise ValueError('no model')\ndef run(b): return b", "ValueError: no model"),
        ("def init():\n    import sys\n    sys.exit(3)\ndef run(b): return b", "the script called sys.exit(3)"),
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def run(", "SyntaxError: '(' was never closed (script_under_test.py, line 1)"),
        ("x = 1", r"NoRunFunction: .*script_under_test\.py has no function run\(mini_batch\); define it .*"),
    ],
)
def test_a_script_that_does_not_get_to_its_first_mini_batch_says_why(
    user: User, start: Callable[[str], ScriptFunctions | None], text: str, message: str
) -> None:
    assert start(text) is None

    assert user.kinds == [Kind.INIT_FAILED]
    (failure,) = user.failures
    assert failure.kind is FailureKind.INIT
    assert failure.message == message or re.fullmatch(message, failure.message)
    assert (failure.mini_batch, failure.attempt, failure.process) == (-1, 0, PROCESS)
    assert "mpi_prs/entry_script" not in failure.traceback


def test_what_argparse_has_said_is_told(user: User, start: Callable[[str], ScriptFunctions | None]) -> None:
    text = "import argparse\ndef init():\n    parser = argparse.ArgumentParser()\n"
    text += "    parser.add_argument('--model', required=True)\n    parser.parse_known_args([])\ndef run(b): return b"
    assert start(text) is None
    (failure,) = user.failures
    said = "argparse says: the following arguments are required: --model"
    assert failure.message == f"the script called sys.exit(2); {said}"
    assert failure.traceback.endswith(f"SystemExit: 2\n{said}\n")


# The channel


@pytest.fixture
def pair() -> Iterator[tuple[ChildEnd, WorkerEnd, int]]:
    """Both ends, and the descriptor of the process's."""
    ours, theirs = socket.socketpair()
    descriptor = theirs.detach()
    child, worker = ChildEnd(descriptor), WorkerEnd(ours)
    yield child, worker, descriptor
    worker.close()
    try:
        child._socket.close()
    except OSError:
        child._socket.detach()


def received(worker: WorkerEnd, count: int) -> list[tuple[int, int, bytes]]:
    frames: list[Frame] = []
    deadline = time.monotonic() + 30
    while len(frames) < count and not worker.closed and not worker.garbled:
        assert time.monotonic() < deadline, "nothing came"
        frames += worker.receive()
    return [(kind, number, bytes(body)) for kind, number, body in frames]


def test_frames_arrive_on_either_side_as_they_were_sent(pair: tuple[ChildEnd, WorkerEnd, int]) -> None:
    child, worker, _ = pair
    worker.send(Kind.WORK, 2, b"ab", b"", b"c")
    worker.send(Kind.STOP, 0)
    child.send(Kind.RESULTS, 3, b"x", b"yz")
    child.send(Kind.READY, 0)

    assert child.receive() == (Kind.WORK, 2, b"abc")
    assert child.receive() == (Kind.STOP, 0, b"")
    assert received(worker, 2) == [(Kind.RESULTS, 3, b"xyz"), (Kind.READY, 0, b"")]


def test_a_descriptor_that_belongs_to_something_else_now_is_not_written_to(
    pair: tuple[ChildEnd, WorkerEnd, int], tmp_path: Path
) -> None:
    child, _, descriptor = pair
    with open(tmp_path / "precious", "wb") as file:
        os.dup2(file.fileno(), descriptor)

    for attempt in (lambda: child.send(Kind.READY, 0), child.check):
        with pytest.raises(ChannelLost, match="now belongs to something else"):
            attempt()
    assert (tmp_path / "precious").read_bytes() == b""


def test_another_socket_under_the_same_number_is_noticed_too(pair: tuple[ChildEnd, WorkerEnd, int]) -> None:
    child, _, descriptor = pair
    one, other = socket.socketpair()
    with one, other:
        os.dup2(one.fileno(), descriptor)
        with pytest.raises(ChannelLost, match="now belongs to something else"):
            child.send(Kind.READY, 0)


def test_a_closed_descriptor_is_noticed_at_every_use(pair: tuple[ChildEnd, WorkerEnd, int]) -> None:
    child, _, descriptor = pair
    os.close(descriptor)

    for attempt in (lambda: child.send(Kind.READY, 0), child.receive, child.check):
        with pytest.raises(ChannelLost):
            attempt()


def test_the_end_of_the_worker_is_the_end_of_the_frames(pair: tuple[ChildEnd, WorkerEnd, int]) -> None:
    child, worker, _ = pair
    worker.send(Kind.STOP, 0)
    worker.close()

    assert child.receive() == (Kind.STOP, 0, b"")
    assert child.receive() is None
    with pytest.raises(ChannelLost):
        child.send(Kind.READY, 0)


def test_a_frame_cut_short_by_the_worker_s_death_is_no_frame(pair: tuple[ChildEnd, WorkerEnd, int]) -> None:
    child, worker, _ = pair
    with mock.patch.object(worker, "flush"):
        worker.send(Kind.WORK, 1, b"abcdef")
    worker._socket.send(worker._outgoing[0][:-2])
    worker.close()

    assert child.receive() is None


def test_what_a_script_writes_into_the_channel_is_not_taken_for_answers(
    pair: tuple[ChildEnd, WorkerEnd, int],
) -> None:
    child, worker, descriptor = pair
    child.send(Kind.READY, 0)
    os.write(descriptor, b"hello, is this a log file?")

    assert received(worker, 2) == [(Kind.READY, 0, b"")]
    assert worker.garbled

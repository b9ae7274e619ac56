"""``async def run``: how many mini-batches are in flight, what each answers, and what the worker sees of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.child import script
from mpi_prs.child.mini_batch import MiniBatchContext
from mpi_prs.child.parallel_run import ParallelRunException
from mpi_prs.child.script import ScriptFunctions
from mpi_prs.wire.channel import ChannelLost, Frame, Kind, ProcessPhase, Slot
from mpi_prs.wire.failure import Failure, FailureKind
from tests.child.test_host import FakeChannel, User, work
from tests.support.jobs import wait_until
from tests.support.processes import PLAIN
from tests.support.supervised import Supervised

CLEAR = Frame(Kind.CLEAR, 0, memoryview(b""))


class Channel(FakeChannel):
    """Gives out the last frame, or its end, when all that it gave out before is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0
        self.lost = self.cleared = False

    @property
    def answered(self) -> int:
        return sum(count for kind, count, _ in self.answers if kind != Kind.READY)

    def receive(self) -> Frame | None:
        if not self.work:
            wait_until(lambda: self.lost or self.answered >= self.given)
        elif self.work[0] == CLEAR:
            wait_until(
                lambda: any(kind == Kind.FAILED and Failure.from_json(body).code for kind, _, body in self.answers)
            )
        elif self.cleared:
            wait_until(lambda: any(kind == Kind.READY for kind, _, _ in self.answers))
        if not self.work:
            return None
        frame = self.work.pop(0)
        self.cleared |= frame == CLEAR
        self.given += frame.mini_batches
        return frame

    def send(self, kind: Kind, count: int, *parts: bytes) -> None:
        if self.lost:
            raise ChannelLost
        super().send(kind, count, *parts)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    monkeypatch.setattr(script, "_loops", [])
    user = User(tmp_path, PLAIN)
    user.channel = Channel()
    user.host._channel = user.channel  # type: ignore[assignment]
    user.slot.close()
    user.slot, _ = Slot.create(3)
    user.host._slot = user.slot
    yield user
    user.channel.lost = True
    user.slot.close()
    for loop in script._loops:
        loop.close()


def serve(
    user: User,
    run: Callable[..., Any],
    *frames: Frame,
    takes_context: bool = False,
    load: Callable[[str], Any] | None = None,
    **settings: Any,
) -> None:
    user.channel.work = list(frames)
    settings = {"loaders": 2, "loaders_ahead": 2, "loaders_memory": 1 << 20, **settings}  # of use with a load alone
    user.host._settings = replace(user.settings, mini_batches_in_flight=3, **settings)
    user.host.serve(ScriptFunctions(lambda: None, run, lambda: None, takes_context, is_async=True, load=load))


def numbers(user: User) -> list[int]:
    return [record.mini_batch for records, _ in user.results for record in records]


def test_so_many_run_at_once_and_each_is_answered_when_it_ends(user: User) -> None:
    at_once = most = 0
    first = asyncio.Event()

    async def run(mini_batch: list[str]) -> list[str]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if mini_batch == ["0"]:
            await first.wait()
        elif mini_batch == ["5"]:
            first.set()
        await asyncio.sleep(0.01)
        at_once -= 1
        return mini_batch

    serve(user, run, work(0, 1, *([str(number)] for number in range(6))))
    assert most == 3
    assert sorted(numbers(user)) == list(range(6))
    assert numbers(user)[0] != 0
    assert sorted(user.rows.split()) == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_the_context_is_of_the_mini_batch_that_runs(user: User) -> None:
    async def run(mini_batch: list[str], context: MiniBatchContext) -> list[str]:
        before = (context.minibatch_index, context.retry_count)
        await asyncio.sleep(0.001)
        return [f"{mini_batch[0]} {before} {context.minibatch_index}"]

    serve(user, run, work(4, 2, ["a"], ["b"]), takes_context=True)
    assert sorted(user.rows.decode().splitlines()) == ["a (4, 1) 4", "b (5, 1) 5"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no answer"), "ValueError: no answer"),
        (SystemExit(3), "the script called sys.exit(3)"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
@pytest.mark.parametrize("in_a_task", [False, True])
def test_what_run_raises_fails_its_mini_batch_and_the_others_go_on(
    user: User, error: BaseException, message: str, in_a_task: bool
) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    async def run(mini_batch: list[str]) -> list[str]:
        if mini_batch == ["b"]:
            await (asyncio.gather(fail()) if in_a_task else fail())
        await asyncio.sleep(0.01)
        return mini_batch

    serve(user, run, work(0, 1, ["a"], ["b"], ["c"], ["d"]))
    (failure,) = user.failures
    assert (failure.mini_batch, failure.kind, failure.message) == (1, FailureKind.EXCEPTION, message)
    assert "mpi_prs/child" not in failure.traceback
    assert sorted(user.rows.split()) == [b"a", b"c", b"d"]


def test_at_its_timeout_a_run_is_cancelled_and_the_others_go_on(user: User) -> None:
    ends = []

    async def run(mini_batch: list[str]) -> list[str]:
        if mini_batch == ["slow"]:
            try:
                await asyncio.sleep(1000)
            finally:
                ends.append("cancelled")
        return mini_batch

    serve(user, run, work(0, 1, ["a"], ["slow"], ["c"]), run_invocation_timeout=0.05)
    (failure,) = user.failures
    assert (failure.mini_batch, failure.kind) == (1, FailureKind.TIMEOUT)
    assert failure.message == "run() did not end within run_invocation_timeout (0.05 s)"
    assert "await asyncio.sleep(1000)" in failure.traceback
    assert ends == ["cancelled"]
    assert sorted(user.rows.split()) == [b"a", b"c"]


def test_the_slot_shows_what_is_in_flight_and_whose_code_holds_the_loop(user: User) -> None:
    seen = []

    async def look() -> None:
        seen.append(user.slot.read()[:2])

    async def run(mini_batch: list[str]) -> list[str]:
        await asyncio.sleep(0.01)
        if mini_batch == ["b"]:
            seen.append(sorted(lane.read()[:2] for lane in user.slot.lanes))
            seen.append(user.slot.read()[:2])
            await asyncio.create_task(look())
        await asyncio.sleep(0.05)
        return mini_batch

    serve(user, run, work(4, 1, ["a"], ["b"]))
    running = ProcessPhase.RUNNING
    assert seen == [[(ProcessPhase.IDLE, 0), (running, 4), (running, 5)], (running, 5), (running, 5)]
    assert user.slot.read()[:2] == (ProcessPhase.IDLE, -1)


def test_what_has_not_begun_is_given_back_when_the_worker_says_so(user: User) -> None:
    async def run(mini_batch: list[str]) -> list[str]:
        user.slot.skip_unstarted()
        await asyncio.sleep(0.01)
        return mini_batch

    serve(user, run, work(0, 1, *([str(number)] for number in range(5))))
    assert sorted(numbers(user)) == [0, 1, 2]
    assert sum(count for kind, count, _ in user.channel.answers if kind == Kind.SKIPPED) == 2


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        ({"b": "RestartProcess"}, ["RestartProcess"]),
        ({"b": "Sleep"}, ["Sleep"]),
        ({"b": "Sleep", "c": "Sleep"}, ["", "Sleep"]),
        ({"b": "Sleep", "c": "StopProcess"}, ["", "StopProcess"]),
        ({"b": "RestartProcess", "c": "Sleep"}, ["", "RestartProcess"]),
    ],
)
def test_what_a_script_asks_for_is_told_when_the_others_have_ended(
    user: User, asks: dict[str, str], told: list[str]
) -> None:
    async def run(mini_batch: list[str]) -> list[str]:
        if mini_batch[0] in asks:
            raise ParallelRunException("now", asks[mini_batch[0]], 0)
        await asyncio.sleep(0.05)
        return mini_batch

    user.channel.given = -1  # the waiting mini-batch is taken back, and not answered
    after = told[-1] == "Sleep"
    again = [CLEAR, work(3, 1, ["d"])] if after else []
    serve(user, run, work(0, 1, ["a"], ["b"], ["c"], ["d"]), *again)
    kinds = [kind for kind in user.kinds if kind != Kind.READY]
    others = [number for number, name in enumerate("abc") if name not in asks]
    assert numbers(user) == [*others, *([3] if after else [])]
    assert [failure.code for failure in user.failures] == told
    assert kinds.count(Kind.RESULTS) >= 1 + after
    assert kinds[-1 - after] == Kind.FAILED, "the last one before the pause or the end"
    assert (Kind.READY in user.kinds) == after


def test_with_load_each_mini_batch_gets_its_own_items(user: User) -> None:
    def load(item: str) -> str:
        time.sleep(0.002)
        return item.upper()

    async def run(mini_batch: Any) -> list[str]:
        await asyncio.sleep(0.001)
        return [f"{path} {item}" for path, item in zip(mini_batch.items, mini_batch, strict=True)]

    serve(user, run, work(0, 1, *([f"{number}a", f"{number}b"] for number in range(6))), load=load)
    expected = [f"{number}{letter} {number}{letter.upper()}" for number in range(6) for letter in "ab"]
    assert sorted(user.rows.decode().splitlines()) == expected


def test_with_load_what_is_skipped_is_not_taken_from_those_that_have_begun(user: User) -> None:
    async def run(mini_batch: Any) -> list[str]:
        return [f"{path} {item}" for path, item in zip(mini_batch.items, mini_batch, strict=True)]

    frames = [work(0, 1, ["a"], ["b"]), work(2, 1, ["c"], ["d"])]
    expect = user.host.expect

    def skip_with_the_second(frame: Frame) -> None:
        expect(frame)
        if frame is frames[1]:
            user.slot.skip_unstarted()

    user.host.expect = skip_with_the_second  # type: ignore[method-assign]
    serve(user, run, *frames, load=str.upper)
    rows = sorted(user.rows.decode().splitlines())
    assert rows in (["a A", "b B"], [])
    assert sum(count for kind, count, _ in user.channel.answers if kind == Kind.SKIPPED) == 4 - len(rows)
    assert not user.failures


def test_a_channel_that_is_lost_ends_it(user: User) -> None:
    async def run(mini_batch: list[str]) -> list[str]:
        user.channel.lost = True  # type: ignore[attr-defined]
        return mini_batch

    with pytest.raises(ChannelLost):
        serve(user, run, work(0, 1, ["a"]))


# The supervisor, with a real process

SCRIPT = """
import asyncio, atexit, os, time

state = []
atexit.register(print, "at exit", flush=True)

async def init():
    state.append("init")
    await asyncio.sleep(0)

async def run(mini_batch):
    word, seconds = mini_batch[0].split()
    assert state == ["init"]
    if word == "block":
        time.sleep(float(seconds))
    if word == "die":
        await asyncio.sleep(0.05)
        os._exit(7)
    if word == "die-in-a-thread":
        await asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.3), os._exit(7)))
    if word == "deaf":
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass
    await asyncio.sleep(float(seconds))
    return mini_batch

async def shutdown():
    await asyncio.sleep(0)
    print("shutdown of", state, flush=True)
    if os.fork():
        os.wait()
"""


@pytest.fixture
def supervised(supervised: Callable[..., Supervised]) -> Callable[..., Supervised]:
    return partial(supervised, SCRIPT, mini_batches_in_flight=4)


def test_answers_come_in_any_order_and_init_and_shutdown_may_be_async(supervised: Callable[..., Supervised]) -> None:
    one = supervised()
    assert one.process.at_once == 4
    one.send(0, "slow 0.5", "a 0", "b 0", "c 0", "d 0")
    one.send(9, "e 0", attempt=2)
    one.wait(lambda: not one.process.outstanding_count)
    assert one.rows.endswith(b"slow 0.5\n")
    assert sorted(one.rows.split(b"\n")[:5]) == [b"a 0", b"b 0", b"c 0", b"d 0", b"e 0"]
    one.process.stop(time.monotonic() + 30)
    one.wait(lambda: one.gone)
    said = one.place.stdout.read_text()
    assert "shutdown of ['init']" in said
    assert said.count("at exit") == 1, "a copy that the script has forked has no business here"
    assert not one.failures


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("block 1000", "run() did not end within run_invocation_timeout (1 s): it holds the event loop"),
        ("deaf 0", "run() did not end within run_invocation_timeout (1 s), and not 5 s after it was cancelled"),
        ("die 0", "the user process exited with code 7"),
    ],
)
def test_who_ends_the_process_loses_a_try_and_the_others_in_flight_do_not(
    supervised: Callable[..., Supervised], word: str, message: str
) -> None:
    one = supervised(run_invocation_timeout=1.0, task_overhead_timeout=5.0)
    one.send(0, "a 0", "b 100" if word == "die 0" else "b 0", word, "c 0.001", "d 0")
    one.wait(lambda: one.gone)
    assert [failure.mini_batch for failure in one.failures] == [2], one.failures
    assert message in one.failures[0].message
    assert not one.suspects


def test_where_nobody_knows_which_of_them_it_was_none_loses_a_try(supervised: Callable[..., Supervised]) -> None:
    one = supervised()
    one.send(0, "a 0", "b 100", "die-in-a-thread 0", "c 100", "d 100", "e 100")
    one.wait(lambda: one.gone)
    assert not one.failures
    assert one.unstarted == [*((number, 1, 1) for number in range(1, 5)), (5, 1, 1)]
    assert one.suspects == 4, "those that ran"


def test_the_only_one_in_flight_is_to_blame(supervised: Callable[..., Supervised]) -> None:
    one = supervised()
    one.send(3, "die-in-a-thread 0")
    one.wait(lambda: one.gone)
    assert [failure.mini_batch for failure in one.failures] == [3]

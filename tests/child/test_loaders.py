"""``load(item)``, called ahead of ``run()``: what run() gets, in which order, how far ahead, and what is freed."""

from __future__ import annotations

import gc
import json
import re
import struct
import threading
import time
import wave
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpi_prs.child.loaders import Loaders, size_of
from mpi_prs.child.mini_batch import DescribedMiniBatches, MiniBatch, MiniBatchContext
from mpi_prs.child.parallel_run import ParallelRunException
from mpi_prs.child.script import NoLoadFunction, ScriptFunctions, import_script
from mpi_prs.wire.channel import WORK_HEADER, Frame, Kind, ProcessPhase
from mpi_prs.wire.failure import FailureKind
from tests.child.test_host import User, work
from tests.support.jobs import REPOSITORY, wait_until
from tests.support.processes import PLAIN
from tests.support.supervised import Supervised


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path, PLAIN)
    yield user
    user.slot.close()


def serve(
    user: User, load: Callable[[str], Any], run: Callable[..., Any], *frames: Frame, loaders: int = 2, **settings: Any
) -> None:
    user.channel.work = list(frames)
    settings = {"loaders_ahead": 2, "loaders_memory": 1 << 30, **settings}
    user.host._settings = replace(user.settings, loaders=loaders, **settings)
    user.host.serve(ScriptFunctions(lambda: None, run, lambda: None, takes_context=False, load=load))


# What run() gets


def test_run_gets_what_load_returned_in_order_and_the_paths(user: User) -> None:
    turn = threading.Barrier(2, timeout=30)  # both of a mini-batch are loaded at the same time

    def load(item: str) -> str:
        turn.wait()
        return item.upper()

    seen = []

    def run(mini_batch: Any) -> list[str]:
        seen.append((list(mini_batch), mini_batch.items, mini_batch.task_id))
        return list(mini_batch)

    serve(user, load, run, work(4, 1, ["a", "b"], ["c", "d"]), work(6, 1, ["e", "f"]))
    assert seen == [(["A", "B"], ["a", "b"], "4"), (["C", "D"], ["c", "d"], "5"), (["E", "F"], ["e", "f"], "6")]
    assert user.rows == b"A\nB\nC\nD\nE\nF\n"


def test_files_with_partition_keys_or_fetched_from_elsewhere_are_loaded_as_well(user: User) -> None:
    header = json.dumps({"input": 1, "partition": [["user", "ada"]]}).encode()
    payloads = [len(header).to_bytes(4, "little") + header + paths for paths in (b"/s/a\0/s/b", b"/s/c")]
    body = WORK_HEADER.pack(3, 1) + struct.pack("<4I", 2, 1, *map(len, payloads)) + b"".join(payloads)
    user.host._mini_batches = DescribedMiniBatches()
    user.channel.work = [Frame(Kind.WORK, 2, memoryview(bytearray(body)))]
    user.host._settings = replace(user.settings, loaders=2, loaders_ahead=2, loaders_memory=1 << 20)

    def run(mini_batch: Any, context: MiniBatchContext) -> list[str]:
        assert context.partition_key_value is not None
        key = context.partition_key_value["user"]
        return [f"{item} {path} {key}" for item, path in zip(mini_batch, mini_batch.items, strict=True)]

    user.host.serve(ScriptFunctions(lambda: None, run, lambda: None, True, load=str.upper))
    assert user.rows.decode().splitlines() == ["/S/A /s/a ada", "/S/B /s/b ada", "/S/C /s/c ada"]


BROKEN = ValueError("no picture")


@pytest.mark.parametrize(
    ("error", "message", "calls"),
    [
        (BROKEN, "ValueError: no picture", 3),
        (SystemExit(3), "the script called sys.exit(3)", 3),
        (ParallelRunException("never", "NoRetry"), "ParallelRunException: never (NoRetry)", 1),
    ],
)
def test_an_item_that_load_raises_for_fails_alone(
    user: User, error: BaseException, message: str, calls: int, capfd: pytest.CaptureFixture[str]
) -> None:
    called = []

    def load(item: str) -> str:
        if "bad" in item:
            called.append(item)
            raise error.with_traceback(None)  # as a new one
        return item.upper()

    serve(user, load, lambda batch: [*batch, str(batch.items)], work(0, 2, ["a"], ["b", "bad", "c"]), load_tries=3)
    assert user.rows.decode().splitlines() == ["A", "['a']", "B", "C", "['b', 'c']"]
    assert [(record.items, record.mini_batch) for records, _ in user.results for record in records] == [(1, 0), (2, 1)]
    (failure,) = user.items_failed
    assert (failure.mini_batch, failure.attempt, failure.item, failure.items) == (1, 2, 1, 3)
    assert (failure.kind, failure.message, failure.code) == (FailureKind.LOAD, message, "")
    assert "in load" in failure.traceback
    assert "mpi_prs/child" not in failure.traceback
    assert called == ["bad"] * calls
    assert capfd.readouterr().err.count("load('bad') failed, and is called again") == calls - 1


@pytest.mark.parametrize(
    ("items", "error", "code"),
    [
        (["bad", "worse bad"], BROKEN, ""),
        (["b", "bad"], ParallelRunException("me", "RestartProcess"), "RestartProcess"),
    ],
)
def test_a_mini_batch_fails_where_load_raises_for_all_of_it_or_asks_for_another_process(
    user: User, items: list[str], error: BaseException, code: str
) -> None:
    def load(item: str) -> str:
        if "bad" in item:
            raise error
        return item

    serve(user, load, list, work(0, 1, items, ["a"]))
    (failure,) = user.failures
    assert (failure.mini_batch, failure.kind, failure.code) == (0, FailureKind.EXCEPTION, code)
    assert not user.items_failed
    assert user.rows == (b"" if code else b"a\n")


def test_what_many_items_say_travels(user: User) -> None:
    def load(item: str) -> str:
        if item != "a":
            raise ValueError(item * 100_000)
        return item

    serve(user, load, list, work(0, 1, ["a", *(f"{number:05d}" for number in range(2000))]), loaders=4)
    assert len(user.items_failed) == 2000
    assert sum(len(body) for _, _, body in user.channel.answers) < 8_000_000


def test_what_was_loaded_is_freed_after_run(user: User) -> None:
    class Picture:
        pass

    alive: list[weakref.ref[Picture]] = []
    counts = []

    def load(_: str) -> Picture:
        picture = Picture()
        alive.append(weakref.ref(picture))
        return picture

    def run(mini_batch: list[Picture]) -> list[str]:
        if mini_batch is not None and len(counts) == 2:  # nothing but this mini-batch is left
            gc.collect()
            wait_until(lambda: sum(each() is not None for each in alive) == len(mini_batch))
        counts.append(len(mini_batch))
        return ["done"]

    serve(user, load, run, work(0, 1, ["a", "b"], ["c", "d"], ["e"]))
    assert counts == [2, 2, 1]
    wait_until(lambda: not any(each() for each in alive))


# Skipping, pausing


def test_what_is_not_to_be_run_here_is_discarded(user: User) -> None:
    def run(mini_batch: list[str]) -> list[str]:
        user.slot.skip_unstarted()
        return mini_batch

    serve(user, str.upper, run, work(0, 1, ["a"], ["b"], ["c"]), work(3, 1, ["d"]))
    assert [(kind, count) for kind, count, _ in user.channel.answers] == [
        (Kind.RESULTS, 1),
        (Kind.SKIPPED, 2),
        (Kind.SKIPPED, 1),
    ]
    assert user.host._loaders is not None
    assert not user.host._loaders._batches


def test_after_a_pause_run_gets_the_items_of_its_own_mini_batch(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(item: str) -> str:
        if item == "b":
            raise ParallelRunException("busy", "Sleep", 0)
        return item.upper()

    def receive() -> Frame | None:
        if len(user.channel.work) == 1:  # the worker sends the last one when the pause is over
            wait_until(lambda: Kind.READY in user.kinds)
        return user.channel.work.pop(0) if user.channel.work else None

    monkeypatch.setattr(user.channel, "receive", receive)
    clear = Frame(Kind.CLEAR, 0, memoryview(b""))
    serve(user, load, list, work(0, 1, ["a"], ["b"], ["c"]), work(3, 1, ["d"]), clear, work(2, 1, ["c"], ["d"]))
    assert user.rows == b"A\nC\nD\n"


def test_what_was_loaded_for_others_is_given_to_nobody() -> None:
    made = Loaders(str.upper, 1, 2, 1 << 20, 1, lambda *_: False, lambda _: None)
    made.expect(["a"])
    made.expect(["b"])
    made.discard(1)
    loaded = made.take(lambda _: None)
    with pytest.raises(RuntimeError, match="items of another mini-batch were loaded"):
        loaded.mini_batch(MiniBatch(["a"]))
    assert loaded.mini_batch(MiniBatch(["b"])) == ["B"]


# How far ahead


class Gate:
    """A ``load`` that notes what it has begun with, and waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.open = threading.Semaphore(0)

    def load(self, item: str) -> bytes:
        self.begun.append(item)
        assert self.open.acquire(timeout=30)
        return bytes(1000)


def loaders(gate: Gate, threads: int = 4, ahead: int = 2, memory: int = 1 << 30) -> Loaders:
    return Loaders(gate.load, threads, ahead, memory, 1, lambda *_: False, lambda _: None)


def test_no_more_than_some_mini_batches_are_loaded_ahead() -> None:
    gate = Gate()
    made = loaders(gate, threads=8)
    for items in (["a", "b"], ["c"], ["d"], ["e"]):
        made.expect(items)
    wait_until(lambda: gate.begun == ["a", "b", "c"])
    gate.open.release(4)  # the fourth is e's or d's
    made.take(lambda _: None)
    wait_until(lambda: gate.begun == ["a", "b", "c", "d"])


def test_what_waits_loaded_keeps_within_the_memory_but_for_what_run_waits_for() -> None:
    gate = Gate()
    size = size_of(bytes(1000))
    made = loaders(gate, threads=1, ahead=9, memory=2 * size)
    gate.open.release(100)
    for items in (["a"], ["b", "c", "d"], ["e"]):
        made.expect(items)
    wait_until(lambda: made._held == 2 * size and not made._running)
    assert gate.begun == ["a", "b"]
    made.take(lambda _: None)
    wait_until(lambda: made._held == 2 * size)
    assert len(made.take(lambda _: None).values) == 3
    wait_until(lambda: gate.begun == list("abcde"))


def test_who_waits_is_told_since_when_the_item_is_loaded_that_holds_it_up() -> None:
    gate = Gate()
    made = loaders(gate, threads=1)
    noted: list[float] = []
    made.expect(["a", "b", "c"])
    wait_until(lambda: gate.begun == ["a"])
    began = time.monotonic()
    waiting = threading.Thread(target=made.take, args=(noted.append,))
    waiting.start()
    for number in range(3):  # not since the first item was begun, nor since this thread waits
        wait_until(lambda: len(gate.begun) == number + 1 and noted and noted[-1] >= began)  # noqa: B023
        began = time.monotonic()
        gate.open.release()
    waiting.join(30)
    assert noted == sorted(noted)


@pytest.mark.parametrize(
    ("value", "least"),
    [
        (np.zeros(1000), 8000),
        (Image.new("RGB", (10, 10)), 300),
        (bytes(1000), 1000),
        ([np.zeros(1000)] * 3, 24000),
        ({"a": (np.zeros(1000), "x")}, 8000),
        ([["x" * 100] * 10] * 5000, 5_000_000),
        (None, 0),
    ],
)
def test_the_size_of_what_load_returned_is_about_what_it_takes(value: Any, least: int) -> None:
    assert least <= size_of(value) <= 1.7 * least + 500


# The script


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "has no function load(item), which `loaders`"), ("async def load(item): ...", "write `def load(item):`")],
)
def test_a_script_without_a_load_for_threads_is_told_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "loaders_script.py"
    path.write_text(f"def run(mini_batch): return mini_batch\n{text}\n")
    assert import_script(str(path)).load is None
    with pytest.raises(NoLoadFunction) as caught:
        import_script(str(path), loads=True)
    assert message in str(caught.value)


def examples() -> list[str]:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def load(" in block]


def test_the_examples_of_the_readme_load_pictures_and_sound(user: User, tmp_path: Path) -> None:
    class Model:
        def predict(self, pictures: Any) -> Any:
            assert pictures.shape == (2, 224, 224, 3)
            return pictures.mean(axis=(1, 2, 3)).round(2)

    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "c.wav")]
    for path, white in zip(paths, (255, 0), strict=False):
        Image.new("L", (30, 20), white).save(path)
    with wave.open(paths[2], "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\x40" * 100)
    pictures: dict[str, Any] = {"model": Model()}
    sounds: dict[str, Any] = {}
    for text, names in zip(examples(), (pictures, sounds), strict=True):
        exec(text, names)
    serve(user, pictures["load"], pictures["run"], work(0, 1, paths[:2]))
    serve(user, sounds["load"], sounds["run"], work(1, 1, paths[2:]))
    assert user.rows.decode().splitlines() == [f"{paths[0]} 1.0", f"{paths[1]} 0.0", f"{paths[2]} 0.5000"]


# The supervisor, with a real process

HANGING = """
import time

def load(item):
    if "hang" in item:
        time.sleep(1000)
    return item.upper()

def run(mini_batch):
    return list(mini_batch)
"""


def test_a_load_that_hangs_costs_its_own_mini_batch_a_try(supervised: Callable[..., Supervised]) -> None:
    one = supervised(HANGING, task_overhead_timeout=1.0, loaders=2, loaders_ahead=2, loaders_memory=1 << 20)
    one.send(0, "fine 0", "hang", "fine 2")
    one.wait(lambda: one.gone)
    assert one.rows == b"FINE 0\n"
    assert [(failure.mini_batch, failure.kind) for failure in one.failures] == [(1, FailureKind.OVERHEAD_TIMEOUT)]
    assert "load() of an item, or making the mini-batch" in one.failures[0].message
    assert one.unstarted == [(2, 1, 1)]


def test_while_it_waits_for_load_the_slot_shows_the_mini_batch(user: User) -> None:
    seen = []

    def load(item: str) -> str:
        wait_until(lambda: user.slot.read().phase == ProcessPhase.PREPARING)
        seen.append(user.slot.read()[:2])
        return item

    serve(user, load, list, work(7, 1, ["a"]), loaders=1)
    assert seen == [(ProcessPhase.PREPARING, 7)]

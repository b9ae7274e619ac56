"""Azure's preview protocol of streaming entry scripts: what is enqueued comes back to its mini-batch."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.child.enqueue import Enqueued
from mpi_prs.child.mini_batch import MiniBatchContext
from mpi_prs.child.script import NoRunFunction, complete, import_script
from tests.child.test_in_flight import user  # noqa: F401  # a fixture: an event loop of its own

SCRIPT = """
import threading

finished, threads = {}, []
most = 0

def enqueue(mini_batch, context):
    global most
    def work():
        finished[context.minibatch_index] = [f"{path} {context.retry_count}" for path in mini_batch]
    threads.append(threading.Timer(0.01, work))
    most = max(most, get_processing_batch_number() )
    threads[-1].start()

def get_processing_batch_number():
    return sum(thread.is_alive() for thread in threads)

def get_finished_batch_result():
    return {number: finished.pop(number) for number in list(finished)}

def check_all_tasks_processed():
    return not get_processing_batch_number()

def shutdown():
    assert check_all_tasks_processed()
    finished["shutdown"] = True
"""


@pytest.mark.usefixtures("user")
def test_a_streaming_script_is_run_as_an_async_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "streaming_script.py"
    path.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(path), "--model", "m", "--amlbi_async_mode", "True"])
    script = import_script(str(path), at_once=3)
    assert (script.is_async, script.takes_context) == (True, True)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(script.run([f"{n}.png"], MiniBatchContext(n, 1)) for n in range(10)))

    assert complete(all_of_them()) == [[f"{n}.png 1"] for n in range(10)]
    complete(script.shutdown())
    functions = script.run.__self__._enqueue.__globals__  # type: ignore[attr-defined]
    assert functions["most"] <= 3
    assert functions["finished"] == {"shutdown": True}


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a"], ["a"]),
        ({"result": ["a"]}, ["a"]),
        ({"result": ["a"], "exception": None}, ["a"]),
        (ValueError("no"), ValueError),
        ({"exception": "no"}, RuntimeError),
        ({"result": None, "exception": KeyError("no")}, KeyError),
    ],
)
@pytest.mark.parametrize("key", [7, "7"])
def test_a_result_is_rows_or_an_exception_or_a_dict_with_one_of_them(key: Any, given: Any, expected: Any) -> None:
    enqueued = Enqueued(lambda *_: None, lambda: {key: given, 9: "another's"}, None, None, lambda: None, 8)
    running = enqueued.run(["a"], MiniBatchContext(7, 0))
    if isinstance(expected, type):
        with pytest.raises(expected, match="no"):
            complete(running)
    else:
        assert complete(running) == expected


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("finished", "message"),
    [(lambda: [], "returned list, expected a dict"), (lambda: 1 / 0, "division by zero")],
)
def test_what_is_wrong_with_the_answers_fails_what_waits(finished: Any, message: str) -> None:
    enqueued = Enqueued(lambda *_: None, finished, None, None, lambda: None, 8)
    with pytest.raises(Exception, match=message):
        complete(enqueued.run(["a"], MiniBatchContext(7, 0)))


@pytest.mark.usefixtures("user")
def test_what_is_cancelled_waits_for_its_answer_which_no_other_try_gets() -> None:
    results: dict[int, list[str]] = {}
    enqueued = Enqueued(lambda *_: None, lambda: dict(results), None, None, lambda: None, 8)

    async def cancel() -> list[Any]:
        first = asyncio.ensure_future(enqueued.run(["a"], MiniBatchContext(7, 0)))
        await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.ensure_future(enqueued.run(["b"], MiniBatchContext(7, 1)))
        await asyncio.sleep(0.05)
        assert not first.done()
        results[7] = ["first"]
        await first
        results[7] = ["second"]
        return [await first, await second]

    assert complete(cancel()) == [["first"], ["second"]]


def test_a_script_without_the_functions_is_told_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "not_streaming_script.py"
    path.write_text("def run(batch): return batch\n")
    monkeypatch.setattr(sys, "argv", [str(path), "--amlbi_async_mode=True"])
    with pytest.raises(NoRunFunction, match=r"no enqueue\(\) and no get_finished_batch_result\(\), which --amlbi"):
        import_script(str(path))
    monkeypatch.setattr(sys, "argv", [str(path), "--amlbi_async_mode", "False"])
    assert not import_script(str(path)).is_async

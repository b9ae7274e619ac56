"""Real jobs that lose the item and not the mini-batch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.jobs import Job, Mpi, assert_every_row_once, wait_until

NewJob = Callable[..., Job]

SCRIPT = """
import ctypes, os, resource, signal, sys, time

BAD = {bad}

def poison():
    {poison}

def run(mini_batch, context):
    names = [os.path.basename(path) for path in mini_batch]
    with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as file:
        file.write(f"{{context.minibatch_index}} {{len(names)}} {{context.is_part}}\\n")
    if any(int(name[5:9]) in BAD for name in names):
        poison()
    return names
"""

POISONS = {
    "raises": ("raise ValueError('the picture is broken')", "exception", "ValueError: the picture is broken"),
    "segfaults": ("ctypes.string_at(0)", "crash", "SIGSEGV"),
    "exits": ("os._exit(3)", "crash", "exited with code 3"),
    "hangs": ("time.sleep(1000)", "timeout", "run_invocation_timeout"),
    "runs out of memory": ("raise MemoryError", "exception", "MemoryError"),
    "is killed by the kernel": ("os.kill(os.getpid(), signal.SIGKILL)", "crash", "SIGKILL"),
}
OUT_OF_MEMORY = ("runs out of memory", "is killed by the kernel")


def make(new_job: NewJob, poison: str, items: int, bad: set[int], **settings: Any) -> Job:
    script = SCRIPT.format(bad=bad, poison=POISONS[poison][0])
    given = {"bisect_on_failure": True, "run_max_try": 2, "run_invocation_timeout": 0.5, "output_order": "input"}
    return new_job(script, items=items, **{**given, **settings})


def failed_items(job: Job) -> dict[str, dict[str, Any]]:
    lines = job.directory.failed_items.read_text().splitlines()
    return {json.loads(line)["item"].rpartition("/")[2]: json.loads(line) for line in lines}


def check(job: Job, poison: str, bad: set[int], size: int, tries: int = 2) -> None:
    """The bad items have failed, each with its own reason; all other rows are there, in order; few calls were made."""
    names = [name for number, name in enumerate(job.names) if number not in bad]
    if names:
        assert job.rows() == names
    found = failed_items(job)
    assert sorted(found) == [job.names[number] for number in sorted(bad)]
    _, kind, message = POISONS[poison]
    for line in found.values():
        assert (line["reason"], message in line["message"]) == (kind, True)
    calls = [line.split() for line in (job.folder / "calls").read_text().splitlines()]
    for mini_batch in {number // size for number in bad}:
        of_it = min(size, len(job.names) - mini_batch * size)
        further = 2 * sum(number // size == mini_batch for number in bad) * math.ceil(math.log2(of_it)) + 1
        whole = 1 if poison in OUT_OF_MEMORY and of_it > 1 else tries
        made = [is_part for number, _, is_part in calls if int(number) == mini_batch]
        assert made.count("False") == whole
        assert made.count("True") <= further


def bad_items(items: int, bad: int) -> set[int]:
    """So many of them, spread over them all."""
    return {number * items // bad for number in range(bad)}


@pytest.mark.parametrize("poison", POISONS)
def test_one_bad_item_of_ten_costs_itself(new_job: NewJob, poison: str) -> None:
    job = make(new_job, poison, 25, {13}, mini_batch_size=10)
    done = job.local(processes=3)
    assert done.returncode == 0, done.stdout
    check(job, poison, {13}, 10)
    assert "24 ok, 1 failed" in done.stdout


@pytest.mark.parametrize(("size", "bad"), [(1, 1), (2, 1), (2, 2), (10, 3), (10, 10)])
def test_whatever_their_number_exactly_the_bad_items_fail(new_job: NewJob, size: int, bad: int) -> None:
    items = bad_items(size, bad)
    job = make(new_job, "raises", size + 1, items, mini_batch_size=size)
    done = job.local()
    assert done.returncode == 0, done.stdout
    check(job, "raises", items, size)


# Where processes die, each bad item costs some: a minute of CPU for a thousand, or under a second MPI the same again.
THOUSANDS = [
    (mpi, poison, bad)
    for mpi in ("mpich", "openmpi")
    for poison in POISONS
    for bad in (1, 3, 1000)
    if (poison, bad) != ("hangs", 1000)  # two thousand timeouts
    and (poison == "raises" or (mpi == "mpich" and bad < 1000) or os.environ.get("MPI_PRS_TEST_LONG"))
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "poison", "bad"), THOUSANDS)
def test_a_thousand_items(request: pytest.FixtureRequest, new_job: NewJob, name: str, poison: str, bad: int) -> None:
    mpi: Mpi = request.getfixturevalue(name)
    items = bad_items(1000, bad)
    job = make(new_job, poison, 1001, items, mini_batch_size=1000)
    done = job.under(mpi, timeout=3000)
    assert done.returncode == 0, done.stdout
    check(job, poison, items, 1000)


def test_killed_in_the_middle_it_goes_on_with_what_is_left(new_job: NewJob) -> None:
    job = make(new_job, "raises", 33, {5, 20}, mini_batch_size=32)
    script = job.folder / "script.py"
    script.write_text(script.read_text().replace("    return names", "    time.sleep(0.1)\n    return names"))
    calls = job.folder / "calls"
    process = job.start_local(processes=1)
    wait_until(lambda: calls.exists() and calls.read_text().count("True") >= 8)
    job.kill_all()
    job.finish(process)
    before = calls.read_text().count("True")
    assert not job.output.exists()
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    assert job.rows() == [name for number, name in enumerate(job.names) if number not in (5, 20)]
    assert sorted(failed_items(job)) == [job.names[5], job.names[20]]
    told = [line.split() for line in calls.read_text().splitlines()]
    assert told.count(["0", "32", "False"]) == 2  # its tries, none of them in the second start
    assert before < len([each for each in told if each[2] == "True"]) <= 2 * 2 * 5 + 1  # one was cut off


def test_what_failed_alone_is_tried_again_alone(new_job: NewJob, mpich: Mpi) -> None:
    bad = {0, 3, 9, 10, 11}
    job = make(new_job, "raises", 12, bad, mini_batch_size=10)
    done = job.under(mpich, "--set", "allowed_failed_count=5")
    assert done.returncode == 0, done.stdout
    check(job, "raises", bad, 10)
    for line in failed_items(job).values():
        assert 'script.py", line' in line["traceback"]
    (job.folder / "calls").unlink()
    script = job.folder / "script.py"
    script.write_text(script.read_text().replace(f"BAD = {bad}", "BAD = {3}"))
    done = job.under(mpich, "--only-failed")
    assert done.returncode == 0, done.stdout
    assert job.rows() == [name for number, name in enumerate(job.names) if number != 3]
    assert list(failed_items(job)) == [job.names[3]]
    calls = [line.split() for line in (job.folder / "calls").read_text().splitlines()]
    assert {tuple(call) for call in calls} == {("0", "1", "True"), ("1", "1", "True")}


ITEMS_FAIL = """
import gc, json, os

HOST = next(each for each in gc.get_objects() if type(each).__name__ == "Host")
attempt_at = HOST._attempt

def attempt(script, number, attempt, items, payload):
    attempt_at(script, number, attempt, 2 if number == 1 else items, payload)

HOST._attempt = attempt

def run(mini_batch, context):
    if context.minibatch_index == 1 and not context.is_part:
        failures = [
            {"kind": "load", "message": f"OSError: no {item}", "traceback": "File x", "mini_batch": 1, "attempt": 1,
             "item": item, "items": 4}
            for item in (0, 2)
        ]
        HOST._channel.send(12, 2, json.dumps(failures).encode())
        mini_batch = mini_batch[1::2]
    return [os.path.basename(path) for path in mini_batch]
"""
"""Answers as a user process does when items fail before run()."""


def test_an_answer_may_name_items_that_have_failed(new_job: NewJob) -> None:
    job = new_job(ITEMS_FAIL, items=8, mini_batch_size=4, output_order="input")
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert job.rows() == [name for number, name in enumerate(job.names) if number not in (4, 6)]
    found = failed_items(job)
    messages = {job.names[4]: "OSError: no 0", job.names[6]: "OSError: no 2"}
    assert {name: line["message"] for name, line in found.items()} == messages
    assert "6 ok, 2 failed" in done.stdout
    assert "OSError: no 2" in job.log("error", 0) + job.log("error", 1)
    done = job.local("--only-failed")
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert job.rows()[4:8] == [job.names[number] for number in (5, 7, 4, 6)]  # behind the others of its mini-batch


OF_TABLES = """
import os

def run(table, context):
    with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as file:
        file.write(f"{context.minibatch_index} {len(table)} {context.is_part}\\n")
    if (table.number == 13).any():
        raise ValueError("an unlucky number")
    return [str(number) for number in table.number]
"""


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_of_a_table_the_rows_are_lost_that_fail_or_cannot_be_read(new_job: NewJob, suffix: str) -> None:
    pandas = pytest.importorskip("pandas")
    job = new_job(
        OF_TABLES,
        inputs=[{"table": f"numbers.{suffix}", **({} if suffix == "parquet" else {"column_types": {"number": "int"}})}],
        mini_batch_size="1MB",
        bisect_on_failure=True,
        run_max_try=1,
        output_order="input",
    )
    path = job.folder / f"numbers.{suffix}"
    lines = [str(number) for number in range(40)]
    if suffix == "parquet":
        pandas.DataFrame({"number": range(40)}).to_parquet(path)
    else:
        lines[7] = lines[30] = "many" if suffix == "csv" else '"many"'
        rows = ["number", *lines] if suffix == "csv" else [f'{{"number": {number}}}' for number in lines]
        path.write_text("\n".join(rows) + "\n")
    done = job.local()
    assert done.returncode == 0, done.stdout
    bad = {13} if suffix == "parquet" else {7, 13, 30}
    assert job.rows() == [str(number) for number in range(40) if number not in bad]
    assert f"{40 - len(bad)} ok, {len(bad)} failed" in done.stdout
    found = {line["item"]: line for line in map(json.loads, job.directory.failed_items.read_text().splitlines())}
    (unlucky,) = (item for item, line in found.items() if "an unlucky number" in line["message"])
    first = {"csv": "row 13 of those from byte 7 on", "jsonl": "row 13 of those from byte 0 on", "parquet": "row 14"}
    assert unlucky == f"{path}, {first[suffix]}"
    header = suffix == "csv"
    places = [f"{path}, line {number + 1 + header}" for number in sorted(bad - {13})]
    assert sorted(set(found) - {unlucky}) == sorted(places)
    assert all("many" in found[place]["message"] for place in places)
    calls = (job.folder / "calls").read_text()
    assert calls.count("True") <= 2 * 6 + 1
    (job.folder / "script.py").write_text(OF_TABLES.replace("== 13", "== 1300"))
    done = job.local("--only-failed")
    assert done.returncode == 0, done.stdout
    assert job.rows() == [str(number) for number in range(40) if number not in bad - {13}]
    assert job.directory.failed_items.read_text().count("\n") == len(bad) - 1

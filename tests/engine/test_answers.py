"""What a script may have forged is told from what its process answers; whatever it is, looking at it fails nobody."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.engine.worker.answers import is_answer
from mpi_prs.wire.channel import Frame, Kind
from mpi_prs.wire.failure import Failure, FailureKind, pack_failures
from mpi_prs.wire.record import RECORD
from mpi_prs.wire.work import Chunk, State
from tests.support.processes import process_settings

OUTSTANDING = [Chunk(7, 2, 1), Chunk(4, 1, 3)]
SETTINGS = process_settings(row_form={"header": True}, spill="/spill", process=5)


def record(number: int, attempt: int = 1, length: int = 0, run: float = 0.5, started: float = 1.7e9) -> bytes:
    return RECORD.pack(number, 3, 3, attempt, 5, length, started, run, 0.0)


def failed(kind: FailureKind = FailureKind.EXCEPTION, number: int = 7, attempt: int = 1, **changes: object) -> bytes:
    return replace(Failure(kind, "no", mini_batch=number, attempt=attempt), **changes).to_json()


def items_failed(*changes: dict[str, int]) -> bytes:
    fields = {"mini_batch": 7, "attempt": 1, "item": 0, "items": 3}
    return pack_failures(Failure(FailureKind.LOAD, "no", **{**fields, **each}) for each in changes)


def holds(
    kind: int, count: int, body: bytes, *, state: State = State.READY, skips: bool = False, in_order: bool = True
) -> bool:
    return is_answer(Frame(kind, count, memoryview(body)), state, OUTSTANDING, skips, SETTINGS, in_order)


@pytest.mark.parametrize(
    ("kind", "count", "body", "state", "skips"),
    [
        (Kind.RESULTS, 1, record(7, length=3) + b"abc", State.READY, False),
        (Kind.RESULTS, 3, record(7) + record(8, length=1) + record(4, 3) + b"a", State.READY, False),
        (Kind.FAILED, 1, failed(), State.READY, False),
        (Kind.ITEMS_FAILED, 2, items_failed({"item": 0}, {"item": 2}), State.READY, False),
        (Kind.ITEMS_FAILED, 1, items_failed({"mini_batch": 4, "attempt": 3}), State.READY, False),
        (Kind.FAILED, 1, failed(FailureKind.WRONG_TYPE, code="Sleep", pause=3.5), State.READY, False),
        (Kind.INIT_FAILED, 0, failed(FailureKind.INIT, -1, 0), State.STARTING, False),
        (Kind.SKIPPED, 3, b"", State.READY, True),
        (Kind.HEADER, 0, b"a b\n", State.READY, False),
        (Kind.READY, 0, b"", State.STARTING, False),
    ],
)
def test_answers_to_what_is_outstanding_hold(kind: Kind, count: int, body: bytes, state: State, skips: bool) -> None:
    assert holds(kind, count, body, state=state, skips=skips)


@pytest.mark.parametrize(
    ("kind", "count", "body"),
    [
        (Kind.RESULTS, 0, b""),
        (Kind.RESULTS, 1, b"12345"),
        (Kind.RESULTS, 1, record(8)),  # not its turn
        (Kind.RESULTS, 1, record(7, attempt=2)),
        (Kind.RESULTS, 2, record(7) + record(7)),
        (Kind.RESULTS, 4, record(7) + record(8) + record(4, 3) + record(5)),
        (Kind.RESULTS, 1, record(7, length=2) + b"abc"),  # whose is the third byte?
        (Kind.RESULTS, 1, record(7, length=1 << 40) + b"abc"),
        (Kind.RESULTS, 1, record(7, run=math.nan)),
        (Kind.RESULTS, 1, record(7, run=math.inf)),
        (Kind.RESULTS, 1, record(7, started=-1.0)),
        (Kind.SPILLED, 1, record(7, length=9) + b"/etc/passwd"),
        (Kind.SPILLED, 1, record(7, length=9) + b"/spill/n1-5-1-1.rows\0"),
        (Kind.SPILLED, 1, record(7, length=9)),
        (Kind.FAILED, 1, b"12345"),
        (Kind.FAILED, 1, b"{}"),
        (Kind.FAILED, 1, b"[" * 100_000),
        (Kind.FAILED, 1, failed(number=8)),
        (Kind.FAILED, 1, failed(attempt=2)),
        (Kind.FAILED, 2, failed()),
        (Kind.FAILED, 1, failed(FailureKind.OUTPUT_FULL)),  # that would end the job
        (Kind.FAILED, 1, failed(code="Sleep", pause=math.nan)),
        (Kind.FAILED, 1, failed(code="Sleep", pause=-1.0)),
        (Kind.FAILED, 1, failed(message=["no text"])),
        (Kind.ITEMS_FAILED, 0, b"[]"),
        (Kind.ITEMS_FAILED, 1, b"[7]"),
        (Kind.ITEMS_FAILED, 1, items_failed({}, {})),
        (Kind.ITEMS_FAILED, 2, items_failed({"item": 1}, {"item": 1})),
        (Kind.ITEMS_FAILED, 1, items_failed({"item": 3})),
        (Kind.ITEMS_FAILED, 1, items_failed({"item": -1})),
        (Kind.ITEMS_FAILED, 1, items_failed({"mini_batch": 9})),
        (Kind.ITEMS_FAILED, 1, items_failed({"attempt": 2})),
        (Kind.ITEMS_FAILED, 2, items_failed({"item": 0}, {"item": 1, "mini_batch": 8})),
        (Kind.INIT_FAILED, 0, failed(FailureKind.INIT)),  # it has had its init()
        (Kind.SKIPPED, 1, b""),  # nobody has asked it to
        (Kind.WORK, 1, b""),
        (77, 0, b""),
    ],
)
def test_what_is_forged_does_not_hold(kind: int, count: int, body: bytes) -> None:
    assert not holds(kind, count, body)


@pytest.mark.parametrize(
    ("kind", "count", "body", "expected"),
    [
        (Kind.RESULTS, 2, record(8, length=1) + record(7) + b"a", True),
        (Kind.RESULTS, 1, record(4, 3), True),
        (Kind.RESULTS, 2, record(7) + record(7), False),
        (Kind.RESULTS, 1, record(4, 1), False),
        (Kind.FAILED, 1, failed(number=8), True),
        (Kind.FAILED, 1, failed(FailureKind.TIMEOUT, number=8), True),
        (Kind.FAILED, 1, failed(number=9), False),
        (Kind.FAILED, 1, failed(FailureKind.CRASH), False),
    ],
)
def test_where_several_run_at_once_answers_come_in_any_order(
    kind: Kind, count: int, body: bytes, expected: bool
) -> None:
    assert holds(kind, count, body, in_order=False) is expected


def test_rows_of_a_file_are_those_of_a_whole_file_of_this_process(tmp_path: Path) -> None:
    settings = replace(SETTINGS, spill=str(tmp_path))
    own, other = tmp_path / "n1-5-1-1.rows", tmp_path / "n1-6-1-1.rows"
    for path in (own, other):
        path.write_bytes(b"a" * 9)
    link = tmp_path / "n1-5-1-2.rows"
    link.symlink_to("/etc/passwd")
    for path, length, expected in ((own, 9, True), (own, 8, False), (other, 9, False), (link, 11, False)):
        frame = Frame(Kind.SPILLED, 1, memoryview(record(7, length=length) + str(path).encode()))
        assert is_answer(frame, State.READY, OUTSTANDING, False, settings) is expected


@given(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=200), st.sampled_from(State))
def test_whatever_it_is_it_is_looked_at_without_an_error(kind: int, count: int, body: bytes, state: State) -> None:
    assert holds(kind, count, body, state=state, skips=True) in (True, False)

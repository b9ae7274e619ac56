"""The end of the time that a job is allowed."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.engine.master.walltime import TimeLimit
from mpi_prs.wire.record import RECORD


def record(seconds: float) -> bytes:
    return RECORD.pack(0, 1, 1, 1, 0, 0, 0.0, seconds, 0.0)


def test_without_a_warning_there_is_no_end() -> None:
    limit = TimeLimit(lead=120, stop_grace=30)
    limit.learn(record(1000))
    assert not limit.is_due(1e9)
    assert limit.left(1e9) == limit.left_for_shutdown(1e9) == math.inf


def test_the_first_warning_counts() -> None:
    limit = TimeLimit(lead=120, stop_grace=30)
    assert limit.begin(100)
    left = limit.left(100)
    assert not limit.begin(150)
    assert limit.left(150) == left - 50


def test_nothing_is_started_that_would_probably_be_cut_off() -> None:
    limit = TimeLimit(lead=120, stop_grace=30)
    for _ in range(100):
        limit.learn(record(20))
    limit.begin(0)
    last_start = 120 - 35 - 20  # 35: shutdown() and the last writes
    assert not limit.is_due(last_start - 1)
    assert limit.is_due(last_start)


def test_one_long_mini_batch_in_a_hundred_does_not_end_the_job_early() -> None:
    limit = TimeLimit(lead=120, stop_grace=30)
    for number in range(100):
        limit.learn(record(60 if number == 50 else 1))
    assert limit.long_run() < 2


def test_of_the_records_of_a_message_one_is_enough() -> None:
    limit = TimeLimit(lead=120, stop_grace=30)
    limit.learn(record(1) + record(2))
    assert limit.long_run() == 2


def test_while_nothing_is_known_the_job_goes_on_until_the_last_moment() -> None:
    limit = TimeLimit(lead=120, stop_grace=30)
    limit.begin(0)
    assert not limit.is_due(80)
    assert limit.is_due(90)


@given(lead=st.floats(0, 1e5), grace=st.floats(0, 1e5), now=st.floats(0, 1e5), runs=st.lists(st.floats(0, 1e4)))
def test_what_is_left_never_reaches_beyond_the_limit(lead: float, grace: float, now: float, runs: list[float]) -> None:
    limit = TimeLimit(lead, grace)
    for seconds in runs:
        limit.learn(record(seconds))
    limit.begin(0)
    assert 0 <= limit.left(now) <= max(0, lead - now)
    assert 0 <= limit.left_for_shutdown(now) <= max(0, lead - now)
    assert limit.left(0) >= lead / 2  # most of the lead is for work
    assert limit.is_due(lead)

"""Numbers as people like to read them, and files that are replaced as a whole."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.core import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (4.2e-5, "42 µs"),
        (0.9996e-3, "1 ms"),
        (0.00123, "1.2 ms"),
        (0.123, "123 ms"),
        (0.9996, "1 s"),
        (7.49, "7.5 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_duration_has_the_unit_that_fits(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@given(st.floats(0, 1e9))
def test_no_duration_reads_as_sixty_seconds_or_a_thousand_milliseconds(seconds: float) -> None:
    words = units.duration(seconds).split()
    numbers = dict(zip(words[1::2], map(float, words[::2] if len(words) <= 4 else []), strict=False))
    limits = {"µs": 1000, "ms": 1000, "s": 60, "min": 60, "h": 24}
    assert all(number < limits[unit] for unit, number in numbers.items() if unit in limits)


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(12400, "12 400 items/s"), (812.3, "812 items/s"), (1.25, "1.2 items/s"), (0.5, "30 items/min"), (0, "0 items/h")],
)
def test_a_rate_has_the_span_of_time_that_fits(per_second: float, text: str) -> None:
    assert units.rate(per_second) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1 byte"), (999, "999 bytes"), (1234, "1.2 kB"), (999_600, "1 MB"), (5 * 10**18, "5 000 PB")],
)
def test_a_size_has_the_unit_that_fits(number: int, text: str) -> None:
    assert units.size(number) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "mini-batch", "1 mini-batch"), (4000, "mini-batch", "4 000 mini-batches"), (2, "process", "2 processes")],
)
def test_nouns_have_their_plural(number: int, noun: str, text: str) -> None:
    assert units.many(number, noun) == text


def test_a_hundred_percent_means_all() -> None:
    assert [units.percent(part, 1000) for part in (0, 999, 1000)] == [0, 99, 100]
    assert units.percent(0, 0) == 100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é", "plain é"),
        ("two\nlines\x1b[0m", "two\\nlines\\x1b[0m"),
        (os.fsdecode(b"caf\xe9.png"), "caf\\xe9.png"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_any_text_can_be_shown(text: str, shown: str) -> None:
    assert units.printable(text) == shown
    units.printable(text).encode()


def test_what_is_to_be_kept_is_not_escaped() -> None:
    assert units.printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"

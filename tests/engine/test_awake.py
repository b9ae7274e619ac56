"""What a rank slept through counts for nothing, and what another process noted meanwhile is put into its time."""

from __future__ import annotations

import pytest

from mpi_prs.engine.awake import LONGEST, AwakeClock


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_gap_between_two_looks_counts_as_the_longest_there_is() -> None:
    clock = Clock()
    awake = AwakeClock(clock)
    readings = []
    for step in (0.1, 30.0, 0.2, 3600.0, LONGEST):
        clock.now += step
        readings.append(awake())
    expected = [100.1, 100.1 + LONGEST, 100.3 + LONGEST, 100.3 + 2 * LONGEST, 100.3 + 3 * LONGEST]
    assert readings == pytest.approx(expected)
    assert awake.lost == pytest.approx(3630 - 2 * LONGEST)


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (95.0, 95.0),  # before there was a clock
        (100.0, 100.0),
        (100.0 + LONGEST / 2, 100.0 + LONGEST / 2),
        (100.0 + LONGEST, 100.0 + LONGEST),
        (115.0, 100.0 + LONGEST),  # in the gap nothing passes
        (130.0, 100.0 + LONGEST),
        (130.1, 100.1 + LONGEST),
        (150.0, 100.1 + 2 * LONGEST),  # in the second gap
        (160.0, 100.1 + 2 * LONGEST),
        (165.0, 105.1 + 2 * LONGEST),  # that is to come
    ],
)
def test_what_it_showed_at_a_moment(moment: float, shown: float) -> None:
    clock = Clock()
    awake = AwakeClock(clock)
    for now in (130.0, 130.1, 160.0):
        clock.now = now
        awake()
    assert awake.at(moment) == pytest.approx(shown)

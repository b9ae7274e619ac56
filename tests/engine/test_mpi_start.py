"""What MPI is told before it starts, and what is waited for before it is ended."""

from __future__ import annotations

import os

import pytest

from mpi_prs.core.environ import START_TIMEOUT
from mpi_prs.core.errors import LaunchError
from mpi_prs.engine.mpi import wait_until_read


def test_the_start_may_take_ten_minutes_or_what_the_variable_says() -> None:
    assert START_TIMEOUT.of({}) is START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": ""}) is None
    assert START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": "2.5"}) == 2.5
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        with pytest.raises(LaunchError, match=r"MPI_PRS_START_TIMEOUT, .*: got .*; expected a .*number of seconds"):
            START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": wrong})


def test_before_an_abort_the_launcher_has_read_what_was_printed() -> None:
    reader, writer = os.pipe()
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        if looks == 3:
            os.read(reader, 100)
        return looks

    os.write(writer, b"the summary")
    wait_until_read([writer], deadline=100, clock=clock)
    assert looks == 3
    os.write(writer, b"nobody reads this")
    wait_until_read([writer], deadline=5, clock=clock)
    assert looks == 5
    os.close(reader)
    os.close(writer)

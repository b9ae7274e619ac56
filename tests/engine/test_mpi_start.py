"""What MPI is told before it starts."""

from __future__ import annotations

import pytest

from mpi_prs.core.environ import START_TIMEOUT
from mpi_prs.core.errors import LaunchError


def test_the_start_may_take_ten_minutes_or_what_the_variable_says() -> None:
    assert START_TIMEOUT.of({}) is START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": ""}) is None
    assert START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": "2.5"}) == 2.5
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        with pytest.raises(LaunchError, match=r"MPI_PRS_START_TIMEOUT, .*: got .*; expected a .*number of seconds"):
            START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": wrong})

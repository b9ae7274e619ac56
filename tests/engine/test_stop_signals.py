"""What the stop signals ask for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from mpi_prs.core.errors import JobStopped
from mpi_prs.engine.master.master import StopRequest
from mpi_prs.engine.stop_signals import StopSignals
from tests.support.jobs import REPOSITORY


def after(*numbers: signal.Signals, knows_the_limit: bool = False) -> StopSignals:
    with StopSignals(knows_the_limit=knows_the_limit) as signals:
        signals.hold_back()
        for number in numbers:
            os.kill(os.getpid(), number)
    return signals


@pytest.mark.parametrize(
    ("numbers", "knows_the_limit", "request_"),
    [
        ((), True, StopRequest.NONE),
        ((signal.SIGTERM,), True, StopRequest.DRAIN),
        ((signal.SIGINT,), False, StopRequest.DRAIN),
        ((signal.SIGINT, signal.SIGINT), False, StopRequest.NOW),
        ((signal.SIGUSR2,), True, StopRequest.CLOSE),
        ((signal.SIGUSR2, signal.SIGUSR2), True, StopRequest.CLOSE),
        ((signal.SIGUSR2, signal.SIGTERM), True, StopRequest.DRAIN),
        ((signal.SIGTERM, signal.SIGUSR2), True, StopRequest.DRAIN),
        ((signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM), True, StopRequest.NOW),
        ((signal.SIGUSR2,), False, StopRequest.DRAIN),
        ((signal.SIGUSR2, signal.SIGTERM), False, StopRequest.NOW),
    ],
)
def test_signals_ask_for(numbers: tuple[signal.Signals, ...], knows_the_limit: bool, request_: StopRequest) -> None:
    assert after(*numbers, knows_the_limit=knows_the_limit)() is request_


def test_only_ctrl_c_is_by_hand() -> None:
    assert after(signal.SIGTERM, signal.SIGINT).by_hand
    assert not after(signal.SIGTERM, signal.SIGUSR2).by_hand


def test_before_anybody_looks_a_signal_ends_what_is_under_way_and_a_second_does_not_disturb_that() -> None:
    with StopSignals() as signals:
        signals.raise_them()
        with pytest.raises(JobStopped, match="SIGTERM before the first mini-batch"):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert len(signals.received) == 2


def test_the_handlers_of_before_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]
    after(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)] == before


EARLY = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # as at the very beginning: threads of libraries inherit it
from mpi_prs.core.errors import JobStopped
from mpi_prs.engine.stop_signals import StopSignals
os.kill(os.getpid(), signal.SIGUSR2)
with StopSignals() as signals:
    try:
        signals.raise_them()
    except JobStopped as error:
        print(error)
"""


def test_a_signal_that_came_before_there_was_a_handler_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", EARLY], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "stopped by SIGUSR2 before the first mini-batch" in done.stdout


def test_the_warning_of_a_time_limit_is_not_raised_for_much_may_fit_still() -> None:
    with StopSignals(knows_the_limit=True) as signals:
        signals.raise_them()
        os.kill(os.getpid(), signal.SIGUSR2)
    assert signals() is StopRequest.CLOSE

"""What MPI is told before it starts, and what is waited for before it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from mpi_prs.core.environ import START_TIMEOUT
from mpi_prs.core.errors import LaunchError
from mpi_prs.engine.mpi import MpiTransport, library_name, strange_launcher, wait_until_read
from tests.support.jobs import REPOSITORY, wait_until


def test_the_start_may_take_ten_minutes_or_what_the_variable_says() -> None:
    assert START_TIMEOUT.of({}) is START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": ""}) is None
    assert START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": "2.5"}) == 2.5
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        with pytest.raises(LaunchError, match=r"MPI_PRS_START_TIMEOUT, .*: got .*; expected a .*number of seconds"):
            START_TIMEOUT.of({"MPI_PRS_START_TIMEOUT": wrong})


@pytest.mark.parametrize(
    ("configure", "name"),
    [
        ("--with-device=ch4:ucx", "MPICH Version: 5.0.2"),
        ("--with-pmix=/usr", "MPICH Version: 5.0.2 built with PMIx"),
        ("--with-pmi=pmix", "MPICH Version: 5.0.2 built with PMIx"),
    ],
)
def test_an_mpich_that_takes_a_pmix_launcher_says_so_in_how_it_was_built(configure: str, name: str) -> None:
    class Library:
        def Get_library_version(self) -> str:
            return f"MPICH Version:      5.0.2\nMPICH configure: {configure}\n\0"

    assert library_name(Library()) == name
    note = strange_launcher(name, {"PMIX_RANK": "0"})
    assert bool(note) == ("pmix" not in configure)


class WithoutMaster:
    """An MPI as mpi4py shows it, whose rank 0 has died."""

    class Exception(Exception):
        pass

    BYTE = ANY_SOURCE = ANY_TAG = 0
    Status = Mock

    def __init__(self) -> None:
        self.COMM_WORLD = Mock(
            **{"Get_rank.return_value": 1, "Get_size.return_value": 3, "Isend.side_effect": self.Exception}
        )
        self.COMM_WORLD.Improbe.return_value = None
        self.Finalize = Mock()


def test_a_worker_whose_master_has_died_does_not_wait_for_it_in_finalize() -> None:
    mpi = WithoutMaster()
    transport = MpiTransport(mpi)
    transport.send(0, 1)
    assert transport.lost() == [0]
    transport.close(75)
    mpi.COMM_WORLD.Abort.assert_called_once_with(75)


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


STARTING = """
import os, subprocess, sys, time
from mpi_prs.engine import mpi

class Hanging:
    THREAD_FUNNELED = 0

    def Get_library_version(self):
        return "MPICH"

    def Init_thread(self, level):
        print(os.getpid(), flush=True)
        time.sleep(1000)

mpi.load_mpi = Hanging
mpi.connect()
"""


@pytest.mark.job
def test_a_rank_whose_launcher_dies_while_mpi_starts_ends(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(STARTING)
    launcher = subprocess.Popen(
        ["sh", "-c", '"$0" rank.py; true', sys.executable],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )
    assert launcher.stdout is not None
    with launcher, launcher.stdout as said:
        rank = int(said.readline())
        launcher.kill()
    try:
        wait_until(lambda: not Path(f"/proc/{rank}").exists())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank, signal.SIGKILL)

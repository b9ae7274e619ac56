"""The lock of a run: one master at a time, and none that is dead keeps others out."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from mpi_prs.core.errors import OutputError
from mpi_prs.job.run.run_lock import RunLock

HOLD = """
import sys
from pathlib import Path
from mpi_prs.job.run.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "out" / "_run").mkdir(parents=True)
    return tmp_path / "out" / "_run" / "lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that holds the lock; a line lets it release it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def refusal(path: Path) -> str:
    with pytest.raises(OutputError) as caught:
        RunLock(path)
    return str(caught.value)


def test_a_second_one_is_refused_and_told_who_has_it(path: Path, holder: subprocess.Popen[str]) -> None:
    assert re.fullmatch(
        rf"another run is at work on {path.parent.parent} \(process {holder.pid} on {socket.gethostname()}, since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\)\. Wait until it ends, or stop it, or choose another folder with --output",
        refusal(path),
    )
    refusal(path)  # being refused has not taken it away


def test_it_is_free_once_released(path: Path, holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"

    RunLock(path).release()


def test_it_is_free_once_its_holder_is_killed(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    RunLock(path).release()


@pytest.mark.parametrize("words", ["", "{", "{}", "7", "null", '"pid"', "\xff" * 9000])
def test_words_that_cannot_be_read_do_not_hide_that_it_is_held(
    path: Path, holder: subprocess.Popen[str], words: str
) -> None:
    path.write_text(words, encoding="latin-1")

    assert refusal(path).startswith(f"another run is at work on {path.parent.parent}. Wait until it ends")
    assert holder.poll() is None


def test_what_it_says_of_its_holder_is_of_the_present_one(path: Path) -> None:
    path.write_text("x" * 1000)
    lock = RunLock(path)
    try:
        assert f'"pid": {os.getpid()}' in path.read_text()
        assert "x" not in path.read_text()
    finally:
        lock.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_on_a_filesystem_without_locks_the_run_goes_on(path: Path, number: int) -> None:
    with mock.patch.object(fcntl, "lockf", side_effect=OSError(number, os.strerror(number))):
        RunLock(path).release()


def test_another_error_is_not_swallowed(path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    failing = mock.patch.object(fcntl, "lockf", side_effect=OSError(errno.EIO, "broken"))
    with failing, pytest.raises(OSError, match="broken"):
        RunLock(path)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_full_disk_costs_the_words_and_not_the_lock(path: Path) -> None:
    with mock.patch.object(os, "pwrite", side_effect=OSError(errno.ENOSPC, "full")):
        RunLock(path).release()


def test_a_lock_of_another_user_is_refused(path: Path) -> None:
    with (
        mock.patch.object(os, "open", side_effect=PermissionError(errno.EACCES, "Permission denied")),
        pytest.raises(OutputError, match=r"_run/lock: Permission denied\. The run belongs to somebody else"),
    ):
        RunLock(path)


def test_a_restarted_job_waits_for_the_lock_of_its_earlier_start(
    path: Path, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert holder.stdin is not None

    def let_go(_seconds: float) -> None:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "released\n"

    with mock.patch("time.sleep", let_go), caplog.at_level("WARNING"):
        RunLock(path, patience=60).release()
    assert f"process {holder.pid}" in caplog.text and "at most 60 s" in caplog.text

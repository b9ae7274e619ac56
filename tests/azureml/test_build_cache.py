"""What is built once: by one at a time, and never half."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpi_prs.azureml.environments.build_cache import built, outside, run_builder
from mpi_prs.core.errors import EnvironmentProblem
from tests.support.jobs import REPOSITORY, wait_until
from tests.support.together import together


def ignore(_: object) -> None:
    """Nobody listens."""


def make(target: Path, _: Path) -> None:
    (target / "made").write_text("whole")


def check(target: Path) -> None:
    if not (target / "made").exists():
        raise EnvironmentProblem("it has nothing in it")


def folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def test_it_is_built_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = built(tmp_path / "x", "the thing", said.append, make, check)
    assert (first / "made").read_text() == "whole" and first.parent == tmp_path / "x"
    assert said == [f"building the thing in {tmp_path / 'x'}", "the thing is ready, after 0 s; later jobs use it again"]
    assert built(tmp_path / "x", "the thing", said.append, lambda *_: pytest.fail("built again"), check) == first
    assert len(said) == 2
    assert first.stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_fails_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    def fail(target: Path, log: Path) -> None:
        make(target, log)
        log.write_text("what was said")
        raise EnvironmentProblem("no")

    def interrupt(_: Path, __: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(EnvironmentProblem, match="no"):
        built(tmp_path / "x", "the thing", ignore, fail, check)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "x", "the thing", ignore, interrupt, check)
    with pytest.raises(EnvironmentProblem, match="nothing in it"):
        built(tmp_path / "x", "the thing", ignore, ignore_both, check)
    assert sorted(os.listdir(tmp_path / "x")) == ["lock"]  # the log is of the last one
    assert built(tmp_path / "x", "the thing", ignore, make, check).is_dir()


def ignore_both(_: Path, __: Path) -> None:
    """Build nothing."""


def test_what_has_gone_bad_is_built_anew(tmp_path: Path) -> None:
    first = built(tmp_path / "x", "the thing", ignore, make, check)
    (first / "made").unlink()
    said: list[str] = []
    second = built(tmp_path / "x", "the thing", said.append, make, check)
    assert second != first and folders(tmp_path / "x") == sorted([first.name, second.name])  # a job may be in there
    assert built(tmp_path / "x", "the thing", ignore, make, check) == second
    assert said[0] == f"{first} can no longer be used, and is built anew: it has nothing in it"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"the thing cannot be built in .*/file/x: Not a directory"):
        built(tmp_path / "file" / "x", "the thing", ignore, make, check)


# Several at once

COUNTING = """
import sys
from pathlib import Path
from mpi_prs.azureml.environments.build_cache import built
folder, number = Path(sys.argv[1]), sys.argv[2]

def make(target, log):
    with open(folder / "builders", "a") as file:
        file.write(number)
    (target / "made").write_text("whole")

print(built(folder / "x", "the thing", print, make, lambda target: (target / "made").read_text()).name)
"""


def test_of_many_processes_one_builds(tmp_path: Path) -> None:
    said = together(4, COUNTING, tmp_path)
    assert len((tmp_path / "builders").read_text()) == 1
    assert len({text.splitlines()[-1] for text in said}) == 1
    assert sum("building the thing in" in text for text in said) == 1
    assert folders(tmp_path / "x") == [said[0].splitlines()[-1]]


HOLDING = """
import sys
from pathlib import Path
from mpi_prs.azureml.environments.build_cache import built
folder = Path(sys.argv[1])

def make(target, log):
    (target / "made").write_text("half")
    print("at work", flush=True)
    sys.stdin.readline()
    (target / "made").write_text("whole")

say = lambda text: print(text, flush=True)
print(built(folder, "the thing", say, make, lambda target: (target / "made").read_text()).name, flush=True)
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that builds, and goes on when it is given a line."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDING, str(tmp_path / "x")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "USER": "ada"},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_who_waits_is_told_for_whom(tmp_path: Path, start: Start) -> None:
    builder = start()
    assert line_of(builder).startswith("building the thing") and line_of(builder) == "at work"
    waiting = start()
    said = line_of(waiting)
    assert said.startswith(f"the thing is being built by ada, process {builder.pid} on {os.uname().nodename}, since 20")
    assert said.endswith(": waiting for it")
    builder.communicate("go on\n", timeout=30)
    name = line_of(waiting)
    assert folders(tmp_path / "x") == [name] and (tmp_path / "x" / name / "made").read_text() == "whole"


def test_a_builder_that_is_killed_leaves_nothing_that_looks_finished(tmp_path: Path, start: Start) -> None:
    builder = start()
    assert line_of(builder).startswith("building") and line_of(builder) == "at work"
    waiting = start()
    assert "being built by ada" in line_of(waiting)
    half = folders(tmp_path / "x")
    builder.send_signal(signal.SIGKILL)
    assert line_of(waiting).startswith("building the thing")  # the kernel has taken the lock back
    assert line_of(waiting) == "at work"
    (now,) = folders(tmp_path / "x")
    assert [now] != half
    output, _ = waiting.communicate("go on\n", timeout=30)
    assert output.splitlines()[-1] == now
    assert built(tmp_path / "x", "the thing", ignore, make, check).name == now


def test_threads_take_turns_too(tmp_path: Path) -> None:
    built_by: list[str] = []
    found: list[Path] = []
    said: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(target: Path, log: Path) -> None:
        built_by.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(30)
        make(target, log)

    def work() -> None:
        found.append(built(tmp_path / "x", "the thing", said.append, slow, check))

    threads = [threading.Thread(target=work, name=str(number)) for number in range(3)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: sum("another thread of this process" in text for text in said) == 2)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert built_by == ["0"] and len(found) == 3 and len(set(found)) == 1


def test_without_locks_two_may_build_and_both_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    other = tmp_path / "x" / "of-another-builder"
    other.mkdir(parents=True)
    first = built(tmp_path / "x", "the thing", ignore, make, check)
    assert folders(tmp_path / "x") == sorted([first.name, other.name])  # that one may be at work in there
    assert json.loads((tmp_path / "x" / "ready.json").read_text())["folder"] == first.name


def test_a_lock_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "lockf", broken)
    with pytest.raises(EnvironmentProblem, match="Input/output error"):
        built(tmp_path / "x", "the thing", ignore, make, check)


# Programs


def shell(tmp_path: Path, text: str, say: Callable[[str], None] = ignore) -> str:
    """Run a shell as a builder; what is in its log."""
    log = tmp_path / "build.log"
    telling = {"step": "a step", "": ""}
    try:
        run_builder(
            ["/bin/sh", "-c", text], "pip", log, say, environ=os.environ, telling=lambda line: telling.get(line, "")
        )
    finally:
        kept = log.read_text()
    return kept


def test_what_a_program_says_is_kept_and_its_steps_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    kept = shell(
        tmp_path, "echo step; echo 'https://ada:hunter2@example.org/simple' >&2; printf '\\377\\n'", said.append
    )
    assert said == ["a step"]
    assert kept == "step\nhttps://…@example.org/simple\n\ufffd\n"


def test_modules_in_this_folder_are_none_of_a_builders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "venv.py").write_text("raise SystemExit('this is not the module')\n")
    (tmp_path / "built").mkdir()
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "venv", "--help"]
    run_builder(command, "python -m venv", tmp_path / "built" / "log", lambda _: None, environ=os.environ)


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        shell(tmp_path, "for i in $(seq 30); do echo line $i; done; echo; exit 3")
    lines = str(caught.value).splitlines()
    assert lines[0] == "pip failed (exit code 3):"
    assert lines[1:-1] == [f"    line {number}" for number in range(19, 31)]
    assert lines[-1] == f"All that it said: {tmp_path / 'build.log'}"
    with pytest.raises(EnvironmentProblem, match="killed by signal 9"):
        shell(tmp_path, "kill -9 $$")
    with pytest.raises(EnvironmentProblem, match="/no/program cannot be started: No such file"):
        run_builder(["/no/program"], "pip", tmp_path / "log", ignore, environ=os.environ)


def test_a_program_is_killed_when_we_are_stopped(tmp_path: Path) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shell(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/pid; echo step; wait", stop)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text())


def test_the_builders_environment_names_no_packages_of_ours() -> None:
    environ = {"PYTHONPATH": "/ours", "PIP_USER": "1", "PIP_INDEX_URL": "https://example.org", "HOME": "/home/ada"}
    assert outside(environ) == {
        "PIP_INDEX_URL": "https://example.org",
        "HOME": "/home/ada",
        "PYTHONNOUSERSITE": "1",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }

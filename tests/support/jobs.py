"""Real jobs for the tests: a script, some files, a config; run in one process tree or under a real mpirun.

Every process of a job carries a mark in its environment, so that a test can ask what is left of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.output.ledger import Ledger, read_ledger

REPOSITORY = Path(__file__).parents[2]
MARK = "MPI_PRS_TEST_MARK"


@dataclass(frozen=True)
class Mpi:
    """One MPI: its name, and the command line of ``mpirun`` up to the number of ranks."""

    name: str
    python: Path
    mpirun: tuple[str, ...]

    def command(self, ranks: int, *launcher: str) -> list[str]:
        """``mpirun … -n ranks python -m mpi_prs``."""
        return [*self.mpirun, *launcher, "-n", str(ranks), str(self.python), "-m", "mpi_prs"]


def parent_of(pid: int) -> int:
    """0: it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def pids_of(command: str) -> list[int]:
    """Processes with exactly this command line, whoever has started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().split(b"\0")[:-1] == command.encode().split():
                found.append(int(path.parent.name))
    return found


@dataclass
class Job:
    """A job in a folder of its own: ``in/`` has the files, ``out/`` gets the output."""

    folder: Path
    names: list[str]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.folder / "out")

    @property
    def output(self) -> Path:
        return self.directory.output_file("parallel_run_step.txt")

    def rows(self) -> list[str]:
        """The lines of the finished output."""
        return self.output.read_bytes().decode("utf-8", "surrogateescape").splitlines()

    def ledger(self) -> Ledger:
        """What the journal says."""
        return read_ledger(self.directory.journal, None)

    def log(self, stream: str, process: int = 0) -> str:
        """A user process's log, whatever the node is called."""
        found = sorted(self.directory.logs.glob(f"user/{stream}/*/process{process:03d}.{stream}.txt"))
        return found[0].read_text(errors="replace") if found else ""

    # Running

    def local(self, *arguments: str, processes: int = 2, **options: Any) -> subprocess.CompletedProcess[str]:
        """``python -m mpi_prs run job.yaml --local N``, to its end."""
        return self.finish(self.start_local(*arguments, processes=processes), **options)

    def start_local(self, *arguments: str, processes: int = 2) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "mpi_prs", "run", str(self.config), "--local", str(processes)]
        return self.start([*command, *arguments])

    def under(self, mpi: Mpi, *arguments: str, ranks: int = 3, **options: Any) -> subprocess.CompletedProcess[str]:
        """``mpirun -n ranks python -m mpi_prs run job.yaml``, to its end."""
        return self.finish(self.start_under(mpi, *arguments, ranks=ranks), **options)

    def start_under(
        self, mpi: Mpi, *arguments: str, ranks: int = 3, launcher: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        return self.start([*mpi.command(ranks, *launcher), "run", str(self.config), *arguments])

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), MARK: self.mark, **self.environment}
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for the end; a job that hangs is killed, and the test fails with what it had said."""
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill_all()
            output, _ = process.communicate()
            raise AssertionError(f"the job did not end within {timeout} s; it said:\n{output}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, "")

    # Looking at its processes

    def processes(self) -> dict[int, str]:
        """Every living process of this job: pid → command line."""
        mark = f"{MARK}={self.mark}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                        if state != "Z":
                            words = (entry / "cmdline").read_bytes().split(b"\0")
                            found[int(entry.name)] = b" ".join(words).decode(errors="replace").strip()
        return found

    def pids(self, containing: str) -> list[int]:
        """Living processes whose command line has this text."""
        return [pid for pid, command in self.processes().items() if containing in command]

    def user_processes(self) -> list[int]:
        """Those in which the script runs; each has a parent that looks like it."""
        found = set(self.pids("child/host.py"))
        return [pid for pid in found if parent_of(pid) in found]

    def kill_all(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def assert_nothing_left(self, within: float = 15) -> None:
        """No process of the job lives any more; the last ones get a moment to end."""
        wait_until(lambda: not self.processes(), within, lambda: f"processes are left: {self.processes()}")


def wait_until(
    condition: Callable[[], object], within: float = 30, say: Callable[[], str] = lambda: "", pause: float = 0.01
) -> None:
    """Wait for a condition, and fail when it does not come; a larger ``pause`` where a look costs a process."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come to pass within {within} s: {say()}")
        time.sleep(pause)


def done_so_far(job: Job) -> int:
    """Mini-batches on record."""
    return len(job.ledger().done) if job.directory.journal.exists() else 0


def wait_for_progress(job: Job, process: subprocess.Popen[str], beyond: int, within: float = 30) -> None:
    """Until more than so many mini-batches are on record, or the job has ended: reads a journal when it has grown."""
    read = -1

    def is_beyond() -> bool:
        nonlocal read
        size = job.directory.journal.stat().st_size if job.directory.journal.exists() else 0
        grown, read = size != read, size
        return grown and done_so_far(job) > beyond

    wait_until(lambda: process.poll() is not None or is_beyond(), within, lambda: str(done_so_far(job)))


def master_pid(job: Job) -> int:
    """The rank that holds the run's lock."""
    fields: dict[str, int] = json.loads(job.directory.lock.read_text())
    return fields["pid"]


def worker_pids(job: Job) -> list[int]:
    """The ranks that are not the master; not the launcher, whose command line names the ranks' program as well."""
    ranks = [pid for pid, command in job.processes().items() if command.split()[1:3] == ["-m", "mpi_prs"]]
    return sorted(set(ranks) - {master_pid(job)})


def make_job(folder: Path, script: str, items: int = 40, **settings: Any) -> Job:
    """A job over ``items`` small files, ``item-0000.txt`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = folder / "in"
    inputs.mkdir()
    names = [f"item-{number:04d}.txt" for number in range(items)]
    for number, name in enumerate(names):
        (inputs / name).write_text(str(number))
    (folder / "script.py").write_text(script)
    config = {
        "name": "test-job",
        "entry_script": "script.py",
        "inputs": [{"files": "in"}],
        "output": "out",
        "mini_batch_size": 4,
        "error_threshold": -1,
        **settings,
    }
    job = Job(folder, names)
    job.config.write_text(yaml.safe_dump(config))
    return job


def assert_every_row_once(job: Job, expected: list[str] | None = None) -> None:
    """Exactly the expected rows (default: the name of each file), each once."""
    counted = Counter(job.rows())
    wanted = Counter(job.names if expected is None else expected)
    assert counted == wanted, f"too many: {counted - wanted}; missing: {wanted - counted}"


def need(what: str) -> NoReturn:
    """Something that this machine lacks: skip here, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing in CI: {what}")
    pytest.skip(f"needs {what}")


@contextlib.contextmanager
def nothing_left_of(job: Job) -> Iterator[Job]:
    """At the end no process of the job lives."""
    try:
        yield job
        job.assert_nothing_left()
    finally:
        job.kill_all()


NAMES_SCRIPT = """
import os

def run(mini_batch):
    return [os.path.basename(path) for path in mini_batch]
"""

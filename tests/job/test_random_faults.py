"""Whatever of a job is killed or stopped, and whenever: every row is in the output once, and nothing is left.

A long run, and another one than the last::

    MPI_PRS_TEST_KILL_ROUNDS=1000 MPI_PRS_TEST_KILL_SEED=2 pytest -s tests/job/test_random_faults.py
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support.azurite import Azurite
from tests.support.jobs import (
    REPOSITORY,
    Job,
    Mpi,
    done_so_far,
    master_pid,
    parent_of,
    pids_of,
    wait_for_progress,
)

NewJob = Callable[..., Job]

ROUNDS = int(os.environ.get("MPI_PRS_TEST_KILL_ROUNDS", "40"))
SEED = int(os.environ.get("MPI_PRS_TEST_KILL_SEED", "20261121"))

MINI_BATCHES = 90
PROCESSES = 2
ENDS_WITHIN = 120.0
"""Seconds. Whatever a job waits for in its end is bounded below that, on a machine that has other things to do, too."""

SCRIPT = """
import os, subprocess, time
import pandas as pd

FACTS, FORM = os.environ["FACTS"], os.environ["FORM"]

def init():
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    subprocess.Popen(["sleep", os.environ["DAEMON"]], start_new_session=True, env={})
    with open(FACTS + "/inits", "a") as file:
        file.write("init\\n")

def run(mini_batch, context):
    time.sleep(0.008)
    names = [os.path.basename(path) for path in mini_batch]
    if FORM == "fails at first" and names[0].endswith("7.txt") and os.path.exists(FACTS + "/broken"):
        raise ValueError("broken")
    if FORM == "files":
        tried = context.retry_count or not names[0].endswith("5.txt")
        for name in names:
            with open(os.path.join(context.output_dir, name if tried else "failed"), "w") as file:
                file.write(name)
                file.flush()
                file.write(" is whole")
        if not tried:
            raise ValueError("tried in vain")
    if FORM == "frame":
        return pd.DataFrame({"name": names, "number": [int(open(path).read()) for path in mini_batch]})
    return [name + (" " * 5_000_000 if name.endswith("33.txt") else "") for name in names]  # passes as a file
"""

DIES = """
import os, signal, sys

if sys.orig_argv[1:3] == ["-m", "mpi_prs"] and "DIES_AT" in os.environ:
    from mpi_prs.output.append_row import AppendRow

    complete, left = AppendRow.complete, None

    def counted(self, *arguments, **options):
        global left
        left = int(os.environ["DIES_AT"])
        complete(self, *arguments, **options)

    def count(event, arguments):
        global left
        if left is not None and (event == "open" or event.startswith(("os.", "shutil.", "socket.", "tempfile."))):
            left -= 1
            if left < 0:
                left = None  # the kill is an event, too
                os.kill(os.getpid(), signal.SIGKILL)

    AppendRow.complete = counted
    sys.addaudithook(count)
"""
"""A ``sitecustomize.py``: the master dies at a step of the end, counted from the completion of the output on."""


@dataclass(frozen=True)
class Kind:
    """What a job makes, and how that is read: name of the form in the script, output file, other settings."""

    form: str
    output: str
    settings: dict[str, Any]


KINDS = {
    "text": Kind("text", "rows.txt", {}),
    "in the input's order": Kind("text", "rows.txt", {"output_order": "input"}),
    "CSV with a header": Kind("frame", "rows.csv", {}),
    "JSON lines": Kind("frame", "rows.jsonl", {"output_order": "input"}),
    "Parquet": Kind("frame", "rows.parquet", {}),
    "HDF5": Kind("frame", "rows.h5", {"output_order": "input"}),
    "some fail at first": Kind("fails at first", "rows.txt", {}),
    "files of the script": Kind("files", "rows.txt", {}),
    "uploaded": Kind("text", "rows.txt", {}),
}

ROLES = ("launcher", "proxy", "master", "worker", "guard", "parent", "user process", "child of the script")
HARMLESS = {"guard", "parent", "user process", "child of the script"}
"""The job goes on without them."""


@dataclass(frozen=True)
class Fault:
    """One round, drawn in advance."""

    launcher: str
    moment: str
    delay: float
    beyond: int
    stopped: tuple[str, ...]
    killed: tuple[str, ...]
    pause: float

    @classmethod
    def drawn(cls, chance: random.Random) -> Fault:
        """Any."""
        stopped, killed = chance.choice(
            [(0, 1), (0, 1), (0, 2), (0, 2), (1, 0), (1, 0), (2, 0), (1, 1)],
        )
        moment = chance.choice(["start", "work", "work", "end", "step of the end"])
        return cls(
            chance.choice(["local", "local", "mpich", "mpich", "openmpi", "ulfm"]),
            moment,
            chance.uniform(0, 1.5) if moment == "start" else chance.uniform(0, 0.3),
            chance.randrange(MINI_BATCHES),
            tuple(chance.sample(ROLES, stopped)),
            tuple(chance.choices(ROLES, k=killed)),
            chance.choice([0.1, 0.5, 2.0]),
        )


class Campaign:
    """Jobs, and what is done to them."""

    def __init__(self, chance: random.Random, mpis: dict[str, Mpi], new_job: NewJob, store: Azurite) -> None:
        self._chance = chance
        self._mpis = mpis
        self._new_job = new_job
        self._store = store
        self.done: Counter[str] = Counter()

    def rounds(self, kind: Kind, name: str) -> Iterator[str]:
        """Faults until the job is complete; yields what is wrong, or nothing, after each."""
        job = self._prepared(kind, name)
        reopened = False
        before = 0
        for number in itertools.count():
            fault = Fault.drawn(self._chance) if number < 12 else None
            arguments = ("--only-failed",) if reopened else ()
            wrong = self._round(job, kind, fault, arguments)
            now = done_so_far(job)
            if not wrong and now < before:
                wrong = f"{before} mini-batches were on record, now {now}"
            before = now
            if not wrong and self._is_complete(job, kind, nothing_failed=reopened):
                wrong = self._judge(job, kind, without_broken=not reopened)
                if not wrong and kind.form == "fails at first" and not reopened:
                    (_own(job) / "facts" / "broken").unlink()
                    reopened = True
                    yield ""
                    continue
                yield wrong and f"{name}, {fault}: {wrong}"
                return
            if not wrong and fault is None:
                wrong = "not complete without a fault"
            yield wrong and f"{name}, {fault}: {wrong}"
            if wrong:
                return

    def _prepared(self, kind: Kind, name: str) -> Job:
        settings = dict(kind.settings)
        container = f"faults-{os.urandom(6).hex()}"
        if name == "uploaded":
            self._store.container(container)
            settings["output_url"] = f"abfs://{container}/out"
        job = self._new_job(
            SCRIPT, MINI_BATCHES, mini_batch_size=1, append_row_file_name=kind.output, run_max_try=6, **settings
        )
        own = _own(job)
        for folder in ("facts", "scratch", "dies"):
            (own / folder).mkdir(parents=True)
        (own / "facts" / "broken").touch()
        (own / "dies" / "sitecustomize.py").write_text(DIES)
        job.environment.update(
            FACTS=str(own / "facts"),
            FORM=kind.form,
            TMPDIR=str(own / "scratch"),
            AZURE_STORAGE_CONNECTION_STRING=self._store.connection_string(),
            DAEMON=f"1000.{int(job.mark, 16)}",
            MPI_PRS_START_TIMEOUT="45",
            CONTAINER=container if name == "uploaded" else "",
        )
        return job

    def _round(self, job: Job, kind: Kind, fault: Fault | None, arguments: tuple[str, ...]) -> str:
        """Start the job, do it harm, wait for its end; returns what is wrong."""
        had_work = done_so_far(job) < MINI_BATCHES
        scratch, inits = _own(job) / "scratch", _own(job) / "facts" / "inits"
        old = set(scratch.glob("mpi_prs-worker*"))
        for left in old:
            os.utime(left, (0, 0))  # old enough for the next start that has workers
        inits.write_text("")
        stepwise = fault is not None and fault.moment == "step of the end"
        job.environment["PYTHONPATH"] = f"{_own(job) / 'dies'}:{REPOSITORY}"
        job.environment.pop("DIES_AT", None)
        if stepwise:
            job.environment["DIES_AT"] = str(self._chance.randrange(70))
        launcher = "local" if fault is None else fault.launcher
        process = self._started(job, launcher, arguments)
        hit: list[str] = []
        if fault is not None and not stepwise:
            hit = self._harm(job, process, fault)
        began = time.monotonic()
        try:
            said, _ = process.communicate(timeout=ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            still = job.processes()
            job.kill_all()
            said, _ = process.communicate()
            return f"did not end after {hit}: {still}\n{said}"
        took = time.monotonic() - began
        self.done[f"{launcher}, {'nothing' if not hit else ' and '.join(hit)}"] += 1
        if took > 30:
            print(f"  {took:.0f} s to the end of {job.folder.name} after {fault} {hit}")
        try:
            job.assert_nothing_left()
        except AssertionError as error:
            job.kill_all()
            return f"after {hit}: {error}\n{said}"
        if daemons := pids_of(f"sleep {job.environment['DAEMON']}"):
            for pid in daemons:
                os.kill(pid, signal.SIGKILL)
            if "killed parent" not in hit:
                return f"after {hit}: daemons are left: {daemons}\n{said}"
        killed = {role.partition(" ")[2] for role in hit if role.startswith("killed")}
        folders = set(scratch.glob("mpi_prs*")) - (set() if had_work else old)
        if "guard" not in killed and folders:
            return f"after {hit}: {folders} are left\n{said}"
        if "Traceback" in said and "KeyboardInterrupt" not in said and not killed - HARMLESS:
            return f"after {hit}: a traceback:\n{said}"
        harmless = HARMLESS | {"worker"} if launcher == "ulfm" else HARMLESS
        if not stepwise and killed <= harmless and "complete" not in said:
            return f"after {hit}: it was to go on:\n{said}"
        expected = PROCESSES if launcher == "local" else 3 if launcher == "ulfm" else 2
        if not killed and not stepwise and kind.form != "fails at first" and inits.read_text().count("init") > expected:
            return f"after {hit}: {inits.read_text().count('init')} times init() in {expected} processes\n{said}"
        return ""

    def _started(self, job: Job, launcher: str, arguments: tuple[str, ...]) -> subprocess.Popen[str]:
        if launcher == "local":
            return job.start_local(*arguments, processes=PROCESSES)
        if launcher == "ulfm":
            return job.start_under(self._mpis["openmpi"], *arguments, ranks=4, launcher=("--with-ft", "ulfm"))
        return job.start_under(self._mpis[launcher], *arguments)

    def _harm(self, job: Job, process: subprocess.Popen[str], fault: Fault) -> list[str]:
        """Wait for the moment, then stop and kill; returns what was done."""
        if fault.moment != "start":
            goal = MINI_BATCHES if fault.moment == "end" else fault.beyond
            wait_for_progress(job, process, goal - 1, ENDS_WITHIN)
        time.sleep(fault.delay)
        if process.poll() is not None:
            return []
        found = _processes_by_role(job, process)
        hit, stopped = [], []
        for role in fault.stopped:
            for pid in found.get(role, [])[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
                    hit.append(f"stopped {role}")
        if stopped and fault.killed:
            time.sleep(0.05)
        for role in fault.killed:
            if pids := found.get(role):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids.pop(), signal.SIGKILL)
                    hit.append(f"killed {role}")
        if stopped:
            time.sleep(fault.pause)
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return hit

    def _is_complete(self, job: Job, kind: Kind, nothing_failed: bool) -> bool:
        if not done_so_far(job):
            return False
        ledger = job.ledger()
        is_there = job.directory.output_file(kind.output).exists()
        return ledger.complete and is_there and not (nothing_failed and ledger.failed)

    def _judge(self, job: Job, kind: Kind, without_broken: bool) -> str:
        """A complete run, given to the program once more: it has nothing to do, or cleans up; what is wrong?"""
        again = job.local()
        if again.returncode:
            return f"a complete run ends with {again.returncode}:\n{again.stdout}"
        broken = kind.form == "fails at first" and without_broken
        expected = [name for name in job.names if not (broken and name.endswith("7.txt"))]
        output = job.directory.output_file(kind.output)
        rows = [name.rstrip() for name in _rows(output)]
        if rows != expected if kind.settings else sorted(rows) != expected:
            return f"missing {Counter(expected) - Counter(rows)}, too many {Counter(rows) - Counter(expected)}"
        if kind.form == "files":
            written = {path.name: path.read_text() for path in job.directory.script_files.glob("*/*/*")}
            if written != {name: f"{name} is whole" for name in expected}:
                return f"files of the script: {written}"
            if (count := len(list(job.directory.script_files.glob("*/*")))) != MINI_BATCHES:
                return f"files of the script in {count} folders"
        container = job.environment["CONTAINER"]
        if container and self._store.read(container, f"out/{kind.output}") != output.read_bytes():
            return "what is uploaded is not the output"
        left = [path for path in job.directory.output.iterdir() if path.name not in ("_run", kind.output)]
        left = [path for path in left if kind.form != "files" or path.name != "files"]
        left += list(job.directory.spill.glob("*"))
        return f"left: {left}" if left else ""


def _own(job: Job) -> Path:
    """What is ours of a job, apart from its source directory, which must stay as it is."""
    return job.folder.with_name(f"{job.folder.name}-own")


def _rows(path: Path) -> list[str]:
    if path.suffix == ".csv":
        return pd.read_csv(path)["name"].tolist()
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)["name"].tolist()
    if path.suffix == ".parquet":
        return pq.read_table(path)["name"].to_pylist()
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return [str(name) for name in file["name"].asstr()[:]]
    return path.read_text().splitlines()


def _processes_by_role(job: Job, process: subprocess.Popen[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"launcher": [process.pid]}
    commands = job.processes()
    hosts = {pid for pid, command in commands.items() if "child/host.py" in command}
    for pid, command in sorted(commands.items()):
        if pid == process.pid:
            continue
        if pid in hosts:
            role = "user process" if parent_of(pid) in hosts else "parent"
        elif "guard.py" in command:
            role = "guard"
        elif command.startswith("sleep"):
            role = "child of the script"
        elif command.split()[1:3] == ["-m", "mpi_prs"]:
            role = "worker"
        else:
            role = "proxy"
        found.setdefault(role, []).append(pid)
    with contextlib.suppress(OSError, ValueError):
        master = master_pid(job)
        if master in found.get("worker", []):
            found["worker"].remove(master)
            found["master"] = [master]
    return found


@pytest.mark.long
def test_every_row_once_whatever_is_killed_or_stopped(
    new_job: NewJob, mpich: Mpi, openmpi: Mpi, azurite: Azurite
) -> None:
    campaign = Campaign(random.Random(SEED), {"mpich": mpich, "openmpi": openmpi}, new_job, azurite)
    rounds, wrongs = 0, []
    for name in itertools.cycle(KINDS):
        if rounds >= ROUNDS:
            break
        for wrong in campaign.rounds(KINDS[name], name):
            rounds += 1
            if wrong:
                wrongs.append(f"round {rounds}: {wrong}")
                print(f"WRONG {wrongs[-1]}", flush=True)
        if rounds % 10 < 3:
            print(f"{rounds} rounds, {len(wrongs)} wrong", flush=True)
    print(*sorted(campaign.done.items()), sep="\n")
    assert not wrongs, "\n".join(wrongs)

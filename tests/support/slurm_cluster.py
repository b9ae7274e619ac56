"""A real Slurm cluster on this machine, for the tests and for people: munged, slurmctld and a slurmd for each node.

Several node names live on one host, each with a port of its own; ``sbatch``, ``srun``, ``scontrol`` and ``scancel`` are
the real ones and find the cluster by ``SLURM_CONF``. It runs as root or as a plain user, in a state folder of its own,
and nothing of it outlives the process that started it, not even when that is killed.

For people::

    python -m tests.support.slurm_cluster up       # starts it in the background, and prints what to export
    python -m tests.support.slurm_cluster shell    # a cluster for as long as this shell lives
    python -m tests.support.slurm_cluster status
    python -m tests.support.slurm_cluster down
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.support.jobs import REPOSITORY, need, wait_until

NODES = 4
CPUS = 4
GPUS = ("/dev/null", "/dev/zero")  # Slurm wants a device for each: these stand for the GPUs of every node
PROGRAMS = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    **dict.fromkeys(("sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo"), "slurm-client"),
}
GONE = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "OUT_OF_MEMORY")
_BACKGROUND = Path(tempfile.gettempdir(), f"prs-slurm-{os.getuid()}")

_SLURM_CONF = """\
ClusterName=prs
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
TmpFS={folder}/%n
SlurmdLogFile={folder}/%n.log
SlurmctldDebug=verbose
SlurmdDebug=info
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=pmi2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
TreeWidth=65533
SlurmctldTimeout=10
BatchStartTimeout=10
MessageTimeout=4
KillWait=5
MinJobAge=300
FirstJobId={first_job}
UnkillableStepTimeout=30
{nodes}
PartitionName=batch Nodes=ALL Default=YES DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes=ALL DefaultTime=60 PriorityTier=10 PreemptMode=OFF
"""


class SlurmCluster:
    """The daemons of a cluster in a state folder; ``start`` before use, ``stop`` at the end.

    Attributes:
        folder: the state folder, with slurm.conf, the logs and the sockets.
        nodes: the names of the nodes: n1, n2, …
        environment: what a program needs in its environment to find the cluster.
    """

    def __init__(self, folder: Path, nodes: int = NODES) -> None:
        self.folder = folder.resolve()
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    # Life

    def start(self) -> None:
        """Start all daemons, and wait until every node takes jobs."""
        self._write_files()
        self._daemon("munge", "munged", "--foreground", "--num-threads=2", *self._munge_paths())
        wait_for((self.folder / "munge.socket").exists, 15, self.logs)
        self.start_controller()
        self._start_slurmds(self.nodes)
        self.wait_idle()

    def stop(self) -> None:
        """Kill every process of the cluster and of its jobs, and remove the state folder."""
        for node in ("controller", *self.nodes, "munge"):
            self._kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # munged wants its socket to be in reach of everyone
        (self.folder / "state").mkdir()
        for node in (*self.nodes, "munge", "controller"):
            (self.folder / node).mkdir()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        controller_port, *ports = _free_ports(len(self.nodes) + 1)
        shape = f"CPUs={CPUS} Boards=1 SocketsPerBoard=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory=4000"
        lines = (
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} {shape} Gres=gpu:{len(GPUS)}"
            for node, port in zip(self.nodes, ports, strict=True)
        )
        text = _SLURM_CONF.format(
            controller_port=controller_port,
            first_job=controller_port * 1000,  # MPIs name things in /tmp by job: no two clusters share a number
            user=pwd.getpwuid(os.getuid()).pw_name,
            folder=self.folder,
            nodes="\n".join(lines),
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(f"Name=gpu File={','.join(GPUS)}\n")
        # slurmd looks for a cgroup of its own from 23.11 on, which a container has none of.
        cgroups = "CgroupPlugin=disabled" if version() >= (23, 11) else "CgroupAutomount=no"
        (self.folder / "cgroup.conf").write_text(f"{cgroups}\n")

    def _munge_paths(self) -> list[str]:
        return [
            f"--socket={self.folder}/munge.socket",
            f"--key-file={self.folder}/munge.key",
            f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munged.seed",
        ]

    def _daemon(self, node: str, program: str, *arguments: str) -> None:
        """Start a daemon in a session of its own, and in its node's folder, by which it is known."""
        environment = {"PATH": _path(), "HOME": str(Path.home()), "LANG": "C"}
        with open(self.folder / f"{program}.out", "ab") as said:
            daemon = subprocess.Popen(
                [_program(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**environment, **self.environment},
                cwd=self.folder / node,
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def processes_of(self, node: str) -> list[int]:
        """Every living process of a node: its daemons, those of its jobs, and their descendants.

        The daemons are known by the folder they run in (slurmstepd overwrites its environment with its title), those
        of the jobs by what slurmd puts into their environment.
        """
        conf = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        name = f"SLURMD_NODENAME={node}".encode()
        found = []
        for pid, process in _all_processes():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                of_job = {conf, name} <= set((process / "environ").read_bytes().split(b"\0"))
                if of_job or os.readlink(process / "cwd") == str(self.folder / node):
                    found.append(pid)
        return _with_descendants(found)

    def _kill(self, node: str) -> None:
        _kill_until_none(lambda: self.processes_of(node))
        self._daemons = [daemon for daemon in self._daemons if daemon.poll() is None]

    # Nodes and controller

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self._daemon("controller", "slurmctld", "-D")
        wait_for(lambda: " is UP" in self._ask("scontrol", "ping"), 20, self.logs)

    def stop_controller(self) -> None:
        """End slurmctld, which saves what it knows first: a crash forgets the jobs of the last seconds."""
        for pid in self.processes_of("controller"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.processes_of("controller"), 20, self.logs)

    def start_node(self, node: str) -> None:
        """Bring a node back into service: it has been switched on again."""
        self._start_slurmds([node])
        wait_for(lambda: self.node_state(node) in ("IDLE", "MIXED", "ALLOCATED"), 30, self.logs)

    def kill_node(self, node: str, noticed: bool = False) -> None:
        """Kill all that runs on a node, as a power failure would: slurmd, slurmstepds, and every process of theirs.

        Slurm needs some 20 seconds to notice, after its SlurmdTimeout.

        Args:
            node: its name.
            noticed: tell Slurm at once, as a site's health check may do.
        """
        self._kill(node)
        if noticed:
            self.scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=killed")

    def node_state(self, node: str) -> str:
        """IDLE, MIXED, ALLOCATED, DOWN, … without the flags after it."""
        return self.show("node", node).get("State", "UNKNOWN").split("+")[0].rstrip("*")

    def _start_slurmds(self, nodes: list[str]) -> None:
        for node in nodes:
            self._daemon(node, "slurmd", "-D", "-N", node)
        text = (self.folder / "slurm.conf").read_text()
        ports = {node: int(port) for node, port in re.findall(r"^NodeName=(\S+) .* Port=(\d+) ", text, re.MULTILINE)}
        wait_for(lambda: all(_listens(ports[node]) for node in nodes), 20, self.logs)

    # Jobs

    def sbatch(self, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> int:
        """Submit a job from a folder with more in the environment; returns its id."""
        done = subprocess.run(
            [_program("sbatch"), "--parsable", *map(str, arguments)],
            env=self.full_environment(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"sbatch said: {done.stdout}{done.stderr}"
        return int(done.stdout.strip().split(";")[0])

    def full_environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of somebody at a login node of this cluster, with the working tree to import from."""
        outside = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "PMI", "OMPI"))
        }
        return {**outside, "PYTHONPATH": str(REPOSITORY), **self.environment, **(env or {})}

    def show(self, kind: str, name: str | int) -> dict[str, str]:
        """The fields of ``scontrol show job`` or ``node``; empty when Slurm knows nothing of it."""
        words = self._ask("scontrol", "--oneliner", "show", kind, str(name)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job: int) -> str:
        """PENDING, RUNNING, COMPLETING, COMPLETED, …; UNKNOWN when Slurm has forgotten the job."""
        return self.show("job", job).get("JobState", "UNKNOWN")

    def wait(self, job: int, *states: str, within: float = 60) -> str:
        """Wait until a job is in one of these states; returns which one."""
        seen = ""

        def reached() -> bool:
            nonlocal seen
            seen = self.state(job)
            return seen in states

        wait_for(reached, within, lambda: f"job {job} is {seen}\n{self.logs()}")
        return seen

    def wait_end(self, job: int, within: float = 120) -> str:
        """Wait until a job has ended and will not run again; returns its state."""
        return self.wait(job, *GONE, within=within)

    def wait_gone(self, job: int, within: float = 60) -> None:
        """Wait until a job is in the queue no more: it has ended, and its nodes have cleaned up."""
        wait_for(lambda: str(job) not in self._queue(), within, lambda: f"job {job} stays\n{self.logs()}")

    def hurry(self, job: int) -> None:
        """Let a requeued job start at once, which Slurm holds back for two minutes; waits until it is queued again."""
        self.wait(job, "PENDING")
        self._ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def end_in(self, job: int, seconds: int) -> None:
        """Move the time limit of a running job nearer, whose unit is else a minute.

        Slurm looks at time limits every 30 seconds: it kills up to 30 seconds later than the limit, and sends the
        signal of ``--signal`` up to 30 seconds earlier than asked for, but along with the kill if it looks too late.
        """
        end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
        self.scontrol("update", f"JobId={job}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}")

    def scancel(self, *arguments: str | int) -> None:
        """``scancel`` with these arguments."""
        self._ask("scancel", *map(str, arguments))

    def scontrol(self, *arguments: str | int) -> str:
        """``scontrol`` with these arguments; returns what it printed."""
        return self._ask("scontrol", *map(str, arguments))

    def _queue(self) -> list[str]:
        return self._ask("squeue", "--noheader", "--format=%i").split()

    def _ask(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [_program(program), *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    # Between tests

    def wait_idle(self, within: float = 60) -> None:
        """Wait until every node is up and has nothing to do."""

        def idle() -> bool:
            states = self._ask("sinfo", "--noheader", "--partition=batch", "--Node", "--format=%T").split()
            return states == ["idle"] * len(self.nodes)

        wait_for(idle, within, lambda: self._ask("sinfo", "--Node", "--long") + self.logs())

    def reset(self) -> None:
        """A clean cluster: the controller up, no jobs, all nodes up and idle."""
        if " is UP" not in self._ask("scontrol", "ping"):
            self.start_controller()
        for job in self._queue():
            self.scancel("--full", job)
        down = [node for node in self.nodes if not self.processes_of(node)]
        self._start_slurmds(down)
        for node in self.nodes:
            if self.node_state(node) in ("DOWN", "DRAINED"):
                self.scontrol("update", f"NodeName={node}", "State=RESUME")
        wait_for(lambda: not self._queue(), 60, self.logs)
        self.wait_idle()

    def logs(self) -> str:
        """The last lines of every log of the cluster, and what the queue looks like."""
        parts = [self._ask("squeue"), self._ask("sinfo", "--Node", "--long")]
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("munged.out")]):  # munged tells no log
            lines = path.read_text(errors="replace").splitlines()
            parts.append("\n".join([f"== {path.name}", *lines[-20:]]))
        return "\n".join(parts)


# A look at a cluster costs a process.
wait_for = partial(wait_until, pause=0.05)


# Processes


def _all_processes() -> Iterator[tuple[int, Path]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name), entry


def _with_descendants(roots: Iterable[int]) -> list[int]:
    parents = {}
    for pid, process in _all_processes():
        with contextlib.suppress(OSError):
            state, parent = (process / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                parents[pid] = int(parent)
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def _kill_until_none(find: Callable[[], list[int]], within: float = 20) -> None:
    """Stop them all first, so that none can start another unseen; then kill them, children before parents.

    The kernel continues a stopped process whose parent dies; and what goes on of srun then takes its whole step down.
    """

    def signal_all(number: signal.Signals) -> set[int]:
        found = set(find())
        for pid in sorted(found, reverse=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return found

    stopped: set[int] = set()
    while more := signal_all(signal.SIGSTOP) - stopped:
        stopped |= more
    deadline = time.monotonic() + within
    while signal_all(signal.SIGKILL):
        if time.monotonic() > deadline:
            raise AssertionError(f"cannot be killed: {find()}")
        time.sleep(0.01)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as servers:
        opened = [servers.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in opened]


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def _program(name: str) -> str:
    """Where a program is; the daemons live where a plain user's PATH does not look."""
    return shutil.which(name, path=_path()) or name


def version() -> tuple[int, ...]:
    """Year and month of the Slurm that is installed here: (22, 5), (24, 11), …"""
    said = subprocess.run([_program("slurmctld"), "-V"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:2]))


def missing_packages() -> list[str]:
    """The Debian packages that a cluster lacks here."""
    return sorted({package for program, package in PROGRAMS.items() if shutil.which(program, path=_path()) is None})


def has_pmix() -> bool:
    """Whether ``srun --mpi=pmix`` works here: Debian's Slurm loads a name of PMIx that only libpmix-dev brings."""
    return any(Path("/usr/lib").glob("*/pmix2/lib/libpmix.so"))


# For the tests


@contextlib.contextmanager
def running_cluster(nodes: int = NODES) -> Iterator[SlurmCluster]:
    """A cluster for as long as the context lasts; another process ends it when this one is killed."""
    folder = Path(tempfile.mkdtemp(prefix="prs-slurm-", dir="/tmp"))  # short: a socket's path has 107 bytes at most
    cluster = SlurmCluster(folder, nodes)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.slurm_cluster", "guard", str(folder)],
        stdin=subprocess.PIPE,
        cwd=REPOSITORY,
        start_new_session=True,
    ):
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """The tests' Slurm cluster; take :func:`slurm`, which is clean for each test."""
    if missing := missing_packages():
        need(f"a Slurm, {' '.join(missing)}: make test installs them, where it may")
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, request: pytest.FixtureRequest) -> Iterator[SlurmCluster]:
    """A Slurm cluster with four idle nodes; its logs are shown when the test fails."""
    slurm_cluster.reset()
    failed = request.session.testsfailed
    yield slurm_cluster
    if request.session.testsfailed > failed:
        print(slurm_cluster.logs())
    slurm_cluster.reset()


# For people


def main(arguments: list[str] | None = None) -> int:
    """``up``, ``down``, ``shell`` and ``status``."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.slurm_cluster", description="A Slurm cluster on this machine"
    )
    parser.add_argument("action", choices=["up", "down", "shell", "status", "guard"])
    parser.add_argument("folder", nargs="?", type=Path, default=_BACKGROUND, help="its state folder")
    parser.add_argument("--nodes", type=int, default=NODES)
    options = parser.parse_args(arguments)
    cluster = SlurmCluster(options.folder, options.nodes)
    if missing := missing_packages():
        print(f"There is no Slurm here: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1
    if options.action == "guard":
        sys.stdin.buffer.read()  # ends when the process that has the other end is no more
        cluster.stop()
        return 0
    if options.action == "shell":
        with running_cluster(options.nodes) as cluster:
            return subprocess.run(
                [os.environ.get("SHELL", "/bin/bash")], env=cluster.full_environment(), check=False
            ).returncode
    if options.action == "up":
        cluster.start()
        print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}")
    elif options.action == "down":
        cluster.stop()
    else:
        print(cluster._ask("sinfo"), cluster._ask("squeue"), sep="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The orders and the questions that Slurm is given, by its own commands.

Each call is one command; nothing is asked twice, and what it costs the controller is one message. Nothing that decides
about rows rests on an answer from here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from mpi_prs.core.errors import SlurmError

_ASK_SECONDS = 30.0
_PING_SECONDS = 15.0
_SUBMIT_SECONDS = 120.0  # a busy controller may take long; a submission given up half-way may still arrive

_OVER = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    ]
)


def is_a_login_node() -> bool:
    """Whether Slurm's commands are here and know of a cluster; its controller may be down at the moment.

    Many a machine has the commands alone. A ping is one message, which Slurm answers or whose failure it tells.
    """
    if shutil.which("sbatch") is None or shutil.which("scontrol") is None:
        return False
    try:
        done = subprocess.run(["scontrol", "ping"], capture_output=True, timeout=_PING_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return True
    except OSError:
        return False
    return b"Slurmctld" in done.stdout


@dataclass(frozen=True)
class JobState:
    """What Slurm says about a job; the names are those of ``scontrol show job``.

    Attributes:
        state: Slurm's word, such as ``PENDING``, ``RUNNING``, ``COMPLETING``, ``CANCELLED``.
        reason: why it waits or ended, such as ``Resources``; empty where Slurm gives none.
        start_time: when it began, or is expected to, as Slurm writes it; empty where that is not known.
        is_batch: it was submitted by ``sbatch``, so that it can be requeued.
        requeue: Slurm may requeue it.
        restarts: how many times it has been requeued.
        exit_code: of the batch script as a shell tells it, 128 + n for signal n; 0 before it has ended.
        preempted: Slurm has told it to make room, and it is in its grace time.
    """

    state: str
    reason: str
    start_time: str
    is_batch: bool
    requeue: bool
    restarts: int
    exit_code: int
    preempted: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it has left the queue for good. A job that Slurm is still clearing away is not over: it may be
        on its way back into the queue."""
        return self.state in _OVER


@dataclass(frozen=True)
class PartitionNodes:
    """Nodes of a partition that are in one state.

    Attributes:
        partition: its name.
        is_default: jobs go there that name none.
        state: Slurm's word, such as ``idle``, ``mixed``, ``down*``.
        count: how many.
    """

    partition: str
    is_default: bool
    state: str
    count: int


def submit(script: str) -> str:
    """Hand in a batch script; returns the job's id.

    Raises:
        SlurmError: there is no Slurm here, it refuses the job (in its own words), or does not answer.
    """
    said = _order(["sbatch", "--parsable"], "the job has not been submitted", _SUBMIT_SECONDS, script)
    job_id = said.strip().splitlines()[-1].partition(";")[0] if said.strip() else ""
    if not job_id.isdecimal():
        raise SlurmError(f"sbatch gave no job id but said: {said.strip() or 'nothing'}; see `squeue --me`")
    return job_id


def mpi_types() -> tuple[str, ...] | None:
    """The ways in which ``srun`` starts MPI here, such as ``pmi2``; empty: no answer; ``None``: there is no srun."""
    if shutil.which("srun") is None:
        return None
    try:  # the list is on stdout or stderr, by version
        done = subprocess.run(
            ["srun", "--mpi=list"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    words = done.stdout.decode("utf-8", "replace").replace(",", " ").split()
    return tuple(word for word in words if word in ("none", "openmpi") or word.startswith(("pmi", "cray")))


def cancel(job_id: str) -> None:
    """Have the job ended, in the queue or at work. Raises SlurmError."""
    _order(["scancel", job_id], f"job {job_id} has not been cancelled")


def requeue(job_id: str) -> None:
    """Put the job back into the queue; where it is at work Slurm ends it, this process included. Raises SlurmError."""
    _order(["scontrol", "requeue", job_id], f"job {job_id} has not been requeued")


def job_state(job_id: str) -> JobState | None:
    """What Slurm says about the job; ``None`` when it does not know it (any more).

    Raises:
        SlurmError: there is no Slurm here, or it does not answer.
    """
    try:
        said = _order(["scontrol", "--oneliner", "show", "job", job_id], f"the state of job {job_id} is not known")
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return parse_job(said, job_id)


def parse_job(text: str, job_id: str) -> JobState | None:
    """The job in the output of ``scontrol --oneliner show job``, which shows all of an array."""
    line = next((line for line in text.splitlines() if line.startswith(f"JobId={job_id} ")), None)
    if line is None:
        return None
    # A job's name may hold anything; what Slurm itself says begins behind it.
    line = line.partition(" UserId=")[2]

    def value(key: str) -> str:
        found = re.search(rf"\s{key}=(\S*)", line)
        return found[1] if found and found[1] not in ("None", "Unknown", "(null)") else ""

    code, _, number = value("ExitCode").partition(":")
    number = number or "0"
    restarts = value("Restarts")
    return JobState(
        state=re.split(r"[,+]", value("JobState"))[0],
        reason=value("Reason"),
        start_time=value("StartTime"),
        is_batch=value("BatchFlag") not in ("", "0"),
        requeue=value("Requeue") == "1",
        restarts=int(restarts) if restarts.isdecimal() else 0,
        exit_code=128 + int(number) if number.isdecimal() and int(number) else int(code) if code.isdecimal() else 0,
        preempted=bool(value("PreemptTime")),
    )


def controller_version() -> tuple[int, ...]:
    """Year and month of the Slurm that the controller is of, such as (24, 11); empty where it does not say.

    Raises:
        SlurmError: there is no Slurm here, or it does not answer.
    """
    said = _order(["scontrol", "show", "config"], "the version of Slurm is not known")
    found = re.search(r"^SLURM_VERSION\s*=\s*(\d+)\.(\d+)", said, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else ()


def partition_nodes() -> list[PartitionNodes]:
    """The nodes of every partition that this user may see, by state.

    Raises:
        SlurmError: there is no Slurm here, or it does not answer.
    """
    return parse_nodes(_order(["sinfo", "--noheader", "--format=%P|%T|%D"], "the state of the nodes is not known"))


def parse_nodes(text: str) -> list[PartitionNodes]:
    """What ``sinfo --format=%P|%T|%D`` printed; a line that is not like that is left out."""
    found = []
    for line in text.splitlines():
        partition, state, count = [*(word.strip() for word in line.rsplit("|", 2)), "", ""][:3]
        if partition and state and count.isdecimal():
            found.append(PartitionNodes(partition.rstrip("*"), partition.endswith("*"), state, int(count)))
    return found


def _order(command: Sequence[str], otherwise: str, seconds: float = _ASK_SECONDS, stdin: str = "") -> str:
    """Run one of Slurm's commands; returns what it printed. ``otherwise`` says what a failure means."""
    try:
        done = subprocess.run(
            command,
            input=stdin.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise SlurmError(
            f"{otherwise}: there is no {command[0]} on this machine. Use a login node of the cluster, and load its "
            "Slurm module if it has one"
        ) from None
    except OSError as error:
        raise SlurmError(f"{otherwise}: {command[0]} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(
            f"{otherwise}, as far as is known: {command[0]} did not end within {seconds:g} s. Slurm's controller is "
            "down or busy; look with `squeue --me` before trying again"
        ) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"it ended with exit code {done.returncode}"
        raise SlurmError(f"{otherwise}: {_without_program(said)}")
    return done.stdout.decode("utf-8", "replace")


def _without_program(said: str) -> str:
    """Slurm's message, without the ``sbatch: error: `` that each line may begin with."""
    return "\n".join(re.sub(r"^\w+: (error: |fatal: )?", "", line) for line in said.splitlines())

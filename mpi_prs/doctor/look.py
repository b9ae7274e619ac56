"""What one process can see by itself. A tool that is not there, fails or hangs is a finding, never an error."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mpi_prs import __version__
from mpi_prs.core.environ import (
    SLURM_GPUS_PER_TASK,
    SLURM_JOB_GPUS,
    SLURM_JOB_ID,
    SLURM_NTASKS_PER_NODE,
    SLURM_STEP_GPUS,
    SLURM_STEP_TASKS_PER_NODE,
)
from mpi_prs.core.errors import InputError, LaunchError
from mpi_prs.doctor.findings import Launch, Mpirun, RankFindings
from mpi_prs.engine.mpi import RIGHT_LAUNCHER, launched_as, library_name, load_mpi, strange_launcher
from mpi_prs.engine.node import node_name
from mpi_prs.inputs.near.scratch_folder import scratch_folder
from mpi_prs.slurm.control import mpi_types

_PACKAGES = ("mpi4py", "numpy", "pyarrow", "pandas", "pydantic", "PyYAML", "click", "h5py", "fsspec", "adlfs")
_GPU_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *(variable.name for variable in (SLURM_STEP_GPUS, SLURM_JOB_GPUS, SLURM_GPUS_PER_TASK)),
)
_TOOL_SECONDS = 15.0
_PATIENCE = 10.0  # for what another node wrote; a network filesystem may take some seconds
_PAUSE = 0.2


def look_at_launch(environ: Mapping[str, str]) -> Launch:
    """How this process was started, and what could start ranks here. Starts no MPI."""
    place = launched_as(environ)
    return Launch(
        python=sys.executable,
        library=look_at_library(),
        mpi4py=_version("mpi4py"),
        launcher=place[2] if place else "",
        ranks=place[1] if place else 1,
        mpiruns=_mpiruns(environ),
        srun_types=mpi_types(),
        warning=tasks_per_node_warning(environ),
    )


def tasks_per_node_warning(environ: Mapping[str, str]) -> str:
    """MPICH believes what sbatch was told, and waits for ever where srun starts more tasks on a node than that."""
    told = SLURM_NTASKS_PER_NODE.of(environ)
    started = [int(count) for count in re.findall(r"(?:^|,)(\d+)", SLURM_STEP_TASKS_PER_NODE.of(environ) or "")]
    if told is None or max(started, default=0) <= told:
        return ""
    return (
        f"SLURM_NTASKS_PER_NODE={told} is left from sbatch, and srun has started {max(started)} tasks on a node: MPICH "
        "may hang now; unset SLURM_NTASKS_PER_NODE before srun"
    )


def look_at_library() -> str:
    """The MPI library's name and version; empty where mpi4py finds none."""
    try:
        return library_name(load_mpi())
    except LaunchError:
        return ""


def check_start(library: str, environ: Mapping[str, str]) -> None:
    """Where MPI would end this very process if it does not start, let it try in another one first.

    Raises:
        LaunchError: it does not start.
    """
    what = strange_launcher(library, environ)
    if what and _ask(sys.executable, "-c", "from mpi4py import MPI")[1]:
        raise LaunchError(f"{what}, which does not start under it. {RIGHT_LAUNCHER}")


def _mpiruns(environ: Mapping[str, str]) -> tuple[Mpirun, ...]:
    beside = Path(sys.executable).with_name("mpirun")
    paths = [str(beside)] if os.access(beside, os.X_OK) else []
    if (first := shutil.which("mpirun", path=environ.get("PATH"))) and first not in paths:
        paths.append(first)
    return tuple(Mpirun(path, _ask(path, "--version")[0]) for path in paths)


def _ask(*command: str) -> tuple[str, str]:
    """What a tool says, and why it failed (empty: it did not)."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {_TOOL_SECONDS:.0f} s"
    except OSError as error:
        return "", error.strerror or str(error)
    said = done.stdout.decode(errors="replace").strip()
    return said, (said.split("\n")[0] or f"exit code {done.returncode}") if done.returncode else ""


def look_at_rank(rank: int, environ: Mapping[str, str], note: Note, *, for_node: bool) -> RankFindings:
    """What this process sees; may take some seconds where it does not see ``note``.

    Args:
        rank: its number.
        environ: its environment.
        note: is looked for, unless it could not be written.
        for_node: ask what only one rank a node needs to ask.
    """
    scratch, scratch_problem, free = "", "", 0
    try:
        folder = scratch_folder(None, environ)
        scratch, free = str(folder), shutil.disk_usage(folder).free
    except (InputError, OSError) as error:
        scratch_problem = str(error)
    gpus, gpu_problem = _gpus() if for_node else (None, "")
    return RankFindings(
        rank=rank,
        node=node_name(),
        host=socket.gethostname(),
        versions=_versions(),
        cores=tuple(sorted(os.sched_getaffinity(0))),
        machine_cores=os.cpu_count() or 1,
        gpu_variables={name: environ[name] for name in _GPU_VARIABLES if name in environ},
        gpus=gpus,
        gpu_problem=gpu_problem,
        in_slurm=SLURM_JOB_ID.of(environ) is not None,
        scratch=scratch,
        scratch_problem=scratch_problem,
        scratch_free=free,
        shared_problem="" if note.problem else _read_note(note),
    )


def _gpus() -> tuple[tuple[str, ...] | None, str]:
    if shutil.which("nvidia-smi") is None:
        return None, ""
    said, problem = _ask("nvidia-smi", "-L")
    return (None, problem) if problem else (tuple(line.strip() for line in said.splitlines()), "")


class Note(NamedTuple):
    """What rank 0 wrote into the shared folder: where, what stands in it, and why it could not, if it could not."""

    path: Path
    token: str
    problem: str


@contextlib.contextmanager
def shared_note(folder: Path) -> Iterator[Note]:
    """A note in the shared folder, for the others to read while the block runs."""
    token = secrets.token_hex(8)
    path = folder / f".mpi_prs-doctor-{token}"
    problem = ""
    try:
        path.write_text(token)
    except OSError as error:
        problem = f"cannot write into {folder}: {error.strerror}"
    try:
        yield Note(path, token, problem)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _read_note(note: Note) -> str:
    """Why it cannot be read; empty: it can."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            problem = "" if note.path.read_text() == note.token else f"{note.path} has another content here"
        except OSError as error:
            problem = f"{note.path}: {error.strerror}"
        if not problem or time.monotonic() > deadline:
            return problem
        time.sleep(_PAUSE)


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version(), "mpi_prs": __version__}
    return {**versions, **{name: version for name in _PACKAGES if (version := _version(name))}}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def seconds_since_start() -> float:
    """Since this process began, Python's own start included."""
    fields = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")

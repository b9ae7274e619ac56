"""Things that are built once in a workspace and used by all: virtual environments, conda environments, images.

::

    .built/DIGEST/ready.json     which folder is the finished one; until it is there, nothing is
                 /lock           held while somebody builds, and says who
                 /build.log      what the last builder's programs said
                 /XXXXXXXX/      the finished one, or one that its builder has left behind

Every builder works in a folder of its own, at the place where it will stay, since environments cannot be moved. So a
builder that is killed leaves nothing that looks finished, and what its orphans (pip, say) still write disturbs nobody.
The lock saves work and is not needed for more: where a filesystem has none, two may build at once, and both are right.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpi_prs.azureml.environments.packages import without_login
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import EnvironmentProblem, WorkspaceError
from mpi_prs.core.locks import among_threads, read_holder, this_process, try_lock, write_holder
from mpi_prs.core.records import read_json, write_json

Say = Callable[[str], None]

_PAUSE = 0.2
_REMINDER = 60.0  # seconds
_SHOWN_LINES = 12


def digest_of(parts: Mapping[str, Any]) -> str:
    """The name of what is made of these parts, which are JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def built(
    folder: Path,
    what: str,
    say: Say,
    make: Callable[[Path, Path], None],
    check: Callable[[Path], object],
) -> Path:
    """The finished thing in ``folder``; built now if there is none, or if it has gone bad.

    Args:
        folder: ``.built/DIGEST``.
        what: for messages, such as ``the virtual environment of 'batch'``.
        say: is told what goes on.
        make: gets an empty folder to build in, and the path of the log.
        check: gets the folder of a finished one, and raises EnvironmentProblem if it cannot be used (any more).

    Raises:
        EnvironmentProblem: it cannot be built.
    """
    if (found := _usable(folder, check, say)) is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder / "lock", what, say) as alone:
            if (found := _usable(folder, check, lambda _: None)) is not None:
                return found
            if alone:
                _remove_leftovers(folder)
            return _build(folder, what, say, make, check)
    except OSError as error:
        raise EnvironmentProblem(f"{what} cannot be built in {folder}: {error.strerror or error}") from None


def _build(
    folder: Path, what: str, say: Say, make: Callable[[Path, Path], None], check: Callable[[Path], object]
) -> Path:
    say(f"building {what} in {folder}")
    began = time.monotonic()
    target = Path(tempfile.mkdtemp(prefix="", dir=folder))
    try:
        target.chmod(0o777 & ~_umask())  # others may use it, if the umask lets them
        log = folder / "build.log"
        log.unlink(missing_ok=True)
        make(target, log)
        check(target)
        seconds = round(time.monotonic() - began, 1)
        write_json(folder / "ready.json", {"folder": target.name, "what": what, "seconds": seconds, **_ours()})
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    say(f"{what} is ready, after {seconds:.0f} s; later jobs use it again")
    return target


def _ready(folder: Path) -> Path | None:
    """The one that was finished last."""
    try:
        name = str(read_json(folder / "ready.json", "what was built").get("folder", ""))
    except (FileNotFoundError, WorkspaceError):
        return None
    return folder / name if name and "/" not in name and (folder / name).is_dir() else None


def _usable(folder: Path, check: Callable[[Path], object], say: Say) -> Path | None:
    target = _ready(folder)
    if target is None:
        return None
    try:
        check(target)
    except EnvironmentProblem as problem:
        say(f"{target} can no longer be used, and is built anew: {problem}")
        return None
    return target


def _remove_leftovers(folder: Path) -> None:
    """Of builders that were killed. One that was finished stays, bad or not: jobs may be at work in it."""
    ready = _ready(folder)
    for entry in folder.iterdir():
        if entry.is_dir() and entry != ready:
            shutil.rmtree(entry, ignore_errors=True)


def _umask() -> int:
    """Ours; there is no way to ask for it but to set it, which is not for threads, or this."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077


# Taking turns


@contextlib.contextmanager
def _turn(lock: Path, what: str, say: Say) -> Iterator[bool]:
    """Wait until nobody else builds; whether that is certain (a filesystem may have no locks)."""
    thread_lock = among_threads(lock)
    if not thread_lock.acquire(blocking=False):
        say(f"{what} is being built by another thread of this process: waiting for it")
        thread_lock.acquire()
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            alone = _lock(descriptor, what, say)
            write_holder(descriptor, _ours())
            yield alone
        finally:
            os.close(descriptor)  # the kernel takes the lock back, as it does when we die
    finally:
        thread_lock.release()


def _lock(descriptor: int, what: str, say: Say) -> bool:
    reminder = 0.0
    while (taken := try_lock(descriptor)) is False:
        if time.monotonic() >= reminder:
            holder = read_holder(descriptor, " by {user}, process {pid} on {host}, since {since}")
            say(f"{what} is being built{holder}: waiting for it")
            reminder = time.monotonic() + _REMINDER
        time.sleep(_PAUSE)
    return taken is True


def _ours() -> dict[str, Any]:
    user = HERE.get("USER") or HERE.get("LOGNAME") or f"user {os.getuid()}"
    return {"user": user, **this_process()}


# The programs that build


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without what ties a process to this interpreter, or pip to another place than it is told."""
    ours = {"PYTHONPATH", "PYTHONHOME", "PYTHONEXECUTABLE", "VIRTUAL_ENV"}
    ours |= {"PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON"}
    kept = {name: value for name, value in environ.items() if name not in ours}
    return {**kept, "PYTHONNOUSERSITE": "1", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run_builder(
    command: Sequence[str],
    what: str,
    log: Path,
    say: Say,
    *,
    environ: Mapping[str, str],
    telling: Callable[[str], str] = lambda _: "",
) -> None:
    """Run a program that builds, to its end; if we are stopped meanwhile, it is killed.

    Args:
        what: for messages, such as ``pip``.
        log: gets what it says, at the end of what is there.
        telling: what to say about a line of its output; empty: nothing.

    Raises:
        EnvironmentProblem: it cannot be started, or fails; with its last lines.
    """
    last: collections.deque[str] = collections.deque(maxlen=_SHOWN_LINES)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=log.parent,  # what Python imports first is not the user's venv.py
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentProblem(f"{command[0]} cannot be started: {error.strerror}") from None
    assert process.stdout is not None
    try:
        with process.stdout, open(log, "a", encoding="utf-8", errors="replace") as file:
            for line in process.stdout:
                line = without_login(line.rstrip())
                print(line, file=file, flush=True)
                if line.strip():
                    last.append(line)
                if told := telling(line):
                    say(told)
        code = process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if code:
        end = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
        said = "\n".join(f"    {line}" for line in last)
        raise EnvironmentProblem(f"{what} failed ({end}):\n{said}\nAll that it said: {log}")

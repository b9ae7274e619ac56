"""``python -m mpi_prs``: where every rank begins.

A worker rank goes straight to its loop, without the command line and all that it imports: ten thousand of them start at
once from one shared filesystem. So what a process needs is imported by name, when it is known what the process is.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from mpi_prs.core.errors import LaunchError
from mpi_prs.core.own_python import OLDEST, RUNNER_PACKAGES


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    if sys.version_info[:2] < OLDEST:
        return _refuse_python(f"Python {'.'.join(map(str, OLDEST))} or later")
    try:
        return _main(argv)
    except ModuleNotFoundError as error:
        if error.name not in RUNNER_PACKAGES:
            raise
        return _refuse_python(f"the package {error.name}")


def _refuse_python(needed: str) -> int:
    print(
        f"error: mpi_prs needs {needed}, but {sys.executable} is Python {sys.version.split()[0]} without it. Use the "
        "Python of the environment that mpi_prs was installed in (such as .venv/bin/python), or install it into this "
        "one: pip install mpi_prs",
        file=sys.stderr,
    )
    return LaunchError.exit_code


def _main(argv: Sequence[str] | None) -> int:
    _have_streams()
    # What imports make stays: a tenth of their time is the collector's, which looks through it and finds nothing
    gc.disable()
    try:
        return _run(argv)
    finally:
        gc.enable()


def _run(argv: Sequence[str] | None) -> int:
    # Slurm's warning would end a rank that has no handler yet. It waits until there is one.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    arguments = list(sys.argv[1:] if argv is None else argv)
    transport = None
    mpi = import_module("mpi_prs.engine.mpi")
    place = mpi.launched_as()
    if place is not None and _runs_under_mpi(arguments):
        try:
            transport = mpi.connect()
        except LaunchError as error:
            if place[0] == 0:
                print(f"error: {error}", file=sys.stderr)
                import_module("mpi_prs.slurm.exit_note").leave_word(error.exit_code)
            return error.exit_code
        if transport.rank != 0:
            worker = import_module("mpi_prs.engine.worker.worker")
            gc.freeze()
            gc.enable()
            return int(worker.serve(transport))
    command_line = import_module("mpi_prs.cli.main").command_line

    if place is not None and place[0] != 0 and _command(arguments) == "doctor":
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            return int(command_line(arguments, None))  # it answers the first rank, which alone speaks
    return int(command_line(arguments, transport))


class _Words(io.TextIOWrapper):
    """Where we speak to people. A pipe that is closed, or a log on a full disk, changes nothing of what is done."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _have_streams() -> None:
    """stdin, stdout and stderr as everything expects them, whatever we were started with.

    A descriptor that is closed would be the next file's that is opened, which then got what a library complains of.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    if sys.stdout is None:
        sys.stdout = _words_to(1, "utf-8")
    elif type(sys.stdout) is io.TextIOWrapper:  # not what a test or a notebook has put there
        sys.stdout.reconfigure(errors="backslashreplace")  # for a locale without our µ, and names that are no text
    if sys.stderr is None or type(sys.stderr) is io.TextIOWrapper:
        sys.stderr = _words_to(2, "utf-8" if sys.stderr is None else sys.stderr.encoding)


def _words_to(descriptor: int, encoding: str) -> _Words:
    buffer = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
    return _Words(buffer, encoding, "backslashreplace", line_buffering=True)


def _command(arguments: Sequence[str]) -> str:
    return next((argument for argument in arguments if not argument.startswith("-")), "run")


def _runs_under_mpi(arguments: Sequence[str]) -> bool:
    """Whether these arguments start a job on all ranks: ``run``, or no command at all, without ``--local``."""
    return _command(arguments) == "run" and not any(argument.split("=")[0] == "--local" for argument in arguments)


if __name__ == "__main__":
    sys.exit(main())

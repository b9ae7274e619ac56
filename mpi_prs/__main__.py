"""``python -m mpi_prs``: where every rank begins.

A worker rank goes straight to its loop, without the command line and all that it imports: ten thousand of them start at
once from one shared filesystem. So what a process needs is imported by name, when it is known what the process is.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    # ``-m`` puts the current folder first, where a ``signal.py`` or ``inspect.py`` of the user would hide Python's own.
    # As for the command mpi-prs, the folder of the program stands there.
    sys.path[0] = sys.executable.rpartition("/")[0]

import io
import os
import signal
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module

from mpi_prs.core.errors import LaunchError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # in a locale without our µ, and names that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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
            return int(import_module("mpi_prs.engine.worker.worker").serve(transport))
    command_line = import_module("mpi_prs.cli.main").command_line

    if place is not None and place[0] != 0 and _command(arguments) == "doctor":
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return int(command_line(arguments, None))  # it answers the first rank, which alone speaks
    return int(command_line(arguments, transport))


def _command(arguments: Sequence[str]) -> str:
    return next((argument for argument in arguments if not argument.startswith("-")), "run")


def _runs_under_mpi(arguments: Sequence[str]) -> bool:
    """Whether these arguments start a job on all ranks: ``run``, or no command at all, without ``--local``."""
    return _command(arguments) == "run" and not any(argument.split("=")[0] == "--local" for argument in arguments)


if __name__ == "__main__":
    sys.exit(main())

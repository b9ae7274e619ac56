"""``python -m mpi_prs``: where every rank begins.

A worker rank goes straight to its loop, without the command line and all that it imports: ten thousand of them start at
once from one shared filesystem.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    transport = None
    from mpi_prs.engine.mpi import connect, launched_as

    place = launched_as(os.environ)
    if place is not None and _runs_under_mpi(arguments):
        from mpi_prs.errors import LaunchError

        try:
            transport = connect()
        except LaunchError as error:
            if place[0] == 0:
                print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        if transport.rank != 0:
            from mpi_prs.engine.worker import serve

            return serve(transport)
    from mpi_prs.cli.main import command_line

    return command_line(arguments, transport)


def _runs_under_mpi(arguments: Sequence[str]) -> bool:
    """Whether these arguments start a job on all ranks: ``run``, or no command at all, without ``--local``."""
    command = next((argument for argument in arguments if not argument.startswith("-")), "run")
    return command == "run" and not any(argument.split("=")[0] == "--local" for argument in arguments)


if __name__ == "__main__":
    sys.exit(main())

"""The first rank's own word on how it ended, left for the batch script.

A launcher's exit code is no answer to that: of a complete run that has lost a node srun may say 137, since MPI had to
be aborted, and of an incomplete one Open MPI's mpirun may say 0.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from mpi_prs.core.environ import EXIT_CODE, HERE
from mpi_prs.engine.mpi import launched_as


def leave_word(exit_code: int, environ: Mapping[str, str] = HERE) -> None:
    """Write the exit code into the file that the batch script has made for it; nothing where no script asks, nor on any
    other rank than the first."""
    path = EXIT_CODE.of(environ)
    place = launched_as(environ)
    if not path or (place is not None and place[0] != 0):
        return
    try:
        with open(path, "r+", encoding="ascii") as file:
            file.write(f"{exit_code}\n")
    except OSError as error:
        print(
            f"warning: cannot tell the batch script that this ends with exit code {exit_code}, which may start it "
            f"again: {path}: {error.strerror}. Rank 0 has to see that file of the first node (a container: mount /tmp)",
            file=sys.stderr,
        )

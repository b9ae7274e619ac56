"""The line with the column names, above all rows of a text file: one for all user processes.

Standard library only: the user process imports this module.
"""

from __future__ import annotations

from pathlib import Path

from mpi_prs.core.files import beside, claim


def agreed_header(path: str, header: bytes) -> bytes:
    """The header of the run: ``header``, if no process of it, now or before, has come first with another one.

    Args:
        path: a file that all processes of the run see; who comes first makes it.

    Raises:
        OSError: it can be neither made nor read.
    """
    with beside(Path(path)) as own:
        own.write_bytes(header)
        claim(own, Path(path))  # whole or not at all, and never over another one
    with open(path, "rb") as file:
        return file.read()

"""Paths as users give them. Standard library only: user processes import this module."""

from __future__ import annotations

import os
from pathlib import Path

from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.urls import is_url


def given_path(what: str, value: object) -> Path:
    """A path of this machine, absolute, ``~`` being the home.

    Args:
        what: the parameter, for messages.

    Raises:
        WorkspaceError: it is no path.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path or is_url(path):
        raise WorkspaceError(f"{what} is the path of a file or folder of this machine, but got {value!r}")
    return Path(os.path.abspath(os.path.expanduser(path)))

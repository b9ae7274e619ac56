"""Where a node keeps what is only of itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from mpi_prs.core.environ import SLURM_TMPDIR
from mpi_prs.core.errors import InputError


def scratch_folder(configured: str | None, environ: Mapping[str, str]) -> Path:
    """The folder for what is only of this node, and only of this job: it must exist on each node by itself.

    Args:
        configured: the job's ``scratch``, made where it is missing; ``$NAME`` and ``${NAME}`` in it are this node's.
        environ: of this node: ``SLURM_TMPDIR``, ``TMPDIR``; else ``/tmp``.

    Raises:
        InputError: it cannot be written to.
    """
    if configured is not None:

        def value_of(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in environ:
                raise InputError(f"scratch: {configured}: the environment variable {name} is not set on this node")
            return environ[name]

        folder = Path(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value_of, configured)).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"scratch: cannot make the folder {folder}: {error.strerror}; give a folder on each node's own disk"
            ) from None
        if not _usable(folder):
            raise InputError(
                f"scratch: the folder {folder} cannot be written to; give a folder on each node's own disk"
            )
        return folder
    tried = [Path(folder) for folder in (SLURM_TMPDIR.of(environ), environ.get("TMPDIR"), "/tmp") if folder]
    for folder in tried:
        if _usable(folder):
            return folder
    raise InputError(
        f"no scratch folder on this node: {' and '.join(map(str, tried))} cannot be written to; "
        "set scratch to one that can"
    )


def _usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)

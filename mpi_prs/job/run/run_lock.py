"""At most one master at a time writes into a run directory."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from mpi_prs.core.errors import OutputError
from mpi_prs.core.files import own_file
from mpi_prs.core.locks import read_holder, this_process, try_lock, write_holder

_log = logging.getLogger("mpi_prs.job")

_PAUSE = 0.5


class RunLock:
    """A POSIX lock on ``_run/lock``; the kernel releases it when its holder dies, however that happens.

    Where a filesystem has no locks at all, the run goes on without one.
    """

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        """Take the lock.

        Args:
            path: the file.
            patience: seconds to wait for it. A file server may take a while to see that a node is dead.

        Raises:
            OutputError: another run holds it (the message says where and since when), or another user owns it.
        """
        try:
            self._descriptor = own_file(str(path), os.O_RDWR | os.O_CREAT)
        except PermissionError as error:
            raise OutputError(
                f"cannot write to {path}: {error.strerror}. The run belongs to somebody else; choose another folder "
                "with --output"
            ) from error
        try:
            self._take(patience, path.parent.parent)
        except BaseException:
            os.close(self._descriptor)
            raise
        write_holder(self._descriptor, this_process())

    def _take(self, patience: float, output: Path) -> None:
        deadline = time.monotonic() + patience
        said = False
        while try_lock(self._descriptor) is False:
            if time.monotonic() >= deadline:
                raise OutputError(
                    f"another run is at work on {output}{self._holder()}. Wait until it ends, or stop it, or choose "
                    "another folder with --output"
                )
            if not said:
                said = True
                _log.warning("an earlier start still holds the run%s: waiting at most %.0f s", self._holder(), patience)
            time.sleep(_PAUSE)

    def _holder(self) -> str:
        return read_holder(self._descriptor, " (process {pid} on {host}, since {since})")

    def release(self) -> None:
        """Let others in."""
        os.close(self._descriptor)

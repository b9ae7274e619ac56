"""At most one master at a time writes into a run directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

from mpi_prs.errors import OutputError

_log = logging.getLogger("mpi_prs.job")

_PAUSE = 0.5


class RunLock:
    """A POSIX lock on ``_run/lock``; the kernel releases it when its holder dies, however that happens.

    POSIX locks work across nodes on NFSv4, Lustre (``-o flock``), GPFS and BeeGFS (``tuneUseGlobalFileLocks``). Where a
    filesystem has no locks at all, the run goes on without one.
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
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError as error:
            raise OutputError(
                f"cannot write to {path}: {error.strerror}. The run belongs to somebody else; choose another folder "
                "with --output"
            ) from error
        try:
            self._take(patience)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = self._holder()
                os.close(self._descriptor)
                raise OutputError(
                    f"another run is at work on {path.parent.parent}{holder}. Wait until it ends, or stop it, "
                    "or choose another folder with --output"
                ) from error
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                os.close(self._descriptor)
                raise
        ours = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(OSError):  # only words for a message; the disk may be full
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(ours).encode(), 0)

    def _take(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        said = False
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN) or time.monotonic() >= deadline:
                    raise
            if not said:
                said = True
                _log.warning("an earlier start still holds the run%s: waiting at most %.0f s", self._holder(), patience)
            time.sleep(_PAUSE)

    def _holder(self) -> str:
        try:
            fields = json.loads(os.pread(self._descriptor, 4096, 0))
            return f" (process {fields['pid']} on {fields['host']}, since {fields['since']})"
        except (ValueError, LookupError, TypeError, OSError):
            return ""

    def release(self) -> None:
        """Let others in."""
        os.close(self._descriptor)

"""Three kinds of locks, all of which end with their holder.

::

    lock, try_lock      POSIX locks: keep out other processes, of this node and others, but no other thread of this one
    among_threads       what must stand before one of these where several threads may want it
    try_alone, share    flock: belongs to the open file, so it keeps out threads as well, and many may share it; for
                        files on a disk of this node alone, since servers do not all pass it on to other nodes

POSIX locks work across nodes on NFSv4, Lustre (``-o flock``), GPFS and BeeGFS (``tuneUseGlobalFileLocks``). A file that
is locked may say who holds it, in words for a message. Standard library only, and for Python 3.7 as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TAKEN = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

_threads: dict[str, threading.RLock] = {}
_threads_of_threads = threading.Lock()


def lock(descriptor: int) -> None:
    """Wait for the lock of an open file. A filesystem that has no locks keeps nobody out. Raises OSError."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def try_lock(descriptor: int) -> bool | None:
    """Take the lock of an open file, unless another process has it.

    Returns:
        whether it is ours now; ``None``: this filesystem has no locks.

    Raises:
        OSError: neither can be said.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def is_still(descriptor: int, path: Path) -> bool:
    """Whether a file that was locked still has its name, or was removed before it was locked. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def among_threads(path: Path) -> threading.RLock:
    """The lock that all threads of this process share for a path; its holder may lock the file there."""
    with _threads_of_threads:
        return _threads.setdefault(str(path), threading.RLock())


def share(descriptor: int) -> None:
    """Wait until nobody is alone with an open file, and be one of those who are not. Raises OSError."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def try_alone(descriptor: int) -> bool:
    """Take an open file for oneself, shared before or not; whether nobody else has it. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def this_process() -> dict[str, Any]:
    """This process, and the time, as people read them: ``host``, ``pid``, ``since``."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def write_holder(descriptor: int, holder: Mapping[str, Any]) -> None:
    """Let a locked file say who holds it; as far as the disk has room for that."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def read_holder(descriptor: int, words: str) -> str:
    """Who holds a locked file.

    Args:
        words: with a ``{name}`` for each value, such as ``process {pid} on {host}``.

    Returns:
        the words with the values in them; empty: the file does not say so.
    """
    try:
        return words.format_map(json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, LookupError, TypeError, OSError):
        return ""

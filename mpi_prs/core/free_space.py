"""Whether a folder still takes a file: what a full disk or a used-up quota makes of the programs that meet it.

A library says that it could not write, seldom where, and its exception may be of any class; what a filesystem says of
its free space knows nothing of quotas. So words only raise a suspicion, and a file that is written settles it.
"""

from __future__ import annotations

import errno
import os

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk without space, and of a quota that is used up."""

_WORDS = tuple(os.strerror(number) for number in FULL)
_BYTES = 1 << 20


def speaks_of_a_full_disk(text: str) -> bool:
    """Whether a message or a traceback has the words of one."""
    return any(words in text for words in _WORDS)


def has_room(folder: str | os.PathLike[str]) -> bool:
    """Whether a file of 1 MiB can be written into a folder; whatever else is wrong with it is not asked here.

    The file has no name, where the filesystem knows such files, and is gone at once.
    """
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            left = _BYTES
            while left:
                left -= file.write(bytes(left))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in FULL
    return True


def free_space(folder: str | os.PathLike[str]) -> str:
    """``0 bytes and 12,345 files are free``, as the filesystem counts, which knows nothing of a quota."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    free = found.f_bavail * found.f_frsize
    quota = "; so it is a quota" if free > _BYTES and found.f_favail else ""
    return f"{free:,} bytes and {found.f_favail:,} files are free{quota}"

"""What is in files, and whether it still is: by size, time and inode where these tell, by a digest where they do not.

::

    the run begins ─► Sources: each file that decides the output ─► _run/sources.json
                                     │
          another start, or a new user process: size and time as then? ─ no ─► digest as then? ─ no ─► changed

Standard library only, and for Python 3.7 as well.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from dataclasses import dataclass, field
from typing import BinaryIO

from mpi_prs.core.files import regular_file

_PIECE = 1 << 20
_UNSETTLED = 2_000_000_000
"""Nanoseconds after its last change in which a file may change again and keep its time: some filesystems count whole
seconds."""


@dataclass(frozen=True)
class Content:
    """What was in a file when somebody looked.

    Attributes:
        size: in bytes.
        changed: when it was changed last, in nanoseconds.
        inode: 0: size and time are not to be trusted, for it had just been changed.
        sha256: the digest of its bytes, in hexadecimal; empty: it was not read, and size and time must do.
    """

    size: int
    changed: int
    inode: int
    sha256: str = ""


@dataclass(frozen=True)
class Sources:
    """The content of ``sources.json``: the files that decide the output of a run, as they were when it was begun.

    Attributes:
        run: the id of the run.
        files: key of the job config by which a file is found → its absolute path → what was in it.
    """

    run: str
    files: dict[str, dict[str, Content]] = field(default_factory=dict)


def content_of(path: str, most: int | None) -> Content:
    """What is in a regular file.

    Args:
        path: the file, or a link to it.
        most: bytes up to which it is read; ``None``: whatever its size.

    Raises:
        OSError: it is not there, is no regular file, or changes while it is read.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "no regular file", path)
    sha256 = ""
    if most is None or found.st_size <= most:
        with open(path, "rb", buffering=0, opener=regular_file) as file:
            found = os.fstat(file.fileno())
            sha256 = digest(file)
            if os.fstat(file.fileno()).st_mtime_ns != found.st_mtime_ns:
                raise OSError(0, "it is being written", path)
    settled = time.time_ns() - found.st_mtime_ns > _UNSETTLED
    return Content(found.st_size, found.st_mtime_ns, found.st_ino if settled else 0, sha256)


def has_changed(path: str, then: Content, most: int | None = None) -> bool:
    """Whether there is something else now, or nothing.

    Args:
        most: bytes up to which a file is read where only its digest can tell; a larger one counts as changed where size
            or time is another, and else as what it was. ``None``: whatever its size.

    Raises:
        OSError: that cannot be seen.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    as_then = (found.st_size, found.st_mtime_ns) == (then.size, then.changed)
    if found.st_size != then.size or (as_then and found.st_ino == then.inode):
        return not as_then
    if not then.sha256 or (most is not None and then.size > most):
        return not as_then
    with open(path, "rb", buffering=0, opener=regular_file) as file:
        return digest(file) != then.sha256


def is_built(path: str) -> bool:
    """Whether a compiler makes such files from others: a script may do that itself, in ``init()``."""
    return path.endswith((".so", ".pyd", ".pyc"))


def digest(file: BinaryIO) -> str:
    """The SHA-256 of what is left to read of a file, in hexadecimal: about 1 s a GB. Raises OSError."""
    found = hashlib.sha256()
    while True:
        piece = file.read(_PIECE)
        if not piece:
            return found.hexdigest()
        found.update(piece)

"""Folders that are filled before they get their name: nobody sees half of one, and a killed writer's are cleared away.

::

    NAME.lock, held ─► NAME/ is filled ─► rename to where it belongs ─► NAME.lock is removed
        │
        └─ held by nobody: its writer is dead, and the next one removes both
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import copy_atomically, reason, walk
from mpi_prs.core.locks import is_still, try_lock
from mpi_prs.core.records import remove

_SUFFIX = ".lock"
_ours: set[str] = set()
"""Names in use by this process, which its own locks do not keep out."""


@contextlib.contextmanager
def incoming_folder(base: Path) -> Iterator[Path]:
    """A new empty folder in ``base`` to be filled, and then renamed; whatever is left at the end is removed.

    Folders there of writers that were killed, on whatever node, are removed first.

    Raises:
        WorkspaceError: it cannot be made.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"
    _ours.add(name)
    try:
        descriptor = _make(base, name)
        try:
            _clear(base)
            yield base / name
        finally:
            shutil.rmtree(base / name, ignore_errors=True)
            remove(base / f"{name}{_SUFFIX}")
            os.close(descriptor)
    except OSError as error:
        where = error.filename or base
        raise WorkspaceError(f"{where}: {error.strerror}. Is it your workspace, and is there space?") from error
    finally:
        _ours.discard(name)


def _make(base: Path, name: str) -> int:
    base.mkdir(parents=True, exist_ok=True)
    lock = base / f"{name}{_SUFFIX}"
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if try_lock(descriptor) is not False and is_still(descriptor, lock):
            break
        os.close(descriptor)  # somebody clears it away, who came before it was locked
    (base / name).mkdir()
    return descriptor


def _clear(base: Path) -> None:
    for entry in os.listdir(base):
        name, suffix = os.path.splitext(entry)
        if suffix != _SUFFIX or name in _ours:
            continue
        try:
            descriptor = os.open(base / entry, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # gone, or somebody else's
            continue
        try:
            if try_lock(descriptor):
                shutil.rmtree(base / name, ignore_errors=True)
                remove(base / entry)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Copied:
    """What was copied: the number of files, and their bytes in all."""

    files: int
    size: int


def copy_into(source: Path, target: Path, folder_of_it: Path | None = None) -> Copied:
    """Copy a file, or a folder with all that is in it, on to disk; links are followed, since their ends may go, but
    for those that lead back to a folder which they lie in.

    Args:
        source: what to copy.
        target: its copy; a folder may be there already, and then files in it are replaced.
        folder_of_it: a folder that must not be inside ``source``: it would be copied into itself.

    Raises:
        WorkspaceError: something cannot be copied, or has been changed meanwhile.
    """
    if folder_of_it is not None and _is_inside(folder_of_it, source):
        raise WorkspaceError(
            f"{source} cannot be copied, since the workspace {folder_of_it} is inside it; give a folder that has only "
            "what belongs together"
        )
    try:
        if not source.is_dir():
            return Copied(1, _copy(source, target))
        sizes = []
        target.mkdir(exist_ok=True)
        for name in walk(source, folders=True):
            if name.endswith("/"):
                (target / name).mkdir(exist_ok=True)
            else:
                sizes.append(_copy(source / name, target / name))
        return Copied(len(sizes), sum(sizes))
    except OSError as error:
        raise WorkspaceError(f"{error.filename or source} cannot be copied: {reason(error)}") from error


def _copy(source: Path, target: Path) -> int:
    """Copies a file; its size in bytes."""
    found = os.stat(source)
    copy_atomically(source, target, keep_mode=False, lasting=True)
    after = os.stat(source)
    if (after.st_size, after.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        raise WorkspaceError(f"{source} was changed while it was copied; do it again when nobody writes to it")
    return found.st_size


def _is_inside(path: Path, folder: Path) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([inner, outer]) == outer

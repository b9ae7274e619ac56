"""Files that are replaced as a whole: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, lasting: bool = False) -> Iterator[BinaryIO]:
    """A file to write into; it takes the name ``path`` when the block ends well, and is removed when it does not.

    Args:
        path: the file; its folder is made where it is missing.
        lasting: put it on disk before it takes its name, and its name after that: it survives a power failure.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.new")
    try:
        with open(partial, "wb") as file:
            yield file
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    if lasting:
        sync_folder(path.parent)


@contextlib.contextmanager
def arriving(path: Path) -> Iterator[Path]:
    """A place beside ``path`` for the block to make a file at, whoever else makes one for the same name; when the block
    ends well, the file takes the name ``path``, and else it is removed.

    The folder is made where it is missing. The place has a name of its own, ``.….part``, which listings of ours skip.

    Raises:
        OSError: it cannot be done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield partial
        os.replace(str(partial), str(path))
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The program's own logs in the run directory: one file a rank. A log that cannot be written ends no job."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpi_prs.core.files import own_file
from mpi_prs.core.secrecy import scrub


@contextlib.contextmanager
def log_file(logger: logging.Logger, path: Path, level: str) -> Iterator[None]:
    """While the block runs, ``logger`` also writes to ``path``; an older file is continued."""
    logger.setLevel(level)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _Handler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        logger.warning("going on without the log %s: %s", path, error.strerror)
        yield
        return
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):  # what is still in its buffer meets the same full disk
            handler.close()


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))


class _Handler(logging.FileHandler):
    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=own_file)

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: of a full disk the job itself speaks."""

"""Where the files of a script stand until its answer is accepted: a folder for each attempt that asks for one.

::

    context.output_dir ──► _run/spill/….files/  ── run() returns files ──► handed on with the rows: ….files.rows
                                  │
                                  └── it raises, or writes nothing ──► removed

Standard library only.
"""

from __future__ import annotations

import os

from mpi_prs.core.files import walk


class OutputFolder:
    """The folder of one attempt; it is there once somebody has asked for it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._is_made = False

    def make(self) -> str:
        """Its path. Raises OSError: it cannot be made."""
        if not self._is_made:
            os.makedirs(self.path, exist_ok=True)
            self._is_made = True
        return self.path

    def keep(self) -> bool:
        """Whether there is something in it; that is on disk then, and what is empty is removed. Raises OSError."""
        if not self._is_made:
            return False
        if not os.listdir(self.path):
            self.discard()
            return False
        for name in walk(self.path, lambda name: os.path.islink(os.path.join(self.path, name.rstrip("/")))):
            path = os.path.join(self.path, name)
            if os.path.isfile(path):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        return True

    def discard(self) -> None:
        """Remove it, with what is in it."""
        if self._is_made:
            import shutil

            shutil.rmtree(self.path, ignore_errors=True)
            self._is_made = False


NOWHERE = OutputFolder("")
"""For whoever cannot ask for a folder."""

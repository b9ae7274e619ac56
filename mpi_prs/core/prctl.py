"""What this process asks of the kernel by ``prctl`` (Linux). Standard library only, and for Python 3.7 as well."""

from __future__ import annotations

import ctypes
import signal

_prctl = ctypes.CDLL(None, use_errno=True).prctl  # found now: between fork and exec nothing is to be loaded
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have this process get a signal when its parent dies, however that happens; 0: none any more.

    Of a parent that is dead already nothing is told: look at its number before and after.
    """
    _prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Have whoever loses its parent below this process become its child; children do not inherit this."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

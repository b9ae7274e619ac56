"""The Pythons on this machine that are older than ours: user processes may run in them."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache


@cache
def old_pythons() -> tuple[str, ...]:
    """Those older than ours that are on this machine."""
    found = (shutil.which(f"python3.{minor}") for minor in (7, 8, 9))
    return tuple(python for python in found if python and _answers(python))


def _answers(python: str) -> bool:
    return subprocess.run([python, "-V"], capture_output=True, check=False).returncode == 0

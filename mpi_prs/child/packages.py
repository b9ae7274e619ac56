"""Say what an interpreter is and which packages it has, as a JSON object, in the user's own interpreter.

Names and versions are those in the names of folders on ``sys.path``: nothing is imported or opened, which would take
seconds on a shared filesystem. Standard library only.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys

_INSTALLED = re.compile(r"(.+?)-([0-9][^-]*)(-.+)?\.(dist-info|egg-info|egg)")


def packages(path: list[str]) -> dict[str, str]:
    """Name → version of the packages that are found in these folders, the first one of a name."""
    found: dict[str, str] = {}
    for folder in path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for match in filter(None, map(_INSTALLED.fullmatch, names)):
            found.setdefault(match[1].replace("_", "-").lower(), match[2])
    return dict(sorted(found.items()))


if __name__ == "__main__":
    about = {"executable": sys.executable, "version": platform.python_version(), "packages": packages(sys.path[1:])}
    print(json.dumps({**about, "implementation": platform.python_implementation(), "platform": platform.platform()}))

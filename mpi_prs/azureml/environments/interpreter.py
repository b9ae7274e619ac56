"""What an interpreter is and has: this one, or another one that is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import distributions
from pathlib import Path

from mpi_prs.azureml.environments.packages import normalized
from mpi_prs.core.errors import EnvironmentProblem

OLDEST = (3, 7)
"""The oldest Python that user processes can run in."""

_PATIENCE = 120.0  # seconds; a container that starts from a slow filesystem
_LOG_LINES = 8

# Python 3.7 has no importlib.metadata; what it has is then unknown, unless the backport is there.
_QUESTION = """
import json, sys
packages = {}
try:
    try:
        from importlib.metadata import distributions
    except ImportError:
        from importlib_metadata import distributions
    for found in distributions():
        if found.metadata["Name"]:
            packages.setdefault(found.metadata["Name"], found.version)
except ImportError:
    packages = None
answer = {"version": sys.version_info[:3], "prefix": sys.prefix, "packages": packages}
print("\\nmpi_prs:" + json.dumps(answer))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python.

    Attributes:
        path: the program.
        version: such as ``(3, 11, 7)``.
        prefix: its ``sys.prefix``.
        names_and_versions: distributions as they call themselves → version; ``None``: it cannot tell (Python 3.7).
    """

    path: str
    version: tuple[int, int, int]
    prefix: str
    names_and_versions: Mapping[str, str] | None

    @cached_property
    def packages(self) -> dict[str, str]:
        """Normalized name → version; empty where it cannot tell."""
        return {normalized(name): version for name, version in (self.names_and_versions or {}).items()}

    @property
    def dotted(self) -> str:
        """Its version, such as ``3.11.7``."""
        return ".".join(map(str, self.version))


def this_interpreter() -> Interpreter:
    """The one that runs this."""
    packages: dict[str, str] = {}
    for found in distributions():
        name = found.metadata["Name"]
        if name:
            packages.setdefault(name, found.version)
    major, minor, micro = sys.version_info[:3]
    return Interpreter(sys.executable, (major, minor, micro), sys.prefix, packages)


def ask(path: str | Path) -> Interpreter:
    """Start another interpreter and let it tell what it has. Some 0.1 s.

    Raises:
        EnvironmentProblem: it cannot be started, does not answer, or is too old.
    """
    try:
        done = subprocess.run(
            [str(path), "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            cwd="/",
            timeout=_PATIENCE,
        )
    except OSError as error:
        raise EnvironmentProblem(f"the interpreter {path} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"the interpreter {path} did not answer within {_PATIENCE:g} s") from None
    answers = [line for line in done.stdout.splitlines() if line.startswith("mpi_prs:")]
    if done.returncode or not answers:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-_LOG_LINES:])
        raise EnvironmentProblem(f"{path} is no Python that can be used (exit code {done.returncode}):\n{said}")
    answer = json.loads(answers[-1].removeprefix("mpi_prs:"))
    major, minor, micro = answer["version"]
    found = Interpreter(str(path), (major, minor, micro), answer["prefix"], answer["packages"])
    if found.version[:2] < OLDEST:
        raise EnvironmentProblem(
            f"{path} is Python {found.dotted}; user processes need {'.'.join(map(str, OLDEST))} or later"
        )
    return found

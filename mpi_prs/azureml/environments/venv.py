"""The policy ``venv``: a virtual environment with what pip was asked to install."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from mpi_prs.azureml.environments.build_cache import Say, built, digest_of, outside, run_builder
from mpi_prs.azureml.environments.interpreter import Interpreter, ask, this_interpreter
from mpi_prs.azureml.environments.requirements import conda_name, is_option, local_path
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import EnvironmentProblem
from mpi_prs.core.files import walk

_PROGRESS = re.compile(r"\s*(Downloading .*(?:MB|GB)\)|Building wheel for .*|Installing collected packages: .*)")
_MADE_BY_PIP = ("build", "dist", "__pycache__", ".git", ".eggs")
_LONGEST_PROGRESS = 200


def base_interpreter(wanted: str | None, who: str) -> Interpreter:
    """The interpreter to make a virtual environment with: this one if it will do, else one in PATH.

    Args:
        wanted: such as ``3.10`` or ``>=3.8``; ``None``: this one.
        who: for messages, such as ``the environment 'batch'``.

    Raises:
        EnvironmentProblem: there is none of this version.
    """
    ours = this_interpreter()
    if fits(ours.dotted, wanted):
        return ours
    reason = ""
    if found := re.match(r"([0-9]+\.[0-9]+)", wanted or ""):
        program = f"python{found[1]}"
        reason = f", and there is no {program} in PATH"
        if path := shutil.which(program):
            try:
                return ask(path)
            except EnvironmentProblem as problem:
                reason = f", and the {program} in PATH cannot be used ({problem})"
    raise EnvironmentProblem(
        f"{who} asks for Python {wanted}, but this is Python {ours.dotted}{reason}. Load or install one, ask for "
        "another by python.conda_dependencies.set_python_version, or use the policy conda, which brings its own"
    )


def fits(version: str, wanted: str | None) -> bool:
    """Whether a version of Python such as ``3.11.7`` is what was asked for; of ``3.11.2`` only ``3.11`` counts."""
    if not wanted:
        return True
    if wanted[0].isdigit():
        asked = wanted.rstrip("*").rstrip(".").split(".")[:2]
        return version.split(".")[: len(asked)] == asked
    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except InvalidSpecifier:
        raise EnvironmentProblem(f"{wanted!r} is no version of Python; write it as 3.10 or >=3.8,<3.13") from None


def refuse_conda_packages(packages: Sequence[str], who: str) -> None:
    """A name of conda's may be something else, or somebody else's, in pip's index. Raises EnvironmentProblem."""
    others = [package for package in packages if conda_name(package) not in ("python", "pip")]
    if others:
        raise EnvironmentProblem(
            f"{who} asks for packages of conda ({', '.join(others)}), and the policy venv installs those of pip alone. "
            "Name them in pip_packages, by their names there, or use the policy conda"
        )


def virtual_environment(
    folder: Path, base: Interpreter, lines: Sequence[str], who: str, say: Say
) -> tuple[Path, Interpreter]:
    """The virtual environment with these packages; built if there is none yet.

    Args:
        folder: the workspace's folder of what is built.
        base: the interpreter that it is of.
        lines: for pip.
        who: for messages, such as ``the environment 'batch'``.

    Returns:
        its Python, and what that has.

    Raises:
        EnvironmentProblem: pip failed, with its last lines.
    """
    found: list[Interpreter] = []

    def make(target: Path, log: Path) -> None:
        environ = outside(HERE)
        run_builder([base.path, "-m", "venv", str(target)], "python -m venv", log, say, environ=environ)
        if lines:
            requirements = target / "requirements.txt"
            requirements.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            command = [str(_python(target)), "-m", "pip", "install", "--progress-bar", "off", "-r", str(requirements)]
            run_builder(command, f"{who}: pip", log, say, environ=environ, telling=_telling)

    def check(target: Path) -> None:
        found.append(ask(_python(target)))

    parts = {
        "policy": "venv",
        "python": [os.path.realpath(base.path), base.dotted, platform.machine()],
        "lines": list(lines),
        "places": {line: _state_of(line) for line in lines},
    }
    target = built(folder / digest_of(parts), f"the virtual environment of {who}", say, make, check)
    return _python(target), found[-1]


def _python(target: Path) -> Path:
    return target / "bin" / "python"


def _telling(line: str) -> str:
    found = _PROGRESS.match(line)
    return f"pip: {found[1][:_LONGEST_PROGRESS]}" if found else ""


def _state_of(line: str) -> Any:
    """What tells that the files which a line names have changed since: names, sizes, times. None: it names none."""
    path = Path(local_path(line)).expanduser()
    if not local_path(line) or (is_option(line) and line.startswith(("-f", "--find-links"))):
        return None
    if not path.is_dir():
        status = path.stat() if path.exists() else None
        return status and [status.st_size, status.st_mtime_ns]
    state = []
    for name in walk(path, _is_made_by_pip):
        with contextlib.suppress(OSError):  # somebody is at work there, or a link is broken
            status = (path / name).stat()
            state.append([name, status.st_size, status.st_mtime_ns])
    return digest_of({"files": state})


def _is_made_by_pip(name: str) -> bool:
    last = name[:-1].rpartition("/")[2]
    return name.endswith("/") and (last in _MADE_BY_PIP or last.endswith(".egg-info"))

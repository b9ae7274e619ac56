"""Environments that are installed: by pip (the policy ``venv``), by conda, mamba or micromamba (``conda``)."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from mpi_prs.azureml.environments.build_cache import Say, built, digest_of, outside, run_builder
from mpi_prs.azureml.environments.interpreter import Interpreter, ask, this_interpreter
from mpi_prs.azureml.environments.packages import CondaDependencies, conda_name, is_option, local_path
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import ConfigError, EnvironmentProblem
from mpi_prs.core.files import walk
from mpi_prs.core.yaml import as_yaml, parse_yaml

_PROGRESS_OF_PIP = re.compile(r"\s*(Downloading .*(?:MB|GB)\)|Building wheel for .*|Installing collected packages: .*)")
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
            run_builder(command, f"{who}: pip", log, say, environ=environ, telling=_telling_of_pip)

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


def _telling_of_pip(line: str) -> str:
    found = _PROGRESS_OF_PIP.match(line)
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


# By conda

_PROGRAMS = ("mamba", "micromamba", "conda")
_PROGRESS_OF_CONDA = re.compile(
    r"\s*((?:Collecting package metadata|Solving environment|Preparing|Verifying|Executing|Installing).*)"
)
_ANSWERS = {"CONDA_ALWAYS_YES": "1", "MAMBA_ALWAYS_YES": "1"}
"""Not all of these programs have the same option for it."""


def conda_program(setting: str | None, environ: Mapping[str, str]) -> str:
    """The program that makes environments: the workspace's, that of an initialised conda, or one in PATH.

    Raises:
        EnvironmentProblem: there is none.
    """
    if setting is not None:
        if found := shutil.which(setting):
            return found
        raise EnvironmentProblem(f"the workspace's setting conda names {setting}, which is no program here")
    for variable in ("MAMBA_EXE", "CONDA_EXE"):
        if (path := environ.get(variable)) and os.access(path, os.X_OK):
            return path
    for name in _PROGRAMS:
        if found := shutil.which(name, path=environ.get("PATH")):
            return found
    raise EnvironmentProblem(
        f"there is none of {', '.join(_PROGRAMS)} in PATH; load or install one, name it by "
        'ws.update_settings(conda="/path/of/conda"), or use the policy venv or current'
    )


def conda_environment(
    folder: Path, program: str, specification: Mapping[str, Any], who: str, say: Say
) -> tuple[Path, Interpreter]:
    """The conda environment of a specification; made if there is none yet.

    Args:
        folder: the workspace's folder of what is built.
        program: conda, mamba or micromamba.
        specification: as a conda environment file says it, with a Python.
        who: for messages, such as ``the environment 'batch'``.

    Returns:
        its Python, and what that has.

    Raises:
        EnvironmentProblem: the program failed, with its last lines.
    """
    found: list[Interpreter] = []

    def make(target: Path, log: Path) -> None:
        file = log.with_name("environment.yml")
        file.write_text(as_yaml(dict(specification)), encoding="utf-8")
        verb = ["create"] if Path(program).name.startswith("micromamba") else ["env", "create"]
        target.rmdir()  # conda makes it, and refuses one that is there
        command = [program, *verb, "--prefix", str(target), "--file", str(file)]
        environ = {**outside(HERE), **_ANSWERS}
        run_builder(command, f"{who}: {Path(program).name}", log, say, environ=environ, telling=_telling_of_conda)

    def check(target: Path) -> None:
        found.append(ask(_python(target)))

    parts = {"policy": "conda", "specification": dict(specification), "machine": platform.machine()}
    target = built(folder / digest_of(parts), f"the conda environment of {who}", say, make, check)
    return _python(target), found[-1]


def specification(packages: Sequence[str], channels: Sequence[str], pip_lines: Sequence[str]) -> dict[str, Any]:
    """A conda environment file's content, with this Python's version where none is asked for, and pip if need be."""
    dependencies: list[Any] = list(packages)
    names = {conda_name(package) for package in packages}
    if "python" not in names:
        dependencies.insert(0, f"python={'.'.join(map(str, this_interpreter().version[:2]))}")
    if pip_lines:
        if "pip" not in names:
            dependencies.append("pip")
        dependencies.append({"pip": list(pip_lines)})
    return {"channels": list(channels), "dependencies": dependencies}


def exported(name: str) -> CondaDependencies:
    """The packages of an environment that conda has on this machine.

    Args:
        name: of the environment, or its path.

    Raises:
        EnvironmentProblem: there is no conda here, or no such environment.
    """
    program = conda_program(None, HERE)
    which = ["--prefix", name] if "/" in name else ["--name", name]
    command = [program, "env", "export", *which, "--no-builds"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise EnvironmentProblem(f"{' '.join(command)} failed (exit code {done.returncode}): {' '.join(said)}")
    try:
        data = parse_yaml(done.stdout, f"the answer of {' '.join(command)}")
    except ConfigError as error:
        raise EnvironmentProblem(str(error)) from None
    if isinstance(data, dict):
        data.pop("variables", None)
    return CondaDependencies.from_definition(data, f"the conda environment {name!r}")


def _telling_of_conda(line: str) -> str:
    found = _PROGRESS_OF_CONDA.match(line)
    return f"conda: {found[1]}" if found else ""

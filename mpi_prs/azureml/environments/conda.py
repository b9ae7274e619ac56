"""The policy ``conda``: an environment that conda, mamba or micromamba makes."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpi_prs.azureml.environments.build_cache import Say, built, digest_of, outside, run_builder
from mpi_prs.azureml.environments.conda_dependencies import CondaDependencies
from mpi_prs.azureml.environments.interpreter import Interpreter, ask, this_interpreter
from mpi_prs.azureml.environments.requirements import conda_name
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import ConfigError, EnvironmentProblem
from mpi_prs.core.yaml import as_yaml, parse_yaml

_PROGRAMS = ("mamba", "micromamba", "conda")
_PROGRESS = re.compile(
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
        run_builder(command, f"{who}: {Path(program).name}", log, say, environ=environ, telling=_telling)

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


def _python(target: Path) -> Path:
    return target / "bin" / "python"


def _telling(line: str) -> str:
    found = _PROGRESS.match(line)
    return f"conda: {found[1]}" if found else ""

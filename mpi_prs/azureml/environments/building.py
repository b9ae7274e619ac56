"""From the definition of an environment to an interpreter, on the machine that submits (a login node).

::

    policy                       from: environment.policy, else the workspace's setting environment_policy, else
                                 MPI_PRS_ENVIRONMENT_POLICY, else current
    current                      the interpreter at hand; what it lacks is said
    venv                         a virtual environment, made once per definition (installing.py)
    conda                        a conda environment, made once per definition (installing.py)
    container                    docker.base_image, run by Apptainer (container.py); only if asked for
    /path/of/a/python            that one, as it is; what it lacks is said

``user_managed_dependencies`` means that nothing is installed: ``interpreter_path`` is used as it is, inside the image
with the policy ``container``. Azure's own packages are never installed nor missed, since mpi_prs stands for them.

A script for TensorFlow 1, whose environment asks for one, runs on TensorFlow 2 through its v1 interface: the user
processes are told so by ``MPI_PRS_TENSORFLOW1``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mpi_prs.azureml.environments import container as containers
from mpi_prs.azureml.environments.build_cache import Say
from mpi_prs.azureml.environments.installing import (
    base_interpreter,
    conda_environment,
    conda_program,
    fits,
    refuse_conda_packages,
    specification,
    virtual_environment,
)
from mpi_prs.azureml.environments.interpreter import Interpreter, ask, this_interpreter
from mpi_prs.azureml.environments.packages import (
    anchored,
    conda_name,
    conda_requirement,
    differences,
    for_tensorflow2,
    tensorflow1,
    tensorflow_version,
    without_azure,
)
from mpi_prs.azureml.environments.sections import (
    DEFAULT_INTERPRETER,
    POLICIES,
    DockerSection,
    PythonSection,
    check_policy,
)
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.core.environ import ENVIRONMENT_POLICY, HERE, TABLES_IN_FILES, TENSORFLOW1
from mpi_prs.core.errors import EnvironmentProblem


class Definition(Protocol):
    """What is asked of an ``Environment`` here."""

    @property
    def name(self) -> str: ...

    @property
    def python(self) -> PythonSection: ...

    @property
    def docker(self) -> DockerSection: ...

    @property
    def environment_variables(self) -> dict[str, str]: ...

    @property
    def policy(self) -> str | None: ...


@dataclass(frozen=True)
class _Default:
    """The environment of who asks for none."""

    name: str = "default"
    python: PythonSection = field(default_factory=PythonSection)
    docker: DockerSection = field(default_factory=DockerSection)
    environment_variables: dict[str, str] = field(default_factory=dict)
    policy: str | None = None


@dataclass(frozen=True)
class PreparedEnvironment:
    """What a job takes over.

    Attributes:
        interpreter: the Python of the user processes, absolute; ``None``: the one that runs mpi_prs.
        environment_variables: all that the user processes get because of the environment, those of its definition
            included.
        notes: lines for the log: which interpreter, and where it differs from what was asked for.
    """

    interpreter: str | None
    environment_variables: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Wish:
    """What an environment asks for, in pip's words where it can be said in them."""

    who: str
    python: str | None
    conda_packages: Sequence[str]
    pip_lines: Sequence[str]

    @classmethod
    def of(cls, environment: Definition) -> _Wish:
        packages = environment.python.conda_dependencies
        lines = [anchored(line, Path.cwd()) for line in packages.pip_lines()]
        return cls(f"the environment {environment.name!r}", packages.python_version, packages.conda_packages, lines)

    @property
    def requirements(self) -> list[str]:
        """All packages but Python and Azure's, to compare with."""
        others = [conda_requirement(p) for p in self.conda_packages if conda_name(p) not in ("python", "pip")]
        return [*others, *without_azure(self.pip_lines)]


def policy_of(environment: Definition, settings: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The policy: one of the four names, or the path of an interpreter (or a program in PATH).

    An environment that manages its own dependencies has nothing to be installed.

    Raises:
        EnvironmentProblem: the workspace or the variable names a policy that does not exist.
    """
    general = check_policy("the workspace's setting environment_policy", settings.get("environment_policy"))
    general = general or check_policy(ENVIRONMENT_POLICY.name, ENVIRONMENT_POLICY.of(environ))
    policy = environment.policy or general or "current"
    if not environment.python.user_managed_dependencies or policy == "container" or "/" in policy:
        return policy
    if environment.policy in ("venv", "conda"):
        raise EnvironmentProblem(
            f"the environment {environment.name!r} has the policy {policy}, which installs packages, and "
            "user_managed_dependencies=True, which forbids it; set one of the two"
        )
    own = environment.python.interpreter_path
    return "current" if own == DEFAULT_INTERPRETER else own


def prepare(environment: Definition | None, workspace: Workspace, say: Say) -> PreparedEnvironment:
    """Have the environment, built if need be, and say what differs.

    Args:
        environment: ``None``: the interpreter at hand, unless the workspace's policy is an interpreter.
        workspace: where what is built is kept, and whose settings count.
        say: is told at once what takes long.

    Raises:
        EnvironmentProblem: it cannot be had.
    """
    settings = workspace.settings
    if environment is None:
        environment = _Default()
        if policy_of(environment, settings, HERE) in POLICIES:  # nothing is asked for
            return PreparedEnvironment(None)
    policy = policy_of(environment, settings, HERE)
    wish = _Wish.of(environment)
    folder = workspace.layout.built
    isolation = {"PYTHONPATH": ""}  # it may name the packages of another interpreter, of a module system say
    if policy == "current":
        chosen, found, isolation = None, this_interpreter(), {}
        how = f"the Python at hand ({found.path}, {found.dotted})"
    elif policy == "venv":
        refuse_conda_packages(wish.conda_packages, wish.who)
        base = base_interpreter(wish.python, wish.who)
        lines = for_tensorflow2(without_azure(wish.pip_lines), base.version[:2])
        path, found = virtual_environment(folder, base, lines, wish.who, say)
        chosen, how = str(path), f"the virtual environment {path.parent.parent} (Python {found.dotted})"
    elif policy == "conda":
        program = conda_program(settings.get("conda"), HERE)
        python = _release(wish.python)
        lines = for_tensorflow2(without_azure(wish.pip_lines), python)
        channels = environment.python.conda_dependencies.conda_channels
        wanted = specification(wish.conda_packages, channels, lines)
        path, found = conda_environment(folder, program, wanted, wish.who, say)
        chosen, how = str(path), f"the conda environment {path.parent.parent} (Python {found.dotted})"
    elif policy == "container":
        path, found, image = _container(environment, workspace, wish, say)
        chosen, isolation = str(path), {TABLES_IN_FILES.name: "1"}  # and the wrapper sees to the Python path
        how = f"the container {image} (Python {found.dotted})"
    else:
        chosen = _own_interpreter(policy, wish.who)
        found, isolation = ask(chosen), {}
        how = f"{chosen} (Python {found.dotted})"
    tensorflow = _tensorflow1_note(wish, found)
    variables = {TENSORFLOW1.name: "1"} if tensorflow else {}
    notes = [f"{wish.who} uses {how}", *_differences(wish, found, policy), *([tensorflow] if tensorflow else [])]
    if policy == "current" and environment.docker.enabled and environment.docker.base_image:
        notes.append(f"the image {environment.docker.base_image} is not used: that takes the policy container")
    return PreparedEnvironment(chosen, {**isolation, **variables, **environment.environment_variables}, notes)


def _container(environment: Definition, workspace: Workspace, wish: _Wish, say: Say) -> tuple[Path, Interpreter, str]:
    docker, python = environment.docker, environment.python
    program = containers.container_program(workspace.settings.get("apptainer"))
    source = containers.image_source(docker.base_image, docker.base_dockerfile, wish.who)
    options = containers.apptainer_options(docker.arguments)
    inside = python.interpreter_path if python.user_managed_dependencies else DEFAULT_INTERPRETER
    inside = "python3" if inside == DEFAULT_INTERPRETER else inside
    folder, seen = workspace.layout.built, [workspace.folder]
    path, found = containers.container(
        folder, program, source, inside, options, seen, environment.environment_variables, wish.who, say
    )
    return path, found, source[0]


def _own_interpreter(path: str, who: str) -> str:
    """The absolute path of an interpreter that the user has named. Raises EnvironmentProblem."""
    expanded = os.path.expanduser(path)
    found = os.path.abspath(expanded) if "/" in expanded else shutil.which(expanded)
    if found is None or not os.path.exists(found):
        where = "in PATH" if "/" not in expanded else "here"
        raise EnvironmentProblem(f"{who} names the interpreter {path}, and there is none {where}; correct the path")
    if os.path.isdir(found) or not os.access(found, os.X_OK):
        raise EnvironmentProblem(f"{who} names the interpreter {path}, which is not a program; give a Python's path")
    return found


def _release(wanted: str | None) -> tuple[int, int]:
    """The version of Python that conda will take, as far as it is said; else this one's."""
    parts = (wanted or "").rstrip(".*").split(".")
    if len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit():
        return int(parts[0]), int(parts[1])
    return this_interpreter().version[:2]


def _differences(wish: _Wish, found: Interpreter, policy: str) -> list[str]:
    """What the interpreter has not as asked for, a line each."""
    said = []
    if policy != "conda" and not fits(found.dotted, wish.python):
        said.append(f"another Python than asked for: {found.dotted} for {wish.python}")
    if found.names_and_versions is None:
        return [*said, "its packages are not compared: this Python is too old to tell them"]
    if policy in ("venv", "conda"):  # pip and conda have seen to the rest
        return said
    requirements = wish.requirements
    if _tensorflow1_note(wish, found):
        requirements = [line for line in requirements if not tensorflow1([line])]
    return [*said, *differences(requirements, found.packages, found.dotted).sentences()]


def _tensorflow1_note(wish: _Wish, found: Interpreter) -> str | None:
    """How a script for TensorFlow 1 gets along with a later one; ``None``: nothing of that kind."""
    wanted, there = tensorflow1(wish.requirements), tensorflow_version(found.packages)
    if wanted is None or there is None or there.split(".")[0] in ("0", "1"):
        return None
    return f"{wanted} is asked for, and TensorFlow {there} is here: scripts run through its v1 interface, tf.compat.v1"

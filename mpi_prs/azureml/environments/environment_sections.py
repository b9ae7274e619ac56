"""The sections of an environment: Python, Docker, Spark; and the names of its policies and images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mpi_prs.azureml.environments.conda_dependencies import CondaDependencies
from mpi_prs.azureml.environments.sections import Field, Section, optional_text, text, texts, truth, wrong
from mpi_prs.child.context.data import DEFAULT_CPU_IMAGE
from mpi_prs.core.errors import EnvironmentProblem
from mpi_prs.core.words import near

POLICIES = ("current", "venv", "conda", "container")
DEFAULT_INTERPRETER = "python"

IMAGE_ADVICE = "build the image elsewhere, and give docker.base_image its name in a registry or the path of a .sif file"
REGISTRY_ADVICE = (
    "write the registry before the image, such as registry.example.org/name:tag; "
    "`apptainer registry login` keeps the password"
)


def check_policy(label: str, value: Any) -> str | None:
    """One of the policies, the path of an interpreter, or None. Raises EnvironmentProblem."""
    policy = optional_text(label, value)
    if policy is None or policy in POLICIES or "/" in policy:
        return policy
    raise EnvironmentProblem(
        f"{label}: {policy!r} is no policy{near(policy, POLICIES)} (the path of a Python interpreter is one, too)"
    )


def _conda(label: str, value: Any) -> CondaDependencies:
    if value is None:
        return CondaDependencies()
    if not isinstance(value, CondaDependencies):
        raise wrong(label, "CondaDependencies, such as CondaDependencies.create(pip_packages=[…])", value)
    return value


class PythonSection(Section):
    """Which Python, and which packages.

    Attributes:
        user_managed_dependencies: the interpreter is used as it is, and nothing is installed.
        interpreter_path: that interpreter, a path or a program in PATH; ``python`` means the one at hand.
        conda_dependencies: the packages.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "base_conda_environment": "use Environment.from_existing_conda_environment",
        "cache_environment": "what is built is always kept",
    }

    user_managed_dependencies = Field(lambda: False, truth)
    interpreter_path = Field(lambda: DEFAULT_INTERPRETER, text)
    conda_dependencies = Field(CondaDependencies, _conda)

    @property
    def conda_dependencies_file(self) -> str | None:
        """The environment file that the packages were read from; setting it reads it. Azure has it as deprecated."""
        found: str | None = self.__dict__.get("_file")
        return found

    @conda_dependencies_file.setter
    def conda_dependencies_file(self, path: str | Path | None) -> None:
        if path is not None:
            self.conda_dependencies = CondaDependencies(path)
        self._file = None if path is None else str(path)

    def definition(self) -> dict[str, Any]:
        """As JSON."""
        return {**super().definition(), "condaDependencies": self.conda_dependencies.as_dict()}


class DockerSection(Section):
    """Which image, for the policy ``container``; it is run by Apptainer, not by Docker.

    Attributes:
        enabled: accepted and ignored: the policy decides.
        base_image: an image in a registry, or the path of a ``.sif`` file; it is used as it is, and needs a Python.
        base_dockerfile: refused when a job needs it, since Apptainer builds nothing from it.
        arguments: options for ``docker run``, of which ``-v`` and ``-e`` are translated; or Apptainer's ``--bind``.
        shared_volumes, shm_size, gpu_support: accepted and ignored: a container sees the node's shared memory, its GPUs
            and its filesystems.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "base_image_registry": REGISTRY_ADVICE,
        "build_context": IMAGE_ADVICE,
        "platform": "the image has to be one for this machine",
    }

    enabled = Field(lambda: False, truth)
    base_image: Field[str | None] = Field(lambda: DEFAULT_CPU_IMAGE, optional_text)
    base_dockerfile: Field[str | None] = Field(lambda: None, optional_text)
    arguments: Field[list[str]] = Field(list, texts)
    shared_volumes = Field(lambda: True, truth)
    shm_size: Field[str | None] = Field(lambda: "2g", optional_text)
    gpu_support = Field(lambda: False, truth)


class SparkSection(Section):
    """Settings of Spark's, which no job here uses: accepted and ignored."""

    precache_packages = Field(lambda: True, truth)
    packages: Field[list[str]] = Field(list, texts)
    repositories: Field[list[str]] = Field(list, texts)

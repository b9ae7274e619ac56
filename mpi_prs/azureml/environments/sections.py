"""Settings in sections, as Azure's classes have them: ``environment.docker.enabled = True``.

A field that does not exist cannot be set, so that a slip of the pen (``docker.base_imgae``) is not silent; a value of
the wrong kind is refused where it is set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, overload

from mpi_prs.azureml.environments.packages import CondaDependencies
from mpi_prs.child.context.data import DEFAULT_CPU_IMAGE
from mpi_prs.core import values
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import EnvironmentProblem
from mpi_prs.core.words import near

T = TypeVar("T")


class Field(Generic[T]):
    """One field of a section.

    Args:
        make: makes the value that it has until another is set.
        check: gets the field's name, such as ``DockerSection.enabled``, and a value; returns what is kept.
    """

    def __init__(self, make: Callable[[], T], check: Callable[[str, Any], T]) -> None:
        self._make = make
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._label = f"{owner.__name__}.{name}"

    @property
    def key(self) -> str:
        """Its name in JSON, as Azure writes it: ``base_image`` is ``baseImage``."""
        return re.sub(r"_([a-z])", lambda found: found[1].upper(), self._name)

    @overload
    def __get__(self, section: None, owner: type) -> Field[T]: ...

    @overload
    def __get__(self, section: EnvironmentSection, owner: type) -> T: ...

    def __get__(self, section: EnvironmentSection | None, owner: type) -> T | Field[T]:
        if section is None:
            return self
        found: T = section.__dict__.setdefault(self._name, self._make())
        return found

    def __set__(self, section: EnvironmentSection, value: Any) -> None:
        section.__dict__[self._name] = self._check(self._label, value)

    def current(self, section: EnvironmentSection) -> T:
        """The value, checked again: lists and dicts may have been changed since they were set."""
        return self._check(self._label, self.__get__(section, type(section)))


class EnvironmentSection(Surface):
    """A group of fields."""

    def __init__(self, **given: Any) -> None:
        for name, value in given.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            getattr(type(self), name)  # AttributeError with what to use: there is no such field
        object.__setattr__(self, name, value)

    @classmethod
    def fields(cls) -> dict[str, Field[Any]]:
        """Name → field, in the order of their definition."""
        return {
            name: field
            for kind in reversed(cls.__mro__)
            for name, field in vars(kind).items()
            if isinstance(field, Field)
        }

    def definition(self) -> dict[str, Any]:
        """As JSON, with Azure's names.

        Raises:
            EnvironmentProblem: a list or a dict now holds what does not belong there.
        """
        return {field.key: field.current(self) for field in type(self).fields().values()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in type(self).fields())})"


def wrong(label: str, expected: str, value: object) -> EnvironmentProblem:
    """The error for a value of the wrong kind; it does not show the value, which may be secret."""
    return EnvironmentProblem(key=label, got=values.kind(value), expected=f"expected {expected}")


def checked(check: Callable[[Any], T]) -> Callable[[str, Any], T]:
    """A check of ``core.values`` for a field: None is refused. Raises EnvironmentProblem."""

    def check_field(label: str, value: Any) -> T:
        try:
            return check(value)
        except values.WrongValue as error:
            raise EnvironmentProblem(**error.fields(label, secret=True)) from None

    return check_field


truth = checked(values.truth)
text = checked(values.name)


def optional_text(label: str, value: Any) -> str | None:
    """A text or None; an empty text is None. Raises EnvironmentProblem."""
    return None if value is None or value == "" else text(label, value)


def texts(label: str, value: Any) -> list[str]:
    """A list of texts; None is an empty one. Raises EnvironmentProblem; a single text is a slip, too."""
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise wrong(label, 'a list of texts, such as ["numpy"]', value)
    return [text(f"{label}[{index}]", each) for index, each in enumerate(value)]


def variables(label: str, value: Any) -> dict[str, str]:
    """Environment variables; None is none. Raises EnvironmentProblem."""
    return {} if value is None else checked(values.variables)(label, value)


# Those of an environment, and the names of its policies and images

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


class PythonSection(EnvironmentSection):
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


class DockerSection(EnvironmentSection):
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


class SparkSection(EnvironmentSection):
    """Settings of Spark's, which no job here uses: accepted and ignored."""

    precache_packages = Field(lambda: True, truth)
    packages: Field[list[str]] = Field(list, texts)
    repositories: Field[list[str]] = Field(list, texts)

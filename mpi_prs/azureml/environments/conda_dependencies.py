"""``azureml.core.conda_dependencies``: which packages an environment has, as a conda environment file says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mpi_prs.azureml.environments.requirements import (
    check_conda_package,
    check_line,
    conda_name,
    is_option,
    name_of,
    read_requirements,
    read_text,
)
from mpi_prs.child.context.given_path import given_path
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import ConfigError, EnvironmentProblem
from mpi_prs.core.files import replacing
from mpi_prs.core.yaml import as_yaml, parse_yaml

DEFAULT_CHANNELS = ("conda-forge",)
DEFAULT_FILE = "conda_dependencies.yml"
_NAME = "project_environment"
_INDEX_OPTIONS = ("--index-url", "-i")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,2}")


class CondaDependencies(Surface):
    """Packages of pip and of conda, and the version of Python.

    Azure's packages (``azureml-…``) may be among them, and need not: mpi_prs stands for them.

    Args:
        conda_dependencies_file_path: a conda environment file to begin with.

    Raises:
        EnvironmentProblem: the file is not there, broken, or says what cannot be kept.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "add_tensorflow_pip_package": 'use add_pip_package("tensorflow==…")',
        "add_tensorflow_conda_package": 'use add_conda_package("tensorflow=…")',
        "add_cntk_package": "CNTK is no longer made; use add_pip_package with what you need",
        "sdk_origin_url": "mpi_prs stands for Azure's SDK, and installs none of it",
        "sdk_scope": "mpi_prs stands for Azure's SDK, and installs none of it",
    }

    def __init__(self, conda_dependencies_file_path: str | Path | None = None) -> None:
        self._channels: list[str] = list(DEFAULT_CHANNELS)
        self._conda: list[str] = []
        self._pip: list[str] = []
        self._name = _NAME
        if conda_dependencies_file_path is not None:
            self._fill(*_read_yaml(given_path("conda_dependencies_file_path", conda_dependencies_file_path)))

    @staticmethod
    def create(
        pip_indexurl: str | None = None,
        pip_packages: Sequence[str] | None = None,
        conda_packages: Sequence[str] | None = None,
        python_version: str | None = None,
        pin_sdk_version: bool = True,
    ) -> CondaDependencies:
        """Packages and a version of Python.

        Args:
            pip_indexurl: the URL of a package index in place of pip's default.
            pip_packages: as in a requirements file, options and paths included.
            conda_packages: as ``conda install`` takes them.
            python_version: such as ``3.10``; default: the one that mpi_prs runs with (Azure has a fixed one).
            pin_sdk_version: accepted and ignored, since no SDK of Azure's is installed.

        Raises:
            EnvironmentProblem: a package is none, or something is not a list.
        """
        del pin_sdk_version
        made = CondaDependencies()
        if python_version is not None:
            made.set_python_version(python_version)
        for package in _listed("conda_packages", conda_packages):
            made.add_conda_package(package)
        if pip_indexurl is not None:
            made.set_pip_index_url(pip_indexurl)
        for line in _listed("pip_packages", pip_packages):
            made.add_pip_package(line)
        return made

    # What there is

    @property
    def pip_packages(self) -> list[str]:
        """A copy of the lines for pip that name packages or places."""
        return [line for line in self._pip if not is_option(line)]

    @property
    def pip_options(self) -> list[str]:
        """A copy of the options for pip."""
        return [line for line in self._pip if is_option(line)]

    @property
    def conda_packages(self) -> list[str]:
        """A copy of the packages of conda, ``python=…`` among them."""
        return list(self._conda)

    @property
    def conda_channels(self) -> list[str]:
        """A copy of the channels that conda looks into."""
        return list(self._channels)

    def pip_lines(self) -> list[str]:
        """All lines for pip in their order, options included; an extension of ours."""
        return list(self._pip)

    def get_python_version(self) -> str | None:
        """The version of Python, such as ``3.10`` or ``>=3.8``; ``None``: any."""
        found = next((package for package in self._conda if conda_name(package) == "python"), None)
        if found is None:
            return None
        rest = re.sub(r"^(?:[^\s:]+::)?python", "", found, count=1, flags=re.IGNORECASE)
        return re.sub("^==?", "", rest.strip()).split("=")[0] if rest.strip()[:1] == "=" else rest

    python_version = property(get_python_version)

    # pip

    def add_pip_package(self, pip_package: str) -> None:
        """Ask for a package, in place of what was asked for by the same name. Raises EnvironmentProblem."""
        line = check_line("pip_package", pip_package)
        name = name_of(line)
        for index, other in enumerate(self._pip):
            if other == line or (name and name_of(other) == name):
                self._pip[index] = line
                return
        self._pip.append(line)

    def remove_pip_package(self, pip_package: str) -> None:
        """Ask for a package no longer; nothing happens where it was not asked for."""
        line = check_line("pip_package", pip_package)
        name = name_of(line)
        self._pip = [other for other in self._pip if other != line and not (name and name_of(other) == name)]

    def set_pip_requirements(self, pip_requirements: Sequence[str]) -> None:
        """Put lines in place of all packages for pip; its options stay. Raises EnvironmentProblem."""
        lines = [check_line("pip_requirements", line) for line in _listed("pip_requirements", pip_requirements)]
        self._pip = [*self.pip_options, *lines]

    def set_pip_option(self, pip_option: str) -> None:
        """Give pip an option, such as ``--pre``. Raises EnvironmentProblem."""
        line = check_line("pip_option", pip_option)
        if not is_option(line):
            raise EnvironmentProblem(f"pip_option: {line!r} is no option of pip's; those begin with -, such as --pre")
        if line not in self._pip:
            self._pip.insert(len(self.pip_options), line)

    def remove_pip_option(self, pip_option: str) -> None:
        """Take an option back, with its value or without; nothing happens where it was not given."""
        self._pip = [
            line
            for line in self._pip
            if not is_option(line) or (line != pip_option and re.split(r"[\s=]", line)[0] != pip_option)
        ]

    def set_pip_index_url(self, index_url: str) -> None:
        """Let pip use another package index, by its URL or as the whole option. Raises EnvironmentProblem."""
        option = index_url if isinstance(index_url, str) and index_url.startswith("-") else f"--index-url {index_url}"
        self.remove_pip_index_url()
        self.set_pip_option(option)

    def remove_pip_index_url(self) -> None:
        """Let pip use its default index."""
        for option in _INDEX_OPTIONS:
            self.remove_pip_option(option)

    # conda

    def add_conda_package(self, conda_package: str) -> None:
        """Ask for a package of conda's, in place of what was asked for by the same name. Raises EnvironmentProblem."""
        package = check_conda_package("conda_package", conda_package)
        for index, other in enumerate(self._conda):
            if conda_name(other) == conda_name(package):
                self._conda[index] = package
                return
        self._conda.append(package)

    def remove_conda_package(self, conda_package: str) -> None:
        """Ask for a package no longer; nothing happens where it was not asked for."""
        name = conda_name(check_conda_package("conda_package", conda_package))
        self._conda = [other for other in self._conda if conda_name(other) != name]

    def add_channel(self, channel: str) -> None:
        """Let conda look into another channel, after those that it looks into already."""
        if not isinstance(channel, str) or not channel.strip():
            raise EnvironmentProblem(f"channel: expected a name or a URL, got {channel!r}")
        if channel not in self._channels:
            self._channels.append(channel)

    def remove_channel(self, channel: str) -> None:
        """Let conda look into a channel no longer; nothing happens where it did not."""
        self._channels = [other for other in self._channels if other != channel]

    def set_python_version(self, version: str) -> None:
        """Ask for a version of Python, such as ``3.10``. Raises EnvironmentProblem."""
        text = version.strip() if isinstance(version, str) else ""
        if not _VERSION.fullmatch(text):
            raise EnvironmentProblem(f'python_version: expected a text such as "3.10", got {version!r}')
        self.remove_conda_package("python")
        self._conda.insert(0, f"python={text}")

    # Files

    @staticmethod
    def from_definition(definition: Mapping[str, Any], source: str = "the definition") -> CondaDependencies:
        """The inverse of :meth:`as_dict`; also what a conda environment file says. Raises EnvironmentProblem."""
        made = CondaDependencies()
        made._fill(definition, source)
        return made

    def as_dict(self) -> dict[str, Any]:
        """As a conda environment file says it."""
        dependencies: list[Any] = list(self._conda)
        if self._pip:
            dependencies.append({"pip": list(self._pip)})
        return {"name": self._name, "channels": list(self._channels), "dependencies": dependencies}

    def serialize_to_string(self) -> str:
        """As a conda environment file, which is YAML."""
        return as_yaml(self.as_dict())

    def save_to_file(self, base_directory: str | Path, conda_file_path: str | Path | None = None) -> str:
        """Write the environment file.

        Args:
            base_directory: the folder; it must exist.
            conda_file_path: the file's name or path below it; default ``conda_dependencies.yml``.

        Returns:
            ``conda_file_path``, or its default.

        Raises:
            EnvironmentProblem: it cannot be written.
        """
        name = str(conda_file_path or DEFAULT_FILE)
        self._write(given_path("base_directory", base_directory) / name)
        return name

    def save(self, path: str | Path | None = None) -> str:
        """Write the environment file to ``path``, default ``conda_dependencies.yml``, and return its path."""
        target = given_path("path", path or DEFAULT_FILE)
        if target.is_dir():
            target = target / DEFAULT_FILE
        self._write(target)
        return str(target)

    def _write(self, path: Path) -> None:
        try:
            with replacing(path) as file:
                file.write(self.serialize_to_string().encode())
        except OSError as error:
            raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None

    @staticmethod
    def merge_requirements(requirements: Sequence[str]) -> list[str]:
        """Requirements for pip, the last one of each package."""
        merged = CondaDependencies()
        for line in _listed("requirements", requirements):
            merged.add_pip_package(line)
        return merged.pip_lines()

    def _fill(self, data: Any, source: str) -> None:
        """Take over what an environment file says."""
        if not isinstance(data, Mapping):
            raise EnvironmentProblem(f"{source}: expected a conda environment file with `dependencies:`")
        unknown = [str(key) for key in data if key not in ("name", "prefix", "channels", "dependencies")]
        if "variables" in unknown:
            raise EnvironmentProblem(
                f"{source}: `variables:` are set by `conda activate`, which a job does not do; "
                "put them into Environment.environment_variables"
            )
        if unknown:
            raise EnvironmentProblem(
                f"{source}: {unknown[0]!r} is no key of a conda environment file; "
                "there are name, channels and dependencies"
            )
        self._name = str(data.get("name") or _NAME)
        if data.get("channels") is not None:
            self._channels = []
            for channel in _listed(f"{source}: channels", data["channels"]):
                self.add_channel(channel)
        for entry in _listed(f"{source}: dependencies", data.get("dependencies")):
            if not isinstance(entry, Mapping):
                self._add_each(source, [entry], self.add_conda_package)
            elif list(entry) != ["pip"]:
                raise EnvironmentProblem(f"{source}: dependencies: expected texts and one `pip:` list")
            else:
                self._add_each(source, _listed(f"{source}: pip", entry["pip"]), self.add_pip_package)

    def _add_each(self, source: str, entries: Iterable[Any], add: Callable[[str], None]) -> None:
        for entry in entries:
            try:
                add(entry)
            except EnvironmentProblem as error:
                raise EnvironmentProblem(f"{source}: {error}") from None

    def __repr__(self) -> str:
        return f"CondaDependencies({self.as_dict()})"


def from_requirements_file(path: str | Path) -> CondaDependencies:
    """The packages that a requirements file asks for. Raises EnvironmentProblem."""
    made = CondaDependencies()
    made._pip = read_requirements(given_path("file_path", path))
    return made


def _listed(label: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise EnvironmentProblem(f'{label}: expected a list such as ["numpy"], got {type(value).__name__}')
    return list(value)


def _read_yaml(path: Path) -> tuple[Any, str]:
    try:
        return parse_yaml(read_text(path, "conda environment file"), str(path)), str(path)
    except ConfigError as error:
        raise EnvironmentProblem(str(error)) from None

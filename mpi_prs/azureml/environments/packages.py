"""Which packages an environment has: lines of a requirements file, conda's specifications, ``CondaDependencies``.

::

    "tensorflow==1.15.2"                        a requirement: a package and its versions
    "./lib", "https://…/x.whl", "git+ssh://…"   a place to install from
    "--extra-index-url …", "-e ./lib"           an option of pip's

Packages of conda are read as the requirements that they would be for pip. Nothing here runs anything or looks at an
interpreter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from mpi_prs.child.context.given_path import given_path
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import ConfigError, EnvironmentProblem, WorkspaceError
from mpi_prs.core.files import replacing
from mpi_prs.core.yaml import as_yaml, parse_yaml

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:$|[\[=<>!~;@(\s])")
_CONDA = re.compile(r"(?:[^\s:]+::)?([A-Za-z0-9_][A-Za-z0-9._-]*)\s*(.*)")
_NAMED_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*@\s")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_PLACE_OPTIONS = ("-e", "--editable", "-r", "--requirement", "-c", "--constraint", "-f", "--find-links")

_AZURE_RUNTIME = "azureml-dataset-runtime"
"""The one package of Azure's that scripts rely on for something else: it brings what a DataFrame needs."""
_RUNTIME_BRINGS = {"": ("numpy", "pyarrow"), "pandas": ("pandas",)}

_ALIKE = (
    ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorflow-intel", "tensorflow-rocm", "tf-nightly"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless", "opencv"),
    ("torch", "pytorch"),
    ("psycopg2", "psycopg2-binary"),
)
"""Distributions that bring the same modules; the last names of some are conda's."""
_TENSORFLOW = _ALIKE[0]
_LAST_PYTHON_OF_TENSORFLOW1 = (3, 7)


def without_login(text: str) -> str:
    """A text with the names and passwords in its URLs left out, to be shown."""
    return re.sub(r"://[^/\s@]+@", "://…@", text)


def normalized(name: str) -> str:
    """A package's name as indexes compare them: ``Azure_ML.Core`` is ``azure-ml-core``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_option(line: str) -> bool:
    """Whether it is an option of pip's."""
    return line.startswith("-")


def is_place(line: str) -> bool:
    """Whether it is a path, an archive or a URL."""
    bare = line.split(";", 1)[0].strip()
    if is_option(line) or _NAMED_PLACE.match(bare):
        return False
    return (
        re.match(r"[A-Za-z+]+://|file:", bare) is not None
        or bare.startswith((".", "/", "~"))
        or bare.lower().endswith(_ARCHIVES)
        or "/" in bare
    )


def name_of(line: str) -> str:
    """The normalized name of the package that a line asks for; empty: an option, or a place."""
    found = None if is_option(line) or is_place(line) else _NAME.match(line)
    return normalized(found[1]) if found else ""


def conda_name(package: str) -> str:
    """The name in a package of conda's, such as ``numpy`` in ``conda-forge::numpy=1.19``."""
    found = _CONDA.match(package.strip())
    return found[1].lower() if found else ""


def requirement_of(line: str) -> Requirement | None:
    """A line as ``packaging`` reads it; ``None``: an option, a place, or nothing that can be read."""
    if is_option(line) or is_place(line):
        return None
    try:
        return Requirement(line.split(" #", 1)[0].strip())
    except InvalidRequirement:
        return None


def check_line(label: str, line: Any) -> str:
    """A line for pip, without blanks around it.

    Raises:
        EnvironmentProblem: it is no text, several lines, or nothing that pip could read.
    """
    if not isinstance(line, str):
        raise EnvironmentProblem(f'{label}: expected a text such as "numpy>=1.24", got {type(line).__name__}')
    line = line.strip()
    if not line or not line.isprintable():
        raise EnvironmentProblem(f"{label}: expected one requirement such as 'numpy>=1.24', got {line!r}")
    if is_option(line) or is_place(line) or _is_requirement(line):
        return str(line)
    single = re.fullmatch(r"([A-Za-z0-9._-]+)\s*=\s*([^=].*)", line)
    hint = f"did you mean {single[1]}=={single[2]}?" if single else "write it as in a requirements file"
    raise EnvironmentProblem(f"{label}: {line!r} is no requirement that pip understands; {hint}")


def _is_requirement(line: str) -> bool:
    try:
        return requirement_of(line) is not None
    except WorkspaceError:  # a user process may have no `packaging`; lines that were written down have been checked
        return name_of(line) != ""


def check_conda_package(label: str, package: Any) -> str:
    """A package of conda's, without blanks around it. Raises EnvironmentProblem."""
    if not isinstance(package, str):
        raise EnvironmentProblem(f'{label}: expected a text such as "numpy=1.24", got {type(package).__name__}')
    package = package.strip()
    if not package.isprintable() or not _CONDA.fullmatch(package):
        raise EnvironmentProblem(f"{label}: expected a package of conda's such as 'numpy=1.24', got {package!r}")
    return str(package)


def conda_requirement(package: str) -> str:
    """A package of conda's as a requirement for pip: ``numpy=1.19=py38_0`` is ``numpy==1.19.*``.

    What has no such form (``numpy[build=…]``, ``1.19|1.20``) is the bare name.
    """
    found = _CONDA.match(package.strip())
    name, rest = (found[1], found[2].strip()) if found else (package, "")
    rest = re.sub(r"\s+", "", rest)
    if not rest or rest[0] == "[" or "|" in rest:
        return name
    exact = re.fullmatch(r"={0,2}([0-9][^=<>!~,]*)(?:=[^=]*)?", rest)
    if exact:
        fuzzy = rest.startswith("=") and not rest.startswith("==") and not exact[1].endswith("*")
        return f"{name}=={exact[1]}{'.*' if fuzzy else ''}"
    return f"{name}{rest}" if rest[0] in "<>!~" else name


# Requirements files


def read_requirements(path: Path, _above: tuple[Path, ...] = ()) -> list[str]:
    """The lines of a requirements file, those of the files that it names by ``-r`` in their place.

    Paths become absolute: relative to the file where there is something, else to the working directory, as pip has it.

    Raises:
        EnvironmentProblem: it cannot be read, or a line is nothing that pip understands; names file and line.
    """
    path = path.absolute()
    if path in _above:
        raise EnvironmentProblem(f"{path}: this requirements file includes itself")
    lines: list[str] = []
    for number, line in _logical_lines(read_text(path, "requirements file")):
        option, value = _option(line)
        if option in ("-r", "--requirement"):
            lines += read_requirements(path.parent / value, (*_above, path))
        else:
            lines.append(anchored(check_line(f"{path}, line {number}", line), path.parent))
    return lines


def read_text(path: Path, what: str) -> str:
    """A file that the user has written; ``what``: for the message. Raises EnvironmentProblem."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise EnvironmentProblem(f"there is no {what} {path}; correct the path") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise EnvironmentProblem(f"the {what} {path} cannot be read: {reason}") from None


def _logical_lines(content: str) -> Iterable[tuple[int, str]]:
    """Lines without comments, and with their continuations; each with the number of its first."""
    begun, start = "", 0
    for number, line in enumerate([*content.splitlines(), ""], 1):
        start = start or number
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        whole = re.sub(r"(^|\s)#.*$", "", begun + line).strip()
        if whole:
            yield start, whole
        begun, start = "", 0


def _option(line: str) -> tuple[str, str]:
    """An option of pip's and its value; empty: the line is none."""
    found = re.match(r"(--[a-z-]+|-[a-zA-Z])(?:\s*=\s*|\s+|(?<=^-[a-zA-Z]))(.*)", line)
    return (found[1], found[2].strip().strip("'\"")) if found else ("", "")


def local_path(line: str) -> str:
    """The local path that a line names, as it stands there; empty: none."""
    option, value = _option(line)
    if is_option(line):
        return value if option in _PLACE_OPTIONS and "://" not in value else ""
    bare = line.split(";", 1)[0].strip()
    if not is_place(line) and " @ " in bare:
        bare = bare.split(" @ ", 1)[1].strip()
    if bare.startswith("file:"):
        return re.sub(r"^file:(//)?", "", bare)
    return re.sub(r"\[[^\]]*\]$", "", bare) if is_place(line) and "://" not in bare else ""


def anchored(line: str, folder: Path) -> str:
    """The line with its local path made absolute, from ``folder`` if there is something, else from where we are."""
    path = local_path(line)
    if not path or os.path.isabs(path) or path.startswith("~"):
        return line
    base = folder if (folder / path).exists() else Path.cwd()
    return line.replace(path, os.path.normpath(base / path), 1)


# What mpi_prs stands for


def without_azure(lines: Sequence[str]) -> list[str]:
    """The lines without Azure's own packages, which mpi_prs stands for.

    What ``azureml-dataset-runtime[pandas]`` brings along for DataFrames is asked for instead of it.
    """
    named = {name_of(line) for line in lines}
    kept: list[str] = []
    for line in lines:
        if not name_of(line).startswith("azureml-"):
            kept.append(line)
        elif name_of(line) == _AZURE_RUNTIME:
            requirement = requirement_of(line)
            extras = {"", *(requirement.extras if requirement else ())}
            brought = [name for extra in sorted(extras) for name in _RUNTIME_BRINGS.get(extra, ())]
            kept += [name for name in brought if name not in named]
            named.update(brought)
    return kept


# TensorFlow 1


def tensorflow1(lines: Iterable[str]) -> str | None:
    """The line that asks for a TensorFlow below 2; ``None``: none does."""
    return next((line for line in lines if name_of(line) in _TENSORFLOW and _below_2(line)), None)


def _below_2(line: str) -> bool:
    requirement = requirement_of(line)
    for specifier in requirement.specifier if requirement else ():
        try:
            version = Version(specifier.version.removesuffix(".*"))
        except InvalidVersion:
            continue
        bound = version.release[0] < 2 or (specifier.operator == "<" and version == Version("2"))
        if bound and specifier.operator in ("==", "===", "~=", "<", "<="):
            return True
    return False


def for_tensorflow2(lines: Sequence[str], python: tuple[int, int]) -> list[str]:
    """The lines, with a TensorFlow below 2 replaced where no such was ever made for this Python (after 3.7).

    A script for TensorFlow 1 runs on 2 through its v1 interface.
    """
    if python <= _LAST_PYTHON_OF_TENSORFLOW1:
        return list(lines)
    replaced = []
    for line in lines:
        if name_of(line) in _TENSORFLOW and _below_2(line):
            name = "tensorflow[and-cuda]" if name_of(line) == "tensorflow-gpu" else name_of(line)
            line = f"{name}>=2"
        replaced.append(line)
    return replaced


def tensorflow_version(installed: Mapping[str, str]) -> str | None:
    """The version of TensorFlow among what is installed; ``None``: there is none."""
    return _installed("tensorflow", installed)


def _installed(name: str, installed: Mapping[str, str]) -> str | None:
    if name in installed:
        return installed[name]
    group = next((group for group in _ALIKE if name in group), ())
    return next((installed[other] for other in group if other in installed), None)


# Comparing


@dataclass(frozen=True)
class Differences:
    """What was asked for and is not there as asked.

    Attributes:
        missing: requirements for what is not installed.
        other: requirement and the version that is installed instead.
        unknown: lines that name a place, of which it cannot be said.
    """

    missing: tuple[str, ...] = ()
    other: tuple[tuple[str, str], ...] = ()
    unknown: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """In words, a sentence each; empty: nothing differs."""
        said = []
        if self.other:
            said.append(
                "other versions there than asked for: " + ", ".join(f"{v} for {line}" for line, v in self.other)
            )
        if self.missing:
            said.append(f"not installed there: {', '.join(self.missing)}")
        if self.unknown:
            said.append(f"cannot be compared with it: {', '.join(map(without_login, self.unknown))}")
        return said


def differences(lines: Iterable[str], installed: Mapping[str, str], python: str) -> Differences:
    """Compare requirements with what is installed.

    Args:
        lines: as for pip; those whose marker (``; python_version < "3.8"``) does not hold are left out.
        installed: normalized name → version.
        python: the interpreter's version, such as ``3.11.7``.
    """
    missing: list[str] = []
    other: list[tuple[str, str]] = []
    unknown: list[str] = []
    variables = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    for line in lines:
        if is_option(line) and _option(line)[0] not in ("-e", "--editable"):
            continue
        requirement = requirement_of(line)
        if requirement is None:
            unknown.append(line)
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({**variables, "extra": ""}):
            continue
        version = _installed(normalized(requirement.name), installed)
        shown = f"{requirement.name}{requirement.specifier}"
        if version is None:
            missing.append(shown)
        elif not requirement.specifier.contains(version, prereleases=True):
            other.append((shown, version))
    return Differences(tuple(missing), tuple(other), tuple(unknown))


# As a conda environment file says it

DEFAULT_CHANNELS = ("conda-forge",)
DEFAULT_FILE = "conda_dependencies.yml"
_DEFAULT_NAME = "project_environment"
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
        self._name = _DEFAULT_NAME
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
        self._name = str(data.get("name") or _DEFAULT_NAME)
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

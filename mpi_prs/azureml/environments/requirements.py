"""What the lines of a requirements file say, and how they compare with what an interpreter has.

::

    "tensorflow==1.15.2"                        a requirement: a package and its versions
    "./lib", "https://…/x.whl", "git+ssh://…"   a place to install from
    "--extra-index-url …", "-e ./lib"           an option of pip's

Packages of conda are read as the requirements that they would be for pip. Nothing here runs anything or looks at an
interpreter. Only ``packaging`` is needed besides the standard library, and imported where it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from mpi_prs.core.errors import EnvironmentProblem, WorkspaceError

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

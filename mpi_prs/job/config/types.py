"""The kinds of value that keys of the job config take.

Relative paths are relative to ``info.context["folder"]`` (the config file's folder), or to the working directory where
there is no context. A path given as text is expanded (``~``, ``$VAR``; ``$$`` is a ``$``); one given as a ``Path`` is
taken as it is.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationInfo,
    WithJsonSchema,
)

from mpi_prs.core import values
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import InputError
from mpi_prs.core.urls import escape, is_glob, is_url
from mpi_prs.storage.credentials import check_url


def expand(text: str) -> str:
    """``text`` with ``~``, ``$VAR`` and ``${VAR}`` replaced, and ``$$`` by ``$``. Raises ValueError naming what is not
    known."""

    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name = match[1] or match[2]
        if name not in HERE:
            raise ValueError(f"the environment variable {name} is not set; set it, or write the path out")
        return HERE[name]

    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise ValueError(f"the home folder of {text.partition('/')[0]} is not known; write the path out")
    return re.sub(r"\$(?:\$|(\w+)|\{([^}]*)\})", value_of, expanded, flags=re.ASCII)


def absolute(folder: Path, path: str) -> str:
    """``path``, relative to ``folder``, as an absolute path without ``.`` and ``..``.

    A ``..`` that leads through a symbolic link somewhere else than the text suggests is kept.
    """
    joined = str(folder.absolute() / path)
    plain = os.path.normpath(joined)
    return plain if os.path.realpath(plain) == os.path.realpath(joined) else joined


def folder_of(info: ValidationInfo) -> Path:
    """The folder that relative paths start from."""
    return Path(info.context["folder"]) if info.context and "folder" in info.context else Path.cwd()


def path_text(value: object) -> str:
    """The expanded text of a path. Raises ValueError for what is not the path of a file on this machine."""
    path = values.path(value)
    return path if isinstance(value, os.PathLike) else expand(path)


def _path(value: object, info: ValidationInfo) -> Path:
    return Path(absolute(folder_of(info), path_text(value)))


def _pattern(value: object, info: ValidationInfo) -> str:
    if isinstance(value, str) and is_url(value):
        return _url(value)
    text = path_text(value)
    folder = folder_of(info)
    if is_glob(text) and not Path(text).is_absolute():
        return absolute(Path(escape(str(folder))), text)
    return absolute(folder, text)


def _path_or_url(value: object, info: ValidationInfo) -> str:
    if isinstance(value, str) and is_url(value):
        return _url(value)
    return absolute(folder_of(info), path_text(value))


def _url(value: object) -> str:
    if not isinstance(value, str) or not is_url(value):
        raise ValueError("expected a URL such as abfs://container/folder")
    if not value.isprintable():
        raise ValueError("expected a URL, without control characters")
    try:
        check_url(value)
    except InputError as error:
        raise ValueError(str(error)) from None
    return value


def _interpreter(value: object, info: ValidationInfo) -> Path:
    text = path_text(value)
    if "/" in text:
        return Path(absolute(folder_of(info), text))
    found = shutil.which(text)
    if found is None:
        raise ValueError(
            "there is no such program on PATH; give the path of a Python interpreter, such as venv/bin/python"
        )
    return Path(found).absolute()


def _as_written(value: Path | str, info: SerializationInfo) -> str:
    """A path as a config file has to write it (the context ``as_written``), so that no ``$`` in it is expanded."""
    text = str(value)
    return text.replace("$", "$$") if (info.context or {}).get("as_written") and not is_url(text) else text


def _one_line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("expected one line of text, without control characters")
    return value


def _job_name(value: str) -> str:
    if not 3 <= len(value) <= 32 or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", value):
        raise ValueError(
            "expected 3 to 32 lower-case letters, digits and hyphens, a letter first and no hyphen at the end"
        )
    return value


def _separator(value: str) -> str:
    if len(value) != 1 or value in '\r\n"':
        raise ValueError('expected a single character; write a tab as "\\t" in double quotes')
    return value


def _slurm_time(value: str) -> str:
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|UNLIMITED|INFINITE", value, re.IGNORECASE | re.ASCII):
        raise ValueError("expected minutes, hours:minutes:seconds or days-hours:minutes:seconds, such as 02:00:00")
    return value


def _slurm_mem(value: str) -> str:
    if not re.fullmatch(r"\d+[KMGT]?", value, re.IGNORECASE | re.ASCII):
        raise ValueError("expected a whole number, with K, M, G or T after it where it is not MiB, such as 64G")
    return value


_PATH_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
_AS_WRITTEN = PlainSerializer(_as_written, when_used="json")
_TEXT_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean"]}

AnyPath = Annotated[Path, BeforeValidator(_path), _AS_WRITTEN, WithJsonSchema(_PATH_SCHEMA)]
PathOrUrl = Annotated[str, BeforeValidator(_path_or_url), _AS_WRITTEN, WithJsonSchema(_PATH_SCHEMA)]
Url = Annotated[str, BeforeValidator(_url), WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9+.-]*://"})]
Pattern = Annotated[str, BeforeValidator(_pattern), _AS_WRITTEN, WithJsonSchema(_PATH_SCHEMA)]
Interpreter = Annotated[Path, BeforeValidator(_interpreter), _AS_WRITTEN, WithJsonSchema(_PATH_SCHEMA)]

Count = Annotated[int, Field(ge=1, le=values.LARGEST), BeforeValidator(values.whole_number(1))]
CountFromZero = Annotated[int, Field(ge=0, le=values.LARGEST), BeforeValidator(values.whole_number(0))]
InFlight = Annotated[int, Field(ge=1, le=4096), BeforeValidator(values.whole_number(1, 4096))]
CountOrAuto = Annotated[
    int | str,
    BeforeValidator(values.count_or_auto),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
]
MiniBatchSize = Annotated[
    int | str,
    BeforeValidator(values.mini_batch_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": "^ *[0-9]+ *([KMGkmg][Bb]|[Rr][Oo][Ww][Ss])? *$"},
            ]
        }
    ),
]
ByteSize = Annotated[
    int,
    BeforeValidator(values.byte_size),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 1, "minLength": 1}),
]
Threshold = Annotated[int, Field(ge=-1), BeforeValidator(values.whole_number(-1, values.HUGE))]
Percent = Annotated[float, Field(ge=0, le=100), BeforeValidator(values.percent)]
Seconds = Annotated[float, Field(gt=0, le=values.YEAR), BeforeValidator(values.seconds)]
Grace = Annotated[float, Field(ge=0, le=values.YEAR), BeforeValidator(values.seconds_from_zero)]

SignalLead = Annotated[int, Field(ge=1, le=65535), BeforeValidator(values.whole_number(1, 65535))]  # as sbatch takes it

Text = Annotated[str, BeforeValidator(values.text), WithJsonSchema(_TEXT_SCHEMA)]
OneLine = Annotated[str, BeforeValidator(values.text), AfterValidator(_one_line), WithJsonSchema(_TEXT_SCHEMA)]
SlurmTime = Annotated[str, BeforeValidator(values.text), AfterValidator(_slurm_time), WithJsonSchema(_TEXT_SCHEMA)]
SlurmMem = Annotated[str, BeforeValidator(values.text), AfterValidator(_slurm_mem), WithJsonSchema(_TEXT_SCHEMA)]
VariableName = Annotated[str, BeforeValidator(values.variable_name)]
JobName = Annotated[
    str,
    AfterValidator(_job_name),
    WithJsonSchema({"type": "string", "minLength": 3, "maxLength": 32, "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"}),
]
FileName = Annotated[str, BeforeValidator(values.file_name)]
Separator = Annotated[str, AfterValidator(_separator)]

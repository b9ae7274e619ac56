"""``parallel_run_step.settings.json`` beside an entry script: how the rows of a DataFrame are written.

::

    {"append_row": {"pandas.DataFrame.to_csv": {"header": true, "sep": ","}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mpi_prs.core.errors import PipelineError
from mpi_prs.core.words import near

FILE_NAME = "parallel_run_step.settings.json"
_SECTION = "append_row"
_FUNCTION = "pandas.DataFrame.to_csv"


def to_csv_options(source_directory: Path, script: Path) -> dict[str, Any]:
    """The job config's ``to_csv`` section; empty where there is no such file.

    Args:
        source_directory: where it is looked for if it is not beside the script.
        script: the entry script.

    Raises:
        PipelineError: the file cannot be read, or says what mpi_prs does not do.
    """
    for folder in dict.fromkeys((script.parent, source_directory)):
        path = folder / FILE_NAME
        if path.is_file():
            return _options(path, _read(path))
    return {}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise PipelineError(f"{path} cannot be read: {reason}") from None
    except json.JSONDecodeError as error:
        raise PipelineError(f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise PipelineError(f"{path}: nested too deeply") from None


def _options(path: Path, data: Any) -> dict[str, Any]:
    found = {}
    for where, options in _inside(path, data):
        for name, value in options.items():
            if name not in ("sep", "header", "index"):
                raise PipelineError(
                    f"{path}: {where}.{name}: mpi_prs sets sep, header and index of to_csv. Remove it, or format the "
                    f"rows in run(){near(name, ('sep', 'header', 'index'))}"
                )
            if name == "sep":
                if not isinstance(value, str) or len(value) != 1 or value in '\r\n"':
                    raise PipelineError(f"{path}: {where}.sep: expected a single character, got {value!r}")
            elif not isinstance(value, bool):
                raise PipelineError(f"{path}: {where}.{name}: expected true or false, got {value!r}")
            found[name] = value
    return found


def _inside(path: Path, data: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The options of ``to_csv``, if there are any, and where they stand."""
    section: Any = data
    where = ""
    for name in (_SECTION, _FUNCTION):
        if not isinstance(section, Mapping):
            raise PipelineError(f"{path}: {where or 'the file'}: expected an object {{…}}, got {section!r}")
        for other in section:
            if other != name:
                raise PipelineError(
                    f"{path}: {where and where + '.'}{other}: mpi_prs knows {_SECTION}: {_FUNCTION} alone"
                )
        if name not in section:
            return
        section = section[name]
        where = f"{where}.{name}" if where else name
    if not isinstance(section, Mapping):
        raise PipelineError(f"{path}: {where}: expected an object {{…}}, got {section!r}")
    yield where, section

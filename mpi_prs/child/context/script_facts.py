"""What is said about a run while it runs and after: metrics, tags, properties, its end. A file for each process.

Ten thousand processes may log at once, on as many nodes: each appends to a file of its own, so that nobody waits for
anybody, and whoever wants to know reads them all. Of two values for the same thing the later one holds. Standard
library only, and for Python 3.7 as well: entry scripts import this.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_prs.core.errors import WorkspaceError

METRIC, TAGS, PROPERTIES, NAME, ENDED = "metric", "tags", "properties", "display_name", "ended"

_SCALAR, _LIST, _ROW, _TABLE = "scalar", "list", "row", "table"

_files: dict[tuple[str, int], Path] = {}
_lock = threading.Lock()


@dataclass
class Facts:
    """All that was said about a run.

    Attributes:
        metrics: name → value: a number or text, a list of them where it was logged again, or a dict of columns.
        tags, properties: those that hold.
        display_name: the one it was given last; ``None``: none.
        ended: the word of Azure's for how a run of the user's own ended; ``None``: it has not.
        error: why it failed, if somebody said so.
        ended_at: seconds since 1970; 0: it has not ended.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    display_name: str | None = None
    ended: str | None = None
    error: str = ""
    ended_at: float = 0.0


def add(folder: Path, kind: str, **values: Any) -> None:
    """Say something about the run whose ``facts`` folder this is. Costs one appended line.

    Raises:
        WorkspaceError: it cannot be written, or has no JSON form.
    """
    try:
        line = json.dumps({"time": time.time_ns(), "kind": kind, **values}, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise WorkspaceError(f"this cannot be kept with the run, since it has no JSON form: {error}") from None
    try:
        with _lock:
            path = _file_of_this_process(folder)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.write(descriptor, line.encode("utf-8", "surrogatepass") + b"\n")
            finally:
                os.close(descriptor)
    except OSError as error:
        raise WorkspaceError(f"cannot write to {folder}: {error.strerror}. Is it your run?") from error


def read(folder: Path, tags: Mapping[str, str] | None = None, properties: Mapping[str, str] | None = None) -> Facts:
    """All that was said so far; ``tags`` and ``properties`` are those that the run began with."""
    lines = []
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise WorkspaceError(f"{folder} cannot be listed: {error.strerror}") from error
    for name in names:
        for number, line in enumerate(_lines(folder / name)):
            lines.append((line["time"], name, number, line))
    facts = Facts(tags=dict(tags or {}), properties=dict(properties or {}))
    logged: dict[str, list[tuple[str, Any]]] = {}
    for *_, line in sorted(lines, key=lambda each: each[:3]):
        _take(facts, logged, line)
    facts.metrics = {name: put_together(each) for name, each in logged.items()}
    return facts


# Metrics


def scalar(name: str, value: Any, step: int | None = None) -> dict[str, Any]:
    """For :func:`add`: one more value of a metric."""
    return {"name": name, "form": _SCALAR, "value": plain(value), **({} if step is None else {"step": step})}


def values(name: str, value: Any) -> dict[str, Any]:
    """For :func:`add`: a list of values at once. Raises WorkspaceError: it is none."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise WorkspaceError(f"the metric {name!r} is a list of values here, but got {type(value).__name__}")
    return {"name": name, "form": _LIST, "value": [plain(each) for each in value]}


def row(name: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """For :func:`add`: one more row of a table."""
    return {"name": name, "form": _ROW, "value": {str(key): plain(each) for key, each in columns.items()}}


def table(name: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """For :func:`add`: a table as a whole, a value or a list of values for each column. Raises WorkspaceError."""
    if not isinstance(columns, Mapping):
        raise WorkspaceError(
            f"the metric {name!r} is a dict of columns here, as {{'size': [1, 2]}}, but got {type(columns).__name__}"
        )
    value = {
        str(key): [plain(each) for each in column] if isinstance(column, (list, tuple)) else plain(column)
        for key, column in columns.items()
    }
    return {"name": name, "form": _TABLE, "value": value}


def plain(value: Any) -> Any:
    """A value as JSON has it; numpy's scalars become Python's."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    item = getattr(value, "item", None)
    if callable(item):
        try:
            return plain(item())
        except (ValueError, TypeError):
            pass
    raise WorkspaceError(f"a metric's value is a number, text or a truth value, but got {type(value).__name__}")


# Inside


def _file_of_this_process(folder: Path) -> Path:
    key = (str(folder), os.getpid())
    if key not in _files:
        folder.mkdir(parents=True, exist_ok=True)
        _files[key] = folder / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
    return _files[key]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Those that are whole: the last one of a process that was killed, or whose disk was full, may not be."""
    found = []
    try:
        content = path.read_bytes()
    except OSError:
        return []
    for line in content.split(b"\n"):
        try:
            data = json.loads(line.decode("utf-8", "surrogatepass"))
        except ValueError:
            continue
        if isinstance(data, dict) and isinstance(data.get("time"), int) and isinstance(data.get("kind"), str):
            found.append(data)
    return found


def _take(facts: Facts, logged: dict[str, list[tuple[str, Any]]], line: Mapping[str, Any]) -> None:
    kind = line["kind"]
    try:
        if kind == METRIC:
            logged.setdefault(line["name"], []).append((line["form"], line["value"]))
        elif kind in (TAGS, PROPERTIES):
            held = facts.tags if kind == TAGS else facts.properties
            held.update(line.get("set", {}))
            for name in line.get("removed", ()):
                held.pop(name, None)
        elif kind == NAME:
            facts.display_name = line["name"]
        elif kind == ENDED:
            facts.ended, facts.error, facts.ended_at = line["status"], line.get("error", ""), line["time"] / 1e9
    except (KeyError, TypeError, AttributeError):  # of a later version
        return


def put_together(logged: list[tuple[str, Any]]) -> Any:
    """What was logged under one name, put together. What does not go together is as the last one says."""
    form = logged[-1][0]
    if form == _TABLE:
        return logged[-1][1]
    if form == _ROW:
        columns: dict[str, list[Any]] = {}
        for each, value in logged:
            if each == _ROW:
                for column, one in value.items():
                    columns.setdefault(column, []).append(one)
        return {column: found[0] if len(found) == 1 else found for column, found in columns.items()}
    if len(logged) == 1:
        return logged[0][1]
    return [one for each, value in logged if each in (_SCALAR, _LIST) for one in (value if each == _LIST else [value])]

"""What a workspace keeps: JSON files that readers see whole or not at all, and versions that two writers never share.

::

    write_json     temporary file ─► rename over NAME.json                         the last writer wins
    update_json    lock, read, change, write_json                                  no change is lost
    add_json       finished temporary file ─► link to NAME.json                    fails where the name is taken
    add_version    finished temporary file ─► link to 1.json, 2.json, …            until a name is free
    add_version_folder   finished temporary folder ─► rename to 1, 2, …            until a name is free
    write_dataclass      as JSON, the last writer wins ─► read_dataclass

Names with a leading dot are never listed: temporary files, locks, and the marks of versions
that were deleted, whose numbers are not given out again.

Standard library only, and for Python 3.7 as well: user processes import this module.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import datetime
import errno
import functools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mpi_prs.core import locks as locking
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import beside, claim, claim_folder, move, read_regular, reason, replacing, sync_folder
from mpi_prs.core.words import near

_LONGEST_NAME = 120  # bytes; a file's name has 255, and ours get prefixes and suffixes
_VERSION = re.compile(r"([1-9][0-9]*)(?:\.json)?")
_DELETED = re.compile(r"\.deleted-([1-9][0-9]*)")


# Names


def check_name(name: object, what: str) -> str:
    """``name``, if something in a workspace can be called so.

    Args:
        name: letters, digits, spaces and most punctuation; it becomes the name of a file.
        what: for the message, such as ``a datastore``.

    Raises:
        WorkspaceError: it is no text, or no such name.
    """
    if not isinstance(name, str):
        raise WorkspaceError(f"the name of {what} is text, but got {name!r} of type {type(name).__name__}")
    if not name or not (name[0].isalnum() or name[0] == "_") or name[-1].isspace():
        raise WorkspaceError(f"the name of {what} begins with a letter, a digit or _, but got {name!r}")
    wrong = next((char for char in name if char in "/\\:" or not char.isprintable()), None)
    if wrong is not None:
        raise WorkspaceError(f"the name of {what} has no {wrong!r} in it, but got {name!r}; use - or _ instead")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise WorkspaceError(f"the name of {what} has at most {_LONGEST_NAME} bytes, but got {name!r}")
    return name


def not_found(what: str, name: str, known: Iterable[str]) -> WorkspaceError:
    """The error for a name that is not registered; it names the near ones.

    Args:
        what: such as ``datastore``.
        name: the name that was asked for.
        known: the names that there are.
    """
    return WorkspaceError(f"there is no {what} {name!r}{near(name, known)}")


# Single files


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object of ours.

    Args:
        path: the file.
        what: for messages, such as ``the datastore 'images'``.

    Raises:
        FileNotFoundError: there is none.
        WorkspaceError: it cannot be read, or is broken; names file and line.
    """
    try:
        data = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, f"{what}: there is no file", str(path)) from None
    except OSError as error:
        raise WorkspaceError(f"{what} cannot be read: {path}: {error.strerror}") from error
    return parse_json(data, path, what)


def parse_json(data: bytes, path: Path, what: str) -> dict[str, Any]:
    """The JSON object in the bytes of a file. Raises WorkspaceError naming file and line."""
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text, parse_constant=no_number)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise WorkspaceError(f"{what}: {path}, line {line}: not UTF-8 text. Mend or remove this file") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise WorkspaceError(f"{what}: {path}, {place}: not JSON: {error.msg}. Mend or remove this file") from None
    except ValueError as error:
        raise WorkspaceError(f"{what}: {path}: not JSON: {error}. Mend or remove this file") from None
    except RecursionError:
        raise WorkspaceError(f"{what}: {path}: nested too deeply to be ours. Mend or remove this file") from None
    if not isinstance(found, dict):
        raise WorkspaceError(f"{what}: {path}: expected a JSON object {{…}}, got {_kind(found)}. Mend this file")
    return found


def no_number(text: str) -> float:
    """For ``parse_constant``: what Python takes for a number of JSON, and nobody else does. Raises ValueError."""
    raise ValueError(f"{text} is no number")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Make or replace a file of ours; it survives a power failure, and readers see the old one or the new one.

    Raises:
        WorkspaceError: it cannot be written, or something in ``data`` has no JSON form.
    """
    text = _encode(data, path)
    with _finished(path, text) as temporary:
        move(temporary, path, lasting=True)


def add_json(path: Path, data: Mapping[str, Any]) -> bool:
    """Make a file of ours unless there is one of this name; of several writers at once, one wins.

    Returns:
        whether it was made; ``False``: the name is taken.

    Raises:
        WorkspaceError: it cannot be written, or something in ``data`` has no JSON form.
    """
    text = _encode(data, path)
    with _finished(path, text) as temporary:
        taken = claim(temporary, path)
        sync_folder(path.parent)
        return taken


def update_json(path: Path, what: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
    """Change a file of ours; of several writers at once, none loses what another has changed.

    Args:
        path: the file.
        what: for messages, such as ``the workspace 'mnist'``.
        change: gets what is there and returns what shall be; whatever it raises leaves the file as it is.

    Returns:
        what is there now.

    Raises:
        FileNotFoundError: there is none.
        WorkspaceError: it cannot be read or written.
    """
    with locked(path, make_folder=False):
        data = dict(change(read_json(path, what)))
        write_json(path, data)
    return data


@contextlib.contextmanager
def locked(path: Path, *, make_folder: bool = True) -> Iterator[None]:
    """Keep out all who lock the same path, in this process and others, on this node and others; waits for its turn.

    The kernel releases it when its holder dies. On a filesystem that has no locks, only threads are kept out. Not to be
    nested for one path: the end of the inner one would let others in.

    Args:
        path: need not be there; the lock is another file, beside it.
        make_folder: make the folder of ``path`` where it is missing.

    Raises:
        FileNotFoundError: there is no such folder.
        WorkspaceError: no lock file can be made there.
    """
    lock = path.with_name(f".{path.name}.lock")
    with locking.among_threads(lock):
        descriptor = _open_lock(lock, make_folder)
        try:
            yield
        finally:
            os.close(descriptor)


def _open_lock(lock: Path, make_folder: bool) -> int:
    try:
        if make_folder:
            lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WorkspaceError(f"cannot write to {lock.parent}: {error.strerror}. Is it your workspace?") from error
    try:
        locking.lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise WorkspaceError(f"cannot lock {lock}: {error.strerror}") from error
    return descriptor


# Dataclasses

Record = TypeVar("Record")


def write_dataclass(path: Path, record: object, *, lasting: bool = False) -> None:
    """Make or replace a file that has a dataclass as JSON.

    Args:
        lasting: it survives a power failure.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path, lasting=lasting) as file:
        file.write(json.dumps(dataclasses.asdict(record), indent=1).encode() + b"\n")  # type: ignore[call-overload]


def read_dataclass(kind: type[Record], path: Path) -> Record | None:
    """The dataclass in a file; ``None``: there is none, or none that can be read."""
    try:
        return from_json(kind, json.loads(_read(path), parse_constant=no_number))
    except (OSError, ValueError, RecursionError):
        return None


def from_json(kind: type[Record], data: object) -> Record:
    """The inverse of :func:`dataclasses.asdict` after JSON. What has a default may be missing, and what a later version
    may have added is left out.

    Args:
        kind: a dataclass, of numbers, texts, lists, dicts with texts as keys, tuples, and other dataclasses.
        data: what was read.

    Raises:
        ValueError: it is no such thing; names the field.
    """
    found: Record = _object(kind, data, "")
    return found


def _object(kind: type, data: object, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where or 'it'}: expected an object, got {_kind(data)}")
    values = {}
    for name, (form, has_default) in _fields(kind).items():
        inside = f"{where}.{name}" if where else name
        if name in data:
            values[name] = _value(form, data[name], inside, kind)
        elif not has_default:
            raise ValueError(f"{inside} is missing")
    return kind(**values)


@functools.lru_cache(maxsize=256)
def _fields(kind: type) -> dict[str, tuple[ast.expr, bool]]:
    """The annotation of each field, which Python 3.7 can read but not evaluate, and whether it has a default."""
    missing = dataclasses.MISSING
    return {
        field.name: (
            ast.parse(str(field.type), mode="eval").body,
            field.default is not missing or field.default_factory is not missing,
        )
        for field in dataclasses.fields(kind)
    }


def _value(form: ast.expr, data: Any, where: str, kind: type) -> Any:
    if isinstance(form, ast.BinOp):  # X | Y
        with contextlib.suppress(ValueError):
            return _value(form.right, data, where, kind)
        return _value(form.left, data, where, kind)
    if isinstance(form, ast.Subscript):
        inner = form.slice.value if type(form.slice).__name__ == "Index" else form.slice  # type: ignore[attr-defined]
        forms = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        name = getattr(form.value, "id", "")
        if name == "dict" and isinstance(data, dict):
            return {key: _value(forms[1], each, f"{where}.{key}", kind) for key, each in data.items()}
        if name == "list" and isinstance(data, list):
            return [_value(forms[0], each, f"{where}[{index}]", kind) for index, each in enumerate(data)]
        if name == "tuple" and isinstance(data, list) and len(data) == len(forms):
            return tuple(_value(each, one, where, kind) for each, one in zip(forms, data))  # noqa: B905  # Python 3.7
        raise ValueError(f"{where}: expected a {name}, got {_kind(data)}")
    name = getattr(form, "id", "None")
    plain = _PLAIN.get(name)
    if plain is None:
        return data if name == "Any" else _object(vars(sys.modules[kind.__module__])[name], data, where)
    is_infinite = isinstance(data, float) and not math.isfinite(data)  # 1e999 is one
    if not isinstance(data, plain) or (isinstance(data, bool) and name != "bool") or is_infinite:
        raise ValueError(f"{where}: expected {name}, got {data!r}")
    return data


_PLAIN: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool, "None": type(None)}


# Versions


def versions(folder: Path) -> list[int]:
    """The versions in a folder of ``1.json``, ``2.json``, … or of folders ``1``, ``2``, …, ascending; none: empty."""
    return sorted(_numbers(folder, _VERSION))


def latest_version(folder: Path) -> int | None:
    """The highest version; ``None``: there is none."""
    return max(_numbers(folder, _VERSION), default=None)


def add_version(folder: Path, data: Mapping[str, Any]) -> int:
    """Write the next version ``N.json``; of several writers at once, each gets a version of its own.

    The file does not say which version it is: its name does.

    Returns:
        the version.

    Raises:
        WorkspaceError: it cannot be written, or something in ``data`` has no JSON form.
    """
    text = _encode(data, folder)
    with _finished(folder / "version.json", text) as temporary:
        version = _next_version(folder)
        while not claim(temporary, folder / f"{version}.json"):
            version += 1
        sync_folder(folder)
    return version


def add_version_folder(folder: Path, temporary: Path) -> int:
    """Turn a finished folder into the next version ``N``; of several writers at once, each gets a version of its own.

    Args:
        folder: where the versions are.
        temporary: a folder that is not empty, on the same filesystem; it is moved.

    Returns:
        the version.

    Raises:
        WorkspaceError: it cannot be done; then ``temporary`` is where it was.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        version = _next_version(folder)
        while not claim_folder(temporary, folder / str(version)):
            version += 1
        sync_folder(folder)
    except OSError as error:
        raise WorkspaceError(f"cannot write to {folder}: {error.strerror}. Is it your workspace?") from error
    return version


def delete_version(folder: Path, version: int) -> bool:
    """Remove a version, file or folder; its number is not given out again.

    Returns:
        whether it was there.

    Raises:
        WorkspaceError: it cannot be removed.
    """
    try:
        found = next((p for p in (folder / f"{version}.json", folder / str(version)) if p.exists()), None)
        if found is None:
            return False
        (folder / f".deleted-{version}").touch()
        aside = folder / f".{version}.{os.urandom(8).hex()}"
        move(found, aside)  # readers lose all of it at once
    except FileNotFoundError:
        return False  # somebody else has done it meanwhile
    except OSError as error:
        raise WorkspaceError(f"cannot remove version {version} in {folder}: {error.strerror}") from error
    if aside.is_dir():
        import shutil

        shutil.rmtree(aside, ignore_errors=True)
    else:
        remove(aside)
    return True


def names_of(folder: Path, suffix: str = "") -> list[str]:
    """The names of what is registered in a folder, sorted: its entries with this suffix, which is taken off."""
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise WorkspaceError(f"{folder} cannot be listed: {error.strerror}") from error
    found = [name for name in entries if name.endswith(suffix) and not name.startswith(".")]
    return sorted(name[: len(name) - len(suffix)] for name in found)


def names_with_versions(folder: Path) -> list[str]:
    """The names in a folder of folders of versions that have at least one, sorted."""
    return [name for name in names_of(folder) if latest_version(folder / name) is not None]


def time_stamp() -> str:
    """Now, as it is kept with what is registered: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def remove(file: Path) -> None:
    """Remove a file, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        file.unlink()


# Inside


def _numbers(folder: Path, pattern: re.Pattern[str]) -> Iterator[int]:
    try:
        entries = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise WorkspaceError(f"{folder} cannot be listed: {error.strerror}") from error
    for entry in entries:
        found = pattern.fullmatch(entry)
        if found:
            yield int(found[1])


def _next_version(folder: Path) -> int:
    return max((*_numbers(folder, _VERSION), *_numbers(folder, _DELETED)), default=0) + 1


def _read(path: Path) -> bytes:
    for _ in range(20):
        try:
            return read_regular(path)
        except OSError as error:
            if error.errno != errno.ESTALE:  # NFS: replaced by another node between opening and reading
                raise
    return read_regular(path)


def _encode(data: Mapping[str, Any], path: Path) -> bytes:
    try:
        return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WorkspaceError(f"this cannot be kept as JSON in {path}: {error}") from None


@contextlib.contextmanager
def _finished(path: Path, text: bytes) -> Iterator[Path]:
    """A finished file beside ``path``, on disk; removed at the end, unless it has been renamed."""
    try:
        with beside(path) as temporary:
            with open(temporary, "xb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
    except OSError as error:
        raise WorkspaceError(f"cannot write to {path.parent}: {reason(error)}. Is it your workspace?") from error


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")

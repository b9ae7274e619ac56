"""Reading a YAML file so that every value still knows where it was written.

The text is composed into nodes, ``--set`` overrides are grafted onto the nodes, and only then do the nodes become
Python values; so one map of key paths to places serves the file and the command line alike.

Scalars follow YAML 1.2 where YAML 1.1 surprises: ``02:00:00`` and ``2024-01-01`` are text, ``yes``, ``no``, ``on`` and
``off`` are text, ``010`` is not octal and ``1e-3`` is a number.

At its import standard library only, and for Python 3.7 as well; whoever reads or writes needs PyYAML.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Tuple, Union  # noqa: UP035  # Python 3.7

from mpi_prs.core.errors import ConfigError
from mpi_prs.core.files import read_regular
from mpi_prs.core.secrecy import holds_secret, looks_secret

KeyPath = Tuple[Union[str, int], ...]  # noqa: UP006, UP007  # Python 3.7
_Node = Any  # of PyYAML, which is imported when it is needed

_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_STR = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"


class _Dialect(NamedTuple):
    """PyYAML's reader and writer with YAML 1.2's idea of what an unquoted scalar is.

    Attributes:
        library: the module ``yaml``.
        loader: its SafeLoader.
        dumper: its SafeDumper, which quotes whatever either of YAML 1.1 and 1.2 would not take for text.
    """

    library: Any
    loader: Any
    dumper: Any


@functools.lru_cache(maxsize=1)
def _dialect() -> _Dialect:
    import yaml

    class _Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's own protocol

    for tag, pattern, first in _SCALARS:
        _Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z"), first)

    class _Dumper(yaml.SafeDumper):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [*resolvers, *_Loader.yaml_implicit_resolvers.get(first, [])]
            for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
        }

    return _Dialect(yaml, _Loader, _Dumper)


_SCALARS = (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    (_MERGE, "<<", ["<"]),
)


def parse_yaml(text: str, source: str) -> Any:
    """The values in a YAML text that is no config file, such as a program's answer.

    Args:
        source: where it comes from, for messages.

    Raises:
        ConfigError: it is no YAML, or has a key twice.
    """
    root = _compose(text, source, "")
    if root is None:
        return None
    _check_nodes(root, source)
    return _construct(root, source)


def as_yaml(value: Any) -> str:
    """A plain value as YAML that reads the same in every version."""
    dialect = _dialect()
    text: str = dialect.library.dump(value, Dumper=dialect.dumper, sort_keys=False, allow_unicode=True)
    return text


@dataclass(frozen=True, order=True)
class SourceLine:
    """Where a key was written; places sort as a reader meets them, overrides last.

    Attributes:
        line: counted from 1; infinite for an override.
        label: ``line 5`` or ``--set mini_batch_size``.
    """

    line: float
    label: str


@dataclass(frozen=True)
class Document:
    """What a config file and the overrides say together.

    Attributes:
        data: the values, as plain Python objects.
        places: for each key path, where it was written.
    """

    data: dict[Any, Any]
    places: dict[KeyPath, SourceLine]

    def place(self, key: KeyPath) -> SourceLine | None:
        """Where ``key`` was written, or else the nearest key above it; None for what nobody wrote."""
        while key:
            if key in self.places:
                return self.places[key]
            key = key[:-1]
        return None


def read_document(
    path: Path,
    overrides: Sequence[str],
    text_keys: Collection[str],
    what: str = "job config",
    *,
    no_numbers: Collection[str] = (),
) -> Document:
    """Read a file and lay overrides over it.

    Args:
        path: the file.
        overrides: ``key=value`` each: dotted keys, YAML values.
        text_keys: dotted keys below which scalars stay text exactly as written: ``1.10`` does not become 1.1.
        what: what messages call the file.
        no_numbers: dotted keys below which no scalar is a number, but ``true`` is true.

    Raises:
        ConfigError: the file cannot be read, is not a YAML mapping or has a key twice, or an override cannot be
            applied.
    """
    source = str(path)
    if path.suffix in (".py", ".ipynb"):
        raise ConfigError(
            f"{source}: this is {'a notebook' if path.suffix == '.ipynb' else 'Python'}, not a {what}, which is a YAML "
            f"file; `mpi-prs exec {path.name}` runs scripts and notebooks that submit pipelines"
        )
    root = _compose(_read_text(path, what), source, "")
    if root is None or root.tag == _NULL:
        raise ConfigError(f"{source}: the {what} is empty; expected keys such as `name: my-job`, one on a line")
    if root.id != "mapping":
        raise ConfigError(
            f"{source}: expected a mapping (keys such as `name: my-job`, one on a line), found {_kind(root)}"
        )
    _check_nodes(root, source)
    for override in overrides:
        _apply(root, override)
    for keys, is_text in ((text_keys, _is_text_as_written), (no_numbers, _is_number)):
        for node in [each for key in keys for each in _at(root, key.split("."))]:
            _keep_as_text(node, is_text)
    places: dict[KeyPath, SourceLine] = {}
    for key_path, mark in _walk(root, (), set()):
        line = mark.line + 1
        places.setdefault(key_path, SourceLine(math.inf, mark.name) if mark.name else SourceLine(line, f"line {line}"))
    return Document(_construct(root, source), places)


def _read_text(path: Path, what: str) -> str:
    if path.is_dir():
        raise ConfigError(f"{path}: this is a folder; give the path of the {what}, a YAML file")
    try:
        return read_regular(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of the {what}, a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: the {what} cannot be read: {error.strerror}; check its permissions") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8; the {what} is a text file, save it in the encoding UTF-8"
        ) from None


def _compose(text: str, source: str, mark_name: str) -> Any:
    """The root node of ``text``, or None; the marks of the nodes bear ``mark_name``."""
    try:
        loader = _dialect().loader(text)
        loader.name = mark_name
        return loader.get_single_node()
    except _dialect().library.YAMLError as error:
        raise _syntax_error(error, text, source) from None
    except RecursionError:
        raise ConfigError(f"{source}: the YAML is nested too deeply to be read") from None


def _construct(root: _Node, source: str) -> Any:
    try:
        return _dialect().loader("").construct_document(root)
    except _dialect().library.YAMLError as error:
        raise _syntax_error(error, "", source) from None
    except (ValueError, RecursionError) as error:  # such as `!!int abc`, or an integer of 5,000 digits
        raise ConfigError(f"{source}: a value cannot be read: {error}") from None


def _syntax_error(error: Any, text: str, source: str) -> ConfigError:
    advice = "Put text that holds ': ' or '#' in quotes, close what is open, and indent with spaces, not tabs."
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    problem = ", ".join(part for part in parts if part) or "it cannot be read"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        position = getattr(error, "position", None)
        place = "" if position is None else f", line {text.count(chr(10), 0, position) + 1}"
        return ConfigError(f"{source}{place}: not valid YAML: {problem}. {advice}")
    message = f"{mark.name or source}, line {mark.line + 1}, column {mark.column + 1}: not valid YAML: {problem}"
    lines = text.splitlines()
    if mark.line < len(lines) and not (looks_secret(mark.name + lines[mark.line]) or holds_secret(lines[mark.line])):
        message += f"\n    {lines[mark.line]}\n    {' ' * mark.column}^\n{advice}"
    else:
        message += f". {advice}"
    return ConfigError(message)


def _apply(root: _Node, override: str) -> None:
    dotted, equals, text = override.partition("=")
    parts = dotted.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {override}: expected key=value with dots between nested keys, "
            "such as mini_batch_size=5 or slurm.partition=gpu"
        )
    name = f"--set {dotted.strip()}"
    yaml = _dialect().library
    mark = yaml.Mark(name, 0, 0, 0, None, 0)
    value = _compose(text, name, name) or yaml.ScalarNode(_NULL, "", mark, mark)
    _check_nodes(value, name)
    node: _Node = root
    for depth, part in enumerate(parts):
        is_last = depth == len(parts) - 1
        if node.id == "mapping":
            child = next((child for key, child in node.value if key.value == part), None)
            if is_last or child is None or child.tag == _NULL:
                new = value if is_last else yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark)
                kept = [(key, child) for key, child in node.value if key.value != part]
                node.value = [*kept, (yaml.ScalarNode(_STR, part, mark, mark), new)]
                node = new
            else:
                node = child
        elif node.id == "sequence":
            if not part.isdecimal() or int(part) >= len(node.value):
                raise ConfigError(
                    f"{name}: {'.'.join(parts[:depth])} is a list of {len(node.value)}; "
                    f"expected a position from 0 to {len(node.value) - 1} after it, got {part!r}"
                )
            if is_last:
                node.value[int(part)] = value
            node = node.value[int(part)]
        else:
            above = ".".join(parts[:depth])
            raise ConfigError(f"{name}: {above} is {_kind(node)} and has no keys; set {above} itself")


def _check_nodes(root: _Node, source: str) -> None:
    """Raise ConfigError for what PyYAML lets pass: a key twice (the last would win), and text that is not Unicode."""
    for node in _each(root):
        if node.id == "mapping":
            _refuse_duplicates(node, source)
        elif node.id == "scalar":
            try:  # JSON's way to write one character as two escapes, "\ud83d\ude00", becomes that one
                node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise ConfigError(
                    f"{source}, line {node.start_mark.line + 1}: half a surrogate pair (\\ud800 to \\udfff) is "
                    "no character; write the character itself"
                ) from None


def _refuse_duplicates(mapping: _Node, source: str) -> None:
    first: dict[tuple[str, str], int] = {}
    for key, _ in mapping.value:
        if key.id != "scalar" or key.tag == _MERGE:
            continue
        line = key.start_mark.line + 1
        if (key.tag, key.value) in first:
            raise ConfigError(
                f"{source}, line {line}: the key {key.value} is there twice "
                f"(first in line {first[key.tag, key.value]}); keep one of them"
            )
        first[key.tag, key.value] = line


def _at(node: _Node, keys: Sequence[str]) -> Iterator[_Node]:
    """The node at a dotted key, if there is one."""
    if not keys:
        yield node
    elif node.id == "mapping":
        for key, value in node.value:
            if key.id == "scalar" and key.value == keys[0]:
                yield from _at(value, keys[1:])


def _is_text_as_written(node: _Node) -> bool:
    return node.tag not in (_NULL, _MERGE)


def _is_number(node: _Node) -> bool:
    return node.tag in (_INT, _FLOAT)


def _keep_as_text(node: _Node, is_text: Callable[[_Node], bool]) -> None:
    for each in _each(node):
        if each.id == "scalar" and is_text(each):
            each.tag = _STR


def _each(root: _Node) -> Iterator[_Node]:
    """A node and all below it, keys among them; what an alias repeats comes once."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "sequence":
            pending.extend(node.value)
        elif node.id == "mapping":
            pending.extend(part for pair in node.value for part in pair)
        yield node


def _walk(node: _Node, path: KeyPath, seen: set[int]) -> Iterator[tuple[KeyPath, Any]]:
    """Each key path below ``node`` with the mark of its key; what an alias repeats is visited once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if node.id == "mapping":
        for key, value in node.value:
            if key.id == "scalar":
                yield (*path, key.value), key.start_mark
                yield from _walk(value, (*path, key.value), seen)
    elif node.id == "sequence":
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark
            yield from _walk(item, (*path, index), seen)


def _kind(node: _Node) -> str:
    if node.id == "mapping":
        return "a mapping"
    return "a list" if node.id == "sequence" else "a single value"

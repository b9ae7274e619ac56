"""The types of JSON values: found from a sample, united, and compared with records one by one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

Path = tuple[str, ...]
"""Keys from a column inwards; ``[]`` stands for the elements of a list."""
ELEMENTS = "[]"
_SHOWN = 80
_INT64 = range(-(2**63), 2**63)


# Types


def type_of(value: Any) -> Any:
    """The Arrow type of what the standard library's parser gives."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if value in _INT64 else pa.float64()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, list):
        elements = pa.null()
        for element in value:
            elements = united(elements, type_of(element))
        return pa.list_(elements)
    return pa.struct([pa.field(key, type_of(each)) for key, each in value.items()])


def united(first: Any, second: Any) -> Any:
    """A type for the values of both; the first where there is none, and values of the second do not fit it."""
    if pa.types.is_null(first):
        return second
    if pa.types.is_integer(first) and pa.types.is_floating(second):
        return second
    if pa.types.is_list(first) and pa.types.is_list(second):
        return pa.list_(united(first.value_type, second.value_type))
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        fields = {each.name: each.type for each in first}
        for each in second:
            fields[each.name] = united(fields.get(each.name, pa.null()), each.type)
        return pa.struct([pa.field(name, type) for name, type in fields.items()])
    return first


def undated(type: Any) -> Any:
    """The type without Arrow's guess that some text is a date or a time."""
    if pa.types.is_temporal(type):
        return pa.string()
    if pa.types.is_list(type):
        return pa.list_(undated(type.value_type))
    if pa.types.is_struct(type):
        return pa.struct([pa.field(each.name, undated(each.type)) for each in type])
    return type


def with_fractions(type: Any, paths: Collection[Path], at: Path = ()) -> Any:
    """The type with float64 for the integers at some places."""
    if pa.types.is_list(type):
        return pa.list_(with_fractions(type.value_type, paths, (*at, ELEMENTS)))
    if pa.types.is_struct(type):
        return pa.struct([pa.field(each.name, with_fractions(each.type, paths, (*at, each.name))) for each in type])
    return pa.float64() if at in paths else type


@dataclass
class Columns:
    """The columns of a sample: types in the order in which they are met, and which of them lack a value somewhere."""

    types: dict[str, Any] = field(default_factory=dict)
    lacking: set[str] = field(default_factory=set)
    records: int = 0

    def add(self, types: Mapping[str, Any], lacking: Iterable[str], records: int) -> None:
        """Some more records."""
        if self.records:
            self.lacking |= types.keys() ^ self.types.keys()
        self.lacking.update(lacking)
        for name, type in types.items():
            self.types[name] = united(self.types.get(name, pa.null()), type)
        self.records += records


# Records


@dataclass(frozen=True)
class Misfit(Exception):
    """Why a record does not fit; ``column`` is ``None`` where no column is to blame."""

    column: str | None
    problem: str


class Checker:
    """Compares records with the types of the columns.

    Args:
        types: of the columns.
        chosen: columns whose type the user chose: integers stay integers there, and text takes numbers too.
        others: whether records may have columns besides these.

    Attributes:
        fractions: places of integers where a number with a fraction was met.
    """

    def __init__(self, types: Mapping[str, Any], chosen: Collection[str], others: bool) -> None:
        self._types = types
        self._chosen = chosen
        self._others = others
        self.fractions: set[Path] = set()

    def fitting(self, line: bytes) -> bytes:
        """The line, or another one of the same meaning that Arrow can read.

        Raises:
            Misfit: there is none.
        """
        record = parsed(line)
        changes = {}
        fractions: set[Path] = set()
        for name, value in record.items():
            if name in self._types:
                type = self._types[name]
                as_text = pa.types.is_string(type) and name in self._chosen
                if as_text and isinstance(value, (bool, int, float)):
                    changes[name] = str(value) if isinstance(value, bool) else None
                    continue
                if problem := self._problem(value, type, (name,), fractions):
                    raise Misfit(name, problem)
            elif not self._others:
                known = "the sample that the columns were found in does not have it"
                raise Misfit(name, f"{known}; name it in column_types, or select columns with columns")
        self.fractions |= fractions
        if not changes:
            return line
        as_written = json.loads(line, parse_int=str, parse_float=str)
        texts = {name: as_written[name] if text is None else text for name, text in changes.items()}
        return json.dumps({**record, **texts}, ensure_ascii=False).encode()

    def _problem(self, value: Any, type: Any, at: Path, fractions: set[Path]) -> str | None:
        if value is None:
            return None
        if pa.types.is_struct(type) and isinstance(value, dict):
            fields = {each.name: each.type for each in type}
            for key, each in value.items():
                if key not in fields:
                    return f"the key {key!r} of {_where((*at, key))} is not in the sample that the types were found in"
                if problem := self._problem(each, fields[key], (*at, key), fractions):
                    return problem
            return None
        if pa.types.is_list(type) and isinstance(value, list):
            found = (self._problem(each, type.value_type, (*at, ELEMENTS), fractions) for each in value)
            return next((problem for problem in found if problem), None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if pa.types.is_floating(type) or (pa.types.is_integer(type) and isinstance(value, int)):
                return None  # whether it is in the range, Arrow tells
            if pa.types.is_integer(type) and at[0] not in self._chosen:
                fractions.add(at)
                return None
        elif isinstance(value, bool):
            if pa.types.is_boolean(type):
                return None
        elif isinstance(value, str) and not _is_nested(type) and not _is_plain(type):
            return None  # text, or what Arrow makes of text
        place = f" at {_where(at)}" if len(at) > 1 else ""
        if pa.types.is_null(type):
            return f"{shown(value)}{place} where the sample has no value: name the type in column_types"
        return f"{shown(value)}{place} is not {type}"


def _is_nested(type: Any) -> bool:
    return bool(pa.types.is_nested(type) or pa.types.is_null(type))


def _is_plain(type: Any) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_boolean(type))


def _where(at: Path) -> str:
    return "".join(key if key == ELEMENTS else f".{key}" for key in at)[1:]


def shown(value: Any) -> str:
    """A value for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def parsed(line: bytes) -> dict[str, Any]:
    """The record of a line. Raises Misfit: it is not a JSON object."""
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise Misfit(None, f"byte {error.start + 1} is not UTF-8, the only encoding of JSON lines") from None
    except RecursionError:
        raise Misfit(None, "it is nested too deep") from None
    except ValueError as error:
        raise Misfit(None, f"it is not JSON ({error}); expected one object a line") from None
    if not isinstance(value, dict):
        raise Misfit(None, f"{shown(value)} is not a JSON object; expected one object a line")
    return value


def key_given_twice(line: bytes) -> str | None:
    """A key that an object of a record has twice; the standard library's parser takes the last."""
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        twice.extend(key for key in keys if keys.count(key) > 1)

    json.loads(line, object_pairs_hook=note)
    return twice[0] if twice else None

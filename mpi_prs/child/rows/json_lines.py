"""What ``run()`` returned, as JSON lines: an object for each row.

Missing values and infinite numbers become ``null``, as in pandas' ``to_json``; numbers keep all their digits; dates and
times are ISO 8601; paths are strings. Text that is no Unicode (a file name, perhaps) is escaped.

Standard library only: the user process imports this module.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any


class NotJson(Exception):
    """A row holds something that has no place in JSON; the text says what."""


def encode_objects(rows: Sequence[dict[Any, Any]]) -> bytes:
    """A line for each dict. About 2 µs a row and what ``json.dumps`` takes.

    Raises:
        NotJson: a row holds something that JSON lacks.
    """
    return b"".join(map(_line, rows))


def encode_frame(frame: Any) -> bytes:
    """A line for each row of a pandas DataFrame, which has no column twice.

    Raises:
        NotJson: a row holds something that JSON lacks.
    """
    names = list(map(str, frame.columns))
    columns = [_listed(frame.iloc[:, number]) for number in range(len(names))]
    if not names:
        return b"{}\n" * len(frame)
    return b"".join(_line(dict(zip(names, values))) for values in zip(*columns))  # noqa: B905  # strict is not known to Python 3.7


def is_array(value: Any) -> bool:
    """Whether it is an array, a tensor, a Series or a DataFrame, by what it can do: none of their libraries is here."""
    dimensions = getattr(value, "ndim", 0)
    return isinstance(dimensions, int) and dimensions > 0 and any(hasattr(value, name) for name in _ARRAYS)


def holds_arrays(value: Any) -> bool:
    """Whether a list, tuple or dict holds arrays or single numbers of numpy, however deep."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return False
    return not set(map(type, value)) <= PLAIN and any(
        type(each).__module__ == "numpy" or is_array(each) or holds_arrays(each) for each in value
    )


def encode_value(value: Any) -> str:
    """An array, or what holds arrays, on one line. Numbers that JSON lacks are ``NaN`` and ``Infinity``; what JSON does
    not know is its ``str``.

    Raises:
        NotJson: a dict has a key that JSON cannot have, or something holds itself.
    """
    try:
        return _TEXT_ENCODER.encode(value)
    except (TypeError, ValueError) as error:
        raise NotJson(str(error)) from error


_ARRAYS = ("tolist", "numpy", "__array__", "to_dict")
PLAIN = frozenset({str, int, float, bool, type(None), bytes})
"""Types of single values, whose ``str`` is all of them."""


def _listed(series: Any) -> Iterable[Any]:
    """The values of a column as Python's own; a missing one is ``None``, and integers stay integers beside it."""
    missing = series.isna()
    values = series.tolist()
    if not missing.any():
        return values  # type: ignore[no-any-return]
    return [None if gone else value for gone, value in zip(missing, values)]  # noqa: B905  # strict is not known to Python 3.7


def _line(row: dict[Any, Any]) -> bytes:
    try:
        try:
            text = _ENCODER.encode(row)
        except ValueError:  # not a number, or infinite
            text = _ENCODER.encode(_finite(row))
    except TypeError as error:
        raise NotJson(str(error)) from error
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(json.loads(text)).encode() + b"\n"


def _plain(value: Any) -> Any:
    """A value that JSON does not know, as one that it knows."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return None
    if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):  # numpy makes numbers of nanoseconds
        return value.astype(str).tolist()
    for method in ("tolist", "isoformat"):  # of numpy, and of dates and times
        if hasattr(value, method):
            return getattr(value, method)()
    if is_array(value):
        if hasattr(value, "to_dict") and hasattr(value, "columns"):
            return value.to_dict("records")
        return (value.numpy() if hasattr(value, "numpy") else value.__array__()).tolist()
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def _finite(value: Any) -> Any:
    """The same without numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    try:
        return _finite(_plain(value))
    except TypeError as error:
        raise NotJson(str(error)) from error


def _plain_or_text(value: Any) -> Any:
    try:
        return _plain(value)
    except TypeError:
        return str(value)


_TEXT_ENCODER = json.JSONEncoder(ensure_ascii=False, default=_plain_or_text)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain)

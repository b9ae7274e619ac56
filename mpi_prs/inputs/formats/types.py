"""The types that a user may name for a column: one vocabulary for all formats."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

_TYPES = {
    "string": pa.string(),
    "int": pa.int64(),
    "long": pa.int64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "int16": pa.int16(),
    "int8": pa.int8(),
    "uint64": pa.uint64(),
    "uint32": pa.uint32(),
    "uint16": pa.uint16(),
    "uint8": pa.uint8(),
    "Int64": pa.int64(),
    "Int32": pa.int32(),
    "Int16": pa.int16(),
    "Int8": pa.int8(),
    "UInt64": pa.uint64(),
    "UInt32": pa.uint32(),
    "UInt16": pa.uint16(),
    "UInt8": pa.uint8(),
    "float": pa.float64(),
    "double": pa.float64(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
}
_DATETIME = re.compile(r"datetime\((.*%.*)\)", re.DOTALL)


def parse_column_type(text: str) -> Any:
    """The ``pyarrow.DataType`` that a text names.

    ``string``; ``int``, ``long`` or ``int64``, and the narrower and unsigned ones down to ``int8`` and ``uint8``;
    ``Int64`` to ``UInt8`` and ``boolean``, among whose values some may be missing (see :func:`is_nullable`); ``float``,
    ``double`` or ``float64``; ``float32``; ``bool``; ``datetime`` for ISO 8601, or ``datetime(FORMAT)`` with one of
    :meth:`datetime.datetime.strptime`, such as ``datetime(%d.%m.%Y)``: microseconds, without a time zone.

    Raises:
        ValueError: it is none of these; the text names them.
    """
    if _DATETIME.fullmatch(text):
        return _TYPES["datetime"]
    if text not in _TYPES:
        raise ValueError(
            f"{text!r} is not a type of a column: expected one of {', '.join(_TYPES)}, or datetime with a format such "
            "as datetime(%d.%m.%Y)"
        )
    return _TYPES[text]


def is_nullable(text: str) -> bool:
    """Whether a type is one of pandas' whole numbers or booleans with missing values."""
    return text.startswith(("Int", "UInt")) or text == "boolean"


def datetime_format(text: str) -> str | None:
    """The format in ``datetime(FORMAT)``; ``None`` for every other type."""
    match = _DATETIME.fullmatch(text)
    return match[1] if match else None

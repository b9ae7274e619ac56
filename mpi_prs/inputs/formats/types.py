"""The types that a user may name for a column: one vocabulary for all formats."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

JSON = "json"
"""The type of values of any shape, of formats of JSON: their text."""
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
    JSON: pa.string(),
}
_DATETIME = re.compile(r"datetime\((.*%.*)\)", re.DOTALL)


def parse_column_type(text: str) -> Any:
    """The ``pyarrow.DataType`` that a text names.

    ``string``; ``int`` or ``long``, NumPy's ``int64`` to ``int8`` and ``uint64`` to ``uint8``, pandas' ``Int64`` to
    ``UInt8`` (see :func:`nullable_by_name`); ``float``, ``double`` or ``float64``; ``float32``; ``bool``, pandas'
    ``boolean``; ``datetime`` for ISO 8601, or ``datetime(FORMAT)`` with one of :meth:`datetime.datetime.strptime`, such
    as ``datetime(%d.%m.%Y)``: microseconds, without a time zone; ``json``, see :data:`JSON`.

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


def nullable_by_name(text: str) -> bool | None:
    """Whether a type's name says that values may be missing: ``Int64`` and ``boolean`` do, ``int64`` says that none is;
    ``None``: it says neither (``int``, ``long``, ``bool``, and types that have a missing value of their own)."""
    if re.fullmatch(r"U?Int\d+|boolean", text):
        return True
    return False if re.fullmatch(r"u?int\d+", text) else None


def datetime_format(text: str) -> str | None:
    """The format in ``datetime(FORMAT)``; ``None`` for every other type."""
    match = _DATETIME.fullmatch(text)
    return match[1] if match else None

"""From text to values, value by value: what ``pandas.read_csv`` takes for a number, a truth value or a missing one.

Arrow's own CSV reader does nearly the same and is faster; this is for what it refuses, and for telling which values
are to blame. A text that is no value of the type becomes null. ``pa.array`` and ``pa.scalar`` are not used: they import
pandas.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""What pandas reads as a missing value."""
TRUE, FALSE = ("True", "TRUE", "true"), ("False", "FALSE", "false")
_SPACE = " \t\n\v\f\r"
_INTEGER = "^[+-]?[0-9]+$"
_BOOL = f"^({'|'.join(TRUE + FALSE)})$"
_TRUE = f"^({'|'.join(TRUE)})$"
_ISO_PARTS = {"Y": "[0-9]{4}", "f": "[0-9]{1,6}"}
_ISO_DEFAULTS = {"H": "00", "M": "00", "S": "00", "f": "0"}


class NumberStyle(NamedTuple):
    """How numbers are written.

    Attributes:
        decimal: the decimal point.
        thousands: what may stand between digits before that; empty: nothing.
    """

    decimal: str = "."
    thousands: str = ""


PLAIN = NumberStyle()


def to_values(texts: Any, type: Any, *, format: str | None = None, style: NumberStyle = PLAIN) -> Any:
    """An array of a type made from one of texts (UTF-8, as binary); null where a text is none of the type, or null.

    About 0.2 µs a value; a value that does not fit costs some µs.

    Args:
        texts: binary array.
        type: one of those that :func:`~mpi_prs.inputs.formats.types.parse_column_type` gives.
        format: of a datetime; ``None``: ISO 8601.
        style: of numbers.
    """
    strings = cast_leniently(texts, pa.string())
    if pa.types.is_integer(type):
        return _to_integers(_ungrouped(strings, style), type)
    if pa.types.is_floating(type):
        return _to_floats(_ungrouped(strings, style), type, style.decimal)
    if pa.types.is_boolean(type):
        return _where(pc.match_substring_regex(strings, _BOOL), pc.match_substring_regex(strings, _TRUE))
    if pa.types.is_timestamp(type) and format is not None:
        return to_datetimes(strings, format)
    return cast_leniently(strings, type)


def is_integer_text(texts: Any, style: NumberStyle = PLAIN) -> Any:
    """Which texts are written as integers, of whatever size; a boolean array."""
    strings = _ungrouped(cast_leniently(texts, pa.string()), style)
    return pc.match_substring_regex(pc.utf8_trim(strings, _SPACE), _INTEGER)


def _ungrouped(strings: Any, style: NumberStyle) -> Any:
    """Numbers without what separates their thousands: as in pandas, one behind any digit before the decimal point."""
    if not style.thousands:
        return strings
    point, between = re.escape(style.decimal), re.escape(style.thousands)
    space = f"[{re.escape(_SPACE)}]*"
    number = rf"^{space}[+-]?([0-9]{between}?)+({point}[0-9]*)?([eE][+-]?[0-9]+)?{space}$"
    grouped = pc.match_substring_regex(strings, number)
    return pc.if_else(grouped, pc.replace_substring(strings, style.thousands, ""), strings)


def to_datetimes(strings: Any, format: str) -> Any:
    """Timestamps in microseconds, null where a text does not have the format.

    Two digits for day, month and so on make it fast (0.3 µs a value); all else that ``strptime`` takes is about ten
    times slower.
    """
    iso = _iso_pattern(format)
    if iso is None:
        return _by_strptime(strings, format)
    pattern, order = iso
    looks = pc.match_substring_regex(strings, pattern)
    values = cast_leniently(_where(looks, pc.replace_substring_regex(strings, pattern, order)), pa.timestamp("us"))
    if values.null_count == strings.null_count:
        return values
    rest = _where(pc.is_null(values), strings)
    return pc.coalesce(values, _by_strptime(rest, format))


def cast_leniently(array: Any, type: Any) -> Any:
    """A cast in which a value that cannot be cast becomes null; each such value costs ``2 · log(length)`` casts."""
    try:
        return pc.cast(array, type)
    except pa.ArrowException:
        if len(array) == 1:
            return pa.nulls(1, type)
        middle = len(array) // 2
        return pa.concat_arrays([cast_leniently(array[:middle], type), cast_leniently(array[middle:], type)])


def _to_integers(strings: Any, type: Any) -> Any:
    trimmed = pc.utf8_trim(strings, _SPACE)
    looks = pc.match_substring_regex(trimmed, _INTEGER)
    plain = pc.replace_substring_regex(trimmed, r"^\+?(-?)0*([0-9])", r"\1\2")
    return cast_leniently(_where(looks, plain), type)


def _to_floats(strings: Any, type: Any, decimal: str) -> Any:
    trimmed = pc.utf8_trim(strings, _SPACE)
    point = re.escape(decimal)
    number = rf"([0-9]+({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?"
    looks = pc.match_substring_regex(trimmed, rf"^[+-]?({number}|(?i:inf|infinity))$")
    plain = pc.replace_substring_regex(trimmed, r"^\+", "")
    if decimal != ".":
        plain = pc.replace_substring(plain, decimal, ".")
    return cast_leniently(_where(looks, plain), type)


def _where(mask: Any, values: Any) -> Any:
    return pc.if_else(mask, values, pa.nulls(len(values), values.type))


def _iso_pattern(format: str) -> tuple[str, str] | None:
    """A regular expression for a format, and what to replace it with to get ISO 8601; ``None``: not that simple."""
    pieces = re.split("%(.)", format, flags=re.DOTALL)
    names = pieces[1::2]
    if len(set(names)) < len(names) or not {"Y", "m", "d"} <= set(names) <= set("YmdHMSf"):
        return None
    pattern = "".join(
        f"({_ISO_PARTS.get(piece, '[0-9]{2}')})" if number % 2 else re.escape(piece)
        for number, piece in enumerate(pieces)
    )
    part = _ISO_DEFAULTS | {name: f"\\{number}" for number, name in enumerate(names, 1)}
    return f"^{pattern}$", f"{part['Y']}-{part['m']}-{part['d']} {part['H']}:{part['M']}:{part['S']}.{part['f']}"


def _by_strptime(strings: Any, format: str) -> Any:
    seen = pc.dictionary_encode(strings)
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    microseconds: Any = np.zeros(len(seen.dictionary), np.int64)
    fits: Any = np.zeros(len(seen.dictionary), bool)
    for number, text in enumerate(seen.dictionary.to_pylist()):
        try:
            moment = datetime.strptime(text, format)
        except ValueError:
            continue
        if moment.tzinfo is None:
            since = moment.replace(tzinfo=timezone.utc) - epoch
            microseconds[number] = (since.days * 86400 + since.seconds) * 10**6 + since.microseconds
            fits[number] = True
    valid = pa.py_buffer(np.packbits(fits, bitorder="little").tobytes())
    values = pa.Array.from_buffers(
        pa.timestamp("us"), len(fits), [valid, pa.py_buffer(microseconds.tobytes())], null_count=-1
    )
    return values.take(seen.indices)

"""Values that a DataFrame cannot hold, although Arrow can: found where they are read, so that file and row are told.

A ``datetime.time`` has no nanoseconds, and a ``datetime.date`` lies between the years 1 and 9999. Whole numbers that
are missing are the matter of :mod:`mpi_prs.inputs.formats.missing`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.format import Part, place_of

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_DAY = 86_400_000  # milliseconds


def refuse_unfit(table: Any, part: Part) -> None:
    """Look at the columns of such types. A few ms for a million values.

    Raises:
        InputError: pandas cannot hold a value; names file, row and column.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not _may_be_unfit(column.type) or not _is_unfit(column):
            continue
        low, high = 0, len(column)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _is_unfit(column.slice(low, middle - low)) else (middle, high)
        raise InputError(
            f"{place_of(part, low, name)}: {_shown(column[low])} is beyond what Python's time (no nanoseconds) or date "
            f"(years 1 to 9999) can hold; read the column as another type with column_types ({{{name}: string}}), or "
            "leave it out"
        )


def _shown(value: Any) -> str:
    return "a value in it" if value.type.num_fields else str(value.cast(pa.string()))  # Python cannot hold it either


def _may_be_unfit(type: Any) -> bool:
    if pa.types.is_dictionary(type):
        return _may_be_unfit(type.value_type)
    if type.num_fields:
        return any(_may_be_unfit(type.field(number).type) for number in range(type.num_fields))
    return bool(pa.types.is_date(type) or type == pa.time64("ns"))


def _is_unfit(values: Any) -> bool:
    if isinstance(values, pa.ChunkedArray):
        return any(map(_is_unfit, values.chunks))
    type = values.type
    if not len(values) or not _may_be_unfit(type):
        return False
    if pa.types.is_dictionary(type):
        return _is_unfit(values.dictionary_decode())
    if pa.types.is_struct(type):
        return any(map(_is_unfit, values.flatten()))
    if pa.types.is_map(type):
        return _is_unfit(values.cast(pa.list_(type.field(0).type)))
    if type.num_fields:
        return bool(hasattr(values, "flatten") and _is_unfit(values.flatten()))
    if pa.types.is_date(type):
        numbers = values.cast(pa.int32() if pa.types.is_date32(type) else pa.int64())
        scale = 1 if pa.types.is_date32(type) else _DAY
        ends = pc.min_max(numbers)
        low, high = ends["min"].as_py(), ends["max"].as_py()
        return low is not None and not _FIRST_DAY * scale <= low <= high < (_LAST_DAY + 1) * scale
    numbers = values.cast(pa.int64())
    return bool(pc.any(pc.not_equal(pc.multiply(pc.divide(numbers, 1000), 1000), numbers)).as_py())

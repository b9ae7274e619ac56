"""Values as HDF5 stores them → Arrow columns, and numpy arrays that hold no Python objects.

What HDF5 knows and Arrow does not: an enum comes as its numbers, text of fixed length without its padding. Complex
numbers, references, records within records and the like have no counterpart in a table. Arrow's own types that HDF5
lacks (times, dates) are kept by our HDF5 output as integers with the attribute ``arrow_type``, and come back as such.

Arrow arrays are made from buffers, since ``pa.array`` imports pandas.
"""

from __future__ import annotations

import re
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

TYPE_ATTRIBUTE = "arrow_type"
COLUMN_ATTRIBUTE = "column"
"""The name of a column that is no name in HDF5 (there a slash stands between groups)."""
NULLS = "_nulls"
"""The group, beside the columns, of bool datasets that say where a column of the same name has no value."""
_NUMBERS = {
    **{f"i{size}": getattr(pa, f"int{8 * size}")() for size in (1, 2, 4, 8)},
    **{f"u{size}": getattr(pa, f"uint{8 * size}")() for size in (1, 2, 4, 8)},
    **{f"f{size}": getattr(pa, f"float{8 * size}")() for size in (2, 4, 8)},
}
_UNITS = ("s", "ms", "us", "ns")
_NOT_A_TIME = np.iinfo(np.int64).min


class NotText(Exception):
    """A value is not UTF-8; the text is its position, from 0."""


def arrow_type(dtype: Any, attribute: object = None) -> Any:
    """The ``pyarrow.DataType`` for values that h5py calls ``dtype``; ``None`` where there is none.

    Args:
        dtype: a numpy dtype with h5py's metadata.
        attribute: what :data:`TYPE_ATTRIBUTE` of the dataset says.
    """
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        number = _NUMBERS.get(base.str[1:])
        return pa.list_(number, shape[0]) if number is not None and len(shape) == 1 else None
    if h5py.check_string_dtype(dtype) is not None:
        return pa.large_string()
    if h5py.check_vlen_dtype(dtype) == np.uint8:
        return pa.large_binary()
    if dtype.kind == "b":
        return pa.bool_()
    if dtype.kind in "Mm":
        unit, count = np.datetime_data(dtype)
        if unit not in _UNITS or count != 1:
            return None
        return pa.timestamp(unit) if dtype.kind == "M" else pa.duration(unit)
    number = _NUMBERS.get(dtype.str[1:])
    if number is not None and isinstance(attribute, str):
        return _time_type(attribute, number) or number
    return number


def _time_type(text: str, storage: Any) -> Any:
    """``timestamp[ns, tz=UTC]`` and the like, if values of ``storage`` can hold it."""
    with_zone = re.fullmatch(r"timestamp\[(s|ms|us|ns), tz=(.+)\]", text)
    try:
        found = pa.timestamp(with_zone[1], with_zone[2]) if with_zone else pa.type_for_alias(text)
    except ValueError:
        return None
    return found if pa.types.is_temporal(found) and storage == _integers(found) else None


def _integers(type: Any) -> Any:
    return pa.int64() if type.bit_width == 64 else pa.int32()


def to_arrow(values: Any, type: Any, nulls: Any = None) -> Any:
    """A ``pyarrow.Array`` of values read by h5py. One copy of the bytes, two of text.

    Args:
        values: a numpy array with one value (or, for a list type, one row) for each row.
        type: what :func:`arrow_type` says of them.
        nulls: bool array, true where there is no value; ``None``: a value everywhere.

    Raises:
        NotText: a value of a text column is not UTF-8.
    """
    count = len(values)
    if pa.types.is_fixed_size_list(type):
        return pa.FixedSizeListArray.from_arrays(to_arrow(values.reshape(-1), type.value_type), type.list_size)
    if values.dtype.kind in "Mm":
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("=")).view(np.int64)
        nulls = values == _NOT_A_TIME
    if pa.types.is_large_string(type) or pa.types.is_large_binary(type):
        lengths, data = _bytes_of(values)
        offsets: Any = np.zeros(count + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        array = pa.Array.from_buffers(type, count, [_validity(nulls), pa.py_buffer(offsets), pa.py_buffer(data)])
        _check_text(array, values)
        return array
    content: Any
    if pa.types.is_boolean(type):
        content = np.packbits(values.astype(bool), bitorder="little")
    else:
        content = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return pa.Array.from_buffers(type, count, [_validity(nulls), pa.py_buffer(content)])


def _validity(nulls: Any) -> Any:
    return None if nulls is None or not nulls.any() else pa.py_buffer(np.packbits(~nulls, bitorder="little"))


def _bytes_of(values: Any) -> tuple[Any, bytes]:
    """The length of each value, and all bytes of them in a row; of text with fixed length without its padding."""
    if values.dtype.kind == "S":
        lengths = np.char.str_len(values)
        width = values.dtype.itemsize
        padded = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width)
        return lengths, padded[np.arange(width) < lengths[:, None]].tobytes()
    listed = [bytes(value) for value in values]
    return np.fromiter(map(len, listed), np.int64, len(listed)), b"".join(listed)


def _check_text(array: Any, values: Any) -> None:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        for number, value in enumerate(values):
            try:
                bytes(value).decode()
            except UnicodeDecodeError:
                raise NotText(number) from None
        raise


def plain_type(dtype: Any) -> str | None:
    """The name of the numpy type that :func:`to_plain` makes of values, without byte order; text has no length."""
    if h5py.check_string_dtype(dtype) is not None:
        return "text"
    return None if dtype.kind in "OVSU" else str(dtype.newbyteorder("=").name)


def to_plain(values: Any) -> Any:
    """A numpy array in this machine's byte order; text as ``U``, as wide as the longest.

    Raises:
        NotText: text that is not UTF-8.
    """
    if values.dtype.kind not in "SO":
        return np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    texts = []
    for number, value in enumerate(values.reshape(-1).tolist()):
        try:
            texts.append(value.decode())
        except UnicodeDecodeError:
            raise NotText(number // max(1, values[0].size)) from None
    longest = max(map(len, texts), default=0)
    return np.array(texts, f"U{max(1, longest)}").reshape(values.shape)

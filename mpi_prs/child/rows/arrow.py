"""What ``run()`` returned, as an Arrow IPC stream; the growing file of a typed output is a row of these.

The user process imports this module where the output is typed. Besides the standard library it needs pyarrow alone, of
whatever version the user has.

A field may carry a mark, the metadata ``mpi_prs``: ``empty`` says that the column has no value in this mini-batch, so
its type is not to be trusted; ``text`` that its values had no common type, and were turned into text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

MARK = b"mpi_prs"
EMPTY = b"empty"
TEXT = b"text"
BATCH_BYTES = 16 << 20
"""A record batch is no larger, so that whoever reads the stream needs no more memory at a time."""

_NOT_CONVERTED = (pa.ArrowException, OverflowError, TypeError, ValueError)


def encode_frame(frame: Any) -> bytes:
    """The rows of a pandas DataFrame, which has columns, none of them twice. About 30 µs and 15 µs a column."""
    names = list(map(str, frame.columns))
    return _stream(names, [_of_series(frame.iloc[:, number]) for number in range(len(names))], len(frame))


def encode_dicts(rows: Sequence[dict[Any, Any]]) -> bytes:
    """A row for each dict, not all of them empty; a key that a dict lacks is a missing value."""
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        for key, value in row.items():
            name = str(key)
            if name not in columns:
                columns[name] = [None] * len(rows)
            columns[name][number] = value
    return _stream(list(columns), [_of_list(values) for values in columns.values()], len(rows))


def _stream(names: Sequence[str], columns: Sequence[tuple[Any, bool]], rows: int) -> bytes:
    fields, arrays = [], []
    for name, (array, is_text) in zip(names, columns):  # noqa: B905  # strict is not known to Python 3.7
        mark = EMPTY if array.null_count == rows else TEXT if is_text else None
        fields.append(pa.field(_clean(name), array.type, metadata={MARK: mark} if mark else None))
        arrays.append(array)
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    at_once = max(1, rows * BATCH_BYTES // max(1, table.nbytes))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=at_once)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _of_series(series: Any) -> tuple[Any, bool]:
    """The column as Arrow has it, and whether its values had to be turned into text."""

    def listed() -> list[Any]:
        return [None if gone else value for gone, value in zip(series.isna(), series)]  # noqa: B905  # strict is not known to Python 3.7

    return _converted(lambda: pa.array(series, from_pandas=True), listed)


def _of_list(values: list[Any]) -> tuple[Any, bool]:
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        values = [None if value is pandas.NA or value is pandas.NaT else value for value in values]
    return _converted(lambda: pa.array(values), lambda: values)


def _converted(convert: Callable[[], Any], listed: Callable[[], list[Any]]) -> tuple[Any, bool]:
    try:
        array = convert()
        if isinstance(array.type, pa.BaseExtensionType):  # a period, an interval: its numbers alone say nothing
            return _as_text(listed()), False
        if pa.types.is_dictionary(array.type):  # the categories of two mini-batches need not be the same
            array = array.cast(array.type.value_type)
        return array, False
    except _NOT_CONVERTED:
        values = [value.tolist() if type(value).__module__ == "numpy" else value for value in listed()]
    try:
        return pa.array(values), False
    except _NOT_CONVERTED:
        return _as_text(values), not all(value is None or isinstance(value, str) for value in values)


def _as_text(values: list[Any]) -> Any:
    return pa.array([None if value is None else _clean(str(value)) for value in values], pa.string())


def _clean(text: str) -> str:
    """Text that can be UTF-8: a file name that is not is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()

"""Small things done to Arrow's values on the way from a file to a DataFrame. No pandas is imported."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa


def pack_schema(schema: Any) -> str:
    """A schema as text, for JSON; its metadata is kept."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def unpack_schema(text: str) -> Any:
    """What :func:`pack_schema` packed."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def pack_column(values: Any) -> str:
    """An array as text, for JSON."""
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays([values], names=["values"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue().to_pybytes()).decode("ascii")


def unpack_column(text: str) -> Any:
    """What :func:`pack_column` packed."""
    with pa.ipc.open_stream(pa.py_buffer(base64.b64decode(text))) as reader:
        return reader.read_next_batch().column(0)


def nullable_in_pandas(schema: Any, names: Collection[str]) -> Any:
    """The schema, with word to pandas that some columns are of its types that have missing values.

    ``to_pandas`` then makes ``Int64``, ``UInt8`` or ``boolean`` of them, missing values or not; without that, whole
    numbers with a missing value would become float64, and lose digits beyond 2^53.

    Args:
        names: columns of the schema; only those of whole numbers or booleans get such a type.
    """
    dtypes = {name: dtype for name in names if (dtype := nullable_dtype(schema.field(name).type)) is not None}
    if not dtypes:
        return schema
    metadata = dict(schema.metadata or {})
    told = {"index_columns": [], "column_indexes": [], "columns": [], **json.loads(metadata.get(b"pandas", b"{}"))}
    others = [each for each in told["columns"] if each.get("field_name", each["name"]) not in dtypes]
    told["columns"] = others + [
        {"name": name, "field_name": name, "pandas_type": dtype.lower(), "numpy_type": dtype, "metadata": None}
        for name, dtype in dtypes.items()
    ]
    return schema.with_metadata({**metadata, b"pandas": json.dumps(told).encode()})


def nullable_dtype(type: Any) -> str | None:
    """Pandas' name of the type that whole numbers or booleans have beside missing values; ``None``: of other types."""
    if pa.types.is_boolean(type):
        return "boolean"
    if pa.types.is_integer(type):
        return str(type).replace("uint", "UInt").replace("int", "Int")
    return None


def repeated(value: Any, type: Any, rows: int) -> Any:
    """A column of one value; by way of its text, for ``pa.scalar`` imports pandas where it is installed."""
    if value is None:
        return pa.nulls(rows, type)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    content = text.encode("utf-8", "backslashreplace")  # bytes that are no text cannot be in a column
    one = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, len(content)], np.int32)), pa.py_buffer(content))
    indices = pa.Array.from_buffers(pa.int32(), rows, [None, pa.py_buffer(np.zeros(rows, np.int32))])
    value_type = type.value_type if pa.types.is_dictionary(type) else type
    return one.cast(value_type).take(indices).cast(type)

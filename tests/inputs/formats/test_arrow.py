"""What pandas is told of Arrow's columns."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest

from mpi_prs.inputs.formats.arrow import nullable_in_pandas
from tests.support.tables import at_the_user

BIG = 2**60 + 1
"""As a float it is another number."""


@pytest.mark.parametrize(
    ("type", "values", "dtype"),
    [
        (pa.int64(), [BIG, None], "Int64"),
        (pa.int64(), [BIG, 1], "Int64"),
        (pa.int64(), [], "Int64"),
        (pa.uint64(), [2**64 - 1, None], "UInt64"),
        (pa.int8(), [None, 1], "Int8"),
        (pa.bool_(), [True, None], "boolean"),
        (pa.float64(), [0.5, None], "float64"),
    ],
)
def test_whole_numbers_and_booleans_keep_their_type_beside_missing_values(
    type: pa.DataType, values: list[object], dtype: str
) -> None:
    table = pa.table({"a": pa.array(values, type), "b": pa.array([1] * len(values), pa.int64())})
    frame = at_the_user(table.cast(nullable_in_pandas(table.schema, ["a"])))
    assert [str(each) for each in frame.dtypes] == [dtype, "int64"]
    assert [None if pd.isna(value) else value for value in frame["a"]] == values


def test_what_pandas_was_told_before_stays() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": pd.array([1, 2], "Int32")}, pd.Index([7, 8], name="i"))
    schema = nullable_in_pandas(pa.Table.from_pandas(frame).schema, ["a"])
    again = at_the_user(pa.Table.from_pandas(frame).cast(schema))
    assert again.index.tolist() == [7, 8]
    assert {name: str(dtype) for name, dtype in again.dtypes.items()} == {"a": "Int64", "b": "Int32"}

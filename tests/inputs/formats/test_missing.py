"""Whole numbers and booleans that may be missing: one type in every mini-batch, and never a float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.datasets import HIVE, InputTable
from mpi_prs.inputs.formats.casting import casts
from mpi_prs.inputs.formats.format import Part
from mpi_prs.inputs.formats.missing import for_pandas, refuse_nulls
from mpi_prs.inputs.reading import read_tables, write_partitioned
from tests.support.tables import at_the_user

BIG = 2**60 + 1
PART = Part("/data/t.parquet", 10, 20, 10, 10)


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """As readers make it: nobody looks for nulls in columns that are said to have none."""
    return pa.Table.from_arrays(table.columns, schema=schema)


@pytest.mark.parametrize(
    ("chosen", "numpy_types", "without", "with_nulls"),
    [
        (None, False, "int64", "Int64"),
        (None, True, "int64", None),
        ("int", False, "int64", "Int64"),
        ("int", True, "int64", None),
        ("Int64", False, "Int64", "Int64"),
        ("Int64", True, "Int64", "Int64"),
        ("int64", False, "int64", None),
    ],
)
def test_what_a_column_of_integers_becomes(
    chosen: str | None, numpy_types: bool, without: str, with_nulls: str | None
) -> None:
    """By what is known of nulls, ``column_types``, and ``numpy_types``; ``None``: a null is refused."""
    types = casts({"n": chosen} if chosen else {})
    for lacking, expected in (((), without), (("n",), with_nulls)):
        schema = for_pandas(pa.schema([("n", pa.int64()), ("x", pa.float64())]), lacking, types, numpy_types)
        whole = with_schema(pa.table({"n": [BIG, 2], "x": [0.5, None]}), schema)
        refuse_nulls(whole, PART)
        frame = at_the_user(whole)
        assert (str(frame.dtypes["n"]), frame["n"].tolist()) == (expected or "int64", [BIG, 2])
        assert str(frame.dtypes["x"]) == "float64"

        holed = with_schema(pa.table({"n": [BIG, None], "x": [0.5, None]}), schema)
        if expected == "Int64":
            refuse_nulls(holed, PART)
            assert at_the_user(holed)["n"].tolist() == [BIG, pd.NA]
        else:
            with pytest.raises(InputError, match=r"t\.parquet, row 12, column 'n': .*column_types \(\{n: Int64\}\)"):
                refuse_nulls(holed, PART)


@pytest.mark.parametrize("name", ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "boolean"])
def test_every_type_with_missing_values_is_pandas_own(name: str) -> None:
    column = pa.array([1, None, 0]).cast(casts({"a": name})["a"].type)
    schema = for_pandas(pa.schema([("a", column.type)]), ["a"], {}, False)
    frame = at_the_user(pa.table([column], schema=schema))
    pd.testing.assert_series_equal(frame["a"], pd.Series([1, None, 0], dtype=name, name="a"))
    column = column.drop_null()  # and numpy sees whole numbers where none is missing
    assert np.asarray(at_the_user(pa.table([column], schema=schema))["a"]).dtype == column.to_numpy(False).dtype


def test_what_pandas_keeps_in_a_file_holds_beside_it() -> None:
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="int64[pyarrow]"), "b": [1, 2]}, index=pd.Index([8, 9]))
    table = pa.Table.from_pandas(frame)
    made = at_the_user(with_schema(table, for_pandas(table.schema, ["a", "b"], {}, False)))
    assert [*map(str, made.dtypes), *made.index] == ["int64[pyarrow]", "Int64", 8, 9]
    schema = for_pandas(table.schema, ["a", "b"], {}, True)
    assert list(map(str, at_the_user(with_schema(table.slice(0, 1), schema)).dtypes)) == ["int64", "int64"]
    with pytest.raises(InputError, match="column 'a'"):
        refuse_nulls(with_schema(table, schema), PART)


def test_an_index_cannot_hold_missing_integers() -> None:
    frame = pd.DataFrame({"b": [1, 2]}, index=pd.Index(pd.array([BIG, None], dtype="Int64"), name="i"))
    table = pa.Table.from_pandas(frame)
    with pytest.raises(InputError, match=r"row 12, column 'i': .*an index of int64 cannot hold"):
        refuse_nulls(with_schema(table, for_pandas(table.schema, ["i"], {}, False)), PART)


def test_a_row_of_a_text_file_is_counted_in_its_part() -> None:
    table = pa.table({"a": pa.array([True, None])})
    with pytest.raises(InputError, match=r"column 'a', row 2 of those that begin at byte 10: .*\{a: boolean\}"):
        refuse_nulls(table, PART._replace(first_row=-1))


def test_numbers_within_lists_and_structs_stay_whole_beside_nulls() -> None:
    values: list[Any] = [{"id": BIG, "ids": [BIG, None]}, {"id": None, "ids": None}]
    frame = at_the_user(pa.table({"s": values, "l": [[BIG, None], [BIG]]}))
    assert frame["s"][0]["id"] == BIG
    assert [frame["s"][0]["ids"].tolist(), *(each.tolist() for each in frame["l"])] == [[BIG, None]] * 2 + [[BIG]]


def dtypes_of(path: Path, **options: Any) -> set[tuple[str, ...]]:
    """Of all pieces, each seen by itself."""
    dataset = InputTable.from_parquet_files(str(path), **options)
    return {tuple(map(str, at_the_user(table).dtypes)) for table in read_tables(dataset)}


def test_parquet_without_statistics_keeps_its_integers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mpi_prs.inputs")
    table = pa.table({"id": [BIG, BIG + 1], "flag": [True, False]})
    pq.write_table(table, tmp_path / "t.parquet", write_statistics=False)
    assert dtypes_of(tmp_path) == {("Int64", "boolean")}
    assert dtypes_of(tmp_path, column_types={"id": "int64"}) == {("int64", "boolean")}
    assert dtypes_of(tmp_path, numpy_types=True) == {("int64", "bool")}
    assert [record.args for record in caplog.records if "statistics" in record.msg] == [("'id', 'flag'",), ("'flag'",)]
    whole = [row for each in read_tables(InputTable.from_parquet_files(str(tmp_path))) for row in each.to_pylist()]
    assert whole == table.to_pylist()


def test_a_row_group_without_rows_has_no_nulls(tmp_path: Path) -> None:
    table = pa.table({"id": [BIG, BIG + 1]})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        writer.write_table(table.slice(0, 0))
        writer.write_table(table)
    assert dtypes_of(tmp_path) == {("int64",)}


@pytest.mark.parametrize("kind", [pa.null(), pa.int64()])
def test_a_column_that_is_all_null_in_one_file_is_nullable_in_all(tmp_path: Path, kind: Any) -> None:
    pq.write_table(pa.table({"id": [BIG, BIG + 1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": pa.nulls(2, kind)}), tmp_path / "b.parquet")
    assert dtypes_of(tmp_path) == {("Int64",)}
    with pytest.raises(InputError, match=r"b\.parquet, row 1, column 'id': the value is missing"):
        dtypes_of(tmp_path, numpy_types=True)


def test_an_integer_that_no_float_can_hold_is_not_rounded(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2, BIG]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [1.0, None]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=rf"a\.parquet, line 3, column 'id': {BIG} is not exactly a double"):
        dtypes_of(tmp_path)
    assert dtypes_of(tmp_path, column_types={"id": "Int64"}) == {("Int64",)}


def test_a_partition_key_that_some_folder_has_no_value_of_is_nullable_in_all(tmp_path: Path) -> None:
    whole = pa.table({"x": [0.5, 1.5, 2.5], "k": pa.array([BIG, None, 1]), "b": [True, None, False]})
    pq.write_table(whole, tmp_path / "t.parquet")
    source = InputTable.from_parquet_files(str(tmp_path / "t.parquet"))
    copy = write_partitioned(source, ["k", "b"], tmp_path / "copy")
    assert {tuple(map(str, at_the_user(table).dtypes)) for table in read_tables(copy)} == {
        ("float64", "Int64", "boolean")
    }
    assert {table["k"][0].as_py() for table in read_tables(copy)} == {BIG, None, 1}
    with pytest.raises(InputError, match=r"column 'k': .* of a partition key, leave out numpy_types"):
        dtypes_of(tmp_path / "copy", partition_format=HIVE, numpy_types=True, drop_columns=["b"])


def test_a_partition_key_is_not_of_the_type_that_pandas_knew_before_the_files_were_parted(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [0.5, 1.5], "k": pd.array([1, 2], "Int64")})
    frame.to_parquet(tmp_path / "t", partition_cols=["k"], index=False)
    found = [
        at_the_user(table)
        for table in read_tables(InputTable.from_parquet_files(str(tmp_path / "t"), partition_format=HIVE))
    ]
    assert [each["k"].tolist() for each in found] == [["1"], ["2"]]


def test_dropped_columns_leave_no_trace(tmp_path: Path) -> None:
    table = pa.table({"id": [1, None], "n": [1, None]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert dtypes_of(tmp_path, drop_columns=["n"]) == {("Int64",)}

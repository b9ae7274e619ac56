"""Nested values of any shape, in JSON lines and Parquet: each arrives as it was written, a whole number as one.

MPI_PRS_TEST_EXAMPLES=10000 pytest -s tests/inputs/formats/test_nested_random.py
"""

from __future__ import annotations

import decimal
import json
import math
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from mpi_prs.inputs.formats.format import BatchSize, TableFormat
from mpi_prs.inputs.formats.json_lines.reading import JsonLines
from mpi_prs.inputs.formats.missing import refuse_nulls
from mpi_prs.inputs.formats.parquet.reading import Parquet
from mpi_prs.inputs.formats.unfit import refuse_unfit
from tests.support.tables import STORE, at_the_user, parts_of

EXAMPLES = int(os.environ.get("MPI_PRS_TEST_EXAMPLES", "60"))
"""Of each format."""
OURS = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])  # one file for all
SIZES = st.one_of(st.builds(BatchSize, rows=st.integers(1, 20)), st.builds(BatchSize, bytes=st.integers(1, 2000)))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
NAMES = st.one_of(
    st.sampled_from(["a", "b", "item", "element", "list", "key", "a.b", ""]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
)


def rows_of(format: TableFormat, file: Path, size: BatchSize) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Column → its values in all mini-batches, and its dtype, which is the same in all."""
    survey, parts = parts_of(format, [file], size)
    columns: dict[str, list[Any]] = {}
    dtypes: dict[str, Any] = {}
    with closing(format.reader(survey, STORE)) as reader:
        for part in parts:
            table = reader.read(part).data
            refuse_nulls(table, part)
            refuse_unfit(table, part)
            frame = at_the_user(table)
            dtypes = dtypes or frame.dtypes.to_dict()
            assert frame.dtypes.to_dict() == dtypes
            for name in frame.columns:
                columns.setdefault(name, []).extend(frame[name].tolist())
    return columns, dtypes


def plain(value: Any) -> Any:
    """As Python has it, with its type; what is missing in an object is left out of it."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if plain(each) is not None}
    if isinstance(value, (list, np.ndarray)):
        return [plain(each) for each in value]
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (np.datetime64, pd.Timestamp)):
        return None if pd.isna(value) else pd.Timestamp(value).to_pydatetime()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return None if math.isnan(value) else ("float", value)
    return (type(value).__name__, value) if isinstance(value, (bool, int)) else value


# JSON

LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "text": TEXTS,
    "date": st.dates().map(str),
    "nothing": st.none(),
}
SHAPES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(sorted(LEAVES)),
    lambda shapes: st.one_of(st.tuples(st.just("list"), shapes), st.dictionaries(NAMES, shapes, max_size=3)),
    max_leaves=6,
)


def of_shape(shape: Any) -> st.SearchStrategy[Any]:
    values: st.SearchStrategy[Any]
    if isinstance(shape, str):
        values = LEAVES[shape]
    elif isinstance(shape, tuple):
        values = st.lists(of_shape(shape[1]), max_size=3)
    else:
        values = st.fixed_dictionaries({}, optional={name: of_shape(each) for name, each in shape.items()})
    return st.one_of(values, values, values, st.none())


@st.composite
def records(draw: st.DrawFn) -> list[dict[str, Any]]:
    shapes = draw(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=4))
    values = {name: of_shape(shape) for name, shape in shapes.items()}
    if draw(st.booleans()):  # so that nothing is missing
        return draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=12))
    return draw(st.lists(st.fixed_dictionaries({}, optional=values), min_size=1, max_size=12))


@OURS
@given(records=records(), size=SIZES, ascii=st.booleans(), separators=st.sampled_from([(",", ":"), (", ", ": ")]))
@example(
    records=[{"b": [[None, None], []]}, {"b": [[None]]}], size=BatchSize(rows=1), ascii=True, separators=(",", ":")
)
def test_json_arrives_as_it_was_written(
    tmp_path: Path,
    records: list[dict[str, Any]],
    size: BatchSize,
    ascii: bool,
    separators: tuple[str, str],
) -> None:
    assume(any(records))
    file = tmp_path / "t.jsonl"
    lines = [json.dumps(record, ensure_ascii=ascii, separators=separators) + "\n" for record in records]
    file.write_text("".join(lines), encoding="utf-8", newline="")
    columns, _ = rows_of(JsonLines(), file, size)
    names = {name for record in records for name in record}
    assert columns.keys() == names
    for name in names:
        assert [plain(value) for value in columns[name]] == [plain(record.get(name)) for record in records]


# Parquet

TYPES: dict[Any, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.string(): TEXTS,
    pa.binary(): st.binary(max_size=4),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.decimal128(20, 2): st.integers(-(10**9), 10**9).map(lambda number: decimal.Decimal(number) / 100),
}
NESTED: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(list(TYPES)),
    lambda types: st.one_of(
        types.map(pa.list_),
        types.map(pa.large_list),
        types.map(lambda type: pa.list_(type, 2)),
        types.map(lambda type: pa.map_(pa.string(), type)),
        st.lists(st.tuples(NAMES, types), min_size=1, max_size=3, unique_by=lambda pair: pair[0]).map(pa.struct),
    ),
    max_leaves=5,
)


def of_type(type: Any, nulls: bool) -> st.SearchStrategy[Any]:
    values: st.SearchStrategy[Any]
    if pa.types.is_map(type):
        values = st.lists(st.tuples(TEXTS, of_type(type.item_type, nulls)), max_size=3)
    elif pa.types.is_fixed_size_list(type):
        values = st.lists(of_type(type.value_type, nulls), min_size=2, max_size=2)
    elif pa.types.is_list(type) or pa.types.is_large_list(type):
        values = st.lists(of_type(type.value_type, nulls), max_size=3)
    elif pa.types.is_struct(type):
        values = st.fixed_dictionaries({field.name: of_type(field.type, nulls) for field in type})
    else:
        values = TYPES[type]
    return st.one_of(values, values, values, st.none()) if nulls else values


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    types = draw(st.dictionaries(NAMES, NESTED, min_size=1, max_size=3))
    rows = draw(st.integers(1, 12))
    columns = {}
    for name, type in types.items():
        values = draw(st.lists(of_type(type, draw(st.booleans())), min_size=rows, max_size=rows))
        columns[name] = pa.array(values, type)
    return pa.table(columns)


@OURS
@given(
    table=tables(),
    size=SIZES,
    row_group=st.integers(1, 12),
    version=st.sampled_from(["1.0", "2.0"]),
    statistics=st.booleans(),
    dictionary=st.booleans(),
    schema=st.booleans(),
)
def test_parquet_arrives_as_it_was_written(
    tmp_path: Path,
    table: pa.Table,
    size: BatchSize,
    row_group: int,
    version: str,
    statistics: bool,
    dictionary: bool,
    schema: bool,
) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(
        table,
        file,
        row_group,
        data_page_version=version,
        write_statistics=statistics,
        use_dictionary=dictionary,
        store_schema=schema,
    )
    columns, dtypes = rows_of(Parquet(), file, size)
    reference = pq.read_table(file)
    assert list(columns) == reference.column_names
    for name in columns:
        assert [plain(value) for value in columns[name]] == [plain(value) for value in reference[name].to_pylist()]
    whole = pd.read_parquet(file)
    for name in whole.columns:
        if not (pa.types.is_integer(reference[name].type) or pa.types.is_boolean(reference[name].type)):
            assert dtypes[name] == whole.dtypes[name]

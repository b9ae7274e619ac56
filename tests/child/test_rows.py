"""Rows: what ``run()`` returned comes out as the bytes that the documentation promises, or is refused by name."""

from __future__ import annotations

import enum
import io
import json
import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.child.rows.columns import ColumnOrder
from mpi_prs.child.rows.encoding import WrongReturnType, as_fields, encode_rows, header_line, prepare_to_encode
from mpi_prs.child.rows.row_format import Form, default_to_csv, encoding, form_of
from tests.support.processes import PLAIN


def rows_of(result: Any, form: dict[str, Any] | None = PLAIN) -> bytes:
    return encode_rows(result, form)[1]


# Lists, tuples, arrays


@pytest.mark.parametrize(
    ("result", "count", "rows"),
    [
        (["a: 1", "b: 2"], 2, b"a: 1\nb: 2\n"),
        (("a",), 1, b"a\n"),
        ([1, 2.5, None, True], 4, b"1\n2.5\nNone\nTrue\n"),
        (["a", 1], 2, b"a\n1\n"),
        ([b"a"], 1, b"b'a'\n"),
        ([{"x": 1}, ["y"]], 2, b"{'x': 1}\n['y']\n"),
        ([""], 1, b"\n"),
        (["größe", "数"], 2, "größe\n数\n".encode()),
        (np.array([3, 1]), 2, b"3\n1\n"),
        (np.array([0.1, 2], np.float32), 2, b"0.1\n2.0\n"),
        (np.array(["a", "b"]), 2, b"a\nb\n"),
        (np.array([[1, 2], [3, 4]]), 2, b"[1, 2]\n[3, 4]\n"),
        (
            [np.array([0.5, np.nan]), [[np.zeros((2, 1), int)], {"x": np.int8(1)}]],
            2,
            b'[0.5, NaN]\n[[[[0], [0]]], {"x": 1}]\n',
        ),
        (
            (np.float32(0.5), np.array(["2024-01-01"], "M8[ns]"), np.array(7)),
            3,
            b'0.5\n["2024-01-01T00:00:00.000000000"]\n7\n',
        ),
        (
            [pd.DataFrame({"a": [1, 2], "b": "x"}), pd.Series([1])],
            2,
            b'[{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]\n[1]\n',
        ),
    ],
)
def test_each_element_becomes_a_line_of_its_str(result: Any, count: int, rows: bytes) -> None:
    assert encode_rows(result, PLAIN) == (count, rows)


@pytest.mark.parametrize("empty", [[], (), np.array([]), np.zeros((0, 3)), pd.DataFrame(), pd.Series(dtype=float)])
@pytest.mark.parametrize("form", [PLAIN, {**PLAIN, "header": True}, None])
def test_nothing_returned_is_no_rows_and_no_error(empty: Any, form: dict[str, Any] | None) -> None:
    assert encode_rows(empty, form) == (0, b"")


class Digit(str, enum.Enum):
    SEVEN = "7"


def test_a_str_that_has_its_own_str_is_written_as_that_says() -> None:
    assert rows_of([Digit.SEVEN]) == f"{Digit.SEVEN!s}\n".encode()


@given(st.lists(st.text() | st.integers() | st.none() | st.floats()))
def test_any_list_gives_its_length_and_the_str_of_each_element(elements: list[Any]) -> None:
    assert encode_rows(elements, PLAIN) == (len(elements), "".join(f"{element}\n" for element in elements).encode())


@pytest.mark.parametrize("length", [80, 5000])
def test_a_long_row_of_an_array_stays_in_one_line_with_every_value(length: int) -> None:
    array = np.arange(2 * length).reshape(2, length)

    lines = rows_of(array).decode().splitlines()

    assert list(map(json.loads, lines)) == array.tolist()
    assert rows_of(list(array)).decode().splitlines() == lines
    for frame in (pd.DataFrame({"a": list(array), "b": 1}), pd.Series(list(array))):
        cells = pd.read_csv(io.BytesIO(rows_of(frame)), header=None, sep=" ")[0]
        assert list(map(json.loads, cells)) == array.tolist()
    twice = pd.DataFrame([[array[0], "x"], [[1, "y"], None]], columns=["a", "a"])
    assert rows_of(twice, {**PLAIN, "sep": ";"}).decode() == f"{lines[0]};x\n[1, 'y'];\n"


# File names


@given(st.lists(st.binary(max_size=20)))
def test_a_file_name_comes_out_as_its_bytes_on_disk(names: list[bytes]) -> None:
    assert rows_of([os.fsdecode(name) for name in names]) == b"".join(name + b"\n" for name in names)


def test_a_lone_surrogate_is_escaped_and_spoils_no_other_row() -> None:
    name = b"caf\xe9"
    assert rows_of(["\ud800", os.fsdecode(name), "ü\udfff"]) == b"\\ud800\n" + name + b"\n" + "ü\\udfff\n".encode()


@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1))
def test_no_text_whatever_raises(texts: list[str]) -> None:
    count, rows = encode_rows(texts, PLAIN)

    assert count == len(texts)
    assert rows.endswith(b"\n")


# DataFrames

FRAME = pd.DataFrame(
    {
        "name": ["a b", 'say "hi"', "é", None],
        "score": [0.25, float("nan"), -1e300, 3.0],
        "when": pd.to_datetime(["2024-01-02 00:00:00", None, "2024-01-02 03:04:05", "1970-01-01 00:00:00"]),
        "count": [1, 2, 3, 4],
    },
    index=["w", "x", "y z", "w"],
)


@pytest.mark.parametrize("sep", [" ", ",", "\t", ";"])
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("index", [False, True])
def test_a_data_frame_is_written_as_pandas_itself_writes_it(
    tmp_path: Path, sep: str, header: bool, index: bool
) -> None:
    options = {"sep": sep, "header": header, "index": index}
    FRAME.to_csv(tmp_path / "expected.csv", encoding="utf-8", **options)

    assert encode_rows(FRAME, {"form": "text", **options}) == (4, (tmp_path / "expected.csv").read_bytes())


def test_a_data_frame_has_spaces_and_no_header_and_no_index_as_the_config_says_by_default() -> None:
    assert rows_of(pd.DataFrame({"a": [1, 2], "b": ["x", "y z"]}, index=[7, 8])) == b'1 x\n2 "y z"\n'


def test_a_series_is_written_like_a_column() -> None:
    assert encode_rows(pd.Series([0.5, 2]), PLAIN) == (2, b"0.5\n2.0\n")


def test_text_that_is_not_unicode_in_a_data_frame_comes_out_as_its_bytes() -> None:
    assert rows_of(pd.DataFrame({"name": pd.Series([os.fsdecode(b"\xff.png")], dtype=object)})) == b"\xff.png\n"


# Only counted


@pytest.mark.parametrize("result", [["a", "b"], ("a", "b"), np.zeros((2, 9)), FRAME[:2], FRAME["name"][:2]])
def test_with_summary_only_rows_are_counted_and_not_made(result: Any) -> None:
    assert encode_rows(result, None) == (2, b"")


class Unprintable:
    def __str__(self) -> str:
        raise AssertionError("nobody asked for it")


def test_with_summary_only_no_element_is_turned_into_text() -> None:
    assert encode_rows([Unprintable()], None) == (1, b"")


# What has no rows


def generator() -> Iterator[str]:
    yield "a"


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (None, "None (did it forget to return?)"),
        ("abc", "a str"),
        (b"abc", "a bytes"),
        ({"a": 1}, "a dict"),
        ({"a"}, "a set"),
        (7, "an int"),
        (generator(), "a generator"),
        (map(str, [1]), "a map"),
        (np.array(7), "a numpy.ndarray without dimensions"),
        (np.float32(7), "a numpy.float32"),
        (deque(["a"]), "a collections.deque"),
    ],
)
@pytest.mark.parametrize("form", [PLAIN, None])
def test_anything_else_is_refused_by_its_name(result: Any, name: str, form: dict[str, Any] | None) -> None:
    with pytest.raises(WrongReturnType) as caught:
        encode_rows(result, form)

    assert str(caught.value).startswith(f"run() returned {name}; expected a list, a tuple, ")


def test_neither_pandas_nor_numpy_is_imported_for_a_list() -> None:
    code = """
import sys
from mpi_prs.child.rows.columns import ColumnOrder
from mpi_prs.child.rows.encoding import WrongReturnType, encode_rows
encode_rows(["a", 1], {"form": "text"})
try:
    encode_rows(None, {"form": "text"})
except WrongReturnType:
    pass
print(sorted({"pandas", "numpy"} & set(sys.modules)))
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert shown.stdout == "[]\n"


# Objects and tables

JSON = encoding("rows.jsonl", {"sep": " ", "header": False, "index": False})
ARROW = encoding("rows.parquet", {"sep": " ", "header": False, "index": False})


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.txt", Form.TEXT),
        ("a.csv", Form.TEXT),
        ("jsonl", Form.TEXT),
        (".jsonl", Form.TEXT),
        ("a.b.JSONL", Form.JSON_LINES),
        ("a.Parquet", Form.PARQUET),
        ("a.h5", Form.HDF5),
        ("a.HDF5", Form.HDF5),
        ("a.parquet.txt", Form.TEXT),
    ],
)
def test_the_suffix_says_what_the_output_is(name: str, form: Form) -> None:
    assert form_of(name) is form


def test_a_csv_has_commas_and_a_header_unless_told_otherwise() -> None:
    assert default_to_csv("a.CSV") == {"sep": ",", "header": True, "index": False}
    assert default_to_csv("a.txt") == {"sep": " ", "header": False, "index": False}


def test_the_header_of_a_csv_comes_from_a_frame_with_rows() -> None:
    form = {"form": "text", **default_to_csv("a.csv")}
    assert header_line(pd.DataFrame({"a": [1], "b": ["x"]}), form) == b"a,b\n"


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        ([{"a": 1}, {"a": 2}], "a\n1\n2\n"),
        (np.array([[1, 2], [3, 4]]), "0,1\n1,2\n3,4\n"),
        (pd.Series([1, 2], name="s"), "s\n1\n2\n"),
        (pd.DataFrame({"a": [np.array([1, 2])]}), 'a\n"[1, 2]"\n'),
        (["a,b", 1, None], "a,b\n1\nNone\n"),
        (np.array([1, 2]), "1\n2\n"),
        (
            [np.array([1, 2])],
            "whose element 0 is a numpy.ndarray; expected a pandas DataFrame or a list of dicts, since",
        ),
        (["a", ("b", 1)], "whose element 1 is a tuple; expected"),
        ([{"a": 1}, pd.DataFrame({"a": [1]})], "whose element 0 is a dict; expected"),
    ],
)
def test_a_csv_gets_a_header_and_fields_or_refuses(result: Any, lines: str) -> None:
    form = {"form": "text", **default_to_csv("a.csv")}
    if lines.startswith("whose"):
        with pytest.raises(WrongReturnType, match=lines):
            as_fields(result)
    else:
        assert rows_of(as_fields(result), form).decode() == lines


def test_columns_in_another_order_are_written_by_name(tmp_path: Path) -> None:
    first = pd.DataFrame({"a": [1], "b": [10]})
    told: list[str] = []
    form = {**PLAIN, "index": True}
    orders = [ColumnOrder(str(tmp_path / "columns"), "", form, told.append) for _ in range(2)]
    for order, frame in zip(orders * 2, (first, first[["b", "a"]], first, first[["b", "a"]]), strict=True):
        assert rows_of(order.arranged(frame)) == b"1 10\n"
    other = first.rename(columns={"a": "c"})
    for _ in range(2):
        assert orders[0].arranged(other) is other
    assert len(told) == 1
    assert "columns None,c,b; expected None,a,b, those of the first DataFrame" in told[0]
    assert rows_of(orders[0].arranged(first["b"])) == b"10\n"
    headed = ColumnOrder(str(tmp_path / "columns"), "", {**form, "header": True}, told.append)
    assert headed.arranged(first) is first
    named = first.rename_axis("i")
    for wrong in (other, first[["a"]], first[["a", "b", "b"]], named, named[["b", "a"]]):
        with pytest.raises(
            WrongReturnType, match="expected None,a,b, those that the output file has in its first line"
        ):
            headed.arranged(wrong)


def test_an_index_of_more_levels_is_told_of(tmp_path: Path) -> None:
    told: list[str] = []
    order = ColumnOrder(str(tmp_path / "columns"), "", {**PLAIN, "index": True}, told.append)
    first = pd.DataFrame({"a": [1], "b": [10]})
    deeper = first.set_index(pd.MultiIndex.from_tuples([(1, 2)]))
    for frame in (first, first.rename_axis("i"), deeper, deeper[["b", "a"]]):
        assert order.arranged(frame).columns.tolist() == frame.columns.tolist()
    assert len(told) == 1
    assert "columns None,None,a,b; expected None,a,b, those of the first DataFrame" in told[0]


def objects(result: Any, form: dict[str, Any] = JSON) -> list[Any]:
    """The rows, read back by Python's own strict reader."""
    count, rows = encode_rows(result, form)
    lines = rows.decode().split("\n")
    assert (len(lines) - 1, lines[-1]) == (count, "")

    def no_constant(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=no_constant) for line in lines[:-1]]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=4), max_size=5))
def test_dicts_become_a_line_of_json_each(rows: list[dict[str, Any]]) -> None:
    assert objects(rows) == rows


@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(), st.none() | st.text(), st.none() | st.integers(0, 9)),
        min_size=1,
        max_size=5,
    )
)
def test_data_frame_rows_become_a_line_of_json_each(rows: list[tuple[Any, ...]]) -> None:
    frame = pd.DataFrame({"n": [row[0] for row in rows], "x": [row[1] for row in rows]})
    frame["s"] = pd.Series([row[2] for row in rows], dtype=object)
    frame["i"] = pd.array([row[3] for row in rows], "Int64")

    assert objects(frame) == [{"n": n, "x": x if math.isfinite(x) else None, "s": s, "i": i} for n, x, s, i in rows]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.1), 0.10000000149011612),
        (np.int64(3), 3),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([1.0, math.nan]), [1.0, None]),
        (np.bool_(True), True),
        ({"deep": [math.inf, (1, -math.inf)]}, {"deep": [None, [1, None]]}),
        (pd.NA, None),
        (pd.NaT, None),
        (pd.Timestamp("2024-01-02 03:04:05"), "2024-01-02T03:04:05"),
        (pd.Timedelta("1s"), "P0DT0H0M1S"),
        (Path("a/b"), "a/b"),
        ("größe 数", "größe 数"),
        (os.fsdecode(b"caf\xe9"), "caf\udce9"),
    ],
)
def test_values_that_json_lacks_come_as_the_nearest(value: Any, expected: Any) -> None:
    assert objects([{"v": value}]) == [{"v": expected}]
    assert objects([{"v": value, "bad": math.nan}]) == [{"v": expected, "bad": None}]
    if not isinstance(value, (dict, np.ndarray)):
        assert objects(pd.DataFrame({"v": pd.Series([value, 1], dtype=object)}))[0] == {"v": expected}


def test_text_stays_readable() -> None:
    assert encode_rows([{"ort": "Köln"}], JSON)[1] == '{"ort": "Köln"}\n'.encode()


@pytest.mark.parametrize("form", [JSON, ARROW])
def test_with_the_index_it_is_a_column(form: dict[str, Any]) -> None:
    frame = pd.DataFrame({"x": [1]}, index=pd.Index(["a"], name="key"))

    if form is JSON:
        assert objects(frame, {**JSON, "index": True}) == [{"key": "a", "x": 1}]
        assert objects(frame.rename_axis(None), {**JSON, "index": True}) == [{"index": "a", "x": 1}]
        assert objects(frame) == [{"x": 1}]
    else:
        assert table(frame, {**ARROW, "index": True}).to_pylist() == [{"key": "a", "x": 1}]


def test_a_series_is_one_column() -> None:
    assert objects(pd.Series([0.5], name="x")) == [{"x": 0.5}]
    assert table(pd.Series([0.5])).to_pylist() == [{"0": 0.5}]


def table(result: Any, form: dict[str, Any] = ARROW) -> Any:
    count, rows = encode_rows(result, form)
    with pa.ipc.open_stream(rows) as stream:
        found = stream.read_all()
    assert found.num_rows == count == len(result)
    return found


def test_a_column_without_a_value_is_marked() -> None:
    found = table(
        pd.DataFrame({"x": [math.nan], "y": [1.0], "z": [None], "m": pd.Series([{1: 2, "a": 1}], dtype=object)})
    )

    marks = {field.name: (field.metadata or {}).get(b"mpi_prs") for field in found.schema}
    assert marks == {"x": b"empty", "y": None, "z": b"empty", "m": b"text"}


@pytest.mark.parametrize("form", [JSON, ARROW])
@pytest.mark.parametrize(
    ("result", "message"),
    [
        (["a"], "run() returned a list whose element 0 is a str; expected a pandas DataFrame or a list of dicts"),
        ([{"a": 1}, None], "run() returned a list whose element 1 is None; expected a pandas DataFrame or a list of"),
        (np.zeros(3), "run() returned a numpy.ndarray; expected a pandas DataFrame or a list of dicts"),
        ("abc", "run() returned a str; expected a list, a tuple"),
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            "run() returned a DataFrame with two columns 'a'; give each a name",
        ),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "run() returned a DataFrame with two columns '1'; give each a name"),
    ],
)
def test_rows_without_names_are_refused(result: Any, message: str, form: dict[str, Any]) -> None:
    with pytest.raises(WrongReturnType) as caught:
        encode_rows(result, form)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("result", "form", "message"),
    [
        ([{"a": {1}}], JSON, "run() returned a row that JSON cannot hold: a value of type set"),
        ([{"a": {1}, "b": math.nan}], JSON, "run() returned a row that JSON cannot hold: a value of type set"),
        (
            [{"a": math.nan, (1, 2): 3}],
            JSON,
            "run() returned a row that JSON cannot hold: keys must be str, int, float, bool",
        ),
        ([{(1, 2): 3}], JSON, "run() returned a row that JSON cannot hold: keys must be str, int, float, bool or None"),
        (pd.DataFrame({"a": [b"x"]}), JSON, "run() returned a row that JSON cannot hold: a value of type bytes"),
        ([{}, {}], ARROW, "run() returned a list of empty dicts; expected at least one key"),
        (pd.DataFrame(index=[1, 2]), ARROW, "run() returned a DataFrame without columns; expected at least one"),
    ],
)
def test_rows_that_do_not_go_into_the_output_are_refused(result: Any, form: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongReturnType) as caught:
        encode_rows(result, form)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("empty", [[], (), np.array([]), pd.DataFrame(), pd.DataFrame({"a": []})])
@pytest.mark.parametrize("form", [JSON, ARROW])
def test_nothing_returned_is_no_rows_in_any_form(empty: Any, form: dict[str, Any]) -> None:
    assert encode_rows(empty, form) == (0, b"")


def test_empty_dicts_are_objects() -> None:
    assert objects([{}, {}]) == [{}, {}]
    assert objects(pd.DataFrame(index=[1, 2])) == [{}, {}]


def test_an_interpreter_without_pyarrow_is_told_before_anything_is_run() -> None:
    prepare_to_encode(None)
    prepare_to_encode(JSON)
    with (
        mock.patch.dict(sys.modules, {"mpi_prs.child.rows.arrow": None}),
        pytest.raises(
            ImportError, match=r"typed rows \(\.parquet, \.h5\) needs pyarrow in the Python of the user proc"
        ),
    ):
        prepare_to_encode(ARROW)

"""Rows: what ``run()`` returned comes out as the bytes that the documentation promises, or is refused by name."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.output.rows import WrongReturnType, encode_rows

PLAIN = {"sep": " ", "header": False, "index": False}


def rows_of(result: Any, to_csv: dict[str, Any] | None = PLAIN) -> bytes:
    return encode_rows(result, to_csv)[1]


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
        (np.array([[1, 2], [3, 4]]), 2, b"[1 2]\n[3 4]\n"),
    ],
)
def test_each_element_becomes_a_line_of_its_str(result: Any, count: int, rows: bytes) -> None:
    assert encode_rows(result, PLAIN) == (count, rows)


@pytest.mark.parametrize("empty", [[], (), np.array([]), np.zeros((0, 3)), pd.DataFrame(), pd.Series(dtype=float)])
@pytest.mark.parametrize("to_csv", [PLAIN, {**PLAIN, "header": True}, None])
def test_nothing_returned_is_no_rows_and_no_error(empty: Any, to_csv: dict[str, Any] | None) -> None:
    assert encode_rows(empty, to_csv) == (0, b"")


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

    assert [list(map(int, line.strip("[]").split())) for line in lines] == array.tolist()


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

    assert encode_rows(FRAME, options) == (4, (tmp_path / "expected.csv").read_bytes())


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
@pytest.mark.parametrize("to_csv", [PLAIN, None])
def test_anything_else_is_refused_by_its_name(result: Any, name: str, to_csv: dict[str, Any] | None) -> None:
    with pytest.raises(WrongReturnType) as caught:
        encode_rows(result, to_csv)

    assert str(caught.value).startswith(f"run() returned {name}; expected a list, a tuple, ")


def test_neither_pandas_nor_numpy_is_imported_for_a_list() -> None:
    code = """
import sys
from mpi_prs.output.rows import WrongReturnType, encode_rows
encode_rows(["a", 1], {})
try:
    encode_rows(None, {})
except WrongReturnType:
    pass
print(sorted({"pandas", "numpy"} & set(sys.modules)))
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert shown.stdout == "[]\n"

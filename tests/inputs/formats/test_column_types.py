"""The types that a user may name for a column, and the values that texts become."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_prs.inputs.formats.text_columns import NumberStyle, cast_leniently, to_values
from mpi_prs.inputs.formats.types import datetime_format, parse_column_type


def values(texts: list[str | bytes | None], type: str, **options: Any) -> list[Any]:
    binary = pa.array([text.encode() if isinstance(text, str) else text for text in texts], pa.binary())
    made = to_values(binary, parse_column_type(type), format=datetime_format(type), **options)
    assert made.type == parse_column_type(type)
    found: list[Any] = made.to_pylist()
    return found


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("string", pa.string()),
        ("int", pa.int64()),
        ("long", pa.int64()),
        ("int32", pa.int32()),
        ("uint8", pa.uint8()),
        ("Int32", pa.int32()),
        ("boolean", pa.bool_()),
        ("float", pa.float64()),
        ("float32", pa.float32()),
        ("bool", pa.bool_()),
        ("datetime", pa.timestamp("us")),
        ("datetime(%d.%m.%Y)", pa.timestamp("us")),
    ],
)
def test_a_type_is_named(text: str, type: Any) -> None:
    assert parse_column_type(text) == type


@pytest.mark.parametrize("text", ["", "str", "Int128", "integer", "datetime()", "datetime(dmY)", "datetime(%d", "int "])
def test_another_text_is_refused_with_the_vocabulary(text: str) -> None:
    with pytest.raises(ValueError, match="is not a type of a column") as refused:
        parse_column_type(text)
    assert repr(text) in str(refused.value)
    assert "string, int, long" in str(refused.value)
    assert "datetime(%d.%m.%Y)" in str(refused.value)


def test_a_datetime_may_have_a_format() -> None:
    assert datetime_format("datetime(%d.%m.%Y (%H h))") == "%d.%m.%Y (%H h)"
    assert datetime_format("datetime") is None


def test_integers_are_what_pandas_takes_for_integers() -> None:
    texts = ["7", "+7", " -007\t", "0x7", "7.0", "7e0", "", "- 7", "1_0", None, b"\xff", str(2**63)]
    assert values(texts, "int") == [7, 7, -7, *[None] * 9]
    assert values([str(2**63), "-1", str(2**64)], "uint64") == [2**63, None, None]
    assert values(["127", "128", "-128"], "int8") == [127, None, -128]


def test_floats_are_what_pandas_takes_for_floats() -> None:
    texts = ["1.5", "+.5", " 5. ", "1e400", "-INF", "0x1p3", "nan(1)", "1,5", "1.5.", "e5", "1e"]
    assert values(texts, "float") == [1.5, 0.5, 5.0, float("inf"), float("-inf"), *[None] * 6]
    assert values(["1,5", "1.5", "2"], "float", style=NumberStyle(",")) == [1.5, None, 2.0]


def test_booleans_are_what_pandas_takes_for_booleans() -> None:
    assert values(["True", "true", "TRUE", "False", "false", "FALSE"], "bool") == [True] * 3 + [False] * 3
    assert values(["1", "yes", "tRUE", "True ", None], "bool") == [None] * 5


def test_datetimes_are_iso_8601_unless_a_format_says_otherwise() -> None:
    noon = datetime(2024, 1, 31, 12)
    assert values(["2024-01-31T12:00:00", "2024-01-31 12:00", "2024-02-31", "31.1.2024"], "datetime") == [
        *[noon, noon],
        *[None, None],
    ]


@pytest.mark.parametrize(
    ("format", "good", "bad"),
    [
        (
            "%d.%m.%Y",
            {"31.01.2024": (2024, 1, 31), "1.2.2024": (2024, 2, 1)},
            ["31.02.2024", "31.01.24", " 31.01.2024"],
        ),
        ("%d/%b/%y", {"31/Jan/24": (2024, 1, 31)}, ["31/01/24"]),
        ("%Y%m%d %H:%M:%S.%f", {"20240131 12:30:01.25": (2024, 1, 31, 12, 30, 1, 250000)}, ["20240131 25:00:00.0"]),
        ("%d.%m.%Y %H(h)", {"31.01.1824 07(h)": (1824, 1, 31, 7)}, ["31.01.1824 07"]),
        ("%Y-%m-%d%z", {}, ["2024-01-31+0100"]),
    ],
)
def test_a_format_is_one_of_strptime(format: str, good: dict[str, tuple[int, ...]], bad: list[str]) -> None:
    expected = [datetime(*parts) for parts in good.values()]
    assert values([*good, *bad, None], f"datetime({format})") == [*expected, *[None] * (len(bad) + 1)]


@given(st.lists(st.datetimes()), st.sampled_from(["%d.%m.%Y %H:%M:%S.%f", "%Y%m%d%H%M%S%f", "%m/%d/%Y %I:%M:%S.%f %p"]))
def test_every_datetime_comes_back(moments: list[datetime], format: str) -> None:
    moments = [moment for moment in moments if moment.year >= 1000]  # %Y is not padded everywhere
    assert values([moment.strftime(format) for moment in moments], f"datetime({format})") == moments


@given(st.lists(st.one_of(st.integers(-300, 300).map(str), st.text(max_size=3), st.none())))
def test_a_lenient_cast_casts_what_can_be_cast(texts: list[str | None]) -> None:
    def alone(text: str | None) -> Any:
        try:
            return pa.array([text], pa.string()).cast(pa.int8())[0].as_py()
        except pa.ArrowException:
            return None

    assert cast_leniently(pa.array(texts, pa.string()), pa.int8()).to_pylist() == list(map(alone, texts))

"""Parquet: all mini-batches together are what pandas reads of the whole, whatever the row groups and the sizes."""

from __future__ import annotations

import base64
import datetime
import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.format import BatchSize, Part
from mpi_prs.inputs.formats.parquet.reading import Parquet
from mpi_prs.inputs.formats.unfit import refuse_unfit
from tests.support.tables import STORE, CountingFiles, at_the_user, parts_of, survey_of


def frames_of(
    format: Parquet, files: Sequence[Path], size: BatchSize, shuffle: random.Random | None = None
) -> list[pd.DataFrame]:
    """The DataFrames of all mini-batches in the order of the rows, read in that order or in another."""
    survey, parts = parts_of(format, files, size)
    order = list(range(len(parts)))
    if shuffle is not None:
        shuffle.shuffle(order)
    frames: dict[int, pd.DataFrame] = {}
    with closing(format.reader(survey, STORE)) as reader:
        for number in order:
            frames[number] = at_the_user(reader.read(parts[number]).data)
            assert len(frames[number]) == parts[number].rows
    return [frames[number] for number in range(len(parts))]


def assert_together(frames: Sequence[pd.DataFrame], whole: pd.DataFrame) -> None:
    """Values and dtypes of all frames are those of the whole; each frame by itself has its dtypes."""
    for frame in frames:
        assert frame.dtypes.to_dict() == whole.dtypes.to_dict()
    plain = isinstance(whole.index, pd.RangeIndex)
    together = pd.concat(frames, ignore_index=plain)
    pd.testing.assert_frame_equal(together, whole.reset_index(drop=True) if plain else whole)


# The property

_UTC = datetime.timezone.utc
_MOMENT = st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2040, 1, 1), timezones=st.just(_UTC))
_VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint8": (pa.uint8(), st.integers(0, 255)),
    "double": (pa.float64(), st.floats(allow_nan=True)),
    "float": (pa.float32(), st.floats(width=32)),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), st.text(max_size=5)),
    "bytes": (pa.binary(), st.binary(max_size=5)),
    "date": (pa.date32(), st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1))),
    "moment": (pa.timestamp("us", "Europe/Paris"), _MOMENT),
    "naive": (pa.timestamp("ms"), _MOMENT.map(lambda moment: moment.replace(tzinfo=None, microsecond=0))),
    "list": (pa.list_(pa.string()), st.lists(st.text(max_size=3), max_size=3)),
    "struct": (pa.struct([("x", pa.float64()), ("y", pa.string())]), st.just({"x": 1.5, "y": "z"})),
    "category": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["red", "green", "blue"])),
    "nothing": (pa.null(), st.none()),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 40))
    kinds = draw(st.lists(st.sampled_from(sorted(_VALUES)), min_size=1, max_size=5))
    columns = {}
    for number, kind in enumerate(kinds):
        type, values = _VALUES[kind]
        if draw(st.booleans()):
            values = st.one_of(values, values, values, st.none())
        drawn = draw(st.lists(values, min_size=rows, max_size=rows))
        array = pa.array(drawn, pa.string() if kind == "category" else type)
        name = f"{kind}.{number}" if number % 2 else f"{kind} {number}"
        columns[name] = array.dictionary_encode() if kind == "category" else array
    return pa.table(columns)


SIZES = st.one_of(st.builds(BatchSize, rows=st.integers(1, 50)), st.builds(BatchSize, bytes=st.integers(1, 3000)))


@settings(max_examples=150)
@given(
    table=tables(),
    row_group=st.integers(1, 40),
    size=SIZES,
    version=st.sampled_from(["1.0", "2.0"]),
    statistics=st.booleans(),
    shuffle=st.one_of(st.none(), st.randoms(use_true_random=False)),
    data=st.data(),
)
def test_all_mini_batches_together_are_what_pandas_reads_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    table: pa.Table,
    row_group: int,
    size: BatchSize,
    version: str,
    statistics: bool,
    shuffle: random.Random | None,
    data: st.DataObject,
) -> None:
    file = tmp_path_factory.mktemp("table") / "t.parquet"
    pq.write_table(table, file, row_group, data_page_version=version, write_statistics=statistics, data_page_size=64)
    columns = data.draw(
        st.one_of(st.just([]), st.lists(st.sampled_from(table.column_names), unique=True, min_size=1)), "columns"
    )
    format = Parquet(columns=tuple(columns))
    frames = frames_of(format, [file], size, shuffle)
    whole = pd.read_parquet(file, columns=columns or None)
    for name, dtype in (("int64", "Int64"), ("uint8", "UInt8"), ("bool", "boolean")):
        for column in whole.columns[whole.columns.str.startswith(name)]:
            if table[column].null_count or not statistics:
                whole[column] = pd.array(table[column].to_pylist(), dtype=dtype)
    if len(whole):
        assert_together(frames, whole)
    else:
        assert frames == []


@settings(max_examples=60)
@given(rows=st.integers(1, 200), row_group=st.integers(1, 80), size=SIZES)
def test_parts_cover_every_row_once_and_are_about_as_large_as_asked(
    tmp_path_factory: pytest.TempPathFactory, rows: int, row_group: int, size: BatchSize
) -> None:
    file = tmp_path_factory.mktemp("table") / "t.parquet"
    pq.write_table(pa.table({"x": np.arange(rows, dtype=float)}), file, row_group, use_dictionary=False)
    survey = survey_of(Parquet(), file)
    parts = list(Parquet().split(str(file), size, survey, STORE))
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == rows
    assert all(part.first_row == part.start and part.rows == part.stop - part.start >= 1 for part in parts)
    if size.rows:
        assert all(part.rows <= size.rows for part in parts)
    for part in parts:
        if part.group >= 0:
            assert part.group * row_group <= part.start < part.stop <= (part.group + 1) * row_group


def test_small_row_groups_are_joined_and_large_ones_are_cut_into_equal_parts(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    with pq.ParquetWriter(file, pa.schema([("x", pa.int64())])) as writer:
        for rows in (3, 4, 5, 25, 2, 2):
            writer.write_table(pa.table({"x": range(rows)}))
    parts = list(Parquet().split(str(file), BatchSize(rows=10), survey_of(Parquet(), file), STORE))
    assert [(part.start, part.stop, part.group) for part in parts] == [
        (0, 7, -1),
        (7, 12, -1),
        (12, 21, 3),
        (21, 30, 3),
        (30, 37, 3),
        (37, 41, -1),
    ]


def test_bytes_count_the_selected_columns_alone(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    wide = pa.array([bytes(1000)] * 1000)
    pq.write_table(pa.table({"a.b": range(1000), "wide": wide}), file, use_dictionary=False)
    for format, least, most in ((Parquet(columns=("a.b",)), 1, 2), (Parquet(), 100, 150)):
        parts = list(format.split(str(file), BatchSize(bytes=8000), survey_of(format, file), STORE))
        assert least <= len(parts) <= most


# What pandas wrote


def test_the_index_and_the_dtypes_that_pandas_wrote_come_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3, 4, None, 6], dtype="Int64"),
            "flag": pd.array([True, None, False, True, True, True], dtype="boolean"),
            "period": pd.period_range("2020-01", periods=6, freq="M"),
            "level": pd.Categorical(list("abcaba"), categories=list("cbaz"), ordered=True),
            "moment": pd.date_range("2020-01-01", periods=6, tz="Asia/Tokyo"),
            "nested": [[1.5], [], [2.5, 3.5], None, [1.0], [2.0]],
        },
        index=pd.Index([f"row{number}" for number in range(6)], name="key"),
    )
    file = tmp_path / "t.parquet"
    frame.to_parquet(file, row_group_size=4)
    whole = pd.read_parquet(file)
    assert_together(frames_of(Parquet(), [file], BatchSize(rows=2)), whole)
    chosen = ["level", "whole"]
    frames = frames_of(Parquet(columns=tuple(chosen)), [file], BatchSize(rows=3))
    assert_together(frames, pd.read_parquet(file, columns=chosen))


def test_all_mini_batches_have_the_categories_of_all_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.parquet", "b.parquet")]
    for file, values in zip(files, ("xyx", "zyq"), strict=True):
        pd.DataFrame({"level": pd.Categorical(list(values))}).to_parquet(file, row_group_size=1)
    frames = frames_of(Parquet(), files, BatchSize(rows=2))
    assert {tuple(frame["level"].cat.categories) for frame in frames} == {("x", "y", "q", "z")}
    assert [value for frame in frames for value in frame["level"]] == list("xyxzyq")


# Many files


def write(file: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def test_a_null_anywhere_in_the_dataset_decides_for_every_mini_batch(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.parquet", number=[1, 2, 3], flag=[True, False, True], sure=[1, 2, 3]),
        write(tmp_path / "b.parquet", number=[4, None], flag=[None, True], sure=[4, 5]),
    ]
    frames = frames_of(Parquet(), files, BatchSize(rows=1))
    whole = pd.DataFrame({"number": [1, 2, 3, 4, None], "flag": [True, False, True, None, True], "sure": range(1, 6)})
    assert_together(frames, whole.astype({"number": "Int64", "flag": "boolean", "sure": "int64"}))


def test_types_that_one_type_can_hold_are_widened(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.parquet", x=pa.array([1, 2], pa.int32()), y=[1, 2], z=pa.nulls(2)),
        write(tmp_path / "empty.parquet", other=pa.nulls(0)),
        write(tmp_path / "b.parquet", z=["p", "q"], y=[1.5, 2.5], x=pa.array([3, 4], pa.int64())),
    ]
    frames = frames_of(Parquet(), files, BatchSize(rows=5))
    assert [list(frame.columns) for frame in frames] == [["x", "y", "z"]] * 2
    assert [str(type) for type in frames[0].dtypes] == [str(type) for type in frames[1].dtypes]
    assert pd.concat(frames)["y"].tolist() == [1.0, 2.0, 1.5, 2.5]
    assert frames[0].dtypes["x"] == "int64"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"x": ["a"], "y": [1]}, ["column 'x' is int64 in", "a.parquet but string in", "b.parquet"]),
        ({"x": [1]}, ["b.parquet has no column 'y', which", "a.parquet has"]),
        ({"x": [1], "y": [1], "z": [1]}, ["a.parquet has no column 'z', which", "b.parquet has"]),
    ],
)
def test_files_that_do_not_agree_are_both_named(tmp_path: Path, second: dict[str, Any], said: list[str]) -> None:
    files = [write(tmp_path / "a.parquet", x=[1], y=[1]), write(tmp_path / "b.parquet", **second)]
    with pytest.raises(InputError) as error:
        survey_of(Parquet(), *files)
    assert all(words in str(error.value) for words in said), error.value


def test_only_the_selected_columns_need_agree(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.parquet", x=[1], y=[1]), write(tmp_path / "b.parquet", x=[2], y=["no"], z=[1])]
    frames = frames_of(Parquet(columns=("x",)), files, BatchSize(rows=9))
    assert [frame["x"].tolist() for frame in frames] == [[1], [2]]


def test_the_footers_of_many_files_are_read_in_order(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number:03}.parquet", **{"x": [number]}) for number in range(100)]
    files.append(write(tmp_path / "odd.parquet", x=["text"]))
    files.append(write(tmp_path / "odd2.parquet", x=[b"bytes"]))
    with pytest.raises(InputError, match=r"000\.parquet but string in .*odd\.parquet"):
        survey_of(Parquet(), *files)


def test_columns_that_do_not_exist_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", x=[1], y=[1])
    with pytest.raises(InputError, match=r"columns: 'z' not found in .*a\.parquet, whose columns are 'x', 'y'"):
        survey_of(Parquet(columns=("x", "z")), file)
    with pytest.raises(InputError, match="column_types: 'z' not found"):
        survey_of(Parquet(column_types={"z": "string"}), file)


# Odd files


EMPTY_GROUP = (
    "UEFSMRUAFSAVICwVBBUAFQYVBgAABwAAAAAAAAAIAAAAAAAAABUCGTxIBHJvb3QVBAA1AhgBcxUAABUEJQAYAXgAFgQZHBkcJggcFQQZFQAZGAF4"
    "FQAWBBZCFkImCAAAFkIWBAAAQQAAAFBBUjE="
)
"""``optional group s {}`` and ``required int64 x``, which is 7 and 8; pyarrow writes no such file."""


@pytest.mark.parametrize("columns", [(), ("s",), ("x",)])
def test_a_struct_without_fields_is_read_as_pandas_does(tmp_path: Path, columns: tuple[str, ...]) -> None:
    file = tmp_path / "t.parquet"
    file.write_bytes(base64.b64decode(EMPTY_GROUP))
    frames = frames_of(Parquet(columns=columns), [file], BatchSize(rows=1))
    assert_together(frames, pd.read_parquet(file, columns=list(columns) or None))


def test_row_groups_without_rows_are_in_no_mini_batch(tmp_path: Path) -> None:
    table = pa.table({f"c{number}": range(300) for number in range(20)})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        for rows in (0, 0, 300, 0, 1, 0):
            writer.write_table(table.slice(0, rows))
    for size in (BatchSize(bytes=2000), BatchSize(bytes=10**9), BatchSize(rows=1), BatchSize(rows=1000)):
        _, parts = parts_of(Parquet(), [tmp_path / "t.parquet"], size)
        assert all(part.rows == part.stop - part.start > 0 for part in parts)
        assert (parts[0].start, parts[-1].stop, sum(part.rows for part in parts)) == (0, 301, 301)


def test_encrypted_columns_are_refused_by_name_before_anything_is_read(tmp_path: Path) -> None:
    """Arrow ends the process over what their footer says."""
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):  # type: ignore[name-defined,misc]
        def __init__(self, _: Any) -> None:
            encryption.KmsClient.__init__(self)

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64encode(key)

    table = pa.table({"a": [1, 2], "b": [3, None], "s": [{"x": 1, "y": "z"}] * 2})
    for name, in_plain in (("plain", True), ("hidden", False)):
        properties = encryption.CryptoFactory(Keys).file_encryption_properties(
            encryption.KmsConnectionConfig(),
            encryption.EncryptionConfiguration("f", column_keys={"c": ["a", "s.x"]}, plaintext_footer=in_plain),
        )
        with pq.ParquetWriter(tmp_path / f"{name}.parquet", table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)
    with pytest.raises(InputError, match=r"hidden\.parquet is encrypted, and there is no key"):
        survey_of(Parquet(), tmp_path / "hidden.parquet")
    file = tmp_path / "plain.parquet"
    for columns in ((), ("s", "b")):
        with pytest.raises(InputError, match=r"plain\.parquet: the columns .*'s' are encrypted, .* `columns`"):
            survey_of(Parquet(columns=columns), file)
    (frame,) = frames_of(Parquet(columns=("b",)), [file], BatchSize(rows=9))
    assert frame["b"].tolist() == [3, pd.NA]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (pa.array([0, 1000, None, 1001], pa.time64("ns")), "00:00:00.000001001"),
        (pa.array([0, None, -719162, -719163], pa.date32()), "0000-12-31"),
        (pa.array([0, 0, 86_399_999, 86_400_000 * 3_000_000], pa.date64()), "10183-09-21"),
        (pa.array([[0], None, [], [-800_000, 0]], pa.list_(pa.date32())), ""),
        (pa.array([[("a", 0)], None, [], [("b", -800_000)]], pa.map_(pa.string(), pa.date32())), ""),
        (pa.array([{"t": 1000}, None, {"t": None}, {"t": 1}], pa.struct([("t", pa.time64("ns"))])), ""),
    ],
)
def test_values_that_pandas_cannot_hold_are_named_with_their_row(values: Any, shown: str) -> None:
    part = Part("/data/t.parquet", 10, 14, 4, 10)
    good = pa.table({"a": [1, 2, 3], "v": values[:3]})
    refuse_unfit(good, part)
    at_the_user(good)
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        at_the_user(pa.table({"v": values}))
    with pytest.raises(InputError, match=f"t.parquet, row 14, column 'v': .*{shown}.*column_types"):
        refuse_unfit(pa.table({"v": values}), part)


def test_a_time_zone_that_nobody_knows_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", t=pa.array([1], pa.timestamp("us", "Mars/Base")))
    with pytest.raises(InputError, match=r"a\.parquet: the time zone 'Mars/Base' of column 't' is not known"):
        survey_of(Parquet(), file)
    (frame,) = frames_of(Parquet(column_types={"t": "datetime"}), [file], BatchSize(rows=9))
    assert str(frame.dtypes["t"]) == "datetime64[us]"


# column_types


def test_column_types_are_obeyed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", code=["1", "2", None], level=pa.array(["3", "4", "5"]).dictionary_encode())
    format = Parquet(column_types={"code": "int", "level": "int"})
    first, second = frames_of(format, [file], BatchSize(rows=2))
    assert (first["code"].tolist(), first["level"].tolist()) == ([1, 2], [3, 4])
    assert str(first.dtypes["code"]) == str(second.dtypes["code"]) == "Int64"
    assert str(first.dtypes["level"]) == "int64"


def test_a_value_that_is_not_of_its_type_is_named_with_its_row(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", code=[str(number) for number in range(70)] + ["x7", "71"])
    format = Parquet(column_types={"code": "int64"})
    survey = survey_of(format, file)
    first, second = format.split(str(file), BatchSize(rows=36), survey, STORE)
    with closing(format.reader(survey, STORE)) as reader:
        assert reader.read(first).data.num_rows == 36
        with pytest.raises(InputError, match=r"a\.parquet, line 71, column 'code': 'x7' is not int64"):
            reader.read(second)
        assert reader.read(first).data.num_rows == 36


def test_dates_are_read_by_their_format(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", day=["31.12.2020", None, "01.02.2021"], iso=["2020-12-31 10:00:00"] * 3)
    format = Parquet(column_types={"day": "datetime(%d.%m.%Y)", "iso": "datetime"})
    frame = pd.concat(frames_of(format, [file], BatchSize(rows=1)))
    assert frame["day"].dt.day.tolist()[::2] == [31.0, 1.0]
    assert frame["iso"].dt.hour.tolist() == [10] * 3
    write(file, day=["31.12.2020", "2020-12-31"], iso=["2020-12-31"] * 2)
    with pytest.raises(InputError, match="line 2, column 'day': '2020-12-31' is not timestamp"):
        frames_of(format, [file], BatchSize(rows=9))


def test_a_type_that_there_is_not_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column_types: column 'x': 'integer' is not a type of a column"):
        survey_of(Parquet(column_types={"x": "integer"}), write(tmp_path / "a.parquet", x=[1]))


def test_a_type_that_a_column_can_never_have_is_told_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", nested=[{"x": 1}])
    with pytest.raises(InputError, match="column 'nested' is struct"):
        survey_of(Parquet(column_types={"nested": "int64"}), file)


# Damage


def test_a_damaged_file_fails_alone(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", x=list(range(10)))
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-30])
    holed = tmp_path / "holed.parquet"
    content = bytearray(good.read_bytes())
    content[4:60] = b"\xff" * 56
    holed.write_bytes(content)
    survey = survey_of(Parquet(), cut, good, holed)
    with closing(Parquet().reader(survey, STORE)) as reader:
        for file in (cut, holed):
            (part,) = Parquet().split(str(file), BatchSize(rows=100), survey, STORE)
            with pytest.raises(InputError, match=rf"{file.name} cannot be read as Parquet"):
                reader.read(part)
            (part,) = Parquet().split(str(good), BatchSize(rows=100), survey, STORE)
            assert reader.read(part).data.to_pydict() == {"x": list(range(10))}


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", x=list(range(10)))
    survey = survey_of(Parquet(), file)
    write(file, x=[1, 2])
    with pytest.raises(InputError, match="rows 0 to 10 of 2: it has changed"):
        Parquet().reader(survey, STORE).read(Part(str(file), 0, 10, 10, 0))


def test_files_none_of_which_is_parquet_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("x,y\n1,2\n" * 10)
    with pytest.raises(InputError, match=r"a\.csv cannot be read as Parquet"):
        survey_of(Parquet(), file)
    with pytest.raises(InputError, match=r"cannot read .*missing\.parquet: No such file"):
        survey_of(Parquet(), tmp_path / "missing.parquet")


# What it costs


def test_neighbouring_slices_of_a_row_group_read_it_once(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(1).random(500_000)}), file, 250_000, use_dictionary=False)
    survey = survey_of(Parquet(), file)
    store = CountingFiles()
    parts = list(Parquet().split(str(file), BatchSize(bytes=2**16), survey, STORE))
    assert len(parts) > 50
    with closing(Parquet().reader(survey, store)) as reader:
        rows = sum(reader.read(part).data.num_rows for part in parts)
    assert (rows, store.opened) == (500_000, 1)
    assert store.bytes < 1.1 * file.stat().st_size


_LEAN = """
import resource, sys
from mpi_prs.inputs.formats.format import BatchSize, LocalFiles
from mpi_prs.inputs.formats.parquet.reading import Parquet
from mpi_prs.inputs.formats.unfit import refuse_unfit

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

store, file = LocalFiles(), sys.argv[1]
for format in (Parquet(), Parquet(columns=("flag", "x"), column_types={"x": "string"})):
    survey = format.survey(lambda: iter([file]), store)
    parts = list(format.split(file, BatchSize(bytes=2**20), survey, store))
    reader = format.reader(survey, store)
    reader.read(parts[0])
    before = peak()
    for part in parts:
        reader.read(part)
    assert peak() - before < 24, (before, peak())
assert "pandas" not in sys.modules
"""


def test_a_worker_needs_no_pandas_and_little_memory(tmp_path: Path) -> None:
    """A row group of 48 MiB in slices of 1 MiB."""
    file = tmp_path / "t.parquet"
    rows = 3 * 2**20
    columns = {
        "x": np.random.default_rng(1).random(rows),
        "y": np.random.default_rng(2).random(rows),
        "flag": pa.array([True, None, False] * (rows // 3)),
        "level": pa.array(["a", "b", None] * (rows // 3)).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), file, rows, use_dictionary=["level"], compression="none")
    done = subprocess.run([sys.executable, "-c", _LEAN, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

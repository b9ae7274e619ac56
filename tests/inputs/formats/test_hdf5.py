"""HDF5: every row once and as h5py reads it, whatever it is stored as and wherever it is cut."""

from __future__ import annotations

import io
import subprocess
import sys
import types
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.format import BatchSize, Part
from mpi_prs.inputs.formats.hdf5.reading import Hdf5, cuts
from mpi_prs.inputs.formats.told import Told
from tests.support.jobs import REPOSITORY
from tests.support.tables import STORE, parts_of, survey_of

WHOLE = BatchSize(rows=2**62)


def batches(format: Hdf5, *paths: Path, size: BatchSize = WHOLE) -> list[Any]:
    """What the mini-batches of files hold."""
    survey, parts = parts_of(format, paths, size)
    with closing(format.reader(survey, STORE)) as reader:
        read = [reader.read(part).data for part in parts]
    assert [len_of(data) for data in read] == [part.rows for part in parts]
    return read


def len_of(data: Any) -> int:
    return len(next(iter(data.values()))) if isinstance(data, dict) else data.num_rows


def frame(format: Hdf5, *paths: Path, size: BatchSize = WHOLE) -> pd.DataFrame:
    return pd.concat([table.to_pandas() for table in batches(format, *paths, size=size)], ignore_index=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.h5"


@pytest.fixture(scope="module")
def new_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    return lambda: tmp_path_factory.mktemp("hdf5") / "data.h5"


# Every row once

NUMBERS = ["i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<u8", "<f2", ">f4", "<f8", ">f8", "?"]
SIZES = st.builds(lambda n: BatchSize(rows=n), st.integers(1, 50)) | st.builds(
    lambda n: BatchSize(bytes=n), st.integers(1, 2000)
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@st.composite
def columns(draw: st.DrawFn) -> dict[str, tuple[Any, Any]]:
    """Column → what it is stored as, and what a DataFrame is to hold."""
    rows = draw(st.integers(0, 40))
    made: dict[str, tuple[Any, Any]] = {}
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([*NUMBERS, "text", "fixed"]))
        if kind in ("text", "fixed"):
            texts = draw(st.lists(TEXT, min_size=rows, max_size=rows))
            stored: Any = np.array(texts, dtype=h5py.string_dtype()) if rows else np.zeros(0, h5py.string_dtype())
            if kind == "fixed":
                stored = np.array([text.encode() for text in texts], dtype=h5py.string_dtype("utf-8", 20))
            made[f"c{number}"] = stored, pd.Series(texts, dtype="str" if pd.__version__ >= "3" else object)
        else:
            raw = draw(st.binary(min_size=8 * rows, max_size=8 * rows))
            stored = np.frombuffer(raw, kind)[:rows] if kind != "?" else np.frombuffer(raw, "u1")[:rows] % 2 == 1
            made[f"c{number}"] = stored, pd.Series(stored.astype(stored.dtype.newbyteorder("=")))
    return made


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    made=columns(),
    size=SIZES,
    chunk=st.none() | st.integers(1, 60),
    compound=st.booleans(),
)
def test_the_mini_batches_of_a_table_together_are_the_table(
    new_path: Callable[[], Path], made: dict[str, tuple[Any, Any]], size: BatchSize, chunk: int | None, compound: bool
) -> None:
    path = new_path()
    rows = len(next(iter(made.values()))[0])
    options: dict[str, Any] = {"chunks": (chunk,), "maxshape": (None,), "compression": "gzip"} if chunk else {}
    with h5py.File(path, "w", track_order=True) as file:
        if compound:
            stored = np.zeros(rows, [(name, values.dtype) for name, (values, _) in made.items()])
            for name, (values, _) in made.items():
                stored[name] = values
            file.create_dataset("table", data=stored, **options)
        else:
            for name, (values, _) in made.items():
                file.create_dataset(name, data=values, **options)

    tables = batches(Hdf5(), path, size=size)

    expected = pd.DataFrame({name: values for name, (_, values) in made.items()})
    if not rows:
        assert not tables
        return
    found = [table.to_pandas() for table in tables]
    for each in found:
        pd.testing.assert_series_equal(each.dtypes, expected.dtypes)
    pd.testing.assert_frame_equal(pd.concat(found, ignore_index=True), expected)


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(0, 30), st.integers(1, 5), st.integers(0, 4)),
    chunks=st.none() | st.tuples(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4)),
    size=SIZES,
)
def test_the_mini_batches_of_arrays_together_are_the_arrays(
    new_path: Callable[[], Path], shape: tuple[int, ...], chunks: tuple[int, ...] | None, size: BatchSize
) -> None:
    path = new_path()
    images = np.arange(np.prod(shape), dtype=">f4").reshape(shape)
    names = [f"n°{number}"[: number % 5] for number in range(shape[0])]
    with h5py.File(path, "w") as file:
        group = file.create_group("digits")
        if chunks and shape[2]:
            group.create_dataset("images", data=images, maxshape=(None,) * 3, chunks=chunks, compression="gzip")
        else:
            group["images"] = images
        group.create_dataset("names", data=names, shape=(shape[0],), dtype=h5py.string_dtype())
        group["labels"] = np.arange(shape[0])
        file["other"] = 7

    read = batches(Hdf5(dataset="digits"), path, size=size)

    for data in read:
        assert {name: str(array.dtype) for name, array in data.items() if name != "names"} == {
            "images": "float32",
            "labels": "int64",
        }
        assert data["names"].dtype.kind == "U"
        assert data["names"].dtype.itemsize
    if shape[0]:
        np.testing.assert_array_equal(np.concatenate([data["images"] for data in read]), images)
        assert np.concatenate([data["names"] for data in read]).tolist() == names
        assert np.concatenate([data["labels"] for data in read]).tolist() == list(range(shape[0]))
    else:
        assert read == []


@given(rows=st.integers(0, 300), size=st.integers(1, 100) | st.just(2**62), chunk=st.integers(1, 90))
def test_parts_follow_each_other_and_end_where_chunks_do(rows: int, size: int, chunk: int) -> None:
    found = list(cuts(rows, size, chunk))

    assert [row for start, stop, _ in found for row in range(start, stop)] == list(range(rows))
    for start, stop, group in found:
        if size >= chunk:
            assert (start % chunk, group) == (0, -1)
            assert stop % chunk == 0 or stop == rows
            assert 0 < stop - start <= max(chunk, 1.5 * size)
        else:
            assert start // chunk == (stop - 1) // chunk == group
            assert 0 < stop - start <= size


# What is read


def test_a_list_of_datasets_is_read_by_their_names(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a/x"], file["b/y"], file["b/x"] = [1, 2], [3.0, 4.0], [5, 6]

    assert frame(Hdf5(dataset=("b/y", "a/x")), path).to_dict("list") == {"y": [3.0, 4.0], "x": [1, 2]}
    assert list(frame(Hdf5(dataset=("b/x", "a/x")), path).columns) == ["/b/x", "/a/x"]


def test_without_a_name_the_only_dataset_of_the_file_is_read(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["deep/inside/values"] = np.ones((3, 2))
        file["deep/version"] = "scalars do not count"

    assert [data["values"].shape for data in batches(Hdf5(), path)] == [(3, 2)]


@pytest.mark.parametrize("compound", [False, True])
def test_columns_are_selected_in_the_order_in_which_they_are_named(path: Path, compound: bool) -> None:
    records = np.array([(1, 2.5, b"a"), (3, 4.5, b"b")], [("n", "<i4"), ("x", ">f8"), ("s", "S3")])
    with h5py.File(path, "w") as file:
        if compound:
            file["table"] = records
        else:
            for name in records.dtype.names or ():
                file[name] = records[name]
        assert Hdf5(columns=("s", "n")) == Hdf5(None, ("s", "n"))

    assert frame(Hdf5(columns=("s", "n")), path).to_dict("list") == {"s": ["a", "b"], "n": [1, 3]}


def test_a_selection_may_leave_out_what_does_not_go_together(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["images"], file["labels"], file["names"] = np.zeros((4, 2)), np.arange(4), np.arange(10)
        file["complex"] = np.zeros(4, complex)

    assert list(batches(Hdf5(columns=("images", "labels")), path)[0]) == ["images", "labels"]
    assert frame(Hdf5(columns=("labels",)), path)["labels"].tolist() == [0, 1, 2, 3]


def test_what_hdf5_has_and_arrow_has_not_comes_as_the_nearest(path: Path) -> None:
    times = np.array(["2024-01-02T03:04:05", "NaT"], "M8[ns]")
    padded = h5py.h5t.C_S1.copy()
    padded.set_size(6)
    padded.set_strpad(h5py.h5t.STR_SPACEPAD)
    with h5py.File(path, "w", track_order=True) as file:
        file["enum"] = np.array([1, 0], h5py.enum_dtype({"NO": 0, "YES": 1}, basetype="i1"))
        file["time"] = times.astype(h5py.opaque_dtype(times.dtype))
        file.create_dataset("bytes", data=[np.array([1, 0], "u1"), np.array([], "u1")], dtype=h5py.vlen_dtype("u1"))
        h5py.h5d.create(file.id, b"fortran", padded, h5py.h5s.create_simple((2,)))
        file["fortran"][:] = [b"ab c", b""]
        records = np.array([([1, 2, 3],), ([4, 5, 6],)], [("xyz", ">f4", (3,))])
        file.create_group("sub")["records"] = records

    read = batches(Hdf5(), path)[0]
    assert read.schema.types == [pa.int8(), pa.timestamp("ns"), pa.large_binary(), pa.large_string()]
    assert read.to_pylist() == [
        {"enum": 1, "time": pd.Timestamp("2024-01-02 03:04:05"), "bytes": b"\1\0", "fortran": "ab c"},
        {"enum": 0, "time": None, "bytes": b"", "fortran": ""},
    ]
    assert frame(Hdf5(dataset="sub/records"), path)["xyz"].map(list).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"_FillValue": np.array([-999], "i2")}, ["_FillValue is -999, and such values are not missing here"]),
        ({"_FillValue": np.nan}, []),
        ({"scale_factor": 0.01, "add_offset": 273.15}, ["scale_factor 0.01 and add_offset 273.15 to be applied"]),
        ({"MATLAB_class": np.bytes_("char")}, ["MATLAB wrote this char", "in reverse", "UTF-16"]),
        ({"units": "K"}, []),
        ({"_FillValue": h5py.Empty("f4"), "scale_factor": np.array([h5py.Reference()], h5py.ref_dtype)}, []),
        ({"missing_value": np.array(["none"], h5py.string_dtype())}, ["missing_value is none"]),
    ],
    ids=str,
)
def test_conventions_that_are_not_applied_are_told(path: Path, attributes: dict[str, Any], words: list[str]) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(3, dtype="i2")
        file["a"].attrs.update(attributes)
    doubts = Told.of(survey_of(Hdf5(), path)).doubts
    assert [doubt.column for doubt in doubts] == ["a"] * bool(words)
    assert [word for word in words if word not in doubts[0].text] == []


def test_a_large_chunk_is_decoded_once_for_all_its_mini_batches(path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 1000, (4000, 300))
    with h5py.File(path, "w") as file:
        file.create_dataset("values", data=values, chunks=(2000, 100), compression="gzip")
    survey = survey_of(Hdf5(), path)
    parts = list(Hdf5().split(str(path), BatchSize(rows=10), survey, STORE))
    assert {part.group for part in parts} == {0, 1}

    reads = 0

    class Counting(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            nonlocal reads
            reads += size
            return super().read(size)

    reader = Hdf5().reader(survey, Store(lambda _: Counting(path)))
    found = [reader.read(part._replace(file="store://data.h5")).data["values"] for part in parts]
    reader.close()

    np.testing.assert_array_equal(np.concatenate(found), values)
    assert reads < 1.1 * path.stat().st_size


def test_text_counts_in_the_size_of_a_mini_batch(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["text"] = ["x" * 992] * 1000

    parts = list(Hdf5().split(str(path), BatchSize(bytes=100_000), survey_of(Hdf5(), path), STORE))

    assert len(parts) == 10


def test_nulls_of_our_own_output_make_the_column_alike_in_every_mini_batch(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["n"], file["b"], file["s"] = [1, 0, 3], [True, False, True], ["a", "", "c"]
        for name in "nbs":
            file[f"_nulls/{name}"] = [False, True, False]

    found = [table.to_pandas() for table in batches(Hdf5(), path, size=BatchSize(rows=1))]

    assert {tuple(map(str, each.dtypes)) for each in found} == {tuple(map(str, found[1].dtypes))}
    whole = pd.concat(found, ignore_index=True)
    assert (str(whole["n"].dtype), whole["b"].tolist()) == ("Int64", [True, pd.NA, True])
    assert whole.isna().sum(axis=1).tolist() == [0, 3, 0]


# What goes wrong


class Store:
    """A remote store."""

    def __init__(self, opened: Callable[[str], Any]) -> None:
        self._opened = opened

    def open(self, path: str) -> BinaryIO:
        file: BinaryIO = self._opened(path)
        return file

    def size(self, path: str) -> int:
        raise NotImplementedError


def write(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values
    return path


def told(path: Path, format: Hdf5, *others: Path) -> str:
    with pytest.raises(InputError) as caught:
        survey_of(format, path, *others)
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("datasets", "format", "message"),
    [
        (
            {"a": [1], "b": [1, 2]},
            Hdf5(),
            "data.h5: the datasets 'a' and 'b' have 1 and 2 rows; name those that belong together with `dataset` or "
            "`columns`",
        ),
        ({"a": [1]}, Hdf5(dataset="c"), "dataset: data.h5 has no 'c'; there are 'a'"),
        ({"a": [1]}, Hdf5(columns=("a", "c")), "columns: data.h5 has no 'c'; there are 'a'"),
        ({"g__a": [1], "g__b": [1]}, Hdf5(), "name one with `dataset`: there are 'g/a', 'g/b'"),
        ({"a": 1}, Hdf5(), "name one with `dataset`: there are none in the file"),
        ({"a": 1, "b": [1]}, Hdf5(dataset="a"), "dataset: '/a' of data.h5 is not a dataset with rows; there are 'b'"),
        ({"g__a": 1, "b": [1]}, Hdf5(dataset="g"), "dataset: the group 'g' of data.h5 holds no datasets with rows"),
        ({"g__a": [1], "b": [1]}, Hdf5(dataset=("g", "b")), "dataset: '/g' of data.h5 is not a dataset with rows"),
        (
            {"a": np.zeros(2, complex)},
            Hdf5(),
            "data.h5: 'a' is of type complex128, which a table cannot hold; leave it out by naming the others with "
            "`columns`",
        ),
        ({"a": np.zeros(2, [("x", "i4")]), "b": [1, 2]}, Hdf5(), "'a' is of type compound (records), which a table"),
        ({"a": np.zeros((2, 2), "V3")}, Hdf5(), "'a' is of type |V3, which arrays cannot hold"),
        (
            {"soft": h5py.SoftLink("/no"), "b": [1]},
            Hdf5(),
            "data.h5: 'soft' is a link to /no, which is not there; mend",
        ),
        ({"far": h5py.ExternalLink("x.h5", "/y")}, Hdf5("far"), "'far' of data.h5 is a link to x.h5: /y, which is not"),
    ],
)
def test_what_cannot_be_read_is_told_by_name(path: Path, datasets: Any, format: Hdf5, message: str) -> None:
    assert message in told(write(path, **datasets), format)
    if "soft" in datasets:
        assert [table.num_rows for table in batches(Hdf5(columns=("b",)), path, size=BatchSize(rows=9))] == [1]


def odd(path: Path) -> Path:
    """What only HDF5's own interface writes: types for times, and a filter that is nowhere."""
    with h5py.File(path, "w", track_order=True) as file:
        file["a"] = range(3)
        rows = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D64LE, rows)
        record = h5py.h5t.create(h5py.h5t.COMPOUND, 16)
        record.insert(b"x", 0, h5py.h5t.NATIVE_INT64)
        record.insert(b"when", 8, h5py.h5t.UNIX_D64LE)
        h5py.h5d.create(file.id, b"records", record, rows)
        filtered = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        filtered.set_chunk((2,))
        filtered.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
        h5py.h5d.create(file.id, b"blosc", h5py.h5t.NATIVE_INT64, rows, filtered)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "time",
            "'time' is of HDF5's type for times (as of PyTables' Time32Col and Time64Col), which h5py does not read",
        ),
        ("records", "'records' is made of records with fields of HDF5's type for times ('when'), which h5py does not"),
        ("blosc", "'blosc' is compressed with the filter 32001 (Blosc), which this HDF5 lacks; install hdf5plugin"),
    ],
)
def test_what_h5py_cannot_read_is_told_before_any_run(path: Path, name: str, message: str) -> None:
    assert message in told(odd(path), Hdf5(columns=("a", name)))
    assert message in told(path, Hdf5(dataset=name))
    assert [table.num_rows for table in batches(Hdf5(columns=("a",)), path, size=BatchSize(rows=9))] == [3]


def test_hdf5plugin_is_used_where_it_is_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", types.ModuleType("hdf5plugin"))
    known = iter([False, True])
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code == 32001 and next(known))
    assert survey_of(Hdf5(dataset="blosc"), odd(path))["columns"] == ["blosc"]


@pytest.mark.parametrize("dataset", [None, "g/frame", "g/frame/table"])
def test_a_frame_of_pandas_is_refused_with_what_converts_it(path: Path, dataset: str | None) -> None:
    with h5py.File(path, "w") as file:
        file["g/frame/table"] = [1]
        file["g/frame"].attrs["pandas_type"] = "frame_table"
        file["g/other"] = [1]
    lines = told(path, Hdf5(dataset=dataset)).splitlines()
    assert lines[0].startswith("data.h5: '/g/frame' was written by pandas' to_hdf")
    assert lines[1:] == ["    frame = pandas.read_hdf('data.h5', '/g/frame')", "    frame.to_parquet('data.parquet')"]
    assert told(path, Hdf5(dataset="g/none")).startswith("dataset: data.h5 has no 'g/none'; there are")


def test_a_file_that_is_written_for_readers_is_read(path: Path) -> None:
    code = f"""
import h5py, sys
with h5py.File({str(path)!r}, "w", libver="latest") as file:
    rows = file.create_dataset("a", (3,), maxshape=(None,), dtype="i8")
    file.swmr_mode = True
    rows[:] = range(3)
    rows.flush()
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        found = [table["a"].to_pylist() for table in batches(Hdf5(), path, size=BatchSize(rows=9))]
        writer.communicate(b"")
    assert found == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"a": [1]}, {"a": [1.5]}, "data.h5 and other.h5 do not go together: 'a' is int64 there and double here"),
        ({"a": [1], "b": [1]}, {"a": [1]}, "'b' is int64 there and missing here"),
        ({"a": [1]}, {"a": [1], "b": [1]}, "'b' is missing there and int64 here"),
        ({"a": np.ones((2, 3))}, {"a": np.ones((2, 4))}, "'a' is float64 × 3 there and float64 × 4 here"),
    ],
)
def test_files_that_do_not_go_together_are_named_with_the_column(
    path: Path, one: Any, other: Any, message: str
) -> None:
    assert message in told(write(path, **one), Hdf5(), write(path.with_name("other.h5"), **other))


def test_files_may_differ_in_byte_order_length_of_text_and_order_of_columns(path: Path) -> None:
    write(path, a=np.array([1], "<i4"), b=np.array([b"x"], "S1"))
    with h5py.File(path.with_name("other.h5"), "w", track_order=True) as file:
        file["b"], file["a"] = np.array([b"xyz"], "S9"), np.array([2], ">i4")

    read = frame(Hdf5(), path, path.with_name("other.h5"))
    assert read.to_dict("list") == {"a": [1, 2], "b": ["x", "xyz"]}


def test_a_damaged_file_fails_alone(path: Path) -> None:
    write(path, a=[1, 2])
    text, torn = path.with_name("text.h5"), path.with_name("torn.h5")
    text.write_text("no HDF5")
    torn.write_bytes(path.read_bytes()[:-500])

    survey = survey_of(Hdf5(), text, path, torn)

    for bad, message in ((text, "text.h5 is not an HDF5 file"), (torn, "torn.h5 is damaged or cannot be read: ")):
        (part,) = Hdf5().split(str(bad), BatchSize(rows=1), survey, STORE)
        reader = Hdf5().reader(survey, STORE)
        with pytest.raises(InputError, match=message):
            reader.read(part)
        assert reader.read(Part(str(path), 0, 2, 2)).data.num_rows == 2
        reader.close()
    assert "text.h5 is not an HDF5 file; check the format" in told(text, Hdf5(), torn)


def test_damage_in_the_middle_of_a_file_is_told_and_the_rest_can_be_read(path: Path) -> None:
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", data=np.arange(100) ** 3, chunks=(50,), compression="gzip", fletcher32=True)
        place = made.id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(place + 20)
        raw.write(b"\xff" * 9)
    survey = survey_of(Hdf5(), path)
    reader = Hdf5().reader(survey, STORE)

    with pytest.raises(InputError, match=r"data\.h5 is damaged or cannot be read: "):
        reader.read(Part(str(path), 0, 50, 50))
    assert reader.read(Part(str(path), 50, 100, 50)).data["a"].to_pylist()[0] == 50**3
    reader.close()


def test_text_that_is_not_utf8_is_told_with_its_row(path: Path) -> None:
    write(path, name=np.array([b"a", b"b", b"caf\xe9"], "S9"), image=np.zeros((3, 2)))
    table, arrays = Hdf5(columns=("name",)), Hdf5()

    for format in (table, arrays):
        survey = survey_of(format, path)
        reader = format.reader(survey, STORE)
        with pytest.raises(InputError, match=r"data\.h5, row 3, column 'name': the text is not UTF-8; leave"):
            reader.read(Part(str(path), 1, 3, 2))
        reader.close()


def test_a_file_that_changes_in_the_middle_of_a_run_is_noticed(path: Path) -> None:
    survey = survey_of(Hdf5(), write(path, a=[1]))
    write(path, a=[1.5])

    with pytest.raises(InputError, match=r"data\.h5 has changed since the run was begun"):
        Hdf5().reader(survey, STORE).read(Part(str(path), 0, 1, 1))


def test_a_file_that_is_missing_is_told(path: Path) -> None:
    assert told(path, Hdf5()) == "cannot read data.h5: No such file or directory"


def test_a_file_that_is_being_written_elsewhere_is_told(path: Path) -> None:
    write(path, a=[1])
    code = f"""
import h5py, sys
with h5py.File({str(path)!r}, "r+"):
    print("open", flush=True)
    sys.stdin.read()
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()

    message = told(path, Hdf5())

    writer.communicate("")
    assert message.startswith("data.h5 is open for writing elsewhere; wait until it is closed there, or set")
    assert survey_of(Hdf5(), path)["columns"] == ["a"]


def test_a_filesystem_without_locks_is_none_the_worse_for_it(path: Path) -> None:
    write(path, a=[1])
    opened = h5py.File

    def without_locks(name: Any, mode: str, locking: Any = None) -> Any:
        if locking is not False:
            raise OSError(37, "unable to lock file, errno = 37, error message = 'No locks available'")
        return opened(name, mode, locking=locking)

    with mock.patch.object(h5py, "File", without_locks):
        assert frame(Hdf5(), path)["a"].tolist() == [1]


# Remote stores


def test_files_of_a_remote_store_are_read_through_it(path: Path) -> None:
    content = write(path, a=list(range(1000))).read_bytes()
    store = Store(lambda _: io.BytesIO(content))
    survey = Hdf5().survey(lambda: iter(["abfs://x/data.h5"]), store)
    (part,) = Hdf5().split("abfs://x/data.h5", BatchSize(rows=1000), survey, store)
    reader = Hdf5().reader(survey, store)

    assert reader.read(part).data["a"].to_pylist() == list(range(1000))
    reader.close()


class Failing(io.BytesIO):
    """The connection breaks after so many reads."""

    left = 0

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("the connection broke")
        return super().read(size)


def test_a_store_that_fails_at_any_read_is_told_and_never_kills_the_process(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(10_000), chunks=(1000,), compression="gzip")
        file["b"] = [f"text {number}" for number in range(10_000)]
    content = path.read_bytes()
    reads = 0

    def failing(_: str) -> Any:
        file = Failing(content)
        file.left = reads
        return file

    survey = survey_of(Hdf5(), path)
    part = Part("abfs://x/data.h5", 0, 10_000, 10_000)
    while True:
        reader = Hdf5().reader(survey, Store(failing))
        try:
            assert reader.read(part).data.num_rows == 10_000
            break
        except InputError as error:
            assert str(error) == "cannot read abfs://x/data.h5: the connection broke"
        finally:
            reader.close()
        reads += 1
    assert reads > 10


def test_a_file_of_a_store_that_is_left_open_does_not_kill_the_process_at_its_end(path: Path) -> None:
    write(path, a=[1])
    code = f"""
import io
from mpi_prs.inputs.formats.format import Part
from mpi_prs.inputs.formats.hdf5.reading import Hdf5
class Store:
    def open(self, path):
        return open({str(path)!r}, "rb")
survey = Hdf5().survey(lambda: iter(["abfs://x"]), Store())
reader = Hdf5().reader(survey, Store())
print(reader.read(Part("abfs://x", 0, 1, 1)).data["a"].to_pylist())
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert (shown.stdout, shown.stderr) == ("[1]\n", "")


# The process that reads


def test_pandas_is_not_imported_for_reading(path: Path) -> None:
    write(path, n=[1], x=[1.5], b=[True], s=["a"], f=np.array([b"a"], "S3"), _nulls__n=[True], _nulls__b=[True])
    write(path.with_name("images.h5"), image=np.zeros((1, 2)), s=["a"])
    code = f"""
import sys
import types
from mpi_prs.inputs.formats.format import BatchSize, LocalFiles
from mpi_prs.inputs.formats.hdf5.reading import Hdf5
for path in ({str(path)!r}, {str(path.with_name("images.h5"))!r}):
    survey = Hdf5().survey(lambda: iter([path]), LocalFiles())
    (part,) = Hdf5().split(path, BatchSize(rows=9), survey, LocalFiles())
    Hdf5().reader(survey, LocalFiles()).read(part)
print("pandas" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert shown.stdout == "False\n"

"""A partitioned copy of a table: every row in the folder of its keys, types and order kept; whole, or not there."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.inputs import partition_by as module
from mpi_prs.inputs.partition_by import key_types, partition_by, partitioned_columns, typed_values, with_key_columns
from mpi_prs.inputs.partition_format import HIVE_NULL, HiveFolders
from mpi_prs.inputs.partitions import group_by_partition
from tests.support.jobs import REPOSITORY


def read_partitions(target: Path, keys: list[str]) -> list[tuple[dict[str, Any], Any]]:
    """Each combination's values, and the table of all its files with the key columns back."""
    schema = partitioned_columns(target)
    folders = HiveFolders(str(target))
    paths = sorted(os.fsencode(path) for path in target.rglob("*.parquet"))
    items = [(path, typed_values(folders.values(path), schema)) for path in paths]
    groups = []
    for values, files in group_by_partition(items, keys):
        tables = [
            with_key_columns(pq.ParquetFile(os.fsdecode(path)).read(), dict(items)[path], schema) for path in files
        ]
        groups.append((values, pa.concat_tables(tables)))
    return groups


def as_parquet_keeps_it(table: Any) -> Any:
    """Parquet has no date64 and no timestamps in seconds, for instance."""
    file = pa.BufferOutputStream()
    pq.write_table(table, file)
    return pq.ParquetFile(pa.BufferReader(file.getvalue())).read()


def rows_of(tables: list[Any]) -> list[str]:
    """Comparable whatever the values, None and nan included."""
    return sorted(repr(table.to_pylist()) for table in tables)


key_columns = [
    (
        pa.string(),
        st.sampled_from(["01", "1", "", "a/b", "50%", "%41", " x ", "ü", "..", "a=b", "nan", "1e3", "+", "\\"]),
    ),
    (pa.large_string(), st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=5)),
    (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["x", "y/"])),
    (pa.int8(), st.integers(-3, 3)),
    (pa.uint64(), st.sampled_from([0, 1, 2**64 - 1])),
    (pa.float64(), st.sampled_from([1.5, 0.0, 0.1, 1e300, -5e-324, float("inf")])),
    (pa.float32(), st.sampled_from([1.5, 0.25, -1.0])),
    (pa.bool_(), st.booleans()),
    (pa.date32(), st.dates(date(1900, 1, 1), date(1900, 1, 3))),
    (pa.date64(), st.dates(date(2020, 1, 1), date(2020, 1, 3))),
    (pa.timestamp("s"), st.sampled_from([datetime(2020, 1, 1, 3, 4, 5), datetime(1969, 1, 1)])),
    (pa.timestamp("ns"), st.sampled_from([datetime(2020, 1, 1, 3, 4, 5, 6), datetime(2020, 1, 1)])),
    (pa.timestamp("us", "Europe/Berlin"), st.sampled_from([datetime(2020, 7, 1, tzinfo=timezone.utc)])),
]


@settings(max_examples=60)
@given(st.data())
def test_the_files_of_each_combination_are_the_groups_of_pandas(data: st.DataObject) -> None:
    """Whatever the pieces the table comes in and the chunks it is written in; rows of a group keep their order."""
    chosen = data.draw(st.lists(st.sampled_from(key_columns), min_size=1, max_size=3))
    rows = data.draw(st.integers(0, 25))
    columns = {f"k {n}": (type, st.none() | values) for n, (type, values) in enumerate(chosen)}
    arrays = {
        name: pa.array(data.draw(st.lists(values, min_size=rows, max_size=rows)), type)
        for name, (type, values) in columns.items()
    }
    table = pa.table({"row": pa.array(range(rows), pa.int32()), **arrays, "text": pa.array(["ü"] * rows, pa.string())})
    stored = as_parquet_keeps_it(table)
    cut = data.draw(st.integers(0, rows))
    pieces = [table.slice(0, cut), *table.slice(cut).to_batches()]
    keys = data.draw(st.permutations(list(columns)))
    subset = keys[: data.draw(st.integers(1, len(keys)))]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "copy")
        partition_by(pieces, keys, target, chunk_bytes=data.draw(st.sampled_from([1, 100, 2**20])))
        assert partitioned_columns(target) == stored.schema
        whole = read_partitions(target, keys)
        by_subset = read_partitions(target, subset)
    frame = stored.to_pandas(types_mapper=pd.ArrowDtype)
    for partitioned, by in [(whole, list(keys)), (by_subset, subset)]:
        numbers = (
            frame.groupby(by, dropna=False, sort=False, observed=True).ngroup() if rows else pd.Series([], dtype=int)
        )
        expected = [stored.take(pa.array(numbers.index[numbers == n])) for n in range(numbers.nunique())]
        if by is subset:  # rows of several folders: each folder's in order, the folders one after the other
            expected = [group.sort_by("row") for group in expected]
            partitioned = [(values, group.sort_by("row")) for values, group in partitioned]
        assert all(group.schema == stored.schema for _, group in partitioned)
        assert rows_of([group for _, group in partitioned]) == rows_of(expected)
        for values, group in partitioned:
            first = {key: _as_value(group.column(key)[0].as_py()) for key in by}
            assert list(values.items()) == list(first.items())


def _as_value(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value


def small(**columns: Any) -> Any:
    return pa.table({**columns, "v": pa.array(range(len(next(iter(columns.values())))))})


def test_a_string_of_digits_stays_a_string_and_a_number_a_number(tmp_path: Path) -> None:
    partition_by([small(zip=["01", "1"], n=[1, 2])], ["zip", "n"], tmp_path / "t")
    assert [values for values, _ in read_partitions(tmp_path / "t", ["zip", "n"])] == [
        {"zip": "01", "n": 1},
        {"zip": "1", "n": 2},
    ]
    assert (tmp_path / "t/zip=01/n=1/part-000000-0.parquet").exists()


def test_other_readers_of_hive_folders_get_the_same_table(tmp_path: Path) -> None:
    table = small(k=["a/b", "ü %", None, "a/b"])
    partition_by([table], ["k"], tmp_path / "t")
    read = ds.dataset(tmp_path / "t", partitioning="hive").to_table().sort_by("v")
    assert read.column("k").to_pylist() == ["a/b", "ü %", None, "a/b"]
    assert read.column("v").to_pylist() == [0, 1, 2, 3]


def test_many_combinations_are_written_with_few_files_open(tmp_path: Path) -> None:
    count = 3000
    table = small(k=pa.array([n % count for n in range(2 * count)], pa.int32()))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 300, limit[1]))
    try:
        partition_by([table], ["k"], tmp_path / "t")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    files = list((tmp_path / "t").rglob("*.parquet"))
    assert len(files) == count
    assert pq.ParquetFile(tmp_path / "t/k=7/part-000000-0.parquet").read().column("v").to_pylist() == [7, 7 + count]


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from pathlib import Path\n"
        "from mpi_prs.inputs.partition_by import partition_by\n"
        "def tables(count):\n"
        "    for n in range(count):\n"
        "        numbers = np.random.default_rng(n).integers(0, 2**60, (8, 2**15))\n"
        "        numbers[0] %= 5\n"
        "        columns = [pa.Array.from_buffers(pa.int64(), 2**15, [None, pa.py_buffer(row)]) for row in numbers]\n"
        "        yield pa.Table.from_arrays(columns, names=list('kabcdefg'))\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024\n"
        "partition_by(tables(10), ['k'], Path(sys.argv[1], 'small'), chunk_bytes=2**22)\n"
        "before = peak()\n"
        "partition_by(tables(80), ['k'], Path(sys.argv[1], 'large'), chunk_bytes=2**22)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert int(done.stdout) < 100  # the larger table has 140 MiB more


@pytest.mark.parametrize(
    ("table", "columns", "says"),
    [
        (small(a=[1]), ["b"], "column 'b': there is no such column; the columns are 'a', 'v'"),
        (small(a=[1]), [], "no column is named"),
        (small(a=[1]), ["a", "a"], "expected each column once"),
        (small(a=[1]), ["a", "v"], "at least one must be left"),
        (small(**{"a/b": [1]}), ["a/b"], "column 'a/b' cannot name folders"),
        (small(a=[b"x"]), ["a"], "column 'a' is of type binary, which cannot be a partition key: expected text"),
        (small(a=[Decimal("1.5")]), ["a"], "of type decimal128(2, 1)"),
        (small(a=[[1]]), ["a"], "of type list<"),
        (small(a=["x\0y"]), ["a"], "column 'a' has a value with '\\x00' in it"),
        (small(a=[HIVE_NULL]), ["a"], f"column 'a' has a value with '{HIVE_NULL}'"),
        (small(a=["x" * 300]), ["a"], "a value of 'a' is too long for the name of a folder"),
        (small(a=pa.array([1], pa.timestamp("ns"))), ["a"], "times finer than a microsecond"),
    ],
)
def test_what_cannot_be_partitioned_is_refused_and_leaves_nothing(
    tmp_path: Path, table: Any, columns: list[str], says: str
) -> None:
    with pytest.raises(InputError) as raised:
        partition_by([table], columns, tmp_path / "t")
    assert says in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (small(a=["x"]), "column 'a' is int64 in the first one and string in a later one"),
        (pa.table({"a": [1]}), "column 'v' is int64 in the first one and missing in a later one"),
        (pa.table({"v": [1], "a": [1]}), "differ in the order of their columns"),
    ],
)
def test_pieces_that_differ_are_refused_and_leave_nothing(tmp_path: Path, other: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        partition_by([small(a=[1]), other], ["a"], tmp_path / "t", chunk_bytes=1)
    assert list(tmp_path.iterdir()) == []


def test_no_pieces_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to partition"):
        partition_by([], ["a"], tmp_path / "t")


def test_an_error_of_the_source_comes_through_and_leaves_nothing(tmp_path: Path) -> None:
    def tables() -> Iterator[Any]:
        yield small(a=[1, 2])
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="the source is gone"):
        partition_by(tables(), ["a"], tmp_path / "t", chunk_bytes=1)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    partition_by([small(a=[1])], ["a"], tmp_path / "t")  # empty: fine
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"t is there already and is not an empty folder: remove it"):
        partition_by([small(a=[1])], ["a"], tmp_path / "t")
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is there already"):
        partition_by([small(a=[1])], ["a"], tmp_path / "file")


def test_the_target_is_seen_only_when_it_is_complete(tmp_path: Path) -> None:
    seen = []

    def tables() -> Iterator[Any]:
        for number in range(5):
            seen.append([path.name for path in tmp_path.iterdir() if not path.name.startswith(".")])
            yield small(a=[number])

    partition_by(tables(), ["a"], tmp_path / "t", chunk_bytes=1)
    assert seen == [[]] * 5
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@contextmanager
def size_limit(bytes: int) -> Iterator[None]:
    """Files cannot grow beyond this: a disk that is full."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_a_disk_that_is_full_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    table = small(a=pa.array([1] * 20_000))
    with pytest.raises(OutputError, match=r"cannot write the partitioned table .*t: File too large"), size_limit(4096):
        partition_by([table], ["a"], tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    table = small(a=pa.array([], pa.string()))
    partition_by([table], ["a"], tmp_path / "t")
    assert partitioned_columns(tmp_path / "t") == table.schema
    assert read_partitions(tmp_path / "t", ["a"]) == []


def test_a_frame_with_a_key_as_its_index_comes_back_in_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({"v": [1, 2, 3]}, index=pd.Index(["x", "y", "x"], name="k"))
    partition_by([pa.Table.from_pandas(frame)], ["k"], tmp_path / "t")
    groups = [group.to_pandas() for _, group in read_partitions(tmp_path / "t", ["k"])]
    pd.testing.assert_frame_equal(groups[0], frame.loc[["x"]])
    assert pq.ParquetFile(tmp_path / "t/k=y/part-000000-0.parquet").read().to_pandas()["v"].tolist() == [2]


# Types again


def test_without_common_metadata_keys_are_text(tmp_path: Path) -> None:
    assert partitioned_columns(tmp_path) is None
    assert typed_values({"n": "1", "x": None}, None) == {"n": "1", "x": None}
    assert key_types(["n", "m"], pa.schema([("m", pa.int8())])) == {"n": pa.string(), "m": pa.int8()}


def test_damaged_common_metadata_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / module.COMMON_METADATA).write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"_common_metadata, which has the types"):
        partitioned_columns(tmp_path)


@pytest.mark.parametrize(
    ("type", "text"),
    [
        (pa.int32(), "1.5"),
        (pa.float64(), "x"),
        (pa.bool_(), "yes"),
        (pa.date32(), "2020-13-01"),
        (pa.timestamp("us"), "noon"),
        (pa.timestamp("ns"), "2020-01-01 00:00:00.000000001"),
        (pa.dictionary(pa.int32(), pa.int64()), "x"),
    ],
)
def test_a_folder_that_has_no_value_of_its_type_is_refused(type: Any, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"the folder k={text} has no value of type {type}")):
        typed_values({"k": text}, pa.schema([("k", type)]))


def test_what_a_rank_does_with_a_partitioned_table_imports_no_pandas(tmp_path: Path) -> None:
    partition_by([small(n=pa.array([1], pa.int16()), d=[date(2020, 1, 1)])], ["n", "d"], tmp_path / "t")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import pyarrow.parquet as pq\n"
        "from mpi_prs.inputs.partition_by import partitioned_columns, typed_values, with_key_columns\n"
        "from mpi_prs.inputs.partition_format import HiveFolders\n"
        "from mpi_prs.inputs.partitions import group_by_partition\n"
        "target = Path(sys.argv[1])\n"
        "schema = partitioned_columns(target)\n"
        "path = next(target.rglob('*.parquet'))\n"
        "values = typed_values(HiveFolders(str(target)).values(str(path)), schema)\n"
        "list(group_by_partition([(bytes(path), values)], ['n']))\n"
        "table = with_key_columns(pq.ParquetFile(path).read(), values, schema)\n"
        "assert table.schema == schema and table.num_rows == 1\n"
        "print('pandas' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "t"], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "False"

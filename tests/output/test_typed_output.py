"""Typed outputs: what mini-batches returned is in the Parquet or HDF5 file, every row once, whatever its types."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.child.rows.encoding import encode_rows
from mpi_prs.child.rows.row_format import Form, encoding, form_of
from mpi_prs.core.errors import JobStopped, OutputError
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.formats.hdf5.reading import Hdf5
from mpi_prs.output import append_row, journal
from mpi_prs.output.append_row import AppendRow, take_up
from mpi_prs.output.ledger import Ledger, read_ledger
from mpi_prs.output.tables import file as table_file
from mpi_prs.wire.record import RECORD
from tests.output.test_append_row import room_for
from tests.support.tables import STORE, parts_of

ARROW = encoding("rows.parquet", {"index": False})
BOTH = ["rows.parquet", "rows.h5"]


class Run:
    """The files of one run in a folder of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        (folder / "_run").mkdir()
        self.final = folder / name
        self.part = folder / f"{name}.part"
        self.journal = folder / "_run" / "journal"
        self.kept = folder / "_run" / "kept_rows"

    @contextlib.contextmanager
    def open(self) -> Iterator[AppendRow]:
        take_up(self.part, self.final, self.kept)
        ledger = read_ledger(self.journal, self.part) if self.journal.exists() else Ledger()
        output = AppendRow(self.part, self.journal, ledger)
        try:
            yield output
        finally:
            output.close()

    def complete(self, output: AppendRow, *, in_input_order: bool = False, keep: bool = False) -> None:
        output.complete(self.final, self.kept, in_input_order=in_input_order, keep=keep)

    def make(self, *results: Any, form: dict[str, Any] = ARROW, in_input_order: bool = False) -> Run:
        """A whole run, in which mini-batch after mini-batch returned these."""
        with self.open() as output:
            for number, result in enumerate(results):
                append(output, number, result, form)
            self.complete(output, in_input_order=in_input_order)
        return self

    def rows(self) -> list[dict[str, Any]]:
        """What is in the final file; a missing value is ``None``, a missing float too."""
        return [
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
            for row in self.table().to_pylist()
        ]

    def table(self) -> Any:
        if form_of(self.final.name) is Form.PARQUET:
            return pq.read_table(self.final)
        return read_hdf5(self.final)


def read_hdf5(path: Path) -> Any:
    """As Hdf5 reads it, in two mini-batches; integers with nulls are floats there."""
    survey, parts = parts_of(Hdf5(), [path], BatchSize(rows=2**62))
    with contextlib.closing(Hdf5().reader(survey, STORE)) as reader:
        return pa.concat_tables([reader.read(part).data for part in parts])


def append(output: AppendRow, number: int, result: Any, form: dict[str, Any] = ARROW) -> None:
    returned, rows = encode_rows(result, form)
    output.append(1, RECORD.pack(number, returned, returned, 1, 0, len(rows), 1e9, 0.5, 0.25), rows)


@pytest.fixture(scope="module")
def new_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    return lambda name: Run(tmp_path_factory.mktemp("run"), name)


@pytest.fixture(params=BOTH)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return Run(tmp_path, request.param)


# Every row once, with its values

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "small": st.integers(-9, 9),
    "float": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "text": TEXT,
    "time": st.datetimes(dt.datetime(1800, 1, 1), dt.datetime(2200, 1, 1)),
    "date": st.dates(dt.date(1800, 1, 1)),
    "bytes": st.binary(max_size=3),
    "nothing": st.none(),
}


@st.composite
def mini_batches(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """What each returned: columns come and go, and change their types now and then."""
    usual = {name: draw(st.sampled_from(sorted(KINDS))) for name in draw(st.sets(st.sampled_from("abc"), min_size=1))}
    made = []
    for _ in range(draw(st.integers(1, 4))):
        kinds = dict(usual)
        if draw(st.integers(0, 3)) == 0:
            kinds[draw(st.sampled_from("abcd"))] = draw(st.sampled_from(sorted(KINDS)))
        row = st.fixed_dictionaries({name: st.none() | KINDS[kind] for name, kind in kinds.items()})
        made.append(draw(st.lists(row, max_size=4)))
    return made


def same(value: Any, stored: Any) -> bool:
    """Whether a value came through: as it was, or as text where its column has several types."""
    if value is None or stored is None:
        return value is stored
    if isinstance(value, bytes) and isinstance(stored, str):
        return stored == value.decode("utf-8", "backslashreplace")
    if isinstance(value, str) and isinstance(stored, bytes):
        return stored == value.encode()
    if isinstance(stored, str) and not isinstance(value, str):
        if isinstance(value, bool):
            return stored == str(value).lower()
        if isinstance(value, (int, float)):
            return (
                float(stored) == value
                if isinstance(value, float)
                else int(float(stored)) == value or int(stored) == value
            )
        return stored.replace(".000000", "") == str(value).replace(".000000", "")
    if isinstance(value, dt.datetime) and isinstance(stored, dt.datetime):
        return pd.Timestamp(value) == pd.Timestamp(stored)
    return bool(value == stored)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("as_frame", [False, True])
@settings(max_examples=80)
@given(made=mini_batches(), order=st.randoms(use_true_random=False), in_input_order=st.booleans())
def test_every_row_comes_through_once(
    new_run: Callable[[str], Run], name: str, as_frame: bool, made: list[Any], order: Any, in_input_order: bool
) -> None:
    run = new_run(name)
    numbers = list(range(len(made)))
    order.shuffle(numbers)
    with run.open() as output:
        for number in numbers:
            append(output, number, pd.DataFrame(made[number], dtype=object) if as_frame else made[number])
        run.complete(output, in_input_order=in_input_order)

    expected = [row for number in (sorted(numbers) if in_input_order else numbers) for row in made[number]]
    found = run.rows() if expected else []
    assert len(found) == len(expected)
    for returned, stored in zip(expected, found, strict=True):
        for column in "abcd":
            value, kept = returned.get(column), stored.get(column)
            assert same(value, kept), (column, value, kept, run.table().schema)
    assert not run.part.exists()


@pytest.mark.parametrize(
    ("results", "type", "values"),
    [
        (([{"x": 1}], [{"x": None}], [{"x": 2}]), pa.int64(), [1, None, 2]),
        ((pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [math.nan]})), pa.int64(), [1, None]),
        ((pd.DataFrame({"x": [2**62 + 1]}), pd.DataFrame({"x": [math.nan]})), pa.int64(), [2**62 + 1, None]),
        ((pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [0.5]})), pa.float64(), [1.0, 0.5]),
        ((pd.DataFrame({"x": [math.nan]}), pd.DataFrame({"x": [math.nan]})), pa.float64(), [None, None]),
        (([{"x": None}], pd.DataFrame({"x": [math.nan]})), pa.float64(), [None, None]),
        (([{"x": np.int8(1)}], [{"x": np.int32(2)}]), pa.int32(), [1, 2]),
        (([{"x": np.float16(0.5)}], [{"x": 100_000}]), pa.float64(), [0.5, 100_000.0]),
        (([{"x": "a"}], pd.DataFrame({"x": ["b"]})), pa.large_string(), ["a", "b"]),
        (([{"x": 1}], [{"x": "a"}]), pa.string(), ["1", "a"]),
        (([{"x": True}], [{"x": 1}]), pa.string(), ["true", "1"]),
        (([{"x": 2**53 + 1}], [{"x": 0.5}], [{"x": 7}]), pa.string(), ["9007199254740993", "0.5", "7"]),
        (([{"x": 1}, {"x": "a"}, {"x": None}],), pa.string(), ["1", "a", None]),
        (([{"x": 2**70}],), pa.string(), [str(2**70)]),
        (([{"x": pathlib.PurePosixPath("a/b")}],), pa.string(), ["a/b"]),
    ],
)
@pytest.mark.parametrize("name", BOTH)
def test_the_types_of_mini_batches_are_brought_together(
    tmp_path: Path, name: str, results: Sequence[Any], type: Any, values: list[Any]
) -> None:
    run = Run(tmp_path, name).make(*results)

    found = run.table().column("x")
    assert (str(found.type).removeprefix("large_"), [row["x"] for row in run.rows()]) == (
        str(type).removeprefix("large_"),
        values,
    )


@pytest.mark.parametrize(
    ("results", "told"),
    [
        (([{"x": 1}], [{"x": "a"}]), "'x' (int64 and string)"),
        (([{"x": 2**53 + 1}], [{"x": 0.5}]), "'x' (int64 that does not fit double)"),
        (([{"x": 1}, {"x": "a"}],), "'x' (values of different types)"),
        (([{"x": {}}],), "'x' (struct<>, which the file cannot hold)"),
        (([{"x": 1}], [{"x": None}], [{"x": 0.5}], [{"y": "a"}]), None),
    ],
)
def test_what_became_text_is_told_once(
    run: Run, results: Sequence[Any], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    run.make(*results)

    expected = [f"columns that have no type in common were stored as text: {told}"] if told else []
    assert [record.getMessage() for record in caplog.records] == expected


def test_a_data_frame_keeps_its_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "name": ["a", None],
            "count": np.array([1, 2], "u2"),
            "score": np.array([0.5, math.nan], "f4"),
            "half": np.array([0.5, 1], "f2"),
            "ok": [True, False],
            "nullable": pd.array([1, None], "Int64"),
            "when": pd.to_datetime(["2024-01-02 03:04:05", None]),
            "where": pd.to_datetime(["2024-01-02 03:04:05", "2024-07-02 00:00:00"]).tz_localize("Europe/Berlin"),
            "took": pd.to_timedelta(["1s", None]),
            "kind": pd.Categorical(["x", "y"]),
            "day": [dt.date(2024, 1, 2), None],
        },
    )
    parquet = Run(tmp_path, "rows.parquet").make(frame[:1], frame[1:]).table()
    (tmp_path / "h5").mkdir()
    hdf5 = Run(tmp_path / "h5", "rows.H5").make(frame[:1], frame[1:]).table()

    expected = pa.Table.from_pandas(frame.assign(kind=["x", "y"])).replace_schema_metadata(None)
    assert parquet.to_pylist() == expected.to_pylist()
    assert [str(type).removeprefix("large_") for type in parquet.schema.types] == [
        str(type).removeprefix("large_") for type in expected.schema.types
    ]
    assert hdf5.schema.names == expected.schema.names
    assert hdf5.schema.field("where").type == expected.schema.field("where").type
    pd.testing.assert_frame_equal(hdf5.to_pandas(), expected.to_pandas(), check_dtype=False)
    with h5py.File(tmp_path / "h5" / "rows.H5") as file:
        assert file["count"].dtype == np.uint16
        assert file["name"].asstr()[:].tolist() == ["a", ""]
        assert file["_nulls/name"][:].tolist() == [False, True]
        assert sorted(file["_nulls"]) == ["day", "name", "nullable", "took", "when"]


@pytest.mark.parametrize("index", [False, True])
def test_the_index_is_left_out_unless_it_is_asked_for(run: Run, index: bool) -> None:
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="key"))

    run.make(frame, form=encoding(run.final.name, {"index": index}))

    assert run.rows() == ([{"key": "a", "x": 1}, {"key": "b", "x": 2}] if index else [{"x": 1}, {"x": 2}])


def test_what_hdf5_cannot_hold_becomes_text(tmp_path: Path) -> None:
    row = {"list": [1, None], "struct": {"a": "é"}, "exact": decimal.Decimal("1.50"), "nul": "a\0b", "x/y": 1, ".": 2}

    run = Run(tmp_path, "rows.h5").make([row], [{}, {"list": [2]}])

    assert run.rows()[0] == {
        "list": "[1, null]",
        "struct": '{"a": "é"}',
        "exact": "1.50",
        "nul": "a\ufffdb",
        "x/y": 1,
        ".": 2,
    }
    assert [row["list"] for row in run.rows()] == ["[1, null]", None, "[2]"]


def test_nested_values_stay_what_they_are_in_parquet(tmp_path: Path) -> None:
    run = Run(tmp_path, "rows.parquet").make(
        [{"v": np.array([1.0, 2.0]), "m": np.eye(2), "s": {"a": 1}}], [{"v": [3], "m": None, "s": {"b": "x"}}]
    )

    assert run.rows() == [
        {"v": [1.0, 2.0], "m": [[1.0, 0.0], [0.0, 1.0]], "s": {"a": 1, "b": None}},
        {"v": [3.0], "m": None, "s": {"a": None, "b": "x"}},
    ]


def test_a_file_name_that_is_no_text_is_escaped(run: Run) -> None:
    assert run.make([{os.fsdecode(b"k\xe9"): os.fsdecode(b"caf\xe9.png")}]).rows() == [{"k\\udce9": "caf\\udce9.png"}]


def test_no_row_at_all_makes_a_file_without_columns(run: Run) -> None:
    run.make([], [])

    if form_of(run.final.name) is Form.PARQUET:
        assert run.table().shape == (0, 0)
    else:
        with h5py.File(run.final) as file:
            assert list(file) == []


# A large output


def test_row_groups_are_bounded_in_rows_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "ROW_GROUP_ROWS", 100)
    run = Run(tmp_path, "rows.parquet").make(*([{"n": 40 * k + i} for i in range(40)] for k in range(11)))
    groups = pq.ParquetFile(run.final).metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [100] * 4 + [40]
    assert [row["n"] for row in run.rows()] == list(range(440))

    monkeypatch.setattr(table_file, "ROW_GROUP_ROWS", 1 << 20)
    monkeypatch.setattr(table_file, "ROW_GROUP_BYTES", 1000)
    (tmp_path / "other").mkdir()
    run = Run(tmp_path / "other", "rows.parquet").make(*([{"n": 40 * k + i} for i in range(40)] for k in range(11)))
    groups = pq.ParquetFile(run.final).metadata
    assert {groups.row_group(number).num_rows for number in range(groups.num_row_groups - 1)} == {125}
    assert [row["n"] for row in run.rows()] == list(range(440))


def test_thousands_of_small_mini_batches_with_changing_columns(run: Run) -> None:
    run.make(*([{"n": number, **({"odd": "x"} if number % 2 else {})}] for number in range(2500)))

    assert [row["n"] for row in run.rows()] == list(range(2500))
    assert [row["odd"] for row in run.rows()[:4]] == [None, "x", None, "x"]


def test_a_large_mini_batch_is_in_the_log_in_pieces(tmp_path: Path) -> None:
    run = Run(tmp_path, "rows.parquet")
    rows = encode_rows(pd.DataFrame({"x": np.arange(5_000_000)}), ARROW)[1]
    with pa.ipc.open_stream(rows) as stream:
        sizes = [batch.nbytes for batch in stream]
    assert max(sizes) <= 16 << 20
    assert sum(sizes) == 40_000_000

    with run.open() as output:
        (tmp_path / "spilled").write_bytes(rows)
        record = RECORD.pack(0, 5_000_000, 5_000_000, 1, 0, len(rows), 1e9, 0.5, 0.25)
        output.append_file(1, record, tmp_path / "spilled")
        run.complete(output)
    assert pq.ParquetFile(run.final).metadata.num_rows == 5_000_000


def test_a_long_one_says_how_far_it_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(table_file, "_SAY_SECONDS", -1)
    with caplog.at_level(logging.INFO, "mpi_prs.output"):
        run.make([{"x": 1}] * 3)

    assert [record.getMessage() for record in caplog.records] == [f"writing {run.final.name}: 3 of 3 rows"]


# Interruptions

SOME: list[Any] = [[{"n": number, "s": "x" * 300}] * 3 for number in range(12)]
NUMBERS = sorted(number for number in range(12) for _ in range(3))


def work_on_all(run: Run, *, keep: bool = False) -> None:
    """A start of the run: what is not on record is done, then it is completed."""
    with run.open() as output:
        done = read_ledger(run.journal, None).done
        for number in range(12):
            if number not in done:
                append(output, number, SOME[number])
        run.complete(output, keep=keep)


class Killed(BaseException):
    """The process is killed."""


def test_a_kill_at_any_step_of_the_completion_is_made_good_by_the_next_start(new_run: Callable[[str], Run]) -> None:
    for name in BOTH:
        for steps in range(1, 100):
            run, left = new_run(name), steps

            def step(original: Callable[..., Any]) -> Callable[..., Any]:
                def counted(*arguments: Any, **options: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if not left:
                        raise Killed
                    return original(*arguments, **options)

                return counted

            try:
                with contextlib.ExitStack() as stack:
                    for patched in ("replace", "fsync", "fdatasync"):
                        stack.enter_context(mock.patch.object(os, patched, step(getattr(os, patched))))
                    for module in (append_row, journal):
                        stack.enter_context(mock.patch.object(module, "write_all", step(journal.write_all)))
                    stack.enter_context(mock.patch.object(table_file, "conform", step(table_file.conform)))
                    run.part.with_name(f"{run.part.name}.finishing").write_text("half a file")
                    work_on_all(run)
            except Killed:
                pass
            if left > 0:
                break
            assert not run.final.exists() or [row["n"] for row in run.rows()] == NUMBERS
            if not (read_ledger(run.journal, None).complete if run.journal.exists() else False):
                work_on_all(run)
            assert [row["n"] for row in run.rows()] == NUMBERS
        assert 20 < steps < 99


@pytest.mark.parametrize("name", BOTH)
@settings(max_examples=50)
@given(room=st.integers(0, 60_000))
def test_a_disk_that_is_full_at_any_byte_stops_the_job_and_then_it_goes_on(
    new_run: Callable[[str], Run], name: str, room: int
) -> None:
    run = new_run(name)
    try:
        with room_for(room):
            work_on_all(run)
    except JobStopped as stop:
        assert "the disk is full" in str(stop)
        assert not list(run.final.parent.glob("*.finishing")), "it takes room"
        if not read_ledger(run.journal, None).complete:
            work_on_all(run)
    else:
        assert room > 10_000
    assert [row["n"] for row in run.rows()] == NUMBERS


def test_a_run_with_failed_mini_batches_can_be_added_to(run: Run) -> None:
    with run.open() as output:
        append(output, 1, [{"x": 1}])
        output.event("failed", mini_batch=0, attempt=3)
        run.complete(output, in_input_order=True, keep=True)
    assert run.rows() == [{"x": 1}]
    assert run.kept.exists()

    with run.open() as output:
        assert not run.final.exists()
        output.event("reopened")
        append(output, 0, [{"x": 0}])
        run.complete(output, in_input_order=True)

    assert run.rows() == [{"x": 0}, {"x": 1}]
    assert sorted(path.name for path in run.final.parent.rglob("*")) == ["_run", "journal", run.final.name]


def test_without_the_log_the_final_file_is_not_added_to(run: Run) -> None:
    run.make([{"x": 1}])

    with pytest.raises(OutputError, match=r"kept_rows is gone, and without it .*rows\..* --overwrite"), run.open():
        pass
    assert run.rows() == [{"x": 1}]


@pytest.mark.parametrize("damage", ["zeros", "short"])
def test_a_damaged_log_is_told(run: Run, damage: str) -> None:
    with run.open() as output:
        append(output, 0, [{"x": 1}])
        append(output, 1, [{"x": 2}])
        content = run.part.read_bytes()
        run.part.write_bytes(bytes(len(content)) if damage == "zeros" else content[:-60])
        with pytest.raises(JobStopped, match=r"rows\..*\.part and its journal do not say the same from byte \d+ on"):
            run.complete(output)
    assert not run.final.exists()
    assert not list(run.final.parent.glob("*.finishing"))

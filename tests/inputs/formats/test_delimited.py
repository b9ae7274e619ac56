"""Delimited text: how it is cut, what is taken for a header, and what is said of what does not fit."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.delimited import survey as delimited_survey
from mpi_prs.inputs.formats.delimited import text as delimited_text
from mpi_prs.inputs.formats.delimited.splitting import Delimited
from mpi_prs.inputs.formats.format import COMPRESSIONS, Batch, BatchSize, Part
from mpi_prs.inputs.formats.json_lines.reading import JsonLines
from mpi_prs.inputs.formats.told import Told
from tests.inputs.formats.test_delimited_random import by_pandas, frames_of, same
from tests.support.tables import STORE, CountingFiles, at_the_user, parts_of, survey_of

ALL = BatchSize(bytes=2**40)


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of two pieces of 100 bytes."""
    monkeypatch.setattr(delimited_survey, "SAMPLE_BYTES", 200)
    monkeypatch.setattr(delimited_survey, "_PIECE_BYTES", 100)


def write(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def batches_of(format: Delimited, path: Path, size: BatchSize = ALL) -> list[Batch]:
    survey, parts = parts_of(format, [path], size)
    with closing(format.reader(survey, STORE)) as reader:
        return [reader.read(part) for part in parts]


def refusal(format: Delimited, *paths: Path, size: BatchSize = ALL) -> str:
    with pytest.raises(InputError) as refused:
        frames_of(format, list(paths), size)
    return str(refused.value)


# Cuts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "shift_jis", "gb18030"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_wherever_a_file_is_cut_every_line_is_read_once(tmp_path: Path, encoding: str, end: str) -> None:
    lines = [f"{number},{'表' * (number % 5)}" for number in range(7)]
    path = write(tmp_path, end.join(["n,text", *lines]).encode(encoding))
    whole = by_pandas("\n".join(["n,text", *lines]))
    format = Delimited(encoding=encoding)
    survey, (part,) = parts_of(format, [path], ALL)
    unit = {"utf-16": 2, "utf-16-be": 2, "utf-32": 4}.get(encoding, 1)
    with closing(format.reader(survey, STORE)) as reader:
        for cut in range(part.start + unit, part.stop, unit):
            both = (part._replace(stop=cut), part._replace(start=cut))
            same([at_the_user(reader.read(each).data) for each in both], whole)


def test_a_part_has_about_as_many_rows_as_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n" + "".join(f"{number:06},x\n" for number in range(10000)))
    parts = parts_of(Delimited(), [path], BatchSize(rows=500))[1]
    assert len(parts) == 20
    assert {part.rows for part in parts} == {500}
    assert {part.first_row for part in parts} == {-1}
    assert len(parts_of(Delimited(), [path], BatchSize(bytes=9000))[1]) == 10
    assert len(parts_of(Delimited(), [path], BatchSize(bytes=90000))[1]) == 1


def test_no_part_is_without_a_record_however_small_the_size(tmp_path: Path) -> None:
    path = write(tmp_path, "a\n" + "".join("x" * (number % 50) + "y\n" for number in range(300)))
    frames = frames_of(Delimited(), [path], BatchSize(bytes=1))
    assert len(frames) > 50
    assert min(map(len, frames)) >= 1


@pytest.mark.parametrize("content", ["", "\n\n \n", "a,b", "a,b\n", "\n\na,b\n\n \n"])
def test_a_file_without_rows_has_no_parts(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, content)
    assert parts_of(Delimited(), [path], ALL)[1] == []
    assert parts_of(Delimited(support_multi_line=True), [path], ALL)[1] == []


def test_splitting_a_large_file_reads_its_header_only(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n" * 1000)
    survey = survey_of(Delimited(), path)
    with path.open("r+b") as file:
        file.truncate(2**40)
    store = CountingFiles()
    parts = Delimited().split(str(path), BatchSize(bytes=2**30), survey, store)
    first = next(parts)
    assert first.start == 4
    assert len(list(parts)) == 1023
    assert store.bytes <= 2**16


def test_records_with_line_breaks_are_found_while_the_file_streams_by(tmp_path: Path) -> None:
    record = '1,"x\ny ""z"" "\n'
    path = write(tmp_path, "a,b\n" + record * 6 * 10**5)
    format = Delimited(support_multi_line=True)
    survey = survey_of(format, path)
    store = CountingFiles()
    parts = format.split(str(path), BatchSize(bytes=2**20), survey, store)
    first = next(parts)
    assert store.bytes < path.stat().st_size / 2
    rest = list(parts)
    assert store.bytes <= path.stat().st_size + 2**17  # the head, and what is left at the end
    assert [part.stop for part in [first, *rest]][-1] == path.stat().st_size
    for part in [first, *rest]:
        assert (part.start - 4) % len(record) == 0
        assert part.rows == (part.stop - part.start) // len(record)


def test_a_quote_in_the_middle_of_a_value_is_an_ordinary_character(tmp_path: Path) -> None:
    records = ['5" disk,"a\nb"', '"x"y,6\'', '7"",","', '"""",""', '"a ""\n"",b",8"'] * 3
    text = "\n".join(["a,b", *records])
    path = write(tmp_path, text)
    for size in range(1, len(text), 7):
        same(frames_of(Delimited(support_multi_line=True), [path], BatchSize(bytes=size)), by_pandas(text))


def test_a_quoted_value_may_go_over_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited_text, "_CHUNK", 3)
    text = 'a,b\r\n1,"' + "line\r\n" * 50 + '"\r\n2,"""\r\n"\r\n' * 3
    path = write(tmp_path, text)
    for size in range(1, len(text), 5):
        same(
            frames_of(Delimited(support_multi_line=True, fill_missing_fields=True), [path], BatchSize(bytes=size)),
            by_pandas(text),
        )


def test_a_quote_that_is_never_closed_does_not_take_all_memory(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n")
    format = Delimited(support_multi_line=True, max_record_size=10**5)
    survey = survey_of(format, path)
    write(tmp_path, "a,b\n" + "1,2\n" * 2000 + '3,"\n' + "1,2\n" * 10**5)
    with pytest.raises(InputError, match=r"table\.csv, line 2 at the earliest: .* end within max_record_size \(0.09"):
        list(format.split(str(path), ALL, survey, STORE))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_long_line_is_read_once_and_no_part_within_it_reads_on(tmp_path: Path, end: str, encoding: str) -> None:
    text = end.join(["a,b", "1,2", "3," + "x" * 1_500_000, "5,y", ""])
    path = write(tmp_path, text.encode(encoding))
    format = Delimited(encoding=encoding)
    survey = survey_of(format, path)
    store = CountingFiles()
    step = path.stat().st_size // 40 // 4 * 4
    starts = range(0, path.stat().st_size, step)
    parts = [Part(str(path), start, min(start + step, path.stat().st_size), 1) for start in starts]
    with closing(format.reader(survey, store)) as reader:
        tables = [reader.read(part).data for part in parts[1:]]
        assert store.bytes < path.stat().st_size + 100_000
        tables.insert(0, reader.read(parts[0]._replace(start=len(("a,b" + end).encode(encoding)))).data)
    assert store.bytes < 2 * path.stat().st_size + 100_000
    assert [value for table in tables for value in table["a"].to_pylist()] == [1, 3, 5]
    assert {len(value) for table in tables for value in table["b"].to_pylist()} == {1, 1_500_000}


def test_a_line_that_is_too_long_is_refused_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n3," + "x" * 3_000_000 + "\n5,y\n")
    format = Delimited(max_record_size=2 * 2**20)
    survey, parts = parts_of(format, [path], BatchSize(bytes=500_000))
    parts = [Part(str(path), parts[0].start, 500_000, 1), Part(str(path), 2_500_000, 3_000_010, 1)]
    with closing(format.reader(survey, STORE)) as reader:
        with pytest.raises(
            InputError, match=r"table\.csv, line 3: the record does not end within max_record_size \(2MB\)"
        ):
            reader.read(parts[0])
        assert reader.read(parts[1]).data.num_rows == 0
    long = write(tmp_path, "x" * 5_000_000, "long.csv")
    with pytest.raises(InputError, match=r"long\.csv, line 1: the record does not end within"):
        survey_of(format, long)


# Headers


def test_files_with_another_header_are_refused_by_name(tmp_path: Path) -> None:
    one, other = write(tmp_path, "a,b\n1,2\n", "1.csv"), write(tmp_path, "a,c\n1,2\n", "2.csv")
    message = refusal(Delimited(), one, other)
    assert f"{other} has column 'c' where {one} has 'b'" in message
    assert "combine_all_files_headers" in message
    other.write_text("a,b,c\n1,2,3\n")
    assert f"{other} has 3 columns where {one} has 2" in refusal(Delimited(), one, other)


def test_a_header_that_the_sample_did_not_see_is_checked_when_its_file_is_split(tmp_path: Path) -> None:
    one, other = write(tmp_path, "a,b\n1,2\n", "1.csv"), write(tmp_path, "a,c\n1,2\n", "2.csv")
    survey = survey_of(Delimited(), one)
    with pytest.raises(InputError, match="has column 'c'"):
        list(Delimited().split(str(other), ALL, survey, STORE))


def test_empty_files_are_passed_over_for_the_header(tmp_path: Path) -> None:
    paths = [write(tmp_path, text, f"{number}.csv") for number, text in enumerate(["", "\n", "a,b\n1,x\n", "2,y\n"])]
    same(frames_of(Delimited(header="only_first_file_has_headers"), paths, ALL), by_pandas("a,b\n1,x\n2,y\n"))


@pytest.mark.parametrize("header", ["a,a,,b,a.1", ",", '"a,b","c ""d"""', " a,a ,a", "a,,a,", "NA,1,nan"])
def test_columns_are_named_as_pandas_names_them(tmp_path: Path, header: str) -> None:
    width = len(by_pandas(header + "\n").columns)
    text = f"\n \n{header}\n" + ",".join("1" * width)
    same(frames_of(Delimited(), [write(tmp_path, text)], ALL), by_pandas(text))


def test_a_header_may_have_line_breaks_in_quotes(tmp_path: Path) -> None:
    text = '"a\nb","c\r\nd"\r\n1,2\r\n3,4'
    path = write(tmp_path, text)
    same(frames_of(Delimited(support_multi_line=True), [path], BatchSize(bytes=5)), by_pandas(text))
    same(frames_of(Delimited(), [path], BatchSize(bytes=5)), by_pandas(text))
    message = refusal(Delimited(), write(tmp_path, '"a\nb,c\n1,2\n'))
    assert (
        "the first record has a quoted value that does not end; check quote, and set support_multi_line: true"
        in message
    )


def test_a_long_header_is_read_whole(tmp_path: Path) -> None:
    names = [f"{number}{'x' * 200}" for number in range(400)]
    path = write(tmp_path, ",".join(names) + "\n" + ",".join("7" * 400))
    (frame,) = frames_of(Delimited(columns=(names[-1],)), [path], ALL)
    assert frame.to_dict("list") == {names[-1]: [7]}


def test_columns_are_selected_in_the_order_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c\n1,2,x\n3,4,y\n")
    format = Delimited(columns=("c", "a"))
    same(frames_of(format, [path], BatchSize(bytes=6)), pd.DataFrame({"c": ["x", "y"], "a": [1, 3]}))


@pytest.mark.parametrize("key", ["columns", "column_types"])
def test_a_column_that_does_not_exist_is_named(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, "a,b\n1,2\n")
    options: dict[str, Any] = {"columns": ("a", "z")} if key == "columns" else {"column_types": {"z": "int"}}
    message = refusal(Delimited(**options), path)
    assert message == f"{key}: 'z' not found in {path}; its columns are 'a', 'b'"


# Types


def test_chosen_types_are_given_whatever_the_sample_says(tmp_path: Path) -> None:
    types = {"zip": "string", "n": "float32", "day": "datetime(%d.%m.%Y)", "when": "datetime", "k": "int32"}
    path = write(tmp_path, "zip,n,day,when,k\n007,1,31.01.2024,2024-01-31 12:30,1\n,,1.2.2024,,2\n")
    (frame,) = frames_of(Delimited(column_types=types), [path], ALL)
    assert [str(type) for type in frame.dtypes[1:]] == ["float32", "datetime64[us]", "datetime64[us]", "int32"]
    assert frame["zip"][0] == "007"
    assert frame["day"].tolist() == [pd.Timestamp(2024, 1, 31), pd.Timestamp(2024, 2, 1)]
    assert frame["when"].tolist() == [pd.Timestamp(2024, 1, 31, 12, 30), pd.NaT]


@pytest.mark.parametrize(
    ("usual", "dtype"), [("True", "boolean"), (str(2**60 + 1), "Int64"), (str(2**64 - 1), "UInt64")]
)
def test_a_column_with_a_missing_value_keeps_its_type_in_every_mini_batch(
    tmp_path: Path, usual: str, dtype: str
) -> None:
    path = write(tmp_path, "a,b\n" + f"{usual},1\n" * 50 + ",2\n" + f"{usual},3\n" * 50)
    frames = frames_of(Delimited(), [path], BatchSize(bytes=60))
    assert len(frames) > 5
    assert {str(frame["a"].dtype) for frame in frames} == {dtype}
    assert [str(value) for frame in frames for value in frame["a"]] == [usual] * 50 + ["<NA>"] + [usual] * 50


@pytest.mark.parametrize(
    ("type", "content", "dtype"),
    [
        ("int32", "1,2", "int32"),
        ("int", "1,", "Int64"),
        ("Int32", "1,2", "Int32"),
        ("bool", "True,", "boolean"),
        ("boolean", "True,False", "boolean"),
        ("float32", "1,", "float32"),
    ],
)
def test_a_chosen_type_is_not_widened_by_a_missing_value(tmp_path: Path, type: str, content: str, dtype: str) -> None:
    path = write(tmp_path, "a,b\n" + "".join(f"{value},x\n" for value in content.split(",")))
    (frame,) = frames_of(Delimited(column_types={"a": type}), [path], ALL)
    assert str(frame["a"].dtype) == dtype


def test_further_texts_may_stand_for_missing_values(tmp_path: Path) -> None:
    path = write(tmp_path, "a;b\n1,5;-\n?;3\n")
    format = Delimited(separator=";", decimal=",", na_values=("?", "-"))
    same(frames_of(format, [path], ALL), pd.DataFrame({"a": [1.5, np.nan], "b": pd.array([None, 3], "Int64")}))


TYPE, EVERY = "correct it, name the column's type in column_types ", "is expected in every record"


@pytest.mark.usefixtures("small_sample")
class TestWhatTheSampleDidNotShow:
    """The sample is the beginning and the end; the surprise is in the middle."""

    def batches(self, folder: Path, surprise: str, usual: str = "1,2", **options: Any) -> list[Batch]:
        path = write(folder, "a,b\n" + f"{usual}\n" * 200 + surprise + f"\n{usual}" * 200 + "\n")
        return batches_of(Delimited(**options), path, BatchSize(bytes=200))

    @pytest.mark.parametrize(
        ("surprise", "usual", "problem"),
        [
            ("1,x", "1,2", "line 202, column 'b': 'x' is not an int64"),
            ("1,0x1F", "1,2", "line 202, column 'b': '0x1F' is not an int64"),
            (f"1,{2**63}", "1,2", f"line 202, column 'b': '{2**63}' is not an int64"),
            ("1,NAN", "1,2.5", "line 202, column 'b': 'NAN' is not a float64"),
            ("1,yes", "1,True", "line 202, column 'b': 'yes' is not a bool"),
            (
                "1,0.5",
                "1,2",
                f"line 202, column 'b': '0.5' is not an int64; {TYPE}(such as b: float64)",
            ),
            (
                "1,",
                "1,2",
                f"line 202, column 'b': a value is missing, where an int64 {EVERY}; {TYPE}(such as b: Int64)",
            ),
            ("1", "1,2", "line 202: 1 field where 2 are expected, and fill_missing_fields is not set"),
            (
                "1,NA",
                "1,True",
                f"line 202, column 'b': a value is missing, where a bool {EVERY}; {TYPE}(such as b: boolean)",
            ),
            ("1,2,3", "1,2", "line 202: 3 fields where 2 are expected"),
            ("\n\n  \n1,x", "1,2", "line 205, column 'b': 'x' is not an int64"),
        ],
    )
    def test_a_value_that_does_not_fit_is_a_bad_record(
        self, tmp_path: Path, surprise: str, usual: str, problem: str
    ) -> None:
        with pytest.raises(InputError) as refused:
            self.batches(tmp_path, surprise, usual)
        assert f"table.csv, {problem}" in str(refused.value)
        assert "on_bad_record: skip_and_count" in str(refused.value)
        assert ("column_types (such as b: " in str(refused.value)) == ("column" in problem)
        batches = self.batches(tmp_path, surprise, usual, on_bad_record="skip_and_count")
        assert [batch.skipped for batch in batches if batch.skipped] == [1]
        assert sum(batch.data.num_rows for batch in batches) == 400
        assert [str(bad) in str(refused.value) for batch in batches for bad in batch.bad] == [True]

    @pytest.mark.parametrize("skip", [False, True])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize(
        "value",
        [
            '"x\ny"',
            '"x\n8,z\ny"',
            '"' + "7,z\n" * 100 + '"',
            '"he ""says""\n7,""z""\n1,y\n"',
            '"' + 'so ""he""7,z\n' * 50 + '"',
        ],
    )
    def test_line_breaks_in_quotes_fail_the_mini_batches_that_they_are_in(
        self, tmp_path: Path, value: str, end: str, skip: bool
    ) -> None:
        text = "a,b\n" + "1,2\n" * 200 + f"9,{value}\n" + "1,2\n" * 200
        path = write(tmp_path, text.replace("\n", end))
        format = Delimited(on_bad_record="skip_and_count" if skip else "fail", column_types={"b": "string"})
        for size in (30, 50, 97, 200, 501):
            survey, parts = parts_of(format, [path], BatchSize(bytes=size))
            rows, told = [], []
            with closing(format.reader(survey, STORE)) as reader:
                for part in parts:
                    try:
                        rows += reader.read(part).data.to_pylist()
                    except InputError as error:
                        told.append(str(error))
            assert all(row == {"a": 1, "b": "2"} for row in rows)
            assert told and all("set support_multi_line: true if values hold line breaks" in each for each in told)
            assert any("table.csv, line 202: a quoted value does not end in this line." in each for each in told)
            with_breaks = Delimited(support_multi_line=True, column_types={"b": "string"})
            assert sum(map(len, frames_of(with_breaks, [path], BatchSize(bytes=size)))) == 401

    def test_an_end_of_a_quoted_value_behind_a_whole_one_fails_the_mini_batch(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="line 203: it seems to be the end of a quoted value that began on a line"):
            self.batches(tmp_path, '"x",2\ny",2', column_types={"a": "string", "b": "string"})

    def test_a_chosen_type_is_not_widened(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"'0.5' is not an int64"):
            self.batches(tmp_path, "1,0.5", column_types={"b": "int"})
        with pytest.raises(InputError, match=r"'2024' is not a datetime of the format %d.%m.%Y"):
            self.batches(tmp_path, "1,2024", "1,31.12.2024", column_types={"b": "datetime(%d.%m.%Y)"})

    def test_a_column_that_was_empty_in_the_sample_is_text(self, tmp_path: Path) -> None:
        tables = [batch.data for batch in self.batches(tmp_path, "1,x", "1,")]
        assert {table["b"].type for table in tables} == {pa.string()}

    def test_text_inside_quotes_is_no_evidence(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a,b\n" + '1,"2\n3,4\n5,6\n"\n' * 100)
        format = Delimited(support_multi_line=True)
        assert {batch.data["a"].type for batch in batches_of(format, path, BatchSize(bytes=100))} == {pa.int64()}


def test_the_types_are_those_of_all_files_together(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"a,b\n{number},{number}\n", f"{number}.csv") for number in range(9)]
    paths.append(write(tmp_path, "a,b\n0.5,x\n", "9.csv"))
    assert {str(frame.dtypes["a"]) for frame in frames_of(Delimited(), paths, ALL)} == {"float64"}


@pytest.mark.parametrize(("other", "warned"), [("0.5", True), ("1e300", True), ("1", False), ("", False), ("x", False)])
def test_digits_lost_beside_fractions_are_told(tmp_path: Path, other: str, warned: bool) -> None:
    path = write(tmp_path, f"a,b\n1,2\n{2**60 + 1},2\n{other},1e300\n")
    assert [doubt.column for doubt in Told.of(survey_of(Delimited(), path)).doubts] == ["a"] * warned


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("row", "text", "line"),
    [(0, "12,5", 3), (999, "'", 1002), (999, "n/a?", 1002), (999, "7 EUR", 1002), (5, "True", 8)],
)
def test_text_among_numbers_is_a_doubt_with_its_place(
    tmp_path: Path, row: int, text: str, line: int, suffix: str
) -> None:
    rows = [["1.5", "x", "4"] for _ in range(1000)]
    rows[500][0] = ""
    rows[row][0] = f'"{text}"'
    content = "a,b,c\n\n" + "".join(",".join(fields) + "\n" for fields in rows)
    path = tmp_path / f"t.csv{suffix}"
    path.write_bytes(gzip.compress(content.encode()) if suffix else content.encode())
    (doubt,) = Told.of(survey_of(Delimited(), path)).doubts
    assert doubt.column == "a"
    assert f"'a' is text, though 998 of 999 values are numbers: {path}, line {line} has {text!r}" in doubt.text
    for format in (Delimited(column_types={"a": "string"}), Delimited(infer_column_types=False)):
        assert Told.of(survey_of(format, path)).doubts == []


def test_the_place_of_a_doubt_is_found_in_the_middle_of_a_large_file(tmp_path: Path) -> None:
    lines = [f"{number},{number % 7}.25,{'x' * 40}" for number in range(300_000)]
    lines[200_000:200_010] = [f"{number},?,y" for number in range(10)]
    at = "\n".join(["a,b,c", *lines]) + "\n"
    for multi_line, encoding in ((False, "utf-8"), (True, "utf-8"), (False, "utf-16-le")):
        (tmp_path / "t.csv").write_text(at, encoding=encoding)
        format = Delimited(support_multi_line=multi_line, encoding=encoding)
        found = Told.of(survey_of(format, tmp_path / "t.csv")).doubts
        for doubt in found:
            assert re.search(r"line 2000(0[2-9]|1[01]) has '\?'", doubt.text)
        assert [doubt.column for doubt in found] in ([], ["b"])  # a sample may pass it over


def test_what_is_rather_text_is_no_doubt(tmp_path: Path) -> None:
    few = "".join(f"{number}\n" for number in range(8)) + "x\n"
    names = "".join(f"{'x' if number % 2 else ''}{number}\n" for number in range(1000))
    for content in (few, names, "x\n1\n", "x\ny\n", f"{10**30}\n1\n", "True\nFalse\n"):
        assert Told.of(survey_of(Delimited(header="no_header"), write(tmp_path, content))).doubts == []


def test_of_very_many_files_some_are_looked_at_evenly() -> None:
    chosen = delimited_survey.choose(str(number) for number in range(100_000))
    numbers = [int(path) for path in chosen.files]
    assert not chosen.all
    assert numbers[0] == 0 and numbers[-1] == 99_999
    assert 128 <= len(numbers) <= 257
    assert max(np.diff(numbers)) <= 2 * 100_000 / 128
    assert delimited_survey.choose(iter(["a", "b"])) == (["a", "b"], True)
    assert delimited_survey.choose(iter([])) == ([], True)


# Bad records


@pytest.mark.parametrize("size", [*range(1, 60, 9), 2**30])
def test_line_breaks_in_quotes_are_read_if_the_sample_shows_them(tmp_path: Path, size: int) -> None:
    path = write(tmp_path, 'a,b\n1,x\n2,"y\nz",3\n"3","v\r\n4,w"\n5,"v, w"\n')
    format = Delimited(on_bad_record="skip_and_count", column_types={"a": "string"})
    batches = batches_of(format, path, BatchSize(bytes=size))
    assert [str(bad) for batch in batches for bad in batch.bad] == [f"{path}, line 3: 3 fields where 2 are expected"]
    rows = [tuple(row.values()) for batch in batches for row in batch.data.to_pylist()]
    assert rows == [("1", "x"), ("3", "v\r\n4,w"), ("5", "v, w")]
    (doubt,) = Told.of(survey_of(format, path)).doubts
    assert f"{path}: quoted values hold line breaks, so support_multi_line is on" in doubt.text


@pytest.mark.parametrize("text", ['a,b\n1,"x\n2,y\n3,5" disk\n', 'a,b\n1,5" disk 5"\n2,7"\n3,"y\n'])
def test_quotes_that_do_not_close_as_they_should_are_no_line_breaks(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    (batch,) = batches_of(Delimited(on_bad_record="skip_and_count"), path)
    assert (batch.data.num_rows, batch.skipped) == (2, 1)
    (doubt,) = Told.of(survey_of(Delimited(), path)).doubts
    assert "in some lines quotes do not open and close values" in doubt.text


def test_a_quoted_value_without_an_end_is_bad(tmp_path: Path) -> None:
    text = 'a,b\n1,"x"\n2,"y\n3,z\n'
    assert "line 3: a quoted value does not end in this line" in refusal(Delimited(), write(tmp_path, text))
    message = refusal(Delimited(support_multi_line=True), write(tmp_path, text))
    assert "line 3: the quoted value that begins here does not end in this file" in message
    assert "line 2: a quoted value does not end" in refusal(Delimited(), write(tmp_path, 'a,b\n1,"x'))


@pytest.mark.parametrize(("encoding", "wrong"), [("utf-8", b"\xff\xfe"), ("utf-16-le", b"\x00\xd8"), ("gbk", b"\xff")])
def test_bytes_that_are_no_text_are_a_bad_value(tmp_path: Path, encoding: str, wrong: bytes) -> None:
    content = "a,b\r\n1,x\r\n2,".encode(encoding) + wrong + "\r\n3,y\r\n".encode(encoding)
    path = write(tmp_path, content)
    message = refusal(Delimited(encoding=encoding), path)
    assert "line 3, column 'b'" in message
    assert f"set encoding (it is {encoding} now)" in message
    (batch,) = batches_of(Delimited(encoding=encoding, on_bad_record="skip_and_count"), path)
    assert (batch.skipped, batch.data["b"].to_pylist()) == (1, ["x", "y"])
    (frame,) = frames_of(Delimited(encoding=encoding, columns=("a",)), [path], ALL)  # what is not asked for may be bad
    assert frame["a"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("multi_line", [False, True])
def test_the_line_of_a_bad_record_is_right_in_any_part(
    tmp_path: Path, end: str, encoding: str, multi_line: bool
) -> None:
    lines = [f"{number},x" for number in range(2, 60)]
    lines[20] += end
    lines[30] = f'32,"x{end}y"' if multi_line else "32,x" + end
    lines[40] = "42,x,too,many"
    path = write(tmp_path, end.join(["a,b", *lines]).encode(encoding))
    format = Delimited(encoding=encoding, support_multi_line=multi_line)
    for size in (40, 2**20):
        assert "line 44: 4 fields where 2 are expected" in refusal(format, path, size=BatchSize(bytes=size))


def test_fields_that_a_record_lacks_may_be_filled(tmp_path: Path) -> None:
    text = "a,b,c\n1,2,x\n3\n4,5\n"
    path = write(tmp_path, text)
    same(frames_of(Delimited(fill_missing_fields=True), [path], BatchSize(bytes=5)), by_pandas(text))
    assert "line 3: 1 field where 3 are expected" in refusal(Delimited(), path)
    (batch,) = batches_of(Delimited(on_bad_record="skip_and_count"), path)
    assert (batch.skipped, batch.data["a"].to_pylist(), batch.data.schema.types[1]) == (2, [1], pa.int64())


def test_only_the_first_bad_records_are_told_but_all_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n" + "1,2,3\n4,5\n" * 100)
    (batch,) = batches_of(Delimited(on_bad_record="skip_and_count"), path)
    assert (batch.skipped, batch.data.num_rows) == (100, 100)
    assert [bad.line for bad in batch.bad] == list(range(2, 22, 2))


# Files


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".zst", lambda data: pa.Codec("zstd").compress(data).to_pybytes()),
        (".xz", lambda data: lzma.compress(data) + bytes(4)),  # the padding that xz allows between streams
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_compressed_file_is_one_mini_batch(tmp_path: Path, suffix: str, compress: Any, encoding: str) -> None:
    text = "a,b\n" + "".join(f"{number},é\n" for number in range(30000))
    data = text.encode(encoding)
    path = write(tmp_path, compress(data[:50000]) + compress(data[50000:]), "table.csv" + suffix)
    format = Delimited(encoding=encoding)
    survey, parts = parts_of(format, [path], BatchSize(bytes=1000))
    assert [(part.start, part.stop) for part in parts] == [(0, path.stat().st_size)]
    same(frames_of(format, [path], BatchSize(bytes=1000)), by_pandas(text))
    bad = write(tmp_path, compress((text + "1,2,3\n").encode(encoding)), "bad.csv" + suffix)
    assert "line 30002: 3 fields" in refusal(format, bad)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole + b"noise " * 9):
        path.write_bytes(damaged)
        with closing(format.reader(survey, STORE)) as reader, pytest.raises(InputError, match="cannot be decompressed"):
            reader.read(parts[0])


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"PK\x03\x04", "a zip archive, or an Excel workbook"),
        (b"PAR1\x15", "a Parquet file: give the key format: parquet"),
        (b"\x1f\x8b\x08", "compressed with gzip: let its name end with .gz"),
    ],
)
def test_a_file_that_is_no_text_is_told_what_it_is(tmp_path: Path, head: bytes, told: str) -> None:
    path = write(tmp_path, head + b"\0" * 100)
    assert f"{path} is no text, but {told}" in refusal(Delimited(), path)


def test_a_file_that_has_become_shorter_is_told_of(tmp_path: Path) -> None:
    for format in (Delimited(), Delimited(support_multi_line=True)):
        path = write(tmp_path, "a,b\n" + "1,2\n" * 100)
        survey, parts = parts_of(format, [path], BatchSize(bytes=100))
        write(tmp_path, "a,b\n1,2\n")
        with closing(format.reader(survey, STORE)) as reader, pytest.raises(InputError, match="shorter than when"):
            reader.read(parts[-1])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nothing\.csv"):
        survey_of(Delimited(), tmp_path / "nothing.csv")


def test_a_byte_order_mark_in_the_middle_is_text(tmp_path: Path) -> None:
    text = "a,b\n" + "\ufeffx,1\n" * 10
    for size in (1, 9, 30):
        same(frames_of(Delimited(), [write(tmp_path, text)], BatchSize(bytes=size)), by_pandas(text))


def test_text_larger_than_what_is_parsed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpi_prs.inputs.formats.delimited import reading as delimited_reader

    monkeypatch.setattr(delimited_reader, "_ONE_BLOCK", 500)
    monkeypatch.setattr(delimited_reader, "_AT_ONCE", 300)
    monkeypatch.setattr(delimited_text, "_PIECE", 64)
    for value in ('"v, w"', "x" * 700, "+1", '"v\nw"'):
        text = "a,b,c\n" + f"1,{value},7.5\n2,,8\n" * 100
        path = write(tmp_path, text)
        same(frames_of(Delimited(support_multi_line="\n" in value), [path], ALL), by_pandas(text))


def test_a_reader_goes_from_file_to_file(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"a,b\n{number},x\n", f"{number}.csv") for number in range(3)]
    format = Delimited()
    survey, parts = parts_of(format, paths, ALL)
    with closing(format.reader(survey, STORE)) as reader:
        found = [reader.read(parts[number]).data["a"].to_pylist() for number in (2, 0, 1, 0)]
    assert found == [[2], [0], [1], [0]]


def test_a_part_without_records_has_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1," + "x" * 100 + "\n")
    format = Delimited()
    survey = survey_of(format, path)
    with closing(format.reader(survey, STORE)) as reader:
        table = reader.read(Part(str(path), 20, 40, 1)).data
    assert (table.num_rows, table.schema.types) == (0, [pa.int64(), pa.string()])


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": "::"}, "separator: '::': expected one ASCII character"),
        ({"separator": ""}, "separator: ''"),
        ({"separator": "é"}, "separator: 'é'"),
        ({"quote": "\n"}, "quote: '\\n': expected one ASCII character, no line break, or empty for none"),
        ({"separator": "'", "quote": "'"}, "must be different"),
        ({"decimal": ","}, "separator and decimal are both ',': they must be different"),
        ({"thousands": ",", "quote": ""}, "separator and thousands are both ',': they must be different"),
        ({"thousands": "e"}, "thousands: 'e' is itself a part of numbers or words"),
        ({"comment": "//"}, "comment: '//': expected one ASCII character, no line break, or empty for none"),
        ({"escape": '"'}, "quote and escape are both '\"': they must be different"),
        ({"escape": "\\", "encoding": "shift_jis"}, "can be half of another character in the encoding shift_jis"),
        ({"skip_rows": -1}, "skip_rows: -1: expected a number of lines, at least 0"),
        ({"header": "first"}, "header: 'first': expected one of all_files_have_same_headers"),
        ({"on_bad_record": "ignore"}, "on_bad_record: 'ignore': expected one of fail, skip_and_count"),
        ({"max_record_size": 0}, "max_record_size: 0: expected a number of bytes, at least 1"),
        ({"encoding": "utf-9"}, "encoding: 'utf-9' is not supported"),
        ({"encoding": "utf-7"}, "encoding: 'utf-7' is not supported"),
        ({"encoding": "cp500"}, "encoding: 'cp500' is not supported"),
        ({"columns": ("a", "a")}, "columns: 'a', 'a': a column can be selected once only"),
        ({"column_types": {"a": "number"}}, "column_types: column 'a': 'number' is not a type of a column"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        Delimited(**options)
    assert message in str(refused.value)


def test_reading_imports_no_pandas(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b,c,d,e\n+1,True,0.5,"x y",31.01.2024\n2,,,,\n1,False,1,z,1.2.2024\n4,5,6,7,8,9\n')
    script = f"""
import json, sys
from mpi_prs.inputs.formats.delimited.splitting import Delimited
from mpi_prs.inputs.formats.format import BatchSize, LocalFiles
store = LocalFiles()
format = Delimited(on_bad_record="skip_and_count", column_types={{"e": "datetime(%d.%m.%Y)"}})
survey = format.survey(lambda: iter([{str(path)!r}]), store)
(part,) = format.split({str(path)!r}, BatchSize(bytes=1000), survey, store)
batch = format.reader(json.loads(json.dumps(survey)), store).read(part)
assert batch.data.num_rows == 3 and batch.skipped == 1, batch
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore::ResourceWarning", "-c", script], check=True)


# As text


def test_without_inference_every_column_is_text_but_for_chosen_types(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c\n007,1.50,2\n,true,3\n")
    format = Delimited(infer_column_types=False, column_types={"c": "int"})
    expected = pd.DataFrame({"a": ["007", None], "b": ["1.50", "true"], "c": [2, 3]})
    same(frames_of(format, [path], ALL), expected)


@pytest.mark.parametrize("row", ["", "+1,,NA,"], ids=["all at once", "value by value"])
def test_texts_are_never_missing_where_they_are_to_stay_as_they_are(tmp_path: Path, row: str) -> None:
    path = write(tmp_path, f'n,half,text,when\n1,0.5,,01.02.2024\n2,,NA,\n3,1.5,"",02.02.2024\n{row}\n')
    types = {"when": "datetime(%d.%m.%Y)", "n": "int"}
    (frame,) = frames_of(Delimited(empty_as_string=True, column_types=types), [path], ALL)
    assert frame["text"].tolist()[:3] == ["", "NA", ""]
    assert frame["text"].tolist()[3:] == (["NA"] if row else [])
    assert np.isnan(frame["half"][1]) and pd.isna(frame["when"][1])
    (plain,) = frames_of(Delimited(column_types=types), [path], ALL)
    assert plain["text"].isna().all()


# Damage


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize(
    "format",
    [Delimited(), Delimited(header="no_header"), Delimited(header="combine_all_files_headers"), JsonLines()],
    ids=["csv", "no header", "combined", "json"],
)
def test_a_damaged_file_fails_alone_even_the_first(tmp_path: Path, format: Delimited | JsonLines, suffix: str) -> None:
    damaged = write(tmp_path, b"noise " * 9, f"0.txt{suffix}")
    with pytest.raises(InputError, match=rf"0.txt{suffix} cannot be decompressed"):
        survey_of(format, damaged)
    good = write(tmp_path, '{"n": 1}\n{"n": 2}\n', "1.txt")
    survey, parts = parts_of(format, [damaged, good], ALL)
    assert [part.file for part in parts] == [str(damaged), str(good)]
    with closing(format.reader(survey, STORE)) as reader:
        with pytest.raises(InputError, match=rf"0.txt{suffix} cannot be decompressed"):
            reader.read(parts[0])
        assert reader.read(parts[1]).data.num_rows


def test_a_damaged_file_that_has_the_only_header_is_refused(tmp_path: Path) -> None:
    files = [write(tmp_path, b"noise", "0.csv.gz"), write(tmp_path, "1,2\n", "1.csv")]
    with pytest.raises(InputError, match=r"0.csv.gz cannot be decompressed: .* as the first file it has the header"):
        survey_of(Delimited(header="only_first_file_has_headers"), *files)

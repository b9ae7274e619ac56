"""JSON lines: all mini-batches together are what pandas reads of the whole, wherever the cuts fall."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats import lines
from mpi_prs.inputs.formats.delimited.splitting import Delimited
from mpi_prs.inputs.formats.format import Batch, BatchSize, Part
from mpi_prs.inputs.formats.json_lines import reading as json_reading
from mpi_prs.inputs.formats.json_lines.reading import JsonArrays, JsonLines
from mpi_prs.inputs.formats.told import Told
from tests.support.tables import STORE, CountingFiles, at_the_user, parts_of, survey_of

WHOLE = BatchSize(bytes=2**30)


def batches_of(format: JsonLines, files: Sequence[Path], size: BatchSize = WHOLE) -> list[Batch]:
    survey, parts = parts_of(format, files, size)
    with closing(format.reader(survey, STORE)) as reader:
        return [reader.read(part) for part in parts]


def frames_of(format: JsonLines, files: Sequence[Path], size: BatchSize = WHOLE) -> list[pd.DataFrame]:
    return [at_the_user(batch.data) for batch in batches_of(format, files, size)]


def written(file: Path, *records: Any) -> Path:
    """A file of records; text is written as it is."""
    file.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in records))
    return file


def by_pandas(content: bytes) -> pd.DataFrame:
    """The whole, read by pandas; where values are missing, whole numbers and booleans with its types for that."""
    frame: pd.DataFrame = pd.read_json(
        io.BytesIO(content), lines=True, dtype=False, convert_axes=False, precise_float=True
    )
    records = [json.loads(line) for line in content.splitlines() if line.strip()]
    for name in frame.columns[frame.isna().any()]:
        kinds = {type(value) for record in records if (value := record.get(name)) is not None}
        if kinds in ({int}, {bool}):
            values = [record.get(name) for record in records]
            frame[name] = pd.array(values, "Int64" if kinds == {int} else "boolean")
    return frame


# The property

_NAMES = ["a", "b b", "ç", "d.d", "2020-01-01"]
_KINDS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.integers(-(10**9), 10**9).map(lambda value: value / 1000),
    "both": st.one_of(st.integers(-1000, 1000), st.just(0.5)),
    "bool": st.booleans(),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    "date": st.dates().map(str),
}


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    kinds = draw(st.lists(st.sampled_from(sorted(_KINDS)), min_size=1, max_size=4))
    columns = {name: _KINDS[kind] for name, kind in zip(_NAMES, kinds, strict=False)}
    rows = draw(st.integers(1, 30))
    full = st.fixed_dictionaries(columns)
    sparse = st.fixed_dictionaries(
        {}, optional={name: st.one_of(values, values, st.none()) for name, values in columns.items()}
    )
    # The first record has every key, so that the order of the columns is not a question of taste
    records = [draw(full), *draw(st.lists(draw(st.sampled_from([full, sparse])), min_size=rows, max_size=rows))]
    ascii = draw(st.booleans())
    texts = [json.dumps(record, ensure_ascii=ascii) for record in records]
    ending = draw(st.sampled_from(["\n", "\r\n", "\n\n", "\n  \n"]))
    last = draw(st.sampled_from(["", ending]))
    return (ending.join(texts) + last).encode()


SIZES = st.one_of(st.builds(BatchSize, rows=st.integers(1, 40)), st.builds(BatchSize, bytes=st.integers(1, 2000)))


@settings(max_examples=150)
@given(content=contents(), size=SIZES, bom=st.booleans())
def test_all_mini_batches_together_are_what_pandas_reads_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: BatchSize, bom: bool
) -> None:
    file = tmp_path_factory.mktemp("lines") / "t.jsonl"
    file.write_bytes((b"\xef\xbb\xbf" if bom else b"") + content)
    frames = frames_of(JsonLines(), [file], size)
    whole = by_pandas(content)
    frames = [frame for frame in frames if len(frame)]
    for frame in frames:
        assert frame.dtypes.to_dict() == whole.dtypes.to_dict()
    together = pd.concat(frames, ignore_index=True)
    objects = [name for name in whole.columns if whole[name].dtype == np.dtype(object)]
    for table in (together, whole):  # pandas has None or NaN for what is missing among objects
        table[objects] = table[objects].astype(object).where(table[objects].notna(), None)
    pd.testing.assert_frame_equal(together, whole)


@settings(max_examples=200)
@given(content=st.text("ab\n", max_size=40), step=st.integers(1, 12))
@example(content="\n\na\n", step=1)
def test_every_line_is_in_the_part_in_which_it_begins(content: str, step: int) -> None:
    data = content.encode()
    file = io.BytesIO(data)
    found = [lines.lines_of(file, start, min(start + step, len(data))) for start in range(0, len(data), step)]
    assert b"".join(each.data for each in found) == data
    for number, each in enumerate(found):
        if each.data:
            assert number * step <= each.offset < (number + 1) * step
            assert data[each.offset :].startswith(each.data)
            assert lines.line_number(file, each.offset) == data[: each.offset].count(b"\n") + 1


def test_the_master_looks_at_a_sample_and_splits_without_reading(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    record = json.dumps({"text": "x" * 990, "n": 1}) + "\n"
    file.write_text(record * 30_000)
    store = CountingFiles()
    survey = JsonLines().survey(lambda: iter([str(file)]), store)
    assert 4 * 2**20 < store.bytes < 13 * 2**20
    assert (store.opened, store.measured) == (1, 0)
    sampled = store.bytes
    parts = list(JsonLines().split(str(file), BatchSize(rows=1000), survey, store))
    assert store.bytes == sampled
    assert len(parts) == pytest.approx(30, abs=1)
    assert sum(part.rows for part in parts) == pytest.approx(30_000, rel=0.01)
    assert {part.first_row for part in parts} == {-1}


def test_a_line_that_is_too_long_is_refused_with_its_place(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", {"a": "x"}, {"a": "x" * 10**6}, {"a": "y"})
    survey, _ = parts_of(JsonLines(), [file], WHOLE)
    parts = [Part(str(file), 0, 1000, 1), Part(str(file), 1000, file.stat().st_size, 1)]
    with closing(JsonLines(max_record_size=10**5).reader(survey, STORE)) as reader:
        with pytest.raises(InputError, match=r"t\.jsonl, line 2: the record does not end within max_record_size"):
            reader.read(parts[0])
        assert reader.read(parts[1]).data["a"].to_pylist() == ["y"]


def test_the_sample_sees_the_end_and_many_files(tmp_path: Path) -> None:
    long = written(tmp_path / "long.jsonl", *[{"a": number} for number in range(20_000)], {"a": 1, "late": "x"})
    files = [written(tmp_path / f"{number:03}.jsonl", {"a": number}) for number in range(200)]
    last = written(tmp_path / "last.jsonl", {"a": 0.5})
    frames = frames_of(JsonLines(), [long, *files, last])
    assert {tuple(map(str, frame.dtypes)) for frame in frames} == {("float64", str(frames[0].dtypes["late"]))}
    assert list(frames[0].columns) == ["a", "late"]


def test_nested_values_arrive_as_dicts_and_arrays(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", {"o": {"x": 1}, "l": [1, 2]}, {"o": {"y": "2020-01-01"}, "l": []}, {"l": None})
    (frame,) = frames_of(JsonLines(), [file])
    assert frame["o"].tolist() == [{"x": 1, "y": None}, {"x": None, "y": "2020-01-01"}, None]
    assert [None if each is None else each.tolist() for each in frame["l"]] == [[1, 2], [], None]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_compressed_file_is_one_mini_batch(tmp_path: Path, suffix: str) -> None:
    content = b"".join(b'{"n": %d}\n' % number for number in range(50_000))
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda data: pa.compress(data, "zstd", asbytes=True)}
    file = tmp_path / f"t.jsonl{suffix}"
    file.write_bytes(packed[suffix](content))
    (frame,) = frames_of(JsonLines(), [file], BatchSize(bytes=1000))
    assert frame["n"].tolist() == list(range(50_000))
    good = written(tmp_path / "good.jsonl", {"n": 1})
    file.write_bytes(file.read_bytes()[:-40])
    survey, parts = parts_of(JsonLines(), [good, file], WHOLE)
    with closing(JsonLines().reader(survey, STORE)) as reader:
        for _ in range(2):  # it is tried again
            with pytest.raises(InputError, match=rf"t\.jsonl{suffix} cannot be decompressed"):
                reader.read(parts[1])
        assert reader.read(parts[0]).data.num_rows == 1


# An array in a file, and values of any shape

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(st.sampled_from("ab"), JSON_VALUES, min_size=1), max_size=6),
    st.integers(1, 40),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 9),
)
def test_an_array_has_the_text_of_its_values(
    records: list[dict[str, Any]], size: int, indent: int | None, escaped: bool, chunk: int
) -> None:
    """Of any shape, wherever it is cut; as columns of the type json, whose cells are the text."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reading, "_CHUNK", chunk)
        path = Path(folder, "t.json")
        path.write_text(json.dumps(records, indent=indent, ensure_ascii=escaped), encoding="utf-8", newline="")
        format = JsonArrays(column_types={"a": "json", "b": "json"})
        frames = frames_of(format, [path], BatchSize(bytes=size))
        packed = Path(folder, "t.json.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        for found in (frames, frames_of(format, [packed])):
            rows = [row for frame in found for row in frame[["a", "b"]].itertuples(index=False)]
            values = [tuple(None if pd.isna(cell) else json.loads(cell) for cell in row) for row in rows]
            assert values == [(record.get("a"), record.get("b")) for record in records]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n', "begins with '{' and not with '['. Give the key format: json_lines"),
        ('[{"a": 1}, {"a": 2}', "ends before its array does"),
        ('[{"a": 1}] x', "goes on behind the array"),
        ('[{"a": 1},\n\n 7]', "line 3: 7 is not a JSON object"),
        ('[{"a": 1},\n {"a": "x"}]', "line 2, column 'a': \"x\" is not int64"),
        ('[{"a": [1]},\n {"a": 2}]', "such as a: string"),
        ('[{"a": 1},\n {"a": [2]}]', "such as a: json"),
        ('[{"a": 1}, {"a": "' + "x" * 200 + '"}]', "does not end within max_record_size"),
    ],
)
def test_what_is_no_array_of_records_is_told_of(
    tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_reading, "_CHUNK", 50)
    path = written(tmp_path / "t.json", text)
    with pytest.raises(InputError) as refused:
        frames_of(JsonArrays(max_record_size=100), [path])
    assert message in str(refused.value)


def test_text_of_values_is_as_it_is_written(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", '{"v": 1.50}\n{"v": {"k":  [1e400, "é"]}}\n{"v": null}\n{"v": "x"}')
    (frame,) = frames_of(JsonLines(column_types={"v": "json"}), [path])
    assert frame["v"].tolist()[:2] + frame["v"].tolist()[3:] == ["1.50", '{"k":  [1e400, "é"]}', '"x"']
    assert pd.isna(frame["v"][2])
    with pytest.raises(InputError, match="json is for the formats json and json_lines"):
        Delimited(column_types={"v": "json"})


def test_empty_files_have_no_mini_batches(tmp_path: Path) -> None:
    files = [written(tmp_path / "a.jsonl"), written(tmp_path / "b.jsonl", {"x": 1}), written(tmp_path / "c.jsonl", "")]
    assert [len(frame) for frame in frames_of(JsonLines(), files)] == [1, 0]
    assert frames_of(JsonLines(), files[:1]) == []


# Columns and types


def test_columns_are_selected_in_order_and_the_rest_may_be_anything(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", {"a": 1, "b": "x", "c": 1}, {"c": "t", "b": "y", "new": 1}, {"c": [1]})
    (frame,) = frames_of(JsonLines(columns=("b", "a")), [file])
    assert list(frame.columns) == ["b", "a"]
    assert frame["a"].tolist()[0] == 1.0
    assert frame["b"].tolist()[:2] == ["x", "y"]


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", {"a": 1})
    with pytest.raises(InputError, match="columns: 'z' not found in a sample of the records, whose columns are 'a'"):
        survey_of(JsonLines(columns=("a", "z")), file)
    (frame,) = frames_of(JsonLines(columns=("z", "a"), column_types={"z": "string"}), [file])
    assert frame["z"].isna().all()


def test_column_types_are_obeyed(tmp_path: Path) -> None:
    file = written(
        tmp_path / "t.jsonl", {"zip": 123, "n": "7", "x": 1}, {"zip": "0456", "n": "8", "x": 2}, {"zip": 1.50}
    )
    format = JsonLines(column_types={"zip": "string", "n": "int", "x": "float64"})
    (frame,) = frames_of(format, [file])
    assert frame["zip"].tolist() == ["123", "0456", "1.5"]
    assert frame["n"].tolist()[:2] == [7, 8]
    assert [str(frame.dtypes[name]) for name in ("n", "x")] == ["Int64", "float64"]


def test_dates_are_read_by_their_format(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", {"day": "31.12.2020"}, {}, {"day": "32.12.2020"}, {"day": "01.02.2021"})
    format = JsonLines(column_types={"day": "datetime(%d.%m.%Y)"}, on_bad_record="skip_and_count")
    (batch,) = batches_of(format, [file])
    assert at_the_user(batch.data)["day"].dt.day.tolist()[::2] == [31.0, 1.0]
    assert [each.line for each in batch.bad] == [3]


def test_a_number_read_as_text_is_as_it_was_written(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", '{"a": 1.50, "b": {"c": 2.0}}', '{"a": 12345678901234567890}', '{"a": true}')
    (frame,) = frames_of(JsonLines(column_types={"a": "string"}), [file])
    assert frame["a"].tolist() == ["1.50", "12345678901234567890", "True"]
    assert frame["b"].tolist()[0] == {"c": 2.0}


def beyond_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample is the beginning and the end of a file."""
    monkeypatch.setattr(lines, "PIECES", 2)
    monkeypatch.setattr(lines, "PIECE_BYTES", 16)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["1", "2"], "int64"),
        ([str(2**60 + 1), "null"], "Int64"),
        ([str(2**64 - 1), "1"], "uint64"),
        ([str(2**64 - 1), "null"], "UInt64"),
        (["true", "null"], "boolean"),
        (["1", "0.5", "null"], "float64"),
    ],
)
def test_whole_numbers_and_booleans_keep_their_type_beside_missing_values(
    tmp_path: Path, values: list[str], dtype: str
) -> None:
    file = written(tmp_path / "t.jsonl", *[f'{{"n": {value}, "x": 1}}' for value in values])
    frames = frames_of(JsonLines(), [file], BatchSize(bytes=10))
    assert {str(frame.dtypes["n"]) for frame in frames} == {dtype}
    assert [None if pd.isna(value) else value for frame in frames for value in frame["n"]] == list(
        map(json.loads, values)
    )


def test_whole_numbers_in_nested_values_keep_their_digits(tmp_path: Path) -> None:
    big = 2**60 + 1
    records = [{"o": {"id": big}, "l": [big, None]}, {"o": {}, "l": [1]}, {"o": {"id": None}}, {"o": {"id": 2**64 - 1}}]
    file = written(tmp_path / "t.jsonl", *records)
    (frame,) = frames_of(JsonLines(), [file])
    assert frame["o"].tolist() == [{"id": big}, {"id": None}, {"id": None}, {"id": 2**64 - 1}]
    assert frame["l"][0].tolist() == [big, None]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            {"n": 10**20},
            f"column 'n' has the whole number {10**20}, beyond 64 bits; name the column's type in column_types",
        ),
        (
            {"n": {"x": [-(10**20)]}},
            rf"column 'n.x\[\]' has the whole number {-(10**20)}, beyond .*n: json gives the text",
        ),
    ],
)
def test_a_whole_number_beyond_64_bits_is_refused(tmp_path: Path, record: dict[str, Any], told: str) -> None:
    file = written(tmp_path / "t.jsonl", record)
    with pytest.raises(InputError, match=told):
        survey_of(JsonLines(), file)
    if isinstance(record["n"], int):
        (frame,) = frames_of(JsonLines(column_types={"n": "string"}), [file])
        assert frame["n"].tolist() == [str(10**20)]


@pytest.mark.parametrize("key", [b"\xff", b"\\ud800"])
def test_a_key_that_is_no_text_is_a_bad_record_in_the_sample_too(tmp_path: Path, key: bytes) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(b'{"n": 1}\n{"' + key + b'": 2}\n')
    (batch,) = batches_of(JsonLines(on_bad_record="skip_and_count"), [file])
    assert (batch.data.to_pydict(), batch.skipped) == ({"n": [1]}, 1)


def test_digits_lost_beside_fractions_are_told(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", {"n": 2**60 + 1, "o": 2**60}, {"n": 0.5})
    (frame,) = frames_of(JsonLines(), [file])
    assert frame["n"].tolist() == [float(2**60), 0.5]
    (doubt,) = Told.of(survey_of(JsonLines(), file)).doubts
    assert doubt.column == "n" and f"such as {2**60 + 1}, which lose digits" in doubt.text


@pytest.mark.parametrize("before", [1, 20_000])  # in one piece of the sample, and in two
def test_a_column_of_two_types_in_a_file_is_a_doubt(tmp_path: Path, before: int) -> None:
    file = written(tmp_path / "t.jsonl", *[{"n": 1, "o": 1}] * before, *[{"n": "x", "o": 2}] * 20_000)
    (doubt,) = Told.of(survey_of(JsonLines(), file)).doubts
    assert doubt.column == "n"
    found = re.search(rf"is int64 at first, and string in {file}, line (\d+)", doubt.text)
    assert found is not None and json.loads(file.read_text().splitlines()[int(found[1]) - 1])["n"] == "x"
    assert Told.of(survey_of(JsonLines(column_types={"n": "string"}), file)).doubts == []


# Bad records

BAD = [
    ('{"n": 2.5}', "column 'n': 2.5 is not int64"),
    ('{"n": null}', "column 'n': a value is missing, where int64 is expected in every record"),
    ("{}", "column 'n': a value is missing, where int64 is expected in every record"),
    ('{"n": 1, "o": {"x": 2.5}}', "column 'o': 2.5 at o.x is not int64"),
    ('{"n": 1, "f": 1e400}', "column 'f': 1e400 is beyond the range of float64"),
    ("null", "null is not a JSON object"),
    ('{"n": "abc", "s": "x"}', r"column 'n': \"abc\" is not int64"),
    ('{"n": 1, "s": 5}', "column 's': 5 is not string"),
    ('{"n": 1, "s": ["x"]}', r"column 's': \[\"x\"\] is not string"),
    ('{"n": 123456789012345678901234567890, "s": "x"}', r"column 'n': 1234\d* cannot be read as int64"),
    ('{"n": 1, "s": "x", "new": 1}', "column 'new': the sample .* name it in column_types"),
    ('{"n": 1, "s": "x", "o": {"x": 1, "y": 2}}', "column 'o': the key 'y' of o.y is not in the sample"),
    ('{"n": 1, "s": "x", "void": 1}', "column 'void': 1 where the sample has no value: name the type in column_types"),
    ('{"n": 1, "n": 2}', "the key 'n' is in it twice"),
    ('{"n": 1, "s": ', "it is not JSON"),
    ('{"n": 1} {"n": 2}', "it is not JSON"),
    ("[1, 2]", r"\[1, 2\] is not a JSON object"),
    ('{"n": 1, "s": "\udcff"}', "byte 16 is not UTF-8"),
    ('{"n": 1, "\udcff": "x"}', "byte 11 is not UTF-8"),
    ('{"n": 1, "s": "x", "\\ud800": 1}', "half of a surrogate pair"),
    ('{"n": 1, "o": {"x\\u0000": 1}}', "its key .* has the character NUL"),
    ("[" * 100_000, "nested too deep"),
    ('{"n": ' * 20_000 + "1" + "}" * 20_000, "nested too deep"),
]


@pytest.mark.parametrize(("bad", "said"), BAD)
def test_a_bad_record_is_named_or_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, said: str) -> None:
    beyond_the_sample(monkeypatch)
    monkeypatch.setattr(lines, "PIECE_BYTES", 70)
    good = [json.dumps({"n": number, "s": "x", "o": {"x": 1}, "void": None, "f": 0.5}) for number in range(30)]
    file = tmp_path / "t.jsonl"
    text = "\n".join([*good[:17], "", bad, *good[17:]]) + "\n"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    column, problem = said.split(": ", 1) if said.startswith("column") else ("", said)
    with pytest.raises(InputError, match=rf"t\.jsonl, line 19(, column '\w+')?: .*{problem}") as error:
        frames_of(JsonLines(), [file], BatchSize(bytes=300))
    assert column in str(error.value)
    batches = batches_of(JsonLines(on_bad_record="skip_and_count"), [file], BatchSize(bytes=300))
    assert [number for batch in batches for number in batch.data["n"].to_pylist()] == list(range(30))
    assert sum(batch.skipped for batch in batches) == 1
    assert [each.line for batch in batches for each in batch.bad] == [19]


def test_a_cast_that_fails_is_a_bad_record(tmp_path: Path) -> None:
    file = written(tmp_path / "t.jsonl", *[{"n": str(number)} for number in range(50)], {"n": "x"}, {"n": "51"})
    format = JsonLines(column_types={"n": "int64"}, on_bad_record="skip_and_count")
    (batch,) = batches_of(format, [file])
    assert [str(each) for each in batch.bad] == [f"{file}, line 51, column 'n': \"x\" cannot be read as int64"]
    assert (batch.skipped, batch.data.num_rows) == (1, 51)


def test_a_mixed_column_is_of_its_first_type_and_the_rest_is_bad(tmp_path: Path) -> None:
    records = [{"m": number if number % 2 == 0 else f"t{number}"} for number in range(3000)]
    file = written(tmp_path / "t.jsonl", *records)
    (batch,) = batches_of(JsonLines(on_bad_record="skip_and_count"), [file])
    assert (batch.data.num_rows, batch.skipped, len(batch.bad)) == (1500, 1500, 10)
    assert at_the_user(batch.data).dtypes["m"] == np.dtype("int64")


def test_files_of_which_types_do_not_agree_are_named(tmp_path: Path) -> None:
    one = written(tmp_path / "1.jsonl", {"m": 1, "o": {"x": 1}})
    other = written(tmp_path / "2.jsonl", {"m": "x", "o": {"x": 1.5}}, {"m": "y"})
    problem = f"column 'm' is int64 in {one} and string in {other}"
    with pytest.raises(InputError, match=problem + r"; name its type in column_types \(m: string\)"):
        survey_of(JsonLines(), one, other)
    format = JsonLines(on_bad_record="skip_and_count")
    batches = batches_of(format, [one, other])
    assert [batch.skipped for batch in batches] == [0, 2]
    assert str(batches[1].bad[0]) == f"{other}, line 1, column 'm': \"x\" is not int64, as in {one}"
    assert [doubt.text for doubt in Told.of(survey_of(format, one, other)).doubts] == [
        f"{problem}: records of the latter are left out"
    ]
    for format in (JsonLines(column_types={"m": "string"}), JsonLines(columns=("o",))):
        assert sum(map(len, frames_of(format, [one, other]))) == 3
    written(other, {"m": 1, "o": {"x": "1"}})
    with pytest.raises(
        InputError, match=r"column 'o' is struct<x: int64> in .* and struct<x: string> in .*; name its type .*o: json"
    ):
        survey_of(JsonLines(), one, other)


def test_files_without_any_record_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "t.json", "[", '{"a": 1},', '{"a": 2}', "]")
    with pytest.raises(InputError, match=r"missing\.jsonl"):
        survey_of(JsonLines(), tmp_path / "missing.jsonl")
    written(file, "null", "null")
    with pytest.raises(InputError, match=r"t\.json, line 1: null is not a JSON object"):
        survey_of(JsonLines(), file)
    written(file, "[", "1", "]")
    with pytest.raises(InputError, match=r"t\.json, line 1: it is not JSON .*; expected one object a line"):
        survey_of(JsonLines(), file)


_LEAN = """
import sys
from mpi_prs.inputs.formats.format import BatchSize, LocalFiles
from mpi_prs.inputs.formats.json_lines.reading import JsonLines

store, file = LocalFiles(), sys.argv[1]
format = JsonLines(column_types={"t": "string", "c": "float64"}, on_bad_record="skip_and_count")
survey = format.survey(lambda: iter([file]), store)
reader = format.reader(survey, store)
batches = [reader.read(part) for part in format.split(file, BatchSize(bytes=200), survey, store)]
assert sum(batch.data.num_rows for batch in batches) == 100
assert sum(batch.skipped for batch in batches) == 2
assert "pandas" not in sys.modules
"""


def test_a_worker_needs_no_pandas(tmp_path: Path) -> None:
    record = {"a": 1, "b": True, "t": 5, "c": "1.5", "l": [{"x": 1}]}
    file = written(tmp_path / "t.jsonl", *[record] * 50, "oops", {"a": "oops"}, *[{**record, "b": None}] * 50)
    done = subprocess.run([sys.executable, "-c", _LEAN, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

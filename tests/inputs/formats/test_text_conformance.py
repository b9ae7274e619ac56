"""Text that pandas and pyarrow write, in the variants that people have, comes back as it was: values and types.

Wherever it is cut, and compared with the table itself rather than with what pandas makes of the text: that would lose
the digits of long whole numbers beside missing values.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.delimited.splitting import Delimited
from mpi_prs.inputs.formats.format import BatchSize, TableFormat
from mpi_prs.inputs.formats.json_lines import reading as json_reading
from mpi_prs.inputs.formats.json_lines.reading import JsonArrays, JsonLines
from tests.support.tables import STORE, at_the_user, parts_of

ROWS = 60
SIZES = [BatchSize(bytes=100), BatchSize(bytes=1111), BatchSize(bytes=2**30)]
WORDS = ["plain", "with, comma", 'a "quoted" word', "semi;colon", "tab\tinside", " blanks ", "été", "0123", "it's"]
LATER = 41
"""The row in which what is rare comes for the first time."""


def rarely(value: Any, usual: Callable[[int], Any]) -> list[Any]:
    return [value if row == LATER else usual(row) for row in range(ROWS)]


TABLE = pd.DataFrame(
    {
        "id": pd.array([2**53 + 1 + row for row in range(ROWS)], "int64"),
        "id_or_none": pd.array(rarely(None, lambda row: 2**60 + 1 + row), "Int64"),
        "hash": pd.array([2**64 - 1 - row for row in range(ROWS)], "uint64"),
        "hash_or_none": pd.array(rarely(None, lambda row: 2**64 - 1 - row), "UInt64"),
        "small": pd.array(rarely(-7, lambda row: row), "int64"),
        "flag": pd.array([row % 3 == 0 for row in range(ROWS)], "bool"),
        "flag_or_none": pd.array(rarely(None, lambda row: row % 2 == 0), "boolean"),
        "share": pd.array(rarely(float("nan"), lambda row: row / 8), "float64"),
        "whole_share": pd.array(rarely(0.5, float), "float64"),
        "text": pd.array([WORDS[row % len(WORDS)] for row in range(ROWS)], "str"),
        "text_or_none": pd.array(rarely(None, lambda row: f"t{row}"), "str"),
        "day": pd.array([f"2024-01-{row % 28 + 1:02}" for row in range(ROWS)], "str"),
        "code": pd.array([f"{row:03}x" for row in range(ROWS)], "str"),
    }
)
WITH_LINE_BREAKS = TABLE.assign(text=pd.array([f"line\n{row}, and\r\n" for row in range(ROWS)], "str"))


def by_pandas(**options: Any) -> Callable[[pd.DataFrame, Path], None]:
    return lambda table, path: table.to_csv(path, index=False, **options)


def by_arrow(**options: Any) -> Callable[[pd.DataFrame, Path], None]:
    def write(table: pd.DataFrame, path: Path) -> None:
        pc.write_csv(pa.Table.from_pandas(table, preserve_index=False), path, pc.WriteOptions(**options))

    return write


def retouched(
    write: Callable[[pd.DataFrame, Path], None], change: Callable[[list[str]], list[str]]
) -> Callable[[pd.DataFrame, Path], None]:
    """A file of which the lines are changed."""

    def write_changed(table: pd.DataFrame, path: Path) -> None:
        write(table, path)
        path.write_text("\n".join(change(path.read_text().split("\n"))))

    return write_changed


def commented(lines: list[str]) -> list[str]:
    """Behind records, and alone on a line; with quotes and separators that mean nothing."""
    return [text for line in lines for text in (line + '#a, "note\\' * (line[-1:].isalnum()), '# an "open', "")]


def with_thousands(table: pd.DataFrame, path: Path) -> None:
    numbers = [name for name in table if pd.api.types.is_integer_dtype(table[name])]
    texts = {name: table[name].map("{:,}".format, na_action="ignore") for name in numbers}
    table.assign(**texts).to_csv(path, index=False)


Variant = tuple[Callable[[pd.DataFrame, Path], None], dict[str, Any]]
CSV: dict[str, Variant] = {
    "pandas": (by_pandas(), {}),
    "pandas, all quoted": (by_pandas(quoting=csv.QUOTE_ALL), {}),
    "pandas, text quoted": (by_pandas(quoting=csv.QUOTE_NONNUMERIC), {}),
    "pandas, NA": (by_pandas(na_rep="NA"), {}),
    "pandas, a missing value of its own": (by_pandas(na_rep="-"), {"na_values": ("-",)}),
    "pandas, semicolons and decimal commas": (by_pandas(sep=";", decimal=","), {"separator": ";", "decimal": ","}),
    "pandas, tabs": (by_pandas(sep="\t"), {"separator": "\t"}),
    "pandas, pipes": (by_pandas(sep="|"), {"separator": "|"}),
    "pandas, single quotes": (by_pandas(quotechar="'"), {"quote": "'"}),
    "pandas, CR LF": (by_pandas(lineterminator="\r\n"), {}),
    "pandas, CR": (by_pandas(lineterminator="\r"), {}),
    "pandas, no header": (by_pandas(header=False), {"header": "no_header"}),
    "pandas, exponents": (by_pandas(float_format="%.10e"), {}),
    "pandas, UTF-8 with a mark": (by_pandas(encoding="utf-8-sig"), {}),
    "pandas, UTF-16": (by_pandas(encoding="utf-16"), {"encoding": "utf-16"}),
    "pandas, UTF-32-LE": (by_pandas(encoding="utf-32-le"), {"encoding": "utf-32-le"}),
    "pandas, Latin 1": (by_pandas(encoding="latin-1"), {"encoding": "latin-1"}),
    "pandas, cp1252": (by_pandas(encoding="cp1252"), {"encoding": "cp1252"}),
    "pandas, escaped quotes": (by_pandas(escapechar="\\", doublequote=False), {"escape": "\\"}),
    "pandas, escapes in place of quotes": (
        by_pandas(escapechar="\\", quoting=csv.QUOTE_NONE),
        {"escape": "\\", "quote": ""},
    ),
    "pandas, thousands": (with_thousands, {"thousands": ","}),
    "pandas, comments": (retouched(by_pandas(), commented), {"comment": "#"}),
    "pandas, lines before the header": (
        retouched(by_pandas(), lambda lines: ['a "title', "", *lines]),
        {"skip_rows": 2},
    ),
    "pyarrow": (by_arrow(), {}),
    "pyarrow, as few quotes as needed": (by_arrow(quoting_style="needed"), {}),
    "pyarrow, semicolons": (by_arrow(delimiter=";"), {"separator": ";"}),
}


def json_of(table: pd.DataFrame) -> str:
    """With gaps: keys whose value is missing are left out."""
    columns = {name: table[name].astype(object).where(table[name].notna(), None).tolist() for name in table}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


JSON: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "pandas": lambda table, path: table.to_json(path, orient="records", lines=True),
    "pandas, UTF-8": lambda table, path: table.to_json(path, orient="records", lines=True, force_ascii=False),
    "json, with gaps": lambda table, path: path.write_text(json_of(table), encoding="utf-8"),
    "json, CR LF and a mark": lambda table, path: path.write_bytes(
        b"\xef\xbb\xbf" + json_of(table).replace("\n", "\r\n").encode()
    ),
}


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


JSON_ARRAYS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "pandas": lambda table, path: table.to_json(path, orient="records"),
    "pandas, indented": lambda table, path: table.to_json(path, orient="records", indent=2, force_ascii=False),
    "json, with gaps, and a mark": lambda table, path: path.write_text(
        "\ufeff [" + json_of(table).strip().replace("}\n{", "}\t,\r\n{") + "\n] \n", encoding="utf-8"
    ),
}
CODECS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
    ".xz": lzma.compress,
    ".zip": lambda data: zipped({"__MACOSX/t.csv": b"noise", "folder/": b"", "folder/t.csv": data}),
}


def frames_of(format: TableFormat, files: Sequence[Path], size: BatchSize) -> list[pd.DataFrame]:
    survey, parts = parts_of(format, files, size)
    with closing(format.reader(survey, STORE)) as reader:
        return [at_the_user(reader.read(part).data) for part in parts]


def assert_same(format: TableFormat, files: Sequence[Path], expected: pd.DataFrame) -> None:
    for size in SIZES:
        frames = [frame for frame in frames_of(format, files, size) if len(frame)]
        for frame in frames:
            assert frame.dtypes.map(str).tolist() == expected.dtypes.map(str).tolist()
        together = pd.concat(frames, ignore_index=True)
        pd.testing.assert_frame_equal(together, expected.set_axis(together.columns, axis=1), check_exact=True)


@pytest.mark.parametrize("variant", CSV)
def test_a_csv_comes_back(tmp_path: Path, variant: str) -> None:
    write, options = CSV[variant]
    write(TABLE, tmp_path / "t.csv")
    assert_same(Delimited(**options), [tmp_path / "t.csv"], TABLE)


BREAKS = ["pandas", "pandas, all quoted", "pandas, CR LF", "pandas, UTF-16", "pandas, escaped quotes", "pyarrow"]


@pytest.mark.parametrize("variant", BREAKS)
def test_a_csv_with_line_breaks_comes_back(tmp_path: Path, variant: str) -> None:
    write, options = CSV[variant]
    write(WITH_LINE_BREAKS, tmp_path / "t.csv")
    assert_same(Delimited(**options), [tmp_path / "t.csv"], WITH_LINE_BREAKS)


@pytest.mark.parametrize("variant", JSON)
def test_json_lines_come_back(tmp_path: Path, variant: str) -> None:
    JSON[variant](WITH_LINE_BREAKS, tmp_path / "t.jsonl")
    assert_same(JsonLines(), [tmp_path / "t.jsonl"], WITH_LINE_BREAKS)


@pytest.mark.parametrize("variant", JSON_ARRAYS)
def test_json_arrays_come_back(tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reading, "_CHUNK", 77)
    JSON_ARRAYS[variant](WITH_LINE_BREAKS, tmp_path / "t.json")
    assert_same(JsonArrays(), [tmp_path / "t.json"], WITH_LINE_BREAKS)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_compressed_text_comes_back(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"t{suffix}"
    (by_pandas() if suffix == ".csv" else JSON["json, with gaps"])(TABLE, path)
    packed = tmp_path / f"t{suffix}{codec}"
    packed.write_bytes(CODECS[codec](path.read_bytes()))
    assert_same(Delimited() if suffix == ".csv" else JsonLines(), [packed], TABLE)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.csv": b"a\n1\n", "b.csv": b""}, r"t.csv.zip has 2 files in it \(a.csv, b.csv\), where one is expected"),
        ({"folder/": b""}, "t.csv.zip has 0 files in it, where one is expected"),
    ],
)
def test_a_zip_archive_of_more_than_one_file_is_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    (tmp_path / "t.csv.zip").write_bytes(zipped(members))
    with pytest.raises(InputError, match=message):
        frames_of(Delimited(), [tmp_path / "t.csv.zip"], SIZES[0])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_types_are_those_of_all_files_together(tmp_path: Path, suffix: str) -> None:
    """In most of the files no value is missing, in one all of a column are."""
    table = TABLE.assign(id_or_none=TABLE["id_or_none"].mask(TABLE.index // 10 == 1))
    files = []
    for number in range(6):
        files.append(tmp_path / f"{number}{suffix}")
        write = by_pandas() if suffix == ".csv" else JSON["pandas"]
        write(table.iloc[10 * number : 10 * number + 10], files[-1])
    assert_same(Delimited() if suffix == ".csv" else JsonLines(), files, table)

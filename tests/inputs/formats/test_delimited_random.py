"""Delimited text: whatever the table and however it is written, all mini-batches together are what pandas reads."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.delimited import survey as delimited_survey
from mpi_prs.inputs.formats.delimited.splitting import Delimited
from mpi_prs.inputs.formats.format import BatchSize
from tests.support.tables import STORE, at_the_user, parts_of

EXACT = {} if pd.__version__ >= "3.1" else {"float_precision": "round_trip"}


def frames_of(format: Delimited, files: Sequence[Path], size: BatchSize) -> list[pd.DataFrame]:
    """The DataFrames of all mini-batches, in order; read backwards, because the order must not matter."""
    survey, parts = parts_of(format, files, size)
    with closing(format.reader(survey, STORE)) as reader:
        return [at_the_user(reader.read(part).data) for part in reversed(parts)][::-1]


def by_pandas(text: str, **options: Any) -> pd.DataFrame:
    """The whole, read by pandas; where values are missing, whole numbers and booleans with its types for that."""
    options = {"index_col": False, "low_memory": False, **EXACT, **options}
    frame: pd.DataFrame = pd.read_csv(io.StringIO(text, newline=""), **options)
    thousands = options.get("thousands") or ""
    texts = pd.read_csv(io.StringIO(text, newline=""), dtype=str, **options)
    for name in frame:
        written = texts[name].str.replace(rf"(?<=[0-9]){re.escape(thousands)}", "", regex=True)
        if (dtype := nullable_type(frame[name], written)) == "boolean":
            frame[name] = pd.array(written.map(lambda text: text.lower() == "true", na_action="ignore"), dtype)
        elif dtype is not None:
            frame[name] = pd.array([None if pd.isna(text) else int(text) for text in written], dtype)
    return frame


def nullable_type(column: pd.Series, texts: pd.Series) -> str | None:
    """The type with missing values that a column should have, of which pandas has made floats or objects."""
    written = texts.dropna()
    if not texts.hasnans or not len(written):
        return None
    if column.dropna().map(type).eq(bool).all():
        return "boolean"
    if not written.str.fullmatch(r"\s*[+-]?[0-9]+\s*").all():
        return None
    most = max(map(int, written))
    if most < 2**63:
        return "Int64"
    return None if most >= 2**64 or written.str.contains("-").any() else "UInt64"


def same(frames: Sequence[pd.DataFrame], whole: pd.DataFrame, exact: bool = True) -> None:
    """All mini-batches together are the whole: values, types, names."""
    together = pd.concat(frames, ignore_index=True)
    pd.testing.assert_frame_equal(together, whole, **({"check_exact": True} if exact else {"rtol": 1e-14}))
    for frame in filter(len, frames):  # one without rows may say bool where the others say object
        assert frame.dtypes.to_dict() == whole.dtypes.to_dict()


# Random text

INTEGERS = ["0", "1", "-1", "007", "+1", " 1", "1 ", "-0", "123456789", "9223372036854775807", "-9223372036854775808"]
FLOATS = ["1.5", ".5", "5.", "-1e5", "1E+5", "1e400", "1e-400", "inf", "-Infinity", "+.5", " 2.5", "0.1", "1e22"]
FLOATS += ["179769313486231570000.5", "4.9e-324", "2.2250738585072011e-308"]
if pd.__version__ < "3":  # pandas 2 takes these for text, the last one when values are missing
    FLOATS.remove("1e400")
    FLOATS.remove("179769313486231570000.5")
    INTEGERS.remove("-9223372036854775808")
TRUTHS = ["True", "TRUE", "true", "False", "FALSE", "false"]
GONE = ["", "NA", "nan", "NaN", "null", "None", "#N/A", "-nan"]
WORDS = [
    "x",
    " x ",
    "0x1F",
    "NAN",
    "nan(1)",
    " NA",
    "True ",
    "1,5",
    "1_000",
    "x;y",
    "a|b",
    "a\tb",
    "é",
    "--",
    "e5",
    "1e",
    "#",
]
BROKEN = ["x\ny", "\n", "x\r\ny", '"\n,"', '\n"']
QUOTED = ['"', '""', 'x"y', '"x', 'x"', '","', "'", ',"']
KINDS = [
    INTEGERS,
    INTEGERS + GONE,
    FLOATS,
    INTEGERS + FLOATS + GONE,
    TRUTHS,
    TRUTHS + GONE,
    GONE,
    WORDS + GONE,
    WORDS + INTEGERS + TRUTHS,
    [*INTEGERS, "18446744073709551615"],
    ["0", "18446744073709551615", "9223372036854775808"],
    ["0", "18446744073709551615", *GONE],
]
ENCODINGS = {
    "utf-8": "utf-8",
    "utf-8 with a mark": "utf-8-sig",
    "utf-16": "utf-16",
    "utf-16-be": "utf-16-be",
    "utf-32": "utf-32",
    "latin-1": "latin-1",
    "cp1252": "cp1252",
}


@st.composite
def written(draw: st.DrawFn) -> tuple[list[str], list[list[list[str]]], dict[str, Any], dict[str, Any]]:
    """Names of columns, rows of each file as written fields, options of Delimited, and how to write it."""
    multi_line = draw(st.booleans())
    quote = draw(st.sampled_from(['"', "'", ""])) if not multi_line else draw(st.sampled_from(['"', "'"]))
    separator = draw(st.sampled_from([",", ";", "\t", "|", " "]))
    escape = draw(st.sampled_from(["", "", "\\", "!"]))
    comment = draw(st.sampled_from(["", "", "#", "%"]))
    special = {separator, quote, escape, comment, "\n", "\r"} - {""}
    width = draw(st.integers(1, 4))
    names = draw(st.lists(st.sampled_from(["a", "b", "c d", "é", "1"]), min_size=width, max_size=width, unique=True))
    columns = []
    rows = draw(st.integers(0, 12))
    for _ in range(width):
        pool = draw(st.sampled_from([*KINDS, QUOTED + WORDS, *([WORDS + BROKEN] if multi_line else [])]))
        columns.append(draw(st.lists(st.sampled_from(pool), min_size=rows, max_size=rows)))
    always = draw(st.booleans())
    escaped = bool(escape) and draw(st.booleans())

    def field(text: str) -> str:
        if escaped and (text.strip(" \t") or width > 1):
            return "".join(escape + character if character in special else character for character in text)
        if not quote:
            return "".join(character for character in text if character not in special)
        blank_alone = width == 1 and not text.strip(" \t")
        if always or blank_alone or special & set(text):
            text = text.replace(escape, escape * 2) if escape else text
            return quote + text.replace(quote, quote * 2) + quote
        return text

    table = [[field(text) for text in row] for row in zip(*columns, strict=True)]
    if not quote and width == 1:
        table = [row for row in table if row[0].strip(" \t")]
    cuts = sorted(draw(st.lists(st.integers(0, len(table)), max_size=2)))
    files = [table[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(table)], strict=True)]
    options = {
        "separator": separator,
        "quote": quote,
        "escape": escape,
        "comment": comment,
        "skip_rows": draw(st.sampled_from([0, 0, 1, 3])),
        "support_multi_line": multi_line,
        "encoding": draw(st.sampled_from(list(ENCODINGS))),
        "header": draw(st.sampled_from(["all_files_have_same_headers", "only_first_file_has_headers", "no_header"])),
    }
    names = [field(name) for name in names]
    how = {
        "breaks": draw(st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n", "\r"]])),
        "blank": draw(st.booleans()),
        "short": draw(st.booleans()),
        "trailing": draw(st.booleans()),
        "comment": comment,
        "remarks": ["", " note", f"{separator}{quote}", f" it's {quote}x{escape}", escape],
        "random": draw(st.randoms(use_true_random=False)),
    }
    return names, files, options, how


def text_of(records: Sequence[Sequence[str]], separator: str, how: dict[str, Any], blanks: str) -> str:
    pieces = []
    random = how["random"]
    comment = how["comment"]
    for number, record in enumerate(records):
        fields = list(record)
        while how["short"] and number and len(fields) > 1 and not fields[-1] and any(map(str.strip, fields[:-1])):
            fields.pop()
        pieces.append(separator.join(fields))
        if comment and not pieces[-1].endswith(("'", '"')) and random.random() < 0.3:
            pieces.append(comment + random.choice(how["remarks"]))
        pieces.append(random.choice(how["breaks"]))
        while how["blank"] and random.random() < 0.2:
            remark = [comment + random.choice(how["remarks"])] if comment else []
            pieces.append(random.choice(["", *blanks, *remark]) + random.choice(how["breaks"]))
    if pieces and not how["trailing"]:
        while pieces and not pieces[-1].strip("\r\n" + blanks):
            pieces.pop()
    return "".join(pieces)


@settings(max_examples=150)
@given(
    table=written(),
    size=st.one_of(
        st.integers(1, 80).map(lambda n: BatchSize(bytes=n)), st.integers(1, 9).map(lambda n: BatchSize(rows=n))
    ),
)
def test_all_mini_batches_together_are_what_pandas_reads(table: Any, size: BatchSize) -> None:
    names, files, options, how = table
    separator, header = options["separator"], options["header"]
    blanks = " " if separator != " " else "\t"
    encoding = ENCODINGS[options["encoding"]]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, rows in enumerate(files):
            headed = header == "all_files_have_same_headers" or (number == 0 and header != "no_header")
            text = text_of([names] * headed + rows, separator, how, blanks)
            skipped = ["a title", "", "# and 'a \"quote"][: options["skip_rows"]]
            text = "".join(line + how["breaks"][0] for line in skipped) + text
            path = Path(folder, f"{number}.csv")
            path.write_bytes(text.encode(encoding) if text else b"")
            paths.append(path)
        options = {**options, "encoding": encoding, "fill_missing_fields": how["short"]}
        frames = frames_of(Delimited(**options), paths, size)
    rows = [row for file in files for row in file]
    assert sum(map(len, frames)) == len(rows)
    if not rows:
        return
    how = {"breaks": ["\n"], "blank": False, "short": False, "trailing": True, "comment": "", "random": how["random"]}
    head = {"header": None, "names": [f"Column{n}" for n in range(1, len(names) + 1)]} if header == "no_header" else {}
    quoting = {"quotechar": options["quote"]} if options["quote"] else {"quoting": 3}
    text = text_of([names] * (not head) + rows, separator, how, blanks)
    others = {"escapechar": options["escape"] or None, "comment": options["comment"] or None}
    same(frames, by_pandas(text, sep=separator, **head, **quoting, **others))


NUMBERLIKE = st.one_of(
    st.text("019+-.,_eExX infaNT", max_size=6),
    st.floats().map(repr),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.sampled_from(INTEGERS + FLOATS + TRUTHS + GONE + WORDS[:3]),
)


@pytest.mark.skipif(pd.__version__ < "3", reason="pandas 2 takes 1e400 for text")
@settings(max_examples=100)
@given(st.lists(NUMBERLIKE, min_size=1, max_size=6), st.sampled_from([".", ".,", "._", ",", ",."]), st.integers(1, 30))
def test_what_looks_nearly_like_a_number_is_taken_as_pandas_takes_it(texts: list[str], style: str, size: int) -> None:
    """Every text in a column of its own, and all of them in one."""
    decimal, thousands = style[0], style[1:]
    if decimal == ",":
        texts = [text.translate({ord("."): ",", ord(","): "."}) for text in texts]
    if thousands:  # pandas takes many in a row, in whole numbers
        texts = [re.sub(re.escape(thousands) + "+", thousands, text) for text in texts]
    rows = [[*texts, text] for text in texts]
    names = [f"c{number}" for number in range(len(texts) + 1)]
    text = "\n".join(";".join(row) for row in [names, *rows]) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "numbers.csv")
        path.write_text(text)
        format = Delimited(separator=";", decimal=decimal, thousands=thousands)
        frames = frames_of(format, [path], BatchSize(bytes=size))
    whole = by_pandas(text, sep=";", decimal=decimal, thousands=thousands or None)
    same(frames, whole, exact=not thousands)  # the last digit is wrong in pandas' own way with thousands


@st.composite
def tables_with_different_columns(draw: st.DrawFn) -> tuple[list[str], list[tuple[list[str], list[list[str]]]]]:
    """All columns, and of each file the names of its columns and its rows."""
    pools = dict(zip("abcde", draw(st.lists(st.sampled_from(KINDS[:8]), min_size=5, max_size=5)), strict=True))
    files = []
    for _ in range(draw(st.integers(1, 3))):
        names = draw(st.lists(st.sampled_from("abcde"), min_size=2, max_size=4, unique=True))
        count = draw(st.integers(0, 4))
        columns = [
            [
                text.replace(",", "")
                for text in draw(st.lists(st.sampled_from(pools[name]), min_size=count, max_size=count))
            ]
            for name in names
        ]
        files.append((names, [list(row) for row in zip(*columns, strict=True)]))
    return list(dict.fromkeys(name for names, _ in files for name in names)), files


@settings(max_examples=50)
@given(tables_with_different_columns(), st.integers(1, 60))
def test_files_with_different_columns_are_combined(table: Any, size: int) -> None:
    names, files = table
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (own, rows) in enumerate(files):
            paths.append(Path(folder, f"{number}.csv"))
            paths[-1].write_text("\n".join(",".join(row) for row in [own, *rows]))
        frames = frames_of(Delimited(header="combine_all_files_headers"), paths, BatchSize(bytes=size))
    whole = [dict(zip(own, row, strict=True)) for own, rows in files for row in rows]
    if whole:
        head = {name: name for name in names}
        text = "\n".join(",".join(row.get(name, "") for name in names) for row in [head, *whole])
        same(frames, by_pandas(text))


PIECES = ["x", "a,b", 'say ""hi""', "\n", "7,z\n", "\n8,w\n", "5", "\n\n", "\r\n", '""']


@settings(max_examples=60)
@given(
    values=st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join), min_size=1, max_size=3),
    quoted=st.booleans(),
    size=st.sampled_from([20, 60, 150, 400, 10**6]),
)
def test_pieces_of_values_with_line_breaks_are_never_rows(values: list[str], quoted: bool, size: int) -> None:
    """The sample is the beginning and the end, and the values are in the middle."""
    usual = ["1,v"] * 40 + ['2,"v, w"' if quoted else "3,v"]
    lines = usual + [line for value in values for line in [f'9,"{value}"', *usual]] + usual
    types = {"a": "string", "b": "string"}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited_survey, "SAMPLE_BYTES", 200)
        patch.setattr(delimited_survey, "_PIECE_BYTES", 100)
        path = Path(folder, "t.csv")
        path.write_bytes(("a,b\n" + "\n".join(lines) + "\n").encode())
        with_breaks = frames_of(Delimited(support_multi_line=True, column_types=types), [path], BatchSize(bytes=10**6))
        records = set(pd.concat(with_breaks).itertuples(index=False, name=None))
        format = Delimited(on_bad_record="skip_and_count", column_types=types)
        survey, parts = parts_of(format, [path], BatchSize(bytes=size))
        with closing(format.reader(survey, STORE)) as reader:
            for part in parts:
                with suppress(InputError):
                    rows = at_the_user(reader.read(part).data).itertuples(index=False, name=None)
                    assert {tuple(map(str, row)) for row in rows} <= {tuple(map(str, row)) for row in records}

"""MLTable files: what becomes of their paths and transformations, and the rows that come of it."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pandas as pd
import pytest

from mpi_prs.azureml.v2.mltable import read_mltable, section_of
from mpi_prs.azureml.v2.nodes import YamlFile, YamlNode
from mpi_prs.azureml.v2.resolving import LocatedData
from mpi_prs.core.errors import ConfigError
from mpi_prs.core.yaml import Document
from mpi_prs.inputs.datasets import InputTable
from mpi_prs.inputs.reading import read_tables
from mpi_prs.job.config.inputs import InputSection
from mpi_prs.storage.credentials import Storage
from tests.support.azurite import Azurite


def mltable(folder: Path, text: str) -> YamlNode:
    """The root of an MLTable file with this text, in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "MLTable").write_text(dedent(text))
    return read_mltable(str(folder), Storage(), YamlNode(None, _nowhere(folder)))


def _nowhere(folder: Path) -> YamlFile:
    return YamlFile("pipeline.yml", str(folder), Document({}, {}))


def remote(text: str, _node: YamlNode) -> LocatedData:
    return LocatedData(text.replace("azureml://datastores/store/paths", "abfs://container"), {"account_name": "ours"})


def section(folder: Path, text: str) -> dict[str, Any]:
    return section_of(mltable(folder, text), remote, "mount")


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        section(folder, text)
    message = str(refused.value)
    assert message.startswith(f"{folder}/MLTable")
    assert "\n" not in message
    return message.removeprefix(f"{folder}/MLTable, ")


def rows(found: dict[str, Any]) -> pd.DataFrame:
    dataset = InputSection.model_validate(found).to_dataset(Storage())
    assert isinstance(dataset, InputTable)
    return pd.concat([piece.to_pandas() for piece in read_tables(dataset)], ignore_index=True)


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """Two stores with two brands each, two weeks a file."""
    for store in (1000, 1001):
        for brand in ("dominicks", "tropicana"):
            folder = tmp_path / "sales" / str(store) / brand
            folder.mkdir(parents=True)
            (folder / "data.csv").write_text(f"Week,Sold,Note\n1990-06-14,{store},\n1990-06-21,7,x\n")
    return tmp_path / "sales"


# Paths


def test_the_minimum_names_files_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    found = section(tmp_path, "paths: [{file: ./images}]")
    assert found == {"files": [tmp_path / "images"], "mode": "mount"}
    assert section(tmp_path, "paths:\n- ./images\n")["files"] == [tmp_path / "images"]
    assert section(tmp_path, "paths: [{folder: ./images}]\ntransformations: []") == found


def test_a_pattern_starts_at_the_file_whatever_its_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "$HOME[1]"
    found = section(folder, "paths: [{pattern: './**/*.csv'}]\ntransformations: [read_delimited]")
    (folder / "a").mkdir()
    (folder / "a" / "t.csv").write_text("n\n5\n")
    assert rows(found)["n"].tolist() == [5]


def test_a_folder_with_the_mltable_in_it_is_taken_without_it(sales: Path) -> None:
    found = section(sales, "paths: [{folder: .}]\ntransformations: [read_delimited]")
    assert found["table"] == [sales / "1000", sales / "1001"]
    assert len(rows(found)) == 8


def test_places_elsewhere_bring_their_storage(tmp_path: Path) -> None:
    text = "paths: [{pattern: 'azureml://datastores/store/paths/t/*.parquet'}]\ntransformations: [read_parquet]"
    assert section(tmp_path, text) == {
        "table": ["abfs://container/t/*.parquet"],
        "format": "parquet",
        "storage": {"account_name": "ours"},
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("path: [./a]", "line 1: path: unknown key; did you mean 'paths'?"),
        ("type: mltable", "paths is missing; add it, such as `paths: [{pattern: ./*.csv}]`"),
        ("paths: []", "line 1: paths: there is nothing in it; name at least one file, folder or pattern"),
        (
            "paths:\n- {file: a, pattern: b}",
            "line 2: paths.0: got file and pattern; expected one of file, folder and pattern",
        ),
        ("paths:\n- {files: a}", "line 2: paths.0.files: unknown key; did you mean 'file'?"),
        ("paths: {file: a}", "line 1: paths: got a mapping; expected a list, such as `- value`"),
        (
            "paths:\n- file: ./here\n- file: azureml://datastores/store/paths/there",
            "line 1: paths: the paths are in two stores; make an MLTable of each",
        ),
    ],
)
def test_bad_paths(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "here").touch()
    message = refusal(tmp_path, text)
    assert message.removeprefix(f"{tmp_path}/MLTable: ") == problem


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, "paths:\n- file: ./iris.csv") == (
        f"line 2: paths.0.file: there is no {tmp_path / 'iris.csv'}"
    )
    with pytest.raises(ConfigError, match=r"there is no file .*; an input of type mltable is a folder with an MLTable"):
        read_mltable(str(tmp_path / "nowhere"), Storage(), YamlNode(None, _nowhere(tmp_path)))


# Reading


def test_delimited_text_with_all_that_can_be_said(tmp_path: Path) -> None:
    text = """
        $schema: https://azuremlschemas.azureedge.net/latest/MLTable.schema.json
        type: mltable
        paths:
          - pattern: ./*.txt
        transformations:
          - read_delimited:
              delimiter: ";"
              encoding: latin1
              header: from_first_file
              support_multi_line: true
              empty_as_string: true
              infer_column_types: false
              include_path_column: true
          - convert_column_types:
              - columns: n
                column_type: int
              - columns: [day]
                column_type:
                  datetime:
                    formats: ["%d/%m/%Y"]
    """
    found = section(tmp_path, text)
    (tmp_path / "a.txt").write_bytes('n;code;day;text\n1;007;14/06/1990;"Stra\xdfe\n1"\n'.encode("latin-1"))
    (tmp_path / "b.txt").write_text("2;;15/06/1990;NA\n")
    expected = pd.DataFrame(
        {
            "n": [1, 2],
            "code": ["007", ""],
            "day": pd.to_datetime(["1990-06-14", "1990-06-15"]).astype("datetime64[us]"),
            "text": ["Straße\n1", "NA"],
            "Path": [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")],
        }
    )
    pd.testing.assert_frame_equal(rows(found), expected)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("all_files_same_headers", ["a", "b"]),
        ("no_header", ["Column1", "Column2"]),
        ("all_files_different_headers", ["a", "b"]),
    ],
)
def test_headers(tmp_path: Path, header: str, columns: list[str]) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    text = f"paths: [{{file: t.csv}}]\ntransformations: [{{read_delimited: {{header: {header}}}}}]"
    assert list(rows(section(tmp_path, text))) == columns


def test_other_formats(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    table.to_parquet(tmp_path / "t.parquet")
    found = section(tmp_path, "paths: [{file: t.parquet}]\ntransformations: [{read_parquet: {}}]")
    pd.testing.assert_frame_equal(rows(found), table)
    (tmp_path / "t.jsonl").write_text('{"a": 1, "b": "x"}\nnonsense\n{"a": 2, "b": "y"}\n')
    text = "paths: [{file: t.jsonl}]\ntransformations: [{read_json_lines: {invalid_lines: drop, encoding: utf8}}]"
    pd.testing.assert_frame_equal(rows(section(tmp_path, text)), table)


# Columns


def test_keys_of_the_path_become_columns_and_some_are_dropped_again(sales: Path) -> None:
    text = """
        paths: [{pattern: "./**/*.csv"}]
        transformations:
          - read_delimited: {delimiter: ",", encoding: ascii, include_path_column: true, empty_as_string: false}
          - extract_columns_from_partition_format:
              partition_format: "{Store}/{Brand}/{file_name}.{extension}"
          - drop_columns: [Path, file_name, extension]
    """
    frame = rows(section(sales, text))
    assert list(frame) == ["Week", "Sold", "Note", "Store", "Brand"]
    assert frame["Store"].tolist() == ["1000"] * 4 + ["1001"] * 4
    assert pd.isna(frame["Note"][0])


@pytest.mark.parametrize(
    ("written", "format"),
    [
        ('"{Store}/{Brand}/{name}.csv"', "{Store}/{Brand}/{name}.csv"),
        ("{day:yyyy/MM/dd}", "{day:yyyy/MM/dd}/*"),  # a mapping to YAML; Azure's documentation writes it so
        ("{partition_format: '/{Store}/{Brand}', path_column: Path, ignore_error: false}", "/{Store}/{Brand}/*"),
        ("'/puYear={year}/puMonth={month}'", "/puYear={year}/puMonth={month}/*"),
    ],
)
def test_a_partition_format_may_end_at_a_folder(tmp_path: Path, written: str, format: str) -> None:
    text = f"paths: [{{pattern: '**/*.csv'}}]\ntransformations: [extract_columns_from_partition_format: {written}]"
    assert section(tmp_path, text)["partition_format"] == format


def test_a_format_of_folders_reads_the_rows(sales: Path) -> None:
    text = """
        paths: [{pattern: "./**/*.csv"}]
        transformations: [read_delimited, extract_columns_from_partition_format: "{Store}/{Brand}"]
    """
    assert set(rows(section(sales, text))["Brand"]) == {"dominicks", "tropicana"}


@pytest.mark.parametrize(
    ("transformations", "columns"),
    [
        ("[drop_columns: Note]", ["Week", "Sold", "Path"]),
        ("[drop_columns: [Note], drop_columns: [Path, Week]]", ["Sold"]),
        ("[keep_columns: [Sold, Week]]", ["Sold", "Week"]),
        ("[keep_columns: [Sold, Path]]", ["Sold", "Path"]),
        ("[keep_columns: [Sold, Week], drop_columns: Sold]", ["Week"]),
        ("[keep_columns: [Sold, Week], keep_columns: [Week, Note]]", ["Week"]),
        ("[keep_columns: Sold, extract_columns_from_partition_format: '{Store}/{B}']", ["Sold", "Store", "B"]),
        ("[extract_columns_from_partition_format: '{Store}/{B}', keep_columns: [Sold, B]]", ["Sold", "B"]),
        ("[extract_columns_from_partition_format: '{Store}/{B}', drop_columns: [Store, Path]]", None),
    ],
)
def test_columns_are_kept_and_dropped_in_order(sales: Path, transformations: str, columns: list[str] | None) -> None:
    first = "read_delimited: {include_path_column: true}"
    listed = "\n".join(f"- {each}" for each in [first, *_each(transformations)])
    found = section(sales, f"paths:\n- pattern: ./**/*.csv\ntransformations:\n{listed}\n")
    assert list(rows(found)) == (columns or ["Week", "Sold", "Note", "B"])


def _each(flow: str) -> list[str]:
    return re.split(r", (?=keep|drop|extract)", flow[1:-1])


# What is not done


@pytest.mark.parametrize(
    ("transformation", "problem"),
    [
        ("take: 5", "take: mpi-prs does not do take; --limit N of mpi-prs run tries the first mini-batches"),
        ("filter: col('a') > 1", "filter: mpi-prs does not do filter; leave the rows out in run(), with"),
        ("skip: 5", "skip: mpi-prs does not do skip; write the rows that you want to files once"),
        ("take_random_sample: {probability: 0.1}", "take_random_sample: mpi-prs does not do take_random_sample; write"),
        ("read_delta_lake: {version_as_of: 1}", "read_delta_lake: mpi-prs does not do read_delta_lake; write the rows"),
        ("drop_colums: [a]", "drop_colums: there is no transformation 'drop_colums'; did you mean 'drop_columns'"),
        ("read_parquet", "a table is read once; remove one of the read_… transformations"),
        ("read_parquet: {}", "read_parquet: a table is read once; remove one of the read_… transformations"),
        ("{drop_columns: a, keep_columns: b}", "expected one transformation in each entry of the list"),
        ("convert_column_types: [{columns: a}]", "convert_column_types.0: expected the keys columns and column_type"),
        ("convert_column_types: [{columns: a, column_type: money}]", "column_type: got 'money'; expected one of int"),
        (
            "convert_column_types: [{columns: a, column_type: {boolean: {true_values: ['yes']}}}]",
            "boolean: truth values are true and false here; convert other words in run()",
        ),
        (
            "convert_column_types: [{columns: a, column_type: {datetime: {formats: ['%d', '%m']}}}]",
            "expected one format of dates",
        ),
        ("extract_columns_from_partition_format: 'a/b.csv'", "partition_format 'a/b.csv' has no keys"),
        (
            "extract_columns_from_partition_format: {partition_format: '{a}', ignore_error: true}",
            "mpi-prs takes no file whose path does not match",
        ),
        ("keep_columns: []", "keep_columns leaves no column of the files; keep at least one of them"),
    ],
)
def test_what_is_refused_says_what_to_do(tmp_path: Path, transformation: str, problem: str) -> None:
    text = f"paths: [{{pattern: '*.csv'}}]\ntransformations:\n- read_delimited\n- {transformation}\n"
    assert problem in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("{delimeter: ';'}", "read_delimited.delimeter: unknown key; did you mean 'delimiter'?"),
        ("{delimiter: ', '}", """read_delimited.delimiter: got ', '; expected one ASCII character, such as "," or"""),
        ("{header: 1}", "read_delimited.header: got '1'; expected one of all_files_same_headers, from_first_file"),
        ("{encoding: ebcdic}", "read_delimited.encoding: got 'ebcdic'; expected one of utf8"),
        ("{support_multi_line: maybe}", "got 'maybe'; expected one of true, false"),
        ("{infer_column_types: {sample_size: 5}}", "expected true or false; name the types of columns with"),
    ],
)
def test_bad_options_of_a_format(tmp_path: Path, options: str, problem: str) -> None:
    text = f"paths: [{{pattern: '*.csv'}}]\ntransformations: [read_delimited: {options}]\n"
    assert problem in refusal(tmp_path, text)


def test_columns_belong_to_tables(tmp_path: Path) -> None:
    text = "paths: [{pattern: '*.png'}]\ntransformations: [drop_columns: [a]]"
    assert "drop_columns is of tables; put a transformation such as read_delimited before it" in refusal(tmp_path, text)


def test_an_mltable_in_a_store_reads_what_is_beside_it(azurite: Azurite) -> None:
    text = b"paths:\n- pattern: ./*/*.csv\ntransformations:\n- read_delimited\n"
    blobs = {f"t/{n}/data.csv": f"n\n{n}\n".encode() for n in range(3)}
    azurite.container("mltable", {"t/MLTable": text, **blobs})
    storage = {"connection_string": azurite.connection_string()}
    for location in ("abfs://mltable/t", "abfs://mltable/t/MLTable"):
        root = read_mltable(location, azurite.storage(), YamlNode(None, _nowhere(Path())))
        found = section_of(root, remote, "mount", storage)
        assert found["table"] == ["abfs://mltable/t/*/*.csv"]
    assert sorted(rows(found)["n"]) == [0, 1, 2]


def test_an_mltable_in_a_store_is_named_by_its_url(azurite: Azurite) -> None:
    azurite.container("broken", {"MLTable": b"paths: [", "t/MLTable": b"pats: []"})
    nowhere = YamlNode(None, _nowhere(Path()))
    with pytest.raises(ConfigError, match=r"^abfs://broken/MLTable, line 1, column 9: not valid YAML"):
        read_mltable("abfs://broken", azurite.storage(), nowhere)
    with pytest.raises(ConfigError, match=r"^abfs://broken/t/MLTable, line 1: pats: unknown key"):
        section_of(read_mltable("abfs://broken/t", azurite.storage(), nowhere), remote, "mount")
    with pytest.raises(ConfigError, match=r"pipeline.yml: the MLTable file cannot be read: .*abfs://broken/u/MLTable"):
        read_mltable("abfs://broken/u", azurite.storage(), nowhere)

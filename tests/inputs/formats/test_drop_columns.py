"""Columns that are left out of a table, whatever its format: of the files, of partition keys, of the path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.datasets import HIVE, InputTable
from mpi_prs.inputs.decoding import Decoder
from mpi_prs.inputs.manifest import Manifest, write_manifest
from mpi_prs.inputs.payload import unpack
from mpi_prs.inputs.planning import plan
from mpi_prs.inputs.reading import read_tables, write_partitioned
from tests.inputs.test_table_jobs import WRITERS

TABLE = pd.DataFrame({"number": np.arange(30), "half": np.arange(30) / 2, "text": [f"t{n % 3}" for n in range(30)]})
MAKERS = {
    "csv": InputTable.from_delimited_files,
    "parquet": InputTable.from_parquet_files,
    "jsonl": InputTable.from_json_lines_files,
    "h5": InputTable.from_hdf5_files,
}


def read(dataset: InputTable) -> pd.DataFrame:
    return pd.concat([piece.to_pandas() for piece in read_tables(dataset)], ignore_index=True)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def refusal(dataset: InputTable) -> str:
    with pytest.raises(InputError) as refused:
        read(dataset)
    return str(refused.value)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_column_is_left_out_of_every_format(tmp_path: Path, suffix: str) -> None:
    for number in range(2):
        WRITERS[suffix](tmp_path / f"{number}.{suffix}", TABLE.iloc[15 * number : 15 * number + 15])
    dataset = MAKERS[suffix](f"{tmp_path}/*.{suffix}", drop_columns=["half"])
    same(read(dataset).reset_index(drop=True), TABLE[["number", "text"]])


@pytest.mark.parametrize("suffix", WRITERS)
def test_of_selected_columns_one_is_left_out(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"t.{suffix}", TABLE)
    dataset = MAKERS[suffix](str(tmp_path / f"t.{suffix}"), columns=("text", "half"), drop_columns=["half"])
    same(read(dataset).reset_index(drop=True), TABLE[["text"]])


def test_arrays_are_left_out_too(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.zeros((4, 2, 2))
        file["label"] = np.arange(4)
    dataset = InputTable.from_hdf5_files(str(tmp_path / "a.h5"), drop_columns=["label"])
    path = tmp_path / "manifest.arrow"
    write_manifest(path, plan([dataset], dataset_size()))
    assert Manifest.open(path).inputs[0]["survey"]["columns"] == ["image"]


def dataset_size() -> Any:
    from mpi_prs.inputs.formats.format import BatchSize

    return BatchSize(rows=100)


def test_an_index_that_pandas_keeps_in_parquet_is_left_out(tmp_path: Path) -> None:
    TABLE.set_index("text").to_parquet(tmp_path / "t.parquet")
    dataset = InputTable.from_parquet_files(str(tmp_path / "t.parquet"), drop_columns=["text"])
    same(read(dataset), TABLE[["number", "half"]])


def test_categories_of_the_others_stay(tmp_path: Path) -> None:
    table = TABLE.assign(text=TABLE["text"].astype("category"), kind=pd.Categorical(["a", "b", "a"] * 10))
    table.to_parquet(tmp_path / "t.parquet")
    dataset = InputTable.from_parquet_files(str(tmp_path / "t.parquet"), drop_columns=["text"])
    pd.testing.assert_frame_equal(read(dataset), table[["number", "half", "kind"]])


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    """``1000/tropicana/data.csv`` and the like, two rows each."""
    for store in ("1000", "1001"):
        for brand in ("dominicks", "tropicana"):
            folder = tmp_path / "sales" / store / brand
            folder.mkdir(parents=True)
            (folder / "data.csv").write_text(f"week,sold\n1,{store}\n2,7\n")
    return tmp_path / "sales"


FORMAT = "{Store}/{Brand}/{file_name}.{extension}"


def test_partition_keys_and_the_path_are_left_out_and_are_keys_still(stores: Path, tmp_path: Path) -> None:
    dataset = InputTable.from_delimited_files(
        f"{stores}/**/*.csv",
        partition_format=FORMAT,
        path_column="Path",
        drop_columns=["Path", "file_name", "extension", "Store"],
    )
    assert list(read(dataset).columns) == ["week", "sold", "Brand"]
    path = tmp_path / "manifest.arrow"
    write_manifest(path, plan([dataset], None, ["Store"]))
    manifest = Manifest.open(path)
    assert [unpack(manifest.payload(number))[0]["partition"] for number in range(2)] == [
        [["Store", "1000"]],
        [["Store", "1001"]],
    ]
    decoder = Decoder(manifest, [dataset.storage])
    frame = decoder.table(0).to_pandas()
    decoder.leave()
    assert frame["Brand"].tolist() == ["dominicks"] * 2 + ["tropicana"] * 2


def test_partition_keys_of_folders_are_left_out(tmp_path: Path) -> None:
    whole = InputTable.from_delimited_files(str(write(tmp_path)))
    parts = write_partitioned(whole, ["text"], tmp_path / "parts")
    dataset = InputTable.from_parquet_files(
        str(tmp_path / "parts"), partition_format=HIVE, drop_columns=["text", "half"]
    )
    assert sorted(read(dataset)["number"]) == list(range(30))
    assert list(read(dataset).columns) == ["number"]
    assert list(read(parts).columns) == ["number", "half", "text"]


def write(folder: Path) -> Path:
    TABLE.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def test_an_unknown_column_is_named_with_those_that_there_are(stores: Path) -> None:
    dataset = InputTable.from_delimited_files(
        f"{stores}/**/*.csv", partition_format=FORMAT, path_column="Path", drop_columns=["sold", "Shop"]
    )
    known = "'week', 'sold', 'Store', 'Brand', 'file_name', 'extension', 'Path'"
    assert refusal(dataset) == f"drop_columns: 'Shop' not found in {stores}/**/*.csv; its columns are {known}"


def test_one_column_must_be_left(tmp_path: Path) -> None:
    path = write(tmp_path)
    dataset = InputTable.from_delimited_files(str(path), drop_columns=["number", "half", "text"])
    assert refusal(dataset) == f"drop_columns: that are all columns of {path}; at least one must be left"

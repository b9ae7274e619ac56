"""From datasets to mini-batches, and from those to what run() gets: nothing lost, nothing doubled, nothing mixed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.child.mini_batch import DescribedMiniBatches, MiniBatchContext, maker_of
from mpi_prs.core.errors import InputError
from mpi_prs.inputs import planning
from mpi_prs.inputs.datasets import InputDataset, InputFiles, InputTable
from mpi_prs.inputs.decoding import Decoder
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.loading import FileLoader
from mpi_prs.inputs.manifest import DESCRIBED, PLAIN, Manifest, write_manifest
from mpi_prs.inputs.payload import names, pack
from mpi_prs.inputs.planning import plan
from mpi_prs.inputs.reading import write_partitioned
from mpi_prs.inputs.segment import Segments
from mpi_prs.storage.credentials import Storage


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/*.csv", "data"),
        ("data/x/**/a[12].csv", "data/x"),
        ("data/store=2/*.csv", "data"),
        ("odd[1]", "odd[1]"),  # is there
        ("odd[1]/x.csv", "odd[1]"),
        ("odd[[]1]/**", "odd[1]"),
        ("odd[[]1]/y=[*]/**", "odd[1]"),
        ("odd[1]/*", "odd1"),  # which is what it means
        ("odd[!1]/*", ""),
    ],
)
def test_the_folder_below_which_partition_values_lie(tmp_path: Path, pattern: str, expected: str) -> None:
    (tmp_path / "odd[1]").mkdir()
    (tmp_path / "odd[1]/x.csv").touch()
    dataset = InputFiles.from_files(pattern, base=tmp_path)
    assert planning.literal_folder(dataset) == str(tmp_path / expected)


def manifest_of(
    folder: Path, datasets: Sequence[InputDataset], size: int | BatchSize | None = 2, keys: Sequence[str] | None = None
) -> Manifest:
    write_manifest(folder / "manifest", plan(datasets, size, keys))
    return Manifest.open(folder / "manifest")


def made(manifest: Manifest, scratch: Path) -> list[tuple[Any, MiniBatchContext]]:
    """What run() gets of every mini-batch."""
    storages = [Storage() for _ in manifest.inputs]
    if manifest.of_tables:
        decoder, process = Decoder(manifest, storages), DescribedMiniBatches()
        with contextlib.closing(Segments()) as segments, contextlib.ExitStack() as at_the_end:
            at_the_end.callback(decoder.leave)
            return [decoded(decoder, process, segments, number) for number in range(manifest.mini_batches)]
    with contextlib.closing(FileLoader(manifest, scratch, 2**30, storages)) as loader:
        return [one(manifest, loader, number) for number in range(manifest.mini_batches)]


def decoded(
    decoder: Decoder, process: DescribedMiniBatches, segments: Segments, number: int
) -> tuple[Any, MiniBatchContext]:
    context, found = MiniBatchContext(number, 0), decoder.decode(number)
    if isinstance(found.data, dict):
        segment, found.told["arrays"] = segments.of_arrays(found.data)
    else:
        segment = segments.of_table(found.data)
    batch = process.make(memoryview(pack({**found.told, "segment": segment.path})), context, number)
    segment.close()
    return batch, context


def one(manifest: Manifest, loader: FileLoader, number: int) -> tuple[Any, MiniBatchContext]:
    context = MiniBatchContext(number, 0)
    if manifest.needs_loading:
        prepared = loader.load(number)
        batch = DescribedMiniBatches().make(memoryview(prepared.payload), context, number)
        prepared.release()
        return batch, context
    mini_batches = maker_of(manifest.kind)
    return mini_batches.make(memoryview(manifest.payload(number)), context, number), context


def touch(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# Files

FILE_NAMES = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"-").replace(b"\0", b"\n"))
    .filter(lambda name: not name.startswith(b"."))
)


@settings(max_examples=40)
@given(
    trees=st.lists(st.lists(FILE_NAMES, min_size=1, max_size=25, unique=True), min_size=1, max_size=3),
    size=st.integers(1, 30),
)
def test_mini_batches_of_files_are_the_listing_cut_into_pieces_that_never_mix_inputs(
    trees: list[list[bytes]], size: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number, tree in enumerate(trees):
            touch(root / str(number), *map(os.fsdecode, tree))
        datasets = [InputFiles.from_files(str(number), base=root) for number in range(len(trees))]
        expected = []
        for number, dataset in enumerate(datasets):
            paths = list(dataset.files())
            expected += [(number, paths[at : at + size]) for at in range(0, len(paths), size)]
        manifest = manifest_of(root, datasets, size)
        every = range(manifest.mini_batches)
        assert manifest.kind == (PLAIN if len(trees) == 1 else DESCRIBED)
        assert [(manifest.input_of(number), names(manifest, number)) for number in every] == expected
        got = made(manifest, root / "scratch")
        assert [(context.dataset and context.dataset.input, list(batch)) for batch, context in got] == expected
        assert [batch.task_id for batch, _ in got] == [str(number) for number in every]


def test_a_mini_batch_too_large_for_the_wire_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "in", "a", "b", "c")
    monkeypatch.setattr(planning, "SIZE_LIMIT", 20)
    with pytest.raises(InputError, match="mini_batch_size: 3: the paths of one mini-batch take"):
        manifest_of(tmp_path, [InputFiles.from_files(str(tmp_path / "in"))], 3)


# Partitions of files


def test_one_mini_batch_for_each_combination_of_the_chosen_keys(tmp_path: Path) -> None:
    touch(tmp_path / "in", "ann/2024/01/a.wav", "ann/2024/02/b.wav", "ann/2024/01/c.wav", "bob/2024/01/d.wav")
    dataset = InputFiles.from_files(str(tmp_path / "in"), partition_format="{user}/{month:yyyy/MM}/{name}.wav")
    assert dataset.partition_keys == ("user", "month", "name")
    got = made(manifest_of(tmp_path, [dataset], None, ["user", "month"]), tmp_path / "scratch")
    assert [(context.partition_key_value, [Path(path).name for path in batch]) for batch, context in got] == [
        ({"user": "ann", "month": datetime(2024, 1, 1)}, ["a.wav", "c.wav"]),
        ({"user": "ann", "month": datetime(2024, 2, 1)}, ["b.wav"]),
        ({"user": "bob", "month": datetime(2024, 1, 1)}, ["d.wav"]),
    ]


def test_a_file_that_is_an_input_by_itself_has_the_key_in_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "music/ann.wav")
    dataset = InputFiles.from_files(str(tmp_path / "music" / "ann.wav"), partition_format="{user}.wav")
    got = made(manifest_of(tmp_path, [dataset], None, ["user"]), tmp_path / "scratch")
    assert [context.partition_key_value for _, context in got] == [{"user": "ann"}]


@pytest.mark.parametrize(
    ("format", "keys", "words"),
    [
        ("{user}/{name}.wav", ["season"], ["'season'", "user", "name"]),
        ("{user}/{name}.txt", ["user"], ["a.wav", "{user}/{name}.txt"]),
        (None, ["user"], ["no partition_format", "hive"]),
        ("hive", ["user"], ["a.wav", "key=value"]),
    ],
)
def test_a_partition_key_that_cannot_be_had_is_named(
    tmp_path: Path, format: str | None, keys: list[str], words: list[str]
) -> None:
    touch(tmp_path / "in", "ann/a.wav")
    dataset = InputFiles.from_files(str(tmp_path / "in"), partition_format=format)
    with pytest.raises(InputError) as caught:
        manifest_of(tmp_path, [dataset], None, keys)
    for word in words:
        assert word in str(caught.value)


# Tables


def csv_files(root: Path, **files: pd.DataFrame) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        data.to_csv(root / f"{name}.csv", index=False)


def test_mini_batches_of_tables_never_cross_a_file(tmp_path: Path) -> None:
    csv_files(tmp_path / "in", **{f"f{n}": pd.DataFrame({"n": range(n * 100, n * 100 + 100)}) for n in range(3)})
    dataset = InputTable.from_delimited_files(str(tmp_path / "in"), path_column="path")
    manifest = manifest_of(tmp_path, [dataset], BatchSize(rows=30))
    got = [batch for batch, _ in made(manifest, tmp_path / "scratch")]
    assert len(got) > 9
    assert all(len(set(batch["path"])) == 1 for batch in got)
    assert pd.concat(got)["n"].tolist() == list(range(300))
    assert [Path(batch["path"].iloc[0]).name for batch in got] == sorted(Path(b["path"].iloc[0]).name for b in got)
    assert all("in/f" in name and "bytes" in name for number in range(3) for name in names(manifest, number))


def test_names_with_a_leading_underscore_are_no_tables(tmp_path: Path) -> None:
    csv_files(tmp_path / "in", a=pd.DataFrame({"n": [1]}), _SUCCESS=pd.DataFrame({"m": [2]}))
    read = [batch["n"].tolist() for batch, _ in self_made(tmp_path, str(tmp_path / "in"))]
    assert read == [[1]]
    assert [b["m"].tolist() for b, _ in self_made(tmp_path, str(tmp_path / "in" / "_SUCCESS.csv"))] == [[2]]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_folders_that_other_programs_keep_for_themselves_are_no_data_of_tables(tmp_path: Path, scheme: str) -> None:
    """As in pandas, pyarrow and Spark; of a file dataset they are files like others."""
    for name in (
        "a.csv",
        "_k=1/b.csv",
        "_temporary/0/t/c.csv",
        "x/.d/d.csv",
        "x/_committed_1",
        "_metadata",
        "_change/e.csv",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("n\n1\n")

    def listed(pattern: str, kind: Any = InputTable.from_delimited_files) -> list[str]:
        return [path.rpartition(f"{tmp_path}/")[2] for path in kind(f"{scheme}{tmp_path}{pattern}").files()]

    for pattern in ("", "/", "/**", "/**/*.csv"):
        assert sorted(listed(pattern)) == ["_k=1/b.csv", "a.csv"]
    assert listed("/_temporary") == listed("/_t*/**/*.csv") == ["_temporary/0/t/c.csv"]
    assert len(listed("", InputFiles.from_files)) == 6
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/_SUCCESS").write_text("")
    with pytest.raises(InputError, match="with a leading underscore"):
        listed("/empty")


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("_delta_log/00000000000000000000.json", "Delta Lake"),
        ("_delta_log/_last_checkpoint", "Delta Lake"),
        ("metadata/00000-0be9ae48-7a2f-4b52-9a2e-92a3b0b2f0a5.metadata.json", "Iceberg"),
        (".hoodie/hoodie.properties", "Apache Hudi"),
        ("metadata/about.json", None),
    ],
)
def test_a_folder_with_a_log_of_its_rows_is_refused(tmp_path: Path, scheme: str, log: str, name: str | None) -> None:
    for path in (f"lake/{log}", "lake/data/k=1/a.csv", "lake/b.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("n\n1\n")
    for pattern in ("lake", "lake/**/*.csv", *(() if scheme else ("", "lake/data/k=1"))):
        dataset = InputTable.from_delimited_files(f"{scheme}{tmp_path}/{pattern}")
        if name is None:
            assert list(dataset.files())
        else:
            with pytest.raises(InputError, match=f"lake is a table of {name}.*rows that were deleted .*write"):
                list(dataset.files())
    assert len(list(InputTable.from_delimited_files(f"{scheme}{tmp_path}/lake/b.csv").files())) == 1


def test_a_log_beside_the_files_of_a_glob_is_not_theirs(tmp_path: Path) -> None:
    for path in ("a/_delta_log/00000000000000000000.json", "a/a.parquet", "b/b.csv", "c/c.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert len(list(InputTable.from_delimited_files(f"{tmp_path}/**/*.csv").files())) == 2
    for pattern in ("a", "**"):
        with pytest.raises(InputError, match="a is a table of Delta Lake"):
            list(InputTable.from_parquet_files(f"{tmp_path}/{pattern}").files())


def self_made(folder: Path, pattern: str, **options: Any) -> list[tuple[Any, MiniBatchContext]]:
    dataset = InputTable.from_delimited_files(pattern, **options)
    return made(manifest_of(folder, [dataset], BatchSize(bytes=1000)), folder / "scratch")


@pytest.mark.parametrize("format", ["csv", "parquet", "jsonl"])
def test_a_path_column_that_is_there_already_is_refused_before_anything_runs(tmp_path: Path, format: str) -> None:
    data = pd.DataFrame({"n": [1], "m": [2]})
    file = str(tmp_path / f"a.{format}")
    if format == "csv":
        data.to_csv(file, index=False)
        dataset = InputTable.from_delimited_files(file, path_column="n")
    elif format == "parquet":
        data.to_parquet(file)
        dataset = InputTable.from_parquet_files(file, path_column="n")
    else:
        data.to_json(file, orient="records", lines=True)
        dataset = InputTable.from_json_lines_files(file, path_column="n")
    with pytest.raises(InputError, match=r"path_column: .* has a column 'n' already"):
        manifest_of(tmp_path, [dataset], BatchSize(rows=1))


@pytest.mark.parametrize("format", ["hive", "{u}/{name}.csv"])
def test_a_path_column_named_like_a_partition_key_is_refused_before_anything_runs(tmp_path: Path, format: str) -> None:
    csv_files(tmp_path / "in" / "u=1", a=pd.DataFrame({"n": [1]}))
    dataset = InputTable.from_delimited_files(str(tmp_path / "in"), path_column="u", partition_format=format)
    with pytest.raises(InputError, match=r"path_column: 'u' is a partition key already"):
        manifest_of(tmp_path, [dataset], BatchSize(rows=1))


def test_a_path_column_for_arrays_is_refused_and_for_an_hdf5_table_is_added(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        file["images"] = np.zeros((3, 2, 2))
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["n"] = np.arange(3)
    arrays, table = (
        InputTable.from_hdf5_files(str(tmp_path / f"{name}.h5"), path_column="p") for name in ("arrays", "table")
    )
    with pytest.raises(InputError, match=r"path_column: .*arrays\.h5 holds arrays .* context\.dataset\.paths"):
        manifest_of(tmp_path, [arrays], BatchSize(rows=2))
    got = made(manifest_of(tmp_path, [table], BatchSize(rows=2)), tmp_path / "scratch")
    assert [batch["p"].tolist() for batch, _ in got] == [[str(tmp_path / "table.h5")] * 2, [str(tmp_path / "table.h5")]]


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    csv_files(tmp_path / "in", a=pd.DataFrame({"n": []}))
    with pytest.raises(InputError, match=r"no items: there are no rows in .*a\.csv \(2 bytes\)"):
        self_made(tmp_path, str(tmp_path / "in"))


KEYS = st.sampled_from(["ann", "bob", "x y", "é"])


@settings(max_examples=25)
@given(
    layout=st.dictionaries(
        st.tuples(KEYS, st.sampled_from(["2023/11", "2024/01"]), st.sampled_from("abc")),
        st.integers(0, 5),
        min_size=1,
        max_size=12,
    ).filter(lambda layout: any(layout.values())),
    keys=st.sampled_from([["user"], ["month"], ["user", "month"], ["month", "user"]]),
)
def test_partitions_of_a_table_are_the_groups_that_pandas_finds(
    layout: dict[tuple[str, str, str], int], keys: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        whole = []
        for number, ((user, month, file), rows) in enumerate(sorted(layout.items())):
            data = pd.DataFrame({"n": np.arange(rows) + 100 * number})
            (root / "in" / user / month).mkdir(parents=True, exist_ok=True)
            data.to_csv(root / "in" / user / month / f"{file}.csv", index=False)
            whole.append(data.assign(user=user, month=pd.Timestamp(f"{month}/01").as_unit("us"), file=file))
        expected = {
            key: group.reset_index(drop=True)
            for key, group in pd.concat([data for data in whole if len(data)]).groupby(keys)
        }
        dataset = InputTable.from_delimited_files(
            str(root / "in"), partition_format="{user}/{month:yyyy/MM}/{file}.csv"
        )
        got = {
            tuple((context.partition_key_value or {}).values()): batch
            for batch, context in made(manifest_of(root, [dataset], None, keys), root / "scratch")
        }
        assert set(got) == {tuple(key) for key in expected}
        for key, group in expected.items():
            pd.testing.assert_frame_equal(got[tuple(key)], group, check_dtype=True)


def test_a_table_partitioned_by_its_columns_comes_back_by_them_with_its_types(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "n": np.arange(500),
            "code": rng.choice(["01", "02", "a/b", "é"], 500),
            "year": rng.choice([2023, 2024], 500),
            "x": rng.random(500),
        }
    )
    table.to_parquet(tmp_path / "whole.parquet", row_group_size=90)
    whole = InputTable.from_parquet_files(str(tmp_path / "whole.parquet"))
    dataset = write_partitioned(whole, ["code", "year"], tmp_path / "copy")
    manifest = manifest_of(tmp_path, [dataset], None, ["code", "year"])
    got = made(manifest, tmp_path / "scratch")
    groups = {key: group.reset_index(drop=True) for key, group in table.groupby(["code", "year"])}
    assert len(got) == len(groups)
    for batch, context in got:
        assert context.partition_key_value is not None
        key = (context.partition_key_value["code"], context.partition_key_value["year"])
        pd.testing.assert_frame_equal(batch, groups[key])


# What a worker imports for it


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_loading_a_table_imports_no_pandas(tmp_path: Path, suffix: str) -> None:
    data = pd.DataFrame({"n": [1, 2, None], "s": ["a", None, "c"]})
    (tmp_path / "in" / "u").mkdir(parents=True)
    path = tmp_path / "in" / "u" / f"f.{suffix}"
    if suffix == "csv":
        data.to_csv(path, index=False)
    elif suffix == "parquet":
        data.to_parquet(path)
    else:
        data.to_json(path, orient="records", lines=True)
    make = {
        "csv": InputTable.from_delimited_files,
        "parquet": InputTable.from_parquet_files,
        "jsonl": InputTable.from_json_lines_files,
    }[suffix]
    options = {"path_column": "path", "partition_format": "{user}/{name}." + suffix}
    manifest_of(tmp_path, [make(str(tmp_path / "in"), **options)], BatchSize(rows=2))
    script = (
        "import sys; from pathlib import Path; from mpi_prs.inputs.decoding import Decoder;"
        "from mpi_prs.inputs.manifest import Manifest; from mpi_prs.storage.remote import Storage;"
        "manifest = Manifest.open(Path(sys.argv[1]));"
        "decoder = Decoder(manifest, [Storage()]);"
        "[decoder.decode(n) for n in range(manifest.mini_batches)];"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "manifest")]
    modules = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "pyarrow.lib" in modules
    assert not {"pandas", "fsspec", "adlfs", "h5py", "click", "pydantic", "yaml"} & modules

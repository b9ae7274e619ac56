"""The SDK's datasets: made of places, registered, read here, and handed to steps as entries of a job config."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from mpi_prs.azureml.datasets.column_types import DataType, PromoteHeadersBehavior
from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig
from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset, datasets_of, from_definition
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.datasets.outputs import OutputFileDatasetConfig, OutputTabularDatasetConfig
from mpi_prs.azureml.datastores.datastore import DataPath, Datastore, FolderDatastore
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.data import dataset_of
from mpi_prs.core.errors import InputError, OutputError, UserMistake, WorkspaceError
from mpi_prs.inputs.datasets import InputFiles as JobFiles
from mpi_prs.job.config.inputs import InputSection
from mpi_prs.storage.credentials import Storage
from tests.support.azurite import OTHER_ACCOUNT, OTHER_KEY, Azurite
from tests.support.jobs import Job

IMAGES = {"mnist/0.png": b"zero", "mnist/1.png": b"one", "mnist/sub/2.png": b"two", "labels.txt": b"labels"}
SALES = {"sales/1.csv": b"store,amount\n1,10\n2,20\n", "sales/2.csv": b"store,amount\n1,30\n3,40\n"}


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.create("tests", folder=tmp_path / "ws", show_output=False)


@pytest.fixture
def blobs(azurite: Azurite) -> Azurite:
    return azurite.of(OTHER_ACCOUNT)


def make(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(ws: Workspace, tmp_path: Path) -> FolderDatastore:
    return Datastore.register_folder(ws, "folder", make(tmp_path / "data[1]", {**IMAGES, **SALES}))


@pytest.fixture
def blob(ws: Workspace, blobs: Azurite) -> Datastore:
    name = f"data-{uuid.uuid4().hex[:12]}"
    blobs.container(name, {**IMAGES, **SALES})
    return Datastore.register_azure_blob_container(
        ws, "blob", name, OTHER_ACCOUNT, account_key=OTHER_KEY, endpoint=blobs.account_url()
    )


@pytest.fixture(params=["folder", "blob"])
def store(request: pytest.FixtureRequest) -> Datastore:
    """Both kinds, with the same files."""
    found: Datastore = request.getfixturevalue(request.param)
    return found


def in_a_job(section: dict[str, Any]) -> list[str]:
    """The files that a job lists of an entry of its ``inputs``, which comes by way of JSON."""
    return list(InputSection.model_validate(json.loads(json.dumps(section))).to_dataset(Storage()).files())


# Where the files are


def test_the_dataset_of_the_tutorials(store: Datastore) -> None:
    dataset = Dataset.File.from_files(path=store.path("mnist/"), validate=False)
    assert type(dataset) is FileDataset
    assert in_a_job(dataset.to_input()) == [store.url(f"mnist/{name}") for name in ("0.png", "1.png", "sub/2.png")]
    single = Dataset.File.from_files(path=store.path("mnist/0.png"), validate=False)
    assert in_a_job(single.to_input()) == [store.url("mnist/0.png")]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("mnist/*.png", ["mnist/0.png", "mnist/1.png"]),
        ("**/*.png", ["mnist/0.png", "mnist/1.png", "mnist/sub/2.png"]),
        ("/mnist/sub", ["mnist/sub/2.png"]),
        (["labels.txt", "mnist/[01].png"], ["labels.txt", "mnist/0.png", "mnist/1.png"]),
    ],
)
def test_places_in_a_datastore(store: Datastore, path: Any, expected: list[str]) -> None:
    forms = [(store, path), [(store, each) for each in path] if isinstance(path, list) else store.path(path)]
    for form in forms:
        dataset = Dataset.File.from_files(form)
        assert in_a_job(dataset.to_input()) == [store.url(name) for name in expected]


def test_a_folder_whose_name_holds_signs_of_a_glob_is_that_folder(store: Datastore, tmp_path: Path) -> None:
    make(tmp_path / "up", {"d[1]/x": b"", "d[1]/y/z": b"", "d1": b""})
    store.upload(tmp_path / "up", "odd")
    for path, names in (("odd/d[1]", ["/x", "/y/z"]), ("odd/d[1]/x", ["/x"]), ("odd/d[[]1]/*", ["/d[1]/x"])):
        dataset = Dataset.File.from_files(store.path(path))
        assert dataset.to_path() == names


def test_a_whole_datastore(store: Datastore) -> None:
    names = ["labels.txt", "mnist/0.png", "mnist/1.png", "mnist/sub/2.png", "sales/1.csv", "sales/2.csv"]
    for path in (store, store.path(), DataPath(store)):
        assert in_a_job(Dataset.File.from_files(path).to_input()) == [store.url(name) for name in names]


def test_paths_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "here", IMAGES)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    expected = [str(tmp_path / "here/mnist/0.png"), str(tmp_path / "here/mnist/1.png")]
    for path in ("mnist/*.png", Path("mnist/*.png"), "~/mnist/*.png", [str(tmp_path / "here/mnist/?.png")]):
        dataset = Dataset.File.from_files(path)
        monkeypatch.chdir(tmp_path)
        assert in_a_job(dataset.to_input()) == expected
        monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize("name", ["a$HOME", "a$b[1]", "a*", "${x}"])
@pytest.mark.parametrize("what", ["", "/x.txt"])
def test_names_that_a_job_config_would_expand_mean_themselves(tmp_path: Path, name: str, what: str) -> None:
    make(tmp_path, {f"{name}/x.txt": b"", "aHOME/x.txt": b"", "ab1/y": b""})
    dataset = Dataset.File.from_files(str(tmp_path / name) + what)
    assert in_a_job(dataset.to_input()) == [str(tmp_path / name / "x.txt")]


def test_urls(blob: Datastore, tmp_path: Path) -> None:
    dataset = Dataset.File.from_files("https://example.org/a.csv", validate=False)
    assert dataset.to_input() == {"files": ["https://example.org/a.csv"], "storage": {"anonymous": True}}
    wasb = Dataset.File.from_files("wasbs://c@account.blob.core.windows.net/x/*.png", validate=False)
    assert wasb.to_input() == {"files": ["abfss://c@account.blob.core.windows.net/x/*.png"]}
    for url, words in (
        ("https://a.blob.core.windows.net/c/x?sv=1&sig=S3CRET", "sas_token_file"),
        ("azureml://datastores/x/paths/y", "Datastore.get"),
    ):
        with pytest.raises(UserMistake, match=words) as caught:
            Dataset.File.from_files(url)
        assert "S3CRET" not in str(caught.value)
    mixed = Dataset.File.from_files([blob.path("labels.txt"), str(make(tmp_path, {"mine.txt": b""}) / "mine.txt")])
    assert in_a_job(mixed.to_input()) == [blob.url("labels.txt"), str(tmp_path / "mine.txt")]
    with pytest.raises(WorkspaceError, match=r"are in different stores; make a dataset of each"):
        Dataset.File.from_files([blob.path("labels.txt"), "https://example.org/a.csv"])


@pytest.mark.parametrize("path", [None, 5, "", " ", [], (), b"x", [5], "a\0b", {"a": 1}, ["x", None]])
def test_what_is_no_place_is_told(path: Any) -> None:
    with pytest.raises(WorkspaceError, match="a DataPath such as"):
        Dataset.File.from_files(path)


def test_what_is_no_place_in_a_datastore_is_told(folder: Datastore) -> None:
    for path in ((folder, 5), (folder, []), (folder, "../x"), [(folder, None)]):
        with pytest.raises(WorkspaceError, match=r"expected a tuple|does not lead upwards"):
            Dataset.File.from_files(path)


def test_validation_looks_for_a_file(store: Datastore, tmp_path: Path) -> None:
    for path in (store.path("nope/"), store.path("**/*.jpg"), str(tmp_path / "nope")):
        with pytest.raises(InputError, match=r"nope|\*\.jpg"):
            Dataset.File.from_files(path)
        Dataset.File.from_files(path, validate=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no files under it"):
        Dataset.File.from_files(str(tmp_path / "empty"))


def test_a_datastore_is_looked_up_when_it_is_used(ws: Workspace, tmp_path: Path) -> None:
    first, second = (make(tmp_path / name, {"x.txt": b""}) for name in ("first", "second"))
    dataset = Dataset.File.from_files(Datastore.register_folder(ws, "moves", first).path("x.txt"))
    Datastore.register_folder(ws, "moves", second, overwrite=True)
    assert in_a_job(dataset.to_input()) == [str(second / "x.txt")]
    Datastore.get(ws, "moves").unregister()
    with pytest.raises(WorkspaceError, match="there is no datastore 'moves'"):
        dataset.to_input()


# Definitions and registration


def every_kind(store: Datastore) -> list[FileDataset | TabularDataset]:
    return [
        Dataset.File.from_files(store.path("mnist/"), partition_format="{digit}.png"),
        Dataset.File.from_files([store.path("mnist/"), store.path("labels.txt")]).take(2).skip(1),
        Dataset.Tabular.from_delimited_files(
            store.path("sales/*.csv"), include_path=True, set_column_types={"store": DataType.to_string()}
        ).keep_columns(["amount", "Path"]),
        Dataset.Tabular.from_parquet_files(store.path("x.parquet"), validate=False).drop_columns("a"),
        Dataset.Tabular.from_json_lines_files(store.path("x.jsonl"), validate=False, invalid_lines="drop"),
        Dataset.Tabular.from_hdf5_files(store.path("x.h5"), validate=False, dataset="table"),
    ]


def test_a_definition_is_the_whole_dataset(ws: Workspace, store: Datastore) -> None:
    for dataset in every_kind(store):
        definition = json.loads(json.dumps(dataset.definition()))
        again = from_definition(ws, definition)
        assert again == dataset
        assert again.id == dataset.id
        assert again.definition() == definition
        in_script = dataset_of(ws, definition)  # what scripts have of it; it becomes the whole one
        assert {in_script: "found"}[dataset] == "found"
        assert OTHER_KEY not in json.dumps(definition) + repr(dataset)
        with pytest.raises(AttributeError):
            dataset.first = 3  # type: ignore[misc]
    assert len({dataset.id for dataset in every_kind(store)}) == 6


@pytest.mark.parametrize("definition", [{}, {"kind": "film", "paths": [{"path": "/x"}]}, {"kind": "file", "paths": []}])
def test_what_is_no_definition_is_told(definition: dict[str, Any]) -> None:
    with pytest.raises(WorkspaceError, match="no definition of a dataset"):
        from_definition(None, definition)


def test_versions(ws: Workspace, folder: Datastore) -> None:
    dataset = Dataset.File.from_files(folder.path("mnist/"))
    assert (dataset.name, dataset.version, dataset.description, dataset.tags) == (None, None, None, {})
    first = dataset.register(ws, "digits", description="hand-written", tags={"year": "1998"})
    assert (first.name, first.version, first.description, first.tags) == (
        "digits",
        1,
        "hand-written",
        {"year": "1998"},
    )
    with pytest.raises(WorkspaceError, match=r"there is a dataset 'digits' already; give create_new_version=True"):
        dataset.register(ws, "digits")
    second = Dataset.File.from_files(folder.path("labels.txt")).register(ws, "digits", create_new_version=True)
    assert second.version == 2
    assert Dataset.get_by_name(ws, "digits") == second == ws.datasets["digits"]
    for version in (1, "1"):
        found = Dataset.get_by_name(ws, name="digits", version=version)
        assert found == first
        assert (found.version, found.description, found.tags) == (1, "hand-written", {"year": "1998"})
    assert FileDataset.get_by_name(ws, "digits", "latest").version == 2
    assert Dataset.get_by_id(ws, first.id).version == 1
    assert dict(Dataset.get_all(ws)) == dict(datasets_of(ws)) == {"digits": second}
    second.unregister_all_versions()
    assert "digits" not in ws.datasets
    assert (folder.folder or Path()).exists()
    assert dataset.register(ws, "digits").version == 3  # numbers are not given out again
    with pytest.raises(WorkspaceError, match="the dataset is not registered"):
        dataset.unregister_all_versions()
    with pytest.raises(WorkspaceError, match="the dataset is not registered"):
        first.take(1).unregister_all_versions()


def test_unknown_names_and_versions_get_the_near_ones(ws: Workspace, folder: Datastore) -> None:
    Dataset.File.from_files(folder).register(ws, "mnist_images")
    with pytest.raises(WorkspaceError, match="there is no dataset 'mnist_image'; did you mean 'mnist_images'"):
        Dataset.get_by_name(ws, "mnist_image")
    with pytest.raises(KeyError, match="did you mean 'mnist_images'"):
        ws.datasets["mnist-images"]
    with pytest.raises(WorkspaceError, match="has no version 7; there is 1"):
        Dataset.get_by_name(ws, "mnist_images", version=7)
    for version in (1.5, True, "newest", [1]):
        with pytest.raises(WorkspaceError, match="the version of a dataset is a number or 'latest'"):
            Dataset.get_by_name(ws, "mnist_images", version)  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match="no dataset of id 'x' is registered"):
        Dataset.get_by_id(ws, "x")
    with pytest.raises(WorkspaceError, match="name of a dataset"):
        Dataset.get_by_name(ws, "../x")


def test_bad_registrations_are_told(ws: Workspace, folder: Datastore, tmp_path: Path) -> None:
    dataset = Dataset.File.from_files(folder)
    for given in ({"tags": {"a": [1]}}, {"tags": "night"}, {"description": 5}, {"name": "a/b"}, {"name": None}):
        with pytest.raises(WorkspaceError):
            dataset.register(ws, **{"name": "x", **given})  # type: ignore[arg-type]
    for use in (dataset.register, Dataset.get_by_name, Dataset.get_by_id):
        with pytest.raises(WorkspaceError, match=r"expected a Workspace, such as .*, but got 'ws'"):
            use("ws", "x")  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match=r"target_path is the path of a file or folder .* but got 5"):
        dataset.download(5)  # type: ignore[arg-type]
    other = Workspace.create("other", folder=tmp_path / "other", show_output=False)
    with pytest.raises(WorkspaceError, match="datastore 'folder' of another workspace"):
        dataset.register(other, "x")
    assert dict(ws.datasets) == {}


def test_two_that_register_one_name_at_once_both_get_a_version(ws: Workspace, folder: Datastore) -> None:
    dataset = Dataset.File.from_files(folder, validate=False)
    versions: list[int | None] = []
    refused: list[WorkspaceError] = []
    start = threading.Barrier(8)

    def register(number: int) -> None:
        start.wait()
        try:
            versions.append(dataset.register(ws, "same", create_new_version=number % 2 == 0).version)
        except WorkspaceError as error:
            refused.append(error)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions, key=str) == [*range(1, len(versions) + 1)]
    assert len(versions) + len(refused) == 8
    assert len(versions) >= 4


def test_a_dataset_without_a_name_can_be_saved(ws: Workspace, folder: Datastore) -> None:
    """As an older tutorial does: ``single_image_ds._ensure_saved(ws)``."""
    dataset = Dataset.File.from_files(folder.path("mnist/0.png"))
    for _ in range(2):
        assert dataset._ensure_saved(ws) == dataset.id
    assert Dataset.get_by_id(ws, dataset.id) == dataset
    assert dict(ws.datasets) == {}


@pytest.mark.parametrize("content", ["{", "{}", '{"definition": {"kind": "tabular", "paths": [{"path": "/x"}]}}'])
def test_a_broken_record_is_named(ws: Workspace, content: str) -> None:
    path = ws.layout.dataset_version("broken", 1)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(WorkspaceError, match=r"the dataset 'broken', version 1: .*1\.json"):
        Dataset.get_by_name(ws, "broken")


# Files, here


def test_the_paths_below_what_the_places_have_in_common(store: Datastore, tmp_path: Path) -> None:
    def paths(*below: str) -> list[str]:
        return Dataset.File.from_files([store.path(path) for path in below]).to_path()

    assert paths("mnist/") == paths("mnist") == paths("mnist/**") == ["/0.png", "/1.png", "/sub/2.png"]
    assert paths("mnist/0.png") == ["/0.png"]
    assert paths("mnist/s*/*") == ["/sub/2.png"]
    assert paths("*/*.csv") == ["/sales/1.csv", "/sales/2.csv"]
    assert paths("mnist/sub/", "mnist/0.png") == ["/sub/2.png", "/0.png"]
    assert paths("mnist/sub/", "labels.txt") == ["/mnist/sub/2.png", "/labels.txt"]
    here = str(make(tmp_path / "here", {"a/x": b"", "b/y": b""}))
    both = Dataset.File.from_files([store.path("mnist/"), f"{here}/a", f"{here}/b"])
    assert both.to_path() == [f"/{store.name}/{name}" for name in ("0.png", "1.png", "sub/2.png")] + [
        "/local/a/x",
        "/local/b/y",
    ]


def test_parts_of_files(store: Datastore) -> None:
    dataset = Dataset.File.from_files(store.path("mnist/"))
    assert dataset.take(2).to_path() == ["/0.png", "/1.png"]
    assert dataset.skip(1).to_path() == ["/1.png", "/sub/2.png"]
    assert dataset.skip(1).take(1).to_path() == dataset.take(2).skip(1).to_path() == ["/1.png"]
    assert dataset.take(5).take(9).to_path() == dataset.to_path()
    assert dataset.take(1).skip(5).to_path() == []
    assert dataset.take(0).to_path() == []
    for wrong in (-1, 1.5, "2", True, None):
        with pytest.raises(WorkspaceError, match="takes a number of items"):
            dataset.take(wrong)  # type: ignore[arg-type]


def test_a_part_of_files_is_an_input_of_a_job(store: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.File.from_files(store.path("mnist/"))
    section = dataset.skip(1).take(2).to_input()
    assert section["files"] == [store.url("mnist/1.png"), store.url("mnist/sub/2.png")]
    assert in_a_job(section) == section["files"]
    with pytest.raises(WorkspaceError, match="leaves no files"):
        dataset.take(0).to_input()
    monkeypatch.setattr("mpi_prs.azureml.datasets.dataset._MOST_FROZEN", 1)
    with pytest.raises(WorkspaceError, match="leaves more than 1 files, too many to list"):
        dataset.take(2).to_input()


def test_files_are_downloaded(store: Datastore, tmp_path: Path) -> None:
    dataset = Dataset.File.from_files(store.path("mnist/"))
    paths = dataset.download(tmp_path / "here")
    assert paths == [str(tmp_path / "here" / name) for name in ("0.png", "1.png", "sub/2.png")]
    assert [Path(path).read_bytes() for path in paths] == [b"zero", b"one", b"two"]
    with pytest.raises(WorkspaceError, match=r"/here/0\.png is there already; give overwrite=True"):
        dataset.download(str(tmp_path / "here"))
    Path(paths[0]).write_bytes(b"old")
    assert dataset.download(str(tmp_path / "here"), overwrite=True) == paths
    assert Path(paths[0]).read_bytes() == b"zero"
    with pytest.raises(WorkspaceError, match="listed twice"):
        Dataset.File.from_files([store.path("mnist/"), store.path("mnist/0.png")]).download(tmp_path / "twice")


def test_a_download_without_a_target_gets_a_folder(
    folder: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (path,) = Dataset.File.from_files(folder.path("labels.txt")).download()
    assert Path(path).read_bytes() == b"labels"
    assert Path(path).is_relative_to(tmp_path)


def test_files_are_mounted(store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(make(tmp_path / "tmp", {}) or tmp_path))
    (tmp_path / "tmp").mkdir(exist_ok=True)
    dataset = Dataset.File.from_files(store.path("mnist/"))
    with dataset.mount() as context:
        assert Path(context.mount_point, "sub/2.png").read_bytes() == b"two"
        assert (context.mount_point == store.url("mnist")) == store.is_folder
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not store.is_folder or Path(store.url("mnist")).exists()
    context = dataset.take(1).mount(tmp_path / "mine")
    assert context.mount_point == str(tmp_path / "mine")
    context.start()
    context.start()
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == ["0.png"]
    context.stop()
    context.stop()
    assert not (tmp_path / "mine").exists()
    make(tmp_path, {"full/x": b""})
    with pytest.raises(WorkspaceError, match="is not an empty folder"):
        dataset.mount(str(tmp_path / "full")).start()
    with pytest.raises(WorkspaceError, match="not known yet"):
        dataset.mount().mount_point  # noqa: B018


def test_partition_keys_of_files(store: Datastore) -> None:
    dataset = Dataset.File.from_files(store.path("**/[01].png"), partition_format="{folder}/{digit}.png")
    assert dataset.partition_keys == ["folder", "digit"]
    assert dataset.get_partition_key_values() == [
        {"folder": "mnist", "digit": "0"},
        {"folder": "mnist", "digit": "1"},
    ]
    assert dataset.get_partition_key_values(["folder"]) == [{"folder": "mnist"}]
    assert dataset.to_input()["partition_format"] == "{folder}/{digit}.png"
    with pytest.raises(WorkspaceError, match="there is no partition key 'x'; there is folder, digit"):
        dataset.get_partition_key_values(["x"])
    with pytest.raises(WorkspaceError, match="no partition keys: give partition_format"):
        Dataset.File.from_files(store.path("mnist/")).get_partition_key_values()
    with pytest.raises(InputError, match=r"does not match partition_format"):
        Dataset.File.from_files(store.path("labels.txt"), partition_format="{year:yyyy}/{x}.png")
    for wrong in ("no keys", "{", 5):
        with pytest.raises(WorkspaceError, match="partition_format"):
            Dataset.File.from_files(store, partition_format=wrong)  # type: ignore[arg-type]


# Rows


def test_rows_of_delimited_text(store: Datastore) -> None:
    dataset = Dataset.Tabular.from_delimited_files(path=store.path("sales/*.csv"))
    frame = dataset.to_pandas_dataframe()
    assert type(dataset) is TabularDataset
    assert frame.to_dict("list") == {"store": [1, 2, 1, 3], "amount": [10, 20, 30, 40]}
    assert dataset.take(3).to_pandas_dataframe()["amount"].tolist() == [10, 20, 30]
    assert dataset.skip(1).take(2).to_pandas_dataframe()["amount"].tolist() == [20, 30]
    assert len(dataset.take(0).to_pandas_dataframe()) == 0
    section = dataset.to_input()
    assert section["table"] == [dataset.sources[0].pattern()]
    assert section["separator"] == ","
    assert in_a_job(section) == [store.url("sales/1.csv"), store.url("sales/2.csv")]
    with pytest.raises(WorkspaceError, match="a step reads whole files"):
        dataset.take(3).to_input()


def test_every_option_of_delimited_text_gets_to_the_job(tmp_path: Path) -> None:
    make(tmp_path, {"a.txt": "5;1,5;01.02.2020;ja\n6;;03.02.2020;'n;n'\n".encode("cp1252")})
    dataset = Dataset.Tabular.from_delimited_files(
        str(tmp_path / "a.txt"),
        include_path=True,
        infer_column_types=False,
        set_column_types={
            "Column1": DataType.to_long(),
            "Column2": DataType.to_float(decimal_mark=","),
            "Column3": DataType.to_datetime("%d.%m.%Y"),
        },
        separator=";",
        header=PromoteHeadersBehavior.NO_HEADERS,
        support_multi_line=True,
        empty_as_string=True,
        encoding="windows1252",
        partition_format="{name}.txt",
        validate=False,
    )
    section = dataset.to_input()
    assert section == {
        "table": [str(tmp_path / "a.txt")],
        "format": "delimited",
        "separator": ";",
        "header": "no_header",
        "encoding": "cp1252",
        "support_multi_line": True,
        "infer_column_types": False,
        "empty_as_string": True,
        "decimal": ",",
        "column_types": {"Column1": "int", "Column2": "float", "Column3": "datetime(%d.%m.%Y)"},
        "path_column": "Path",
        "partition_format": "{name}.txt",
    }
    assert in_a_job(section) == [str(tmp_path / "a.txt")]


def test_types_and_columns(tmp_path: Path) -> None:
    make(tmp_path, {"a.csv": b"id,price,day,ok\n007,1.5,2020-02-01,true\n008,,2020-02-02,false\n"})
    types = {
        "id": DataType.to_string(),
        "price": DataType.to_float(),
        "day": DataType.to_datetime(),
        "ok": DataType.to_bool(),
    }
    dataset = Dataset.Tabular.from_delimited_files(str(tmp_path), include_path=True, set_column_types=types)
    frame = dataset.to_pandas_dataframe()
    assert frame["id"].tolist() == ["007", "008"]
    assert frame["day"].tolist() == [pd.Timestamp("2020-02-01"), pd.Timestamp("2020-02-02")]
    assert frame["ok"].dtype == bool
    assert frame["Path"].tolist() == [str(tmp_path / "a.csv")] * 2

    def columns(changed: TabularDataset) -> list[str]:
        assert InputSection.model_validate(changed.to_input())
        return list(changed.to_pandas_dataframe().columns)

    assert columns(dataset.keep_columns(["price", "id"])) == ["price", "id"]
    assert columns(dataset.keep_columns(["id", "Path"], validate=True)) == ["id", "Path"]
    assert columns(dataset.keep_columns(["id", "Path", "ok"]).drop_columns(["Path", "ok"])) == ["id"]
    assert columns(dataset.drop_columns("id").drop_columns(["Path", "ok"])) == ["price", "day"]
    assert columns(dataset.drop_columns("id").keep_columns("price")) == ["price"]
    with pytest.raises(InputError, match="nope"):
        dataset.keep_columns(["id", "nope"], validate=True)
    for change, words in (
        (lambda: dataset.drop_columns("id").keep_columns("id"), "'id' was left out before"),
        (lambda: dataset.keep_columns("price").keep_columns("id"), "'id' was left out before"),
        (lambda: dataset.keep_columns("id").drop_columns("id"), "no column is left"),
        (lambda: dataset.keep_columns("id").drop_columns("price"), "none of the columns id"),
        (lambda: dataset.keep_columns("Path"), "at least one column that is in the files"),
        (lambda: dataset.keep_columns([]), "expected the name of a column"),
        (lambda: dataset.drop_columns([5]), "expected the name of a column"),  # type: ignore[list-item]
    ):
        with pytest.raises(WorkspaceError, match=words):
            change()


def test_text_alone(tmp_path: Path) -> None:
    make(tmp_path, {"a.csv": b"id,n,note\n007,1,\n008,2,NA\n"})
    dataset = Dataset.Tabular.from_delimited_files(
        str(tmp_path), infer_column_types=False, empty_as_string=True, set_column_types={"n": DataType.to_long()}
    )
    assert dataset.to_pandas_dataframe().to_dict("list") == {
        "id": ["007", "008"],
        "n": [1, 2],
        "note": ["", "NA"],
    }


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (True, None),
        (False, "no_header"),
        (PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS, None),
        (PromoteHeadersBehavior.ONLY_FIRST_FILE_HAS_HEADERS, "only_first_file_has_headers"),
        ("COMBINE_ALL_FILES_HEADERS", "combine_all_files_headers"),
        ("no_header", "no_header"),
    ],
)
def test_headers(header: Any, expected: str | None) -> None:
    dataset = Dataset.Tabular.from_delimited_files("/x.csv", validate=False, header=header)
    assert dataset.to_input().get("header") == expected
    assert InputSection.model_validate(dataset.to_input())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"header": "yes"}, "PromoteHeadersBehavior"),
        ({"header": 3}, "PromoteHeadersBehavior"),
        ({"encoding": "klingon"}, "encoding"),
        ({"encoding": None}, "encoding"),
        ({"separator": ""}, "separator"),
        ({"separator": "||"}, "separator"),
        ({"separator": '"'}, "separator"),
        ({"set_column_types": ["a"]}, "set_column_types is a dict"),
        ({"set_column_types": {"a": int}}, "column 'a' is a DataType"),
        ({"set_column_types": {"a": "integer"}}, "'integer' is not a type"),
        ({"set_column_types": {5: DataType.to_long()}}, "name of a column is text"),
        ({"set_column_types": {"a": DataType.to_float(","), "b": DataType.to_float()}}, "two decimal marks"),
        ({"partition_format": "{"}, "partition_format"),
    ],
    ids=str,
)
def test_bad_options_are_told(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserMistake, match=words):
        Dataset.Tabular.from_delimited_files("/x.csv", validate=False, **given)


def test_bad_types_are_told() -> None:
    for make_type, words in (
        (lambda: DataType.to_datetime(["%Y", "%d"]), "takes one format"),
        (lambda: DataType.to_datetime("yyyy"), "a format such as"),
        (lambda: DataType.to_float(";"), "decimal_mark"),
    ):
        with pytest.raises(WorkspaceError, match=words):
            make_type()
    with pytest.raises(AttributeError, match="make a FileDataset"):
        DataType.to_stream  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(WorkspaceError, match="JSON lines are UTF-8"):
        Dataset.Tabular.from_json_lines_files("/x.jsonl", encoding="latin1")
    with pytest.raises(WorkspaceError, match="invalid_lines is one of 'error', 'drop'"):
        Dataset.Tabular.from_json_lines_files("/x.jsonl", invalid_lines="skip")


def test_validation_reads_the_beginning(store: Datastore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nope"):
        Dataset.Tabular.from_delimited_files(store.path("nope/*.csv"))
    with pytest.raises(InputError, match=r"0\.png"):
        Dataset.Tabular.from_parquet_files(store.path("mnist/0.png"))
    with pytest.raises(InputError, match="'price' not found"):
        Dataset.Tabular.from_delimited_files(store.path("sales/"), set_column_types={"price": DataType.to_float()})
    make(tmp_path, {"empty.csv": b""})
    with pytest.raises(UserMistake, match=r"empty\.csv|no rows"):
        Dataset.Tabular.from_delimited_files(str(tmp_path / "empty.csv"))


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    make(tmp_path, {"a.csv": b"id,n\n", "b.csv": b"id,n\n1,2\n"})
    assert list(Dataset.Tabular.from_delimited_files(str(tmp_path)).to_pandas_dataframe()["n"]) == [2]


def test_other_formats(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    parquet = Dataset.Tabular.from_parquet_files(str(tmp_path / "x.parquet"), set_column_types={"a": "float32"})
    lines = Dataset.Tabular.from_json_lines_files(str(tmp_path / "x.jsonl"))
    assert parquet.to_pandas_dataframe()["a"].dtype == "float32"
    pd.testing.assert_frame_equal(lines.to_pandas_dataframe(), frame)
    assert parquet.to_input()["format"] == "parquet"
    assert lines.to_input()["format"] == "json_lines"
    for dataset in (parquet, lines):
        assert InputSection.model_validate(dataset.to_input())


# Partitioned copies


@pytest.mark.parametrize("form", ["tuple", "path", "datastore"])
def test_a_partitioned_copy(ws: Workspace, store: Datastore, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.Tabular.from_delimited_files(store.path("sales/"))
    target = {"tuple": (store, "copy"), "path": store.path("copy/"), "datastore": store}[form]
    copy = dataset.partition_by(["store"], target, name="by_store")
    assert (copy.name, copy.version, copy.partition_keys) == ("by_store", 1, ["store"])
    assert Dataset.get_by_name(ws, "by_store") == copy
    frame = copy.to_pandas_dataframe()
    assert sorted(frame["amount"]) == [10, 20, 30, 40]
    assert sorted(map(str, copy.get_partition_key_values()[0].values())) == ["1"]
    assert len(copy.get_partition_key_values()) == 3
    section = copy.to_input()
    assert (section["format"], section["partition_format"]) == ("parquet", "hive")
    assert len(in_a_job(section)) == 3
    assert ("uploaded" in capsys.readouterr().out) == (not store.is_folder)
    if form != "datastore":
        with pytest.raises(OutputError, match=r"copy.* (not empty|is there already)"):
            dataset.partition_by(["store"], target)
    assert dataset.partition_by(["store"], (store, "other"), name="by_store", show_progress=False).version == 2


def test_the_files_of_a_partitioned_copy(folder: Datastore) -> None:
    dataset = Dataset.Tabular.from_delimited_files(folder.path("sales/")).take(3)
    copy = dataset.partition_by(["store"], (folder, "copy"), partition_as_file_dataset=True)
    assert type(copy) is FileDataset
    assert copy.name is None
    assert copy.get_partition_key_values() == [{"store": 1}, {"store": 2}]


def test_bad_partitions_are_told(folder: Datastore) -> None:
    dataset = Dataset.Tabular.from_delimited_files(folder.path("sales/"))
    for keys, target, words in (
        ("store", (folder, "c"), "partition_keys is a list"),
        (["stroe"], (folder, "c"), "stroe"),
        (["store"], "c", "target is a Datastore"),
        (["store"], folder.path(), "target is a Datastore"),
    ):
        with pytest.raises(UserMistake, match=words):
            dataset.partition_by(keys, target)  # type: ignore[arg-type]
    assert not (folder.folder / "c").exists()  # type: ignore[operator]


# Inputs and outputs of steps


@pytest.mark.parametrize("mode", ["mount", "download"])
def test_a_job_reads_files_and_shows_no_secret(blob: Datastore, new_job: Callable[..., Job], mode: str) -> None:
    dataset = Dataset.File.from_files(blob.path("mnist/"))
    config = DatasetConsumptionConfig("images", dataset, mode)
    job = new_job(
        "def run(mini_batch):\n    return [open(path).read() for path in mini_batch]\n",
        items=0,
        inputs=[config.to_input()],
        side_inputs={"labels": {"path": blob.url("labels.txt"), "storage": blob.storage_section()}},
    )
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert sorted(job.rows()) == ["one", "two", "zero"]
    assert OTHER_KEY not in done.stdout
    assert not [path for path in job.folder.rglob("*") if path.is_file() and OTHER_KEY.encode() in path.read_bytes()]


def test_a_job_reads_rows(store: Datastore, new_job: Callable[..., Job]) -> None:
    dataset = Dataset.Tabular.from_delimited_files(
        store.path("sales/*.csv"), partition_format="{file}.csv", set_column_types={"store": DataType.to_string()}
    ).drop_columns("file")
    script = "def run(mini_batch):\n    return [f'{list(mini_batch)} {text + text}' for text in mini_batch['store']]\n"
    job = new_job(script, items=0, inputs=[dataset.to_input()])
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert sorted(job.rows()) == [f"['store', 'amount'] {number}" for number in ("11", "11", "22", "33")]


def test_inputs_of_steps(store: Datastore) -> None:
    dataset = Dataset.File.from_files(store.path("mnist/"))
    plain = dataset.as_named_input("images")
    assert (plain.name, plain.dataset, plain.mode, plain.path_on_compute) == ("images", dataset, "direct", None)
    mount, download = plain.as_mount("/tmp/x"), plain.as_download()
    assert (mount.mode, mount.path_on_compute, plain.mode) == ("mount", "/tmp/x", "direct")
    assert (download.mode, download.as_direct().mode) == ("download", "direct")
    for config in (plain, mount):
        assert config.to_input() == dataset.to_input()
    assert download.to_input() == {**dataset.to_input(), "mode": "download"}
    assert isinstance(InputSection.model_validate(download.to_input()).to_dataset(Storage()), JobFiles)
    assert dataset.as_mount().name == f"input__{dataset.id[:8]}"
    assert (dataset.as_download().mode, dataset.as_direct().mode) == ("download", "direct")
    with pytest.raises(AttributeError, match="use as_mount"):
        plain.as_hdfs()  # type: ignore[attr-defined]


def test_a_parameter_may_stand_for_a_dataset(folder: Datastore) -> None:
    """A PipelineParameter is known by what it has."""
    default = Dataset.File.from_files(folder.path("mnist/"))
    single = Dataset.File.from_files(folder.path("mnist/0.png"))
    parameter = SimpleNamespace(name="mnist_param", default_value=default)
    config = DatasetConsumptionConfig("minist_param_config", parameter).as_mount()
    assert config.dataset is parameter
    assert config.to_input(single) == single.to_input()
    with pytest.raises(WorkspaceError, match="'minist_param_config' is no dataset yet"):
        config.to_input()
    with pytest.raises(WorkspaceError, match="is rows, which are always read where they are"):
        config.to_input(Dataset.Tabular.from_delimited_files(folder.path("sales/")))


def test_bad_inputs_are_told(folder: Datastore) -> None:
    dataset = Dataset.File.from_files(folder.path("mnist/"))
    rows = Dataset.Tabular.from_delimited_files(folder.path("sales/"))
    for name in ("", "a b", "1a", "a-b", None, 5):
        with pytest.raises(WorkspaceError, match="name of an input is made of letters"):
            dataset.as_named_input(name)  # type: ignore[arg-type]
    for given in (None, "mnist", folder.path("mnist/"), SimpleNamespace(name="p", default_value=5)):
        with pytest.raises(WorkspaceError, match="the input 'x' is a dataset, such as"):
            DatasetConsumptionConfig("x", given)
    with pytest.raises(WorkspaceError, match="is one of direct, mount, download"):
        DatasetConsumptionConfig("x", dataset, "hdfs")
    for wrong in (rows.as_named_input("x").as_mount, rows.as_named_input("x").as_download):
        with pytest.raises(WorkspaceError, match="is rows, which are always read where they are"):
            wrong()
    assert rows.as_named_input("x").as_direct().to_input() == rows.to_input()


def test_outputs_of_steps(folder: FolderDatastore, tmp_path: Path) -> None:
    plain = OutputFileDatasetConfig()
    assert plain.name.startswith("output_")
    assert plain.name != OutputFileDatasetConfig().name
    assert (plain.destination, plain.datastore, plain.path_on_datastore) == (None, None, None)
    output = OutputFileDatasetConfig("rows", (folder, "/out/{run-id}/{output-name}"), partition_format="{x}.csv")
    assert (output.datastore, output.path_on_datastore) == (folder, "out/{run-id}/{output-name}")
    assert output.path_of_run("r1") == "out/r1/rows"
    assert OutputFileDatasetConfig(destination=(folder, None)).path_of_run("r1") is None
    assert output.as_mount().as_upload(overwrite=True).mode == "upload"
    assert output.register_on_complete("results", tags={"a": "b"}).registered == ("results", None, {"a": "b"})
    taken = output.as_input("again")
    assert (taken.name, taken.dataset, taken.mode) == ("again", output, "mount")
    assert output.as_input().name == "rows"
    make(tmp_path, {"out/1.csv": b"a,b\n1,2\n", "out/notes.txt": b""})
    assert output.dataset_at(str(tmp_path / "out")).partition_keys == ["x"]
    rows = output.read_delimited_files(path_glob="*.csv").drop_columns("b")
    assert isinstance(rows, OutputTabularDatasetConfig)
    assert (rows.name, rows.as_input("x").mode, rows.as_input("x").dataset) == ("rows", "direct", rows)
    make(tmp_path, {"o*[t]/1.csv": b"a,b\n3,4\n", "odd/1.csv": b""})
    for place, a in (("out", 1), ("o*[t]", 3)):
        made = rows.dataset_at(str(tmp_path / place))
        assert made.to_pandas_dataframe().to_dict("list") == {"a": [a], "x": ["1"]}
    assert rows.keep_columns("b").kept == ("b",)
    assert output.read_parquet_files().dataset_at("/x").format == "parquet"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "a b"}, "name of an output"),
        ({"destination": "out"}, "destination"),
        ({"destination": (1, 2)}, "tuple"),
    ],
    ids=str,
)
def test_bad_outputs_are_told(given: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkspaceError, match=words):
        OutputFileDatasetConfig(**given)


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (lambda: Dataset.Tabular.from_sql_query, "export the query's rows"),
        (lambda: Dataset.File.upload_directory, "datastore.upload"),
        (lambda: Dataset.from_delimited_files, "has no 'from_delimited_files'"),
        (lambda: Dataset.Tabular.from_delimited_file, "did you mean from_delimited_files"),
        (lambda: Dataset.File.from_files("/", validate=False).to_pandas_dataframe, "make a table of the files"),
        (lambda: Dataset.Tabular.from_parquet_files("/", validate=False).filter, "run\\(mini_batch\\)"),
    ],
)
def test_what_there_is_not_is_told(find: Any, words: str) -> None:
    with pytest.raises(AttributeError, match=words):
        find()
    with pytest.raises(WorkspaceError, match=r"Dataset\.File\.from_files"):
        Dataset()


def test_names_that_are_no_text_are_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.txt")
    (tmp_path / name).touch()
    dataset = Dataset.File.from_files(str(tmp_path))
    assert dataset.to_path() == [f"/{name}"]
    with pytest.raises(WorkspaceError, match="no valid text"):
        dataset.take(1).to_input()

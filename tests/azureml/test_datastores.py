"""Datastores: registered by name, their secrets out of sight, files brought there and back whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.datastores import transfer
from mpi_prs.azureml.datastores.datastore import (
    AzureBlobDatastore,
    AzureFileDatastore,
    DataPath,
    Datastore,
    FolderDatastore,
    UploadedPath,
)
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.core.errors import InputError, OutputError, UserMistake, WorkspaceError
from mpi_prs.core.records import write_json
from mpi_prs.storage import stores
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.stores import Patience
from tests.support.azurite import KEYS, OTHER_ACCOUNT, OTHER_KEY, Azurite
from tests.support.fault_proxy import FaultProxy, fault_proxy

BLOBS = {"mnist/0.png": b"zero", "mnist/1.png": b"one", "labels.txt": b"labels", "deep/a/b/.hidden": b"h"}


@pytest.fixture
def blobs(azurite: Azurite) -> Azurite:
    """The account of the tutorials."""
    return azurite.of(OTHER_ACCOUNT)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.create("tests", folder=tmp_path / "ws", show_output=False)


@pytest.fixture
def container(blobs: Azurite) -> str:
    """One that everybody can read."""
    name = f"public-{uuid.uuid4().hex[:12]}"
    blobs.container(name, BLOBS, public_access="container")
    return name


@pytest.fixture
def private(blobs: Azurite) -> str:
    name = f"private-{uuid.uuid4().hex[:12]}"
    blobs.container(name, BLOBS)
    return name


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.port) as proxy:
        yield proxy


@pytest.fixture
def store(ws: Workspace, blobs: Azurite, private: str) -> AzureBlobDatastore:
    """A container with its key."""
    return Datastore.register_azure_blob_container(
        ws, "store", private, OTHER_ACCOUNT, account_key=OTHER_KEY, endpoint=blobs.account_url()
    )


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def blobs_in(azurite: Azurite, container: str) -> dict[str, bytes]:
    with azurite.client() as client, client.get_container_client(container) as found:
        return {blob: found.download_blob(blob).readall() for blob in found.list_blob_names()}


# Registration


def test_the_public_container_of_the_tutorials(ws: Workspace, blobs: Azurite, container: str, tmp_path: Path) -> None:
    """The workspace's setting says where the account is, each time that the datastore is used."""
    ws.update_settings(storage_endpoints={OTHER_ACCOUNT: blobs.account_url()})
    made = Datastore.register_azure_blob_container(
        ws, datastore_name="mnist_datastore", container_name=container, account_name=OTHER_ACCOUNT, overwrite=True
    )
    assert type(made) is AzureBlobDatastore
    assert made == Datastore.get(ws, "mnist_datastore") == Datastore(ws, "mnist_datastore")
    assert made == ws.datastores["mnist_datastore"]
    assert (made.name, made.container_name, made.account_name) == ("mnist_datastore", container, OTHER_ACCOUNT)
    assert (made.datastore_type, made.credential_type, made.is_folder) == ("AzureBlob", "None", False)
    assert made.url("mnist/") == f"abfs://{container}/mnist/"
    assert made.storage_section() == {
        "account_name": OTHER_ACCOUNT,
        "account_url": blobs.account_url(),
        "anonymous": True,
    }
    assert made.download(tmp_path / "here", show_progress=False) == len(BLOBS)
    ws.update_settings(storage_endpoints={OTHER_ACCOUNT: "https://elsewhere.example/x/"})
    assert made.storage_section()["account_url"] == made.endpoint == "https://elsewhere.example/x"
    ws.update_settings(storage_endpoints=None)
    assert "account_url" not in made.storage_section()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"endpoint": "core.windows.net"}, "https://pipelinedata.blob.core.windows.net"),
        ({"endpoint": "core.chinacloudapi.cn", "protocol": "http"}, "http://pipelinedata.blob.core.chinacloudapi.cn"),
        ({"protocol": "http"}, "http://pipelinedata.blob.core.windows.net"),
        ({"endpoint": "http://10.0.0.1:10000/pipelinedata/"}, "http://10.0.0.1:10000/pipelinedata"),
    ],
)
def test_the_address_of_an_account(ws: Workspace, given: dict[str, Any], expected: str | None) -> None:
    made = Datastore.register_azure_blob_container(
        ws, "there", "container", OTHER_ACCOUNT, skip_validation=True, **given
    )
    assert made.storage_section().get("account_url") == expected


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o177, 0o777])
def test_secrets_lie_where_only_their_owner_can_read_them(
    ws: Workspace, blobs: Azurite, private: str, umask: int
) -> None:
    with_umask = os.umask(umask)
    try:
        made = Datastore.register_azure_blob_container(
            ws, "secret", private, OTHER_ACCOUNT, account_key=f" {OTHER_KEY}\n", endpoint=blobs.account_url()
        )
    finally:
        os.umask(with_umask)
    file = ws.folder / "secrets" / "secret.account_key"
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert made.storage_section()["account_key_file"] == str(file)
    assert Storage(**made.storage_section()).resolved().account_key == OTHER_KEY
    assert OTHER_KEY not in repr(made) + str(vars(made)) + json.dumps(made.storage_section())
    elsewhere = [path for path in ws.folder.rglob("*") if path.is_file() and path != file]
    os.chmod(ws.layout.datastore("secret"), 0o600)
    assert not any(OTHER_KEY.encode() in path.read_bytes() for path in elsewhere if os.access(path, os.R_OK))
    with pytest.raises(AttributeError, match="secrets stay in their files"):
        made.account_key  # noqa: B018


def test_a_folder_of_secrets_that_others_could_read_is_closed_again(ws: Workspace, store: AzureBlobDatastore) -> None:
    assert store.credential_type == "AccountKey"
    ws.layout.secrets.chmod(0o755)
    Datastore.register_azure_blob_container(
        ws, "other", "container", "account", sas_token="?sv=1&sig=x", skip_validation=True
    )
    assert stat.S_IMODE(ws.layout.secrets.stat().st_mode) == 0o700


def test_another_registration_takes_the_secret_along(ws: Workspace, store: AzureBlobDatastore) -> None:
    secrets = ws.layout.secrets
    assert store.storage_section()["account_key_file"] == str(secrets / "store.account_key")
    Datastore.register_azure_blob_container(
        ws, "store", "container", "account", sas_token="sv=1&sig=x", skip_validation=True, overwrite=True
    )
    assert [path.name for path in secrets.iterdir()] == ["store.sas_token"]
    assert Datastore.get(ws, "store").storage_section() == {
        "account_name": "account",
        "sas_token_file": str(secrets / "store.sas_token"),
    }
    Datastore.register_folder(ws, "store", ws.folder, overwrite=True)
    assert list(secrets.iterdir()) == []
    assert Datastore.get(ws, "store").storage_section() == {}


def test_a_connection_string_says_it_all(ws: Workspace, blobs: Azurite, private: str, tmp_path: Path) -> None:
    made = Datastore.register_azure_blob_container(
        ws, "by_string", private, connection_string=blobs.connection_string()
    )
    assert (made.account_name, made.endpoint, made.credential_type) == (
        OTHER_ACCOUNT,
        blobs.account_url(),
        "AccountKey",
    )
    assert made.download(tmp_path / "x", "mnist", show_progress=False) == 2
    text = "DefaultEndpointsProtocol=https;AccountName=abc;EndpointSuffix=core.chinacloudapi.cn;SharedAccessSignature=s"
    made = Datastore.register_azure_blob_container(
        ws, "china", "container", connection_string=text, skip_validation=True
    )
    assert made.endpoint == "https://abc.blob.core.chinacloudapi.cn"
    assert made.credential_type == "Sas"
    text = "UseDevelopmentStorage=true"
    made = Datastore.register_azure_blob_container(ws, "dev", "container", connection_string=text, skip_validation=True)
    assert (made.account_name, made.endpoint) == ("devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1")
    assert made.credential_type == "AccountKey"


def test_credentials_may_stay_in_the_environment(
    ws: Workspace, blobs: Azurite, private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", OTHER_KEY)
    made = Datastore.register_azure_blob_container(
        ws, "env", private, OTHER_ACCOUNT, endpoint=blobs.account_url(), credentials_from_environment=True
    )
    assert made.credential_type == "Environment"
    assert made.storage_section() == {"account_name": OTHER_ACCOUNT, "account_url": blobs.account_url()}
    assert not ws.layout.secrets.exists()
    assert made.download(tmp_path / "x", "mnist", show_progress=False) == 2
    lake = Datastore.register_azure_data_lake_gen2(
        ws, "lake", private, OTHER_ACCOUNT, endpoint=blobs.account_url(), overwrite=True
    )
    assert lake.url("x") == f"abfs://{private}/x"
    assert lake.storage_section() == made.storage_section()


def test_a_container_can_be_made(ws: Workspace, blobs: Azurite) -> None:
    name = f"new-{uuid.uuid4().hex[:12]}"
    for _ in range(2):
        Datastore.register_azure_blob_container(
            ws,
            "new",
            name,
            OTHER_ACCOUNT,
            account_key=OTHER_KEY,
            endpoint=blobs.account_url(),
            overwrite=True,
            create_if_not_exists=True,
        )
    assert blobs_in(blobs, name) == {}


SECRET = "S3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CREQ=="


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"container_name": "missing-one", "account_key": OTHER_KEY}, ["there is no container 'missing-one'"]),
        ({}, ["gives nothing without credentials", "public"]),
        ({"account_key": SECRET}, ["account key", "is not accepted"]),
        ({"account_key": f"{SECRET}; no base64"}, ["account key"]),
        ({"sas_token": f"sv=2020-08-04&sig={SECRET}"}, ["SAS token", "is not accepted"]),
        ({"account_key": SECRET, "create_if_not_exists": True}, ["account key", "is not accepted"]),
        ({"connection_string": f"AccountName=pipelinedata;AccountKey={SECRET};BlobEndpoint=URL"}, ["not accepted"]),
    ],
)
def test_what_does_not_work_is_not_registered_and_no_secret_is_shown(
    ws: Workspace, blobs: Azurite, private: str, given: dict[str, Any], words: list[str]
) -> None:
    if "connection_string" in given:
        given = {"connection_string": given["connection_string"].replace("URL", blobs.account_url())}
    else:
        given = {"account_name": OTHER_ACCOUNT, "endpoint": blobs.account_url(), **given}
    with pytest.raises(WorkspaceError) as caught:
        Datastore.register_azure_blob_container(ws, "bad", **{"container_name": private, **given})
    for word in [*words, "'bad'", "skip_validation"]:
        assert word in str(caught.value)
    assert "S3CRET" not in str(caught.value)
    assert "bad" not in ws.datastores
    assert not ws.layout.secrets.exists()


def test_a_store_that_is_not_there_is_no_long_wait(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE", Patience(unreachable=0.1, first=0.05))
    with pytest.raises(WorkspaceError, match=r"was not registered: .*cannot connect to http://127\.0\.0\.1:1/x"):
        Datastore.register_azure_blob_container(
            ws, "gone", "container", "account", endpoint="http://127.0.0.1:1/x", account_key=KEYS[OTHER_ACCOUNT]
        )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"datastore_name": 5}, ["name of a datastore", "5"]),
        ({"datastore_name": "a/b"}, ["name of a datastore", "'/'"]),
        ({"container_name": "No_Container"}, ["container_name", "lower-case"]),
        ({"container_name": None}, ["container_name", "NoneType"]),
        ({"account_name": None}, ["account_name is missing"]),
        ({"account_name": "https://x"}, ["account_name"]),
        ({"account_name": "Account"}, ["account_name", "lower-case"]),
        ({"sas_token": "s3cret", "account_key": "s3cret"}, ["sas_token and account_key", "one of them"]),
        ({"account_key": "s3cret", "credentials_from_environment": True}, ["account_key", "one of them"]),
        ({"account_key": "s3cret\ns3cret"}, ["account_key", "one line"]),
        ({"account_key": b"s3cret"}, ["account_key", "one line"]),
        ({"protocol": "ftp"}, ["protocol", "'ftp'"]),
        ({"endpoint": "https://x.example/?sig=s3cret"}, ["endpoint", "sas_token"]),
        ({"endpoint": 5}, ["endpoint", "core.windows.net"]),
        ({"endpoint": "ftp://x"}, ["endpoint", "ftp"]),
        ({"connection_string": "s3cret"}, ["connection string"]),
        ({"connection_string": "AccountKey=s3cret"}, ["connection string", "AccountName"]),
        ({"connection_string": "AccountName=other;AccountKey=s3cret"}, ["another account"]),
        ({"connection_string": "AccountName=account;AccountKey=s3cret", "sas_token": "s3cret"}, ["both given"]),
        ({"connection_string": 5}, ["connection string"]),
    ],
    ids=str,
)
def test_bad_values_are_named_and_no_secret_is_shown(ws: Workspace, given: dict[str, Any], words: list[str]) -> None:
    usual: dict[str, Any] = {"datastore_name": "x", "container_name": "container", "account_name": "account"}
    with pytest.raises(WorkspaceError) as caught:
        Datastore.register_azure_blob_container(ws, skip_validation=True, **{**usual, **given})
    for word in words:
        assert word in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert sorted(ws.datastores) == ["workspaceblobstore", "workspacefilestore"]


def test_a_name_is_taken_once(ws: Workspace, tmp_path: Path) -> None:
    Datastore.register_folder(ws, "data", tmp_path)
    for name in ("data", "workspaceblobstore"):
        with pytest.raises(WorkspaceError, match=rf"there is a datastore '{name}' already; give overwrite=True"):
            Datastore.register_folder(ws, name, tmp_path)
        with pytest.raises(WorkspaceError, match=r"already; give overwrite=True"):
            Datastore.register_azure_blob_container(ws, name, "container", "account")


def test_of_two_that_register_one_name_at_once_one_is_told(ws: Workspace) -> None:
    outcomes: list[object] = []
    start = threading.Barrier(8)

    def register(number: int) -> None:
        start.wait()
        try:
            outcomes.append(
                Datastore.register_azure_blob_container(
                    ws, "one", "container", "account", account_key=f"key{number}", skip_validation=True
                )
            )
        except WorkspaceError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, Datastore) for outcome in outcomes) == 1
    assert (ws.layout.secrets / "one.account_key").read_text().startswith("key")


def test_unknown_names_get_the_near_ones(ws: Workspace, tmp_path: Path) -> None:
    Datastore.register_folder(ws, "mnist_datastore", tmp_path)
    for find in (lambda: Datastore.get(ws, "mnist_datastor"), lambda: Datastore(ws, "MNIST_datastore")):
        with pytest.raises(WorkspaceError, match=r"there is no datastore .* did you mean 'mnist_datastore'"):
            find()
    with pytest.raises(KeyError, match="did you mean 'mnist_datastore'"):
        ws.datastores["minst_datastore"]
    with pytest.raises(WorkspaceError, match="the name of a datastore is text"):
        Datastore.get(ws, 5)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="mpi_prs reads files"):
        Datastore.register_azure_sql_database  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"kind": "tape"}', '{"folder": "/x"}', '{"kind": "folder", "folder": 5}', '{"kind": 1}']
)
def test_a_broken_record_is_named(ws: Workspace, content: str) -> None:
    path = ws.layout.datastore("broken")
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(WorkspaceError, match=r"the datastore 'broken'.*broken\.json"):
        Datastore.get(ws, "broken")


# The default datastores, and folders


def test_every_workspace_has_two_datastores(ws: Workspace, tmp_path: Path) -> None:
    default = ws.get_default_datastore()
    assert default == Datastore.get_default(ws) == Datastore(ws)
    assert (default.name, default.folder, default.is_folder) == ("workspaceblobstore", ws.layout.blob_store, True)
    assert sorted(ws.datastores) == ["workspaceblobstore", "workspacefilestore"]
    with pytest.raises(WorkspaceError, match="every workspace has the datastore 'workspacefilestore'"):
        Datastore.get(ws, "workspacefilestore").unregister()
    other = Datastore.register_folder(ws, "other", tmp_path)
    other.set_as_default()
    assert ws.get_default_datastore() == other
    other.unregister()
    assert "other" not in ws.datastores
    assert tmp_path.exists()
    with pytest.raises(WorkspaceError, match="there is no datastore 'other'"):
        ws.get_default_datastore()


def test_a_default_datastore_can_be_replaced_and_comes_back(ws: Workspace, tmp_path: Path) -> None:
    Datastore.register_folder(ws, "workspaceblobstore", tmp_path, overwrite=True)
    assert ws.get_default_datastore().folder == tmp_path
    ws.get_default_datastore().unregister()
    assert ws.get_default_datastore().folder == ws.layout.blob_store


def test_folders(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkspaceError, match="is not there; correct the path, or give create_if_not_exists"):
        Datastore.register_folder(ws, "data", "data")
    made = Datastore.register_folder(ws, "data", "data", create_if_not_exists=True)
    assert type(made) is FolderDatastore
    assert (made.folder, made.datastore_type) == (tmp_path / "data", "Folder")
    assert made.url("a/./b//c/") == str(tmp_path / "data/a/b/c")
    assert made.storage_section() == {}
    (tmp_path / "file").touch()
    for folder, words in (("file", "is a file"), ("abfs://x/y", "path of a folder"), (5, "path of a folder")):
        with pytest.raises(WorkspaceError, match=words):
            Datastore.register_folder(ws, "other", folder)  # type: ignore[arg-type]
    assert Datastore.register_folder(ws, "later", "/not/here", skip_validation=True).folder == Path("/not/here")


def test_a_file_share_is_the_folder_that_it_is_mounted_at(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mnt/share").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match=r"nothing says where the file share 'share' of 'account' is mounted"):
        Datastore.register_azure_file_share(ws, "files", "share", "account", account_key="s3cret")
    made = Datastore.register_azure_file_share(ws, "files", "share", "account", folder=tmp_path / "mnt/share")
    assert type(made) is AzureFileDatastore
    assert (made.folder, made.container_name, made.datastore_type) == (tmp_path / "mnt/share", "share", "AzureFile")
    ws.update_settings(storage_endpoints={"account": (tmp_path / "mnt").as_uri()})
    made = Datastore.register_azure_file_share(ws, "files", "share", "account", overwrite=True)
    assert made == Datastore.get(ws, "files")
    assert made.folder == tmp_path / "mnt/share"
    assert "s3cret" not in ws.layout.datastore("files").read_text()


def test_a_service_principal_belongs_into_the_environment(ws: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="AZURE_CLIENT_SECRET") as caught:
        Datastore.register_azure_data_lake_gen2(ws, "lake", "fs", "account", "tenant", "client", "s3cret")
    assert "s3cret" not in str(caught.value)


# Paths


def test_paths_in_a_datastore(ws: Workspace) -> None:
    store = ws.get_default_datastore()
    path = store.path("/mnist//train/")
    assert (path.path_on_datastore, path.datastore_name) == ("mnist/train/", "workspaceblobstore")
    assert path == DataPath(store, "mnist/train/")
    assert path.url == str(ws.layout.blob_store / "mnist/train")
    assert path.path("0.png").path_on_datastore == "mnist/train/0.png"
    assert store.path().path_on_datastore == ""
    assert repr(path) == "DataPath(datastore='workspaceblobstore', path_on_datastore='mnist/train/')"
    for wrong in ("../x", "a/../../b", "a\0b", 5):
        with pytest.raises(WorkspaceError, match="a path in a datastore"):
            store.path(wrong)  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match="the datastore of a DataPath is a Datastore"):
        DataPath("workspaceblobstore", "x")  # type: ignore[arg-type]


# Transfer


@pytest.fixture(params=["blob", "folder"])
def any_store(request: pytest.FixtureRequest, ws: Workspace, tmp_path: Path) -> Datastore:
    """Both kinds, with the same files."""
    if request.param == "blob":
        found: Datastore = request.getfixturevalue("store")
        return found
    return Datastore.register_folder(ws, "store", make(tmp_path / "store", BLOBS))


def test_everything_is_downloaded_under_its_whole_name(any_store: Datastore, tmp_path: Path) -> None:
    assert any_store.download(tmp_path / "all", show_progress=False) == 4
    assert files_in(tmp_path / "all") == BLOBS
    assert any_store.download(str(tmp_path / "part"), prefix="mnist", show_progress=False) == 2
    assert files_in(tmp_path / "part") == {name: BLOBS[name] for name in ("mnist/0.png", "mnist/1.png")}
    assert any_store.download(tmp_path / "one", prefix="/mnist/0.png", show_progress=False) == 1
    assert files_in(tmp_path / "one") == {"mnist/0.png": b"zero"}


def test_what_is_here_stays_unless_it_should_be_overwritten(any_store: Datastore, tmp_path: Path) -> None:
    make(tmp_path / "here", {"mnist/0.png": b"mine"})
    assert any_store.download(tmp_path / "here", show_progress=False) == 3
    assert (tmp_path / "here/mnist/0.png").read_bytes() == b"mine"
    assert any_store.download(tmp_path / "here", show_progress=False) == 0
    assert any_store.download(tmp_path / "here", overwrite=True, show_progress=False) == 4
    assert files_in(tmp_path / "here") == BLOBS


def test_nothing_to_download_is_told(any_store: Datastore, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="there is nothing at 'nope/' in"):
        any_store.download(tmp_path / "x", "nope/", show_progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="target_path is the folder"):
        any_store.download(tmp_path / "file", show_progress=False)


def test_a_folder_is_uploaded(any_store: Datastore, tmp_path: Path) -> None:
    source = make(tmp_path / "source", {"a.txt": b"a", "sub/.hidden": b"h", "sub/b.txt": b"b" * 100_000})
    done = any_store.upload(source, "up/here", show_progress=False)
    assert isinstance(done, UploadedPath)
    assert (done.uploaded, done.skipped, done.path_on_datastore) == (3, 0, "up/here")
    (source / "a.txt").write_bytes(b"new")
    done = any_store.upload(str(source), target_path="up/here/", show_progress=False)
    assert (done.uploaded, done.skipped) == (0, 3)
    any_store.download(tmp_path / "back", "up", show_progress=False)
    assert files_in(tmp_path / "back/up/here") == {**files_in(source), "a.txt": b"a"}
    assert any_store.upload(source, "up/here", overwrite=True, show_progress=False).uploaded == 3
    any_store.download(tmp_path / "back", "up", overwrite=True, show_progress=False)
    assert files_in(tmp_path / "back/up/here") == files_in(source)


def test_files_are_uploaded_below_what_they_have_in_common(any_store: Datastore, tmp_path: Path) -> None:
    make(tmp_path / "s", {"a/1.txt": b"1", "b/2.txt": b"2"})
    files = [str(tmp_path / "s/a/1.txt"), str(tmp_path / "s/b/2.txt"), str(tmp_path / "s/b/2.txt")]
    assert any_store.upload_files(files, target_path="x", show_progress=False).uploaded == 2
    any_store.upload_files(files[:1], target_path="y", show_progress=False)
    any_store.upload_files(files, relative_root=str(tmp_path), target_path="z", show_progress=False)
    any_store.download(tmp_path / "back", show_progress=False)
    found = files_in(tmp_path / "back").keys() - BLOBS.keys()
    assert found == {"x/a/1.txt", "x/b/2.txt", "y/1.txt", "z/s/a/1.txt", "z/s/b/2.txt"}


def test_bad_uploads_are_named(ws: Workspace, tmp_path: Path) -> None:
    store = ws.get_default_datastore()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for folder, words in (
        (tmp_path / "no", "is not there"),
        (tmp_path / "file", "is a file: use upload_files"),
        (tmp_path / "empty", "no files"),
        (None, "src_dir is the path of a file or folder of this machine, but got None"),
    ):
        with pytest.raises(WorkspaceError, match=words):
            store.upload(folder)
    for files, words in (
        ("file", "files is a list"),
        ([], "it is empty"),
        ([3], r"files\[0\] is the path of a file"),
        ([tmp_path / "no"], "is not there"),
        ([tmp_path / "empty"], "is a folder: use upload"),
    ):
        with pytest.raises(WorkspaceError, match=words):
            store.upload_files(files)  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match=r"target_path is the path of a file or folder .* but got ''"):
        store.download("")
    for use in (Datastore.get, Datastore.register_folder):
        with pytest.raises(WorkspaceError, match=r"expected a Workspace, such as .*, but got 'ws'"):
            use("ws", "x", **({"folder": "/"} if use is Datastore.register_folder else {}))  # type: ignore[operator]
    with pytest.raises(WorkspaceError, match="is not below relative_root"):
        store.upload_files([tmp_path / "file"], relative_root=tmp_path / "empty")
    with pytest.raises(WorkspaceError, match="does not lead upwards"):
        store.upload_files([tmp_path / "file"], target_path="../x")


def test_run_directories_are_not_downloaded(any_store: Datastore, tmp_path: Path) -> None:
    source = make(tmp_path / "out", {"rows.txt": b"r", "_run/journal": b"j"})
    any_store.upload(source, "azureml/id/out", show_progress=False)
    assert any_store.download(tmp_path / "back", "azureml/id", show_progress=False) == 1
    assert files_in(tmp_path / "back") == {"azureml/id/out/rows.txt": b"r"}


def test_a_wrong_key_shows_no_secret_later_either(ws: Workspace, blobs: Azurite, private: str, tmp_path: Path) -> None:
    made = Datastore.register_azure_blob_container(
        ws, "bad", private, OTHER_ACCOUNT, account_key=SECRET, endpoint=blobs.account_url(), skip_validation=True
    )
    make(tmp_path / "s", {"x": b"x"})
    attempts = (
        lambda: made.download(tmp_path, show_progress=False),
        lambda: made.upload(tmp_path / "s", show_progress=False),
    )
    for attempt in attempts:
        with pytest.raises(UserMistake, match="not accepted") as caught:
            attempt()
        assert "S3CRET" not in str(caught.value)
    ws.layout.secret("bad", "account_key").unlink()
    with pytest.raises(InputError, match=r"account_key_file: cannot read .*bad\.account_key"):
        made.download(tmp_path / "x", show_progress=False)


def test_a_key_that_was_corrected_counts_at_once(ws: Workspace, blobs: Azurite, private: str, tmp_path: Path) -> None:
    """Although the process has connections with the wrong one."""
    for key in (SECRET, OTHER_KEY):
        made = Datastore.register_azure_blob_container(
            ws,
            "corrected",
            private,
            OTHER_ACCOUNT,
            account_key=key,
            endpoint=blobs.account_url(),
            skip_validation=True,
            overwrite=True,
        )
        if key == SECRET:
            with pytest.raises(InputError, match="not accepted"):
                made.download(tmp_path / "x", show_progress=False)
    assert made.download(tmp_path / "x", show_progress=False) == 4


def test_a_store_that_stumbles_is_asked_again(
    ws: Workspace, blobs: Azurite, private: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE", Patience(first=0.01, longest=0.05))
    made = Datastore.register_azure_blob_container(
        ws, "slow", private, OTHER_ACCOUNT, account_key=OTHER_KEY, endpoint=blobs.account_url(proxy.port)
    )
    proxy.throttle(4)
    assert made.download(tmp_path / "here", show_progress=False) == 4
    assert files_in(tmp_path / "here") == BLOBS
    proxy.throttle(4)
    assert made.upload(make(tmp_path / "up", {"a": b"a", "b": b"b"}), "up", show_progress=False).uploaded == 2
    assert {"up/a", "up/b"} < blobs_in(blobs, private).keys()


def test_a_download_that_fails_leaves_no_part_of_a_file(
    ws: Workspace, blobs: Azurite, private: str, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE", Patience(seconds=0.1, first=0.05))
    blobs.large_blob(private, "large.bin", b"x" * 2**20, 8)
    made = Datastore.register_azure_blob_container(
        ws, "breaks", private, OTHER_ACCOUNT, account_key=OTHER_KEY, endpoint=blobs.account_url(proxy.port)
    )
    proxy.throttle(1000, after=2)  # one says how large it is, one has the first range
    with pytest.raises(InputError, match=r"cannot read abfs://.*/large\.bin"):
        made.download(tmp_path / "here", "large.bin", show_progress=False)
    assert not (tmp_path / "here").exists() or files_in(tmp_path / "here") == {}


def test_a_copy_that_fails_leaves_no_part_of_a_file(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Datastore.register_folder(ws, "store", make(tmp_path / "store", BLOBS))

    def full(_descriptor: int, _mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)  # the last thing before the copy gets its name
    with pytest.raises(WorkspaceError, match=r"cannot copy .*No space left on device: free some space"):
        store.download(tmp_path / "here", show_progress=False)
    assert files_in(tmp_path / "here") == {}


def test_an_upload_to_a_container_that_is_gone_is_told(ws: Workspace, blobs: Azurite, tmp_path: Path) -> None:
    made = Datastore.register_azure_blob_container(
        ws,
        "gone",
        "gone-container",
        OTHER_ACCOUNT,
        account_key=OTHER_KEY,
        endpoint=blobs.account_url(),
        skip_validation=True,
    )
    with pytest.raises(OutputError, match="there is no container 'gone-container'"):
        made.upload(make(tmp_path / "s", {"x": b"x"}), overwrite=True, show_progress=False)


def test_progress_is_told_in_lines(
    any_store: Datastore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    any_store.download(tmp_path / "here")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("downloaded 4 files (14 bytes) from store in ")
    monkeypatch.setattr(transfer, "_LINE_SECONDS", 0.0001)
    any_store.download(tmp_path / "again")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("downloading 1 of 4 files, ")
    any_store.download(tmp_path / "here")
    assert capsys.readouterr().out.endswith("4 were there already (overwrite=True replaces them)\n")
    any_store.download(tmp_path / "here", show_progress=False)
    assert capsys.readouterr().out == ""


def test_progress_is_a_bar_in_a_terminal(
    ws: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Datastore.register_folder(ws, "store", make(tmp_path / "store", BLOBS))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    store.download(tmp_path / "here")
    out = capsys.readouterr().out
    assert "━" in out
    assert "4 of 4 files, 14 bytes" in out


# Records


def test_a_record_of_another_version_is_read(ws: Workspace) -> None:
    write_json(ws.layout.datastore("new"), {"kind": "folder", "folder": "/x", "colour": "red"})
    assert Datastore.get(ws, "new").folder == Path("/x")

"""Remote stores: listed, read and downloaded, from a real Azurite and by way of a proxy that makes trouble."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError
from mpi_prs.core.secrecy import scrub
from mpi_prs.core.urls import Glob, Names, is_url, of_texts
from mpi_prs.inputs.listing import FileInput, list_files
from mpi_prs.storage import azure, stores
from mpi_prs.storage.credentials import ENVIRONMENT, Storage
from mpi_prs.storage.downloading import download, local_name
from mpi_prs.storage.remote import RemoteFiles, list_urls, list_versions
from mpi_prs.storage.stores import Patience, safe_path
from tests.support.azurite import ACCOUNT, KEY, Azurite
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.jobs import REPOSITORY

TREE = {
    "a.txt": b"A",
    "day-1/x.csv": b"one",
    "day-1/y.csv": b"three",
    "day-2/x.csv": b"",
    "day-2/deep/er/z.csv": b"z",
    "day/w.csv": b"w",
    "day-1/.hidden": b"h",
    ".git/config": b"c",
    "ü b/[1].txt": b"u",
    "d1": b"1",
    "d[1]/x": b"x",
    "d[1]/y/z": b"z",
}
VISIBLE = sum("." not in (path[0], path.rpartition("/")[2][0]) for path in TREE)
PATTERNS = [
    "",
    "a.txt",
    "day-1",
    "day-1/",
    "*",
    "*/*.csv",
    "day-*/x.csv",
    "day-*/",
    "day-[2-9]/**",
    "**/*.csv",
    "**/x.csv",
    "**/er/**",
    "day-2/**/z.csv",
    "day-1/.hid*",
    ".git/*",
    "ü b/[1].txt",
    "?.txt",
    ".",
    "./day-1",
    "./day-*/./x.csv",
    "day-1/.",
    "day-*/.",
    "*/.",
    "a.txt/",
    "day-?",
    "day-[!1]/*",
    "*.tx[t]",
    "d[1]",
    "d[1]/",
    "d[1]/*",
    "d[[]1]/**",
    "[d]1",
    "*/",
    "**",
    "**/",
    "**/**/z*",
    "*/**/*",
    "[.]git/*",
    "*git/*",
    "day-1/*.CSV",
    "nope",
    "nope/",
    "nope*/**",
]
"""What finds nothing is refused everywhere."""


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PATIENCE", Patience(seconds=10, unreachable=0.2, first=0.01, longest=0.1))


@pytest.fixture(scope="module")
def tree(azurite: Azurite) -> str:
    """A container with :data:`TREE`."""
    azurite.container("tree", TREE)
    return "abfs://tree"


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.port) as proxy:
        yield proxy


def in_folder(folder: Path) -> list[str]:
    """Every file below a folder, whatever its name."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# What a URL and a storage are


@pytest.mark.parametrize("text", ["abfs://con/x", "https://host/x", "s3+x://b", "file:///x"])
def test_a_url_is_known_by_its_scheme(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize("text", ["data/x", "/data://x", "C:/x", "1abc://x", ""])
def test_a_path_is_no_url(text: str) -> None:
    assert not is_url(text)


def test_nothing_of_fsspec_is_imported_before_the_first_url() -> None:
    modules = ["storage.remote", "storage.stores", "storage.downloading", "storage.upload"]
    modules += ["inputs.near.staging", "inputs.near.side_inputs", "inputs.loading"]
    statement = "; ".join(f"import mpi_prs.{name}" for name in modules)
    heavy = {"fsspec", "adlfs", "azure", "aiohttp", "pandas"}
    check = f"import sys; assert not {heavy} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", f"{statement}; {check}"], check=True, cwd=REPOSITORY)


def test_secrets_show_neither_in_repr_nor_in_public(tmp_path: Path) -> None:
    (tmp_path / "sas").write_text("sv=1&sig=TOPSECRET\n")
    storage = Storage(
        account_name="name",
        connection_string="AccountName=name;AccountKey=TOPSECRET",
        sas_token_file=str(tmp_path / "sas"),
        account_key="TOPSECRET",
        options={"secret": "TOPSECRET", "client_kwargs": {"key": "TOPSECRET"}},
    )
    assert "TOPSECRET" not in repr(storage) + repr(storage.resolved()) + str(storage.public())
    assert "TOPSECRET" not in scrub("what TOPSECRET says sv=1&sig=TOPSECRET", storage.resolved().secrets())
    assert storage.public()["options"] == ["client_kwargs", "secret"]


@pytest.mark.parametrize(
    "text",
    [
        "https://a.blob.core.windows.net/c/b?sv=1&sig=HIDE&x=1",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=HIDE;EndpointSuffix=x",
        "SharedAccessSignature=sv=1&sig=HIDE",
        "ftp://user:HIDE@host/x",
        "https://b.s3.amazonaws.com/x?X-Amz-Signature=HIDE",
    ],
)
def test_a_text_is_scrubbed_of_what_looks_secret(text: str) -> None:
    assert "HIDE" not in scrub(text)


def test_a_storage_travels_whole_to_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("thekey\n")
    storage = Storage(account_name="name", account_key_file=str(tmp_path / "key"), options={"a": {"b": 1}})
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=other;AccountKey=x")
    there = Storage.from_secret(storage.secret())
    (tmp_path / "key").unlink()
    assert there == storage.__class__(account_name="name", account_key="thekey", options={"a": {"b": 1}})
    assert there.resolved() == there


def test_the_environment_gives_what_the_job_does_not() -> None:
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "name", "AZURE_STORAGE_ACCOUNT_KEY": "key", "AZURE_STORAGE_ANON": "0"}
    assert Storage().resolved(environ) == Storage(account_name="name", account_key="key")
    assert Storage(sas_token="mine").resolved(environ) == Storage(account_name="name", sas_token="mine")
    assert Storage(anonymous=True).resolved(environ).account_key is None
    assert Storage().resolved({"AZURE_STORAGE_CONNECTION_STRING": "x=y"}).connection_string == "x=y"


@pytest.mark.parametrize(("content", "expected"), [(None, "No such file"), ("", "one line"), ("a\nb\n", "one line")])
def test_a_bad_key_file_is_named(tmp_path: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    with pytest.raises(InputError, match=rf"storage\.account_key_file: .*key.*{expected}"):
        Storage(account_key_file=str(tmp_path / "key")).resolved()


# Listing


def found_at(root: str, pattern: str, storage: Storage) -> list[tuple[str, int]]:
    """What is listed by URL, below the root; nothing: it is refused."""
    try:
        listing = list(list_urls(f"{root}/{pattern}", storage))
    except InputError as error:
        assert "nothing is found" in str(error)
        return []
    assert all(url.startswith(root + "/") for url, _ in listing)
    return [(url[len(root) + 1 :], size) for url, size in listing]


@pytest.fixture(scope="module")
def doors(azurite: Azurite, tree: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Storage]]:
    """:data:`TREE` in a folder and in stores."""
    folder = tmp_path_factory.mktemp("tree")
    memory = fsspec.filesystem("memory")
    for name, content in TREE.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
        memory.pipe_file(f"/tree/{name}", content)
    web = f"{azurite.account_url()}/tree"
    return {
        "path": (str(folder), Storage()),
        "azure": (tree, azurite.storage()),
        "azure by http": (web, dataclasses.replace(azurite.storage(), account_url=azurite.account_url())),
        "file": (f"file://{folder}", Storage()),
        "memory": ("memory:///tree", Storage()),
    }


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_finds_in_a_store_what_it_finds_in_a_folder(
    doors: dict[str, tuple[str, Storage]], pattern: str
) -> None:
    folder, _ = doors["path"]
    try:
        paths = list(map(os.fsdecode, list_files(FileInput((f"{folder}/{pattern}",)))))
    except InputError:
        paths = []
    expected = [(os.path.relpath(path, folder), os.stat(path).st_size) for path in paths]
    found = {door: found_at(*doors[door][:1], pattern, doors[door][1]) for door in doors if door != "path"}
    found["azure by http"] = [(unquote(name), size) for name, size in found["azure by http"]]
    assert found == dict.fromkeys(found, expected)


@given(
    names=st.lists(st.text("ab.", min_size=1, max_size=2), min_size=1, max_size=5),
    texts=st.lists(st.sampled_from(["**", "*", "a", "a*", ".*", "?b", "[ab]"]), min_size=1, max_size=4),
)
@example(names=["a", "b"], texts=["**"])
def test_names_match_as_a_regular_expression_says(names: list[str], texts: list[str]) -> None:
    import re

    def part(text: str) -> str:
        inner = text.replace(".", r"\.").replace("*", "[^/]*").replace("?", "[^/]")
        return inner if text.startswith(".") else rf"(?!\.){inner}"

    folder = r"((?!\.)[^/]+/)*"
    expression = "".join(
        (folder + (r"(?!\.)[^/]+" if last else "")) if text == "**" else part(text) + ("" if last else "/")
        for text, last in zip(texts, [False] * (len(texts) - 1) + [True], strict=True)
    )
    pattern = Glob("/".join(["*", *texts]), of_texts)  # nothing in front of a wildcard
    states = pattern.at(1)
    for name in names[:-1]:
        states = pattern.enter(states, name)
    assert pattern.takes(states, names[-1]) == bool(re.fullmatch(expression, "/".join(names)))


def test_run_directories_are_skipped_unless_they_are_spelled_out(azurite: Azurite) -> None:
    azurite.container("runs", dict.fromkeys(("o/rows.txt", "o/_run/journal", "o/_run/l/x", "o/_runs/y"), b""))

    def found(path: str, names: Names = Names.SEEN) -> list[str]:
        return [url.removeprefix("abfs://runs/") for url, _ in list_urls(path, azurite.storage(), names)]

    for pattern in ("abfs://runs", "abfs://runs/o/", "abfs://runs/**", "abfs://runs/*/**"):
        assert found(pattern) == found(pattern, Names.ALL) == ["o/_runs/y", "o/rows.txt"]
    for pattern in ("abfs://runs/o/?run/*", "abfs://runs/o/*/journal"):
        with pytest.raises(InputError, match="nothing is found"):
            found(pattern)
    assert found("abfs://runs/o/_run") == found("abfs://runs/*/_run/**") == ["o/_run/journal", "o/_run/l/x"]


def test_a_listing_goes_on_over_many_pages(
    azurite: Azurite, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    azurite.container("pages", {f"n{number:03d}": b"" for number in range(40)})
    monkeypatch.setattr(azure, "PAGE", 7)
    proxy.throttle(3, method="GET")
    listing = list_urls("abfs://pages", azurite.storage(proxy.port))
    assert [url for url, _ in listing] == [f"abfs://pages/n{number:03d}" for number in range(40)]
    assert proxy.count("GET") == 6 + 3


def test_a_listing_can_be_left_early(azurite: Azurite, tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure, "PAGE", 1)
    assert next(list_urls(tree, azurite.storage())) == ("abfs://tree/a.txt", 1)


@pytest.mark.parametrize("pattern", ["", "/d/a", "/d/*"])
def test_a_file_that_is_replaced_by_one_of_its_size_has_another_version(
    azurite: Azurite, tmp_path: Path, pattern: str
) -> None:
    container = f"versions-{uuid.uuid4().hex[:12]}"
    azurite.container(container, {"d/a": b"one"})
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(b"one")
    places = [(f"abfs://{container}{pattern}", azurite.storage()), (f"file://{tmp_path}{pattern}", Storage())]
    before = [list(list_versions(*place)) for place in places]
    assert before == [list(list_versions(*place)) for place in places]
    with azurite.client() as client:
        client.get_blob_client(container, "d/a").upload_blob(b"two", overwrite=True)
    (tmp_path / "d/a").write_bytes(b"two")
    after = [list(list_versions(*place)) for place in places]
    for [old], [new] in zip(before, after, strict=True):
        assert old[:2] == new[:2]
        assert old.version != new.version


def test_folders_of_a_hierarchical_namespace_are_no_files(azurite: Azurite) -> None:
    azurite.container("hns", {"dir/x": b"x", "other/": b""})
    with azurite.client() as client, client.get_blob_client("hns", "dir") as blob:
        blob.upload_blob(b"", metadata={"hdi_isfolder": "true"})
    for url in ("abfs://hns", "abfs://hns/dir", "abfs://hns/*/x", "abfs://hns/**"):
        assert list(list_urls(url, azurite.storage())) == [("abfs://hns/dir/x", 1)]


@pytest.mark.parametrize(
    "start",
    [
        "abfs://tree/",
        "az://tree/",
        f"abfss://tree@{ACCOUNT}.dfs.core.windows.net/",
        f"https://{ACCOUNT}.blob.core.windows.net/tree/",
    ],
)
def test_every_form_of_url_names_the_same_blobs(azurite: Azurite, tree: str, start: str) -> None:
    assert tree
    [(url, size)] = list_urls(f"{start}*/[[]1].txt", azurite.storage())
    assert url == start + ("%C3%BC%20b/%5B1%5D.txt" if start.startswith("https") else "ü b/[1].txt")
    assert (size, RemoteFiles(azurite.storage()).open(url).read()) == (1, b"u")
    assert local_name(url, azurite.storage()) == "tree/ü b/[1].txt"


def test_credentials_come_from_the_environment(azurite: Azurite, tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no storage account is named"):
        list(list_urls(tree, Storage()))
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())
    assert len(list(list_urls(tree, Storage()))) == VISIBLE


def test_a_key_file_and_a_sas_token_file_let_in(azurite: Azurite, tree: str, tmp_path: Path) -> None:
    from datetime import datetime, timedelta, timezone

    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    token = generate_container_sas(
        ACCOUNT,
        "tree",
        account_key=KEY,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.now(timezone.utc) + timedelta(hours=1),
    )
    (tmp_path / "sas").write_text(token)
    (tmp_path / "key").write_text(KEY + "\n")
    for storage in (
        Storage(account_url=azurite.account_url(), sas_token_file=str(tmp_path / "sas")),
        Storage(account_url=azurite.account_url(), account_key_file=str(tmp_path / "key")),
    ):
        assert len(list(list_urls(tree, storage))) == VISIBLE
        assert RemoteFiles(storage).size(f"{tree}/day-1/x.csv") == 3
    with pytest.raises(InputError) as refused:
        list(list_urls("abfs://other", Storage(account_url=azurite.account_url(), sas_token=token)))
    assert token not in str(refused.value)
    assert token.rpartition("sig=")[2] not in str(refused.value)


# What can be wrong


def test_what_is_not_there_is_said_in_one_message(azurite: Azurite, tree: str) -> None:
    storage = azurite.storage()
    with pytest.raises(InputError, match=r"nothing is found at abfs://tree/nope\*: "):
        list(list_urls(f"{tree}/nope*", storage))
    for url in ("abfs://no-such-one", "abfs://no-such-one/a", "abfs://no-such-one/**/x"):
        with pytest.raises(InputError, match=f"there is no container 'no-such-one' in .*'{ACCOUNT}'"):
            list(list_urls(url, storage))
    with pytest.raises(InputError, match=r"cannot read abfs://tree/nope: it does not exist in the storage account"):
        RemoteFiles(storage).open(f"{tree}/nope")
    with pytest.raises(InputError, match="cannot read abfs://no-such-one/a: there is no container 'no-such-one'"):
        RemoteFiles(storage).size("abfs://no-such-one/a")


@pytest.mark.parametrize("key", ["A" * 86 + "==", "not base64!"])
def test_a_wrong_key_is_refused_in_one_message(
    azurite: Azurite, tree: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(InputError, match=r"connection string for the storage account .* is not accepted") as refused:
        list(list_urls(tree, Storage(connection_string=azurite.connection_string(key=key))))
    assert key not in str(refused.value) + caplog.text
    assert "\n" not in str(refused.value)


def test_an_anonymous_reader_is_let_in_where_all_are(azurite: Azurite, tree: str) -> None:
    azurite.container("public", {"x": b"x"}, public_access="container")
    storage = Storage(account_url=azurite.account_url(), anonymous=True)
    assert list(list_urls("abfs://public", storage)) == [("abfs://public/x", 1)]
    with pytest.raises(InputError, match="gives nothing without credentials"):
        list(list_urls(tree, storage))


def test_two_different_accounts_are_noticed(azurite: Azurite) -> None:
    with pytest.raises(InputError, match=f"names the storage account 'mine', but .* that of '{ACCOUNT}'"):
        list(list_urls("abfss://tree@mine.dfs.core.windows.net/x", azurite.storage()))


@pytest.mark.parametrize(
    ("url", "storage", "expected"),
    [
        ("abfs://con/x", Storage(connection_string="junk"), "connection string is not one"),
        ("abfs://con/x", Storage(connection_string="a=b"), "neither AccountName nor BlobEndpoint"),
        ("abfs:///x", Storage(account_name="a", anonymous=True), "names no container"),
        ("nope://x/y", Storage(), "Protocol not known: nope"),
        ("file:///no/such/folder", Storage(), "nothing is found"),
        ("zip://x::file:///y", Storage(), "chains of URLs"),
        ("abfs://con/x", Storage(account_url="http://127.0.0.1:1/a", anonymous=True), "cannot connect to http://127"),
        (
            "https://account.blob.core.windows.net/c/x",
            Storage(account_url="https://no-such-account.invalid", anonymous=True),
            "no server has the name in https://no-such-account.invalid .*check the name of the storage account",
        ),
    ],
)
def test_what_cannot_work_says_why(url: str, storage: Storage, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        list(list_urls(url, storage))


@pytest.mark.parametrize("url", ["https://a.blob.core.windows.net/c/x?sv=1&sig=HIDE", "ftp://user:HIDE@host/x"])
def test_a_url_with_a_secret_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="holds a secret") as refused:
        list(list_urls(url, Storage()))
    assert "HIDE" not in str(refused.value)


# Reading


def test_a_remote_file_reads_and_seeks_as_a_local_one(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(100_000)
    azurite.container("reading", {"x": content, "empty": b""})
    monkeypatch.setattr(stores, "RANGE", 1000)
    storage = azurite.storage()
    assert RemoteFiles(storage).open("abfs://reading/empty").read() == b""
    with RemoteFiles(storage).open("abfs://reading/x") as remote, io.BytesIO(content) as local:
        for offset, whence, count in [
            (0, 0, 10),
            (-5, 2, 10),
            (50_000, 0, 30_000),
            (-7, 1, 3),
            (99_999, 0, 9),
            (0, 0, -1),
        ]:
            assert remote.seek(offset, whence) == local.seek(offset, whence)
            assert remote.read(count) == local.read(count)
            assert remote.tell() == local.tell()


def test_a_blob_that_is_replaced_is_not_read_as_a_mixture(azurite: Azurite) -> None:
    azurite.container("replaced", {"x": b"a" * 1_000_000})
    with RemoteFiles(azurite.storage()).open("abfs://replaced/x") as remote:
        assert remote.read(10) == b"a" * 10
        with azurite.client() as client, client.get_blob_client("replaced", "x") as blob:
            blob.upload_blob(b"b" * 1_000_000, overwrite=True)
        with pytest.raises(InputError, match="abfs://replaced/x: it was replaced in the store"):
            remote.read()


def test_a_file_is_asked_for_once_until_it_is_replaced(azurite: Azurite, proxy: FaultProxy) -> None:
    azurite.container("once", {"x": b"a" * 1000})
    files = RemoteFiles(azurite.storage(proxy.port))
    assert [files.size("abfs://once/x") for _ in range(3)] == [1000] * 3
    assert files.open("abfs://once/x").read() == b"a" * 1000
    assert [method for method, _ in proxy.requests].count("HEAD") == 1
    with azurite.client() as client, client.get_blob_client("once", "x") as blob:
        blob.upload_blob(b"b" * 2000, overwrite=True)
    with pytest.raises(InputError, match="it was replaced in the store"):
        files.open("abfs://once/x").read()
    assert files.size("abfs://once/x") == 2000
    assert files.open("abfs://once/x").read() == b"b" * 2000


# Downloading


@pytest.fixture(scope="module")
def large(azurite: Azurite) -> bytes:
    """The content of ``abfs://large/x``: several ranges."""
    content = os.urandom(5 * 2**20 + 17)
    azurite.container("large", {"x": content})
    return content


@pytest.mark.parametrize("after", [0, 2**20])
def test_cut_connections_do_not_hurt_a_download(
    azurite: Azurite, proxy: FaultProxy, large: bytes, tmp_path: Path, after: int
) -> None:
    proxy.cut(2, after=after)
    download([("abfs://large/x", tmp_path / "x")], azurite.storage(proxy.port))
    assert (tmp_path / "x").read_bytes() == large
    assert in_folder(tmp_path) == ["x"]
    assert not proxy.faults_left
    assert proxy.count("GET") == 3 + 2  # only the cut ranges came twice


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_store_is_asked_again(
    azurite: Azurite, proxy: FaultProxy, large: bytes, tmp_path: Path, status: int
) -> None:
    proxy.throttle(4, status=status)
    proxy.hang_up(2)
    download([("abfs://large/x", tmp_path / "x")], azurite.storage(proxy.port))
    assert (tmp_path / "x").read_bytes() == large
    assert not proxy.faults_left


def test_a_store_that_asks_for_a_pause_gets_it(
    azurite: Azurite, proxy: FaultProxy, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE", Patience(seconds=0.5, first=0.01))
    proxy.throttle(1, retry_after=1)
    with pytest.raises(InputError, match=r"is busy or out of order \(ServerBusy, HTTP 503\)"):
        download([("abfs://large/x", tmp_path / "x")], azurite.storage(proxy.port))
    assert len(proxy.requests) == 1  # a pause of a second is beyond the patience: no request before it
    assert large


def test_patience_ends_with_the_cause_and_leaves_nothing(
    azurite: Azurite, proxy: FaultProxy, large: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE", Patience(seconds=0.3, unreachable=0.3, first=0.01, longest=0.05))
    assert RemoteFiles(azurite.storage(proxy.port)).size("abfs://large/x") == len(large)
    proxy.throttle(1000)
    with pytest.raises(InputError, match=r"cannot read abfs://large/x: .*HTTP 503\); tried \d+ times in \d s"):
        download([("abfs://large/x", tmp_path / "x")], azurite.storage(proxy.port))
    assert in_folder(tmp_path) == []


def test_what_does_not_exist_is_asked_for_once(azurite: Azurite, proxy: FaultProxy, tmp_path: Path) -> None:
    azurite.container("missing")
    with pytest.raises(InputError, match="cannot read abfs://missing/x: it does not exist"):
        download([("abfs://missing/x", tmp_path / "x")], azurite.storage(proxy.port))
    assert len(proxy.requests) == 1
    assert in_folder(tmp_path) == []


def test_a_thousand_small_blobs_come_many_at_a_time(azurite: Azurite, proxy: FaultProxy, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = [f"part-{number % 10}/{number:04d}.bin" for number in range(1000)]
    azurite.container("many")
    with azurite.client() as client, client.get_container_client("many") as container, ThreadPoolExecutor(8) as pool:
        for blob in pool.map(lambda name: container.upload_blob(name, name.encode()), names):
            blob.close()
    storage = azurite.storage(proxy.port)
    urls = [url for url, _ in list_urls("abfs://many", storage)]
    proxy.forget()
    proxy.throttle(20)
    proxy.cut(5, after=3)
    proxy.hold_until = 9
    download([(url, tmp_path / local_name(url, storage)) for url in urls], storage)
    assert in_folder(tmp_path) == sorted(f"many/{name}" for name in names)
    assert all((tmp_path / "many" / name).read_text() == name for name in names)
    assert 8 < proxy.most_at_once <= stores.SLOTS + 8  # those that were cut linger
    assert len(proxy.requests) == 1000 + 20 + 5  # one request for each blob, and no more


def test_an_empty_blob_and_odd_names_come_as_well(azurite: Azurite, tmp_path: Path) -> None:
    names = ["empty", "a//b", "...", ".x/.y", "ü %41+&=#.txt", "n" * 300 + ".csv", "dot."]
    azurite.container("odd", dict.fromkeys(names, b""))
    storage = azurite.storage()
    urls = [url for url, _ in list_urls("abfs://odd", storage, Names.ALL)]
    assert sorted(urls) == sorted(f"abfs://odd/{name}" for name in names)
    download([(url, tmp_path / "in" / local_name(url, storage)) for url in urls], storage)
    found = in_folder(tmp_path)
    assert len(found) == len(names)
    assert all(name.startswith("in/odd/") for name in found)
    assert any(name.startswith("in/odd/" + "n" * 100 + "~") and name.endswith(".csv") for name in found)


@given(st.text(max_size=30), st.text(max_size=30))
@example("..", "../..")
@example("a//b", "a/%/b")
@example("x" * 300, "x" * 301)
def test_two_names_get_two_safe_paths(one: str, other: str) -> None:
    paths = [safe_path(each) for each in (one, other)]
    assert (paths[0] == paths[1]) == (one == other)
    for path in paths:
        assert all(0 < len(name.encode("utf-8", "surrogatepass")) <= 255 for name in path.split("/"))
        assert not {".", ".."} & set(path.split("/"))
        assert "\0" not in path


def test_a_compressed_blob_comes_as_it_is_stored(azurite: Azurite, tmp_path: Path) -> None:
    import gzip

    from azure.storage.blob import ContentSettings

    content = gzip.compress(b"a,b\n" * 1000)
    azurite.container("compressed")
    with azurite.client() as client, client.get_blob_client("compressed", "x.csv.gz") as blob:
        blob.upload_blob(content, content_settings=ContentSettings(content_encoding="gzip"))
    download([("abfs://compressed/x.csv.gz", tmp_path / "x.csv.gz")], azurite.storage())
    assert (tmp_path / "x.csv.gz").read_bytes() == content
    assert RemoteFiles(azurite.storage()).open("abfs://compressed/x.csv.gz").read() == content


def test_a_full_disk_names_the_folder(azurite: Azurite, large: bytes, tmp_path: Path) -> None:
    assert large
    code = (
        "import sys; from pathlib import Path; from mpi_prs.storage.downloading import download\n"
        "from mpi_prs.storage.remote import Storage\n"
        "import errno, os\n"
        "def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "os.pwrite = full\n"
        "download([('abfs://large/x', Path(sys.argv[1]))], Storage(connection_string=sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x"), azurite.connection_string()],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert f"InputError: no space is left in the folder {tmp_path}" in done.stderr
    assert in_folder(tmp_path) == []


def test_a_blob_of_half_a_gibibyte_needs_little_memory(azurite: Azurite, tmp_path: Path) -> None:
    azurite.container("huge")
    azurite.large_blob("huge", "x.bin", os.urandom(4 * 2**20), 128)
    code = (
        "import resource, sys; from pathlib import Path; from mpi_prs.storage.downloading import download\n"
        "from mpi_prs.storage.remote import Storage\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "download([('abfs://huge/x.bin', Path(sys.argv[1]))], Storage(connection_string=sys.argv[2]))\n"
        "print((peak() - before) // 1024)\n"
    )
    target = tmp_path / "x.bin"
    done = subprocess.run(
        [sys.executable, "-c", code, str(target), azurite.connection_string()],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    assert target.stat().st_size == 2**29
    with open(target, "rb") as file:
        first = file.read(4 * 2**20)
        file.seek(-len(first), os.SEEK_END)
        assert file.read() == first
    target.unlink()
    assert int(done.stdout) < 300  # MiB; the libraries alone take some 60


# Other filesystems


def test_a_web_server_is_read_by_the_same_means(azurite: Azurite, proxy: FaultProxy, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    azurite.container("web", {"a b.bin": content}, public_access="blob")
    url = f"http://127.0.0.1:{proxy.port}/{ACCOUNT}/web/a%20b.bin"
    proxy.throttle(2)
    proxy.cut(1, after=100_000)
    download([(url, tmp_path / "x")], Storage())
    assert (tmp_path / "x").read_bytes() == content
    assert not proxy.faults_left
    with RemoteFiles(Storage()).open(url) as remote:
        assert (remote.seek(2_500_000), remote.read()) == (2_500_000, content[2_500_000:])
    with pytest.raises(InputError, match="it does not exist"):
        RemoteFiles(Storage()).open(url + "x")


def test_a_filesystem_without_coroutines_works_too(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe({"/folder/a.txt": b"A", "/folder/b/c.txt": b"CC", "/folder/.hidden": b""})
    assert list(list_urls("memory://folder", Storage())) == [
        ("memory:///folder/a.txt", 1),
        ("memory:///folder/b/c.txt", 2),
    ]
    (tmp_path / "x.txt").write_bytes(b"x" * 10)
    url = f"file://{tmp_path}/x.txt"
    download([(url, tmp_path / "copy")], Storage())
    assert (tmp_path / "copy").read_bytes() == b"x" * 10
    assert RemoteFiles(Storage()).open(url).read() == b"x" * 10


def test_storages_are_values() -> None:
    assert hash(Storage(options={"a": 1})) == hash(dataclasses.replace(Storage(), options={"a": 1}))

"""The output goes to a store: complete or not at all, and again without harm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.storage import azure, stores
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.remote import RemoteFiles, list_urls
from mpi_prs.storage.stores import Patience
from mpi_prs.storage.upload import check_upload, upload
from tests.support.azurite import KEY, Azurite
from tests.support.fault_proxy import FaultProxy, fault_proxy


@pytest.fixture
def proxy(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(stores, "PATIENCE", Patience(seconds=10, unreachable=0.2, first=0.01, longest=0.1))
    monkeypatch.setattr(azure, "BLOCK", 100_000)
    with fault_proxy(azurite.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def out(azurite: Azurite) -> str:
    azurite.container("out")
    return "abfs://out"


@pytest.mark.parametrize("size", [0, 1, 100_000, 1_234_567])
def test_a_file_arrives_through_all_troubles(
    azurite: Azurite, proxy: FaultProxy, out: str, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "rows.txt").write_bytes(content)
    proxy.throttle(3, method="PUT")
    proxy.hang_up(2, method="PUT")
    upload(tmp_path / "rows.txt", f"{out}/a folder/rows-{size}.txt", azurite.storage(proxy.port))
    assert azurite.read("out", f"a folder/rows-{size}.txt") == content
    assert not proxy.faults_left


def test_an_upload_again_replaces_the_blob(azurite: Azurite, out: str, tmp_path: Path) -> None:
    for content in (b"long ago", b"new", b"new"):
        (tmp_path / "rows").write_bytes(content)
        upload(tmp_path / "rows", f"{out}/again", azurite.storage())
        assert azurite.read("out", "again") == content


def test_a_blob_appears_complete_or_not_at_all(
    azurite: Azurite, proxy: FaultProxy, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows").write_bytes(os.urandom(500_000))
    storage = azurite.storage(proxy.port)
    check_upload(f"{out}/partial", storage)
    monkeypatch.setattr(stores, "PATIENCE", Patience(seconds=0))
    for blocks in (1, 4, 5):  # of 5: the last request commits them
        proxy.forget()
        proxy.throttle(1, after=blocks)
        with pytest.raises(OutputError, match=r"cannot upload .*/rows to abfs://out/partial: .*HTTP 503"):
            upload(tmp_path / "rows", f"{out}/partial", storage)
        assert not proxy.faults_left
        with pytest.raises(InputError, match="does not exist"):
            RemoteFiles(azurite.storage()).size(f"{out}/partial")
    upload(tmp_path / "rows", f"{out}/partial", azurite.storage())
    assert azurite.read("out", "partial") == (tmp_path / "rows").read_bytes()


def test_a_check_leaves_nothing(azurite: Azurite, out: str) -> None:
    check_upload(f"{out}/checked/x", azurite.storage())
    check_upload(f"{out}/checked/x", azurite.storage())
    with pytest.raises(InputError, match="nothing is found"):
        list(list_urls(f"{out}/checked", azurite.storage()))


@pytest.mark.parametrize("work", ["upload", "check"])
def test_what_cannot_work_is_one_message(azurite: Azurite, out: str, tmp_path: Path, work: str) -> None:
    (tmp_path / "rows").write_bytes(b"x")

    def attempt(url: str, storage: Storage) -> str:
        with pytest.raises(OutputError) as refused:
            if work == "check":
                check_upload(url, storage)
            else:
                upload(tmp_path / "rows", url, storage)
        assert "\n" not in str(refused.value)
        assert KEY not in str(refused.value)
        return str(refused.value)

    assert "there is no container 'nowhere'" in attempt("abfs://nowhere/x", azurite.storage())
    wrong = Storage(connection_string=azurite.connection_string(key="A" * 86 + "=="))
    assert "is not accepted" in attempt(f"{out}/x", wrong)
    assert "gives nothing without credentials" in attempt(
        f"{out}/x", Storage(account_url=azurite.account_url(), anonymous=True)
    )
    assert "names no file" in attempt(out, azurite.storage())
    assert "web server" in attempt("http://127.0.0.1:1/x", Storage())


def test_a_missing_file_is_named(azurite: Azurite, out: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"cannot upload {tmp_path}/no to {out}/x: No such file"):
        upload(tmp_path / "no", f"{out}/x", azurite.storage())


def test_another_filesystem_gets_it_under_its_name_alone(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"rows")
    url = f"file://{tmp_path}/new/folder/rows.txt"
    check_upload(url, Storage())
    for _ in range(2):
        upload(tmp_path / "rows", url, Storage())
        assert (tmp_path / "new/folder/rows.txt").read_bytes() == b"rows"
    assert os.listdir(tmp_path / "new/folder") == ["rows.txt"]

"""One tree with links goes through every door that walks a folder; and files that are copied, replaced and claimed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from mpi_prs.azureml.datastores.transfer import files_below
from mpi_prs.azureml.environments.installing import _state_of
from mpi_prs.azureml.store.import_files import copy_into
from mpi_prs.azureml.submit.reuse import _below
from mpi_prs.child.context.run_files import all_files, put_folder
from mpi_prs.core.files import (
    NoRegularFile,
    beside,
    claim,
    claim_folder,
    copy_atomically,
    empty_folder,
    own_file,
    replacing,
    walk,
)
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.inputs.listing import FileInput, list_files
from mpi_prs.inputs.near.side_inputs import SideInput, provide
from mpi_prs.job.run.uploading import _names_below
from mpi_prs.job.source_files import source_files
from mpi_prs.storage.credentials import Storage

FILES = {"a.txt", "b.lnk", "sub/b.txt", "inside/b.txt", "linked/x.txt"}
HIDDEN = {".hidden", ".folder/h.txt"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files, a hidden one, a loop, links to a folder inside and to one outside, and to a file."""
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    for path in (tree / "a.txt", tree / "sub/b.txt", outside / "x.txt", tree / ".hidden", tree / ".folder/h.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    for name, target in {"loop": ".", "sub/up": "../..", "inside": "sub", "linked": str(outside)}.items():
        (tree / name).symlink_to(target)
    (outside / "back").symlink_to(tree)
    (tree / "b.lnk").symlink_to("sub/b.txt")
    return tree


def _names(found: Path) -> set[str]:
    """By a walk that is not ours."""
    return {str(Path(above, name).relative_to(found)) for above, _, names in os.walk(found) for name in names}


def _listed(tree: Path) -> set[str]:
    return {os.path.relpath(os.fsdecode(path), tree) for path in list_files(FileInput((str(tree),)))} | HIDDEN


def _registered(tree: Path) -> set[str]:
    copy_into(tree, tree.parent / "copy")
    return _names(tree.parent / "copy")


def _uploaded_by_a_run(tree: Path) -> set[str]:
    return _names(put_folder(tree.parent / "run", "up", tree))


def _given_as_side_input(tree: Path) -> set[str]:
    provided = provide([SideInput("m", str(tree), "download")], tree.parent / "scratch", "t")
    found = _names(Path(provided.paths["m"]))
    provided.close()
    return found


def _reused(tree: Path) -> set[str]:
    return {os.path.relpath(path, tree) for path, _size, _time in _below(str(tree), Storage())}


DOORS: dict[str, Callable[[Path], set[str]]] = {
    "the walk": lambda tree: set(walk(tree)),
    "Dataset.File.from_files": _listed,
    "datastore.upload": lambda tree: {name for _path, name in files_below(tree)},
    "Model.register": _registered,
    "run.upload_folder": _uploaded_by_a_run,
    "run.get_file_names": lambda tree: set(all_files(tree, "")),
    "side_inputs": _given_as_side_input,
    "reuse": _reused,
    "snapshot": lambda tree: {file.name for file in source_files(tree)},
    "output_url": lambda tree: set(_names_below(RunDirectory(tree))),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_linked_folder_is_followed_and_a_loop_is_not(tree: Path, door: str) -> None:
    assert DOORS[door](tree) == FILES | HIDDEN


def test_a_package_is_built_again_when_something_in_a_linked_folder_changes(tree: Path) -> None:
    before = _state_of(str(tree))
    assert _state_of(str(tree)) == before
    (tree.parent / "outside/x.txt").write_text("longer than before")
    assert _state_of(str(tree)) != before


def test_what_is_no_file_is_not_left_out_silently(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "broken").symlink_to("nowhere")
    (tree / "itself").symlink_to("itself")
    os.mkfifo(tree / "pipe")
    assert set(walk(tree)) == FILES | HIDDEN | {"broken", "itself", "pipe"}
    for door in ("datastore.upload", "output_url"):
        caplog.clear()
        assert DOORS[door](tree) == FILES | HIDDEN
        assert [name for name in ("broken", "itself", "pipe") if f"{tree / name} is" not in caplog.text] == []


def test_a_walk_is_sorted_by_whole_paths_and_skips_what_it_is_told_to(tree: Path) -> None:
    assert list(walk(tree)) == sorted(FILES | HIDDEN)
    assert set(walk(tree, lambda name: name in ("sub/", ".hidden", "linked/x.txt"))) == {
        *("a.txt", "b.lnk", "inside/b.txt", ".folder/h.txt")
    }
    assert {name for name in walk(tree, folders=True) if name.endswith("/")} == {
        ".folder/",
        "sub/",
        "inside/",
        "linked/",
    }


def test_a_folder_that_cannot_be_read_is_an_error_and_one_that_goes_meanwhile_is_not(tree: Path) -> None:
    found = walk(tree)
    assert next(found) == ".folder/h.txt"
    (tree / "sub/b.txt").unlink()
    (tree / "sub/up").unlink()
    (tree / "sub").rmdir()
    assert "linked/x.txt" in set(found)
    with pytest.raises(FileNotFoundError):
        list(walk(tree / "no"))


def test_a_copy_has_the_permissions_of_its_source_or_those_of_a_new_file(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep/down/target"
    source.write_bytes(b"12345")
    for mode, kept, new in ((0o400, 0o600, 0o644), (0o550, 0o750, 0o755)):
        source.chmod(mode)
        umask = os.umask(0o022)
        try:
            assert copy_atomically(source, target) == 5
            assert target.stat().st_mode & 0o777 == kept
            copy_atomically(source, target, keep_mode=False, lasting=True)
            assert target.stat().st_mode & 0o777 == new
        finally:
            os.umask(umask)
    assert os.listdir(target.parent) == ["target"]


def test_a_copy_that_fails_leaves_what_was_there_and_says_which_side_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "pipe", tmp_path / "target"
    os.mkfifo(source)
    target.write_text("old")
    with pytest.raises(OSError, match="neither a file nor a folder") as caught:
        copy_atomically(source, target)
    assert caught.value.filename == str(source)
    full = OSError(errno.ENOSPC, "No space left on device")
    (tmp_path / "file").touch()
    with mock.patch.object(os, "fchmod", side_effect=full), pytest.raises(OSError, match="No space") as caught:
        copy_atomically(tmp_path / "file", target)
    assert caught.value.filename is None
    assert target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe", "target"]


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with replacing(path) as file:
        file.write(b"first")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"second")
        raise KeyboardInterrupt
    assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [("file", b"first")]


def test_a_secret_is_never_open_to_others(tmp_path: Path) -> None:
    with replacing(tmp_path / "secret", mode=0o600) as file:
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("links", [True, False])
def test_of_two_who_claim_a_name_one_gets_it(tmp_path: Path, links: bool) -> None:
    refused = OSError(errno.EOPNOTSUPP, "no links here")
    with mock.patch.object(os, "link", os.link if links else mock.Mock(side_effect=refused)):
        won = []
        for content in ("first", "second"):
            with beside(tmp_path / "name") as made:
                made.write_text(content)
                won.append(claim(made, tmp_path / "name"))
    assert won == [True, False]
    assert (tmp_path / "name").read_text() == "first"


def test_of_two_folders_that_claim_a_name_one_gets_it(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "full").touch()
    assert [claim_folder(tmp_path / name, tmp_path / "1") for name in "ab"] == [True, False]


# Where strangers may have been


def test_a_folder_is_emptied_and_what_its_links_lead_to_stays(tree: Path, tmp_path: Path) -> None:
    (tree / "keep").mkdir()
    (tree / "keep" / "a").touch()
    outside = sorted((tmp_path / "outside").iterdir())

    empty_folder(tree, keep={"keep"})

    assert sorted(tree.rglob("*")) == [tree / "keep", tree / "keep" / "a"]
    assert sorted((tmp_path / "outside").iterdir()) == outside
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(OSError, match="Not a directory"):
        empty_folder(tmp_path / "link")
    assert (tree / "keep" / "a").exists()


def test_no_link_leads_to_an_own_file_in_a_run_directory_and_any_to_the_directory(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "out/_run", tmp_path / "elsewhere"
    for folder in (run / "logs/sys", elsewhere / "sys"):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    os.close(own_file(str(tmp_path / "link/_run/logs/sys/a"), os.O_WRONLY | os.O_CREAT))
    assert (run / "logs/sys/a").exists()
    with pytest.raises(FileNotFoundError, match=f"'{run}/logs/sys/b'"):
        own_file(str(run / "logs/sys/b"), os.O_RDONLY)
    (run / "logs").rename(run / "real")
    (run / "logs").symlink_to(elsewhere)
    with pytest.raises(NoRegularFile, match="logs/sys/a is reached through a link, logs"):
        own_file(str(run / "logs/sys/a"), os.O_WRONLY | os.O_CREAT)
    assert not list(elsewhere.glob("sys/*"))
    (tmp_path / "out/_run").rename(tmp_path / "out/moved")
    (tmp_path / "out/_run").symlink_to("moved")
    with pytest.raises(OSError, match="Not a directory"):
        own_file(str(run / "lock"), os.O_RDONLY)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC])
def test_an_own_file_is_a_regular_file_in_its_place(tmp_path: Path, flags: int) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    for name in ("link", "dangling", "folder", "pipe"):
        with pytest.raises(NoRegularFile, match=rf"{name} is (a link|a folder|a pipe|no regular file)"):
            own_file(str(tmp_path / name), flags)
    assert (tmp_path / "file").read_text() == "x"
    assert not (tmp_path / "nowhere").exists()
    os.close(own_file(str(tmp_path / "file"), flags))

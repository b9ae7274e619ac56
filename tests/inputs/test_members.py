"""Members of tar archives as items: each comes once, whole, with what belongs to it; nothing is lost silently."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.datasets import InputFiles
from mpi_prs.inputs.loading import FileLoader
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.members import archive_at
from mpi_prs.inputs.payload import names
from mpi_prs.inputs.since import look_again
from mpi_prs.storage.credentials import Storage
from tests.inputs.test_planning import manifest_of
from tests.inputs.test_staging import files_in
from tests.support.jobs import Job, wait_until


def write_tar(
    path: Path, members: Iterable[tuple[str, bytes] | tarfile.TarInfo], format: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def samples(numbers: Iterable[int]) -> list[tuple[str, bytes]]:
    """As WebDataset has them: a picture, a mask, and a description."""
    return [
        (f"{number:04d}.{suffix}", f"{suffix} of {number}".encode() * number)
        for number in numbers
        for suffix in ("jpg", "seg.png", "json")
    ]


def loader_of(manifest: Manifest, folder: Path, limit: int = 2**20) -> FileLoader:
    return FileLoader(manifest, folder, limit, [Storage() for _ in manifest.inputs])


def staged(loader: FileLoader, number: int) -> list[Path]:
    return [Path(os.fsdecode(path)) for path in loader.load(number).payload.split(b"}")[-1].split(b"\0")]


def refusal(path: Path, *globs: str) -> str:
    with pytest.raises(InputError) as refused:
        archive_at(str(path), globs or ("*",))
    return str(refused.value)


def test_items_come_from_their_archives_with_what_belongs_to_them(tmp_path: Path) -> None:
    for shard in range(2):
        write_tar(tmp_path / f"{shard}.tar", samples(range(5 * shard, 5 * shard + 5)))
    dataset = InputFiles.from_files(f"{tmp_path}/*.tar", members="*.jpg")
    manifest = manifest_of(tmp_path, [dataset], 4)
    assert [manifest.items_of(number) for number in range(manifest.mini_batches)] == [4, 4, 2]
    assert str(look_again([dataset], manifest)) == ""
    expected = [f"{tmp_path}/{number // 5}.tar/{number:04d}.jpg" for number in range(10)]
    assert [name for number in range(3) for name in names(manifest, number)] == expected
    with contextlib.closing(loader_of(manifest, tmp_path / "scratch")) as loader:
        loaded = loader.load(1)
        paths = [Path(os.fsdecode(path)) for path in loaded.payload.split(b"}")[-1].split(b"\0")]
        assert [path.name for path in paths] == ["0004.jpg", "0005.jpg", "0006.jpg", "0007.jpg"]
        for path, number in zip(paths, range(4, 8), strict=True):
            assert path.read_bytes() == f"jpg of {number}".encode() * number
            assert path.with_suffix(".json").read_bytes() == f"json of {number}".encode() * number
            assert path.with_suffix(".seg.png").exists()
        assert loaded.bytes == sum(len(text) for _, text in samples(range(4, 8)))
        loaded.release()
        wait_until(lambda: not files_in(tmp_path / "scratch"))


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (["*.jpg"], ["a.jpg", "x/b.jpg", "x/y/c.jpg"]),
        (["x/*"], ["x/b.jpg", "x/b.txt"]),
        (["x/**/*.jpg", "*.txt"], ["x/b.jpg", "x/b.txt", "x/y/c.jpg"]),
        (["**"], ["a.jpg", "x/b.jpg", "x/b.txt", "x/y/c.jpg"]),
        ([".h*"], [".hidden"]),
    ],
)
def test_globs_choose_the_items(tmp_path: Path, globs: list[str], expected: list[str]) -> None:
    folder = tarfile.TarInfo("x")
    folder.type = tarfile.DIRTYPE
    content = ["./a.jpg", "x/b.jpg", "x//b.txt", "./x/./y/c.jpg", ".hidden", "x/._b.jpg", "__MACOSX/.b.txt"]
    path = write_tar(tmp_path / "t.tar", [folder, *((name, b"1") for name in content)])
    assert [member.span.name for member in archive_at(str(path), globs).members] == expected


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_kinds_of_tar_are_read(tmp_path: Path, format: int) -> None:
    content = [("a.txt", b""), ("d" * 90 + "/" + "n" * 60, b"x" * 513), (os.fsdecode(b"\xff.txt"), b"y" * 512)]
    if format != tarfile.USTAR_FORMAT:
        content.append(("l" * 250 + "/ä\n.txt", b"z"))
    path = write_tar(tmp_path / "t.tar", content, format)
    manifest = manifest_of(tmp_path, [InputFiles.from_files(str(path), members="*")], 10)
    with contextlib.closing(loader_of(manifest, tmp_path / "scratch")) as loader:
        for found, (name, text) in zip(staged(loader, 0), content, strict=True):
            assert str(found).endswith(f"t.tar/{name}") and found.read_bytes() == text


@pytest.mark.parametrize("name", ["../a", "/etc/a", "x/../../a", "..", "/"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    message = refusal(write_tar(tmp_path / "t.tar", [("a", b"1"), (name, b"2")]))
    assert f"{tmp_path}/t.tar has a member of the name {name!r}, which leads out of the folder" in message


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [("a", b"1"), ("./a", b"2")])
    assert f"{path} has two members of the name 'a'" in refusal(path)


@pytest.mark.parametrize("type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_told_and_is_no_item(tmp_path: Path, caplog: pytest.LogCaptureFixture, type: bytes) -> None:
    other = tarfile.TarInfo("other")
    other.type, other.linkname = type, "a"
    path = write_tar(tmp_path / "t.tar", [("a", b"1"), other, ("b", b"2")])
    assert [member.span.name for member in archive_at(str(path), ["*"]).members] == ["a", "b"]
    assert f"{path}: 1 members are links, devices or sparse files and no items: 'other'" in caplog.text


NO_TAR, CUT, JOINED = "is no tar archive", "is cut or damaged", "goes on behind the end"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda _: b"", NO_TAR),
        (lambda _: b"not a tar" * 100, NO_TAR),
        (lambda data: b"\x1f\x8b\x08" + data, NO_TAR),
        *((lambda data, at=at: data[:at], CUT) for at in range(512, 512 * 8 + 1, 131)),
        (lambda data: data[:1124] + b"x" + data[1125:], CUT),  # in a header: tarfile takes it for the end
        (lambda data: data + data, JOINED),
        (lambda data: data + bytes(20_000), ""),
        (lambda data: data[: 512 * 9], ""),  # a lone block of zeros
    ],
)
def test_a_damaged_archive_is_one_message(tmp_path: Path, spoil: Callable[[bytes], bytes], problem: str) -> None:
    path = write_tar(tmp_path / "t.tar", [(str(number), b"x" * 500) for number in range(4)])
    path.write_bytes(spoil(path.read_bytes()))
    if problem:
        assert re.match(f"{re.escape(str(path))} {problem}", refusal(path))
    else:
        assert len(archive_at(str(path), ["*"]).members) == 4


def test_a_damaged_archive_fails_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "0.tar").write_bytes(b"noise")
    dataset = InputFiles.from_files(f"{tmp_path}/*.tar", members="*.jpg")
    with pytest.raises(InputError, match=r"0.tar is no tar archive"):
        manifest_of(tmp_path, [dataset], 10)
    write_tar(tmp_path / "1.tar", samples(range(3)))
    manifest = manifest_of(tmp_path, [dataset], 10)
    assert [names(manifest, number)[0] for number in range(2)] == [f"{tmp_path}/0.tar", f"{tmp_path}/1.tar/0000.jpg"]
    assert "0.tar is no tar archive" in caplog.text and "It counts as one item, which fails" in caplog.text
    with contextlib.closing(loader_of(manifest, tmp_path / "scratch")) as loader:
        with pytest.raises(InputError, match=r"0.tar is no tar archive .*; then start the run anew with --overwrite"):
            loader.load(0)
        assert len(staged(loader, 1)) == 3


def test_an_archive_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", samples(range(3)))
    manifest = manifest_of(tmp_path, [InputFiles.from_files(str(path), members="*")], 10)
    write_tar(path, samples(range(30)))
    with (
        contextlib.closing(loader_of(manifest, tmp_path / "scratch")) as loader,
        pytest.raises(InputError, match=r"and had 10240 when the run was begun: its members are elsewhere"),
    ):
        loader.load(0)


@pytest.mark.parametrize(
    ("content", "settings", "problem"),
    [
        (samples(range(2)), {"members": "*.gif"}, "no member of .* matches '\\*.gif'; those of .*t.tar are '0000.jpg'"),
        ([], {"members": "*"}, "no member of .* matches '\\*'; there are none at all"),
    ],
)
def test_what_matches_nothing_is_told(
    tmp_path: Path, content: list[tuple[str, bytes]], settings: dict[str, Any], problem: str
) -> None:
    path = write_tar(tmp_path / "t.tar", content)
    with pytest.raises(InputError, match=problem):
        manifest_of(tmp_path, [InputFiles.from_files(str(path), **settings)], 10)


SCRIPT = """\
import json, os
def run(mini_batch):
    if any(path.endswith("0003.jpg") for path in mini_batch):
        raise ValueError("bad picture")
    return [f"{os.path.basename(path)} {len(open(path[:-3] + 'json').read())}" for path in mini_batch]
"""


def test_a_job_names_members_that_failed_and_tries_them_again(new_job: Callable[..., Job]) -> None:
    job = new_job(
        SCRIPT,
        items=0,
        inputs=[{"files": "in/*.tar", "members": "*.jpg"}],
        error_threshold=-1,
        run_max_try=1,
        mini_batch_size=1,
    )
    write_tar(job.folder / "in/a.tar", samples(range(5)))
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert sorted(job.rows()) == [f"{n:04d}.jpg {9 * n}" for n in (0, 1, 2, 4)]
    assert "a.tar/0003.jpg" in (job.folder / "out/_run/failed_items.jsonl").read_text()
    (job.folder / "script.py").write_text(SCRIPT.replace("raise ValueError", "print"))
    again = job.local("--only-failed")
    assert again.returncode == 0, again.stdout
    assert sorted(job.rows()) == [f"{n:04d}.jpg {9 * n}" for n in range(5)]

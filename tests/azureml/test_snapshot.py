"""Snapshots: what is in them, that the same code is one of them, and that nobody ever sees half of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mpi_prs.azureml.submit import snapshot
from mpi_prs.azureml.submit.snapshot import take_snapshot
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import PipelineError
from tests.support.jobs import REPOSITORY


@pytest.fixture
def layout(tmp_path: Path) -> WorkspaceFolder:
    folder = WorkspaceFolder(tmp_path / "ws")
    folder.root.mkdir()
    folder.description.write_text("{}")
    return folder


def tree(folder: Path, *names: str) -> Path:
    """A folder of files, whose content is their name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def content(layout: WorkspaceFolder, digest: str) -> list[str]:
    root = layout.snapshot(digest)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_snapshot_is_a_copy_of_the_code_alone(tmp_path: Path, layout: WorkspaceFolder) -> None:
    source = tree(
        tmp_path / "source",
        "score.py",
        "lib/helper.py",
        "lib/outputs/kept.py",
        "outputs/rows.txt",
        "lib/__pycache__/helper.pyc",
        ".git/HEAD",
        "results/_run/journal",
        "submit.ipynb",
        ".hidden",
    )
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "broken").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    (source / "linked").symlink_to(tree(tmp_path / "elsewhere", "tool.py"))
    (source / "linked" / "up").symlink_to(source)
    digest = take_snapshot(source, layout)
    expected = [".hidden", "lib/helper.py", "lib/outputs/kept.py", "linked/tool.py", "run.sh", "score.py"]
    assert content(layout, digest) == expected
    copy = layout.snapshot(digest)
    assert (copy / "lib/helper.py").read_text() == "lib/helper.py"
    assert os.access(copy / "run.sh", os.X_OK) and not os.access(copy / "score.py", os.X_OK)


def test_the_workspace_is_no_part_of_the_code_in_it_or_around_it(tmp_path: Path, layout: WorkspaceFolder) -> None:
    tree(layout.root, "secrets/store.account_key", "models/m/1/model.json", "score.py", "helpers/h.py")
    tree(tmp_path, "main.py")
    (tmp_path / "link").symlink_to(layout.root)
    assert content(layout, take_snapshot(tmp_path, layout)) == ["main.py"]
    assert content(layout, take_snapshot(layout.root, layout)) == ["helpers/h.py", "score.py"]


@pytest.mark.parametrize(
    ("ignores", "expected"),
    [
        ({".gitignore": "data/\n*.png\n!keep.png\n"}, [".gitignore", "a.py", "keep.png", "lib/b.py"]),
        (
            {".gitignore": "*", ".amlignore": "/lib\n# a remark\n"},
            [".amlignore", ".gitignore", "a.py", "data/x", "keep.png", "x.png"],
        ),
        ({}, ["a.py", "data/x", "keep.png", "lib/b.py", "x.png"]),
    ],
)
def test_ignore_files_are_heard(
    tmp_path: Path, layout: WorkspaceFolder, ignores: dict[str, str], expected: list[str]
) -> None:
    source = tree(tmp_path / "source", "a.py", "lib/b.py", "data/x", "x.png", "keep.png")
    for name, lines in ignores.items():
        (source / name).write_text(lines)
    assert content(layout, take_snapshot(source, layout)) == expected


def test_the_same_code_is_one_snapshot_and_any_change_another(tmp_path: Path, layout: WorkspaceFolder) -> None:
    source = tree(tmp_path / "source", "a.py", "lib/b.py")
    first = take_snapshot(source, layout)
    os.utime(source / "a.py", (1, 1))
    assert take_snapshot(tree(tmp_path / "twin", "a.py", "lib/b.py"), layout) == take_snapshot(source, layout) == first
    seen = {first}
    for change in (
        lambda: (source / "a.py").chmod(0o755),
        lambda: (source / "a.py").write_text("A.py"),
        lambda: (source / "lib").rename(source / "lob"),
        lambda: (source / "lob/b.py").rename(source / "b.py"),
        lambda: tree(source, "c.py"),
    ):
        change()
        seen.add(take_snapshot(source, layout))
    assert len(seen) == 6
    assert content(layout, first) == ["a.py", "lib/b.py"]


def test_too_much_is_refused_with_advice(
    tmp_path: Path, layout: WorkspaceFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "LIMIT", 1000)
    source = tree(tmp_path / "source", "a.py")
    (source / "weights.h5").write_bytes(bytes(2000))
    with pytest.raises(PipelineError, match=r"has 2 kB in 2 files.*may have 1 kB.*\.amlignore.*weights\.h5 \(2 kB\)"):
        take_snapshot(source, layout)
    assert not layout.snapshots.exists()
    (source / ".amlignore").write_text("*.h5\n")
    assert content(layout, take_snapshot(source, layout)) == [".amlignore", "a.py"]


def test_what_cannot_be_read_is_named(tmp_path: Path, layout: WorkspaceFolder) -> None:
    with pytest.raises(PipelineError, match=f"source directory {tmp_path}/no: No such file"):
        take_snapshot(tmp_path / "no", layout)
    source = tree(tmp_path / "source", "a.py")
    (source / ".amlignore").write_bytes(b"\xff\n")
    with pytest.raises(PipelineError, match=r"cannot read .*/\.amlignore"):
        take_snapshot(source, layout)
    (source / ".amlignore").unlink()
    tree(layout.root, "snapshots")
    with pytest.raises(PipelineError, match=r"cannot copy .* to .*/snapshots: .*Not a directory"):
        take_snapshot(source, layout)


def test_many_submitters_at_once_make_one_snapshot(tmp_path: Path, layout: WorkspaceFolder) -> None:
    source = tree(tmp_path / "source", *(f"{number}.py" for number in range(50)))
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: take_snapshot(source, layout), range(8)))
    assert len(digests) == 1
    assert len(content(layout, digests.pop())) == 50
    assert os.listdir(layout.snapshots / ".incoming") == []


def test_a_submitter_that_is_killed_leaves_nothing_half_done(tmp_path: Path, layout: WorkspaceFolder) -> None:
    source = tree(tmp_path / "source", *(f"{number}.py" for number in range(200)))
    program = (
        "import sys, pathlib; from mpi_prs.azureml.submit import snapshot\n"
        "from mpi_prs.child.context.workspace_paths import *\n"
        "copy = snapshot._copy\n"
        "def slowly(target, *rest):\n"
        "    copy(target, *rest)\n"
        "    if target.name == '150.py': print(flush=True); sys.stdin.read()\n"
        "snapshot._copy = slowly\n"
        "snapshot.take_snapshot(pathlib.Path(sys.argv[1]), WorkspaceFolder(pathlib.Path(sys.argv[2])))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(source), str(layout.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    ) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        killed.send_signal(signal.SIGKILL)
    assert os.listdir(layout.snapshots / ".incoming") != []
    assert [path.name for path in layout.snapshots.iterdir()] == [".incoming"]
    assert len(content(layout, take_snapshot(source, layout))) == 200
    assert os.listdir(layout.snapshots / ".incoming") == []

"""What has become of the inputs of a run since they were listed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mpi_prs.inputs import since
from mpi_prs.inputs.datasets import InputDataset, InputFiles, InputTable
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.manifest import Manifest, write_manifest
from mpi_prs.inputs.planning import plan
from mpi_prs.inputs.since import look_again

LISTED = 1_700_000_000
NAMES = ("a/1.csv", "a/2.csv", "b/3.csv", "b/no-rows.csv")


def begun(folder: Path, datasets: Sequence[InputDataset], keys: Sequence[str] | None = None) -> Manifest:
    """The manifest of a run over some files, all of them older than it."""
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x\n" if "no-rows" in name else "x\n1\n")
        os.utime(folder / name, (LISTED - 100, LISTED - 100))
    path = folder / "manifest.arrow"
    size = 2 if isinstance(datasets[0], InputFiles) else BatchSize(rows=1)
    write_manifest(path, plan(datasets, None if keys else size, keys))
    return Manifest.open(path)


KINDS: dict[str, Callable[[Path], tuple[list[InputDataset], list[str] | None]]] = {
    "files": lambda folder: ([InputFiles.from_files(f"{folder}/*/*.csv")], None),
    "files of two inputs": lambda folder: ([InputFiles.from_files(f"{folder}/{name}/*.csv") for name in "ab"], None),
    "partitions": lambda folder: (
        [InputFiles.from_files(f"{folder}/*/*.csv", partition_format="{folder}/{name}.csv")],
        ["folder"],
    ),
    "a table": lambda folder: ([InputTable.from_delimited_files(f"{folder}/*/*.csv")], None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_new_changed_or_gone_is_counted_with_an_example(tmp_path: Path, kind: str) -> None:
    datasets, keys = KINDS[kind](tmp_path)
    manifest = begun(tmp_path, datasets, keys)
    found = look_again(datasets, manifest)
    assert (str(found), found.seen, found.whole) == ("", 4, True)

    ahead = manifest.path.stat().st_mtime + 10
    os.utime(tmp_path / "a/1.csv", (ahead, ahead))
    found = look_again(datasets, manifest)
    assert str(found) == f"1 changed (such as {tmp_path}/a/1.csv)"

    (tmp_path / "b/3.csv").unlink()
    for name in ("new.csv", "newer.csv"):
        (tmp_path / "a" / name).write_text("x\n1\n")
        os.utime(tmp_path / "a" / name, (ahead, ahead))
    found = look_again(datasets, manifest)
    assert str(found) == f"2 new, 1 changed, 1 gone (such as {tmp_path}/a/new.csv)"


def test_it_takes_no_longer_than_somebody_will_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(since, "_PIECE", 1)
    datasets, _ = KINDS["files"](tmp_path)
    manifest = begun(tmp_path, datasets)
    clock = iter([0.0, 30.0, 61.0])
    found = look_again(datasets, manifest, lambda: next(clock))
    assert (found.seen, found.whole, found.gone) == (2, False, 0)

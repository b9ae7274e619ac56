"""Files in a column of Parquet as items: each comes once, whole, under its name."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.datasets import InputTable
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.payload import names, names_of_items
from mpi_prs.inputs.reader.row_files import RowFileLoader
from mpi_prs.inputs.reader.tables import TableLoader
from mpi_prs.inputs.row_files import files_in
from mpi_prs.inputs.since import look_again
from mpi_prs.storage.credentials import Storage
from tests.inputs.test_planning import manifest_of
from tests.inputs.test_staging import files_in as files_below
from tests.support.jobs import Job, wait_until

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
JPEG = b"\xff\xd8\xff"


def write(path: Path, values: list[Any], type: Any = IMAGE, row_group: int = 4) -> Path:
    """As Hugging Face has it: images beside labels."""
    table = pa.table({"image": pa.array(values, type), "label": pa.array(range(len(values)))})
    pq.write_table(table, path, row_group)
    return path


def images(numbers: range) -> list[dict[str, Any]]:
    return [{"bytes": JPEG + b"%d" % number * number, "path": f"folder/{number:03d}.jpg"} for number in numbers]


def dataset_of(pattern: Path | str, column: str = "image") -> InputTable:
    return InputTable.from_parquet_files(str(pattern), columns=(column,), file_column=column)


@contextlib.contextmanager
def loading(manifest: Manifest, folder: Path) -> Iterator[RowFileLoader]:
    tables = TableLoader(manifest, folder, [Storage() for _ in manifest.inputs], 1, 60)
    with contextlib.closing(RowFileLoader(tables, manifest, folder / "staged", 2**20)) as loader:
        yield loader
        loader.leave()


def paths_in(payload: bytes) -> list[Path]:
    return [Path(os.fsdecode(path)) for path in payload.split(b"}")[-1].split(b"\0")]


def test_rows_come_as_files_and_go(tmp_path: Path) -> None:
    for shard in range(2):
        write(tmp_path / f"{shard}.parquet", images(range(10 * shard, 10 * shard + 10)))
    dataset = dataset_of(tmp_path / "*.parquet")
    manifest = manifest_of(tmp_path, [dataset], BatchSize(rows=3))
    assert manifest.items == 20 and manifest.exact and not manifest.of_tables and manifest.needs_loading
    assert str(look_again([dataset], manifest)) == ""
    assert names(manifest, 0) == [f"{tmp_path}/0.parquet, rows 0 to 1"]
    assert names_of_items(manifest, 0, [1]) == [f"{tmp_path}/0.parquet, row 2"]
    found = []
    with loading(manifest, tmp_path / "scratch") as loader:
        for number in range(manifest.mini_batches):
            loaded = loader.load(number)
            paths = paths_in(loaded.payload)
            assert loaded.items == manifest.items_of(number) == len(paths) <= 3
            assert loaded.bytes == sum(path.stat().st_size for path in paths)
            found += [(str(path), path.read_bytes()) for path in paths]
            loaded.release()
        wait_until(lambda: not files_below(tmp_path / "scratch"))
    assert [path.split("staged/")[1].partition("/")[2] for path, _ in found] == [
        f"{tmp_path}/{number // 10}.parquet/{number % 10}/{number:03d}.jpg"[1:] for number in range(20)
    ]
    assert [content for _, content in found] == [each["bytes"] for each in images(range(20))]


NAMES = [
    ({"bytes": b"x", "path": "a/b/c.png"}, "c.png"),
    ({"bytes": b"x", "path": r"C:\d\e.png"}, "e.png"),
    ({"bytes": b"x", "path": "größe.png"}, "größe.png"),
    ({"bytes": JPEG, "path": None}, "3.jpg"),
    ({"bytes": b"\x89PNG\r\n\x1a\n..", "path": ""}, "4.png"),
    ({"bytes": b"", "path": "../.."}, "5"),
    ({"bytes": b"x", "path": "n" * 300}, "6"),
    ({"bytes": b"y", "path": "c.png"}, "c.png"),
]


def test_names_are_those_of_the_paths(tmp_path: Path) -> None:
    values, expected = zip(*NAMES, strict=True)
    write(tmp_path / "0.parquet", list(values))
    for number, type in enumerate([pa.binary(), pa.large_binary(), pa.struct([("bytes", pa.large_binary())])], 1):
        of_type = [{"bytes": JPEG}, {"bytes": b"x"}] if pa.types.is_struct(type) else [JPEG, b"x"]
        write(tmp_path / f"{number}.parquet", of_type, type)
    for number in range(4):
        manifest = manifest_of(tmp_path, [dataset_of(tmp_path / f"{number}.parquet")], BatchSize(rows=9))
        with loading(manifest, tmp_path / "scratch") as loader:
            paths = paths_in(loader.load(0).payload)
            assert [path.name for path in paths] == (["0.jpg", "1"] if number else list(expected))
            assert [path.parent.name for path in paths] == [str(row) for row in range(len(paths))]
            if not number:
                assert [path.read_bytes() for path in paths] == [value["bytes"] for value in values]


@pytest.mark.parametrize(
    ("value", "problem"),
    [(None, "the file is missing"), ({"bytes": None, "path": "x.jpg"}, "the file has the path 'x.jpg' and no bytes")],
)
def test_a_row_without_a_file_is_named(tmp_path: Path, value: Any, problem: str) -> None:
    write(tmp_path / "t.parquet", [*images(range(3)), value])
    manifest = manifest_of(tmp_path, [dataset_of(tmp_path / "t.parquet")], BatchSize(rows=9))
    with loading(manifest, tmp_path / "scratch") as loader, pytest.raises(InputError) as refused:
        loader.load(0)
    assert f"{tmp_path}/t.parquet, row 4, column 'image': {problem}; leave the row out" in str(refused.value)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "t.parquet", images(range(3)))
    manifest = manifest_of(tmp_path, [dataset_of(tmp_path / "t.parquet")], BatchSize(rows=9))

    def full(path: Path, _: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with loading(manifest, tmp_path / "scratch") as loader, pytest.raises(InputError, match="no space is left in"):
        loader.load(0)


@pytest.mark.parametrize(
    ("column", "problem"), [("label", "column 'label' of .* is int64; expected bytes, or a struct"), ("x", "not found")]
)
def test_a_column_without_files_is_refused(tmp_path: Path, column: str, problem: str) -> None:
    write(tmp_path / "t.parquet", images(range(3)))
    with pytest.raises(InputError, match=problem):
        manifest_of(tmp_path, [dataset_of(tmp_path / "t.parquet", column)], BatchSize(rows=9))


@pytest.mark.parametrize(
    ("names", "ends"),
    [(["/a"], [1, 2]), (["/a"], [9]), (["/a", "/b"], [2, 1]), (["/a"], [-1]), (["a"], [1]), (["/../a"], [1])],
)
def test_nonsense_of_a_reader_process_is_refused(names: list[str], ends: list[int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(files_in(names, ends, memoryview(b"abc")))


SCRIPT = """\
import os
def run(mini_batch):
    if any(path.endswith("003.jpg") for path in mini_batch):
        raise ValueError("bad picture")
    return [f"{os.path.basename(path)} {os.path.getsize(path)}" for path in mini_batch]
"""


def test_a_job_loses_the_row_alone(new_job: Callable[..., Job]) -> None:
    job = new_job(
        SCRIPT,
        items=0,
        inputs=[{"files": "in/*.parquet", "file_column": "image"}],
        error_threshold=-1,
        run_max_try=1,
        mini_batch_size=4,
        bisect_on_failure=True,
    )
    write(job.folder / "in/a.parquet", images(range(10)))
    done = job.local()
    assert done.returncode == 0, done.stdout
    sizes = [len(image["bytes"]) for image in images(range(10))]
    assert sorted(job.rows()) == [f"{number:03d}.jpg {sizes[number]}" for number in range(10) if number != 3]
    assert "a.parquet, row 4" in (job.folder / "out/_run/failed_items.jsonl").read_text()

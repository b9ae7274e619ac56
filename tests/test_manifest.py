"""The manifest: what is written comes back, in any range, and a file that cannot be trusted is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.data import manifest
from mpi_prs.data.files import FileInput, list_files
from mpi_prs.data.manifest import Manifest, write_manifest
from mpi_prs.errors import InputError, OutputError


def folder_with(root: Path, *names: str) -> FileInput:
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).touch()
    return FileInput((str(root),))


def fill(monkeypatch: pytest.MonkeyPatch, *listings: Sequence[bytes]) -> list[FileInput]:
    """Inputs that list these paths, without any files."""
    inputs = [FileInput((str(number),)) for number in range(len(listings))]
    monkeypatch.setattr(manifest, "list_files", lambda input: iter(listings[int(input.files[0])]))
    return inputs


def written(path: Path, inputs: Sequence[FileInput], size: int, record_batch_bytes: int = 100) -> Manifest:
    write_manifest(path, inputs, size, record_batch_bytes=record_batch_bytes)
    return Manifest.open(path)


# What is written comes back

FILE_NAMES = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"-").replace(b"\0", b"\n"))
    .filter(lambda name: not name.startswith(b"."))
)


@settings(max_examples=60, deadline=None)
@given(
    trees=st.lists(st.lists(FILE_NAMES, min_size=1, max_size=25, unique=True), min_size=1, max_size=3),
    size=st.integers(1, 30),
    record_batch_bytes=st.integers(1, 2000),
    data=st.data(),
)
def test_the_mini_batches_are_the_listing_cut_into_pieces_that_never_mix_inputs(
    trees: list[list[bytes]], size: int, record_batch_bytes: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        inputs = [folder_with(root / str(number), *map(os.fsdecode, tree)) for number, tree in enumerate(trees)]
        opened = written(root / "manifest", inputs, size, record_batch_bytes)

        expected = []
        for number, input in enumerate(inputs):
            paths = [os.fsdecode(path) for path in list_files(input)]
            expected += [(number, paths[at : at + size]) for at in range(0, len(paths), size)]
        every = range(opened.mini_batches)
        assert [(opened.input_of(k), opened.paths(k)) for k in every] == expected
        assert opened.items == sum(len(paths) for _, paths in expected) == sum(map(len, trees))
        assert [opened.items_of(k) for k in every] == [len(paths) for _, paths in expected]
        assert [opened.first_item(k) for k in every] == [sum(opened.items_of(i) for i in range(k)) for k in every]
        assert opened.item_counts().dtype == np.uint32
        assert opened.item_counts().tolist() == [opened.items_of(k) for k in every]

        first = data.draw(st.integers(0, opened.mini_batches - 1))
        count = data.draw(st.integers(1, opened.mini_batches - first))
        loaded = opened.load(first, count)
        ones = [opened.load(k, 1) for k in range(first, first + count)]
        assert (loaded.first, loaded.count) == (first, count)
        assert loaded.items == b"".join(one.items for one in ones)
        assert loaded.sizes == b"".join(one.sizes for one in ones)
        assert loaded.payload == b"".join(one.payload for one in ones)


def test_a_loaded_range_is_little_endian_and_its_sizes_cut_the_payload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = fill(monkeypatch, [b"/a", b"/bb", b"/ccc"], [b"/d\xff"])
    loaded = written(tmp_path / "m", inputs, 2).load(0, 3)
    assert loaded.items == bytes([2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    assert loaded.sizes == bytes([6, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0])
    assert loaded.payload == b"/a\0/bb/ccc/d\xff"


@pytest.mark.parametrize("record_batch_bytes", [1, 7, 50, 4 * 2**20])
def test_ranges_across_record_batches_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_batch_bytes: int
) -> None:
    paths = [b"/%d" % number for number in range(40)]
    opened = written(tmp_path / "m", fill(monkeypatch, paths), 1, record_batch_bytes)
    for first in range(40):
        for count in range(1, 41 - first):
            assert opened.load(first, count).payload == b"".join(paths[first : first + count])


def test_record_batches_are_closed_at_their_size_and_the_last_holds_the_index_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path / "m", fill(monkeypatch, [b"/12345"] * 7), 1, record_batch_bytes=12)
    with pa.ipc.open_file(str(tmp_path / "m")) as reader:
        assert [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)] == [2, 2, 2, 1, 0]


def test_the_file_says_what_it_is_to_any_arrow_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path / "m", fill(monkeypatch, [b"/a", b"/b"], [b"/c"]), 10)
    with pa.ipc.open_file(str(tmp_path / "m")) as reader:
        metadata = reader.schema.metadata
        assert reader.read_all().to_pylist() == [
            {"input": 0, "first_item": 0, "items": 2, "payload": b"/a\0/b"},
            {"input": 1, "first_item": 2, "items": 1, "payload": b"/c"},
        ]
    assert metadata[b"mpi_prs.version"] == b"1"
    assert metadata[b"mpi_prs.kind"] == b"files"
    assert b'{"files": ["1"], "files_from": null, "base": "."}' in metadata[b"mpi_prs.inputs"]
    assert metadata[b"mpi_prs.created"].endswith(b"+00:00")


def test_an_input_whose_name_is_no_text_is_described(tmp_path: Path) -> None:
    opened = written(tmp_path / "m", [folder_with(tmp_path / "caf\udce9", "a")], 1)
    assert opened.paths(0) == [f"{tmp_path}/caf\udce9/a"]


@pytest.mark.parametrize(("first", "count"), [(0, 4), (3, 1), (-1, 1), (1, 0), (2, 2), (0, -1)])
def test_a_range_outside_the_manifest_is_an_index_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, count: int
) -> None:
    opened = written(tmp_path / "m", fill(monkeypatch, [b"/a", b"/b", b"/c"]), 1)
    with pytest.raises(IndexError):
        opened.load(first, count)


# Progress


def test_progress_is_told_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PROGRESS_ITEMS", 10)
    told: list[int] = []
    write_manifest(tmp_path / "m", fill(monkeypatch, [b"/a"] * 23, [b"/b"] * 4), 3, progress=told.append)
    assert told == [12, 23, 27]


# Writing that fails


def test_inputs_without_files_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files"):
        write_manifest(tmp_path / "m", [], 1)
    assert list(tmp_path.iterdir()) == []


def test_a_listing_that_fails_half_way_leaves_the_old_manifest(tmp_path: Path) -> None:
    good = folder_with(tmp_path / "d", "a", "b")
    path = tmp_path / "run" / "m"
    path.parent.mkdir()
    write_manifest(path, [good], 1)
    with pytest.raises(InputError, match="missing does not exist"):
        write_manifest(path, [good, FileInput(("missing",), base=tmp_path)], 1, record_batch_bytes=1)
    assert Manifest.open(path).mini_batches == 2
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(OutputError, match=r"cannot write /proc/nowhere/m: No such file or directory"):
        write_manifest(Path("/proc/nowhere/m"), [FileInput((str(tmp_path),))], 1)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path;"
        "from mpi_prs.data.files import FileInput; from mpi_prs.data.manifest import write_manifest;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "write_manifest(Path(sys.argv[1]), [FileInput((sys.argv[2],))], 1)"
    )
    folder_with(tmp_path / "d", *(f"{number:0100d}" for number in range(20)))
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", script, str(tmp_path / "run" / "m"), str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "OutputError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert list((tmp_path / "run").iterdir()) == []


def test_a_mini_batch_too_large_for_the_wire_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_SIZE_LIMIT", 20)
    with pytest.raises(InputError, match="mini_batch_size: 3: the paths of one mini-batch take 23 bytes"):
        write_manifest(tmp_path / "m", fill(monkeypatch, [b"/123456"] * 3), 3)


# Files that cannot be trusted


def refusal(path: Path) -> str:
    with pytest.raises(OutputError) as caught:
        Manifest.open(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_manifest_is_named_with_the_way_out(tmp_path: Path) -> None:
    assert refusal(tmp_path / "m") == f"the manifest {tmp_path}/m is missing: start the run anew with --overwrite"


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"rubbish" * 1000])
def test_rubbish_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    assert "is damaged" in refusal(tmp_path / "m")
    assert "--overwrite" in refusal(tmp_path / "m")


def test_a_manifest_cut_off_anywhere_is_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "m", fill(monkeypatch, [b"/a", b"/b", b"/c"]), 1, 4)
    content = (tmp_path / "m").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "cut").write_bytes(content[:length])
        assert "is damaged" in refusal(tmp_path / "cut")


def test_a_changed_byte_never_does_worse_than_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "m", fill(monkeypatch, [b"/a", b"/b", b"/c"]), 1, 4)
    content = (tmp_path / "m").read_bytes()
    for at in range(0, len(content), 3):
        (tmp_path / "bent").write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            bent = Manifest.open(tmp_path / "bent")
            for number in range(bent.mini_batches):
                bent.load(number, 1)
        except (OutputError, IndexError):
            continue


@pytest.mark.parametrize(("key", "value"), [("FORMAT_VERSION", b"99"), ("KIND_FILES", b"tables")])
def test_a_manifest_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: bytes
) -> None:
    with monkeypatch.context() as other:
        other.setattr(manifest, key, value)
        write_manifest(tmp_path / "m", fill(monkeypatch, [b"/a"]), 1)
    message = refusal(tmp_path / "m")
    assert value.decode() in message
    assert "this version reads format 1, kind files" in message
    assert "--overwrite" in message


def test_an_arrow_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.int32())])
    with pa.ipc.new_file(str(tmp_path / "m"), schema):
        pass
    assert "format none, kind none" in refusal(tmp_path / "m")


# Cost


def test_the_cost_of_load_does_not_grow_with_the_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = written(tmp_path / "m", fill(monkeypatch, [b"/a"] * 5000), 1, 4 * 2**20)
    opened.load(0, 1)

    def operations(count: int) -> int:
        seen = SimpleNamespace(lines=0)

        def trace(*_: object) -> object:
            seen.lines += 1
            return trace

        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            opened.load(0, count)
        finally:
            sys.settrace(previous)
        return seen.lines

    assert operations(5000) == operations(1)


def test_writing_and_reading_a_manifest_imports_little(tmp_path: Path) -> None:
    folder_with(tmp_path / "d", "a", "b")
    script = (
        "import sys; from pathlib import Path;"
        "from mpi_prs.data.files import FileInput; from mpi_prs.data.manifest import Manifest, write_manifest;"
        "write_manifest(Path(sys.argv[1]), [FileInput((sys.argv[2],))], 1);"
        "manifest = Manifest.open(Path(sys.argv[1])); manifest.load(0, 2); manifest.paths(1); manifest.item_counts();"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m"), str(tmp_path / "d")]
    modules = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "pyarrow.lib" in modules
    for heavy in ("pandas", "pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "click", "pydantic", "yaml"):
        assert heavy not in modules

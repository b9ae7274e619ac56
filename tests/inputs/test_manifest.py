"""The manifest: what is written comes back, in any range, and a file that cannot be trusted is refused."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.inputs import manifest
from mpi_prs.inputs.manifest import DESCRIBED, PLAIN, Manifest, Plan, PlannedMiniBatch, write_manifest


def plan_of(listings: Sequence[Sequence[bytes]], size: int) -> Plan:
    """Inputs of these paths, in mini-batches of so many."""
    cut = (
        (number, paths[at : at + size]) for number, paths in enumerate(listings) for at in range(0, len(paths), size)
    )
    mini_batches = (PlannedMiniBatch(number, len(chunk), b"\0".join(chunk)) for number, chunk in cut)
    return Plan(PLAIN, mini_batches, [{"kind": "files", "staged": False} for _ in listings])


def written(path: Path, listings: Sequence[Sequence[bytes]], size: int, record_batch_bytes: int = 100) -> Manifest:
    write_manifest(path, plan_of(listings, size), record_batch_bytes=record_batch_bytes)
    return Manifest.open(path)


# What is written comes back

PATHS = st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"\0", b"-"))


@settings(max_examples=60)
@given(
    listings=st.lists(st.lists(PATHS, min_size=1, max_size=25), min_size=1, max_size=3),
    size=st.integers(1, 30),
    record_batch_bytes=st.integers(1, 2000),
    data=st.data(),
)
def test_the_mini_batches_come_back_one_by_one_and_in_ranges(
    listings: list[list[bytes]], size: int, record_batch_bytes: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        opened = written(Path(name, "m"), listings, size, record_batch_bytes)
        expected = list(plan_of(listings, size).mini_batches)
        every = range(opened.mini_batches)
        assert [PlannedMiniBatch(opened.input_of(k), opened.items_of(k), opened.payload(k)) for k in every] == expected
        assert opened.items == sum(map(len, listings))
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


def test_a_loaded_range_is_little_endian_and_its_sizes_cut_the_payload(tmp_path: Path) -> None:
    loaded = written(tmp_path / "m", [[b"/a", b"/bb", b"/ccc"], [b"/d\xff"]], 2).load(0, 3)
    assert loaded.items == bytes([2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    assert loaded.sizes == bytes([6, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0])
    assert loaded.payload == b"/a\0/bb/ccc/d\xff"


@pytest.mark.parametrize("record_batch_bytes", [1, 7, 50, 4 * 2**20])
def test_ranges_across_record_batches_are_whole(tmp_path: Path, record_batch_bytes: int) -> None:
    paths = [b"/%d" % number for number in range(40)]
    opened = written(tmp_path / "m", [paths], 1, record_batch_bytes)
    for first in range(40):
        for count in range(1, 41 - first):
            assert opened.load(first, count).payload == b"".join(paths[first : first + count])


def test_record_batches_are_closed_at_their_size_and_the_last_holds_the_index_alone(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m", plan_of([[b"/12345"] * 7], 1), record_batch_bytes=12)
    with pa.ipc.open_file(str(tmp_path / "m")) as reader:
        assert [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)] == [2, 2, 2, 1, 0]


def test_the_file_says_what_it_is_to_any_arrow_reader(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m", plan_of([[b"/a", b"/b"], [b"/c"]], 10))
    with pa.ipc.open_file(str(tmp_path / "m")) as reader:
        metadata = reader.schema.metadata
        assert reader.read_all().to_pylist() == [
            {"input": 0, "first_item": 0, "items": 2, "stays": 1, "payload": b"/a\0/b"},
            {"input": 1, "first_item": 2, "items": 1, "stays": 1, "payload": b"/c"},
        ]
    assert metadata[b"mpi_prs.version"] == b"2"
    assert metadata[b"mpi_prs.kind"] == b"plain"
    assert metadata[b"mpi_prs.created"].endswith(b"+00:00")


def test_what_is_known_of_the_inputs_comes_back_even_when_it_is_learnt_late(tmp_path: Path) -> None:
    late: list[dict[str, Any]] = []

    def mini_batches() -> Iterator[PlannedMiniBatch]:
        yield PlannedMiniBatch(0, 7, b"x", stays=2)
        late.append({"kind": "table", "survey": {"caf\udce9": 1}})
        yield PlannedMiniBatch(0, 8, b"y")

    write_manifest(tmp_path / "m", Plan(DESCRIBED, mini_batches(), late, exact=False))
    opened = Manifest.open(tmp_path / "m")
    assert opened.inputs == late
    assert (opened.kind, opened.exact, opened.stays, opened.of_tables) == (DESCRIBED, False, True, True)
    assert [opened.stop_of_stay(0), opened.stop_of_stay(1)] == [2, 2]


@pytest.mark.parametrize(("first", "count"), [(0, 4), (3, 1), (-1, 1), (1, 0), (2, 2), (0, -1)])
def test_a_range_outside_the_manifest_is_an_index_error(tmp_path: Path, first: int, count: int) -> None:
    opened = written(tmp_path / "m", [[b"/a", b"/b", b"/c"]], 1)
    with pytest.raises(IndexError):
        opened.load(first, count)


# Progress


def test_progress_is_told_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PROGRESS_ITEMS", 10)
    told: list[int] = []
    write_manifest(tmp_path / "m", plan_of([[b"/a"] * 23, [b"/b"] * 4], 3), progress=told.append)
    assert told == [12, 23, 27]


# Writing that fails


def test_inputs_without_items_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no items: there is nothing in"):
        write_manifest(tmp_path / "m", plan_of([], 1))
    assert list(tmp_path.iterdir()) == []


def test_a_listing_that_fails_half_way_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_manifest(path, plan_of([[b"/a", b"/b"]], 1))

    def failing() -> Iterator[PlannedMiniBatch]:
        yield PlannedMiniBatch(0, 1, b"/a")
        raise InputError("missing does not exist")

    with pytest.raises(InputError, match="missing does not exist"):
        write_manifest(path, Plan(PLAIN, failing(), []), record_batch_bytes=1)
    assert Manifest.open(path).mini_batches == 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(OutputError, match=r"cannot write /proc/nowhere/m: No such file or directory"):
        write_manifest(Path("/proc/nowhere/m"), plan_of([[b"/a"]], 1))


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path;"
        "from mpi_prs.inputs.manifest import PlannedMiniBatch, Plan, write_manifest;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "write_manifest(Path(sys.argv[1]), Plan('plain', iter([PlannedMiniBatch(0, 1, bytes(100))] * 20), []))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "OutputError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


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


def test_a_manifest_cut_off_anywhere_is_called_damaged(tmp_path: Path) -> None:
    written(tmp_path / "m", [[b"/a", b"/b", b"/c"]], 1, 4)
    content = (tmp_path / "m").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "cut").write_bytes(content[:length])
        assert "is damaged" in refusal(tmp_path / "cut")


def test_a_changed_byte_never_does_worse_than_an_error(tmp_path: Path) -> None:
    written(tmp_path / "m", [[b"/a", b"/b", b"/c"]], 1, 4)
    content = (tmp_path / "m").read_bytes()
    for at in range(0, len(content), 3):
        (tmp_path / "bent").write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            bent = Manifest.open(tmp_path / "bent")
            for number in range(bent.mini_batches):
                bent.load(number, 1)
        except (OutputError, IndexError):
            continue


def test_a_manifest_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setattr(manifest, "FORMAT_VERSION", b"99")
        write_manifest(tmp_path / "m", plan_of([[b"/a"]], 1))
    message = refusal(tmp_path / "m")
    assert "is of format 99; this version reads format 2" in message
    assert "--overwrite" in message


def test_an_arrow_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.int32())])
    with pa.ipc.new_file(str(tmp_path / "m"), schema):
        pass
    assert "format none" in refusal(tmp_path / "m")


# Cost


def test_the_cost_of_load_does_not_grow_with_the_range(tmp_path: Path) -> None:
    opened = written(tmp_path / "m", [[b"/a"] * 5000], 1, 4 * 2**20)
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
    script = (
        "import sys; from pathlib import Path;"
        "from mpi_prs.inputs.manifest import Manifest, PlannedMiniBatch, Plan, write_manifest;"
        "write_manifest(Path(sys.argv[1]), Plan('plain', iter([PlannedMiniBatch(0, 1, b'a')] * 2), []));"
        "manifest = Manifest.open(Path(sys.argv[1])); manifest.load(0, 2); manifest.item_counts();"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "m")]
    modules = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "pyarrow.lib" in modules
    for heavy in ("pandas", "pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "click", "pydantic", "yaml"):
        assert heavy not in modules

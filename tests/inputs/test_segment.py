"""Shared memory: what is written is what is mapped, and a segment is used again only when nobody refers to it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mpi_prs.child.mini_batch import DescribedMiniBatches
from mpi_prs.inputs.payload import pack
from mpi_prs.inputs.segment import Loan, Loans, Segment, Segments


class BothEnds:
    """The segments of a reader process, and what its worker has of them."""

    def __init__(self, most_idle: int = 64 << 20, folder: Path | None = None) -> None:
        self.segments = Segments(folder)
        self.loans = Loans(most_idle)
        self.lent: dict[int, Segment] = {}
        self.folder = folder

    def of_table(self, table: Any) -> Loan:
        return self._lend(self.segments.of_table(table))

    def of_arrays(self, arrays: dict[str, Any]) -> tuple[Loan, Any]:
        segment, places = self.segments.of_arrays(arrays)
        return self._lend(segment), places

    def _lend(self, segment: Segment) -> Loan:
        if segment.number in self.lent:
            return self.loans.taken(segment.number, -1, "", 0)
        self.lent[segment.number] = segment
        if self.folder:
            return self.loans.taken(segment.number, -1, segment.path, segment.capacity)
        return self.loans.taken(segment.number, os.dup(segment.descriptor), "", segment.capacity)

    def release(self, loan: Loan) -> None:
        self.loans.release(loan)
        for number, again in self.loans.verdicts():
            if again:
                self.segments.take_back(self.lent[number])
            else:
                self.lent.pop(number).close()

    def close(self) -> None:
        self.segments.close()
        self.loans.close()


@pytest.fixture
def segments() -> Iterator[BothEnds]:
    with contextlib.closing(BothEnds()) as made:
        yield made


def table(first: int, rows: int = 5000) -> Any:
    numbers = np.arange(first, first + rows)
    return pa.table({"n": numbers, "x": numbers / 2, "s": [f"text {n}" for n in numbers]})


def payload(**header: Any) -> memoryview:
    return memoryview(pack({"input": 0, **header}))


def test_a_table_comes_out_as_it_was_and_its_memory_is_used_again(segments: BothEnds) -> None:
    process, used = DescribedMiniBatches(), set()
    for round in range(10):
        given = table(round)
        segment = segments.of_table(given)
        used.add(segment.path)
        frame = process.make(payload(segment=segment.path), None, 0)
        assert frame.equals(given.to_pandas())
        frame["n"] += 1
        frame.loc[0, "x"] = -1.0
        del frame
        process.let_go()
        assert segment.let_go
        segments.release(segment)
    assert len(used) == 1


@pytest.mark.parametrize("column", ["n", "x", "s"])
def test_what_is_kept_of_a_table_stays_as_it_is(segments: BothEnds, column: str) -> None:
    process = DescribedMiniBatches()
    kept = []
    for round in range(5):
        given = table(1000 * round)
        segment = segments.of_table(given)
        frame = process.make(payload(segment=segment.path), None, 0)
        kept.append((frame[column], given[column].to_pylist()))
        del frame
        process.let_go()
        segments.release(segment)
    assert all(series.tolist() == values for series, values in kept)


@pytest.mark.parametrize("arrays", [True, False])
def test_what_is_kept_takes_no_file_descriptors(segments: BothEnds, arrays: bool) -> None:
    process, kept = DescribedMiniBatches(), []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        if arrays:
            segment, places = segments.of_arrays({"f": np.arange(10.0)})
            kept.append(process.make(payload(segment=segment.path, arrays=places), None, 0)["f"])
        else:
            segment = segments.of_table(table(0))
            kept.append(process.make(payload(segment=segment.path), None, 0)["s"])
        process.let_go()
        segments.release(segment)
    assert len(kept) == 20
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_let_go_is_unmapped(segments: BothEnds) -> None:
    process = DescribedMiniBatches()
    for rows in range(1000, 400_000, 30_000):
        segment = segments.of_table(table(0, rows))
        process.make(payload(segment=segment.path), None, 0)
        process.let_go()
        segment.close()
        segments.lent.pop(segment.number).close()
    mapped = Path("/proc/self/maps").read_text().count("memfd:mpi_prs_segment")
    assert mapped <= 5


def test_arrays_come_out_as_they_were_and_may_be_written_into(segments: BothEnds) -> None:
    process = DescribedMiniBatches()
    given = {
        "images": np.arange(120, dtype=np.uint8).reshape(10, 3, 4),
        "f": np.arange(10.0),
        "none": np.zeros((10, 0)),
    }
    segment, places = segments.of_arrays(given)
    made = process.make(payload(segment=segment.path, arrays=places), None, 0)
    for name, array in given.items():
        np.testing.assert_array_equal(made[name], array)
        assert made[name].dtype == array.dtype
    made["f"] += 1
    again = process.make(payload(segment=segment.path, arrays=places), None, 0)
    np.testing.assert_array_equal(again["f"], given["f"])
    segments.release(segment)


@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[3:], lambda a: a.reshape(2, 5).T[1], memoryview])
def test_memory_that_a_view_of_an_array_refers_to_is_not_let_go(segments: BothEnds, view: Any) -> None:
    process = DescribedMiniBatches()
    segment, places = segments.of_arrays({"f": np.arange(10.0)})
    kept = view(process.make(payload(segment=segment.path, arrays=places), None, 0)["f"])
    process.let_go()
    assert not segment.let_go
    assert len(kept)
    segments.release(segment)


def test_arrays_that_nobody_refers_to_are_let_go(segments: BothEnds) -> None:
    process = DescribedMiniBatches()
    segment, places = segments.of_arrays({"f": np.arange(10.0)})
    process.make(payload(segment=segment.path, arrays=places), None, 0)
    process.let_go()
    assert segment.let_go
    segments.release(segment)


def test_no_more_memory_waits_than_may() -> None:
    with contextlib.closing(BothEnds(most_idle=100_000)) as segments:
        process = DescribedMiniBatches()
        held = [segments.of_table(table(0, 1000)) for _ in range(5)]
        for segment in held:
            process.make(payload(segment=segment.path), None, 0)
            process.let_go()
            segments.release(segment)
        assert len(segments.lent) == 1


def test_segments_may_be_files_which_a_process_in_another_user_namespace_can_open(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    with contextlib.closing(BothEnds(most_idle=100_000, folder=folder)) as segments:
        process = DescribedMiniBatches()
        for round in range(3):  # the first is used again
            given = table(round, 1000)
            segment = segments.of_table(given)
            assert process.make(payload(segment=segment.path), None, 0).equals(given.to_pandas())
            process.let_go()
            assert segment.let_go
            segments.release(segment)
            assert os.listdir(folder) == ["segment0"]
        large, places = segments.of_arrays({"f": np.arange(1e6)})
        assert process.make(payload(segment=large.path, arrays=places), None, 0)["f"].sum() == np.arange(1e6).sum()
        assert os.stat(large.path).st_mode & 0o777 == 0o600
        segments.release(large)
        assert os.listdir(folder) == ["segment0"]
    assert os.listdir(folder) == []


def test_a_new_file_is_not_taken_for_an_old_one_of_the_same_inode(tmp_path: Path) -> None:
    process = DescribedMiniBatches()
    for round in range(20):  # nothing idle: each is removed, and its inode perhaps used again
        with contextlib.closing(BothEnds(most_idle=0, folder=tmp_path / str(round))) as segments:
            given = table(round, 1000)
            segment = segments.of_table(given)
            assert process.make(payload(segment=segment.path), None, 0).equals(given.to_pandas())
            process.let_go()
            segments.release(segment)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with contextlib.closing(BothEnds(folder=tmp_path)) as segments, pytest.raises(OSError, match="No space left"):
        segments.of_table(table(0))
    assert os.listdir(tmp_path) == []


def test_a_process_that_may_not_open_the_memory_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr("mpi_prs.child.mini_batch.os.stat", refused)
    with pytest.raises(PermissionError, match=r"/proc/1/fd/9.*MPI_PRS_TABLES_IN_FILES"):
        DescribedMiniBatches().make(payload(segment="/proc/1/fd/9"), None, 0)

"""Shared memory: what is written is what is mapped, and a segment is used again only when nobody refers to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mpi_prs.data.payload import pack
from mpi_prs.data.segment import Segments
from mpi_prs.entry_script.mini_batch import DescribedMiniBatches


@pytest.fixture
def segments() -> Iterator[Segments]:
    with contextlib.closing(Segments()) as made:
        yield made


def table(first: int, rows: int = 5000) -> Any:
    numbers = np.arange(first, first + rows)
    return pa.table({"n": numbers, "x": numbers / 2, "s": [f"text {n}" for n in numbers]})


def payload(**header: Any) -> memoryview:
    return memoryview(pack({"input": 0, **header}))


def test_a_table_comes_out_as_it_was_and_its_memory_is_used_again(segments: Segments) -> None:
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
def test_what_is_kept_of_a_table_stays_as_it_is(segments: Segments, column: str) -> None:
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
def test_what_is_kept_takes_no_file_descriptors(segments: Segments, arrays: bool) -> None:
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


def test_what_is_let_go_is_unmapped(segments: Segments) -> None:
    process = DescribedMiniBatches()
    for rows in range(1000, 400_000, 30_000):
        segment = segments.of_table(table(0, rows))
        process.make(payload(segment=segment.path), None, 0)
        process.let_go()
        segment.close()
    mapped = Path("/proc/self/maps").read_text().count("memfd:mpi_prs_segment")
    assert mapped <= 5


def test_arrays_come_out_as_they_were_and_may_be_written_into(segments: Segments) -> None:
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
def test_memory_that_a_view_of_an_array_refers_to_is_not_let_go(segments: Segments, view: Any) -> None:
    process = DescribedMiniBatches()
    segment, places = segments.of_arrays({"f": np.arange(10.0)})
    kept = view(process.make(payload(segment=segment.path, arrays=places), None, 0)["f"])
    process.let_go()
    assert not segment.let_go
    assert len(kept)
    segments.release(segment)


def test_arrays_that_nobody_refers_to_are_let_go(segments: Segments) -> None:
    process = DescribedMiniBatches()
    segment, places = segments.of_arrays({"f": np.arange(10.0)})
    process.make(payload(segment=segment.path, arrays=places), None, 0)
    process.let_go()
    assert segment.let_go
    segments.release(segment)


def test_no_more_memory_waits_than_may() -> None:
    with contextlib.closing(Segments(most_idle=100_000)) as segments:
        process = DescribedMiniBatches()
        held = [segments.of_table(table(0, 1000)) for _ in range(5)]
        for segment in held:
            process.make(payload(segment=segment.path), None, 0)
            process.let_go()
            segments.release(segment)
        assert sum(not segment.memory.closed for segment in held) == 1

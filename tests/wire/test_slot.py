"""The slot: whatever stops its writer between two instructions, a reader sees the old value or the new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from mpi_prs.wire.channel import Activity, ProcessPhase, Slot


class Stopped(Exception):
    """The kernel has taken the writer off the processor."""


class Budget:
    """A view of the memory that lets so many stores through."""

    def __init__(self, view: Any, left: list[int]) -> None:
        self._view = view
        self._left = left

    def __getitem__(self, index: int) -> Any:
        return self._view[index]

    def __setitem__(self, index: int, value: Any) -> None:
        if not self._left[0]:
            raise Stopped
        self._left[0] -= 1
        self._view[index] = value


@pytest.fixture
def ends() -> Iterator[tuple[Slot, Slot]]:
    """The process's end and the worker's."""
    worker, descriptor = Slot.create()
    process = Slot(descriptor)
    os.close(descriptor)
    yield process, worker
    worker.close()


@pytest.mark.parametrize("before", [0, 1, 2])
def test_no_reader_sees_half_of_a_value(ends: tuple[Slot, Slot], before: int) -> None:
    process, worker = ends
    old, new = Activity(ProcessPhase.RUNNING, 7, 1.5), Activity(ProcessPhase.ENCODING, 8, 2.5)
    for _ in range(before):
        process.write(ProcessPhase.IDLE, -1, 0.0)
    process.write(*old)
    seen = []
    for stores in range(5):
        process._integers, process._floats = (Budget(view, left) for left in [[stores]] for view in views(process))  # type: ignore[assignment]
        with contextlib.suppress(Stopped):
            process.write(*new)
        seen.append(worker.read())
    assert seen == [old, old, old, old, new]


def views(slot: Slot) -> tuple[Any, Any]:
    """The two views of a slot, as they were when it was made."""
    found = [getattr(slot, name) for name in ("_integers", "_floats")]
    first, second = (view._view if isinstance(view, Budget) else view for view in found)
    return first, second


def test_the_worker_asks_to_skip_and_the_process_sees_it(ends: tuple[Slot, Slot]) -> None:
    process, worker = ends
    process.write(ProcessPhase.RUNNING, 3, 4.0)
    assert not process.skips
    worker.skip_unstarted()
    assert process.skips
    assert worker.read() == (ProcessPhase.RUNNING, 3, 4.0)

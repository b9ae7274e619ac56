"""Whether a frame from a user process is an answer that it may give now.

A script can write whatever it likes into descriptors that it did not open, be it by mistake or a frame that looks like
ours. What does not hold here ends that process, at the cost of the attempt that it is at, and goes no further: neither
the worker nor the master looks again at what a record says.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from mpi_prs.wire.channel import Frame, Kind
from mpi_prs.wire.failure import Failure, FailureKind, unpack_failures
from mpi_prs.wire.record import LENGTH, RECORD
from mpi_prs.wire.settings import ProcessSettings
from mpi_prs.wire.work import Chunk, State

Attempt = tuple[int, int]  # the mini-batch, and which try it is

_OF_RUN = (FailureKind.EXCEPTION, FailureKind.WRONG_TYPE)
_TYPES: dict[str, Any] = {"int": int, "bool": bool, "float": (int, float), "str": str, "FailureKind": FailureKind}


def is_answer(
    frame: Frame,
    state: State,
    outstanding: Iterable[Chunk],
    skips: bool,
    settings: ProcessSettings,
    in_order: bool = True,
) -> bool:
    """Whether it is.

    Args:
        frame: as it came.
        state: where the process stands.
        outstanding: what it has not answered yet, in the order of the work.
        skips: whether it was told to start nothing more.
        settings: its own.
        in_order: whether it answers in the order of the work; else several mini-batches run at once.
    """
    expected = ((number, chunk.attempt) for chunk in outstanding for number in chunk)
    if frame.kind == Kind.RESULTS:
        return _are_results(frame.body, frame.mini_batches, expected if in_order else set(expected))
    if frame.kind == Kind.SPILLED:
        return frame.mini_batches == 1 and _is_spilled(frame.body, expected if in_order else set(expected), settings)
    if frame.kind == Kind.FAILED:
        failure = failure_in(frame.body)
        if failure is None or frame.mini_batches != 1:
            return False
        answered = (failure.mini_batch, failure.attempt)
        if in_order:
            return failure.kind in _OF_RUN and next(expected, None) == answered
        return failure.kind in (*_OF_RUN, FailureKind.TIMEOUT) and answered in set(expected)
    if frame.kind == Kind.ITEMS_FAILED:
        return _are_failed_items(frame, outstanding)
    if frame.kind == Kind.INIT_FAILED:
        failure = failure_in(frame.body)
        return state is State.STARTING and failure is not None and failure.kind is FailureKind.INIT
    if frame.kind == Kind.SKIPPED:
        return skips and frame.mini_batches <= sum(chunk.count for chunk in outstanding)
    if frame.kind == Kind.HEADER:
        return settings.row_form is not None and bool(settings.row_form["header"])
    return frame.kind == Kind.READY


def failure_in(body: bytes | memoryview) -> Failure | None:
    """The failure that a frame tells of; ``None``: it is none."""
    try:
        failure = Failure.from_json(bytes(body))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return failure if _is_sane(failure) else None


def _is_sane(failure: Failure) -> bool:
    for field in fields(Failure):
        value = getattr(failure, field.name)
        if not isinstance(value, _TYPES[str(field.type)]) or (isinstance(value, float) and not math.isfinite(value)):
            return False
    return failure.pause >= 0 and failure.seconds >= 0


def _are_failed_items(frame: Frame, outstanding: Iterable[Chunk]) -> bool:
    """Different items of one mini-batch that has no answer yet."""
    try:
        failures = unpack_failures(bytes(frame.body))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    if not failures or len(failures) != frame.mini_batches or not all(map(_is_sane, failures)):
        return False
    first = failures[0]
    attempts = (chunk.attempt for chunk in outstanding if first.mini_batch in chunk)
    return (
        next(attempts, None) == first.attempt
        and all(
            (each.mini_batch, each.attempt, each.items) == (first.mini_batch, first.attempt, first.items)
            for each in failures
        )
        and len({each.item for each in failures if 0 <= each.item < first.items}) == len(failures)
    )


def _are_results(body: memoryview, count: int, expected: Iterator[Attempt] | set[Attempt]) -> bool:
    """Less than 1 µs a mini-batch."""
    end = RECORD.size * count
    if not count or len(body) < end:
        return False
    length = 0
    for record in RECORD.iter_unpack(body[:end]):
        number, _items, _returned, attempt, _process, bytes_of_rows, started, run, overhead = record
        if isinstance(expected, set):
            if (number, attempt) not in expected:
                return False
            expected.remove((number, attempt))
        elif next(expected, None) != (number, attempt):
            return False
        # not NaN, not infinite, and no time before the beginning
        if not (started >= 0 and 0 <= run < math.inf and 0 <= overhead < math.inf):
            return False
        length += bytes_of_rows
    return length == len(body) - end


def _is_spilled(body: memoryview, expected: Iterator[Attempt] | set[Attempt], settings: ProcessSettings) -> bool:
    """The rows lie in a file of this process in the folder for them, and nowhere else: the master removes it."""
    if len(body) <= RECORD.size:
        return False
    length = RECORD.unpack_from(body)[LENGTH]
    record = RECORD.pack(*(0 if place == LENGTH else value for place, value in enumerate(RECORD.unpack_from(body))))
    if not _are_results(memoryview(record), 1, expected):
        return False
    folder, name = os.path.split(os.fsdecode(bytes(body[RECORD.size :])))
    try:
        status = os.lstat(os.path.join(folder, name))
    except (OSError, ValueError):
        return False
    own = name.startswith(f"{settings.node}-{settings.process}-")
    return folder == settings.spill and own and stat.S_ISREG(status.st_mode) and status.st_size == length

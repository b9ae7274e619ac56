"""Planning tables in a reader process: what in a damaged file kills the survey, kills no rank.

The mini-batches come back as they are planned, so the manifest is written as if they were planned here. ::

    of each mini-batch: input i32, items u32, stays u32, length of the payload u32 │ payload
"""

from __future__ import annotations

import logging
import os
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial

from mpi_prs.core import errors
from mpi_prs.core.errors import InputError, MpiPrsError
from mpi_prs.core.urls import is_url
from mpi_prs.inputs.datasets import InputDataset, InputTable
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.listing import FileInput
from mpi_prs.inputs.manifest import DESCRIBED, Plan, PlannedMiniBatch
from mpi_prs.inputs.planning import plan
from mpi_prs.inputs.reader.connection import ConnectionLost, MessageKind, ReaderConnection, ReaderMessage
from mpi_prs.inputs.reader.process import ReaderLost, ReaderProcess

_PLANNED = struct.Struct("<iIII")
_PIECE = 1 << 18  # bytes of mini-batches that are sent together, unless
_PIECE_SECONDS = 0.5  # have gone by
_SUSPECTS = 16  # files that may have been open together when the process died
_PATIENCE = 60.0
"""Seconds of computing for one file, and one more for each MB of it; nobody's mini-batches wait for a survey that a
damaged file keeps busy for ever."""
_BETWEEN_FILES = 600.0
"""Seconds of computing without a file: ten million paths are put into partitions in less."""


def pack_planned(mini_batches: Iterable[PlannedMiniBatch]) -> Iterator[bytes]:
    """Mini-batches as pieces of bytes, of some size or age."""
    piece, since = bytearray(), time.monotonic()
    for each in mini_batches:
        piece += _PLANNED.pack(each.input, each.items, each.stays, len(each.payload)) + each.payload
        if len(piece) >= _PIECE or time.monotonic() - since > _PIECE_SECONDS:
            yield bytes(piece)
            piece, since = bytearray(), time.monotonic()
    if piece:
        yield bytes(piece)


def unpack_planned(piece: bytes) -> Iterator[PlannedMiniBatch]:
    """The inverse of :func:`pack_planned`. Raises struct.error: it is none."""
    at = 0
    while at < len(piece):
        input, items, stays, length = _PLANNED.unpack_from(piece, at)
        at += _PLANNED.size + length
        yield PlannedMiniBatch(input, items, piece[at - length : at], stays)


def plan_apart(
    datasets: Sequence[InputDataset], size: int | BatchSize | None, partition_keys: Sequence[str] | None = None
) -> Plan:
    """As :func:`mpi_prs.inputs.planning.plan`; of tables a process of its own plans the mini-batches.

    Raises (when the mini-batches are taken):
        InputError: the inputs cannot be listed, or do not go together; or a file has killed that process, or kept it
            busy for too long.
    """
    tables = [dataset for dataset in datasets if isinstance(dataset, InputTable)]
    if not tables:
        return plan(datasets, size, partition_keys)
    assert not isinstance(size, int)
    planned = Plan(DESCRIBED, iter(()), [])
    planned.mini_batches = _watched(tables, size, partition_keys, planned)
    return planned


class _Survey:
    """One survey of some tables. Its process is started at once, and works when the mini-batches are wanted.

    Attributes:
        opened: the files that it has opened last, each with the number of its dataset.
    """

    def __init__(self, tables: Sequence[InputTable], size: BatchSize | None, keys: Sequence[str] | None) -> None:
        self.opened: deque[tuple[int, str]] = deque(maxlen=_SUSPECTS)
        self._patience = partial(_patience_with, None)
        self._process = ReaderProcess(
            {
                "job": "plan",
                "datasets": [table.secret() for table in tables],
                "size": None if size is None else asdict(size),
                "keys": list(keys) if keys else None,
            }
        )

    def mini_batches(self, planned: Plan) -> Iterator[PlannedMiniBatch]:
        """Complete the plan. Raises ReaderLost, and what planning raises."""
        (connection,) = self._process.connections
        try:
            while (message := self._next(connection)).kind is MessageKind.PLANNED:
                yield from unpack_planned(message.body)
            fields = message.json()
            planned.inputs += fields["inputs"]
            planned.exact = fields["exact"]
        except ConnectionLost:
            raise ReaderLost(self._process.end()) from None
        finally:
            self._process.close()

    def _next(self, connection: ReaderConnection) -> ReaderMessage:
        """The next message with mini-batches, or the last one."""
        while True:
            message = self._process.answer(connection, self._patience)
            if message.kind is MessageKind.AT:
                number, path = message.json()
                self._patience = partial(_patience_with, path)
                if path is not None:
                    self.opened.append((number, path))
            elif message.kind is MessageKind.LOG:
                pass_on(message)
            elif message.kind is MessageKind.FAILED:
                raise error_of(message)
            else:
                return message


def _watched(
    tables: Sequence[InputTable], size: BatchSize | None, keys: Sequence[str] | None, planned: Plan
) -> Iterator[PlannedMiniBatch]:
    survey = _Survey(tables, size, keys)
    try:
        yield from survey.mini_batches(planned)
    except ReaderLost as lost:
        how = str(lost)
    else:
        return
    if not survey.opened:
        raise InputError(f"the process that surveys the inputs {how}")
    # Some files may have been open together
    for number, path in reversed(list(dict.fromkeys(survey.opened))):
        if (alone := _end_with(tables[number], path)) is not None:
            raise InputError(
                f"{path}: the process that surveyed it {alone}: the file is damaged, or a library that reads such "
                "files has a fault. Leave it out of the inputs, or restore it"
            )
    raise InputError(
        f"{survey.opened[-1][1]}: the process that surveyed it, among others, {how}, and alone it does no harm: start "
        "again, with more memory where that may have been short"
    )


def _end_with(table: InputTable, path: str) -> str | None:
    """How a process ends that surveys a file alone; ``None``: it does no harm."""
    survey = _Survey([replace(table, input=FileInput((path,)), partition_format=None)], BatchSize(rows=2**62), None)
    try:
        for _ in survey.mini_batches(Plan(DESCRIBED, iter(()), [])):
            pass
    except ReaderLost as lost:
        return str(lost)
    except (MpiPrsError, OSError, RuntimeError):
        pass
    return None


def _patience_with(path: str | None) -> float:
    try:
        return _BETWEEN_FILES if path is None or is_url(path) else _PATIENCE + os.stat(path).st_size / 2**20
    except OSError:
        return _PATIENCE


def pass_on(message: ReaderMessage) -> None:
    """Log here what was logged there."""
    name, level, text = message.json()
    logging.getLogger(name).log(level, "%s", text)


def told_error(error: MpiPrsError) -> list[str]:
    """What a reader process tells of an error: the nearest of its classes that all rooms know, and its text."""
    known = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return [known.__name__, str(error)]


def error_of(message: ReaderMessage) -> Exception:
    """The inverse of :func:`told_error`; what is no error of ours is an OSError or a RuntimeError."""
    name, text = message.json()
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, MpiPrsError):
        return found(text)
    return OSError(text) if name == "OSError" else RuntimeError(text)

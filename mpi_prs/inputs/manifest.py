"""The manifest: the frozen list of items and mini-batches of a run, in one Arrow IPC file.

::

    schema    input: int32  first_item: int64  items: uint32  stays: uint32  payload: large_binary
              metadata: format version, kind, time of creation, id of the run
    batches   a row for each mini-batch, about 4 MiB of payload in each record batch
    index     an empty record batch; its metadata holds the first mini-batch of each record batch, the totals, and what
              is known of the inputs

The totals are known only at the end, when Arrow's schema is long written; the index at the end lets a rank open the
file with a read of the footer and of the index, however long the list is.

Every rank maps the file into memory by itself: what the ranks of a node read, they share.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.core.files import NoRegularFile, own_file, replacing
from mpi_prs.inputs.formats.format import quoted
from mpi_prs.wire.parts import WAYS

FORMAT_VERSION = b"2"
RECORD_BATCH_BYTES = 4 * 2**20
"""A record batch is closed when its payload reaches this size; the writer holds no more than that."""
PROGRESS_ITEMS = 10_000
"""How many items may be listed between two reports of progress."""

PLAIN, DESCRIBED = "plain", "described"
"""Kinds of payload; see :class:`PlannedMiniBatch`."""

_COLUMNS = [
    ("input", pa.int32()),
    ("first_item", pa.int64()),
    ("items", pa.uint32()),
    ("stays", pa.uint32()),
    ("payload", pa.large_binary()),
]
_VERSION, _KIND, _CREATED, _RUN = b"mpi_prs.version", b"mpi_prs.kind", b"mpi_prs.created", b"mpi_prs.run"
_INDEX = b"mpi_prs.index"
_PIECE = 2**20
SIZE_LIMIT = 2**32
"""Sizes and counts of a mini-batch are 32 bits wide, in the file and on the wire."""


# Writing


class PlannedMiniBatch(NamedTuple):
    """One mini-batch of the manifest.

    Attributes:
        input: number of the dataset it comes from.
        items: how many items; where that is known only when they are read, an estimate.
        payload: of a ``plain`` manifest the paths of its files, separated by NUL; of a ``described`` one see
            :mod:`mpi_prs.inputs.planning`.
        stays: so many mini-batches, from this one on, share what is decoded for them, and should stay at one worker.
    """

    input: int
    items: int
    payload: bytes
    stays: int = 1


@dataclass
class Plan:
    """What a manifest is made from.

    Attributes:
        kind: of the payloads, ``plain`` or ``described``.
        mini_batches: in their order; used up by writing.
        inputs: what the workers must know of each input, as JSON; complete when ``mini_batches`` is used up.
        exact: whether ``items`` are counted; else they are estimates.
    """

    kind: str
    mini_batches: Iterator[PlannedMiniBatch]
    inputs: list[dict[str, Any]]
    exact: bool = True


def write_manifest(
    path: Path,
    plan: Plan,
    *,
    run: str = "",
    progress: Callable[[int], None] | None = None,
    record_batch_bytes: int = RECORD_BATCH_BYTES,
) -> None:
    """Write a plan down.

    The file appears under its name only when it is complete and on disk. Memory: one record batch.

    Args:
        path: the manifest; an older one is replaced.
        plan: see :func:`mpi_prs.inputs.planning.plan`.
        run: the id of the run that it is for.
        progress: called with the number of items listed so far, now and then and at the end.
        record_batch_bytes: the payload at which a record batch is closed.

    Raises:
        InputError: the inputs cannot be listed, or there is nothing in them.
        OutputError: the manifest cannot be written.
    """
    try:
        with replacing(path, lasting=True) as file:
            _write(file, plan, run, _reporting(plan.mini_batches, progress), record_batch_bytes)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Check that its folder exists, is writable and has space"
        ) from error


def _reporting(
    mini_batches: Iterator[PlannedMiniBatch], progress: Callable[[int], None] | None
) -> Iterator[PlannedMiniBatch]:
    items = reported = 0
    for mini_batch in mini_batches:
        yield mini_batch
        items += mini_batch.items
        if progress is not None and items - reported >= PROGRESS_ITEMS:
            progress(items)
            reported = items
    if progress is not None and items != reported:
        progress(items)


def _write(
    file: BinaryIO, plan: Plan, run: str, mini_batches: Iterator[PlannedMiniBatch], record_batch_bytes: int
) -> None:
    schema = _schema(plan.kind, run)
    first_of_batch: list[int] = []
    written = items = 0
    stays = False
    with pa.ipc.new_file(file, schema) as writer:
        for rows in _groups(mini_batches, record_batch_bytes):
            writer.write_batch(_record_batch(rows, items, schema))
            first_of_batch.append(written)
            written += len(rows)
            if written > WAYS:
                raise InputError(f"more than {WAYS} mini-batches: choose a larger mini_batch_size")
            items += sum(row.items for row in rows)
            stays = stays or any(row.stays > 1 for row in rows)
        if not items:
            names = [name for described in plan.inputs for name in described["files"]]
            raise InputError(f"the inputs hold no items: there is nothing in {quoted(names)}")
        totals = {"mini_batches": written, "items": items, "exact": plan.exact, "stays": stays}
        index = json.dumps({"first_of_batch": first_of_batch, **totals, "inputs": plan.inputs})
        writer.write_batch(_record_batch([], items, schema), custom_metadata={_INDEX: index})


def _groups(mini_batches: Iterator[PlannedMiniBatch], limit: int) -> Iterator[list[PlannedMiniBatch]]:
    rows: list[PlannedMiniBatch] = []
    size = 0
    for mini_batch in mini_batches:
        rows.append(mini_batch)
        size += len(mini_batch.payload)
        if size >= limit:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _record_batch(rows: Sequence[PlannedMiniBatch], first_item: int, schema: Any) -> Any:
    items = np.array([row.items for row in rows], np.uint32)
    first_items = first_item + np.cumsum(items, dtype=np.int64) - items
    starts: Any = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row.payload) for row in rows], out=starts[1:])
    columns = [
        [np.array([row.input for row in rows], np.int32)],
        [first_items],
        [items],
        [np.array([row.stays for row in rows], np.uint32)],
        [starts, b"".join([row.payload for row in rows])],
    ]
    # From buffers: pa.array() imports pandas where it is installed
    arrays = [
        pa.Array.from_buffers(field.type, len(rows), [None, *map(pa.py_buffer, buffers)])
        for field, buffers in zip(schema, columns, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


def _schema(kind: str, run: str) -> Any:
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    metadata = {_VERSION: FORMAT_VERSION, _KIND: kind.encode(), _CREATED: created, _RUN: run}
    return pa.schema(_COLUMNS, metadata=metadata)


def digest_of(path: Path) -> str:
    """The SHA-256 of a manifest, in hexadecimal: about 1 s a GB. Raises OutputError: it cannot be read."""
    found = hashlib.sha256()
    try:
        with open(path, "rb", opener=own_file) as file:
            while piece := file.read(_PIECE):
                found.update(piece)
    except OSError as error:
        raise OutputError(f"cannot read the manifest {path}: {error.strerror}; {_ADVICE}") from error
    return found.hexdigest()


# Reading

_ADVICE = "start the run anew with --overwrite"
_DAMAGE = (
    pa.ArrowException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RecursionError,
)  # what Arrow, numpy and JSON make of noise


@dataclass(slots=True)
class Loaded:
    """A range of mini-batches, ready to be sent on.

    Attributes:
        first: the first mini-batch.
        count: how many.
        items: the number of items of each, little-endian uint32.
        sizes: the number of payload bytes of each, little-endian uint32.
        payload: the payloads, one after the other; see :mod:`mpi_prs.child.mini_batch`.
    """

    first: int
    count: int
    items: bytes
    sizes: bytes
    payload: bytes


class _View:
    """The columns of one record batch, as views into the mapped file."""

    __slots__ = ("first", "first_items", "inputs", "items", "payload", "starts", "stays", "stop")

    def __init__(self, first: int, batch: Any) -> None:
        self.first = first
        self.stop = first + batch.num_rows
        rows = batch.num_rows
        (_, inputs), (_, first_items), (_, items), (_, stays), (_, starts, payload) = (
            column.buffers() for column in batch.columns
        )
        # From buffers: to_numpy() imports pandas where it is installed, and 10,000 ranks come by here
        self.inputs = np.frombuffer(inputs, np.int32, rows)
        self.first_items = np.frombuffer(first_items, np.int64, rows)
        self.items = np.frombuffer(items, np.uint32, rows)
        self.stays = np.frombuffer(stays, np.uint32, rows)
        self.starts = np.frombuffer(starts, np.int64, rows + 1)
        self.payload = memoryview(payload)

    def load(self, first: int, stop: int) -> tuple[bytes, bytes, bytes]:
        """Items, sizes and payload of the mini-batches from ``first`` to before ``stop``, all of them in this batch."""
        low, high = first - self.first, stop - self.first
        starts = self.starts[low : high + 1]
        sizes = (starts[1:] - starts[:-1]).astype("<u4")
        payload = bytes(self.payload[starts.item(0) : starts.item(-1)])
        return self.items[low:high].astype("<u4", copy=False).tobytes(), sizes.tobytes(), payload


class Manifest:
    """A manifest, mapped into memory. Open one with :meth:`open`.

    Attributes:
        path: the file.
        mini_batches: how many mini-batches there are; they are numbered from 0.
        items: how many items there are in all.
        exact: whether numbers of items are counted; else they are estimates, and the records tell the truth.
        stays: whether some mini-batches share what is decoded for them.
        kind: of the payloads, ``plain`` or ``described``.
        inputs: what is known of each input, as JSON.
    """

    def __init__(self, path: Path, reader: Any, kind: str, index: dict[str, Any]) -> None:
        self.path = path
        self.kind = kind
        self.exact: bool = index["exact"]
        self.stays: bool = index["stays"]
        self.inputs: list[dict[str, Any]] = index["inputs"]
        self.mini_batches: int = index["mini_batches"]
        self.items: int = index["items"]
        self._first_of_batch: list[int] = index["first_of_batch"]
        self._reader = reader
        self._views: list[_View | None] = [None] * len(self._first_of_batch)
        self._view = self._batch(0)

    @classmethod
    def open(cls, path: Path, run: str | None = None) -> Manifest:
        """Map a manifest; reads its footer and its index, whatever its length.

        Args:
            run: the id of the run that it must be for, empty for one from before there were ids; ``None``: for any.

        Raises:
            OutputError: it is missing, damaged, of another version, or of another run.
        """
        try:
            os.close(own_file(str(path), os.O_RDONLY))  # Arrow would wait for the writer of a pipe
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            metadata = reader.schema.metadata or {}
            version, kind = metadata.get(_VERSION), metadata.get(_KIND)
            if version == FORMAT_VERSION and kind is not None:
                if run is not None and metadata.get(_RUN, b"") != run.encode():
                    raise OutputError(f"{path} is the manifest of another run: put the right one back, or {_ADVICE}")
                _, index = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
                return cls(path, reader, kind.decode(), json.loads(index[_INDEX]))
        except FileNotFoundError as error:
            raise OutputError(f"the manifest {path} is missing: {_ADVICE}") from error
        except NoRegularFile as error:
            raise OutputError(f"the manifest {error}") from error
        except PermissionError as error:
            raise OutputError(f"cannot read the manifest {path}: check its permissions") from error
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        raise OutputError(
            f"the manifest {path} is of format {_text(version)}; this version reads format {_text(FORMAT_VERSION)}: "
            f"use the version that wrote it, or {_ADVICE}"
        )

    @property
    def of_tables(self) -> bool:
        """Whether the inputs are tables."""
        return bool(self.inputs[0]["kind"] == "table")

    @property
    def needs_loading(self) -> bool:
        """Whether more than the payload is needed to make a mini-batch of it: rows, or files from elsewhere."""
        return self.of_tables or any(described["staged"] for described in self.inputs)

    def load(self, first: int, count: int) -> Loaded:
        """The mini-batches from ``first`` on, ``count`` of them, at least one.

        Hot path: a fixed number of operations for each record batch touched, seldom more than one, and a copy of the
        bytes.

        Raises:
            IndexError: there are not so many.
        """
        stop = first + count
        view = self._at(first)
        if count < 1 or stop > self.mini_batches:
            raise IndexError(f"mini-batches {first} to {stop - 1} of {self.mini_batches}")
        if stop <= view.stop:
            return Loaded(first, count, *view.load(first, stop))
        parts = []
        at = first
        while at < stop:
            view = self._at(at)
            end = min(stop, view.stop)
            parts.append(view.load(at, end))
            at = end
        items, sizes, payloads = zip(*parts, strict=True)
        return Loaded(first, count, b"".join(items), b"".join(sizes), b"".join(payloads))

    def items_of(self, mini_batch: int) -> int:
        """The number of items of a mini-batch."""
        view = self._at(mini_batch)
        return int(view.items[mini_batch - view.first])

    def first_item(self, mini_batch: int) -> int:
        """The number, over all inputs and from 0, of the first item of a mini-batch."""
        view = self._at(mini_batch)
        return int(view.first_items[mini_batch - view.first])

    def input_of(self, mini_batch: int) -> int:
        """The number, from 0, of the input that a mini-batch comes from."""
        view = self._at(mini_batch)
        return int(view.inputs[mini_batch - view.first])

    def stop_of_stay(self, mini_batch: int) -> int:
        """The mini-batch before which those end that share what is decoded with this one."""
        view = self._at(mini_batch)
        return mini_batch + int(view.stays[mini_batch - view.first])

    def payload(self, mini_batch: int) -> bytes:
        """The payload of a mini-batch."""
        return self.load(mini_batch, 1).payload

    def item_counts(self) -> Any:
        """The numbers of items of all mini-batches, a numpy array of uint32. Reads that column of the whole file."""
        return np.concatenate([self._batch(number).items for number in range(len(self._views))])

    def _at(self, mini_batch: int) -> _View:
        """The record batch that a mini-batch lies in; most often the one used last."""
        view = self._view
        if not view.first <= mini_batch < view.stop:
            if not 0 <= mini_batch < self.mini_batches:
                raise IndexError(f"mini-batch {mini_batch} of {self.mini_batches}")
            view = self._view = self._batch(bisect_right(self._first_of_batch, mini_batch) - 1)
        return view

    def _batch(self, number: int) -> _View:
        view = self._views[number]
        if view is None:
            try:
                view = _View(self._first_of_batch[number], self._reader.get_batch(number))
            except _DAMAGE as error:
                raise _damaged(self.path, error) from error
            self._views[number] = view
        return view


def _damaged(path: Path, error: Exception) -> OutputError:
    return OutputError(f"the manifest {path} is damaged ({error}): {_ADVICE}")


def _text(value: bytes | None) -> str:
    return "none" if value is None else value.decode("utf-8", "backslashreplace")

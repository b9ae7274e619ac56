"""What a worker has to give to its user processes: mini-batches waiting, being loaded, and loaded.

::

    add() ──► waiting ──────────────────────────────► take()      FromManifest: paths need no loading
    add() ──► waiting ──threads──► loaded ──────────► take()      LoadedAhead: tables, and files fetched from elsewhere
                                      ▲                 │
                                      └──── put_back() ─┘  ──► answered(): memory and scratch space are given back
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from mpi_prs.child.shims.finder import resolve
from mpi_prs.core.environ import TABLES_IN_FILES
from mpi_prs.core.errors import MpiPrsError
from mpi_prs.inputs.manifest import Loaded, Manifest
from mpi_prs.storage.credentials import Storage
from mpi_prs.wire.parts import FIRST_COPY, bounds, is_part, mini_batch_of
from mpi_prs.wire.settings import WorkerSettings
from mpi_prs.wire.work import Chunk

if TYPE_CHECKING:
    from mpi_prs.inputs.loading import LoadedMiniBatch

_log = logging.getLogger("mpi_prs.worker")

_LOCAL_THREADS = 4  # that load mini-batches: decoding takes a core each
_REMOTE_THREADS = 32  # that wait for a remote store
_MOST_LOADED = 128  # mini-batches; each may take a file descriptor
_OTHER_FILES = 64  # that a worker has open: libraries, MPI, logs
_LOADED_BYTES = 256 << 20


@dataclass
class Portion:
    """What :meth:`Supply.take` gives: mini-batches to hand over, or one that cannot be loaded.

    Attributes:
        chunk: which ones, and their attempt.
        loaded: for the user process; ``None`` when they cannot be loaded.
        problem: why not.
    """

    chunk: Chunk
    loaded: Loaded | None
    problem: str = ""


class Supply(Protocol):
    """The mini-batches of one worker; used in one thread.

    Attributes:
        queued: how many are here and not handed over.
        has_bad_records: whether :meth:`bad_records` may have any.
        wake_descriptor: readable when more can be taken than before; ``None`` when that never happens by itself.
    """

    queued: int
    has_bad_records: bool
    wake_descriptor: int | None

    def add(self, chunk: Chunk) -> None:
        """From the master."""

    def put_back(self, chunks: Sequence[Chunk]) -> None:
        """A process has not started these: they come first."""

    def notice(self) -> None:
        """Take note of what has been loaded meanwhile."""

    def take(self, most: int) -> Portion | None:
        """Mini-batches for a process, at most so many; ``None`` when none can be handed over now."""

    def next_attempt(self) -> int:
        """The attempt of what :meth:`take` would give; 0: nothing."""

    def next_is_part(self) -> bool:
        """Whether that is a part; only where there is something."""

    def take_first_try(self, most: int) -> Portion | None:
        """As :meth:`take`, but what has failed before is passed over."""

    def answered(self, numbers: Iterable[int]) -> None:
        """These are done or failed: what they hold can go."""

    def bad_records(self, number: int) -> Sequence[tuple[int, str, str]]:
        """Of a mini-batch or part that is handed over, which of its items are bad records, where, and why."""

    def items_of(self, number: int) -> int:
        """The number of items of a mini-batch, or part, that is handed over; 0: it is not known."""

    def withdraw(self) -> list[Chunk]:
        """Everything that is not handed over, to be given back to the master."""

    def close(self) -> None:
        """Give everything back, and end what is under way."""


def make_supply(manifest: Manifest, settings: WorkerSettings, scratch: Path) -> Supply:
    """The supply of a worker whose own folder is ``scratch``."""
    if not manifest.needs_loading:
        return FromManifest(manifest)
    storages = [Storage.from_secret(secret) for secret in settings.storages]
    is_remote = any(described["remote"] for described in manifest.inputs)
    threads = _REMOTE_THREADS if is_remote else min(_LOCAL_THREADS, settings.processes)
    loader: Loader
    # Neither is for ten thousand ranks that have only paths to hand on
    of_rows = any(described.get("file_column") for described in manifest.inputs)
    if manifest.of_tables or of_rows:
        in_files = TABLES_IN_FILES.of(settings.environment_variables) is True
        patience = settings.process.task_overhead_timeout
        make = resolve("mpi_prs.inputs.reader.tables:TableLoader")
        in_files = in_files and not of_rows
        loader = make(manifest, scratch, storages, threads, patience, in_files, settings.bisect_on_failure)
        if of_rows:
            of_files = resolve("mpi_prs.inputs.reader.row_files:RowFileLoader")
            loader = of_files(loader, manifest, scratch / "staged", settings.scratch_limit)
    else:
        make = resolve("mpi_prs.inputs.loading:FileLoader")
        loader = make(manifest, scratch / "staged", settings.scratch_limit, storages)
    return LoadedAhead(loader, threads, _most_loaded(settings.processes), _LOADED_BYTES, settings.processes)


def _most_loaded(processes: int) -> int:
    """How many loaded mini-batches the limit of open files allows, beside what each user process takes."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _MOST_LOADED
    return max(1, min(_MOST_LOADED, (allowed - _OTHER_FILES) // 4 - processes))


class FromManifest:
    """The manifest's payloads are what the user processes get. A take costs what :meth:`Manifest.load` costs."""

    wake_descriptor: int | None = None
    has_bad_records = False

    def __init__(self, manifest: Manifest) -> None:
        self.queued = 0
        self._manifest = manifest
        self._waiting: deque[Chunk] = deque()

    def add(self, chunk: Chunk) -> None:
        self._waiting.append(chunk)
        self.queued += chunk.count

    def put_back(self, chunks: Sequence[Chunk]) -> None:
        for chunk in reversed(chunks):
            self._waiting.appendleft(chunk)
            self.queued += chunk.count

    def notice(self) -> None:
        pass

    def next_attempt(self) -> int:
        return self._waiting[0].attempt if self._waiting else 0

    def next_is_part(self) -> bool:
        return is_part(self._waiting[0].first)

    def take(self, most: int) -> Portion | None:
        return self._take(0, most) if self._waiting else None

    def take_first_try(self, most: int) -> Portion | None:
        place = next((place for place, chunk in enumerate(self._waiting) if chunk.attempt == 1), None)
        return None if place is None else self._take(place, most)

    def _take(self, place: int, most: int) -> Portion:
        chunk = self._waiting[place]
        count = min(most, chunk.count)
        portion = self._load(chunk, count)
        if portion.loaded is None and count > 1:  # the others may be readable
            portion = self._load(chunk, 1)
        count = portion.chunk.count
        self.queued -= count
        if count == chunk.count:
            del self._waiting[place]
        else:
            chunk.first += count
            chunk.count -= count
        return portion

    def _load(self, chunk: Chunk, count: int) -> Portion:
        taken = Chunk(chunk.first, count, chunk.attempt)
        try:
            load = self._load_part if chunk.first >= FIRST_COPY else self._manifest.load
            return Portion(taken, load(chunk.first, count))
        except (MpiPrsError, OSError) as error:
            return Portion(taken, None, str(error))

    def _load_part(self, number: int, count: int) -> Loaded:
        whole = self._manifest.load(mini_batch_of(number), count)
        paths = whole.payload.split(b"\0")
        start, stop = bounds(number, len(paths))
        payload = b"\0".join(paths[start:stop])
        return Loaded(number, 1, (stop - start).to_bytes(4, "little"), len(payload).to_bytes(4, "little"), payload)

    def answered(self, numbers: Iterable[int]) -> None:
        pass

    def bad_records(self, number: int) -> Sequence[tuple[int, str, str]]:  # noqa: ARG002
        return ()

    def items_of(self, number: int) -> int:
        start, stop = bounds(number, self._manifest.items_of(mini_batch_of(number)))
        return stop - start

    def withdraw(self) -> list[Chunk]:
        chunks = list(self._waiting)
        self._waiting.clear()
        self.queued = 0
        return chunks

    def close(self) -> None:
        pass


class Loader(Protocol):
    """What loads mini-batches for several threads: :class:`~mpi_prs.inputs.loading.FileLoader` or
    :class:`~mpi_prs.inputs.reader.tables.TableLoader`."""

    def affinity(self, number: int) -> int | None:
        """Mini-batches with the same number should be loaded by the same thread."""

    def load(self, number: int) -> LoadedMiniBatch:
        """Load a mini-batch; blocks."""

    def leave(self) -> None:
        """A thread has loaded its last."""

    def close(self) -> None:
        """End what is under way."""


@dataclass
class _Order:
    """A mini-batch on its way through a loading thread."""

    number: int
    attempt: int
    prepared: LoadedMiniBatch | None = None
    problem: str = ""
    withdrawn: bool = False
    lane: int = 0


class LoadedAhead:
    """Mini-batches are loaded by threads while the user processes are busy.

    Threads, because loading waits for disks and networks, or for a process that decodes. They are
    daemons: a filesystem that never answers cannot keep the worker from leaving.

    Args:
        loader: what loads.
        threads: how many at once.
        most_loaded: mini-batches that may be loaded, being loaded or at a process.
        most_bytes: the same in bytes, as far as they are known.
        processes: that should have work: until each could have one, the next one is loaded whatever the bounds.
    """

    def __init__(self, loader: Loader, threads: int, most_loaded: int, most_bytes: int, processes: int) -> None:
        self.queued = 0
        self.has_bad_records = False
        self.wake_descriptor: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()  # of the descriptor
        self._loader = loader
        self._most_loaded = most_loaded
        self._most_bytes = most_bytes
        self._processes = processes
        self._waiting: deque[tuple[int, int]] = deque()  # mini-batch, attempt
        self._loading: list[_Order] = []
        self._finished: SimpleQueue[_Order] = SimpleQueue()
        self._ready: deque[_Order] = deque()
        self._handed_over: dict[int, LoadedMiniBatch] = {}
        self._bytes = 0  # of everything that is loaded
        self._largest = 0
        self._lanes: list[SimpleQueue[_Order | None]] = [SimpleQueue() for _ in range(threads)]
        self._loads = [0] * threads  # orders in each lane
        for number, lane in enumerate(self._lanes):
            threading.Thread(target=self._serve, args=(lane,), name=f"loader{number}", daemon=True).start()

    # The threads

    def _serve(self, lane: SimpleQueue[_Order | None]) -> None:
        while (order := lane.get()) is not None:
            try:
                if not order.withdrawn:
                    order.prepared = self._loader.load(order.number)
            except (MpiPrsError, OSError) as error:
                order.problem = str(error)
            except BaseException as error:  # a bug, or an error of a library: this mini-batch fails, the others go on
                if not order.withdrawn:  # else it may be no more than the end of the interpreter
                    _log.exception("mini-batch %d cannot be loaded", order.number)
                order.problem = f"it cannot be loaded: {type(error).__name__}: {error}"
            self._finished.put(order)
            with self._lock:
                if self.wake_descriptor is not None:
                    os.eventfd_write(self.wake_descriptor, 1)
        self._loader.leave()

    # The worker

    def add(self, chunk: Chunk) -> None:
        self._waiting.extend((number, chunk.attempt) for number in range(chunk.first, chunk.first + chunk.count))
        self.queued += chunk.count
        self._order_more()

    def put_back(self, chunks: Sequence[Chunk]) -> None:
        orders = [
            _Order(number, chunk.attempt, self._handed_over.pop(number))
            for chunk in chunks
            for number in range(chunk.first, chunk.first + chunk.count)
        ]
        self._ready.extendleft(reversed(orders))
        self.queued += len(orders)

    def notice(self) -> None:
        if self.wake_descriptor is not None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.wake_descriptor)
        while not self._finished.empty():
            order = self._finished.get()
            self._loading.remove(order)
            self._loads[order.lane] -= 1
            if order.prepared is not None:
                self._bytes += order.prepared.bytes
                self._largest = max(self._largest, order.prepared.bytes)
                self.has_bad_records |= bool(order.prepared.failed)
            if not order.withdrawn:
                self._ready.append(order)
            elif order.prepared is not None:
                self._release(order.prepared)
        self._order_more()

    def next_attempt(self) -> int:
        return self._ready[0].attempt if self._ready else 0

    def next_is_part(self) -> bool:
        return is_part(self._ready[0].number)

    def take(self, most: int) -> Portion | None:  # noqa: ARG002 (one at a time: each is loaded by itself)
        return self._take(self._ready[0]) if self._ready else None

    def take_first_try(self, most: int) -> Portion | None:  # noqa: ARG002
        order = next((order for order in self._ready if order.attempt == 1), None)
        return None if order is None else self._take(order)

    def _take(self, order: _Order) -> Portion:
        self._ready.remove(order)
        self.queued -= 1
        chunk = Chunk(order.number, 1, order.attempt)
        if order.prepared is not None:
            self._handed_over[order.number] = order.prepared
        self._order_more()
        if order.prepared is None:
            return Portion(chunk, None, order.problem)
        payload = order.prepared.payload
        items = order.prepared.items.to_bytes(4, "little")
        return Portion(chunk, Loaded(order.number, 1, items, len(payload).to_bytes(4, "little"), payload))

    def answered(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            prepared = self._handed_over.pop(number, None)
            if prepared is not None:
                self._release(prepared)
        self._order_more()

    def items_of(self, number: int) -> int:
        prepared = self._handed_over.get(number)
        return 0 if prepared is None else prepared.items + len(prepared.failed)

    def bad_records(self, number: int) -> Sequence[tuple[int, str, str]]:
        prepared = self._handed_over.get(number)
        return () if prepared is None else [(prepared.items + at, *bad) for at, bad in enumerate(prepared.failed)]

    def withdraw(self) -> list[Chunk]:
        self.notice()
        chunks = [Chunk(number, 1, attempt) for number, attempt in self._waiting]
        for order in self._loading:  # what it holds is released when it comes
            if not order.withdrawn:
                order.withdrawn = True
                chunks.append(Chunk(order.number, 1, order.attempt))
        for order in self._ready:
            chunks.append(Chunk(order.number, 1, order.attempt))
            if order.prepared is not None:
                self._release(order.prepared)
        self._waiting.clear()
        self._ready.clear()
        self.queued = 0
        return chunks

    def close(self) -> None:
        self.withdraw()
        for lane in self._lanes:
            lane.put(None)
        self._loader.close()
        for prepared in self._handed_over.values():
            self._release(prepared)
        self._handed_over.clear()
        with self._lock:  # a thread that is late must not write to whoever gets the number next
            if self.wake_descriptor is not None:
                os.close(self.wake_descriptor)
                self.wake_descriptor = None

    def _order_more(self) -> None:
        """Let threads load what may be loaded now."""
        while self._waiting:
            held = len(self._loading) + len(self._ready) + len(self._handed_over)
            expected = self._bytes + (len(self._loading) + 1) * self._largest
            if self._loading or self._ready or len(self._handed_over) > self._processes:  # nobody is kept waiting
                if held >= self._most_loaded or expected > self._most_bytes:
                    return
                if not self._largest and len(self._loading) >= len(self._lanes):  # how large they are is not known yet
                    return
            number, attempt = self._waiting.popleft()
            try:
                affinity = self._loader.affinity(number)
            except (MpiPrsError, OSError):  # to load it fails as well, and says why
                affinity = None
            if affinity is not None:
                lane = affinity % len(self._lanes)
            else:
                lane = min(range(len(self._lanes)), key=self._loads.__getitem__)
            order = _Order(number, attempt, lane=lane)
            self._loading.append(order)
            self._loads[lane] += 1
            self._lanes[lane].put(order)

    def _release(self, prepared: LoadedMiniBatch) -> None:
        self._bytes -= prepared.bytes
        prepared.release()

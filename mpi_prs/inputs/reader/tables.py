"""Loading mini-batches of tables at a worker, by reader processes that may die of what they read.

::

    a loading thread ──number──► its thread of the reader process, all threads of a worker share one
                     ◄──memory── decoded
                     ◄──────✕─── the process dies: each mini-batch that was being read is tried again, alone in a new
                                 process of its own; the one that kills that, too, fails, and the others go on
                     ◄─nothing── it computes for too long: that mini-batch fails, the others are read again

A mini-batch that has failed so is tried alone from then on.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mpi_prs.core.errors import InputError, MpiPrsError
from mpi_prs.inputs.loading import LoadedMiniBatch
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.payload import names, pack, shared_group, unpack
from mpi_prs.inputs.reader.connection import ConnectionLost, MessageKind, ReaderConnection
from mpi_prs.inputs.reader.process import NOT_STARTED, ReaderLost, ReaderProcess
from mpi_prs.inputs.reader.survey import error_of, pass_on
from mpi_prs.inputs.segment import Loans
from mpi_prs.storage.credentials import Storage
from mpi_prs.wire.parts import mini_batch_of

_log = logging.getLogger("mpi_prs.loading")

_MOST_ALONE = 4  # processes that try one mini-batch each, at the same time
_STARTING_SECONDS = 60.0  # of computing, until it can be asked
_ADVICE = " (task_overhead_timeout, and a second for each MB of the file: raise it if the file is sound)"
_SLOWEST = 2**20  # bytes of a file that a reader gets through in a second, at least


def _start_limit() -> float:
    return _STARTING_SECONDS


class _Process:
    """A reader process and its segments, as a worker has them."""

    def __init__(self, settings: dict[str, Any], connections: int, mark: Path | None) -> None:
        self.process = ReaderProcess(settings, connections, mark)
        self.loans = Loans()
        self.folder = settings["folder"]

    def close(self) -> None:
        self.process.close()
        self.loans.close()


class _Lane:
    """A thread's connection to a reader process."""

    def __init__(self, owner: _Process) -> None:
        self.owner = owner
        self.connection: ReaderConnection = owner.process.connections.pop()
        self.thread = 0  # at the other end, by the kernel's number
        self.part = 0  # of the mini-batch that is being read

    def close(self) -> None:
        self.connection.close()


class TableLoader:
    """Loads mini-batches of one manifest of tables; for any number of threads.

    Args:
        manifest: of tables.
        scratch: a folder of this worker's own, on this node.
        storages: how to get at the store of each input, with its secrets.
        threads: that load.
        patience: seconds that a part may take to be read, of the reader's processor; one more for each MB of its file.
        in_files: hand tables over by files in ``scratch``, to processes in another user namespace.
        bisects: whether a record that is bad fails for itself, and not its mini-batch.
    """

    def __init__(
        self,
        manifest: Manifest,
        scratch: Path,
        storages: Sequence[Storage],
        threads: int,
        patience: float,
        in_files: bool = False,
        bisects: bool = False,
    ) -> None:
        self._manifest = manifest
        self._scratch = scratch
        self._settings = {
            "job": "load",
            "manifest": str(manifest.path),
            "storages": [storage.secret() for storage in storages],
            "folder": None,
            "bisects": bisects,
        }
        self._threads = threads
        self._patience = patience
        self._in_files = in_files
        self._numbers = itertools.count()
        self._of_thread = threading.local()
        self._suspects: set[int] = set()
        self._alone = threading.Semaphore(_MOST_ALONE)
        self._lock = threading.Lock()
        self._is_closed = False
        self._processes: list[_Process] = []
        self._shared: _Process | None = None
        try:
            self._shared = self._start(threads)  # at once: it is there when the first mini-batches are
        except MpiPrsError as error:
            _log.warning("%s", error)

    def affinity(self, number: int) -> int | None:
        """Mini-batches with the same number share what is decoded for them; ``None``: with nobody."""
        return shared_group(self._manifest, mini_batch_of(number))

    def load(self, number: int) -> LoadedMiniBatch:
        """Load one mini-batch, or a part of one; blocks.

        Raises:
            InputError: it cannot be read, or has killed the process that read it.
            MpiPrsError: no such process can be started.
            OSError: there is no memory left.
        """
        while number not in self._suspects:
            lane = self._lane()
            try:
                return self._load(number, lane)
            except ReaderLost as lost:
                self._suspects.add(number)
                self._leave_lost(lane)
                raise self._failure(number, lane, str(lost), _ADVICE) from None
            except ConnectionLost:
                self._leave_lost(lane)
                if not lane.owner.process.is_condemned:
                    self._suspects.add(number)
        return self._load_alone(number)

    def _load_alone(self, number: int) -> LoadedMiniBatch:
        with self._alone:
            with self._lock:
                lane = _Lane(self._start(1))
            try:
                loaded = self._load(number, lane)
            except ReaderLost as lost:
                raise self._failure(number, lane, str(lost), _ADVICE) from None
            except ConnectionLost:
                raise self._failure(number, lane, lane.owner.process.end()) from None
            finally:
                lane.close()
                self._give_up(lane.owner)
        self._suspects.discard(number)
        return loaded

    def _load(self, number: int, lane: _Lane) -> LoadedMiniBatch:
        """Raises ConnectionLost, ReaderLost: the process is gone; InputError, OSError: it cannot be read."""
        process, connection = lane.owner.process, lane.connection
        lane.part = 0
        try:
            if not lane.thread:
                lane.thread = int(process.answer(connection, _start_limit).json())
            connection.send_json(MessageKind.LOAD, {"number": number, "released": lane.owner.loans.verdicts()})
            while True:
                message = process.answer(connection, partial(self._limit, number, lane), lane.thread)
                if message.kind is MessageKind.AT:
                    lane.part = int(message.json())
                elif message.kind is MessageKind.LOG:
                    pass_on(message)
                elif message.kind is MessageKind.FAILED:
                    raise error_of(message)
                else:
                    return self._loaded(lane.owner, message.json(), message.descriptor)
        except (ValueError, LookupError, TypeError):
            process.condemn("said what nobody understands and was killed")

    def _limit(self, number: int, lane: _Lane) -> float:
        header, _ = unpack(self._manifest.payload(mini_batch_of(number)))
        return self._patience + float(header["sizes"][lane.part]) / _SLOWEST

    def _loaded(self, owner: _Process, fields: dict[str, Any], descriptor: int) -> LoadedMiniBatch:
        path = str(Path(owner.folder, Path(fields["file"]).name)) if "file" in fields else ""
        loan = owner.loans.taken(fields["segment"], descriptor, path, fields["capacity"])
        told = {**fields["told"], "segment": loan.path}
        release = partial(owner.loans.release, loan)
        return LoadedMiniBatch(fields["items"], pack(told), loan.capacity, release, fields["failed"])

    def _failure(self, number: int, lane: _Lane, how: str, advice: str = "") -> MpiPrsError:
        if not lane.thread:  # no file has been looked at
            return MpiPrsError(f"{NOT_STARTED}: it {how}")
        what = names(self._manifest, mini_batch_of(number))[lane.part]
        return InputError(
            f"{what}: the process that read it {how}{advice}: the file is damaged, or a library that reads such files "
            "has a fault"
        )

    # Processes

    def _start(self, connections: int) -> _Process:
        """Under the lock. Raises MpiPrsError: it cannot be started, or all is over."""
        settings = dict(self._settings)
        if self._in_files:
            settings["folder"] = str(self._scratch / f"tables{next(self._numbers)}")
        if self._is_closed:
            raise MpiPrsError("the worker ends")
        started = _Process(settings, connections, self._scratch)
        self._processes.append(started)
        return started

    def _give_up(self, process: _Process) -> None:
        """Kill it, and free what it holds."""
        process.close()
        with self._lock:
            self._processes.remove(process)

    def _lane(self) -> _Lane:
        """This thread's."""
        lane: _Lane | None = getattr(self._of_thread, "lane", None)
        if lane is None:
            with self._lock:
                if self._shared is None:
                    self._shared = self._start(self._threads)
                lane = self._of_thread.lane = _Lane(self._shared)
        return lane

    def _leave_lost(self, lane: _Lane) -> None:
        """The process of this thread is gone; the first one to notice says so."""
        self._of_thread.lane = None
        lane.close()
        how = lane.owner.process.end()
        with self._lock:
            is_first = self._shared is lane.owner
            if is_first:
                self._shared = None
                if not self._is_closed:
                    _log.warning("the process that reads tables %s; another one takes its place", how)
        if is_first:
            self._give_up(lane.owner)

    def leave(self) -> None:
        """A thread has loaded its last."""
        lane: _Lane | None = getattr(self._of_thread, "lane", None)
        if lane is not None:
            lane.close()
            self._of_thread.lane = None

    def close(self) -> None:
        """End what is under way."""
        with self._lock:
            self._is_closed = True
            processes = list(self._processes)
        for process in processes:
            process.close()

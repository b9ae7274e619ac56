"""The program of a reader process: what decodes other people's bytes, and may die of them.

::

    SETTINGS: job "load"   a thread for each connection: LOAD ──► read, decode, into shared memory ──► LOADED, FAILED
    SETTINGS: job "plan"   survey and split ──► PLANNED … COMPLETE, FAILED

It ends with whoever has started it, and at the end of its connections. What it logs goes to the rank's loggers.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started as a file: our package is found from here, and nothing in this folder
    _no_folder = getattr(sys.flags, "safe_path", False)
    sys.path[0 : not _no_folder] = [os.path.dirname(os.path.abspath(__file__)).rpartition("/mpi_prs/")[0]]

from mpi_prs.core.errors import MpiPrsError
from mpi_prs.inputs.datasets import InputTable
from mpi_prs.inputs.decoding import Decoder
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.planning import plan
from mpi_prs.inputs.reader.connection import ConnectionLost, MessageKind, ReaderConnection
from mpi_prs.inputs.reader.survey import pack_planned, told_error
from mpi_prs.inputs.segment import Segment, Segments
from mpi_prs.storage.credentials import Storage

_PR_SET_PDEATHSIG = 1
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class LoadingThreads:
    """Loads mini-batches for a worker; for any number of threads, each with a connection of its own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        storages = [Storage.from_secret(secret) for secret in settings["storages"]]
        manifest = Manifest.open(Path(settings["manifest"]))
        self._decoder = Decoder(manifest, storages, settings["bisects"])
        self._segments = Segments(Path(settings["folder"]) if settings["folder"] else None)
        self._in_files = bool(settings["folder"])
        self._lent: dict[int, Segment] = {}
        self._known: set[int] = set()  # segments that the worker has
        self._lock = threading.Lock()

    def serve(self, connection: ReaderConnection) -> None:
        """Answer until the end of the connection."""
        _log_to.connection = connection
        try:
            connection.send_json(MessageKind.AT, threading.get_native_id())
            while True:
                request = connection.receive().json()
                self._take_back(request["released"])
                self._load(request["number"], connection)
        except ConnectionLost:
            pass
        finally:
            connection.close()  # of a fault of ours the rank is told, too

    def _load(self, number: int, connection: ReaderConnection) -> None:
        try:
            decoded = self._decoder.decode(
                number, lambda part: connection.send_json(MessageKind.AT, part) if part else None
            )
            told = decoded.told
            if isinstance(decoded.data, dict):
                segment, told["arrays"] = self._segments.of_arrays(decoded.data)
            else:
                segment = self._segments.of_table(decoded.data)
        except ConnectionLost:
            raise
        except (MpiPrsError, OSError) as error:
            connection.send_json(MessageKind.FAILED, ["InputError", str(error)])
        except BaseException as error:  # a bug, or an error of a library: this mini-batch fails, the others go on
            logging.getLogger("mpi_prs.loading").exception("mini-batch %d cannot be loaded", number)
            connection.send_json(
                MessageKind.FAILED, ["InputError", f"it cannot be loaded: {type(error).__name__}: {error}"]
            )
        else:
            self._lend(segment, {"items": decoded.items, "told": told, "failed": decoded.failed}, connection)

    def _lend(self, segment: Segment, answer: dict[str, Any], connection: ReaderConnection) -> None:
        with self._lock:
            is_new = segment.number not in self._known
            self._known.add(segment.number)
            self._lent[segment.number] = segment
        answer |= {"segment": segment.number, "capacity": segment.capacity if is_new else 0}
        if is_new and self._in_files:
            answer["file"] = Path(segment.path).name
        connection.send_json(MessageKind.LOADED, answer, segment.descriptor if is_new and not self._in_files else None)

    def _take_back(self, released: Sequence[Sequence[Any]]) -> None:
        for number, again in released:
            with self._lock:
                segment = self._lent.pop(number)
                if not again:
                    self._known.remove(number)
            if again:
                self._segments.take_back(segment)
            else:
                segment.close()


def _plan(settings: dict[str, Any], connection: ReaderConnection) -> None:
    """Survey and split some tables."""
    size = None if settings["size"] is None else BatchSize(**settings["size"])

    def at(dataset: int, path: str | None) -> None:
        connection.send_json(MessageKind.AT, [dataset, path])

    try:
        datasets = [InputTable.from_secret(fields) for fields in settings["datasets"]]
        planned = plan(datasets, size, settings["keys"], at)
        for piece in pack_planned(planned.mini_batches):
            connection.send(MessageKind.PLANNED, piece)
        connection.send_json(MessageKind.COMPLETE, {"inputs": planned.inputs, "exact": planned.exact})
    except MpiPrsError as error:
        connection.send_json(MessageKind.FAILED, told_error(error))
    except OSError as error:
        connection.send_json(MessageKind.FAILED, ["OSError", str(error)])
    except ConnectionLost:
        raise
    except BaseException:
        connection.send_json(MessageKind.FAILED, ["RuntimeError", traceback.format_exc()])


class _ToTheRank(logging.Handler):
    """What a thread logs goes over its own connection; that of threads that have none, over the default."""

    default: ReaderConnection | None = None

    def emit(self, record: logging.LogRecord) -> None:
        connection: ReaderConnection | None = getattr(_log_to, "connection", self.default)
        if connection is not None:
            connection.send_json(MessageKind.LOG, [record.name, record.levelno, self.format(record)])


_log_to = threading.local()


def main(parent: int, descriptors: Sequence[int]) -> None:
    """Serve the rank ``parent`` at the other end of some connections."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    for number in _IGNORED:  # it ends when the rank ends, not before
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))  # a folder of damaged files would fill a disk
    logging.getLogger("mpi_prs").setLevel(logging.INFO)
    to_the_rank = _ToTheRank()
    logging.getLogger().addHandler(to_the_rank)
    connections = [ReaderConnection(socket.socket(fileno=descriptor)) for descriptor in descriptors]
    try:
        settings = connections[0].receive().json()
        if settings["job"] == "plan":
            to_the_rank.default = connections[0]
            _plan(settings, connections[0])
            return
    except ConnectionLost:
        return
    loading = LoadingThreads(settings)
    threads = [threading.Thread(target=loading.serve, args=(each,), daemon=True) for each in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # what a library leaves behind is nobody's business any more


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(descriptor) for descriptor in sys.argv[2:]])

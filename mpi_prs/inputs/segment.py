"""Shared memory between a reader process, its worker and the user processes: a table passes through no pipe.

A segment is an anonymous file in memory (``memfd``), which the reader process makes and fills. Its worker gets the
descriptor, and the user process maps it by ``/proc/<pid of the worker>/fd/<number>``; so it outlives the reader
process, and nothing is left behind whichever of the three dies, and no size of a ``/dev/shm`` limits it. Where the user
process is in another user namespace, as in a container, the kernel does not let it do that; then it is a file in the
worker's scratch folder, which the guard removes. ::

    byte 0          set by the user process when nothing of the mini-batch is referred to any more
    from byte 64    an Arrow IPC stream, or arrays

Making memory costs more than filling it. So a segment that the user process has let go of is used again; one that the
script still refers to (it has kept a column, say) is not: what it refers to stays as it is. The worker, which knows
when a mini-batch is answered, says which. ::

    reader process   Segments.of_table() ──descriptor──► worker   Loans.taken() ──path──► user process
                     Segments.take_back() ◄──verdict── Loans.release() ◄──answered, byte 0──┘
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

START = 64
"""Where the content begins, and what arrays are aligned to."""

_LET_GO = b"\1"
_PAGE = 1 << 16
_MOST_IDLE = 64  # segments: each takes a file descriptor
_MOST_IDLE_BYTES = 64 << 20


class Segment:
    """Memory that another process of the same user can map.

    Args:
        size: bytes that it must have.
        number: its name for the worker.
        file: a name that does not exist yet, for a process in another user namespace; ``None``: a ``memfd`` will do.

    Attributes:
        number: see above.
        path: where to map it.
        capacity: bytes, the first 64 included.

    Raises:
        OSError: there is no memory, no space in the file's folder, or no descriptor left.
    """

    def __init__(self, size: int, number: int, file: Path | None = None) -> None:
        self.number = number
        self.capacity = -(-max(size, 1) // _PAGE) * _PAGE
        self._file = file
        if file is None:
            self._descriptor = os.memfd_create("mpi_prs_segment", os.MFD_CLOEXEC)
            self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        else:
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.path = str(file)
        try:
            if file is None:
                os.ftruncate(self._descriptor, self.capacity)
            else:
                os.posix_fallocate(self._descriptor, 0, self.capacity)  # a full disk is told here, not by a signal
            self.memory = mmap.mmap(self._descriptor, self.capacity, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except BaseException:
            self._free()
            raise

    @property
    def descriptor(self) -> int:
        """For another process."""
        return self._descriptor

    def close(self) -> None:
        """The memory is free as soon as nobody maps it any more."""
        self.memory.close()
        self._free()

    def _free(self) -> None:
        os.close(self._descriptor)
        if self._file is not None:
            self._file.unlink(missing_ok=True)


class Segments:
    """The segments of one reader process; for any number of threads.

    Args:
        folder: where they are files, made when it is needed; ``None``: they are none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._idle: list[Segment] = []
        self._lock = threading.Lock()

    def of_table(self, table: Any) -> Segment:
        """A segment with a ``pyarrow.Table`` as an Arrow IPC stream. One copy of its bytes.

        Raises:
            OSError: there is no memory, or no descriptor left.
        """
        counter = pa.MockOutputStream()
        _write(table, counter)
        segment = self._take(START + counter.size())
        with pa.FixedSizeBufferWriter(pa.py_buffer(memoryview(segment.memory)[START:])) as sink:
            _write(table, sink)
        return segment

    def of_arrays(self, arrays: Mapping[str, Any]) -> tuple[Segment, list[list[Any]]]:
        """A segment with numpy arrays, and where each lies: name, dtype, shape, offset, size. One copy of their bytes.

        Raises:
            OSError: there is no memory, or no descriptor left.
        """
        places, end = [], START
        for name, array in arrays.items():
            offset = -(-end // START) * START
            places.append([name, array.dtype.str, list(array.shape), offset, array.nbytes])
            end = offset + array.nbytes
        segment = self._take(end)
        for (_, dtype, shape, offset, _), array in zip(places, arrays.values(), strict=True):
            np.ndarray(shape, dtype, segment.memory, offset)[...] = array
        return segment, places

    def _take(self, size: int) -> Segment:
        with self._lock:
            fitting = [each for each in self._idle if size <= each.capacity <= 4 * max(size, _PAGE)]
            if fitting:
                segment = min(fitting, key=lambda each: each.capacity)
                self._idle.remove(segment)
                segment.memory[0] = 0
                return segment
            number = next(self._numbers)
        if self._folder is None:
            return Segment(size, number)
        self._folder.mkdir(parents=True, exist_ok=True)
        return Segment(size, number, self._folder / f"segment{number}")

    def take_back(self, segment: Segment) -> None:
        """The user process refers to nothing in it any more, and it may be used again."""
        with self._lock:
            self._idle.append(segment)

    def close(self) -> None:
        """Free the idle ones."""
        with self._lock:
            for segment in self._idle:
                segment.close()
            self._idle.clear()


def _write(table: Any, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


@dataclass
class Loan:
    """A segment of a reader process, as its worker has it.

    Attributes:
        number: by which the two name it.
        descriptor: of the ``memfd``; -1: it is a file.
        path: where to map it.
        capacity: bytes.
    """

    number: int
    descriptor: int
    path: str
    capacity: int

    @property
    def let_go(self) -> bool:
        """Whether the user process refers to nothing in it any more."""
        try:
            if self.descriptor >= 0:
                return os.pread(self.descriptor, 1, 0) == _LET_GO
            with open(self.path, "rb", buffering=0) as file:
                return file.read(1) == _LET_GO
        except OSError:
            return False

    def close(self) -> None:
        """The memory is free as soon as nobody maps it any more."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        else:
            Path(self.path).unlink(missing_ok=True)


class Loans:
    """The segments of one reader process, as its worker has them; for any number of threads.

    Args:
        most_idle: bytes of segments that may wait to be used again.
    """

    def __init__(self, most_idle: int = _MOST_IDLE_BYTES) -> None:
        self._most_idle = most_idle
        self._idle: dict[int, Loan] = {}
        self._verdicts: list[tuple[int, bool]] = []
        self._is_open = True
        self._lock = threading.Lock()

    def taken(self, number: int, descriptor: int, path: str, capacity: int) -> Loan:
        """The reader process has filled a segment; what comes without a descriptor and without a path is used again.

        Raises:
            KeyError: it has no right to.
        """
        with self._lock:
            if descriptor < 0 and not path:
                return self._idle.pop(number)
        return Loan(number, descriptor, path or f"/proc/{os.getpid()}/fd/{descriptor}", capacity)

    def release(self, loan: Loan) -> None:
        """The mini-batch is answered."""
        with self._lock:
            idle = sum(each.capacity for each in self._idle.values()) + loan.capacity
            again = loan.let_go and idle <= self._most_idle and len(self._idle) < _MOST_IDLE and self._is_open
            self._verdicts.append((loan.number, again))
            if again:
                self._idle[loan.number] = loan
                return
        loan.close()

    def verdicts(self) -> list[tuple[int, bool]]:
        """What the reader process has not been told yet: segments, and whether each may be used again."""
        with self._lock:
            told, self._verdicts = self._verdicts, []
            return told

    def close(self) -> None:
        """The reader process is gone: nothing is used again."""
        with self._lock:
            self._is_open = False
            for loan in self._idle.values():
                loan.close()
            self._idle.clear()

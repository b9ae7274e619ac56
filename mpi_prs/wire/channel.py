"""What a worker and a user process say to each other, and how.

A socket pair carries frames: a header (kind, count, length) and a body. A small shared memory, the *slot*, shows the
worker what the process is doing right now, so that a hung ``run()`` is noticed although the process says nothing.

====================  =======================================================================================
worker → process
``SETTINGS``          JSON: everything the process needs to know, once, first
``WORK``              ``count`` mini-batches: first number and attempt, items (u32 each), sizes (u32 each), payloads
``STOP``              call ``shutdown()`` and end
``CLEAR``             work that was sent before this, and has no answer, was given to others: it is not to be done here
process → worker
``READY``             ``init()`` is done, or a pause that the script asked for; ``count`` mini-batches may run at once
``INIT_FAILED``       JSON: a :class:`~mpi_prs.wire.failure.Failure`
``RESULTS``           ``count`` records (48 bytes each), then their rows
``SPILLED``           one record, then the path of the file that holds its rows
``FAILED``            JSON: a Failure of one attempt; its code may say that the process pauses or ends now
``HEADER``            the line above all rows, before the first rows of a DataFrame
``ITEMS_FAILED``      JSON: a list of Failures, of ``count`` items of one mini-batch; its answer follows, of the others
``SKIPPED``           ``count`` mini-batches were not started, because the slot says to skip them
====================  =======================================================================================

Answers come in the order of the work, unless several mini-batches run at once.

Standard library only: the user process imports this module.
"""

from __future__ import annotations

import enum
import mmap
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple


class Kind(enum.IntEnum):
    """The kind of a frame."""

    SETTINGS = 1
    WORK = 2
    STOP = 3
    READY = 4
    INIT_FAILED = 5
    RESULTS = 6
    SPILLED = 7
    FAILED = 8
    SKIPPED = 9
    HEADER = 10
    CLEAR = 11
    ITEMS_FAILED = 12


HEADER = struct.Struct("<3sBIQ")  # _MARK, kind, count, bytes of the body
_MARK = b"prs"  # what a script writes into a descriptor that it does not own begins otherwise
WORK_HEADER = struct.Struct("<qI")  # first mini-batch, attempt; the attempt is the same for all of them

DUMP_SIGNAL = signal.SIGRTMIN + 9
"""At a timeout the worker sends this first: the process then writes the stack of every thread to its stderr."""

SPILL_THRESHOLD = 4 << 20
"""Rows of one mini-batch that are longer than this many bytes go through a file instead of the channel and MPI."""

_LONGEST_ANSWER = 64 << 20
"""Bytes of a body from a user process; all that it sends is far shorter, for long rows go through a file."""

FLUSH_SECONDS = 0.002
"""So long the answer of a short mini-batch waits in the user process for others."""

CHANNEL_LOST_EXIT = 113
"""Exit code of a user process that finds its channel closed under it by the script."""


class Frame(NamedTuple):
    """One frame as it was received."""

    kind: int
    mini_batches: int
    body: memoryview


def parts_of(frame: Frame) -> tuple[int, int, memoryview, Iterator[memoryview]]:
    """The first mini-batch of a frame of work, the attempt, the items of each, the payload of each."""
    first, attempt = WORK_HEADER.unpack_from(frame.body, 0)
    position = WORK_HEADER.size
    items = frame.body[position : position + 4 * frame.mini_batches].cast("I")
    position += 4 * frame.mini_batches
    sizes = frame.body[position : position + 4 * frame.mini_batches].cast("I")
    return first, attempt, items, _payloads(frame.body, position + 4 * frame.mini_batches, sizes)


def _payloads(body: memoryview, position: int, sizes: memoryview) -> Iterator[memoryview]:
    for size in sizes:
        yield body[position : position + size]
        position += size


class ChannelLost(Exception):
    """The descriptor of the channel is closed, or is no longer the channel."""


class ChildEnd:
    """The user process's end: blocking."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        self._fd = descriptor
        self._identity = self._current_identity()

    def _current_identity(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def send(self, kind: Kind, count: int, *parts: bytes) -> None:
        """Write one frame.

        A script may close every descriptor it does not know and then open files of its own under the same numbers.
        So the descriptor is compared with the one we were given before a byte is written.

        Raises:
            ChannelLost: it is another one now, or closed.
        """
        self.check()
        body = b"".join(parts)
        try:
            self._socket.sendall(HEADER.pack(_MARK, kind, count, len(body)) + body)
        except OSError as error:
            raise ChannelLost(str(error)) from error

    def leave_open(self) -> None:
        """Nothing more will be said; it closes when the process has ended, and tells the worker so."""
        self._socket.detach()

    def check(self) -> None:
        """Is the descriptor still ours? Less than 1 µs.

        Raises:
            ChannelLost: it is another one now, or closed.
        """
        try:
            same = self._current_identity() == self._identity
        except OSError as error:
            raise ChannelLost(str(error)) from error
        if not same:
            raise ChannelLost("its file descriptor now belongs to something else")

    def wait(self, seconds: float) -> bool:
        """Whether there is something to receive within so many seconds."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(1000 * max(0.0, seconds)))

    def receive(self) -> Frame | None:
        """The next frame; ``None`` when the worker has closed its end.

        Raises:
            ChannelLost: the script closed our end, or has read from it.
        """
        header = self._read(HEADER.size)
        if header is None:
            return None
        mark, kind, count, length = HEADER.unpack(header)
        if mark != _MARK:
            raise ChannelLost("the script has read from it")
        body = self._read(length)
        return None if body is None else Frame(kind, count, memoryview(body))

    def _read(self, length: int) -> bytearray | None:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            try:
                read = self._socket.recv_into(view)
            except OSError as error:
                raise ChannelLost(str(error)) from error
            if not read:
                return None
            view = view[read:]
        return data


class WorkerEnd:
    """The worker's end: never blocks; what cannot be written now waits here."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._incoming = bytearray()
        self._outgoing: list[memoryview] = []
        self.closed = False
        self.garbled = False

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits until the process reads."""
        return bool(self._outgoing)

    def send(self, kind: Kind, count: int, *parts: bytes) -> None:
        """Queue one frame and write what can be written."""
        length = sum(map(len, parts))
        self._outgoing.append(memoryview(b"".join((HEADER.pack(_MARK, kind, count, length), *parts))))
        self.flush()

    def flush(self) -> None:
        """Write what can be written without waiting."""
        while self._outgoing:
            try:
                written = self._socket.send(self._outgoing[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the process is gone; reading tells the rest
                self._outgoing.clear()
                return
            if written < len(self._outgoing[0]):
                self._outgoing[0] = self._outgoing[0][written:]
            else:
                del self._outgoing[0]

    def receive(self) -> list[Frame]:
        """Every frame that is complete by now.

        Sets ``closed`` at the end of the stream, and ``garbled`` when something else than our frames came: then
        nothing that follows can be understood.
        """
        while not self.garbled:
            try:
                data = self._socket.recv(1 << 18)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.closed = True
                break
            if not data:
                self.closed = True
                break
            self._incoming += data
        return self._complete_frames()

    def _complete_frames(self) -> list[Frame]:
        frames = []
        start = 0
        while len(self._incoming) - start >= HEADER.size:
            mark, kind, count, length = HEADER.unpack_from(self._incoming, start)
            if mark != _MARK or length > _LONGEST_ANSWER:
                self.garbled = True
                break
            end = start + HEADER.size + length
            if len(self._incoming) < end:
                break
            frames.append(Frame(kind, count, memoryview(bytes(self._incoming[start + HEADER.size : end]))))
            start = end
        if start:
            del self._incoming[:start]
        return frames

    def close(self) -> None:
        """Close the connection; the process reads the end of the stream."""
        self.closed = True
        self._socket.close()


class ProcessPhase(enum.IntEnum):
    """What a user process is doing, as its slot says."""

    IDLE = 0
    INIT = 1
    PREPARING = 2
    RUNNING = 3
    ENCODING = 4
    SHUTDOWN = 5
    EXITING = 6
    RESTING = 7


class Activity(NamedTuple):
    """The content of a slot: the phase, its mini-batch (-1: none), and since when (``time.monotonic()``).

    Of ``RESTING`` it is until when.
    """

    phase: int
    mini_batch: int
    since: float


class Lane:
    """64 bytes of shared memory: what is being done.

    The process may be stopped by the kernel or die between any two instructions, so no reader may ever meet half of a
    value: there is room for two, each is written where nobody looks, and then one aligned word says that it holds. As
    words of 8 bytes::

        0 number of the value that holds │ 1–3 an even one │ 4–6 an odd one │ 7 of the slot alone: skips
    """

    SIZE = 64

    def __init__(self, memory: memoryview) -> None:
        self._integers = memory.cast("q")
        self._floats = memory.cast("d")

    def write(self, phase: int, mini_batch: int, since: float) -> None:
        """About 0.2 µs."""
        integers = self._integers
        number = integers[0] + 1
        place = 4 if number & 1 else 1
        integers[place] = phase
        integers[place + 1] = mini_batch
        self._floats[place + 2] = since
        integers[0] = number

    def read(self) -> Activity:
        """What the process is doing."""
        integers = self._integers
        while True:
            number = integers[0]
            place = 4 if number & 1 else 1
            activity = Activity(integers[place], integers[place + 1], self._floats[place + 2])
            if integers[0] == number:  # else it may have been overwritten meanwhile
                return activity

    def release(self) -> None:
        """Let the memory go."""
        for view in (self._integers, self._floats):
            view.release()


class Slot(Lane):
    """Shared memory: what the process is doing (it writes, the worker reads), and whether it is to skip what it has not
    started (the worker writes, it reads). Where ``run()`` is ``async`` there is a lane for each mini-batch in flight,
    and the slot itself says what holds the event loop. It is mapped, so it survives a script that closes all
    descriptors.

    Attributes:
        lanes: of the mini-batches in flight.
    """

    _SKIPS = 7

    def __init__(self, descriptor: int) -> None:
        count = os.fstat(descriptor).st_size // self.SIZE
        self._memory = mmap.mmap(descriptor, count * self.SIZE)
        self._bytes = memoryview(self._memory)
        super().__init__(self._bytes[: self.SIZE])
        self.lanes = [Lane(self._bytes[place * self.SIZE : (place + 1) * self.SIZE]) for place in range(1, count)]

    @classmethod
    def create(cls, lanes: int = 0) -> tuple[Slot, int]:
        """A new slot and the descriptor to hand to the process (close it after that)."""
        descriptor = os.memfd_create("mpi_prs_slot")
        os.ftruncate(descriptor, cls.SIZE * (1 + lanes))
        return cls(descriptor), descriptor

    def skip_unstarted(self) -> None:
        """Tell the process to start nothing more of what it has."""
        self._integers[self._SKIPS] = 1

    @property
    def skips(self) -> bool:
        """Whether :meth:`skip_unstarted` was called. About 0.1 µs."""
        return self._integers[self._SKIPS] != 0

    def close(self) -> None:
        """Unmap it."""
        for lane in (self, *self.lanes):
            lane.release()
        self._bytes.release()
        self._memory.close()

"""What passes between a rank and its reader process: messages over a socket, some with a file descriptor.

::

    kind: 1 byte │ length of the body: u32 │ body

A reader process has decoded who knows what: the rank takes nothing but JSON, bytes and descriptors from it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
from enum import Enum
from typing import Any, NamedTuple

_HEADER = struct.Struct("<cI")
_PIECE = 1 << 20


class MessageKind(bytes, Enum):
    """Of a message; bodies are JSON where nothing else is said."""

    SETTINGS = b"S"
    """To the reader, once: what it is for."""
    LOAD = b"L"
    """To the reader: the number of a mini-batch to load, and which segments are let go."""
    AT = b"@"
    """From the reader: the part of a mini-batch, or the file of a survey, that it is at now."""
    LOG = b"W"
    """From the reader: name of the logger, level and text."""
    LOADED = b"D"
    """From the reader: a mini-batch, with the descriptor of its segment where that is new."""
    PLANNED = b"M"
    """From the reader: some mini-batches of the plan; see :mod:`mpi_prs.inputs.reader.survey`."""
    COMPLETE = b"C"
    """From the reader: the plan is complete."""
    FAILED = b"E"
    """From the reader: the class of an error, and its text."""


class ReaderMessage(NamedTuple):
    """One message; ``descriptor`` is -1 where there is none."""

    kind: MessageKind
    body: bytes
    descriptor: int = -1

    def json(self) -> Any:
        """The body's value. Raises ValueError: it is none."""
        return json.loads(self.body)


class ConnectionLost(Exception):
    """The other end is gone, or says what nobody understands."""


class ReaderConnection:
    """One end, which takes its socket over; one thread receives, any may send."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def send(self, kind: MessageKind, body: bytes, descriptor: int | None = None) -> None:
        """Send a message; blocks while the other end does not listen. Raises ConnectionLost."""
        header = _HEADER.pack(kind.value, len(body))
        try:
            with self._lock:
                if descriptor is None:
                    self._socket.sendall(header + body)
                else:
                    socket.send_fds(self._socket, [header], [descriptor])
                    self._socket.sendall(body)
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def send_json(self, kind: MessageKind, value: Any, descriptor: int | None = None) -> None:
        """As :meth:`send`; a lone surrogate, as names of files may have, is escaped."""
        self.send(kind, json.dumps(value).encode("ascii"), descriptor)

    def wait(self, seconds: float) -> bool:
        """Whether there is something to receive within so many seconds, be it the end."""
        return bool(self._poll.poll(seconds * 1000))

    def receive(self) -> ReaderMessage:
        """The next message; blocks. Raises ConnectionLost."""
        descriptors: list[int] = []
        try:
            header, descriptors, _, _ = socket.recv_fds(self._socket, _HEADER.size, 1, socket.MSG_CMSG_CLOEXEC)
            header += self._exactly(_HEADER.size - len(header))
            kind, length = _HEADER.unpack(header)
            return ReaderMessage(MessageKind(kind), self._exactly(length), descriptors[0] if descriptors else -1)
        except (OSError, ValueError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            raise ConnectionLost(str(error)) from error

    def _exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            piece = self._socket.recv(min(size - len(got), _PIECE))
            if not piece:
                raise ConnectionResetError("the connection has ended")
            got += piece
        return bytes(got)

    def close(self) -> None:
        """The other end notices."""
        self._socket.close()

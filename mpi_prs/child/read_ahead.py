"""The channel, read by a thread: so ``load()`` knows of work while ``run()`` is busy, and an event loop does as well.

Standard library only.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from mpi_prs.wire.channel import ChannelLost, ChildEnd, Frame


class ReadAhead:
    """Receives as :class:`~mpi_prs.wire.channel.ChildEnd` does, and shows each frame as soon as it has come.

    Args:
        channel: nobody else receives from it.
        see: called with each frame, in the thread, before it can be received.
        tell: called, in the thread, when there is something to receive.
    """

    def __init__(self, channel: ChildEnd, see: Callable[[Frame], None], tell: Callable[[], Any] = lambda: None) -> None:
        self._channel = channel
        self._see = see
        self._tell = tell
        self._received: queue.SimpleQueue[Frame | BaseException | None] = queue.SimpleQueue()
        self._peeked: list[Frame | BaseException | None] = []
        threading.Thread(target=self._read, name="channel", daemon=True).start()

    def _read(self) -> None:
        frame: Frame | BaseException | None
        while True:
            try:
                frame = self._channel.receive()
                if frame is not None:
                    self._see(frame)
            except BaseException as error:
                frame = error
            self._received.put(frame)
            self._tell()
            if frame is None or isinstance(frame, BaseException):
                return

    def wait(self, seconds: float) -> bool:
        """Whether there is something to receive within so many seconds."""
        if not self._peeked:
            try:
                self._peeked.append(self._received.get(timeout=max(0.0, seconds)))
            except queue.Empty:
                return False
        return True

    def receive(self) -> Frame | None:
        """The next frame; ``None`` when the worker has closed its end.

        Raises:
            ChannelLost: the script closed our end, or has read from it.
        """
        found = self._peeked.pop() if self._peeked else self._received.get()
        if isinstance(found, ChannelLost):
            raise found
        if isinstance(found, BaseException):
            raise RuntimeError("the channel cannot be read") from found
        return found

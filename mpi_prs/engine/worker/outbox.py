"""Results on their way from a worker's user processes to the master: at once, or several in one message.

A message costs the same however much is in it, so the results of short mini-batches go together; those of long ones do
not wait.
"""

from __future__ import annotations

from collections.abc import Callable

from mpi_prs.wire import messages
from mpi_prs.wire.record import RECORD, RUN
from mpi_prs.wire.work import News

_SECONDS = 0.002
_BYTES = 256 << 10


class Outbox:
    """Collects results, and sends them when it is time.

    Args:
        send: takes the body of a RESULTS message.

    Attributes:
        mean_run: of the latest mini-batches, in seconds, moving average; 0: none yet.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.mean_run = 0.0
        self._send = send
        self._records: list[bytes] = []
        self._rows: list[bytes] = []
        self._count = 0
        self._bytes = 0
        self._since = 0.0

    def collect(self, news: News, now: float) -> None:
        """Take what a user process has finished; at least one mini-batch. Nothing is unpacked but the last record."""
        if not self._count:
            self._since = now
        self._count += news.finished
        self._records += news.records
        self._rows += news.rows
        self._bytes += sum(map(len, news.rows))
        last = RECORD.unpack_from(news.records[-1], len(news.records[-1]) - RECORD.size)
        self.mean_run = 0.8 * self.mean_run + 0.2 * last[RUN] if self.mean_run else last[RUN]

    def is_due(self, now: float) -> bool:
        """Whether what is here should wait no longer."""
        if not self._count:
            return False
        return self.mean_run > _SECONDS or self._bytes > _BYTES or now - self._since >= _SECONDS

    def seconds_left(self, now: float) -> float | None:
        """How long it may wait at most; ``None``: there is nothing."""
        return max(0.0, _SECONDS - (now - self._since)) if self._count else None

    def send(self) -> None:
        """Send what is here, if anything is."""
        if self._count:
            self._send(messages.pack_results(self._count, self._records, self._rows))
            self._records.clear()
            self._rows.clear()
            self._count = self._bytes = 0

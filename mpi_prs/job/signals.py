"""Stop signals: the first asks the master to drain, the second to stop at once."""

from __future__ import annotations

import signal
import types
from collections.abc import Callable

from mpi_prs.engine.master import StopRequest

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class StopSignals:
    """Counts stop signals while it is entered as a context; call it for what they ask for so far."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._before: dict[signal.Signals, object] = {}

    def __call__(self) -> StopRequest:
        return StopRequest(min(len(self.received), StopRequest.NOW))

    def __enter__(self) -> StopSignals:
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            restored: Callable[[int, types.FrameType | None], object] | int | None = handler  # type: ignore[assignment]
            signal.signal(number, restored)

    def _receive(self, number: int, _frame: types.FrameType | None) -> None:
        self.received.append(signal.Signals(number))

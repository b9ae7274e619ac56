"""Stop signals: what they ask of the master.

SIGINT and SIGTERM ask it to drain, and the second of them to stop at once. SIGUSR2 is Slurm's word, by
``--signal=USR2@SECONDS``, that the time limit is near; without knowing how near, it asks to drain as well.
"""

from __future__ import annotations

import signal
import types
from collections.abc import Callable

from mpi_prs.core.errors import JobStopped
from mpi_prs.engine.master.master import StopRequest

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class StopSignals:
    """Takes stop signals while it is entered as a context; call it for what they ask for so far.

    Between :meth:`raise_them` and :meth:`hold_back` a signal to stop raises :class:`JobStopped` where the program is:
    nothing has begun yet, and listing the inputs can take long.

    Args:
        knows_the_limit: whether it is known how many seconds after SIGUSR2 the time is up.
    """

    def __init__(self, *, knows_the_limit: bool = False) -> None:
        self.received: list[signal.Signals] = []
        self._knows_the_limit = knows_the_limit
        self._raises = False
        self._before: dict[signal.Signals, object] = {}

    def __call__(self) -> StopRequest:
        stops = sum(self._is_stop(number) for number in self.received)
        if stops:
            return StopRequest.DRAIN if stops == 1 else StopRequest.NOW
        return StopRequest.CLOSE if self.received else StopRequest.NONE

    def _is_stop(self, number: signal.Signals) -> bool:
        return number != signal.SIGUSR2 or not self._knows_the_limit

    @property
    def by_hand(self) -> bool:
        """Whether somebody has pressed Ctrl-C."""
        return signal.SIGINT in self.received

    def raise_them(self) -> None:
        """From here on a signal to stop is raised; so is one that has come already.

        Raises:
            JobStopped: see above.
        """
        self._raises = True
        self._raise()

    def hold_back(self) -> None:
        """From here on nothing is raised: somebody looks at what is asked for."""
        self._raises = False

    def __enter__(self) -> StopSignals:
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # what has come before there was a handler
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            restored: Callable[[int, types.FrameType | None], object] | int | None = handler  # type: ignore[assignment]
            signal.signal(number, restored)

    def _receive(self, number: int, _frame: types.FrameType | None) -> None:
        self.received.append(signal.Signals(number))
        self._raise()

    def _raise(self) -> None:
        stop = next(filter(self._is_stop, self.received), None)
        if stop is not None and self._raises:
            self._raises = False  # a second one would disturb the way out
            raise JobStopped(f"stopped by {stop.name} before the first mini-batch; the same command starts again")

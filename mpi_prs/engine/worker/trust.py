"""Whether a user process can still be trusted: one bad item may have poisoned it.

After a device-side assert of CUDA, or with all its descriptors leaked, a process fails whatever it gets, and fast. So a
process is *in doubt* from a failure until its next success, and

- it is replaced after three failures in a row (:attr:`Trust.patience`);
- a retry goes to one that is not in doubt, and behind nothing else that may poison it first;
- a last try waits until there is such a process, and where nothing else is left to do one is made: so no mini-batch is
  given up for what another one has done.

Where it is the data or the script that is bad, a fresh process fails as well, and ``init()`` may take minutes. So each
process that was replaced without any success doubles the patience with the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

_PATIENCE = 3
_FRUITLESS = 5  # processes in a row that were replaced without any success: from then on it is not the process


@dataclass
class Trust:
    """In the user processes that a place of a worker has one after the other.

    Attributes:
        patience: failures in a row after which the process ends, and is replaced.
        failures: of the process that is there now, since its last success.
        succeeded: whether it has done any mini-batch.
    """

    patience: int = _PATIENCE
    failures: int = 0
    succeeded: bool = False

    def start(self) -> None:
        """A new process takes the place."""
        if self.succeeded or not self.failures:
            self.patience = _PATIENCE
        else:
            self.patience *= 2
        self.failures, self.succeeded = 0, False

    def has_done(self) -> None:
        """The process has done a mini-batch."""
        self.failures, self.succeeded = 0, True

    def has_failed(self) -> None:
        """An attempt has failed in it."""
        self.failures += 1

    @property
    def in_doubt(self) -> bool:
        """Whether the next failure may be the process's."""
        return self.failures > 0

    @property
    def is_worth_replacing(self) -> bool:
        """Whether a fresh process may do what one in doubt fails."""
        return self.patience < _PATIENCE << _FRUITLESS

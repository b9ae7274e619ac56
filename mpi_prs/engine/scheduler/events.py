"""What the scheduler is told, and what it wants done.

============================  ===========================================================================
event                         who sends it, and when
============================  ===========================================================================
:class:`WorkerJoined`         the master, when a worker sees the run directory (SEES)
:class:`WorkerHeard`          the master, for each message that is no answer (answers are a sign of life, too)
:class:`ProcessReady`         a worker (READY): ``init()`` is done
:class:`ProcessGone`          a worker (GONE): a user process is being replaced, or pauses
:class:`ProcessStopped`       a worker (GONE, INIT_FAILED): the script has asked for its end
:class:`InitFailed`           a worker (INIT_FAILED)
:class:`AttemptFailed`        a worker (FAILED)
:class:`ItemsFailed`          a worker (ITEMS_FAILED)
:class:`GivenBack`            a draining worker (GIVEN_BACK)
:class:`WorkerLost`           the transport, or the worker itself (BYE)
:class:`HandOut`              the master, once it has read all messages that were there
:class:`Tick`                 the master, ten times a second while it keeps up with the messages
:class:`DrainAsked`           a signal, or the time limit
:class:`StopAsked`            a second signal, or the launcher's end
============================  ===========================================================================

Results alone come by :meth:`mpi_prs.engine.scheduler.scheduler.Scheduler.finished`: they are many, and their answer is
which of the rows count.

============================  ===========================================================================
command                       what is to be done
============================  ===========================================================================
:class:`Assign`               send these mini-batches to the worker; follows :class:`HandOut` alone
:class:`Retry`                record that the attempt failed; the mini-batch is tried again
:class:`Excuse`               the same, but it was no try: it failed on a benched node, or for a full disk
:class:`Fail`                 record that the mini-batch has failed for good
:class:`Halve`                record that the mini-batch, or a part of it, has failed; its halves are tried
:class:`FailItems`            record that these items have failed for good
:class:`EndAttempt`           let the worker end this attempt: a copy was done first, or what it was a copy of
:class:`Restart`              let the worker start this user process again
:class:`GiveUp`               say that this user process is not started again
:class:`Lose`                 record that the worker is lost
:class:`Bench`                say that the node gets no more work
:class:`TakeBack`             say that a benched node gets work again
============================  ===========================================================================

Whether the job is over is no command: :attr:`Scheduler.phase` says so, also when earlier starts have decided it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpi_prs.wire.failure import Failure

Range = tuple[int, int, int]
"""``(first mini-batch, count, attempt)``."""


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker has reported; its user processes are being started."""

    worker: int
    processes: int
    node: str


@dataclass(frozen=True, slots=True)
class WorkerHeard:
    """A sign of life."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is dead, or has left."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class ProcessReady:
    """``init()`` is done in this user process (the first one, or a replacement).

    Attributes:
        at_once: mini-batches that it runs.
    """

    worker: int
    process: int
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class ProcessGone:
    """This user process has ended after it had worked, and a replacement is on its way; or it pauses."""

    worker: int
    process: int


@dataclass(frozen=True, slots=True)
class ProcessStopped:
    """This user process has ended for good, because the script has asked for it."""

    worker: int
    process: int


@dataclass(frozen=True, slots=True)
class InitFailed:
    """A user process could not be started, or ended before it had done anything; why, where that matters."""

    worker: int
    process: int
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt has failed; with the code ``NoRetry`` no further try is wanted."""

    worker: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class ItemsFailed:
    """So many items of a mini-batch, or part, have failed, each for itself; its results follow, of the others."""

    worker: int
    mini_batch: int
    attempt: int
    items: int


@dataclass(frozen=True, slots=True)
class GivenBack:
    """A draining worker has not started these."""

    worker: int
    ranges: Sequence[Range]


@dataclass(frozen=True, slots=True)
class HandOut:
    """Give work to all who may have room; or to ``only`` one, where it is to be seen what that one gets."""

    only: int | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Look at the clock: who is silent, and does anything move?"""


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """Hand out nothing more; the job ends when nothing is held any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """End at once, whatever is running; what is not on record will be done again by the next start."""

    reason: str


Event = (
    WorkerJoined
    | WorkerHeard
    | WorkerLost
    | ProcessReady
    | ProcessGone
    | ProcessStopped
    | InitFailed
    | AttemptFailed
    | ItemsFailed
    | GivenBack
    | HandOut
    | Tick
    | DrainAsked
    | StopAsked
)


@dataclass(frozen=True, slots=True)
class Assign:
    """These mini-batches are the worker's now."""

    worker: int
    ranges: list[Range]


@dataclass(frozen=True, slots=True)
class Retry:
    """An attempt has failed: another will follow."""

    worker: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Excuse:
    """No try is lost: it failed on a node that is benched, or for a full disk, and is tried again elsewhere; or another
    attempt goes on."""

    worker: int
    failure: Failure
    why: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """A mini-batch has failed for good: by this attempt, or because its workers were lost."""

    worker: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Halve:
    """A mini-batch, or a part of one, has failed: its halves will be tried, each on its own.

    Attributes:
        failure: of either.
        items: how many the mini-batch has.
    """

    worker: int
    failure: Failure
    items: int


@dataclass(frozen=True, slots=True)
class FailItems:
    """All items of a part have failed for good: the only one it has, or those whose workers were lost.

    Attributes:
        failure: of the part.
        start, stop: the items, as the mini-batch counts them.
        items: how many the mini-batch has.
    """

    worker: int
    failure: Failure
    start: int
    stop: int
    items: int


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """Another attempt of this mini-batch was done first: this one, which has run for so many seconds, is to end."""

    worker: int
    mini_batch: int
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Restart:
    """Start this user process once more."""

    worker: int
    process: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start this user process any more."""

    worker: int
    process: int


@dataclass(frozen=True, slots=True)
class Lose:
    """The worker counts as lost: its mini-batches are handed out again."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True)
class Bench:
    """The node gets no more work."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class TakeBack:
    """The node gets work again."""

    node: str
    why: str


Command = Assign | Retry | Excuse | Fail | Halve | FailItems | EndAttempt | Restart | GiveUp | Lose | Bench | TakeBack

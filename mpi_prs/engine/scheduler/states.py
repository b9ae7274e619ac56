"""The states of a job, and the plain data that the scheduler decides by."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

PENDING, HELD, RETRY, IN_PARTS, DONE, FAILED = range(6)
"""The state of a mini-batch, one byte each; see :mod:`mpi_prs.engine.scheduler.scheduler`."""


@dataclass(frozen=True)
class Policy:
    """The numbers a job is run by; names and meanings as in the job config.

    Attributes:
        limit: work on the mini-batches below this number only; ``None``: on all.
        init_tries: how often in a row a user process may fail to start before it is given up.
        window: seconds of work that a user process may have waiting at its worker.
        first_waiting: mini-batches that a user process may have waiting before it is known how long they take.
        least_waiting: mini-batches that a user process may have waiting, however long they take.
        most_waiting: mini-batches that a user process may have waiting, however short they are.
    """

    run_max_try: int = 3
    bisect_on_failure: bool = False
    speculative_copies: bool = False
    error_threshold: int = -1
    allowed_failed_count: int | None = None
    allowed_failed_percent: float | None = None
    heartbeat_timeout: float = 120.0
    progress_update_timeout: float | None = None
    init_tries: int = 3
    limit: int | None = None
    window: float = 0.03
    first_waiting: int = 1
    least_waiting: int = 1
    most_waiting: int = 4096

    @property
    def last_try(self) -> int:
        """The attempt whose failure is final; with bisection that of a part of one item."""
        return self.run_max_try + self.bisect_on_failure

    @property
    def most_losses(self) -> int:
        """How many workers a mini-batch may lose. One loss alone never fails it: it may have been the node's fault."""
        return max(2, self.run_max_try)


class JobPhase(enum.Enum):
    """Where the whole job stands."""

    RUNNING = "running"
    DRAINING = "draining"
    """Nothing new is handed out; what runs may finish."""
    COMPLETE = "complete"
    """Every mini-batch is done or failed."""
    DRAINED = "drained"
    """Nothing is running any more, and something is left to do."""
    STOPPED = "stopped"
    """Stopped at once, with work in hand: by a second signal, or because a disk is full."""
    ABORTED = "aborted"
    """A threshold is exceeded, or no user process can be started; ``reason`` says which."""
    STRANDED = "stranded"
    """No worker is left, or nothing has moved for too long; the job can be resumed. ``reason`` says which."""


class NodeTrust(enum.IntEnum):
    """What is known of a node, the best first. Retries go to the best there are."""

    SOUND = 0
    """It has succeeded, and nothing is held against it since."""
    DOUBTED = 1
    """It has succeeded, and failed since."""
    NEW = 2
    """Nothing is known."""
    SUSPECT = 3
    """It has only failed so far."""

    @property
    def clean(self) -> bool:
        """Whether nothing is held against it."""
        return self in (NodeTrust.SOUND, NodeTrust.NEW)


@dataclass(eq=False)
class Node:
    """One node, as the scheduler sees it; changed by :class:`mpi_prs.engine.scheduler.health.Nodes` alone.

    Attributes:
        alive: user processes that are neither given up nor stopped, of workers that are not lost.
        ready: those of them with ``init()`` behind them.
        proven: whether a mini-batch has succeeded there.
        tried: whether one has failed there.
        suspicions: mini-batches that failed there and nowhere else yet, since one last succeeded there.
        strikes: mini-batches that failed there and then succeeded on another node, since one last succeeded there.
        benched: why it gets no work; empty: it is not benched.
        full: it is benched for its scratch folder, which has no room.
    """

    name: str
    alive: int = 0
    ready: int = 0
    proven: bool = False
    tried: bool = False
    suspicions: set[int] = field(default_factory=set)
    strikes: int = 0
    benched: str = ""
    full: bool = False
    trust: NodeTrust = NodeTrust.NEW


@dataclass(eq=False)
class WorkerState:
    """One worker, as the scheduler sees it."""

    processes: int
    node: Node
    heard: float
    ready: set[int] = field(default_factory=set)
    at_once: int = 1  # mini-batches that each of its processes runs
    init_failures: dict[int, int] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)
    stopped: int = 0  # of those that are given up, because the script has asked for it
    held: dict[int, int] = field(default_factory=dict)  # mini-batch → attempt
    running: dict[int, float] = field(default_factory=dict)  # of these → since when; only for copies
    items_failed: dict[int, int] = field(default_factory=dict)  # mini-batch → such items; its results are on their way
    last_chance: int = -1  # the mini-batch that it got as such; see Scheduler._try_again
    mean_seconds: float = 0.0  # of a user process for a mini-batch, moving average; 0: nothing measured yet

    @property
    def can_take(self) -> bool:
        """Whether one of its processes has nothing to do, and its node is none that should get no work."""
        return not self.node.benched and len(self.held) < len(self.ready) * self.at_once


@dataclass(frozen=True)
class Counts:
    """Totals so far, of this start and the ones before.

    Attributes:
        items_alone: of ``items_failed``, those that failed each for itself.
    """

    mini_batches: int
    done: int
    failed: int
    items_done: int
    items_failed: int
    items_alone: int
    retried: int

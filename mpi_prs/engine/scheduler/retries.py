"""Mini-batches that wait for another try, and who should have which of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mpi_prs.engine.scheduler.health import Nodes
from mpi_prs.engine.scheduler.states import Node, NodeTrust, WorkerState


class Retries:
    """Mini-batches that have failed, or whose worker was lost.

    They go to another node: to the best of those that have ready processes
    (:class:`mpi_prs.engine.scheduler.states.NodeTrust`).
    If there is no other node, they go to another worker, and if there is none, back to the one that had them.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._chances: deque[int] = deque()
        self._last = _Queues()
        self._others = _Queues()

    def add(self, number: int, origin: WorkerState, *, last: bool) -> None:
        """Of this worker; ``last``: it has one try left."""
        (self._last if last else self._others).add(number, origin)

    def add_last_chance(self, number: int) -> None:
        """One more lost worker would fail it.

        Which mini-batch kills its worker is not known, and what was lost together would be handed out together again.
        So a worker gets only one of these at a time: the guilty one then takes no innocent ones along.
        """
        self._chances.append(number)

    def take(self, known: WorkerState) -> int | None:
        """What this worker should have now, before anything new. Call it only while it has room."""
        if self._chances and known.last_chance not in known.held:
            known.last_chance = self._chances.popleft()
            return known.last_chance
        for queues, last in ((self._last, True), (self._others, False)):
            if queues and (origin := self._origin(known, queues, last)) is not None:
                return queues.take(origin)
        return None

    def _origin(self, known: WorkerState, queues: _Queues, last: bool) -> WorkerState | None:
        preferred = self._nodes.preferred(known.node, last=last)
        origin = None
        if not preferred:
            origin = queues.elsewhere(known.node)
        elif len(preferred) == 1:  # which does not get its own
            origin = queues.at(preferred[0])
        if origin is None and self._nodes.alone(known.node, last=last):
            origin = queues.at(known.node, besides=None if len(known.ready) == known.node.ready else known)
        return origin

    def take_rather_than_idle(
        self, known: WorkerState, workers: Iterable[WorkerState], *, all_idle: bool
    ) -> int | None:
        """What a worker may try that would be idle, while those are busy that should have it. A look at every worker.

        Unless its node has only failed so far, that is what failed elsewhere; or else on its own node. But the last try
        is left to others: on a broken node everything fails at once, so its workers are idle all the time, and would
        use up the tries of mini-batches that are all right. Only when nobody has anything, nor will come up to have
        it, the first who may takes it.

        Args:
            all_idle: nobody has anything.
        """
        node = known.node
        idle = (
            other.node
            for other in workers
            if other is not known and len(other.held) < len(other.ready) and not other.node.benched
        )
        if node.trust is not NodeTrust.SUSPECT and (origin := self._others.elsewhere(node)) is not None:
            if not any(other.trust < node.trust for other in idle):
                return self._others.take(origin)
        elif self._others.at(node) is not None:
            mates = False
            for other in idle:
                if other is node:
                    mates = True
                elif other.trust.clean:
                    break
            else:
                if (origin := self._others.at(node, besides=known if mates else None)) is not None:
                    return self._others.take(origin)
        if all_idle and node.trust.clean and self._last and self._nodes.all_are_ready():
            origin = self._last.elsewhere(node)
            return None if origin is None else self._last.take(origin)
        return None


class _Queues:
    """By node and worker that had them last; every look costs the same however many there are."""

    def __init__(self) -> None:
        self._queues: dict[Node, dict[WorkerState, deque[int]]] = {}  # no empty ones

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, number: int, origin: WorkerState) -> None:
        self._queues.setdefault(origin.node, {}).setdefault(origin, deque()).append(number)

    def elsewhere(self, node: Node) -> WorkerState | None:
        """A worker on another node than this that had something that waits here."""
        queues = next((queues for other, queues in self._queues.items() if other is not node), None)
        return None if queues is None else next(iter(queues))

    def at(self, node: Node, besides: WorkerState | None = None) -> WorkerState | None:
        """A worker on this node, but not ``besides``, that had something that waits here."""
        return next((worker for worker in self._queues.get(node, ()) if worker is not besides), None)

    def take(self, origin: WorkerState) -> int:
        """The mini-batch that has waited longest of those that this worker had."""
        queues = self._queues[origin.node]
        number = queues[origin].popleft()
        if not queues[origin]:
            del queues[origin]
            if not queues:
                del self._queues[origin.node]
        return number

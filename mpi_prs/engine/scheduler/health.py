"""Which nodes are sick, and whose fault a failure is: the node's or the mini-batch's.

A *black hole* is a node on which everything fails, and fails fast: it would eat the queue. It is told from bad data by
what becomes of its failures on other nodes::

    failed on A ──► a suspicion against A ──┬── succeeds on B ──► a strike against A
                                            ├── fails on B    ──► the data's fault: the suspicion is dropped
                                            └── anything succeeds on A ──► A works: suspicions and strikes are dropped

A node is *benched* (it gets no work any more) when there are five strikes against it, and more than three times as many
as any node has recovered from by a success of its own. So

- data that always fail never bench a node, however many of them it meets: they fail elsewhere as well;
- failures that come and go (a store that hangs now and then) bench hardly any: every run of strikes that a node
  recovers from raises the bar for all. Where n strikes in a row come by chance with a probability of q^n, the longest
  of k runs is about log(k) / log(1/q). So the next one is three times as long with a probability of 1/k³, and these
  have a small sum, however long the job is. Five to begin with, for until then too few runs have been seen;
- a black hole is benched as soon as five of its failures have been looked at elsewhere;
- a node with one bad process among good ones is not benched: the others succeed.

Until then it can do little harm: a node with suspicions gets only a few mini-batches beyond its processes until its
failures have been looked at elsewhere (:meth:`Nodes.room`), and retries go to better nodes (:meth:`Nodes.preferred`).
So it costs no mini-batch more than a few tries, and never the last one. Nobody is held back, though, while most nodes
are no better: then it is the data or the script that is bad, and that should be known soon.

A node whose scratch folder is full is benched at once, whatever its evidence.

The last node is never benched. When all others are lost, those that are benched are taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from mpi_prs.engine.scheduler.events import Bench, Command, TakeBack
from mpi_prs.engine.scheduler.states import Node, NodeTrust

STRIKES = 5
"""That bench a node, at least."""

_FACTOR = 3  # times the most that a node has recovered from
_SLACK = STRIKES - 1  # suspicions against a node beyond its processes: enough to bench it, and to bear some bad data


class Nodes:
    """All nodes. Nothing here costs more with more nodes or mini-batches.

    Attributes:
        failed: mini-batch → node, of those that have failed and are not settled; ``None``: it is the data's fault.
        failed_on_two: mini-batches that have failed on two nodes.

    Args:
        commands: where to say that a node is benched or taken back.
    """

    def __init__(self, commands: list[Command]) -> None:
        self.failed: dict[int, Node | None] = {}
        self.failed_on_two = 0
        self._commands = commands
        self._nodes: dict[str, Node] = {}
        self._benched: dict[Node, None] = {}
        # By trust, not benched: those with processes that are ready or may become so, and those with ready ones
        self._alive: tuple[set[Node], ...] = tuple(set() for _ in NodeTrust)
        self._usable: tuple[set[Node], ...] = tuple(set() for _ in NodeTrust)
        self._recovered = 0  # the most strikes after which a node has succeeded again

    @property
    def benched(self) -> dict[str, str]:
        """Names of those that are benched, and why."""
        return {node.name: node.benched for node in self._benched}

    # Processes

    def joined(self, name: str, processes: int) -> Node:
        """A worker with so many user processes is there. Returns its node."""
        node = self._nodes.setdefault(name, Node(name))
        node.alive += processes
        self._place(node)
        return node

    def ready(self, node: Node, change: int) -> None:
        """So many more, or fewer, processes have their ``init()`` behind them."""
        node.ready += change
        if node.ready and node.benched and not node.strikes and not node.full:  # for init() alone, which has worked now
            self._take_back(node, "init() has worked there")
        self._place(node)

    def given_up(self, node: Node) -> None:
        """``init()`` has failed in a process again and again."""
        node.alive -= 1
        self._place(node)
        if not node.alive and not node.benched and any(self._alive):
            self._bench(node, "init() has failed in all its user processes again and again")

    def bench_full(self, node: Node, why: str) -> bool:
        """Its scratch folder is full. Returns whether others are left to do the work."""
        if not node.benched and next(self._others(node, len(NodeTrust), alive=True), None) is None:
            return False
        node.full = True
        if not node.benched:
            self._bench(node, why)
        return True

    def stopped(self, node: Node) -> None:
        """A process has ended for good because the script has asked for it: nobody's fault."""
        node.alive -= 1
        self._place(node)

    def left(self, node: Node, alive: int, ready: int) -> None:
        """A worker is lost that had so many processes."""
        node.alive -= alive
        node.ready -= ready
        self._place(node)

    # Evidence

    def succeeded(self, node: Node) -> None:
        """A mini-batch has succeeded there. Need not be called while the node is sound."""
        if node.benched:
            return
        self._recovered = max(self._recovered, node.strikes)
        node.proven, node.strikes = True, 0
        node.suspicions.clear()
        self._place(node)

    def has_failed(self, number: int, node: Node) -> None:
        """An attempt at this mini-batch has failed there."""
        node.tried = True
        before = self.failed.get(number, node)
        if before is None:
            pass
        elif before is node or before.benched:
            self.failed[number] = node
            node.suspicions.add(number)
        else:
            self.failed[number] = None
            self.failed_on_two += 1
            before.suspicions.discard(number)
            self._place(before)
        self._place(node)

    def is_done(self, number: int, node: Node) -> None:
        """A mini-batch that is in ``failed`` has succeeded, on this node."""
        before = self.failed.pop(number)
        if before is None or before is node or number not in before.suspicions:
            return
        before.suspicions.remove(number)
        before.strikes += 1
        if before.strikes >= max(STRIKES, _FACTOR * self._recovered + 1) and not self.alone(before, last=False):
            self._bench(before, f"{before.strikes} mini-batches in a row failed there and succeeded on other nodes")
        self._place(before)

    def is_given_up(self, number: int) -> None:
        """A mini-batch has failed for good: no more will be known of it."""
        node = self.failed.pop(number, None)
        if node is not None:
            node.suspicions.discard(number)
            self._place(node)

    # What follows

    def alone(self, node: Node, *, last: bool) -> bool:
        """Whether no other node has ready processes, benched ones aside; for a ``last`` try: nor will have any.

        What fails on a sound node is probably bad: its last try waits for nobody.
        """
        return next(self._others(node, len(NodeTrust), last and node.trust is not NodeTrust.SOUND), None) is None

    def preferred(self, node: Node, *, last: bool) -> list[Node]:
        """Nodes that should have a retry rather than this one: the only one, or two of them.

        The ``last`` try also waits for those that are not ready yet. And a node of which nothing is known does not get
        it while there is another like it: it may be sick as well.
        """
        if self._are_mostly_bad():
            return []
        below = node.trust + (last and node.trust is NodeTrust.NEW)
        return list(islice(self._others(node, below, last), 2))

    def all_are_ready(self) -> bool:
        """Whether every node has ready processes that ever will."""
        return sum(map(len, self._alive)) == sum(map(len, self._usable))

    def room(self, node: Node) -> int | None:
        """How many mini-batches that are new to all a worker with suspicions may hold; ``None``: any number."""
        return None if self._are_mostly_bad() else node.ready + _SLACK - len(node.suspicions)

    def _are_mostly_bad(self) -> bool:
        sound, doubted, new, suspect = map(len, self._alive)
        return doubted + suspect > sound + new

    def _others(self, node: Node, below: int, alive: bool) -> Iterator[Node]:
        found = self._alive if alive else self._usable
        return (other for nodes in found[:below] for other in nodes if other is not node)

    def _place(self, node: Node) -> None:
        """After any change: where it belongs now."""
        self._usable[node.trust].discard(node)
        self._alive[node.trust].discard(node)
        if node.proven:
            node.trust = NodeTrust.DOUBTED if node.suspicions or node.strikes else NodeTrust.SOUND
        else:
            node.trust = NodeTrust.SUSPECT if node.tried else NodeTrust.NEW
        if node.ready and not node.benched:
            self._usable[node.trust].add(node)
        if node.alive and not node.benched:
            self._alive[node.trust].add(node)
        elif self._benched and not any(self._alive):
            for other in [other for other in self._benched if other.alive]:
                self._take_back(other, "no other node is left")

    def _bench(self, node: Node, why: str) -> None:
        node.benched = why
        self._benched[node] = None
        for number in node.suspicions:  # what failed there says nothing of the mini-batch either
            del self.failed[number]
        node.suspicions.clear()
        self._commands.append(Bench(node.name, why))
        self._place(node)

    def _take_back(self, node: Node, why: str) -> None:
        del self._benched[node]
        node.benched, node.strikes, node.full = "", 0, False
        self._commands.append(TakeBack(node.name, why))
        self._place(node)

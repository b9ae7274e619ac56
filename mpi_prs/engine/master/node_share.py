"""Which workers share what: the master alone knows all ranks of a node, and tells each of them its share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable

from mpi_prs.engine.node import RankResources
from mpi_prs.wire.settings import Share


class NodeShares:
    """The workers as they report, and what each of them shares with others of its node.

    Args:
        processes: user processes of each worker.
        gpus_per_process: GPUs of a user process; ``None``: one, if there are any.
    """

    def __init__(self, processes: int, gpus_per_process: int | None) -> None:
        self._processes = processes
        self._each = 1 if gpus_per_process is None else gpus_per_process
        self._ranks: dict[int, tuple[str, RankResources]] = {}
        self._sharers: Counter[Hashable] = Counter()  # user processes, of each thing that may be shared
        self._placed: Counter[Hashable] = Counter()  # those whose share was told already

    def enter(self, rank: int, node: str, resources: RankResources) -> None:
        """A worker has reported; :meth:`share` counts it from now on."""
        self._ranks[rank] = node, resources
        for thing in self._things(rank):
            self._sharers[thing] += self._processes

    def share(self, rank: int) -> Share:
        """What belongs to a worker; to be asked once for each, in the order in which they are to be numbered."""
        node, cores, gpus = self._things(rank)
        share = Share(
            first_process=self._placed[node],
            node_processes=self._sharers[node],
            first_on_gpus=self._placed[gpus],
            core_processes=self._sharers[cores],
        )
        for thing in (node, cores, gpus):
            self._placed[thing] += self._processes
        return share

    def _things(self, rank: int) -> tuple[Hashable, Hashable, Hashable]:
        """The node, the cores and the GPUs of a rank: equal for two ranks that share them."""
        node, resources = self._ranks[rank]
        return (
            node,
            (node, "cores", resources.cores),
            (node, "GPUs", resources.gpus, rank if resources.own_gpus else None),
        )

    def remarks(self) -> list[str]:
        """Where there are too few GPUs, in words; nodes with the same figures share a line."""
        nodes: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        for rank, (node, resources) in self._ranks.items():
            sharers = self._sharers[self._things(rank)[2]]
            if resources.gpus and sharers * self._each > len(resources.gpus):
                nodes[sharers, len(resources.gpus)].append(node)
        return [
            f"{sharers} user processes share {count} GPU{'s' * (count > 1)} on {_named(sorted(set(names)))}: "
            "GPUs are handed out in turn"
            for (sharers, count), names in sorted(nodes.items())
        ]


def _named(nodes: list[str]) -> str:
    return f"{len(nodes)} nodes ({nodes[0]}, …)" if len(nodes) > 3 else ", ".join(nodes)

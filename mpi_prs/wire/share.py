"""What a rank is told of its node by the master, which alone knows all ranks. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """Where a rank stands among the ranks of its node; all figures count user processes.

    Attributes:
        first_process: the number of its first one on the node.
        node_processes: how many the node has.
        first_on_gpus: the number of its first one among those that see the same GPUs.
        core_processes: how many run on the same set of cores.
    """

    first_process: int
    node_processes: int
    first_on_gpus: int
    core_processes: int

    @classmethod
    def alone(cls, processes: int) -> Share:
        """The share of a rank that has the node to itself."""
        return cls(0, processes, 0, processes)

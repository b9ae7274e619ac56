"""How a compute target is: Azure's classes, filled from what Slurm says about a partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpi_prs.core.words import near
from mpi_prs.slurm.control import PartitionNodes

# Slurm marks a state by the characters behind it; see NODE STATE CODES in sinfo's manual.
_MARKS = "*~#!%$@^-+"
_POWERED_OFF, _NOT_RESPONDING = "~", "*"
_STATE_OF_MARK = {"#": "preparing", "@": "preparing", "^": "preparing", "%": "leaving", "!": "leaving", "$": "unusable"}
_STATE = {
    "idle": "idle",
    "planned": "idle",
    "reserved": "idle",
    "allocated": "running",
    "mixed": "running",
    "completing": "running",
    "draining": "leaving",
    "powering_up": "preparing",
    "power_up": "preparing",
    "powering_down": "leaving",
    "power_down": "leaving",
}


@dataclass(frozen=True)
class ScaleSettings:
    """Azure's names for the limits of a compute target."""

    minimum_node_count: int
    maximum_node_count: int
    idle_seconds_before_scaledown: int

    def serialize(self) -> dict[str, Any]:
        return {
            "minNodeCount": self.minimum_node_count,
            "maxNodeCount": self.maximum_node_count,
            "nodeIdleTimeBeforeScaleDown": f"PT{self.idle_seconds_before_scaledown}S",
        }


@dataclass(frozen=True)
class AmlComputeNodeStateCounts:
    """Nodes by state, of the whole partition, whoever uses them."""

    preparing_node_count: int = 0
    running_node_count: int = 0
    idle_node_count: int = 0
    unusable_node_count: int = 0
    leaving_node_count: int = 0
    preempted_node_count: int = 0

    def serialize(self) -> dict[str, int]:
        return {
            "preparingNodeCount": self.preparing_node_count,
            "runningNodeCount": self.running_node_count,
            "idleNodeCount": self.idle_node_count,
            "unusableNodeCount": self.unusable_node_count,
            "leavingNodeCount": self.leaving_node_count,
            "preemptedNodeCount": self.preempted_node_count,
        }


@dataclass(frozen=True)
class AmlComputeStatus:
    """How a compute target is.

    Attributes:
        current_node_count: nodes that can be used, idle or at work, at most the target's maximum.
        target_node_count: those that there will be when the ones that boot are up.
        node_state_counts: all nodes of the partition.
        errors: ``{"code": …, "message": …}`` each, or ``None``.
        allocation_state: ``Steady``, or ``Resizing`` while nodes boot.
        provisioning_state: ``Succeeded``.
        scale_settings: its limits.
        vm_priority: ``Dedicated`` or ``LowPriority``.
        vm_size: as it was given.
    """

    allocation_state: str
    allocation_state_transition_time: str
    creation_time: str
    current_node_count: int
    errors: list[dict[str, str]] | None
    modified_time: str
    node_state_counts: AmlComputeNodeStateCounts
    provisioning_state: str
    provisioning_state_transition_time: str | None
    scale_settings: ScaleSettings
    target_node_count: int
    vm_priority: str
    vm_size: str

    def serialize(self) -> dict[str, Any]:
        """The same under Azure's JSON names."""
        return {
            "currentNodeCount": self.current_node_count,
            "targetNodeCount": self.target_node_count,
            "nodeStateCounts": self.node_state_counts.serialize(),
            "allocationState": self.allocation_state,
            "allocationStateTransitionTime": self.allocation_state_transition_time,
            "errors": self.errors,
            "creationTime": self.creation_time,
            "modifiedTime": self.modified_time,
            "provisioningState": self.provisioning_state,
            "provisioningStateTransitionTime": self.provisioning_state_transition_time,
            "scaleSettings": self.scale_settings.serialize(),
            "vmPriority": self.vm_priority,
            "vmSize": self.vm_size,
        }


def counts_of_partition(
    nodes: Sequence[PartitionNodes], partition: str | None
) -> tuple[AmlComputeNodeStateCounts, list[dict[str, str]]]:
    """The nodes of a partition by state, and what is wrong.

    Args:
        nodes: of all partitions, as Slurm tells them.
        partition: its name, or names separated by commas; ``None``: the cluster's default.
    """
    known = {entry.partition for entry in nodes}
    if partition is None:
        wanted = {entry.partition for entry in nodes if entry.is_default}
        if not wanted:
            message = "this cluster has no default partition: name one in ws.update_settings(vm_sizes={…})"
            return AmlComputeNodeStateCounts(), [{"code": "NoPartition", "message": message}]
    else:
        wanted = {name.strip() for name in partition.split(",")}
        for name in sorted(wanted - known):
            message = f"Slurm has no partition {name!r}{near(name, known)}; see the workspace's settings"
            return AmlComputeNodeStateCounts(), [{"code": "NoPartition", "message": message}]
    counts = dict.fromkeys(("preparing", "running", "idle", "unusable", "leaving"), 0)
    for entry in nodes:
        state = _state(entry.state)
        if entry.partition in wanted and state is not None:
            counts[state] += entry.count
    return AmlComputeNodeStateCounts(**{f"{state}_node_count": count for state, count in counts.items()}), []


def _state(text: str) -> str | None:
    """Azure's word for a state of Slurm's such as ``idle`` or ``down*``; ``None``: the node is switched off."""
    plain = text.lower().rstrip(_MARKS)
    marks = text[len(plain) :]
    if _POWERED_OFF in marks:
        return None
    if _NOT_RESPONDING in marks:
        return "unusable"
    for mark in marks:
        if mark in _STATE_OF_MARK:
            return _STATE_OF_MARK[mark]
    return _STATE.get(plain, "unusable")

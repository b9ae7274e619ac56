"""Compute targets: names for nodes of this cluster, and limits on how many of them a run may take.

::

    AmlCompute.provisioning_configuration(vm_size, max_nodes, …) ─► ComputeTarget.create(ws, NAME, …) ─► NAME.json
    vm_size ── the workspace's setting vm_sizes ──► partition, cores and GPUs of a node, … ─► the job's slurm section

Nothing is provisioned: the nodes are Slurm's, or there is only this machine. So a target is there at once, and its
status is that of the partition.
"""

# ruff: noqa: ARG002, ARG004  # parameters of Azure's that mean nothing here

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from mpi_prs.azureml.compute.status import (
    AmlComputeNodeStateCounts,
    AmlComputeStatus,
    ScaleSettings,
    counts_of_partition,
)
from mpi_prs.azureml.store import settings as workspace_settings
from mpi_prs.azureml.store.settings import LOW_PRIORITY
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.child.context.workspace_paths import WorkspaceFolder, layout_of
from mpi_prs.core import values
from mpi_prs.core.azure_names import NotRegistered, Registered, Surface
from mpi_prs.core.errors import ComputeTargetException, SlurmError, WorkspaceError
from mpi_prs.core.records import add_json, check_name, names_of, read_json, time_stamp, update_json
from mpi_prs.core.words import near
from mpi_prs.slurm.control import partition_nodes

_PAUSE = 10.0  # seconds between two looks at Slurm


class UnknownComputeTarget(NotRegistered, ComputeTargetException):
    """A name that no compute target has; also a KeyError, as ``ws.compute_targets[NAME]`` raises."""


class ComputeTarget(Surface):
    """A compute target that exists; here it is always an :class:`AmlCompute`.

    Attributes:
        workspace: where it is registered.
        name: its name.
        type: ``AmlCompute``.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "attach": "nodes are Slurm's: give the partition in ws.update_settings(vm_sizes={…})",
        "detach": "use delete()",
        "deserialize": "use ComputeTarget(workspace=ws, name=NAME)",
        "add_identity": "there is no Azure behind it",
        "remove_identity": "there is no Azure behind it",
        "get_active_runs": "use mpi-prs runs list, or squeue --me",
    }

    workspace: Workspace
    name: str
    type: str

    def __new__(cls, workspace: Workspace, name: str) -> ComputeTarget:
        """The class of whatever is registered under the name."""
        return object.__new__(AmlCompute)

    def __init__(self, workspace: Workspace, name: str) -> None:
        """Look a compute target up.

        Raises:
            ComputeTargetException: there is none of this name; names the near ones.
            WorkspaceError: it cannot be read.
        """
        raise NotImplementedError  # AmlCompute does it

    @staticmethod
    def create(
        workspace: Workspace, name: str, provisioning_configuration: AmlComputeProvisioningConfiguration
    ) -> AmlCompute:
        """Register a compute target; one that is there already with the same configuration is taken as it is.

        Args:
            provisioning_configuration: what :meth:`AmlCompute.provisioning_configuration` returns.

        Raises:
            ComputeTargetException: there is another one of this name, or the workspace's settings say nothing about
                the VM size.
            WorkspaceError: no such name, or it cannot be written.
        """
        layout = layout_of(workspace)
        config = provisioning_configuration
        if not isinstance(config, AmlComputeProvisioningConfiguration):
            raise ComputeTargetException(
                "expected a provisioning configuration, which AmlCompute.provisioning_configuration(vm_size=…, "
                f"max_nodes=…) makes, but got {config!r}"
            )
        config = configuration(**asdict(config))  # its attributes may have been set since
        path = layout.compute(name)
        if workspace_settings.backend(workspace.settings) == "slurm":
            _section(workspace.settings, config.vm_size, config.vm_priority)
        now = time_stamp()
        if not add_json(path, {**asdict(config), "created": now, "modified": now}):
            there = AmlCompute(workspace, name)
            if there._configuration() != config:
                raise ComputeTargetException(
                    f"there is a compute target {name!r} already, with vm_size {there.vm_size!r}, "
                    f"{there.min_nodes} to {there.max_nodes} nodes; use it, change it with update(), delete() it, or "
                    "choose another name"
                )
            return there
        return AmlCompute(workspace, name)

    @staticmethod
    def list(workspace: Workspace) -> list[ComputeTarget]:
        """All compute targets of a workspace, by name."""
        return [*computes_of(workspace).values()]


class AmlCompute(ComputeTarget):
    """Nodes of a Slurm partition, or this machine.

    Attributes:
        vm_size: names what the workspace's setting ``vm_sizes`` describes.
        vm_priority: ``dedicated`` or ``lowpriority``.
        min_nodes: kept; no node is held ready.
        max_nodes: the most nodes that a step may ask for.
        idle_seconds_before_scaledown: kept; no node is given up, since none is held.
        tags, description: as they were given.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        layout = layout_of(workspace)
        self.workspace = workspace
        self.name = check_name(name, "a compute target")
        self.type = "AmlCompute"
        self._path = layout.compute(name)
        self._record = _read(layout, name)

    @staticmethod
    def provisioning_configuration(
        vm_size: str = "",
        vm_priority: str = "dedicated",
        min_nodes: int | str = 0,
        max_nodes: int | str | None = None,
        idle_seconds_before_scaledown: int | str | None = None,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        **azure: object,
    ) -> AmlComputeProvisioningConfiguration:
        """What :meth:`ComputeTarget.create` is given.

        Args:
            vm_size: of the workspace's setting ``vm_sizes``; default ``Standard_NC6``.
            vm_priority: ``dedicated`` or ``lowpriority``.
            min_nodes: at least 0; text from the environment is taken as well, here and below.
            max_nodes: at least 1 and ``min_nodes``; default 4.
            idle_seconds_before_scaledown: only kept; default 1800.
            tags, description: only kept.
            azure: users and keys of nodes, virtual networks, identities: they mean nothing here, and are ignored.

        Raises:
            ComputeTargetException: a value cannot be.
        """
        check_ignored(azure)
        return configuration(
            vm_size, vm_priority, min_nodes, max_nodes, idle_seconds_before_scaledown, tags, description
        )

    @staticmethod
    def supported_vmsizes(workspace: Workspace, location: object = None) -> list[dict[str, Any]]:
        """The VM sizes that the workspace's settings describe: a dict each, with ``name``, ``vCPUs`` and ``gpus``."""
        layout_of(workspace)
        sizes = workspace.settings["vm_sizes"]
        return [
            {"name": name, "vCPUs": found.get("cpus"), "gpus": found.get("gpus", 0)} for name, found in sizes.items()
        ]

    # What it is

    @property
    def vm_size(self) -> str:
        return self._configuration().vm_size

    @property
    def vm_priority(self) -> str:
        return self._configuration().vm_priority

    @property
    def min_nodes(self) -> int:
        return self._configuration().min_nodes

    @property
    def max_nodes(self) -> int:
        return self._configuration().max_nodes

    @property
    def idle_seconds_before_scaledown(self) -> int:
        return self._configuration().idle_seconds_before_scaledown

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._configuration().tags)

    @property
    def description(self) -> str:
        return self._configuration().description

    @property
    def provisioning_state(self) -> str:
        """``Succeeded``: a target is there as soon as it is registered."""
        return "Succeeded"

    @property
    def provisioning_errors(self) -> None:
        return None

    @property
    def created_on(self) -> str:
        """When it was made, ISO 8601."""
        return str(self._record.get("created", ""))

    @property
    def scale_settings(self) -> ScaleSettings:
        return ScaleSettings(self.min_nodes, self.max_nodes, self.idle_seconds_before_scaledown)

    def backend(self) -> str:
        """Where it runs: ``slurm`` or ``local``. Not one of Azure's names. Raises WorkspaceError."""
        return workspace_settings.backend(self.workspace.settings)

    def slurm_section(self, settings: Mapping[str, Any], processes: int | None = None) -> dict[str, Any]:
        """The ``slurm`` section of a job config for its nodes. Not one of Azure's names.

        Args:
            settings: of the workspace.
            processes: user processes on a node, which its cores and GPUs are divided among.

        Raises:
            WorkspaceError: the settings say nothing about its VM size, or are not in the right form.
        """
        return workspace_settings.slurm_section(settings, self.vm_size, self.vm_priority, processes)

    def get_status(self) -> AmlComputeStatus:
        """How it is now: under Slurm from one ``sinfo``. What Slurm does not tell stands in ``errors``."""
        self.refresh_state()
        counts, errors = self._counts()
        current = min(self.max_nodes, counts.running_node_count + counts.idle_node_count)
        return AmlComputeStatus(
            allocation_state="Resizing" if counts.preparing_node_count else "Steady",
            allocation_state_transition_time=self.created_on,
            creation_time=self.created_on,
            current_node_count=current,
            errors=errors or None,
            modified_time=str(self._record.get("modified", "")),
            node_state_counts=counts,
            provisioning_state=self.provisioning_state,
            provisioning_state_transition_time=None,
            scale_settings=self.scale_settings,
            target_node_count=min(self.max_nodes, current + counts.preparing_node_count),
            vm_priority="LowPriority" if self.vm_priority == workspace_settings.LOW_PRIORITY else "Dedicated",
            vm_size=self.vm_size,
        )

    @property
    def status(self) -> AmlComputeStatus:
        return self.get_status()

    def wait_for_completion(
        self,
        show_output: bool = False,
        min_node_count: int | None = None,
        timeout_in_minutes: float = 25,
        is_delete_operation: object = False,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wait until there are so many nodes; the target itself is there at once.

        Args:
            show_output: print what is waited for.
            min_node_count: nodes that can be used, at work or idle; default: ``min_nodes``.
            timeout_in_minutes: after which it returns all the same, as Azure's does.
            is_delete_operation: ignored: nothing takes long.
            pause: sleeps for so many seconds.

        Raises:
            ComputeTargetException: Slurm has no such partition, or the workspace's settings say nothing about the VM
                size.
        """
        wanted = self.min_nodes if min_node_count is None else whole_number("min_node_count", min_node_count, 0)
        if isinstance(timeout_in_minutes, bool) or not isinstance(timeout_in_minutes, (int, float)):
            raise ComputeTargetException(f"timeout_in_minutes is a number, but got {timeout_in_minutes!r}")
        say: Callable[[str], None] = print if show_output else _nothing
        is_here = self.backend() == "local"
        if is_here:  # this machine is all that there will be
            wanted = min(wanted, 1)
        say(f"{self.name}: registered{'' if is_here else f', waiting for {wanted} nodes of Slurm'}")
        deadline = time.monotonic() + timeout_in_minutes * 60
        while True:
            status = self.get_status()
            for error in status.errors or ():
                if error["code"] != "SlurmUnavailable":
                    raise ComputeTargetException(error["message"])
            left = deadline - time.monotonic()
            if status.current_node_count >= min(wanted, self.max_nodes) or left <= 0:
                late = "" if left > 0 else f"; {timeout_in_minutes:g} min are over"
                why = "".join(f"; {error['message']}" for error in status.errors or ())
                say(
                    f"{self.name}: {status.current_node_count} nodes of at most {self.max_nodes} can be used{late}{why}"
                )
                break
            pause(min(_PAUSE, left))

    def refresh_state(self) -> None:
        """Read it again. Raises ComputeTargetException when it is gone."""
        self._record = _read(layout_of(self.workspace), self.name)

    def update(
        self,
        min_nodes: int | str | None = None,
        max_nodes: int | str | None = None,
        idle_seconds_before_scaledown: int | str | None = None,
    ) -> None:
        """Change the limits; what is not given stays.

        Raises:
            ComputeTargetException: a value cannot be, or the target is gone.
            WorkspaceError: it cannot be written.
        """
        given = {
            "min_nodes": min_nodes,
            "max_nodes": max_nodes,
            "idle_seconds_before_scaledown": idle_seconds_before_scaledown,
        }

        def change(record: dict[str, Any]) -> dict[str, Any]:
            before = asdict(_configuration(record, self._path))
            after = {**before, **{name: value for name, value in given.items() if value is not None}}
            return {**record, **asdict(configuration(**after)), "modified": time_stamp()}

        try:
            self._record = update_json(self._path, self._what, change)
        except FileNotFoundError:
            raise _unknown(layout_of(self.workspace), self.name) from None

    def delete(self) -> None:
        """Take the name away. Runs that use it go on. Raises ComputeTargetException when it is gone."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            raise _unknown(layout_of(self.workspace), self.name) from None
        except OSError as error:
            raise ComputeTargetException(f"{self._what} cannot be removed: {error.strerror}") from error

    def list_nodes(self) -> list[dict[str, Any]]:
        """Empty: no node belongs to a target between two runs. What runs where: ``squeue --me``."""
        return []

    def serialize(self) -> dict[str, Any]:
        """What is known of it, JSON-able."""
        return {
            "name": self.name,
            "type": self.type,
            "provisioningState": self.provisioning_state,
            "createdOn": self.created_on,
            "vmSize": self.vm_size,
            "vmPriority": self.vm_priority,
            "scaleSettings": self.scale_settings.serialize(),
            "tags": self.tags,
            "description": self.description,
        }

    def __repr__(self) -> str:
        return f"AmlCompute(name={self.name!r}, vm_size={self.vm_size!r}, max_nodes={self.max_nodes})"

    # Inside

    @property
    def _what(self) -> str:
        return f"the compute target {self.name!r}"

    def _configuration(self) -> AmlComputeProvisioningConfiguration:
        return _configuration(self._record, self._path)

    def _counts(self) -> tuple[AmlComputeNodeStateCounts, list[dict[str, str]]]:
        if self.backend() == "local":
            return AmlComputeNodeStateCounts(idle_node_count=1), []

        try:
            section = _section(self.workspace.settings, self.vm_size, self.vm_priority)
            nodes = partition_nodes()
        except SlurmError as error:
            return AmlComputeNodeStateCounts(), [{"code": "SlurmUnavailable", "message": str(error)}]
        except ComputeTargetException as error:
            return AmlComputeNodeStateCounts(), [{"code": "NoVmSize", "message": str(error)}]
        return counts_of_partition(nodes, section.get("partition"))


def computes_of(workspace: Workspace) -> Mapping[str, ComputeTarget]:
    """All compute targets of a workspace, by name."""
    layout = layout_of(workspace)

    def find(name: str) -> ComputeTarget | None:
        try:
            return AmlCompute(workspace, name)
        except UnknownComputeTarget:
            return None

    return Registered("compute target", lambda: names_of(layout.computes, ".json"), find, UnknownComputeTarget)


def _read(layout: WorkspaceFolder, name: str) -> dict[str, Any]:
    path = layout.compute(name)
    try:
        record = read_json(path, f"the compute target {name!r}")
    except FileNotFoundError:
        raise _unknown(layout, name) from None
    _configuration(record, path)
    return record


def _section(settings: Mapping[str, Any], vm_size: str, vm_priority: str) -> dict[str, Any]:
    try:
        return workspace_settings.slurm_section(settings, vm_size, vm_priority)
    except WorkspaceError as error:
        raise ComputeTargetException(str(error)) from None


def _unknown(layout: WorkspaceFolder, name: str) -> ComputeTargetException:
    known = names_of(layout.computes, ".json")
    message = f"there is no compute target {name!r}{near(name, known)}"
    if not known:
        message += f": ComputeTarget.create(ws, {name!r}, AmlCompute.provisioning_configuration(vm_size=…)) makes one"
    return UnknownComputeTarget(message)


def _configuration(record: Mapping[str, Any], path: Path) -> AmlComputeProvisioningConfiguration:
    names = AmlComputeProvisioningConfiguration.__dataclass_fields__
    try:
        return configuration(**{name: record[name] for name in names if name in record})
    except ComputeTargetException as error:
        raise ComputeTargetException(f"{path}: {error}. Mend or remove this file") from None


def _nothing(text: str) -> None:
    """Say nothing."""


# What one is made with: the parameters, checked

T = TypeVar("T")

_PRIORITIES = ("dedicated", LOW_PRIORITY)
_IGNORED = frozenset(
    [
        "admin_user_password",
        "admin_user_ssh_key",
        "admin_username",
        "enable_node_public_ip",
        "identity_id",
        "identity_type",
        "location",
        "remote_login_port_public_access",
        "subnet_name",
        "vnet_name",
        "vnet_resourcegroup_name",
    ]
)


@dataclass
class AmlComputeProvisioningConfiguration:
    """What :meth:`ComputeTarget.create` is given; attributes: the parameters of ``provisioning_configuration``."""

    vm_size: str = "Standard_NC6"
    vm_priority: str = "dedicated"
    min_nodes: int = 0
    max_nodes: int = 4
    idle_seconds_before_scaledown: int = 1800
    tags: dict[str, str] = field(default_factory=dict)
    description: str = ""


def check_ignored(azure: Mapping[str, object]) -> None:
    """Raises TypeError for a parameter that is not even Azure's."""
    for unknown in azure.keys() - _IGNORED:
        raise TypeError(f"provisioning_configuration() has no parameter {unknown!r}{near(unknown, _IGNORED)}")


def configuration(
    vm_size: object = "",
    vm_priority: object = "dedicated",
    min_nodes: object = 0,
    max_nodes: object = None,
    idle_seconds_before_scaledown: object = None,
    tags: object = None,
    description: object = None,
) -> AmlComputeProvisioningConfiguration:
    """The parameters, checked, with the defaults filled in; see ``AmlCompute.provisioning_configuration``.

    Raises:
        ComputeTargetException: a value cannot be.
    """
    if not isinstance(vm_size, str):
        raise ComputeTargetException(
            key="vm_size", got=values.shown(vm_size), expected="expected text such as 'STANDARD_D2_V2'"
        )
    priority = checked(values.one_of(*_PRIORITIES), "vm_priority", vm_priority)
    least = whole_number("min_nodes", min_nodes, 0)
    most = whole_number("max_nodes", 4 if max_nodes is None else max_nodes, 1)
    if most < least:
        raise ComputeTargetException(f"max_nodes is at least min_nodes, but got {most} and {least}")
    idle = 1800 if idle_seconds_before_scaledown is None else idle_seconds_before_scaledown
    return AmlComputeProvisioningConfiguration(
        vm_size=vm_size.strip() or "Standard_NC6",
        vm_priority=priority,
        min_nodes=least,
        max_nodes=most,
        idle_seconds_before_scaledown=whole_number("idle_seconds_before_scaledown", idle, 0),
        tags=checked(values.tags, "tags", tags or {}),
        description=checked(values.text, "description", description or ""),
    )


def whole_number(name: str, value: object, least: int) -> int:
    """A number as users give it, or its text from the environment. Raises ComputeTargetException."""
    found: int = checked(values.whole_number(least), name, value)
    return found


def checked(check: Callable[[Any], T], name: str, value: object) -> T:
    """The value, checked. Raises ComputeTargetException."""
    try:
        return check(value)
    except values.WrongValue as error:
        raise ComputeTargetException(**error.fields(name)) from None

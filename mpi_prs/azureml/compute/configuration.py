"""What a compute target is made with: the parameters, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mpi_prs.azureml.store.settings import LOW_PRIORITY
from mpi_prs.core import values
from mpi_prs.core.errors import ComputeTargetException
from mpi_prs.core.words import near

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

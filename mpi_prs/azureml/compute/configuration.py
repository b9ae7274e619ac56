"""What a compute target is made with: the parameters, checked. Standard library only: user processes import this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mpi_prs.azureml.store.settings import LOW_PRIORITY
from mpi_prs.core.errors import ComputeTargetException
from mpi_prs.core.words import near

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
        raise ComputeTargetException(f"vm_size is text such as 'STANDARD_D2_V2', but got {vm_size!r}")
    if not isinstance(vm_priority, str) or vm_priority.lower() not in _PRIORITIES:
        raise ComputeTargetException(f"vm_priority is {' or '.join(_PRIORITIES)}, but got {vm_priority!r}")
    least = whole_number("min_nodes", min_nodes, 0)
    most = whole_number("max_nodes", 4 if max_nodes is None else max_nodes, 1)
    if most < least:
        raise ComputeTargetException(f"max_nodes is at least min_nodes, but got {most} and {least}")
    idle = 1800 if idle_seconds_before_scaledown is None else idle_seconds_before_scaledown
    return AmlComputeProvisioningConfiguration(
        vm_size=vm_size.strip() or "Standard_NC6",
        vm_priority=vm_priority.lower(),
        min_nodes=least,
        max_nodes=most,
        idle_seconds_before_scaledown=whole_number("idle_seconds_before_scaledown", idle, 0),
        tags=_texts("tags", tags or {}),
        description=str(description or ""),
    )


def whole_number(name: str, value: object, least: int) -> int:
    """A number as users give it, or its text from the environment. Raises ComputeTargetException."""
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ComputeTargetException(f"{name} is a whole number, at least {least}, but got {value!r}")
    return number


def _texts(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ComputeTargetException(f"{name} is a dict of texts, but got {value!r}")
    return dict(value)

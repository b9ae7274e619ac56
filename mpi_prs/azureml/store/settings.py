"""The settings of a workspace: how its names map to this cluster. Checked when written, and when used."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mpi_prs.core.environ import HERE, SLURM_CONF
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.urls import is_url
from mpi_prs.core.words import near
from mpi_prs.job.config.model import SlurmSection
from mpi_prs.slurm.control import is_a_login_node

LOW_PRIORITY = "lowpriority"
"""A key of a VM size's section: what differs when the compute target's ``vm_priority`` is this."""

_OF_A_NODE = ("cpus", "gpus")
_TEXTS = ("environment_policy", "apptainer", "conda")
NAMES = ("backend", "vm_sizes", "slurm", "storage_endpoints", *_TEXTS)
_BACKENDS = ("auto", "slurm", "local")


def changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings after ``changes``, each of which replaces a setting; ``None`` takes it away.

    Raises:
        WorkspaceError: there is no such setting, or it does not take this value.
    """
    after = {name: value for name, value in {**settings, **changes}.items() if value is not None}
    check(after)
    return after


def check(settings: Mapping[str, Any]) -> None:
    """Raises WorkspaceError naming the first setting that cannot be used, and what was expected."""
    for name, value in settings.items():
        if name not in NAMES:
            raise WorkspaceError(f"there is no setting {name!r} of a workspace{near(name, NAMES)}")
        if name == "backend" and value not in _BACKENDS:
            raise WorkspaceError(f"the setting backend is one of {', '.join(_BACKENDS)}, but got {value!r}")
        if name in _TEXTS and not (isinstance(value, str) and value.strip()):
            raise WorkspaceError(f"the setting {name} is text, but got {value!r}")
        if name == "slurm":
            check_slurm(_mapping(name, value), "slurm")
        if name == "vm_sizes":
            for size, section in _mapping(name, value).items():
                _check_vm_size(size, section)
        if name == "storage_endpoints":
            for account, url in _mapping(name, value).items():
                if not isinstance(url, str) or not is_url(url):
                    raise WorkspaceError(
                        f"the setting storage_endpoints has an URL such as https://blobs.example.org/{account} for "
                        f"each account, but got {url!r} for {account!r}"
                    )


def _check_vm_size(size: str, section: Any) -> None:
    where = f"vm_sizes.{size}"
    section = dict(_mapping(where, section))
    if LOW_PRIORITY in section:
        _check_vm_size(f"{size}.{LOW_PRIORITY}", section.pop(LOW_PRIORITY))
    for name in _OF_A_NODE:
        value = section.pop(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < (name == "cpus"):
            raise WorkspaceError(f"the setting {where}.{name} is the number of a node's {name}, but got {value!r}")
    check_slurm(section, where, _OF_A_NODE)


def check_slurm(section: Mapping[str, Any], where: str, also: tuple[str, ...] = ()) -> None:
    """Check keys and values of a job config's ``slurm`` section. Raises WorkspaceError naming the first that is wrong.

    Args:
        where: the setting that it is, for messages.
        also: further keys that are taken there, for messages.
    """
    for name in section:
        if name not in SlurmSection.model_fields:
            known = [*SlurmSection.model_fields, *also]
            raise WorkspaceError(f"the setting {where} has no key {name!r}{near(str(name), known)}")
    try:
        SlurmSection.model_validate(dict(section))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join([where, *map(str, first["loc"])])
        said = first["msg"].replace("Value error, ", "")
        raise WorkspaceError(f"the setting {key}: {said}, but got {first['input']!r}") from None


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise WorkspaceError(f"the setting {name} is a dict with text keys, but got {value!r}")
    return value


def backend(settings: Mapping[str, Any]) -> str:
    """Where runs go: ``slurm``, or ``local`` (this machine). ``auto`` is Slurm where its commands know of a cluster.

    Slurm is asked once in a process.

    Raises:
        WorkspaceError: the setting has another value.
    """
    wanted = settings.get("backend", "auto")
    if wanted not in _BACKENDS:
        raise WorkspaceError(f"the setting backend is one of {', '.join(_BACKENDS)}, but got {wanted!r}")
    if wanted == "auto":
        return "slurm" if _has_slurm(HERE.get("PATH"), SLURM_CONF.of()) else "local"
    return str(wanted)


@functools.lru_cache(maxsize=1)
def _has_slurm(_path: str | None, _conf: str | None) -> bool:
    """For these variables, by which Slurm's commands are found, and by which they find their cluster."""
    return is_a_login_node()


def vm_section(settings: Mapping[str, Any], vm_size: str, vm_priority: str = "dedicated") -> dict[str, Any]:
    """What the settings say about a VM size, whose case does not matter; ``*`` stands for the sizes that are not named.

    Returns:
        ``cpus`` and ``gpus`` of a node where they are given, and keys of the job config's ``slurm`` section; empty
        where nothing is said about any size.

    Raises:
        WorkspaceError: something is said about others, but not about this one; or not in the right form.
    """
    sizes = _mapping("vm_sizes", settings.get("vm_sizes", {}))
    by_lower = {size.lower(): size for size in sizes}
    size = by_lower.get(vm_size.lower(), by_lower.get("*"))
    if size is None:
        if sizes:
            raise WorkspaceError(
                f"the workspace's setting vm_sizes says nothing about {vm_size!r}{near(vm_size, sizes)} "
                f'(ws.update_settings(vm_sizes={{…, "{vm_size}": {{"partition": …}}}}); "*" stands for all others)'
            )
        return {}
    _check_vm_size(size, sizes[size])
    section = dict(sizes[size])
    low = section.pop(LOW_PRIORITY, {})
    return {**section, **low} if vm_priority == LOW_PRIORITY else section


def slurm_section(
    settings: Mapping[str, Any], vm_size: str, vm_priority: str = "dedicated", processes: int | None = None
) -> dict[str, Any]:
    """The job config's ``slurm`` section for nodes of a VM size: the setting ``slurm``, and above it that of the size.

    A node's cores and GPUs are divided among its user processes. Where the GPUs cannot be divided evenly, or
    ``processes`` is not given, the job asks for all of the node's, and the user processes share them.

    Raises:
        WorkspaceError: see :func:`vm_section`.
    """
    size = vm_section(settings, vm_size, vm_priority)
    cpus, gpus = size.pop("cpus", None), size.pop("gpus", 0)
    base = _mapping("slurm", settings.get("slurm", {}))
    section = {**base, **size}
    for name in ("setup", "extra"):  # both are lists, and neither says what the other says
        if name in base and name in size:
            section[name] = [*base[name], *size[name]]
    if cpus and processes and "cpus_per_process" not in section:
        section["cpus_per_process"] = max(1, cpus // processes)
    if gpus and "gpus_per_process" not in section:
        if processes and gpus % processes == 0:
            section["gpus_per_process"] = gpus // processes
        else:
            section["extra"] = [*section.get("extra", []), f"--gpus-per-node={gpus}"]
    return section

"""``task.environment``: its packages are compared with what is here, or built as the workspace's policy says.

Without a workspace the interpreter at hand is used, whatever the environment asks for; the notes say where it differs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mpi_prs.azureml.environments.building import PreparedEnvironment, prepare
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.azureml.environments.packages import CondaDependencies
from mpi_prs.azureml.v2.assets import WorkspaceAssets
from mpi_prs.azureml.v2.nodes import YamlNode
from mpi_prs.core.errors import WorkspaceError

_KEYS = (
    *("name", "version", "image", "conda_file", "description", "tags", "build", "os_type", "inference_config"),
    *("$schema", "datastore", "properties"),
)


def prepared(node: YamlNode, assets: WorkspaceAssets, say: Callable[[str], None]) -> PreparedEnvironment:
    """Have the environment.

    Args:
        node: what names or defines it.
        assets: where registered ones are.
        say: is told at once what takes long.

    Raises:
        ConfigError: it is not defined as it should be, or cannot be had.
    """
    try:
        environment = _registered(node, assets) if isinstance(node.value, str) else _inline(node)
        if environment is None:
            return PreparedEnvironment(
                None, {}, [f"the environment {node.value} is not known here: the Python at hand runs it"]
            )
        workspace: Any = assets.workspace
        if workspace is None:
            environment.policy = "current"
            workspace = SimpleNamespace(settings={}, layout=SimpleNamespace(built=Path()))
        return prepare(environment, workspace, say)
    except WorkspaceError as error:
        raise node.wrong(str(error)) from None


def _registered(node: YamlNode, assets: WorkspaceAssets) -> Environment | None:
    """The environment that ``azureml:NAME:VERSION`` or ``azureml:NAME@latest`` names; ``None``: Azure's own."""
    name, _, version = node.text().removeprefix("azureml:").removesuffix("@latest").partition(":")
    if assets.workspace is None or name not in assets.workspace.environments:
        return None
    return Environment.get(assets.workspace, name, version or None)


def _inline(node: YamlNode) -> Environment:
    keys = node.fields(_KEYS)
    environment = Environment(keys["name"].text() if "name" in keys else "of the task")
    if "conda_file" in keys:
        path = keys["conda_file"].local_path()
        environment.python.conda_dependencies = CondaDependencies(str(path))
    if "image" in keys:
        environment.docker.enabled = True
        environment.docker.base_image = keys["image"].text()
    return environment

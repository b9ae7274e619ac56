"""What ``azureml:…`` names: datasets, models, datastores and compute targets of the workspace that is near the YAML."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from mpi_prs.azureml.compute.target import AmlCompute
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.store.settings import backend
from mpi_prs.azureml.v2.nodes import YamlNode
from mpi_prs.azureml.v2.resolving import LocatedData
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context import finding
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.urls import is_url

_DATASTORE = re.compile(r"azureml://(?:subscriptions/.+/)?datastores/([^/]+)/paths/(.*)", re.IGNORECASE | re.DOTALL)
_NAMED = re.compile(r"azureml:([^/:@]+)(?::([^@:]+)|@(latest))?")
_MODELS = ("custom_model", "mlflow_model", "triton_model")


class WorkspaceAssets:
    """The workspace that a ``config.json`` beside the YAML, or above, names; looked for when it is needed.

    Args:
        folder: of the YAML.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def workspace(self) -> Workspace | None:
        """``None``: there is none, or none that can be used."""
        try:
            return self._found()
        except WorkspaceError:
            return None

    def _found(self) -> Workspace:
        found = finding.find_config(self._folder, None)
        if found is None:
            raise finding.none_found(self._folder, None)
        if found.folder is not None:
            return Workspace.at(found.folder)
        subscription, group, name = found.names
        below_home: Workspace = Workspace.get(name, subscription_id=subscription, resource_group=group)
        return below_home

    def data(self, reference: str, type: str, node: YamlNode) -> LocatedData:
        """What a reference to data names.

        Args:
            reference: ``azureml:NAME:VERSION``, ``azureml:NAME@latest`` or ``azureml://datastores/NAME/paths/PATH``.
            type: of the input.
            node: what holds the reference.

        Raises:
            ConfigError: there is no such thing, or no workspace.
        """
        try:
            if match := _DATASTORE.fullmatch(reference):
                return self._on_datastore(match[1], match[2])
            match = _NAMED.fullmatch(reference)
            if match is None:
                raise node.wrong(
                    f"{reference}: expected azureml:NAME:VERSION, azureml:NAME@latest or "
                    "azureml://datastores/NAME/paths/PATH"
                )
            if type in _MODELS:
                return self._model(match[1], match[2])
            return self._dataset(match[1], match[2])
        except WorkspaceError as error:
            raise node.wrong(f"{reference}: {error}. Or give the path or URL of the data itself") from None

    def _on_datastore(self, name: str, path: str) -> LocatedData:
        datastore = Datastore.get(self._found(), name)
        return LocatedData(datastore.url(path), datastore.storage_section() or None)

    def _model(self, name: str, version: str | None) -> LocatedData:
        return LocatedData(Model.get_model_path(name, version, self._found()))

    def _dataset(self, name: str, version: str | None) -> LocatedData:
        dataset = Dataset.get_by_name(self._found(), name, version or "latest")
        section: dict[str, Any] = dataset.to_input()
        places = [source.pattern() for source in dataset.sources]
        is_one = len(places) == 1 and (is_url(places[0]) or Path(places[0]).exists())
        return LocatedData(places[0] if is_one else "", section.get("storage"), section)

    def slurm(self, compute: str, processes: int) -> dict[str, Any]:
        """The ``slurm`` section for a compute target; empty if the workspace does not know it, or has no Slurm.

        Args:
            compute: such as ``azureml:cpu-cluster``.
            processes: user processes on a node.

        Raises:
            WorkspaceError: the workspace's settings say nothing about its VM size.
        """
        name = compute.removeprefix("azureml:")
        if self.workspace is None or name not in self.workspace.compute_targets:
            return {}
        target = self.workspace.compute_targets[name]
        if not isinstance(target, AmlCompute) or backend(self.workspace.settings) != "slurm":
            return {}
        return target.slurm_section(self.workspace.settings, processes)

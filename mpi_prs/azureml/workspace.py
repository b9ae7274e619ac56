"""``Workspace``: a folder in which compute targets, datastores, datasets, models, environments and runs are kept.

::

    Workspace.from_config()  config.json here or in a folder above, ours or Azure's own ─┐
    Workspace(…), get(…)     HOME/SUBSCRIPTION/GROUP/NAME                                ├─► a folder
    Workspace.at(folder)     as a job finds its workspace                                ─┘

A folder with a ``workspace.json`` is a workspace; what HOME is stands in :mod:`mpi_prs.child.context.finding`.
"""

# ruff: noqa: ARG003  # parameters of Azure's that mean nothing here

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpi_prs import azureml
from mpi_prs.child.context import finding
from mpi_prs.child.context import workspace as context
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import add_json, check_name, time_stamp, update_json, write_json
from mpi_prs.core.words import near

if TYPE_CHECKING:
    from mpi_prs.azureml.compute.target import ComputeTarget
    from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset
    from mpi_prs.azureml.datastores.datastore import Datastore
    from mpi_prs.azureml.environments.environment import Environment
    from mpi_prs.azureml.experiment import Experiment
    from mpi_prs.azureml.models.model import Model

_log = logging.getLogger("mpi_prs.workspace")

_IGNORED_AT_CREATION = frozenset(
    [
        "adb_workspace",
        "app_insights",
        "cmk_keyvault",
        "container_registry",
        "create_resource_group",
        "default_cpu_compute_target",
        "default_gpu_compute_target",
        "hbi_workspace",
        "key_vault",
        "primary_user_assigned_identity",
        "private_endpoint_auto_approval",
        "private_endpoint_config",
        "resource_cmk_uri",
        "sku",
        "storage_account",
    ]
)


class Workspace(context.Workspace):
    """A workspace that exists. Objects are cheap: what they tell is read when it is asked for.

    Attributes:
        layout: every path in it.
    """

    @classmethod
    def _made(cls, found: finding.ConfigFile, logger: logging.Logger | None) -> Workspace:
        layout = found.workspace
        if layout.root.exists() and _has_others(layout):
            raise WorkspaceError(
                f"{found.file} names {layout.root}, which is no workspace, since it has no workspace.json, but is "
                "not empty either. Correct the file, or make one with Workspace.create"
            )
        subscription, group, name = found.names
        if _make(layout, name or layout.root.name, subscription or finding.SUBSCRIPTION, group or finding.GROUP):
            _say(f"made the workspace {layout.root}, which {found.file} names", logger)
        return cls.at(layout.root)

    @classmethod
    def create(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        location: str | None = None,
        tags: Mapping[str, str] | None = None,
        friendly_name: str | None = None,
        exist_ok: bool = False,
        show_output: bool = True,
        *,
        folder: str | os.PathLike[str] | None = None,
        **azure: object,
    ) -> Workspace:
        """Make a workspace.

        Args:
            name: its name.
            subscription_id: folder below HOME; default ``local``.
            resource_group: folder below that; default ``default``.
            location: only kept.
            tags, friendly_name: only kept.
            exist_ok: if it exists already, open it.
            show_output: print where it is.
            folder: the folder that it is made in, instead of one below HOME. Not one of Azure's parameters.
            auth, azure: Azure's other parameters; they mean nothing here, and are ignored.

        Raises:
            WorkspaceError: it exists already, or cannot be made.
        """
        for unknown in azure.keys() - _IGNORED_AT_CREATION:
            raise TypeError(f"Workspace.create() has no parameter {unknown!r}{near(unknown, _IGNORED_AT_CREATION)}")
        check_name(name, "a workspace")
        subscription, group = subscription_id or finding.SUBSCRIPTION, resource_group or finding.GROUP
        if folder is None:
            layout = finding.below_home(subscription, group, name)
        else:
            layout = WorkspaceFolder(given_path("folder", folder))
        more = {key: value for key, value in (("tags", tags), ("friendly_name", friendly_name)) if value}
        if _make(layout, name, subscription, group, location or "", **more):
            if show_output:
                _say(f"made the workspace {name!r} in {layout.root}", None)
        elif not exist_ok:
            raise WorkspaceError(
                f"there is a workspace in {layout.root} already; open it with Workspace.get, give exist_ok=True, or "
                "choose another name"
            )
        return cls.at(layout.root)

    def get_details(self) -> dict[str, Any]:
        """What is known of it, under Azure's names, and its folder and settings."""
        about = self._description()
        return {
            "id": f"/subscriptions/{about['subscription_id']}/resourceGroups/{about['resource_group']}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{about['name']}",
            "name": about["name"],
            "location": about["location"],
            "type": "Microsoft.MachineLearningServices/workspaces",
            "tags": about.get("tags", {}),
            "workspaceid": about["id"],
            "description": "",
            "friendlyName": about.get("friendly_name", about["name"]),
            "creationTime": about["created"],
            "folder": str(self.folder),
            "settings": self.settings,
        }

    def write_config(self, path: str | os.PathLike[str] | None = None, file_name: str | None = None) -> None:
        """Write ``.azureml/config.json`` for :meth:`from_config`.

        Args:
            path: the folder that gets ``.azureml``; default: the working directory.
            file_name: instead of ``config.json``.

        Raises:
            WorkspaceError: it cannot be written.
        """
        base = given_path("path", path or ".")
        about = self._description()
        names = (str(about["subscription_id"]), str(about["resource_group"]), str(about["name"]))
        _write_config(base, file_name, self.folder, names, is_below_home=self.folder == finding.below_home(*names).root)

    # What is in it

    @property
    def compute_targets(self) -> Mapping[str, ComputeTarget]:
        return azureml.computes_of(self)

    @property
    def datastores(self) -> Mapping[str, Datastore]:
        return azureml.datastores_of(self)

    @property
    def datasets(self) -> Mapping[str, FileDataset | TabularDataset]:
        """Name → its latest version."""
        return azureml.datasets_of(self)

    @property
    def models(self) -> Mapping[str, Model]:
        """Name → its latest version."""
        return azureml.models_of(self)

    @property
    def environments(self) -> Mapping[str, Environment]:
        """Name → its latest version."""
        return azureml.environments_of(self)

    @property
    def experiments(self) -> Mapping[str, Experiment]:
        return azureml.experiments_of(self)

    def get_run(self, run_id: str) -> Any:
        """The run of an id, whatever experiment it belongs to. Raises WorkspaceError: there is none."""
        return azureml.run_of(self, run_id)

    def get_default_datastore(self) -> Datastore:
        """The datastore for outputs that name no other: ``workspaceblobstore``, unless another one was set.

        Raises:
            WorkspaceError: it is not registered any more.
        """
        return azureml.datastore_of(self, self.default_datastore_name)

    def set_default_datastore(self, name: str) -> None:
        """Make another datastore the default.

        Raises:
            WorkspaceError: there is none of this name.
        """
        known = azureml.datastore_of(self, name).name
        self._change(lambda about: {**about, context.DEFAULT_DATASTORE: known})

    # Settings

    def update_settings(self, **changes: Any) -> None:
        """Replace settings; ``None`` takes one away. Those that are not named stay, whoever writes at the same time.

        Raises:
            WorkspaceError: there is no such setting, it does not take this value, or the file cannot be written.
        """
        self._change(
            lambda about: {**about, "settings": azureml.changed_settings(about.get("settings") or {}, changes)}
        )

    # Inside

    def _change(self, change: Any) -> None:
        try:
            update_json(self.layout.description, f"the workspace in {self.folder}", change)
        except FileNotFoundError:
            raise WorkspaceError(f"{self.folder} is no workspace any more: it has no workspace.json") from None


def _has_others(layout: WorkspaceFolder) -> bool:
    """Whether a folder without a workspace has something that is not of one that is being made, by whomever."""
    ours = {store.relative_to(layout.root).parts[0] for store in (layout.blob_store, layout.file_store)}
    try:
        names = os.listdir(layout.root)
    except OSError as error:
        raise WorkspaceError(f"{layout.root} cannot be listed: {error.strerror}") from error
    others = [name for name in names if name not in ours and not (name.startswith(".") and name.endswith(".part"))]
    return bool(others) and not layout.is_workspace


def _say(text: str, logger: logging.Logger | None) -> None:
    if logger is not None:
        logger.info(text)
        return
    _log.info(text)
    print(text)


def _make(layout: WorkspaceFolder, name: str, subscription: str, group: str, location: str = "", **more: Any) -> bool:
    """Make a workspace unless there is one.

    Args:
        more: to be kept with it.

    Returns:
        whether it was made; of several who try at once, one makes it.

    Raises:
        WorkspaceError: it cannot be made.
    """
    if layout.is_workspace:
        return False
    about = {
        "name": name,
        "id": str(uuid.uuid4()),
        "subscription_id": subscription,
        "resource_group": group,
        "location": location,
        "created": time_stamp(),
        **more,
        "settings": {},
    }
    try:
        for store in (layout.blob_store, layout.file_store):
            store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"cannot make the workspace {layout.root}: {error.strerror}") from error
    return add_json(layout.description, about)  # last: whoever sees it sees a workspace


def _write_config(
    base: Path, file_name: str | None, workspace: Path, names: tuple[str, str, str], *, is_below_home: bool
) -> None:
    """Write ``.azureml/config.json`` in ``base``; for a workspace below HOME it is one that Azure reads as well.

    Raises:
        WorkspaceError: it cannot be written.
    """
    folder = base / ".azureml"
    data = {finding.AZURE_NAMES[0]: names[0], finding.AZURE_NAMES[1]: names[1], finding.AZURE_NAMES[2]: names[2]}
    if not is_below_home:
        # What is moved together stays together; else the whole path.
        inside = base in workspace.parents
        data = {finding.FOLDER: os.path.relpath(workspace, folder) if inside else str(workspace)}
    write_json(folder / (file_name or "config.json"), data)

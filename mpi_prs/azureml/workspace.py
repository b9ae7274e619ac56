"""``Workspace``: a folder in which compute targets, datastores, datasets, models, environments and runs are kept.

::

    Workspace.from_config()  config.json here or in a folder above, ours or Azure's own ─┐
    Workspace(…), get(…)     HOME/SUBSCRIPTION/GROUP/NAME                                ├─► a folder
    Workspace.at(folder)     as a job finds its workspace                                ─┘

A folder with a ``workspace.json`` is a workspace; what HOME is stands in ``home.py``. Standard library only at the top:
user processes import this.
"""

# ruff: noqa: ARG002, ARG003, ARG004  # parameters of Azure's that mean nothing here

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mpi_prs.azureml.store import config_file, home, settings
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.script_context import script_context
from mpi_prs.child.context.workspace_paths import BLOB_STORE, WorkspaceFolder
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import check_name, names_of, read_json, update_json
from mpi_prs.core.words import near

if TYPE_CHECKING:
    from mpi_prs.azureml.compute.target import ComputeTarget
    from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset
    from mpi_prs.azureml.datastores.datastore import Datastore
    from mpi_prs.azureml.environments.environment import Environment
    from mpi_prs.azureml.experiment import Experiment
    from mpi_prs.azureml.models.model import Model

_log = logging.getLogger("mpi_prs.workspace")

_DEFAULT_DATASTORE = "default_datastore"
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


class Workspace(Surface):
    """A workspace that exists. Objects are cheap: what they tell is read when it is asked for.

    Attributes:
        layout: every path in it.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "delete": "remove its folder, ws.folder, by hand: it has all models, runs and outputs",
        "get_mlflow_tracking_uri": "metrics are kept in the runs' folders: Run.get_metrics()",
        "webservices": "nothing is deployed here: run pipelines, or mpi-prs run",
        "images": "nothing is deployed here: run pipelines, or mpi-prs run",
        "linked_services": "there is no Azure behind this workspace",
        "private_endpoints": "there is no Azure behind this workspace",
        "sync_keys": "there are no keys of a service: its data are the files in ws.folder",
        "get_default_keyvault": "secrets of datastores are files in ws.layout.secrets; put others into the environment",
        "set_connection": "there is no Azure behind this workspace",
        "diagnose_workspace": "use: mpi-prs doctor",
        "setup": "use Workspace.create",
    }

    def __init__(
        self,
        subscription_id: str,
        resource_group: str,
        workspace_name: str,
        auth: object = None,
        _location: object = None,
        _disable_service_check: object = False,
        _workspace_id: object = None,
        sku: object = "basic",
        tags: object = None,
        _cloud: object = "AzureCloud",
    ) -> None:
        """Open the workspace HOME/SUBSCRIPTION/GROUP/NAME.

        Everything from ``auth`` on is Azure's business, and is ignored.

        Raises:
            WorkspaceError: there is none.
        """
        self.layout = home.layout_of(subscription_id, resource_group, workspace_name)
        if not self.layout.is_workspace:
            known = names_of(self.layout.root.parent)
            raise WorkspaceError(
                f"there is no workspace {workspace_name!r} in {self.layout.root.parent}{near(workspace_name, known)} "
                "(Workspace.create makes one)"
            )

    @classmethod
    def at(cls, folder: str | os.PathLike[str]) -> Workspace:
        """The workspace in a folder. Not one of Azure's names.

        Raises:
            WorkspaceError: there is none.
        """
        layout = WorkspaceFolder(given_path("folder", folder))
        if not layout.is_workspace:
            raise WorkspaceError(
                f"there is no workspace in {layout.root}, which has no workspace.json; Workspace.create(NAME, "
                "folder=…) makes one"
            )
        found = cls.__new__(cls)
        found.layout = layout
        return found

    @classmethod
    def from_config(
        cls,
        path: str | os.PathLike[str] | None = None,
        auth: object = None,
        _logger: logging.Logger | None = None,
        _file_name: str | None = None,
    ) -> Workspace:
        """The workspace that a ``config.json`` names, ours or Azure's own.

        It is looked for in the folder and in all above it: ``config.json``, ``.azureml/config.json``,
        ``aml_config/config.json``. Ours is ``{"workspace_folder": PATH}``, relative to the file. One of Azure's names
        HOME/SUBSCRIPTION/GROUP/NAME. A workspace that is not there yet is made, and a note says so. In an entry script
        without such a file it is the workspace that the job was submitted from.

        Args:
            path: a file, or the folder to start from; default: the working directory.
            auth: ignored: the files' permissions are all the authentication that there is.
            _logger: gets the note; default: the logger ``mpi_prs.workspace``, and it is printed.
            _file_name: the name of the file, instead of ``config.json``.

        Raises:
            WorkspaceError: there is no such file, or it is broken (names file and line), or names what is no workspace.
        """
        found = config_file.find(path, _file_name)
        if found is None:
            context = script_context()
            if context is not None and path is None:
                return cls.at(context.workspace)
            raise config_file.none_found(path, _file_name)
        layout = WorkspaceFolder(found.folder) if found.folder else home.layout_of(*found.names)
        if not layout.is_workspace:
            if layout.root.exists() and not _is_empty(layout.root):
                raise WorkspaceError(
                    f"{found.file} names {layout.root}, which is no workspace, since it has no workspace.json, but is "
                    "not empty either. Correct the file, or make one with Workspace.create"
                )
            subscription, group, name = found.names
            home.make(layout, name or layout.root.name, subscription or home.SUBSCRIPTION, group or home.GROUP)
            _say(f"made the workspace {layout.root}, which {found.file} names", _logger)
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
        subscription, group = subscription_id or home.SUBSCRIPTION, resource_group or home.GROUP
        if folder is None:
            layout = home.layout_of(subscription, group, name)
        else:
            layout = WorkspaceFolder(given_path("folder", folder))
        more = {key: value for key, value in (("tags", tags), ("friendly_name", friendly_name)) if value}
        if home.make(layout, name, subscription, group, location or "", **more):
            if show_output:
                _say(f"made the workspace {name!r} in {layout.root}", None)
        elif not exist_ok:
            raise WorkspaceError(
                f"there is a workspace in {layout.root} already; open it with Workspace.get, give exist_ok=True, or "
                "choose another name"
            )
        return cls.at(layout.root)

    @classmethod
    def get(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        location: object = None,
        cloud: object = "AzureCloud",
        id: object = None,
    ) -> Workspace:
        """The workspace of this name below HOME, in any subscription and group unless they are given.

        Everything else is ignored.

        Raises:
            WorkspaceError: there is none, or more than one.
        """
        check_name(name, "a workspace")
        known = cls.list(subscription_id, resource_group=resource_group)
        found = known.get(name, [])
        if not found:
            raise WorkspaceError(f"there is no workspace {name!r} below {home.folder()}{near(name, known)}")
        if len(found) > 1:
            places = ", ".join(str(ws.folder) for ws in found)
            raise WorkspaceError(
                f"there are {len(found)} workspaces {name!r}: {places}; give subscription_id and resource_group"
            )
        return found[0]

    @staticmethod
    def list(
        subscription_id: str | None = None, auth: object = None, resource_group: str | None = None
    ) -> dict[str, list[Workspace]]:
        """All workspaces below HOME, by name; ``auth`` is ignored."""
        found: dict[str, list[Workspace]] = {}
        for layout in home.workspaces(subscription_id, resource_group):
            found.setdefault(layout.root.name, []).append(Workspace.at(layout.root))
        return found

    # What it is

    @property
    def folder(self) -> Path:
        """The workspace's folder, absolute. Not one of Azure's names."""
        return self.layout.root

    @property
    def name(self) -> str:
        return str(self._description()["name"])

    @property
    def id(self) -> str:
        """A UUID, which it was given when it was made."""
        return str(self._description()["id"])

    @property
    def subscription_id(self) -> str:
        return str(self._description()["subscription_id"])

    @property
    def resource_group(self) -> str:
        return str(self._description()["resource_group"])

    @property
    def location(self) -> str:
        """What it was given when it was made; it means nothing here."""
        return str(self._description()["location"])

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._description().get("tags", {}))

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
        config_file.write(base, file_name, self.folder, names, is_below_home=self.folder == home.layout_of(*names).root)

    def __repr__(self) -> str:
        return (
            f"Workspace.create(name={self.name!r}, subscription_id={self.subscription_id!r}, "
            f"resource_group={self.resource_group!r}, folder={str(self.folder)!r})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workspace) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    # What is in it

    @property
    def compute_targets(self) -> Mapping[str, ComputeTarget]:
        from mpi_prs.azureml.compute.target import computes_of

        return computes_of(self)

    @property
    def datastores(self) -> Mapping[str, Datastore]:
        from mpi_prs.azureml.datastores.datastore import datastores_of

        return datastores_of(self)

    @property
    def datasets(self) -> Mapping[str, FileDataset | TabularDataset]:
        """Name → its latest version."""
        from mpi_prs.azureml.datasets.dataset import datasets_of

        return datasets_of(self)

    @property
    def models(self) -> Mapping[str, Model]:
        """Name → its latest version."""
        from mpi_prs.azureml.models.model import models_of

        return models_of(self)

    @property
    def environments(self) -> Mapping[str, Environment]:
        """Name → its latest version."""
        from mpi_prs.azureml.environments.environment import environments_of

        return environments_of(self)

    @property
    def experiments(self) -> Mapping[str, Experiment]:
        from mpi_prs.azureml.experiment import experiments_of

        return experiments_of(self)

    def get_run(self, run_id: str) -> Any:
        """The run of an id, whatever experiment it belongs to. Raises WorkspaceError: there is none."""
        from mpi_prs.azureml.runs.run_base import Run

        return Run.get(self, run_id)

    def get_default_datastore(self) -> Datastore:
        """The datastore for outputs that name no other: ``workspaceblobstore``, unless another one was set.

        Raises:
            WorkspaceError: it is not registered any more.
        """
        from mpi_prs.azureml.datastores.datastore import Datastore

        return Datastore.get(self, self.default_datastore_name)

    @property
    def default_datastore_name(self) -> str:
        """The name of the default datastore. Not one of Azure's names."""
        return str(self._description().get(_DEFAULT_DATASTORE, BLOB_STORE))

    def set_default_datastore(self, name: str) -> None:
        """Make another datastore the default.

        Raises:
            WorkspaceError: there is none of this name.
        """
        from mpi_prs.azureml.datastores.datastore import Datastore

        known = Datastore.get(self, name).name
        self._change(lambda about: {**about, _DEFAULT_DATASTORE: known})

    # Settings

    @property
    def settings(self) -> dict[str, Any]:
        """How this workspace uses the cluster, a copy: ``backend``, ``vm_sizes``, ``slurm``, ``storage_endpoints``,
        and where they were set ``environment_policy``, ``apptainer``, ``conda``. Not one of Azure's names.

        Raises:
            WorkspaceError: the file is broken.
        """
        found = self._description().get("settings", {})
        if not isinstance(found, dict):
            raise WorkspaceError(f"{self.layout.description}: settings: expected an object {{…}}, got {found!r}")
        return settings.with_defaults(found)

    def update_settings(self, **changes: Any) -> None:
        """Replace settings; ``None`` takes one away. Those that are not named stay, whoever writes at the same time.

        Raises:
            WorkspaceError: there is no such setting, it does not take this value, or the file cannot be written.
        """
        self._change(lambda about: {**about, "settings": settings.changed(about.get("settings") or {}, changes)})

    # Inside

    def _description(self) -> dict[str, Any]:
        what = f"the workspace in {self.folder}"
        try:
            about = read_json(self.layout.description, what)
        except FileNotFoundError:
            raise WorkspaceError(f"{what} is gone: there is no {self.layout.description}") from None
        return home.completed(about, self.folder)

    def _change(self, change: Any) -> None:
        try:
            update_json(self.layout.description, f"the workspace in {self.folder}", change)
        except FileNotFoundError:
            raise WorkspaceError(f"{self.folder} is no workspace any more: it has no workspace.json") from None


def _is_empty(folder: Path) -> bool:
    try:
        return not os.listdir(folder)
    except OSError as error:
        raise WorkspaceError(f"{folder} cannot be listed: {error.strerror}") from error


def _say(text: str, logger: logging.Logger | None) -> None:
    if logger is not None:
        logger.info(text)
        return
    _log.info(text)
    print(text)

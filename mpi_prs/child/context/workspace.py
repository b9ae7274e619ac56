"""What entry scripts have of ``Workspace``: which one it is, and what is registered in it."""

# ruff: noqa: ARG002, ARG003, ARG004  # parameters of Azure's that mean nothing here

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from mpi_prs.child.context import finding
from mpi_prs.child.context.data import Datastore, datasets_of, datastores_of, environments_of
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.model import models_of
from mpi_prs.child.context.script_context import script_context
from mpi_prs.child.context.slice import at_hand, whole
from mpi_prs.child.context.workspace_paths import BLOB_STORE, AnyWorkspace, WorkspaceFolder
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import check_name, names_of, read_json
from mpi_prs.core.words import near

DEFAULT_DATASTORE = "default_datastore"

W = TypeVar("W", bound="Workspace")


class Workspace(AnyWorkspace):
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
        self.layout = finding.below_home(subscription_id, resource_group, workspace_name)
        if not self.layout.is_workspace:
            known = names_of(self.layout.root.parent)
            raise WorkspaceError(
                f"there is no workspace {workspace_name!r} in {self.layout.root.parent}{near(workspace_name, known)} "
                "(Workspace.create makes one)"
            )

    @classmethod
    def at(cls: type[W], folder: str | os.PathLike[str]) -> W:
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
        cls: type[W],
        path: str | os.PathLike[str] | None = None,
        auth: object = None,
        _logger: logging.Logger | None = None,
        _file_name: str | None = None,
    ) -> W:
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
        found = finding.find_config(path, _file_name)
        if found is None:
            context = script_context()
            if context is not None and path is None:
                return cls.at(context.workspace)
            raise finding.none_found(path, _file_name)
        if found.workspace.is_workspace:
            return cls.at(found.workspace.root)
        made: W = cls._made(found, _logger)
        return made

    @classmethod
    def _made(cls, found: finding.ConfigFile, logger: logging.Logger | None) -> Any:
        """Make the workspace that a file names."""
        return whole("Workspace", "making a workspace")._made(found, logger)

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
    ) -> Any:
        """The workspace of this name below HOME, in any subscription and group unless they are given.

        Everything else is ignored.

        Raises:
            WorkspaceError: there is none, or more than one.
        """
        check_name(name, "a workspace")
        known = cls.list(subscription_id, resource_group=resource_group)
        found = known.get(name, [])
        if not found:
            raise WorkspaceError(f"there is no workspace {name!r} below {finding.home()}{near(name, known)}")
        if len(found) > 1:
            places = ", ".join(str(ws.folder) for ws in found)
            raise WorkspaceError(
                f"there are {len(found)} workspaces {name!r}: {places}; give subscription_id and resource_group"
            )
        return found[0]

    @staticmethod
    def list(
        subscription_id: str | None = None, auth: object = None, resource_group: str | None = None
    ) -> dict[str, list[Any]]:
        """All workspaces below HOME, by name; ``auth`` is ignored."""
        found: dict[str, list[Any]] = {}
        for layout in finding.workspaces_below_home(subscription_id, resource_group):
            found.setdefault(layout.root.name, []).append(at_hand(Workspace).at(layout.root))
        return found

    # What it is

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

    def __repr__(self) -> str:
        return (
            f"Workspace.create(name={self.name!r}, subscription_id={self.subscription_id!r}, "
            f"resource_group={self.resource_group!r}, folder={str(self.folder)!r})"
        )

    # What is in it

    @property
    def datastores(self) -> Mapping[str, Any]:
        return datastores_of(self)

    @property
    def datasets(self) -> Mapping[str, Any]:
        """Name → its latest version."""
        return datasets_of(self)

    @property
    def models(self) -> Mapping[str, Any]:
        """Name → its latest version."""
        return models_of(self)

    @property
    def environments(self) -> Mapping[str, Any]:
        """Name → its latest version."""
        return environments_of(self)

    def get_default_datastore(self) -> Any:
        """The datastore for outputs that name no other: ``workspaceblobstore``, unless another one was set.

        Raises:
            WorkspaceError: it is not registered any more.
        """
        return at_hand(Datastore).get(self, self.default_datastore_name)

    @property
    def default_datastore_name(self) -> str:
        """The name of the default datastore. Not one of Azure's names."""
        return str(self._description().get(DEFAULT_DATASTORE, BLOB_STORE))

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
        return with_defaults(found)

    # Inside

    def _description(self) -> dict[str, Any]:
        what = f"the workspace in {self.folder}"
        try:
            about = read_json(self.layout.description, what)
        except FileNotFoundError:
            raise WorkspaceError(f"{what} is gone: there is no {self.layout.description}") from None
        return finding.completed(about, self.folder)


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings that have a default, and those that were made. Environment policy and programs have none here."""
    return {"backend": "auto", "vm_sizes": {}, "slurm": {}, "storage_endpoints": {}, **settings}

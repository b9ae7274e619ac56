"""Datastores: the places where data lies, under names. A blob container, or a folder that all nodes see.

::

    Datastore ─┬─ AzureBlobDatastore    abfs://container/…, with the account's key, a SAS token, or nothing
               ├─ AzureFileDatastore    a file share, where it is mounted
               └─ FolderDatastore       any folder; workspaceblobstore and workspacefilestore are two

What is known of them lies in ``datastores/NAME.json``, their secrets beside it where only their owner can read them
(see ``records.py``).
"""

# ruff: noqa: ARG004  # parameters of Azure's that mean nothing here

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mpi_prs.azureml.datastores import registration
from mpi_prs.azureml.datastores.records import (
    account_url,
    mount_point,
    remove_record,
    storage_values,
)
from mpi_prs.azureml.datastores.transfer import download, files_of_folder, named_files, upload
from mpi_prs.child.context import data as context
from mpi_prs.child.context.data import DatastoreRecord
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.child.context.workspace_paths import BLOB_STORE, FILE_STORE, layout_of
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError

_NO_DATABASES = "mpi_prs reads files: export the tables as Parquet or CSV, and register their folder or container"


@dataclass(frozen=True)
class DataPath(Surface):
    """A file, a folder or a glob in a datastore: ``datastore.path("mnist/")``.

    Attributes:
        datastore: where it is.
        path_on_datastore: relative to the datastore's root; empty: all of it.
        name: for people.
    """

    datastore: Datastore
    path_on_datastore: str = ""
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.datastore, Datastore):
            raise WorkspaceError(
                f"the datastore of a DataPath is a Datastore, such as Datastore.get(ws, NAME), but got "
                f"{self.datastore!r} of type {type(self.datastore).__name__}"
            )
        object.__setattr__(self, "path_on_datastore", checked_path(self.path_on_datastore or ""))

    @property
    def datastore_name(self) -> str:
        return self.datastore.name

    @property
    def data_reference_name(self) -> str | None:
        """``name``, as a DataReference of Azure's calls it."""
        return self.name

    @property
    def url(self) -> str:
        """Its absolute path, or its URL. Not one of Azure's names."""
        return self.datastore.url(self.path_on_datastore)

    def path(self, path: str) -> DataPath:
        """A place below this one."""
        above = self.path_on_datastore.rstrip("/")
        return DataPath(self.datastore, f"{above}/{checked_path(path)}", self.name)

    def __repr__(self) -> str:
        return f"DataPath(datastore={self.datastore.name!r}, path_on_datastore={self.path_on_datastore!r})"


@dataclass(frozen=True, repr=False)
class UploadedPath(DataPath):
    """Where something was uploaded to.

    Attributes:
        uploaded: number of files that were stored.
        skipped: number of files that were there already, and were left as they are.
    """

    uploaded: int = 0
    skipped: int = 0


def checked_path(path: Any) -> str:
    """A path in a datastore, without slashes at its head; a slash at its end stays.

    Raises:
        WorkspaceError: it is no text, or leads out of the datastore.
    """
    if not isinstance(path, str):
        raise WorkspaceError(f"a path in a datastore is text such as 'mnist/', but got {path!r}")
    if "\0" in path or "\n" in path:
        raise WorkspaceError(f"a path in a datastore has no line break or NUL in it, but got {path!r}")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names:
        raise WorkspaceError(f"a path in a datastore does not lead upwards, but got {path!r}")
    return "/".join(names) + ("/" if names and path.endswith("/") else "")


class Datastore(context.Datastore):
    """A registered datastore; make one with the ``register_…`` methods. ``Datastore(ws, name)`` is :meth:`get`.

    The methods that both kinds have are here. What a datastore is does not change while the object lives.

    Attributes:
        workspace: that it is registered in.
        name: its name there.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "register_azure_data_lake": "use register_azure_data_lake_gen2 (Data Lake Storage Gen1 exists no more)",
        "register_azure_sql_database": _NO_DATABASES,
        "register_azure_postgre_sql": _NO_DATABASES,
        "register_azure_my_sql": _NO_DATABASES,
        "register_dbfs": "mount it, and use register_folder",
        "register_hdfs": "mount it, and use register_folder; or give Dataset.File.from_files a URL such as hdfs://…",
        "as_mount": "make a dataset: Dataset.File.from_files(datastore.path(…)).as_mount()",
        "as_download": "make a dataset: Dataset.File.from_files(datastore.path(…)).as_download()",
        "as_upload": "use PipelineData or OutputFileDatasetConfig for the output of a step",
        "account_key": "secrets stay in their files, see docs/azureml.md",
        "sas_token": "secrets stay in their files, see docs/azureml.md",
    }

    workspace: Workspace

    def unregister(self) -> None:
        """Forget the datastore and its secret; its data stay where they are.

        Raises:
            WorkspaceError: it is one of the two that every workspace has, or cannot be removed.
        """
        if not remove_record(self.workspace.layout, self.name) and self.name in (BLOB_STORE, FILE_STORE):
            raise WorkspaceError(f"every workspace has the datastore {self.name!r}: it cannot be unregistered")

    def set_as_default(self) -> None:
        """Make it the datastore for outputs that name no other."""
        self.workspace.set_default_datastore(self.name)

    # Registration

    @staticmethod
    def register_azure_blob_container(
        workspace: Workspace,
        datastore_name: str,
        container_name: str,
        account_name: str | None = None,
        sas_token: str | None = None,
        account_key: str | None = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        overwrite: bool = False,
        create_if_not_exists: bool = False,
        skip_validation: bool = False,
        blob_cache_timeout: object = None,
        grant_workspace_access: object = False,
        subscription_id: object = None,
        resource_group: object = None,
        *,
        connection_string: str | None = None,
        credentials_from_environment: bool = False,
    ) -> AzureBlobDatastore:
        """Register a container of Azure's blob storage, or of anything that speaks like it.

        Without credentials it is a public container. A key or token is kept in a file of the workspace that only its
        owner can read.

        Args:
            workspace: where.
            datastore_name: the name to get it by.
            container_name: the container.
            account_name: the storage account.
            sas_token, account_key: its credentials, one of them.
            protocol: default ``https``.
            endpoint: a suffix such as ``core.windows.net`` (the default), or the whole URL of the account, such as
                ``http://127.0.0.1:10000/name``. Where neither is given, the workspace's setting ``storage_endpoints``
                counts, each time that the datastore is used.
            overwrite: in place of the datastore of this name, if there is one.
            create_if_not_exists: make the container where there is none; takes an account key.
            skip_validation: do not try whether the container can be listed.
            connection_string: instead of account, endpoint and credentials. Not one of Azure's parameters.
            credentials_from_environment: take them from ``AZURE_STORAGE_…`` each time that the datastore is used, or
                else ask Azure for an identity (``az login``, ``AZURE_CLIENT_ID``, …); nothing is kept. Not one of
                Azure's parameters.
            blob_cache_timeout, grant_workspace_access, subscription_id, resource_group: mean nothing here.

        Raises:
            WorkspaceError: the name is taken, a value does not fit, or the container cannot be listed or made; no
                secret is in the text.
        """
        layout = layout_of(workspace)
        record, secret = registration.blob_record(
            container_name,
            account_name,
            sas_token=sas_token,
            account_key=account_key,
            protocol=protocol,
            endpoint=endpoint,
            connection_string=connection_string,
            from_environment=credentials_from_environment,
        )
        registration.check_is_free(layout, datastore_name, overwrite)
        if create_if_not_exists or not skip_validation:
            endpoints = workspace.settings["storage_endpoints"]
            values = storage_values(layout, datastore_name, record, endpoints)
            registration.try_out(datastore_name, record, secret, values, create_if_not_exists)
        registration.register(layout, datastore_name, record, secret, overwrite)
        return AzureBlobDatastore(workspace, datastore_name)

    @staticmethod
    def register_azure_file_share(
        workspace: Workspace,
        datastore_name: str,
        file_share_name: str,
        account_name: str,
        sas_token: object = None,
        account_key: object = None,
        protocol: object = None,
        endpoint: object = None,
        overwrite: bool = False,
        create_if_not_exists: bool = False,
        skip_validation: bool = False,
        *,
        folder: str | os.PathLike[str] | None = None,
    ) -> AzureFileDatastore:
        """Register an Azure file share, which here is the folder that it is mounted at on all nodes.

        Args:
            workspace, datastore_name, overwrite: see :meth:`register_azure_blob_container`.
            file_share_name, account_name: the share, and its account.
            create_if_not_exists: make the folder where there is none.
            skip_validation: do not look whether the folder is there.
            folder: where it is mounted. Default: the folder of the share's name below the one that the workspace's
                setting ``storage_endpoints`` has for the account, such as ``file:///mnt/ACCOUNT``. Not one of Azure's
                parameters.
            sas_token, account_key, protocol, endpoint: mean nothing here: whoever mounts the share needs them.

        Raises:
            WorkspaceError: the name is taken, or nothing says where the share is mounted, or there is no such folder.
        """
        layout = layout_of(workspace)
        path = None if folder is None else registration.folder_path(folder)
        record = DatastoreRecord(
            "file_share",
            folder=path,
            container=registration.text("file_share_name", file_share_name),
            account_name=registration.text("account_name", account_name),
        )
        place = mount_point(record, workspace.settings["storage_endpoints"])
        registration.check_is_free(layout, datastore_name, overwrite)
        registration.check_folder(place, create_if_not_exists, skip_validation)
        registration.register(layout, datastore_name, record, None, overwrite)
        return AzureFileDatastore(workspace, datastore_name)

    @staticmethod
    def register_folder(
        workspace: Workspace,
        datastore_name: str,
        folder: str | os.PathLike[str],
        overwrite: bool = False,
        create_if_not_exists: bool = False,
        skip_validation: bool = False,
    ) -> FolderDatastore:
        """Register a folder that all nodes see, such as one on NFS. Not one of Azure's methods.

        Raises:
            WorkspaceError: the name is taken, or there is no such folder.
        """
        layout = layout_of(workspace)
        path = registration.folder_path(folder)
        registration.check_is_free(layout, datastore_name, overwrite)
        registration.check_folder(Path(path), create_if_not_exists, skip_validation)
        record = DatastoreRecord("folder", folder=path)
        registration.register(layout, datastore_name, record, None, overwrite)
        return FolderDatastore(workspace, datastore_name)

    @staticmethod
    def register_azure_data_lake_gen2(
        workspace: Workspace,
        datastore_name: str,
        filesystem: str,
        account_name: str,
        tenant_id: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        resource_url: object = None,
        authority_url: object = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        overwrite: bool = False,
        subscription_id: object = None,
        resource_group: object = None,
        grant_workspace_access: object = False,
        *,
        skip_validation: bool = False,
    ) -> AzureBlobDatastore:
        """Register a filesystem of Data Lake Storage Gen2: a container, reached with the environment's credentials.

        A service principal belongs into the environment too: ``AZURE_TENANT_ID``, ``AZURE_CLIENT_ID`` and
        ``AZURE_CLIENT_SECRET``. The other parameters are those of :meth:`register_azure_blob_container`.

        Raises:
            WorkspaceError: see there; or a service principal is given.
        """
        if tenant_id or client_id or client_secret:
            raise WorkspaceError(
                f"the datastore {datastore_name!r}: mpi_prs keeps no service principal. Leave out tenant_id, client_id "
                "and client_secret, and put them into the environment of your jobs: AZURE_TENANT_ID, AZURE_CLIENT_ID "
                "and AZURE_CLIENT_SECRET"
            )
        return Datastore.register_azure_blob_container(
            workspace,
            datastore_name,
            filesystem,
            account_name,
            protocol=protocol,
            endpoint=endpoint,
            overwrite=overwrite,
            skip_validation=skip_validation,
            credentials_from_environment=True,
        )

    # What it is

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder that all nodes see. Not one of Azure's names."""
        return self.folder is not None

    @property
    def folder(self) -> Path | None:
        """The folder that it is; ``None``: it is reached by URL. Not one of Azure's names."""
        raise NotImplementedError

    def url(self, path: str = "") -> str:
        """The absolute path, or the URL, of something in it. Not one of Azure's names."""
        raise NotImplementedError

    def storage_section(self) -> dict[str, Any]:
        """How to get at it: a job config's ``storage``. It names files of secrets and holds none; of folders: empty."""
        return {}

    def path(self, path: str | None = None, data_reference_name: str | None = None) -> DataPath:
        """A file, folder or glob in it, for :meth:`Dataset.File.from_files` and the like."""
        return DataPath(self, path or "", data_reference_name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, url={self.url()!r})"

    # Transfer

    def upload(
        self,
        src_dir: str | os.PathLike[str],
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> UploadedPath:
        """Upload all files below a folder, hidden ones too.

        Args:
            src_dir: the folder.
            target_path: the folder in the datastore that gets its content; default: the root.
            overwrite: files that are there already; otherwise they are left as they are.
            show_progress: tell how far it is.

        Returns:
            where they are, with the numbers of files that were ``uploaded`` and ``skipped``. Azure's returns a
            DataReference, which can be used in the same places.

        Raises:
            WorkspaceError: there is no such folder, nothing is in it, or a file cannot be read or written.
            OutputError: the store refuses or cannot be reached.
        """
        return self._upload(files_of_folder(src_dir), target_path, overwrite, show_progress)

    def upload_files(
        self,
        files: Sequence[str | os.PathLike[str]],
        relative_root: str | os.PathLike[str] | None = None,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> UploadedPath:
        """Upload some files.

        Args:
            files: their paths.
            relative_root: the folder whose name, and those above it, are left out of the files' names in the
                datastore; default: the deepest one that they have in common.
            target_path, overwrite, show_progress: see :meth:`upload`, as for what is returned and raised.
        """
        return self._upload(named_files(files, relative_root), target_path, overwrite, show_progress)

    def _upload(
        self, files: Sequence[tuple[Path, str]], target_path: str | None, overwrite: bool, show_progress: bool
    ) -> UploadedPath:
        target = checked_path(target_path or "")
        moved = upload(self, files, target, overwrite, show_progress)
        return UploadedPath(self, target, uploaded=moved.done, skipped=moved.skipped)

    def download(
        self,
        target_path: str | os.PathLike[str],
        prefix: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> int:
        """Download files; each is there complete or not at all, and the same call goes on where it was interrupted.

        Args:
            target_path: the folder that gets them, under their whole names in the datastore.
            prefix: the folder or file in the datastore; default: everything. Run directories of jobs (``_run``) are
                left out.
            overwrite: files that are here already; otherwise they are left as they are.
            show_progress: tell how far it is.

        Returns:
            how many files were downloaded.

        Raises:
            WorkspaceError: there is nothing at the prefix, or a file cannot be read or written.
            InputError: the store refuses or cannot be reached, or the disk cannot be written.
        """
        return download(
            self, given_path("target_path", target_path), checked_path(prefix or ""), overwrite, show_progress
        ).done


class AzureBlobDatastore(context.AzureBlobDatastore, Datastore):
    """A container of Azure's blob storage, or of anything that speaks like it."""

    @property
    def protocol(self) -> str:
        """``https``, unless another one was given."""
        return self._record.protocol or "https"

    @property
    def endpoint(self) -> str:
        """The account's address where one was given, by the workspace's setting too; else ``core.windows.net``."""
        return account_url(self._record, _endpoints(self)) or "core.windows.net"

    @property
    def credential_type(self) -> str:
        """``AccountKey``, ``Sas``, ``None`` of a public container, or ``Environment``."""
        names = {"account_key": "AccountKey", "sas_token": "Sas", "environment": "Environment"}
        return names.get(self._record.credentials, "None")

    @property
    def folder(self) -> None:
        return None

    def url(self, path: str = "") -> str:
        return f"abfs://{self.container_name}/{checked_path(path)}"

    def storage_section(self) -> dict[str, Any]:
        return storage_values(self.workspace.layout, self.name, self._record, _endpoints(self))


class FolderDatastore(context.FolderDatastore, Datastore):
    """A folder that all nodes see."""

    def url(self, path: str = "") -> str:
        return str(self.folder / checked_path(path))


class AzureFileDatastore(context.AzureFileDatastore, FolderDatastore):
    """An Azure file share: the folder that it is mounted at."""

    @property
    def folder(self) -> Path:
        return mount_point(self._record, _endpoints(self))


def datastores_of(workspace: Workspace) -> Mapping[str, Datastore]:
    """Name → datastore, of all in a workspace; read when they are asked for."""
    return context.datastores_of(workspace)


def _endpoints(datastore: Datastore) -> Mapping[str, str]:
    found: Mapping[str, str] = datastore.workspace.settings["storage_endpoints"]
    return found

"""The ``register_…`` methods of ``Datastore``."""

# ruff: noqa: ARG004  # parameters of Azure's that mean nothing here

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mpi_prs.azureml.datastores import registration
from mpi_prs.azureml.datastores.records import mount_point, storage_values
from mpi_prs.child.context.data import DatastoreRecord
from mpi_prs.child.context.workspace_paths import layout_of
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError

if TYPE_CHECKING:
    from mpi_prs.azureml.datastores.datastore import AzureBlobDatastore, AzureFileDatastore, FolderDatastore
    from mpi_prs.child.context.workspace import Workspace


class DatastoreRegistrar(Surface):
    """Registers datastores; users have it as ``Datastore``."""

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
        from mpi_prs.azureml.datastores.datastore import AzureBlobDatastore

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
        from mpi_prs.azureml.datastores.datastore import AzureFileDatastore

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
        from mpi_prs.azureml.datastores.datastore import FolderDatastore

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
        return DatastoreRegistrar.register_azure_blob_container(
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

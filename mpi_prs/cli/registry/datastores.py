"""``mpi-prs datastores``: where data lies."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import click

from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.cli.registry.common import (
    json_option,
    open_workspace,
    option_names,
    show_fields,
    show_json,
    show_table,
    workspace_option,
)
from mpi_prs.core.errors import WorkspaceError


@click.group()
def datastores() -> None:
    """The workspace's datastores."""


@datastores.command("list")
@json_option
@workspace_option
def list_datastores(as_json: bool, place: Path | None) -> None:
    """All datastores; * marks the default."""
    workspace = open_workspace(place)
    found = [_about_datastore(datastore) for datastore in workspace.datastores.values()]
    if as_json:
        show_json(found)
        return
    show_table(
        ["NAME", "TYPE", "PLACE", "ACCOUNT", "CREDENTIALS"],
        ((f"{one['name']}{'*' if one['default'] else ''}", *(one[key] for key in _DATASTORE_COLUMNS)) for one in found),
        "",
    )


_DATASTORE_COLUMNS = ("type", "place", "account", "credentials")


@datastores.command("show")
@click.argument("name")
@json_option
@workspace_option
def show_datastore(name: str, as_json: bool, place: Path | None) -> None:
    """One datastore, without its secrets."""
    about = _about_datastore(open_workspace(place).datastores[name])
    if as_json:
        show_json(about)
    else:
        show_fields({**about, "default": "yes" if about["default"] else None})


_SECRET = click.File("r")


@datastores.command("register")
@click.argument("name")
@click.option(
    "--folder", type=click.Path(path_type=Path), metavar="DIR", help="It is this folder, which all nodes see."
)
@click.option("--container", metavar="NAME", help="It is this blob container.")
@click.option("--account", metavar="NAME", help="The container's storage account.")
@click.option("--endpoint", metavar="URL", help="Of the account, where it is not Azure's own cloud.")
@click.option("--account-key-file", type=_SECRET, metavar="FILE", help="Its first line is the account's key; -: stdin.")
@click.option("--sas-token-file", type=_SECRET, metavar="FILE", help="Its first line is a SAS token; -: stdin.")
@click.option("--connection-string-file", type=_SECRET, metavar="FILE", help="The same of a connection string.")
@click.option("--credentials-from-environment", is_flag=True, help="AZURE_STORAGE_… or an identity; nothing is kept.")
@click.option("--create", is_flag=True, help="Make the folder or container where there is none.")
@click.option("--overwrite", is_flag=True, help="In place of the datastore of this name, if there is one.")
@click.option("--no-check", is_flag=True, help="Do not look whether it can be reached.")
@workspace_option
def register_datastore(
    name: str,
    folder: Path | None,
    container: str | None,
    account: str | None,
    endpoint: str | None,
    account_key_file: IO[str] | None,
    sas_token_file: IO[str] | None,
    connection_string_file: IO[str] | None,
    credentials_from_environment: bool,
    create: bool,
    overwrite: bool,
    no_check: bool,
    place: Path | None,
) -> None:
    """Register a folder or a blob container as the datastore NAME.

    Secrets are read from files, since others see the command line: they are kept in the workspace, where only you can
    read them. Without any, the container is a public one.
    """
    if (folder is None) == (container is None):
        raise click.UsageError("give --folder DIR or --container NAME, one of them")
    of_a_container = (account, endpoint, account_key_file, sas_token_file, connection_string_file)
    if container is None and (credentials_from_environment or any(value is not None for value in of_a_container)):
        raise click.UsageError("an account, an endpoint and credentials go with --container, not with --folder")
    workspace = open_workspace(place)
    made: Datastore
    with option_names(overwrite="--overwrite", create_if_not_exists="--create", skip_validation="--no-check"):
        if folder is not None:
            made = Datastore.register_folder(
                workspace, name, folder, overwrite, create_if_not_exists=create, skip_validation=no_check
            )
        else:
            made = Datastore.register_azure_blob_container(
                workspace,
                name,
                str(container),
                account,
                sas_token=_first_line(sas_token_file),
                account_key=_first_line(account_key_file),
                endpoint=endpoint,
                overwrite=overwrite,
                create_if_not_exists=create,
                skip_validation=no_check,
                connection_string=_first_line(connection_string_file),
                credentials_from_environment=credentials_from_environment,
            )
    show_fields(_about_datastore(made) | {"default": None})


@datastores.command("set-default")
@click.argument("name")
@workspace_option
def set_default(name: str, place: Path | None) -> None:
    """Make NAME the datastore for outputs that name no other."""
    open_workspace(place).set_default_datastore(name)


@datastores.command()
@click.argument("name")
@workspace_option
def unregister(name: str, place: Path | None) -> None:
    """Forget the datastore NAME and its secret; its data stay where they are."""
    open_workspace(place).datastores[name].unregister()


def _first_line(file: IO[str] | None) -> str | None:
    return None if file is None else file.readline().strip()


def _about_datastore(datastore: Datastore) -> dict[str, Any]:
    try:
        place = datastore.url()
    except WorkspaceError as error:  # a file share that is mounted nowhere
        place = f"? {error}"
    return {
        "name": datastore.name,
        "type": datastore.datastore_type,
        "place": place,
        "account": getattr(datastore, "account_name", None),
        "endpoint": getattr(datastore, "endpoint", None),
        "credentials": getattr(datastore, "credential_type", None),
        "default": datastore.name == datastore.workspace.default_datastore_name,
    }

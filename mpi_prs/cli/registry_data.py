"""``mpi-prs datastores`` and ``mpi-prs datasets``: where data lies, and what it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from mpi_prs.cli.registry import (
    json_option,
    open_workspace,
    option_names,
    pairs,
    show_fields,
    show_json,
    show_table,
    split_version,
    tag_options,
    workspace_option,
)

if TYPE_CHECKING:
    from mpi_prs.workspace.dataset import FileDataset, TabularDataset
    from mpi_prs.workspace.datastore import Datastore
    from mpi_prs.workspace.workspace import Workspace

# Datastores


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
    from mpi_prs.workspace.datastore import Datastore

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
    from mpi_prs.errors import WorkspaceError

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


# Datasets


@click.group()
def datasets() -> None:
    """The workspace's datasets."""


@datasets.command("list")
@json_option
@workspace_option
def list_datasets(as_json: bool, place: Path | None) -> None:
    """All datasets, each in its latest version."""
    workspace = open_workspace(place)
    found = [_about_dataset(dataset) for dataset in workspace.datasets.values()]
    if as_json:
        show_json(found)
        return
    show_table(
        ["NAME", "VERSION", "TYPE", "PLACES", "TAGS", "DESCRIPTION"],
        ([one[key] for key in ("name", "version", "type", "places", "tags", "description")] for one in found),
        f"no dataset in {workspace.folder} yet; register one: mpi-prs datasets register NAME PATH…",
    )


@datasets.command("show")
@click.argument("dataset", metavar="NAME[:VERSION]")
@json_option
@workspace_option
def show_dataset(dataset: str, as_json: bool, place: Path | None) -> None:
    """One dataset, in its latest version or that VERSION."""
    from mpi_prs.workspace.dataset import Dataset

    name, version = split_version(dataset)
    about = _about_dataset(Dataset.get_by_name(open_workspace(place), name, version or "latest"))
    if as_json:
        show_json(about)
        return
    definition = about.pop("definition")
    more = {key: value for key, value in definition.items() if key not in ("kind", "paths")}
    show_fields({**about, **more})


_FORMATS = ("files", "delimited", "parquet", "json_lines", "hdf5")


@datasets.command("register")
@click.argument("name")
@click.argument("places", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--as",
    "format",
    type=click.Choice(_FORMATS),
    default="files",
    help="What run() gets: files, or the rows of files in this format; default: files.",
)
@click.option("--partition-format", metavar="FORMAT", help="Partition keys in the paths, such as {user}/{name}.wav.")
@click.option("--separator", metavar="CHAR", help="Of delimited files; default: a comma.")
@click.option("--no-header", is_flag=True, help="Delimited files have no line of column names.")
@click.option("--description", metavar="TEXT", help="For people.")
@tag_options("tag")
@click.option("--new-version", is_flag=True, help="As the next version, if there is a dataset of this name.")
@click.option("--no-check", is_flag=True, help="Do not look whether there is a file.")
@json_option
@workspace_option
def register_dataset(
    name: str,
    places: tuple[str, ...],
    format: str,
    partition_format: str | None,
    separator: str | None,
    no_header: bool,
    description: str | None,
    tag_texts: tuple[str, ...],
    new_version: bool,
    no_check: bool,
    as_json: bool,
    place: Path | None,
) -> None:
    """Register files as the dataset NAME: they stay where they are.

    A PATH is a file, a folder or a glob of this machine, a URL, or DATASTORE:PATH.
    """
    from mpi_prs.workspace.dataset import Dataset

    if format != "delimited" and (separator is not None or no_header):
        raise click.UsageError("--separator and --no-header go with --as delimited")
    workspace = open_workspace(place)
    options: dict[str, Any] = {"validate": not no_check, "partition_format": partition_format}
    if format == "delimited":
        options |= {"header": not no_header}
        options |= {} if separator is None else {"separator": separator.replace("\\t", "\t")}
    make = Dataset.File.from_files if format == "files" else getattr(Dataset.Tabular, f"from_{format}_files")
    tags = pairs("--tag", tag_texts)
    made = make([_place(workspace, text) for text in places], **options)
    with option_names(create_new_version="--new-version"):
        about = _about_dataset(made.register(workspace, name, description, tags, new_version))
    if as_json:
        show_json(about)
    else:
        show_fields({key: value for key, value in about.items() if key != "definition"})


def _place(workspace: Workspace, text: str) -> Any:
    """What a dataset is made of; a file of this machine comes before a datastore of such a name."""
    from mpi_prs.workspace.datastore import Datastore

    named = re.fullmatch(r"([^/:]+):(?!//)(.*)", text, re.DOTALL)
    if named is None or Path(text).exists():
        return text
    return Datastore.get(workspace, named[1]).path(named[2])


def _about_dataset(dataset: FileDataset | TabularDataset) -> dict[str, Any]:
    definition = dataset.definition()
    return {
        "name": dataset.name,
        "version": dataset.version,
        "type": definition.get("format", "files"),
        "places": [str(source) for source in dataset.sources],
        "tags": dataset.tags,
        "description": dataset.description,
        "id": dataset.id,
        "definition": definition,
    }

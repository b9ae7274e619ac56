"""``mpi-prs datasets``: what data is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.cli.registry.common import (
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

"""``mpi-prs models``: the registered models."""

from __future__ import annotations

from pathlib import Path

import click

from mpi_prs.azureml.models.model import Model
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
    when,
    workspace_option,
)
from mpi_prs.core.units import many, size


@click.group()
def models() -> None:
    """The workspace's models."""


@models.command("list")
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="All versions, not only the latest of each.")
@click.option("--tag", "tags", multiple=True, metavar="KEY[=VALUE]", help="Only those that have this tag.")
@json_option
@workspace_option
def list_models(name: str | None, every: bool, tags: tuple[str, ...], as_json: bool, place: Path | None) -> None:
    """All models, or all versions of the model NAME."""
    workspace = open_workspace(place)
    wanted = [text if not equals else [key, value] for text in tags for key, equals, value in [text.partition("=")]]
    found = Model.list(workspace, name, tags=wanted, latest=not every and name is None)
    if as_json:
        show_json([model.serialize() for model in found])
        return
    show_table(
        ["NAME", "VERSION", "REGISTERED", "FILES", "SIZE", "TAGS", "DESCRIPTION"],
        (
            (m.name, m.version, when(m.created_time), m.files, size(m.size), m.tags, m.description.partition("\n")[0])
            for m in found
        ),
        f"no model in {workspace.folder}"
        + (" is like that" if name or tags else " yet; register one: mpi-prs models register NAME PATH"),
    )


@models.command()
@click.argument("model", metavar="NAME[:VERSION]")
@json_option
@workspace_option
def show(model: str, as_json: bool, place: Path | None) -> None:
    """One model, in its latest version or that VERSION; the last line is its path."""
    found = _model(model, place)
    if as_json:
        show_json(found.serialize())
    else:
        _show(found)


@models.command()
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--description", metavar="TEXT", help="For people.")
@tag_options("tag", "property")
@click.option("--framework", metavar="NAME", help="What has made it, such as TensorFlow.")
@json_option
@workspace_option
def register(
    name: str,
    path: Path,
    description: str | None,
    tag_texts: tuple[str, ...],
    property_texts: tuple[str, ...],
    framework: str | None,
    as_json: bool,
    place: Path | None,
) -> None:
    """Copy the file or folder PATH into the workspace, as the next version of the model NAME."""
    made = Model.register(
        open_workspace(place),
        path,
        name,
        tags=pairs("--tag", tag_texts),
        properties=pairs("--property", property_texts),
        description=description,
        model_framework=framework,
    )
    if as_json:
        show_json(made.serialize())
    else:
        _show(made)


@models.command()
@click.argument("model", metavar="NAME[:VERSION]")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@workspace_option
def download(model: str, folder: Path, overwrite: bool, place: Path | None) -> None:
    """Copy a model into FOLDER, by default this one; prints the path of the copy."""
    with option_names(exist_ok="--overwrite"):
        click.echo(_model(model, place).download(folder, exist_ok=overwrite))


@models.command()
@click.argument("model", metavar="NAME:VERSION")
@click.option("--yes", is_flag=True, help="Do not ask.")
@workspace_option
def delete(model: str, yes: bool, place: Path | None) -> None:
    """Remove one version of a model, files and all."""
    if split_version(model)[1] is None:
        raise click.UsageError(f"say which version: {model}:VERSION; see mpi-prs models list {model}")
    found = _model(model, place)
    if not yes:
        click.confirm(f"Remove {found.id} with its {found.files} files?", abort=True, err=True)
    found.delete()
    click.echo(f"removed {found.id}")


def _model(text: str, place: Path | None) -> Model:
    name, version = split_version(text)
    return Model(open_workspace(place), name, version=version)


def _show(model: Model) -> None:
    show_fields(
        {
            "model": model.id,
            "registered": when(model.created_time),
            "framework": None if model.model_framework == "Custom" else model.model_framework,
            "description": model.description,
            "tags": model.tags,
            "properties": model.properties,
            "by run": model.run_id,
            "content": f"{many(model.files, 'file')}, {size(model.size)}",
            "path": model.path,
        }
    )

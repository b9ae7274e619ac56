"""``models``, ``datasets``, ``datastores``, ``runs``: what is in a workspace, from the command line.

This module has what the four share, and is light: the command line imports it for every command. The commands
themselves stand in ``registry_models.py`` and the like, which ``main.py`` adds.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.units import printable

F = TypeVar("F", bound=Callable[..., Any])

workspace_option = click.option(
    "--workspace",
    "place",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The workspace's folder, or one with a config.json for it; default: a config.json here or in a folder above.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def open_workspace(place: Path | None) -> Workspace:
    """The workspace in a folder, or that a config.json there or above names.

    Raises:
        WorkspaceError: there is none.
    """
    if place is not None and WorkspaceFolder(place).is_workspace:
        return Workspace.at(place)
    with contextlib.redirect_stdout(sys.stderr):  # it may say that it has made one; programs read stdout
        return Workspace.from_config(place)


@contextlib.contextmanager
def option_names(**options: str) -> Iterator[None]:
    """Let messages that advise a parameter, such as ``overwrite=True``, advise the option that stands for it here."""
    try:
        yield
    except WorkspaceError as error:
        text = str(error)
        for parameter, option in options.items():
            text = text.replace(f"{parameter}=True", option)
        raise type(error)(text) from error


def tag_options(*names: str) -> Callable[[F], F]:
    """``--tag KEY=VALUE`` and the like, any number of times; see :func:`pairs`."""

    def add(command: F) -> F:
        for name in reversed(names):
            help_text = f"A {name} to be kept with it; any number of times."
            command = click.option(f"--{name}", f"{name}_texts", multiple=True, metavar="KEY=VALUE", help=help_text)(
                command
            )
        return command

    return add


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` texts as a dict. Raises click.UsageError for one that is not like that."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{option} takes KEY=VALUE, but got {text!r}")
        found[key] = value
    return found


def split_version(text: str) -> tuple[str, int | None]:
    """``mnist:3`` → name and version; ``mnist`` → name and None. Raises click.UsageError."""
    name, colon, version = text.partition(":")
    if not colon:
        return name, None
    if not version.isdecimal():
        raise click.UsageError(f"expected NAME or NAME:VERSION, such as mnist:3, but got {text!r}")
    return name, int(version)


# What people see


def show_json(value: object) -> None:
    """Print JSON, with the values that have no JSON form as texts."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def show_table(titles: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> None:
    """Print aligned columns, numbers to the right; ``nothing`` is said on stderr where there are no rows."""
    found = [list(row) for row in rows]
    if not found:
        click.echo(nothing, err=True)
        return
    right = [all(isinstance(row[column], int) for row in found) for column in range(len(titles))]
    texts = [list(titles), *([_cell(value) for value in row] for row in found)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(titles))]
    for row in texts:
        cells = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def show_fields(fields: Mapping[str, object]) -> None:
    """Print one thing, a line for each field that has a value."""
    shown = {name: _cell(value) for name, value in fields.items()}
    width = max(len(name) for name in shown)
    for name, text in shown.items():
        if text:
            click.echo(f"{name.ljust(width)}  {text}")


def when(time: datetime.datetime) -> str:
    """A time as people read it, in this machine's zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def _cell(value: object) -> str:
    """A value in a line: a dict as ``key=value``, a list as its elements, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{_cell(key)}={_cell(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return printable(str(value))

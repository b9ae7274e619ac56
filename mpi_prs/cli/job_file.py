"""The file that a job is read from: a job config of ours, or Azure ML's v2 YAML."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpi_prs.core.errors import ConfigError, OutputError
from mpi_prs.core.yaml import read_document
from mpi_prs.job.config.model import JobConfig, load_config

if TYPE_CHECKING:
    from mpi_prs.azureml.v2.loading import LoadedStep

_V2_TYPES = (
    *("pipeline", "parallel", "command", "sweep", "automl", "spark", "import", "pipeline_component", "finetuning"),
)


def is_v2(path: Path, overrides: Sequence[str] = ()) -> bool:
    """Whether a file is Azure ML's v2 YAML, and not a job config of ours; a file that cannot be read is not.

    Args:
        path: the file.
        overrides: ``key=value`` each.
    """
    try:
        data = read_document(path, overrides, ()).data
    except ConfigError:
        return False
    schema, kind = str(data.get("$schema", "")), data.get("type")
    return "azureml" in schema or "jobs" in data or "task" in data or kind in _V2_TYPES


def load_job(
    path: Path,
    overrides: Sequence[str] = (),
    output: str | None = None,
    step: str | None = None,
    *,
    makes_folders: bool = False,
) -> JobConfig:
    """The job config in the file, or of one of its steps; says what a person should know of the latter.

    Args:
        path: the file.
        overrides: of ``--set``.
        output: of ``--output``.
        step: of ``--step``.
        makes_folders: make the folders that the step's script writes into.

    Raises:
        ConfigError: with all that is wrong.
        ScriptError: the entry script is not there.
        OutputError: a folder cannot be made.
    """
    if not is_v2(path, overrides):
        if step is not None:
            read_document(path, overrides, ())  # where it cannot be read, that is what to say
            raise ConfigError(f"--step {step}: {path} is a job config, which has no steps; remove the option")
        return load_config(path, overrides, output)
    loading = import_module("mpi_prs.azureml.v2.loading")
    loaded: LoadedStep = loading.load(path, overrides, output, step, lambda line: click.echo(line, err=True))
    for note in loaded.notes:
        click.echo(f"note: {note}", err=True)
    for folder in loaded.folders if makes_folders else ():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot create the output folder {folder}: {error.strerror}") from error
    return loaded.config

"""``schema``: what a job config may hold, for editors."""

from __future__ import annotations

import json

import click

from mpi_prs.job.config.model import config_schema


@click.command()
def schema() -> int:
    """The JSON Schema of a job config, for editors."""
    click.echo(json.dumps(config_schema(), indent=2))
    return 0

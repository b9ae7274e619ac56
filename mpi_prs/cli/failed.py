"""``failed``: what failed in a run, and why."""

from __future__ import annotations

from pathlib import Path

import click

from mpi_prs.cli.options import run_argument
from mpi_prs.monitor.failed import failed_report
from mpi_prs.monitor.status import run_directory_of


@click.command()
@run_argument
def failed(run_folder: Path) -> int:
    """What failed in the run in the output folder RUN, grouped by reason."""
    click.echo(failed_report(run_directory_of(run_folder)))
    return 0

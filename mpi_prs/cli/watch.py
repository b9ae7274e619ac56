"""``status`` and ``status --watch``: where a run stands, from its files, and from Slurm while it waits there."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import click

from mpi_prs.cli.options import run_argument
from mpi_prs.core.errors import EXIT_COMPLETE
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.logs import last_lines
from mpi_prs.monitor.status import run_directory_of, status_text
from mpi_prs.slurm.job_record import latest_job
from mpi_prs.slurm.watch import Look, RunWatch

_PAUSE = 1.5
_LAST_WORDS = 5
_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


@click.command()
@run_argument
@click.option("--watch", is_flag=True, help="Show it again and again, until the run is over.")
def status(run_folder: Path, watch: bool) -> int:
    """Where the run in the output folder RUN stands."""
    return show_status(run_directory_of(run_folder), watch)


def show_status(run: RunDirectory, watch: bool) -> int:
    """Print it once, or again and again until the run is over; on a terminal in the same place."""
    watcher = RunWatch(run)
    redraws = watch and sys.stdout.isatty()
    before = ""
    while True:
        look = watcher.look(time.time())
        text = _text(run, look)
        if redraws:
            click.echo(_HOME_AND_CLEAR, nl=False)
        # What is no terminal gets a block for each change of the state or of the percentage.
        if redraws or _head(text) != before or look.is_over:
            click.echo(text)
        before = _head(text)
        if look.is_over or not watch:
            return EXIT_COMPLETE
        time.sleep(_PAUSE)


def _text(run: RunDirectory, look: Look) -> str:
    if look.status is None and look.queue:
        return "\n".join((look.queue, *_said(run)))
    parts = [status_text(run, time.time()), look.queue]
    if look.status is not None and not look.status.under_way and not look.is_over:
        parts.reverse()  # it goes on by itself: that is the news
    return "\n".join(filter(None, parts))


def _said(run: RunDirectory) -> list[str]:
    """The job's last words, while the run itself has none: of MPI, say, which does not start."""
    job_id = latest_job(run)
    lines = last_lines(run.slurm_log(job_id), _LAST_WORDS) if job_id is not None else []
    head = f"it has said so far (all of it: mpi-prs logs {shlex.quote(str(run.output))}):"
    return [head, *(f"  {line}" for line in lines)] if lines else []


def _head(text: str) -> str:
    return "\n".join(text.splitlines()[:2])

"""``logs`` and ``logs --follow``: what the run and its processes say, from their files."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mpi_prs.cli.options import run_argument
from mpi_prs.core.errors import EXIT_COMPLETE
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.logs import LogChoice, Tail
from mpi_prs.monitor.status import run_directory_of
from mpi_prs.slurm.job_record import latest_job
from mpi_prs.slurm.watch import RunWatch

_PAUSE = 0.5


@click.command()
@run_argument
@click.option("--follow", is_flag=True, help="Begin with the last lines, and go on until the run is over.")
@click.option("--process", type=click.IntRange(min=0), metavar="N", help="What user process N of a node has printed.")
@click.option("--node", metavar="NAME", help="Of this node alone; without --process: the program's own logs there.")
def logs(run_folder: Path, follow: bool, process: int | None, node: str | None) -> int:
    """The progress and the program's log of the run in the output folder RUN, or what its processes print."""
    return show_logs(run_directory_of(run_folder), process, node, follow)


def show_logs(
    run: RunDirectory, process: int | None, node: str | None, follow: bool, watch: RunWatch | None = None
) -> int:
    """Print them, and with ``follow`` what comes until the run is over.

    Raises:
        OutputError: there are no such logs.
    """
    tail = Tail(last_lines_only=follow)
    watch = watch or RunWatch(run)
    shown: Path | None = None
    while True:
        is_over = not follow or watch.look(time.time()).is_over  # before reading: then what is read is all
        job_id = latest_job(run)
        choice = LogChoice(job_id, process, node)
        if follow and is_over and job_id is not None and choice.files(run) == [run.slurm_log(job_id)]:
            watch.wait_for_log()
        files = choice.files(run)
        if is_over and not files:
            raise choice.explain_nothing(run)
        for path in files:
            shown = _show_new(tail, path, shown, len(files) > 1)
        tail.from_now_on_all()
        if is_over:
            return EXIT_COMPLETE
        time.sleep(_PAUSE)


def _show_new(tail: Tail, path: Path, shown: Path | None, name_it: bool) -> Path | None:
    """Print what is new in a file, below its name where another one's text came before; returns whose came last."""
    for piece in tail.new_in(path):
        if name_it and path != shown:
            click.echo(f"{'' if shown is None else chr(10)}==> {path} <==")
        shown = path
        click.echo(piece, nl=False)
    return shown

"""``verify``: some mini-batches once more, and whether their rows come out as they stand in the output."""

from __future__ import annotations

from pathlib import Path

import click

from mpi_prs.cli.job_file import load_job
from mpi_prs.cli.options import step_option
from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_FAILED, OutputError, WorkspaceError
from mpi_prs.core.records import read_json
from mpi_prs.core.units import count, many
from mpi_prs.job.run.again import Compared, run_again
from mpi_prs.job.run.opening import changed_since
from mpi_prs.monitor.status import run_directory_of

_SHOWN = 10


def _share(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    try:
        share = float(value.removesuffix("%")) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise click.BadParameter(f"expected a percentage above 0 such as 1%, got {value!r}")
    return share


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--sample", default="1%", callback=_share, metavar="P%", help="Share of the mini-batches; default 1%.")
@click.option("--seed", default=0, metavar="N", help="Another number takes other mini-batches; default 0.")
@click.option("--local", "processes", type=click.IntRange(min=1), default=1, metavar="N", help="User processes.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As the run was given them.")
@step_option
def verify(run: Path, sample: float, seed: int, processes: int, overrides: tuple[str, ...], step: str | None) -> int:
    """Run some mini-batches of the run in the output folder RUN again, on this machine, and compare their rows.

    RUN may be the job config as well. Nothing of the run is changed. Mini-batches of which items failed alone are left
    out. Exit code 0: the same rows, and no file that decides them has changed; 1: something is not the same.
    """
    if run.is_dir() or not run.exists():
        directory = run_directory_of(run)
        config = load_job(_config_of(directory.provenance), overrides, str(directory.output), step)
    else:
        config = load_job(run, overrides, step=step)
        run_directory_of(config.output)
    changed = changed_since(config)
    for line in changed:
        click.echo(f"changed since: {line}")
    found = run_again(config, sample, processes, seed)
    _show(found)
    return EXIT_COMPLETE if found.same and not changed else EXIT_FAILED


def _config_of(provenance: Path) -> Path:
    try:
        return Path(str(read_json(provenance, "the provenance")["config"]))
    except (OSError, KeyError, WorkspaceError):
        raise OutputError(f"{provenance} names no job config: give that in place of RUN") from None


def _show(found: Compared) -> None:
    what = f"{count(found.mini_batches)} of {many(found.of, 'mini-batch')} run again"
    click.echo(f"{what}: the same rows" if found.same else what)
    for message, numbers in found.failed.items():
        click.echo(f"  failed: {_numbers(numbers)}: {message}")
    if found.other:
        click.echo(
            f"  other rows than on record: {_numbers(found.other)}. Code, models or packages have changed, or the "
            "script does not give the same rows each time, as with whole paths of files that were brought to scratch"
        )
    if found.damaged:
        click.echo(f"  changed in the output file: {_numbers(found.damaged)}")


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, sorted(numbers)[:_SHOWN]))
    more = f" and {count(len(numbers) - _SHOWN)} more" if len(numbers) > _SHOWN else ""
    return f"mini-batch{'es' if len(numbers) > 1 else ''} {shown}{more}"

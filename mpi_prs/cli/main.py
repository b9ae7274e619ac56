"""The commands. This room alone prints for people; each command is a few calls into the rooms below."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from mpi_prs import __version__
from mpi_prs.cli.registry.datasets import datasets
from mpi_prs.cli.registry.datastores import datastores
from mpi_prs.cli.registry.models import models
from mpi_prs.cli.registry.runs import runs
from mpi_prs.cli.session import Session
from mpi_prs.core.errors import EXIT_FAILED, ConfigError, MpiPrsError
from mpi_prs.engine.transport import Transport
from mpi_prs.engine.worker.worker import serve
from mpi_prs.slurm.exit_note import leave_word


def command_line(arguments: Sequence[str], transport: Transport | None) -> int:
    """Run one command on this rank; returns the exit code."""
    session = Session(transport)
    exit_code = EXIT_FAILED
    try:
        # click returns the code of ctx.exit(), and what the command returned
        exit_code = commands.main(list(arguments), prog_name="mpi-prs", standalone_mode=False, obj=session) or 0
    except MpiPrsError as error:
        exit_code = error.exit_code
        click.echo(f"error: {error}", err=True)
    except click.ClickException as error:
        exit_code = error.exit_code
        error.show()
    except click.Abort:
        exit_code = 130
        click.echo("interrupted", err=True)
    finally:
        if session.transport is None or session.transport.rank == 0:
            leave_word(exit_code, os.environ)  # before MPI is left, which may end this process
        session.release(exit_code)
    return exit_code


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mpi-prs")
@click.pass_context
def commands(context: click.Context) -> int | None:
    """ParallelRunStep on MPI: run an entry script over many files, on every GPU and core.

    Without a command the default config is run: MPI_PRS_CONFIG, else mpi_prs.yaml in this folder, else the digits demo
    of the checkout.
    """
    if context.invoked_subcommand is not None:
        return None
    from mpi_prs.job.config.model import default_config

    config = default_config(os.environ, Path.cwd())
    if config is None:
        raise ConfigError(
            "no command, and no job config: give one (mpirun -n 8 python -m mpi_prs run CONFIG), set MPI_PRS_CONFIG, "
            "or put mpi_prs.yaml into this folder. All commands: python -m mpi_prs --help"
        )
    click.echo(f"no command given: running the default config {config}", err=True)
    code: int = context.invoke(run, config=config)
    return code


_STEP = click.option("--step", metavar="NAME", help="Of a pipeline in Azure ML's v2 YAML: the parallel step to run.")
_OPTIONS_OF_A_RUN = (
    click.argument("config", type=click.Path(path_type=Path)),
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key (dotted) of the config."
    ),
    click.option("--output", metavar="DIR", help="Another output folder than the config's."),
    _STEP,
    click.option("--overwrite", is_flag=True, help="Throw away an earlier run in the output folder and start anew."),
    click.option("--only-failed", is_flag=True, help="Try the failed mini-batches of the earlier run again, too."),
    click.option("--accept-changes", is_flag=True, help="Resume although the script or its arguments have changed."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Work on the first N mini-batches only."),
)


def _options_of_a_run(command: Callable[..., int]) -> Callable[..., int]:
    """What ``run`` and ``submit`` both take: the job, and how to open its run."""
    for option in reversed(_OPTIONS_OF_A_RUN):
        command = option(command)
    return command


def _check_together(overwrite: bool, only_failed: bool) -> None:
    if overwrite and only_failed:
        raise click.UsageError("--overwrite throws away what --only-failed would try again: give one of them")


@commands.command()
@click.option("--local", type=click.IntRange(min=1), metavar="N", help="Without MPI: N user processes on this machine.")
@_options_of_a_run
@click.option("--dry-run", is_flag=True, help="List inputs and mini-batches and check the script; run nothing.")
@click.pass_obj
def run(
    session: Session,
    config: Path,
    local: int | None = None,
    overrides: tuple[str, ...] = (),
    output: str | None = None,
    step: str | None = None,
    overwrite: bool = False,
    only_failed: bool = False,
    accept_changes: bool = False,
    limit: int | None = None,
    dry_run: bool = False,
) -> int:
    """Run the job CONFIG, or resume it; under mpirun or srun on all ranks.

    CONFIG is a job config, or Azure ML's v2 YAML with a step of type parallel.
    """
    from mpi_prs.cli.job_file import load_job
    from mpi_prs.cli.run import run_job, show_plan
    from mpi_prs.job.run.opening import RunOptions

    _check_together(overwrite, only_failed)
    if not dry_run and local is None and session.ranks().rank != 0:  # a launcher that __main__ does not know
        session.workers_told = True
        sys.exit(serve(session.ranks()))
    job = load_job(config, overrides, output, step, makes_folders=not dry_run)
    options = RunOptions(overwrite, only_failed, accept_changes, limit)
    if dry_run:
        return show_plan(job, limit)
    return run_job(session, job, options, local)


@commands.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("items", nargs=-1, metavar="[ITEM]...")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key (dotted) of the config.")
@_STEP
def debug(config: Path, items: tuple[str, ...], overrides: tuple[str, ...], step: str | None) -> int:
    """Call init() and one run() in this very process: print and breakpoint() work as usual.

    The mini-batch is made of the ITEMs, or is the first one of the job.
    """
    from mpi_prs.cli.debug import debug_script
    from mpi_prs.cli.job_file import load_job

    return debug_script(load_job(config, overrides, step=step, makes_folders=True), items)


@commands.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARG]...")
def exec_command(file: Path, arguments: tuple[str, ...]) -> int:
    """Run a script or a notebook that uses the SDK, `import azureml.core` and the like being ours.

    FILE.py is run as Python runs it, FILE.ipynb cell by cell in the notebook's folder (by IPython) until one fails.
    """
    from mpi_prs.cli.exec import exec_file

    return exec_file(file, arguments)


@commands.command()
@_options_of_a_run
@click.option("--dry-run", is_flag=True, help="Show the batch script; submit nothing.")
@click.option("--wait", is_flag=True, help="Wait for the end of the job, and exit with its exit code.")
def submit(
    config: Path,
    overrides: tuple[str, ...],
    output: str | None,
    step: str | None,
    overwrite: bool,
    only_failed: bool,
    accept_changes: bool,
    limit: int | None,
    dry_run: bool,
    wait: bool,
) -> int:
    """Submit the job CONFIG to Slurm, as a batch job of its own."""
    from mpi_prs.cli.job_file import load_job
    from mpi_prs.cli.submit import Submission, submit_job
    from mpi_prs.job.run.opening import RunOptions

    _check_together(overwrite, only_failed)
    options = RunOptions(overwrite, only_failed, accept_changes, limit)
    submission = Submission(config, overrides, output, step, options)
    return submit_job(load_job(config, overrides, output, step), submission, dry_run, wait)


@commands.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Show it again and again, until the run is over.")
def status(run_folder: Path, watch: bool) -> int:
    """Where the run in the output folder RUN stands."""
    from mpi_prs.cli.watch import show_status
    from mpi_prs.monitor.status import run_directory_of

    return show_status(run_directory_of(run_folder), watch)


@commands.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--follow", is_flag=True, help="Begin with the last lines, and go on until the run is over.")
@click.option("--process", type=click.IntRange(min=0), metavar="N", help="What user process N of a node has printed.")
@click.option("--node", metavar="NAME", help="Of this node alone; without --process: the program's own logs there.")
def logs(run_folder: Path, follow: bool, process: int | None, node: str | None) -> int:
    """The progress and the program's log of the run in the output folder RUN, or what its processes print."""
    from mpi_prs.cli.logs import show_logs
    from mpi_prs.monitor.status import run_directory_of

    return show_logs(run_directory_of(run_folder), process, node, follow)


@commands.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def cancel(run_folder: Path) -> int:
    """Cancel the Slurm job of the run in the output folder RUN."""
    from mpi_prs.cli.cancel import cancel_run
    from mpi_prs.monitor.status import run_directory_of

    return cancel_run(run_directory_of(run_folder))


@commands.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def failed(run_folder: Path) -> int:
    """What failed in the run in the output folder RUN, grouped by reason."""
    from mpi_prs.monitor.failed import failed_report
    from mpi_prs.monitor.status import run_directory_of

    click.echo(failed_report(run_directory_of(run_folder)))
    return 0


@commands.command()
@click.option(
    "--shared",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="The folder that all nodes should see; default: this one.",
)
def doctor(shared: Path) -> int:
    """Look at MPI, nodes and filesystems, and say what to change; alone, or under mpirun or srun on all ranks."""
    from mpi_prs.cli.doctor import examine

    return examine(shared.absolute())


@commands.command()
def schema() -> int:
    """The JSON Schema of a job config, for editors."""
    from mpi_prs.job.config.model import config_schema

    click.echo(json.dumps(config_schema(), indent=2))
    return 0


for _group in (models, datasets, datastores, runs):
    commands.add_command(_group)

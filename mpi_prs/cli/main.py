"""The command line. This room alone prints for people; each command is a few calls into the rooms below."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Any

import click

from mpi_prs import __version__
from mpi_prs.child.shims.finder import resolve
from mpi_prs.cli.session import Session
from mpi_prs.core.errors import EXIT_FAILED, LaunchError, MpiPrsError
from mpi_prs.core.secrecy import scrub
from mpi_prs.engine.transport import Transport
from mpi_prs.slurm.exit_note import leave_word


def command_line(arguments: Sequence[str], transport: Transport | None) -> int:
    """Run one command on this rank; returns the exit code."""
    session = Session(transport)
    exit_code = EXIT_FAILED
    try:
        _check_current_folder()
        # click returns the code of ctx.exit(), and what the command returned
        exit_code = commands.main(list(arguments), prog_name="mpi-prs", standalone_mode=False, obj=session) or 0
    except MpiPrsError as error:
        exit_code = error.exit_code
        click.echo(scrub(f"error: {error}"), err=True)
    except click.ClickException as error:
        exit_code = error.exit_code
        error.show()
    except click.Abort:
        exit_code = 130
        click.echo("interrupted", err=True)
    finally:
        if session.transport is None or session.transport.rank == 0:
            leave_word(exit_code)  # before MPI is left, which may end this process
        session.release(exit_code)
    return exit_code


def _check_current_folder() -> None:
    """Without one even full paths fail here and there, and each with another message."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise LaunchError(
            "the current folder has been removed: change to one that is there, such as cd $HOME"
        ) from None


_COMMANDS = {
    "run": "mpi_prs.cli.run:run",
    "debug": "mpi_prs.cli.debug:debug",
    "exec": "mpi_prs.cli.exec:exec_command",
    "submit": "mpi_prs.cli.submit:submit",
    "status": "mpi_prs.cli.watch:status",
    "logs": "mpi_prs.cli.logs:logs",
    "cancel": "mpi_prs.cli.cancel:cancel",
    "failed": "mpi_prs.cli.failed:failed",
    "doctor": "mpi_prs.cli.doctor:doctor",
    "verify": "mpi_prs.cli.verify:verify",
    "schema": "mpi_prs.cli.schema:schema",
    "models": "mpi_prs.cli.registry.models:models",
    "datasets": "mpi_prs.cli.registry.datasets:datasets",
    "datastores": "mpi_prs.cli.registry.datastores:datastores",
    "runs": "mpi_prs.cli.registry.runs:runs",
}
"""Command → where it is. Each is imported when it is given, with all that it needs."""


class _Commands(click.Group):
    """See "Lazily loading subcommands" in click's documentation."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return _imported(_COMMANDS[cmd_name]) if cmd_name in _COMMANDS else None


def _imported(target: str) -> Any:
    """A command, with all that it needs; from here on garbage is collected, among what is made from here on."""
    found = resolve(target)
    gc.freeze()
    gc.enable()
    return found


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mpi-prs")
@click.pass_context
def commands(context: click.Context) -> int | None:
    """ParallelRunStep on MPI: run an entry script over many files, on every GPU and core.

    Under mpirun or srun, and without a command, the default config is run: MPI_PRS_CONFIG, else mpi_prs.yaml in this
    folder, else the digits demo of the checkout.
    """
    if context.invoked_subcommand is not None:
        return None
    code: int = _imported("mpi_prs.cli.run:run_default")(context)
    return code

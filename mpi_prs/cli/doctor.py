"""``doctor``: how the program would run here, and what to change; by one rank alone, or on all ranks."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_FAILED, LaunchError
from mpi_prs.doctor.exchange import answer, dismiss, survey_all, survey_alone
from mpi_prs.doctor.findings import Survey
from mpi_prs.doctor.look import check_start, look_at_launch, look_at_library
from mpi_prs.doctor.report import launch_lines, survey_lines, to_change, worth_knowing
from mpi_prs.engine.mpi import connect, launched_as
from mpi_prs.engine.transport import Transport


@click.command()
@click.option(
    "--shared",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="The folder that all nodes should see; default: this one.",
)
def doctor(shared: Path) -> int:
    """Look at MPI, nodes and filesystems, and say what to change; alone, or under mpirun or srun on all ranks."""

    return examine(shared.absolute())


def examine(shared: Path) -> int:
    """The doctor on this rank; the first one prints. Returns 1 where there is something to change."""
    place = launched_as()
    if place is not None and place[0] != 0:
        try:
            return _assist(_start(look_at_library()))
        except LaunchError:
            return EXIT_COMPLETE  # the first rank says it; some launchers would end that with any other exit code
    began = time.monotonic()
    launch = look_at_launch(HERE)
    spent = time.monotonic() - began
    click.echo("\n".join(launch_lines(launch)))
    if launch.launcher:
        _say("starting MPI … (if nothing follows, the launcher is of another MPI: use one of those above)")
    try:
        transport = _start(launch.library)
    except LaunchError as error:
        return _tell(survey_alone(launch, shared, str(error)))
    if transport.rank != 0:
        return _assist(transport)
    survey = survey_all(transport, launch, shared, spent)
    exit_code = _tell(survey)
    dismiss(transport, survey, exit_code)
    return exit_code


def _start(library: str) -> Transport:
    check_start(library, HERE)
    return connect()


def _assist(transport: Transport) -> int:
    exit_code = answer(transport)
    transport.close(exit_code)
    return exit_code


def _tell(survey: Survey) -> int:
    lines = survey_lines(survey)
    changes, hints = to_change(survey), worth_knowing(survey)
    for title, advice in (("to change:", changes), ("worth knowing:", hints)):
        if advice:
            lines += ["", title, *(f"  {number}. {text}" for number, text in enumerate(advice, 1))]
    if not changes:
        lines += ["", "all is well"]
    _say("\n".join(lines))
    return EXIT_FAILED if changes else EXIT_COMPLETE


def _say(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()  # MPI may end the process without that

"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

run_argument = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
step_option = click.option(
    "--step", metavar="NAME", help="Of a pipeline in Azure ML's v2 YAML: the parallel step to run."
)
_OPTIONS_OF_A_RUN = (
    click.argument("config", type=click.Path(path_type=Path)),
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key (dotted) of the config."
    ),
    click.option("--output", metavar="DIR", help="Another output folder than the config's."),
    step_option,
    click.option("--overwrite", is_flag=True, help="Throw away an earlier run in the output folder and start anew."),
    click.option("--only-failed", is_flag=True, help="Try the failed mini-batches of the earlier run again, too."),
    click.option("--accept-changes", is_flag=True, help="Resume although the script or its arguments have changed."),
    click.option("--accept-owner", is_flag=True, help="Go on with a run that was begun by another user."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Work on the first N mini-batches only."),
)


def options_of_a_run(command: Callable[..., int]) -> Callable[..., int]:
    """What ``run`` and ``submit`` both take: the job, and how to open its run."""
    for option in reversed(_OPTIONS_OF_A_RUN):
        command = option(command)
    return command


def check_together(overwrite: bool, only_failed: bool) -> None:
    """Refuse two ways of going on that exclude each other."""
    if overwrite and only_failed:
        raise click.UsageError("--overwrite throws away what --only-failed would try again: give one of them")

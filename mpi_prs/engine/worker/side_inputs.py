"""Fetching the side inputs at a worker, which has other things to do meanwhile: the master wants to hear from it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.near.side_inputs import Provided, SideInput, begin_provide, substitute, substitute_values
from mpi_prs.wire.settings import WorkerSettings

_STEP = 0.05
_LEAVING_SECONDS = 2.0  # for a fetch to end by itself once nobody wants it any more


class NotProvided(Exception):
    """There are no side inputs; the text says why."""


def provide_meanwhile(
    settings: WorkerSettings,
    scratch: Path,
    meanwhile: Callable[[], None],
    is_stopped: Callable[[], bool],
    clock: Callable[[], float],
) -> Provided:
    """The side inputs of a job, fetched in a thread.

    Args:
        scratch: the folder that the workers of this node share.
        meanwhile: called about twenty times a second.
        is_stopped: whether nobody wants them any more.
        clock: seconds, only forward.

    Raises:
        NotProvided: they cannot be fetched, or nobody wants them any more.
    """

    def check() -> None:
        if is_stopped():
            raise NotProvided("stopped while its side inputs were fetched")

    wanted = [SideInput.from_secret(side_input) for side_input in settings.side_inputs]
    given = begin_provide(wanted, scratch, settings.token, check=check)
    give_up = float("inf")
    while not given.done():
        if clock() > give_up:
            raise NotProvided("stopped while its side inputs were fetched from a store or filesystem that hangs")
        meanwhile()
        if is_stopped():
            give_up = min(give_up, clock() + _LEAVING_SECONDS)
        wait([given], _STEP)
    try:
        return given.result()
    except (InputError, OSError) as error:
        raise NotProvided(str(error)) from error


def with_paths(settings: WorkerSettings, provided: Provided) -> WorkerSettings:
    """The settings with the paths of the side inputs in arguments and environment variables."""
    return replace(
        settings,
        process=replace(settings.process, arguments=substitute(settings.process.arguments, provided.paths)),
        environment_variables=substitute_values(settings.environment_variables, provided.paths),
    )

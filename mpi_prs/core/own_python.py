"""Entry scripts may run in another Python than mpi_prs itself, and some of the SDK works only in its own: this says so.

::

    an entry script's Python, 3.7 and later   registered things, models, Run.get_context(): the standard library alone
    mpi_prs's own Python, 3.10 and later      reading and moving data, submitting, waiting: its packages too

Standard library only, and for Python 3.7 as well.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable, TypeVar, cast  # noqa: UP035  # Python 3.7

from mpi_prs.core.errors import WorkspaceError

F = TypeVar("F", bound=Callable[..., Any])

OLDEST = (3, 10)
"""The oldest Python that mpi_prs itself runs in."""


def own_python(what: str) -> Callable[[F], F]:
    """Mark a function that needs what only mpi_prs's own Python has. Some 0.3 µs a call.

    Args:
        what: what the function does, for the message: a method such as ``FileDataset.download()``, or some words.

    The function then raises WorkspaceError where this Python is too old, or has not one of the packages: what is
    needed, and what entry scripts can do instead.
    """

    def mark(function: F) -> F:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if sys.version_info[:2] < OLDEST:
                raise WorkspaceError(_message(what, f"Python {_dotted(OLDEST)} or later"))
            try:
                return function(*args, **kwargs)
            except ModuleNotFoundError as error:
                package = (error.name or "").partition(".")[0]
                if package in ("", "mpi_prs"):
                    raise
                raise WorkspaceError(_message(what, f"the package {package}")) from error

        return cast("F", checked)

    return mark


def _message(what: str, needed: str) -> str:
    return (
        f"{what} needs {needed}, as where mpi_prs is installed, but this is Python {_dotted(sys.version_info[:3])} "
        f"({sys.executable}). Do it there, before the pipeline is submitted; an entry script gets its data in every "
        "Python by run(mini_batch), and as side inputs, see Run.input_datasets"
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

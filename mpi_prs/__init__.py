"""Azure ML's ParallelRunStep on MPI: batch inference on every GPU and core of a cluster.

``from mpi_prs import Workspace, ParallelRunStep, …`` gives the SDK's classes; ``%load_ext mpi_prs`` in Jupyter gives
them the names that existing notebooks import, ``azureml.core`` and so on.

This package imports the standard library alone, and what it exports when that is asked for: it is also imported inside
the user's own interpreter, which may be another one than ours.
"""

from __future__ import annotations as _annotations  # user processes may run in Python 3.7

from typing import Any as _Any

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    """The SDK's classes, imported when they are asked for."""
    if name.startswith("__") and name != "__all__":  # Python's own questions
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mpi_prs.child.shims.finder import provided
    from mpi_prs.child.shims.names import PUBLIC

    if name == "__all__":
        return sorted(PUBLIC)
    if name in PUBLIC:
        value = globals()[name] = provided(PUBLIC[name])
        return value
    from mpi_prs.core.words import did_you_mean

    hint = did_you_mean(name, PUBLIC, "dir(mpi_prs) lists what it has", most=2)
    raise AttributeError(f"mpi_prs has no {name!r}; {hint}")


def __dir__() -> list[str]:
    from mpi_prs.child.shims.names import PUBLIC

    return sorted({*globals(), *PUBLIC})


def load_ipython_extension(ipython: _Any) -> None:
    """``%load_ext mpi_prs``: ``import azureml.core`` and the like give what is ours."""
    from mpi_prs.child.shims.extension import load

    load(ipython)


def unload_ipython_extension(ipython: _Any) -> None:
    """``%unload_ext mpi_prs``: as if it had not been loaded."""
    from mpi_prs.child.shims.extension import unload

    unload(ipython)

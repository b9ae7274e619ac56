"""Azure ML's ParallelRunStep on MPI: batch inference on every GPU and core of a cluster.

``from mpi_prs import Workspace, ParallelRunStep, …`` gives the SDK's classes; ``%load_ext mpi_prs`` in Jupyter gives
them the names that existing notebooks import, ``azureml.core`` and so on.

This package imports the standard library alone, and what it exports when that is asked for: it is also imported inside
the user's own interpreter, which may be another one than ours.
"""

from __future__ import annotations as _annotations  # user processes may run in Python 3.7

import sys as _sys

if _sys.argv[:1] == ["-m"] and not getattr(_sys.flags, "safe_path", False):
    # Python looks for the module that it is to run. For that the current folder stands first, where a ``signal.py`` or
    # ``typing.py`` of the user would hide Python's own. As for the command mpi-prs, the program's folder shall.
    _words = getattr(_sys, "orig_argv", [])
    if "-m" in _words and _words[_words.index("-m") + 1].partition(".")[0] == "mpi_prs":
        _sys.path[0] = _sys.executable.rpartition("/")[0]

from typing import Any as _Any

from mpi_prs.child.shims import finder as _finder

__version__ = "0.1.0"
_PUBLIC = "mpi_prs.child.shims.names:PUBLIC"


def __getattr__(name: str) -> _Any:
    """The SDK's classes, imported when they are asked for."""
    if name.startswith("__") and name != "__all__":  # Python's own questions
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = _finder.resolve(_PUBLIC)
    if name == "__all__":
        return sorted(public)
    if name in public:
        value = globals()[name] = _finder.provided(public[name])
        return value
    hint = _finder.resolve("mpi_prs.core.words:did_you_mean")(name, public, "dir(mpi_prs) lists what it has", most=2)
    raise AttributeError(f"mpi_prs has no {name!r}; {hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_finder.resolve(_PUBLIC)})


def load_ipython_extension(ipython: _Any) -> None:
    """``%load_ext mpi_prs``: ``import azureml.core`` and the like give what is ours."""
    _finder.resolve("mpi_prs.child.shims.extension:load")(ipython)


def unload_ipython_extension(ipython: _Any) -> None:
    """``%unload_ext mpi_prs``: as if it had not been loaded."""
    _finder.resolve("mpi_prs.child.shims.extension:unload")(ipython)

"""What is done to imports before an entry script is imported, in whatever process. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

from mpi_prs.child.shims import finder
from mpi_prs.core.script_variables import AZUREML, TENSORFLOW1


def prepare_imports(environ: Mapping[str, str]) -> None:
    """Do what the environment says of ``azureml`` and of ``tensorflow``.

    Raises:
        ValueError: it says something else than it may.
    """
    finder.serve_entry_script()
    when = environ.get(AZUREML) or "auto"
    try:
        finder.install(when)
    except ValueError as error:
        raise ValueError(f"the environment variable {AZUREML}: {error}") from None
    if environ.get(TENSORFLOW1) == "1":
        from mpi_prs.child.shims import tensorflow1

        tensorflow1.install()

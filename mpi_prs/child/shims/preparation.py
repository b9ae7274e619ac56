"""What is done to imports before an entry script is imported, in whatever process. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping

from mpi_prs.child.shims import finder
from mpi_prs.core.environ import AZUREML, HERE, TENSORFLOW1


def prepare_imports(environ: Mapping[str, str] = HERE) -> None:
    """Do what the environment says of ``azureml`` and of ``tensorflow``.

    Raises:
        LaunchError: it says something else than it may.
    """
    finder.serve_entry_script()
    finder.install(AZUREML.of(environ) or "auto")
    if TENSORFLOW1.of(environ):
        finder.resolve("mpi_prs.child.shims.tensorflow1:install")()

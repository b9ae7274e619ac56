"""``%load_ext mpi_prs``: the names of Azure's SDK in a notebook. Standard library only."""

from __future__ import annotations

import sys
from typing import Any

from mpi_prs.child.shims import finder, tracebacks


def load(ipython: Any) -> None:
    """Install the modules, over the real ones where there are any: whoever loads the extension wants ours."""
    tracebacks.show_in(ipython)
    earlier = [
        name for name, module in sys.modules.items() if name.startswith("azureml") and not finder.is_ours(module)
    ]
    finder.install("always")
    print("azureml… and azureml_user… are mpi_prs now; %unload_ext mpi_prs undoes it")
    if earlier:
        print(
            f"{min(earlier)} was imported before, and what came from it is still Azure's: run those imports again, "
            "or restart the kernel and load mpi_prs first"
        )


def unload(ipython: Any) -> None:
    """Remove them."""
    tracebacks.hide_from(ipython)
    finder.uninstall()
    print("azureml… and azureml_user… are no longer mpi_prs")

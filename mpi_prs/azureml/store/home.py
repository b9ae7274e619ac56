"""HOME/SUBSCRIPTION/GROUP/NAME: where workspaces are that are not given a folder, and how one is made.

HOME is ``$MPI_PRS_HOME``, else ``~/.mpi_prs/workspaces``; on a cluster it has to be on a filesystem that all nodes see.
Standard library only: user processes import this module.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import add_json, check_name, names_of, time_stamp

SUBSCRIPTION = "local"
GROUP = "default"


def folder() -> Path:
    """HOME, absolute; it need not be there."""
    return Path(os.path.abspath(os.path.expanduser(os.environ.get("MPI_PRS_HOME") or "~/.mpi_prs/workspaces")))


def layout_of(subscription: str, group: str, name: str) -> WorkspaceFolder:
    """The place of a workspace, which need not be there. Raises WorkspaceError: no such names."""
    check_name(subscription, "a subscription")
    check_name(group, "a resource group")
    return WorkspaceFolder(folder() / subscription / group / check_name(name, "a workspace"))


def workspaces(subscription: str | None, group: str | None) -> Iterator[WorkspaceFolder]:
    """The workspaces that there are, of a subscription and a group, or of all."""
    for one in [subscription] if subscription else names_of(folder()):
        for other in [group] if group else names_of(folder() / one):
            for name in names_of(folder() / one / other):
                layout = WorkspaceFolder(folder() / one / other / name)
                if layout.is_workspace:
                    yield layout


def make(layout: WorkspaceFolder, name: str, subscription: str, group: str, location: str = "", **more: Any) -> bool:
    """Make a workspace unless there is one.

    Args:
        more: to be kept with it.

    Returns:
        whether it was made; of several who try at once, one makes it.

    Raises:
        WorkspaceError: it cannot be made.
    """
    if layout.is_workspace:
        return False
    about = {
        "name": name,
        "id": str(uuid.uuid4()),
        "subscription_id": subscription,
        "resource_group": group,
        "location": location,
        "created": time_stamp(),
        **more,
        "settings": {},
    }
    try:
        for store in (layout.blob_store, layout.file_store):
            store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"cannot make the workspace {layout.root}: {error.strerror}") from error
    return add_json(layout.description, about)  # last: whoever sees it sees a workspace


def completed(about: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """What a ``workspace.json`` says, with what it leaves out if it was written by hand."""
    nothing = {"id": "", "subscription_id": SUBSCRIPTION, "resource_group": GROUP, "location": "", "created": ""}
    return {**nothing, "name": place.name, **about}

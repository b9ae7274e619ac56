"""Whose a run directory is: one that strangers have made, or could have, is neither written into nor emptied."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from mpi_prs.core.errors import OutputError, WorkspaceError
from mpi_prs.core.files import beside, own_file
from mpi_prs.core.locks import read_holder
from mpi_prs.core.records import read_json
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import printable
from mpi_prs.output.journal import is_journal

_BEFORE_A_RUN = {"cancelled", "lock", "slurm"}
"""What is there before the run itself has left a mark."""

_SHOWN = 3


def check_ownership(directory: RunDirectory, accept_owner: bool) -> None:
    """Refuse a run directory that is not ours. Changes nothing.

    Args:
        directory: it need not be there.
        accept_owner: whether it may belong to another user.

    Raises:
        OutputError: it is a link, belongs to another user, or has no mark of a run.
    """
    root = directory.root
    try:
        if root.is_symlink():
            raise OutputError(
                f"{root} is a link: a run directory is a folder of its own. Remove the link, or choose another output"
            )
        if not root.is_dir():  # what may be in the way is told by who makes it
            return
        owner, names = root.stat().st_uid, sorted(os.listdir(root))
    except PermissionError as error:
        raise OutputError(f"cannot read {root}: {error.strerror}; choose another output") from error
    if owner != os.geteuid() and not accept_owner and not _is_what_we_make(root, owner):
        raise OutputError(
            f"the run directory {root} belongs to {_name(owner)}: choose another output, or take it over with "
            "--accept-owner if you trust what is in it"
        )
    if not _BEFORE_A_RUN.issuperset(names) and not _has_mark(directory):
        shown = ", ".join([*names[:_SHOWN], *(["…"] if len(names) > _SHOWN else [])])
        raise OutputError(
            f"{root} is not the run directory of a run ({printable(shown)}): it is left alone. Move it away, or choose "
            "another output"
        )


def refuse_links(directory: RunDirectory) -> None:
    """Raises OutputError: something in the run directory is a link, and who follows it writes elsewhere."""
    link = next(directory.links(), None)
    if link is not None:
        raise OutputError(
            f"{link} is a link: nothing in a run directory is reached through links. Remove it, or choose another "
            "output"
        )


def _is_what_we_make(root: Path, owner: int) -> bool:
    """Whether files that we make here get that owner: a file server may see us as another user."""
    try:
        with beside(root / "owner") as probe:
            probe.touch()
            return probe.stat().st_uid == owner
    except OSError:
        return False


def _name(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user with the number {uid}"


def _has_mark(directory: RunDirectory) -> bool:
    """Whether a run was there: its lock, its description or its journal tells."""
    return _names_a_holder(directory.lock) or _describes_a_run(directory.description) or is_journal(directory.journal)


def _names_a_holder(lock: Path) -> bool:
    try:
        descriptor = own_file(str(lock), os.O_RDONLY)
    except OSError:
        return False
    try:
        return bool(read_holder(descriptor, "{host} {pid} {since}"))
    finally:
        os.close(descriptor)


def _describes_a_run(description: Path) -> bool:
    try:
        return isinstance(read_json(description, "the run").get("fingerprint"), dict)
    except (OSError, WorkspaceError):
        return False

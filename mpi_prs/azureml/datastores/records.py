"""What a workspace keeps of a datastore: a JSON file that everybody may read, and a file of its own for a secret.

::

    datastores/NAME.json        kind, container, account, endpoint, which credentials; never a secret
    secrets/NAME.account_key    one line, mode 0600, in a folder of mode 0700
    secrets/NAME.sas_token
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpi_prs.child.context.data import ANONYMOUS, DatastoreRecord, read_datastore
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.files import replacing
from mpi_prs.core.records import add_json, locked, write_json
from mpi_prs.core.urls import is_url

FROM_ENVIRONMENT = "environment"
ACCOUNT_KEY = "account_key"
SAS_TOKEN = "sas_token"  # the kind of secret, none itself
SECRETS = (ACCOUNT_KEY, SAS_TOKEN)


def is_taken(layout: WorkspaceFolder, name: str) -> bool:
    """Whether a datastore of this name was registered, or is one of the two that every workspace has."""
    return read_datastore(layout, name) is not None


def add_record(
    layout: WorkspaceFolder, name: str, record: DatastoreRecord, secret: str | None, *, overwrite: bool
) -> bool:
    """Register a datastore with its secret; of several at once, each is registered whole.

    Args:
        secret: what the record's ``credentials`` name, one line.
        overwrite: in place of one that is there.

    Returns:
        whether it was done; ``False``: the name is taken.

    Raises:
        WorkspaceError: it cannot be written.
    """
    path = layout.datastore(name)
    with locked(path):
        if not overwrite and is_taken(layout, name):
            return False
        if secret is not None:  # first: whoever sees the record finds the secret
            _write_secret(layout.secret(name, record.credentials), secret)
        data = {key: value for key, value in asdict(record).items() if value is not None}
        if overwrite:
            write_json(path, data)
        elif not add_json(path, data):
            return False
        _remove_secrets(layout, name, keep=record.credentials)
    return True


def remove_record(layout: WorkspaceFolder, name: str) -> bool:
    """Forget a datastore and its secret; whether there was one. Its data stay where they are.

    Raises:
        WorkspaceError: it cannot be removed.
    """
    path = layout.datastore(name)
    with locked(path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise WorkspaceError(f"cannot remove {path}: {error.strerror}. Is it your workspace?") from error
        _remove_secrets(layout, name)
    return True


def storage_values(
    layout: WorkspaceFolder, name: str, record: DatastoreRecord, endpoints: Mapping[str, str]
) -> dict[str, Any]:
    """How to get at a blob container: a job config's ``storage`` section, which names the file of a secret.

    Args:
        endpoints: the workspace's setting ``storage_endpoints``.
    """
    values: dict[str, Any] = {"account_name": record.account_name}
    url = account_url(record, endpoints)
    if url:
        values["account_url"] = url
    if record.credentials == ANONYMOUS:
        values["anonymous"] = True
    elif record.credentials in SECRETS:
        values[f"{record.credentials}_file"] = str(layout.secret(name, record.credentials))
    return values


def account_url(record: DatastoreRecord, endpoints: Mapping[str, str]) -> str | None:
    """The address of an account's blobs; ``None``: Azure's own."""
    endpoint, account = record.endpoint, str(record.account_name)
    if endpoint is None and record.protocol is None:
        return endpoints[account].rstrip("/") if account in endpoints else None
    if endpoint is not None and is_url(endpoint):
        return endpoint.rstrip("/")
    return f"{record.protocol or 'https'}://{account}.blob.{(endpoint or 'core.windows.net').strip('/.')}"


def mount_point(record: DatastoreRecord, endpoints: Mapping[str, str]) -> Path:
    """Where a file share is mounted. Raises WorkspaceError: nothing says it."""
    if record.folder is not None:
        return Path(record.folder)
    account = str(record.account_name)
    url = endpoints.get(account, "")
    if not url.startswith("file:///"):
        raise WorkspaceError(
            f"nothing says where the file share {record.container!r} of {account!r} is mounted: give folder=…, or the "
            f'workspace\'s setting: ws.update_settings(storage_endpoints={{"{account}": "file:///mnt/{account}"}})'
        )
    return Path(url[len("file://") :], str(record.container))


# Secrets


def _write_secret(path: Path, secret: str) -> None:
    """Write a secret that only its owner can read, at no moment anybody else, whatever the umask says."""
    folder = path.parent
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(folder, mode=0o700)
        _for_the_owner_alone(folder)
        with replacing(path, lasting=True, mode=0o600) as file:
            file.write(secret.encode() + b"\n")
    except OSError as error:
        raise WorkspaceError(
            f"cannot keep a secret in {folder}: {error.strerror}. Leave it in the environment (AZURE_STORAGE_…), and "
            "give credentials_from_environment=True"
        ) from error


def _for_the_owner_alone(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise WorkspaceError(
            f"{folder} belongs to {_user(found.st_uid)}, who alone can keep secrets in this workspace. Leave yours in "
            "the environment (AZURE_STORAGE_…), and give credentials_from_environment=True"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _remove_secrets(layout: WorkspaceFolder, name: str, keep: str = "") -> None:
    """Those that nothing refers to any more."""
    for kind in SECRETS:
        if kind != keep:
            with contextlib.suppress(OSError):
                layout.secret(name, kind).unlink()

"""What a registration of a datastore has to be, and trying whether it works."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi_prs.azureml.datastores.records import (
    ACCOUNT_KEY,
    FROM_ENVIRONMENT,
    SAS_TOKEN,
    add_record,
    is_taken,
)
from mpi_prs.child.context.data import ANONYMOUS, DatastoreRecord
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import InputError, OutputError, WorkspaceError
from mpi_prs.core.secrecy import scrub
from mpi_prs.core.urls import is_url, is_web
from mpi_prs.storage.accounts import ConnectionString
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.remote import check_container, create_container
from mpi_prs.storage.stores import StoreProblem

_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}|\$root|\$web|\$logs")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")


def text(parameter: str, value: object) -> str:
    """``value``, if it is one line of text. Raises WorkspaceError."""
    if not isinstance(value, str):
        raise WorkspaceError(f"{parameter} is text, but got a value of type {type(value).__name__}")
    if not value.strip() or not value.isprintable() or "/" in value:
        raise WorkspaceError(f"{parameter} is one line of text without slashes, but got {value!r}")
    return value.strip()


def folder_path(folder: object) -> str:
    """A folder as an absolute path. Raises WorkspaceError: it is no path of a folder."""
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder) or is_url(str(os.fspath(folder))):
        raise WorkspaceError(f"folder is the path of a folder that all nodes see, but got {folder!r}")
    return os.path.abspath(os.path.expanduser(str(os.fspath(folder))))


def check_folder(folder: Path, create: bool, skip: bool) -> None:
    """Look whether a folder is there, or make it. Raises WorkspaceError."""
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        if skip or folder.is_dir():
            return
    except OSError as error:
        raise WorkspaceError(f"cannot make the folder {folder}: {error.strerror}") from error
    what = "is a file, not a folder" if folder.exists() else "is not there"
    raise WorkspaceError(
        f"{folder} {what}; correct the path, or give create_if_not_exists=True, or skip_validation=True if only the "
        "nodes see it"
    )


def blob_record(
    container: object,
    account: object,
    *,
    sas_token: object,
    account_key: object,
    protocol: object,
    endpoint: object,
    connection_string: object,
    from_environment: bool,
) -> tuple[DatastoreRecord, str | None]:
    """The record of a blob container, and its secret.

    Raises:
        WorkspaceError: a value is not what it should be, or they do not go together; no secret is in the text.
    """
    name = text("container_name", container)
    if not _CONTAINER.fullmatch(name):
        raise WorkspaceError(
            f"container_name: {name!r}: expected 3 to 63 lower-case letters, digits and single hyphens, no hyphen at "
            "either end"
        )
    if connection_string is not None:
        given = {"sas_token": sas_token, "account_key": account_key, "protocol": protocol, "endpoint": endpoint}
        also = [key for key, value in given.items() if value]
        if also or from_environment:
            raise WorkspaceError(
                f"connection_string and {also[0] if also else 'credentials_from_environment'} are both given; the "
                "connection string says it all, leave the other out"
            )
        said = _parsed(connection_string)
        if account is not None and account != said.account:
            raise WorkspaceError(f"account_name is {account!r}, but the connection string is that of another account")
        account, endpoint = said.account, said.endpoint
        sas_token, account_key = said.sas_token, said.account_key
    if account is None:
        raise WorkspaceError("account_name is missing: give the name of the storage account, or a connection_string")
    account = text("account_name", account)
    if not _ACCOUNT.fullmatch(account):
        raise WorkspaceError(f"account_name: {account!r}: expected 3 to 24 lower-case letters and digits")
    if protocol not in (None, "http", "https"):
        raise WorkspaceError(f"protocol is 'https' or 'http', but got {protocol!r}")
    credentials, secret = _credentials(sas_token, account_key, from_environment)
    record = DatastoreRecord(
        "blob",
        container=name,
        account_name=account,
        protocol=None if protocol is None else str(protocol),
        endpoint=None if endpoint is None else _endpoint(endpoint),
        credentials=credentials,
    )
    return record, secret


def _endpoint(value: object) -> str:
    expected = (
        "endpoint is a suffix such as core.windows.net, or the whole URL of the account such as "
        "http://127.0.0.1:10000/name"
    )
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise WorkspaceError(f"{expected}, but got a value of type {type(value).__name__}")
    value = value.strip()
    if "?" in value or "@" in value:
        raise WorkspaceError(f"{expected}; a SAS token belongs into sas_token")
    if is_url(value) and not is_web(value):
        raise WorkspaceError(f"{expected}, but got {value!r}")
    return value


def _credentials(sas_token: object, account_key: object, from_environment: bool) -> tuple[str, str | None]:
    given = [name for name, value in ((SAS_TOKEN, sas_token), (ACCOUNT_KEY, account_key)) if value]
    if from_environment:
        given.append("credentials_from_environment")
    if len(given) > 1:
        raise WorkspaceError(f"{' and '.join(given)} are given; give one of them")
    if not given:
        return ANONYMOUS, None
    if from_environment:
        return FROM_ENVIRONMENT, None
    secret = sas_token or account_key
    if not isinstance(secret, str) or not secret.strip().isprintable() or not secret.strip():
        raise WorkspaceError(f"{given[0]} is one line of text")  # without it: it is a secret
    return given[0], secret.strip()


def _parsed(connection_string: object) -> ConnectionString:
    expected = "with AccountName and AccountKey or SharedAccessSignature, and BlobEndpoint where it is not Azure's own"
    if not isinstance(connection_string, str):
        raise WorkspaceError(f"the connection string is not one; expected name=value;name=value;… {expected}")
    try:
        return ConnectionString.parse(connection_string)
    except StoreProblem as error:
        raise WorkspaceError(f"{error} ({expected})") from None


def check_is_free(layout: WorkspaceFolder, name: str, overwrite: bool) -> None:
    """Raises WorkspaceError: a datastore cannot be called so, or one is already."""
    if is_taken(layout, name) and not overwrite:
        raise WorkspaceError(
            f"there is a datastore {name!r} already; give overwrite=True to register another one in its place, or "
            "choose another name"
        )


def register(layout: WorkspaceFolder, name: str, record: DatastoreRecord, secret: str | None, overwrite: bool) -> None:
    """Write a datastore down. Raises WorkspaceError: somebody else has taken the name meanwhile, or it cannot be."""
    if not add_record(layout, name, record, secret, overwrite=overwrite):
        check_is_free(layout, name, overwrite)
        raise WorkspaceError(f"the datastore {name!r} was registered by somebody else meanwhile; try again")


def try_out(name: str, record: DatastoreRecord, secret: str | None, values: Mapping[str, Any], create: bool) -> None:
    """Look whether a container can be listed, with the secret from memory; and make it before, where that is wanted.

    Raises:
        WorkspaceError: it cannot, and why.
    """
    known: dict[str, Any] = {key: value for key, value in values.items() if not key.endswith("_file")}
    if secret is not None:
        known[record.credentials] = secret
    storage = Storage(**known)
    url = f"abfs://{record.container}"
    try:
        if create:
            create_container(url, storage)
        check_container(url, storage)
    except (InputError, OutputError) as error:
        problem = scrub(str(error), storage.secrets())
        raise WorkspaceError(
            f"the datastore {name!r} was not registered: {problem}. Correct container_name, account_name, endpoint or "
            "credentials; skip_validation=True registers it all the same"
        ) from None

"""What Azure's errors mean, and what to tell the user about them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from mpi_prs.storage.azure_url import Connection
from mpi_prs.storage.credentials import scrub
from mpi_prs.storage.stores import NotThere, StoreProblem, Trouble, is_http_error

ONCE: dict[str, Any] = {"retry_total": 0, "connection_timeout": 15, "read_timeout": 60}
"""For each request by the client: what is tried again is ours to say."""

_TRANSIENT = (408, 429, 500, 502, 503, 504)


class NoContainer(NotThere):
    """The container does not exist."""


class AzureErrors:
    """Judges the errors of one storage account.

    Args:
        connection: which account, and what credentials.
        secrets: may be in no text.
    """

    def __init__(self, connection: Connection, secrets: Sequence[str]) -> None:
        self._connection = connection
        self._secrets = secrets

    def shown(self) -> str:
        """The account, for a message."""
        account = f"the storage account {self._connection.account!r}" if self._connection.account else "the store"
        return f"{account} ({scrub(self._connection.address)})"

    def judge(self, error: Exception) -> Trouble | None:
        """What an error means; ``None``: it is none of the store's or the network's."""
        from azure.core import exceptions as azure

        if isinstance(error, azure.HttpResponseError) and (error.status_code or 0) >= 400:
            return self._refused(error)
        if isinstance(error, azure.ClientAuthenticationError):
            return Trouble(StoreProblem(self._no_entry(scrub(str(error), self._secrets).partition("\n")[0])))
        if isinstance(error, azure.ServiceRequestError):
            return self._unreachable(error)
        if isinstance(error, (azure.AzureError, OSError, asyncio.TimeoutError)) or is_http_error(error):
            text = scrub(str(error), self._secrets).partition("\n")[0] or type(error).__name__
            return Trouble(StoreProblem(f"the connection to {self.shown()} broke ({text})"), transient=True)
        return None

    def _refused(self, error: Any) -> Trouble:
        status = error.status_code
        code = str(getattr(error.error_code, "value", error.error_code) or getattr(error, "reason", None) or "")
        headers = getattr(error.response, "headers", {})
        shown = scrub(f"{code}, HTTP {status}".removeprefix(", "), self._secrets)
        if status in _TRANSIENT:
            pause = headers.get("Retry-After", "")
            return Trouble(
                StoreProblem(f"{self.shown()} is busy or out of order ({shown})"),
                transient=True,
                pause=float(pause) if pause.isdigit() else None,
            )
        if code == "ContainerNotFound":
            return Trouble(NoContainer(code))
        if status in (401, 403) or code == "PublicAccessNotPermitted":
            return Trouble(StoreProblem(self._no_entry(shown)))
        if status == 404:
            if not self._connection.credentials and code != "BlobNotFound":
                return Trouble(StoreProblem(self._no_entry(shown)))
            return Trouble(NotThere(f"it does not exist in {self.shown()}"))
        return Trouble(StoreProblem(f"{self.shown()} refuses ({shown})"))

    def _no_entry(self, reason: str) -> str:
        kind = self._connection.credentials
        if not kind:
            return (
                f"{self.shown()} gives nothing without credentials ({reason}); remove storage.anonymous and give "
                "credentials, or check that the container exists and is public"
            )
        if kind == "identity":
            return (
                f"no credentials for {self.shown()} ({reason}); set AZURE_STORAGE_CONNECTION_STRING, or "
                "storage.account_key_file or storage.sas_token_file, or storage.anonymous: true for public data"
            )
        if "Permission" in reason:
            return f"the {kind} for {self.shown()} does not allow this ({reason}); give one with the right to do it"
        return (
            f"the {kind} for {self.shown()} is not accepted ({reason}); check that it is right and not expired, "
            "and that the account lets this network in"
        )

    def _unreachable(self, error: Any) -> Trouble:
        causes = []
        cause: BaseException | None = error
        while cause is not None and cause not in causes:
            causes.append(cause)
            cause = getattr(cause, "os_error", None) or cause.__cause__ or getattr(cause, "inner_exception", None)
        address = scrub(self._connection.address)
        for each in causes:
            if isinstance(each, socket.gaierror):
                problem = (
                    f"no server has the name in {address} ({each.strerror}); check the name of the storage account, "
                    "and that this node reaches the network"
                )
                return Trouble(StoreProblem(problem), transient=True, reached=False)
        text = scrub(str(error), self._secrets).partition("\n")[0]
        return Trouble(StoreProblem(f"cannot connect to {address} ({text})"), transient=True, reached=False)

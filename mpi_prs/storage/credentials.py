"""How to get at a remote store: URLs and credentials, as values.

Secrets live in :class:`Storage`, in memory. They are in no text that this module gives out: not in ``repr``, not in
:meth:`Storage.public`, not in an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import InputError
from mpi_prs.core.secrecy import holds_secret, looks_secret, scrub

ENVIRONMENT = (
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_ANON",
)
"""Variables that say how to get at Azure, where the job does not."""


@dataclass(frozen=True)
class Storage:
    """How to get at a remote store. What is not given is taken from the environment.

    Attributes:
        account_name: of the storage account; default: from the URL, or ``AZURE_STORAGE_ACCOUNT_NAME``.
        account_url: the store's own address, such as ``http://127.0.0.1:10000/name``; default: Azure's.
        connection_string: default: ``AZURE_STORAGE_CONNECTION_STRING``.
        account_key_file: a file that holds the account key and nothing else.
        sas_token_file: a file that holds a SAS token and nothing else.
        anonymous: ask without credentials, whatever the environment says.
        options: for the fsspec filesystem, such as ``{"endpoint_url": …}`` for ``s3://``.
        account_key: the key itself; default: ``AZURE_STORAGE_ACCOUNT_KEY``.
        sas_token: the token itself; default: ``AZURE_STORAGE_SAS_TOKEN``.

    Without any of these credentials, adlfs asks Azure for an identity (``az login``, a managed identity, …).
    """

    account_name: str | None = None
    account_url: str | None = None
    connection_string: str | None = field(default=None, repr=False)
    account_key_file: str | None = None
    sas_token_file: str | None = None
    anonymous: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)

    def resolved(self, environ: Mapping[str, str] = HERE) -> Storage:
        """The same with its files read, and the environment asked for what is missing.

        Credentials are taken from one place: the environment's only where none are given here.

        Raises:
            InputError: a file cannot be read.
        """
        key = self.account_key or _content(self.account_key_file, "account_key_file")
        token = self.sas_token or _content(self.sas_token_file, "sas_token_file")
        given = dataclasses.replace(
            self,
            account_name=self.account_name
            or environ.get("AZURE_STORAGE_ACCOUNT_NAME")
            or environ.get("AZURE_STORAGE_ACCOUNT"),
            account_key=key,
            sas_token=token,
            account_key_file=None,
            sas_token_file=None,
        )
        if self.connection_string or key or token or self.anonymous or self.options:
            return given
        return dataclasses.replace(
            given,
            connection_string=environ.get("AZURE_STORAGE_CONNECTION_STRING"),
            account_key=environ.get("AZURE_STORAGE_ACCOUNT_KEY") or environ.get("AZURE_STORAGE_KEY"),
            sas_token=environ.get("AZURE_STORAGE_SAS_TOKEN"),
            anonymous=environ.get("AZURE_STORAGE_ANON", "false").lower() not in ("false", "0", "f", ""),
        )

    def public(self) -> dict[str, Any]:
        """What may be shown and stored, as JSON values: no credentials, and of the options their names alone."""
        return {
            "account_name": self.account_name,
            "account_url": self.account_url and scrub(self.account_url),
            "account_key_file": self.account_key_file,
            "sas_token_file": self.sas_token_file,
            "anonymous": self.anonymous,
            "options": sorted(self.options),
        }

    def secret(self) -> dict[str, Any]:
        """Everything, as JSON values, :meth:`resolved`: for :meth:`from_secret` in another process, by memory alone.

        Raises:
            InputError: a file cannot be read.
        """
        return dataclasses.asdict(self.resolved())

    @classmethod
    def from_secret(cls, values: Mapping[str, Any]) -> Storage:
        """The inverse of :meth:`secret`."""
        return cls(**values)

    def secrets(self) -> list[str]:
        """The texts that must not be shown."""
        found = [self.account_key, self.sas_token, *_secret_options(self.options)]
        for part in (self.connection_string or "").split(";"):
            name, _, value = part.partition("=")
            if name.strip().lower() in ("accountkey", "sharedaccesssignature"):
                found.append(value)
        return sorted((text for text in found if text), key=len, reverse=True)


def _content(path: str | None, key: str) -> str | None:
    if path is None:
        return None
    try:
        text = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"storage.{key}: cannot read {path}: {reason}") from None
    if not text or "\n" in text:
        raise InputError(f"storage.{key}: {path} should hold one line and nothing else")
    return text


def _secret_options(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secret_options(value)
        elif isinstance(value, str) and looks_secret(name):
            yield value


# What is done with URLs


def check_url(url: str) -> None:
    """Refuse a URL that holds a secret: URLs are kept in the run directory.

    Raises:
        InputError: with the URL scrubbed.
    """
    if holds_secret(url):
        raise InputError(
            f"{scrub(url)} holds a secret, and URLs are written down. Put it where it stays one: a SAS token into "
            "storage.sas_token_file or AZURE_STORAGE_SAS_TOKEN, a password into storage.options"
        )

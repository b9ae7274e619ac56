"""URLs of Azure's blob storage, and which account and credentials they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from mpi_prs.core.urls import is_url, is_web, percent_encoded
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.stores import StoreProblem

_SCHEMES = ("abfs", "abfss", "az")
_HOST = re.compile(
    r"([a-z0-9]+)\.(?:blob|dfs)\.(core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net|cloudapi\.de))"
)


class AzureUrl(NamedTuple):
    """A URL, taken apart.

    Attributes:
        account_in_url: the account that it names; empty: none.
        host: of the account's blobs; empty: Azure's own.
        container: of the account.
        path: in the container; may be empty.
        prefix: the URL up to the path.
        quoted: whether names in it are percent-encoded.
    """

    account_in_url: str
    host: str
    container: str
    path: str
    prefix: str
    quoted: bool

    def url_of(self, name: str) -> str:
        """The URL of a blob in the same container."""
        return self.prefix + (percent_encoded(name) if self.quoted else name)


def is_azure(url: str, storage: Storage) -> bool:
    """Whether a URL is one of Azure's blob storage."""
    scheme, _, rest = url.partition("://")
    if scheme in _SCHEMES:
        return True
    if not is_web(url):
        return False
    return _is_below(url, storage.account_url) or _HOST.fullmatch(rest.partition("/")[0].lower()) is not None


def _is_below(url: str, account_url: str | None) -> bool:
    return bool(account_url) and url.startswith(str(account_url).rstrip("/") + "/")


def parse(url: str, storage: Storage) -> AzureUrl:
    """Take a URL apart for which :func:`is_azure` holds. Raises StoreProblem: it names no container."""
    scheme, _, rest = url.partition("://")
    if scheme in _SCHEMES:
        authority, _, path = rest.partition("/")
        container, _, host = authority.partition("@")
        account = host.partition(".")[0]
        match = _HOST.fullmatch(host.lower())
        parsed = AzureUrl(
            account,
            f"{match[1]}.blob.{match[2]}" if match else host,
            container,
            path,
            f"{scheme}://{authority}/",
            False,
        )
    else:
        account = host = ""
        if _is_below(url, storage.account_url):
            base = str(storage.account_url).rstrip("/") + "/"
        else:
            authority = rest.partition("/")[0]
            match = _HOST.fullmatch(authority.lower())
            assert match is not None
            account, host = match[1], f"{match[1]}.blob.{match[2]}"
            base = f"{scheme}://{authority}/"
        container, _, path = url[len(base) :].partition("/")
        parsed = AzureUrl(account, host, unquote(container), unquote(path), f"{base}{container}/", True)
    if not parsed.container:
        raise StoreProblem("the URL names no container; expected one such as abfs://container/path")
    return parsed


@dataclass(frozen=True)
class Connection:
    """How to connect to an account.

    Attributes:
        options: arguments of ``adlfs.AzureBlobFileSystem``.
        account: its name; may be empty for an address of one's own.
        address: where it is, for messages.
        credentials: what they are, for messages; empty: there are none.
    """

    options: dict[str, Any]
    account: str
    address: str
    credentials: str


def connection(url: AzureUrl, storage: Storage) -> Connection:
    """Which account, and which credentials.

    What is known becomes a connection string, since adlfs would mix anything else with the environment's.

    Args:
        storage: resolved.

    Raises:
        StoreProblem: no account is named, two different ones are, or the connection string is none.
    """
    said = ConnectionString.parse(storage.connection_string) if storage.connection_string else None
    owner = "" if said is None else said.account
    if owner and url.account_in_url and owner != url.account_in_url:
        raise StoreProblem(
            f"the URL names the storage account {url.account_in_url!r}, but the connection string is that of "
            f"{owner!r}; give the credentials of the right account"
        )
    account = url.account_in_url or owner or storage.account_name or account_at(storage.account_url)
    if said is not None:
        options = {"connection_string": storage.connection_string, **storage.options}
        return Connection(options, account, said.endpoint, "connection string")
    if not account:
        raise StoreProblem(
            "no storage account is named; write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/…, or give "
            "storage.account_name or AZURE_STORAGE_ACCOUNT_NAME, or a connection string"
        )
    endpoint = storage.account_url or f"https://{url.host or account + '.blob.core.windows.net'}"
    if storage.account_key:
        text, credentials = f";AccountName={account};AccountKey={storage.account_key}", "account key"
    elif storage.sas_token:
        text, credentials = f";SharedAccessSignature={storage.sas_token.removeprefix('?')}", "SAS token"
    elif storage.anonymous:
        text, credentials = "", ""
    else:
        options = {"account_name": account, "account_host": endpoint.partition("://")[2].rstrip("/"), "anon": False}
        return Connection({**options, **storage.options}, account, endpoint, "identity")
    return Connection({"connection_string": f"BlobEndpoint={endpoint}{text}"}, account, endpoint, credentials)


@dataclass(frozen=True)
class ConnectionString:
    """What a connection string says; empty: it does not.

    Attributes:
        account: the storage account.
        endpoint: the URL of its blob service.
        account_key, sas_token: the secret.
    """

    account: str
    endpoint: str
    account_key: str = field(repr=False)
    sas_token: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> ConnectionString:
        """What ``name=value;name=value;…`` says, names in any case, as Azure's own SDK reads it.

        Raises:
            StoreProblem: it is none, or names neither an account nor an address.
        """
        fields = {}
        for part in filter(None, map(str.strip, text.split(";"))):
            name, equals, value = part.partition("=")
            if not equals:
                raise StoreProblem("the connection string is not one; expected name=value;name=value;…")
            fields[name.strip().lower()] = value.strip()
        if fields.get("usedevelopmentstorage") == "true":
            fields = _DEVELOPMENT_STORAGE
        account, endpoint = fields.get("accountname", ""), fields.get("blobendpoint", "")
        if not account and not endpoint:
            raise StoreProblem("the connection string names neither AccountName nor BlobEndpoint")
        if not endpoint:
            scheme, suffix = fields.get("defaultendpointsprotocol", "https"), fields.get("endpointsuffix")
            endpoint = f"{scheme}://{account}.blob.{suffix or 'core.windows.net'}"
        secrets = fields.get("accountkey", ""), fields.get("sharedaccesssignature", "")
        return cls(account or account_at(endpoint), endpoint, *secrets)


# The emulator's (Azurite's), the same everywhere and no secret:
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite#well-known-storage-account-and-key
_DEVELOPMENT_STORAGE = {
    "accountname": "devstoreaccount1",
    "accountkey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "blobendpoint": "http://127.0.0.1:10000/devstoreaccount1",
}


def account_at(address: str | None) -> str:
    """The account of an address: the first label of a name, or the first folder behind a number."""
    if not address:
        return ""
    parts = urlsplit(address if is_url(address) else f"https://{address}")
    host = parts.hostname or ""
    if re.fullmatch(r"[0-9.]+|localhost|.*:.*", host) or "." not in host:
        return parts.path.strip("/").partition("/")[0]
    return host.partition(".")[0]

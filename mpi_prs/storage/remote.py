"""Data in a remote store: whatever fsspec opens, Azure's blob storage (by way of adlfs) above all.

::

    list_urls(pattern)   master: URLs and sizes, by the rules of data/files.py
    RemoteFiles          workers: parts of a file, by ranged reads
    download(pairs)      workers: whole files, many at a time          (storage/downloading.py)

Nothing of fsspec or adlfs is imported before the first URL: most jobs have none. What goes wrong in passing is tried
again for a while (:data:`~mpi_prs.storage.stores.PATIENCE`); what cannot get better is said at once.

Secrets live in :class:`Storage`, in memory. They are in no text that this module gives out: not in ``repr``, not in
:meth:`Storage.public`, not in an error.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mpi_prs.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from mpi_prs.storage.stores import Store

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

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET_OPTION = re.compile(r"key|token|secret|passw|credential|connection_string|sas", re.IGNORECASE)
_SIGNED = re.compile(r"[?&](sig|X-Amz-Signature|X-Goog-Signature)=", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_IN_TEXT = (
    (re.compile(r"((?:sig|X-Amz-Signature|X-Goog-Signature)=)[^&\s\"'<>]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"((?:AccountKey|SharedAccessSignature)=)[^;\s\"']+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(://[^/:@\s]*:)[^/@\s]+@"), r"\1***@"),
)


def is_url(text: str) -> bool:
    """Whether this names something by URL, such as ``abfs://container/path``, and not by path."""
    return _URL.match(text) is not None


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

    def resolved(self, environ: Mapping[str, str] = os.environ) -> Storage:
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
        elif isinstance(value, str) and _SECRET_OPTION.search(name):
            yield value


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """A text without these secrets, and without whatever looks like a key, a signature or a password in a URL."""
    for secret in secrets:
        text = text.replace(secret, "***")
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


# What is done with URLs


def list_urls(pattern: str, storage: Storage, *, hidden: bool = False) -> Iterator[tuple[str, int]]:
    """The files that a URL names, with their sizes in bytes: itself, all below it, or what it matches as a glob.

    The rules are those of :func:`mpi_prs.data.files.list_files`, as far as a store without folders allows: a blob that
    exists is taken as it is; a folder stands for all blobs under it; in a glob ``*``, ``?`` and ``[…]`` stay within a
    name and ``**`` crosses folders; hidden names are skipped unless the pattern spells out the dot. Globs look only
    below their part without wildcards. In a URL that begins with ``http`` names are percent-encoded.

    Args:
        pattern: the URL.
        storage: how to get at the store.
        hidden: take hidden names too.

    Yields:
        In the order of the store, which is that of the names. One page (5,000 blobs) and the next are in memory.

    Raises:
        InputError: nothing is found, or the store cannot be reached or refuses.
    """
    from mpi_prs.storage.stores import StoreProblem

    check_url(pattern)
    try:
        found = False
        for each in store_of(pattern, storage).list(pattern, hidden):
            found = True
            yield each
    except StoreProblem as problem:
        raise InputError(f"cannot list {pattern}: {problem}") from None
    if not found:
        raise InputError(
            f"nothing is found at {pattern}: there is neither a file of this name nor any file below it or matching it"
            + ("" if hidden else " (hidden ones do not count)")
        )


def check_url(url: str) -> None:
    """Refuse a URL that holds a secret: URLs are kept in the run directory.

    Raises:
        InputError: with the URL scrubbed.
    """
    if _SIGNED.search(url) or _PASSWORD.search(url):
        raise InputError(
            f"{scrub(url)} holds a secret, and URLs are written down. Put it where it stays one: a SAS token into "
            "storage.sas_token_file or AZURE_STORAGE_SAS_TOKEN, a password into storage.options"
        )


class RemoteFiles:
    """Opens and measures files by URL; implements :class:`~mpi_prs.data.tables.format.Files`. For any thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def open(self, path: str) -> BinaryIO:
        """Open for reading, seekable; each read is a ranged request (or several at once) to the store.

        A blob that is replaced while it is open is not read as a mixture: the read raises InputError.

        Raises:
            InputError: it does not exist, or the store cannot be reached or refuses.
        """
        store, found = self._look_up(path)
        return io.BufferedReader(_RangedFile(store, path, found.size, found.version), _BUFFER)

    def size(self, path: str) -> int:
        """In bytes. Raises InputError."""
        size: int = self._look_up(path)[1].size
        return size

    def _look_up(self, url: str) -> tuple[Store, Any]:
        from mpi_prs.storage.stores import run

        check_url(url)
        with reading(url):
            store = store_of(url, self._storage)
            return store, run(store.look_up(url))


_BUFFER = 256 * 1024


class _RangedFile(io.RawIOBase):
    """A file of a store, without a buffer."""

    def __init__(self, store: Store, url: str, size: int, version: str) -> None:
        self._store = store
        self._url = url
        self._size = size
        self._version = version
        self._place = 0
        self.name = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence])
        return self._place

    def readinto(self, buffer: WriteableBuffer) -> int:
        from mpi_prs.storage.stores import run

        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size - self._place)
        if length <= 0:
            return 0
        with reading(self._url):
            run(self._store.read_into(self._url, self._place, view[:length], self._version))
        self._place += length
        return length


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Turn a store's problem with a URL into an InputError."""
    from mpi_prs.storage.stores import StoreProblem

    try:
        yield
    except StoreProblem as problem:
        raise InputError(f"cannot read {url}: {problem}") from None


def store_of(url: str, storage: Storage) -> Store:
    """The store of a URL. Raises StoreProblem, and InputError: a file of credentials cannot be read."""
    from mpi_prs.storage.stores import store_for

    return store_for(url, storage)

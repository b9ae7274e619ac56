"""The stores of this process: one for each place and set of credentials."""

from __future__ import annotations

import dataclasses
import json
import os
import threading

from mpi_prs.storage import azure_url
from mpi_prs.storage.azure_store import AzureStore
from mpi_prs.storage.credentials import ENVIRONMENT, Storage
from mpi_prs.storage.fsspec_store import FsspecStore
from mpi_prs.storage.stores import Store

_stores: dict[str, Store] = {}
_stores_lock = threading.Lock()


def store_for(url: str, storage: Storage) -> Store:
    """The store of a URL; one for each place and set of credentials, kept as long as the process.

    Raises:
        StoreProblem: the URL or the credentials cannot be used, or a package is missing.
        InputError: a file of credentials cannot be read.
    """
    is_azure = azure_url.is_azure(url, storage)
    place = azure_url.parse(url, storage).account_in_url if is_azure else url.partition("://")[0]
    environment = [os.environ.get(name) for name in ENVIRONMENT]
    key = json.dumps([place, is_azure, dataclasses.asdict(storage), environment], default=repr)
    with _stores_lock:
        if key not in _stores:
            _stores[key] = _make(url, storage.resolved(), is_azure)
        return _stores[key]


def _make(url: str, storage: Storage, is_azure: bool) -> Store:
    if is_azure:
        return AzureStore(url, storage)

    return FsspecStore(url, storage)

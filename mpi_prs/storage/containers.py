"""Containers of a storage account: is there one, may it be listed, make one."""

from __future__ import annotations

from contextlib import closing
from typing import Any, cast

from mpi_prs.core.errors import InputError, OutputError
from mpi_prs.storage.azure_store import AzureStore
from mpi_prs.storage.credentials import Storage, check_url
from mpi_prs.storage.remote import store_of
from mpi_prs.storage.stores import StoreProblem, run


def check_container(url: str, storage: Storage) -> None:
    """Look whether a container is there and can be listed: one request.

    Args:
        url: of the container, such as ``abfs://container``.
        storage: how to get at the store.

    Raises:
        InputError: it is not there, or the store refuses or cannot be reached.
    """
    check_url(url)
    try:
        # A generator that is closed after the first blob: the listing behind it ends
        with closing(cast(Any, store_of(url, storage).list(url, True))) as listing:
            next(listing, None)
    except StoreProblem as problem:
        raise InputError(f"cannot list {url}: {problem}") from None


def create_container(url: str, storage: Storage) -> bool:
    """Make a container of Azure's blob storage, unless it is there; whether it was made.

    Raises:
        OutputError: the store refuses or cannot be reached.
        InputError: a file of credentials cannot be read.
    """
    check_url(url)
    try:
        store = store_of(url, storage)
        assert isinstance(store, AzureStore)
        return run(store.create_container, url)
    except StoreProblem as problem:
        raise OutputError(f"cannot make the container {url}: {problem}") from None

"""Folders in which a log says what is data: tables of Delta Lake, Iceberg and Hudi.

Their Parquet files hold rows that have been deleted or replaced since, so a list of all files is another table. They
are recognised and refused with advice. Files that are named one by one are taken: that is how one version is read.
On a filesystem it costs nothing: their logs are seen where the folders are scanned.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mpi_prs.core.errors import InputError
from mpi_prs.core.urls import Names, is_glob, literal
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.remote import list_any

_LOOKED_AT = 1000  # names in a folder


@dataclass(frozen=True)
class _Lake:
    """A kind of table: where its log is in the folder, what names in there look like, and how to get at its rows."""

    name: str
    log: str
    names: str
    advice: str


_LAKES = (
    _Lake(
        "Delta Lake",
        "_delta_log",
        r"\d{20}\..*(json|parquet)|_last_checkpoint",
        "write its rows to a folder of their own: pyarrow.dataset.write_dataset("
        "deltalake.DeltaTable({folder!r}).to_pyarrow_dataset(), 'copy', format='parquet'). Or name under `table` the "
        "files that deltalake.DeltaTable({folder!r}).file_uris() gives",
    ),
    _Lake(
        "Iceberg",
        "metadata",
        r"(v\d+|\d{5}-[0-9a-f-]{36})\.(gz\.)?metadata\.json|version-hint\.text",
        "write its rows to a folder of their own: pyarrow.dataset.write_dataset("
        "pyiceberg.table.StaticTable.from_metadata('…/vN.metadata.json').scan().to_arrow(), 'copy', format='parquet')",
    ),
    _Lake(
        "Apache Hudi",
        ".hoodie",
        r"hoodie\.properties",
        "write its rows to a folder of their own, with Spark: spark.read.format('hudi').load({folder!r})"
        ".write.parquet('copy')",
    ),
)


LOGS = frozenset(os.fsencode(lake.log) for lake in _LAKES)
"""Names of the folders that such tables keep their logs in."""


def refuse_lake(folder: bytes) -> None:
    """Raises InputError: a folder of the filesystem, in which one of :data:`LOGS` is, is such a table."""
    if b"=" not in os.path.basename(folder.rstrip(b"/")):  # a partition is no table
        _refuse(os.fsdecode(folder.rstrip(b"/")), _names_below)


def refuse_remote_lakes(pattern: str, paths: Iterator[bytes], storage: Storage) -> Iterator[bytes]:
    """The same paths, once the folder has been looked at.

    Args:
        pattern: a URL.
        paths: those that it stands for.
        storage: how to get at the store.

    Raises:
        InputError: they belong to such a table.
    """
    first = next(paths, None)
    if first is None:
        return
    if os.fsdecode(first) != pattern:
        root = literal(pattern) if is_glob(pattern) else pattern

        def names_below(folder: str) -> Iterator[str]:
            try:
                for each in list_any(f"{folder}/", storage, Names.ALL):
                    yield each.url.rpartition("/")[2]
            except InputError:
                return  # a store that cannot be listed here

        _refuse(root.rstrip("/"), names_below)
    yield first
    yield from paths


def _names_below(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name
    except OSError:
        return


def _refuse(folder: str, names_below: Callable[[str], Iterator[str]]) -> None:
    for lake in _LAKES:
        names = itertools.islice(names_below(f"{folder.rstrip('/')}/{lake.log}"), _LOOKED_AT)
        if any(re.fullmatch(lake.names, name) for name in names):
            raise InputError(
                f"{folder} is a table of {lake.name}: which rows of its files count, its log in {lake.log} says, and "
                f"all files together hold rows that were deleted or replaced; {lake.advice.format(folder=folder)}"
            )

"""Datasets as values: what the data is and where it lies. Nothing is read until a run lists it.

>>> FileDataset.from_files("scans/**/*.npy")
>>> TabularDataset.from_delimited_files("sales/*.csv", separator=";", column_types={"zip": "string"})

A job config's ``inputs`` come down to these, and programs can make them as well. ``storage`` says how to get at a
remote store; ``partition_format`` reads partition keys from the paths: ``{user}/{date:yyyy/MM}/{name}.wav``, or
``hive`` for folders named ``key=value``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mpi_prs.inputs.formats.format import TableFormat
from mpi_prs.inputs.listing import FileInput, list_files
from mpi_prs.inputs.partition_format import PartitionFormat
from mpi_prs.storage.credentials import Storage, is_url
from mpi_prs.storage.remote import list_urls

HIVE = "hive"
"""The ``partition_format`` of folders named ``key=value``."""

Mode = Literal["mount", "download", "direct"]


@dataclass(frozen=True)
class Dataset:
    """What both kinds of dataset have.

    Attributes:
        input: the files.
        partition_format: how partition keys are read from the paths; ``None``: there are none.
        storage: how to get at a remote store.
    """

    input: FileInput
    partition_format: str | None = None
    storage: Storage = field(default_factory=Storage)

    @property
    def partition_keys(self) -> tuple[str, ...]:
        """The keys that ``partition_format`` names; those of Hive-style folders are known only from the folders."""
        if self.partition_format is None or self.partition_format == HIVE:
            return ()
        return PartitionFormat.parse(self.partition_format).keys

    def files(self) -> Iterator[str]:
        """:meth:`paths` as text, as :func:`os.fsdecode` gives it."""
        return map(os.fsdecode, self.paths())

    def paths(self) -> Iterator[bytes]:
        """Absolute paths and URLs, in the order of the inputs.

        Raises:
            InputError: see :func:`~mpi_prs.inputs.listing.list_files` and :func:`~mpi_prs.storage.remote.list_urls`.
        """
        if self.input.files_from is not None:
            yield from list_files(self.input)
            return
        for pattern in self.input.files:
            if is_url(pattern):
                yield from (os.fsencode(url) for url, _size in list_urls(pattern, self.storage))
            else:
                yield from list_files(FileInput((pattern,), base=self.input.base))

    @property
    def is_remote(self) -> bool:
        """Whether some of the files are reached by URL."""
        return any(map(is_url, self.input.files))


@dataclass(frozen=True)
class FileDataset(Dataset):
    """Files: ``run()`` gets a list of paths.

    Attributes:
        mode: ``mount``: paths that exist when ``run()`` sees them, remote files are fetched for it; ``download``: all
            files are brought to node-local scratch first; ``direct``: what was listed, URLs as URLs.
    """

    mode: Mode = "mount"

    @classmethod
    def from_files(
        cls,
        path: str | Sequence[str],
        *,
        mode: Mode = "mount",
        partition_format: str | None = None,
        storage: Storage | None = None,
        base: Path | None = None,
    ) -> FileDataset:
        """The files that paths, folders, globs or URLs name; relative ones are relative to ``base``."""
        return cls(_input(path, base), partition_format, storage or Storage(), mode)

    @property
    def is_staged(self) -> bool:
        """Whether files are brought to node-local scratch before ``run()`` sees them."""
        return self.mode == "download" or (self.mode == "mount" and self.is_remote)


@dataclass(frozen=True, kw_only=True)
class TabularDataset(Dataset):
    """Rows: ``run()`` gets a ``pandas.DataFrame``, or a dict of numpy arrays (HDF5 of more dimensions).

    Attributes:
        format: the file format with its options.
        path_column: name of a column to add, with the path of the file that a row is from.
        drop_columns: columns to leave out, be they of the files, of the partition keys or ``path_column``. Partition
            keys that are no columns are partition keys still.
    """

    format: TableFormat
    path_column: str | None = None
    drop_columns: tuple[str, ...] = ()

    def paths(self) -> Iterator[bytes]:
        """As of every dataset; names with a leading underscore (``_SUCCESS``, ``_metadata``) are no tables, unless a
        pattern spells the underscore out."""
        spelled_out = any(re.search(r"/_[^/]*$", f"/{pattern}") for pattern in self.input.files)
        return (path for path in super().paths() if spelled_out or path.rpartition(b"/")[2][:1] != b"_")

    @classmethod
    def from_format(
        cls,
        path: str | Sequence[str],
        format: TableFormat,
        *,
        path_column: str | None = None,
        drop_columns: Sequence[str] = (),
        partition_format: str | None = None,
        storage: Storage | None = None,
        base: Path | None = None,
    ) -> TabularDataset:
        """Rows of files in any of the formats; see the classmethods below for one of them each."""
        return cls(
            _input(path, base),
            partition_format,
            storage or Storage(),
            format=format,
            path_column=path_column,
            drop_columns=tuple(drop_columns),
        )

    @classmethod
    def from_delimited_files(cls, path: str | Sequence[str], **options: Any) -> TabularDataset:
        """Delimited text; options are those of ``Delimited`` and of :meth:`from_format`."""
        from mpi_prs.inputs.formats.delimited.splitting import Delimited

        return cls._from_files(path, Delimited, options)

    @classmethod
    def from_parquet_files(cls, path: str | Sequence[str], **options: Any) -> TabularDataset:
        """Parquet; options are those of ``Parquet`` and of :meth:`from_format`."""
        from mpi_prs.inputs.formats.parquet.reading import Parquet

        return cls._from_files(path, Parquet, options)

    @classmethod
    def from_json_lines_files(cls, path: str | Sequence[str], **options: Any) -> TabularDataset:
        """JSON, an object a line; options are those of ``JsonLines`` and of :meth:`from_format`."""
        from mpi_prs.inputs.formats.json_lines.reading import JsonLines

        return cls._from_files(path, JsonLines, options)

    @classmethod
    def from_hdf5_files(cls, path: str | Sequence[str], **options: Any) -> TabularDataset:
        """HDF5; options are those of ``Hdf5`` and of :meth:`from_format`."""
        from mpi_prs.inputs.formats.hdf5.reading import Hdf5

        return cls._from_files(path, Hdf5, options)

    def partition_by(self, columns: Sequence[str], target: Path | str) -> TabularDataset:
        """Write a copy of the rows to a new folder, as Parquet in folders ``column=value``, and return it as a dataset.

        Reads the whole dataset once, in this process. Its ``partition_keys`` in a job are some or all of ``columns``.

        Raises:
            InputError: the files cannot be read, or a column does not exist or cannot name folders.
            OutputError: the target is not empty, or cannot be written.
        """
        from mpi_prs.inputs.partition_by import partition_by
        from mpi_prs.inputs.reading import read_tables

        partition_by(read_tables(self), columns, Path(target))
        return TabularDataset.from_parquet_files(str(Path(target).absolute()), partition_format=HIVE)

    @classmethod
    def _from_files(cls, path: str | Sequence[str], format: Any, options: dict[str, Any]) -> TabularDataset:
        ours = {name: options.pop(name) for name in _DATASET_OPTIONS if name in options}
        return cls.from_format(path, format(**options), **ours)


_DATASET_OPTIONS = ("path_column", "drop_columns", "partition_format", "storage", "base")


def _input(path: str | Sequence[str], base: Path | None) -> FileInput:
    return FileInput((path,) if isinstance(path, str) else tuple(path), base=base or Path())

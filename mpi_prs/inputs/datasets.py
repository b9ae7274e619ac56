"""Datasets as values: what the data is and where it lies. Nothing is read until a run lists it.

>>> InputFiles.from_files("scans/**/*.npy")
>>> InputTable.from_delimited_files("sales/*.csv", separator=";", column_types={"zip": "string"})

A job config's ``inputs`` come down to these, and programs can make them as well. ``storage`` says how to get at a
remote store; ``partition_format`` reads partition keys from the paths: ``{user}/{date:yyyy/MM}/{name}.wav``, or
``hive`` for folders named ``key=value``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from mpi_prs.core.urls import Names, is_url
from mpi_prs.inputs.formats import FORMATS, made_of
from mpi_prs.inputs.formats.format import TableFormat
from mpi_prs.inputs.lakes import LOGS, refuse_lake, refuse_remote_lakes
from mpi_prs.inputs.listing import FileInput, Watch, list_files
from mpi_prs.inputs.partition_format import PartitionFormat
from mpi_prs.storage.credentials import Storage
from mpi_prs.storage.remote import list_urls

HIVE = "hive"
"""The ``partition_format`` of folders named ``key=value``."""

Mode = Literal["mount", "download", "direct"]


@dataclass(frozen=True)
class InputDataset:
    """What both kinds of dataset have.

    Attributes:
        input: the files.
        partition_format: how partition keys are read from the paths; ``None``: there are none.
        storage: how to get at a remote store.
    """

    input: FileInput
    partition_format: str | None = None
    storage: Storage = field(default_factory=Storage)

    names: ClassVar[Names] = Names.SEEN
    """Which names below folders and in globs are files of the dataset, unless a pattern spells others out."""

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
            InputError: see :func:`~mpi_prs.inputs.listing.list_files` and :func:`~mpi_prs.storage.remote.list_urls`; of
                tables also :mod:`~mpi_prs.inputs.lakes`.
        """
        if self.input.files_from is not None:
            yield from list_files(self.input)
            return
        for pattern in self.input.files:
            yield from self._named_by(pattern)

    def _named_by(self, pattern: str) -> Iterator[bytes]:
        if is_url(pattern):
            return (os.fsencode(url) for url, _size in list_urls(pattern, self.storage, self.names))
        return list_files(FileInput((pattern,), base=self.input.base, names=self.names))

    @property
    def is_remote(self) -> bool:
        """Whether some of the files are reached by URL."""
        return any(map(is_url, self.input.files))


@dataclass(frozen=True)
class InputFiles(InputDataset):
    """Files: ``run()`` gets a list of paths.

    Attributes:
        mode: ``mount``: paths that exist when ``run()`` sees them, remote files are fetched for it; ``download``: all
            files are brought to node-local scratch first; ``direct``: what was listed, URLs as URLs.
        members: the files are tar archives, and what in them matches one of these globs are the items; see
            :mod:`~mpi_prs.inputs.members`.
    """

    mode: Mode = "mount"
    members: tuple[str, ...] = ()

    @classmethod
    def from_files(
        cls,
        path: str | Sequence[str],
        *,
        mode: Mode = "mount",
        members: str | Sequence[str] = (),
        partition_format: str | None = None,
        storage: Storage | None = None,
        base: Path | None = None,
    ) -> InputFiles:
        """The files that paths, folders, globs or URLs name; relative ones are relative to ``base``."""
        members = (members,) if isinstance(members, str) else tuple(members)
        return cls(_input(path, base), partition_format, storage or Storage(), mode, members)

    @property
    def is_staged(self) -> bool:
        """Whether files are brought to node-local scratch before ``run()`` sees them."""
        return self.mode == "download" or bool(self.members) or (self.mode == "mount" and self.is_remote)


@dataclass(frozen=True, kw_only=True)
class InputTable(InputDataset):
    """Rows: ``run()`` gets a ``pandas.DataFrame``, or a dict of numpy arrays (HDF5 of more dimensions).

    Attributes:
        format: the file format with its options.
        path_column: name of a column to add, with the path of the file that a row is from.
        drop_columns: columns to leave out, be they of the files, of the partition keys or ``path_column``. Partition
            keys that are no columns are partition keys still.
        file_column: a column of files, of which ``run()`` gets the paths; see :mod:`~mpi_prs.inputs.row_files`.
    """

    format: TableFormat
    path_column: str | None = None
    drop_columns: tuple[str, ...] = ()
    file_column: str | None = None

    names: ClassVar[Names] = Names.DATA

    def _named_by(self, pattern: str) -> Iterator[bytes]:
        if is_url(pattern):
            return refuse_remote_lakes(pattern, super()._named_by(pattern), self.storage)
        return list_files(FileInput((pattern,), base=self.input.base, names=self.names), Watch(LOGS, refuse_lake))

    def secret(self) -> dict[str, Any]:
        """Everything, as JSON values: for :meth:`from_secret` in another process, by memory alone.

        Raises:
            InputError: a file with a secret cannot be read.
        """
        return {
            "input": {**asdict(self.input), "files_from": self.input.files_from and str(self.input.files_from)}
            | {"base": str(self.input.base), "names": self.input.names.name},
            "partition_format": self.partition_format,
            "storage": self.storage.secret() if self.is_remote else {},
            "format": type(self.format).__name__,
            "options": asdict(self.format),  # type: ignore[call-overload]  # a protocol cannot say that it is a dataclass
            "path_column": self.path_column,
            "drop_columns": self.drop_columns,
            "file_column": self.file_column,
        }

    @classmethod
    def from_secret(cls, fields: Mapping[str, Any]) -> InputTable:
        """The inverse of :meth:`secret`."""
        input = fields["input"]
        files_from = None if input["files_from"] is None else Path(input["files_from"])
        return cls(
            FileInput(tuple(input["files"]), files_from, Path(input["base"]), Names[input["names"]]),
            fields["partition_format"],
            Storage.from_secret(fields["storage"]),
            format=made_of(fields["format"], fields["options"]),
            path_column=fields["path_column"],
            drop_columns=tuple(fields["drop_columns"]),
            file_column=fields["file_column"],
        )

    @classmethod
    def from_format(
        cls,
        path: str | Sequence[str],
        format: TableFormat,
        *,
        path_column: str | None = None,
        drop_columns: Sequence[str] = (),
        file_column: str | None = None,
        partition_format: str | None = None,
        storage: Storage | None = None,
        base: Path | None = None,
    ) -> InputTable:
        """Rows of files in any of the formats; see the classmethods below for one of them each."""
        return cls(
            _input(path, base),
            partition_format,
            storage or Storage(),
            format=format,
            path_column=path_column,
            drop_columns=tuple(drop_columns),
            file_column=file_column,
        )

    @classmethod
    def from_files(cls, path: str | Sequence[str], format: str, **options: Any) -> InputTable:
        """Rows of files in the format of this name (:data:`mpi_prs.inputs.formats.FORMATS`).

        Options are those of the format and of :meth:`from_format`.
        """
        ours = {name: options.pop(name) for name in _DATASET_OPTIONS if name in options}
        return cls.from_format(path, FORMATS[format].make(**options), **ours)

    @classmethod
    def from_delimited_files(cls, path: str | Sequence[str], **options: Any) -> InputTable:
        """Delimited text, see :meth:`from_files`."""
        return cls.from_files(path, "delimited", **options)

    @classmethod
    def from_parquet_files(cls, path: str | Sequence[str], **options: Any) -> InputTable:
        """Parquet, see :meth:`from_files`."""
        return cls.from_files(path, "parquet", **options)

    @classmethod
    def from_json_lines_files(cls, path: str | Sequence[str], **options: Any) -> InputTable:
        """JSON, an object a line, see :meth:`from_files`."""
        return cls.from_files(path, "json_lines", **options)

    @classmethod
    def from_hdf5_files(cls, path: str | Sequence[str], **options: Any) -> InputTable:
        """HDF5, see :meth:`from_files`."""
        return cls.from_files(path, "hdf5", **options)


_DATASET_OPTIONS = ("path_column", "drop_columns", "file_column", "partition_format", "storage", "base")


def _input(path: str | Sequence[str], base: Path | None) -> FileInput:
    return FileInput((path,) if isinstance(path, str) else tuple(path), base=base or Path())

"""Parquet: row groups decoded as streams, and what a footer says."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow_files.agreement import Footer, read_columns, united, whose_nulls_matter
from mpi_prs.inputs.formats.arrow_files.reading import DAMAGE, ArrowFiles, Group, GroupedFile, first_line
from mpi_prs.inputs.formats.format import DamagedFile, Files, quoted

_BUFFER = 2**18
"""Bytes of a column that are read ahead at a time: a row group's column is never held as a whole."""
_TAIL = struct.Struct("<I4s")
"""The end of a file: the footer's length, and PAR1."""


@dataclass(frozen=True)
class Parquet(ArrowFiles):
    """Parquet files; see :class:`~mpi_prs.inputs.formats.arrow_files.reading.ArrowFiles`.

    Sizes in bytes count the selected columns as they are encoded in the file, before compression.
    """

    def opened(self, path: str, store: Files) -> _Opened:
        return _Opened(path, store)


class _Opened(GroupedFile):
    """An open Parquet file; its footer has been read."""

    format = "Parquet"

    def _look(self) -> None:
        self._file = pq.ParquetFile(self._raw, buffer_size=_BUFFER, pre_buffer=False)

    def groups(self) -> list[int]:
        metadata = self._file.metadata
        return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]

    def measured(self, names: Sequence[str]) -> list[Group]:
        owners = _leaves(self._file.schema_arrow)
        wanted = [number for number, owner in enumerate(owners) if owner in set(names)]
        metadata = self._file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        return [
            Group(group.num_rows, sum(group.column(number).total_uncompressed_size for number in wanted))
            for group in groups
        ]

    def footer(self, columns: Sequence[str], cast: Sequence[str]) -> Footer:
        read = set(read_columns(self._file.schema_arrow, columns))
        if self._is_signed():
            _refuse_encrypted(self.path, self._file, read)
        footer = _summary(self.path, self._file, cast, read)
        names = [
            each.name
            for each in footer.schema
            if pa.types.is_dictionary(each.type) and each.name in read and each.name not in cast
        ]
        for number in range(self._file.metadata.num_row_groups if names else 0):
            _add_categories(footer, self._file, number, names)
        return footer

    def _is_signed(self) -> bool:
        """Whether a signature follows the footer: then columns may be encrypted, although the footer is not."""
        self._raw.seek(self._store.size(self.path) - _TAIL.size)
        length, _ = _TAIL.unpack(self._raw.read(_TAIL.size))
        return bool(length != self._file.metadata.serialized_size)

    def batches(self, groups: Sequence[int], names: Sequence[str], rows: int) -> Iterator[Any]:
        batches: Iterator[Any] = self._file.iter_batches(
            rows, row_groups=list(groups), columns=list(names), use_threads=False
        )
        return batches

    def damaged(self, error: Exception) -> DamagedFile:
        why = first_line(error)
        if "decrypt" in why.lower():
            return DamagedFile(
                f"{self.path} is encrypted, and there is no key for that here; write a copy that is not ({why})"
            )
        return super().damaged(error)

    def close(self) -> None:
        self._file.close()
        super().close()


def _refuse_encrypted(path: str, file: Any, read: Collection[str]) -> None:
    """Of an encrypted column Arrow cannot be asked what the footer says: that ends the process. Reading it raises."""
    groups = [number for number in range(file.metadata.num_row_groups) if file.metadata.row_group(number).num_rows]
    encrypted = []
    for name in file.schema_arrow.names if groups else ():
        try:
            next(file.iter_batches(1, row_groups=groups[:1], columns=[name], use_threads=False), None)
        except DAMAGE as error:
            if name in read and "decrypt" in str(error).lower():
                encrypted.append(name)
    if encrypted:
        raise InputError(
            f"{path}: the columns {quoted(encrypted)} are encrypted, and there is no key for them here; select the "
            "others with `columns`, or write a copy that is not encrypted"
        )


def _add_categories(footer: Footer, file: Any, group: int, names: Sequence[str]) -> None:
    """The first row of a row group brings its dictionary with it."""
    for batch in file.iter_batches(1, row_groups=[group], columns=list(names), use_threads=False):
        for name in names:
            values = batch.column(batch.schema.get_field_index(name)).dictionary
            footer.categories[name] = united(footer.categories.get(name), values)
        return


def _summary(path: str, file: Any, also: Collection[str], read: Collection[str]) -> Footer:
    """What a file's footer says.

    Args:
        also: columns whose nulls matter whatever their type.
        read: the columns that are looked at; what the footer says of others may be encrypted.
    """
    metadata = file.metadata
    schema = _stored_schema(file.schema_arrow)
    counted = whose_nulls_matter(schema, read, also)
    wanted = {
        number: owner
        for number, owner in enumerate(_leaves(file.schema_arrow))
        if owner in counted and schema.get_field_index(owner) >= 0  # else there are two of the name
        if schema.field(owner).nullable
    }
    nulls = {each.name for each in schema if metadata.num_rows and pa.types.is_null(each.type)}
    uncounted: set[str] = set()
    for number in range(metadata.num_row_groups if wanted else 0):
        group = metadata.row_group(number)
        for leaf, owner in wanted.items():
            if not group.num_rows or owner in nulls:
                continue
            statistics = group.column(leaf).statistics
            if statistics is None or not statistics.has_null_count:
                uncounted.add(owner)
            elif statistics.null_count:
                nulls.add(owner)
    return Footer(path, metadata.num_rows, schema, nulls | uncounted, uncounted - nulls, {})


def _leaves(schema: Any) -> list[str]:
    """For each column of the file the top-level column that it is a part of, in the order of the file."""
    return [field.name for field in schema for _ in range(_leaves_of(field.type))]


def _leaves_of(type: Any) -> int:
    if isinstance(type, pa.BaseExtensionType):
        return _leaves_of(type.storage_type)
    return sum(_leaves_of(type.field(number).type) for number in range(type.num_fields)) if _is_nested(type) else 1


def _is_nested(type: Any) -> bool:
    return bool(pa.types.is_nested(type))


def _stored_schema(schema: Any) -> Any:
    """The columns of a file as Arrow reads them: of structs that have no fields nothing is stored, so one in another
    struct is left out. A column that is nothing else is null, as in pandas."""
    return pa.schema([field.with_type(_stored(field.type) or field.type) for field in schema], schema.metadata)


def _stored(type: Any) -> Any | None:
    if _leaves_of(type) == 0:
        return None
    if pa.types.is_struct(type):
        fields = [(type.field(number), _stored(type.field(number).type)) for number in range(type.num_fields)]
        return pa.struct([field.with_type(inner) for field, inner in fields if inner is not None])
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        value = type.value_field.with_type(_stored(type.value_type))
        return pa.list_(value) if pa.types.is_list(type) else pa.large_list(value)
    return type

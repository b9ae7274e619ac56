"""Arrow's own files (Feather, IPC), and streams kept in files: record batches, and what their metadata says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow_files.agreement import Footer, read_columns, whose_nulls_matter
from mpi_prs.inputs.formats.arrow_files.reading import ArrowFiles, Group, GroupedFile
from mpi_prs.inputs.formats.arrow_ipc.index import MAGIC, batches_of_file, batches_of_stream, nodes_of
from mpi_prs.inputs.formats.format import DamagedFile, Files

_FEATHER_1 = b"FEA1"


@dataclass(frozen=True)
class ArrowIpc(ArrowFiles):
    """Arrow's own files, as Feather (version 2) and ``pyarrow.ipc`` write them, and streams of ``pyarrow.ipc``, such as
    those of Hugging Face's datasets; see :class:`~mpi_prs.inputs.formats.arrow_files.reading.ArrowFiles`.

    Sizes in bytes are those of record batches in the file, all columns included.
    """

    def opened(self, path: str, store: Files) -> _Opened:
        return _Opened(path, store)


class _Opened(GroupedFile):
    """An open file; the metadata of its batches has been read."""

    format = "a file of Arrow (Feather, IPC)"

    def _look(self) -> None:
        head = self._raw.read(len(MAGIC))
        if head.startswith(_FEATHER_1):
            raise DamagedFile(
                f"{self.path} is a Feather file of version 1, which is read no longer; write it again with "
                "pandas.read_feather(FILE).to_feather(FILE)"
            )
        self._is_file = head == MAGIC
        self._raw.seek(0)
        if self._is_file:
            self._as_written = pa.ipc.open_file(self._raw).schema
            self._batches = batches_of_file(self._raw, self._store.size(self.path))
        else:
            self._as_written = pa.ipc.open_stream(self._raw).schema
            self._batches = batches_of_stream(self._raw)
        nodes = sum(nodes_of(each.type) for each in self._as_written)
        if any(len(batch.nulls) != nodes for batch in self._batches):
            raise ValueError("a record batch does not have the columns of its schema")
        self._schema = _decoded_schema(self._as_written)

    def measured(self, _names: Sequence[str]) -> list[Group]:
        return [Group(batch.rows, batch.bytes) for batch in self._batches]

    def footer(self, columns: Sequence[str], cast: Sequence[str]) -> Footer:
        read = read_columns(self._schema, columns)
        wanted = whose_nulls_matter(self._schema, read, cast)
        rows = sum(self.groups())
        nulls: set[str] = set()
        node = 0
        for field, stored in zip(self._schema, self._as_written, strict=True):
            values = node + 2 if pa.types.is_run_end_encoded(stored.type) else node
            node += nodes_of(stored.type)
            counted = field.name in wanted and any(batch.nulls[values] for batch in self._batches)
            if counted or (rows and pa.types.is_null(field.type)):
                nulls.add(field.name)
        if not self._is_file:
            self._refuse_categories()
        categories = {}
        categorical = [
            each.name
            for each in self._schema
            if pa.types.is_dictionary(each.type) and each.name in read and each.name not in cast
        ]
        filled = [number for number, batch in enumerate(self._batches) if batch.rows]
        if categorical and filled:  # with any batch come all dictionaries of the file
            for batch in self.batches(filled[:1], categorical, 1):
                columns_read = zip(batch.schema.names, batch.columns, strict=True)
                categories = {name: column.dictionary for name, column in columns_read}
        return Footer(self.path, rows, self._schema, nulls, set(), categories)

    def _refuse_categories(self) -> None:
        """Of a stream with categories, no column can be read batch by batch. Raises InputError."""
        for field in self._as_written:
            if _has_categories(field.type):
                raise InputError(
                    f"{self.path}: column {field.name!r} is of type {field.type}, which is not read from a stream; "
                    "write it as a file: pyarrow.feather.write_feather(pyarrow.ipc.open_stream(FILE).read_all(), NEW)"
                )

    def batches(self, groups: Sequence[int], names: Sequence[str], _rows: int) -> Iterator[Any]:
        read = self._from_file(names) if self._is_file else self._from_stream(names)
        for number in groups:
            batch = read(number)
            if batch.num_rows != self._batches[number].rows:
                raise ValueError("a record batch does not have the rows that it should have")
            batch.validate(full=True)
            yield _decoded(batch)

    def _from_file(self, names: Sequence[str]) -> Callable[[int], Any]:
        wanted = [self._as_written.get_field_index(name) for name in names]
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=wanted)
        self._raw.seek(0)
        return pa.ipc.open_file(self._raw, options=options).get_batch  # type: ignore[no-any-return]

    def _from_stream(self, names: Sequence[str]) -> Callable[[int], Any]:
        def read(number: int) -> Any:
            self._raw.seek(self._batches[number].offset)
            message = pa.ipc.read_message(self._raw)
            return pa.ipc.read_record_batch(message, self._as_written).select(list(names))

        return read


def _has_categories(type: Any) -> bool:
    if isinstance(type, pa.BaseExtensionType):
        return _has_categories(type.storage_type)
    inner = (type.field(number).type for number in range(type.num_fields))
    return pa.types.is_dictionary(type) or any(map(_has_categories, inner))


def _decoded_schema(schema: Any) -> Any:
    """Repeated values come out one by one: pandas would make floats of whole numbers beside nulls."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_run_end_encoded(field.type) else field for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _decoded(batch: Any) -> Any:
    if not any(pa.types.is_run_end_encoded(field.type) for field in batch.schema):
        return batch
    columns = [
        pc.run_end_decode(column) if pa.types.is_run_end_encoded(column.type) else column for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)

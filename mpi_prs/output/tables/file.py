"""The final file of a typed output, made of the log of tables: Parquet or HDF5.

::

    <name>.part ──► schemas ──► one that holds them all ──► rows, cast to it, a row group at a time ──► the final file

Memory: some row groups, however long the log is. Where a value turns out not to fit the common type, its column becomes
text, and the file is begun anew.
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from mpi_prs.child.rows.row_format import Form
from mpi_prs.output.journal import write_all
from mpi_prs.output.tables.hdf5 import Hdf5Table, hdf5_holds
from mpi_prs.output.tables.log import TableLog
from mpi_prs.output.tables.schema import Agreed, DoesNotFit, agree, conform

ROW_GROUP_BYTES = 64 << 20
ROW_GROUP_ROWS = 1 << 20
_SAY_SECONDS = 10.0
_MOST_TABLES = 1000
_log = logging.getLogger("mpi_prs.output")


def make_table_file(
    source: Path,
    journal: Path,
    target: Path,
    form: Form,
    *,
    in_input_order: bool,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Make the file ``target`` of the log ``source``, and put it on disk; on failure nothing of it is left. It has
    ``metadata`` as a JSON object under the key ``mpi_prs``, in Parquet of the schema, in HDF5 an attribute of the root.

    Raises:
        OutputError: the log is damaged.
        OSError: it cannot be read, or ``target`` cannot be written.
    """
    log = TableLog(source, journal, in_input_order=in_input_order)
    schemas = log.schemas()
    texts: dict[str, str] = {}
    while True:
        agreed = agree(schemas, _can_hold(form), texts)
        try:
            _write(log, agreed, target, form, metadata)
            break
        except DoesNotFit as error:
            texts[error.column] = error.why
        except BaseException:
            target.unlink(missing_ok=True)  # on a full disk its room is needed
            raise
    if agreed.texts:
        told = ", ".join(f"{name!r} ({why})" for name, why in agreed.texts.items())
        _log.warning("columns that have no type in common were stored as text: %s", told)


def _can_hold(form: Form) -> Any:
    if form is Form.PARQUET:
        return parquet_holds

    return hdf5_holds


def _write(log: TableLog, agreed: Agreed, target: Path, form: Form, metadata: Mapping[str, str] | None) -> None:
    with Sink(target) as sink:
        writer = _writer(sink, agreed.schema, log.rows, form, json.dumps(metadata) if metadata else "")
        try:
            written, say_at = 0, time.monotonic() + _SAY_SECONDS
            for table in _row_groups(log, agreed):
                writer.write(table)
                sink.check()
                written += table.num_rows
                if time.monotonic() > say_at:
                    say_at = time.monotonic() + _SAY_SECONDS
                    _log.info("writing %s: %d of %d rows", target.name.partition(".part")[0], written, log.rows)
        finally:
            writer.close()
        sink.check()
        os.fsync(sink.fileno())


def _writer(sink: Sink, schema: Any, rows: int, form: Form, metadata: str) -> TableWriter:
    if form is Form.PARQUET:
        return ParquetTable(sink, schema, metadata)

    return Hdf5Table(sink, schema, rows, metadata)


def _row_groups(log: TableLog, agreed: Agreed) -> Iterator[Any]:
    """The rows, cast, in tables of about :data:`ROW_GROUP_BYTES` or at most :data:`ROW_GROUP_ROWS`."""
    gathered: list[Any] = []
    rows = size = 0
    for table in log.tables():
        table = conform(table, agreed)
        gathered.append(table)
        rows += table.num_rows
        size += table.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            whole = pa.concat_tables(gathered)
            at_once = min(ROW_GROUP_ROWS, max(1, rows * ROW_GROUP_BYTES // max(1, size)))
            done = rows - rows % at_once
            for start in range(0, done, at_once):
                yield whole.slice(start, at_once)
            gathered, rows = [whole.slice(done)], rows - done
            size = gathered[0].nbytes
        elif len(gathered) > _MOST_TABLES:  # a table of a few rows takes more than its values
            gathered = [pa.concat_tables(gathered).combine_chunks()]
    if rows:
        yield pa.concat_tables(gathered)


class TableWriter(Protocol):
    """Writes the tables of one file."""

    def write(self, table: Any) -> None:
        """Add rows."""

    def close(self) -> None:
        """Write what is left, into the sink; the sink stays open."""


class ParquetTable:
    """Parquet; a row group for each table."""

    def __init__(self, sink: Sink, schema: Any, metadata: str = "") -> None:
        if metadata:
            schema = schema.with_metadata({**(schema.metadata or {}), b"mpi_prs": metadata.encode()})
        self._writer = pq.ParquetWriter(sink, schema)

    def write(self, table: Any) -> None:
        """Add a row group."""
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def parquet_holds(type: Any) -> bool:
    """Whether Parquet has a place for an Arrow type."""
    schema = pa.schema([("x", type)])
    try:
        with pq.ParquetWriter(pa.BufferOutputStream(), schema) as writer:
            writer.write_table(pa.Table.from_arrays([pa.nulls(0, type)], schema=schema))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


class Sink(io.FileIO):
    """A file that libraries write into, which take it badly when that fails: it goes on as if nothing were.

    Whoever opened it asks :meth:`check` now and then, and before the file is used.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._failed: OSError | None = None

    def write(self, data: Any) -> int:
        """All of ``data``."""
        view = memoryview(data).cast("B")
        if self._failed is None:
            try:
                write_all(self.fileno(), view)
            except OSError as error:
                self._failed = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """As for any file."""
        if self._failed is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self._failed = error
        return self.tell()

    def check(self) -> None:
        """Raises OSError: something could not be written."""
        if self._failed is not None:
            raise self._failed

"""The files that people read after a start: what failed, and a line for each finished mini-batch."""

from __future__ import annotations

import contextlib
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from mpi_prs.core.files import replacing
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.monitor.columns import Columns, listen
from mpi_prs.monitor.failed import FailedItems
from mpi_prs.monitor.statistics import Statistics, StatisticsReader
from mpi_prs.output.journal import LostItems

# In the order of the file; a name that is not a field of the record is computed below.
_COLUMNS = {
    "mini_batch": pa.int64(),
    "items": pa.uint32(),
    "returned": pa.uint32(),
    "attempt": pa.uint32(),
    "worker": pa.uint32(),
    "node": pa.string(),
    "process": pa.uint32(),
    "started": pa.string(),
    "run_seconds": pa.float32(),
    "overhead_seconds": pa.float32(),
    "output_offset": pa.uint64(),
    "output_bytes": pa.uint64(),
}


def write_reports(run: RunDirectory, manifest: Manifest) -> tuple[Statistics, int]:
    """Write what people read after a start; older files are replaced. Reads the journal once.

    Returns:
        the numbers of the run, and how many items have failed.

    Raises:
        OSError: a file cannot be read or written.
        OutputError: the journal or the manifest cannot be read.
    """
    statistics = StatisticsReader(manifest.items_of)
    with (
        replacing(run.failed_items) as of_failed,
        replacing(run.processed_mini_batches) as of_processed,
        contextlib.closing(FailedItems(manifest, run.failed_items, of_failed)) as failed,
    ):
        listen(run.journal, statistics, failed, ProcessedMiniBatches(of_processed), mini_batches=manifest.mini_batches)
        items = failed.finish()
    return statistics.finish(), items


class ProcessedMiniBatches:
    """Writes the finished mini-batches as CSV, in the order in which they finished.

    ``started`` is in UTC. ``output_offset`` counts in the order of arrival, also with ``output_order: input``. About
    2 µs a mini-batch; memory: some MiB. Raises OSError where the file cannot be written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._options = pyarrow.csv.WriteOptions(include_header=False)
        file.write((",".join(_COLUMNS) + "\n").encode())

    def take_columns(self, columns: Columns) -> None:
        pyarrow.csv.write_csv(_table(columns), self._file, self._options)

    def take_lost(self, lost: LostItems, *, answered: bool) -> None:
        """Only finished mini-batches are listed."""

    def take_event(self, event: dict[str, Any]) -> None:
        """Only finished mini-batches are listed."""


def _table(columns: Columns) -> Any:
    records = columns.records
    computed = {
        "worker": _array(columns.workers, pa.uint32()),
        "node": _node_names(columns),
        "started": _iso_times(records["started"]),
        "run_seconds": _array(records["run"], pa.float32()),
        "overhead_seconds": _array(records["overhead"], pa.float32()),
        "output_offset": _array(columns.offsets, pa.uint64()),
        "output_bytes": _array(records["length"], pa.uint64()),
    }
    arrays = [computed[name] if name in computed else _array(records[name], kind) for name, kind in _COLUMNS.items()]
    return pa.record_batch(arrays, names=list(_COLUMNS))


def _array(values: Any, kind: Any) -> Any:
    # From buffers: pa.array() imports pandas where it is installed
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _node_names(columns: Columns) -> Any:
    ranks, indices = np.unique(columns.workers, return_inverse=True)
    names = [columns.nodes.get(rank, "?").encode() for rank in ranks.tolist()]
    return _texts([names[index] for index in indices.tolist()])


def _iso_times(seconds: Any) -> Any:
    milliseconds = np.round(seconds * 1000).astype(np.int64)
    return _texts(np.datetime_as_string(milliseconds.view("datetime64[ms]"), timezone="UTC").astype("S").tolist())


def _texts(values: list[bytes]) -> Any:
    # From buffers, and not by compute functions: pyarrow.compute takes longer to import than most jobs have rows for
    starts = np.cumsum([0, *map(len, values)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(values), [None, pa.py_buffer(starts), pa.py_buffer(b"".join(values))])

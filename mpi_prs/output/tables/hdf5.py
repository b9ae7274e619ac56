"""HDF5 output: one dataset a column, all of the same length, at the root of the file.

=========================================  =========================================================================
column                                     dataset
=========================================  =========================================================================
numbers, bools                             as they are
text                                       UTF-8 of variable length; the character NUL, which it cannot hold, as U+FFFD
bytes                                      sequences of uint8
times, dates, durations                    integers, as in Arrow; the attribute ``arrow_type`` says which
nothing but nulls                          float64, NaN
anything else                              text (see :mod:`mpi_prs.output.tables.schema`)
=========================================  =========================================================================

A missing number of a float column is NaN. In any other column it is 0, False or the empty text (NaT's number for a
timestamp or duration), and the bool dataset of the same name in the group ``_nulls`` is true there; without nulls there
is no such dataset. A column whose name HDF5 cannot have (it has a slash) gets another one, and the attribute ``column``
says its own. :class:`mpi_prs.inputs.formats.hdf5.reading.Hdf5` reads all this back.
"""

from __future__ import annotations

import logging
from typing import Any, BinaryIO

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_CHUNK_ROWS = 1 << 16
_SEQUENCES = h5py.vlen_dtype(np.uint8)
_NOT_A_TIME = np.iinfo(np.int64).min
_log = logging.getLogger("mpi_prs.output")

# Known to mpi_prs.inputs.formats.hdf5.columns as well: rooms of one storey do not import each other.
TYPE_ATTRIBUTE = "arrow_type"
COLUMN_ATTRIBUTE = "column"
NULLS = "_nulls"


def hdf5_holds(type: Any) -> bool:
    """Whether there is a dataset for an Arrow type."""
    kinds = pa.types
    return bool(
        kinds.is_null(type)
        or kinds.is_boolean(type)
        or kinds.is_integer(type)
        or kinds.is_floating(type)
        or _is_text(type)
        or kinds.is_binary(type)
        or kinds.is_large_binary(type)
        or (kinds.is_temporal(type) and not kinds.is_interval(type))
    )


class Hdf5Table:
    """Writes tables, one behind the other.

    Args:
        sink: a file open for reading and writing.
        schema: of every table.
        rows: of all tables together.
        metadata: an attribute of the root; empty: none.
    """

    def __init__(self, sink: BinaryIO, schema: Any, rows: int, metadata: str = "") -> None:
        self._rows = rows
        self._written = 0
        self._replaced: set[str] = set()
        self._file = h5py.File(sink, "w", track_order=True)
        if metadata:
            self._file.attrs["mpi_prs"] = metadata
        self._columns = [self._dataset(field) for field in schema]

    def _dataset(self, field: Any) -> Any:
        name = field.name.replace("/", "_") or "_"
        while name in self._file or name in (".", "..", NULLS) or "\0" in name:
            name = f"{name}_".replace("\0", "_")
        made = self._made(self._file, name, _stored_type(field.type))
        if name != field.name:
            made.attrs[COLUMN_ATTRIBUTE] = field.name
        if pa.types.is_temporal(field.type):
            made.attrs[TYPE_ATTRIBUTE] = str(field.type)
        return made

    def _made(self, group: Any, name: str, dtype: Any) -> Any:
        chunk = (max(1, min(_CHUNK_ROWS, self._rows)),)
        return group.create_dataset(name, (self._rows,), dtype, chunks=chunk, maxshape=(None,))

    def write(self, table: Any) -> None:
        """Add the rows of a table."""
        stop = self._written + table.num_rows
        for dataset, column in zip(self._columns, table.columns, strict=True):
            column = column.combine_chunks()
            if column.null_count and not (pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
                self._null_marks(dataset)[self._written : stop] = _bools(pc.is_null(column))
            values = self._values(dataset.name[1:], column)
            if h5py.check_vlen_dtype(values.dtype) is not None:
                _write_sequences(dataset, self._written, values)
            else:
                dataset[self._written : stop] = values
        self._written = stop

    def _null_marks(self, dataset: Any) -> Any:
        group = self._file.require_group(NULLS)
        name = dataset.name[1:]
        return group[name] if name in group else self._made(group, name, bool)

    def _values(self, name: str, column: Any) -> Any:
        """The values as numpy has them."""
        type = column.type
        if pa.types.is_null(type):
            return np.full(len(column), np.nan)
        if pa.types.is_boolean(type):
            return _bools(column) & ~_bools(pc.is_null(column))
        if _is_text(type):
            return np.array(self._texts(name, column), dtype=object)
        if pa.types.is_binary(type) or pa.types.is_large_binary(type):
            values: Any = np.empty(len(column), dtype=_SEQUENCES)
            for number, value in enumerate(column.to_pylist()):
                values[number] = np.frombuffer(value or b"", np.uint8)
            return values
        missing: Any = 0
        if pa.types.is_temporal(type):
            missing = _NOT_A_TIME if pa.types.is_timestamp(type) or pa.types.is_duration(type) else 0
            column = column.view(_integers(type))
        elif pa.types.is_floating(type):
            missing = np.nan
        return _numbers(column, missing)

    def _texts(self, name: str, column: Any) -> list[str]:
        texts: list[str] = [text or "" for text in column.to_pylist()]
        if any("\0" in text for text in texts):
            if name not in self._replaced:
                self._replaced.add(name)
                _log.warning("column %r has text with the character NUL, which HDF5 cannot hold: it is U+FFFD", name)
            texts = [text.replace("\0", "\ufffd") for text in texts]
        return texts

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


def _write_sequences(dataset: Any, start: int, values: Any) -> None:
    """``dataset[start:…] = values``, which h5py takes for an array of two dimensions where lengths are equal."""
    place = dataset.id.get_space()
    place.select_hyperslab((start,), (len(values),))
    dataset.id.write(h5py.h5s.create_simple((len(values),)), place, values)


def _is_text(type: Any) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


def _integers(type: Any) -> Any:
    return pa.int64() if type.bit_width == 64 else pa.int32()


def _stored_type(type: Any) -> Any:
    if pa.types.is_null(type):
        return np.dtype("f8")
    if pa.types.is_boolean(type):
        return np.dtype(bool)
    if _is_text(type):
        return h5py.string_dtype()
    if pa.types.is_temporal(type):
        return _integers(type).to_pandas_dtype()
    if pa.types.is_integer(type) or pa.types.is_floating(type):
        return type.to_pandas_dtype()
    return _SEQUENCES


def _numbers(column: Any, missing: Any) -> Any:
    """A numpy array; nulls as ``missing``. Made of the buffer, since ``to_numpy`` imports pandas."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    values: Any = np.frombuffer(column.buffers()[1], dtype, len(column) + column.offset)[column.offset :]
    if column.null_count:
        values = np.where(_bools(pc.is_null(column)), dtype.type(missing), values)
    return values


def _bools(column: Any) -> Any:
    """A numpy array of a bool column; anything where it is null."""
    bits = np.frombuffer(column.buffers()[1], np.uint8)
    return np.unpackbits(bits, bitorder="little")[column.offset : column.offset + len(column)].astype(bool)

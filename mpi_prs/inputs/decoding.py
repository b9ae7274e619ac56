"""Reading the rows of a mini-batch of a table, in the types that the survey has found.

It happens in a reader process, ahead of ``run()``; see :mod:`mpi_prs.inputs.reader`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.core.partition_values import partition_values
from mpi_prs.inputs.formats import BY_CLASS, made_of
from mpi_prs.inputs.formats.arrow import nullable_in_pandas, repeated, unpack_schema
from mpi_prs.inputs.formats.format import AnyFiles, Batch, Part, Reader, TellsOfBadRecords
from mpi_prs.inputs.formats.missing import refuse_nulls
from mpi_prs.inputs.formats.unfit import refuse_unfit
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.partition_by import with_key_columns
from mpi_prs.inputs.payload import parts_of, unpack
from mpi_prs.inputs.row_files import files_of
from mpi_prs.storage.credentials import Storage
from mpi_prs.wire.parts import bounds, is_part, mini_batch_of

_log = logging.getLogger("mpi_prs.loading")


@dataclass
class DecodedMiniBatch:
    """The rows of a mini-batch.

    Attributes:
        items: how many it has, those that were skipped as bad included, but not those in ``failed``.
        told: what the user process is told of it, see :mod:`mpi_prs.child.mini_batch`.
        data: a ``pyarrow.Table``, or a dict of numpy arrays with equal first dimensions.
        failed: of records that are bad, where and why; they count behind the others, and each fails for itself.
    """

    items: int
    told: dict[str, Any]
    data: Any
    failed: Sequence[tuple[str, str]] = ()


class Decoder:
    """Decodes mini-batches of one manifest of tables; for any number of threads.

    Args:
        manifest: of tables.
        storages: how to get at the store of each input, with its secrets.
        bisects: whether a record that is bad fails for itself, and not its mini-batch.
    """

    def __init__(self, manifest: Manifest, storages: Sequence[Storage], bisects: bool = False) -> None:
        self._bisects = bisects
        self._manifest = manifest
        self._inputs = manifest.inputs
        self._stores = [AnyFiles(storage) for storage in storages]
        self._schemas = [
            unpack_schema(text) if (text := described.get("partition_schema")) else None for described in self._inputs
        ]
        self._of_thread = threading.local()

    def decode(self, number: int, at: Callable[[int], None] | None = None) -> DecodedMiniBatch:
        """Read one mini-batch, or a part of one; blocks.

        Args:
            at: is told which part, from 0, is begun.

        Raises:
            InputError: it cannot be read.
        """
        mini_batch = mini_batch_of(number)
        header, _ = unpack(self._manifest.payload(mini_batch))
        input, parts = self._manifest.input_of(mini_batch), parts_of(header)
        told = {"input": input, "partition": header.get("partition")}
        before = 0
        if is_part(number) and BY_CLASS[self._inputs[input]["format"]].in_rows:  # nothing else is read
            before, stop = bounds(number, sum(part.rows for part in parts))
            parts, header["sizes"] = _rows_of(parts, header["sizes"], before, stop)
            number = mini_batch
        batches = self._read(mini_batch, input, header, parts, at)
        bad = [record for batch in batches for record in batch.bad] if self._fails_alone(input) else []
        skipped = sum(batch.skipped for batch in batches) - len(bad)
        told["paths"] = list(dict.fromkeys(part.file for part in parts))
        data: Any
        if isinstance(batches[0].data, dict):
            data = _joined_arrays([batch.data for batch in batches])
            rows = len(next(iter(data.values()))) if data else 0
        else:
            data = self._table(input, header, parts, batches)
            rows = data.num_rows
        start, stop = bounds(number, rows + skipped + len(bad))  # what was skipped, and what is bad, counts behind
        bad = bad[max(0, start - rows - skipped) : max(0, stop - rows - skipped)]
        if (column := self._inputs[input].get("file_column")) is not None:
            told["names"], data = files_of(data, column, parts, start, stop)
        elif is_part(number):
            data = _slice(data, start, min(stop, rows))
        if self._manifest.exact:
            told["row_index"] = self._manifest.first_item(mini_batch) + before + start
        return DecodedMiniBatch(stop - start - len(bad), told, data, [(each.place, str(each)) for each in bad])

    def _fails_alone(self, input: int) -> bool:
        """Whether a bad record is an item that fails, and is neither skipped nor the end of its mini-batch."""
        return self._bisects and self._inputs[input]["options"].get("on_bad_record", "fail") == "fail"

    def table(self, number: int) -> Any:
        """The rows of one mini-batch, as a ``pyarrow.Table``.

        Raises:
            InputError: it cannot be read, or is no table.
        """
        decoded = self.decode(number)
        if isinstance(decoded.data, dict):
            raise InputError(f"{decoded.told['paths'][0]} holds arrays of more than one dimension, and no table")
        return decoded.data

    def _read(
        self,
        number: int,
        input: int,
        header: dict[str, Any],
        parts: Sequence[Part],
        at: Callable[[int], None] | None,
    ) -> list[Batch]:
        reader = self._reader(input)
        batches = []
        for place, (part, size) in enumerate(zip(parts, header["sizes"], strict=True)):
            if at is not None:
                at(place)
            self._check_size(input, part.file, size)
            batches.append(reader.read(part))
        for batch in batches:
            for bad in () if self._fails_alone(input) else batch.bad:
                _log.warning("mini-batch %d: skipped a bad record: %s", number, bad)
        return batches

    def _table(self, input: int, header: dict[str, Any], parts: Sequence[Part], batches: Sequence[Batch]) -> Any:
        """One table of some parts, with the columns that their paths give."""
        columns = [partition_values(each) for each in header.get("columns") or [[]] * len(parts)]
        return _joined_tables([self._with_columns(input, *each) for each in zip(parts, batches, columns, strict=True)])

    def _with_columns(self, input: int, part: Part, batch: Batch, columns: Mapping[str, Any]) -> Any:
        """The table of a part, with the columns that its path gives."""
        table = batch.data
        described = self._inputs[input]
        if columns:
            table = with_key_columns(table, columns, self._schemas[input])
            without = [name for name in described["keys_without_value"] if name in columns]
            table = table.replace_schema_metadata(nullable_in_pandas(table.schema, without).metadata)
        if name := described["path_column"]:
            if name in table.column_names:
                raise InputError(f"path_column: {part.file} has a column {name!r} already; choose another name")
            table = table.append_column(name, repeated(part.file, pa.string(), table.num_rows))
        refuse_nulls(table, part)
        refuse_unfit(table, part)
        return table

    def _check_size(self, input: int, file: str, listed: int) -> None:
        """In a file that has been edited the parts are elsewhere: rows would be lost, or come twice."""
        if getattr(self._of_thread, "checked", None) == (input, file):
            return
        size = self._stores[input].size(file)
        if size != listed:
            raise InputError(
                f"{file} has {size} bytes, and had {listed} when the run was begun: its mini-batches would lose rows "
                "or have them twice. Restore it, or start the run anew with --overwrite"
            )
        self._of_thread.checked = (input, file)

    def _reader(self, input: int) -> Reader:
        """This thread's reader of an input."""
        readers: dict[int, Reader] = self._of_thread.__dict__.setdefault("readers", {})
        if input not in readers:
            described = self._inputs[input]
            format = made_of(described["format"], described["options"])
            reader = readers[input] = format.reader(described["survey"], self._stores[input])
            if self._fails_alone(input) and isinstance(reader, TellsOfBadRecords):
                reader.tell_of_all_bad_records()
        return readers[input]

    def leave(self) -> None:
        """A thread's last word: close the files that it has open."""
        for reader in self._of_thread.__dict__.pop("readers", {}).values():
            reader.close()


def _rows_of(parts: Sequence[Part], sizes: Sequence[int], start: int, stop: int) -> tuple[list[Part], list[int]]:
    """Of parts whose rows are numbered these rows, and the sizes of their files."""
    found, of_files = [], []
    for part, size in zip(parts, sizes, strict=True):
        low, high = max(0, start), min(part.rows, stop)
        if low < high:
            some = part._replace(start=part.start + low, stop=part.start + high, rows=high - low)
            found.append(some._replace(first_row=part.first_row + low) if part.first_row >= 0 else some)
            of_files.append(size)
        start, stop = start - part.rows, stop - part.rows
    return found, of_files


def _slice(data: Any, start: int, stop: int) -> Any:
    """Some of the rows of a table, or of arrays; none where it stops before it starts."""
    stop = max(start, stop)
    if isinstance(data, dict):
        return {name: array[start:stop] for name, array in data.items()}
    return data.slice(start, stop - start)


def _joined_tables(tables: Sequence[Any]) -> Any:
    if len(tables) == 1:
        return tables[0]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"the files of one partition do not go together: {error}") from error


def _joined_arrays(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

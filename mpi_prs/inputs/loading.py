"""Loading a mini-batch at a worker: read and decode its rows, or bring its files here.

It happens ahead of ``run()``, in threads of the worker. What comes out is a payload for the user process (see
:mod:`mpi_prs.child.mini_batch`) and whatever has to live until the mini-batch is answered: a segment of shared
memory, or files in the scratch folder.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.core.partition_values import partition_values
from mpi_prs.inputs.formats import BY_CLASS
from mpi_prs.inputs.formats.arrow import nullable_in_pandas, repeated, unpack_schema
from mpi_prs.inputs.formats.format import AnyFiles, Batch, Part, Reader
from mpi_prs.inputs.formats.missing import refuse_nulls
from mpi_prs.inputs.formats.unfit import refuse_unfit
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.members import extracts
from mpi_prs.inputs.near.staging import Extract, Staging
from mpi_prs.inputs.partition_by import with_key_columns
from mpi_prs.inputs.payload import pack, parts_of, paths_of, unpack
from mpi_prs.inputs.segment import Segments
from mpi_prs.storage.credentials import Storage
from mpi_prs.wire.parts import bounds, is_part, mini_batch_of

_log = logging.getLogger("mpi_prs.loading")


@dataclass
class LoadedMiniBatch:
    """A mini-batch, ready for a user process.

    Attributes:
        items: how many it has, those that were skipped as bad included.
        payload: what the user process makes the mini-batch from.
        bytes: of memory or scratch space that it holds.
        release: gives them back; call it once, when the mini-batch is answered.
    """

    items: int
    payload: bytes
    bytes: int
    release: Callable[[], None]


class MiniBatchLoader:
    """Loads mini-batches of one manifest; for any number of threads.

    Args:
        manifest: with described payloads.
        scratch: a folder of this worker's own, on this node.
        limit: bytes of scratch space that may be used.
        storages: how to get at the store of each input, with its secrets.
        tables_in_files: hand tables over by files in ``scratch``, to processes in another user namespace.
    """

    def __init__(
        self,
        manifest: Manifest,
        scratch: Path,
        limit: int,
        storages: Sequence[Storage],
        tables_in_files: bool = False,
    ) -> None:
        self._manifest = manifest
        self._inputs = manifest.inputs
        self._stores = [AnyFiles(storage) for storage in storages]
        self._staging = [
            Staging(scratch / f"input{number}", storage, limit) if described.get("staged") else None
            for number, (described, storage) in enumerate(zip(self._inputs, storages, strict=True))
        ]
        self._schemas = [
            unpack_schema(text) if (text := described.get("partition_schema")) else None for described in self._inputs
        ]
        self._segments = Segments(folder=scratch / "tables" if tables_in_files else None)
        self._of_thread = threading.local()

    @property
    def is_remote(self) -> bool:
        """Whether loading mostly waits for a remote store; then many at once are loaded faster."""
        return any(described["remote"] for described in self._inputs)

    def affinity(self, number: int) -> int | None:
        """Mini-batches with the same number share what is decoded for them; ``None``: with nobody."""
        header, _ = unpack(self._manifest.payload(mini_batch_of(number)))
        parts = header.get("parts")
        if not parts or len(parts) > 1 or (part := Part(*parts[0])).group < 0:
            return None
        return hash((part.file, part.group))

    def load(self, number: int) -> LoadedMiniBatch:
        """Load one mini-batch, or a part of one; blocks.

        Raises:
            InputError: it cannot be read.
            OSError: there is no memory or no space left.
        """
        mini_batch = mini_batch_of(number)
        header, rest = unpack(self._manifest.payload(mini_batch))
        input = self._manifest.input_of(mini_batch)
        told = {"input": input, "partition": header.get("partition")}
        if "parts" in header:
            return self._load_table(number, input, header, told)
        if is_part(number):
            each = rest.split(b"\0")
            some = slice(*bounds(number, len(each)))
            rest = b"\0".join(each[some])
            if "members" in header:
                header["members"] = header["members"][some]
        paths = paths_of(rest)
        staging = self._staging[input]
        if staging is None:  # another input of the job is staged
            return LoadedMiniBatch(len(paths), pack(told, rest), 0, _nothing)
        if "problem" in header:
            raise InputError(f"{header['problem']}; then start the run anew with --overwrite")
        sources: Sequence[str | Extract] = paths
        others: list[Extract] = []
        if "members" in header:
            sources, others = extracts(paths, header["archives"], header["members"])
        staged = staging.stage(number, sources, others)
        local = "\0".join(staged.paths).encode("utf-8", "surrogateescape")
        return LoadedMiniBatch(len(paths), pack(told, local), staged.bytes, staged.release)

    def _load_table(self, number: int, input: int, header: dict[str, Any], told: dict[str, Any]) -> LoadedMiniBatch:
        parts = parts_of(header)
        batches = self._read(number, input, header, parts)
        skipped = sum(batch.skipped for batch in batches)
        told["paths"] = list(dict.fromkeys(part.file for part in parts))
        data: Any
        if isinstance(batches[0].data, dict):
            data = _joined_arrays([batch.data for batch in batches])
            rows = len(next(iter(data.values()))) if data else 0
        else:
            data = self._table(input, header, parts, batches)
            rows = data.num_rows
        start, stop = bounds(number, rows + skipped)  # records that are skipped count behind the others
        if is_part(number):
            data = _slice(data, start, min(stop, rows))
        if self._manifest.exact:
            told["row_index"] = self._manifest.first_item(mini_batch_of(number)) + start
        if isinstance(data, dict):
            segment, told["arrays"] = self._segments.of_arrays(data)
        else:
            segment = self._segments.of_table(data)
        told["segment"] = segment.path
        return LoadedMiniBatch(stop - start, pack(told), segment.capacity, partial(self._segments.release, segment))

    def read_table(self, number: int) -> Any:
        """The rows of one mini-batch of a table, as a ``pyarrow.Table``.

        Raises:
            InputError: it cannot be read, or is no table.
        """
        header, _ = unpack(self._manifest.payload(number))
        input, parts = self._manifest.input_of(number), parts_of(header)
        batches = self._read(number, input, header, parts)
        if isinstance(batches[0].data, dict):
            raise InputError(f"{parts[0].file} holds arrays of more than one dimension, and no table")
        return self._table(input, header, parts, batches)

    def _read(self, number: int, input: int, header: dict[str, Any], parts: Sequence[Part]) -> list[Batch]:
        reader = self._reader(input)
        batches = []
        for part, size in zip(parts, header["sizes"], strict=True):
            self._check_size(input, part.file, size)
            batches.append(reader.read(part))
        for batch in batches:
            for bad in batch.bad:
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
            options = {
                key: tuple(value) if isinstance(value, list) else value for key, value in described["options"].items()
            }
            format = BY_CLASS[described["format"]].make(**options)
            readers[input] = format.reader(described["survey"], self._stores[input])
        return readers[input]

    def leave(self) -> None:
        """A thread's last word: close the files that it has open."""
        for reader in self._of_thread.__dict__.pop("readers", {}).values():
            reader.close()

    def close(self) -> None:
        """End what is under way, as far as it can be ended."""
        self.leave()
        self._segments.close()
        for staging in self._staging:
            if staging is not None:
                staging.close()


def _slice(data: Any, start: int, stop: int) -> Any:
    """Some of the rows of a table, or of arrays; none where it stops before it starts."""
    stop = max(start, stop)
    if isinstance(data, dict):
        return {name: array[start:stop] for name, array in data.items()}
    return data.slice(start, stop - start)


def _nothing() -> None:
    pass


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

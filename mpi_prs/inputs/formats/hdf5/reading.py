"""HDF5: rows of datasets that have equal first dimensions; a table where these are one-dimensional, else arrays.

================================================  ==============================================================
what ``dataset`` names                            what ``run()`` gets
================================================  ==============================================================
a group whose datasets are all one-dimensional    a DataFrame with a column for each of them
a one-dimensional dataset of a compound type      a DataFrame with a column for each of its fields
a dataset with more dimensions                    a dict with one numpy array: these rows of it
a group, or a list, with one such dataset         a dict with an array for each of them, all of the same rows
nothing                                           as for the root group, or the only dataset of the file
================================================  ==============================================================

Conventions above HDF5 are told at the start of a run, as the first file has them, and not applied: netCDF's
``_FillValue``, ``missing_value``, ``scale_factor`` and ``add_offset``, and MATLAB's order of dimensions and text.

Scalars and subgroups of a group are left out of account. Text becomes ``str``, enums their numbers, bytes of variable
length ``bytes``; big-endian numbers come in this machine's byte order. See :mod:`mpi_prs.inputs.formats.hdf5.columns`.

Compressed datasets are cut where their chunks end, or within one chunk when that is larger than a mini-batch; then its
mini-batches form a group, and a reader keeps the chunk decoded.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.format import Batch, BatchSize, DamagedFile, Files, Part, check_counted, quoted
from mpi_prs.inputs.formats.hdf5.columns import NotText, arrow_type, to_arrow, to_plain
from mpi_prs.inputs.formats.hdf5.file import (
    ColumnSource,
    Hdf5File,
    Layout,
    bytes_a_row,
    cache_for,
    check_unchanged,
    difference,
    find_sources,
    read_values,
)
from mpi_prs.inputs.formats.missing import for_pandas
from mpi_prs.inputs.formats.told import Doubt, Told, ToldColumn, type_name


@dataclass(frozen=True)
class Hdf5:
    """HDF5, with its options.

    Attributes:
        dataset: path of a group or dataset in each file, or paths of several datasets.
        columns: the columns or arrays to read, in this order; default: all.
        numpy_types: see :mod:`~mpi_prs.inputs.formats.missing`.
    """

    dataset: str | tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    numpy_types: bool = False

    def survey(self, files: Callable[[], Iterator[str]], store: Files) -> dict[str, Any]:
        """What is in every file alike; opens each file and reads no values.

        A damaged file is left to fail by itself, unless there is none that can be read.

        Raises:
            InputError: two files do not go together, something that was named is missing, or no file is HDF5.
        """
        first: Layout | None = None
        first_path = ""
        damaged: DamagedFile | None = None
        nulls: set[str] = set()
        doubts: list[Doubt] = []
        for path in files():
            try:
                with _opened(path, store) as file:
                    layout = self._layout(file)
                    if first is None:
                        doubts = _doubts(path, file, layout)
            except DamagedFile as error:
                damaged = damaged or error
                continue
            nulls |= layout.nulls
            if first is None:
                first, first_path = layout, path
            elif problem := difference(first, layout):
                raise InputError(f"{first_path} and {path} do not go together: {problem}")
        if first is None:
            raise damaged or InputError("the inputs hold no files: name some under `inputs`")
        columns = [
            ToldColumn(
                source.name,
                type_name(arrow_type(source.dtype, source.attribute), source.name in nulls and not self.numpy_types)
                if first.is_table
                else f"array of {type}",
                f"dataset in {first_path}",
            )
            for source, type in zip(first.sources, first.types, strict=True)
        ]
        return {**first.to_json(), "nulls": sorted(nulls), "told": Told(columns, doubts).to_json()}

    def split(self, file: str, size: BatchSize, survey: dict[str, Any], store: Files) -> Iterator[Part]:
        """Parts of about ``size``, cut where chunks end; reads values of text only, a few, to see how long it is."""
        try:
            with _opened(file, store) as opened:
                layout = self._layout(opened)
                check_unchanged(file, layout, survey)
                with opened.asking():
                    rows = size.rows or max(1, round((size.bytes or 1) / max(1, sum(map(bytes_a_row, layout.sources)))))
                chunk = max(source.chunk_rows for source in layout.sources)
        except DamagedFile:
            yield Part(file, 0, 0, 1)  # so that it is counted, and fails alone
            return
        for start, stop, group in cuts(layout.rows, rows, chunk):
            yield Part(file, start, stop, stop - start, start, group)

    def reader(self, survey: dict[str, Any], store: Files) -> Hdf5Reader:
        """A reader of parts; it keeps the file it read last open."""
        return Hdf5Reader(self, survey, store)

    def _layout(self, file: Hdf5File) -> Layout:
        with file.asking() as root:
            sources = find_sources(file.path, root, self.dataset)
            if self.columns:
                by_name = {source.name: source for source in sources}
                if missing := [name for name in self.columns if name not in by_name]:
                    raise InputError(
                        f"columns: {file.path} has no {quoted(missing)}; there are {quoted(list(by_name))}"
                    )
                sources = [by_name[name] for name in self.columns]
            return Layout.of(file.path, sources)


def _doubts(path: str, file: Hdf5File, layout: Layout) -> list[Doubt]:
    """What conventions say of the values of a file, which come as they are stored."""
    with file.asking():
        found = [(source.name, source.convention) for source in layout.sources]
    return [
        Doubt(name, f"{path}: {name!r} comes as it is stored, and {convention}. Apply that in run()")
        for name, convention in found
        if convention
    ]


def cuts(rows: int, size: int, chunk: int) -> Iterator[tuple[int, int, int]]:
    """``(start, stop, group)`` of parts of about ``size`` rows.

    Parts end where chunks of ``chunk`` rows do. A chunk that is larger than a part is cut evenly, and its parts have
    its number as their group.
    """
    if size >= chunk:
        step = min(max(1, round(size / chunk)) * chunk, max(rows, 1))
        for start in range(0, rows, step):
            yield start, min(start + step, rows), -1
        return
    for number, start in enumerate(range(0, rows, chunk)):
        length = min(chunk, rows - start)
        pieces = math.ceil(length / size)
        for piece in range(pieces):
            yield start + length * piece // pieces, start + length * (piece + 1) // pieces, number


def _opened(path: str, store: Files) -> Any:
    return contextlib.closing(Hdf5File(path, store))


# Reading


class Hdf5Reader:
    """Reads rows; memory: those of one part, and for compressed datasets the chunks that hold these rows."""

    def __init__(self, format: Hdf5, survey: dict[str, Any], store: Files) -> None:
        self._format = format
        self._survey = survey
        self._nulls = frozenset(survey["nulls"])
        self._store = store
        self._file: Hdf5File | None = None
        self._layout: Layout

    def read(self, part: Part) -> Batch:
        """The rows of a part.

        Raises:
            InputError: the file is damaged or has changed, or a text is not UTF-8.
        """
        file = self._file
        if file is None or file.path != part.file:
            file = self._open(part.file)
        check_counted(part)
        try:
            with file.asking():
                return Batch(self._table(file, part) if self._layout.is_table else self._arrays(file, part))
        except InputError:
            self.close()  # what is cached of a file that could not be read is not to be trusted
            raise

    def _open(self, path: str) -> Hdf5File:
        self.close()
        file = Hdf5File(path, self._store)
        try:
            layout = self._format._layout(file)
            check_unchanged(path, layout, self._survey)
            if cache := cache_for(layout.sources):
                file.close()
                file = Hdf5File(path, self._store, cache)
                layout = self._format._layout(file)
        except BaseException:
            file.close()
            raise
        sources = {source.name: source for source in layout.sources}
        names = self._survey["columns"]  # in all files in the order of the first
        self._layout = Layout(layout.is_table, layout.rows, [sources[name] for name in names], self._survey["types"])
        self._file = file
        return file

    def _table(self, file: Hdf5File, part: Part) -> Any:
        columns, names = [], []
        records = self._records(part)
        for source in self._layout.sources:
            values = read_values(source, part.start, part.stop) if records is None else records[source.field]
            marks = source.null_marks if source.name in self._nulls else None
            nulls = None if marks is None else marks[part.start : part.stop]
            try:
                columns.append(to_arrow(values, arrow_type(source.dtype, source.attribute), nulls))
            except NotText as error:
                raise _not_text(file, source, part, error) from None
            names.append(source.name)
        schema = pa.schema(zip(names, (column.type for column in columns), strict=True))
        return pa.Table.from_arrays(columns, schema=for_pandas(schema, self._nulls, {}, self._format.numpy_types))

    def _records(self, part: Part) -> Any:
        """Of a compound dataset, all wanted fields at once; else ``None``."""
        fields = [source.field for source in self._layout.sources]
        if fields[0] is None:
            return None
        return self._layout.sources[0].dataset.fields(fields)[part.start : part.stop]

    def _arrays(self, file: Hdf5File, part: Part) -> dict[str, Any]:
        arrays = {}
        for source in self._layout.sources:
            try:
                arrays[source.name] = to_plain(read_values(source, part.start, part.stop))
            except NotText as error:
                raise _not_text(file, source, part, error) from None
        return arrays

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _not_text(file: Hdf5File, source: ColumnSource, part: Part, error: NotText) -> InputError:
    return InputError(
        f"{file.path}, row {part.start + error.args[0] + 1}, column {source.name!r}: the text is not UTF-8; leave the "
        "column out by naming the others with `columns`"
    )

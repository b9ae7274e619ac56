"""Files of rows in groups that Arrow reads: types agreed over all files, cut by rows, groups decoded once.

Parquet has row groups, ORC stripes, Arrow's own files record batches. What differs is how a file is opened, and what it
says of itself without its values; all else is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.arrow import pack_column, pack_schema, unpack_column, unpack_schema
from mpi_prs.inputs.formats.arrow_files.agreement import Agreement, Footer, united
from mpi_prs.inputs.formats.casting import Cast, casts
from mpi_prs.inputs.formats.format import BadRecord, Batch, BatchSize, DamagedFile, Files, Part, check_counted
from mpi_prs.inputs.formats.told import Told, told_columns

_FOOTERS_AT_ONCE = 8
_FOOTERS_AHEAD = 32
_ROWS_AT_ONCE = 2**17
"""The most rows decoded in one go."""
DAMAGE = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises over a file that is not as it should be."""


class Group(NamedTuple):
    """Rows that are stored together; ``bytes``: about what the selected columns take of the file."""

    rows: int
    bytes: int


class GroupedFile(ABC):
    """An open file. Its methods raise what is in :data:`DAMAGE`, or InputError.

    Raises:
        DamagedFile: it is none of the format.
        InputError: it cannot be read.
    """

    format: ClassVar[str]
    """In a message: "cannot be read as …"."""

    def __init__(self, path: str, store: Files) -> None:
        self.path = path
        self._store = store
        self._raw = store.open(path)
        try:
            self._look()
        except DAMAGE as error:
            self._raw.close()
            raise self.damaged(error) from error
        except InputError:
            self._raw.close()
            raise

    @abstractmethod
    def _look(self) -> None:
        """Learn what the other methods need to know."""

    def groups(self) -> list[int]:
        """The rows of each group; reads no values."""
        return [group.rows for group in self.measured(())]

    @abstractmethod
    def measured(self, names: Sequence[str], /) -> list[Group]:
        """Each group, and what some of the columns take; reads no values."""

    @abstractmethod
    def footer(self, columns: Sequence[str], cast: Sequence[str]) -> Footer:
        """What it says of itself.

        Args:
            columns: that are selected; empty: all.
            cast: columns that are to have another type.
        """

    @abstractmethod
    def batches(self, groups: Sequence[int], names: Sequence[str], rows: int, /) -> Iterator[Any]:
        """Record batches of some columns of groups that follow each other.

        Args:
            rows: the more batches, of no more than so many, the better.
        """

    def damaged(self, error: Exception) -> DamagedFile:
        """What to say of something in :data:`DAMAGE`."""
        return DamagedFile(
            f"{self.path} cannot be read as {self.format}: {first_line(error)}. Check that it is a whole file"
        )

    def close(self) -> None:
        """Close it."""
        self._raw.close()


def first_line(error: Exception) -> str:
    """Of what a library said."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@dataclass(frozen=True)
class ArrowFiles:
    """The formats of such files; a DataFrame comes out as Arrow's ``to_pandas`` makes it, its index included.

    All files that hold rows have the same columns, of the same types or of types that one type can hold (``int32`` and
    ``int64``; ``float`` and ``int64``). A column of integers or booleans that holds a null anywhere in the dataset, or
    may hold one and has no statistics to tell, is pandas' nullable type in every mini-batch; see
    :mod:`~mpi_prs.inputs.formats.missing`. Categories are those of all files.

    Attributes:
        columns: to select, in this order; default: all. Columns that are the index of the DataFrame come in any case.
        column_types: column → type, see :func:`~mpi_prs.inputs.formats.types.parse_column_type`.
        numpy_types: see :mod:`~mpi_prs.inputs.formats.missing`.
    """

    columns: tuple[str, ...] = ()
    column_types: Mapping[str, str] = field(default_factory=dict)
    numpy_types: bool = False

    def opened(self, path: str, store: Files) -> GroupedFile:
        """The open file. Raises DamagedFile: it is none of this format; InputError: it cannot be read."""
        raise NotImplementedError

    def survey(self, files: Callable[[], Iterator[str]], store: Files) -> dict[str, Any]:
        """Read the footers of all files.

        A file whose footer cannot be read is left to fail by itself, unless there is none that can be read.

        Raises:
            InputError: two files do not agree, a column does not exist, or no file is of this format.
        """
        chosen = casts(self.column_types)
        agreement = Agreement(self.columns, chosen, self.numpy_types)
        damaged: InputError | None = None
        for footer in _in_threads(lambda file: self._footer(file, tuple(chosen), store), files()):
            if isinstance(footer, InputError):
                damaged = damaged or footer
            else:
                agreement.add(footer)
        if agreement.first is None:
            if damaged is not None:
                raise damaged
            return {"schema": pack_schema(pa.schema([])), "categories": {}}
        schema = agreement.schema()
        return {
            "schema": pack_schema(schema),
            "told": Told(told_columns(schema, "", chosen, agreement.origins(schema)), []).to_json(),
            "categories": {name: pack_column(values) for name, values in agreement.categories.items()},
        }

    def _footer(self, path: str, cast: Sequence[str], store: Files) -> Footer | DamagedFile:
        try:
            with closing(self.opened(path, store)) as opened:
                try:
                    return opened.footer(self.columns, cast)
                except DAMAGE as error:
                    return opened.damaged(error)
        except DamagedFile as error:
            return error

    def split(self, file: str, size: BatchSize, survey: dict[str, Any], store: Files) -> Iterator[Part]:
        """Groups smaller than the size together, larger ones cut into about equal parts. Reads no values."""
        try:
            with closing(self.opened(file, store)) as opened:
                try:
                    groups = opened.measured(unpack_schema(survey["schema"]).names)
                except DAMAGE as error:
                    raise opened.damaged(error) from error
        except DamagedFile:
            yield Part(file, 0, 0, 1)  # so that it is counted, and fails alone
            return
        limit = size.rows or size.bytes or 1
        first = start = held = 0
        for number, group in enumerate(groups):
            measure = group.rows if size.rows else group.bytes
            if start < first and held + measure > limit:
                yield Part(file, start, first, first - start, start)
                start, held = first, 0
            stop = first + group.rows
            if group.rows and measure > limit:
                step = -(-group.rows // -(-measure // limit))
                for low in range(first, stop, step):
                    high = min(low + step, stop)
                    yield Part(file, low, high, high - low, low, number if high - low < group.rows else -1)
                start, held = stop, 0
            else:
                held += measure
            first = stop
        if first > start:
            yield Part(file, start, first, first - start, start)

    def reader(self, survey: dict[str, Any], store: Files) -> ArrowFilesReader:
        """A reader of parts."""
        return ArrowFilesReader(survey, casts(self.column_types), lambda path: self.opened(path, store))


class ArrowFilesReader:
    """Reads parts; keeps the file open and stands where the last part ended, so that a group is decoded once."""

    def __init__(
        self, survey: dict[str, Any], chosen: Mapping[str, Cast], opener: Callable[[str], GroupedFile]
    ) -> None:
        self._schema = unpack_schema(survey["schema"])
        self._categories = {name: unpack_column(values) for name, values in survey["categories"].items()}
        self._chosen = chosen
        self._opener = opener
        self._opened: GroupedFile | None = None
        self._rows: _Rows | None = None

    def read(self, part: Part) -> Batch:
        """The rows of a part. Memory: the part, and Arrow's buffers.

        Raises:
            InputError: the file is damaged or has changed, or a value is not of the type that it should have.
        """
        opened = self._open(part.file)
        try:
            check_counted(part)
            if self._rows is None or not self._rows.covers(part.start, part.stop):
                self._rows = _Rows(opened, self._schema.names, part.start, part.stop)
            batches = list(self._rows.take(part.start, part.stop))
            columns = [self._column(field, batches, part) for field in self._schema]
        except InputError:
            self.close()
            raise
        except DAMAGE as error:
            self.close()
            raise opened.damaged(error) from error
        return Batch(pa.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Close the file."""
        self._rows = None
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _open(self, file: str) -> GroupedFile:
        if self._opened is None or self._opened.path != file:
            self.close()
            self._opened = self._opener(file)
        return self._opened

    def _column(self, field: Any, batches: Sequence[Any], part: Part) -> Any:
        """A column over the batches, each one chunk of it, in the type that the survey found."""
        categories = self._categories.get(field.name)
        chunks: list[Any] = []
        for batch in batches:
            at = batch.schema.get_field_index(field.name)
            chunk = batch.column(at) if at >= 0 else pa.nulls(batch.num_rows, field.type)  # a struct without fields
            first = part.start + sum(len(each) for each in chunks)
            if categories is not None:
                chunk = _in_categories(chunk, categories, field.type)
            if field.name in self._chosen:
                cast = self._chosen[field.name]
                chunk = _cast(chunk, cast, f"{cast.type}, which column_types asks for", field.name, part.file, first)
            if chunk.type != field.type:
                what = f"exactly a {field.type}, which the column is over all files; choose with column_types"
                chunk = _cast(chunk, partial(pc.cast, target_type=field.type), what, field.name, part.file, first)
            chunks.append(chunk)
        return pa.chunked_array(chunks, field.type)


class _Rows:
    """Rows of one or more whole groups, taken from first to last; rows may be left out."""

    def __init__(self, file: GroupedFile, names: Sequence[str], start: int, stop: int) -> None:
        rows = file.groups()
        ends = list(accumulate(rows))
        groups = [number for number, end in enumerate(ends) if end > start and end - rows[number] < stop]
        if not groups or not 0 <= start < stop <= ends[-1]:
            raise ValueError(f"rows {start} to {stop} of {ends[-1] if ends else 0}: it has changed since it was listed")
        self._at = ends[groups[0]] - rows[groups[0]]
        self._end = ends[groups[-1]]
        self._left: Any = None
        self._batches = file.batches(groups, names, min(stop - start, _ROWS_AT_ONCE))

    def covers(self, start: int, stop: int) -> bool:
        """Whether these rows are among those still to come."""
        return bool(self._at <= start and stop <= self._end)

    def take(self, start: int, stop: int) -> Iterator[Any]:
        """The rows from ``start`` to before ``stop`` as record batches."""
        while self._at < stop:
            batch = self._left if self._left is not None else next(self._batches, None)
            if batch is None:
                raise ValueError(f"it ends at row {self._at} of {self._end}")
            self._left = None
            low = min(max(start - self._at, 0), batch.num_rows)
            high = min(stop - self._at, batch.num_rows)
            if high < batch.num_rows:
                self._left = batch.slice(high)
            self._at += high
            if high > low:
                yield batch.slice(low, high - low) if high - low < batch.num_rows else batch


def _in_threads(work: Callable[[str], Any], files: Iterator[str]) -> Iterator[Any]:
    """Results in the order of the files; no more than some are under way."""
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, "footers") as pool:
        waiting: deque[Future[Any]] = deque()
        for file in files:
            waiting.append(pool.submit(work, file))
            if len(waiting) >= _FOOTERS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _in_categories(chunk: Any, categories: Any, type: Any) -> Any:
    """The same values, numbered by the dataset's categories; values that these lack are added behind them."""
    if pa.types.is_dictionary(chunk.type):
        indices, values = chunk.indices, chunk.dictionary.cast(categories.type)
    else:  # all null
        indices, values = pa.nulls(len(chunk), pa.int32()), categories.slice(0, 0)
    if values.equals(categories):
        return pa.DictionaryArray.from_arrays(indices.cast(pa.int32()), categories, ordered=type.ordered)
    if pc.index_in(values, value_set=categories).null_count:
        categories = united(categories, values)
    numbers = pc.index_in(values, value_set=categories).take(indices)
    return pa.DictionaryArray.from_arrays(numbers, categories, ordered=type.ordered)


def _cast(chunk: Any, cast: Callable[[Any], Any], what: str, column: str, file: str, first: int) -> Any:
    """Cast to what is said in words. Raises InputError: it names the first row that cannot be."""
    try:
        return cast(chunk)
    except pa.ArrowInvalid as error:
        low, high = 0, len(chunk)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _misfits(chunk.slice(low, middle - low), cast) else (middle, high)
        raise InputError(
            str(BadRecord(file, first + low + 1, column, f"{_shown(chunk[low])} is not {what}"))
        ) from error


def _shown(value: Any) -> str:
    if pa.types.is_string(value.type) or pa.types.is_large_string(value.type):
        return repr(value.as_py())
    return str(value.type if value.type.num_fields else value.cast(pa.string()))  # Python cannot hold every date


def _misfits(values: Any, cast: Callable[[Any], Any]) -> bool:
    try:
        cast(values)
    except pa.ArrowInvalid:
        return True
    return False

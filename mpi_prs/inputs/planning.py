"""From datasets to mini-batches: what the manifest is made from.

::

    files, one input                 ──► plain payloads: paths separated by NUL; the fast path
    several inputs, staged files,    ──► described payloads: u32 length of a JSON header, the header, then the paths
    partitions, tables                   separated by NUL (of files) or nothing (of tables)

See :mod:`mpi_prs.inputs.payload` for what is in a header.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.core.urls import is_glob, is_url
from mpi_prs.inputs.datasets import HIVE, InputDataset, InputFiles, InputTable
from mpi_prs.inputs.formats.arrow import pack_schema, unpack_schema
from mpi_prs.inputs.formats.drop_columns import columns_of, without_columns
from mpi_prs.inputs.formats.format import AnyFiles, BatchSize, Part, quoted
from mpi_prs.inputs.formats.told import Told
from mpi_prs.inputs.manifest import DESCRIBED, PLAIN, SIZE_LIMIT, Plan, PlannedMiniBatch
from mpi_prs.inputs.members import Archive, Member, archive_at, described
from mpi_prs.inputs.partition_by import partitioned_columns, typed_values
from mpi_prs.inputs.partition_format import HiveFolders, PartitionFormat
from mpi_prs.inputs.partitions import check_partition_keys, group_by_partition, to_json
from mpi_prs.inputs.payload import pack
from mpi_prs.inputs.row_files import check_file_column

_log = logging.getLogger("mpi_prs.data")

_TOLD = 20
"""Files that a message names."""
_SURELY_BYTES = 1_000_000
"""A mini-batch size of so many is not meant as rows."""
_WHOLE = BatchSize(rows=2**62)


def plan(
    datasets: Sequence[InputDataset],
    size: int | BatchSize | None,
    partition_keys: Sequence[str] | None = None,
    at: Callable[[int, str | None], None] | None = None,
) -> Plan:
    """The mini-batches of some datasets, all of files or all of tables.

    Args:
        datasets: each is split by itself, a mini-batch never mixes two.
        size: files in a mini-batch, at least 1 (the last one of a dataset may have fewer), or the size of a table's.
        partition_keys: one mini-batch for each existing combination of their values, instead of a size.
        at: of tables, is told the number of the dataset and the file that is opened, by any thread; ``None`` instead of
            a file: none is, as far as is known.

    Raises (when the mini-batches are taken):
        InputError: the inputs cannot be listed, or do not go together.
    """
    if isinstance(datasets[0], InputFiles):
        files = [dataset for dataset in datasets if isinstance(dataset, InputFiles)]
        if len(files) == 1 and not partition_keys and not files[0].is_staged:
            assert isinstance(size, int)
            return Plan(PLAIN, _plain(files[0], size), [_described_files(files[0])])
        inputs = [_described_files(dataset) for dataset in files]
        return Plan(DESCRIBED, _of_files(files, size, partition_keys), inputs)
    tables = [dataset for dataset in datasets if isinstance(dataset, InputTable)]
    planned = Plan(DESCRIBED, iter(()), [])
    planned.mini_batches = _of_tables(tables, size, partition_keys, planned, at or _nobody)
    return planned


# Files


def _plain(dataset: InputFiles, size: int) -> Iterator[PlannedMiniBatch]:
    for chunk in _chunks(dataset, size):
        yield PlannedMiniBatch(0, len(chunk), chunk_payload(chunk, size))


def _chunks(dataset: InputDataset, size: int) -> Iterator[list[bytes]]:
    paths = dataset.paths()
    while chunk := list(islice(paths, size)):
        yield chunk


def chunk_payload(paths: Sequence[bytes], size: int | None) -> bytes:
    """The paths of one mini-batch, separated by NUL. Raises InputError above 4 GiB."""
    payload = b"\0".join(paths)
    if len(payload) >= SIZE_LIMIT:
        what = "partition_keys" if size is None else f"mini_batch_size: {size}"
        raise InputError(
            f"{what}: the paths of one mini-batch take {len(payload)} bytes, and 4 GiB is the limit; "
            "choose smaller mini-batches"
        )
    return payload


def _of_files(
    datasets: Sequence[InputFiles], size: int | BatchSize | None, keys: Sequence[str] | None
) -> Iterator[PlannedMiniBatch]:
    for number, dataset in enumerate(datasets):
        if dataset.members:
            yield from _of_members(number, dataset, size)
            continue
        if not keys:
            assert isinstance(size, int)
            for chunk in _chunks(dataset, size):
                yield PlannedMiniBatch(number, len(chunk), pack({"input": number}, chunk_payload(chunk, size)))
            continue
        for values, paths in _partitions(dataset, Partitioning.of(dataset), keys):
            header = {"input": number, "partition": to_json(values)}
            yield PlannedMiniBatch(number, len(paths), pack(header, chunk_payload(paths, None)))


def _of_members(number: int, dataset: InputFiles, size: int | BatchSize | None) -> Iterator[PlannedMiniBatch]:
    """An archive that cannot be read fails by itself, unless there is none that can."""
    if not isinstance(size, int):
        raise InputError("members: partition_keys are found in paths of files, not in those of members; remove one key")
    together: list[tuple[Archive, Member]] = []
    archive: Archive | None = None
    broken: InputError | None = None
    found = 0

    def mini_batch() -> PlannedMiniBatch:
        header, names = described(together)
        return PlannedMiniBatch(number, len(names), pack({"input": number} | header, chunk_payload(names, size)))

    for path in dataset.files():
        if is_url(path):
            raise InputError(f"members: {path} is in a remote store, and members are read from a filesystem: copy it")
        try:
            archive = archive_at(path, dataset.members)
        except InputError as error:
            broken = broken or error
            _log.warning("%s. It counts as one item, which fails", error)
            yield PlannedMiniBatch(number, 1, pack({"input": number, "problem": str(error)}, os.fsencode(path)))
            continue
        for member in archive.members:
            together.append((archive, member))
            if len(together) == size:
                yield mini_batch()
                found += len(together)
                together.clear()
    if together:
        yield mini_batch()
    elif not found and archive is None and broken is not None:
        raise broken
    elif not found:
        raise _no_members(dataset, archive)


def _no_members(dataset: InputFiles, last: Archive | None) -> InputError:
    there = f"those of {last.path} are {quoted(last.names)} …" if last and last.names else "there are none at all"
    return InputError(f"members: no member of {_shown(dataset)} matches {quoted(dataset.members)}; {there}")


def _described_files(dataset: InputFiles) -> dict[str, Any]:
    return {
        "kind": "files",
        "files": dataset.input.files or [str(dataset.input.files_from)],
        "mode": dataset.mode,
        "members": list(dataset.members),
        "staged": dataset.is_staged,
        "remote": dataset.is_staged or dataset.is_remote,
        "partition_format": dataset.partition_format,
    }


# Partitions


def _partitions(
    dataset: InputDataset, partitioning: Partitioning | None, keys: Sequence[str]
) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """The files of each combination of the keys' values."""
    if partitioning is None:
        raise InputError(
            f"partition_keys: the input {_shown(dataset)} has no partition_format, so its files have no partition "
            "keys; give it one such as {user}/{season}.wav, or hive for folders named key=value"
        )

    def valued() -> Iterator[tuple[bytes, dict[str, Any]]]:
        own: tuple[str, ...] = ()
        for path in dataset.paths():
            values = partitioning.values(path)
            if not own:
                own = tuple(values)
                check_partition_keys(keys, own, f"partition_format {dataset.partition_format!r}")
            yield path, values

    return group_by_partition(valued(), keys)


def _shown(dataset: InputDataset) -> str:
    return dataset.input.files[0] if dataset.input.files else str(dataset.input.files_from)


@dataclass
class Partitioning:
    """How the partition values of a dataset's files are found.

    Attributes:
        values: those of a file, by its path. Raises InputError: the path does not fit.
        schema: an Arrow schema with the types of the keys; of a table that
            :func:`~mpi_prs.inputs.partition_by.partition_by` has written, that of the whole table.
    """

    values: Callable[[str | bytes], dict[str, Any]]
    schema: Any = None

    @classmethod
    def of(cls, dataset: InputDataset) -> Partitioning | None:
        """``None``: the dataset has no partition format."""
        text = dataset.partition_format
        if text is None:
            return None
        if text != HIVE:
            format = PartitionFormat.parse(text)
            types = [(key, pa.timestamp("us") if key in format.date_keys else pa.string()) for key in format.keys]
            base = literal_folder(dataset) if len(dataset.input.files) == 1 else ""
            return cls(lambda path: dict(format.required_values(path, base)), pa.schema(types))
        if len(dataset.input.files) != 1:
            raise InputError("partition_format: hive takes one folder or glob; make an input of each")
        base = literal_folder(dataset)
        schema = partitioned_columns(Path(base)) if os.path.isdir(base) else None
        folders = HiveFolders(base)
        return cls(lambda path: typed_values(folders.values(path), schema), schema)

    def describe(self) -> str | None:
        """The schema as text, for the manifest."""
        return None if self.schema is None else pack_schema(self.schema)


def literal_folder(dataset: InputDataset) -> str:
    """The folder, absolute or a URL, below which the partition values of a dataset's only pattern are looked for."""
    pattern = dataset.input.files[0]
    whole = pattern if is_url(pattern) else os.path.abspath(os.path.join(dataset.input.base, pattern))
    if os.path.isfile(whole):
        whole = os.path.dirname(whole)
    has_wildcards = not os.path.isdir(whole)
    literal = []
    for name in whole.split("/"):
        if "=" in name or (has_wildcards and is_glob(_ONE_CHARACTER.sub("", name))):
            break
        literal.append(_ONE_CHARACTER.sub(r"\1", name) if has_wildcards else name)
    return "/".join(literal)


_ONE_CHARACTER = re.compile(r"\[([^]!])\]")  # a set of one: how a path is written of which a character means itself


# Tables


def _of_tables(
    datasets: Sequence[InputTable],
    size: int | BatchSize | None,
    keys: Sequence[str] | None,
    planned: Plan,
    at: Callable[[int, str | None], None],
) -> Iterator[PlannedMiniBatch]:
    """Surveys of all inputs come first: what they find wrong is told before any work is done."""
    stores = [_Store(AnyFiles(dataset.storage), partial(at, number)) for number, dataset in enumerate(datasets)]
    surveyed = []
    for dataset, store in zip(datasets, stores, strict=True):
        _log.info("looking at the table %s", _shown(dataset))
        survey = dataset.format.survey(partial(store.told, dataset.files), store)
        if dataset.path_column is not None:
            _check_path_column(dataset.path_column, survey, _shown(dataset))
        if dataset.drop_columns:
            dataset, survey = _dropped(dataset, survey)
        if dataset.file_column is not None:
            check_file_column(dataset.file_column, unpack_schema(survey["schema"]), _shown(dataset))
        for doubt in Told.of(survey).doubts:
            _log.warning("%s", doubt.text)
        surveyed.append(dataset)
        planned.inputs.append(_described_table(dataset, survey))
    datasets = surveyed
    found = 0
    for number, (dataset, store) in enumerate(zip(datasets, stores, strict=True)):
        described = planned.inputs[number]
        partitioning = Partitioning.of(dataset)
        described["partition_schema"] = partitioning and partitioning.describe()
        split = partial(dataset.format.split, survey=described["survey"], store=store)
        path_values = _PathValues(dataset, partitioning)
        if keys:
            mini_batches = _by_partition(number, dataset, partitioning, keys, split, store, path_values)
        else:
            assert isinstance(size, BatchSize)
            mini_batches = _by_size(number, dataset, size, split, store, path_values)
        count = items = 0
        for exact, mini_batch in mini_batches:
            planned.exact = planned.exact and exact
            count += 1
            items += mini_batch.items
            yield mini_batch
        found += count
        if size is not None and count > 1:
            _doubt_bytes(size, dataset, count, items)
        numpy_types = described["options"]["numpy_types"]
        described["keys_without_value"] = [] if numpy_types else sorted(path_values.lacking)
    if not found:
        raise _no_rows(datasets, stores)


def _doubt_bytes(size: int | BatchSize, dataset: InputTable, count: int, items: int) -> None:
    """Says what a bare number means, unless it is so large that nobody can have meant rows."""
    assert isinstance(size, BatchSize)
    if size.bare and size.bytes is not None and size.bytes < _SURELY_BYTES:
        rows = items / count
        _log.warning(
            "mini_batch_size: %d means %d bytes of %s: about %s rows a mini-batch, %s mini-batches in all. Write "
            "%drows if rows are meant, else a unit such as %dKB",
            *(size.bytes, size.bytes, _shown(dataset), f"{rows:,.0f}" if rows >= 10 else f"{rows:.1f}", f"{count:,}"),
            *(size.bytes, max(1, size.bytes // 1024)),
        )


def _no_rows(datasets: Sequence[InputTable], stores: Sequence[_Store]) -> InputError:
    """What to say of files of which none has a row; names the first of them."""
    files = ((path, store) for dataset, store in zip(datasets, stores, strict=True) for path in dataset.files())
    told = [f"{path} ({store.size(path)} bytes)" for path, store in islice(files, _TOLD)]
    others = sum(1 for _ in files)
    return InputError(
        f"the inputs hold no items: there are no rows in {', '.join(told)}{f' and {others} more' if others else ''}"
    )


def _nobody(dataset: int, path: str | None) -> None:
    pass


class _Store:
    """Files that ``at`` is told of when they are opened. Their size is asked for once, however often in a row it is
    wanted: of a remote one it is a request."""

    def __init__(self, files: AnyFiles, at: Callable[[str | None], None]) -> None:
        self._files = files
        self._at = at
        self._is_at = False
        self._last = ("", 0)

    def told(self, files: Callable[[], Iterator[str]]) -> Iterator[str]:
        """The files; whoever asks for the next one has done with the one before, as far as is known."""
        for path in files():
            yield path
            if self._is_at:
                self._is_at = False
                self._at(None)

    def open(self, path: str) -> BinaryIO:
        self._is_at = True
        self._at(path)
        return self._files.open(path)

    def size(self, path: str) -> int:
        if self._last[0] != path:
            self._last = path, self._files.size(path)
        return self._last[1]


def _by_partition(
    number: int,
    dataset: InputTable,
    partitioning: Partitioning | None,
    keys: Sequence[str],
    split: Callable[..., Iterator[Part]],
    store: _Store,
    path_values: _PathValues,
) -> Iterator[tuple[bool, PlannedMiniBatch]]:
    for values, paths in _partitions(dataset, partitioning, keys):
        parts, sizes, columns = [], [], []
        for path in map(os.fsdecode, paths):
            found = list(split(path, size=_WHOLE))
            if found:
                parts += found
                sizes += [store.size(path)] * len(found)
                columns += [path_values(path)] * len(found)
        if parts:
            yield _of_parts(number, parts, sizes, columns, partition=to_json(values))


def _by_size(
    number: int,
    dataset: InputTable,
    size: BatchSize,
    split: Callable[..., Iterator[Part]],
    store: _Store,
    path_values: _PathValues,
) -> Iterator[tuple[bool, PlannedMiniBatch]]:
    for path in store.told(dataset.files):
        columns = [path_values(path)]
        for part, stays in _with_stays(split(path, size=size)):
            yield _of_parts(number, [part], [store.size(path)], columns, stays)


class _PathValues:
    """The columns that the path of a file gives; ``lacking`` has those that some file has had no value of."""

    def __init__(self, dataset: InputTable, partitioning: Partitioning | None) -> None:
        self.lacking: set[str] = set()
        self._dataset = dataset
        self._partitioning = partitioning

    def __call__(self, path: str) -> dict[str, Any]:
        values = self._partitioning.values(path) if self._partitioning else {}
        if self._dataset.path_column in values:
            problem = f"{self._dataset.path_column!r} is a partition key already; choose another name"
            raise InputError(f"path_column: {problem}")
        self.lacking.update(key for key, value in values.items() if value is None)
        return {key: value for key, value in values.items() if key not in self._dataset.drop_columns}


def _dropped(dataset: InputTable, survey: dict[str, Any]) -> tuple[InputTable, dict[str, Any]]:
    """The dataset and its survey without the columns that are to be left out; of partition keys, see
    :class:`_PathValues`.

    Raises:
        InputError: one is no column, or none is left.
    """
    own = columns_of(survey)
    others = [*dataset.partition_keys, *([dataset.path_column] if dataset.path_column else [])]
    unknown = [name for name in dataset.drop_columns if name not in own and name not in others]
    if unknown and own and dataset.partition_format != HIVE:  # which keys there are, only the folders tell
        raise InputError(
            f"drop_columns: {quoted(unknown)} not found in {_shown(dataset)}; its columns are {quoted([*own, *others])}"
        )
    if dataset.path_column in dataset.drop_columns:
        dataset = replace(dataset, path_column=None)
    if not set(own).intersection(dataset.drop_columns):
        return dataset, survey
    if set(own) <= set(dataset.drop_columns):
        raise InputError(f"drop_columns: that are all columns of {_shown(dataset)}; at least one must be left")
    format, survey = without_columns(dataset.format, survey, dataset.drop_columns)
    return replace(dataset, format=format), survey


def _check_path_column(name: str, survey: dict[str, Any], shown: str) -> None:
    """Raises InputError: the column is there already, or there are no columns."""
    if not survey.get("table", True):
        raise InputError(
            f"path_column: {shown} holds arrays of more than one dimension, which have no columns; remove it, and take "
            "the paths from context.dataset.paths"
        )
    if name in columns_of(survey):
        raise InputError(f"path_column: {shown} has a column {name!r} already; choose another name")


def _described_table(dataset: InputTable, survey: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "table" if dataset.file_column is None else "files",
        "staged": dataset.file_column is not None,
        "file_column": dataset.file_column,
        "files": dataset.input.files or [str(dataset.input.files_from)],
        "format": type(dataset.format).__name__,
        "options": asdict(dataset.format),  # type: ignore[call-overload]  # a protocol cannot say that it is a dataclass
        "survey": survey,
        "remote": dataset.is_remote,
        "path_column": dataset.path_column,
        "partition_format": dataset.partition_format,
    }


def _with_stays(parts: Iterable[Part]) -> Iterator[tuple[Part, int]]:
    """Each part, and how many from it on share a group. Holds the parts of one group."""
    together: list[Part] = []
    for part in parts:
        if together and (part.group < 0 or part.group != together[-1].group):
            yield from zip(together, range(len(together), 0, -1), strict=True)
            together.clear()
        together.append(part)
    yield from zip(together, range(len(together), 0, -1), strict=True)


def _of_parts(
    number: int,
    parts: Sequence[Part],
    sizes: Sequence[int],
    columns: Sequence[dict[str, Any]],
    stays: int = 1,
    **header: Any,
) -> tuple[bool, PlannedMiniBatch]:
    """A mini-batch of some parts, and whether its rows are counted."""
    items = sum(part.rows for part in parts)
    if items >= SIZE_LIMIT:
        raise InputError(f"one mini-batch of {parts[0].file} has {items} rows, and 2^32 is the limit")
    header |= {"parts": list(parts), "sizes": list(sizes)}
    if any(columns):
        header["columns"] = [to_json(each) for each in columns]
    exact = all(part.first_row >= 0 for part in parts)
    return exact, PlannedMiniBatch(number, items, pack(header), stays)

"""What reads the data of datasets, or copies it: listing, DataFrames, downloads, partitioned copies.

The data itself is read by ``mpi_prs.inputs``, as in a job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import pyarrow as pa

from mpi_prs.azureml.datasets.records import DataSource
from mpi_prs.azureml.datastores.datastore import DataPath, Datastore
from mpi_prs.azureml.datastores.transfer import TransferProgress, bring, files_below, put, storage_of
from mpi_prs.child.context.given_path import given_path
from mpi_prs.child.mini_batch import data_frame
from mpi_prs.core.errors import InputError, OutputError, WorkspaceError
from mpi_prs.core.urls import Names, is_glob, is_url, literal
from mpi_prs.inputs import datasets
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.partition_by import partition_by as write_parts
from mpi_prs.inputs.planning import Partitioning, plan
from mpi_prs.inputs.reading import read_tables
from mpi_prs.storage.remote import list_any, list_urls
from mpi_prs.storage.stores import safe_path


class AnyDataset(Protocol):
    """What is asked of a dataset of either kind."""

    are_rows: ClassVar[bool]

    @property
    def sources(self) -> tuple[DataSource, ...]: ...

    @property
    def partition_format(self) -> str | None: ...

    @property
    def keys(self) -> tuple[str, ...]: ...

    @property
    def partition_keys(self) -> list[str]: ...

    @property
    def first(self) -> int: ...

    @property
    def stop(self) -> int | None: ...

    @property
    def is_cut(self) -> bool: ...

    def storage_section(self) -> dict[str, Any]: ...


class AnyTable(AnyDataset, Protocol):
    """What is asked of a TabularDataset besides."""

    @property
    def format(self) -> str: ...

    @property
    def options(self) -> Mapping[str, Any]: ...

    @property
    def path_column(self) -> str | None: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def dropped(self) -> tuple[str, ...]: ...


def data_of(dataset: AnyDataset) -> datasets.InputDataset:
    """The dataset as ``mpi_prs.inputs`` has it, whole.

    Raises:
        WorkspaceError: a datastore is not registered any more.
        InputError: an option of the format is not what it should be.
    """
    patterns = [source.pattern() for source in dataset.sources]
    common: dict[str, Any] = {
        "partition_format": dataset.partition_format,
        "storage": storage_of(dataset.storage_section()),
    }
    if not dataset.are_rows:
        return datasets.InputFiles.from_files(patterns, **common)
    rows = cast("AnyTable", dataset)
    columns = {"columns": rows.columns} if rows.columns else {}
    return datasets.InputTable.from_files(
        patterns,
        rows.format,
        **rows.options,
        **columns,
        path_column=rows.path_column,
        drop_columns=rows.dropped,
        **common,
    )


def check(dataset: AnyDataset) -> None:
    """Look whether the data can be had: the first file is listed, the columns of rows are found out, and the partition
    keys of the first path.

    Raises:
        InputError: it cannot, and why.
    """
    data = data_of(dataset)
    if dataset.keys or dataset.partition_format is not None:
        _values_of(data, next(data.paths()))
    size = BatchSize(rows=1_000) if hasattr(data, "format") else 1
    if next(iter(plan([data], size).mini_batches), None) is None:
        raise WorkspaceError(f"there are no rows in {dataset}")


# Files


def every_file(dataset: AnyDataset) -> Iterator[tuple[str, str]]:
    """The absolute path or URL of each file, and its path below what the dataset's places have in common.

    Raises:
        InputError: they cannot be listed.
    """
    storage = storage_of(dataset.storage_section())
    bases = _bases(dataset.sources)

    def each() -> Iterator[tuple[str, str]]:
        for source, (base, label) in zip(dataset.sources, bases, strict=True):
            for path in datasets.InputFiles.from_files(source.pattern(), storage=storage).files():
                yield path, label + path.removeprefix(base).lstrip("/")

    yield from islice(each(), dataset.first, dataset.stop)


def _bases(sources: Sequence[DataSource]) -> list[tuple[str, str]]:
    """For each place: what is cut off its files' paths, and what they get in front instead.

    Places of one datastore (or outside of all) lose what they have in common; those of different ones get names.
    """
    roots = [source.root()[0] for source in sources]
    common: dict[str, str] = {}
    for source, root in zip(sources, roots, strict=True):
        folder = _literal_folder(source, root)
        common[root] = folder if root not in common else _common(common[root], folder)
    if len(common) == 1:
        return [(common[root], "") for root in roots]
    return [(common[root], f"{_label(source)}/") for source, root in zip(sources, roots, strict=True)]


def _literal_folder(source: DataSource, root: str) -> str:
    """The deepest folder that all files of a place are below, with a slash at the end."""
    path = source.root()[1]
    folder = path.rstrip("/") + "/" if path else ""
    if is_url(root):
        first = _first(source) if is_glob(path) or path != folder else root + folder
        is_folder, is_file = first.startswith(root + folder), first == root + path
    else:
        is_folder = os.path.isdir(root + path) or (path == folder and not is_glob(path))
        is_file = os.path.lexists(root + path)
    if is_folder:
        return root + folder
    return root + (path[: path.rfind("/") + 1] if is_file or not is_glob(path) else literal(path))


def _first(source: DataSource) -> str:
    """The URL of the first file of a place: that of a file is its own, those of a folder begin with the folder's."""
    return next(iter(list_urls(source.pattern(), storage_of(source.storage()))))[0]


def _common(first: str, second: str) -> str:
    pairs = zip(first.split("/")[:-1], second.split("/")[:-1], strict=False)
    return "".join(f"{name}/" for name, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _label(source: DataSource) -> str:
    if source.datastore_name is not None:
        return source.datastore_name
    return re.sub(r"[^A-Za-z0-9.-]+", "-", source.root()[0]).strip("-") or "local"


def config_pattern(pattern: str) -> str:
    """A path, URL or glob as job configs take it: in a path they expand ``$``.

    Raises:
        WorkspaceError: it is no text.
    """
    if is_url(pattern):
        return pattern
    try:
        pattern.encode()
    except UnicodeEncodeError:
        raise WorkspaceError(
            f"{pattern!r}: this name is no valid text, and no job config can hold it; rename the file"
        ) from None
    return pattern.replace("$", "$$")


def local_pairs(dataset: AnyDataset, target: Path) -> list[tuple[str, Path]]:
    """Path or URL of each file, and its path below a folder of this machine."""
    pairs = [(source, target / safe_path(name)) for source, name in every_file(dataset)]
    twice = {path for _, path in pairs}
    if len(twice) < len(pairs):
        raise WorkspaceError(f"some files of {dataset} have the same path below {target}, or are listed twice")
    return pairs


def download(dataset: AnyDataset, target_path: str | os.PathLike[str] | None, overwrite: bool) -> list[str]:
    """See :meth:`FileDataset.download`."""
    if target_path is None:
        target = Path(tempfile.mkdtemp(prefix="mpi_prs-"))
    else:
        target = given_path("target_path", target_path)
    pairs = local_pairs(dataset, target)
    there = [path for _, path in pairs if os.path.lexists(path)]
    if there and not overwrite:
        raise WorkspaceError(f"{there[0]} is there already; give overwrite=True, or another target_path")
    progress = TransferProgress("downloading", "downloaded", f"to {target}", show=False)
    bring(pairs, dataset.storage_section(), overwrite=True, progress=progress)
    return [str(path) for _, path in pairs]


class MountContext:
    """The files of a dataset below a folder, from :meth:`start` to :meth:`stop`, or in a ``with`` block.

    Attributes:
        mount_point: the folder.
    """

    def __init__(self, dataset: AnyDataset, mount_point: str | os.PathLike[str] | None) -> None:
        self._dataset = dataset
        self._wanted = None if mount_point is None else str(given_path("mount_point", mount_point))
        self._undo = contextlib.ExitStack()
        self._mount_point = self._wanted
        self._started = False

    @property
    def mount_point(self) -> str:
        """Raises WorkspaceError: it is not known before :meth:`start`."""
        if self._mount_point is None:
            raise WorkspaceError("the mount point is not known yet; call start() first, or use a with block")
        return self._mount_point

    def start(self) -> None:
        """Bring the files there. A second call does nothing.

        Raises:
            InputError: they cannot be listed or fetched.
            WorkspaceError: something is in the folder already, or it cannot be written.
        """
        if self._started:
            return
        if self._wanted is None and (folder := _single_folder(self._dataset)) is not None:
            self._mount_point, self._started = folder, True
            return
        with contextlib.ExitStack() as undo:
            target = self._new_folder(undo)
            pairs = local_pairs(self._dataset, target)
            remote = [pair for pair in pairs if is_url(pair[0])]
            progress = TransferProgress("fetching", "fetched", f"to {target}", show=False)
            bring(remote, self._dataset.storage_section(), overwrite=True, progress=progress)
            for source, path in pairs:
                if not is_url(source):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.symlink_to(source)
            self._undo = undo.pop_all()
            self._mount_point, self._started = str(target), True

    def _new_folder(self, undo: contextlib.ExitStack) -> Path:
        if self._wanted is None:
            target = Path(tempfile.mkdtemp(prefix="mpi_prs-"))
        else:
            target = Path(self._wanted)
            if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
                raise WorkspaceError(f"{target} is not an empty folder; mount_point has to be one, or not to be there")
            target.mkdir(parents=True, exist_ok=True)
        undo.callback(shutil.rmtree, target, ignore_errors=True)
        return target

    def stop(self) -> None:
        """Remove what :meth:`start` brought. A second call does nothing."""
        self._undo.close()
        self._mount_point, self._started = self._wanted, False

    def __enter__(self) -> MountContext:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _single_folder(dataset: AnyDataset) -> str | None:
    """The folder of this machine that a dataset is, if it is one."""
    if len(dataset.sources) != 1 or dataset.is_cut:
        return None
    pattern = dataset.sources[0].pattern()
    return os.path.abspath(pattern) if not is_url(pattern) and os.path.isdir(pattern) else None


# Partition keys


def partition_values(dataset: AnyDataset, keys: Sequence[str] | None) -> list[dict[str, Any]]:
    """See :meth:`AbstractDataset.get_partition_key_values`."""
    known = dataset.partition_keys
    wanted = list(known) if keys is None else list(keys)
    if unknown := [key for key in wanted if known and key not in known]:
        raise WorkspaceError(f"there is no partition key {unknown[0]!r}; there is {', '.join(known)}")
    data = data_of(dataset)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in islice(data.paths(), dataset.first, dataset.stop):
        values = _values_of(data, path)
        values = {key: values[key] for key in (wanted or values)}
        found.setdefault(tuple(values.values()), values)
    return list(found.values())


def _values_of(data: datasets.InputDataset, path: bytes) -> dict[str, Any]:
    """The values of a file's partition keys. Raises InputError: its path does not match."""
    partitioning = Partitioning.of(data)
    if partitioning is None:
        raise WorkspaceError("the dataset has no partition keys: give partition_format when it is made")
    return dict(partitioning.values(os.fsdecode(path)))


# Rows


def tables(dataset: AnyTable) -> Iterator[Any]:
    """The rows as pieces, each a ``pyarrow.Table``. Raises InputError."""
    data = data_of(dataset)
    assert isinstance(data, datasets.InputTable)
    place = 0
    for table in read_tables(data):
        start, stop = dataset.first - place, (None if dataset.stop is None else dataset.stop - place)
        place += table.num_rows
        yield table.slice(max(start, 0), None if stop is None else max(0, stop - max(start, 0)))
        if stop is not None and stop <= table.num_rows:
            return


def to_pandas(dataset: AnyTable) -> Any:
    """See :meth:`TabularDataset.to_pandas_dataframe`."""
    pieces = list(tables(dataset))
    if not pieces:
        raise WorkspaceError(f"there are no rows in {dataset}, and no columns known")
    return data_frame(pa.concat_tables(pieces, promote_options="permissive"))


def partition_by(
    dataset: AnyTable, keys: Sequence[str], target: Any, show_progress: bool, as_files: bool
) -> DataSource:
    """See :meth:`TabularDataset.partition_by`; where the copy is."""
    if isinstance(keys, str) or not isinstance(keys, Sequence) or not all(isinstance(key, str) for key in keys):
        raise WorkspaceError(f"partition_keys is a list of columns, but got {keys!r}")
    place = _target(target)
    datastore = place.datastore
    if datastore.folder is not None:
        write_parts(tables(dataset), list(keys), datastore.folder / place.path_on_datastore)
    else:
        _check_is_empty(place)
        with tempfile.TemporaryDirectory(prefix="mpi_prs-") as folder:
            written = Path(folder, "table")
            write_parts(tables(dataset), list(keys), written)
            above = place.url.rstrip("/") + "/"
            pairs = [(path, above + name) for path, name in files_below(written, run_directories=True)]
            progress = TransferProgress("uploading", "uploaded", f"to {place.datastore_name}", show_progress)
            put(pairs, datastore.storage_section(), overwrite=True, progress=progress)
    path = place.path_on_datastore + ("**/*.parquet" if as_files else "")
    return DataSource(path, datastore.workspace, datastore.name)


def _target(target: Any) -> DataPath:
    if isinstance(target, Datastore):
        return target.path(f"partitioned/{uuid.uuid4().hex}/")
    if isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], Datastore):
        target = target[0].path(target[1])
    if not isinstance(target, DataPath) or not target.path_on_datastore:
        raise WorkspaceError(
            f"target is a Datastore, a place in one such as datastore.path('copy/'), or a tuple (datastore, 'copy'), "
            f"but got {target!r}"
        )
    return dataclasses.replace(target, path_on_datastore=target.path_on_datastore.rstrip("/") + "/")


def _check_is_empty(place: DataPath) -> None:
    try:
        found = next(list_any(place.url, storage_of(place.datastore.storage_section()), Names.ALL), None)
    except InputError as error:
        raise OutputError(str(error)) from None
    if found is not None:
        raise OutputError(f"{place} is not empty: it has {found.url}. Remove what is there, or name another place")

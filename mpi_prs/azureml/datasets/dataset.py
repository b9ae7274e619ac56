"""Datasets: what the data is and where it lies, as values that can be registered under a name.

::

    Dataset.File.from_files(…)               ─► FileDataset     files: run() gets paths
    Dataset.Tabular.from_delimited_files(…)  ─► TabularDataset  rows: run() gets a DataFrame
                                                     │
                  register(ws, name) ◄───────────────┼──────────► as_named_input(name): an input of a step
                                               definition()
                                          JSON, decides everything

Nothing is read before it is asked for, except by ``validate=True``.
"""

# parameters of Azure's that mean nothing here

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from mpi_prs.azureml.datasets import reading, records
from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig
from mpi_prs.azureml.datasets.records import DataSource, one_store, source_of
from mpi_prs.azureml.datastores.datastore import DataPath, Datastore
from mpi_prs.child.context.data import dataset_id
from mpi_prs.child.context.workspace import Workspace
from mpi_prs.child.context.workspace_paths import layout_of
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.inputs.partition_format import PartitionFormat

_MOST_FROZEN = 10_000

D = TypeVar("D", bound="AbstractDataset")


@dataclass(frozen=True)
class AbstractDataset(Surface):
    """What both kinds of dataset have. They are values: every method that changes something returns another one.

    Attributes:
        sources: where the files are.
        partition_format: how partition keys are read from the paths; ``None``: there are none.
        keys: the partition keys, where the format does not name them (``hive``).
        first, stop: of all items in their order, from which and up to which one they count; ``None``: up to the last.
        registration: under which name and version it was registered; it is no part of what the dataset is.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "take_sample": "take(n) and skip(n) give the items in their order; draw a sample in the script",
        "random_split": "draw the rows or files in the script",
        "filter": "leave rows out in run(mini_batch), or write a filtered copy",
        "as_hdfs": "use as_mount()",
        "add_tags": "register another version with these tags: register(…, create_new_version=True)",
        "remove_tags": "register another version without them: register(…, create_new_version=True)",
        "update": "register another version: register(…, create_new_version=True)",
    }

    are_rows: ClassVar[bool] = False
    """Whether steps get rows, or else files. Not one of Azure's names."""

    sources: tuple[DataSource, ...]
    partition_format: str | None = None
    keys: tuple[str, ...] = ()
    first: int = 0
    stop: int | None = None
    registration: records.RegisteredVersion | None = field(default=None, compare=False)

    # Azure's class methods stand on Dataset, and on the kinds of dataset too

    @staticmethod
    def get_by_name(workspace: Workspace, name: str, version: int | str = "latest") -> Any:
        """The dataset that is registered under a name.

        Args:
            workspace: where.
            name: the name.
            version: its version; default: the latest one.

        Raises:
            WorkspaceError: there is none; names the near ones, or the versions that there are.
        """
        return records.by_name(workspace, name, version, from_definition)

    @staticmethod
    def get_by_id(workspace: Workspace, id: str) -> Any:
        """The dataset that was registered, or saved, with an id. Raises WorkspaceError: there is none."""
        return records.by_id(workspace, id, from_definition)

    @staticmethod
    def get_all(workspace: Workspace) -> Mapping[str, Any]:
        """Name → latest version of each registered dataset."""
        return records.all_of(workspace, from_definition)

    # What it is

    @property
    def name(self) -> str | None:
        """The name that it is registered under; ``None``: it is not."""
        return None if self.registration is None else self.registration.name

    @property
    def version(self) -> int | None:
        """The version that it is registered as; ``None``: it is not."""
        return None if self.registration is None else self.registration.version

    @property
    def description(self) -> str | None:
        return None if self.registration is None else self.registration.description

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.registration.tags) if self.registration is not None else {}

    @property
    def id(self) -> str:
        """Says what the dataset is: equal ones have the same, registered or not."""
        return dataset_id(self.definition())

    @property
    def partition_keys(self) -> list[str]:
        """The keys that can be read from the paths."""
        if self.partition_format in (None, "hive") or self.keys:
            return list(self.keys)

        return list(PartitionFormat.parse(self.partition_format).keys)

    def get_partition_key_values(self, partition_keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The combinations of values that there are, each once; lists all files.

        Args:
            partition_keys: those that count; default: all.

        Raises:
            WorkspaceError: there is no such key.
            InputError: the files cannot be listed.
        """
        return reading.partition_values(self, partition_keys)

    def definition(self) -> dict[str, Any]:
        """All that the dataset is, as JSON; :func:`from_definition` makes it again. Not one of Azure's names."""
        found: dict[str, Any] = {"kind": self._kind(), "paths": [source.definition() for source in self.sources]}
        if self.partition_format is not None:
            found["partition_format"] = self.partition_format
        for key, value in (("partition_keys", list(self.keys)), ("first", self.first), ("stop", self.stop)):
            if value or (key == "stop" and value is not None):
                found[key] = value
        return found

    def to_input(self) -> dict[str, Any]:
        """It as an entry of a job config's ``inputs``. Not one of Azure's names.

        Raises:
            WorkspaceError: a datastore is not registered any more, or a job cannot have this.
            InputError: of a dataset that was cut with ``take`` or ``skip``: its files cannot be listed.
        """
        raise NotImplementedError

    def storage_section(self) -> dict[str, Any]:
        """How to get at the files: a job config's ``storage``; empty: they need none. Not one of Azure's names."""
        return one_store(self.sources)

    def _kind(self) -> str:
        raise NotImplementedError

    def common_section(self) -> dict[str, Any]:
        """What the entries of both kinds have. Not one of Azure's names."""
        section: dict[str, Any] = {}
        if self.partition_format is not None:
            section["partition_format"] = self.partition_format
        storage = self.storage_section()
        if storage:
            section["storage"] = storage
        return section

    # Registration

    def register(
        self: D,
        workspace: Workspace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> D:
        """Register the dataset, as version 1 or, with ``create_new_version``, as the next one.

        Args:
            workspace: where; it has to be that of its datastore.
            name: to get it by.
            description, tags: to be kept with it.
            create_new_version: if there is one of this name already.

        Returns:
            the registered dataset, which knows its name and version.

        Raises:
            WorkspaceError: the name is taken, or cannot be one.
        """
        layout_of(workspace)
        for source in self.sources:
            if source.workspace is not None and source.workspace != workspace:
                raise WorkspaceError(
                    f"the dataset is in the datastore {source.datastore_name!r} of another workspace, "
                    f"{source.workspace.folder}; register the datastore in this one too, and make the dataset of that"
                )
        made = records.register(workspace, self, name, description, tags, create_new_version)
        return dataclasses.replace(self, registration=made)

    def unregister_all_versions(self) -> None:
        """Forget all versions of the name that it is registered under; the files stay.

        Raises:
            WorkspaceError: it is not registered, or the versions cannot be removed.
        """
        if self.registration is None:
            raise WorkspaceError("the dataset is not registered")
        records.unregister(self.registration)

    def _ensure_saved(self, workspace: Workspace) -> str:
        """Keep an unregistered dataset in the workspace, for :meth:`get_by_id`; its id. Older tutorials call this."""
        records.save(workspace, self)
        return self.id

    # Parts of it

    def take(self: D, count: int) -> D:
        """The first so many items.

        A step can take such a part of files (at most 10,000 of them); of rows it cannot.
        """
        wanted = self.first + _count("take", count)
        return self.changed(stop=wanted if self.stop is None else min(wanted, self.stop))

    def skip(self: D, count: int) -> D:
        """All but the first so many items; see :meth:`take`."""
        first = self.first + _count("skip", count)
        return self.changed(first=first if self.stop is None else min(first, self.stop))

    @property
    def is_cut(self) -> bool:
        """Whether only some of the items count. Not one of Azure's names."""
        return self.first > 0 or self.stop is not None

    def changed(self: D, **changes: Any) -> D:
        """The same but for these fields; it is not what was registered. Not one of Azure's names."""
        return dataclasses.replace(self, registration=None, **changes)

    # Use

    def as_named_input(self, name: str) -> DatasetConsumptionConfig:
        """As an input of a step, under a name."""
        return DatasetConsumptionConfig(name, self)

    def __hash__(self) -> int:
        return hash(self.id)  # as of what scripts have of it, which may become this

    def __str__(self) -> str:
        places = ", ".join(map(str, self.sources[:3])) + (", …" if len(self.sources) > 3 else "")
        return f"{self.name} (version {self.version})" if self.registration is not None else places

    def __repr__(self) -> str:
        named = f"name={self.name!r}, version={self.version}, " if self.registration is not None else ""
        return f"{type(self).__name__}({named}paths={[str(source) for source in self.sources]})"


def _count(method: str, count: Any) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise WorkspaceError(f"{method} takes a number of items, at least 0, but got {count!r}")
    return count


@dataclass(frozen=True, repr=False)
class FileDataset(AbstractDataset):
    """Files, which a step's ``run()`` gets as paths; made by ``Dataset.File.from_files``."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "to_pandas_dataframe": "make a table of the files: Dataset.Tabular.from_delimited_files(…)",
        "file_metadata": "look the files up: dataset.download() or dataset.mount()",
    }

    __hash__ = AbstractDataset.__hash__

    def _kind(self) -> str:
        return "file"

    def to_input(self) -> dict[str, Any]:
        if self.is_cut:
            files = [path for path, _ in reading.every_file(self.take(_MOST_FROZEN + 1))]
            if len(files) > _MOST_FROZEN:
                raise WorkspaceError(
                    f"take() or skip() leaves more than {_MOST_FROZEN:,} files, too many to list in a job config; name "
                    "them by a folder or glob of their own"
                )
            if not files:
                raise WorkspaceError("take() or skip() leaves no files")
            return {"files": [reading.config_pattern(path) for path in files], **self.common_section()}
        return {"files": [reading.config_pattern(source.pattern()) for source in self.sources], **self.common_section()}

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """As an input of a step: files where they are, or fetched when ``run()`` wants them."""
        return self._unnamed().as_mount(path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """As an input of a step: files brought to the node first."""
        return self._unnamed().as_download(path_on_compute)

    def as_direct(self) -> DatasetConsumptionConfig:
        """As an input of a step; for ParallelRunStep the same as :meth:`as_mount`, as on Azure."""
        return self._unnamed().as_direct()

    def _unnamed(self) -> DatasetConsumptionConfig:
        return self.as_named_input(f"input__{self.id[:8]}")

    def to_path(self) -> list[str]:
        """The files' paths below what their places have in common, each with a slash at its head.

        So they will lie below the folder of :meth:`download` and :meth:`mount`.

        Raises:
            InputError: they cannot be listed.
        """
        return [f"/{name}" for _, name in reading.every_file(self)]

    def download(
        self,
        target_path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        ignore_not_found: object = False,  # noqa: ARG002
    ) -> list[str]:
        """Bring the files to a folder, complete or not at all.

        Args:
            target_path: the folder; default: a new one for temporary files.
            overwrite: files that are there already; otherwise they are an error, as on Azure.
            ignore_not_found: means nothing here.

        Returns:
            their paths.

        Raises:
            WorkspaceError: a file is there already, or cannot be read or written.
            InputError: they cannot be listed or fetched.
        """
        return reading.download(self, target_path, overwrite)

    def mount(self, mount_point: str | os.PathLike[str] | None = None, **kwargs: object) -> reading.MountContext:  # noqa: ARG002
        """The files below a folder, while it is started: ``with dataset.mount() as folder: folder.mount_point``.

        A single folder of this machine is that folder itself. Others are brought to a folder first, which is removed
        in the end: remote files are fetched, those of this machine linked.

        Args:
            mount_point: the folder to bring them to; default: a new one for temporary files.
            kwargs: Azure's options of the mount; they mean nothing here.
        """
        return reading.MountContext(self, mount_point)


@dataclass(frozen=True, repr=False)
class TabularDataset(AbstractDataset):
    """Rows, which a step's ``run()`` gets as a DataFrame; made by ``Dataset.Tabular.from_…``.

    Attributes:
        format: ``delimited``, ``parquet``, ``json_lines`` or ``hdf5``.
        options: those of the format that are not its defaults, under the names that job configs have.
        path_column: name of the column with the file of each row; ``None``: there is none.
        columns: those to read, in this order; empty: all.
        dropped: those to leave out.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "as_mount": "rows are always read where they are: give the input as as_named_input(name) alone",
        "as_download": "rows are always read where they are: give the input as as_named_input(name) alone",
        "to_path": "the column that include_path=True adds says which file a row is from",
        "download": "use dataset.to_pandas_dataframe(), or make a FileDataset of the files",
        "mount": "use dataset.to_pandas_dataframe(), or make a FileDataset of the files",
        "to_csv_files": "use to_pandas_dataframe().to_csv(…)",
        "to_parquet_files": "use partition_by(…), or to_pandas_dataframe().to_parquet(…)",
        "to_dask_dataframe": "use to_pandas_dataframe()",
        "to_spark_dataframe": "use to_pandas_dataframe()",
        "with_timestamp_columns": "select rows in run(mini_batch), or partition by date",
        "time_before": "select rows in run(mini_batch), or partition by date",
        "time_after": "select rows in run(mini_batch), or partition by date",
        "time_between": "select rows in run(mini_batch), or partition by date",
        "time_recent": "select rows in run(mini_batch), or partition by date",
        "get_profile": "use to_pandas_dataframe().describe()",
        "submit_profile_run": "use to_pandas_dataframe().describe()",
    }

    are_rows: ClassVar[bool] = True

    format: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    path_column: str | None = None
    columns: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    __hash__ = AbstractDataset.__hash__

    def _kind(self) -> str:
        return "tabular"

    def definition(self) -> dict[str, Any]:
        found = {**super().definition(), "format": self.format}
        for key, value in (
            ("options", dict(self.options)),
            ("path_column", self.path_column),
            ("columns", list(self.columns)),
            ("drop_columns", list(self.dropped)),
        ):
            if value:
                found[key] = value
        return found

    def to_input(self) -> dict[str, Any]:
        if self.is_cut:
            raise WorkspaceError(
                "take() and skip() of a TabularDataset are for looking at it: a step reads whole files. Write the rows "
                "to a file, to_pandas_dataframe().to_parquet(…), and give the step that"
            )
        section: dict[str, Any] = {
            "table": [reading.config_pattern(source.pattern()) for source in self.sources],
            "format": self.format,
            **self.options,
            **self.common_section(),
        }
        if self.path_column is not None:
            section["path_column"] = self.path_column
        if self.columns:
            section["columns"] = list(self.columns)
        if self.dropped:
            section["drop_columns"] = list(self.dropped)
        return section

    def keep_columns(self, columns: str | Sequence[str], validate: bool = False) -> TabularDataset:
        """Only these columns, in this order; partition keys come last.

        Raises:
            WorkspaceError: it is no list of names, or one was left out before.
            InputError: with ``validate``: there is no such column.
        """
        wanted = _columns(columns)
        gone = [name for name in wanted if name in self.dropped or (self.columns and name not in self._all_kept())]
        if gone:
            raise WorkspaceError(f"keep_columns: {gone[0]!r} was left out before")
        keys = self.partition_keys
        of_files = tuple(name for name in wanted if name not in keys and name != self.path_column)
        if not of_files:
            raise WorkspaceError(f"keep_columns: {wanted!r}: keep at least one column that is in the files")
        made = self.changed(
            columns=of_files,
            dropped=tuple(key for key in keys if key not in wanted),
            path_column=self.path_column if self.path_column in wanted else None,
        )
        return made._checked(validate)

    def drop_columns(self, columns: str | Sequence[str]) -> TabularDataset:
        """All but these columns. Raises WorkspaceError: it is no list of names, or nothing would be left."""
        unwanted = _columns(columns)
        kept = tuple(name for name in self.columns if name not in unwanted)
        if self.columns and not kept:
            raise WorkspaceError(f"drop_columns: without {unwanted!r} no column is left")
        more = [name for name in unwanted if name not in self.columns and name != self.path_column]
        unknown = [name for name in more if name not in self.partition_keys] if self.columns else []
        if unknown:
            raise WorkspaceError(f"drop_columns: {unknown[0]!r} is none of the columns {', '.join(self.columns)}")
        return self.changed(
            columns=kept,
            dropped=tuple(dict.fromkeys([*self.dropped, *more])),
            path_column=None if self.path_column in unwanted else self.path_column,
        )

    def _all_kept(self) -> list[str]:
        return [*self.columns, *self.partition_keys, *([self.path_column] if self.path_column else [])]

    def _checked(self, validate: bool) -> TabularDataset:
        if validate:
            reading.check(self)
        return self

    def to_pandas_dataframe(
        self,
        on_error: object = "null",  # noqa: ARG002
        out_of_range_datetime: object = "null",  # noqa: ARG002
    ) -> Any:
        """All rows as a ``pandas.DataFrame``, with the columns and types that ``run()`` would get.

        Args:
            on_error, out_of_range_datetime: mean nothing here: a value that does not fit its type is an error.

        Raises:
            InputError: the files cannot be read.
        """
        return reading.to_pandas(self)

    def partition_by(
        self,
        partition_keys: Sequence[str],
        target: DataPath | Datastore | tuple[Datastore, str],
        name: str | None = None,
        show_progress: bool = True,
        partition_as_file_dataset: bool = False,
    ) -> TabularDataset | FileDataset:
        """Write a copy of the rows, as Parquet in folders ``key=value``; it reads all rows once, here.

        Args:
            partition_keys: columns, outermost folder first.
            target: where; of a datastore alone, a new folder in it. It must be empty.
            name: to register the copy, as the next version.
            show_progress: tell how far the upload is.
            partition_as_file_dataset: return its files, not its rows.

        Returns:
            the copy. In a blob container its partition keys are text, whatever they were.

        Raises:
            WorkspaceError: the target is none.
            InputError: the files cannot be read, or a column does not exist or cannot name folders.
            OutputError: the target is not empty, or cannot be written.
        """
        source = reading.partition_by(self, partition_keys, target, show_progress, partition_as_file_dataset)
        common: dict[str, Any] = {"partition_format": "hive", "keys": tuple(partition_keys)}
        made: TabularDataset | FileDataset
        if partition_as_file_dataset:
            made = FileDataset((source,), **common)
        else:
            made = TabularDataset((source,), format="parquet", **common)
        if name is None:
            return made
        assert source.workspace is not None
        return made.register(source.workspace, name, create_new_version=True)


def from_definition(
    workspace: Workspace | None, definition: Mapping[str, Any], registration: records.RegisteredVersion | None = None
) -> FileDataset | TabularDataset:
    """The dataset of a :meth:`AbstractDataset.definition`.

    Args:
        workspace: that of its datastores.

    Raises:
        WorkspaceError: it is none.
    """
    kind, paths = definition.get("kind"), definition.get("paths")
    if kind not in ("file", "tabular") or not isinstance(paths, list) or not paths:
        raise WorkspaceError("this is no definition of a dataset: expected a kind, file or tabular, and paths")
    places = tuple(source_of(workspace, path) for path in paths)
    common: dict[str, Any] = {
        "partition_format": definition.get("partition_format"),
        "keys": tuple(definition.get("partition_keys", ())),
        "first": definition.get("first", 0),
        "stop": definition.get("stop"),
        "registration": registration,
    }
    if kind == "file":
        return FileDataset(places, **common)
    return TabularDataset(
        places,
        **common,
        format=str(definition["format"]),
        options=definition.get("options", {}),
        path_column=definition.get("path_column"),
        columns=tuple(definition.get("columns", ())),
        dropped=tuple(definition.get("drop_columns", ())),
    )


def datasets_of(workspace: Workspace) -> Mapping[str, FileDataset | TabularDataset]:
    """Name → latest version of each registered dataset; read when they are asked for."""
    return records.all_of(workspace, from_definition)


def _columns(columns: Any) -> list[str]:
    found = [columns] if isinstance(columns, str) else columns
    if not isinstance(found, Sequence) or not found or not all(isinstance(name, str) for name in found):
        raise WorkspaceError(f"expected the name of a column, or a list of names, but got {columns!r}")
    return list(dict.fromkeys(found))

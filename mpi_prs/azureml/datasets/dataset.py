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

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from mpi_prs.azureml.datasets import registry
from mpi_prs.azureml.datasets.abstract_dataset import AbstractDataset
from mpi_prs.azureml.datasets.factories import FileDatasetFactory, TabularDatasetFactory, check_data
from mpi_prs.azureml.datasets.sources import source_of
from mpi_prs.azureml.datastores.datastore import DataPath, Datastore
from mpi_prs.core.errors import WorkspaceError

if TYPE_CHECKING:
    from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig
    from mpi_prs.azureml.datasets.reading import MountContext
    from mpi_prs.azureml.datasets.registry import Registration
    from mpi_prs.child.context.workspace import Workspace

_MOST_FROZEN = 10_000


@dataclass(frozen=True, repr=False)
class FileDataset(AbstractDataset):
    """Files, which a step's ``run()`` gets as paths; made by ``Dataset.File.from_files``."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "to_pandas_dataframe": "make a table of the files: Dataset.Tabular.from_delimited_files(…)",
        "file_metadata": "look the files up: dataset.download() or dataset.mount()",
    }

    def _kind(self) -> str:
        return "file"

    def to_input(self) -> dict[str, Any]:
        from mpi_prs.azureml.datasets.reading import config_pattern, every_file

        if self.is_cut:
            files = [path for path, _ in every_file(self.take(_MOST_FROZEN + 1))]
            if len(files) > _MOST_FROZEN:
                raise WorkspaceError(
                    f"take() or skip() leaves more than {_MOST_FROZEN:,} files, too many to list in a job config; name "
                    "them by a folder or glob of their own"
                )
            if not files:
                raise WorkspaceError("take() or skip() leaves no files")
            return {"files": [config_pattern(path) for path in files], **self.common_section()}
        return {"files": [config_pattern(source.pattern()) for source in self.sources], **self.common_section()}

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
        from mpi_prs.azureml.datasets.reading import every_file

        return [f"/{name}" for _, name in every_file(self)]

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
        from mpi_prs.azureml.datasets.reading import download

        return download(self, target_path, overwrite)

    def mount(self, mount_point: str | os.PathLike[str] | None = None, **kwargs: object) -> MountContext:  # noqa: ARG002
        """The files below a folder, while it is started: ``with dataset.mount() as folder: folder.mount_point``.

        A single folder of this machine is that folder itself. Others are brought to a folder first, which is removed
        in the end: remote files are fetched, those of this machine linked.

        Args:
            mount_point: the folder to bring them to; default: a new one for temporary files.
            kwargs: Azure's options of the mount; they mean nothing here.
        """
        from mpi_prs.azureml.datasets.reading import MountContext

        return MountContext(self, mount_point)


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

    format: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    path_column: str | None = None
    columns: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

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
        from mpi_prs.azureml.datasets.reading import config_pattern

        if self.is_cut:
            raise WorkspaceError(
                "take() and skip() of a TabularDataset are for looking at it: a step reads whole files. Write the rows "
                "to a file, to_pandas_dataframe().to_parquet(…), and give the step that"
            )
        section: dict[str, Any] = {
            "table": [config_pattern(source.pattern()) for source in self.sources],
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
            check_data(self)
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
        from mpi_prs.azureml.datasets.reading import to_pandas

        return to_pandas(self)

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
        from mpi_prs.azureml.datasets.reading import partition_by

        made: TabularDataset | FileDataset = partition_by(
            self, partition_keys, target, show_progress, partition_as_file_dataset
        )
        if name is None:
            return made
        workspace = made.sources[0].workspace
        assert workspace is not None
        return made.register(workspace, name, create_new_version=True)


class Dataset(AbstractDataset):
    """Where datasets are made (``Dataset.File``, ``Dataset.Tabular``) and found (``Dataset.get_by_name``)."""

    File = FileDatasetFactory
    Tabular = TabularDatasetFactory

    def __init__(self) -> None:
        """There is no plain dataset."""
        raise WorkspaceError("make a dataset with Dataset.File.from_files(…) or Dataset.Tabular.from_…(…)")


def from_definition(
    workspace: Workspace | None, definition: Mapping[str, Any], registration: Registration | None = None
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
    sources = tuple(source_of(workspace, path) for path in paths)
    common: dict[str, Any] = {
        "partition_format": definition.get("partition_format"),
        "keys": tuple(definition.get("partition_keys", ())),
        "first": definition.get("first", 0),
        "stop": definition.get("stop"),
        "registration": registration,
    }
    if kind == "file":
        return FileDataset(sources, **common)
    return TabularDataset(
        sources,
        **common,
        format=str(definition["format"]),
        options=definition.get("options", {}),
        path_column=definition.get("path_column"),
        columns=tuple(definition.get("columns", ())),
        dropped=tuple(definition.get("drop_columns", ())),
    )


def datasets_of(workspace: Workspace) -> Mapping[str, FileDataset | TabularDataset]:
    """Name → latest version of each registered dataset; read when they are asked for."""
    return registry.all_of(workspace)


def _columns(columns: Any) -> list[str]:
    found = [columns] if isinstance(columns, str) else columns
    if not isinstance(found, Sequence) or not found or not all(isinstance(name, str) for name in found):
        raise WorkspaceError(f"expected the name of a column, or a list of names, but got {columns!r}")
    return list(dict.fromkeys(found))

"""How a step leaves a dataset."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mpi_prs.azureml.datasets.column_types import PromoteHeadersBehavior
from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig, check_input_name
from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.datastores.datastore import Datastore, checked_path
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.urls import escape


@dataclass(frozen=True)
class OutputFileDatasetConfig(Surface):
    """The output of a step, as a dataset of files for later steps; every method returns a changed copy.

    Attributes:
        name: of the output; default: one that nobody else has.
        destination: a datastore and a path in it, in which ``{run-id}`` and ``{output-name}`` stand for those of the
            run; default: the workspace's default datastore, with PipelineData's place.
        source: means nothing here: a step of ParallelRunStep writes its rows, and its scripts know the folder.
        partition_format: partition keys in the paths.
        mode: ``mount`` or ``upload``; means nothing here.
        registered: name, description and tags of the dataset that it becomes when the run has completed; ``None``: it
            becomes none.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {"as_hdfs": "use as_mount()", "read_parquet": "use read_parquet_files()"}

    are_rows: ClassVar[bool] = False

    name: str = field(default_factory=lambda: f"output_{uuid.uuid4().hex[:8]}")
    destination: tuple[Datastore, str | None] | None = None
    source: Any = None
    partition_format: str | None = None
    mode: str = "mount"
    registered: tuple[str, str | None, Mapping[str, str] | None] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        """Raises WorkspaceError: the name or the destination is none."""
        if self.name is None:
            object.__setattr__(self, "name", f"output_{uuid.uuid4().hex[:8]}")
        check_input_name(self.name, "output")
        if self.destination is None:
            return
        given = self.destination if isinstance(self.destination, tuple) else (self.destination, None)
        if len(given) != 2 or not isinstance(given[0], Datastore) or not isinstance(given[1], (str, type(None))):
            raise WorkspaceError(
                f"the destination of the output {self.name!r} is a tuple (datastore, path), but got "
                f"{self.destination!r}"
            )
        object.__setattr__(self, "destination", (given[0], None if given[1] is None else checked_path(given[1])))

    @property
    def datastore(self) -> Datastore | None:
        """Where it lies; ``None``: in the workspace's default datastore. Not one of Azure's names."""
        return None if self.destination is None else self.destination[0]

    @property
    def path_on_datastore(self) -> str | None:
        """Its folder there, with placeholders; ``None``: PipelineData's place. Not one of Azure's names."""
        return None if self.destination is None else self.destination[1]

    def path_of_run(self, run_id: str) -> str | None:
        """Its folder in the datastore of one run; ``None``: PipelineData's place. Not one of Azure's names."""
        path = self.path_on_datastore
        return path and path.replace("{run-id}", run_id).replace("{output-name}", self.name)

    def as_mount(self, disable_metadata_cache: object = False) -> OutputFileDatasetConfig:  # noqa: ARG002
        """The same: a step writes where its output stays."""
        return dataclasses.replace(self, mode="mount")

    def as_upload(
        self,
        overwrite: object = False,  # noqa: ARG002
        source_globs: object = None,  # noqa: ARG002
    ) -> OutputFileDatasetConfig:
        """The same; what is to be stored in a blob container is uploaded in any case when it is complete."""
        return dataclasses.replace(self, mode="upload")

    def register_on_complete(
        self, name: str, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> OutputFileDatasetConfig:
        """The same, registered as the next version of a dataset when the run has completed."""
        return dataclasses.replace(self, registered=(name, description, tags))

    def as_input(self, name: str | None = None) -> DatasetConsumptionConfig:
        """As an input of a later step."""
        return DatasetConsumptionConfig(name or self.name, self, "mount")

    def read_delimited_files(
        self,
        include_path: bool = False,
        separator: str = ",",
        header: bool | PromoteHeadersBehavior | str = PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS,
        partition_format: str | None = None,
        path_glob: str | None = None,
        set_column_types: Mapping[str, Any] | None = None,
    ) -> OutputTabularDatasetConfig:
        """As rows of delimited text; the parameters are those of ``Dataset.Tabular.from_delimited_files``.

        Args:
            path_glob: the files that count, such as ``**/*.csv``; default: all.
        """
        options = {
            "include_path": include_path,
            "separator": separator,
            "header": header,
            "partition_format": partition_format or self.partition_format,
            "set_column_types": set_column_types,
        }
        return OutputTabularDatasetConfig(self, "delimited", options, path_glob)

    def read_parquet_files(
        self,
        include_path: bool = False,
        partition_format: str | None = None,
        path_glob: str | None = None,
        set_column_types: Mapping[str, Any] | None = None,
    ) -> OutputTabularDatasetConfig:
        """As rows of Parquet files; see :meth:`read_delimited_files`."""
        options = {
            "include_path": include_path,
            "partition_format": partition_format or self.partition_format,
            "set_column_types": set_column_types,
        }
        return OutputTabularDatasetConfig(self, "parquet", options, path_glob)

    def dataset_at(self, path: Any) -> FileDataset | TabularDataset:
        """The dataset that it is once it lies somewhere. Not one of Azure's names.

        Args:
            path: a folder, a URL or a DataPath.
        """
        return Dataset.File.from_files(path, validate=False, partition_format=self.partition_format)


@dataclass(frozen=True)
class OutputTabularDatasetConfig(Surface):
    """The rows of a step's output, for later steps; ``OutputFileDatasetConfig.read_delimited_files`` makes it.

    Attributes:
        output: the output.
        format: ``delimited`` or ``parquet``.
        options: for ``Dataset.Tabular.from_delimited_files`` or ``from_parquet_files``.
        path_glob: the files that count, a glob below the output's folder; ``None``: all.
        kept, dropped: columns to take alone, or to leave out; empty: as they are.
        registered: see :class:`OutputFileDatasetConfig`.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "random_split": "draw the rows in the script of the later step",
        "as_mount": "rows are always read where they are",
        "as_upload": "rows are always read where they are",
    }

    are_rows: ClassVar[bool] = True

    output: OutputFileDatasetConfig
    format: str
    options: Mapping[str, Any] = field(hash=False)
    path_glob: str | None = None
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    registered: tuple[str, str | None, Mapping[str, str] | None] | None = None

    @property
    def name(self) -> str:
        return self.output.name

    def as_input(self, name: str | None = None) -> DatasetConsumptionConfig:
        """As an input of a later step."""
        return DatasetConsumptionConfig(name or self.name, self)

    def keep_columns(self, columns: str | Sequence[str]) -> OutputTabularDatasetConfig:
        """The same with these columns alone."""
        return dataclasses.replace(self, kept=(columns,) if isinstance(columns, str) else tuple(columns))

    def drop_columns(self, columns: str | Sequence[str]) -> OutputTabularDatasetConfig:
        """The same without these columns."""
        more = (columns,) if isinstance(columns, str) else tuple(columns)
        return dataclasses.replace(self, dropped=(*self.dropped, *more))

    def register_on_complete(
        self, name: str, description: str | None = None, tags: Mapping[str, str] | None = None
    ) -> OutputTabularDatasetConfig:
        """The same, registered as the next version of a dataset when the run has completed."""
        return dataclasses.replace(self, registered=(name, description, tags))

    def dataset_at(self, path: str) -> TabularDataset:
        """The dataset that it is once it lies somewhere. Not one of Azure's names.

        Args:
            path: a folder or a URL.
        """
        make: Any = {
            "delimited": Dataset.Tabular.from_delimited_files,
            "parquet": Dataset.Tabular.from_parquet_files,
        }[self.format]
        place = path if self.path_glob is None else f"{escape(path.rstrip('/'))}/{self.path_glob.lstrip('/')}"
        made: TabularDataset = make(place, validate=False, **self.options)
        if self.kept:
            made = made.keep_columns(self.kept)
        return made.drop_columns(self.dropped) if self.dropped else made

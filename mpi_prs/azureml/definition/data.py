"""What a step leaves for later steps: PipelineData, and the datasets that are made of it.

::

    PipelineData ──as_dataset()──► PipelineOutputFileDataset ──parse_delimited_files()──► PipelineOutputTabularDataset
        │ as_mount(), as_download(), as_input()          │ as_named_input(), as_mount(), …        │ as_named_input(), …
        ▼                                                ▼                                        ▼
    InputPortBinding                                    input or side input                      input
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from mpi_prs.azureml.datasets.dataset import FileDataset, TabularDataset
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import PipelineError
from mpi_prs.core.urls import escape

_NAME = re.compile(r"[A-Za-z0-9_]+")
_INPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODES = ("mount", "download", "direct")
_OUTPUT_MODES = ("mount", "upload")

T = TypeVar("T", bound="_PipelineOutputDataset")


class PipelineData(Surface):
    """The output folder of one step, and an input, a side input or an argument of others.

    It lies in ``datastore``, below ``azureml/<step run>/<name>``.

    Attributes:
        name: letters, digits and underscores.
        datastore: where it lies; ``None``: the pipeline's default.
        output_name: how ``StepRun.get_output_data`` calls it; default: ``name``.
        producer: the step that has it as its output, the last one that was made; ``None``: none has.
        pipeline_output_name: how ``PipelineRun.get_pipeline_output`` calls it; default: that does not know it.
        output_mode, output_path_on_compute, output_overwrite, data_type, is_directory, training_output: accepted and
            kept, without effect: the step writes where the data stays, which is a folder.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "set_name": "make another PipelineData",
        "as_hdfs": "use as_mount()",
    }

    def __init__(
        self,
        name: str,
        datastore: Datastore | None = None,
        output_name: str | None = None,
        output_mode: str = "mount",
        output_path_on_compute: str | None = None,
        output_overwrite: bool | None = None,
        data_type: str | None = None,
        is_directory: bool | None = None,
        pipeline_output_name: str | None = None,
        training_output: Any = None,
    ) -> None:
        """See the class.

        Raises:
            PipelineError: no such name or mode, or ``datastore`` is none.
        """
        self.name = _name(name, "a PipelineData", _NAME)
        self.datastore = _datastore(name, datastore)
        self.output_name = name if output_name is None else _name(output_name, "the output of a PipelineData", _NAME)
        self.output_mode = _mode(output_mode, _OUTPUT_MODES, f"PipelineData {name!r}: output_mode")
        self.output_path_on_compute = output_path_on_compute
        self.output_overwrite = output_overwrite
        self.data_type = data_type
        self.is_directory = is_directory
        self.pipeline_output_name = (
            None if pipeline_output_name is None else _name(pipeline_output_name, "a pipeline output", _NAME)
        )
        self.training_output = training_output
        self.producer: Any = None

    def __repr__(self) -> str:
        return f"PipelineData(name={self.name!r})"

    def as_dataset(self) -> PipelineOutputFileDataset:
        """The files in it, as a dataset for the inputs or side inputs of a later step."""
        return PipelineOutputFileDataset(self)

    def as_input(self, input_name: str) -> InputPortBinding:
        """As an input or side input, under another name."""
        return InputPortBinding(input_name, self)

    def as_mount(self, input_name: str | None = None) -> InputPortBinding:
        """As an input or side input that is used where it lies."""
        return InputPortBinding(input_name or self.name, self)

    def as_download(
        self, input_name: str | None = None, path_on_compute: str | None = None, overwrite: bool | None = None
    ) -> InputPortBinding:
        """As an input or side input that is brought to each node first."""
        return InputPortBinding(input_name or self.name, self, "download", path_on_compute, overwrite)

    def create_input_binding(
        self,
        input_name: str | None = None,
        mode: str | None = None,
        path_on_compute: str | None = None,
        overwrite: bool | None = None,
    ) -> InputPortBinding:
        """As an input or side input; ``mode`` is ``mount`` or ``download``."""
        return InputPortBinding(input_name or self.name, self, mode or "mount", path_on_compute, overwrite)


class InputPortBinding(Surface):
    """An earlier output under the name, and in the mode, that a step takes it in.

    Attributes:
        name: of the input.
        bind_object: the PipelineData.
        bind_mode: ``mount`` or ``download``.
        path_on_compute, overwrite: accepted and kept, without effect.
    """

    def __init__(
        self,
        name: str,
        bind_object: PipelineData | None = None,
        bind_mode: str = "mount",
        path_on_compute: str | None = None,
        overwrite: bool | None = None,
    ) -> None:
        """See the class. Raises PipelineError."""
        if not isinstance(bind_object, PipelineData):
            raise PipelineError(
                f"InputPortBinding {name!r}: bind_object is a PipelineData, but got {type(bind_object).__name__}"
            )
        self.name = _name(name, "an input", _INPUT_NAME)
        self.bind_object = bind_object
        self.bind_mode = _mode(bind_mode, ("mount", "download"), f"InputPortBinding {name!r}: bind_mode")
        self.path_on_compute = path_on_compute
        self.overwrite = overwrite


class _PipelineOutputDataset(Surface):
    """What the datasets of a PipelineData have in common; every ``as_…`` gives a changed copy.

    Attributes:
        pipeline_data: the output that it is made of.
        name: of the input that it will be.
        mode: ``mount``, ``download`` or ``direct``.
        path_on_compute: accepted and kept, without effect.
    """

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "register": "when the run has completed, make a dataset of datastore.path(...) and register that",
        "random_split": "split the rows in the script",
    }

    def __init__(self, pipeline_data: PipelineData) -> None:
        """See the class. Raises PipelineError."""
        if not isinstance(pipeline_data, PipelineData):
            raise PipelineError(
                f"{type(self).__name__} is made of a PipelineData, but got {type(pipeline_data).__name__}"
            )
        self.pipeline_data = pipeline_data
        self.name = pipeline_data.name
        self.mode = "mount"
        self.path_on_compute: str | None = None

    def as_named_input(self: T, name: str) -> T:
        """The same under another name, by which ``Run.get_context().input_datasets`` knows it. Raises PipelineError."""
        return self._with(name=_name(name, "an input", _INPUT_NAME))

    def as_direct(self: T) -> T:
        """The same in the mode ``direct``."""
        return self._with(mode="direct")

    def _with(self: T, **changes: Any) -> T:
        changed = copy.copy(self)
        vars(changed).update(changes)
        return changed


class PipelineOutputFileDataset(_PipelineOutputDataset):
    """The files of an earlier output."""

    def as_mount(self, path_on_compute: str | None = None) -> PipelineOutputFileDataset:
        """The same in the mode ``mount``: used where it lies, and fetched where that is a remote store."""
        return self._with(mode="mount", path_on_compute=path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> PipelineOutputFileDataset:
        """The same in the mode ``download``: brought to each node first."""
        return self._with(mode="download", path_on_compute=path_on_compute)

    def dataset_at(self, path: str) -> FileDataset:
        """The dataset that it is once it lies at a path or URL. Not one of Azure's names."""
        return Dataset.File.from_files(path, validate=False)

    def parse_delimited_files(
        self,
        include_path: bool = False,
        separator: str = ",",
        header: Any = True,
        partition_format: str | None = None,
        file_extension: str = "",
        set_column_types: Mapping[str, Any] | None = None,
        quoted_line_breaks: bool = False,
    ) -> PipelineOutputTabularDataset:
        """The rows of delimited text in it.

        Args:
            include_path: whether a column ``Path`` says which file a row is from.
            separator: between two values.
            header: as of ``Dataset.Tabular.from_delimited_files``.
            partition_format: partition keys in the paths.
            file_extension: such as ``.csv``: files of other names are left out; default: all files count.
            set_column_types: column → ``DataType``.
            quoted_line_breaks: whether quoted values may have line breaks.
        """
        options = {
            "include_path": include_path,
            "separator": separator,
            "header": header,
            "partition_format": partition_format,
            "set_column_types": set_column_types,
            "support_multi_line": quoted_line_breaks,
        }
        return PipelineOutputTabularDataset(self, "delimited", file_extension, options)

    def parse_parquet_files(
        self,
        include_path: bool = False,
        partition_format: str | None = None,
        file_extension: str = ".parquet",
        set_column_types: Mapping[str, Any] | None = None,
    ) -> PipelineOutputTabularDataset:
        """The rows of Parquet files in it; the arguments are those of :meth:`parse_delimited_files`."""
        options = {
            "include_path": include_path,
            "partition_format": partition_format,
            "set_column_types": set_column_types,
        }
        return PipelineOutputTabularDataset(self, "parquet", file_extension, options)


class PipelineOutputTabularDataset(_PipelineOutputDataset):
    """The rows of an earlier output.

    Attributes:
        format: ``delimited`` or ``parquet``.
        file_extension: of the files that count; empty: all do.
        options: for ``Dataset.Tabular.from_delimited_files`` or ``from_parquet_files``.
        kept, dropped: columns to take alone, or to leave out.
    """

    def __init__(
        self, files: PipelineOutputFileDataset, format: str, file_extension: str, options: Mapping[str, Any]
    ) -> None:
        """See the class; users get one by ``parse_delimited_files`` or ``parse_parquet_files``."""
        super().__init__(files.pipeline_data)
        if not isinstance(file_extension, str) or "/" in file_extension:
            raise PipelineError(f"file_extension is a text such as '.csv', but got {file_extension!r}")
        self.name = files.name
        self.mode = "direct"
        self.format = format
        self.file_extension = file_extension
        self.options = dict(options)
        self.kept: list[str] | None = None
        self.dropped: list[str] = []

    def keep_columns(self, columns: str | list[str]) -> PipelineOutputTabularDataset:
        """The same with these columns alone. Raises PipelineError."""
        return self._with(kept=_columns(columns))

    def drop_columns(self, columns: str | list[str]) -> PipelineOutputTabularDataset:
        """The same without these columns. Raises PipelineError."""
        return self._with(dropped=[*self.dropped, *_columns(columns)])

    def dataset_at(self, path: str) -> TabularDataset:
        """The dataset that it is once it lies at a path or URL. Not one of Azure's names.

        Raises:
            WorkspaceError: an option is not what ``Dataset.Tabular`` takes.
        """
        if self.file_extension:
            path = f"{escape(path.rstrip('/'))}/**/*{self.file_extension}"
        if self.format == "parquet":
            made = Dataset.Tabular.from_parquet_files(path, validate=False, **self.options)
        else:
            made = Dataset.Tabular.from_delimited_files(path, validate=False, **self.options)
        if self.kept is not None:
            made = made.keep_columns(self.kept)
        return made.drop_columns(self.dropped) if self.dropped else made


def _name(name: object, what: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        first = ", a letter or underscore first" if pattern is _INPUT_NAME else ""
        raise PipelineError(f"the name of {what} is made of letters, digits and underscores{first}, but got {name!r}")
    return name


def _mode(mode: object, allowed: tuple[str, ...], what: str) -> str:
    if mode not in allowed:
        raise PipelineError(f"{what} is {' or '.join(map(repr, allowed))}, but got {mode!r}")
    return str(mode)


def _datastore(name: str, datastore: Any) -> Any:
    if datastore is not None and not isinstance(datastore, Datastore):
        raise PipelineError(
            f"PipelineData {name!r}: datastore is a Datastore, such as ws.get_default_datastore(), but got "
            f"{datastore!r}"
        )
    return datastore


def _columns(columns: object) -> list[str]:
    found = [columns] if isinstance(columns, str) else columns
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(column, str) for column in found):
        raise PipelineError(f"expected the name of a column, or a list of names, but got {columns!r}")
    return list(found)

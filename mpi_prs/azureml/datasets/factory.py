"""How datasets are made (``Dataset.File``, ``Dataset.Tabular``) and found (``Dataset.get_by_name``)."""

# ruff: noqa: ARG004  # parameters of Azure's that mean nothing here

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mpi_prs.azureml.datasets import reading
from mpi_prs.azureml.datasets.column_types import (
    PromoteHeadersBehavior,
    check_choice,
    column_types_option,
    encoding_option,
    header_option,
)
from mpi_prs.azureml.datasets.dataset import AbstractDataset, FileDataset, TabularDataset
from mpi_prs.azureml.datasets.records import sources
from mpi_prs.core.azure_names import Surface
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.inputs.partition_format import PartitionFormat

PATH_COLUMN = "Path"
"""The column that ``include_path`` adds."""
_UPLOAD_FIRST = "upload them with datastore.upload(…) or upload_files(…), and make a dataset of datastore.path(…)"


class FileDatasetFactory(Surface):
    """Makes FileDatasets; users have it as ``Dataset.File``."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {"upload_directory": _UPLOAD_FIRST}

    @staticmethod
    def from_files(
        path: Any, validate: bool = True, partition_format: str | None = None, is_file: object = False
    ) -> FileDataset:
        """The files in some places.

        Args:
            path: a path of this machine, a URL, ``datastore.path(…)``, a tuple (datastore, path), or a list of these;
                each a file, a folder (all files below it) or a glob. All URLs are of one store.
            validate: look whether there is a file.
            partition_format: partition keys in the paths, such as ``{user}/{date:yyyy/MM}/{name}.wav``, or ``hive``.
            is_file: means nothing here.

        Raises:
            WorkspaceError: path is none of these, or its URLs are of several stores.
            InputError: there is no file, the store refuses or cannot be reached, or the first path does not match
                ``partition_format``.
        """
        made = FileDataset(sources(path), partition_format=_partition_format(partition_format))
        if validate:
            reading.check(made)
        return made


class TabularDatasetFactory(Surface):
    """Makes TabularDatasets; users have it as ``Dataset.Tabular``."""

    _INSTEAD: ClassVar[Mapping[str, str]] = {
        "from_sql_query": "mpi_prs reads files: export the query's rows as Parquet or CSV",
        "register_pandas_dataframe": f"write the frame with to_parquet(…); {_UPLOAD_FIRST}",
        "register_dask_dataframe": f"write the frame with to_parquet(…); {_UPLOAD_FIRST}",
        "register_spark_dataframe": f"write the frame with write.parquet(…); {_UPLOAD_FIRST}",
    }

    @staticmethod
    def from_delimited_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        infer_column_types: bool = True,
        set_column_types: Mapping[str, Any] | None = None,
        separator: str = ",",
        header: bool | PromoteHeadersBehavior | str = True,
        partition_format: str | None = None,
        support_multi_line: bool = False,
        empty_as_string: bool = False,
        encoding: str = "utf8",
    ) -> TabularDataset:
        """The rows of delimited text (CSV, TSV).

        Args:
            path, partition_format: see :meth:`FileDatasetFactory.from_files`.
            validate: read the beginnings of files, and find out what columns they have.
            include_path: add a column ``Path`` with the file of each row: its absolute path, or its URL.
            infer_column_types: else all columns are text, but for those of ``set_column_types``.
            set_column_types: column → ``DataType``.
            separator: between two values.
            header: where the names of the columns stand, a ``PromoteHeadersBehavior``; ``True`` is
                ``ALL_FILES_HAVE_SAME_HEADERS``, ``False`` is ``NO_HEADERS``: ``Column1`` and so on.
            support_multi_line: quoted values may have line breaks in them.
            empty_as_string: empty text is text, and no missing value.
            encoding: ``utf8``, ``utf8bom``, ``iso88591``, ``latin1``, ``ascii``, ``utf16``, ``utf32``,
                ``windows1252``, or another one that Python has.

        Raises:
            WorkspaceError: a parameter is not what is described here.
            InputError: the same of a format's option; with ``validate``: the files cannot be read.
        """
        types, decimal = column_types_option(set_column_types)
        options = {
            "separator": _separator(separator),
            "header": header_option(header),
            "encoding": encoding_option(encoding),
            "support_multi_line": bool(support_multi_line),
            "infer_column_types": bool(infer_column_types),
            "empty_as_string": bool(empty_as_string),
            "decimal": decimal,
            "column_types": types,
        }
        options = {key: value for key, value in options.items() if value != _DELIMITED_DEFAULTS[key]}
        return _table(path, "delimited", options, validate, include_path, partition_format)

    @staticmethod
    def from_parquet_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: Mapping[str, Any] | None = None,
        partition_format: str | None = None,
    ) -> TabularDataset:
        """The rows of Parquet files; see :meth:`from_delimited_files`."""
        types, _ = column_types_option(set_column_types)
        return _table(path, "parquet", _with_types({}, types), validate, include_path, partition_format)

    @staticmethod
    def from_json_lines_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: Mapping[str, Any] | None = None,
        partition_format: str | None = None,
        invalid_lines: str = "error",
        encoding: str = "utf8",
    ) -> TabularDataset:
        """The rows of JSON, an object a line; see :meth:`from_delimited_files`.

        Args:
            invalid_lines: ``error``: a line that cannot be read fails its mini-batch; ``drop``: it is left out, and
                counts as a failed item.
            encoding: ``utf8``.
        """
        if encoding_option(encoding) != "utf-8":
            raise WorkspaceError(f"JSON lines are UTF-8, but encoding is {encoding!r}; convert the files")
        choices = {"error": {}, "drop": {"on_bad_record": "skip_and_count"}}
        options: dict[str, Any] = dict(check_choice("invalid_lines", invalid_lines, choices))
        types, _ = column_types_option(set_column_types)
        return _table(path, "json_lines", _with_types(options, types), validate, include_path, partition_format)

    @staticmethod
    def from_hdf5_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        dataset: str | None = None,
        partition_format: str | None = None,
    ) -> TabularDataset:
        """The rows of HDF5 files; see :meth:`from_delimited_files`. Not one of Azure's methods.

        Args:
            dataset: path of the dataset or group in each file; default: its only one, or the root.
        """
        options = {} if dataset is None else {"dataset": dataset}
        return _table(path, "hdf5", options, validate, include_path, partition_format)


_DELIMITED_DEFAULTS: Mapping[str, Any] = {
    "separator": None,  # always said: a job config would take a tab for files of the name .tsv
    "header": "all_files_have_same_headers",
    "encoding": "utf-8",
    "support_multi_line": False,
    "infer_column_types": True,
    "empty_as_string": False,
    "decimal": ".",
    "column_types": {},
}


def _table(
    path: Any,
    format: str,
    options: Mapping[str, Any],
    validate: bool,
    include_path: bool,
    partition_format: str | None,
) -> TabularDataset:
    made = TabularDataset(
        sources(path),
        format=format,
        options=options,
        path_column=PATH_COLUMN if include_path else None,
        partition_format=_partition_format(partition_format),
    )
    if validate:
        reading.check(made)
    else:
        reading.data_of(made)
    return made


def _with_types(options: dict[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    return {**options, "column_types": dict(types)} if types else options


def _separator(separator: Any) -> str:
    if not isinstance(separator, str) or len(separator) != 1:
        raise WorkspaceError(f"separator is one character, but got {separator!r}")
    return separator


def _partition_format(text: Any) -> str | None:
    if text is None or text == "hive":
        return text  # type: ignore[no-any-return]
    if not isinstance(text, str):
        raise WorkspaceError(f"partition_format is text such as '{{user}}/{{name}}.wav', but got {text!r}")

    try:
        PartitionFormat.parse(text)
    except ValueError as error:
        raise WorkspaceError(str(error)) from None
    return text


class Dataset(AbstractDataset):
    """Where datasets are made (``Dataset.File``, ``Dataset.Tabular``) and found (``Dataset.get_by_name``)."""

    File = FileDatasetFactory
    Tabular = TabularDatasetFactory

    def __init__(self) -> None:
        """There is no plain dataset."""
        raise WorkspaceError("make a dataset with Dataset.File.from_files(…) or Dataset.Tabular.from_…(…)")

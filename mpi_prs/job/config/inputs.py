"""The sections of the job config that say what the data is: inputs, side inputs, and how to get at a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mpi_prs.core.urls import is_url
from mpi_prs.inputs.datasets import HIVE, InputDataset, InputFiles, InputTable
from mpi_prs.inputs.formats import FORMATS, format_by_suffix, suffix_of
from mpi_prs.inputs.formats.foreign import what_has_suffix
from mpi_prs.inputs.formats.types import parse_column_type
from mpi_prs.inputs.listing import FileInput
from mpi_prs.inputs.near.side_inputs import SideInput
from mpi_prs.inputs.partition_format import PartitionFormat
from mpi_prs.job.config.types import AnyPath, ByteSize, CountFromZero, PathOrUrl, Pattern, Text
from mpi_prs.storage.credentials import Storage


class Section(BaseModel):
    """A part of the config: frozen, and without keys that are not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StorageSection(Section):
    """How to get at a remote store; what is not given is taken from the environment (``AZURE_STORAGE_…``)."""

    account_name: Text | None = Field(default=None, description="name of the storage account; default: from the URL")
    account_url: Text | None = Field(
        default=None, description="the store's own address, such as http://127.0.0.1:10000/name; default: Azure's"
    )
    connection_string: Text | None = Field(
        default=None, repr=False, description="connection string; better kept in AZURE_STORAGE_CONNECTION_STRING"
    )
    account_key_file: AnyPath | None = Field(default=None, description="a file that holds the account key")
    sas_token_file: AnyPath | None = Field(default=None, description="a file that holds a SAS token")
    anonymous: bool = Field(default=False, description="true: without credentials; default false")
    options: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="further options of the fsspec filesystem; default: none"
    )

    def storage(self) -> Storage:
        """The same as the data room takes it."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        for name in ("account_key_file", "sas_token_file"):
            values[name] = values[name] and str(values[name])
        return Storage(**values)


class InputSection(Section):
    """One input: files, or a table. Exactly one of files, files_from and table is given."""

    files: tuple[Pattern, ...] = Field(
        default=(), min_length=1, description="a path, folder, glob or URL, or a list of them: run() gets paths"
    )
    files_from: AnyPath | None = Field(
        default=None, description="a text file with one path a line, relative to that text file's folder"
    )
    mode: Literal["mount", "download", "direct"] = Field(
        default="mount",
        description="files: mount (a path; remote files are fetched for run()), download (all are brought to "
        "node-local scratch) or direct (the URL itself); default mount",
    )
    members: tuple[Text, ...] = Field(
        default=(),
        min_length=1,
        description="files: they are tar archives (WebDataset's shards), and the items are the members that match this "
        'glob, or a list of them, such as "*.jpg"; the other members of a sample, those of the same name up to the '
        "first dot, lie beside it; default: an item is a file",
    )
    file_column: Text | None = Field(
        default=None,
        description="files: they are Parquet, and the items are the files in this column, bytes or a struct of bytes "
        "and path, as Hugging Face has images; default: an item is a file",
    )
    table: tuple[Pattern, ...] = Field(
        default=(), min_length=1, description="a path, folder, glob or URL, or a list of them: run() gets a DataFrame"
    )
    format: Literal["delimited", "parquet", "orc", "arrow", "avro", "json_lines", "json", "hdf5"] | None = Field(
        default=None, description="format of a table's files; default: by their suffix"
    )
    separator: Text | None = Field(
        default=None, description='delimited: between two values; default "," ("\\t" for .tsv)'
    )
    header: (
        Literal["all_files_have_same_headers", "only_first_file_has_headers", "no_header", "combine_all_files_headers"]
        | None
    ) = Field(
        default=None,
        description="delimited: all_files_have_same_headers (default), only_first_file_has_headers, no_header or "
        "combine_all_files_headers",
    )
    encoding: Text | None = Field(default=None, description="delimited: encoding of the text; default utf-8")
    quote: Text | None = Field(
        default=None, description="delimited: the character around quoted values, empty: none; default a double quote"
    )
    support_multi_line: bool | None = Field(
        default=None,
        description="delimited: true where quoted values may hold newlines (slower); default: if a sample has some",
    )
    escape: Text | None = Field(
        default=None,
        description="delimited: the character behind which others have no meaning, such as a backslash; default: none",
    )
    comment: Text | None = Field(
        default=None,
        description='delimited: the character that begins a comment, until the line ends, such as "#"; default: none',
    )
    skip_rows: CountFromZero | None = Field(
        default=None, description="delimited: lines at the beginning of each file to pass over; default 0"
    )
    decimal: Text | None = Field(default=None, description='delimited: the decimal point; default "."')
    thousands: Text | None = Field(
        default=None,
        description='delimited: what stands between digits of large numbers, such as "," in 1,234; default: nothing',
    )
    na_values: tuple[Text, ...] | None = Field(
        default=None,
        description="delimited: list of further words for a missing value, beside pandas' own; default: none",
    )
    columns: tuple[Text, ...] | None = Field(
        default=None, min_length=1, description="columns of the table to read, in this order; default: all"
    )
    drop_columns: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        description="columns of the table to leave out, those of partition keys and path_column too; default: none",
    )
    column_types: dict[str, Text] = Field(
        default_factory=dict,
        description="types of columns where they should not be inferred: string, int, float, bool, datetime, "
        "datetime(%d.%m.%Y), int32, float32, …; Int64, boolean where values may be missing; json (formats json, "
        "json_lines: the text of values of any shape)",
    )
    numpy_types: bool | None = Field(
        default=None,
        description="true: whole numbers and booleans are NumPy's int64, bool, …, and a mini-batch in which one is "
        "missing fails; default false: where one may be missing they are pandas' Int64, boolean, …",
    )
    infer_column_types: bool | None = Field(
        default=None,
        description="delimited: false where columns are text, but for those of column_types; default true",
    )
    empty_as_string: bool | None = Field(
        default=None,
        description="delimited: true where nothing in a column of text is a missing value; default false",
    )
    on_bad_record: Literal["fail", "skip_and_count"] | None = Field(
        default=None,
        description="a record that does not fit: fail (its mini-batch fails, default) or skip_and_count (it counts as "
        "a failed item)",
    )
    fill_missing_fields: bool | None = Field(
        default=None,
        description="delimited: true where fields that a record lacks at its end are missing values; default false: "
        "the record does not fit",
    )
    max_record_size: ByteSize | None = Field(
        default=None,
        description="delimited, json_lines, json: bytes that a record may have, such as 500MB; a longer one is "
        "refused, as rather a line break or a quote is missing; default 64MB",
    )
    dataset: Text | None = Field(
        default=None, description="hdf5: path of the dataset or group in the file; default: its only one, or the root"
    )
    path_column: Text | None = Field(
        default=None, description="table: name of a column to add with the path of the file; default: none"
    )
    partition_format: Text | None = Field(
        default=None,
        description="partition keys in the paths, such as {user}/{date:yyyy/MM}/{name}.wav, or hive for folders named "
        "key=value; default: none",
    )
    storage: StorageSection | None = Field(
        default=None, description="how to get at this input's remote store; default: the job's storage"
    )

    @model_validator(mode="before")
    @classmethod
    def _text_means_files(cls, data: Any) -> Any:
        return {"files": data} if isinstance(data, str) else data

    @field_validator("files", "members", "table", "columns", "drop_columns", "na_values", mode="before")
    @classmethod
    def _one_means_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("column_types")
    @classmethod
    def _known_types(cls, value: dict[str, str]) -> dict[str, str]:
        for column, name in value.items():
            try:
                parse_column_type(name)
            except ValueError as error:
                raise ValueError(f"column {column!r}: {error}") from None
        return value

    @field_validator("partition_format")
    @classmethod
    def _valid_format(cls, value: str | None) -> str | None:
        if value is not None and value != HIVE:
            PartitionFormat.parse(value)
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> InputSection:
        if (bool(self.files) + bool(self.table) + (self.files_from is not None)) != 1:
            raise ValueError("expected exactly one of the keys files, files_from and table")
        allowed: tuple[str, ...] = ("mode", "members", "file_column")
        what = "an input of files"
        if self.table:
            name = self.table_format()
            if name == "delimited" and self.separator is None:
                self._is_tab_separated()
            allowed = ("format", "path_column", "drop_columns", *FORMATS[name].options)
            what = f"a table in the format {name}"
        common = {"files", "files_from", "table", "partition_format", "storage"}
        wrong = [key for key in self.model_fields_set if key not in common and key not in allowed]
        if wrong:
            raise ValueError(f"{', '.join(sorted(wrong))} has no meaning for {what}; remove it")
        if self.members and (self.mode != "mount" or self.partition_format is not None):
            raise ValueError("mode and partition_format have no meaning beside members; remove them")
        if self.file_column is not None and (self.mode != "mount" or self.members or self.files_from is not None):
            raise ValueError("mode, members and files_from have no meaning beside file_column; remove them")
        if self.files_from is not None and self.partition_format == HIVE:
            raise ValueError("partition_format: hive needs folders under files or table, not files_from")
        return self

    def table_format(self) -> str:
        """The format of a table: as given, or by the suffix of the first pattern. Raises ValueError."""
        if self.format is not None:
            return self.format
        found = format_by_suffix(self.table[0])
        if found is None:
            if (foreign := what_has_suffix(suffix_of(self.table[0]))) is not None:
                raise ValueError(f"the table {self.table[0]} is {foreign}")
            raise ValueError(
                f"the format of the table {self.table[0]} does not show in its suffix; expected a key format with one "
                f"of {', '.join(FORMATS)}"
            )
        for pattern in self.table:
            if (format_by_suffix(pattern) or found) != found:
                raise ValueError(
                    f"{self.table[0]} and {pattern} are of two formats, by their suffixes; make an input of each, or "
                    "give the key format"
                )
        return found.name

    def _is_tab_separated(self) -> bool:
        """By the suffix, for want of a separator. Raises ValueError."""
        found = {suffix_of(pattern) == ".tsv" for pattern in self.table if format_by_suffix(pattern)}
        if len(found) > 1:
            raise ValueError("some files are .tsv and some are not; make an input of each, or give the key separator")
        return True in found

    def to_dataset(self, default: Storage) -> InputDataset:
        """The dataset that this input is."""
        storage = self.storage.storage() if self.storage is not None else default
        if self.files_from is not None:
            source = FileInput(files_from=self.files_from, base=self.files_from.parent)
            return InputFiles(source, self.partition_format, storage, self.mode, self.members)
        if self.file_column is not None:
            return InputTable.from_files(
                self.files,
                "parquet",
                columns=(self.file_column,),
                file_column=self.file_column,
                partition_format=self.partition_format,
                storage=storage,
            )
        if self.files:
            return InputFiles(FileInput(self.files), self.partition_format, storage, self.mode, self.members)
        name = self.table_format()
        options = {key: getattr(self, key) for key in FORMATS[name].options if getattr(self, key) is not None}
        if name == "delimited" and self.separator is None and self._is_tab_separated():
            options["separator"] = "\t"
        ours = {
            "path_column": self.path_column,
            "drop_columns": self.drop_columns or (),
            "partition_format": self.partition_format,
            "storage": storage,
        }
        return InputTable.from_files(self.table, name, **options, **ours)


class SideInputSection(Section):
    """Reference data that is there on every node before ``init()``."""

    path: PathOrUrl = Field(description="a file or folder, or a URL; required")
    mode: Literal["mount", "download"] = Field(
        default="mount",
        description="mount (the path itself; what is remote is fetched) or download (brought to node-local scratch); "
        "default mount",
    )
    storage: StorageSection | None = Field(
        default=None, description="how to get at this side input's remote store; default: the job's storage"
    )

    @model_validator(mode="before")
    @classmethod
    def _text_means_path(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else data

    def to_side_input(self, name: str, default: Storage) -> SideInput:
        """The same as the workers take it."""
        return SideInput(name, self.path, self.mode, self.storage.storage() if self.storage is not None else default)


def output_parts(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``output: URL`` is short for a local output folder and an ``output_url``."""
    output = data.get("output")
    if isinstance(output, str) and is_url(output):
        return {**data, "output": folder / "outputs" / str(data.get("name", "run")), "output_url": output}
    return data

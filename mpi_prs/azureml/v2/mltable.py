"""An ``MLTable`` file: where its data lies and how it is read, as a section of the job config's ``inputs``.

Without a ``read_…`` transformation it names files, with one it is a table. Columns are kept and dropped in the order of
the transformations: those of the path and of the partition format exist from the transformation on that makes them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_prs.azureml.v2.nodes import YamlNode, read_nodes
from mpi_prs.azureml.v2.resolving import LocatedData
from mpi_prs.core.errors import ConfigError, InputError
from mpi_prs.core.urls import escape, is_url
from mpi_prs.core.words import near
from mpi_prs.inputs.formats.format import AnyFiles
from mpi_prs.inputs.partition_format import PartitionFormat
from mpi_prs.storage.credentials import Storage

FILE_NAME = "MLTable"
_PATH_COLUMN = "Path"

_KEYS = ("$schema", "type", "paths", "transformations", "metadata", "traits", "name", "version", "description", "tags")
_HEADERS = {
    "all_files_same_headers": "all_files_have_same_headers",
    "from_first_file": "only_first_file_has_headers",
    "no_header": "no_header",
    "all_files_different_headers": "combine_all_files_headers",
}
# An ASCII file is UTF-8 too, and a file with more than ASCII in it can be read then
_ENCODINGS = {
    "utf8": "utf-8",
    "utf8bom": "utf-8",
    "ascii": "utf-8",
    "iso88591": "iso8859-1",
    "latin1": "iso8859-1",
    "utf16": "utf-16",
    "utf32": "utf-32",
    "windows1252": "cp1252",
}
_TYPES = {"int": "int", "float": "float", "string": "string", "boolean": "bool", "datetime": "datetime"}
_REFUSED = {
    "read_delta_lake": "write the rows to Parquet files once, and name them with read_parquet",
    "filter": "leave the rows out in run(), with error_threshold: -1 (else each counts as a failed item); or write "
    "those that you want to files once",
    "skip": "write the rows that you want to files once",
    "take": "--limit N of mpi-prs run tries the first mini-batches",
    "take_random_sample": "write the sample to files once, or try the first mini-batches with --limit N",
}


@dataclass
class _Table:
    """What the transformations so far have made.

    Attributes:
        format: ``None``: files.
        options: of the format.
        partition_format: as our inputs take it.
        path_column: of the rows.
        keys: partition keys.
        extra: columns that are there and not of the files.
        kept: columns of the files; ``None``: all of them.
        dropped: what is left out of these, and of the keys.
        types: column → type.
    """

    format: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    partition_format: str | None = None
    path_column: str | None = None
    keys: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    kept: list[str] | None = None
    dropped: list[str] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)


def read_mltable(location: str, storage: Storage, node: YamlNode) -> YamlNode:
    """The root of an MLTable file.

    Args:
        location: of it, or of the folder that it is in; a path or a URL.
        storage: how to get at a URL.
        node: what named it.

    Raises:
        ConfigError: it is not there, or cannot be read.
    """
    if not is_url(location):
        path = Path(location)
        path = path / FILE_NAME if os.path.isdir(path) else path
        if not os.path.isfile(path):
            raise node.wrong(f"there is no file {path}; an input of type mltable is a folder with an MLTable file")
        return read_nodes(path)
    url = location.rstrip("/")
    url = url if url.endswith(f"/{FILE_NAME}") else f"{url}/{FILE_NAME}"

    with tempfile.TemporaryDirectory(prefix="mpi_prs-") as folder:
        copy = Path(folder, FILE_NAME)
        try:
            with AnyFiles(storage).open(url) as file:
                copy.write_bytes(file.read())
        except InputError as error:
            raise node.wrong(f"the MLTable file cannot be read: {error}") from None
        try:
            return read_nodes(copy, (), url, url.rpartition("/")[0])
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(copy), url)) from None


def section_of(
    root: YamlNode, locate: Callable[[str, YamlNode], LocatedData], mode: str, storage: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The section of ``inputs`` that an MLTable is.

    Args:
        root: of the MLTable file.
        locate: finds what is not beside it: ``azureml:…`` and URLs.
        mode: of files, as our inputs take it.
        storage: how to get at what is beside it.

    Raises:
        ConfigError: a key or transformation is unknown or cannot be done here; says what to do instead.
    """
    keys = root.fields(_KEYS)
    if "paths" not in keys:
        raise root.wrong("paths is missing; add it, such as `paths: [{pattern: ./*.csv}]`")
    found = [_path(node, locate, storage) for node in keys["paths"].items()]
    if not any(each.locations for each in found):
        raise keys["paths"].wrong("there is nothing in it; name at least one file, folder or pattern")
    storages = [each.storage for each in found]
    if any(storage != storages[0] for storage in storages):
        raise keys["paths"].wrong("the paths are in two stores; make an MLTable of each")
    locations = [where for each in found for where in each.locations]
    table = _Table()
    for node in keys["transformations"].items() if "transformations" in keys else []:
        _transform(table, node)
    section: dict[str, Any] = {"partition_format": table.partition_format, "storage": storages[0]}
    if table.format is None:
        section |= {"files": locations, "mode": mode}
    else:
        columns = _columns(table, keys["transformations"])
        section |= {"table": locations, "format": table.format, **table.options, **columns}
    return {key: value for key, value in section.items() if value is not None}


# Paths


@dataclass(frozen=True)
class _Place:
    locations: list[Path | str]
    storage: Mapping[str, Any] | None = None


def _path(node: YamlNode, locate: Callable[[str, YamlNode], LocatedData], storage: Mapping[str, Any] | None) -> _Place:
    if isinstance(node.value, str):
        kind, inside = "file", node
    else:
        keys = node.fields(("file", "folder", "pattern"))
        if len(keys) != 1:
            raise node.wrong(f"got {' and '.join(keys) or 'nothing'}; expected one of file, folder and pattern")
        kind, inside = next(iter(keys.items()))
    text = inside.text("a path")
    if text.startswith("azureml:") or is_url(text):
        found = locate(text, inside)
        return _Place([found.location], found.storage)
    base = node.source.folder
    if is_url(base):
        folder = escape(base) if kind == "pattern" else base
        return _Place([f"{folder}/{text.removeprefix('./').lstrip('/')}".rstrip("/")], storage)
    if kind == "pattern":
        return _Place([Path(text) if Path(text).is_absolute() else Path(escape(base), text)])
    path = inside.local_path()
    if not os.path.exists(path):
        raise inside.wrong(f"there is no {path}")
    if os.path.isdir(path) and os.path.isfile(path / FILE_NAME):
        return _Place([path / name for name in sorted(os.listdir(path)) if name != FILE_NAME and name[0] not in "._"])
    return _Place([path])


# Transformations


def _transform(table: _Table, node: YamlNode) -> None:
    if isinstance(node.value, str):
        name, inside = node.value, YamlNode({}, node.source, node.key)
    else:
        entries = node.entries()
        if len(entries) != 1:
            raise node.wrong("expected one transformation in each entry of the list, such as `- drop_columns: [a]`")
        name, inside = next(iter(entries.items()))
    if name in _REFUSED:
        raise inside.wrong(f"mpi-prs does not do {name}; {_REFUSED[name]}")
    if name not in _TRANSFORMATIONS:
        raise inside.wrong(f"there is no transformation {name!r}{near(name, _TRANSFORMATIONS)}")
    if table.format is None and name in ("drop_columns", "keep_columns", "convert_column_types"):
        raise inside.wrong(f"{name} is of tables; put a transformation such as read_delimited before it")
    _TRANSFORMATIONS[name](table, inside)


def _begin(table: _Table, node: YamlNode, format: str, known: tuple[str, ...]) -> dict[str, YamlNode]:
    if table.format is not None:
        raise node.wrong("a table is read once; remove one of the read_… transformations")
    table.format = format
    keys = node.fields((*known, "include_path_column", "path_column"))
    if "include_path_column" in keys and keys["include_path_column"].flag():
        table.path_column = _PATH_COLUMN
        table.extra.append(_PATH_COLUMN)
    return keys


def _read_delimited(table: _Table, node: YamlNode) -> None:
    known = ("delimiter", "header", "encoding", "support_multi_line", "empty_as_string", "infer_column_types")
    keys = _begin(table, node, "delimited", known)
    options: dict[str, Any] = {"separator": _delimiter(keys["delimiter"]) if "delimiter" in keys else ","}
    if "header" in keys:
        options["header"] = _HEADERS[keys["header"].one_of(tuple(_HEADERS))]
    if "encoding" in keys:
        options["encoding"] = _encoding(keys["encoding"])
    for key in ("support_multi_line", "empty_as_string", "infer_column_types"):
        if key in keys:
            if key == "infer_column_types" and isinstance(keys[key].value, dict):
                raise keys[key].wrong("expected true or false; name the types of columns with convert_column_types")
            options[key] = keys[key].flag()
    table.options = options


def _delimiter(node: YamlNode) -> str:
    text = node.text("a character")
    if len(text) != 1 or not text.isascii() or text in '"\r\n\0':
        raise node.wrong(f'got {text!r}; expected one ASCII character, such as "," or, in double quotes, "\\t"')
    return text


def _encoding(node: YamlNode) -> str:
    return _ENCODINGS[node.one_of(tuple(_ENCODINGS))]


def _read_parquet(table: _Table, node: YamlNode) -> None:
    _begin(table, node, "parquet", ())


def _read_json_lines(table: _Table, node: YamlNode) -> None:
    keys = _begin(table, node, "json_lines", ("invalid_lines", "encoding"))
    if "encoding" in keys and _encoding(keys["encoding"]) != "utf-8":
        raise keys["encoding"].wrong(f"got {keys['encoding'].value!r}; JSON is UTF-8: write the files anew in utf8")
    if "invalid_lines" in keys:
        drops = keys["invalid_lines"].one_of(("error", "drop")) == "drop"
        table.options["on_bad_record"] = "skip_and_count" if drops else "fail"


def _extract_columns(table: _Table, node: YamlNode) -> None:
    text = _format_text(node)
    if table.partition_format is not None:
        raise node.wrong("the path has one partition format; remove the other")
    try:
        parsed = PartitionFormat.parse(_to_the_end(text))
    except ValueError as error:
        raise node.wrong(str(error)) from None
    table.partition_format = parsed.text
    table.keys = list(parsed.keys)
    table.extra += parsed.keys


def _format_text(node: YamlNode) -> str:
    expected = "a partition format such as {Store}/{Brand}/{file}.csv"
    if not isinstance(node.value, dict):
        return node.text(expected)
    if len(node.value) == 1:  # {date:yyyy/MM/dd} without quotes is a mapping to YAML
        [(key, value)] = node.value.items()
        if value is None:
            return f"{{{key}}}"
    keys = node.fields(("partition_format", "path_column", "ignore_error"))
    if "ignore_error" in keys and keys["ignore_error"].flag():
        raise keys["ignore_error"].wrong("mpi-prs takes no file whose path does not match; name the others in paths")
    if "partition_format" not in keys:
        raise node.wrong(f"partition_format is missing; expected {expected}")
    return keys["partition_format"].text(expected)


def _to_the_end(text: str) -> str:
    """Azure's format may speak of folders alone; ours goes to the end of the path.

    One that says nothing of a file's suffix is such a format.
    """
    last = text.rstrip("/").rpartition("/")[2]
    return text if "." in last or "*" in last else f"{text.rstrip('/')}/*"


def _drop_columns(table: _Table, node: YamlNode) -> None:
    names = node.texts()
    table.extra = [name for name in table.extra if name not in names]
    own = [name for name in names if name not in (*table.keys, table.path_column)]
    table.dropped += [name for name in names if name in (*table.keys, table.path_column)]
    if table.kept is None:
        table.dropped += own
        return
    for name in own:
        if name not in table.kept:
            raise node.wrong(f"{name!r} is not among the columns that are kept: {', '.join(table.kept)}")
    table.kept = [name for name in table.kept if name not in own]


def _keep_columns(table: _Table, node: YamlNode) -> None:
    names = node.texts()
    table.dropped += [name for name in table.extra if name not in names]
    own = [name for name in names if name not in (*table.keys, table.path_column)]
    gone = own if table.kept is None else [name for name in own if name in table.kept]
    table.kept = [name for name in dict.fromkeys(gone) if name not in table.dropped]
    table.extra = [name for name in table.extra if name in names]


def _convert_column_types(table: _Table, node: YamlNode) -> None:
    for each in node.items():
        keys = each.fields(("columns", "column_type"))
        if set(keys) != {"columns", "column_type"}:
            raise each.wrong("expected the keys columns and column_type, such as {columns: [age], column_type: int}")
        type = _column_type(keys["column_type"])
        for name in keys["columns"].texts():
            if name in (*table.keys, table.path_column):
                raise keys["columns"].wrong(f"{name!r} is read from the path and is text; convert it in run()")
            table.types[name] = type


def _column_type(node: YamlNode) -> str:
    if isinstance(node.value, str):
        return _TYPES[node.one_of(tuple(_TYPES))]
    keys = node.fields(tuple(_TYPES))
    if len(keys) != 1:
        raise node.wrong(f"expected one of {', '.join(_TYPES)}")
    name, inside = next(iter(keys.items()))
    if name == "boolean":
        raise inside.wrong("truth values are true and false here; convert other words in run()")
    if name != "datetime":
        raise inside.wrong(f"{name} takes nothing more; write `column_type: {name}`")
    formats = inside.fields(("formats", "date_constant")).get("formats")
    texts = [] if formats is None else formats.texts()
    if len(texts) != 1 or "%" not in texts[0]:
        raise inside.wrong('expected one format of dates, such as `formats: ["%d/%m/%Y"]`')
    return f"datetime({texts[0]})"


def _columns(table: _Table, node: YamlNode) -> dict[str, Any]:
    """The keys of an input that say which columns there are."""
    path_column = None if table.path_column in table.dropped else table.path_column
    dropped = [name for name in dict.fromkeys(table.dropped) if name != table.path_column]
    if table.kept is not None:
        dropped = [name for name in dropped if name in table.keys]
        if not table.kept:
            raise node.wrong("keep_columns leaves no column of the files; keep at least one of them")
    return {
        "columns": table.kept,
        "drop_columns": dropped or None,
        "column_types": table.types or None,
        "path_column": path_column,
    }


_TRANSFORMATIONS: dict[str, Callable[[_Table, YamlNode], None]] = {
    "read_delimited": _read_delimited,
    "read_parquet": _read_parquet,
    "read_json_lines": _read_json_lines,
    "extract_columns_from_partition_format": _extract_columns,
    "drop_columns": _drop_columns,
    "keep_columns": _keep_columns,
    "convert_column_types": _convert_column_types,
}

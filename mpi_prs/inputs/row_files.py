"""Files that are the values of a table's column, such as the images in Hugging Face's Parquet: one row, one item.

The column holds ``{bytes, path}``, or bytes alone. A file is named ``FILE.parquet/ROW/NAME``: the row, from 0, in its
file, and the last part of ``path``; where there is none, the row and what the first bytes tell.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.format import Part

_LONGEST = 200  # bytes of a name
_SUFFIXES = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"fLaC", ".flac"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"%PDF", ".pdf"),
)


def check_file_column(name: str, schema: Any, shown: str) -> None:
    """Raises InputError: the column of a table holds no files."""
    type = schema.field(name).type
    if pa.types.is_struct(type):
        fields = {field.name: field.type for field in type}
        if _is_bytes(fields.get("bytes")):
            return
    if not _is_bytes(type):
        raise InputError(
            f"file_column: column {name!r} of {shown} is {type}; expected bytes, or a struct with the field bytes and, "
            "for the names, path"
        )


def _is_bytes(type: Any) -> bool:
    return type is not None and bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def files_of(table: Any, column: str, parts: Sequence[Part], start: int, stop: int) -> tuple[list[str], dict[str, Any]]:
    """The names of the files in some rows, and arrays with all of their bytes, and where each ends.

    Args:
        table: the rows of ``parts``; ``start`` and ``stop`` say which of them.

    Raises:
        InputError: a row has no file.
    """
    names, contents = [], []
    places = [(part.file, row) for part in parts for row in range(part.first_row, part.first_row + part.rows)]
    values = (value for chunk in table[column].slice(start, stop - start).chunks for value in chunk)
    for (file, row), value in zip(places[start:stop], values, strict=True):
        content, path = _file_in(value)
        if content is None:
            there = f"has the path {path!r} and no bytes" if path else "is missing"
            raise InputError(
                f"{file}, row {row + 1}, column {column!r}: the file {there}; leave the row out of the table"
            )
        names.append(f"{file}/{row}/{_name(path, row, content)}")
        contents.append(content)
    ends: Any = np.cumsum([len(content) for content in contents], dtype=np.int64)
    return names, {"ends": ends, "content": np.frombuffer(b"".join(contents), np.uint8)}


def _file_in(value: Any) -> tuple[bytes | None, str | None]:
    if not pa.types.is_struct(value.type):
        return value.as_py(), None
    if not value.is_valid:
        return None, None
    fields = value.as_py()
    return fields["bytes"], fields.get("path")


def _name(path: Any, row: int, content: bytes) -> str:
    name = posixpath.basename(path.replace("\\", "/")) if isinstance(path, str) else ""
    if name in ("", ".", "..") or "\0" in name or len(name.encode()) > _LONGEST:
        return str(row) + next((suffix for magic, suffix in _SUFFIXES if content.startswith(magic)), "")
    return name


def files_in(names: Sequence[str], ends: Sequence[int], content: memoryview) -> Iterator[tuple[str, memoryview]]:
    """The inverse of :func:`files_of`, of what another process has said. Raises ValueError: that is nonsense."""
    start = 0
    if len(names) != len(ends):
        raise ValueError("as many names as files")
    for name, end in zip(names, ends, strict=True):
        if not start <= end <= len(content) or not name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError(name)
        yield name, content[start:end]
        start = end

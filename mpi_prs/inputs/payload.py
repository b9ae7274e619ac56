"""Described payloads: what the manifest says of a mini-batch that is more than a list of local files.

::

    u32 length of the header │ header: JSON │ paths separated by NUL (of files), or nothing (of tables)

    partition   values of the partition keys, see mpi_prs.core.partition_values
    parts       of tables: what to read, a list of Part
    sizes       of tables: for each part how many bytes its file has
    columns     of tables: for each part the columns that its path gives, as partition values
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from mpi_prs.inputs.formats import BY_CLASS
from mpi_prs.inputs.formats.format import Part
from mpi_prs.inputs.manifest import PLAIN, Manifest

_LENGTH = struct.Struct("<I")


def pack(header: Mapping[str, Any], rest: bytes = b"") -> bytes:
    """A described payload."""
    text = json.dumps(header).encode()
    return _LENGTH.pack(len(text)) + text + rest


def unpack(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse of :func:`pack`. About 5 µs, and what JSON costs."""
    (length,) = _LENGTH.unpack_from(payload)
    start = _LENGTH.size
    header: dict[str, Any] = json.loads(payload[start : start + length])
    return header, payload[start + length :]


def parts_of(header: Mapping[str, Any]) -> list[Part]:
    """The parts in the header of a table's mini-batch."""
    return [Part(*fields) for fields in header["parts"]]


def paths_of(rest: bytes) -> list[str]:
    """The paths behind a header; bytes that are no text are escaped as :func:`os.fsdecode` does."""
    return [os.fsdecode(path) for path in rest.split(b"\0")]


def names(manifest: Manifest, mini_batch: int) -> list[str]:
    """What a mini-batch consists of, for people: paths of files; of tables, files with the rows or bytes taken."""
    payload = manifest.payload(mini_batch)
    if manifest.kind == PLAIN:
        return paths_of(payload)
    header, rest = unpack(payload)
    if "parts" not in header:
        return paths_of(rest)
    unit = "rows" if BY_CLASS[manifest.inputs[manifest.input_of(mini_batch)]["format"]].in_rows else "bytes"
    return _ranges(parts_of(header), unit)


def names_of_items(manifest: Manifest, mini_batch: int, items: Sequence[int]) -> list[str]:
    """Some items of a mini-batch, counted from 0, for people: paths of files; of tables, rows of files."""
    payload = manifest.payload(mini_batch)
    header, rest = ({}, payload) if manifest.kind == PLAIN else unpack(payload)
    if "parts" in header:
        return [_row(parts_of(header), item) for item in items]
    paths = paths_of(rest)
    return [paths[item] if item < len(paths) else f"item {item} of {len(paths)}" for item in items]


def _row(parts: Sequence[Part], item: int) -> str:
    first = parts[0]
    if len(parts) > 1:
        return f"{first.file} and {len(parts) - 1} more, row {item + 1} of them all"
    if first.first_row < 0:
        return f"{first.file}, row {item + 1} of those from byte {first.start} on"
    return f"{first.file}, row {first.first_row + item + 1}"


def shared_group(manifest: Manifest, mini_batch: int) -> int | None:
    """Mini-batches of tables with the same number share what is decoded for them; ``None``: with nobody."""
    header, _ = unpack(manifest.payload(mini_batch))
    parts = header.get("parts")
    if not parts or len(parts) > 1 or (part := Part(*parts[0])).group < 0:
        return None
    return hash((part.file, part.group))


def _ranges(parts: Sequence[Part], unit: str) -> list[str]:
    return [f"{part.file}, {unit} {part.start} to {part.stop - 1}" for part in parts]

"""Compressed files of text: what is in them."""

from __future__ import annotations

import codecs
import lzma
import zipfile
import zlib
from typing import Any, BinaryIO

import pyarrow as pa

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.formats.format import COMPRESSIONS, DamagedFile

COMPRESSED = 4
"""A guess of how many times a compressed file is shorter; only an estimate of its rows comes from it."""
_ENCRYPTED = 1
_CHUNK = 2**20


def compression_of(path: str) -> str | None:
    """How a file is compressed, by its suffix: a value of ``COMPRESSIONS``; ``None``: it is not."""
    return next((name for suffix, name in COMPRESSIONS.items() if path.lower().endswith(suffix)), None)


def decompressed(file: BinaryIO, path: str, limit: int = -1) -> bytes:
    """The content of a compressed file, or the beginning of it.

    Raises:
        DamagedFile: it is damaged.
        InputError: a zip archive has not just one file.
    """
    kind = compression_of(path)
    opened = {"xz": _xz, "zip": _zip}.get(kind or "", _by_arrow)
    return opened(file, path, limit).removeprefix(codecs.BOM_UTF8)


def _by_arrow(file: BinaryIO, path: str, limit: int) -> bytes:
    try:
        with pa.CompressedInputStream(file, compression_of(path)) as stream:
            data: bytes = stream.read(None if limit < 0 else limit)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    return data


def _xz(file: BinaryIO, path: str, limit: int) -> bytes:
    """Not by ``lzma.open``: what it cannot read behind a stream, such as zeros before the next one, it leaves out."""
    text = bytearray()
    data = b""
    stream: Any = lzma.LZMADecompressor()
    try:
        while limit < 0 or len(text) < limit:
            if not data and not (data := file.read(_CHUNK)):
                if stream is not None:
                    raise EOFError("it ends too early")
                break
            if stream is None:
                data = data.lstrip(b"\0")  # padding between streams
                if not data:
                    continue
                stream = lzma.LZMADecompressor()
            text += stream.decompress(data, -1 if limit < 0 else limit - len(text))
            data = b""
            if stream.eof:
                data, stream = stream.unused_data, None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise _damaged(path, error) from error
    return bytes(text)


def _zip(file: BinaryIO, path: str, limit: int) -> bytes:
    try:
        with zipfile.ZipFile(file) as archive:
            member = _only_member(archive.infolist(), path)
            with archive.open(member) as stream:
                return stream.read(limit)
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise _damaged(path, error) from error


def _only_member(members: list[Any], path: str) -> Any:
    files = [each for each in members if not each.is_dir() and not each.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        names = ", ".join(each.filename for each in files[:3]) + (" …" if len(files) > 3 else "")
        raise InputError(
            f"{path} has {len(files)} files in it{names and f' ({names})'}, where one is expected: unpack it, or make "
            "an archive of each"
        )
    if files[0].flag_bits & _ENCRYPTED:
        raise InputError(
            f"{path}: {files[0].filename} in it is encrypted, and there is no key for that here; unpack it"
        )
    return files[0]


def _damaged(path: str, error: Exception) -> DamagedFile:
    return DamagedFile(f"{path} cannot be decompressed: {error}. Check that it is a whole file")

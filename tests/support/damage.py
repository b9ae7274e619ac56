"""Damaged files of every table format: small sound ones, and what becomes of them when bytes change."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

SUFFIXES = {
    "delimited": ".csv",
    "json_lines": ".jsonl",
    "parquet": ".parquet",
    "hdf5": ".h5",
    "orc": ".orc",
    "arrow": ".arrow",
}
"""Name of a format → suffix of its files."""

_EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_TEXT = [b'"', b"\n", b"\r", b",", b"{", b"[", b"}", b"]", b"\\", b"\0", b"\xff", b"null", b"1e999", b"\\ud800", b"-"]


def sound_files() -> dict[str, list[bytes]]:
    """Name of a format → small files that can be read."""
    return {
        "delimited": [_csv(b","), _csv(b"\t"), b'id,text\n1,"two\nlines"\n2,"a ""word"""\n' * 3],
        "json_lines": [_json(), b'{"a": [{"b": [1, null]}], "c": "\\u00e9"}\n{"a": [], "c": null}\n' * 4],
        "parquet": list(_parquet()),
        "hdf5": list(_hdf5()),
        "orc": list(_orc()),
        "arrow": list(_arrow()),
    }


def damaged(sound: bytes, name: str, random: random.Random) -> bytes:
    """A file with some of its bytes changed: most often a few, often where a format keeps its lengths."""
    data = bytearray(sound)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = _place(data, name, random)
        what = random.randrange(8)
        if what == 0:
            data[at] ^= 1 << random.randrange(8)
        elif what == 1:
            data[at] = random.randrange(256)
        elif what == 2:
            value, width = random.choice(_EXTREMES), random.choice("BHIQ")
            piece = struct.pack(f"<{width}", value & (256 ** struct.calcsize(width) - 1))
            data[at : at + len(piece)] = piece
        elif what == 3:
            del data[at : at + random.randint(1, 16)]
        elif what == 4:
            data[at:at] = random.randbytes(random.randint(1, 16))
        elif what == 5:
            length, other = random.randint(1, 64), random.randrange(len(data))
            data[at : at + length] = data[other : other + length]
        elif what == 6:
            data[at : at + 4] = random.choice(_TEXT) if name in ("delimited", "json_lines") else b"\0" * 4
        elif random.random() < 0.3:
            del data[at:]
        data = data or bytearray(b"\0")
    return bytes(data)


def _place(data: bytearray, name: str, random: random.Random) -> int:
    """Footers and headers more often than rows."""
    if name == "parquet" and len(data) > 12 and random.random() < 0.8:
        (length,) = struct.unpack("<I", data[-8:-4])
        return random.randrange(max(0, len(data) - 8 - length), len(data))
    if name == "hdf5" and random.random() < 0.5:
        return random.randrange(min(len(data), 4096))
    if name in ("orc", "arrow") and random.random() < 0.5:
        return random.randrange(max(0, len(data) - 1024), len(data))
    return random.randrange(len(data))


def _csv(separator: bytes) -> bytes:
    rows = [[b"id", b"x", b"text"], *([b"%d" % n, b"%g" % (n / 2), b"text %d" % (n % 5)] for n in range(30))]
    return b"".join(separator.join(row) + b"\n" for row in rows)


def _json() -> bytes:
    return b"".join(b'{"id": %d, "x": %g, "text": "t%d", "at": {"y": [%d]}}\n' % (n, n / 2, n, n) for n in range(20))


def _mixed() -> pa.Table:
    numbers = np.arange(40)
    return pa.table(
        {
            "n": numbers,
            "x": pa.array([None if n % 7 == 0 else n / 2 for n in range(40)]),
            "s": [f"text {n % 5}" for n in range(40)],
            "l": [[n, n + 1] if n % 3 else None for n in range(40)],
            "st": [{"a": n, "b": str(n)} for n in range(40)],
            "t": pa.array(numbers, pa.timestamp("us", "UTC")),
            "d": pa.array(numbers).cast(pa.decimal128(30, 2)),
            "c": pa.array([f"k{n % 3}" for n in range(40)]).dictionary_encode(),
        }
    )


def _parquet() -> Iterator[bytes]:
    table = _mixed()
    plain = {"use_dictionary": False, "compression": "none"}
    for options in ({}, plain, {"compression": "zstd", "version": "1.0"}, {**plain, "data_page_version": "2.0"}):
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=25, **options)
        yield sink.getvalue()
    sink = io.BytesIO()
    pq.write_table(
        table.select(["n", "s"]),
        sink,
        use_dictionary=False,
        column_encoding={"n": "DELTA_BINARY_PACKED", "s": "DELTA_BYTE_ARRAY"},
        compression="gzip",
        write_page_index=True,
    )
    yield sink.getvalue()


def _orc() -> Iterator[bytes]:
    table = _mixed().select(["n", "x", "s", "l", "t"])
    for compression in ("uncompressed", "zlib", "snappy"):
        sink = io.BytesIO()
        orc.write_table(table, sink, compression=compression)
        yield sink.getvalue()


def _arrow() -> Iterator[bytes]:
    table = _mixed()
    for compression in (None, "lz4", "zstd"):
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
            writer.write_table(table, max_chunksize=15)
        yield sink.getvalue()


def _hdf5() -> Iterator[bytes]:
    for kind in range(4):
        sink = io.BytesIO()
        with h5py.File(sink, "w", libver="latest" if kind == 3 else "earliest") as file:
            if kind == 0:
                file["a"], file["b"] = np.arange(50), np.arange(50) / 2
            elif kind in (1, 3):
                file.create_dataset("n", data=np.arange(64), chunks=(16,), compression="gzip", shuffle=True)
                file.create_dataset("s", data=[f"text {n}" for n in range(64)], chunks=(16,))
            else:
                rows = np.zeros(30, [("i", "<i4"), ("f", "<f8"), ("s", "S5")])
                file.create_dataset("rows", data=rows, maxshape=(None,), chunks=(10,))
                file["rows"].attrs["unit"] = "m"
        yield sink.getvalue()

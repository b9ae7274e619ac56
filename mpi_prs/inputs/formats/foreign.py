"""Files that are none of our table formats: what they are, by their suffix or first bytes, and what to do with them."""

from __future__ import annotations

from typing import NamedTuple

from mpi_prs.core.errors import InputError


class _Foreign(NamedTuple):
    """A format.

    Attributes:
        name: with its article.
        suffixes: of its files' names.
        magic: bytes with which its files begin, and no text does; empty: there are none.
        advice: what to do.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    advice: str


_PANDAS = "convert it, such as pandas.{reader}(FILE).to_parquet(FILE.parquet)"
_FOREIGN = (
    _Foreign("an Excel workbook", (".xlsx", ".xlsm", ".xlsb", ".ods"), b"", _PANDAS.format(reader="read_excel")),
    _Foreign("an Excel workbook", (".xls",), b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _PANDAS.format(reader="read_excel")),
    _Foreign("an Arrow file (Feather, IPC)", (), b"ARROW1\0\0", "give the key format: arrow"),
    _Foreign("an Avro file", (), b"Obj\x01", "give the key format: avro"),
    _Foreign("a Stata file", (".dta",), b"", _PANDAS.format(reader="read_stata")),
    _Foreign("an SPSS file", (".sav",), b"", _PANDAS.format(reader="read_spss")),
    _Foreign("a SAS file", (".sas7bdat", ".xpt"), b"", _PANDAS.format(reader="read_sas")),
    _Foreign("a pickle", (".pkl", ".pickle"), b"", _PANDAS.format(reader="read_pickle")),
    _Foreign("an XML file", (".xml",), b"", _PANDAS.format(reader="read_xml")),
    _Foreign(
        "a database",
        (".db", ".sqlite", ".sqlite3", ".duckdb"),
        b"SQLite format 3\0",
        "export the table, such as pandas.read_sql(QUERY, CONNECTION).to_parquet(FILE.parquet)",
    ),
    _Foreign(
        "a NumPy file",
        (".npy", ".npz"),
        b"\x93NUMPY",
        "give it under files and load it in run(), or store the arrays in HDF5",
    ),
    _Foreign(
        "a netCDF or MATLAB file",
        (".nc", ".nc4", ".mat"),
        b"",
        "give the key format: hdf5 if it is netCDF 4 or MATLAB 7.3, else give it under files and load it in run()",
    ),
    _Foreign("a Parquet file", (), b"PAR1\x15", "give the key format: parquet"),
    _Foreign("an HDF5 file", (), b"\x89HDF\r\n\x1a\n", "give the key format: hdf5"),
    _Foreign("compressed with gzip", (".tgz",), b"\x1f\x8b\x08", "let its name end with .gz"),
    _Foreign("compressed with zstd", (), b"\x28\xb5\x2f\xfd", "let its name end with .zst"),
    _Foreign("compressed with xz", (), b"\xfd7zXZ\0", "let its name end with .xz"),
    _Foreign(
        "a zip archive, or an Excel workbook",
        (),
        b"PK\x03\x04",
        "let its name end with .zip if it is an archive of one file; or convert it to CSV or Parquet",
    ),
    _Foreign("an archive", (".tar", ".7z", ".rar"), b"", "unpack it"),
)
_BY_SUFFIX = {suffix: each for each in _FOREIGN for suffix in each.suffixes}


def what_has_suffix(suffix: str) -> str | None:
    """What a file of a suffix is, and what to do, for a message; ``None``: nobody knows."""
    found = _BY_SUFFIX.get(suffix)
    return found and f"{found.name}, by its suffix: {found.advice}"


def check_is_text(path: str, head: bytes) -> None:
    """Raises InputError: a file that should be text begins as none does; it names what it is."""
    for each in _FOREIGN:
        if each.magic and head.startswith(each.magic):
            raise InputError(f"{path} is no text, but {each.name}: {each.advice}")

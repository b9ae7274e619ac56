"""The form of the output file, by the suffix of its name.

============================  ==================  =============================================================
suffix                        while it grows      in the end
============================  ==================  =============================================================
``.jsonl``                    lines               the same: an object a row
``.parquet``                  a log of tables     Parquet
``.h5``, ``.hdf5``            a log of tables     HDF5
anything else, ``.csv`` too   lines               the same: ``str`` of each element, or pandas' ``to_csv``
============================  ==================  =============================================================

A Parquet file has its directory at its end, HDF5 keeps trees all over the file: a kill in the middle of an append would
ruin both. So the rows are logged as Arrow streams, one for each mini-batch, exactly as lines are; the final file is
made of them when all are there, and again if that is interrupted.

Standard library only.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any


class Form(str, enum.Enum):
    """What the output file is in the end."""

    TEXT = "text"
    JSON_LINES = "jsonl"
    PARQUET = "parquet"
    HDF5 = "hdf5"

    @property
    def is_made_at_the_end(self) -> bool:
        """Whether the growing file is a log of tables, from which the final one is made."""
        return self in (Form.PARQUET, Form.HDF5)


_SUFFIXES = {".jsonl": Form.JSON_LINES, ".parquet": Form.PARQUET, ".h5": Form.HDF5, ".hdf5": Form.HDF5}


def form_of(name: str) -> Form:
    """The form of an output file with this name; upper or lower case does not matter."""
    return _SUFFIXES.get(_suffix(name), Form.TEXT)


def default_to_csv(name: str) -> dict[str, Any]:
    """How DataFrame rows are written unless told otherwise: ``sep``, ``header`` and ``index`` of pandas' ``to_csv``."""
    is_csv = _suffix(name) == ".csv"
    return {"sep": "," if is_csv else " ", "header": is_csv, "index": False}


def encoding(name: str, to_csv: Mapping[str, Any]) -> dict[str, Any]:
    """What a user process must know to encode rows; see :func:`mpi_prs.child.rows.encoding.encode_rows`."""
    form = form_of(name)
    if form is Form.TEXT:
        return {"form": "text", **to_csv}
    return {"form": "arrow" if form.is_made_at_the_end else "jsonl", "header": False, "index": to_csv["index"]}


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix}".lower() if stem else ""

"""The columns of the DataFrames in a text output: one order for all user processes of a run.

A line of text does not name its values, and a header stands once above all rows. So the first DataFrame of the run says
in which order columns are written, and all others are arranged by the names of theirs.

Standard library only: the user process imports this module.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi_prs.child.rows.encoding import WrongReturnType
from mpi_prs.core.files import beside, claim, own_file
from mpi_prs.wire.failure import shorten

_LONGEST = 125  # characters of column names in a message


class ColumnOrder:
    """Arranges DataFrames; one object for each user process.

    Args:
        path: a file that all processes of the run see; who comes first makes it.
        run: names the run; the file has the name, too.
        form: of the rows, see :func:`~mpi_prs.child.rows.encoding.encode_rows`; ``header``: whether one stands above.
        tell: is told, once, of columns that are not those of the first DataFrame, where no header stands above.
    """

    def __init__(self, path: str, run: str, form: dict[str, Any], tell: Callable[[str], None]) -> None:
        self._path = path
        self._run = run
        self._header = form["header"]
        self._index = form["index"]
        self._tell = tell
        self._told = False
        self._agreed: dict[str, list[str]] | None = None
        self._last: Any = None  # columns and names of the index, as was agreed on

    def arranged(self, frame: Any) -> Any:
        """A DataFrame with rows, its columns in the order of the first one. Some 5 µs, or 200 µs.

        A Series, which is one column, is left as it is.

        Raises:
            WrongReturnType: it has other columns, and a header names those of the first one.
            OSError: the file can be neither made nor read.
            ValueError: it is not as it was written, or of another run.
        """
        if not hasattr(frame, "columns"):
            return frame
        index = frame.index.names if self._index else []
        if self._last is not None and self._last[0].equals(frame.columns) and self._last[1] == index:
            return frame
        names = {"index": list(map(str, index)), "columns": list(map(str, frame.columns))}
        if self._agreed is None:
            self._agreed = _agreed(self._path, self._run, names)
        if names == self._agreed:
            self._last = frame.columns, index
            return frame
        wanted = self._agreed["columns"]
        places = {name: number for number, name in enumerate(names["columns"])}
        is_other_order = len(places) == len(wanted) == len(names["columns"]) and places.keys() == set(wanted)
        is_index = names["index"] == self._agreed["index"] or (
            not self._header and len(names["index"]) == len(self._agreed["index"])
        )
        if is_other_order and is_index:
            return frame.iloc[:, [places[name] for name in wanted]]
        said = (
            f"run() returned a DataFrame with the columns {_shown(names)}; expected {_shown(self._agreed)}, those "
            f"{'that the output file has in its first line' if self._header else 'of the first DataFrame of this run'}"
        )
        if self._header:
            raise WrongReturnType(said)
        if not self._told:
            self._told = True
            self._tell(f"{said}: its rows are written as they are, and nothing in the output tells them apart")
        return frame


def _shown(names: dict[str, list[str]]) -> str:
    return shorten(",".join(names["index"] + names["columns"]), _LONGEST)


def read_columns(path: Path, run: str) -> dict[str, list[str]]:
    """The names of ``index`` and ``columns`` on which the processes of a run have agreed.

    Raises:
        ValueError: the file is not as it was written, or of another run.
        OSError: it cannot be read.
    """
    with open(str(path), "rb", opener=own_file) as file:
        text = file.read()
    try:
        fields = json.loads(text.decode())
        names = {name: fields[name] for name in ("index", "columns")}
        is_right = not run or (fields["run"] == run and fields["crc"] == _crc(run, names))
    except (ValueError, KeyError, TypeError, RecursionError):
        is_right = False
    if not is_right:
        raise ValueError(
            f"{path} says in which order columns stand in the output, and it is damaged, or of another run: put the "
            "right one back, or start the run anew with --overwrite"
        )
    return names


def _crc(run: str, names: dict[str, list[str]]) -> int:
    return zlib.crc32(json.dumps([run, names["index"], names["columns"]]).encode())


def _agreed(path: str, run: str, proposed: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is in the file: ``proposed``, if no process of the run, now or before, has come first with another text."""
    with beside(Path(path)) as own:
        own.write_text(json.dumps({**proposed, "run": run, "crc": _crc(run, proposed)}))
        claim(own, Path(path))  # whole or not at all, and never over another one
    return read_columns(Path(path), run)

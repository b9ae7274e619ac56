"""What the tests of all table formats share: a survey, the parts, and what the user process makes of the rows."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa

from mpi_prs.child.mini_batch import data_frame
from mpi_prs.inputs.formats.format import BatchSize, LocalFiles, Part, TableFormat

STORE = LocalFiles()


def survey_of(format: TableFormat, *files: Path | str) -> dict[str, Any]:
    """A survey, as it comes back from the manifest's JSON."""
    survey: dict[str, Any] = json.loads(json.dumps(format.survey(lambda: map(str, files), STORE)))
    return survey


def parts_of(format: TableFormat, files: Sequence[Path], size: BatchSize) -> tuple[dict[str, Any], list[Part]]:
    """The survey, and the parts of all files."""
    survey = survey_of(format, *files)
    return survey, [part for file in files for part in format.split(str(file), size, survey, STORE)]


def at_the_user(table: Any) -> pd.DataFrame:
    """What the user process makes of a table that passed through shared memory."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    frame: pd.DataFrame = data_frame(pa.ipc.open_stream(sink.getvalue()).read_all())
    return frame


class CountingFiles(LocalFiles):
    """Counts what each file, opened or measured, would ask of a remote store."""

    def __init__(self) -> None:
        self.opened = self.measured = self.bytes = 0

    def open(self, path: str) -> BinaryIO:
        store = self
        store.opened += 1

        class Counting(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:  # type: ignore[override]
                data = super().read(-1 if size is None else size) or b""
                store.bytes += len(data)
                return data

        return Counting(path)  # type: ignore[return-value]

    def size(self, path: str) -> int:
        self.measured += 1
        return super().size(path)

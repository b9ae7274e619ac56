"""The program of a reader process that surveys, splits and reads one whole file after the other."""

from __future__ import annotations

import sys
import threading
from typing import Any

from mpi_prs.core.errors import MpiPrsError
from mpi_prs.inputs.formats import FORMATS
from mpi_prs.inputs.formats.format import BatchSize, LocalFiles
from mpi_prs.inputs.formats.missing import refuse_nulls
from mpi_prs.inputs.formats.unfit import refuse_unfit
from mpi_prs.inputs.reader import serving
from mpi_prs.inputs.reader.connection import ConnectionLost, MessageKind, ReaderConnection
from mpi_prs.inputs.segment import Segments


class Reading:
    def __init__(self, _settings: dict[str, Any]) -> None:
        self.segments = Segments()

    def serve(self, connection: ReaderConnection) -> None:
        try:
            connection.send_json(MessageKind.AT, threading.get_native_id())
            while True:
                request = connection.receive().json()
                try:
                    answer: Any = self.rows(**request)
                    kind = MessageKind.LOADED
                except (MpiPrsError, OSError) as error:
                    kind, answer = MessageKind.FAILED, ["InputError", str(error)]
                except BaseException as error:
                    kind, answer = MessageKind.FAILED, [type(error).__name__, str(error)]
                connection.send_json(kind, answer)
        except ConnectionLost:
            pass

    def rows(self, path: str, name: str, planned_as: str, options: dict[str, Any]) -> int:
        """The rows of a file that was perhaps another one when it was planned."""
        format, store, count = FORMATS[name].make(**options), LocalFiles(), 0
        survey = format.survey(lambda: iter([planned_as]), store)
        parts = list(format.split(planned_as, BatchSize(rows=16), survey, store))
        reader = format.reader(survey, store)
        try:
            for part in parts:
                part = part._replace(file=path)
                data = reader.read(part).data
                if isinstance(data, dict):
                    segment, _ = self.segments.of_arrays(data)
                    count += len(next(iter(data.values())))
                else:
                    refuse_nulls(data, part)
                    refuse_unfit(data, part)
                    segment = self.segments.of_table(data)
                    count += data.num_rows
                self.segments.take_back(segment)
        finally:
            reader.close()
        return count


if __name__ == "__main__":
    serving.LoadingThreads = Reading  # type: ignore[misc, assignment]
    serving.main(int(sys.argv[1]), [int(descriptor) for descriptor in sys.argv[2:]])

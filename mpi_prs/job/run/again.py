"""Mini-batches of a finished run, run once more: do their rows come out as they stand in the output?

::

    journal ──► frames, some of them ──► their mini-batches, by the same manifest ──► a run of its own, in scratch
                   │ CRC of their rows                                                        │ rows
                   └────────────────────────────── the same? ◄────────────────────────────────┘
"""

from __future__ import annotations

import contextlib
import io
import random
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpi_prs.child.rows.row_format import form_of
from mpi_prs.core.environ import HERE
from mpi_prs.core.errors import JobStopped, OutputError
from mpi_prs.core.files import copy_atomically
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.engine.scheduler.states import JobPhase
from mpi_prs.engine.stop_signals import StopSignals
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.near.scratch_folder import scratch_folder
from mpi_prs.job.config.model import JobConfig
from mpi_prs.job.run.execute import work_through
from mpi_prs.job.run.opening import OpenRun
from mpi_prs.job.run.run_lock import RunLock
from mpi_prs.output.append_row import AppendRow
from mpi_prs.output.journal import Results, read_journal
from mpi_prs.output.ledger import Ledger, Numbers
from mpi_prs.wire.parts import is_part
from mpi_prs.wire.record import LENGTH, MINI_BATCH, RECORD, RETURNED

_NO_LIMIT = {
    **{"error_threshold": -1, "allowed_failed_count": None, "allowed_failed_percent": None},
    "bisect_on_failure": False,  # what fails has failed: the rows of its parts are not what is compared
}


@dataclass
class Compared:
    """What came of it.

    Attributes:
        mini_batches: how many were run again.
        of: how many the run has done.
        other: those whose rows came out as others than on record; where several stand in one frame, all of them.
        damaged: those whose rows in the output file are others than on record.
        failed: message → those that could not be run.
    """

    mini_batches: int = 0
    of: int = 0
    other: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    failed: dict[str, list[int]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether all is as it was."""
        return not (self.other or self.damaged or self.failed)


def run_again(config: JobConfig, share: float, processes: int, seed: int) -> Compared:
    """Run a share of what a run has done again, on this machine, and compare.

    Mini-batches of which some items failed alone are left out. Nothing in the output folder is changed.

    Args:
        config: of the run; its output folder has it.
        share: of the mini-batches, above 0, at most 1; whole frames of the journal are taken, one at least.
        processes: user processes.
        seed: another one takes others.

    Raises:
        OutputError: there is no run, or none that has done anything.
    """
    directory = RunDirectory(config.output)
    manifest = Manifest.open(directory.manifest)
    frames = _frames(directory)
    done = sum(len(frame.records) // RECORD.size for frame in frames)
    if not done:
        raise OutputError(f"{directory.output} has no rows on record that could be compared")
    random.Random(seed).shuffle(frames)
    taken: list[Results] = []
    found = Compared(of=done)
    while frames and (not taken or found.mini_batches < share * done):
        taken.append(frames.pop())
        found.mini_batches += len(taken[-1].records) // RECORD.size
    scratch_of_node = scratch_folder(config.scratch, HERE)
    with tempfile.TemporaryDirectory(prefix="mpi_prs-again-", dir=scratch_of_node) as scratch:
        again = RunDirectory(Path(scratch, "out"))
        rows, found.failed = _rows_of(config, directory, again, manifest, directory.run_id(), taken, processes)
    for frame in taken:
        numbers = _numbers(frame)
        if all(number in rows for number in numbers) and not _is_same(frame, rows):
            found.other += numbers
    if config.output_action == "append_row" and config.output_order == "arrival":
        final = directory.output_file(config.append_row_file_name)
        if not form_of(final.name).is_made_at_the_end and final.exists():
            found.damaged = _damaged(final, taken)
    return found


def _frames(directory: RunDirectory) -> list[Results]:
    """The frames of whole mini-batches whose rows are in the output."""
    frames: list[Results] = []
    for entry in read_journal(directory.journal):
        if entry.event is not None and entry.event.get("event") == "damaged":
            frames = [frame for frame in frames if frame.end <= int(entry.event["output"])]
        results = entry.results
        if results is not None and results.records and not (entry.lost or any(map(is_part, _numbers(results)))):
            frames.append(results)
    return frames


def _is_same(frame: Results, rows: Mapping[int, tuple[int, bytes]]) -> bool:
    records = list(RECORD.iter_unpack(frame.records))
    returned = [record[RETURNED] for record in records] == [rows[record[MINI_BATCH]][0] for record in records]
    return returned and zlib.crc32(b"".join(rows[record[MINI_BATCH]][1] for record in records)) == frame.crc


def _numbers(frame: Results) -> list[int]:
    return [record[MINI_BATCH] for record in RECORD.iter_unpack(frame.records)]


def _damaged(final: Path, frames: Iterable[Results]) -> list[int]:
    found = []
    with open(final, "rb") as file:
        for frame in frames:
            file.seek(frame.offset)
            if zlib.crc32(file.read(frame.length)) != frame.crc:
                found += _numbers(frame)
    return found


def _rows_of(
    config: JobConfig,
    directory: RunDirectory,
    again: RunDirectory,
    manifest: Manifest,
    run: str,
    frames: Sequence[Results],
    processes: int,
) -> tuple[dict[int, tuple[int, bytes]], dict[str, list[int]]]:
    """Mini-batch → how many items succeeded and its rows, and message → those that failed."""
    again.root.mkdir(parents=True)
    copy_atomically(directory.manifest, again.manifest)
    if directory.columns.exists():  # the order of columns is the run's
        copy_atomically(directory.columns, again.columns)
    again.spill.mkdir()
    token = uuid.uuid4().hex
    again.token.write_text(token, encoding="ascii")
    wanted = {number for frame in frames for number in _numbers(frame)}
    others = Numbers(number for number in range(manifest.mini_batches) if number not in wanted)
    config = config.model_copy(update={"output": again.output, **_NO_LIMIT})
    part = again.partial_output_file("rows")
    rows = part if config.output_action == "append_row" else None
    output = AppendRow(rows, again.journal, Ledger(), run)
    opened = OpenRun(again, run, manifest, Ledger(done=others), output, token, RunLock(again.lock))
    try:
        with StopSignals() as signals:
            ending = work_through(config, opened, processes, signals)
    finally:
        opened.close()
    if ending.phase is not JobPhase.COMPLETE:
        raise JobStopped(f"not all were run again: {ending.reason}")
    return _read_rows(again.journal, part), _failures(again.journal)


def _read_rows(journal: Path, part: Path) -> dict[int, tuple[int, bytes]]:
    rows: dict[int, tuple[int, bytes]] = {}
    with open(part, "rb") if part.exists() else contextlib.nullcontext(io.BytesIO()) as file:
        for entry in read_journal(journal):
            if entry.results is not None:
                file.seek(entry.results.offset)
                for record in RECORD.iter_unpack(entry.results.records):
                    rows[record[MINI_BATCH]] = record[RETURNED], file.read(record[LENGTH])
    return rows


def _failures(journal: Path) -> dict[str, list[int]]:
    failed: dict[str, list[int]] = {}
    for entry in read_journal(journal):
        if entry.event is not None and entry.event.get("event") == "failed":
            failed.setdefault(str(entry.event.get("message")), []).append(int(entry.event["mini_batch"]))
    return failed

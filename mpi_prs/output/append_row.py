"""The ``append_row`` file and its journal: every row once, whatever dies.

::

    rows ──► <name>.part (appended) ──► journal frame ──► done          fsync now and then: output first, then journal
    all done ──► (input order: copied in order; typed: made into Parquet or HDF5) ──► fsync ──► renamed to <name>

The file grows in the order in which results arrive. With ``output_order: input`` it is put in the input's order at the
end, from the offsets in the journal; so memory stays small however far apart the mini-batches finish. What is made at
the end is made beside the growing file, which is untouched until the journal says that the run is complete.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mpi_prs.child.rows.row_format import Form, form_of
from mpi_prs.child.shims.finder import resolve
from mpi_prs.core.errors import JobStopped, OutputError
from mpi_prs.core.files import NoRegularFile, move, own_file, sync_folder
from mpi_prs.core.free_space import FULL, free_space
from mpi_prs.core.locks import is_still
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.core.units import many
from mpi_prs.output.journal import Journal, JournalEntry, LostItems, Results, read_journal, write_all
from mpi_prs.output.ledger import Ledger
from mpi_prs.output.ordering import finishing_file, put_in_order
from mpi_prs.output.script_files import FOLDER_SUFFIX, promote
from mpi_prs.output.tracebacks import KeptTracebacks
from mpi_prs.output.verification import first_damaged
from mpi_prs.wire.record import LENGTH, MINI_BATCH, RECORD

SYNC_SECONDS = 2.0
SYNC_BYTES = 256 << 20
_COPY_BYTES = 4 << 20
_MOST_MESSAGES = 10_000  # in a frame: some MB
_STORAGE_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota is used up",
    errno.EFBIG: "the file has reached the size limit (ulimit -f, or the filesystem's)",
    errno.EIO: "the filesystem reports an input/output error",
}


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn what a full disk, or a filesystem that is gone, raises into an error that says so and what to do.

    Raises:
        OutputError: something else stands where a file of ours should.
        JobStopped: for every other OSError.
    """
    try:
        yield
    except NoRegularFile as error:
        raise OutputError(str(error)) from error
    except OSError as error:
        cause = _STORAGE_ERRORS.get(error.errno or 0, "the filesystem refuses it")
        cure = "make room" if error.errno in _STORAGE_ERRORS else "see to it"
        free = f"; {free_space(folder)}" if error.errno in FULL else ""
        raise JobStopped(
            f"cannot write to {folder}: {cause} ({os.strerror(error.errno or 0)}{free}). All mini-batches on record "
            f"are safe; {cure} and give the same command again to go on"
        ) from error


class AppendRow:
    """The output of a job, open for appending; one object, one master.

    With ``path`` ``None`` (``summary_only``) there are no rows, and the journal alone is kept.

    Raises (every method that writes):
        JobStopped: the disk is full or the like; everything recorded so far holds.
    """

    def __init__(self, path: Path | None, journal: Path, ledger: Ledger, run: str = "") -> None:
        """
        Args:
            path: the growing file.
            journal: its journal.
            ledger: how much of both holds; what is behind that is cut off.
            run: the id of the run, for a new journal.
        """
        self._path = path
        self._journal_path = journal
        self._end = ledger.output_end
        self._descriptor = -1
        self._tracebacks = KeptTracebacks()
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._syncing: Future[dict[str, int]] | None = None
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="sync")
        with self._storage():
            if path is not None:
                if self._end and not path.exists():
                    raise OutputError(
                        f"{path} is gone, and with it the rows of {many(len(ledger.done), 'mini-batch')}: put it back, "
                        "or start the run anew with --overwrite"
                    )
                self._descriptor = own_file(str(path), os.O_RDWR | os.O_CREAT)
                os.ftruncate(self._descriptor, self._end)
                os.lseek(self._descriptor, self._end, os.SEEK_SET)
                sync_folder(path.parent)
            self.journal = Journal(journal, ledger.journal_end, run)
            sync_folder(journal.parent)
        self.sync()  # what was cut off may not come back behind what is written now

    def _storage(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors(self._journal_path.parent.parent)

    @property
    def size(self) -> int:
        """Bytes of rows so far."""
        return self._end

    # Appending

    def append(
        self,
        worker: int,
        records: bytes | memoryview,
        rows: bytes | memoryview,
        lost: Sequence[LostItems] = (),
    ) -> None:
        """Write rows, then the frame that says that they are there. Two writes and two CRCs a call.

        Args:
            lost: the items of these mini-batches that failed each for itself.
        """
        with self._storage():
            if rows:
                write_all(self._descriptor, rows)
            results = Results(worker, self._end, len(rows), zlib.crc32(rows), bytes(records))
            self.journal.results(results, self._kept(lost))
        self._end += len(rows)
        self._unsynced += len(rows) + len(records)

    def append_header(self, header: bytes) -> None:
        """The line above all rows; only the first one counts, every worker sends one."""
        if not self._end:
            self.append(0, b"", header)

    def append_some(
        self,
        worker: int,
        records: memoryview,
        rows: memoryview,
        accepted: Iterable[bool],
        lost: Sequence[LostItems] = (),
    ) -> None:
        """As :meth:`append`, but only those records, and their rows, that are accepted."""
        position = 0
        kept_records, kept_rows = [], []
        for index, wanted in enumerate(accepted):
            record = records[index * RECORD.size : (index + 1) * RECORD.size]
            length = RECORD.unpack(record)[LENGTH]
            if wanted:
                kept_records.append(record)
                kept_rows.append(rows[position : position + length])
            position += length
        if kept_records:
            self.append(worker, b"".join(kept_records), b"".join(kept_rows), lost)

    def append_file(self, worker: int, record: bytes, path: Path, lost: Sequence[LostItems] = ()) -> None:
        """As :meth:`append`, with the rows in a file of their own, copied in pieces of 4 MiB.

        If it belongs to a folder with files of the script, that takes its place in the output folder.
        """
        crc = length = 0
        try:
            with open(path, "rb") as file:
                while piece := file.read(_COPY_BYTES):
                    crc = zlib.crc32(piece, crc)
                    length += len(piece)
                    with self._storage():
                        write_all(self._descriptor, piece)
        except FileNotFoundError:
            length = 0
        fields = RECORD.unpack(record)
        if length != fields[LENGTH]:
            raise JobStopped(
                f"the rows of mini-batch {fields[MINI_BATCH]} got lost on their way: {path} holds {length} bytes of "
                f"{fields[LENGTH]}. All mini-batches on record are safe; give the same command again to go on"
            )
        with self._storage():
            if (folder := path.with_suffix("")).suffix == FOLDER_SUFFIX:
                promote(folder, RunDirectory(self._journal_path.parent.parent).script_files, fields[MINI_BATCH])
            self.journal.results(Results(worker, self._end, length, crc, record), self._kept(lost))
        self._end += length
        self._unsynced += length

    def _kept(self, lost: Sequence[LostItems]) -> list[LostItems]:
        """As the journal keeps them: each distinct traceback once, before them; what is alike together."""
        kept: dict[str, LostItems] = {}
        for each in lost:
            traceback, failure = self._tracebacks.shortened({**each.failure, "item": -1})
            if traceback is not None:
                self.event("traceback", **traceback)
            if len(kept) >= _MOST_MESSAGES:
                failure["place"] = ""
                failure["message"] = f"{failure['kind']}: one of too many messages, see {failure['log']}"
            key = json.dumps([each.number, failure])
            kept.setdefault(key, LostItems(each.number, each.items, [], failure)).at.extend(each.at)
        return list(kept.values())

    def event(self, event: str, **fields: object) -> None:
        """Write an event into the journal."""
        with self._storage():
            self.journal.event(event, **fields)

    def failure(self, event: str, **fields: Any) -> None:
        """Write a failed attempt into the journal; each distinct traceback once, and nothing that looks secret."""
        traceback, shortened = self._tracebacks.shortened(fields)
        if traceback is not None:
            self.event("traceback", **traceback)
        self.event(event, **shortened)

    # Making it last

    def sync_if_due(self, now: float) -> None:
        """Group commit: after some seconds or bytes, fsync in a thread of its own, output before journal."""
        if self._syncing is not None:
            if self._syncing.done():
                self._finish_sync()
        elif self._unsynced and (now - self._synced_at > SYNC_SECONDS or self._unsynced > SYNC_BYTES):
            self._synced_at = now
            self._unsynced = 0
            self._syncing = self._syncer.submit(self._sync_to_disk, self._end)

    def _finish_sync(self) -> None:
        assert self._syncing is not None
        future, self._syncing = self._syncing, None
        with self._storage():
            synced = future.result()
        self.event("synced", **synced)

    def _sync_to_disk(self, end: int) -> dict[str, int]:
        """Returns what a ``synced`` event says: how much of the output is on disk, and when it was changed last."""
        self._check_place()
        modified = 0
        if self._descriptor >= 0:
            os.fdatasync(self._descriptor)
            modified = os.fstat(self._descriptor).st_mtime_ns
        os.fdatasync(self.journal.fileno())
        return {"output": end, "modified": modified}

    def _check_place(self) -> None:
        """Raises JobStopped: the files were removed, renamed or replaced, and what is written goes nowhere."""
        if not is_still(self.journal.fileno(), self._journal_path):
            said = f"{self._journal_path} was removed or moved while the run was at work"
            if self._path is not None and is_still(self._descriptor, self._path):
                # Without its journal it tells nobody what is in it, and the next start would take it for a stranger's.
                aside = self._path.with_name(f"{self._path.name}.{time.strftime('%Y%m%d-%H%M%S')}.lost")
                move(self._path, aside)
                raise JobStopped(f"{said}. The rows so far are in {aside}; the same command makes them anew")
            raise JobStopped(f"{said}: put the output folder back, and the same command goes on; else it starts anew")
        if self._path is not None and not is_still(self._descriptor, self._path):
            raise JobStopped(
                f"{self._path} was removed or moved while the run was at work: put it back, and the same command goes "
                "on; --overwrite starts anew"
            )

    def sync(self) -> None:
        """Put everything on disk now."""
        if self._syncing is not None:
            self._finish_sync()
        with self._storage():
            synced = self._sync_to_disk(self._end)
        self.event("synced", **synced)
        self._unsynced = 0

    # The end

    def complete(
        self,
        final: Path | None,
        kept: Path,
        *,
        in_input_order: bool,
        keep: bool,
        verify: bool = True,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Everything is done: give the file its name. Killed in between, the next start does it again.

        Args:
            final: the name, whose suffix says what the file is to be; ``None`` when there are no rows.
            kept: with ``keep``, where the growing file is put aside if another one was made of it: the journal's
                offsets are its own, and ``--only-failed`` goes on from there.
            in_input_order: order the rows as the input.
            keep: whether something is left that could be run again.
            verify: read all rows once more before, and compare them with the journal. With the rows in the page cache
                1 GB/s a core, four cores at most, and 2 µs a journal frame (measured on two busy cores); else as fast
                as the disk reads.
            metadata: for formats that have a place for some, as one JSON object.

        Raises:
            JobStopped: rows are not as they were written; the next start does them again.
        """
        self.sync()
        if self._descriptor >= 0:
            with self._storage():
                os.ftruncate(self._descriptor, self._end)  # what somebody else has added
            if verify:
                self._verify()
        if self._path is not None and final is not None:
            source = self._path
            with self._storage():
                if form_of(final.name).is_made_at_the_end:
                    source = self._make_tables(form_of(final.name), in_input_order=in_input_order, metadata=metadata)
                elif in_input_order:
                    source = self._put_in_order()
                move(source, final, lasting=True)
        self.event("complete", output=self._end)
        with self._storage():
            os.fdatasync(self.journal.fileno())
        if self._path is not None:
            put_aside(self._path, kept, keep=keep)

    def _verify(self) -> None:
        end = 0

        def entries() -> Iterator[JournalEntry]:
            nonlocal end
            for entry in read_journal(self._journal_path):
                end = entry.results.end if entry.results is not None else end
                yield entry

        with self._storage():
            damaged = first_damaged(entries(), self._descriptor)
        if damaged is None and end == self._end:
            return
        at = min(end, self._end) if damaged is None or damaged.results is None else damaged.results.offset
        self.event("damaged", output=at)
        raise JobStopped(
            f"{self._path} and its journal do not say the same from byte {at} on: the disk has lost something, or "
            "somebody else has written into them. The same command does again what is missing"
        )

    def _put_in_order(self) -> Path:
        assert self._path is not None
        ordered = finishing_file(self._path)
        put_in_order(self._descriptor, self._journal_path, ordered)
        return ordered

    def _make_tables(self, form: Form, *, in_input_order: bool, metadata: Mapping[str, str] | None) -> Path:
        assert self._path is not None
        made = finishing_file(self._path)
        resolve("mpi_prs.output.tables.file:make_table_file")(
            self._path, self._journal_path, made, form, in_input_order=in_input_order, metadata=metadata
        )
        return made

    def close(self) -> None:
        """Close the files; what is not synced is in the kernel and in the journal all the same."""
        self._syncer.shutdown(wait=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self.journal.close()


def put_aside(part: Path, kept: Path, *, keep: bool) -> None:
    """After completion: what is left of the growing file is kept for ``--only-failed``, or removed."""
    if part.exists():
        if keep:
            move(part, kept)
        else:
            part.unlink()


def take_up(part: Path, final: Path, kept: Path) -> None:
    """Before going on with a run that is not complete: the rows so far get their growing name back.

    Raises:
        OutputError: they are gone; the final file cannot grow.
    """
    if not part.exists():
        if kept.exists():
            move(kept, part)
        elif final.exists():
            if form_of(final.name).is_made_at_the_end:
                raise OutputError(
                    f"{kept} is gone, and without it {final} cannot be added to; start the run anew with --overwrite"
                )
            move(final, part)
    final.unlink(missing_ok=True)
    finishing_file(part).unlink(missing_ok=True)

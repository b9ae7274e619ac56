"""The journal as columns, and the CSV report made of them; with helpers that write journals for all monitor tests."""

from __future__ import annotations

import csv
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.files import replacing
from mpi_prs.monitor.columns import Columns, listen, read_columns
from mpi_prs.monitor.report import ProcessedMiniBatches
from mpi_prs.output.journal import Journal, LostItems, Results
from mpi_prs.wire.failure import Failure, FailureKind
from mpi_prs.wire.parts import WAYS
from mpi_prs.wire.record import RECORD, Record

T0 = 1_700_000_000.0


def record(mini_batch: int, **fields: Any) -> Record:
    """A finished mini-batch of ten items, with what matters to the test changed."""
    defaults = {"items": 10, "attempt": 1, "process": 0, "length": 50, "started": T0, "run": 0.5, "overhead": 0.25}
    known = {**defaults, **fields}
    known.setdefault("returned", known["items"])
    return Record(mini_batch=mini_batch, **known)


class Writer:
    """Writes a journal as the master does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path, 0)
        self.offset = 0
        self.starts = 0

    def start(self, nodes: dict[int, str] | None = None, time: float = T0) -> None:
        self.starts += 1
        self.journal.event("start", time=time, start=self.starts)
        if nodes is not None:
            named = {str(rank): node for rank, node in nodes.items()}
            self.journal.event("workers", nodes=named, processes=1, time=time)

    def finish(self, worker: int, *records: Record, lost: Sequence[LostItems] = ()) -> None:
        length = sum(one.length for one in records)
        packed = b"".join(RECORD.pack(*one) for one in records)
        self.journal.results(Results(worker, self.offset, length, zlib.crc32(b""), packed), lost)
        self.offset += length

    def fail(self, mini_batch: int, *, final: bool = True, worker: int = 1, time: float = T0, **fields: Any) -> None:
        told = {"kind": FailureKind.EXCEPTION, "message": "ValueError: no", "attempt": 3, "node": "n1", "process": 2}
        failure = Failure(**{**told, "mini_batch": mini_batch, **fields})
        event = "failed" if final else "attempt_failed"
        self.journal.event(event, worker=worker, time=time, **failure.to_dict())

    def reopen(self) -> None:
        self.journal.event("reopened", time=T0)

    def close(self) -> Path:
        self.journal.close()
        return self.path


@pytest.fixture
def journal(tmp_path: Path) -> Iterable[Writer]:
    writer = Writer(tmp_path / "journal")
    yield writer
    writer.close()


RECORDS = st.builds(
    Record,
    mini_batch=st.integers(0, WAYS - 1),
    items=st.integers(1, 2**32 - 1),
    returned=st.integers(0, 2**32 - 1),
    attempt=st.integers(1, 5),
    process=st.integers(0, 7),
    length=st.integers(0, 2**40),
    started=st.floats(T0, T0 + 1e6),
    run=st.floats(0, 100, width=32),
    overhead=st.floats(0, 1, width=32),
)
FRAMES = st.lists(st.tuples(st.integers(1, 4), st.lists(RECORDS, min_size=1, max_size=5)), max_size=12)


def columns_of(path: Path, group: int = 1 << 16) -> list[Columns]:
    return [part for part in read_columns(path, group) if isinstance(part, Columns)]


@settings(max_examples=60)
@given(FRAMES, st.integers(1, 20))
def test_every_record_comes_back_once_with_its_worker_and_the_place_of_its_rows(
    frames: Sequence[tuple[int, Sequence[Record]]], group: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder, "journal"))
        expected = []
        offset = 0
        for worker, records in frames:
            writer.finish(worker, *records)
            for one in records:
                expected.append((one, worker, offset))
                offset += one.length
        found = columns_of(writer.close(), group)
    read = [
        (Record._make(fields), worker, offset)
        for part in found
        for fields, worker, offset in zip(
            part.records.tolist(), part.workers.tolist(), part.offsets.tolist(), strict=True
        )
    ]
    assert read == expected


def test_each_mini_batch_has_the_nodes_of_its_own_start(journal: Writer) -> None:
    journal.start({1: "old"})
    journal.finish(1, record(0))
    journal.start({1: "new"})
    journal.finish(1, record(1))
    found = {part.records["mini_batch"].item(): part.nodes for part in columns_of(journal.path)}
    assert found == {0: {1: "old"}, 1: {1: "new"}}


def test_a_torn_tail_is_left_out(journal: Writer) -> None:
    journal.finish(1, record(0))
    size = journal.path.stat().st_size
    journal.finish(1, record(1))
    with open(journal.path, "r+b") as file:
        file.truncate(size + 20)
    assert [part.records["mini_batch"].tolist() for part in columns_of(journal.path)] == [[0]]


# The report


def write_report(journal: Path, path: Path) -> None:
    with replacing(path) as file:
        listen(journal, ProcessedMiniBatches(file))


def report_of(journal: Writer) -> list[dict[str, str]]:
    path = journal.path.with_name("deep") / "down" / "report.csv"
    write_report(journal.path, path)
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_report_has_a_line_for_each_finished_mini_batch(journal: Writer) -> None:
    journal.start({1: "n1", 2: "n2, the other"})
    journal.finish(2, record(7, returned=9, attempt=2, process=3, length=11, started=T0 + 0.1234, run=0.125))
    journal.fail(3)
    journal.finish(1, record(8, length=0), record(9, overhead=1e-5))
    rows = report_of(journal)
    assert rows[0] == {
        "mini_batch": "7",
        "items": "10",
        "returned": "9",
        "attempt": "2",
        "worker": "2",
        "node": "n2, the other",
        "process": "3",
        "started": "2023-11-14T22:13:20.123Z",
        "run_seconds": "0.125",
        "overhead_seconds": "0.25",
        "output_offset": "0",
        "output_bytes": "11",
    }
    assert [(row["mini_batch"], row["node"], row["output_offset"]) for row in rows[1:]] == [
        ("8", "n1", "11"),
        ("9", "n1", "11"),
    ]
    assert datetime.strptime(rows[0]["started"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc).timestamp() == (
        pytest.approx(T0 + 0.123)
    )
    assert float(rows[2]["overhead_seconds"]) == pytest.approx(1e-5)


def test_the_report_of_an_empty_journal_is_its_header(journal: Writer) -> None:
    assert report_of(journal) == []
    text = (journal.path.with_name("deep") / "down" / "report.csv").read_text()
    assert text == (
        "mini_batch,items,returned,attempt,worker,node,process,started,run_seconds,overhead_seconds,output_offset,"
        "output_bytes\n"
    )


def test_a_report_that_cannot_be_finished_leaves_the_old_one(journal: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = journal.path.with_name("report.csv")
    path.write_text("old")
    journal.finish(1, record(0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.csv.write_csv", full)
    with pytest.raises(OSError, match="No space"):
        write_report(journal.path, path)
    assert path.read_text() == "old"
    assert [entry.name for entry in sorted(path.parent.iterdir())] == ["journal", "report.csv"]

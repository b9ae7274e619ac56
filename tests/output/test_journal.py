"""The journal: whatever happens to its end, what is read is a beginning of what was written."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import OutputError
from mpi_prs.output.journal import RECORD_TYPE, Journal, JournalEntry, LostItems, Results, read_journal
from mpi_prs.output.ledger import Ledger, read_ledger
from mpi_prs.wire.parts import halves, mini_batch_of, part_of_one
from mpi_prs.wire.record import RECORD, RECORD_FIELDS, Record, unpack_records

JSON = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(allow_nan=False)
RESULTS = st.builds(
    Results,
    worker=st.integers(0, 2**32 - 1),
    offset=st.integers(0, 2**64 - 1),
    length=st.integers(0, 2**64 - 1),
    crc=st.integers(0, 2**32 - 1),
    records=st.integers(0, 3).flatmap(lambda count: st.binary(min_size=48 * count, max_size=48 * count)),
)
EVENTS = st.dictionaries(st.sampled_from(["mini_batch", "attempt", "message", "output", "nodes"]), JSON).map(
    lambda fields: {"event": "something", **fields}
)
WRITTEN = st.lists(RESULTS | EVENTS, max_size=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal") / "journal"


ID = "0123456789abcdef" * 2


def write(path: Path, entries: list[Results | dict[str, Any]], size: int = 0, run: str = ID) -> list[int]:
    """Write them behind ``size``; where each of them ends, the empty journal's end first."""
    journal = Journal(path, size, run)
    try:
        ends = [path.stat().st_size]
        for entry in entries:
            if isinstance(entry, Results):
                journal.results(entry)
            else:
                journal.event(**entry)
            ends.append(path.stat().st_size)
        return ends
    finally:
        journal.close()


def read(path: Path) -> list[Results | dict[str, Any] | None]:
    return [content(entry) for entry in read_journal(path)]


def content(entry: JournalEntry) -> Results | dict[str, Any] | None:
    assert (entry.results is None) != (entry.event is None)
    return entry.event if entry.results is None else entry.results


# What is written comes back


@given(WRITTEN)
def test_what_is_written_is_read_again_with_the_place_where_each_entry_ends(path: Path, written: list[Any]) -> None:
    ends = write(path, written)

    assert read(path) == written
    assert [entry.end for entry in read_journal(path)] == ends[1:]


@given(before=WRITTEN, after=WRITTEN, data=st.data())
def test_it_can_be_cut_off_behind_any_entry_and_gone_on_with(
    path: Path, before: list[Any], after: list[Any], data: st.DataObject
) -> None:
    ends = write(path, before)
    kept = data.draw(st.integers(0, len(before)))

    write(path, after, ends[kept])

    assert read(path) == before[:kept] + after


def test_a_journal_that_is_started_anew_holds_nothing_old(path: Path) -> None:
    write(path, [{"event": "start"}])
    write(path, [])

    assert read(path) == []


def test_text_that_is_not_unicode_survives(path: Path) -> None:
    event = {"event": "something", "message": "cannot read caf\udce9\n"}
    write(path, [event])

    assert read(path) == [event]


# A torn, damaged or overwritten end


@given(written=WRITTEN, data=st.data())
def test_cut_at_any_byte_it_gives_the_entries_that_are_whole(
    path: Path, written: list[Any], data: st.DataObject
) -> None:
    ends = write(path, written)
    size = data.draw(st.integers(0, ends[-1]))
    path.write_bytes(path.read_bytes()[:size])

    assert read(path) == written[: sum(end <= size for end in ends[1:])]


@given(written=WRITTEN.filter(len), data=st.data(), flip=st.integers(1, 255))
def test_with_a_byte_flipped_it_gives_the_entries_before_that_byte(
    path: Path, written: list[Any], data: st.DataObject, flip: int
) -> None:
    ends = write(path, written)
    place = data.draw(st.integers(ends[0], ends[-1] - 1))
    changed = bytearray(path.read_bytes())
    changed[place] ^= flip
    path.write_bytes(changed)

    assert read(path) == written[: sum(end <= place for end in ends[1:])]


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_goes_unnoticed(path: Path, bit: int) -> None:
    written: list[Any] = [{"event": "start"}, Results(1, 0, 5, 7, bytes(48)), {"event": "complete"}]
    ends = write(path, written)
    original = path.read_bytes()
    for place in range(ends[0], ends[-1]):
        path.write_bytes(original[:place] + bytes([original[place] ^ 1 << bit]) + original[place + 1 :])

        assert read(path) == written[: sum(end <= place for end in ends[1:])]


@given(written=WRITTEN, data=st.data(), zeros=st.integers(0, 100), noise=st.binary(max_size=200))
def test_what_a_power_cut_leaves_behind_a_place_is_not_taken_for_entries(
    path: Path, written: list[Any], data: st.DataObject, zeros: int, noise: bytes
) -> None:
    ends = write(path, written)
    held = data.draw(st.integers(0, len(written)))
    path.write_bytes(path.read_bytes()[: ends[held]] + bytes(zeros) + noise)

    # Noise may begin just as the lost entries did; it may never give anything else.
    assert written[:held] == read(path)[:held]
    assert read(path) == written[: len(read(path))]


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_noise_in_place_of_entries_gives_nothing(path: Path, noise: bytes) -> None:
    (start,) = write(path, [])
    path.write_bytes(path.read_bytes()[:start] + noise)

    assert read(path) == []


def test_a_length_beyond_the_end_of_the_file_takes_no_memory(path: Path) -> None:
    write(path, [{"event": "start"}])
    with open(path, "ab") as file:
        file.write(b"\xff" * 4 + bytes(5) + b"x" * 100)

    assert read(path) == [{"event": "start"}]


# The beginning


@pytest.mark.parametrize(("run", "size"), [*[("", size) for size in range(18)], *[(ID, size) for size in range(51)]])
@pytest.mark.parametrize("zeros", [0, 1, 51])
def test_torn_or_filled_with_zeros_while_it_was_created_it_is_empty(
    path: Path, run: str, size: int, zeros: int
) -> None:
    write(path, [], run=run)
    path.write_bytes(path.read_bytes()[:size] + bytes(zeros))

    assert read(path) == []


@pytest.mark.parametrize("foreign", [b"#!/bin/sh\nexit 0\n# long enough", b"mpi_prs journal 3\nxxx", b"x"])
def test_a_file_that_is_no_journal_is_refused(path: Path, foreign: bytes) -> None:
    path.write_bytes(foreign)

    with pytest.raises(OutputError, match=r"journal is not a journal of this version; start the run anew"):
        read(path)


NONSENSE = {
    "no event": b'{"a": 1}',
    "a list": b"[1]",
    "no JSON": b"xx",
    "deep": b"[" * 100_000,
    "failed without its mini-batch": b'{"event": "failed", "attempt": 1}',
    "failed by a text": b'{"event": "failed", "mini_batch": "x", "attempt": 1}',
    "failed by a negative number": b'{"event": "failed", "mini_batch": -5, "attempt": 1}',
    "failed by a list": b'{"event": "failed", "mini_batch": 1, "attempt": 1, "message": []}',
    "synced to a text": b'{"event": "synced", "output": "x"}',
    "workers without nodes": b'{"event": "workers", "nodes": 5}',
    "a time of day": b'{"event": "start", "time": "noon"}',
}


ITEMS = [
    (3, struct.pack("<I", 24) + bytes(24) + told)
    for told in (
        *(b"", b"{}", b"[7]", b'[{"number": 1, "items": 2, "at": [0]}]'),
        b'[{"number": 1, "items": 2, "at": [2], "failure": {"mini_batch": 1, "attempt": 1}}]',
        b'[{"number": 1, "items": 2, "at": [], "failure": {"mini_batch": 1, "attempt": 1}}]',
        b'[{"number": -1, "items": 2, "at": [1], "failure": {"mini_batch": 1, "attempt": 1}}]',
    )
]


@pytest.mark.parametrize(
    ("kind", "body"),
    [*[(2, body) for body in NONSENSE.values()], (1, b"short"), (1, bytes(24 + 47)), (9, b"{}"), *ITEMS],
)
def test_an_entry_that_nobody_of_us_has_written_is_refused(path: Path, kind: int, body: bytes) -> None:
    write(path, [{"event": "start"}])
    tail = bytes((kind,)) + body
    with open(path, "ab") as file:
        file.write(struct.pack("<II", len(body), zlib.crc32(tail)) + tail)

    with pytest.raises(OutputError, match=r"journal has an entry before byte \d+ that is not of ours .*--overwrite"):
        read(path)


def test_a_failure_has_all_that_its_readers_need(path: Path) -> None:
    write(path, [{"event": "failed", "mini_batch": 1, "attempt": 2, "seconds": float("inf"), "pause": float("nan")}])

    assert read(path) == [
        {
            **{"event": "failed", "mini_batch": 1, "attempt": 2, "kind": "exception", "message": "", "traceback": ""},
            **{"node": "", "process": -1, "log": "", "seconds": 0.0, "pause": 0.0},
        }
    ]


def test_what_is_no_regular_file_is_no_journal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal")
    with pytest.raises(OutputError, match="journal is no regular file"):
        read(tmp_path / "journal")


@pytest.mark.parametrize("run", ["", ID])
def test_it_is_of_one_run(path: Path, run: str) -> None:
    write(path, [{"event": "start"}], run=run)

    assert len(list(read_journal(path, run))) == len(list(read_journal(path))) == 1
    for other in {"", ID, ID[::-1]} - {run}:
        with pytest.raises(
            OutputError, match=r"journal is the journal of another run than that of .*run\.json: .*--over"
        ):
            list(read_journal(path, other))


# Records


def test_a_record_is_48_bytes_with_the_fields_in_this_order() -> None:
    record = Record(2**40, 10, 9, 2, 3, 2**33, 1.7e9, 0.25, 0.5)
    data = RECORD.pack(*record)

    assert len(data) == 48
    assert unpack_records(data * 2) == [record, record]
    assert Record._fields == RECORD_FIELDS


def test_numpy_reads_records_as_they_are() -> None:
    np = pytest.importorskip("numpy")
    data = RECORD.pack(7, 10, 9, 2, 3, 11, 1.7e9, 0.25, 0.5)

    (row,) = np.frombuffer(data, RECORD_TYPE)

    assert tuple(row.tolist()) == RECORD.unpack(data)


# Items that failed each for itself


def lost(number: int, *at: int, items: int = 5, **failure: Any) -> LostItems:
    told = {"mini_batch": number, "attempt": 2, "kind": "load", "message": "no", "traceback": "", "node": "n1"}
    return LostItems(number, items, list(at), {**told, "process": 0, "log": "", "seconds": 0.0, **failure})


def test_items_that_failed_stand_in_one_frame_with_the_results_of_the_others(path: Path) -> None:
    results = Results(1, 0, 5, 7, bytes(48))
    journal = Journal(path, 0, ID)
    journal.event("traceback", id=1, text="File x")
    start = path.stat().st_size
    journal.results(results, [lost(0, 1, 3, traceback_id=1)])
    journal.close()
    content = path.read_bytes()
    (entry,) = list(read_journal(path))[1:]
    assert (entry.results, entry.end) == (results, len(content))
    assert [(each.at, each.failure["traceback"]) for each in entry.lost] == [([1, 3], "File x")]
    for size in range(start, len(content)):
        path.write_bytes(content[:size])
        assert [each.end for each in read_journal(path)] == [start]


def replay(path: Path, *said: tuple[int, LostItems] | dict[str, Any] | Record, mini_batches: int = 3) -> Ledger:
    journal = Journal(path, 0, ID)
    for each in said:
        if isinstance(each, dict):
            journal.event(**each)
        elif isinstance(each, Record):
            journal.results(Results(1, 0, 0, 0, RECORD.pack(*each)))
        else:
            records = b"" if isinstance(each, LostItems) else RECORD.pack(*finished(each[0], items=3))
            journal.results(Results(1, 0, 0, 0, records), [each if isinstance(each, LostItems) else each[1]])
    journal.close()
    return read_ledger(path, None, ID, mini_batches)


def finished(number: int, items: int = 5) -> Record:
    return Record(number, items, items, 1, 0, 0, 1.7e9, 0.1, 0.0)


def halved(number: int, items: int = 5) -> dict[str, Any]:
    mini_batch = mini_batch_of(number)
    return {"event": "halved", "mini_batch": mini_batch, "part": number, "items": items, "attempt": 2}


LEFT, RIGHT = halves(1)  # of five items: three and two
R0, R1 = halves(RIGHT)
REOPENED = {"event": "reopened"}


@pytest.mark.parametrize(
    ("said", "done", "left", "failed"),
    [
        ([halved(1)], set(), {LEFT, RIGHT}, 0),
        ([halved(1), finished(LEFT, 3)], set(), {RIGHT}, 0),
        ([halved(1), finished(LEFT, 3), finished(RIGHT, 2)], {1}, set(), 0),
        ([halved(1), halved(RIGHT), finished(LEFT, 3), lost(R1, 4)], set(), {R0}, 1),
        ([halved(1), halved(RIGHT), finished(LEFT, 3), lost(R1, 4), finished(R0, 1)], {1}, set(), 1),
        ([halved(1), lost(RIGHT, 3, 4), finished(LEFT, 3)], {1}, set(), 2),  # its workers were lost
        ([(1, lost(1, 0, 3))], {1}, set(), 2),
        ([(1, lost(1, 0, 3)), REOPENED], set(), {part_of_one(1, 0, 5), part_of_one(1, 3, 5)}, 0),
        ([(1, lost(1, 0, 3)), REOPENED, finished(part_of_one(1, 0, 5), 1)], set(), {part_of_one(1, 3, 5)}, 0),
        ([halved(1), lost(RIGHT, 3, 4), finished(LEFT, 3), REOPENED], set(), {R0, R1}, 0),
    ],
)
def test_the_ledger_knows_what_is_left_of_a_mini_batch(
    path: Path, said: list[Any], done: set[int], left: set[int], failed: int
) -> None:
    ledger = replay(path, *said)
    assert set(ledger.done) == done
    assert {part for each in ledger.divided.values() for part in each.left} == left
    assert ledger.failed_items == failed
    assert ledger.items == sum(each.items for each in said if isinstance(each, Record)) + 3 * isinstance(said[0], tuple)


@pytest.mark.parametrize(
    "said",
    [
        [finished(LEFT, 3)],
        [halved(1), finished(LEFT, 3), finished(LEFT, 3)],
        [halved(1), finished(R0, 1)],
        [halved(7)],
        [lost(7, 1)],
        [finished(1), finished(1)],
        [finished(1), halved(1)],
    ],
)
def test_a_part_that_is_not_to_be_done_is_refused(path: Path, said: list[Any]) -> None:
    with pytest.raises(OutputError, match="--overwrite"):
        replay(path, *said)

"""The append_row file: every row once, whatever dies, however the disk forgets, and in whatever order answers come."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpi_prs.core.errors import JobStopped, OutputError
from mpi_prs.monitor.columns import read_columns
from mpi_prs.output import verification
from mpi_prs.output.append_row import SYNC_BYTES, SYNC_SECONDS, AppendRow, take_up
from mpi_prs.output.journal import LostItems, read_journal
from mpi_prs.output.ledger import Ledger, read_ledger
from mpi_prs.output.verification import first_damaged
from mpi_prs.wire.failure import Failure, FailureKind
from mpi_prs.wire.record import RECORD

MINI_BATCHES = 12


def rows_of(number: int) -> bytes:
    """The rows of a mini-batch; some have none."""
    return b"".join(b"%d/%d\n" % (number, row) for row in range(number % 4)) * (1 + 40 * (number % 3))


def record_of(number: int, rows: bytes | None = None, items: int = 9, returned: int = 7) -> bytes:
    return RECORD.pack(number, items, returned, 1, 0, len(rows_of(number) if rows is None else rows), 1e9, 0.5, 0.25)


class Run:
    """The files of one run in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "_run").mkdir()
        self.part = folder / "rows.txt.part"
        self.final = folder / "rows.txt"
        self.journal = folder / "_run" / "journal"
        self.kept = folder / "_run" / "kept_rows"

    def ledger(self) -> Ledger:
        return read_ledger(self.journal, self.part) if self.journal.exists() else Ledger()

    def events(self) -> list[str]:
        return [entry.event["event"] for entry in read_journal(self.journal) if entry.event is not None]

    @contextlib.contextmanager
    def open(self) -> Iterator[AppendRow]:
        output = AppendRow(self.part, self.journal, self.ledger())
        try:
            yield output
        finally:
            output.close()

    def complete(self, output: AppendRow, *, in_input_order: bool, keep: bool = False) -> None:
        output.complete(self.final, self.kept, in_input_order=in_input_order, keep=keep)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture(scope="module")
def new_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Run]:
    return lambda: Run(tmp_path_factory.mktemp("run"))


def append(output: AppendRow, *numbers: int) -> None:
    output.append(1, b"".join(map(record_of, numbers)), b"".join(map(rows_of, numbers)))


def append_some(output: AppendRow, wanted: Sequence[int], unwanted: Sequence[int]) -> None:
    """The unwanted ones are late answers of mini-batches that are done already."""
    numbers = sorted([*wanted, *unwanted])
    output.append_some(
        1,
        memoryview(b"".join(map(record_of, numbers))),
        memoryview(b"".join(map(rows_of, numbers))),
        [number in wanted for number in numbers],
    )


def append_file(output: AppendRow, number: int, folder: Path) -> None:
    path = folder / f"{number}.rows"
    path.write_bytes(rows_of(number))
    output.append_file(1, record_of(number), path)


# Without faults


@settings(max_examples=50)
@given(order=st.permutations(range(MINI_BATCHES)), sizes=st.lists(st.integers(1, 5), min_size=MINI_BATCHES))
def test_input_order_is_byte_identical_whatever_the_order_of_arrival(
    new_run: Callable[[], Run], order: list[int], sizes: list[int]
) -> None:
    run = new_run()
    with run.open() as output:
        while order:
            size = sizes.pop()
            append(output, *order[:size])
            del order[:size]
        run.complete(output, in_input_order=True)

    assert run.final.read_bytes() == b"".join(map(rows_of, range(MINI_BATCHES)))
    assert not run.part.exists()


def test_arrival_order_is_the_order_of_the_answers(run: Run) -> None:
    with run.open() as output:
        append(output, 3, 1)
        append(output, 2)
        assert output.size == len(rows_of(3) + rows_of(1) + rows_of(2))
        assert not run.final.exists()
        run.complete(output, in_input_order=False)

    assert run.final.read_bytes() == rows_of(3) + rows_of(1) + rows_of(2)
    assert not run.part.exists()


def test_the_ledger_knows_the_items_of_what_is_done_and_the_tries_of_what_is_not(run: Run) -> None:
    with run.open() as output:
        output.event("start")
        output.event("attempt_failed", mini_batch=4, attempt=1)
        output.event("attempt_failed", mini_batch=5, attempt=1)
        output.event("attempt_failed", mini_batch=5, attempt=2)
        output.event("attempt_failed", mini_batch=6, attempt=1)
        output.event("failed", mini_batch=6, attempt=2)
        append(output, 4)

    ledger = run.ledger()
    assert (ledger.done, ledger.attempts, ledger.failed) == ({4}, {5: 2}, {6})
    assert (ledger.starts, ledger.complete) == (1, False)


def test_once_complete_it_is_known_to_be_until_it_is_reopened(run: Run) -> None:
    with run.open() as output:
        append(output, 1)
        output.event("failed", mini_batch=2, attempt=3)
        run.complete(output, in_input_order=True, keep=True)
    assert (run.ledger().complete, run.ledger().failed) == (True, {2})

    run.kept.replace(run.part)
    with run.open() as output:
        output.event("reopened")
    assert (run.ledger().complete, run.ledger().failed, run.ledger().done) == (False, set(), {1})


def test_of_answers_only_the_accepted_ones_and_their_rows_are_written(run: Run) -> None:
    with run.open() as output:
        append(output, 1, 5)
        append_some(output, wanted=[2, 7, 11], unwanted=[1, 5])
        append_some(output, wanted=[], unwanted=[1])

    assert run.part.read_bytes() == b"".join(map(rows_of, [1, 5, 2, 7, 11]))
    assert sorted(run.ledger().done) == [1, 2, 5, 7, 11]


@pytest.mark.parametrize("in_input_order", [False, True])
def test_rows_of_many_mebibytes_come_from_a_file_of_their_own(run: Run, tmp_path: Path, in_input_order: bool) -> None:
    rows = random.Random(1).randbytes(9 << 20) + b"\n"
    (tmp_path / "spilled").write_bytes(rows)
    with run.open() as output:
        append(output, 3)
        output.append_file(1, record_of(1, rows), tmp_path / "spilled")
        append(output, 2)
    with run.open() as output:  # and the next start finds them as they were written
        run.complete(output, in_input_order=in_input_order)

    order = [rows, rows_of(2), rows_of(3)] if in_input_order else [rows_of(3), rows, rows_of(2)]
    assert run.final.read_bytes() == b"".join(order)


def test_with_summary_only_there_is_a_journal_and_no_file(run: Run) -> None:
    output = AppendRow(None, run.journal, Ledger())
    output.append(1, record_of(1, b""), b"")
    output.close()
    output = AppendRow(None, run.journal, read_ledger(run.journal, None))
    output.append(1, record_of(2, b""), b"")
    output.complete(None, run.kept, in_input_order=True, keep=True)
    output.close()

    ledger = read_ledger(run.journal, None)
    assert (sorted(ledger.done), ledger.complete) == ([1, 2], True)
    assert [path.name for path in run.part.parent.iterdir()] == ["_run"]
    assert [path.name for path in run.journal.parent.iterdir()] == ["journal"]


# Crashes


class Disk:
    """Remembers how much of each file is on the disk for certain: what was in it when it was last synced."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def fdatasync(self, descriptor: int) -> None:
        self.sizes[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_size

    def lose_power(self, path: Path, data: st.DataObject) -> None:
        """What was not synced may be there, or not, or be something else."""
        content = path.read_bytes() if path.exists() else b""
        held = self.sizes.get(str(path))
        if held is None and data.draw(st.booleans(), label=f"{path.name} never came to the disk"):
            path.unlink(missing_ok=True)
            return
        head, tail = content[: held or 0], bytearray(content[held or 0 :])
        for _ in range(data.draw(st.integers(0, 2), label=f"damages of {path.name}")):
            first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(tail))] * 2), label="from, to"))
            kind = data.draw(st.sampled_from(["cut", "zeros", "noise"]), label="damage")
            if kind == "cut":
                del tail[first:]
            elif kind == "zeros":
                tail[first:last] = bytes(last - first)
            else:
                tail[first:last] = random.Random(first).randbytes(last - first)
        path.write_bytes(head + tail)


class AtOnce:
    """An executor whose thread is done before one looks; so every example can be repeated."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, function: Callable[..., int], *arguments: object) -> Future[int]:
        future: Future[int] = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, wait: bool) -> None:
        pass


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_kills_and_power_cuts_at_any_moment_leave_every_row_once(
    new_run: Callable[[], Run], data: st.DataObject
) -> None:
    run, disk = new_run(), Disk()
    folder = run.journal.parent
    done: set[int] = set()  # on record
    safe: set[int] = set()  # and on the disk
    with (
        mock.patch.object(os, "fdatasync", disk.fdatasync),
        mock.patch("mpi_prs.output.append_row.ThreadPoolExecutor", AtOnce),
    ):
        for _ in range(data.draw(st.integers(1, 4), label="lives")):
            with run.open() as output:
                assert disk.sizes[str(run.part)] == run.part.stat().st_size, "what was cut off may not come back"
                safe = set(done)
                for action in data.draw(
                    st.lists(st.sampled_from(["rows", "some", "file", "event", "sync", "sync if due"]), max_size=8)
                ):
                    left = [number for number in range(MINI_BATCHES) if number not in done]
                    taken = data.draw(st.lists(st.sampled_from(left), unique=True, max_size=4)) if left else []
                    if action == "rows" and taken:
                        append(output, *taken)
                        done |= {*taken}
                    elif action == "some" and taken:
                        append_some(output, taken, sorted(done)[:3])
                        done |= {*taken}
                    elif action == "file" and taken:
                        append_file(output, taken[0], folder)
                        done.add(taken[0])
                    elif action == "event" and taken:
                        output.event("attempt_failed", mini_batch=taken[0], attempt=1)
                    elif action == "sync":
                        output.sync()
                        safe = set(done)
                    elif action == "sync if due":
                        output.sync_if_due(time.monotonic() + 2 * SYNC_SECONDS)
            if data.draw(st.booleans(), label="the machine dies"):
                disk.lose_power(run.part, data)
                disk.lose_power(run.journal, data)
                found = set(run.ledger().done)
                assert safe <= found <= done
                done = found
            else:
                assert set(run.ledger().done) == done
        with run.open() as output:
            append(output, *(number for number in range(MINI_BATCHES) if number not in done))
            in_input_order = data.draw(st.booleans(), label="input order")
            run.complete(output, in_input_order=in_input_order)

    expected = b"".join(map(rows_of, range(MINI_BATCHES)))
    if in_input_order:
        assert run.final.read_bytes() == expected
    else:
        assert sorted(run.final.read_bytes().splitlines()) == sorted(expected.splitlines())


def test_rows_after_the_last_sync_that_are_not_as_written_are_done_again(run: Run) -> None:
    with run.open() as output:
        append(output, 1)
        output.sync()
        append(output, 2)
        append(output, 3)
    content = run.part.read_bytes()
    run.part.write_bytes(content[: len(rows_of(1))] + bytes(len(content) - len(rows_of(1))))

    assert sorted(run.ledger().done) == [1]
    with run.open() as output:
        append(output, 3, 2)
    assert run.part.read_bytes() == rows_of(1) + rows_of(3) + rows_of(2)


def test_rows_that_no_journal_entry_names_are_cut_off(run: Run) -> None:
    with run.open() as output:
        append(output, 1)
    with open(run.part, "ab") as file:
        file.write(b"half a r")

    with run.open() as output:
        append(output, 2)
    assert run.part.read_bytes() == rows_of(1) + rows_of(2)


def test_when_the_journal_is_lost_everything_is_done_again(run: Run) -> None:
    with run.open() as output:
        append(output, 1, 2)
    run.journal.unlink()

    with run.open() as output:
        append(output, 2)
    assert run.part.read_bytes() == rows_of(2)


@pytest.mark.parametrize("number", [1, -3, 777, 10**9])
def test_a_journal_that_names_a_mini_batch_twice_or_one_too_many_is_refused(run: Run, number: int) -> None:
    with run.open() as output:
        append(output, 1)
        output.append(1, RECORD.pack(number, 9, 7, 1, 0, 0, 1e9, 0.5, 0.25), b"")

    with pytest.raises(OutputError, match=rf"names mini-batch {number} (twice|of 12)"):
        read_ledger(run.journal, run.part, mini_batches=12)


# Failures


def traceback_of(line: int, error: str) -> str:
    return f'Traceback (most recent call last):\n  File "score.py", line {line}, in run\n    {"x" * 9000}\n{error}\n'


def told(run: Run) -> list[tuple[int, str, str]]:
    """Of each failure: mini-batch, message, traceback."""
    events = [part for part in read_columns(run.journal) if isinstance(part, dict)]
    return [
        (event["mini_batch"], event["message"], event["traceback"]) for event in events if event["event"] == "failed"
    ]


def test_of_many_failures_each_traceback_is_kept_once_and_shortened_and_read_with_all(run: Run) -> None:
    def fail(output: AppendRow, number: int, line: int, error: str) -> None:
        output.failure("failed", mini_batch=number, attempt=1, message=error, traceback=traceback_of(line, error))

    with run.open() as output:
        for number in range(100):
            fail(output, number, 7, f"ValueError: item {number}")
        fail(output, 100, 8, "ValueError: elsewhere")
        fail(output, 101, 7, "KeyError: another")
        output.failure("failed", mini_batch=102, attempt=1, message="m" * 9999, traceback="")
    assert run.journal.stat().st_size < 50_000
    assert run.events().count("traceback") == 3

    found = told(run)
    assert [(number, message) for number, message, _ in found[:102]] == [
        *((number, f"ValueError: item {number}") for number in range(100)),
        *[(100, "ValueError: elsewhere"), (101, "KeyError: another")],
    ]
    assert [text.rstrip().split("\n")[-1] for _, _, text in found] == [
        *["ValueError: item 0"] * 100,
        *["ValueError: elsewhere", "KeyError: another", ""],
    ]
    assert all(len(text) < 4200 for _, _, text in found)
    assert len(found[-1][1]) < 1100


def test_of_items_that_failed_alone_those_alike_stand_together_and_the_time_of_their_call_counts(run: Run) -> None:
    def lost(item: int, message: str = "no", seconds: float = 0.0) -> LostItems:
        failure = Failure(FailureKind.LOAD, message, traceback_of(1, "E"), 1, 1, item=item, items=9, seconds=seconds)
        return LostItems(1, 9, [item], failure.to_dict())

    with run.open() as output:
        output.append(1, record_of(1), rows_of(1), [lost(2), lost(4, "none"), lost(5)])
        output.append(1, b"", b"", [lost(7, seconds=60.0)])  # a call of its own has failed
    told = [each for entry in read_journal(run.journal) for each in entry.lost]
    assert [(each.at, each.failure["seconds"]) for each in told] == [([2, 5], 0.0), ([4], 0.0), ([7], 60.0)]
    assert run.events().count("traceback") == 1


def test_each_start_tells_its_tracebacks_itself_and_none_tells_more_than_a_thousand(run: Run) -> None:
    for start in range(2):
        with run.open() as output:
            output.event("start", start=start)
            for number in range(1001):
                output.failure("failed", mini_batch=number, attempt=1, message="m", traceback=traceback_of(number, "E"))
    texts = [text for _, _, text in told(run)]
    assert [bool(text) for text in texts] == [*[True] * 1000, False] * 2
    assert "line 5," in texts[5]
    assert "line 5," in texts[1006]


def test_what_looks_secret_in_a_failure_is_not_kept(run: Run) -> None:
    url = "https://a.blob.core.windows.net/c?sig=HIDE"
    with run.open() as output:
        output.failure("failed", mini_batch=1, attempt=1, message=f"{url} failed", traceback=f"{url} failed\n")
    assert b"HIDE" not in run.journal.read_bytes()
    assert "a.blob.core.windows.net" in told(run)[0][1]


# What somebody else has changed


def half_done(run: Run) -> None:
    with run.open() as output:
        append(output, 1)
        append(output, 2)
        append(output, 3)
        output.sync()


def changed_later(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, (time.time() + 60,) * 2)


ONE_TO_THREE = b"".join(map(rows_of, (1, 2, 3)))
FLIPPED = ONE_TO_THREE.replace(b"2/", b"7/")


@pytest.mark.parametrize(
    ("content", "held"),
    [(FLIPPED, 1), (bytes(len(ONE_TO_THREE)), 0), (rows_of(1), 1), (b"", 0), (ONE_TO_THREE[:-1], 2)],
)
def test_rows_that_somebody_has_changed_since_they_were_synced_are_done_again(
    run: Run, caplog: pytest.LogCaptureFixture, content: bytes, held: int
) -> None:
    half_done(run)
    changed_later(run.part, content)

    assert sorted(run.ledger().done) == [1, 2, 3][:held]
    assert f"from byte {end_of(held)} on: {3 - held} mini-batch" in caplog.text
    with run.open() as output:
        append(output, *[1, 2, 3][held:])
    assert run.part.read_bytes() == ONE_TO_THREE


def end_of(number: int) -> int:
    return sum(len(rows_of(each)) for each in range(1, number + 1))


def test_an_older_file_in_place_of_the_output_is_compared_with_the_journal(run: Run) -> None:
    half_done(run)
    run.part.write_bytes(FLIPPED)
    os.utime(run.part, (1e9, 1e9))

    assert sorted(run.ledger().done) == [1]


def test_a_file_that_was_only_touched_keeps_its_rows(run: Run) -> None:
    half_done(run)
    changed_later(run.part, run.part.read_bytes())

    assert sorted(run.ledger().done) == [1, 2, 3]


def test_a_start_that_has_compared_all_rows_spares_the_next_that(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    half_done(run)
    with run.open() as output:
        output.event("damaged", output=0)
    assert sorted(run.ledger().done) == [1, 2, 3]
    assert "are compared with the journal" in caplog.text
    with run.open() as output:
        output.event("start", time=0.0, start=2)
    caplog.clear()
    assert sorted(run.ledger().done) == [1, 2, 3]
    assert not caplog.text


def test_an_output_that_is_gone_is_refused_and_none_is_made(run: Run) -> None:
    half_done(run)
    run.part.unlink()
    for _ in range(2):
        with (
            pytest.raises(OutputError, match=r"rows\.txt\.part is gone, .* 3 mini-batches: .* --overwrite"),
            run.open(),
        ):
            pass
    assert not run.part.exists()


@pytest.mark.parametrize("in_input_order", [False, True])
def test_rows_that_have_changed_by_the_time_of_completion_are_done_again(run: Run, in_input_order: bool) -> None:
    """Whatever the times of the files say: a disk may forget without a word."""
    with run.open() as output:
        half_done(run)
    with run.open() as output:
        times = run.part.stat()
        run.part.write_bytes(FLIPPED)
        os.utime(run.part, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(JobStopped, match=rf"rows\.txt\.part and its journal .* from byte {end_of(1)} on: .* same"):
            run.complete(output, in_input_order=in_input_order)
        assert not run.final.exists()
        os.utime(run.part, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert sorted(run.ledger().done) == [1]
    with run.open() as output:
        append(output, 3, 2)
        run.complete(output, in_input_order=in_input_order)
    assert run.final.read_bytes() == (ONE_TO_THREE if in_input_order else b"".join(map(rows_of, (1, 3, 2))))


def test_what_somebody_adds_to_the_file_before_it_is_complete_is_cut_off(run: Run) -> None:
    half_done(run)
    with run.open() as output:
        with open(run.part, "ab") as file:
            file.write(b"not ours")
        run.complete(output, in_input_order=False)
    assert run.final.read_bytes() == ONE_TO_THREE


def test_a_journal_that_a_second_start_has_cut_completes_nothing(run: Run) -> None:
    """The lock was removed, or the filesystem has none."""
    with run.open() as output:
        append(output, 1)
        with run.open():
            pass
        append(output, 2)
        os.truncate(run.journal, run.journal.stat().st_size - 1)
        with pytest.raises(JobStopped, match=rf"from byte {end_of(1)} on"):
            run.complete(output, in_input_order=False)
    assert not run.final.exists()


MOVED = {
    "everything": ("was removed or moved while the run was at work: put the output folder back", "."),
    "the run directory": (
        "_run/journal was removed or moved .* The rows so far are in .*lost; the same command",
        "_run",
    ),
    "the journal": ("_run/journal was removed or moved .* The rows so far are in .*lost; the same", "_run/journal"),
    "the rows": (r"rows\.txt\.part was removed or moved .* put it back", "rows.txt.part"),
}


@pytest.mark.parametrize("in_the_background", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("what", MOVED)
def test_files_that_are_moved_away_are_missed_at_the_next_sync(
    tmp_path: Path, what: str, replaced: bool, in_the_background: bool
) -> None:
    said, name = MOVED[what]
    folder = tmp_path / "out"
    folder.mkdir()
    run = Run(folder)
    with run.open() as output:
        append(output, 1)
        os.rename(folder / name, tmp_path / "moved")
        if replaced:
            (folder / "_run").mkdir(parents=True, exist_ok=True)
            for path in (run.part, run.journal):
                path.touch()
        with pytest.raises(JobStopped, match=said):
            if in_the_background:
                wait_for_sync(output)
            else:
                run.complete(output, in_input_order=False)
        assert not run.final.exists()
    lost = list(folder.glob("*.lost"))
    assert [path.read_bytes() for path in lost] == ([rows_of(1)] if "lost" in said else [])


def wait_for_sync(output: AppendRow) -> None:
    now = time.monotonic() + SYNC_SECONDS + 1
    while True:
        output.sync_if_due(now)
        time.sleep(0.001)


def test_a_completion_that_shall_not_verify_takes_the_rows_as_they_are(run: Run) -> None:
    half_done(run)
    with run.open() as output:
        run.part.write_bytes(FLIPPED)
        output.complete(run.final, run.kept, in_input_order=False, keep=False, verify=False)
    assert run.final.read_bytes() == FLIPPED


def test_rows_of_many_mebibytes_are_verified_piece_by_piece(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_PIECE", 7)
    monkeypatch.setattr(verification, "_GROUP_FRAMES", 2)
    with run.open() as output:
        for number in range(MINI_BATCHES):
            append(output, number)
        content = run.part.read_bytes()
        for place in range(0, len(content), 11):
            run.part.write_bytes(content[:place] + b"~" + content[place + 1 :])
            damaged = first_damaged(read_journal(run.journal), output._descriptor)
            assert damaged is not None
            assert damaged.results is not None
            assert damaged.results.offset <= place < damaged.results.offset + damaged.results.length
        run.part.write_bytes(content)
        assert first_damaged(read_journal(run.journal), output._descriptor) is None


# Group commit


def test_nothing_is_synced_before_it_is_due(run: Run) -> None:
    with run.open() as output, mock.patch.object(os, "fdatasync") as fdatasync:
        output.sync_if_due(time.monotonic() + 10 * SYNC_SECONDS)  # nothing is written yet
        append(output, 1)
        output.sync_if_due(time.monotonic())
        assert not fdatasync.called


@pytest.mark.parametrize("due_by", ["time", "bytes"])
def test_when_it_is_due_the_output_is_synced_before_the_journal(
    run: Run, due_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    with run.open() as output:
        monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name))
        before = run.events().count("synced")
        append(output, 1)
        now = time.monotonic() + (2 * SYNC_SECONDS if due_by == "time" else 0)
        if due_by == "bytes":
            monkeypatch.setattr("mpi_prs.output.append_row.SYNC_BYTES", 10)
        wait_for(lambda: output.sync_if_due(now) or run.events().count("synced") > before)
        output.sync_if_due(now)
        assert synced == ["rows.txt.part", "journal"]

    assert SYNC_BYTES > 1 << 20


def test_a_disk_that_fails_at_a_sync_in_the_background_stops_the_job(run: Run) -> None:
    failing = mock.patch.object(os, "fdatasync", side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
    with run.open() as output, failing, pytest.raises(JobStopped, match="the filesystem reports an input/output error"):
        append(output, 1)
        wait_for(lambda: output.sync_if_due(time.monotonic() + 2 * SYNC_SECONDS))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


# A full disk


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """So many bytes can be written to files, then the disk is full."""
    write, left = os.write, size

    def limited(descriptor: int, data: bytes | memoryview) -> int:
        nonlocal left
        if len(data) and not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, memoryview(data)[:left])
        left -= written
        return written

    with mock.patch.object(os, "write", limited):
        yield


def work_on_all(run: Run, in_input_order: bool) -> None:
    take_up(run.part, run.final, run.kept)
    with run.open() as output:
        done = run.ledger().done
        for number in reversed(range(MINI_BATCHES)):
            if number in done:
                continue
            if number % 3 == 0:
                append_file(output, number, run.journal.parent)
            else:
                append(output, number)
        run.complete(output, in_input_order=in_input_order)


@settings(max_examples=100)
@given(room=st.integers(0, 8000), in_input_order=st.booleans())
def test_a_disk_that_is_full_at_any_byte_stops_the_job_and_then_it_goes_on(
    new_run: Callable[[], Run], room: int, in_input_order: bool
) -> None:
    run = new_run()
    lines = sorted(b"".join(map(rows_of, range(MINI_BATCHES))).splitlines())
    try:
        with room_for(room):
            work_on_all(run, in_input_order)
    except JobStopped as stop:
        assert re.fullmatch(
            rf"cannot write to {run.part.parent}: the disk is full \(No space left on device; [\d,]+ bytes and [\d,]+ "
            r"files are free.*\)\. All mini-batches on record are safe; make room and give the same command again to "
            "go on",
            str(stop),
        )
        assert not run.final.exists() or sorted(run.final.read_bytes().splitlines()) == lines
        assert not list(run.part.parent.glob("*.finishing")), "it takes room"
        work_on_all(run, in_input_order)
    else:
        assert room > 4000

    assert sorted(run.final.read_bytes().splitlines()) == lines


def test_the_limit_of_a_file_s_size_is_said_to_be_that(tmp_path: Path) -> None:
    code = f"""
import resource, pathlib
from mpi_prs.core.errors import JobStopped
from mpi_prs.output.append_row import AppendRow, Ledger
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
output = AppendRow(pathlib.Path({str(tmp_path / "rows.part")!r}), pathlib.Path({str(tmp_path / "journal")!r}), Ledger())
try:
    for _ in range(1000):
        output.append(1, b"", b"x" * 90)
except JobStopped as stop:
    print(stop.exit_code, stop)
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert shown.stdout.startswith("75 cannot write to ")
    assert "the file has reached the size limit (ulimit -f, or the filesystem's) (File too large)" in shown.stdout


def test_another_error_of_the_system_is_not_taken_for_a_full_disk(run: Run) -> None:
    failing = mock.patch.object(os, "write", side_effect=OSError(errno.ESTALE, "bad"))
    with run.open() as output, failing, pytest.raises(JobStopped, match=r"refuses it .*see to it and give the same"):
        append(output, 1)


# Rows in a file of their own that is not what it should be


@pytest.mark.parametrize("content", [None, b"too short", rows_of(2) + b"too long"])
def test_rows_that_got_lost_on_the_way_stop_the_job_and_are_made_again(
    run: Run, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "spilled").write_bytes(content)
    with run.open() as output:
        append(output, 1)
        with pytest.raises(JobStopped, match=r"mini-batch 2 .*spilled.* the same command") as stop:
            output.append_file(1, record_of(2), tmp_path / "spilled")
        assert stop.value.exit_code == 75

    assert sorted(run.ledger().done) == [1]
    with run.open() as output:
        append(output, 2)
        run.complete(output, in_input_order=False)
    assert run.final.read_bytes() == rows_of(1) + rows_of(2)

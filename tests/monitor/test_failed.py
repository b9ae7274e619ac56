"""What failed: the list for machines and the report for people, from the journal and the manifest alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.core.errors import OutputError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.inputs.manifest import PLAIN, Manifest, Plan, PlannedMiniBatch, write_manifest
from mpi_prs.monitor.failed import failed_report, generalised
from mpi_prs.monitor.report import write_reports
from mpi_prs.monitor.status import write_status
from mpi_prs.output.journal import LostItems
from mpi_prs.wire.failure import Failure, FailureKind
from mpi_prs.wire.parts import part_of_one
from tests.monitor.test_columns import Writer, record
from tests.monitor.test_status import a_status


class Run:
    """A run directory with a manifest of ten mini-batches of three files, and a journal to write."""

    def __init__(self, folder: Path, paths: Sequence[bytes]) -> None:
        self.directory = RunDirectory(folder)
        self.directory.root.mkdir()
        chunks = [paths[at : at + 3] for at in range(0, len(paths), 3)]
        mini_batches = (PlannedMiniBatch(0, len(chunk), b"\0".join(chunk)) for chunk in chunks)
        write_manifest(self.directory.manifest, Plan(PLAIN, mini_batches, [{"kind": "files", "staged": False}]))
        self.manifest = Manifest.open(self.directory.manifest)
        self.journal = Writer(self.directory.journal)
        self.journal.start({1: "n1"})

    def failed_items(self) -> tuple[int, list[dict[str, Any]]]:
        _, failed = write_reports(self.directory, self.manifest)
        text = self.directory.failed_items.read_bytes().decode("ascii")
        return failed, [json.loads(line) for line in text.splitlines()]

    def report(self) -> str:
        return failed_report(self.directory)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, [b"/in/%02d.png" % number for number in range(30)])


# The list


def test_every_item_of_a_failed_mini_batch_is_listed_with_the_reason(run: Run) -> None:
    run.journal.fail(1, final=False)
    run.journal.fail(1, message="ValueError: bad", attempt=2, log="/logs/error.txt")
    failed, lines = run.failed_items()
    assert failed == 3
    assert [line.pop("item") for line in lines] == ["/in/03.png", "/in/04.png", "/in/05.png"]
    expected = {
        "mini_batch": 1,
        "reason": "exception",
        "message": "ValueError: bad",
        "attempts": 2,
        "node": "n1",
        "process": 2,
        "log": "/logs/error.txt",
    }
    assert lines == [expected] * 3


def test_a_mini_batch_that_returned_too_few_is_listed_as_one(run: Run) -> None:
    run.journal.finish(1, record(0, items=3), record(2, items=3, returned=1), record(3, items=3, returned=5))
    failed, lines = run.failed_items()
    assert failed == 2
    assert lines == [
        {
            "mini_batch": 2,
            "items": ["/in/06.png", "/in/07.png", "/in/08.png"],
            "missing": 2,
            "reason": "short",
            "message": "run() returned 1 of 3; which ones are missing is not known",
        }
    ]


def lost(number: int, *at: int, **failure: Any) -> LostItems:
    told = Failure(FailureKind.LOAD, "OSError: no", "File x", number, 2, 1, "n1", log="/logs/error.txt", **failure)
    return LostItems(number, 3, list(at), told.to_dict())


def test_an_item_that_failed_for_itself_is_listed_alone(run: Run) -> None:
    run.journal.finish(1, record(0, items=3), record(2, items=1), lost=[lost(2, 0, 2)])
    failed, lines = run.failed_items()
    assert failed == 2
    assert [line.pop("item") for line in lines] == ["/in/06.png", "/in/08.png"]
    expected = {
        **{"mini_batch": 2, "reason": "load", "message": "OSError: no", "attempts": 2, "node": "n1", "process": 1},
        **{"log": "/logs/error.txt", "traceback": "File x"},
    }
    assert lines == [expected] * 2
    report = run.report()
    assert "2 items of 1 mini-batch failed, for 1 reason." in report
    assert "mini-batch 2: /in/06.png and 1 more" in report
    assert "--only-failed" in report
    statistics, _ = write_reports(run.directory, run.manifest)
    assert (statistics.done, statistics.total.items, statistics.items_failed, statistics.items_alone) == (2, 4, 2, 2)
    run.journal.reopen()
    run.journal.start({1: "n1"})
    run.journal.finish(1, record(part_of_one(2, 0, 3), items=1))
    run.journal.finish(1, lost=[lost(part_of_one(2, 2, 3), 2)])
    failed, lines = run.failed_items()
    assert (failed, [line["item"] for line in lines]) == (1, ["/in/08.png"])
    statistics, _ = write_reports(run.directory, run.manifest)
    assert (statistics.done, statistics.items_failed, statistics.parts) == (2, 1, 2)
    part = part_of_one(2, 2, 3)
    run.journal.reopen()
    run.journal.finish(1, record(part, items=0), lost=[lost(part, 2)])  # one call, which did not fail
    statistics, _ = write_reports(run.directory, run.manifest)
    assert (statistics.done, statistics.items_failed, statistics.parts) == (2, 1, 3)
    assert statistics.failures == {"load": 1}


def test_what_was_reopened_has_not_failed(run: Run) -> None:
    run.journal.fail(0)
    run.journal.reopen()
    run.journal.fail(1)
    run.journal.reopen()
    run.journal.start({1: "n1"})
    run.journal.finish(1, record(0, items=3))
    run.journal.fail(2)
    failed, lines = run.failed_items()
    assert (failed, {line["mini_batch"] for line in lines}) == (3, {2})


def test_nothing_failed_is_an_empty_list_and_replaces_an_older_one(run: Run) -> None:
    run.directory.failed_items.write_text("old")
    assert run.failed_items() == (0, [])
    assert list(run.directory.root.glob("*.new")) == []


def test_paths_of_any_bytes_come_back(tmp_path: Path) -> None:
    odd = [b"/in/caf\xe9.png", b"/in/two\nlines.png", "/in/ü.png".encode()]
    run = Run(tmp_path, odd)
    run.journal.fail(0)
    _, lines = run.failed_items()
    assert [os.fsencode(line["item"]) for line in lines] == odd
    assert "caf\\xe9.png" in run.report()
    run.report().encode()


# The report


def test_nothing_failed_is_said(run: Run) -> None:
    assert run.report() == "No mini-batch has failed."


def test_a_run_that_has_not_begun_has_not_failed(tmp_path: Path) -> None:
    assert failed_report(RunDirectory(tmp_path)) == "No mini-batch has failed."


def test_failures_are_grouped_by_reason_without_what_varies(run: Run) -> None:
    for number in (1, 2, 3, 4, 5):
        run.journal.fail(
            number,
            message=f"OSError: cannot read '/in/{number}.png' at byte {number * 17}",
            traceback=f'Traceback\n  File "x.py", line {number}\nOSError\n',
            log=f"/logs/process{number % 2}.txt",
        )
    run.journal.fail(6, kind=FailureKind.TIMEOUT, message="run() took longer than 60 s", log="/logs/slow.txt")
    run.journal.finish(1, record(7, items=3, returned=1))
    text = run.report()
    assert text.split("\n") == [
        "20 items of 7 mini-batches failed, for 3 reasons.",
        "",
        "exception: OSError: cannot read '…' at byte #",
        "  15 items of 5 mini-batches",
        "  an example:",
        "    Traceback",
        '      File "x.py", line 1',
        "    OSError",
        "  mini-batch 1: /in/03.png and 2 more",
        "  mini-batch 2: /in/06.png and 2 more",
        "  mini-batch 3: /in/09.png and 2 more",
        "  log: /logs/process1.txt",
        "  log: /logs/process0.txt",
        "",
        "timeout: run() took longer than 60 s",
        "  3 items of 1 mini-batch",
        "  mini-batch 6: /in/18.png and 2 more",
        "  log: /logs/slow.txt",
        "",
        "short: run() returned 1 of 3; which ones are missing is not known",
        "  2 items of 1 mini-batch",
        "  mini-batch 7: /in/21.png and 2 more",
        "",
        f"Every failed item, once the run has ended: {run.directory.failed_items}",
        "To try the failed mini-batches again: mpi-prs run CONFIG --only-failed",
        "A mini-batch that returned too few is not tried again: the rows it returned are in the output.",
    ]


def test_what_only_returned_too_few_cannot_be_tried_again(run: Run) -> None:
    run.journal.finish(1, record(7, items=3, returned=1))
    assert "--only-failed" not in run.report()


def test_a_report_of_ever_new_reasons_stays_short(tmp_path: Path) -> None:
    run = Run(tmp_path, [b"/in/%05d" % number for number in range(900)])
    for number in range(300):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        run.journal.fail(number, message=f"KeyError: {letters}", traceback="Traceback")
    text = run.report()
    assert text.startswith("900 items of 300 mini-batches failed, for 201 reasons.")
    assert "other reasons\n  300 items of 100 mini-batches" in text
    assert "… and 189 other reasons" in text
    assert len(text.splitlines()) < 100


def test_a_run_that_ended_before_any_mini_batch_says_why(run: Run) -> None:
    status = a_status(phase="aborted", reason="init() failed in all 7 user processes", exit_code=1)
    write_status(run.directory.status, status)
    assert run.report().split("\n") == [
        "The run has ended: failed: init() failed in all 7 user processes",
        "No mini-batch has failed.",
    ]


def test_a_journal_without_its_manifest_is_an_error(run: Run) -> None:
    run.directory.manifest.unlink()
    with pytest.raises(OutputError, match=r"manifest\.arrow is missing"):
        run.report()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ValueError: bad value 12 at 0x7f3c", "ValueError: bad value # at #"),
        ("cannot read /data/a b.png", "cannot read … b.png"),
        ("cannot open s3://bucket/a/b.png: 404", "cannot open …: #"),
        ("KeyError: 'user-17'", "KeyError: '…'"),
        ('no column "age" in it', "no column '…' in it"),
        ("can't read the user's file 3.5", "can't read the user's file #"),
        ("killed by signal SIGSEGV", "killed by signal SIGSEGV"),
    ],
)
def test_what_varies_in_a_message_is_left_out(message: str, expected: str) -> None:
    assert generalised(message) == expected


def test_a_journal_with_a_mini_batch_that_the_run_does_not_have_is_refused(run: Run) -> None:
    run.journal.fail(10**9, message="ValueError: bad", attempt=2)
    with pytest.raises(OutputError, match="names a mini-batch that the run does not have"):
        run.report()

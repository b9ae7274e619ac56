"""Progress: what is said when, on a terminal and elsewhere, with a clock of the test's own."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpi_prs.core.rate import Rate
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.engine.scheduler.events import DrainAsked, InitFailed, ProcessReady, WorkerJoined
from mpi_prs.engine.scheduler.scheduler import Scheduler
from mpi_prs.engine.scheduler.states import Counts, Policy
from mpi_prs.monitor.bar import Bar
from mpi_prs.monitor.progress import Progress, bar_text, progress_line
from mpi_prs.wire.record import RECORD
from tests.monitor.test_columns import record
from tests.monitor.test_status import a_status
from tests.support.scheduling import ask

T0 = 1_700_000_000.0
SIZE = 400


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Scene:
    """A job of 400 mini-batches on one worker with two processes, its progress, and its clock."""

    directory: RunDirectory
    stream: io.StringIO = field(default_factory=io.StringIO)
    now: float = 1000.0
    held: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.root.mkdir()
        self.progress = Progress(self.stream, clock=lambda: self.now, wall=lambda: T0 + self.now - 1000)
        self.scheduler = Scheduler(SIZE, lambda _: 10, Policy(), self.now)
        self.scheduler.handle(WorkerJoined(1, 2, "n1"), self.now)
        self.tally = SimpleNamespace(ready_processes=0, init_failures=[])

    @property
    def counts(self) -> Counts:
        return self.scheduler.counts()

    def begin(self) -> None:
        self.progress.begin(self.directory, SIZE, 10 * SIZE, lambda: 5000)

    def ready(self) -> None:
        for process in range(2):
            self.scheduler.handle(ProcessReady(1, process), self.now)
            self.tally.ready_processes += 1

    def tick(self, seconds: float = 0.0) -> None:
        self.now = round(self.now + seconds, 3)
        self.progress.on_tick(self)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> None:
        """Ten ticks a second, as the master gives them."""
        for _ in range(round(seconds * 10)):
            self.tick(0.1)

    def finish(self, mini_batches: int, returned: int = 10) -> None:
        while mini_batches:
            for first, count, attempt in ask(self.scheduler, 1):
                self.held.update(dict.fromkeys(range(first, first + count), attempt))
            number, attempt = self.held.popitem()
            one = record(number, attempt=attempt, run=0.01, returned=returned)
            self.scheduler.finished(1, RECORD.pack(*one), self.now)
            mini_batches -= 1

    def said(self) -> list[str]:
        """The lines so far, without their times."""
        return [line.split("  ", 1)[1] for line in self.stream.getvalue().splitlines()]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.directory.status.read_text())
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(RunDirectory(tmp_path))


# Lines


def test_while_nothing_is_ready_the_lines_say_what_is_waited_for_at_growing_intervals(scene: Scene) -> None:
    scene.begin()
    scene.wait(70)
    assert scene.said() == ["0 of 400 mini-batches (0 %)  waiting for init() of 2 processes"] * 5  # 1, 3, 8, 18, 48 s
    scene.tally.init_failures.append("boom")
    scene.wait(40)
    assert scene.said()[5:] == ["0 of 400 mini-batches (0 %)  waiting for init() of 2 processes (failed 1 time so far)"]


def test_ready_processes_are_waited_for_to_give_results(scene: Scene) -> None:
    scene.begin()
    scene.ready()
    scene.wait(1.5)
    assert scene.said() == ["0 of 400 mini-batches (0 %)  waiting for the first results"]


def test_the_first_result_is_told_at_once(scene: Scene) -> None:
    scene.begin()
    scene.ready()
    scene.wait(0.4)
    assert scene.said() == []
    scene.finish(1)
    scene.tick(0.01)
    assert scene.said() == ["1 of 400 mini-batches (0 %)  10 items  32 items/s  about 2 min 4 s left"]


def test_lines_come_more_and_more_seldom(scene: Scene) -> None:
    scene.begin()
    scene.ready()
    scene.tick()
    scene.finish(1)
    told = []
    for _ in range(3000):
        before = len(scene.said())
        scene.tick(0.1)
        if len(scene.said()) > before:
            told.append(scene.now - 1000)
    assert told == pytest.approx([0.1, 1.1, 3.1, 8.1, 18.1, 48.1, 108.1, 168.1, 228.1, 288.1], abs=2)


def test_every_line_starts_with_the_time_and_goes_to_the_overview_with_its_date(scene: Scene) -> None:
    scene.begin()
    scene.wait(1.5)
    wall = time.localtime(T0 + 1)
    line = "0 of 400 mini-batches (0 %)  waiting for init() of 2 processes\n"
    assert scene.stream.getvalue() == time.strftime("%H:%M:%S  ", wall) + line
    assert scene.directory.progress_overview.read_text() == time.strftime("%Y-%m-%d %H:%M:%S  ", wall) + line


def test_what_earlier_starts_have_done_counts_but_does_not_inflate_the_rate(scene: Scene) -> None:
    for number in range(200):
        scene.scheduler.restore_done([number], 10, 1)
    scene.begin()
    scene.wait(5)
    assert scene.said()[-1] == (
        "200 of 400 mini-batches (50 %)  1 800 items  200 failed items  waiting for init() of 2 processes"
    )
    scene.ready()
    for _ in range(100):
        scene.tick(0.1)
        scene.finish(1)
    scene.wait(1)
    scene.progress.finish(scene, "drained", "", 75)  # type: ignore[arg-type]
    assert scene.status()["items_per_second"] == pytest.approx(100, rel=0.15)


def test_a_draining_job_says_what_may_still_finish(scene: Scene) -> None:
    scene.begin()
    scene.ready()
    scene.tick()
    scene.finish(3)
    scene.scheduler.handle(DrainAsked("stopped by a signal"), scene.now)
    scene.tick(0.1)
    assert scene.said()[-1].endswith(f"stopping: {scene.scheduler.held} mini-batches may still finish")


def test_the_last_line_and_the_last_status_say_how_it_ended(scene: Scene) -> None:
    scene.begin()
    scene.ready()
    scene.tick(0.1)
    scene.finish(400)
    scene.now += 0.1
    scene.progress.finish(scene, "complete", "", 0)  # type: ignore[arg-type]
    scene.progress.close()
    assert scene.said() == ["400 of 400 mini-batches (100 %)  4 000 items  complete"]
    status = scene.status()
    assert (status["phase"], status["exit_code"], status["eta_seconds"]) == ("complete", 0, None)
    assert (status["items_done"], status["output_bytes"], status["nodes"]) == (4000, 5000, 1)


def test_a_limit_is_what_the_percentage_is_of(scene: Scene) -> None:
    scene.scheduler = Scheduler(SIZE, lambda _: 10, Policy(limit=50), scene.now)
    scene.scheduler.handle(WorkerJoined(1, 1, "n1"), scene.now)
    scene.begin()
    scene.scheduler.handle(ProcessReady(1, 0), scene.now)
    scene.tick()
    scene.finish(25)
    scene.tick(2)
    assert scene.said()[-1].startswith("25 of 50 mini-batches (50 %)")


def test_a_benched_node_is_told_at_once_and_once(scene: Scene) -> None:
    scene.begin()
    scene.ready()
    scene.scheduler.handle(WorkerJoined(2, 1, "n2"), scene.now)
    for _ in range(3):
        scene.scheduler.handle(InitFailed(2, 0), scene.now)
    scene.wait(0.5)
    scene.wait(3)
    said = [line for line in scene.said() if line.startswith("node n2 is benched")]
    assert said == [
        "node n2 is benched, it gets no more work: init() has failed in all its user processes again and again"
    ]
    assert scene.said()[-1].endswith("1 benched node  waiting for the first results")
    scene.tick(2)
    assert scene.status()["benched_nodes"] == ["n2"]


def test_listing_is_told_at_growing_intervals(scene: Scene) -> None:
    for number in range(1, 40):
        scene.now = round(scene.now + 0.1, 1)
        scene.progress.listing(number * 10_000)
    assert scene.said() == ["listing the inputs: 100 000 items", "listing the inputs: 300 000 items"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {},
            "412 of 4 000 mini-batches (10 %)  4 110 items  812 items/s  10 failed items  2 retried  "
            "about 1 min 12 s left",
        ),
        ({"items_failed": 0, "retried": 0, "items_per_second": None, "eta_seconds": None}, "(10 %)  4 110 items"),
        (
            {"phase": "aborted", "reason": "too many", "exit_code": 1, "eta_seconds": None},
            "2 retried  failed: too many",
        ),
        ({"eta_seconds": 0.01}, "about 1 s left"),
    ],
)
def test_a_line_tells_what_there_is_to_tell(changes: dict[str, Any], line: str) -> None:
    assert progress_line(a_status(**changes)).endswith(line)


def test_the_text_of_the_bar_begins_with_what_matters_most() -> None:
    assert bar_text(a_status(retried=0)) == (
        "10 %  about 1 min 12 s left  4 110 items  812 items/s  10 failed items  412 of 4 000 mini-batches  "
        "7 of 8 processes ready"
    )


# status.json


def test_the_status_is_there_from_the_beginning_and_is_renewed_every_two_seconds(scene: Scene) -> None:
    scene.begin()
    assert (scene.status()["phase"], scene.status()["items"]) == ("starting", 4000)
    seen = set()
    for _ in range(50):
        scene.tick(0.1)
        seen.add(scene.status()["elapsed_seconds"])
    assert sorted(seen) == pytest.approx([0, 2, 4], abs=0.3)


def test_a_job_that_ends_by_an_error_is_not_left_as_running(scene: Scene) -> None:
    scene.begin()
    scene.tick(1)
    scene.progress.close()
    assert (scene.status()["phase"], scene.status()["exit_code"]) == ("stopped", None)
    assert scene.status()["reason"] == "it has ended early: the log says why"


def test_a_run_directory_that_was_removed_is_not_made_anew(scene: Scene) -> None:
    scene.begin()
    shutil.rmtree(scene.directory.root)
    scene.wait(10)
    scene.progress.close()
    assert not scene.directory.root.exists()
    assert scene.said(), "the person who watches is told all the same"


def test_close_without_begin_writes_nothing(scene: Scene) -> None:
    scene.progress.close()
    assert list(scene.directory.root.iterdir()) == []


# Nothing of this may end a job


def test_a_full_disk_is_logged_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.directory.root.rmdir()
    scene.directory.root.write_text("not a folder")
    with caplog.at_level(logging.WARNING, "mpi_prs"):
        scene.begin()
        scene.wait(10)
    assert len(caplog.records) == 1
    assert scene.said()


class Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    scene = Scene(RunDirectory(tmp_path), Gone())
    scene.begin()
    scene.wait(4)
    scene.progress.print("anybody there?")
    assert len(scene.directory.progress_overview.read_text().splitlines()) == 2


def test_what_is_printed_cannot_disturb_the_terminal(scene: Scene) -> None:
    scene.progress.print("red \x1b[31m, byte \udce9,\n  second line")
    assert scene.stream.getvalue() == "red \\x1b[31m, byte \\xe9,\n  second line\n"


# The bar


def test_a_terminal_gets_a_bar_and_the_overview_gets_the_lines(tmp_path: Path) -> None:
    scene = Scene(RunDirectory(tmp_path), Terminal())
    scene.progress.listing(10_000)
    scene.begin()
    scene.wait(2)
    scene.ready()
    scene.finish(40)
    scene.wait(1)
    scene.progress.print("a [warning] above the bar")
    scene.scheduler.handle(DrainAsked(""), scene.now)
    scene.progress.finish(scene, "drained", "stopped [by] a signal", 75)  # type: ignore[arg-type]
    scene.progress.close()
    shown = scene.stream.getvalue()
    for text in ("listing the inputs: 10 000 items", "waiting for init() of 2", "10 %  400 items", "a [warning] above"):
        assert text in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again
    overview = scene.directory.progress_overview.read_text().splitlines()
    assert overview[-1].endswith("stopped early: stopped [by] a signal")


def test_a_long_text_is_cut_off_before_it_squeezes_out_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()
    bar = Bar(terminal)
    bar.update(30, 60, "50 %  " + 100 * "x")
    bar.close()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).split("\r")[-1].rstrip("\n")
    assert re.fullmatch(r"[━╸╺]{20} 50 %  x+…", last)
    assert len(last) < 60


def test_a_dumb_terminal_gets_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    scene = Scene(RunDirectory(tmp_path), Terminal())
    scene.begin()
    scene.wait(1.5)
    assert "\x1b" not in scene.stream.getvalue()
    assert scene.said()


# The rate


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    rate = Rate()
    rate.restart(0, 1000, 10_000)
    for second in range(1, 101):
        rate.add(second, 1000 + 10 * second, 10_000 + 100 * second)
    for second in range(101, 141):
        rate.add(second, 2000 + 100 * (second - 100), 20_000 + 500 * (second - 100))
    found = rate.at(140)
    assert found is not None
    assert found == pytest.approx((100, 500), rel=0.05)


def test_slow_mini_batches_have_a_longer_window() -> None:
    rate = Rate()
    rate.restart(0, 0, 0)
    for minute in range(1, 61):
        rate.add(60 * minute, minute, 10 * minute)
    assert rate.at(3600) == pytest.approx((1 / 60, 10 / 60))


def test_a_rate_falls_while_nothing_is_finished() -> None:
    rate = Rate()
    rate.restart(0, 0, 0)
    assert rate.at(5) is None
    rate.add(10, 10, 100)
    assert rate.at(10) == (1, 10)
    rate.add(100, 10, 100)
    assert rate.at(100) == (0.1, 1)

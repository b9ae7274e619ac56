"""Opening a run: what is begun, gone on with, refused or thrown away, and that a crash on the way spoils nothing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from mpi_prs.child.rows.columns import ColumnOrder
from mpi_prs.core.errors import InputError, JobStopped, OutputError
from mpi_prs.job.config.model import JobConfig, load_config
from mpi_prs.job.run.opening import OpenRun, RunOptions, is_complete_already, open_run
from mpi_prs.output.append_row import AppendRow
from mpi_prs.output.journal import Journal, LostItems, read_journal
from mpi_prs.wire.failure import Failure, FailureKind
from mpi_prs.wire.record import RECORD
from tests.support.jobs import need

FILES = 7
SIZE = 2
LAST = 3  # the last mini-batch, with one file
NOBODY = 65534


class Job:
    """A job config on the disk, in a folder with its input files, its script and its output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.final = self.output / "rows.txt"
        self.part = self.output / "rows.txt.part"
        self.root = self.output / "_run"
        (folder / "data").mkdir()
        for number in range(FILES):
            (folder / "data" / f"{number}.txt").touch()
        (folder / "score.py").write_text("def run(mini_batch):\n    return mini_batch\n")

    def config(self, *overrides: str) -> JobConfig:
        path = self.folder / "job.yaml"
        path.write_bytes(
            b"name: job\nentry_script: score.py\ninputs: [data]\noutput: out\nappend_row_file_name: rows.txt\n"
            b"mini_batch_size: %d\nerror_threshold: -1\n" % SIZE
        )
        return load_config(path, overrides)

    @contextlib.contextmanager
    def open(self, *overrides: str, **options: bool) -> Iterator[OpenRun]:
        run = open_run(self.config(*overrides), RunOptions(**options))
        try:
            yield run
        finally:
            run.close()

    def is_complete(self, *overrides: str) -> bool:
        with self.open(*overrides) as run:
            return run.output is None

    def refusal(self, *overrides: str, **options: bool) -> str:
        with pytest.raises(OutputError) as caught, self.open(*overrides, **options):
            pass
        return str(caught.value)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def rows_of(number: int) -> bytes:
    return b"%d\n" % number * 3


def append(output: AppendRow, *numbers: int) -> None:
    records = b"".join(RECORD.pack(number, SIZE, SIZE, 1, 0, len(rows_of(number)), 0.0, 0.0, 0.0) for number in numbers)
    output.append(1, records, b"".join(map(rows_of, numbers)))


def fail(output: AppendRow, number: int) -> None:
    output.event("failed", mini_batch=number, attempt=3)


def finish(run: OpenRun, failing: tuple[int, ...] = (), in_input_order: bool = False) -> None:
    """Work on all that is left, the last mini-batch first, and complete the run."""
    assert run.output is not None
    left = {*range(run.manifest.mini_batches)} - {*run.ledger.done} - run.ledger.failed
    for number in sorted(left, reverse=True):
        fail(run.output, number) if number in failing else append(run.output, number)
    final = run.directory.output_file("rows.txt")
    keep = bool(failing) or bool(run.ledger.failed)
    run.output.complete(final, run.directory.kept_rows, in_input_order=in_input_order, keep=keep)


ALL_IN_ORDER = b"".join(map(rows_of, range(LAST + 1)))


def sorted_lines(content: bytes) -> list[bytes]:
    return sorted(content.splitlines())


# Files of two runs


@pytest.fixture
def other_files(job: Job) -> Path:
    """The run directory of an earlier run of the same job; the run that is there now is another."""
    with job.open() as run:
        assert run.output is not None
        append(run.output, 2, 0)
    shutil.move(job.root, job.folder / "other")
    job.part.unlink()
    with job.open() as run:
        assert run.output is not None
        append(run.output, 0, 2)
    return job.folder / "other"


@pytest.mark.parametrize("name", ["journal", "manifest.arrow", "run.json"])
def test_files_of_another_run_are_refused(job: Job, other_files: Path, name: str) -> None:
    shutil.copy(other_files / name, job.root / name)

    text = job.refusal()
    assert "of another run" in text
    assert "--overwrite" in text
    if name != "manifest.arrow":
        config = job.config()
        with pytest.raises(OutputError, match="another run"):
            is_complete_already(config, RunOptions())


COLUMNS = {
    "of another run": (lambda text: text.replace(b'"run": "', b'"run": "x'), "damaged, or of another run"),
    "in another order": (lambda text: text.replace(b'"a", "b"', b'"b", "a"'), "damaged, or of another run"),
    "cut off": (lambda text: text[:-5], "damaged, or of another run"),
    "no object": (lambda _: b"[]", "damaged, or of another run"),
    "gone": (None, "is gone, and with it the order of the columns"),
}


@pytest.mark.parametrize("how", COLUMNS)
def test_columns_in_an_order_that_is_not_that_of_the_rows_before_are_refused(job: Job, how: str) -> None:
    change, words = COLUMNS[how]
    with job.open() as run:
        assert run.output is not None
        form = {"form": "text", "header": True, "index": False}
        ColumnOrder(str(run.directory.columns), run.id, form, print).arranged(
            pd.DataFrame([[1, 2]], columns=["a", "b"])
        )
        run.output.append_header(b"a b\n")
        append(run.output, 1)
    written = run.directory.columns.read_bytes()
    if change is None:
        run.directory.columns.unlink()
    else:
        run.directory.columns.write_bytes(change(written))
    text = job.refusal()
    assert text.startswith(str(run.directory.columns))
    assert words in text
    assert "--overwrite" in text
    run.directory.columns.write_bytes(written)
    assert not job.is_complete()


def test_lists_of_rows_behind_items_that_failed_alone_need_no_columns(job: Job) -> None:
    """The frame of such items has no records, as that of a header has none."""
    failure = Failure(FailureKind.EXCEPTION, "no", mini_batch=0, attempt=1, process=0).to_dict()
    with job.open() as run:
        assert run.output is not None
        run.output.append(1, b"", b"", [LostItems(0, SIZE, [0], failure)])
        append(run.output, 1)
    with job.open() as run:
        assert run.ledger.done == {1}


def test_a_manifest_with_a_flipped_bit_is_refused(job: Job) -> None:
    with job.open():
        pass
    path = job.root / "manifest.arrow"
    content = path.read_bytes()
    place = content.index(b"/0.txt")
    path.write_bytes(content[:place] + b"/8" + content[place + 2 :])

    assert job.refusal() == (
        f"the manifest {path} is not the one that the run was begun with: put that back, or start the run anew with "
        "--overwrite"
    )


def test_a_run_from_before_runs_had_ids_goes_on(job: Job) -> None:
    with mock.patch.object(uuid.UUID, "hex", ""), job.open() as run:
        assert run.output is not None
        append(run.output, 2, 0)
    assert (job.root / "journal").read_bytes().startswith(b"mpi_prs journal 1\n")
    description = json.loads((job.root / "run.json").read_text())
    del description["id"], description["manifest_sha256"]
    (job.root / "run.json").write_text(json.dumps(description))

    with job.open() as run:
        assert {*run.ledger.done} == {0, 2}
        finish(run)
    assert sorted_lines(job.final.read_bytes()) == sorted_lines(ALL_IN_ORDER)


# New, resumed, complete


def test_a_new_run_lists_its_inputs_and_has_nothing_done(job: Job) -> None:
    listed: list[int] = []
    run = open_run(job.config(), RunOptions(), listed.append)
    try:
        assert (run.manifest.mini_batches, run.manifest.items) == (4, FILES)
        assert listed[-1] == FILES
        assert (len(run.ledger.done), run.ledger.starts) == (0, 0)
        assert run.output is not None
        assert run.directory.token.read_text() == run.token != ""
        assert run.directory.spill.is_dir()
    finally:
        run.close()


def test_the_same_command_goes_on_with_what_is_left_and_does_not_list_again(job: Job) -> None:
    with job.open() as run:
        assert run.output is not None
        append(run.output, 2, 0)
        run.output.event("attempt_failed", mini_batch=1, attempt=1)
        first_token = run.token
    (job.folder / "data" / "later.txt").touch()

    with job.open() as run:
        assert (run.manifest.items, run.ledger.starts) == (FILES, 1)
        assert ({*run.ledger.done}, run.ledger.attempts) == ({0, 2}, {1: 1})
        assert run.token != first_token
        finish(run)
    assert job.final.read_bytes() == rows_of(2) + rows_of(0) + rows_of(3) + rows_of(1)


def test_rows_that_did_not_reach_the_disk_are_done_again(job: Job) -> None:
    with job.open() as run:
        assert run.output is not None
        append(run.output, 2)
        run.output.sync()
        append(run.output, 0)
    job.part.write_bytes(rows_of(2) + bytes(len(rows_of(0))))

    with job.open() as run:
        assert {*run.ledger.done} == {2}
        finish(run)
    assert sorted_lines(job.final.read_bytes()) == sorted_lines(ALL_IN_ORDER)


def test_rows_that_a_dead_start_left_on_their_way_are_thrown_away(job: Job) -> None:
    with job.open() as run:
        (run.directory.spill / "n1-0-1-1.rows").write_bytes(b"x")
    with job.open() as run:
        assert list(run.directory.spill.iterdir()) == []


def test_what_killed_processes_have_left_does_not_stay_in_a_complete_run(job: Job) -> None:
    with job.open() as run:
        finish(run)
        (run.directory.spill / "n1-0-1-1.rows").write_bytes(b"x")
    with job.open() as run:
        assert list(run.directory.spill.iterdir()) == []


@pytest.mark.parametrize("only_failed", [False, True])
def test_a_complete_run_has_nothing_to_open_and_keeps_its_output(job: Job, only_failed: bool) -> None:
    with job.open() as run:
        finish(run)
    before = job.final.read_bytes()

    with job.open(only_failed=only_failed) as run:
        assert run.output is None
        assert len(run.ledger.done) == LAST + 1
    assert job.final.read_bytes() == before


def test_a_complete_run_whose_output_is_gone_says_so(job: Job) -> None:
    with job.open() as run:
        finish(run)
    job.final.unlink()

    assert job.refusal() == f"the run is complete, but its output {job.final} is gone; start anew with --overwrite"


def test_summary_only_needs_no_output_file(job: Job) -> None:
    with job.open("output_action=summary_only") as run:
        assert run.output is not None
        for number in range(LAST + 1):
            run.output.append(1, RECORD.pack(number, SIZE, SIZE, 1, 0, 0, 0.0, 0.0, 0.0), b"")
        run.output.complete(None, run.directory.kept_rows, in_input_order=False, keep=False)

    assert job.is_complete("output_action=summary_only")
    assert [path.name for path in job.output.iterdir()] == ["_run"]


# Failed mini-batches


@pytest.mark.parametrize("order", ["arrival", "input"])
def test_failed_mini_batches_are_tried_again_when_that_is_asked_for_and_only_then(job: Job, order: str) -> None:
    setting, in_input_order = f"output_order={order}", order == "input"
    with job.open(setting) as run:
        finish(run, failing=(1,), in_input_order=in_input_order)
    assert sorted_lines(job.final.read_bytes()) == sorted_lines(rows_of(0) + rows_of(2) + rows_of(3))
    assert job.is_complete(setting)

    with job.open(setting, only_failed=True) as run:
        assert not job.final.exists(), "it is not complete now"
        assert ({*run.ledger.done}, run.ledger.failed) == ({0, 2, 3}, set())
        finish(run, in_input_order=in_input_order)
    if in_input_order:
        assert job.final.read_bytes() == ALL_IN_ORDER
    else:
        assert job.final.read_bytes() == rows_of(3) + rows_of(2) + rows_of(0) + rows_of(1)
    assert job.is_complete(setting)
    assert not (job.root / "kept_rows").exists()


def test_a_run_that_is_stopped_while_it_tries_them_again_goes_on_with_that(job: Job) -> None:
    with job.open() as run:
        finish(run, failing=(0, 1))
    with job.open(only_failed=True) as run:
        assert run.output is not None
        append(run.output, 1)
    with job.open() as run:
        assert ({*run.ledger.done}, run.ledger.failed) == ({1, 2, 3}, set())
        finish(run)
    assert sorted_lines(job.final.read_bytes()) == sorted_lines(ALL_IN_ORDER)


def test_in_a_run_that_is_not_complete_failed_mini_batches_can_be_tried_again_as_well(job: Job) -> None:
    with job.open() as run:
        assert run.output is not None
        append(run.output, 0)
        fail(run.output, 1)
    with job.open() as run:
        assert run.ledger.failed == {1}
    with job.open(only_failed=True) as run:
        assert run.ledger.failed == set()
        finish(run)
    assert sorted_lines(job.final.read_bytes()) == sorted_lines(ALL_IN_ORDER)


# Other settings


def test_another_script_is_refused_with_the_difference_and_can_be_accepted(job: Job) -> None:
    with job.open() as run:
        assert run.output is not None
        append(run.output, 0)
    (job.folder / "score.py").write_text("def run(mini_batch):\n    return [1]\n")
    (job.folder / "helper.py").write_text("")

    text = job.refusal("arguments=[--model, big]")
    assert text.startswith(f"{job.output} holds a run with other settings:\n")
    assert f"\n  entry_script: the file's content has changed ({job.folder / 'score.py'})\n" in text
    assert '\n  arguments: [] then, ["--model", "big"] now\n' in text
    assert "\n  source_directory: helper.py is new\n" in text
    assert "--accept-changes goes on and keeps the finished rows, --overwrite starts anew" in text

    with job.open("arguments=[--model, big]", accept_changes=True) as run:
        assert {*run.ledger.done} == {0}
    with job.open("arguments=[--model, big]") as run:  # from now on these are its settings
        assert {*run.ledger.done} == {0}
    (job.folder / "helper.py").write_text("changed = True")
    assert "\n  source_directory: helper.py has changed\n--accept-changes" in job.refusal("arguments=[--model, big]")


@pytest.mark.parametrize("content", [None, "", '{"run": "x"}', '{"run": 5, "files": []}'])
def test_without_a_record_of_its_code_a_run_goes_on_and_one_that_is_no_record_is_told(
    job: Job, content: str | None
) -> None:
    with job.open():
        pass
    (job.root / "sources.json").unlink() if content is None else (job.root / "sources.json").write_text(content)
    if content is None:  # begun by a version that kept none
        assert not job.is_complete()
    else:
        assert "sources.json: cannot be read, or is of another run" in job.refusal()
        with job.open(accept_changes=True):
            pass
        assert not job.is_complete()


def test_what_a_script_writes_in_a_long_mini_batch_is_no_change_when_the_job_is_killed_in_it(job: Job) -> None:
    """The journal is as old as the last result; only status.json tells how long the run was at work."""
    (job.folder / "counter.json").write_text("0")
    with job.open() as run:
        began = run.directory.journal.stat().st_mtime_ns
    (job.folder / "counter.json").write_text("1")
    os.utime(job.folder / "counter.json", ns=(began, began + 60 * 10**9))
    assert "data in source_directory: counter.json has changed" in job.refusal()
    run.directory.status.touch()
    os.utime(run.directory.status, ns=(began, began + 58 * 10**9))
    assert not job.is_complete()


def test_a_mended_script_may_try_what_has_failed_again(job: Job) -> None:
    with job.open() as run:
        finish(run, failing=(1,))
    (job.folder / "score.py").write_text("def run(mini_batch):\n    return [1]\n")

    assert "--accept-changes" in job.refusal()
    with job.open(only_failed=True) as run:
        finish(run)
    assert job.is_complete()


@pytest.mark.parametrize(
    "change", ["mini_batch_size=3", "inputs=[data/1.txt]", "append_row_file_name=b.txt", "output_action=summary_only"]
)
@pytest.mark.parametrize("option", ["accept_changes", "only_failed"])
def test_what_would_mix_up_the_rows_is_not_accepted(job: Job, change: str, option: str) -> None:
    with job.open() as run:
        finish(run, failing=(1,))
    before = job.final.read_bytes()

    text = job.refusal(change, **{option: True})

    assert f"\n  {change.partition('=')[0]}" in text
    assert text.endswith("--overwrite starts anew, --output DIR writes elsewhere")
    assert "--accept-changes" not in text
    assert job.final.read_bytes() == before


def test_what_does_not_decide_the_output_may_change(job: Job) -> None:
    with job.open() as run:
        assert run.output is not None
        append(run.output, 0)
    with job.open("run_max_try=9", "error_threshold=3", "run_invocation_timeout=1", "name=other") as run:
        assert {*run.ledger.done} == {0}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"fingerprint": 1}', "7", b"\xff"])
def test_a_damaged_description_is_refused(job: Job, content: str | bytes) -> None:
    with job.open():
        pass
    (job.root / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())

    assert job.refusal().startswith(f"{job.root / 'run.json'} cannot be read (")
    with job.open(overwrite=True) as run:
        finish(run)


# Starting anew


def test_overwrite_starts_anew(job: Job) -> None:
    with job.open() as run:
        finish(run, failing=(1,), in_input_order=True)
    (job.output / "mine.txt").write_text("not yours")
    (job.output / "rows.txt.part.finishing").write_text("left by a kill")
    (job.folder / "data" / "later.txt").touch()

    with job.open("mini_batch_size=1", overwrite=True) as run:
        assert (len(run.ledger.done), run.ledger.starts, run.manifest.mini_batches) == (0, 0, FILES + 1)
        assert sorted(path.name for path in job.output.iterdir()) == ["_run", "mine.txt", "rows.txt.part"]
        assert not run.directory.kept_rows.exists()


def test_overwrite_removes_the_output_under_its_old_name_too(job: Job) -> None:
    with job.open("append_row_file_name=old.txt") as run:
        finish(run)
    (job.output / "rows.txt").replace(job.output / "old.txt")

    with job.open(overwrite=True):
        assert sorted(path.name for path in job.output.iterdir()) == ["_run", "rows.txt.part"]


def test_overwrite_removes_nothing_outside_the_output_folder_whatever_the_description_says(job: Job) -> None:
    with job.open():
        pass
    description = json.loads((job.root / "run.json").read_text())
    description["fingerprint"]["append_row_file_name"] = "../score.py"
    (job.root / "run.json").write_text(json.dumps(description))

    with job.open(overwrite=True):
        assert (job.folder / "score.py").exists()


def test_overwrite_does_not_follow_links(job: Job) -> None:
    (job.folder / "precious").mkdir()
    (job.folder / "precious" / "file").touch()
    with job.open():
        (job.root / "logs").symlink_to(job.folder / "precious")
    with job.open(overwrite=True):
        assert not (job.root / "logs").exists()
    assert (job.folder / "precious" / "file").exists()


def test_a_start_that_was_killed_while_it_listed_is_begun_anew(job: Job) -> None:
    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_run(job.config(), RunOptions(), killed)
    assert not (job.root / "run.json").exists()
    (job.folder / "data" / "later.txt").touch()

    with job.open() as run:
        assert run.manifest.items == FILES + 1
        finish(run)


def test_a_start_that_was_killed_before_its_description_was_written_is_begun_anew(job: Job) -> None:
    with job.open() as run:
        assert run.output is not None
    (job.root / "run.json").unlink()
    job.part.unlink()
    (job.root / "manifest.arrow").write_bytes(b"half")

    with job.open() as run:
        assert (run.ledger.starts, run.manifest.items) == (0, FILES)


# What is in the way


@pytest.mark.parametrize("name", ["rows.txt", "rows.txt.part"])
def test_a_file_of_somebody_else_under_the_output_s_name_is_refused_and_stays(job: Job, name: str) -> None:
    job.output.mkdir()
    (job.output / name).write_text("precious")

    text = job.refusal()

    assert text.startswith(f"{job.output / name} is there already, and it is not from a run known in {job.root}. Move")
    assert (job.output / name).read_text() == "precious"


def test_other_files_in_the_output_folder_are_not_in_the_way(job: Job) -> None:
    job.output.mkdir()
    (job.output / "other.txt").write_text("precious")
    with job.open() as run:
        finish(run)
    assert (job.output / "other.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["out", "out/_run"])
def test_an_output_that_is_a_file_is_refused(job: Job, name: str) -> None:
    (job.folder / name).parent.mkdir(exist_ok=True)
    (job.folder / name).write_text("a file")

    assert job.refusal() == f"the output {job.folder / name} is a file; expected a folder. Choose another one"


def test_an_output_below_a_file_is_refused(job: Job) -> None:
    (job.folder / "file").touch()

    folder = job.folder / "file" / "out"
    assert job.refusal(f"output={folder}") == f"the output {folder} lies below something that is not a folder"


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that any user can reach (pytest's own are closed to others)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """As a user who may not do everything: root puts on somebody else's hat for a while."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.parametrize("closed", ["the folder above", "the folder", "the run directory"])
def test_an_output_that_may_not_be_written_is_refused(public_folder: Path, closed: str) -> None:
    job = Job(public_folder)
    config = job.config()
    job.root.mkdir(parents=True)
    for path in (job.output, job.root):
        path.chmod(0o777)
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    closed_folder = {"the folder above": job.folder, "the folder": job.output, "the run directory": job.root}[closed]
    if closed == "the folder above":
        job.root.rmdir()
        job.output.rmdir()
    closed_folder.chmod(0o555)
    try:
        with without_privileges(), pytest.raises(OutputError) as caught:
            open_run(config, RunOptions())
    finally:
        closed_folder.chmod(0o755)

    expected = {
        "the folder above": f"cannot create the output folder {job.output}: Permission denied",
        "the folder": f"the output folder {job.output} is not writable for you; choose another one",
        "the run directory": f"the output folder {job.root} is not writable for you; choose another one",
    }
    assert str(caught.value) == expected[closed]


def test_a_run_directory_of_another_user_is_refused_unless_it_is_accepted(public_folder: Path) -> None:
    if os.getuid() != 0:
        need("two users")
    job = Job(public_folder)
    with job.open():
        config = job.config()
    for path in (job.output, job.root):
        path.chmod(0o777)
    before = snapshot(job.output)

    for overwrite in (False, True):
        with without_privileges(), pytest.raises(OutputError) as caught:
            open_run(config, RunOptions(overwrite=overwrite))
        assert str(caught.value) == (
            f"the run directory {job.root} belongs to the user root: choose another output, or take it over with "
            "--accept-owner if you trust what is in it"
        )
    assert snapshot(job.output) == before
    with without_privileges(), pytest.raises(OutputError, match=r"cannot write to .*lock: Permission"):
        open_run(config, RunOptions(accept_owner=True))

    os.chown(job.root, NOBODY, NOBODY)
    with pytest.raises(OutputError, match="belongs to the user nobody"), job.open():
        pass
    with job.open(accept_owner=True) as run:
        finish(run)


# Strangers


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder, links and folders among it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def precious(job: Job) -> Path:
    """A folder with names that a run directory has, and others."""
    folder = job.folder / "precious"
    for name in ("thesis/t.tex", "spill/mine", "logs/sys/node", "journal", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("how", ["a link", "a copy"])
def test_a_folder_that_is_no_run_directory_is_left_alone(job: Job, precious: Path, how: str, overwrite: bool) -> None:
    job.output.mkdir()
    job.root.symlink_to(precious) if how == "a link" else shutil.copytree(precious, job.root)
    before = snapshot(job.folder)
    config = job.config()

    said = {
        "a link": f"{job.root} is a link: a run directory is a folder of its own",
        "a copy": f"{job.root} is not the run directory of a run (journal, logs, notes.txt, …): it is left alone",
    }
    assert job.refusal(overwrite=overwrite).startswith(said[how])
    with pytest.raises(OutputError) as caught:
        is_complete_already(config, RunOptions(overwrite=overwrite))
    assert str(caught.value).startswith(said[how])
    before["job.yaml"] = (job.folder / "job.yaml").read_bytes()
    assert snapshot(job.folder) == before


@pytest.mark.parametrize(
    "name",
    [
        *["lock", "token", "journal", "run.json", "manifest.arrow", "status.json", "spill", "slurm", "slurm/job.json"],
        *["logs", "logs/user", "logs/user/stdout", "logs/user/stderr/n1", "logs/sys", "logs/sys/node/n1"],
        "rows.txt.part",
    ],
)
def test_nothing_is_written_through_links(job: Job, precious: Path, name: str) -> None:
    with job.open() as run:
        assert run.output is not None
        append(run.output, 0)
    path = job.part if name == "rows.txt.part" else job.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.symlink_to(precious / ("journal" if path.suffix or name in ("lock", "token", "journal") else "."))
    before = snapshot(precious)

    assert f"{path} is " in job.refusal()
    assert snapshot(precious) == before


# The rest of what is in the way


def test_inputs_that_cannot_be_listed_let_the_next_start_in(job: Job) -> None:
    with pytest.raises(InputError), job.open("inputs=[nothing-here]"):
        pass
    with job.open() as run:
        finish(run)


@pytest.mark.parametrize("call", range(1, 12))
def test_a_disk_that_is_full_while_the_run_is_opened_is_said_to_be_full(job: Job, call: int) -> None:
    """The disk is full from the k-th sync or write on."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    calls = 0

    def failing(function: Callable[..., object]) -> Callable[..., object]:
        def call_or_fail(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls >= call:
                raise full
            return function(*arguments)

        return call_or_fail

    try:
        with (
            mock.patch.object(os, "fsync", failing(os.fsync)),
            mock.patch.object(os, "write", failing(os.write)),
            mock.patch.object(Path, "write_text", failing(Path.write_text)),
            job.open(),
        ):
            pass
    except (JobStopped, OutputError) as error:
        assert "space" in str(error)
    else:
        assert calls < call
    with job.open() as run:
        finish(run)
    assert sorted_lines(job.final.read_bytes()) == sorted_lines(ALL_IN_ORDER)


# Two at once

HOLD = """
import sys
from pathlib import Path
from mpi_prs.job.config.model import load_config
from mpi_prs.job.run.opening import RunOptions, open_run
run = open_run(load_config(Path(sys.argv[1])), RunOptions())
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_start_is_refused_while_the_first_lives_and_let_in_when_it_is_killed(job: Job) -> None:
    job.config()
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(job.folder / "job.yaml")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"open\n"
        for overwrite in (False, True):
            text = job.refusal(overwrite=overwrite)
            assert text.startswith(
                f"another run is at work on {job.output} (process {first.pid} on {os.uname().nodename}"
            )
            assert (job.root / "run.json").exists(), "it is left alone"
        first.send_signal(signal.SIGKILL)
        first.wait()

    with job.open() as run:
        finish(run)
    assert sorted_lines(job.final.read_bytes()) == sorted_lines(ALL_IN_ORDER)


# Killed at any moment


class Killed(BaseException):
    """The process ends here."""


@contextlib.contextmanager
def killed_at(call: int) -> Iterator[list[str]]:
    """The process dies just before its k-th change of a file; the list tells which changes it made."""
    made: list[str] = []

    def dying(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call_or_die(*arguments: object, **named: object) -> object:
            if len(made) + 1 == call:
                raise Killed(name)
            made.append(name)
            return function(*arguments, **named)

        return call_or_die

    places = [
        (os, "replace"),
        (os, "unlink"),
        (os, "fdatasync"),
        (os, "fsync"),
        (os, "ftruncate"),
        (os, "write"),
        (Path, "unlink"),
        (Journal, "event"),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name in places:
            function = getattr(owner, name)
            wrapped = dying(name, function)
            stack.enter_context(mock.patch.object(owner, name, wrapped))
        yield made


def assert_final_is_whole_or_not_there(job: Job, *contents: bytes) -> None:
    if job.final.exists():
        assert sorted_lines(job.final.read_bytes()) in [sorted_lines(content) for content in contents]


@pytest.mark.parametrize("order", ["arrival", "input"])
@pytest.mark.parametrize("failing", [(), (1,)])
def test_killed_anywhere_on_the_way_to_completion_the_next_start_completes_it(
    tmp_path: Path, order: str, failing: tuple[int, ...]
) -> None:
    setting, in_input_order = f"output_order={order}", order == "input"
    expected = b"".join(rows_of(number) for number in range(LAST + 1) if number not in failing)
    call = 0
    while True:
        call += 1
        (tmp_path / str(call)).mkdir()
        job = Job(tmp_path / str(call))
        dead = False
        try:
            with killed_at(call) as made, job.open(setting) as run:
                finish(run, failing, in_input_order)
        except Killed:
            dead = True
            assert_final_is_whole_or_not_there(job, expected)
            with job.open(setting) as run:
                if run.output is not None:
                    finish(run, failing, in_input_order)
        assert sorted_lines(job.final.read_bytes()) == sorted_lines(expected)
        assert not in_input_order or job.final.read_bytes() == expected
        assert sorted(path.name for path in job.output.iterdir()) == ["_run", "rows.txt"]
        assert (job.root / "kept_rows").exists() == (in_input_order and bool(failing))
        assert job.is_complete(setting)
        if not dead:
            break
    assert {"replace", "fdatasync", "event", "unlink"} <= {*made}, "it did die at these"


@pytest.mark.parametrize("order", ["arrival", "input"])
@pytest.mark.parametrize("then", ["the same command", "--only-failed again"])
def test_killed_anywhere_while_failed_mini_batches_are_tried_again_no_row_is_lost(
    tmp_path: Path, order: str, then: str
) -> None:
    setting, in_input_order = f"output_order={order}", order == "input"
    without = b"".join(rows_of(number) for number in range(LAST + 1) if number != 1)
    call = 0
    while True:
        call += 1
        (tmp_path / str(call)).mkdir()
        job = Job(tmp_path / str(call))
        with job.open(setting) as run:
            finish(run, (1,), in_input_order)
        dead = False
        try:
            with killed_at(call), job.open(setting, only_failed=True) as run:
                finish(run, (), in_input_order)
        except Killed:
            dead = True
            assert_final_is_whole_or_not_there(job, without, ALL_IN_ORDER)
            with job.open(setting, only_failed=then == "--only-failed again") as run:
                if run.output is not None:
                    finish(run, (), in_input_order)
        if dead and then == "the same command":
            # Killed before it was on record that they are to be tried again, they are left as they were.
            assert_final_is_whole_or_not_there(job, without, ALL_IN_ORDER)
            assert job.is_complete(setting)
            with job.open(setting, only_failed=True) as run:
                if run.output is not None:
                    finish(run, (), in_input_order)
        assert sorted_lines(job.final.read_bytes()) == sorted_lines(ALL_IN_ORDER)
        assert not in_input_order or job.final.read_bytes() == ALL_IN_ORDER
        assert sorted(path.name for path in job.output.iterdir()) == ["_run", "rows.txt"]
        assert job.is_complete(setting)
        if not dead:
            break


def test_the_journal_of_a_complete_run_tells_its_story(job: Job) -> None:
    with job.open() as run:
        assert run.output is not None
        append(run.output, 0)
    with job.open() as run:
        finish(run, failing=(1,))
    with job.open(only_failed=True) as run:
        finish(run)

    story = [entry.event["event"] for entry in read_journal(job.root / "journal") if entry.event is not None]
    assert [event for event in story if event != "synced"] == [
        *["start"],
        *["start", "failed", "complete"],
        *["reopened", "start", "complete"],
    ]


def test_the_description_says_what_the_run_is(job: Job) -> None:
    with job.open():
        pass
    description = json.loads((job.root / "run.json").read_text())

    assert description["name"] == "job"
    assert (job.root / "run.json").stat().st_mode & 0o777 == 0o600, "not every secret looks like one"
    assert description["fingerprint"]["mini_batch_size"] == SIZE


def test_overwriting_keeps_what_concerns_the_slurm_job_and_a_start_forgets_that_it_was_cancelled(job: Job) -> None:
    (job.root / "slurm").mkdir(parents=True)
    (job.root / "slurm" / "job.json").write_text("{}")
    with job.open():
        pass
    (job.root / "cancelled").touch()
    with job.open(overwrite=True):
        pass
    assert (job.root / "slurm" / "job.json").exists()
    assert not (job.root / "cancelled").exists()


@pytest.mark.parametrize(("job_id", "is_own"), [("12", True), ("13", False)])
def test_a_batch_job_that_starts_again_does_not_overwrite_its_own_work(
    job: Job, monkeypatch: pytest.MonkeyPatch, job_id: str, is_own: bool
) -> None:
    monkeypatch.setenv("MPI_PRS_SIGNAL_LEAD", "60")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with job.open():
        pass
    (job.root / "witness").touch()
    monkeypatch.setenv("SLURM_JOB_ID", job_id)
    with job.open(overwrite=True):
        pass
    assert (job.root / "witness").exists() is is_own


def test_asking_whether_a_run_is_complete_changes_nothing(job: Job) -> None:
    assert not is_complete_already(job.config(), RunOptions())
    assert not job.output.exists()
    with job.open():
        pass
    before = {path: path.read_bytes() for path in job.root.rglob("*") if path.is_file()}
    assert not is_complete_already(job.config(), RunOptions())
    with pytest.raises(OutputError, match="mini_batch_size"):
        is_complete_already(job.config("mini_batch_size=5"), RunOptions())
    assert {path: path.read_bytes() for path in job.root.rglob("*") if path.is_file()} == before

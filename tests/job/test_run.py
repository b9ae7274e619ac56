"""Whole jobs, from the command line to the rows, as a user runs them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import NAMES_SCRIPT, REPOSITORY, Job, Mpi, assert_every_row_once, need

NewJob = Callable[..., Job]


def command_line(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m mpi_prs …`` without any launcher."""
    return subprocess.run(
        [sys.executable, "-m", "mpi_prs", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


# The same output, wherever it runs


def test_a_job_under_mpirun_writes_every_row_once(new_job: NewJob, mpi: Mpi) -> None:
    job = new_job(NAMES_SCRIPT, items=203)
    done = job.under(mpi, ranks=4)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert not job.directory.partial_output_file("parallel_run_step.txt").exists()
    assert len(job.ledger().done) == 51


def test_a_local_job_writes_the_same_output_and_the_same_journal(new_job: NewJob) -> None:
    job = new_job(NAMES_SCRIPT, items=203)
    done = job.local(processes=3)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    ledger = job.ledger()
    assert ledger.complete
    assert len(ledger.done) == 51


def test_input_order_is_byte_identical_whatever_the_number_of_workers(new_job: NewJob, mpich: Mpi) -> None:
    jobs = [new_job(NAMES_SCRIPT, items=150, output_order="input", mini_batch_size=1) for _ in range(3)]
    results = [jobs[0].local(processes=1), jobs[1].local(processes=4), jobs[2].under(mpich, ranks=4)]
    assert [result.returncode for result in results] == [0, 0, 0], results
    expected = "".join(f"{name}\n" for name in jobs[0].names)
    assert [job.output.read_text() for job in jobs] == [expected] * 3


def test_summary_only_counts_and_writes_no_file(new_job: NewJob) -> None:
    job = new_job(NAMES_SCRIPT, output_action="summary_only")
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert not job.output.exists()
    assert len(job.ledger().done) == 10


def test_several_user_processes_under_one_rank(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(NAMES_SCRIPT, items=120, processes_per_rank=3)
    done = job.under(mpich, ranks=2)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert {path.name for path in job.directory.logs.glob("user/stdout/*/*")} == {
        f"process{number:03d}.stdout.txt" for number in range(3)
    }


def test_no_command_runs_the_default_config_and_says_which(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(NAMES_SCRIPT)
    job.config.rename(job.folder / "mpi_prs.yaml")
    done = job.finish(job.start(mpich.command(3)))
    assert done.returncode == 0, done.stdout
    assert str(job.folder / "mpi_prs.yaml") in done.stdout
    assert_every_row_once(job)


def test_data_frames_are_written_as_pandas_does(new_job: NewJob) -> None:
    script = """
import os, pandas
def run(mini_batch):
    names = [os.path.basename(path) for path in mini_batch]
    return pandas.DataFrame({"name": names, "text": [f"two words {n}" for n in names]})
"""
    job = new_job(script, items=8)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, [f'{name} "two words {name}"' for name in job.names])


# Resuming


def test_a_complete_job_says_so_and_does_nothing(new_job: NewJob) -> None:
    job = new_job(NAMES_SCRIPT)
    job.local()
    before = job.output.stat().st_mtime_ns
    done = job.local()
    assert done.returncode == 0
    assert "complete already" in done.stdout
    assert "since they were listed" not in done.stdout
    assert job.output.stat().st_mtime_ns == before
    (job.folder / "in" / "new.txt").touch()
    done = job.local()
    assert done.returncode == 0
    assert f"since they were listed: 1 new (such as {job.folder}/in/new.txt)" in done.stdout
    shutil.rmtree(job.folder / "in")
    done = job.local()
    assert done.returncode == 0
    assert "its inputs can no longer be listed: " in done.stdout
    assert job.output.stat().st_mtime_ns == before


def test_limit_runs_the_first_mini_batches_and_the_next_start_the_rest(new_job: NewJob) -> None:
    job = new_job(NAMES_SCRIPT, items=40)
    done = job.local("--limit", "3")
    assert done.returncode == 0, done.stdout
    assert sorted(job.ledger().done) == [0, 1, 2]
    assert not job.output.exists()
    assert "limit reached: 7 mini-batches are left" in done.stdout
    done = job.local()
    assert done.returncode == 0, done.stdout
    first, second = job.directory.earlier_job_result(1).read_text(), job.directory.job_result.read_text()
    assert "limit reached" in first
    assert "28 items ok in 7 mini-batches" in second
    assert "in all 2 starts" in second
    assert "3 of 10 mini-batches are done" in done.stdout
    assert_every_row_once(job)


def test_other_settings_are_refused_with_the_difference_shown(new_job: NewJob) -> None:
    job = new_job(NAMES_SCRIPT)
    job.local()
    done = job.local("--set", "mini_batch_size=7")
    assert done.returncode == 2
    assert "mini_batch_size: 4 then, 7 now" in done.stdout
    assert "--overwrite" in done.stdout
    assert job.local("--set", "mini_batch_size=7", "--overwrite").returncode == 0
    assert_every_row_once(job)


def test_only_failed_tries_the_failed_mini_batches_again(new_job: NewJob) -> None:
    script = """
import os
def run(mini_batch):
    if any("0013" in path or "0030" in path for path in mini_batch):
        raise ValueError("cannot read this one")
    return [os.path.basename(path) for path in mini_batch]
"""
    job = new_job(script, items=40, run_max_try=2)
    done = job.local()
    assert done.returncode == 0, done.stdout
    failing = [*job.names[12:16], *job.names[28:32]]
    assert_every_row_once(job, [name for name in job.names if name not in failing])
    listed = [json.loads(line) for line in job.directory.failed_items.read_text().splitlines()]
    assert [Path(line["item"]).name for line in listed] == failing
    report = command_line("failed", str(job.folder / "out"), folder=job.folder)
    assert report.returncode == 0
    assert "cannot read this one" in report.stdout
    (job.folder / "script.py").write_text(NAMES_SCRIPT)
    done = job.local("--only-failed")
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert job.directory.failed_items.read_text() == ""


def test_the_script_sees_what_parallel_run_step_gives_it(new_job: NewJob) -> None:
    script = """
import argparse, json, logging, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("--model")
args, _ = parser.parse_known_args()

def run(mini_batch, mini_batch_context):
    import helper
    print("a line on stdout")
    logging.getLogger("script").info("a line in the log")
    open("scratch.txt", "w").close()
    return [json.dumps({
        "argv": sys.argv[:5], "rest": len("".join(sys.argv[5:])),
        "file": __file__, "path": sys.path[0], "model": args.model, "helper": helper.VALUE,
        "index": mini_batch_context.minibatch_index, "retry": mini_batch_context.retry_count,
        "task": mini_batch.task_id, "list": isinstance(mini_batch, list), "stdin": sys.stdin.read(),
        "variable": os.environ["GREETING"], "bi": os.environ["AZUREML_BI_OUTPUT_PATH"], "cwd": os.getcwd(),
        "python_path": os.environ["PYTHONPATH"],
    })]
"""
    job = new_job(
        script,
        items=1,
        arguments=["--model", "m1", "--other", 3, *["x" * 1000] * 400],  # more than a socket's buffer holds
        environment_variables={"GREETING": "hello", "PYTHONPATH": f"libs:{REPOSITORY}"},
    )
    (job.folder / "helper.py").write_text("VALUE = 42\n")
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    (row,) = map(json.loads, job.rows())
    path = str(job.folder / "script.py")
    assert row["rest"] == 400_000
    assert row["argv"] == [path, "--model", "m1", "--other", "3"]
    assert (row["file"], row["path"], row["model"], row["helper"]) == (path, str(job.folder), "m1", 42)
    assert (row["index"], row["retry"], row["task"], row["list"], row["stdin"]) == (0, 0, "0", True, "")
    assert (row["variable"], row["bi"]) == ("hello", str(job.folder / "out"))
    assert row["python_path"] == f"{job.folder / 'libs'}:{REPOSITORY}", "what it means where the job was started"
    assert not Path(row["cwd"]).exists(), "the private folder is removed at the end"
    assert "the script left files in its working folders, such as scratch.txt" in done.stdout
    assert "a line on stdout" in job.log("stdout")
    assert "INFO script: a line in the log" in job.log("stderr")


FILES = """
import os

{asynchronous}def run(mini_batch, context):
    rows = []
    for path in mini_batch:
        name = os.path.basename(path)
        if not path.endswith("7.txt"):
            os.makedirs(os.path.join(context.output_dir, "below"), exist_ok=True)
            with open(os.path.join(context.output_dir, "below", f"{{name}} {{context.retry_count}}"), "w") as file:
                file.write(name)
        rows.append(name)
    if mini_batch[0].endswith("8.txt") and not context.retry_count:
        os._exit(1) if mini_batch[0].endswith("08.txt") else 1 / 0
    return rows
"""


@pytest.mark.parametrize(
    ("settings", "asynchronous"),
    [({"mini_batch_size": 2}, ""), ({"mini_batch_size": 2, "output_action": "summary_only"}, ""), ({}, "async ")],
    ids=["rows", "no rows", "several at once"],
)
def test_files_of_a_script_appear_once_and_only_of_what_was_accepted(
    new_job: NewJob, settings: dict[str, Any], asynchronous: str
) -> None:
    job = new_job(FILES.format(asynchronous=asynchronous), **{"mini_batch_size": 1, **settings})
    done = job.local()
    assert done.returncode == 0, done.stdout
    if "output_action" not in settings:
        assert_every_row_once(job)
    found = sorted(job.directory.script_files.glob("*/*/below/*"))
    whose = [path.name.split() for path in found]
    assert [name for name, _ in whose] == [name for name in job.names if not name.endswith("7.txt")]
    assert {name for name, retry in whose if retry == "1"} >= {"item-0008.txt", "item-0018.txt", "item-0038.txt"}
    assert [path.read_text() for path in found] == [name for name, _ in whose]
    assert list(job.directory.spill.iterdir()) == []


def test_the_reports_are_all_there(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(NAMES_SCRIPT, items=40)
    done = job.under(mpich)
    assert done.returncode == 0, done.stdout
    with open(job.directory.processed_mini_batches) as file:
        lines = list(csv.DictReader(file))
    assert sorted(int(line["mini_batch"]) for line in lines) == list(range(10))
    assert "40" in job.directory.job_result.read_text()
    assert job.directory.progress_overview.read_text()
    assert list(job.directory.logs.glob("sys/node/*/master.txt"))
    status = command_line("status", str(job.folder / "out"), folder=job.folder)
    assert status.returncode == 0
    assert "complete" in status.stdout


# Looking before running


def test_a_dry_run_shows_no_arguments_to_those_who_list_processes(new_job: Callable[..., Job]) -> None:
    script = """
import sys
assert sys.argv[1:] == ["HIDDEN"] and sys.stdin.read() == ""
with open("/proc/self/cmdline") as file:
    assert "HIDDEN" not in file.read()
def run(mini_batch):
    return []
"""
    job = new_job(script, items=1, arguments=["HIDDEN"])
    done = command_line("run", "job.yaml", "--dry-run", folder=job.folder)
    assert done.returncode == 0, done.stderr


def test_dry_run_lists_and_checks_and_writes_nothing(new_job: NewJob) -> None:
    job = new_job(NAMES_SCRIPT, items=41)
    done = command_line("run", "job.yaml", "--dry-run", folder=job.folder)
    assert done.returncode == 0, done.stderr
    assert "41 items in 11 mini-batches" in done.stdout
    assert "item-0000.txt" in done.stdout
    assert not (job.folder / "out").exists()


def test_dry_run_shows_the_traceback_of_a_script_that_does_not_import(new_job: NewJob) -> None:
    job = new_job("import no_such_module_at_all\ndef run(mini_batch): return []\n")
    done = command_line("run", "job.yaml", "--dry-run", folder=job.folder)
    assert done.returncode == 2
    assert 'script.py", line 1' in done.stderr
    assert "No module named 'no_such_module_at_all'" in done.stderr
    assert "mpi_prs/" not in done.stderr.split("cannot be imported")[1], "the traceback begins in the user's code"


def test_debug_runs_one_mini_batch_in_this_process(new_job: NewJob) -> None:
    script = "import os\ndef run(mini_batch):\n    print('pid', os.getpid(), os.listdir())\n    return mini_batch\n"
    job = new_job(script)
    done = command_line("debug", "job.yaml", folder=job.folder)
    assert done.returncode == 0, done.stderr
    assert "item-0000.txt" in done.stdout
    assert "[]" in done.stdout, "the working folder is a private one, as in a job"
    one = command_line("debug", "job.yaml", "in/item-0007.txt", folder=job.folder)
    assert one.stdout.splitlines()[-1].endswith("in/item-0007.txt")
    assert not (job.folder / "out").exists()


LOADING = """
import os, threading

begun = threading.Semaphore(0)

def load(item):
    begun.release()
    with open(item, "rb") as file:
        return bytearray(file.read())

def run(mini_batch):
    run.calls += 1
    # the next mini-batch is being loaded before this one is done, if there is one
    for _ in range(8 if run.calls == 1 else 4 if run.calls < 3 else 0):
        assert begun.acquire(timeout=30), "nothing is loaded ahead"
    return [f"{os.path.basename(path)} {data.decode()}" for path, data in zip(mini_batch.items, mini_batch)]

run.calls = 0
"""


def test_loaders_load_what_waits_while_run_is_busy(new_job: NewJob) -> None:
    job = new_job(LOADING, 12, loaders=2)
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    assert sorted(job.rows()) == [f"{name} {number}" for number, name in enumerate(job.names)]


LOADS = "def load(item):\n    return bytearray(7)\ndef run(mini_batch):\n    return mini_batch.items\n"


SOME_BROKEN = """
def load(item):
    number = int(item[-8:-4])
    if number in (3, 7) or 8 <= number < 12:
        raise ValueError(f"broken picture {number}")
    return number

def run(mini_batch):
    return [str(number) for number in mini_batch]
"""


def test_items_that_load_raises_for_fail_alone_and_say_why(new_job: NewJob) -> None:
    job = new_job(SOME_BROKEN, 16, loaders=2, run_max_try=2, output_order="input")
    done = job.local(processes=2)
    assert done.returncode == 0, done.stdout
    assert job.rows() == ["0", "1", "2", "4", "5", "6", "12", "13", "14", "15"]
    failed = [json.loads(line) for line in job.directory.failed_items.read_text().splitlines()]
    assert sorted(line["message"] for line in failed if not 8 <= int(line["item"][-8:-4]) < 12) == [
        "ValueError: broken picture 3",
        "ValueError: broken picture 7",
    ]
    assert len(failed) == 6
    (job.folder / "script.py").write_text(SOME_BROKEN.replace("raise", "if number == 3: raise"))
    again = job.local("--only-failed", "--accept-changes", processes=1)
    assert again.returncode == 0, again.stdout
    assert job.rows() == [str(number) for number in range(16) if number != 3]


def test_debug_shows_what_load_returned(new_job: NewJob) -> None:
    job = new_job(LOADS, 4, loaders="auto")
    done = command_line("debug", "job.yaml", folder=job.folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"load\(\) took \S+ s an item and returned bytearray of length 7$", done.stderr, re.MULTILINE)
    assert "item-0003.txt" in done.stdout


def test_debug_awaits_what_is_async(new_job: NewJob) -> None:
    functions = ("init", ""), ("run", "mini_batch"), ("shutdown", "")
    script = "".join(f"async def {name}({given}):\n    print('awaited')\n    return [1]\n" for name, given in functions)
    job = new_job(script, 1)
    done = command_line("debug", "job.yaml", folder=job.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("awaited") == 3


@pytest.mark.parametrize(
    ("command", "settings", "script", "code", "said"),
    [
        ("debug", {"loaders": 2}, NAMES_SCRIPT, 1, "script.py has no function load(item), which `loaders`"),
        ("run --dry-run", {"loaders": 2}, NAMES_SCRIPT, 2, "script.py has no function load(item), which `loaders`"),
        ("run --dry-run", {}, LOADS, 0, "script.py defines load(), and nobody calls it: with `loaders: auto`"),
        (
            "debug",
            {},
            f"{LOADS}def run(mini_batch):\n    return mini_batch\n",
            0,
            "script.py defines load(), and nobody",
        ),
    ],
)
def test_loaders_and_load_belong_together(
    new_job: NewJob, command: str, settings: dict[str, Any], script: str, code: int, said: str
) -> None:
    job = new_job(script, 4, **settings)
    done = command_line(*command.split(), "job.yaml", folder=job.folder)
    assert done.returncode == code
    assert (done.stdout + done.stderr).count(said) == 1


def test_debug_shows_the_users_own_traceback(new_job: NewJob) -> None:
    job = new_job("def run(mini_batch):\n    return 1 / 0\n")
    done = command_line("debug", "job.yaml", folder=job.folder)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "mpi_prs/" not in done.stderr.split("Traceback")[1]


# Bad input: one clear message, exit code 2, before any user process starts

SYNTAX_ERROR = "def run(mini_batch)\n    return mini_batch\n"
BAD = {
    "the input matches nothing": ({"inputs": [{"files": "in/*.jpg"}]}, NAMES_SCRIPT, "in/*.jpg"),
    "the script has no run": ({}, "def init():\n    pass\n", "run"),
    "the script has a syntax error": ({}, SYNTAX_ERROR, "script.py"),
    "a slash in the file name": ({"append_row_file_name": "a/b.txt"}, NAMES_SCRIPT, "append_row_file_name"),
    "an unknown key": ({"mini_batch_sise": 3}, NAMES_SCRIPT, "mini_batch_size"),
    "the output is a file": ({"output": "job.yaml"}, NAMES_SCRIPT, "is a file"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_clear_message(new_job: NewJob, what: str) -> None:
    settings, script, expected = BAD[what]
    job = new_job(script, **settings)
    done = job.local()
    assert done.returncode == 2, done.stdout
    assert expected in done.stdout
    assert "Traceback" not in done.stdout
    assert not job.log("stdout"), "no user process was started"


def test_under_mpirun_one_rank_speaks_and_all_leave_with_the_same_code(new_job: NewJob, mpi: Mpi) -> None:
    job = new_job(NAMES_SCRIPT, inputs=[{"files": "nothing-here"}])
    done = job.under(mpi, ranks=4)
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("nothing-here") == 1, done.stdout


def test_without_any_config_rank_0_alone_says_how_to_use_it(tmp_path: Path, mpi: Mpi) -> None:
    shutil.copytree(REPOSITORY / "mpi_prs", tmp_path / "site" / "mpi_prs")  # not in a checkout: no demo beside it
    job = Job(tmp_path, [], environment={"PYTHONPATH": str(tmp_path / "site")})
    done = job.finish(job.start(mpi.command(3)))
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("no command, and no job config") == 1, done.stdout
    job.assert_nothing_left()


def test_a_single_rank_is_told_to_use_local(new_job: NewJob, mpich: Mpi) -> None:
    job = new_job(NAMES_SCRIPT)
    done = job.under(mpich, ranks=1)
    assert done.returncode == 2
    assert "--local" in done.stdout


def test_the_launcher_of_another_mpi_is_noticed(new_job: NewJob, mpich: Mpi, openmpi: Mpi) -> None:
    job = new_job(NAMES_SCRIPT)
    done = job.under(Mpi("each thinks it is alone", openmpi.python, mpich.mpirun), ranks=3)
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("the launcher belongs to another MPI") == 1, done.stdout
    done = job.under(Mpi("MPI_Init aborts", mpich.python, openmpi.mpirun), ranks=3)
    assert done.returncode != 0
    assert done.stdout.count("the launcher belongs to another MPI") == 1, done.stdout


def test_a_second_run_on_the_same_folder_is_refused(new_job: NewJob) -> None:
    job = new_job("import time\ndef run(mini_batch):\n    time.sleep(0.2)\n    return mini_batch\n", items=400)
    first = job.start_local()
    while not job.user_processes():
        assert first.poll() is None
    second = job.local()
    assert second.returncode == 2
    assert "another run is at work" in second.stdout
    job.kill_all()
    first.communicate()


@pytest.mark.parametrize("order", ["arrival", "input"])
def test_column_names_stand_once_above_all_rows(new_job: NewJob, order: str) -> None:
    script = """
import os, pandas
def run(mini_batch):
    return pandas.DataFrame({"name": [os.path.basename(path) for path in mini_batch], "size": 1})
"""
    job = new_job(script, items=40, to_csv={"sep": ",", "header": True}, output_order=order)
    assert job.local("--limit", "4").returncode == 0
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert job.rows()[0] == "name,size"
    assert_every_row_once(job, ["name,size", *(f"{name},1" for name in job.names)])


def test_a_node_that_does_not_see_the_run_directory_is_named(new_job: NewJob, mpich: Mpi) -> None:
    """One worker gets a mount namespace of its own, where another filesystem hides the output folder."""
    job = new_job(NAMES_SCRIPT)
    (job.folder / "out").mkdir()
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        need("the right to make a mount namespace")
    blind = 'mount -t tmpfs tmpfs "$0" && exec "$1" -m mpi_prs run "$2"'
    command = [*mpich.command(2), "run", str(job.config), ":", "-n", "1", "unshare", "-m", "sh", "-c", blind]
    done = job.finish(job.start([*command, str(job.folder / "out"), str(mpich.python), str(job.config)]))
    assert done.returncode == 2, done.stdout
    assert "does not see the run directory" in done.stdout
    assert f"node {socket.gethostname()}" in done.stdout
    assert not job.log("stdout"), "no user process was started"


def test_the_script_may_run_on_another_python_without_any_of_our_packages(new_job: NewJob, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    script = """
import os, sys
def run(mini_batch):
    assert sys.prefix.endswith("bare")
    for name in ("mpi4py", "pyarrow", "numpy"):
        try:
            __import__(name)
        except ImportError:
            continue
        raise AssertionError(f"{name} is there")
    return [os.path.basename(path) for path in mini_batch]
"""
    job = new_job(script, environment=str(tmp_path / "bare" / "bin" / "python"))
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


def test_an_interpreter_that_cannot_be_started_ends_the_job_and_says_why(new_job: NewJob, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_bytes(b"\x7fELF for another machine")
    broken.chmod(0o755)
    job = new_job(NAMES_SCRIPT, environment=str(broken))
    done = job.local()
    assert done.returncode == 1, done.stdout
    assert "the user process cannot be started" in done.stdout
    assert "Exec format error" in done.stdout
    assert "init() failed in all 2 user processes" in done.stdout
    assert "Traceback" not in done.stdout

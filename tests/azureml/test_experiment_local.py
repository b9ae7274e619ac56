"""Pipelines on this machine, from submission to the last row, whatever dies on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpi_prs.azureml.backends import local_runner
from mpi_prs.azureml.backends.local_backend import LocalBackend
from mpi_prs.azureml.backends.runner_record import RunnerRecord
from mpi_prs.azureml.datasets.consumption import DatasetConsumptionConfig
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.datasets.outputs import OutputFileDatasetConfig
from mpi_prs.azureml.datastores.datastore import Datastore
from mpi_prs.azureml.definition.data import PipelineData
from mpi_prs.azureml.definition.parameter import PipelineParameter
from mpi_prs.azureml.definition.pipeline import Pipeline
from mpi_prs.azureml.experiment import Experiment
from mpi_prs.azureml.runs.run import PipelineRun
from mpi_prs.azureml.submit import submission
from mpi_prs.core.errors import InputError, PipelineError, RunFailed, ScriptError
from mpi_prs.core.records import read_dataclass
from tests.support.azurite import ACCOUNT, KEY, Azurite
from tests.support.experiments import LINES, NAMES, WAITING, Lab, items, marked_processes
from tests.support.jobs import REPOSITORY, Job, wait_until


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    yield from marked_processes(tmp_path, monkeypatch)


@pytest.fixture
def lab(tmp_path: Path, processes: Job) -> Lab:
    return Lab(tmp_path, processes)


def wait_for_status(run: PipelineRun, *statuses: str, within: float = 60) -> str:
    wait_until(lambda: run.get_status() in statuses, within, run.get_status, pause=0.05)
    return run.get_status()


def at_work(run: PipelineRun, step: str = "waiting") -> bool:
    """Whether the script of a step has begun to work."""
    [step_run] = run.find_step_run(step)
    return "at work" in step_run.get_stdout_log()


def runner_pid(run: PipelineRun) -> int:
    record = read_dataclass(RunnerRecord, run.folder / "runner.json")
    assert record is not None
    return record.process.pid


def assert_only_this_test_lives(job: Job) -> None:
    wait_until(lambda: not job.processes().keys() - {os.getpid()}, 15, lambda: str(job.processes()))


# All goes well


def test_the_second_step_reads_what_the_first_has_written(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = PipelineData("first"), PipelineData("second")
    run = lab.submit(
        lab.step("names", NAMES, [lab.files()], first, process_count_per_node=2),
        lab.step("lines", LINES, [first.as_dataset()], second),
        tags={"who": "me"},
    )
    assert [step.name for step in run.get_steps()] == ["names", "lines"]
    assert run.wait_for_completion(show_output=True) == run.get_status() == "Finished"
    assert lab.rows(run, "names") == items()
    assert lab.rows(run, "lines") == [f"again {name}" for name in items()]
    said = capsys.readouterr().out
    assert f"submitted the pipeline run {run.id} of the experiment tests" in said
    assert "names: Finished  3 of 3 mini-batches (100 %)  6 items  complete" in said
    assert "items         6 ok, 0 failed" in said
    assert run.tags == {"who": "me"}
    again = PipelineRun(Experiment(lab.ws, "tests"), run.id)
    assert again.get_details()["status"] == again.status == "Completed"
    assert [step.get_status() for step in again.get_steps()] == ["Finished", "Finished"]
    assert "names" in again.find_step_run("names")[0].get_job_log()
    assert again.find_step_run("nothing") == []
    with pytest.raises(PipelineError, match=r"has no output 'firts'; did you mean 'first'\?"):
        again.find_step_run("names")[0].get_output_data("firts")


def test_a_run_goes_on_without_the_process_that_submitted_it(lab: Lab) -> None:
    lab.step("waiting", WAITING, [lab.files()])  # for its script
    program = (
        "import os, sys\n"
        "from tests.support.experiments import *\nfrom mpi_prs.azureml.definition.data import PipelineData\n"
        "lab = Lab.at(sys.argv[1])\n"
        "step = lab.step('waiting', WAITING, [lab.files()], PipelineData('out'), arguments=[str(lab.go)])\n"
        "run = lab.submit(step)\nprint(run.id, flush=True)\nos.kill(0, 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(lab.folder)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == -signal.SIGKILL
    run = PipelineRun(lab.experiment, done.stdout.split()[-1])
    wait_until(lambda: at_work(run), 60)
    assert run.get_status() == "Running"
    lab.go.touch()
    assert run.wait_for_completion(show_output=False) == "Finished"
    assert lab.rows(run, "waiting") == items()


def test_a_pipeline_is_submitted_again_with_other_data_and_sizes(lab: Lab) -> None:
    data = PipelineParameter("data", lab.files(6))
    size = PipelineParameter("size", "2")
    many = (
        "import os\n\ndef run(mini_batch):\n    return [f'{len(mini_batch)} {os.path.basename(mini_batch[0])}'] * 9\n"
    )
    step = lab.step("sizes", many, [DatasetConsumptionConfig("data", data)], PipelineData("out"), mini_batch_size=size)
    pipeline = Pipeline(lab.ws, steps=[step])
    run = lab.experiment.submit(pipeline)
    one = Dataset.File.from_files(path=str(lab.folder / "data" / "item-3.txt"), validate=False)
    other = lab.experiment.submit(pipeline, pipeline_parameters={"data": one, "size": "5"})
    assert run.wait_for_completion(show_output=False) == other.wait_for_completion(show_output=False) == "Finished"
    assert lab.rows(run, "sizes") == sorted([f"2 item-{n}.txt" for n in (0, 2, 4)] * 9)
    assert lab.rows(other, "sizes") == ["1 item-3.txt"] * 9
    with pytest.raises(PipelineError, match="size"):
        lab.experiment.submit(pipeline, pipeline_parameters={"sizes": "5"})


# Something fails


def test_a_failure_stops_what_needs_it_and_shows_the_users_traceback(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = """
        def run(mini_batch):
            if any("item-3" in path for path in mini_batch):
                raise ValueError("there is no three")
            return mini_batch
    """
    output = PipelineData("output")
    run = lab.submit(
        lab.step("bad", bad, [lab.files()], output),
        lab.step("needs", LINES, [output.as_dataset()], PipelineData("never")),
        lab.step("alone", NAMES, [lab.files()], PipelineData("rows")),
    )
    with pytest.raises(RunFailed) as failed:
        run.wait_for_completion(show_output=True)
    text = str(failed.value)
    assert "step bad: failed: " in text
    assert 'raise ValueError("there is no three")' in text
    assert "ValueError: there is no three" in text
    assert "item-2.txt and 1 more" in text
    assert run.get_status() == "Failed"
    assert [step.get_status() for step in run.get_steps()] == ["Failed", "Canceled", "Finished"]
    assert "needs: Canceled  not run, since it needs the step bad" in capsys.readouterr().out
    assert lab.rows(run, "alone") == items()
    assert "there is no three" in run.get_details()["error"]["error"]["message"]
    assert run.wait_for_completion(show_output=False, raise_on_error=False) == "Failed"
    assert "there is no three" in capsys.readouterr().out
    [step] = run.find_step_run("alone")
    assert step.wait_for_completion(show_output=False) == "Finished"


def test_an_init_that_fails_shows_its_traceback(lab: Lab) -> None:
    script = "def init():\n    raise RuntimeError('no model at hand')\n\ndef run(mini_batch):\n    return mini_batch\n"
    run = lab.submit(lab.step("loading", script, [lab.files()]))
    with pytest.raises(RunFailed, match=r"(?s)init\(\) failed.*Traceback.*RuntimeError: no model at hand"):
        run.wait_for_completion(show_output=False)


def test_what_the_program_itself_says_is_shown_when_there_is_no_traceback(lab: Lab, tmp_path: Path) -> None:
    first = PipelineData("first")
    other = Dataset.File.from_files(path=str(tmp_path / "made-later"), validate=False)
    second = lab.step("second", NAMES, [other])
    step = lab.step("first", NAMES, [lab.files()], first)
    second.run_after(step)
    run = lab.submit(step, second)
    with pytest.raises(RunFailed, match=r"(?s)step second: .*exit code 2.*made-later.* does not exist"):
        run.wait_for_completion(show_output=False)


# Cancelled, killed, resumed


def test_a_cancelled_run_leaves_no_process_and_resumes(lab: Lab) -> None:
    output = PipelineData("output")
    run = lab.submit(
        lab.step("waiting", WAITING, [lab.files()], output, arguments=[str(lab.go)], run_invocation_timeout=60),
        lab.step("lines", LINES, [output.as_dataset()], PipelineData("second")),
    )
    wait_until(lambda: at_work(run), 60)
    run.cancel()
    assert run.get_status() in ("CancelRequested", "Canceled")
    assert wait_for_status(run, "Canceled") == "Canceled"
    assert [step.get_status() for step in run.get_steps()] == ["Canceled", "Canceled"]
    assert_only_this_test_lives(lab.job)
    run.cancel()
    assert run.wait_for_completion(show_output=False) == "Canceled"
    lab.go.touch()
    run.resume()
    assert run.wait_for_completion(show_output=False) == "Finished"
    assert lab.rows(run, "lines") == [f"again {name}" for name in items()]
    with pytest.raises(PipelineError, match="has completed"):
        run.resume()


def test_when_the_runner_is_killed_the_step_ends_and_can_be_resumed(lab: Lab) -> None:
    run = lab.submit(
        lab.step("waiting", WAITING, [lab.files()], PipelineData("out"), arguments=[str(lab.go)]),
        lab.step("names", NAMES, [lab.files()], PipelineData("rows")),
    )
    wait_until(lambda: at_work(run), 60)
    os.kill(runner_pid(run), signal.SIGKILL)
    assert wait_for_status(run, "Failed") == "Failed"
    with pytest.raises(RunFailed, match="the process that ran the pipeline was lost"):
        run.wait_for_completion(show_output=False)
    run.resume()  # at once: what was at work is told to end in good order, and may take a while
    lab.go.touch()
    assert run.wait_for_completion(show_output=False) == "Finished"
    assert lab.rows(run, "waiting") == lab.rows(run, "names") == items()


def test_a_step_whose_mpi_is_killed_is_started_again(lab: Lab) -> None:
    script = """
        import os, signal, sys

        def run(mini_batch):
            if not os.path.exists(sys.argv[-1]):
                open(sys.argv[-1], "w").close()
                between = open(f"/proc/{os.getppid()}/stat").read()
                os.kill(int(between.rsplit(")", 1)[1].split()[1]), signal.SIGKILL)  # the worker's rank
            return [os.path.basename(path) for path in mini_batch]
    """
    run = lab.submit(lab.step("dying", script, [lab.files()], PipelineData("out"), arguments=[str(lab.go)]))
    assert run.wait_for_completion(show_output=False) == "Finished"
    assert lab.rows(run, "dying") == items()
    assert "starting it again" in (run.folder / "logs" / "runner.txt").read_text()


def test_a_step_can_be_cancelled_alone(lab: Lab) -> None:
    run = lab.submit(
        lab.step("waiting", WAITING, [lab.files()], PipelineData("out"), arguments=[str(lab.go)]),
        lab.step("later", NAMES, [lab.files()], PipelineData("never")),
        lab.step("names", NAMES, [lab.files()], PipelineData("rows")),
    )
    wait_until(lambda: at_work(run), 60)
    run.find_step_run("later")[0].cancel()
    lab.go.touch()
    assert run.wait_for_completion(show_output=False) == "Canceled"
    assert [step.get_status() for step in run.get_steps()] == ["Finished", "Canceled", "Finished"]


# Used again


def test_what_was_done_before_is_used_again_until_something_changes(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lab.files()
    first, second = PipelineData("first"), PipelineData("second")

    def steps(names: str = NAMES, **changes: object) -> list[object]:
        return [
            lab.step("names", names, [data], first, **changes),
            lab.step("lines", LINES, [first.as_dataset()], second),
        ]

    def reused(run: PipelineRun) -> list[bool]:
        return [step.is_reused for step in run.get_steps()]

    original = lab.experiment.submit(steps())
    assert original.wait_for_completion(show_output=False) == "Finished"
    assert reused(original) == [False, False]
    monkeypatch.setattr(LocalBackend, "start", lambda *_: None)  # from here on it is decided and not done
    capsys.readouterr()
    again = Experiment(lab.ws, "another").submit(steps())
    assert reused(again) == [True, True]
    assert again.wait_for_completion(show_output=False) == "Finished"
    assert lab.rows(again, "lines") == [f"again {name}" for name in items()]
    assert again.find_step_run("lines")[0].reused_from == original.find_step_run("lines")[0]
    assert again.find_step_run("lines")[0].properties["azureml.reusedrunid"] == original.get_steps()[1].id
    told = f"step names: reuses the output of the run {original.get_steps()[0].id} (experiment tests"
    assert told in capsys.readouterr().out
    assert told in (again.folder / "logs" / "submission.txt").read_text()

    assert reused(lab.experiment.submit(steps(), regenerate_outputs=True)) == [False, False]
    assert reused(lab.experiment.submit(steps(NAMES + "\n# a word"))) == [False, False]
    lab.step("names", NAMES, [data])
    assert reused(lab.experiment.submit(steps(allow_reuse=False))) == [False, False]
    assert reused(lab.experiment.submit(steps(mini_batch_size=3))) == [False, False]
    assert reused(lab.experiment.submit(steps(append_row_file_name="others.txt"))) == [False, False]
    other = lab.step("names", NAMES, [data], PipelineData("other"))
    assert reused(lab.submit(other)) == [False]

    path = lab.folder / "data" / "item-5.txt"
    before = path.stat()
    path.write_text("6\n")  # as long as before
    assert reused(lab.experiment.submit(steps())) == [False, False]
    path.write_text("5\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reused(lab.experiment.submit(steps())) == [True, True]  # as it was
    (lab.folder / "data" / "item-6.txt").write_text("6\n")
    assert reused(lab.experiment.submit(steps())) == [False, False]


def test_only_what_is_complete_and_still_there_is_used_again(lab: Lab) -> None:
    data = lab.files()

    def submit() -> PipelineRun:
        return lab.submit(lab.step("waiting", WAITING, [data], PipelineData("out"), arguments=[str(lab.go)]))

    def reuses(run: PipelineRun) -> bool:
        return run.get_steps()[0].is_reused

    first, second = submit(), submit()
    assert not reuses(second)  # since the first has not completed
    second.cancel()
    wait_for_status(second, "Canceled")
    lab.go.touch()
    assert first.wait_for_completion(show_output=False) == "Finished"
    again = submit()
    assert reuses(again)
    assert lab.rows(again, "waiting") == items()
    rows = Path(first.get_steps()[0].get_output_data("out").url, "rows.txt")
    content = rows.read_text()
    rows.write_text(content[:-1])  # somebody's editor, say
    cut = submit()
    assert not reuses(cut)
    assert cut.wait_for_completion(show_output=False) == "Finished"
    Path(cut.get_steps()[0].get_output_data("out").url, "rows.txt").unlink()
    rows.write_text(content)
    assert reuses(submit())
    rows.unlink()
    last = submit()
    assert not reuses(last)
    assert last.wait_for_completion(show_output=False) == "Finished"


# Submissions that fail


def test_a_mistake_is_found_before_anything_starts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalBackend, "start", lambda *_: pytest.fail("something was started"))
    empty = lab.folder / "empty"
    empty.mkdir()
    nothing = Dataset.File.from_files(path=str(empty), validate=False)
    for allow_reuse in (True, False):
        with pytest.raises(InputError, match="empty has no files"):
            lab.submit(lab.step("names", NAMES, [nothing], PipelineData("out"), allow_reuse=allow_reuse))
    [later, first] = lab.experiment.get_runs()
    for run in (first, later):
        assert run.get_status() == "Failed"
        assert "empty has no files" in run.get_details()["error"]["error"]["message"]
        assert run.get_steps() == []
        with pytest.raises(RunFailed, match="the submission has failed: the folder"):
            run.wait_for_completion(show_output=False)
        with pytest.raises(PipelineError, match="submit the pipeline again"):
            run.resume()
    with pytest.raises(PipelineError, match=r"Experiment\.submit takes a Pipeline, but got int"):
        lab.experiment.submit(3)
    with pytest.raises(PipelineError, match="there is no parameter 'pipeline_parameter'"):
        lab.submit(lab.step("names", NAMES, [lab.files()]), pipeline_parameter={})
    with pytest.raises(PipelineError, match="process_count_per_node: got 1000000, but this machine, on which"):
        lab.submit(lab.step("names", NAMES, [lab.files()], process_count_per_node=1_000_000))
    lab.step("broken", "def run(mini_batch:\n", [lab.files()])
    with pytest.raises(ScriptError, match=re.escape(f"{lab.source}/broken.py: the entry script has a syntax error")):
        lab.submit(lab.step("broken", "def run(mini_batch:\n", [lab.files()]))
    settings = lab.source / "parallel_run_step.settings.json"
    settings.write_text("{")
    with pytest.raises(PipelineError, match=re.escape(f"{settings}, line 1, column 2: not JSON")):
        lab.submit(lab.step("names", NAMES, [lab.files()]))
    settings.unlink()
    (lab.source / ".amlignore").write_text("names.py\n")
    with pytest.raises(PipelineError, match=r"names\.py is left out of the copy"):
        lab.submit(lab.step("names", NAMES, [lab.files()]))


def test_a_submission_that_breaks_off_leaves_a_run_that_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(submission, "_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.submit(lab.step("names", NAMES, [lab.files()]))
    [run] = lab.experiment.get_runs()
    assert run.get_status() == "Failed"
    assert "KeyboardInterrupt" in run.get_details()["error"]["error"]["message"]


def test_a_submitter_that_is_killed_leaves_a_run_that_says_so(lab: Lab) -> None:
    program = (
        "import sys\nfrom tests.support.experiments import *\n"
        "from mpi_prs.azureml.submit import submission\n"
        "submission._start = lambda *_: (print('here', flush=True), sys.stdin.read())\n"
        "lab = Lab.at(sys.argv[1])\n"
        "lab.submit(lab.step('names', NAMES, [lab.files()]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lab.folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as submitter:
        assert submitter.stdout is not None
        assert any(line == "here\n" for line in submitter.stdout)
        [run] = lab.experiment.get_runs()
        assert run.get_status() == "Preparing"
        submitter.kill()
    assert run.get_status() == "Failed"
    with pytest.raises(RunFailed, match="the submission was interrupted"):
        run.wait_for_completion(show_output=False)


def test_modules_in_the_submitters_folder_are_none_of_ours(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("yaml", "pydantic", "random", "mpi_prs"):
        (lab.folder / f"{name}.py").write_text("raise SystemExit('this is not the module')\n")
    monkeypatch.chdir(lab.folder)
    run = lab.submit(lab.step("names", NAMES, [lab.files()], PipelineData("out")))
    assert run.wait_for_completion(show_output=False) == "Finished"


def test_several_may_submit_at_once(lab: Lab) -> None:
    lab.go.touch()
    lab.step("names", NAMES, [lab.files()])
    program = (
        "import sys\nfrom tests.support.experiments import *\n"
        "from mpi_prs.azureml.definition.data import PipelineData\n"
        "lab = Lab.at(sys.argv[1])\n"
        "run = lab.submit(lab.step('names', NAMES, [lab.files()], PipelineData('out'), allow_reuse=False))\n"
        "print(run.wait_for_completion(show_output=False))\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(lab.folder)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for each in started:
        said, _ = each.communicate(timeout=120)
        assert said.splitlines()[-1] == "Finished", said
    runs = list(lab.experiment.get_runs())
    assert len({run.id for run in runs}) == 3
    for run in runs:
        assert lab.rows(run, "names") == items()


# How a step is started


def test_without_mpirun_a_step_runs_in_one_process(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_runner, "find_mpirun", lambda: None)
    monkeypatch.setattr(LocalBackend, "start", lambda *_: None)
    run = lab.submit(lab.step("names", NAMES, [lab.files()], PipelineData("out"), process_count_per_node=2))
    runner = local_runner.Runner(run.folder)
    runner.claim()
    other = [sys.executable, "-m", "mpi_prs.azureml.backends.local_runner", str(run.folder)]
    refused = subprocess.run(other, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"error: another process runs the pipeline run {run.id}" in refused.stderr
    try:
        assert runner.run() == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
    assert run.get_status() == "Finished"
    assert lab.rows(run, "names") == items()
    [step] = run.get_steps()
    assert "user processes: 2" in step.get_job_log()


def test_open_mpi_is_told_that_ranks_may_outnumber_cores(tmp_path: Path) -> None:
    for version, expected in (("mpirun (Open MPI) 5.0.1", True), ("HYDRA build details", False)):
        mpirun = tmp_path / "mpirun"
        mpirun.write_text(f"#!/bin/sh\necho '{version}'\n")
        mpirun.chmod(0o755)
        assert ("slot:OVERSUBSCRIBE" in local_runner._options_of(str(mpirun))) == expected


# Other places for outputs


def test_outputs_in_a_container_are_uploaded_and_read_from_there(lab: Lab, azurite: Azurite) -> None:
    azurite.container("pipeline-outputs", {})
    store = Datastore.register_azure_blob_container(
        lab.ws, "blobs", "pipeline-outputs", ACCOUNT, account_key=KEY, endpoint=azurite.account_url()
    )
    first, second = PipelineData("first", datastore=store), PipelineData("second", datastore=store)
    steps = [
        lab.step("names", NAMES, [lab.files()], first),
        lab.step("lines", LINES, [first.as_dataset()], second),
    ]
    run = lab.submit(*steps)
    assert run.wait_for_completion(show_output=False) == "Finished"
    data = run.find_step_run("lines")[0].get_output_data("second")
    assert data.datastore == store
    stored = azurite.read("pipeline-outputs", f"{data.path_on_datastore}/rows.txt").decode()
    assert sorted(stored.splitlines()) == lab.rows(run, "lines") == [f"again {name}" for name in items()]
    for path in lab.ws.layout.experiments.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    again = lab.submit(*steps)
    assert [step.is_reused for step in again.get_steps()] == [True, True]
    assert lab.rows(again, "lines") == [f"again {name}" for name in items()]
    with azurite.client() as client:
        client.get_blob_client("pipeline-outputs", f"{data.path_on_datastore}/rows.txt").delete_blob()
    once_more = lab.submit(*steps)
    assert [step.is_reused for step in once_more.get_steps()] == [True, False]
    assert once_more.wait_for_completion(show_output=False) == "Finished"


def test_an_output_may_have_a_fixed_place_and_become_a_dataset(lab: Lab) -> None:
    store = lab.ws.get_default_datastore()
    for count in (6, 4):
        for path in (lab.folder / "data").glob("*"):
            path.unlink()
        output = OutputFileDatasetConfig("names", (store, "results/latest")).register_on_complete("the-names")
        run = lab.submit(
            lab.step("names", NAMES, [lab.files(count)], output),
            lab.step("lines", LINES, [output.as_input("names")], PipelineData("lines")),
        )
        assert run.wait_for_completion(show_output=False) == "Finished"
        assert lab.rows(run, "names") == items(count)
        assert lab.rows(run, "lines") == [f"again {name}" for name in items(count)]
    assert run.get_status() == "Finished"
    dataset = lab.ws.datasets["the-names"]
    assert dataset.version == 2
    assert [Path(path).name for path in dataset.to_path()] == ["rows.txt"]

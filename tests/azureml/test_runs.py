"""Runs: what users say about them, from one process or from many, and what they find again."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpi_prs.azureml.backends import local_backend, slurm_backend
from mpi_prs.azureml.backends import run_status as states
from mpi_prs.azureml.backends.run_status import Blocked, RunStatus, overall
from mpi_prs.azureml.backends.runner_record import RunnerRecord, StepProgress
from mpi_prs.azureml.definition.data import PipelineData
from mpi_prs.azureml.experiment import Experiment
from mpi_prs.azureml.runs.run import PipelineRun, PortDataReference, Run, StepRun
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context import script_facts as facts
from mpi_prs.child.context.run import output_of
from mpi_prs.child.context.run_record import Output, RunRecord, new_id, utc_now
from mpi_prs.core.errors import PipelineError, RunFailed, WorkspaceError
from mpi_prs.core.process_mark import ProcessMark
from mpi_prs.core.records import from_json
from mpi_prs.monitor.status import Status
from mpi_prs.slurm.control import JobState
from mpi_prs.slurm.watch import Look
from tests.support.experiments import Lab, marked_processes


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(Workspace.create("ws", folder=tmp_path / "ws", show_output=False), "tests")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    for processes in marked_processes(tmp_path, monkeypatch):
        yield Lab(tmp_path, processes)


# What is said about a run


def test_metrics_are_put_together_as_azure_does(experiment: Experiment, tmp_path: Path) -> None:
    run = experiment.start_logging()
    run.log("one", 1)
    for loss in (0.5, np.float32(0.25), float("nan")):
        run.log("loss", loss)
    run.log_list("list", [1, 2])
    run.log("list", 3)
    run.log_list("empty", [])
    run.log_row("point", x=1, y="a")
    run.log_row("point", x=2, y="b")
    run.log_row("single", x=1)
    run.log_table("table", {"x": [1, np.int64(2)], "y": 3})
    (tmp_path / "plot.png").write_bytes(b"PNG")
    run.log_image("plot", str(tmp_path / "plot.png"))
    found = run.get_metrics()
    assert found["loss"][:2] == [0.5, 0.25]
    assert np.isnan(found["loss"][2])
    assert Path(found.pop("plot")).read_bytes() == b"PNG"
    del found["loss"]
    assert found == {
        "one": 1,
        "list": [1, 2, 3],
        "empty": [],
        "point": {"x": [1, 2], "y": ["a", "b"]},
        "single": {"x": 1},
        "table": {"x": [1, 2], "y": 3},
    }
    assert run.get_metrics("one") == {"one": 1}
    for value in ([1], {}, object()):
        with pytest.raises(WorkspaceError, match=f"a metric's value is a number.*got {type(value).__name__}"):
            run.log("bad", value)
    with pytest.raises(PipelineError, match="one of them"):
        run.log_image("plot")


class Figure:
    def savefig(self, path: str) -> None:
        Path(path).write_bytes(b"drawn")


def test_a_figure_is_kept_with_the_run(experiment: Experiment) -> None:
    run = experiment.start_logging()
    run.log_image("figure", plot=Figure())
    [name] = run.get_file_names()
    assert (run.folder / "artifacts" / name).read_bytes() == b"drawn"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(lambda run: run.remove_tags(5), "remove_tags: expected a key or .* but got 5", id="tags"),
        pytest.param(lambda run: run.download_file(5), "a run's file is a relative path .* but got 5", id="a file"),
        pytest.param(lambda run: run.download_file("a", 5), "output_file_path is the path", id="target"),
        pytest.param(lambda run: run.download_files(output_directory=5), "output_directory is the path", id="files"),
        pytest.param(lambda run: run.get_all_logs(5), "destination is the path", id="logs"),
        pytest.param(lambda run: run.log_image("a", 5), "log_image: path is the path", id="an image"),
    ],
)
def test_wrong_types_are_named(experiment: Experiment, call: Callable[[Run], object], words: str) -> None:
    with pytest.raises(WorkspaceError, match=words):
        call(experiment.start_logging())


def test_an_output_is_asked_for_by_its_name_alone() -> None:
    rows = Output("store", "azureml/1/rows", "/data/azureml/1/rows")
    assert output_of({"rows": rows}, "rows") == ("rows", rows)
    assert output_of({"rows": rows}, ["rows"]) is None


def test_tags_can_change_and_properties_cannot(experiment: Experiment) -> None:
    run = experiment.start_logging(display_name="a try")
    run.tag("a", 1)
    run.set_tags({"b": "2", "c": True})
    run.tag("a", 3)
    assert run.remove_tags("b") == run.tags == run.get_tags() == {"a": "3", "c": "True"}
    run.add_properties({"p": "q"})
    run.add_properties({"p": "q", "r": 1})
    assert run.get_properties() == {"p": "q", "r": "1"}
    with pytest.raises(WorkspaceError, match="property 'p' is 'q', and properties cannot be changed"):
        run.add_properties({"p": "other"})
    assert run.name == run.display_name == "a try"
    run.display_name = "another"
    assert Run.get(experiment.workspace, run.id).display_name == "another"


def _log_much(folder: str, number: int) -> None:
    for value in range(300):
        facts.add(Path(folder), facts.METRIC, **facts.scalar("n", number * 1000 + value))
    facts.add(Path(folder), facts.TAGS, set={f"process {number}": "done"})


def test_many_processes_log_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_log_much, args=(str(tmp_path / "facts"), number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = facts.read(tmp_path / "facts")
    assert sorted(found.metrics["n"]) == [number * 1000 + value for number in range(4) for value in range(300)]
    for number in range(4):  # of one process in its order
        mine = [value for value in found.metrics["n"] if value // 1000 == number]
        assert mine == sorted(mine)
    assert len(found.tags) == 4
    assert len(os.listdir(tmp_path / "facts")) == 4


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    facts.add(tmp_path, facts.METRIC, **facts.scalar("n", 1))
    [file] = tmp_path.iterdir()
    line = json.dumps({"time": 1, "kind": "of a later version", "name": 3})
    file.write_bytes(file.read_bytes() + line.encode() + b"\n" + b'{"time": 5, "kind": "metr')
    assert facts.read(tmp_path).metrics == {"n": 1}
    with pytest.raises(WorkspaceError, match=f"cannot write to {file}/x: Not a directory"):
        facts.add(file / "x", facts.TAGS, set={})


# Runs of one's own


def test_a_run_of_ones_own_ends_as_it_is_told(experiment: Experiment) -> None:
    with experiment.start_logging() as run:
        assert run.get_status() == run.status == "Running"
    assert run.get_status() == "Completed"
    assert run.wait_for_completion()["endTimeUtc"] >= run.get_details()["startTimeUtc"]
    with pytest.raises(ValueError, match="broken"), experiment.start_logging() as failed:
        raise ValueError("broken")
    with pytest.raises(RunFailed, match="ValueError: broken"):
        failed.wait_for_completion()
    assert failed.wait_for_completion(raise_on_error=False)["status"] == "Failed"
    other = experiment.start_logging()
    other.cancel()
    assert other.status == "Canceled"


def test_children_belong_to_their_parent(experiment: Experiment) -> None:
    parent = experiment.start_logging()
    first, second = parent.child_run("first"), parent.child_run(run_id="mine")
    grandchild = first.child_run("grandchild")
    second.log("n", 2)
    grandchild.log("m", 1)
    assert (first.parent, second.id, grandchild.parent) == (parent, "mine", first)
    assert set(parent.get_children()) == {first, second}
    assert set(parent.get_children(recursive=True)) == {first, second, grandchild}
    assert parent.get_metrics(recursive=True) == {"n": 2, "m": 1}
    assert list(experiment.get_runs()) == [parent]
    assert set(experiment.get_runs(include_children=True)) == {parent, first, second, grandchild}
    second.complete()
    assert list(parent.get_children(status="Completed")) == [second]
    with pytest.raises(WorkspaceError, match="there is a run 'mine' already"):
        parent.child_run(run_id="mine")


def test_runs_are_found_again(experiment: Experiment) -> None:
    ws = experiment.workspace
    first, second = experiment.start_logging(), experiment.start_logging()
    second.tag("a", "b")
    other = Experiment(ws, "other").start_logging()
    assert [run.number for run in (first, second)] == [1, 2]
    assert list(experiment.get_runs()) == [second, first]
    assert list(experiment.get_runs(tags={"a": "b"})) == list(experiment.get_runs(tags="a")) == [second]
    assert list(experiment.get_runs(type="azureml.PipelineRun")) == []
    assert list(Run.list(experiment, status="Failed")) == []
    assert Run.get(ws, other.id) == other
    assert sorted(ws.experiments) == [each.name for each in Experiment.list(ws)] == ["other", "tests"]
    with pytest.raises(WorkspaceError, match=f"there is no run '{first.id}x' .*did you mean '{first.id}'"):
        Run(experiment, f"{first.id}x")
    with pytest.raises(WorkspaceError, match="there is no run 'nothing' in this workspace"):
        Run.get(ws, "nothing")
    with pytest.raises(KeyError, match="did you mean 'tests'"):
        ws.experiments["test"]
    with pytest.raises(AttributeError, match="mpi_prs's Run has no 'submit_child'; put the work into a step"):
        _ = first.submit_child
    (first.folder / "run.json").write_text('{"id": 3}')
    with pytest.raises(WorkspaceError, match=r"run\.json lacks something"):
        Run(experiment, first.id)


def test_ids_sort_by_time_and_are_many(experiment: Experiment) -> None:
    ids = [new_id(utc_now()) for _ in range(100)]
    assert len(set(ids)) == 100
    assert [each[:22] for each in ids] == sorted(each[:22] for each in ids)
    with pytest.raises(TypeError, match="no parameter 'nothing'"):
        Experiment(experiment.workspace, "x", nothing=1)


# Files


def test_what_cannot_be_kept_is_named(experiment: Experiment) -> None:
    run = experiment.start_logging()
    for mistake, words in (
        (lambda: run.log_list("x", 5), "the metric 'x' is a list of values here, but got int"),
        (lambda: run.log_table("x", [1]), "the metric 'x' is a dict of columns here"),
        (lambda: run.upload_file("x", 5), "the file is the path of a file"),
        (lambda: run.upload_folder("x", None), "path is the path of a file or folder"),
        (lambda: Run.get("ws", run.id), "expected a Workspace"),
        (lambda: Workspace.create("x", folder=5), "folder is the path of a file or folder"),
        (lambda: Workspace.from_config(5), "path is the path of a file or folder"),
        (lambda: experiment.workspace.write_config(5), "path is the path of a file or folder"),
    ):
        with pytest.raises(WorkspaceError, match=words):
            mistake()


def test_files_are_kept_and_found(experiment: Experiment, tmp_path: Path) -> None:
    run = experiment.start_logging()
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "sub" / "b.txt").write_text("b")
    run.upload_file("outputs/a.txt", str(source / "a.txt"))
    run.upload_file("stream.bin", io.BytesIO(b"bytes"))
    run.upload_file("text.txt", io.StringIO("text"))
    run.upload_folder("folder", str(source))
    run.upload_files(["x", "y"], [str(source / "a.txt"), str(source / "sub" / "b.txt")])
    run.upload_file("x", str(source / "sub" / "b.txt"))  # in place of the one before
    expected = ["folder/a.txt", "folder/sub/b.txt", "outputs/a.txt", "stream.bin", "text.txt", "x", "y"]
    assert run.get_file_names() == expected
    target = tmp_path / "target"
    run.download_file("x", str(target / "new.txt"))
    run.download_file("outputs/a.txt", str(target))
    run.download_files("folder/", str(target), append_prefix=False)
    run.download_files(output_directory=str(target / "all"))
    found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found["new.txt"] == found["all/x"] == "b"
    assert found["a.txt"] == found["all/outputs/a.txt"] == "a"
    assert found["sub/b.txt"] == "b"
    assert sorted(name[4:] for name in found if name.startswith("all/")) == expected
    with pytest.raises(WorkspaceError, match=r"has no file 'z'"):
        run.download_file("z")
    for name in ("../x", "", "/"):
        with pytest.raises(WorkspaceError, match="the name of a run's file"):
            run.upload_file(name, str(source / "a.txt"))
    with pytest.raises(WorkspaceError, match=r"cannot copy .*nothing to .*: No such file"):
        run.upload_file("z", str(source / "nothing"))
    with pytest.raises(WorkspaceError, match="2 names and 1 paths"):
        run.upload_files(["a", "b"], ["c"])
    model = run.register_model("a-model", "folder", tags={"k": "v"})
    assert model.version == 1
    assert experiment.workspace.models["a-model"].tags == {"k": "v"}
    with pytest.raises(WorkspaceError, match="upload_file"):
        run.register_model("b-model")


# In entry scripts


SCRIPT = """
import os, sys
from azureml.core import Run, Workspace

run_of_script = Run.get_context()

def init():
    run_of_script.tag("initialised", os.getpid())
    assert run_of_script.experiment.name == "tests"

def run(mini_batch):
    run_of_script.log("items", len(mini_batch))
    run_of_script.log_row("rows", first=os.path.basename(mini_batch[0]))
    run_of_script.upload_file("outputs/" + os.path.basename(mini_batch[0]), mini_batch[0])
    with run_of_script.child_run("child of " + os.path.basename(mini_batch[0])) as child:
        child.log("inside", 1)
    names = sorted(run_of_script.input_datasets)
    reference = open(run_of_script.input_datasets["reference"] + "/item-0.txt").read().strip()
    print(run_of_script.parent.id, flush=True)
    return [f"{names} {reference} {run_of_script.id}" for _ in mini_batch]
"""


def test_entry_scripts_find_their_run(lab: Lab, tmp_path: Path) -> None:
    reference = lab.files(1, "reference").as_named_input("reference").as_mount()
    step = lab.step(
        "score",
        SCRIPT,
        [lab.files().as_named_input("data")],
        PipelineData("out"),
        process_count_per_node=2,
        side_inputs=[reference],
    )
    run = lab.submit(step)
    assert run.wait_for_completion(show_output=False) == "Finished"
    [step_run] = run.get_steps()
    assert lab.rows(run, "score") == [f"['data', 'reference'] 0 {step_run.id}"] * 6
    metrics = step_run.get_metrics()
    assert metrics["items"] == [2, 2, 2]
    assert sorted(metrics["rows"]["first"]) == ["item-0.txt", "item-2.txt", "item-4.txt"]
    assert run.get_metrics(recursive=True)["items"] == [2, 2, 2]
    assert "initialised" in step_run.tags
    children = list(step_run.get_children())
    assert sorted(child.name for child in children) == [f"child of item-{n}.txt" for n in (0, 2, 4)]
    assert {child.get_status() for child in children} == {"Completed"}
    names = step_run.get_file_names()
    assert [name for name in names if name.startswith("outputs/")] == [f"outputs/item-{n}.txt" for n in (0, 2, 4)]
    assert "logs/console.txt" in names
    assert run.id in step_run.get_stdout_log()
    copied = step_run.get_all_logs(str(tmp_path / "logs"))
    assert any(name.endswith("job_result.txt") for name in copied)
    assert all(os.path.isfile(name) for name in copied)
    assert "items         6 ok" in step_run.get_details_with_logs()["logFiles"]["logs/job_result.txt"]
    assert isinstance(step_run.get_output_data("out"), PortDataReference)
    assert isinstance(Run.get(lab.ws, step_run.id), StepRun)
    assert isinstance(Run.get(lab.ws, run.id), PipelineRun)
    assert StepRun(lab.experiment, step_run.id, run.id) == step_run
    with pytest.raises(WorkspaceError, match="is no part of the run x"):
        StepRun(lab.experiment, step_run.id, "x")


def test_outside_a_run_everything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.get_context()
    run.log("loss", 0.5)
    run.log("loss", 0.25)
    run.log_row("row", x=1)
    run.tag("a", 1)
    with run.child_run("child") as child:
        child.log_list("list", [1, 2])
    run.upload_file("a", "b")
    run.complete()
    assert run.id.startswith("OfflineRun_")
    assert run.get_metrics() == {"loss": [0.5, 0.25], "row": {"x": 1}}
    assert run.tags == {"a": "1"}
    said = capsys.readouterr().out
    assert "Attempted to log scalar metric loss:\n0.5\n" in said
    assert "Attempted to log list metric list:\n[1, 2]\n" in said
    with pytest.raises(AttributeError, match="this process belongs to no run"):
        _ = run.experiment
    with pytest.raises(PipelineError, match="allow_offline is False"):
        Run.get_context(allow_offline=False)


# Where steps and pipelines stand

NOT_STARTED, QUEUED, RUNNING = states.NOT_STARTED, states.QUEUED, states.RUNNING
COMPLETED, FAILED, CANCELED = states.COMPLETED, states.FAILED, states.CANCELED


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([COMPLETED, COMPLETED], COMPLETED),
        ([COMPLETED, FAILED], FAILED),
        ([FAILED, CANCELED], FAILED),
        ([COMPLETED, CANCELED], CANCELED),
        ([NOT_STARTED, NOT_STARTED], NOT_STARTED),
        ([QUEUED, NOT_STARTED], QUEUED),
        ([COMPLETED, NOT_STARTED], RUNNING),
        ([states.PREPARING, QUEUED], RUNNING),
        ([FAILED, RUNNING], RUNNING),
        ([states.CANCEL_REQUESTED, CANCELED], states.CANCEL_REQUESTED),
    ],
)
def test_a_pipeline_stands_as_its_steps_do(steps: list[str], expected: str) -> None:
    assert overall([RunStatus(step) for step in steps])[0] == expected


STEP = RunRecord("s", "e", "azureml.StepRun", "step", "2020-01-01T00:00:00+00:00", parent="p")
DEAD = RunnerRecord(ProcessMark("elsewhere", 1, 1, ""), 0.0)
WAITS, NEVER = Blocked("first", for_good=False), Blocked("first", for_good=True)


def status(phase: str, exit_code: int | None, started: str = "2020-01-01T00:00:00+00:00") -> Status:
    numbers = dict.fromkeys([name for name, kind in Status.__annotations__.items() if kind == "int"], 0)
    return Status(
        **numbers,  # type: ignore[arg-type]
        phase=phase,
        reason="",
        mini_batches_per_second=None,
        items_per_second=None,
        eta_seconds=None,
        elapsed_seconds=0.0,
        benched_nodes=[],
        output="",
        started=started,
        updated=started,
        host="",
        slurm_job_id=None,
        exit_code=exit_code,
    )


def runner(progress: StepProgress | None) -> RunnerRecord:
    return RunnerRecord(DEAD.process, 0.0, steps={} if progress is None else {"s": progress})


@pytest.mark.parametrize(
    ("progress", "alive", "engine", "cancelled", "blocked", "expected"),
    [
        (None, True, None, False, None, NOT_STARTED),
        (None, True, None, False, WAITS, NOT_STARTED),
        (None, True, None, False, NEVER, CANCELED),
        (StepProgress(), True, None, False, None, states.PREPARING),
        (StepProgress(), True, status("running", None), False, None, RUNNING),
        (StepProgress(began=2e9), True, status("drained", 75), False, None, states.PREPARING),
        (StepProgress(began=1e9), True, status("complete", 0), False, None, RUNNING),
        (StepProgress(), True, status("running", None), True, None, states.CANCEL_REQUESTED),
        (StepProgress(0), True, status("complete", 0), False, None, COMPLETED),
        (StepProgress(0), True, status("complete", 0), True, None, COMPLETED),
        (StepProgress(1), True, status("aborted", 1), False, None, FAILED),
        (StepProgress(2), True, None, False, None, FAILED),
        (StepProgress(75), False, status("drained", 75), True, None, CANCELED),
        (StepProgress(1, "not run"), False, None, False, None, CANCELED),
        (StepProgress(), False, status("running", None), False, None, FAILED),
        (StepProgress(), False, status("running", None), True, None, CANCELED),
        (StepProgress(), False, status("complete", 0), False, None, COMPLETED),
        (None, False, None, False, WAITS, FAILED),
        (None, False, None, False, NEVER, CANCELED),
    ],
)
def test_a_step_here_stands_as_its_runner_says(
    progress: StepProgress | None,
    alive: bool,
    engine: Status | None,
    cancelled: bool,
    blocked: Blocked | None,
    expected: str,
) -> None:
    found = local_backend.standing_of(STEP, runner(progress), alive, engine, cancelled, blocked, False)
    assert found.state == expected


def job(state: str) -> JobState:
    return JobState(state, "", "", True, True, 0, 0)


@pytest.mark.parametrize(
    ("look", "cancelled", "expected"),
    [
        (Look(None, "pending", False, None, job("PENDING")), False, QUEUED),
        (Look(None, "pending", False, None, job("PENDING")), True, states.CANCEL_REQUESTED),
        (Look(None, "running", False, None, job("RUNNING")), False, states.PREPARING),
        (Look(status("running", None), "", False), False, RUNNING),
        (Look(status("running", None), "", False, None, job("RUNNING")), False, RUNNING),
        (Look(status("drained", 75), "requeued", False, None, job("PENDING")), False, QUEUED),
        (Look(None, "Slurm does not answer", False), False, QUEUED),
        (Look(status("complete", 0), "", True, 0), True, COMPLETED),
        (Look(None, "completed", True, 0, job("COMPLETED")), False, COMPLETED),
        (Look(status("aborted", 1), "", True, 1), False, FAILED),
        (Look(None, "timeout", True, 75, job("TIMEOUT")), False, FAILED),
        (Look(None, "cancelled", True, 75, job("CANCELLED")), False, CANCELED),
        (Look(None, "not known any more", True, None), True, CANCELED),
        (Look(None, "not known any more", True, None), False, FAILED),
    ],
)
def test_a_step_on_slurm_stands_as_its_job_does(look: Look, cancelled: bool, expected: str) -> None:
    assert slurm_backend.standing_of(look, cancelled).state == expected


def test_a_process_is_known_by_its_start() -> None:
    mine = ProcessMark.of_this_process()
    assert mine.is_alive() is True
    values: dict[str, Any] = vars(mine)
    assert from_json(ProcessMark, values) == mine
    assert from_json(ProcessMark, {**values, "started": mine.started + 1}).is_alive() is False
    assert from_json(ProcessMark, {**values, "boot": "another"}).is_alive() is False
    assert from_json(ProcessMark, {**values, "host": "elsewhere"}).is_alive() is None
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        pass
    assert from_json(ProcessMark, {**values, "pid": other.pid}).is_alive() is False

"""Pipelines on a real Slurm: a batch job for each step, and nobody who stays behind."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpi_prs.azureml.backends import run_status as standing
from mpi_prs.azureml.backends import slurm_backend
from mpi_prs.azureml.backends.slurm_backend import SlurmAnswers, SlurmBackend
from mpi_prs.azureml.compute.target import AmlCompute, ComputeTarget
from mpi_prs.azureml.definition.data import PipelineData
from mpi_prs.azureml.runs.run import PipelineRun, StepRun
from mpi_prs.child.context.run_record import write_record
from mpi_prs.core.errors import PipelineError, RunFailed, SlurmError
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.slurm.control import JobState
from mpi_prs.slurm.job_record import submitted_job
from tests.support.experiments import LINES, NAMES, WAITING, Lab, items, marked_processes
from tests.support.jobs import Job, wait_until
from tests.support.slurm_cluster import SlurmCluster


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    yield from marked_processes(tmp_path, monkeypatch)


@pytest.fixture
def lab(tmp_path: Path, processes: Job, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Lab:
    for name, value in slurm.full_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm_backend, "_patience", SlurmAnswers())
    return Lab(tmp_path, processes, backend="slurm")


def job_of(step: StepRun) -> int:
    job_id = submitted_job(RunDirectory(Path(step._part.folder)))
    assert job_id is not None
    return int(job_id)


def at_work(step: StepRun) -> bool:
    return "at work" in step.get_stdout_log()


def test_the_second_job_waits_for_the_first_and_reads_what_it_has_written(
    lab: Lab, slurm: SlurmCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = PipelineData("first"), PipelineData("second")
    waiting = lab.step(
        "waiting", WAITING, [lab.files()], first, arguments=[str(lab.go)], node_count=2, process_count_per_node=2
    )
    run = lab.submit(waiting, lab.step("lines", LINES, [first.as_dataset()], second))
    [one, two] = run.get_steps()
    assert slurm.show("job", job_of(two))["Dependency"] == f"afterok:{job_of(one)}(unfulfilled)"
    wait_until(lambda: at_work(one), 60)
    assert run.get_status() == one.get_status() == "Running"
    assert two.get_status() == "NotStarted"
    lab.go.touch()
    assert run.wait_for_completion(show_output=True) == "Finished"
    assert lab.rows(run, "waiting") == items()
    assert lab.rows(run, "lines") == [f"again {name}" for name in items()]
    said = capsys.readouterr().out
    assert "lines: NotStarted  waits for the step waiting" in said
    assert "waiting: Finished  3 of 3 mini-batches (100 %)  6 items  complete" in said
    slurm.wait_gone(job_of(two))
    assert [step.get_status() for step in run.get_steps()] == ["Finished", "Finished"]
    assert one.get_details()["target"] == "cpucluster"
    assert "user processes: 4" in one.get_job_log()


def test_a_failed_step_stops_what_needs_it_alone(lab: Lab, slurm: SlurmCluster) -> None:
    bad = "def run(mini_batch):\n    raise ValueError('there is no three')\n"
    output = PipelineData("output")
    run = lab.submit(
        lab.step("bad", bad, [lab.files()], output),
        lab.step("needs", LINES, [output.as_dataset()], PipelineData("never")),
        lab.step("alone", NAMES, [lab.files()], PipelineData("rows")),
    )
    with pytest.raises(RunFailed, match=r"(?s)step bad: failed.*ValueError: there is no three"):
        run.wait_for_completion(show_output=False)
    assert [step.get_status() for step in run.get_steps()] == ["Failed", "Canceled", "Finished"]
    assert lab.rows(run, "alone") == items()
    assert slurm.wait_end(job_of(run.find_step_run("needs")[0])) == "CANCELLED"


def test_a_cancelled_run_stays_cancelled_and_resumes(lab: Lab, slurm: SlurmCluster) -> None:
    output = PipelineData("output")
    run = lab.submit(
        lab.step("waiting", WAITING, [lab.files()], output, arguments=[str(lab.go)]),
        lab.step("lines", LINES, [output.as_dataset()], PipelineData("second")),
    )
    [one, two] = run.get_steps()
    wait_until(lambda: at_work(one), 60)
    run.cancel()
    assert run.get_status() in ("CancelRequested", "Canceled")
    jobs = [job_of(one), job_of(two)]
    for job in jobs:
        slurm.wait_gone(job)
        assert slurm.state(job) == "CANCELLED"
    assert run.wait_for_completion(show_output=False) == "Canceled"
    assert [step.get_status() for step in run.get_steps()] == ["Canceled", "Canceled"]
    lab.go.touch()
    run.resume()
    assert run.wait_for_completion(show_output=False) == "Finished"
    assert min(job_of(one), job_of(two)) > max(jobs)
    assert lab.rows(run, "lines") == [f"again {name}" for name in items()]


def test_why_a_job_waits_in_the_queue_is_told_with_one_question_in_ten_seconds(
    lab: Lab, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    from mpi_prs.slurm import control

    original: Callable[[str], JobState | None] = control.job_state

    def ask(job_id: str) -> JobState | None:
        asked.append(job_id)
        return original(job_id)

    monkeypatch.setattr(slurm_backend, "job_state", ask)
    lab.ws.update_settings(slurm={"extra": ["--hold"]})
    steps = [lab.step(f"step-{n}", NAMES, [lab.files()], PipelineData(f"out_{n}")) for n in range(3)]
    run = lab.submit(*steps)
    assert run.wait_for_completion(show_output=True, timeout_seconds=1.5) == "Queued"
    said = capsys.readouterr().out
    for number, step in enumerate(run.get_steps()):
        assert f"step-{number}: Queued  Slurm job {job_of(step)}: pending (JobHeldUser)" in said
    assert "waited 1.5 s for the run" in said
    assert len(asked) == 3  # once for each job, and then not again for a while
    run.cancel()
    for step in run.get_steps():
        assert slurm.wait_end(job_of(step)) == "CANCELLED"


def test_a_submission_that_slurm_refuses_half_way_is_taken_back(lab: Lab, slurm: SlurmCluster) -> None:
    output = PipelineData("output")
    lab.ws.update_settings(vm_sizes={"*": {}, "none": {"partition": "nowhere"}}, slurm={"extra": ["--hold"]})
    ComputeTarget.create(lab.ws, "nowhere", AmlCompute.provisioning_configuration(vm_size="none"))
    refused = lab.step("refused", LINES, [output.as_dataset()], PipelineData("never"), compute_target="nowhere")
    first = lab.step("first", NAMES, [lab.files()], output)
    with pytest.raises(SlurmError, match="the job has not been submitted"):
        lab.submit(first, refused)
    [run] = lab.experiment.get_runs()
    assert run.get_status() == "Failed"
    assert "the job has not been submitted" in run.get_details()["error"]["error"]["message"]
    [first_run] = run.find_step_run("first")
    assert slurm.wait_end(job_of(first_run)) == "CANCELLED"


# Without a cluster


def test_without_sbatch_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    lab = Lab(tmp_path, Job(tmp_path, []), backend="slurm")
    with pytest.raises(PipelineError, match=r"there is no sbatch .* ws\.update_settings\(backend=\"local\"\)"):
        lab.submit(lab.step("names", NAMES, [lab.files()]))
    assert list(lab.experiment.get_runs()) == []


def test_a_busy_controller_is_asked_in_turn() -> None:
    now = [0.0]
    asked = []

    def ask(job_id: str) -> JobState:
        asked.append((now[0], job_id))
        over = job_id == "1" and now[0] > 25
        return JobState("COMPLETED" if over else "PENDING", "", "", True, True, 0, 0)

    patience = SlurmAnswers(ask, lambda: now[0])
    for second in range(60):
        now[0] = float(second)
        for job_id in ("1", "2", "3"):
            patience(job_id)
    assert asked[:3] == [(0.0, "1"), (0.0, "2"), (0.0, "3")]
    assert [second for second, _ in asked[3:]] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert [job_id for _, job_id in asked[3:]] == ["1", "2", "3", "1", "2"]


def test_what_was_never_handed_in_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path, Job(tmp_path, []), backend="slurm")
    monkeypatch.setattr(SlurmBackend, "check", lambda *_: None)
    monkeypatch.setattr(SlurmBackend, "start", lambda *_: None)
    run: PipelineRun = lab.submit(lab.step("names", NAMES, [lab.files()], PipelineData("out")))
    [step] = run._pipeline_look().steps
    assert step.standing.state == standing.NOT_STARTED
    record, part = run._record, run._record.pipeline
    assert part is not None

    dead = dataclasses.replace(part.submitter, started=1)
    write_record(
        lab.ws.layout,
        dataclasses.replace(record, pipeline=dataclasses.replace(part, state="submitting", submitter=dead)),
    )
    assert run.get_status() == "Failed"
    with pytest.raises(RunFailed, match="never submitted to Slurm: the submission was interrupted"):
        run.wait_for_completion(show_output=False)

"""What a run of the SDK is, in its ``run.json``, and every path of its folder.

::

    experiments/EXPERIMENT/ID/           a pipeline run, a step run, or a run of the user's own
        run.json                         what it is; where it stands is read from what the engine and the backend write
        job.yaml                         of a step: the job config
        output/                          of a step whose output goes to a blob container: what is to be uploaded
        logs/                            what happened at submission, and what the step's processes have printed
        facts/  artifacts/               what users log, and the files that they upload
        runner.json  cancelled           see local_runner.py and standing.py

Standard library only, and for Python 3.7 as well: entry scripts import this by way of ``Run.get_context()``.
"""

from __future__ import annotations

import dataclasses
import datetime
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.process_mark import ProcessMark
from mpi_prs.core.records import from_json, names_of, read_json, write_json
from mpi_prs.core.words import near

PIPELINE = "azureml.PipelineRun"
STEP = "azureml.StepRun"
OWN = "azureml.Run"
"""The kinds of runs: of a pipeline, of a step, and of the user's own, without a job behind it."""

SUBMITTING = "submitting"
SUBMITTED = "submitted"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run.

    Attributes:
        root: its folder.
    """

    root: Path

    @property
    def description(self) -> Path:
        """JSON: what the run is."""
        return self.root / "run.json"

    @property
    def job(self) -> Path:
        """YAML: the job config of a step."""
        return self.root / "job.yaml"

    @property
    def output(self) -> Path:
        """The output folder of a step whose output is uploaded."""
        return self.root / "output"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def submission_log(self) -> Path:
        """Text: what was found and decided at submission."""
        return self.logs / "submission.txt"

    @property
    def console_log(self) -> Path:
        """Text: what a step's launcher and ranks have printed, where no Slurm keeps that."""
        return self.logs / "console.txt"

    @property
    def runner(self) -> Path:
        """JSON: how far the process has come that runs a pipeline on this machine."""
        return self.root / "runner.json"

    @property
    def runner_log(self) -> Path:
        """Text: what that process has to say."""
        return self.logs / "runner.txt"

    @property
    def runner_lock(self) -> Path:
        """Held by that process."""
        return self.root / ".runner.lock"

    @property
    def cancelled(self) -> Path:
        """There as long as somebody wants the run to stop."""
        return self.root / "cancelled"

    @property
    def facts(self) -> Path:
        """JSON lines, a file for each process that has something to say about the run."""
        return self.root / "facts"

    @property
    def artifacts(self) -> Path:
        """Files that were uploaded to the run."""
        return self.root / "artifacts"


@dataclass(frozen=True)
class Registration:
    """What an output becomes when its run has completed: a version of a dataset.

    Attributes:
        name, description, tags: of the dataset.
        definition: what it is.
    """

    name: str
    description: str
    tags: dict[str, str]
    definition: dict[str, Any]


@dataclass(frozen=True)
class Output:
    """An output of a step.

    Attributes:
        datastore: name of the datastore.
        path: path on it.
        url: its folder there, as path or URL.
        pipeline_name: its name as an output of the pipeline; empty: it has none.
        registration: the dataset that it becomes; ``None``: none.
    """

    datastore: str
    path: str
    url: str
    pipeline_name: str = ""
    registration: Registration | None = None


@dataclass(frozen=True)
class Reused:
    """The earlier step run whose output is used instead."""

    experiment: str
    run_id: str


@dataclass(frozen=True)
class StepPart:
    """What a step run is.

    Attributes:
        needs: ids of the step runs that must have completed before.
        folder: the job's output folder, absolute; of a reused step that of the earlier run.
        outputs: name → output.
        rows: name of the file with the rows; ``None``: there is none.
        compute: name of the compute target; empty: none was named.
        nodes, processes: of the job: nodes, and user processes on each.
        snapshot: digest of the code.
        reused: whose output is used; ``None``: the step runs itself.
    """

    needs: list[str]
    folder: str
    outputs: dict[str, Output]
    rows: str | None
    compute: str
    nodes: int
    processes: int
    snapshot: str
    reused: Reused | None = None


@dataclass(frozen=True)
class PipelinePart:
    """What a pipeline run is.

    Attributes:
        backend: ``slurm`` or ``local``.
        steps: ids of its step runs, each after those that it needs.
        state: ``submitting`` or ``submitted``.
        submitter: the process that submits it.
        problem: why the submission failed; empty: it has not.
        parameters: pipeline parameter → value, as text.
    """

    backend: str
    steps: list[str]
    state: str
    submitter: ProcessMark
    problem: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """The content of ``run.json``.

    Attributes:
        id: unique in the workspace; ids sort by time.
        experiment: its name.
        kind: ``azureml.PipelineRun``, ``azureml.StepRun`` or ``azureml.Run``.
        name: of the step, or what the user calls the run.
        parent: id of the run that it is a part of; ``None``: of none.
        created: ISO 8601, UTC.
        tags, properties: those that it began with.
    """

    id: str
    experiment: str
    kind: str
    name: str
    created: str
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    pipeline: PipelinePart | None = None
    step: StepPart | None = None


def new_id(now: datetime.datetime) -> str:
    """An id for a run that is made now: ``20201018-153012-482915-9f3a``, in UTC."""
    return f"{now.astimezone(datetime.timezone.utc):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"


def utc_now() -> datetime.datetime:
    """The time, with its zone."""
    return datetime.datetime.now(datetime.timezone.utc)


def write_record(layout: WorkspaceFolder, record: RunRecord) -> RunFolder:
    """Make or replace the ``run.json`` of a run; returns its folder. Raises WorkspaceError."""
    data = {key: value for key, value in dataclasses.asdict(record).items() if value is not None}
    path = layout.run_description(record.experiment, record.id)
    write_json(path, data)
    return RunFolder(path.parent)


def read_record(layout: WorkspaceFolder, experiment: str, run_id: str) -> RunRecord:
    """What a run is.

    Raises:
        WorkspaceError: there is no such run (names near ones), or its description is broken.
    """
    path = layout.run_description(experiment, run_id)
    what = f"the run {run_id} of the experiment {experiment!r}"
    try:
        return from_json(RunRecord, read_json(path, what))
    except FileNotFoundError:
        known = run_ids(layout, experiment)
        raise WorkspaceError(
            f"there is no run {run_id!r} in the experiment {experiment!r}{near(run_id, known)}"
        ) from None
    except ValueError as error:
        raise WorkspaceError(
            f"{what}: {path} lacks something or has it wrong ({error}); is it edited by hand?"
        ) from None


def run_ids(layout: WorkspaceFolder, experiment: str) -> list[str]:
    """The ids of all runs of an experiment, of all kinds, oldest first."""
    return [name for name in names_of(layout.experiment(experiment)) if _is_run(layout, experiment, name)]


def find_experiment(layout: WorkspaceFolder, run_id: str) -> str:
    """The name of the experiment that a run belongs to. Raises WorkspaceError: there is no such run."""
    experiments = names_of(layout.experiments)
    for experiment in experiments:
        if _is_run(layout, experiment, run_id):
            return experiment
    known = [known for experiment in experiments for known in run_ids(layout, experiment)]
    raise WorkspaceError(f"there is no run {run_id!r} in this workspace{near(run_id, known)}")


def _is_run(layout: WorkspaceFolder, experiment: str, run_id: str) -> bool:
    return layout.run_description(experiment, run_id).is_file()

"""What entry scripts have in every Python, 3.7 without packages too; and what is told them of the rest."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpi_prs.azureml.backends.runner_record import RunnerRecord, StepProgress
from mpi_prs.azureml.datasets.factory import Dataset
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context import slice
from mpi_prs.child.context.run_record import (
    PIPELINE,
    STEP,
    SUBMITTED,
    Output,
    PipelinePart,
    RunRecord,
    StepPart,
    write_record,
)
from mpi_prs.child.context.script_context import ScriptContext
from mpi_prs.child.shims import names
from mpi_prs.core import own_python
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.process_mark import ProcessMark
from mpi_prs.core.records import write_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.status import write_status
from tests.azureml.test_runs import status
from tests.support.jobs import REPOSITORY
from tests.support.old_python import old_pythons

PYTHONS = [(sys.executable, "-S"), *((python,) for python in old_pythons())]
"""This one without its packages, and the older ones that are here."""
ROOMS = [REPOSITORY / "mpi_prs" / room for room in ("core", "wire", "child")]
MODULES = sorted(
    ".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for room in ROOMS for file in room.rglob("*.py")
)


# By reading


def test_it_is_written_for_the_oldest_python() -> None:
    vermin = [str(Path(sys.executable).with_name("vermin")), "-t=3.7-", "--no-tips", "--violations"]
    done = subprocess.run(
        [*vermin, "--format", "parsable", *ROOMS], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    found = [line for line in done.stdout.splitlines() if not line.endswith(":")]  # the others are the sums
    assert len(found) == 1 and "os.memfd_create" in found[0], done.stdout + done.stderr  # the worker makes it


# In those Pythons


def run(python: tuple[str, ...], code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*python, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


IMPORTS = """
import importlib, json, sys
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
from mpi_prs.child.shims import finder, names
finder.serve_entry_script()
finder.install("always")
for module, targets in names.MODULES.items():
    found = importlib.import_module(module)
    for name in targets:
        getattr(found, name)
import mpi_prs
assert mpi_prs.Run.__module__ == "mpi_prs.child.context.run"
"""


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_all_of_it_is_imported_and_every_name_is_there(python: tuple[str, ...]) -> None:
    done = run(python, IMPORTS, json.dumps([module for module in MODULES if module != "mpi_prs.child.rows.arrow"]))
    assert done.returncode == 0, done.stderr


SCRIPT = """
import os, sys
from mpi_prs.child.shims.preparation import prepare_imports
prepare_imports(os.environ)

from azureml.core import Dataset, Datastore, Environment, Experiment, Model, Run, Workspace
from azureml.data import FileDataset, TabularDataset
from azureml.exceptions import UserErrorException, WorkspaceException
from azureml.pipeline.core import Pipeline, PipelineData, PipelineParameter, StepRun
from azureml.pipeline.steps import ParallelRunConfig, ParallelRunStep

WHOLE = sys.argv[1:] == ["whole"]

def elsewhere(what):
    # Works in our own Python; in others it is not there, and a message says what is needed
    try:
        what()
    except UserErrorException as error:
        assert not WHOLE, error
        needed = "needs Python 3.10 or later" if sys.version_info < (3, 10) else "needs the package"
        assert needed in str(error) and sys.executable in str(error), error
        assert isinstance(error, (WorkspaceException, AttributeError))
    else:
        assert WHOLE, what

run = Run.get_context()
assert run.id == "pipeline-1-predict" and run.parent.id == "pipeline-1" and run.experiment.name == "digits"
run.log("seen", 3)
run.log_table("counts", {"a": [1, 2]})
run.tag("by", "script")
run.upload_file("outputs/notes.txt", __import__("io").StringIO("notes"))
assert run.get_status() == "Running" and run.parent.get_status() == "Running" and "Running" in repr(run)
assert run.get_metrics() == {"seen": 3, "counts": {"a": [1, 2]}} and run.get_tags()["by"] == "script"
assert run.get_output("out").get_port_data_reference().path_on_datastore == "azureml/out"
assert run.input_datasets["pictures"].partition_keys == ["user", "day"]
assert isinstance(run.input_datasets["pictures"], FileDataset) and isinstance(run, StepRun) and isinstance(run, Run)
assert hasattr(run, "get_details") == WHOLE and not hasattr(run, "__nothing__")
try:
    run.get_secret
except AttributeError as error:
    assert "keep secrets in the environment" in str(error)

ws = run.experiment.workspace
assert ws.name == "ws" and ws == Workspace.from_config() and "mnist" in ws.models
assert Model.get_model_path("mnist").endswith("weights") and Model(ws, "mnist").version == 1
assert [model.id for model in Model.list(ws)] == ["mnist:1"]

pictures = Dataset.get_by_name(ws, "pictures")
assert pictures.version == 1 and pictures.partition_keys == ["user", "day"] and pictures.tags == {"a": "b"}
assert pictures.id == run.input_datasets["pictures"].id and pictures == run.input_datasets["pictures"]
assert set(ws.datasets) == {"pictures", "prices"} and isinstance(ws.datasets["prices"], TabularDataset)

store = ws.get_default_datastore()
assert store.name == "workspaceblobstore" and store == Datastore(ws) == ws.datastores["workspaceblobstore"]
assert str(store.folder) == os.path.join(str(ws.folder), "workspaceblobstore")

environment = Environment.get(ws, "batch")
assert environment.version == "1" and environment.environment_variables == {"A": "1"}
try:
    Dataset.get_by_name(ws, "picture")
    sys.exit("found")
except WorkspaceException as error:
    assert "did you mean 'pictures'" in str(error)

# The rest
for what in (
    lambda: run.get_details(),
    lambda: list(run.experiment.get_runs()),
    lambda: list(run.parent.get_steps()),
    lambda: ws.get_details(),
    lambda: pictures.take(3),
    lambda: Dataset.File.from_files((store, "a/"), validate=False),
    lambda: store.path("a"),
    lambda: Datastore.register_folder(ws, "mine", str(ws.folder), create_if_not_exists=True),
    lambda: environment.python.conda_dependencies,
    lambda: setattr(environment, "policy", "current"),
    lambda: Environment("another"),
    lambda: Model.register(ws, sys.executable, "python"),
    lambda: PipelineParameter("nodes", 2),
    lambda: ParallelRunConfig.load_yaml,
    lambda: PipelineData("out", store),
):
    elsewhere(what)
if WHOLE:
    assert isinstance(pictures, FileDataset) and isinstance(store, Datastore) and pictures.name == "pictures"
    step = ParallelRunStep(
        "again",
        ParallelRunConfig(
            environment=Environment.get(ws, "batch"), entry_script="score.py", error_threshold=5,
            output_action="append_row", compute_target="cpucluster", node_count=2, mini_batch_size="5",
        ),
        [Dataset.get_by_name(ws, "pictures").as_named_input("pictures")],
        PipelineData("out", Datastore(ws)),
    )
    assert Pipeline(Workspace.from_config(), [step]).workspace == ws
    assert run.get_details()["status"] == "Running" and isinstance(run, StepRun) and environment.policy == "current"
print("all done")
"""


@pytest.fixture
def context(tmp_path: Path) -> ScriptContext:
    """A step run at work, in a workspace with one of everything."""
    ws = Workspace.create("ws", folder=tmp_path / "ws", show_output=False)
    ws.update_settings(backend="local")
    weights = tmp_path / "weights"
    weights.write_text("1")
    Model.register(ws, str(weights), "mnist")
    store = ws.get_default_datastore()
    pictures = Dataset.File.from_files(store.path("in/"), validate=False, partition_format="{user}/{day:yyyy/MM}/a.png")
    pictures = pictures.register(ws, "pictures", tags={"a": "b"})
    Dataset.Tabular.from_delimited_files(store.path("a.csv"), validate=False).register(ws, "prices")
    environment = Environment("batch")
    environment.python.conda_dependencies.set_python_version("3.7")
    environment.python.conda_dependencies.add_pip_package("numpy==1.21")
    environment.environment_variables = {"A": "1"}
    environment.register(ws)
    folder = RunDirectory(tmp_path / "out")
    folder.root.mkdir(parents=True)
    assert write_status(folder.status, status("running", None))
    now = "2026-10-18T12:00:00.000+00:00"
    here = ProcessMark.of_this_process()
    parent, step = "pipeline-1", "pipeline-1-predict"
    outputs = {"out": Output("workspaceblobstore", "azureml/out", str(tmp_path / "out"))}
    part = StepPart([], str(folder.output), outputs, "rows.txt", "cpucluster", 1, 1, "digest")
    write_record(ws.layout, RunRecord(step, "digits", STEP, "predict", now, parent=parent, step=part))
    pipeline = PipelinePart("local", [step], SUBMITTED, here)
    at = write_record(ws.layout, RunRecord(parent, "digits", PIPELINE, "nightly", now, pipeline=pipeline))
    write_dataclass(at.runner, RunnerRecord(here, time.time(), steps={step: StepProgress()}))
    return ScriptContext(
        str(ws.folder),
        "digits",
        step,
        {"mnist": 1},
        {"pictures": {"definition": pictures.definition()}},
    )


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_an_entry_script_does_there_what_it_can_and_is_told_what_it_cannot(
    context: ScriptContext, python: tuple[str, ...]
) -> None:
    done = run(python, SCRIPT, **context.variables())
    assert (done.returncode, done.stdout) == (0, "all done\n"), done.stderr


def test_in_our_own_python_it_has_the_rest_as_well(context: ScriptContext) -> None:
    done = run((sys.executable,), SCRIPT, "whole", **context.variables())
    assert (done.returncode, done.stdout) == (0, "all done\n"), done.stderr


def test_the_message_says_which_python_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice.sys, "version_info", (3, 7, 16, "final", 0))
    with pytest.raises(WorkspaceError) as caught:
        slice.whole("Pipeline", "reading tea leaves")
    assert "reading tea leaves needs Python 3.10 or later" in str(caught.value)
    assert f"but this is Python 3.7.16 ({sys.executable})" in str(caught.value)


def test_what_is_needed_is_what_is_installed_with_the_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    assert settings["options"]["python_requires"] == f">={'.'.join(map(str, own_python.OLDEST))}"
    required = {line.partition(">")[0].lower() for line in settings["options"]["install_requires"].split()}
    assert {"pyyaml" if name == "yaml" else name for name in own_python.RUNNER_PACKAGES} == required
    assert set(own_python.RUNNER_PACKAGES) - set(own_python.PACKAGES) == {"mpi4py", "rich"}


def test_whatever_scripts_have_is_of_a_public_class() -> None:
    assert set(names.CONTEXT) <= set(names.PUBLIC.values())

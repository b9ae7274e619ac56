"""What entry scripts can name works in their own Python, which may be 3.7 and has none of our packages."""

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
from mpi_prs.azureml.datasets.dataset import Dataset
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.azureml.environments.interpreter import OLDEST
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.run_record import PIPELINE, STEP, SUBMITTED, PipelinePart, RunRecord, StepPart, write_record
from mpi_prs.child.context.script_context import ScriptContext
from mpi_prs.child.shims import names
from mpi_prs.core import own_python as ours
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.own_python import own_python
from mpi_prs.core.process_mark import ProcessMark
from mpi_prs.core.records import write_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.status import write_status
from tests.azureml.test_runs import status
from tests.support.jobs import REPOSITORY
from tests.support.old_python import Source, file_of, old_pythons, reached

PYTHONS = [(sys.executable, "-S"), *((python,) for python in old_pythons())]
"""This one without its packages, and the older ones that are here."""
BRING_PACKAGES = ("mpi_prs.child.",)
"""What of ours uses packages of the script's Python: it got them from the script, or looks whether they are there."""
NOT_IN_USER_PROCESSES = {"mpi_prs/wire/channel.py: os.memfd_create"}
"""The worker makes it."""


# By reading


def test_it_is_written_for_the_oldest_python() -> None:
    found = [trap for source in reached().values() for trap in source.traps(OLDEST)]
    assert [trap for trap in found if _without_line(trap) not in NOT_IN_USER_PROCESSES] == []
    assert set(map(_without_line, found)) == NOT_IN_USER_PROCESSES  # else they are no exceptions any more


def _without_line(trap: str) -> str:
    path, _, text = trap.split(":", 2)
    return f"{path}:{text}"


def test_it_needs_the_standard_library_alone() -> None:
    packages = {
        (module, package)
        for module, source in reached().items()
        for package in {imported.partition(".")[0] for imported, _ in source.imports()}
        if package not in sys.stdlib_module_names | {"mpi_prs"} and not module.startswith(BRING_PACKAGES)
    }
    assert packages == set()


@pytest.mark.parametrize(
    "text",
    [
        "while block := read(): pass",
        "def f(a, /): pass",
        "match a:\n    case 1: pass",
        "@dataclass(frozen=True, kw_only=True)\nclass A: pass",
        "@dataclass(slots=True)\nclass A: pass",
        "class A:\n    a: int = field(default=1, kw_only=True)",
        "from collections.abc import Mapping\nclass A(Mapping[str, int]): pass",
        "from collections.abc import Callable\nCheck = Callable[[int], int]",
        "Pairs = list[tuple[str, int]]",
        "def f():\n    return cast(dict[str, int], a)",
        "Names = re.Pattern[str]",
        "Value = str | None",
        "isinstance(a, str | bytes)",
        "isinstance(a, Dataset | Model)",
        "a = {} | b",
        "a |= {'b': 1}",
        "a = b | dict(c=1)",
        "'abc'.removeprefix('a')",
        "(5).bit_count()",
        "path.is_relative_to(other)",
        "path.unlink(missing_ok=True)",
        "shutil.copytree(a, b, dirs_exist_ok=True)",
        "zip(a, b, strict=True)",
        "functools.cache(f)",
        "from functools import cached_property",
        "datetime.UTC",
        "from datetime import UTC",
        "from typing import Any, Protocol",
        "import tomllib",
        "from importlib.metadata import version",
        "from importlib import metadata",
        "typing.get_type_hints(Status)",
        "traceback.format_exception(error)",
        "def f():\n    return *a, b",
        "try: pass\nexcept* ValueError: pass",
    ],
)
def test_the_reader_finds_what_python_37_would_not_take(text: str) -> None:
    assert Source(text).traps()


@pytest.mark.parametrize(
    "text",
    [
        "def f(a: str | None, b: list[int]) -> dict[str, int]:\n    c: set[str] | None = None",
        "if TYPE_CHECKING:\n    from typing import Protocol\n    A = str | None",
        "@own_python('it')\ndef f():\n    zip(a, b, strict=True)",
        "flags = os.O_RDONLY | os.O_CLOEXEC | MORE",
        "found = {1} | others",
        "a['b'], a[0], names[Mapping]",
        "from typing import Mapping\nclass A(Mapping[str, int]): pass",
        "def f():\n    return (*a, b)",
        "traceback.format_exception(type(error), error, None)",
        "isinstance(a, (str, bytes))",
        "functools.lru_cache(maxsize=None)",
    ],
)
def test_the_reader_leaves_the_rest_alone(text: str) -> None:
    assert Source(text).traps() == []


def test_the_reader_follows_imports_in_functions_unless_they_are_marked() -> None:
    found = reached(["mpi_prs.azureml.datastores.datastore"])
    assert "mpi_prs.azureml.datastores.records" in found
    assert "mpi_prs.azureml.datastores.folder_transfer" not in found
    assert [*Source("def f():\n    import mpi_prs.core.errors").imports()] == [("mpi_prs.core.errors", "")]
    assert [*Source("@own_python('it')\ndef f():\n    import yaml").imports()] == []


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
for module, name in json.loads(sys.argv[2]):
    found = importlib.import_module(module)
    if not hasattr(found, name):
        importlib.import_module(module + "." + name)
from mpi_prs.child.shims import finder
from mpi_prs.child.shims import names
finder.install("always")
for module, targets in names.MODULES.items():
    found = importlib.import_module(module)
    for name in targets:
        getattr(found, name)
"""


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_all_of_it_is_imported_and_finds_what_it_takes_from_the_standard_library(python: tuple[str, ...]) -> None:
    found = {module: source for module, source in reached().items() if module != "mpi_prs.child.rows.arrow"}
    taken = {pair for source in found.values() for pair in source.standard_names()} - {("os", "memfd_create")}
    assert len(found) > 90 and len(taken) > 100
    done = run(python, IMPORTS, json.dumps(list(found)), json.dumps(sorted(taken)))
    assert done.returncode == 0, done.stderr


SCRIPT = """
import os, sys
from mpi_prs.child.shims.preparation import prepare_imports
prepare_imports(os.environ)

from azureml.core import Dataset, Datastore, Environment, Experiment, Model, Run, Workspace
from azureml.exceptions import UserErrorException, WorkspaceException
from azureml.pipeline.core import Pipeline, PipelineData, PipelineParameter
from azureml.pipeline.steps import ParallelRunConfig, ParallelRunStep

OLD = sys.version_info < (3, 10)

def refused(function, *arguments, **named):
    # In an old Python by a message that says what is needed; in this one without packages it may also work
    try:
        function(*arguments, **named)
    except UserErrorException as error:
        return not OLD or ("needs Python 3.10 or later" in str(error) and sys.executable in str(error))
    return not OLD

run = Run.get_context()
assert run.id == "pipeline-1-predict" and run.parent.id == "pipeline-1"
run.log("seen", 3)
run.tag("by", "script")
assert run.get_status() == "Running", run.get_status()
assert run.get_details()["status"] == "Running" and run.get_details()["startTimeUtc"].startswith("2020")
assert run.get_metrics() == {"seen": 3} and run.get_tags()["by"] == "script"
assert "Running" in repr(run) and "Running" in repr(run.parent)
assert run.input_datasets["pictures"].partition_keys == ["user", "day"]
assert refused(run.wait_for_completion) and refused(run.parent.wait_for_completion)

ws = run.experiment.workspace
assert ws.get_default_datastore().name == "workspaceblobstore" and "mnist" in ws.models
assert Model.get_model_path("mnist").endswith("weights")

pictures = Dataset.get_by_name(ws, "pictures")
assert pictures.version == 1 and pictures.partition_keys == ["user", "day"] and pictures.tags == {"a": "b"}
assert pictures.take(3).register(ws, "some").version == 1 and set(ws.datasets) == {"pictures", "prices", "some"}
for call in (pictures.download, pictures.mount, pictures.to_path, pictures.get_partition_key_values):
    assert refused(call)
prices = Dataset.get_by_name(ws, "prices", version=1).keep_columns(["price"])
assert prices.columns == ("price",) and refused(prices.to_pandas_dataframe)
try:
    prices.to_pandas_dataframe()
except WorkspaceException as error:
    assert ("needs Python 3.10" if OLD else "needs the package") in str(error), error
else:
    sys.exit("it has no pandas")
assert Dataset.File.from_files((ws.datastores["workspaceblobstore"], "a/"), validate=False).id
assert refused(Dataset.File.from_files, (ws.datastores["workspaceblobstore"], "a/"))
assert refused(Dataset.Tabular.from_delimited_files, "/data/a.csv")

folder = os.path.join(str(ws.folder), "data")
Datastore.register_folder(ws, "mine", folder, create_if_not_exists=True)
key = Datastore.register_azure_blob_container(
    ws, "blobs", "data", "account", account_key="c2VjcmV0", skip_validation=True
)
assert Datastore.get(ws, "blobs").storage_section()["account_key_file"].endswith("blobs.account_key")
assert Datastore.get(ws, "mine").path("a").path_on_datastore == "a"
assert refused(key.download, folder) and refused(key.upload, folder) and refused(key.upload_files, [folder])
key.unregister()

environment = Environment.get(ws, "batch")
assert environment.python.conda_dependencies.python_version == "3.7"
environment.python.conda_dependencies.add_pip_package("pillow>=9")
assert list(environment.python.conda_dependencies.pip_packages) == ["numpy==1.21", "pillow>=9"]
assert environment.register(ws).version == "2"
assert refused(environment.build, ws)
assert refused(environment.python.conda_dependencies.serialize_to_string)

config = ParallelRunConfig(
    environment=environment, entry_script="score.py", error_threshold=5, output_action="append_row",
    compute_target="cpucluster", node_count=PipelineParameter("nodes", 2), mini_batch_size="5",
)
step = ParallelRunStep("again", config, [pictures.as_named_input("pictures")], PipelineData("out"))
pipeline = Pipeline(ws, [step])
assert pipeline.values()["nodes"] == 2
assert refused(pipeline.validate) and refused(Experiment(ws, "tests").submit, pipeline)
assert refused(config.save_to_yaml, folder + "/config.yml")
try:
    Dataset.get_by_name(ws, "picture")
    sys.exit("found")
except WorkspaceException as error:
    assert "did you mean 'pictures'" in str(error)
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
    environment.register(ws)
    folder = RunDirectory(tmp_path / "out")
    folder.root.mkdir(parents=True)
    assert write_status(folder.status, status("running", None))
    now = "2026-10-18T12:00:00.000+00:00"
    here = ProcessMark.of_this_process()
    parent, step = "pipeline-1", "pipeline-1-predict"
    part = StepPart([], str(folder.output), {}, "rows.txt", "cpucluster", 1, 1, "digest")
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


# The mark


def test_the_mark_says_which_python_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    @own_python("reading tea leaves")
    def read(cup: str) -> str:
        """Reads."""
        return cup.upper()

    assert (read("tea"), read.__name__, read.__doc__) == ("TEA", "read", "Reads.")
    monkeypatch.setattr(ours.sys, "version_info", (3, 7, 16, "final", 0))
    with pytest.raises(WorkspaceError) as caught:
        read("tea")
    assert "reading tea leaves needs Python 3.10 or later" in str(caught.value)
    assert f"but this is Python 3.7.16 ({sys.executable})" in str(caught.value)


def test_the_mark_says_which_package_is_missing() -> None:
    @own_python("reading tea leaves")
    def read(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    with pytest.raises(WorkspaceError, match="reading tea leaves needs the package pyarrow, as where mpi_prs is"):
        read("pyarrow.csv")
    with pytest.raises(ModuleNotFoundError, match=r"mpi_prs\.nothing"):  # a bug of ours
        read("mpi_prs.nothing")


def test_the_oldest_python_of_ours_is_that_of_the_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    assert settings["options"]["python_requires"] == f">={'.'.join(map(str, ours.OLDEST))}"


def test_every_module_that_has_a_public_name_is_ours() -> None:
    assert all(file_of(target.partition(":")[0]) for target in names.PUBLIC.values())

"""The names by which scripts import us: lazily, only where they should, and with a word on what is not there."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import mpi_prs
from mpi_prs.azureml import authentication
from mpi_prs.child.shims import finder, names
from tests.support.jobs import REPOSITORY, Job, Mpi, assert_every_row_once, make_job, nothing_left_of

NewJob = Callable[..., Job]


@pytest.fixture(autouse=True)
def imports_as_before() -> Iterator[None]:
    """Whatever a test installs is gone after it."""
    before = list(sys.meta_path)
    yield
    finder.uninstall()
    sys.meta_path[:] = before


@pytest.fixture
def installed() -> None:
    finder.install("always")


def python(code: str, *folders: Path, interpreter: str = sys.executable) -> str:
    """What a program prints, with these folders on its path and us behind them."""
    done = subprocess.run(
        [interpreter, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*folders, REPOSITORY]))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# The table

SEEDS = """
from azureml.contrib.pipeline.steps import ParallelRunConfig
from azureml.contrib.pipeline.steps import ParallelRunStep
from azureml.core import Datastore
from azureml.core import Model
from azureml.core import Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.dataset import Dataset
from azureml.core.environment import Environment
from azureml.core.experiment import Experiment
from azureml.core.model import Model
from azureml.core.runconfig import DEFAULT_GPU_IMAGE
from azureml.data.dataset_consumption_config import DatasetConsumptionConfig
from azureml.pipeline.core import Pipeline
from azureml.pipeline.core import Pipeline, PipelineData
from azureml.pipeline.core import PipelineParameter
from azureml.pipeline.steps import ParallelRunConfig
from azureml.pipeline.steps import ParallelRunStep
from azureml.widgets import RunDetails
""".strip().splitlines()

OTHERS = """
import azureml.core; print(azureml.core.VERSION)
from azureml.core import Dataset, Environment, Experiment, Run, RunConfiguration, ComputeTarget
from azureml.core.authentication import InteractiveLoginAuthentication, ServicePrincipalAuthentication
from azureml.core.datastore import Datastore
from azureml.core.run import Run
from azureml.core.runconfig import CondaDependencies, DEFAULT_CPU_IMAGE, RunConfiguration
from azureml.core.workspace import Workspace
from azureml.data import FileDataset, OutputFileDatasetConfig, TabularDataset
from azureml.data.datapath import DataPath
from azureml.exceptions import ComputeTargetException, ModelNotFoundException, UserErrorException
from azureml.pipeline.core import PipelineRun, StepRun, PortDataReference, OutputFileDatasetConfig
from azureml.pipeline.core.graph import PipelineParameter
from azureml.pipeline.core.run import PipelineRun, StepRun
from azureml_user.parallel_run import EntryScript
from azureml_user.parallel_run import ParallelRunException
""".strip().splitlines()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("statement", [*SEEDS, *OTHERS])
def test_what_scripts_import_is_there(statement: str) -> None:
    exec(statement, {})


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("module", names.MODULES)
def test_every_module_has_every_name_and_is_listed(module: str) -> None:
    imported = importlib.import_module(module)
    for name, target in names.MODULES[module].items():
        assert getattr(imported, name) is finder.resolve(target)
        assert name in dir(imported)
    assert set(imported.__all__) == {name for name in names.MODULES[module] if not name.startswith("_")}
    parent, _, last = module.rpartition(".")
    assert not parent or last in dir(importlib.import_module(parent))


@pytest.mark.parametrize("name", names.PUBLIC)
def test_the_package_exports_the_same_objects(name: str) -> None:
    assert getattr(mpi_prs, name) is finder.resolve(names.PUBLIC[name])
    assert name in mpi_prs.__all__
    assert name in dir(mpi_prs)


def test_classes_are_called_what_they_are_exported_as() -> None:
    for name, target in names.PUBLIC.items():
        value = finder.resolve(target)
        if isinstance(value, type):
            assert value.__qualname__ == name


def test_the_package_says_what_is_near() -> None:
    with pytest.raises(AttributeError, match="mpi_prs has no 'Worskpace'; did you mean Workspace"):
        _ = mpi_prs.Worskpace
    with pytest.raises(AttributeError, match=r"dir\(mpi_prs\) lists what it has"):
        _ = mpi_prs.Qqq


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    printed = python(
        f"""
        import sys
        import mpi_prs
        from mpi_prs.child.shims import finder
        finder.install("always")
        print(*(name for name in sys.modules if name.startswith("mpi_prs")))
        import importlib
        for name in {sorted(names.MODULES)!r}:
            importlib.import_module(name)
        dir(importlib.import_module("azureml.core"))
        print(*(name for name in sys.modules if name.startswith("mpi_prs")))
        """
    )
    before, after = (set(line.split()) for line in printed.splitlines())
    assert before == {"mpi_prs", "mpi_prs.child", "mpi_prs.child.shims", "mpi_prs.child.shims.finder"}
    assert after == before | {"mpi_prs.child.shims.names"}


@pytest.mark.usefixtures("installed")
def test_modules_are_reached_as_attributes_too() -> None:
    import azureml

    assert azureml.pipeline.steps.ParallelRunStep is mpi_prs.ParallelRunStep
    assert repr(azureml.core) == "<module 'azureml.core' (mpi_prs)>"


@pytest.mark.usefixtures("installed")
def test_a_star_import_brings_the_names() -> None:
    space: dict[str, object] = {}
    exec("from azureml.pipeline.steps import *", space)
    assert {"ParallelRunConfig", "ParallelRunStep"} <= set(space)


# What is not there

MISSING = [
    (
        "from azureml.core import Workspaces",
        "does not have azureml.core.Workspaces; did you mean azureml.core.Workspac",
    ),
    ("from azureml.core import PipelineData", "it is in azureml.pipeline.core"),
    ("from azureml.core import ScriptRunConfig", "mpi_prs runs ParallelRunStep alone"),
    ("from azureml.pipeline.steps import PythonScriptStep", "mpi_prs runs ParallelRunStep alone"),
    ("from azureml.core.webservice import AciWebservice", "neither trains nor serves models"),
    ("from azureml.train.automl import AutoMLConfig", "does not have azureml.train; mpi_prs neither trains nor"),
    ("from azureml.core.compute import AksCompute", "computes are Slurm partitions or this machine"),
    ("from azureml.core.model import Qqq", "docs/azureml.md lists what it has"),
    ("import azureml.cor", "does not have azureml.cor; did you mean azureml.core or"),
    ("import azureml_user.parallel_runs", "did you mean azureml_user.parallel_run?"),
]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("statement", "words"), MISSING)
def test_a_missing_name_is_an_import_error_that_says_what_to_use(statement: str, words: str) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        exec(statement, {})
    assert words in str(caught.value)


@pytest.mark.usefixtures("installed")
def test_a_missing_attribute_is_an_attribute_error() -> None:
    import azureml.core

    assert not hasattr(azureml.core, "ScriptRunConfig")
    assert not hasattr(azureml.core, "__file__")
    with pytest.raises(AttributeError, match=r"mpi_prs does not have azureml\.core\.Modell; did you mean"):
        _ = azureml.core.Modell


@pytest.mark.usefixtures("installed")
def test_nobody_else_is_concerned() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'azureml_other'"):
        importlib.import_module("azureml_other")


# Whose azureml

REAL = {"azureml/__init__.py": "", "azureml/core/__init__.py": "Workspace = 'real'", "azureml/extra.py": ""}
NAMESPACE = {name: text for name, text in REAL.items() if name != "azureml/__init__.py"}
ONLY_A_PLUGIN = {"azureml/plugin/__init__.py": "plugin = 'real'"}
A_FOLDER_OF_CONFIGS = {"azureml/config.json": "{}"}
A_STUB = {"azureml.py": "core = 'a stub'"}


@pytest.mark.parametrize(
    ("when", "files", "expected"),
    [
        ("auto", {}, "ours"),
        ("auto", REAL, "real"),
        ("auto", NAMESPACE, "real"),
        ("auto", ONLY_A_PLUGIN, "ours"),
        ("auto", A_FOLDER_OF_CONFIGS, "ours"),
        ("always", REAL, "ours"),
        ("never", REAL, "real"),
        ("never", {}, "none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value) or "nothing",
)
def test_whose_package_it_is(tmp_path: Path, when: str, files: dict[str, str], expected: str) -> None:
    write(tmp_path, files)
    code = f"""
        from mpi_prs.child.shims import finder
        finder.install({when!r})
        try:
            from azureml.core import Workspace
            print("real" if Workspace == "real" else "ours")
        except ImportError:
            print("none")
    """
    assert python(code, tmp_path).strip() == expected


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_module_of_the_users_own_that_is_called_so_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, A_STUB)
    code = "from mpi_prs.child.shims import finder; finder.install('auto'); import azureml; print(azureml.core)"
    assert python(code, tmp_path).strip() == "a stub"


def test_plugins_of_the_real_package_stay_beside_ours(tmp_path: Path) -> None:
    write(tmp_path, ONLY_A_PLUGIN)
    code = """
        from mpi_prs.child.shims import finder
        finder.install("auto")
        from azureml.plugin import plugin
        from azureml.core import VERSION
        print(plugin, VERSION)
    """
    assert python(code, tmp_path).split() == ["real", names.VERSION]


def test_each_of_the_two_packages_is_decided_by_itself(tmp_path: Path) -> None:
    write(tmp_path, REAL)
    code = """
        from mpi_prs.child.shims import finder
        finder.install("auto")
        from azureml.core import Workspace
        from azureml_user.parallel_run import EntryScript
        print(Workspace, EntryScript.__module__)
    """
    assert python(code, tmp_path).split() == ["real", "mpi_prs.child.parallel_run"]


def test_always_replaces_what_was_imported_and_uninstalling_brings_it_back(tmp_path: Path) -> None:
    write(tmp_path, REAL)
    code = """
        from mpi_prs.child.shims import finder
        def whose():
            from azureml.core import Workspace
            return "real" if Workspace == "real" else "ours"
        print(whose())
        for when in ("always", "always", "auto", "always", "never"):
            finder.install(when)
            print(when, whose())
        finder.install("always")
        print(whose())
        finder.uninstall()
        import sys
        print(whose(), sum(isinstance(one, finder.Finder) for one in sys.meta_path))
    """
    assert python(code, tmp_path).splitlines() == [
        *("real", "always ours", "always ours", "auto real", "always ours", "never real", "ours", "real 0")
    ]


def test_another_word_than_those_three_is_refused() -> None:
    with pytest.raises(ValueError, match="expected auto, always or never, but got 'sometimes'"):
        finder.install("sometimes")


# Jupyter


def test_the_extension_installs_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    mpi_prs.load_ipython_extension(None)
    from azureml.core import Workspace

    assert Workspace is mpi_prs.Workspace
    assert capsys.readouterr().out == "azureml… and azureml_user… are mpi_prs now; %unload_ext mpi_prs undoes it\n"
    mpi_prs.unload_ipython_extension(None)
    assert "no longer" in capsys.readouterr().out
    assert not any(isinstance(one, finder.Finder) for one in sys.meta_path)


def test_the_extension_warns_of_what_was_imported_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azureml", ModuleType("azureml"))
    mpi_prs.load_ipython_extension(None)
    assert "azureml was imported before, and what came from it is still Azure's" in capsys.readouterr().out


# Logging in


@pytest.mark.parametrize("name", names.MODULES["azureml.core.authentication"])
def test_a_login_is_accepted_forgotten_and_gives_no_token(name: str) -> None:
    login = getattr(authentication, name)("tenant", tenant_id="t", service_principal_password="s3cret", force=True)
    assert isinstance(login, authentication.AbstractAuthentication)
    assert "s3cret" not in f"{login!r} {vars(login)}"
    with pytest.raises(AttributeError, match="nobody logs in, and there are no tokens"):
        login.get_authentication_header()


# In user processes

WHOSE = """
import os, sys
from azureml.core import Workspace
from azureml_user.parallel_run import EntryScript

def run(mini_batch):
    whose = "real" if Workspace == "real" else Workspace.__module__
    print(sys.path)
    return [f"{os.path.basename(path)} {whose} {os.environ.get('AZUREML_RUN_ID')}" for path in mini_batch]
"""
OURS = "mpi_prs.child.context.workspace"


@pytest.fixture(scope="session")
def bare_interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without any package, and without us."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    ("settings", "real", "expected"),
    [
        ({}, False, f"{OURS} out"),
        ({}, True, "real out"),
        ({"azureml": "always"}, True, f"{OURS} out"),
        ({"azureml": "never"}, True, "real None"),
    ],
)
def test_a_script_gets_ours_where_the_job_says_so(
    new_job: NewJob, settings: dict[str, str], real: bool, expected: str
) -> None:
    script = WHOSE.replace("from azureml_user", "# from azureml_user") if settings.get("azureml") == "never" else WHOSE
    job = new_job(script, items=4, **settings)
    write(job.folder, REAL if real else {})
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, [f"{name} {expected}" for name in job.names])


def test_switched_off_there_is_nothing(new_job: NewJob) -> None:
    job = new_job(WHOSE, items=4, azureml="never")
    done = job.local()
    assert done.returncode == 1
    assert "No module named 'azureml'" in done.stdout


def test_an_interpreter_without_any_package_finds_ours_and_no_other_of_ours(
    new_job: NewJob, bare_interpreter: Path, mpich: Mpi
) -> None:
    """Under mpirun, and without our folder on the script's path, where it might be a site-packages."""
    job = new_job(WHOSE, items=4, environment=str(bare_interpreter))
    job.environment["PYTHONPATH"] = ""
    done = job.under(mpich)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, [f"{name} {OURS} out" for name in job.names])
    assert str(REPOSITORY) not in job.log("stdout", 0) + job.log("stdout", 1)


SPAWNS = """
import multiprocessing, os, sys
from azureml.core import Workspace
from azureml_user.parallel_run import EntryScript

def in_the_child(path):
    assert EntryScript().agent_name == "process000"
    return f"{os.path.basename(path)} {Workspace.__module__} {any('shims' in p for p in sys.path)}"

def init():
    global pool
    pool = multiprocessing.get_context("METHOD").Pool(1)

def run(mini_batch):
    return pool.map(in_the_child, mini_batch)

def shutdown():
    pool.terminate()
    pool.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_that_the_script_starts_by_multiprocessing_find_ours(
    new_job: NewJob, bare_interpreter: Path, method: str
) -> None:
    job = new_job(SPAWNS.replace("METHOD", method), items=4, environment=str(bare_interpreter))
    job.environment["PYTHONPATH"] = ""
    done = job.finish(
        job.start([sys.executable, "-m", "mpi_prs", "run", str(job.config), "--local", "1"]),
    )
    assert done.returncode == 0, done.stdout + job.log("stderr")
    assert_every_row_once(job, [f"{name} {OURS} False" for name in job.names])


def test_an_import_that_fails_in_a_script_shows_the_line_and_what_to_use(new_job: NewJob) -> None:
    job = new_job("from azureml.core import ScriptRunConfig\ndef run(b): return b", items=4)
    done = job.local()
    assert done.returncode == 1
    assert "mpi_prs runs ParallelRunStep alone: put the work into a function run(mini_batch)" in done.stdout
    assert "from azureml.core import ScriptRunConfig" in done.stdout


def test_a_variable_with_another_word_ends_the_job_with_that_message(new_job: NewJob) -> None:
    job = new_job(WHOSE, items=4, environment_variables={"MPI_PRS_AZUREML": "perhaps"})
    done = job.local()
    assert done.returncode == 2
    assert "MPI_PRS_AZUREML" in done.stdout
    assert "expected one of auto, always, never" in done.stdout


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["debug"]], ids=lambda command: command[-1])
@pytest.mark.parametrize("azureml", ["auto", "never"])
def test_dry_run_and_debug_import_as_a_job_does(tmp_path: Path, command: list[str], azureml: str) -> None:
    job = make_job(tmp_path, WHOSE, items=4, azureml=azureml)
    with nothing_left_of(job):
        name, *options = command
        done = job.finish(job.start([sys.executable, "-m", "mpi_prs", name, str(job.config), *options]))
    if azureml == "auto":
        assert done.returncode == 0, done.stdout
        assert name == "run" or f"item-0000.txt {OURS} test-job" in done.stdout
    else:
        assert done.returncode != 0
        assert "No module named 'azureml'" in done.stdout

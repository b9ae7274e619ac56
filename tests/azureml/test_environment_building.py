"""From a definition to an interpreter: policies, what differs, virtual environments that jobs run in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.environments import building as environment_building
from mpi_prs.azureml.environments import installing
from mpi_prs.azureml.environments.building import PreparedEnvironment, policy_of, prepare
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.azureml.environments.interpreter import Interpreter, ask, this_interpreter
from mpi_prs.azureml.environments.packages import CondaDependencies
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.data import DEFAULT_GPU_IMAGE
from mpi_prs.core.environ import ENVIRONMENT_POLICY, TENSORFLOW1
from mpi_prs.core.errors import EnvironmentProblem
from tests.support import stand_ins
from tests.support.jobs import Job, assert_every_row_once


@pytest.fixture(autouse=True)
def no_policy_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENVIRONMENT_POLICY.name, "CONDA_EXE", "MAMBA_EXE", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.create("mnist", folder=tmp_path / "workspace", show_output=False)


@pytest.fixture
def said() -> list[str]:
    """What ``say`` was told: pass ``said.append``."""
    return []


def environment_of(*pip_packages: str, policy: str | None = None, **create: Any) -> Environment:
    environment = Environment("batch")
    environment.python.conda_dependencies = CondaDependencies.create(pip_packages=pip_packages, **create)
    environment.policy = policy
    return environment


def has(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int] = (3, 11, 7), **packages: str) -> None:
    """Let the interpreter at hand be one that has these packages."""
    names = {name.replace("_", "-"): version for name, version in packages.items()}
    found = Interpreter("/site/bin/python", version, "/site", names)
    for module in (environment_building, installing):
        monkeypatch.setattr(module, "this_interpreter", lambda: found)


# Which policy


@pytest.mark.parametrize(
    ("own", "setting", "variable", "policy"),
    [
        (None, None, None, "current"),
        (None, None, "conda", "conda"),
        (None, "venv", "conda", "venv"),
        ("current", "venv", "conda", "current"),
        ("/opt/python", "venv", None, "/opt/python"),
        (None, "~/venv/bin/python", None, "~/venv/bin/python"),
    ],
)
def test_where_the_policy_comes_from(own: str | None, setting: str | None, variable: str | None, policy: str) -> None:
    environment = environment_of(policy=own)
    settings = {"environment_policy": setting} if setting else {}
    assert policy_of(environment, settings, {ENVIRONMENT_POLICY.name: variable} if variable else {}) == policy


@pytest.mark.parametrize(
    ("path", "setting", "policy"),
    [
        ("python", "venv", "current"),
        ("/opt/python", "venv", "/opt/python"),
        ("python3.12", "current", "python3.12"),
        ("/opt/python", "container", "container"),
        ("python", "/site/python", "/site/python"),
    ],
)
def test_nothing_is_built_for_who_manages_the_dependencies(path: str, setting: str, policy: str) -> None:
    environment = Environment("own")
    environment.python.user_managed_dependencies = True
    environment.python.interpreter_path = path
    assert policy_of(environment, {"environment_policy": setting}, {}) == policy


def test_a_policy_that_does_not_exist_or_contradicts_is_refused() -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"setting environment_policy: 'vnev' is no policy; did you mean 'venv'"
    ):
        policy_of(environment_of(), {"environment_policy": "vnev"}, {})
    with pytest.raises(EnvironmentProblem, match=f"{ENVIRONMENT_POLICY.name}: 'docker' is no policy"):
        policy_of(environment_of(), {}, {ENVIRONMENT_POLICY.name: "docker"})
    environment = environment_of(policy="venv")
    environment.python.user_managed_dependencies = True
    with pytest.raises(EnvironmentProblem, match=r"policy venv.*user_managed_dependencies=True"):
        policy_of(environment, {}, {})


# The interpreter at hand


def test_the_seeds_environment_on_the_interpreter_at_hand(
    ws: Workspace, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, tensorflow_cpu="2.16.1", Pillow="10.0", pandas="2.2", numpy="1.26")
    environment = environment_of(
        "tensorflow==1.15.2", "pillow", "azureml-core", "azureml-dataset-runtime[pandas, fuse]"
    )
    environment.docker.enabled = True
    environment.docker.base_image = DEFAULT_GPU_IMAGE
    environment.environment_variables = {"LEVEL": "3"}
    prepared = prepare(environment, ws, said.append)
    assert prepared == PreparedEnvironment(
        None,
        {TENSORFLOW1.name: "1", "LEVEL": "3"},
        [
            "the environment 'batch' uses the Python at hand (/site/bin/python, 3.11.7)",
            "not installed there: pyarrow",
            "tensorflow==1.15.2 is asked for, and TensorFlow 2.16.1 is here: scripts run through its v1 interface, "
            "tf.compat.v1",
            f"the image {DEFAULT_GPU_IMAGE} is not used: that takes the policy container",
        ],
    )
    assert said == []


def test_what_the_interpreter_at_hand_has_otherwise_is_said(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, numpy="1.26", tensorflow="1.15.5")
    environment = environment_of(
        "numpy>=2", "h5py", "tensorflow==1.15.2", python_version="3.8", conda_packages=["ffmpeg=6", "pip=20"]
    )
    prepared = prepare(environment, ws, print)
    assert prepared.environment_variables == {}  # it has TensorFlow 1
    assert prepared.notes[1:] == [
        "another Python than asked for: 3.11.7 for 3.8",
        "other versions there than asked for: 1.26 for numpy>=2, 1.15.5 for tensorflow==1.15.2",
        "not installed there: ffmpeg==6.*, h5py",
    ]


def test_tensorflow_1_that_is_not_there_is_missing(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch)
    prepared = prepare(environment_of("tensorflow==1.15.2"), ws, print)
    assert prepared.environment_variables == {} and prepared.notes[1:] == ["not installed there: tensorflow==1.15.2"]


def test_the_real_interpreter_at_hand_has_what_it_has(ws: Workspace) -> None:
    assert prepare(environment_of("numpy", "pandas>=2.1"), ws, print).notes == [
        f"the environment 'batch' uses the Python at hand ({sys.executable}, {this_interpreter().dotted})"
    ]


def test_no_environment_is_the_interpreter_at_hand(ws: Workspace) -> None:
    assert prepare(None, ws, print) == PreparedEnvironment(None)
    ws.update_settings(environment_policy="venv")
    assert prepare(None, ws, print) == PreparedEnvironment(None)
    ws.update_settings(environment_policy=sys.executable)
    assert prepare(None, ws, print).interpreter == sys.executable


# Another interpreter


def test_an_interpreter_is_asked_what_it_has(ws: Workspace) -> None:
    environment = environment_of("numpy", "no-such-package")
    environment.python.user_managed_dependencies = True
    environment.python.interpreter_path = sys.executable
    prepared = prepare(environment, ws, print)
    assert prepared.interpreter == sys.executable
    assert prepared.notes == [
        f"the environment 'batch' uses {sys.executable} (Python {this_interpreter().dotted})",
        "not installed there: no-such-package",
    ]
    assert ask(sys.executable).packages == this_interpreter().packages


def test_a_program_in_path_is_an_interpreter(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mypython").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    environment = Environment("own")
    environment.python.user_managed_dependencies = True
    environment.python.interpreter_path = "mypython"
    assert prepare(environment, ws, print).interpreter == str(tmp_path / "mypython")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def answering(path: Path, version: list[int], packages: dict[str, str] | None) -> Path:
    """A program that answers as an interpreter would."""
    answer = json.dumps({"version": version, "prefix": "/there", "packages": packages})
    return script(path, f"echo 'mpi_prs:{answer}'")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "names the interpreter .*, and there is none here"),
        ("", "is no Python that can be used"),
        ("echo no license >&2; exit 3", r"is no Python that can be used \(exit code 3\):\nno license"),
    ],
)
def test_what_is_no_interpreter_is_refused(ws: Workspace, tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "python"
    if text is not None:
        script(path, text)
    with pytest.raises(EnvironmentProblem, match=said) as caught:
        prepare(environment_of(policy=str(path)), ws, print)
    assert str(path) in str(caught.value)


def test_an_interpreter_must_be_a_program(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(EnvironmentProblem, match="which is not a program"):
            prepare(environment_of(policy=str(path)), ws, print)
    environment = Environment("own")
    environment.python.user_managed_dependencies = True
    environment.python.interpreter_path = "no-such-python"
    with pytest.raises(EnvironmentProblem, match="no-such-python, and there is none in PATH"):
        prepare(environment, ws, print)


def test_an_old_interpreter(ws: Workspace, tmp_path: Path) -> None:
    old = answering(tmp_path / "python3.6", [3, 6, 15], {})
    with pytest.raises(EnvironmentProblem, match=r"is Python 3\.6\.15; user processes need 3\.7 or later"):
        prepare(environment_of(policy=str(old)), ws, print)
    seven = answering(tmp_path / "python3.7", [3, 7, 16], None)
    prepared = prepare(environment_of("numpy", policy=str(seven)), ws, print)
    assert prepared.notes[1:] == ["its packages are not compared: this Python is too old to tell them"]
    real = answering(tmp_path / "real", [3, 7, 16], {"tensorflow": "1.15.2"})
    assert prepare(environment_of("tensorflow==1.15.2", policy=str(real)), ws, print).environment_variables == {}
    new = answering(tmp_path / "new", [3, 12, 1], {"tensorflow": "2.17.0"})
    prepared = prepare(environment_of("tensorflow==1.15.2", policy=str(new)), ws, print)
    assert prepared.environment_variables == {TENSORFLOW1.name: "1"}


# Virtual environments


def make_wheel(folder: Path, name: str = "tinylib", value: int = 42) -> Path:
    """A package that is installed from a file, without an index and without anything that builds it."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"VALUE = {value}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Environment, PreparedEnvironment, list[str]]:
    """A workspace in which a virtual environment is built that has one tiny package; for all tests of a session."""
    folder = tmp_path_factory.mktemp("tiny")
    ws = Workspace.create("tiny", folder=folder / "workspace", show_output=False)
    wheel = make_wheel(folder / "wheels")
    environment = environment_of(f"tinylib @ file://{wheel}", "azureml-core", policy="venv")
    said: list[str] = []
    return ws, environment, prepare(environment, ws, said.append), said


Tiny = tuple[Workspace, Environment, PreparedEnvironment, list[str]]


def test_a_virtual_environment_is_built(tiny: Tiny) -> None:
    ws, _, prepared, said = tiny
    assert prepared.interpreter is not None and prepared.interpreter.startswith(f"{ws.layout.built}/")
    assert prepared.environment_variables == {"PYTHONPATH": ""}
    prefix = str(Path(prepared.interpreter).parent.parent)
    assert prepared.notes == [
        f"the environment 'batch' uses the virtual environment {prefix} (Python {this_interpreter().dotted})"
    ]
    assert said[0].startswith("building the virtual environment of the environment 'batch' in ")
    assert "pip: Installing collected packages: tinylib" in said
    assert said[-1].endswith("later jobs use it again")
    found = ask(prepared.interpreter)
    assert found.prefix == prefix and found.packages["tinylib"] == "1.0"
    assert not [name for name in found.packages if name.startswith(("azureml", "numpy", "pandas"))]


def test_it_is_used_again_by_whoever_asks_for_the_same(tiny: Tiny, said: list[str]) -> None:
    ws, environment, prepared, _ = tiny
    other = environment.clone("other")
    other.environment_variables = {"A": "b", "PYTHONPATH": "/mine"}
    again = prepare(other, ws, said.append)
    assert again.interpreter == prepared.interpreter and said == []
    assert again.environment_variables == {"A": "b", "PYTHONPATH": "/mine"}
    built = environment.build(ws)
    assert (built.interpreter, built.status) == (prepared.interpreter, "Succeeded")
    built.wait_for_completion(show_output=True)


SCRIPT = """
import sys
import tinylib

def run(mini_batch):
    return [f"{sys.prefix} {tinylib.VALUE}" for _ in mini_batch]
"""


def test_a_job_runs_in_a_virtual_environment_that_has_nothing_of_ours(tiny: Tiny, new_job: Callable[..., Job]) -> None:
    _, _, prepared, _ = tiny
    assert prepared.interpreter is not None
    variables = prepared.environment_variables
    job = new_job(SCRIPT, 10, environment=prepared.interpreter, environment_variables=variables)
    done = job.local(processes=1)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, [f"{Path(prepared.interpreter).parent.parent} 42"] * 10)


def test_pip_that_fails_says_why_and_leaves_nothing(ws: Workspace, tmp_path: Path, said: list[str]) -> None:
    broken = make_wheel(tmp_path).with_name("broken-1.0-py3-none-any.whl")
    broken.write_bytes(b"no archive")
    with pytest.raises(EnvironmentProblem, match=r"the environment 'batch': pip failed \(exit code [12]\):") as caught:
        prepare(environment_of(str(broken), policy="venv"), ws, said.append)
    assert "broken-1.0-py3-none-any.whl" in str(caught.value)
    (folder,) = ws.layout.built.iterdir()
    assert sorted(entry.name for entry in folder.iterdir()) == ["build.log", "lock"]
    assert str(folder / "build.log") in str(caught.value)
    assert not said[-1].endswith("later jobs use it again")


def digest_of(ws: Workspace, monkeypatch: pytest.MonkeyPatch, environment: Environment) -> str:
    """Where its virtual environment would be built."""
    folders: list[Path] = []

    def stop(folder: Path, *_: object) -> Path:
        folders.append(folder)
        raise EnvironmentProblem("not built in this test")

    monkeypatch.setattr(installing, "built", stop)
    with pytest.raises(EnvironmentProblem, match="not built"):
        prepare(environment, ws, print)
    return folders[0].name


def test_what_a_path_holds_is_part_of_what_was_asked_for(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib" / "build").mkdir(parents=True)
    (tmp_path / "lib" / "setup.py").write_text("")
    wheel = make_wheel(tmp_path / "wheels")
    environment = environment_of(f"./{wheel.relative_to(tmp_path)}", "-e ./lib", policy="venv")

    def digest() -> str:
        return digest_of(ws, monkeypatch, environment)

    first = digest()
    (tmp_path / "lib" / "build" / "made-by-pip").write_text("x")
    (tmp_path / "lib" / "lib.egg-info").mkdir()
    assert digest() == first
    monkeypatch.chdir("/")
    elsewhere = environment_of(str(wheel), f"-e {tmp_path}/lib", policy="venv")
    assert digest_of(ws, monkeypatch, elsewhere) == first
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib" / "module.py").write_text("")
    second = digest()
    assert second != first
    make_wheel(tmp_path / "wheels", value=43)
    assert digest() not in (first, second)


def test_what_makes_no_difference_to_packages_builds_nothing_new(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = digest_of(ws, monkeypatch, environment_of("numpy", policy="venv"))
    other = environment_of(
        "azureml-core", "numpy", policy="venv", python_version=".".join(map(str, sys.version_info[:2]))
    )
    other.docker.enabled = True
    other.environment_variables = {"A": "b"}
    assert digest_of(ws, monkeypatch, other) == plain
    assert digest_of(ws, monkeypatch, environment_of("numpy>=2", policy="venv")) != plain
    has(monkeypatch)  # another interpreter
    assert digest_of(ws, monkeypatch, environment_of("numpy", policy="venv")) != plain


def test_tensorflow_1_is_replaced_where_there_is_none_for_this_python(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[str]] = []

    def virtual_environment(_: Path, base: Interpreter, lines: list[str], *__: object) -> tuple[Path, Interpreter]:
        given.append(lines)
        return Path("/built/bin/python"), Interpreter(
            "/built/bin/python", base.version, "/built", {"tensorflow": "2.17"}
        )

    monkeypatch.setattr(environment_building, "virtual_environment", virtual_environment)
    environment = environment_of("tensorflow==1.15.2", "pillow", "azureml-dataset-runtime[pandas,fuse]", policy="venv")
    prepared = prepare(environment, ws, print)
    assert given == [["tensorflow>=2", "pillow", "numpy", "pyarrow", "pandas"]]
    assert prepared.environment_variables == {"PYTHONPATH": "", TENSORFLOW1.name: "1"}
    assert [note.split(":")[0] for note in prepared.notes[1:]] == [
        "tensorflow==1.15.2 is asked for, and TensorFlow 2.17 is here"
    ]


def test_a_virtual_environment_has_no_packages_of_condas(ws: Workspace) -> None:
    environment = environment_of("numpy", policy="venv", conda_packages=["python>=3.8", "pip=20", "ffmpeg=6"])
    with pytest.raises(EnvironmentProblem, match=r"packages of conda \(ffmpeg=6\), and the policy venv"):
        prepare(environment, ws, print)


def test_another_python_is_looked_for_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installing.base_interpreter(None, "it").path == sys.executable
    ours = this_interpreter()
    assert installing.base_interpreter(">=3.8", "it") == ours
    assert installing.base_interpreter(f"{ours.version[0]}.{ours.version[1]}.99", "it") == ours
    said = r"it asks for Python 3\.8, but this is Python .*no python3\.8 in PATH.*set_python_version.*policy conda"
    with pytest.raises(EnvironmentProblem, match=said):
        installing.base_interpreter("3.8", "it")
    script(tmp_path / "python3.8", "echo pyenv: not found >&2; exit 127")
    with pytest.raises(EnvironmentProblem, match=r"python3\.8 in PATH cannot be used .*exit code 127"):
        installing.base_interpreter("3.8", "it")
    answering(tmp_path / "python3.8", [3, 8, 18], {})
    found = installing.base_interpreter("3.8", "it")
    assert (found.path, found.version) == (str(tmp_path / "python3.8"), (3, 8, 18))
    with pytest.raises(EnvironmentProblem, match=r"asks for Python <3\.8"):
        installing.base_interpreter("<3.8", "it")
    with pytest.raises(EnvironmentProblem, match="no version of Python"):
        installing.base_interpreter("=>3.8", "it")


# conda


@pytest.fixture
def conda(ws: Workspace, tmp_path: Path) -> Iterator[Path]:
    path = stand_ins.conda(tmp_path / "programs" / "conda")
    ws.update_settings(conda=str(path))
    yield path


def test_a_conda_environment_is_made_of_what_was_asked_for(ws: Workspace, conda: Path, said: list[str]) -> None:
    environment = environment_of(
        "azureml-core", "tinylib", policy="conda", conda_packages=["ffmpeg=6"], python_version="3.10"
    )
    prepared = prepare(environment, ws, said.append)
    assert prepared.interpreter is not None and Path(prepared.interpreter).is_relative_to(ws.layout.built)
    assert prepared.environment_variables == {"PYTHONPATH": ""}
    (call,) = stand_ins.notes_of(conda)
    assert call[:3] == ["env", "create", "--prefix"] and call[3] == str(Path(prepared.interpreter).parent.parent)
    assert (ws.layout.built / Path(call[3]).parent.name / "environment.yml").read_text() == (
        "channels:\n- conda-forge\ndependencies:\n- python=3.10\n- ffmpeg=6\n- pip\n- pip:\n  - tinylib\n"
    )
    assert "conda: Solving environment: ...working... done" in said
    assert prepare(environment, ws, said.append).interpreter == prepared.interpreter
    assert len(stand_ins.notes_of(conda)) == 1
    assert subprocess.run([prepared.interpreter, "-c", "import sys; print(sys.prefix)"], check=True)


def test_conda_without_a_wish_for_python_gets_this_one(ws: Workspace, conda: Path) -> None:
    prepare(environment_of("tensorflow==1.15", policy="conda"), ws, print)
    call = stand_ins.notes_of(conda)[0]
    text = Path(str(call[-1])).read_text()
    assert f"- python={sys.version_info[0]}.{sys.version_info[1]}\n" in text and "- tensorflow>=2\n" in text
    prepare(environment_of("tensorflow==1.15", policy="conda", python_version="3.7"), ws, print)
    text = Path(str(stand_ins.notes_of(conda)[1][-1])).read_text()
    assert "- python=3.7\n" in text and "- tensorflow==1.15\n" in text


def test_conda_that_fails_says_why(ws: Workspace, conda: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"conda failed \(exit code 1\):\n(.*\n)*.*ResolvePackageNotFound"):
        prepare(environment_of("no-such-package", policy="conda"), ws, print)
    assert len(stand_ins.notes_of(conda)) == 1


def test_which_conda_is_used(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    with pytest.raises(EnvironmentProblem, match=r"none of mamba, micromamba, conda in PATH.*ws\.update_settings"):
        installing.conda_program(None, {"PATH": str(nothing)})
    for name in ("conda", "micromamba", "mamba"):
        path = stand_ins.conda(tmp_path / "bin" / name)
        assert installing.conda_program(None, {"PATH": str(path.parent)}) == str(path)
    assert installing.conda_program(None, {"PATH": "", "CONDA_EXE": sys.executable}) == sys.executable
    assert installing.conda_program(str(path), {"PATH": ""}) == str(path)
    with pytest.raises(EnvironmentProblem, match=r"setting conda names /no/conda"):
        installing.conda_program("/no/conda", dict(os.environ))


def test_micromamba_has_another_command(ws: Workspace, tmp_path: Path) -> None:
    path = stand_ins.conda(tmp_path / "micromamba")
    ws.update_settings(conda=str(path))
    assert prepare(environment_of("tinylib", policy="conda"), ws, print).interpreter is not None
    assert stand_ins.notes_of(path)[0][:2] == ["create", "--prefix"]

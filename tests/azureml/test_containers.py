"""Python in an image. What runs the image here is a stand-in for Apptainer, not Apptainer: see ``stand_ins.py``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.environments import container
from mpi_prs.azureml.environments.building import PreparedEnvironment, prepare
from mpi_prs.azureml.environments.environment import Environment
from mpi_prs.azureml.environments.interpreter import this_interpreter
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.data import DEFAULT_CPU_IMAGE
from mpi_prs.core.environ import TABLES_IN_FILES
from mpi_prs.core.errors import EnvironmentProblem
from tests.support import stand_ins
from tests.support.jobs import NAMES_SCRIPT, REPOSITORY, Job, assert_every_row_once, need

PACKAGE = str(REPOSITORY / "mpi_prs")


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.create("mnist", folder=tmp_path / "workspace", show_output=False)


@pytest.fixture
def apptainer(ws: Workspace, tmp_path: Path) -> Path:
    path = stand_ins.apptainer(tmp_path / "programs" / "apptainer")
    ws.update_settings(apptainer=str(path))
    return path


def environment_with(image: str | None = "example.org/python:3", **docker: Any) -> Environment:
    environment = Environment("batch")
    environment.policy = "container"
    environment.docker.base_image = image
    for name, value in docker.items():
        setattr(environment.docker, name, value)
    return environment


def test_an_image_is_pulled_once_and_its_python_is_an_interpreter(ws: Workspace, apptainer: Path) -> None:
    said: list[str] = []
    environment = environment_with()
    environment.environment_variables = {"A": "b"}
    environment.python.conda_dependencies.add_pip_package("no-such-package")
    prepared = prepare(environment, ws, said.append)
    assert prepared.interpreter is not None and os.access(prepared.interpreter, os.X_OK)
    assert prepared.environment_variables == {TABLES_IN_FILES.name: "1", "A": "b"}
    assert prepared.notes == [
        "the environment 'batch' uses the container docker://example.org/python:3 "
        f"(Python {this_interpreter().dotted})",
        "not installed there: no-such-package",
    ]
    assert "INFO:    Converting OCI blobs to SIF format" in said
    assert prepare(environment, ws, said.append).interpreter == prepared.interpreter
    assert (
        prepare(environment_with(arguments=["-v", "/tmp:/data"]), ws, said.append).interpreter != prepared.interpreter
    )
    pulls = [call["pull"] for call in stand_ins.notes_of(apptainer) if "pull" in call]
    assert [url for _, url in pulls] == ["docker://example.org/python:3"]
    assert Path(pulls[0][0]).is_relative_to(ws.layout.built) and Path(pulls[0][0]).is_file()


def test_an_image_that_cannot_be_had_says_why(ws: Workspace, apptainer: Path) -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"apptainer pull docker://no-such-image failed \(exit code 255\)"
    ) as caught:
        prepare(environment_with("no-such-image"), ws, print)
    assert "manifest unknown" in str(caught.value)
    assert len(stand_ins.notes_of(apptainer)) == 1


def test_an_image_without_the_python_says_so(ws: Workspace, apptainer: Path) -> None:
    environment = environment_with()
    environment.python.user_managed_dependencies = True
    environment.python.interpreter_path = "/opt/no/python"
    with pytest.raises(EnvironmentProblem, match=r"exit code 255\):\nFATAL: .*/opt/no/python: no such file"):
        prepare(environment, ws, print)
    assert stand_ins.notes_of(apptainer)[-1]["program"] == "/opt/no/python"


def test_without_apptainer_the_message_says_what_to_do(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        EnvironmentProblem, match=r"neither apptainer nor singularity in PATH.*apptainer=.*venv or conda"
    ):
        prepare(environment_with(), ws, print)
    ws.update_settings(apptainer="/no/apptainer")
    with pytest.raises(EnvironmentProblem, match="setting apptainer names /no/apptainer"):
        prepare(environment_with(), ws, print)
    stand_ins.apptainer(tmp_path / "singularity")
    assert container.container_program(None) == str(tmp_path / "singularity")
    stand_ins.apptainer(tmp_path / "apptainer")
    assert container.container_program(None) == str(tmp_path / "apptainer")


def test_what_an_image_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.sif").touch()
    (tmp_path / "sandbox").mkdir()

    def source(image: str | None, dockerfile: str | None = None) -> tuple[str, bool]:
        return container.image_source(image, dockerfile, "it")

    assert source(DEFAULT_CPU_IMAGE) == (f"docker://{DEFAULT_CPU_IMAGE}", True)
    assert source("oras://example.org/x:1") == ("oras://example.org/x:1", True)
    assert source("image.sif") == (str(tmp_path / "image.sif"), False)
    assert source("./sandbox") == (str(tmp_path / "sandbox"), False)
    for image, dockerfile, said in [
        ("missing.sif", None, r"it: docker\.base_image: there is no .*/missing\.sif"),
        ("docker-archive:x.tar", None, "apptainer build image.sif docker-archive:x.tar"),
        ("s3://bucket/x", None, "nothing that can be pulled"),
        (None, "FROM scratch", "Apptainer builds nothing from it"),
        (None, None, r"it has no docker\.base_image"),
    ]:
        with pytest.raises(EnvironmentProblem, match=said):
            source(image, dockerfile)


def test_dockers_options_are_translated_or_refused() -> None:
    arguments = [
        "-v",
        "/a:/b:ro",
        "--volume=/c:/d",
        "-e",
        "A=b c",
        "--shm-size=2g",
        "--ipc",
        "host",
        "--rm",
        "-v /e:/f",
    ]
    options = ["--bind", "/a:/b:ro", "--bind", "/c:/d", "--env", "A=b c", "--bind", "/e:/f"]
    assert container.apptainer_options(arguments) == options
    for bad, said in [
        (["--privileged"], "--privileged has no counterpart"),
        (["-v"], "-v lacks its value"),
        (["-e", "TOKEN"], r"-e TOKEN…: use Environment\.environment_variables"),
        (["-e", "A=hunter2,b"], r"-e A…: use Environment"),
        (["image"], "image has no counterpart"),
    ]:
        with pytest.raises(EnvironmentProblem, match=said) as caught:
            container.apptainer_options(bad)
        assert "hunter2" not in str(caught.value)


# The wrapper


def run_wrapper(tmp_path: Path, text: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "python"
    path.write_text(text)
    return subprocess.run(
        ["/bin/sh", str(path), *arguments], env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


def test_the_wrapper_shows_the_container_what_a_job_needs(tmp_path: Path) -> None:
    program = stand_ins.apptainer(tmp_path / "apptainer")
    image, seen = tmp_path / "my image.sif", tmp_path / "it's seen"
    scratch = tmp_path / "scratch" / "worker"
    image.touch()
    for folder in (seen, scratch / "process000"):
        folder.mkdir(parents=True)
    options = ["--bind", f"{seen}:/data"]
    text = container.wrapper(str(program), str(image), "python3", options, [Path(PACKAGE), seen, tmp_path / "missing"])
    code = "import os, sys; print(sys.argv[1:], os.environ.get('PYTHONPATH'), os.environ['PYTHONNOUSERSITE'])"
    process_folder = f"{scratch}/process000/"
    done = run_wrapper(
        tmp_path, text, "-c", code, "a b", "$HOME", PYTHONPATH="/outside", MPI_PRS_PROCESS_FOLDER=process_folder
    )
    assert done.stdout == "['a b', '$HOME'] None 1\n", done.stderr
    (call,) = stand_ins.notes_of(program)
    assert call["exec"] == str(image) and call["inside"][:2] == ["-c", code]
    assert {PACKAGE, str(seen), str(scratch), str(scratch.parent)} <= set(call["binds"])
    assert not {"/usr", "/etc", "/proc", "/", str(tmp_path / "missing")} & set(call["binds"])
    top = f"/{REPOSITORY.parts[1]}"
    if top not in ("/usr", "/opt", "/root", "/tmp", "/var"):  # a folder of the site's own, such as /home or /scratch
        assert call["binds"].index(top) < call["binds"].index(PACKAGE)  # what is in it comes after it


def test_the_wrapper_keeps_the_variables_that_the_environment_sets(tmp_path: Path) -> None:
    program = stand_ins.apptainer(tmp_path / "apptainer")
    text = container.wrapper(str(program), str(program), "python3", [], [], kept=["PYTHONPATH"])
    done = run_wrapper(tmp_path, text, "-c", "import os; print(os.environ['PYTHONPATH'])", PYTHONPATH="/mine")
    assert done.stdout == "/mine\n", done.stderr


def test_the_wrapper_finds_apptainer_elsewhere_on_another_node(tmp_path: Path) -> None:
    program = stand_ins.apptainer(tmp_path / "bin" / "singularity")
    text = container.wrapper("/no/apptainer", str(program), "python3", [], [])
    path = f"{program.parent}:/usr/bin:/bin"
    assert run_wrapper(tmp_path, text, "-c", "print('here')", PATH=path).stdout == "here\n"
    done = run_wrapper(tmp_path, text, "-c", "", PATH="/usr/bin:/bin")
    if shutil.which("apptainer", path="/usr/bin:/bin") or shutil.which("singularity", path="/usr/bin:/bin"):
        return  # there is a real one here, which does not take the stand-in for an image
    assert done.returncode == 127 and "this node has no /no/apptainer" in done.stderr


def test_the_wrapper_is_a_shell_script_without_faults(tmp_path: Path) -> None:
    program = shutil.which("shellcheck") or need("shellcheck: make test installs it")
    path = tmp_path / "python"
    path.write_text(
        container.wrapper("/usr/bin/apptainer", "/x/it's.sif", "python3", ["--env", "A=b c"], [Path("/a b")])
    )
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# Jobs


def namespaces() -> bool:
    """Whether a process may enter a user namespace of its own here."""
    code = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000) != 0)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def prepared_in(tmp_path: Path, *, namespace: bool) -> PreparedEnvironment:
    if namespace and not namespaces():
        need("user namespaces for processes without privileges")
    ws = Workspace.create("jobs", folder=tmp_path / "workspace", show_output=False)
    path = stand_ins.apptainer(tmp_path / "programs" / "apptainer", namespace=namespace)
    ws.update_settings(apptainer=str(path))
    return prepare(environment_with(), ws, print)


def settings_of(prepared: PreparedEnvironment) -> dict[str, Any]:
    return {"environment": prepared.interpreter, "environment_variables": prepared.environment_variables}


@pytest.mark.parametrize("namespace", [False, True])
def test_a_job_runs_in_a_container(tmp_path: Path, new_job: Callable[..., Job], namespace: bool) -> None:
    job = new_job(NAMES_SCRIPT, **settings_of(prepared_in(tmp_path, namespace=namespace)))
    done = job.local(processes=2)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)


TABLE_SCRIPT = """
def run(mini_batch):
    return mini_batch
"""


def table_job(new_job: Callable[..., Job], settings: dict[str, Any]) -> Job:
    job = new_job(TABLE_SCRIPT, inputs=[{"table": "in/*.csv"}], mini_batch_size="1KB", **settings)
    (job.folder / "in" / "rows.csv").write_text("a,b\n" + "".join(f"{i},{2 * i}\n" for i in range(1000)))
    return job


def test_tables_reach_a_container_in_a_user_namespace_of_its_own(tmp_path: Path, new_job: Callable[..., Job]) -> None:
    prepared = prepared_in(tmp_path, namespace=True)
    job = table_job(new_job, settings_of(prepared))
    done = job.local(processes=2)
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, [f"{i} {2 * i}" for i in range(1000)])
    without = table_job(new_job, {"environment": prepared.interpreter, "error_threshold": 0})
    done = without.local(processes=1)
    assert done.returncode == 1 and f"set {TABLES_IN_FILES.name} to 1 in environment_variables" in done.stdout, (
        done.stdout
    )


HANGING_SCRIPT = """
import os
import subprocess
import time

def run(mini_batch):
    if "item-0005.txt" in mini_batch[1]:
        subprocess.Popen(["sleep", "1000"])
        hang()
    if "item-0009.txt" in mini_batch[1]:
        os.kill(os.getpid(), 11)
    return mini_batch

def hang():
    while True:
        time.sleep(1)
"""


@pytest.mark.parametrize("namespace", [False, True])
def test_what_hangs_or_crashes_in_a_container_is_killed_with_all_it_started(
    tmp_path: Path, new_job: Callable[..., Job], namespace: bool
) -> None:
    settings = settings_of(prepared_in(tmp_path, namespace=namespace))
    job = new_job(HANGING_SCRIPT, 16, run_invocation_timeout=1, run_max_try=1, **settings)
    done = job.local(processes=2)
    assert done.returncode == 0, done.stdout
    assert "run() did not end within run_invocation_timeout (1 s)" in done.stdout
    assert "SIGSEGV" in done.stdout, done.stdout
    assert len(job.rows()) == 8
    logs = [*job.directory.logs.glob("user/stderr/*/*.txt")]
    assert any("in hang" in log.read_text() for log in logs), "the signal that dumps the stacks has not come through"
    job.assert_nothing_left()

"""``mpi-prs models|datastores|datasets|runs``: what is in a workspace, from the command line."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.experiment import Experiment
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.run_record import (
    PIPELINE,
    STEP,
    SUBMITTED,
    Output,
    PipelinePart,
    Reused,
    RunRecord,
    StepPart,
    write_record,
)
from mpi_prs.cli.main import command_line
from mpi_prs.core.process_mark import ProcessMark
from tests.support.azurite import KEYS, Azurite
from tests.support.jobs import REPOSITORY


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace that the config.json of the working directory names; there are ``models/`` and ``images/``."""
    project = tmp_path / "project"
    for folder in ("models", "images"):
        (project / folder).mkdir(parents=True)
    (project / "models" / "mnist.pkl").write_text("model")
    (project / "images" / "0.png").write_text("image")
    (project / "rows.csv").write_text("a;b\n1;2\n")
    monkeypatch.chdir(project)
    monkeypatch.delenv("MPI_PRS_WORKSPACE", raising=False)
    made = Workspace.create("mnist", folder=tmp_path / "ws", show_output=False)
    made.write_config()
    return made


Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command; returns what it printed, or on ``fails=CODE`` what it said on stderr."""

    def run(*words: str, fails: int = 0) -> str:
        capsys.readouterr()
        code = command_line(words, None)
        said = capsys.readouterr()
        assert code == fails, said.err
        assert "Traceback" not in said.err
        return said.err if fails else said.out

    return run


@pytest.fixture
def answer(say: Say) -> Callable[..., Any]:
    """Run a command with ``--json``; returns what it answers."""
    return lambda *words: json.loads(say(*words, "--json"))


# Models


def test_models_are_registered_listed_and_shown(ws: Workspace, say: Say, answer: Callable[..., Any]) -> None:
    shown = say("models", "register", "mnist", "models", "--tag", "stage=test", "--description", "the model")
    assert shown.splitlines()[0] == "model        mnist:1"
    assert shown.splitlines()[-1] == f"path         {ws.folder}/models/mnist/1/content/models"
    made = answer("models", "register", "mnist", "models", "--property", "git=abc", "--framework", "TensorFlow")
    assert (made["version"], made["properties"], made["framework"]) == (2, {"git": "abc"}, "TensorFlow")
    say("models", "register", "iris", "models/mnist.pkl", "--tag", "stage=test")
    lines = [line.split() for line in say("models", "list").splitlines()]
    assert lines[0] == ["NAME", "VERSION", "REGISTERED", "FILES", "SIZE", "TAGS", "DESCRIPTION"]
    assert [line[:2] for line in lines[1:]] == [["iris", "1"], ["mnist", "2"]]
    assert [model["id"] for model in answer("models", "list", "mnist")] == ["mnist:2", "mnist:1"]
    assert [model["id"] for model in answer("models", "list", "--all")] == ["iris:1", "mnist:2", "mnist:1"]
    assert [model["id"] for model in answer("models", "list", "--tag", "stage=test", "--all")] == ["iris:1", "mnist:1"]
    assert [model["id"] for model in answer("models", "list", "--tag", "stage")] == ["iris:1", "mnist:1"]
    assert answer("models", "show", "mnist:1")["description"] == "the model"
    assert "TensorFlow" in say("models", "show", "mnist")


def test_models_are_downloaded_and_deleted(ws: Workspace, say: Say, tmp_path: Path) -> None:
    say("models", "register", "mnist", "models/mnist.pkl")
    target = str(tmp_path / "down")
    assert say("models", "download", "mnist", target) == f"{target}/mnist.pkl\n"
    assert "give --overwrite to replace it" in say("models", "download", "mnist:1", target, fails=2)
    say("models", "download", "mnist:1", target, "--overwrite")
    assert "say which version: mnist:VERSION" in say("models", "delete", "mnist", fails=2)
    assert say("models", "delete", "mnist:1", "--yes") == "removed mnist:1\n"
    assert list(ws.models) == []


def test_deleting_asks_first(ws: Workspace, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    say("models", "register", "mnist", "models")
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: "n")
    assert "interrupted" in say("models", "delete", "mnist:1", fails=130)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: "y")
    say("models", "delete", "mnist:1")
    assert list(ws.models) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "mnits"], "there is no model 'mnits' in the workspace"),
        (["show", "mnits"], "did you mean 'mnist'?"),
        (["show", "mnist:7"], "there is no version 7 of the model 'mnist'"),
        (["show", "mnist:x"], "expected NAME or NAME:VERSION, such as mnist:3, but got 'mnist:x'"),
        (["register", "x", "modls"], "did you mean 'models'?"),
        (["register", "x", "models", "--tag", "stage"], "--tag takes KEY=VALUE, but got 'stage'"),
        (["register", "a/b", "models"], "the name of a model has no '/' in it"),
        (["list", "--workspace", "/nowhere"], "there is no file and no folder /nowhere"),
        (["list", "--workspace", "/"], "there is no config.json for a workspace in /"),
    ],
)
def test_mistakes_are_told_in_a_sentence(ws: Workspace, say: Say, words: list[str], message: str) -> None:
    say("models", "register", "mnist", "models", "--workspace", str(ws.folder))
    assert message in say("models", *words, fails=2)


def test_nothing_there_is_said_apart_from_the_output(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["models", "list"], None) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"no model in {ws.folder} yet; register one: mpi-prs models register NAME PATH" in said.err
    assert command_line(["models", "list", "--json"], None) == 0
    assert capsys.readouterr().out == "[]\n"
    assert command_line(["datasets", "list"], None) == 0
    assert "register one: mpi-prs datasets register NAME PATH" in capsys.readouterr().err


def test_a_workspace_that_is_made_on_the_way_leaves_the_output_to_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text('{"workspace_folder": "new"}')
    assert command_line(["models", "list", "--json"], None) == 0
    said = capsys.readouterr()
    assert said.out == "[]\n"
    assert "made the workspace" in said.err
    assert command_line(["models", "list", "--workspace", str(tmp_path)], None) == 0  # with a config.json


@pytest.mark.usefixtures("ws")
def test_control_characters_reach_no_terminal(say: Say) -> None:
    say("models", "register", "mnist", "models", "--description", "\x1b[2Jgone")
    assert "\x1b" not in say("models", "list") + say("models", "show", "mnist")


# Datastores


def test_folders_are_registered_as_datastores(ws: Workspace, say: Say, answer: Callable[..., Any]) -> None:
    say("datastores", "register", "images", "--folder", "images")
    assert "give --overwrite" in say("datastores", "register", "images", "--folder", "images", fails=2)
    say("datastores", "register", "images", "--folder", "new", "--overwrite", "--create")
    assert ws.datastores["images"].folder == Path("new").absolute()
    assert "give --create" in say("datastores", "register", "more", "--folder", "more", fails=2)
    say("datastores", "register", "more", "--folder", "more", "--no-check")
    say("datastores", "set-default", "images")
    table = say("datastores", "list").splitlines()
    assert table[1].split() == ["images*", "Folder", str(Path("new").absolute())]
    assert [one["name"] for one in answer("datastores", "list") if one["default"]] == ["images"]
    assert "yes" in say("datastores", "show", "images")
    say("datastores", "unregister", "more")
    assert "did you mean 'images'?" in say("datastores", "show", "image", fails=2)
    assert "did you mean 'images'?" in say("datastores", "unregister", "image", fails=2)


@pytest.mark.parametrize("option", ["--account-key-file", "--sas-token-file", "--connection-string-file"])
def test_a_secret_comes_from_a_file_and_is_never_shown(ws: Workspace, say: Say, option: str) -> None:
    key = "c2VjcmV0"
    secret = {
        "--account-key-file": key,
        "--sas-token-file": f"sv=2020-01-01&sig={key}",
        "--connection-string-file": f"AccountName=acct;AccountKey={key}",
    }[option]
    Path("secret.txt").write_text(f"{secret}\n")
    account = [] if option == "--connection-string-file" else ["--account", "acct"]
    register = ["datastores", "register", "images", "--container", "sampledata", *account, option, "secret.txt"]
    said = say(*register, "--no-check")
    said += say("datastores", "show", "images", "--json") + say("datastores", "list")
    assert key not in said
    [kept] = ws.layout.secrets.iterdir()
    assert kept.read_text().strip().endswith(key) and stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert key not in say(*register, fails=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --folder DIR or --container NAME, one of them"),
        (["--folder", "images", "--container", "c"], "give --folder DIR or --container NAME, one of them"),
        (["--folder", "images", "--account", "a"], "go with --container, not with --folder"),
        (["--container", "sampledata"], "account_name is missing"),
        (["--container", "sampledata", "--account-key-file", "nothing"], "No such file"),
    ],
)
def test_a_datastore_wants_to_be_described(ws: Workspace, say: Say, words: list[str], message: str) -> None:
    assert message in say("datastores", "register", "images", *words, fails=2)
    assert "images" not in ws.datastores


def test_a_container_is_registered(ws: Workspace, say: Say, azurite: Azurite, answer: Callable[..., Any]) -> None:
    Path("key").write_text(KEYS[azurite.account])
    say(
        *("datastores", "register", "images", "--container", "from-cli", "--account", azurite.account),
        *("--endpoint", azurite.account_url(), "--account-key-file", "key", "--create"),
    )
    about = answer("datastores", "show", "images")
    assert (about["type"], about["place"], about["credentials"]) == ("AzureBlob", "abfs://from-cli/", "AccountKey")
    ws.datastores["images"].upload("images", "mnist", show_progress=False)
    say("datasets", "register", "digits", "images:mnist/*.png")
    assert answer("datasets", "show", "digits")["places"] == ["images:mnist/*.png"]


# Datasets


def test_datasets_are_registered_listed_and_shown(ws: Workspace, say: Say, answer: Callable[..., Any]) -> None:
    say("datastores", "register", "store", "--folder", "images")
    say("datasets", "register", "digits", "store:*.png", "--tag", "year=2020", "--description", "digits")
    say("datasets", "register", "rows", "rows.csv", "--as", "delimited", "--separator", ";", "--no-header")
    say("datasets", "register", "tabs", "rows.csv", "--as", "delimited", "--separator", "\\t")
    say("datasets", "register", "users", "images", "--partition-format", "{name}.png")
    assert "give --new-version" in say("datasets", "register", "digits", "images", fails=2)
    say("datasets", "register", "digits", "images", "images/0.png", "--new-version")
    lines = [line.split()[:3] for line in say("datasets", "list").splitlines()]
    assert lines[1:] == [
        ["digits", "2", "files"],
        ["rows", "1", "delimited"],
        ["tabs", "1", "delimited"],
        ["users", "1", "files"],
    ]
    first = answer("datasets", "show", "digits:1")
    assert (first["places"], first["tags"], first["description"]) == (["store:*.png"], {"year": "2020"}, "digits")
    assert len(answer("datasets", "show", "digits")["places"]) == 2
    assert "separator=;, header=no_header" in say("datasets", "show", "rows")
    assert answer("datasets", "show", "tabs")["definition"]["options"]["separator"] == "\t"
    assert "{name}.png" in say("datasets", "show", "users")
    assert list(ws.datasets["rows"].to_pandas_dataframe().iloc[1]) == ["1", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "digit"], "there is no dataset 'digit'; did you mean 'digits'?"),
        (["show", "digits:9"], "the dataset 'digits' has no version 9"),
        (["register", "x", "stor:a"], "there is no datastore 'stor'"),
        (["register", "x", "nothing"], "nothing does not exist"),
        (["register", "x", "images", "--no-header"], "--separator and --no-header go with --as delimited"),
        (["register", "x", "images", "--as", "csv"], "'csv' is not one of"),
        (["register", "x"], "Missing argument"),
    ],
)
def test_mistakes_about_datasets_are_told(ws: Workspace, say: Say, words: list[str], message: str) -> None:
    say("datasets", "register", "digits", "images")
    assert message in say("datasets", *words, fails=2)
    assert list(ws.datasets) == ["digits"]


def test_a_file_with_a_colon_is_no_datastore(ws: Workspace, say: Say) -> None:
    Path("a:b.png").touch()
    say("datasets", "register", "odd", "a:b.png")
    say("datasets", "register", "unchecked", "https://example.org/a.csv", "--as", "delimited", "--no-check")
    assert [str(source) for source in ws.datasets["odd"].sources] == [str(Path("a:b.png").absolute())]


# Runs


def test_runs_are_listed_and_shown(ws: Workspace, say: Say, answer: Callable[..., Any]) -> None:
    first = Experiment(ws, "digits").start_logging(display_name="mine")
    first.log("auc", 0.5)
    first.set_tags({"stage": "test"})
    child = first.child_run("child")
    child.complete()
    first.fail("no images\nin the folder", "E1")
    second = Experiment(ws, "other").start_logging()
    lines = [line.split() for line in say("runs", "list").splitlines()]
    assert [(line[0], line[1], line[4]) for line in lines[1:]] == [
        (second.id, "other", "Running"),
        (first.id, "digits", "Failed"),
    ]
    assert [run["id"] for run in answer("runs", "list", "--last", "1")] == [second.id]
    assert [run["id"] for run in answer("runs", "list", "--experiment", "digits")] == [first.id]
    shown = say("runs", "show", first.id)
    for line in (
        "status      Failed",
        "tags        stage=test",
        "metrics     auc=0.5",
        "E1 no images",
        "in the folder",
    ):
        assert line in shown.splitlines()
    assert [line.split()[:2] for line in shown.splitlines() if line.startswith("child")] == [["child", "Completed"]]
    assert say("runs", "show").splitlines()[0].split() == ["run", second.id]
    assert ws.get_run(first.id) == first
    about = answer("runs", "show", first.id)
    assert (about["metrics"], [step["id"] for step in about["steps"]]) == ({"auc": 0.5}, [child.id])


def test_a_pipeline_is_shown_with_its_steps(ws: Workspace, say: Say, answer: Callable[..., Any]) -> None:
    record, step = pipeline_records()
    for one in (record, step):
        write_record(ws.layout, one)
    [about] = answer("runs", "list")
    assert (about["kind"], about["name"], about["status"]) == ("pipeline", "nightly", "Completed")
    assert [run["kind"] for run in answer("runs", "list", "--steps")] == ["step", "pipeline"]
    shown = say("runs", "show")
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        ["STEP", "STATUS", "RUN", "OUTPUT"],
        ["predict", "Completed", step.id, "/store/inferences"],
    ]
    assert "part of     pipeline-1" in say("runs", "show", step.id).splitlines()
    say("runs", "wait", record.id)


def pipeline_records() -> tuple[RunRecord, RunRecord]:
    """A pipeline run whose only step uses the output of an earlier run."""
    created = "2026-10-18T12:00:00.000+00:00"
    pipeline = PipelinePart("local", ["pipeline-1-predict"], SUBMITTED, ProcessMark.of_this_process())
    outputs = {"inferences": Output("workspaceblobstore", "inferences", "/store/inferences")}
    part = StepPart([], "/store/inferences", outputs, "rows.txt", "cpucluster", 1, 1, "digest", Reused("digits", "old"))
    return (
        RunRecord("pipeline-1", "digits", PIPELINE, "nightly", created, pipeline=pipeline),
        RunRecord("pipeline-1-predict", "digits", STEP, "predict", created, parent="pipeline-1", step=part),
    )


def test_runs_are_cancelled_and_waited_for(ws: Workspace, say: Say) -> None:
    run = Experiment(ws, "digits").start_logging()
    assert say("runs", "cancel", run.id) == f"{run.id}: Canceled\n"
    say("runs", "wait")
    failed = Experiment(ws, "digits").start_logging()
    failed.fail("no images")
    assert "no images" in say("runs", "wait", failed.id, fails=1)


def test_mistakes_about_runs_are_told(ws: Workspace, say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["runs", "list"], None) == 0
    assert f"no run in {ws.folder} yet" in capsys.readouterr().err
    assert "there is no run in" in say("runs", "show", fails=2)
    run = Experiment(ws, "digits").start_logging()
    assert f"did you mean {run.id!r}" in say("runs", "show", run.id[:-1], fails=2)
    assert f"did you mean {run.id!r}" in say("runs", "cancel", run.id[:-1], fails=2)
    assert "did you mean 'digits'?" in say("runs", "list", "--experiment", "digit", fails=2)


# All of them


def test_the_command_line_begins_without_what_only_workspaces_need() -> None:
    code = "import sys, mpi_prs.cli.main; print(*[name for name in sys.modules if name.startswith('mpi_prs.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if name.startswith("mpi_prs.azureml")]

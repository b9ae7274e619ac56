"""Models: registering and finding them, with many writers, ten thousand readers, and writers that are killed."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mpi_prs.azureml.models.model import Model, models_for_job
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.script_context import ScriptContext
from mpi_prs.core.errors import ModelNotFoundException, WorkspaceError
from mpi_prs.core.records import versions
from tests.support.jobs import REPOSITORY
from tests.support.together import together


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace, and a working directory with the model of the tutorial in ``models/``."""
    project = tmp_path / "project"
    (project / "models" / "assets").mkdir(parents=True)
    (project / "models" / "mnist-tf.model.meta").write_text("graph")
    (project / "models" / "assets" / "labels.txt").write_text("0 1 2")
    monkeypatch.chdir(project)
    monkeypatch.setenv("MPI_PRS_HOME", str(tmp_path / "home"))
    return Workspace.create("mnist", folder=tmp_path / "ws", show_output=False)


def register(ws: Workspace, **more: object) -> Model:
    return Model.register(workspace=ws, **{"model_path": "models/", "model_name": "mnist", **more})


def in_job(ws: Workspace, monkeypatch: pytest.MonkeyPatch, **models: int | str) -> None:
    """This process is a user process of a job that was submitted when the workspace had these models."""
    for name, value in ScriptContext(str(ws.folder), "exp", "run", models).variables().items():
        monkeypatch.setenv(name, value)


# Registering


def test_a_folder_is_registered_as_the_tutorial_does(ws: Workspace) -> None:
    model = Model.register(
        model_path="models/",
        model_name="mnist",
        tags={"pretrained": "mnist"},
        description="Mnist trained tensorflow model",
        workspace=ws,
    )
    assert (model.name, model.version, model.id) == ("mnist", 1, "mnist:1")
    assert (model.tags, model.properties) == ({"pretrained": "mnist"}, {})
    assert model.description == "Mnist trained tensorflow model"
    assert model.created_time.tzinfo is datetime.timezone.utc
    assert (model.files, model.size) == (2, 10)
    assert model.path == ws.folder / "models" / "mnist" / "1" / "content" / "models"
    assert (model.path / "mnist-tf.model.meta").read_text() == "graph"
    assert (model.path / "assets" / "labels.txt").read_text() == "0 1 2"
    assert Model(ws, "mnist").serialize() == Model(ws, id="mnist:1").serialize() == model.serialize()
    assert json.loads(json.dumps(model.serialize()))["framework"] == "Custom"


def test_a_file_is_registered_and_each_time_as_a_new_version(ws: Workspace) -> None:
    for number in (1, 2):
        Path("model.pkl").write_text(str(number))
        assert Model.register(ws, Path("model.pkl"), "iris").version == number
    assert Model(ws, "iris").path.read_text() == "2"
    assert Model(ws, "iris", version=1).path.read_text() == "1"
    assert Model(ws, "iris", version="1").version == 1
    assert ws.models["iris"].version == 2 and list(ws.models) == ["iris"]


def test_some_children_of_a_folder_are_registered(ws: Workspace) -> None:
    model = register(ws, child_paths=["assets/labels.txt"])
    assert [path.name for path in model.path.iterdir()] == ["assets"]
    assert model.files == 1
    for wrong, message in (
        (["../x"], r"child_paths are files in .*models, but got '\.\./x'"),
        (["nothing"], r"there is no .*models/nothing"),
        ([], r"child_paths is a list of files"),
        ("assets", r"child_paths is a list of files"),
    ):
        with pytest.raises(WorkspaceError, match=message):
            register(ws, child_paths=wrong)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model_path": "modls"}, r"no file and no folder .*/modls; did you mean 'models'\?"),
        ({"model_path": ""}, "model_path is the path of a file or folder, but got ''"),
        ({"model_path": None}, "model_path is the path of a file or folder, but got None"),
        ({"model_path": "/"}, "the root folder is no model"),
        ({"model_path": ".."}, r"cannot be copied, since the workspace .*ws is inside it"),
        ({"model_name": "a/b"}, "the name of a model has no '/' in it"),
        ({"model_name": 3}, "the name of a model is text"),
        ({"tags": ["x"]}, "tags: got .*; expected a dict of texts, such as"),
        ({"tags": {"x": None}}, r"tags\['x'\]: got None; expected text"),
        ({"properties": {3: "x"}}, "properties: got 3; expected text for the name of a tag"),
        ({"workspace": "ws"}, "expected a Workspace, .* but got 'ws'"),
    ],
)
def test_what_cannot_be_registered_is_told_and_leaves_nothing(
    ws: Workspace, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(WorkspaceError, match=message):
        Model.register(**{"workspace": ws, "model_path": "models", "model_name": "mnist", **parameters})
    assert Model.list(ws) == []
    assert not ws.layout.incoming.exists() or os.listdir(ws.layout.incoming) == []


def test_a_copy_that_fails_halfway_leaves_nothing(ws: Workspace) -> None:
    os.mkfifo("models/pipe")
    with pytest.raises(WorkspaceError, match=r"models/pipe cannot be copied: it is neither a file nor a folder"):
        register(ws)
    assert Model.list(ws) == [] and os.listdir(ws.layout.incoming) == []


REGISTERING = """
import sys
from pathlib import Path
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.workspace import Workspace
folder, who = Path(sys.argv[2], sys.argv[3]), sys.argv[3]
folder.mkdir()
for number in range(8):
    for part in ("a", "b"):
        (folder / part).write_text(f"{who} {number}")
    print(Model.register(Workspace.at(sys.argv[1]), folder, "mnist", tags={"who": f"{who} {number}"}).version)
"""


def test_processes_that_register_at_once_get_versions_of_their_own(ws: Workspace) -> None:
    said = together(4, REGISTERING, ws.folder, Path.cwd())
    got = {(who, number): int(line) for who, text in enumerate(said) for number, line in enumerate(text.split())}
    assert sorted(got.values()) == list(range(1, 33))
    for (who, number), version in got.items():
        model = Model(ws, "mnist", version=version)
        assert model.tags == {"who": f"{who} {number}"}
        assert [(model.path / part).read_text() for part in ("a", "b")] == [f"{who} {number}"] * 2
    assert os.listdir(ws.layout.incoming) == []


STUCK = """
import signal, sys
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.store import import_files
from mpi_prs.azureml.workspace import Workspace
def copy(source, target, **options):
    with open(target, "w") as file:
        file.write("half of it")
    print(target, flush=True)
    signal.pause()
import_files.copy_atomically = copy
Model.register(Workspace.at(sys.argv[1]), "models", "mnist")
"""


def killed(code: str, *arguments: object, lines: int) -> list[str]:
    """What a process says that is killed when it has said so many lines."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(lines)]
        process.kill()
        assert process.wait() == -signal.SIGKILL
    return said


def test_a_register_that_is_killed_leaves_nothing_to_be_seen_and_its_rest_is_cleared_away(ws: Workspace) -> None:
    [half] = killed(STUCK, ws.folder, lines=1)
    assert Path(half).read_text() == "half of it"
    assert Model.list(ws) == [] and dict(ws.models) == {}
    with pytest.raises(ModelNotFoundException):
        Model.get_model_path("mnist", _workspace=ws)
    assert register(ws).version == 1
    assert not Path(half).exists()
    assert os.listdir(ws.layout.incoming) == []


FOREVER = """
import itertools, sys
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.workspace import Workspace
while True:
    print(Model.register(Workspace.at(sys.argv[1]), "models", "mnist").version, flush=True)
"""


def test_wherever_a_register_is_killed_each_version_is_whole(ws: Workspace) -> None:
    for number in range(200):
        Path("models", f"part{number}").write_text(str(number))
    last = 0
    for lines in (1, 2, 3):
        said = killed(FOREVER, ws.folder, lines=lines)
        assert int(said[0]) > last
        last = int(said[-1])
    assert len(Model.list(ws)) >= 6
    for model in Model.list(ws):
        assert len(os.listdir(model.path)) == 202 and model.files == 202


def test_a_writer_that_is_at_work_is_not_cleared_away(ws: Workspace) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, str(ws.folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as process:
        try:
            assert process.stdout is not None
            half = Path(process.stdout.readline().strip())
            assert register(ws).version == 1
            assert half.read_text() == "half of it"
        finally:
            process.kill()


# Looking models up


def test_models_are_listed_and_found_by_tags_and_properties(ws: Workspace) -> None:
    register(ws, tags={"stage": "test", "auc": 0.5}, properties={"git": "abc"})
    register(ws, tags={"stage": "production"}, model_framework=Model.Framework.TENSORFLOW, run_id="run-1")
    register(ws, tags={"stage": "test"})
    register(ws, model_name="iris", experiment_name="flowers")

    def ids(**wanted: object) -> list[str]:
        return [model.id for model in Model.list(ws, **wanted)]

    assert ids() == ["iris:1", "mnist:3", "mnist:2", "mnist:1"]
    assert ids(latest=True) == ["iris:1", "mnist:3"]
    assert ids(name="mnist") == ["mnist:3", "mnist:2", "mnist:1"]
    assert ids(tags=["stage"]) == ["mnist:3", "mnist:2", "mnist:1"]
    assert ids(tags=[["stage", "test"]]) == ids(tags={"stage": "test"}) == ["mnist:3", "mnist:1"]
    assert ids(tags=["auc", ["stage", "test"]]) == ids(properties=["git"]) == ["mnist:1"]
    assert ids(tags=[["auc", 0.5]]) == ["mnist:1"]
    assert ids(run_id="run-1") == ids(model_framework="TensorFlow") == ["mnist:2"]
    assert ids(tags=[["stage", "production"]], latest=True) == ["mnist:2"]
    assert ids(name="nothing") == []
    assert Model(ws, "mnist", tags=[["stage", "production"]]).version == 2
    assert Model(ws, "iris").experiment_name == "flowers" and Model(ws, "iris").run_id is None
    with pytest.raises(ModelNotFoundException, match="no version of the model 'mnist' has these tags"):
        Model(ws, "mnist", tags=["owner"])
    with pytest.raises(WorkspaceError, match="tags to find are keys or pairs"):
        Model.list(ws, tags=[["a", "b", "c"]])
    with pytest.raises(WorkspaceError, match="datasets are not kept here"):
        Model.list(ws, dataset_id="1")


@pytest.mark.parametrize(
    "look_up",
    [
        Model,
        lambda ws, name: Model(ws, id=f"{name}:1"),
        lambda ws, name: ws.models[name],
        lambda ws, name: Model.get_model_path(name, _workspace=ws),
        lambda ws, name: Model.get_model_path(name, 1, _workspace=ws),
    ],
)
def test_an_unknown_name_is_told_with_the_near_ones(ws: Workspace, look_up: Callable[[Workspace, str], object]) -> None:
    register(ws)
    with pytest.raises(ModelNotFoundException, match=r"there is no model 'mnits'.*; did you mean 'mnist'\?"):
        look_up(ws, "mnits")


def test_an_unknown_version_is_told_with_those_that_there_are(ws: Workspace) -> None:
    register(ws), register(ws)
    for look_up in (lambda: Model(ws, "mnist", version=7), lambda: Model.get_model_path("mnist", 7, ws)):
        with pytest.raises(ModelNotFoundException, match=r"no version 7 of the model 'mnist' .*; there is 1, 2"):
            look_up()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "needs the name of a model"),
        ({"id": "mnist"}, "the id of a model is NAME:VERSION, such as 'mnist:3', but got 'mnist'"),
        ({"id": 3}, "the id of a model is NAME:VERSION"),
        (
            {"name": "mnist", "version": "latest"},
            "the version of a model is a whole number, at least 1, but got 'latest'",
        ),
        ({"name": "mnist", "version": 0}, "at least 1, but got 0"),
        ({"name": "../mnist"}, "the name of a model begins with"),
    ],
)
def test_what_cannot_be_looked_up_is_told(ws: Workspace, parameters: dict[str, object], message: str) -> None:
    register(ws)
    with pytest.raises(WorkspaceError, match=message):
        Model(ws, **parameters)


def test_a_broken_file_is_named(ws: Workspace) -> None:
    path = register(ws).path.parents[1] / "model.json"
    path.write_text('{"entry":\n')
    with pytest.raises(WorkspaceError, match=r"models/mnist/1/model\.json, line 2, column 1: not JSON"):
        Model(ws, "mnist")
    path.write_text('{"entry": "../../../secrets"}')
    with pytest.raises(WorkspaceError, match=r"model\.json: entry: expected the name of what is in content/"):
        Model.get_model_path("mnist", _workspace=ws)


def test_what_the_sdk_has_and_we_have_not_is_told(ws: Workspace) -> None:
    with pytest.raises(AttributeError, match=r"Model has no 'deploy'; nothing is served here"):
        Model.deploy  # noqa: B018
    with pytest.raises(AttributeError, match=r"Model has no 'url'; use model\.path"):
        register(ws).url  # noqa: B018


# In entry scripts


def test_a_job_goes_on_with_the_versions_of_its_submission(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = register(ws)
    in_job(ws, monkeypatch, **models_for_job(ws.layout))
    second = register(ws)
    assert Model.get_model_path("mnist") == str(first.path)
    assert Model.get_model_path("mnist", version=2) == Model.get_model_path("mnist", "2") == str(second.path)
    assert Model.get_model_path("mnist", _workspace=ws) == str(second.path)
    iris = register(ws, model_name="iris")  # by an earlier step, for example
    assert Model.get_model_path("iris") == str(iris.path)
    in_job(ws, monkeypatch, mnist=1)  # the version alone will do
    assert Model.get_model_path("mnist") == str(first.path)
    first.delete()
    assert Model.get_model_path("mnist") == str(second.path)
    with pytest.raises(ModelNotFoundException, match=r"did you mean 'mnist'\?"):
        Model.get_model_path("mnits")


LOOKS = """
import sys
from mpi_prs.azureml.models.model import Model
looks = []
def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(sys.argv[1]):
        looks.append((event, str(arguments[0])))
sys.addaudithook(hook)
path = Model.get_model_path("mnist")
print(sorted(set(looks)))  # one system call may be two events
print(path)
"""


def test_a_process_of_ten_thousand_lists_nothing_and_opens_nothing(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = register(ws)
    in_job(ws, monkeypatch, **models_for_job(ws.layout))
    looks, path = together(1, LOOKS, ws.folder)[0].splitlines()
    assert (looks, path) == ("[]", str(model.path))
    in_job(ws, monkeypatch, mnist=1)
    looks, path = together(1, LOOKS, ws.folder)[0].splitlines()
    assert (looks, path) == (str([("open", str(ws.layout.model_description("mnist", 1)))]), str(model.path))


@pytest.mark.parametrize("value", ["x", "1/other/x", "1/content/", "1/content/a/b", "1/content/../../../x"])
def test_an_environment_that_says_nonsense_is_told(ws: Workspace, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    register(ws)
    in_job(ws, monkeypatch, mnist=value)
    with pytest.raises(WorkspaceError, match=r"the environment says .* of the model 'mnist', and should say a version"):
        Model.get_model_path("mnist")


def test_of_very_many_models_a_job_is_told_of_the_last(ws: Workspace) -> None:
    assert models_for_job(ws.layout) == {}
    for number in range(600):
        folder = ws.layout.model_version(f"model-{number:03}-{'x' * 40}", 1)
        folder.mkdir(parents=True)
        (folder / "model.json").write_text('{"entry": "model.pkl"}')
        os.utime(folder.parent, (number, number))
    found = models_for_job(ws.layout)
    assert 300 < len(found) < 500 and list(found) == sorted(found)
    assert found[f"model-599-{'x' * 40}"] == "1/content/model.pkl"
    assert len(json.dumps(found)) < 33_000
    for number in range(600):
        os.utime(ws.layout.model(f"model-{number:03}-{'x' * 40}"), (600 - number, 600 - number))
    assert f"model-000-{'x' * 40}" in models_for_job(ws.layout)


def test_outside_a_job_it_is_the_local_folder_else_the_workspace_of_config_json(ws: Workspace) -> None:
    with pytest.raises(ModelNotFoundException, match=r"mnist' is not in .*azureml-models, and there is no workspace"):
        Model.get_model_path("mnist")
    ws.write_config()
    with pytest.raises(ModelNotFoundException, match=r"no model 'mnist' in the workspace .*; there is none yet"):
        Model.get_model_path("mnist")
    model = register(ws)
    assert Model.get_model_path("mnist") == str(model.path)
    local = Path("azureml-models").absolute() / "mnist"
    (local / "3").mkdir(parents=True)
    (local / "3" / "model.pkl").touch()
    assert Model.get_model_path("mnist") == str(local / "3" / "model.pkl")
    (local / "3" / "labels.txt").touch()
    assert Model.get_model_path("mnist", 3) == str(local / "3")
    assert Model.get_model_path("mnist", 1) == str(model.path)


# What can be done with them


def test_a_model_is_downloaded(ws: Workspace, tmp_path: Path) -> None:
    model = register(ws)
    target = tmp_path / "new" / "folder"
    assert model.download(target_dir=target) == str(target / "models")
    assert (target / "models" / "assets" / "labels.txt").read_text() == "0 1 2"
    (target / "models" / "mnist-tf.model.meta").write_text("changed")
    with pytest.raises(WorkspaceError, match=r"there is .*models already; give exist_ok=True"):
        model.download(target)
    assert (target / "models" / "mnist-tf.model.meta").read_text() == "changed"
    model.download(target, exist_ok=True)
    assert (target / "models" / "mnist-tf.model.meta").read_text() == "graph"
    with pytest.raises(WorkspaceError, match=r"target_dir is the path of a file or folder .* but got 5"):
        model.download(5)  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match=r"tags to find is a list .* but got 5"):
        Model.list(ws, tags=5)  # type: ignore[arg-type]
    with pytest.raises(WorkspaceError, match=r"cannot make .*labels\.txt"):
        model.download(target / "models" / "assets" / "labels.txt" / "x")


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(ws: Workspace) -> None:
    register(ws)
    last = register(ws)
    last.delete()
    assert [model.id for model in Model.list(ws)] == ["mnist:1"]
    assert register(ws).version == 3
    gone: list[Callable[[], object]] = [last.delete, last.download, lambda: last.add_tags({"a": "b"})]
    for use in gone:
        with pytest.raises(ModelNotFoundException, match=r"no version 2 of the model 'mnist' .*; there is 1, 3"):
            use()
    assert versions(ws.layout.model("mnist")) == [1, 3]
    for model in Model.list(ws):
        model.delete()
    assert "mnist" not in ws.models and ws.models.get("mnist") is None


def test_tags_change_and_properties_do_not(ws: Workspace) -> None:
    model = register(ws, tags={"stage": "test"}, properties={"git": "abc"})
    model.add_tags({"owner": "me", "stage": "production"})
    model.remove_tags(["owner"])
    model.add_properties({"data": "v1", "git": "abc"})
    assert model.tags == Model(ws, "mnist").tags == {"stage": "production"}
    assert Model(ws, "mnist").properties == {"git": "abc", "data": "v1"}
    with pytest.raises(WorkspaceError, match="the property 'git' of the model mnist:1 is 'abc' and stays so"):
        model.add_properties({"git": "def"})
    model.update(tags={"a": 1}, description="new")
    assert (Model(ws, "mnist").tags, Model(ws, "mnist").description) == ({"a": "1"}, "new")


TAGGING = """
import sys
from mpi_prs.azureml.models.model import Model
from mpi_prs.azureml.workspace import Workspace
model = Model(Workspace.at(sys.argv[1]), "mnist")
for number in range(10):
    model.add_tags({f"{sys.argv[2]}-{number}": "x"})
"""


def test_processes_that_tag_at_once_lose_nothing(ws: Workspace) -> None:
    register(ws)
    together(4, TAGGING, ws.folder)
    assert len(Model(ws, "mnist").tags) == 40

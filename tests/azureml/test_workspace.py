"""Workspaces: where they are found, and their settings."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mpi_prs.azureml import workspace
from mpi_prs.azureml.store.settings import slurm_section
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.child.context.workspace import with_defaults
from mpi_prs.child.context.workspace_paths import layout_of
from mpi_prs.core.environ import WORKSPACE
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import add_json
from tests.support.together import together


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HOME of all workspaces, and a working directory of its own."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("MPI_PRS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(WORKSPACE.name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def ws() -> Workspace:
    return Workspace.create("mnist", show_output=False)


# Where a workspace is found


def test_a_workspace_is_made_and_opened_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Workspace.create("mnist", subscription_id="sub", resource_group="group", location="westeurope", sku="basic")
    assert "made the workspace 'mnist'" in capsys.readouterr().out
    assert made.folder == home / "sub" / "group" / "mnist"
    assert (made.name, made.subscription_id, made.resource_group, made.location) == (
        "mnist",
        "sub",
        "group",
        "westeurope",
    )
    assert made == Workspace("sub", "group", "mnist") == Workspace.get("mnist") == Workspace.at(made.folder)
    assert len({made, Workspace.get("mnist")}) == 1
    assert Workspace.get("mnist").id == made.id
    assert made.layout.blob_store.is_dir() and made.layout.file_store.is_dir()
    assert made.get_details()["workspaceid"] == made.id


def test_a_name_is_given_once() -> None:
    Workspace.create("mnist", show_output=False)
    with pytest.raises(WorkspaceError, match=r"there is a workspace in .*exist_ok=True"):
        Workspace.create("mnist")
    assert Workspace.create("mnist", exist_ok=True).name == "mnist"


def test_a_workspace_that_is_not_there_is_not_opened(ws: Workspace) -> None:
    with pytest.raises(WorkspaceError, match=r"no workspace 'mnits' .*did you mean 'mnist'\?"):
        Workspace.get("mnits")
    with pytest.raises(WorkspaceError, match=r"no workspace 'mnits' .*did you mean 'mnist'\?"):
        Workspace(ws.subscription_id, ws.resource_group, "mnits")
    with pytest.raises(WorkspaceError, match=r"has no workspace\.json"):
        Workspace.at("/")


def test_one_name_in_two_groups_wants_to_be_told_apart() -> None:
    for group in ("a", "b"):
        Workspace.create("mnist", resource_group=group, show_output=False)
    with pytest.raises(WorkspaceError, match="there are 2 workspaces 'mnist'"):
        Workspace.get("mnist")
    assert Workspace.get("mnist", resource_group="b").resource_group == "b"
    assert [ws.resource_group for ws in Workspace.list()["mnist"]] == ["a", "b"]


def test_an_unknown_parameter_is_told() -> None:
    with pytest.raises(TypeError, match=r"no parameter 'storage_acount'.*storage_account"):
        Workspace.create("mnist", storage_acount="x")


@pytest.mark.parametrize("place", ["config.json", ".azureml/config.json", "aml_config/config.json"])
@pytest.mark.parametrize("below", ["", "a/b"])
def test_config_json_is_found_here_and_in_every_folder_above(
    place: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    (project / place).parent.mkdir(exist_ok=True)
    (project / place).write_text(json.dumps({"workspace_folder": str(tmp_path / "shared" / "ws")}))
    (project / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / below)
    assert Workspace.from_config().folder == tmp_path / "shared" / "ws"
    assert f"made the workspace {tmp_path / 'shared' / 'ws'}, which {project / place} names" in capsys.readouterr().out
    assert Workspace.from_config(auth=object()).name == "ws"
    assert capsys.readouterr().out == ""


def test_the_folder_is_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "project" / "elsewhere.json"
    file.write_text('{"workspace_folder": "data/ws"}')
    assert Workspace.from_config(path=file).folder == tmp_path / "project" / "data" / "ws"
    assert Workspace.from_config(path=tmp_path / "project", _file_name="elsewhere.json").name == "ws"


def test_azures_own_file_names_a_folder_below_home(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("config.json").write_text(
        json.dumps({"subscription_id": "1234-5678", "resource_group": "docs-aml", "workspace_name": "docs-ws"})
    )
    with caplog.at_level(logging.INFO):
        ws = Workspace.from_config(_logger=logging.getLogger("notebook"))
    assert [record.name for record in caplog.records] == ["notebook"]
    assert ws.folder == home / "1234-5678" / "docs-aml" / "docs-ws"
    assert (ws.name, ws.subscription_id, ws.resource_group) == ("docs-ws", "1234-5678", "docs-aml")
    assert ws == Workspace("1234-5678", "docs-aml", "docs-ws")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"workspace_folder": "ws",\n "x": }', r"config\.json, line 2, column 7: not JSON"),
        ('{"workspace_folder": "ws"', r"config\.json, line 1, column 26: not JSON"),
        ("", r"config\.json, line 1, column 1: not JSON"),
        ("[]", r"config\.json: expected a JSON object \{…\}, got a list"),
        ('{"workspace_folder": 3}', r"config\.json: workspace_folder: expected text, got 3"),
        ('{"subscription_id": "a", "resource_group": "b"}', r"config\.json has no workspace_name"),
        ('{"subscription_id": "a/b", "resource_group": "b", "workspace_name": "c"}', "a subscription has no '/' in it"),
    ],
)
def test_a_broken_config_json_is_named_with_its_line(text: str, message: str) -> None:
    Path("config.json").write_text(text)
    with pytest.raises(WorkspaceError, match=message):
        Workspace.from_config()


def test_a_config_json_that_is_not_utf8_is_named_with_its_line() -> None:
    Path("config.json").write_bytes(b'{\n"workspace_folder": "\xff"}')
    with pytest.raises(WorkspaceError, match=r"config\.json, line 2: not UTF-8 text"):
        Workspace.from_config()


def test_a_config_json_of_something_else_is_passed_over(tmp_path: Path) -> None:
    Path("config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        WorkspaceError, match=r"no config\.json for a workspace .*project/config\.json names no workspace"
    ):
        Workspace.from_config()
    Path(".azureml").mkdir()
    Path(".azureml/config.json").write_text(json.dumps({"workspace_folder": str(tmp_path / "ws")}))
    assert Workspace.from_config().folder == tmp_path / "ws"
    with pytest.raises(WorkspaceError, match=r"config\.json names no workspace: It says"):
        Workspace.from_config(path="config.json")


def test_a_config_json_that_is_not_there_is_told() -> None:
    with pytest.raises(WorkspaceError, match=r"there is no file and no folder .*nowhere"):
        Workspace.from_config(path="nowhere")


def test_a_folder_with_other_things_does_not_become_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").touch()
    Path("config.json").write_text(json.dumps({"workspace_folder": str(tmp_path / "data")}))
    with pytest.raises(WorkspaceError, match=r"is no workspace, .* but is not empty either"):
        Workspace.from_config()


def test_an_entry_script_finds_the_workspace_of_its_job(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE.name, str(ws.folder))
    assert Workspace.from_config() == ws


def test_of_several_processes_that_open_a_new_workspace_first_each_gets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others come while the first one is half-way, with its folders made and its description not."""
    Path("config.json").write_text(json.dumps({"workspace_folder": str(tmp_path / "ws")}))
    opened: list[Workspace] = []

    def slow(path: Path, data: dict[str, Any]) -> bool:
        (path.parent / ".0123456789abcdef.part").touch()
        with mock.patch.object(workspace, "add_json", add_json):
            opened.append(Workspace.from_config())
        return add_json(path, data)

    with mock.patch.object(workspace, "add_json", slow):
        opened.append(Workspace.from_config())
    assert {each.folder for each in opened} == {tmp_path / "ws"}
    assert capsys.readouterr().out.count("made the workspace") == 1


def test_write_config_and_from_config_are_inverse(ws: Workspace, tmp_path: Path) -> None:
    ws.write_config()
    written = json.loads(Path(".azureml/config.json").read_text())
    assert written == {"subscription_id": "local", "resource_group": "default", "workspace_name": "mnist"}
    assert Workspace.from_config() == ws

    inside = Workspace.create("inside", folder=tmp_path / "project" / "ws", show_output=False)
    inside.write_config(tmp_path / "project", "inside.json")
    assert json.loads(Path(".azureml/inside.json").read_text()) == {"workspace_folder": "../ws"}
    assert Workspace.from_config(_file_name="inside.json") == inside

    outside = Workspace.create("outside", folder=tmp_path / "outside", show_output=False)
    outside.write_config(file_name="outside.json")
    assert Workspace.from_config(_file_name="outside.json") == outside


def test_what_the_sdk_has_and_we_have_not_is_told(ws: Workspace) -> None:
    with pytest.raises(AttributeError, match=r"mpi_prs's Workspace has no 'delete'; remove its folder"):
        ws.delete  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no 'get_default_datastor'; did you mean get_default_datastore"):
        ws.get_default_datastor  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no 'from_konfig'; did you mean from_config"):
        Workspace.from_konfig  # noqa: B018
    assert not hasattr(ws, "_repr_html_")


def test_a_workspace_that_is_gone_is_told(ws: Workspace) -> None:
    ws.layout.description.unlink()
    with pytest.raises(WorkspaceError, match="is gone: there is no "):
        ws.name  # noqa: B018
    with pytest.raises(WorkspaceError, match="is no workspace any more"):
        ws.update_settings(backend="local")


# Settings


def test_settings_are_kept_and_taken_away(ws: Workspace) -> None:
    assert ws.settings == {"backend": "auto", "vm_sizes": {}, "slurm": {}, "storage_endpoints": {}}
    ws.update_settings(backend="local", vm_sizes={"*": {"partition": "cpu", "cpus": 64}}, environment_policy="venv")
    assert Workspace.at(ws.folder).settings["vm_sizes"] == {"*": {"partition": "cpu", "cpus": 64}}
    ws.update_settings(environment_policy=None)
    assert "environment_policy" not in ws.settings
    assert ws.settings["backend"] == "local"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backends": "local"}, "no setting 'backends' of a workspace; did you mean 'backend'"),
        ({"backend": "kubernetes"}, "backend is one of auto, slurm, local, but got 'kubernetes'"),
        ({"vm_sizes": ["gpu"]}, "vm_sizes is a dict"),
        ({"vm_sizes": {"NC6": {"partion": "gpu"}}}, r"vm_sizes\.NC6 has no key 'partion'; did you mean 'partition'"),
        ({"vm_sizes": {"NC6": {"gpus": -1}}}, r"vm_sizes\.NC6\.gpus is the number of a node's gpus, but got -1"),
        ({"vm_sizes": {"NC6": {"cpus": "8"}}}, r"vm_sizes\.NC6\.cpus is the number of a node's cpus, but got '8'"),
        ({"vm_sizes": {"NC6": {"lowpriority": {"qos": ""}}}}, r"vm_sizes\.NC6\.lowpriority\.qos: expected one line"),
        ({"slurm": {"time": "long"}}, r"slurm\.time: expected minutes, .* but got 'long'"),
        ({"storage_endpoints": {"pipelinedata": "localhost"}}, "storage_endpoints has an URL"),
        ({"apptainer": 3}, "apptainer is text, but got 3"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(ws: Workspace, changes: dict[str, object], message: str) -> None:
    before = ws.layout.description.read_bytes()
    with pytest.raises(WorkspaceError, match=message):
        ws.update_settings(**changes)
    assert ws.layout.description.read_bytes() == before


def test_a_broken_workspace_json_is_named_with_its_line(ws: Workspace) -> None:
    ws.layout.description.write_text('{"name": "mnist",\n"settings": {\n')
    with pytest.raises(WorkspaceError, match=r"workspace\.json, line 3, column 1: not JSON"):
        ws.settings  # noqa: B018
    ws.layout.description.write_text('{"settings": []}')
    with pytest.raises(WorkspaceError, match=r"workspace\.json: settings: expected an object"):
        ws.settings  # noqa: B018


SETTING = """
import sys
from mpi_prs.azureml.workspace import Workspace
ws, name = Workspace.at(sys.argv[1]), ["backend", "apptainer", "conda", "environment_policy"][int(sys.argv[2])]
for number in range(15):
    ws.update_settings(**{name: "local" if name == "backend" else f"{name}-{number}"})
    assert ws.settings[name].endswith(("local", str(number)))
"""


def test_writers_of_settings_lose_nothing_of_one_another(ws: Workspace) -> None:
    together(4, SETTING, ws.folder)
    found = ws.settings
    assert [found[name] for name in ("backend", "apptainer", "conda", "environment_policy")] == [
        "local",
        "apptainer-14",
        "conda-14",
        "environment_policy-14",
    ]


SIZES = {
    "STANDARD_D2_V2": {"partition": "cpu", "cpus": 8},
    "Standard_NC24": {"partition": "gpu", "cpus": 24, "gpus": 4, "lowpriority": {"qos": "preempt"}},
}


@pytest.mark.parametrize(
    ("size", "priority", "processes", "expected"),
    [
        ("standard_d2_v2", "dedicated", 2, {"partition": "cpu", "cpus_per_process": 4}),
        ("standard_d2_v2", "dedicated", 16, {"partition": "cpu", "cpus_per_process": 1}),
        ("standard_d2_v2", "dedicated", None, {"partition": "cpu"}),
        ("STANDARD_NC24", "dedicated", 4, {"partition": "gpu", "cpus_per_process": 6, "gpus_per_process": 1}),
        (
            "STANDARD_NC24",
            "lowpriority",
            2,
            {"partition": "gpu", "qos": "preempt", "cpus_per_process": 12, "gpus_per_process": 2},
        ),
        ("STANDARD_NC24", "dedicated", 3, {"partition": "gpu", "cpus_per_process": 8, "extra": ["--gpus-per-node=4"]}),
        ("STANDARD_NC24", "dedicated", None, {"partition": "gpu", "extra": ["--gpus-per-node=4"]}),
    ],
)
def test_a_vm_size_becomes_a_slurm_section(
    size: str, priority: str, processes: int | None, expected: dict[str, object]
) -> None:
    assert slurm_section(with_defaults({"vm_sizes": SIZES}), size, priority, processes) == expected


def test_the_setting_slurm_is_below_that_of_the_vm_size() -> None:
    settings = {
        "slurm": {"account": "prj", "time": "01:00:00", "setup": ["module load cuda"], "extra": ["--exclusive"]},
        "vm_sizes": {
            "*": {"time": "02:00:00", "setup": ["module load mpi"], "extra": ["--nice"], "cpus_per_process": 2}
        },
    }
    assert slurm_section(settings, "any", processes=8) == {
        "account": "prj",
        "time": "02:00:00",
        "setup": ["module load cuda", "module load mpi"],
        "extra": ["--exclusive", "--nice"],
        "cpus_per_process": 2,
    }
    assert slurm_section({"slurm": {"mpi": "pmi2"}}, "any") == {"mpi": "pmi2"}


def test_a_vm_size_that_the_settings_do_not_know_is_told() -> None:
    with pytest.raises(WorkspaceError, match=r"nothing about 'STANDARD_D3_V2'; did you mean 'STANDARD_D2_V2'"):
        slurm_section({"vm_sizes": SIZES}, "STANDARD_D3_V2")
    with pytest.raises(WorkspaceError, match=r"vm_sizes\.\* has no key 'node'"):
        slurm_section({"vm_sizes": {"*": {"node": 1}}}, "any")


def test_something_else_than_a_workspace_is_refused(ws: Workspace) -> None:
    assert layout_of(ws) == ws.layout
    with pytest.raises(WorkspaceError, match=r"expected a Workspace, .* but got 'ws'"):
        layout_of("ws")

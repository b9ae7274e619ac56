"""What a workspace keeps: names, records, versions, and folders on their way in; with many writers, and on NFS."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from mpi_prs.azureml.store import import_files
from mpi_prs.azureml.store.import_files import copy_into, incoming_folder
from mpi_prs.child.context.script_context import ScriptContext, script_context
from mpi_prs.child.context.workspace_paths import WorkspaceFolder
from mpi_prs.core import records
from mpi_prs.core.azure_names import NotRegistered, Registered
from mpi_prs.core.environ import MODELS, NAMED_INPUTS, WORKSPACE
from mpi_prs.core.errors import WorkspaceError
from mpi_prs.core.records import (
    add_json,
    add_version,
    add_version_folder,
    check_name,
    delete_version,
    latest_version,
    locked,
    names_of,
    names_with_versions,
    near,
    not_found,
    read_json,
    update_json,
    versions,
    write_json,
)
from tests.support.jobs import REPOSITORY
from tests.support.old_python import old_pythons
from tests.support.together import together


def failing(number: int) -> Callable[..., NoReturn]:
    """A system call that fails so."""

    def fail(*_arguments: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


# Names


@pytest.mark.parametrize("name", ["mnist", "_x", "my images 2", "größe", "a.b-c_d", "x" * 120])
def test_names_that_things_may_have(name: str) -> None:
    assert check_name(name, "a model") == name


@pytest.mark.parametrize(
    "name", ["", ".hidden", "..", "-rf", "a/b", "a\\b", "a:1", "a\nb", "a ", "x" * 121, "ß" * 61, 3, None, b"x"]
)
def test_names_that_things_may_not_have(name: object) -> None:
    with pytest.raises(WorkspaceError, match="the name of a model "):
        check_name(name, "a model")


def test_near_names_are_told() -> None:
    assert near("Mnist", ["mnist", "iris"]) == "; did you mean 'mnist'?"
    assert near("x", []) == "; there is none yet"
    assert near("x", [f"model{number}" for number in range(10)]).endswith("'model7' and 2 more")
    assert str(not_found("datastore", "blob", ["blobs"])) == "there is no datastore 'blob'; did you mean 'blobs'?"


def test_what_is_registered_is_read_like_a_dict() -> None:
    things = {"a": 1, "b": 2}
    found = Registered("thing", lambda: sorted(things), things.get)
    assert list(found) == ["a", "b"] and len(found) == 2 and "a" in found and dict(found) == things
    assert repr(found) == repr(things)
    assert found.get("c") is None
    with pytest.raises(KeyError) as error:
        found["B"]
    assert isinstance(error.value, NotRegistered) and isinstance(error.value, WorkspaceError)
    assert str(error.value) == "there is no thing 'B'; did you mean 'b'?"


def test_paths_are_below_the_folder() -> None:
    layout = WorkspaceFolder(Path("/ws"))
    assert layout.model_content("mnist", 3) == Path("/ws/models/mnist/3/content")
    assert layout.dataset_version("x", 1) == Path("/ws/datasets/x/1.json")
    assert layout.run_description("exp", "id") == Path("/ws/experiments/exp/id/run.json")
    for escape in (layout.model, layout.dataset, layout.datastore, layout.environment, layout.experiment):
        with pytest.raises(WorkspaceError):
            escape("../../etc")


# Records


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "thing.json"
    with pytest.raises(FileNotFoundError):
        read_json(path, "the thing")
    write_json(path, {"name": "größe", "list": [1, 2.5, None, True]})
    assert read_json(path, "the thing") == {"name": "größe", "list": [1, 2.5, None, True]}
    write_json(path, {})
    assert read_json(path, "the thing") == {}
    assert [entry.name for entry in path.parent.iterdir()] == ["thing.json"]


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_what_has_no_json_form_is_refused(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "thing.json", {"a": 1})
    with pytest.raises(WorkspaceError, match=r"cannot be kept as JSON in .*thing\.json"):
        write_json(tmp_path / "thing.json", {"a": value})
    assert read_json(tmp_path / "thing.json", "the thing") == {"a": 1}
    assert os.listdir(tmp_path) == ["thing.json"]


def test_a_record_that_was_just_replaced_elsewhere_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS an open file that another node replaces is stale."""
    path = tmp_path / "thing.json"
    write_json(path, {"a": 1})
    stale = [OSError(errno.ESTALE, "Stale file handle")] * 3
    read_regular = records.read_regular

    def read(path: Path) -> bytes:
        if stale:
            raise stale.pop()
        return read_regular(path)

    monkeypatch.setattr(records, "read_regular", read)
    assert read_json(path, "the thing") == {"a": 1}
    assert not stale


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    assert add_json(tmp_path / "x.json", {"who": "first"})
    assert not add_json(tmp_path / "x.json", {"who": "second"})
    assert read_json(tmp_path / "x.json", "x") == {"who": "first"}


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(FileNotFoundError):
        update_json(path, "x", dict)
    with pytest.raises(FileNotFoundError):
        update_json(tmp_path / "no" / "x.json", "x", dict)
    assert not (tmp_path / "no").exists()
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError):
        update_json(path, "x", lambda data: {"a": 1 // 0, **data})
    assert update_json(path, "x", lambda data: {**data, "b": 2}) == {"a": 1, "b": 2}


def test_threads_of_one_process_keep_each_other_out(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"n": 0})

    def count() -> None:
        for _ in range(20):
            update_json(path, "x", lambda data: {"n": data["n"] + 1})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_json(path, "x") == {"n": 80}


def test_where_there_are_no_locks_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.lockf", failing(errno.ENOLCK))
    with locked(tmp_path / "x"):
        pass
    with incoming_folder(tmp_path / "incoming") as folder:
        (folder / "a").touch()
        add_version_folder(tmp_path / "versions", folder)
    assert versions(tmp_path / "versions") == [1]


def test_versions_count_upwards_and_are_not_given_out_twice(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    assert (versions(folder), latest_version(folder)) == ([], None)
    assert [add_version(folder, {"n": number}) for number in range(11)] == list(range(1, 12))
    assert latest_version(folder) == 11  # not 9, which is last as text
    assert delete_version(folder, 11) and delete_version(folder, 3)
    assert not delete_version(folder, 3)
    assert latest_version(folder) == 10
    assert add_version(folder, {}) == 12
    assert versions(folder) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 12]
    assert names_with_versions(tmp_path) == ["thing"]
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "empty").mkdir()
    assert names_with_versions(tmp_path) == ["thing"]
    assert names_of(folder, ".json") == sorted(map(str, versions(folder)))


def test_where_there_are_no_hard_links_versions_are_claimed_by_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    assert [add_version(tmp_path / "x", {"n": number}) for number in (1, 2)] == [1, 2]
    assert read_json(tmp_path / "x" / "2.json", "x") == {"n": 2}
    # Another writer has claimed version 3, and was killed before it had it.
    (tmp_path / "x" / ".3.json.claimed").mkdir()
    assert add_version(tmp_path / "x", {}) == 4
    assert add_json(tmp_path / "y.json", {}) and not add_json(tmp_path / "y.json", {})


def test_an_answer_of_nfs_that_was_lost_is_no_other_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, rename = os.link, os.rename

    def link_answer_lost(source: str, target: str) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    def rename_answer_lost(source: str, target: str) -> None:
        rename(source, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "link", link_answer_lost)
    assert [add_version(tmp_path / "x", {}) for _ in range(2)] == [1, 2]
    monkeypatch.setattr(os, "rename", rename_answer_lost)
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / "a").touch()
    assert add_version_folder(tmp_path / "y", tmp_path / "temporary") == 1
    assert versions(tmp_path / "y") == [1]


ADDING = """
import sys
from pathlib import Path
from mpi_prs.core.records import add_version
print(*[add_version(Path(sys.argv[1]), {"who": sys.argv[2]}) for _ in range(25)])
"""


def test_each_of_many_writers_gets_versions_of_its_own(tmp_path: Path) -> None:
    said = together(4, ADDING, tmp_path / "x")
    got = {who: [int(word) for word in line.split()] for who, line in enumerate(said)}
    assert sorted(number for numbers in got.values() for number in numbers) == list(range(1, 101))
    for who, numbers in got.items():
        assert all(read_json(tmp_path / "x" / f"{number}.json", "x") == {"who": str(who)} for number in numbers)
    assert not [name for name in os.listdir(tmp_path / "x") if name.startswith(".")]


# Incoming folders


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_cannot_be_copied_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "source").mkdir()
    make(tmp_path / "source" / "odd")
    with pytest.raises(WorkspaceError, match=r"source/odd .*cannot be copied"):
        copy_into(tmp_path / "source", tmp_path / "target")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (tmp_path / "data.bin").write_bytes(b"12345")
    (source / "link.bin").symlink_to(tmp_path / "data.bin")
    (source / "run.sh").touch(0o755)
    copied = copy_into(source, tmp_path / "target")
    assert (copied.files, copied.size) == (2, 5)
    assert not (tmp_path / "target" / "link.bin").is_symlink()
    assert os.access(tmp_path / "target" / "run.sh", os.X_OK)
    assert not os.stat(tmp_path / "target" / "link.bin").st_mode & 0o111
    (source / "sub" / "up").symlink_to(source)
    assert copy_into(source, tmp_path / "target2") == copied
    assert os.listdir(tmp_path / "target2" / "sub") == []


def test_a_file_that_is_written_to_meanwhile_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(b"1" * 100)
    copy = import_files.copy_atomically

    def while_it_grows(source: Path, target: Path, **options: bool) -> None:
        copy(source, target, **options)
        with open(source, "ab") as file:
            file.write(b"2")

    monkeypatch.setattr(import_files, "copy_atomically", while_it_grows)
    with pytest.raises(WorkspaceError, match="was changed while it was copied"):
        copy_into(tmp_path / "model.bin", tmp_path / "copy.bin")


def test_an_incoming_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), incoming_folder(tmp_path / "in") as folder:
        (folder / "a").touch()
        raise ZeroDivisionError
    with incoming_folder(tmp_path / "in") as folder, incoming_folder(tmp_path / "in") as other:
        assert folder.is_dir() and other.is_dir()  # neither clears the other away
    assert os.listdir(tmp_path / "in") == []


# The environment of user processes


def test_a_script_context_is_read_as_it_was_written() -> None:
    context = ScriptContext(
        "/ws", "exp", "run-1", {"mnist": 3, "iris": "1/content/iris.pkl"}, {"images": {"path": "/x"}}
    )
    assert ScriptContext.of(context.variables()) == context
    assert ScriptContext.of({}) is None
    assert ScriptContext("/ws").variables() == {WORKSPACE.name: "/ws"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (MODELS.name, "{", f"{MODELS.name} does not hold JSON"),
        (MODELS.name, "[]", f"{MODELS.name} does not hold a JSON object"),
        (MODELS.name, '{"mnist": null}', f"{MODELS.name} has None for the model 'mnist'"),
        (NAMED_INPUTS.name, "x", f"{NAMED_INPUTS.name} does not hold JSON"),
    ],
)
def test_a_context_that_was_set_wrong_by_hand_is_told(name: str, value: str, message: str) -> None:
    with pytest.raises(WorkspaceError, match=message):
        ScriptContext.of({WORKSPACE.name: "/ws", name: value})


def test_the_context_of_this_process_follows_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE.name, raising=False)
    assert script_context() is None
    monkeypatch.setenv(WORKSPACE.name, "/ws")
    found = script_context()
    assert found is not None and found.workspace == "/ws"
    assert script_context() is found


@pytest.mark.parametrize("python", [sys.executable, *old_pythons()])
def test_an_entry_script_in_an_old_python_finds_its_model(tmp_path: Path, python: str) -> None:
    code = """
import os, sys
from mpi_prs.azureml.workspace import Workspace
from mpi_prs.azureml.models.model import Model
ws = Workspace.create("ws", folder=sys.argv[1], show_output=False)
Model.register(ws, __file__, "mnist").add_tags({"a": 1})
os.environ["MPI_PRS_WORKSPACE"] = sys.argv[1]
assert Model.get_model_path("mnist") == str(ws.models["mnist"].path)
assert Model(Workspace.from_config(), "mnist").tags == {"a": "1"}
"""
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run(
        [python, str(tmp_path / "script.py"), str(tmp_path / "ws")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_record_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(WorkspaceError, match=r"cannot write to .*: No space left on device"):
        write_json(tmp_path / "x" / "thing.json", {})
    with pytest.raises(WorkspaceError, match="No space left on device"):
        add_version(tmp_path / "x", {})
    assert os.listdir(tmp_path / "x") == []

"""Side inputs: fetched once a node, complete or not at all, and removed when nobody needs them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.near.side_inputs import SideInput, provide, remove_stale, substitute, substitute_values
from mpi_prs.storage.credentials import Storage
from tests.support.azurite import OTHER_ACCOUNT, Azurite
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.jobs import REPOSITORY, wait_until

BLOBS = {"model/weights.bin": b"w" * 5000, "model/.config": b"c", "model/sub/vocab.txt": b"v", "labels.txt": b"l"}
WORKER = """
import sys
from pathlib import Path
from mpi_prs.inputs.near.side_inputs import SideInput, provide
from mpi_prs.storage.credentials import Storage

side_input = SideInput("model", "abfs://side/model", storage=Storage(connection_string=sys.argv[3]))
provided = provide([side_input], Path(sys.argv[1]), sys.argv[2])
print(provided.paths["model"], flush=True)
sys.stdin.read()
provided.close()
"""


@pytest.fixture(scope="module")
def side(azurite: Azurite) -> str:
    azurite.container("side", BLOBS)
    return "abfs://side"


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.port) as proxy:
        yield proxy


@pytest.fixture
def workers() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for worker in started:
        worker.kill()
        worker.communicate()


def start(workers: list[subprocess.Popen[str]], scratch: Path, token: str, connection: str) -> subprocess.Popen[str]:
    """A process that has the side input ``model`` until its stdin is closed."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(scratch), token, connection],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    workers.append(worker)
    return worker


def line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def model_in(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {f"model/{path.relative_to(folder)}": path.read_bytes() for path in files}


MODEL = {name: content for name, content in BLOBS.items() if name.startswith("model/")}


def test_a_local_path_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    provided = provide([SideInput("m", str(tmp_path / "model"))], tmp_path / "scratch", "t")
    assert provided.paths == {"m": str(tmp_path / "model")}
    provided.close()
    assert not (tmp_path / "scratch").exists()
    with pytest.raises(InputError, match=r"side_inputs\.m: .*/no does not exist on this node"):
        provide([SideInput("m", str(tmp_path / "no"))], tmp_path / "scratch", "t")


def test_a_local_path_is_copied_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "model/sub").mkdir(parents=True)
    (tmp_path / "model/sub/x").write_text("x")
    (tmp_path / "model/run.sh").write_text("#!/bin/sh")
    (tmp_path / "model/run.sh").chmod(0o755)
    wanted = [
        SideInput("folder", str(tmp_path / "model"), "download"),
        SideInput("file", str(tmp_path / "model/run.sh"), "download"),
    ]
    provided = provide(wanted, tmp_path / "scratch", "t")
    folder, file = Path(provided.paths["folder"]), Path(provided.paths["file"])
    assert folder.name == "model"
    assert (folder / "sub/x").read_text() == "x"
    assert file.name == "run.sh"
    assert os.access(folder / "run.sh", os.X_OK)
    provided.close()
    assert os.listdir(tmp_path / "scratch") == []


def test_urls_of_files_and_folders_are_fetched_whole(azurite: Azurite, side: str, tmp_path: Path) -> None:
    paths = {"model": f"{side}/model/", "labels": f"{side}/labels.txt", "all": side}
    wanted = [SideInput(name, path, storage=azurite.storage()) for name, path in paths.items()]
    with pytest.raises(InputError, match="is a glob; a side input is one file or one folder"):
        provide([SideInput("glob", f"{side}/*.txt", storage=azurite.storage())], tmp_path, "t")
    provided = provide(wanted, tmp_path, "t")
    assert model_in(Path(provided.paths["model"])) == MODEL
    assert Path(provided.paths["labels"]).name == "labels.txt"
    assert Path(provided.paths["labels"]).read_bytes() == b"l"
    assert (Path(provided.paths["all"]) / "model/sub/vocab.txt").read_bytes() == b"v"
    assert [path.stat().st_mode & 0o077 for path in tmp_path.iterdir()] == [0]
    provided.close()
    provided.close()
    assert os.listdir(tmp_path) == []


def test_each_comes_from_its_own_store(azurite: Azurite, side: str, tmp_path: Path) -> None:
    """Both are containers of the same name, in two accounts."""
    azurite.of(OTHER_ACCOUNT).container("side", {"model": b"of the other account"})
    wanted = [
        SideInput("ours", f"{side}/labels.txt", storage=azurite.storage()),
        SideInput("theirs", f"{side}/model", storage=azurite.of(OTHER_ACCOUNT).storage()),
    ]
    provided = provide([SideInput.from_secret(each.secret()) for each in wanted], tmp_path, "t")
    with contextlib.closing(provided):
        assert Path(provided.paths["ours"]).read_bytes() == b"l"
        assert Path(provided.paths["theirs"]).read_bytes() == b"of the other account"


def test_secrets_go_along_only_where_there_is_a_store(tmp_path: Path) -> None:
    storage = Storage(account_key="s3cret")
    assert "s3cret" not in repr(SideInput("m", "abfs://side/model", storage=storage))
    assert SideInput("m", "abfs://side/model", storage=storage).secret()["storage"]["account_key"] == "s3cret"
    assert "s3cret" not in str(SideInput("m", str(tmp_path), "download", storage).secret())


def test_the_run_directory_of_an_earlier_job_stays_behind(azurite: Azurite, tmp_path: Path) -> None:
    azurite.container("earlier", {"out/rows.txt": b"r", "out/_run/journal": b"j"})
    for name in ("out/rows.txt", "out/_run/journal", "out/sub/_run/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    wanted = [
        SideInput("there", "abfs://earlier/out", storage=azurite.storage()),
        SideInput("here", str(tmp_path / "out"), "download"),
    ]
    with contextlib.closing(provide(wanted, tmp_path / "scratch", "t")) as provided:
        for path in provided.paths.values():
            assert [each.name for each in Path(path).rglob("*") if each.is_file()] == ["rows.txt"]


def test_many_processes_of_a_node_fetch_once(
    azurite: Azurite,
    proxy: FaultProxy,
    side: str,
    tmp_path: Path,
    workers: list[subprocess.Popen[str]],
) -> None:
    assert side
    for _ in range(4):
        start(workers, tmp_path, "t", azurite.connection_string(proxy.port))
    paths = {line(worker) for worker in workers}
    assert len(paths) == 1
    path = Path(paths.pop())
    assert model_in(path) == MODEL
    assert sum(1 for method, url in proxy.requests if method == "GET" and "comp=list" not in url) == len(MODEL)
    for worker in workers[:3]:
        worker.communicate()
        assert worker.returncode == 0
    assert model_in(path) == MODEL  # the last one has it still
    workers[3].communicate()
    assert os.listdir(tmp_path) == []


def test_a_killed_fetcher_is_replaced_by_the_next(
    azurite: Azurite,
    proxy: FaultProxy,
    side: str,
    tmp_path: Path,
    workers: list[subprocess.Popen[str]],
) -> None:
    assert side
    proxy.delay = 30
    fetcher = start(workers, tmp_path, "t", azurite.connection_string(proxy.port))
    partial = tmp_path / "mpi_prs-side-t/model.new"
    wait_until(partial.exists)
    (partial / "half").write_text("what had come")
    other = start(workers, tmp_path, "t", azurite.connection_string())
    wait_until(lambda: open_files(other) & {f"{partial.parent}/model.lock"}, say=lambda: str(open_files(other)))
    fetcher.send_signal(signal.SIGKILL)
    path = Path(line(other))
    assert model_in(path) == MODEL
    assert not partial.exists()
    other.communicate()
    assert os.listdir(tmp_path) == []


def open_files(process: subprocess.Popen[str]) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(entry))
    return found


def test_what_killed_workers_left_is_removed_by_the_next_start(
    azurite: Azurite, side: str, tmp_path: Path, workers: list[subprocess.Popen[str]]
) -> None:
    alive = start(workers, tmp_path, "alive", azurite.connection_string())
    killed = start(workers, tmp_path, "killed", azurite.connection_string())
    path, left = Path(line(alive)), Path(line(killed))
    killed.kill()
    killed.wait()
    assert left.exists()
    provided = provide([SideInput("labels", f"{side}/labels.txt", storage=azurite.storage())], tmp_path, "new")
    assert sorted(os.listdir(tmp_path)) == ["mpi_prs-side-alive", "mpi_prs-side-new"]
    assert model_in(path) == MODEL
    provided.close()
    alive.communicate()
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_fetched_is_found_out_once(
    azurite: Azurite, proxy: FaultProxy, side: str, tmp_path: Path
) -> None:
    storage = azurite.storage(proxy.port)
    kept = provide([SideInput("labels", f"{side}/labels.txt", storage=storage)], tmp_path, "t")
    for expected in (2, 0):  # requests: is it a file, is it a folder
        proxy.forget()
        with pytest.raises(InputError, match=r"side_inputs\.model: nothing is found at abfs://side/nope"):
            provide([SideInput("model", f"{side}/nope", storage=storage)], tmp_path, "t")
        assert len(proxy.requests) == expected
    kept.close()
    assert os.listdir(tmp_path) == []


def test_a_folder_of_somebody_else_is_not_trusted(tmp_path: Path, azurite: Azurite, side: str) -> None:
    (tmp_path / "mpi_prs-side-t").mkdir(mode=0o755)
    with pytest.raises(InputError, match="belongs to somebody else"):
        provide([SideInput("labels", f"{side}/labels.txt", storage=azurite.storage())], tmp_path, "t")
    remove_stale(tmp_path)
    assert os.listdir(tmp_path) == ["mpi_prs-side-t"]


def test_arguments_name_side_inputs() -> None:
    paths = {"model": "/x/model", "labels": "/x/l.txt"}
    arguments = ["--m=${side_inputs.model}/w.bin", "plain", "${side_inputs.labels}:${side_inputs.model}", "${HOME}"]
    assert substitute(arguments, paths) == ["--m=/x/model/w.bin", "plain", "/x/l.txt:/x/model", "${HOME}"]
    assert substitute_values({"M": "${side_inputs.model}", "N": "n"}, paths) == {"M": "/x/model", "N": "n"}
    with pytest.raises(ValueError, match="no side input named 'moddel'; the names are labels, model"):
        substitute(["${side_inputs.moddel}"], paths)
    with pytest.raises(ValueError, match="there are none"):
        substitute(["${side_inputs.x}"], {})

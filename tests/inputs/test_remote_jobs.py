"""Jobs over a blob store, end to end: files, tables, side inputs and the output; and no secret anywhere."""

from __future__ import annotations

import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.azurite import ACCOUNT, KEY, KEYS, OTHER_ACCOUNT, OTHER_KEY, Azurite
from tests.support.fault_proxy import FaultProxy
from tests.support.jobs import Job, assert_every_row_once, wait_until

NewJob = Callable[..., Job]

CONTENT_SCRIPT = """
import os, sys

def run(mini_batch):
    rows = []
    for path in mini_batch:
        assert os.path.isabs(path) and path.endswith(".txt"), path
        rows.append(open(path).read())
    return rows
"""


@pytest.fixture
def container(azurite: Azurite) -> str:
    """A container with forty blobs whose content is their name."""
    name = f"jobs-{uuid.uuid4().hex[:12]}"
    azurite.container(name, {f"in/{n % 4}/item-{n:02d}.txt": f"item-{n:02d}.txt".encode() for n in range(40)})
    return name


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    made = FaultProxy(azurite.port)
    yield made
    made.close()


ITEMS = [f"item-{n:02d}.txt" for n in range(40)]


def remote_job(new_job: NewJob, azurite: Azurite, script: str, port: int | None = None, **settings: Any) -> Job:
    """A job that gets its credentials from the environment."""
    job = new_job(script, items=0, error_threshold=0, **settings)
    job.environment["AZURE_STORAGE_CONNECTION_STRING"] = azurite.connection_string(port)
    return job


def secrets_in(folder: Path) -> list[str]:
    """Files that hold a key."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(key.encode() in path.read_bytes() for key in KEYS.values())]


@pytest.mark.parametrize("url", ["abfs://{container}/in", "az://{container}/in/**/*.txt"])
def test_remote_files_are_there_when_run_sees_them_and_gone_afterwards(
    new_job: NewJob, azurite: Azurite, container: str, url: str, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    job = remote_job(new_job, azurite, CONTENT_SCRIPT, inputs=[url.format(container=container)], scratch=str(scratch))
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, ITEMS)
    assert list(scratch.iterdir()) == []
    assert secrets_in(job.folder) == []
    assert KEY not in done.stdout


def test_in_direct_mode_the_script_gets_the_urls(new_job: NewJob, azurite: Azurite, container: str) -> None:
    script = "def run(mini_batch):\n    return list(mini_batch)\n"
    job = remote_job(new_job, azurite, script, inputs=[{"files": f"abfs://{container}/in/1", "mode": "direct"}])
    assert job.local().returncode == 0
    assert sorted(job.rows()) == [f"abfs://{container}/in/1/item-{n:02d}.txt" for n in range(1, 40, 4)]


def test_in_download_mode_local_files_are_brought_to_scratch(new_job: NewJob) -> None:
    script = """
import os

def run(mini_batch):
    assert all(path.startswith(os.environ["SCRATCH"]) for path in mini_batch), mini_batch
    return [os.path.basename(path) for path in mini_batch]
"""
    job = new_job(script, error_threshold=0, inputs=[{"files": "in", "mode": "download"}])
    job.environment["SLURM_TMPDIR"] = job.environment["SCRATCH"] = str(job.folder / "scratch")
    (job.folder / "scratch").mkdir()
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job)
    assert list((job.folder / "scratch").iterdir()) == []


def test_throttling_and_cut_connections_cost_no_try(
    new_job: NewJob, azurite: Azurite, container: str, proxy: FaultProxy
) -> None:
    job = remote_job(new_job, azurite, CONTENT_SCRIPT, proxy.port, inputs=[f"abfs://{container}/in"])
    proxy.throttle(5, after=10, retry_after=0)
    proxy.cut(5, after=3)
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert proxy.faults_left == 0
    assert "0 retried" in done.stdout
    assert_every_row_once(job, ITEMS)


def test_a_blob_that_is_gone_fails_its_mini_batch_alone(new_job: NewJob, azurite: Azurite, container: str) -> None:
    script = CONTENT_SCRIPT + "\n\nimport time\n\n\ndef init():\n    time.sleep(1.5)\n"
    job = remote_job(new_job, azurite, script, inputs=[f"abfs://{container}/in"], run_max_try=2)
    process = job.start_local("--set", "error_threshold=-1")
    wait_until(job.directory.description.exists)
    with azurite.client() as client:
        client.get_blob_client(container, "in/3/item-39.txt").delete_blob()
    done = job.finish(process)
    assert done.returncode == 0, done.stdout
    assert len(job.ledger().failed) in (0, 1)  # the last mini-batch may have been fetched before
    if job.ledger().failed:
        assert "item-39.txt" in done.stdout


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_remote_table_is_read_in_ranges(new_job: NewJob, azurite: Azurite, container: str, suffix: str) -> None:
    data = pd.DataFrame({"number": range(5000), "text": [f"text {n}" for n in range(5000)]})
    content = data.to_csv(index=False).encode() if suffix == "csv" else data.to_parquet(row_group_size=1000)
    azurite.container(f"{container}-t", {f"sales/a.{suffix}": content})
    script = "def run(mini_batch):\n    return mini_batch['number'].tolist()\n"
    url = f"abfs://{container}-t/sales/*.{suffix}"
    job = remote_job(new_job, azurite, script, inputs=[{"table": url}], mini_batch_size="10KB")
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert sorted(map(int, job.rows())) == list(range(5000))


def test_side_inputs_are_there_before_init(new_job: NewJob, azurite: Azurite, container: str, tmp_path: Path) -> None:
    """Each is fetched from the store that it names, or else from the job's."""
    script = """
import os, sys

def init():
    global content, folder
    content = open(sys.argv[1]).read()
    folder = sorted(os.listdir(sys.argv[2].partition("=")[2]))
    assert os.environ["AZUREML_DATAREFERENCE_model"] == sys.argv[1]

def run(mini_batch):
    return [f"{content} {len(folder)}"] * len(mini_batch)
"""
    other = azurite.of(OTHER_ACCOUNT)
    other.container(f"{container}-side", {f"deep/folder/{n}": b"" for n in range(10)})
    key_file = tmp_path / "key"
    key_file.write_text(OTHER_KEY)
    key_file.chmod(0o600)
    storage = {"account_name": OTHER_ACCOUNT, "account_url": other.account_url(), "account_key_file": str(key_file)}
    side_inputs = {
        "model": f"abfs://{container}/in/1/item-01.txt",
        "folder": {"path": f"abfs://{container}-side/deep/folder", "storage": storage},
    }
    job = remote_job(
        new_job,
        azurite,
        script,
        inputs=[f"abfs://{container}/in"],
        side_inputs=side_inputs,
        arguments=["${side_inputs.model}", "--folder=${side_inputs.folder}"],
        environment_variables={"AZUREML_DATAREFERENCE_model": "${side_inputs.model}"},
    )
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert job.rows() == ["item-01.txt 10"] * 40
    assert OTHER_KEY not in done.stdout
    assert secrets_in(job.folder) == []


def test_a_side_input_that_is_not_there_ends_the_job_and_is_named(
    new_job: NewJob, azurite: Azurite, container: str
) -> None:
    job = remote_job(
        new_job,
        azurite,
        CONTENT_SCRIPT,
        inputs=[f"abfs://{container}/in"],
        side_inputs={"model": f"abfs://{container}/nothing.bin"},
    )
    done = job.local()
    assert done.returncode == 1, done.stdout
    assert "side_inputs.model" in done.stdout
    assert "nothing.bin" in done.stdout


def test_the_output_is_uploaded_when_it_is_complete_and_once(
    new_job: NewJob, azurite: Azurite, container: str, proxy: FaultProxy
) -> None:
    job = remote_job(
        new_job,
        azurite,
        CONTENT_SCRIPT,
        proxy.port,
        inputs=[f"abfs://{container}/in"],
        output=f"abfs://{container}/results",
        append_row_file_name="rows.csv",
    )
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert sorted(azurite.read(container, "results/rows.csv").decode().split()) == ITEMS
    local = job.folder / "outputs" / "test-job"
    assert sorted((local / "rows.csv").read_text().split()) == ITEMS
    assert secrets_in(job.folder) == []
    proxy.forget()
    again = job.local()
    assert again.returncode == 0
    assert "complete already" in again.stdout
    assert [path for _, path in proxy.requests if "/results" in path] == []  # the inputs are listed: is there more?


def test_an_upload_that_fails_is_done_by_the_next_start(new_job: NewJob, azurite: Azurite, container: str) -> None:
    job = remote_job(new_job, azurite, CONTENT_SCRIPT, inputs=[f"abfs://{container}/in"])
    assert job.local().returncode == 0
    upload = ("--set", f"output_url=abfs://{container}/late")
    job.environment["AZURE_STORAGE_CONNECTION_STRING"] = azurite.connection_string(key="A" * 86 + "==")
    refused = job.local(*upload)
    assert refused.returncode == 75, refused.stdout
    assert "cannot upload" in refused.stdout
    job.environment["AZURE_STORAGE_CONNECTION_STRING"] = azurite.connection_string()
    assert job.local(*upload).returncode == 0
    assert sorted(azurite.read(container, "late/parallel_run_step.txt").decode().split()) == ITEMS


FILES_SCRIPT = """
import os, sys

def run(mini_batch):
    group = os.path.basename(os.path.dirname(mini_batch[0]))
    folder = os.path.join(os.environ["AZUREML_BI_OUTPUT_PATH"], "masks", group)
    os.makedirs(folder, exist_ok=True)
    for path in mini_batch:
        with open(os.path.join(folder, "of " + os.path.basename(path)), "w") as file:
            file.write(open(path).read())
    return mini_batch
"""


def blobs(azurite: Azurite, container: str, prefix: str) -> list[str]:
    with azurite.client() as client:
        found = client.get_container_client(container).list_blob_names(name_starts_with=prefix)
        return sorted(name.removeprefix(prefix) for name in found)


@pytest.mark.parametrize("action", ["summary_only", "append_row"])
def test_what_the_script_wrote_into_the_output_folder_is_uploaded_too(
    new_job: NewJob, azurite: Azurite, container: str, proxy: FaultProxy, action: str
) -> None:
    job = remote_job(
        new_job,
        azurite,
        FILES_SCRIPT,
        proxy.port,
        inputs=[f"abfs://{container}/in"],
        output_url=f"{azurite.account_url(proxy.port)}/{container}/results",
        output_action=action,
        mini_batch_size=1,
        storage={"account_url": azurite.account_url(proxy.port)},
    )
    done = job.local()
    assert done.returncode == 0, done.stdout
    rows = ["parallel_run_step.txt"] if action == "append_row" else []
    expected = sorted([f"masks/{n % 4}/of item-{n:02d}.txt" for n in range(40)] + rows)
    assert blobs(azurite, container, "results/") == expected
    assert azurite.read(container, "results/masks/3/of item-39.txt") == b"item-39.txt"
    if rows:  # the rows come last: who sees them sees all
        uploaded = [path for method, path in proxy.requests if method == "PUT" and "comp=blocklist" in path]
        assert len(uploaded) == 41
        assert "parallel_run_step.txt" in uploaded[-1]
    proxy.forget()
    (job.directory.output / "masks" / "late.txt").write_text("later")
    again = job.local()
    assert again.returncode == 0, again.stdout
    assert blobs(azurite, container, "results/") == sorted([*expected, "masks/late.txt"])
    sent = [path for _, path in proxy.requests if "/results" in path]
    assert sent and all("late.txt" in path for path in sent)


BAD = [
    ("abfs://no-such-container-{id}/in", {}, ["no-such-container-", "there is no container"]),
    ("abfs://{container}/nothing/*.txt", {}, ["nothing/*.txt"]),
    ("abfs://{container}/in", {"key": "A" * 86 + "=="}, ["connection string", "check that it is right"]),
]


@pytest.mark.parametrize(("url", "change", "words"), BAD)
def test_what_cannot_be_listed_is_one_clear_message(
    new_job: NewJob, azurite: Azurite, container: str, url: str, change: dict[str, str], words: list[str]
) -> None:
    url = url.format(container=container, id=uuid.uuid4().hex[:8])
    job = remote_job(new_job, azurite, CONTENT_SCRIPT, inputs=[url])
    job.environment["AZURE_STORAGE_CONNECTION_STRING"] = azurite.connection_string(**change)
    done = job.local()
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout
    for word in words:
        assert word in done.stdout


def test_a_connection_string_in_the_config_is_written_nowhere_else(
    new_job: NewJob, azurite: Azurite, container: str
) -> None:
    storage = {"connection_string": azurite.connection_string()}
    job = new_job(CONTENT_SCRIPT, items=0, inputs=[f"abfs://{container}/in"], storage=storage, logging_level="DEBUG")
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, ITEMS)
    assert secrets_in(job.folder) == [str(job.config)]
    assert KEY not in done.stdout
    assert ACCOUNT not in done.stdout or KEY not in done.stdout


def test_a_killed_job_leaves_no_scratch_and_goes_on(
    new_job: NewJob, azurite: Azurite, container: str, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    script = CONTENT_SCRIPT.replace("    rows = []", "    import time\n    time.sleep(0.1)\n    rows = []")
    job = remote_job(new_job, azurite, script, inputs=[f"abfs://{container}/in"], scratch=str(scratch))
    process = job.start_local()
    wait_until(lambda: job.directory.journal.exists() and len(job.ledger().done) > 1)
    os.killpg(process.pid, signal.SIGKILL)
    job.finish(process)
    job.assert_nothing_left()
    wait_until(lambda: not list(scratch.iterdir()))
    done = job.local()
    assert done.returncode == 0, done.stdout
    assert_every_row_once(job, ITEMS)


def test_a_stop_signal_is_heeded_while_a_side_input_hangs(new_job: NewJob, tmp_path: Path) -> None:
    """A store that takes the request and never answers."""
    (tmp_path / "scratch").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as store:
        path = f"http://127.0.0.1:{store.getsockname()[1]}/model"
        job = new_job(CONTENT_SCRIPT, side_inputs={"model": path}, scratch=str(tmp_path / "scratch"))
        process = job.start_local()
        store.settimeout(30)
        with store.accept()[0]:
            process.send_signal(signal.SIGTERM)
            done = job.finish(process, timeout=20)
    assert done.returncode == 75, done.stdout
    assert "Traceback" not in done.stdout

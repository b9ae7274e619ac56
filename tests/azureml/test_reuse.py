"""Whether the inputs of a step are what they were: of files, blobs, lists and side inputs."""

from __future__ import annotations

import itertools
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from mpi_prs.azureml.submit import reuse
from mpi_prs.azureml.submit.reuse import UPSTREAM, check_inputs, digest_of, digest_of_files
from mpi_prs.core.errors import InputError
from mpi_prs.job.config.model import JobConfig
from mpi_prs.storage.stores import Listed
from tests.support.azurite import Azurite


def job(tmp_path: Path, **changes: Any) -> JobConfig:
    (tmp_path / "script.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    values = {"name": "job", "entry_script": "script.py", "inputs": ["data"], "output": "out", "error_threshold": 0}
    return JobConfig.model_validate({**values, **changes}, context={"folder": tmp_path})


def files(folder: Path, count: int = 3) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.txt").write_text(str(number))


def test_names_sizes_and_times_count_and_nothing_else(tmp_path: Path) -> None:
    files(tmp_path / "data")
    config = job(tmp_path)
    first = digest_of_files(config)
    assert first is not None
    os.utime(tmp_path / "data" / "0.txt", ns=(5, (tmp_path / "data" / "0.txt").stat().st_mtime_ns))
    assert digest_of_files(config) == first  # it was read
    seen = {first}
    for change in (
        lambda: (tmp_path / "data" / "0.txt").rename(tmp_path / "data" / "4.txt"),
        lambda: (tmp_path / "data" / "1.txt").write_text("11"),
        lambda: os.utime(tmp_path / "data" / "2.txt", ns=(5, 5)),
        (tmp_path / "data" / "2.txt").unlink,
    ):
        change()
        found = digest_of_files(config)
        assert found is not None
        seen.add(found)
    assert len(seen) == 5


def test_lists_and_side_inputs_count_and_earlier_outputs_do_not(tmp_path: Path) -> None:
    files(tmp_path / "data")
    files(tmp_path / "side")
    (tmp_path / "side" / "broken").symlink_to("nowhere")
    (tmp_path / "list.txt").write_text("data/0.txt\n")
    config = job(
        tmp_path,
        inputs=[{"files_from": "list.txt"}, {"files": f"{UPSTREAM}/run/output"}],
        side_inputs={"folder": "side", "file": "side/0.txt", "earlier": f"{UPSTREAM}/run/other"},
    )
    first = digest_of_files(config)
    (tmp_path / "side" / "2.txt").write_text("22")
    second = digest_of_files(config)
    (tmp_path / "list.txt").write_text("data/0.txt\ndata/1.txt\n")
    assert len({first, second, digest_of_files(config)}) == 3


def test_blobs_count_by_their_versions(tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    container = f"reuse-{uuid.uuid4().hex[:12]}"
    azurite.container(container, {"in/a": b"one", "in/b": b"two", "side/c": b"three"})
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())
    config = job(tmp_path, inputs=[f"abfs://{container}/in"], side_inputs={"side": f"abfs://{container}/side"})
    first = digest_of_files(config)
    assert first == digest_of_files(config)
    seen = {first}
    for blob in ("in/a", "side/c"):
        with azurite.client() as client:
            client.get_blob_client(container, blob).upload_blob(b"new", overwrite=True)
        seen.add(digest_of_files(config))
    assert len(seen) == 3
    monkeypatch.setattr(reuse, "list_versions", lambda *_, **__: [Listed("x", 1, "")])
    assert digest_of_files(config) is None  # a store that does not tell versions


def test_it_does_not_take_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path / "data")
    monkeypatch.setattr(reuse, "_CHECKED", 1)
    assert digest_of_files(job(tmp_path), clock=itertools.count(0, 40).__next__) is None
    assert digest_of_files(job(tmp_path), clock=itertools.count(0, 10).__next__) is not None


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for check in (digest_of_files, check_inputs):
        with pytest.raises(InputError, match="data does not exist"):
            check(job(tmp_path))
    check_inputs(job(tmp_path, inputs=[f"{UPSTREAM}/run/output"]))


def test_where_and_with_what_priority_a_step_runs_does_not_matter(tmp_path: Path) -> None:
    first = digest_of(job(tmp_path, slurm={"partition": "x"}, description="1"), ["files"])
    assert digest_of(job(tmp_path, slurm={}, description="2"), ["files"]) == first
    assert digest_of(job(tmp_path, name="other"), ["files"]) != first
    assert digest_of(job(tmp_path), ["others"]) != first

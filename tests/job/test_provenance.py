"""What made an output is on record, in the run directory and in the output file itself."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pyarrow.parquet as pq
import pytest
import yaml

from mpi_prs.child.packages import packages
from mpi_prs.core.contents import Sources
from mpi_prs.core.records import read_dataclass, write_dataclass
from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.engine.node import gpu_models
from mpi_prs.job.config.model import load_config
from mpi_prs.job.run import sources
from mpi_prs.job.run.provenance import Provenance
from mpi_prs.job.run.sources import changes, gather
from tests.support.jobs import Job

FRAMES = """
import pandas as pd

def run(mini_batch):
    return pd.DataFrame({"name": list(mini_batch)})
"""


@pytest.mark.parametrize("name", ["rows.parquet", "rows.h5"])
def test_each_start_is_on_record_and_the_file_has_the_essentials(new_job: Callable[..., Job], name: str) -> None:
    job = new_job(FRAMES, append_row_file_name=name)
    (job.folder / "helper.py").write_text("")
    assert job.local("--limit", "2").returncode == 0
    assert job.local().returncode == 0

    record = json.loads(job.directory.provenance.read_text())
    assert sorted(map(os.path.basename, record["files"]["source_directory"])) == ["helper.py", "script.py"]
    assert {"numpy", "pandas"} <= set(record["python"]["packages"])
    assert [start["outcome"] for start in record["starts"]] == ["limit reached", "complete"]
    assert [list(start["workers"].values()) for start in record["starts"]] == [[1], [1]]
    path = job.directory.output_file(name)
    text: Any = h5py.File(path).attrs["mpi_prs"] if name.endswith("h5") else pq.read_schema(path).metadata[b"mpi_prs"]
    essentials = json.loads(text)
    assert essentials["digest"] == record["digest"] == record["starts"][0]["digest"]
    assert essentials["entry_script_sha256"] == record["settings"]["entry_script_sha256"]


def test_a_large_model_is_read_once_while_the_run_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST_READ", 1_000)
    (tmp_path / "in").mkdir()
    (tmp_path / "score.py").write_text("def run(b): return b\n")
    model = tmp_path / "in" / "model.bin"
    model.write_bytes(bytes(1_001))
    settings = {"name": "models", "entry_script": "score.py", "inputs": ["in"], "output": "out", "error_threshold": 1}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**settings, "side_inputs": {"model": "in/model.bin"}}))
    config = load_config(tmp_path / "job.yaml")
    directory = RunDirectory(tmp_path / "out")
    write_dataclass(directory.sources, gather(config, "id"))

    provenance = Provenance(config, directory, "id")
    provenance.essentials()
    provenance.end("complete", 0)

    record = json.loads(directory.provenance.read_text())
    assert record["files"]["side_inputs"][str(model)]["sha256"] == hashlib.sha256(bytes(1_001)).hexdigest()
    assert (record["starts"][0]["outcome"], record["starts"][0]["exit_code"]) == ("complete", 0)
    then = read_dataclass(Sources, directory.sources)
    assert then is not None
    os.utime(model, (1, 1))
    assert changes(then, config) == []
    model.write_bytes(b"!" * 1_001)
    assert changes(then, config) == ["side_inputs: in/model.bin has changed"]


def test_packages_are_told_by_the_names_of_folders(tmp_path: Path) -> None:
    for name in ("Scikit_Learn-1.5.0.dist-info", "old-1.0-py3.8.egg-info", "b/old-0.9.dist-info", "numpy", "x.py"):
        (tmp_path / name).mkdir(parents=True)
    assert packages([str(tmp_path), str(tmp_path / "b"), "/nowhere"]) == {"old": "1.0", "scikit-learn": "1.5.0"}


def test_gpus_are_told_by_what_the_driver_calls_them(tmp_path: Path) -> None:
    assert gpu_models(tmp_path / "gpus") == ()
    for number in (0, 1):
        (tmp_path / f"gpus/0000:0{number}:00.0").mkdir(parents=True)
        (tmp_path / f"gpus/0000:0{number}:00.0/information").write_text("Model: \t\t NVIDIA H200\nIRQ:   5\n")
    assert gpu_models(tmp_path / "gpus") == ("NVIDIA H200", "NVIDIA H200")

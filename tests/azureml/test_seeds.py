"""The tutorials that the project comes from run as they are written: on real Slurm, with a real blob store.

Only their downloads are not: the pictures lie in an Azurite that has the container of the tutorials, and the archive
with the model is made before.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpi_prs.azureml.workspace import Workspace
from tests.job.test_digits import build, labels  # noqa: F401  # fixtures
from tests.support.azurite import OTHER_ACCOUNT, Azurite
from tests.support.jobs import MARK, REPOSITORY, Job, nothing_left_of
from tests.support.seeds import blocks, cells, entry_script, sdk_names, write_notebook
from tests.support.slurm_cluster import SlurmCluster

FOLDER = Path(os.environ.get("MPI_PRS_TEST_SEEDS") or REPOSITORY.parent / "shared" / "seeds")
TUTORIALS = sorted(FOLDER.glob("*.txt"))
FULLEST = "10/13/2020"
PICTURES = 60

BEFORE = """
import shutil
import urllib.request

def from_here(url, filename):
    assert url == "https://pipelinedata.blob.core.windows.net/mnist-model/mnist-tf.tar.gz"
    shutil.copy({archive!r}, filename)

urllib.request.urlretrieve = from_here
"""

AFTER = """
df.to_csv("found.csv", index=False)
if "pipeline_run_2" in globals():
    single = pipeline_run_2.find_step_run(parallelrun_step.name)[0].get_output_data(output_dir.name)
    single.download(local_path="single")
    os.rename(os.path.join("single", single.path_on_datastore, parallel_run_config.append_row_file_name), "single.txt")
"""

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the tutorials are no part of this repository")


def test_all_four_tutorials_are_there() -> None:
    assert len(TUTORIALS) == 4
    assert sum(FULLEST in path.read_text() for path in TUTORIALS) == 1


def test_the_page_for_users_of_azure_explains_every_name_in_them() -> None:
    page = (REPOSITORY / "docs" / "azureml.md").read_text()
    names = set().union(*(sdk_names(blocks(path.read_text())) for path in TUTORIALS))
    assert {"ParallelRunStep", "pipeline_parameters", "path_on_datastore"} <= names
    assert sorted(name for name in names if name not in page) == []


@pytest.fixture(scope="module")
def archive(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    path = tmp_path_factory.mktemp("archive") / "mnist-tf.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for file in sorted((build / "models").iterdir()):
            tar.add(file, file.name)
    return path


@pytest.fixture(scope="module")
def pictures(build: Path, azurite: Azurite, labels: dict[str, int]) -> dict[str, int]:  # noqa: F811
    """The container of the tutorials, with some pictures in it: the name of each, and the digit that it shows."""
    names = sorted(labels)[:PICTURES]
    contents = {f"{number}.png": (build / "data" / "digits" / name).read_bytes() for number, name in enumerate(names)}
    blobs = {f"mnist/{name}": content for name, content in contents.items()}
    azurite.of(OTHER_ACCOUNT).container("sampledata", blobs, public_access="container")
    return {f"{number}.png": labels[name] for number, name in enumerate(names)}


@pytest.fixture
def notebook(tmp_path: Path, azurite: Azurite, slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """A folder as a user of Azure has it, with Azure's own config.json; at the end no process may be left."""
    job = Job(tmp_path / "notebook", [])
    job.folder.mkdir()
    monkeypatch.setenv("MPI_PRS_HOME", str(tmp_path / "home"))
    job.environment = slurm.full_environment({MARK: job.mark, "MPI_PRS_HOME": str(tmp_path / "home")})
    names = {"subscription_id": "0000", "resource_group": "group", "workspace_name": "tutorial"}
    (job.folder / "config.json").write_text(json.dumps(names))
    Workspace.from_config(str(job.folder)).update_settings(
        storage_endpoints={OTHER_ACCOUNT: azurite.of(OTHER_ACCOUNT).account_url()},
        vm_sizes={"STANDARD_D2_V2": {"partition": "batch"}},
        slurm={"mpi": "pmi2"},
    )
    with nothing_left_of(job):
        yield job


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.name.partition("_")[0])
def test_a_tutorial_runs_as_it_is_written(path: Path, notebook: Job, archive: Path, pictures: dict[str, int]) -> None:
    tutorial = blocks(path.read_text())
    [fullest] = [blocks(other.read_text()) for other in TUTORIALS if FULLEST in other.read_text()]
    if not any(block.startswith("%%writefile") for block in tutorial):  # shown, and not written: the reader does that
        (notebook.folder / "digit_identification.py").write_text(entry_script(tutorial))
    whole = tutorial if "read_csv" in tutorial[-1] else [*tutorial, fullest[-1]]
    sources = [BEFORE.format(archive=str(archive)), *cells(whole), AFTER]
    assert set(tutorial) <= set(sources)
    write_notebook(notebook.folder / "tutorial.ipynb", sources)
    started = notebook.start([sys.executable, "-m", "mpi_prs", "exec", "tutorial.ipynb"])
    done = notebook.finish(started, timeout=280)
    assert done.returncode == 0, done.stdout
    assert f"Prediction has  {PICTURES}  rows" in done.stdout
    with (notebook.folder / "found.csv").open(newline="") as file:
        found = [(row["Filename"], int(row["Prediction"])) for row in csv.DictReader(file)]
    assert sorted(name for name, _ in found) == sorted(pictures)
    assert sum(digit == pictures[name] for name, digit in found) >= 0.9 * PICTURES
    if any("pipeline_run_2" in block for block in tutorial):
        [row] = (notebook.folder / "single.txt").read_text().splitlines()
        assert row.startswith("0.png: ")

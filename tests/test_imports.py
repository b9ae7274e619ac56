"""What each kind of process imports: ten thousand ranks start from one filesystem; the user's Python is not ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.jobs import REPOSITORY

LISTING = "import sys; print('\\n'.join(sys.modules))"


def modules_after(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}; {LISTING}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    return set(done.stdout.split())


def test_a_worker_rank_imports_no_command_line_and_no_config_library() -> None:
    imported = modules_after("import mpi_prs.__main__, mpi_prs.engine.worker, mpi_prs.engine.mpi")
    heavy = {"click", "pydantic", "yaml", "rich", "pandas", "tensorflow", "mpi_prs.cli.main", "mpi_prs.job.config"}
    heavy |= {"pyarrow.compute", "pyarrow.csv", "h5py", "fsspec", "mpi_prs.data.loading", "mpi_prs.data.staging"}
    assert not heavy & imported


@pytest.mark.parametrize("module", ["mpi_prs.entry_script.host", "mpi_prs.entry_script.check"])
def test_the_user_process_imports_the_standard_library_alone(module: str) -> None:
    imported = {name.split(".")[0] for name in modules_after(f"import {module}") - modules_after("pass")}
    assert imported <= sys.stdlib_module_names | {"mpi_prs"}


@pytest.mark.parametrize("room", ["workspace", "shims"])
def test_what_entry_scripts_may_import_is_the_standard_library_alone(room: str) -> None:
    modules = sorted(f"mpi_prs.{room}.{path.stem}" for path in (REPOSITORY / "mpi_prs" / room).glob("[a-z]*.py"))
    assert_standard_library_alone(f"import {', '.join(modules)}")


def test_every_name_of_the_sdk_comes_by_the_standard_library_alone() -> None:
    statement = "import mpi_prs; [getattr(mpi_prs, name) for name in mpi_prs.__all__]"
    assert "mpi_prs.pipeline.parallel_run_step" in assert_standard_library_alone(statement)


def assert_standard_library_alone(statement: str) -> set[str]:
    imported = modules_after(statement)
    foreign = {name.split(".")[0] for name in imported - modules_after("pass")}
    assert foreign <= sys.stdlib_module_names | {"mpi_prs"}
    return imported


@pytest.mark.parametrize("module", ["mpi_prs", "mpi_prs.entry_script.host", "mpi_prs.engine.worker"])
def test_nobody_pays_for_the_sdk_who_does_not_ask_for_it(module: str) -> None:
    rooms = {".".join(name.split(".")[:2]) for name in modules_after(f"import {module}")}
    assert not rooms & {"mpi_prs.workspace", "mpi_prs.pipeline", "mpi_prs.parallel_run"}


LAYERS = [
    {"cli"},
    {"pipeline"},
    {"workspace"},
    {"job"},
    {"slurm", "doctor"},
    {"monitor"},
    {"engine"},
    {"data", "entry_script", "output"},
    {"storage"},
    {"shims"},  # nothing but names
]
SIDEWAYS = {("entry_script", "output"), ("entry_script", "data")}
SIDEWAYS |= {("workspace", "pipeline")}  # Workspace.experiments


def test_rooms_import_downwards_only() -> None:
    layer = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
    wrong = []
    for path in sorted((REPOSITORY / "mpi_prs").glob("*/*.py")):
        room = path.parent.name
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in ("from", "import") and words[1].startswith("mpi_prs."):
                other = words[1].split(".")[1]
                allowed = other not in layer or other == room or (room, other) in SIDEWAYS
                if not allowed and layer[other] <= layer[room]:
                    wrong.append(f"{path}: {line.strip()}")
    assert not wrong

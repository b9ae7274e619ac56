"""What each kind of process imports: ten thousand ranks start from one filesystem; the user's Python is not ours."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from mpi_prs.child.shims.names import CONTEXT
from tests.support.jobs import REPOSITORY

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
    imported = modules_after("import mpi_prs.__main__, mpi_prs.engine.worker.worker, mpi_prs.engine.mpi")
    heavy = {
        "click",
        "pydantic",
        "yaml",
        "rich",
        "pandas",
        "tensorflow",
        "mpi_prs.cli.main",
        "mpi_prs.job.config.model",
    }
    heavy |= {
        "asyncio",
        "pyarrow.compute",
        "pyarrow.csv",
        "h5py",
        "fsspec",
        "mpi_prs.inputs.loading",
        "mpi_prs.inputs.reader.tables",
        "mpi_prs.inputs.near.staging",
    }
    assert not heavy & imported


def test_a_master_of_files_in_folders_imports_nothing_of_tables_and_stores() -> None:
    imported = modules_after("import mpi_prs.__main__, mpi_prs.cli.main, mpi_prs.cli.run, mpi_prs.engine.mpi")
    assert not {"asyncio", "ssl", "fsspec", "h5py", "pandas", "pyarrow.compute", "pyarrow.parquet", "rich"} & imported


@pytest.mark.parametrize("module", ["mpi_prs.child.host", "mpi_prs.child.check"])
def test_the_user_process_imports_the_standard_library_alone(module: str) -> None:
    modules = modules_after(f"import {module}") - modules_after("pass")
    imported = {name.split(".")[0] for name in modules}
    assert imported <= sys.stdlib_module_names | {"mpi_prs"}
    assert not {"bz2", "difflib", "hashlib", "lzma", "random", "secrets", "shutil", "tempfile"} & imported
    assert not {"asyncio", "queue", *(f"mpi_prs.child.{of_few}" for of_few in ("loaders", "in_flight"))} & modules


def test_what_entry_scripts_may_import_is_the_standard_library_alone() -> None:
    modules = sorted(f"mpi_prs.child.shims.{path.stem}" for path in (PACKAGE / "child" / "shims").glob("[a-z]*.py"))
    assert_standard_library_alone(f"import {', '.join(modules)}")


def test_what_entry_scripts_have_of_the_sdk_comes_without_the_rest() -> None:
    modules = sorted({target.partition(":")[0] for target in CONTEXT.values()})
    imported = assert_standard_library_alone(f"import {', '.join(modules)}")
    assert not any(name.startswith("mpi_prs.azureml") for name in imported)


def assert_standard_library_alone(statement: str) -> set[str]:
    imported = modules_after(statement)
    foreign = {name.split(".")[0] for name in imported - modules_after("pass")}
    assert foreign <= sys.stdlib_module_names | {"mpi_prs"}
    return imported


@pytest.mark.parametrize(
    "module", ["mpi_prs", "mpi_prs.child.host", "mpi_prs.engine.worker.worker", "mpi_prs.cli.run, mpi_prs.cli.debug"]
)
def test_nobody_pays_for_the_sdk_who_does_not_ask_for_it(module: str) -> None:
    rooms = {".".join(name.split(".")[:2]) for name in modules_after(f"import {module}")}
    assert "mpi_prs.azureml" not in rooms


OF_THE_SCRIPT = {"cloudpickle", "dill", "numpy", "pandas", "pyarrow", "tensorflow"}
"""Packages of the script's own Python: what it gave us is one of theirs, or we look whether they are there."""


@pytest.mark.parametrize("room", ["core", "wire", "child"])
def test_what_the_users_python_imports_needs_nothing_else(room: str) -> None:
    found = set()
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
    ours = {name.split(".")[1] for name in found if name.startswith("mpi_prs.")}
    assert ours <= {"core", "wire", "child"}
    packages = {name.split(".")[0] for name in found} - sys.stdlib_module_names - {"mpi_prs"}
    assert packages <= {"child": OF_THE_SCRIPT, "core": {"yaml"}}.get(room, set())
    if room != "child":
        names = [path.stem for path in (PACKAGE / room).glob("[a-z]*.py")]
        assert_standard_library_alone(f"import {', '.join(f'mpi_prs.{room}.{name}' for name in names)}")


LAYERS = [
    "core",
    "wire",
    "child",
    "storage",
    "inputs",
    "output",
    "engine",
    "monitor",
    "slurm",
    "job",
    "azureml",
    "doctor",
    "cli",
]
"""From the ground up; a room imports from those before it. See docs/architecture.md."""
PACKAGE = REPOSITORY / "mpi_prs"


def rooms_of(source: str, package: str) -> set[str]:
    """The rooms of ours that a module imports from, wherever in it.

    Args:
        source: of the module.
        package: that it lies in, such as ``mpi_prs.azureml.v2``.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("mpi_prs.")}
    return found


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from mpi_prs.job.config.model import load_config", {"job"}),
        ("import mpi_prs.job.config.model as config, os", {"job"}),
        ("from mpi_prs import engine", {"engine"}),
        ("def f():\n    from mpi_prs.cli.main import main", {"cli"}),
        ("from .nodes import Node", {"azureml"}),
        ("from ..runs import Run", {"azureml"}),
        ("from ...cli import main", {"cli"}),
        ("import mpi_prs, json", set()),
    ],
)
def test_imports_are_seen_in_every_form(source: str, rooms: set[str]) -> None:
    assert rooms_of(source, "mpi_prs.azureml.v2") == rooms


def test_rooms_import_downwards_only() -> None:
    layer = {room: level for level, room in enumerate(LAYERS)}
    files = {path: path.relative_to(PACKAGE).parts for path in sorted(PACKAGE.glob("*/**/*.py"))}
    assert {parts[0] for parts in files.values()} == set(layer), "every room has its layer"
    wrong = []
    for path, parts in files.items():
        for other in rooms_of(path.read_text(), ".".join(("mpi_prs", *parts[:-1]))):
            if other in layer and layer[other] > layer[parts[0]]:
                wrong.append(f"{path}: {other}")
    assert not wrong


def test_what_lies_outside_the_rooms_imports_from_none_of_them() -> None:
    """But for the ways in: the program, and the package's names."""
    ways_in = {"__init__.py": {"child"}, "__main__.py": {"core"}}
    found = {path.name: rooms_of(path.read_text(), "mpi_prs") & set(LAYERS) for path in PACKAGE.glob("*.py")}
    assert {name: rooms for name, rooms in found.items() if rooms} == ways_in


# Circles, by module


FACADE = "mpi_prs.azureml"
ASK_THE_FACADE = {"mpi_prs.azureml.workspace", "mpi_prs.azureml.definition.pipeline"}
"""Whose classes have, as Azure's, methods that need what is built on them: the façade is their one way up."""
BY_NAME = {
    "mpi_prs": "the SDK's names, each when it is asked for: every rank and user process imports this package",
    "mpi_prs.__main__": "a rank, when it is known what it is",
    "mpi_prs.cli.main": "a command, when it is given",
    "mpi_prs.cli.job_file": "Azure ML's v2 YAML, for jobs that are written in it",
    "mpi_prs.child.shims.finder": "Azure's names, in scripts that ask for them",
    "mpi_prs.child.shims.names": "the table of these names",
    "mpi_prs.child.shims.preparation": "tensorflow 1, for scripts that are written for it",
    "mpi_prs.child.host": "asyncio, for scripts with an async run; threads, for those with a load",
    "mpi_prs.child.script": "asyncio, for Azure's streaming scripts",
    "mpi_prs.child.rows.encoding": "pyarrow, for typed rows alone",
    "mpi_prs.engine.worker.supply": "what reads tables, on ranks that read any",
    "mpi_prs.engine.worker.worker": "side inputs, on ranks that have any",
    "mpi_prs.inputs.formats": "a format of tables, for jobs that have some of it",
    "mpi_prs.storage.remote": "a kind of store, for jobs that have URLs",
    "mpi_prs.output.append_row": "a typed output file, for jobs that write one",
    "mpi_prs.monitor.progress": "rich, for a terminal alone",
    "mpi_prs.azureml.datastores.transfer": "rich, for a terminal alone",
}
"""Who imports modules of ours only when they are needed, and what for: by ``resolve`` or ``import_module``."""
FOREIGN_IN_FUNCTIONS = {
    *("adlfs", "asyncio", "azure", "fsspec"),  # some jobs' stores
    *("numpy", "pandas", "pyarrow"),  # in the user's Python where it has them; ranks without tables do without
    *("IPython", "traitlets", "mpi4py", "fastavro"),  # need not be there
    *("yaml", "difflib", "shutil", "tempfile"),  # for few: of these two come three compressors, and OpenSSL
}
"""Packages that an import in a function may be of."""


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules of ours that one imports, wherever in it, and whether that is in a function."""
    for whole, is_ours, is_inside in all_imports_of(path):
        if is_ours:
            yield whole, is_inside


@functools.cache
def all_imports_of(path: Path) -> list[tuple[str, bool, bool]]:
    """The modules that one imports, whether each is ours, and whether that is in a function."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            wholes = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [whole if whole in MODULES else str(node.module) for whole in wholes]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(name, name.partition(".")[0] == "mpi_prs", id(node) in inside) for name in names]
    return found


MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def test_in_functions_only_others_are_imported() -> None:
    """What of ours is needed by few, is imported by its name; the façade alone has imports of ours in functions."""
    inside = {
        (module, whole if is_ours else whole.partition(".")[0], is_ours)
        for module, path in MODULES.items()
        for whole, is_ours, is_inside in all_imports_of(path)
        if is_inside
    }
    assert {module for module, _, is_ours in inside if is_ours} == {FACADE}
    assert {package for _, package, is_ours in inside if not is_ours} <= FOREIGN_IN_FUNCTIONS


def test_what_is_imported_by_its_name_is_listed_and_there() -> None:
    named = re.compile(r'"(mpi_prs(?:\.\w+)+):\w+"|import_module\("(mpi_prs[\w.]+)"\)')
    found = {module: set(map("".join, named.findall(path.read_text()))) for module, path in MODULES.items()}
    assert {module for module, names in found.items() if names} == BY_NAME.keys()
    assert set().union(*found.values()) <= MODULES.keys()


def test_modules_import_each_other_in_no_circle() -> None:
    """Counting imports in functions and for annotations; only the façade leads back up, for those who may ask it."""
    imports = {module: {other for other, _ in imports_of(path)} for module, path in MODULES.items()}
    assert {module for module, others in imports.items() if FACADE in others} == ASK_THE_FACADE
    below = {module: others & MODULES.keys() - {FACADE} for module, others in imports.items()}
    try:
        list(TopologicalSorter(below).static_order())
    except CycleError as error:
        pytest.fail(f"imported in a circle: {' → '.join(error.args[1])}")

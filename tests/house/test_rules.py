"""What may be done in one room alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from mpi_prs.child.shims.names import CONTEXT
from tests.support.jobs import REPOSITORY

PACKAGE = REPOSITORY / "mpi_prs"

IN_CORE_ALONE = {
    "walking a folder": (
        r"\bos\.(walk|scandir|fwalk)\b|\.rglob\(",
        {"inputs/listing.py", "inputs/lakes.py"},
    ),  # parallel to globs, as lean; a look at some names
    "giving a file its name": (
        r"\bos\.(replace|rename|renames|link)\b|\bshutil\.(move|copy|copy2|copyfile|copytree)\(",
        set[str](),
    ),
    "reading JSON files": (
        r"\bjson\.load\(|\bjson\.loads\([^()]*\.read(_text|_bytes)?\(",
        {"azureml/definition/script_settings.py"},
    ),
    "reading a glob": (
        r"\bfnmatch\b|\bimport glob\b|\[\*\?",
        {"monitor/logs.py"},
    ),  # our own logs
    "telling a URL from a path": (
        r"A-Za-z0-9\+\.-\]\*://|\"://\" (not )?in\b",
        {"azureml/environments/packages.py"},  # pip's own grammar
    ),
    "asking the environment": (
        r"\bos\.(environ|getenv)\b",
        {"cli/debug.py", "child/shims/tensorflow1.py"},
    ),  # they set it
    "naming what Slurm, a launcher or we put there": (
        r"[\"'](MPI_PRS|SLURM|SLURMD|PMI|PMIX|OMPI)(_[A-Z0-9]+)+[\"']",
        set[str](),
    ),
    "YAML": (r"\b(import|from) yaml\b", set[str]()),
    "locking": (r"\bfcntl\.fcntl\b|\blockf\b|\bflock\b", set[str]()),
}
"""What is done in core alone → how it looks, and the modules that may do it all the same."""


def _elsewhere(pattern: str) -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if not name.startswith("core/") and re.search(pattern, path.read_text("utf-8")):
            yield name


@pytest.mark.parametrize("what", IN_CORE_ALONE)
def test_it_is_done_in_core_alone(what: str) -> None:
    pattern, allowed = IN_CORE_ALONE[what]
    assert set(_elsewhere(pattern)) == allowed


# Names


def test_a_name_of_a_class_means_one_thing() -> None:
    """A slice of the SDK's that scripts have, and its whole, are one."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and f"{module}:{node.name}" not in CONTEXT.values():
                found.setdefault(node.name, []).append(module)
    assert {name for name, modules in found.items() if len(modules) > 1 and name[0] != "_"} == set()

"""docs/azureml.md and the SDK say the same of what is there, and of what is not."""

from __future__ import annotations

import ast
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import mpi_prs
from mpi_prs import Environment, ParallelRunConfig, ParallelRunStep
from mpi_prs.azureml.definition.parallel_run_config import PROMOTED
from mpi_prs.azureml.environments.sections import POLICIES
from mpi_prs.azureml.store import settings
from mpi_prs.child.shims.names import ADVICE, PUBLIC
from mpi_prs.core.azure_names import SurfaceType
from tests.support.jobs import REPOSITORY

PATH = REPOSITORY / "docs" / "azureml.md"
PAGE = PATH.read_text(encoding="utf-8")
LAST = "## What is not there\n"
OWNERS: dict[str, list[Any]] = {
    "Workspace": [mpi_prs.Workspace],
    "Compute": [mpi_prs.AmlCompute],
    "Datastore": [mpi_prs.Datastore],
    "Dataset": [
        mpi_prs.FileDataset,
        mpi_prs.TabularDataset,
        mpi_prs.FileDatasetFactory,
        mpi_prs.TabularDatasetFactory,
    ],
    "Model": [mpi_prs.Model],
    "Environment": [Environment("e")],
    "Pipeline, Experiment, runs": [mpi_prs.Pipeline, mpi_prs.PipelineRun, mpi_prs.StepRun, mpi_prs.PortDataReference],
}
"""Section of the page → whose the names are that stand there alone."""
BY_ANOTHER_NAME = {"ws", "run", "pipeline"}
"""Arguments that stand for a parameter, and are not called like it."""


def tables() -> Iterator[tuple[str, str, list[str]]]:
    """Section, head, and the code in the first column, of each table but the last."""
    for section in PAGE.split(LAST)[0].split("\n## ")[1:]:
        for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
            rows = [row.split("|")[1].strip() for row in table.splitlines()]
            yield (
                section.partition("\n")[0],
                rows[0],
                [name for row in rows[2:] for name in re.findall(r"`([^`]+)`", row)],
            )


NAMED = [
    (section, name)
    for section, head, names in tables()
    if head == "name"
    for name in names
    if not name.startswith("mpi-prs ")
]


@pytest.mark.parametrize(("section", "name"), NAMED)
def test_what_the_page_names_is_there(section: str, name: str) -> None:
    meaning(ast.parse(name.lstrip(".").replace("…", "..."), mode="eval").body, OWNERS[section])


def meaning(node: ast.expr, owners: list[Any]) -> Any:
    """What an expression stands for, a call for what is called. Fails: it is not there, or takes other arguments."""
    if isinstance(node, ast.Name):
        if node.id in PUBLIC:
            return getattr(mpi_prs, node.id)
        return next(attribute(owner, node.id) for owner in owners if has(owner, node.id))
    if isinstance(node, ast.Attribute):
        value = meaning(node.value, owners)
        if isinstance(node.value, ast.Call) and not isinstance(value, type):
            value = typing.get_type_hints(value)["return"]
        return attribute(value, node.attr)
    assert isinstance(node, ast.Call), ast.unparse(node)
    called = meaning(node.func, owners)
    parameters = inspect.signature(called.__init__ if isinstance(called, type) else called).parameters
    names = [arg.id for arg in node.args if isinstance(arg, ast.Name)] + [str(each.arg) for each in node.keywords]
    if "kwargs" not in parameters:
        assert {*names} - BY_ANOTHER_NAME <= parameters.keys()
    return called


def has(owner: Any, name: str) -> bool:
    return hasattr(owner, name) or name in told_attributes(owner)


def attribute(owner: Any, name: str) -> Any:
    assert has(owner, name), f"{owner} has no {name}"
    return getattr(owner, name, None)


def told_attributes(owner: Any) -> set[str]:
    """Those of its objects, which its docstring lists."""
    kind = owner if isinstance(owner, type) else type(owner)
    return set(re.findall(r"\w+", " ".join(re.findall(r"^ {8}([\w, ]+):", kind.__doc__ or "", re.MULTILINE))))


def spans(head: str) -> set[str]:
    return {name for _, found, names in tables() if found == head for name in names}


def test_the_page_has_every_setting_and_policy() -> None:
    assert spans("setting") == set(settings.NAMES)
    assert spans("policy") == set(POLICIES)


@pytest.mark.parametrize("kind", [ParallelRunConfig, ParallelRunStep])
def test_the_page_has_every_parameter(kind: type) -> None:
    parameters = inspect.signature(kind).parameters.keys() - NOT_TOLD
    methods = {"save_to_yaml", "load_yaml"} if kind is ParallelRunConfig else set()
    assert spans(f"parameter of `{kind.__name__}`") - {kind.__name__} == parameters | methods


NOT_TOLD = {"input_format", "tags", "properties", "add_parallel_run_step_dependencies"}
"""Of the older classes; accepted, without effect."""


def test_the_page_names_what_a_pipeline_parameter_may_stand_for() -> None:
    said = re.search(r"As a `PipelineParameter[^`]*` may be given: (.*?), and datasets", PAGE, re.DOTALL)
    assert said is not None
    assert set(re.findall(r"`(\w+)`", said[1])) == set(PROMOTED)


# What is not there


def instead() -> dict[str, list[str]]:
    """What to use instead → the names that Azure has and we have not."""
    found: dict[str, list[str]] = {}
    surfaces = [kind for name in sorted(PUBLIC) if isinstance(kind := getattr(mpi_prs, name), SurfaceType)]
    for kind in surfaces:
        for base in kind.__mro__:
            if any(base in other.__mro__ and other in kind.__mro__[1:] for other in surfaces):
                continue  # a class below says it
            for name, advice in vars(base).get("_INSTEAD", {}).items():
                assert not any(name in vars(each) for each in kind.__mro__), f"{kind.__name__} has {name}"
                found.setdefault(advice, []).append(f"{kind.__name__}.{name}")
    for name, advice in ADVICE.items():
        found.setdefault(advice, []).append(name)
    return found


def section() -> str:
    """The last section of the page."""
    named = sorted((", ".join(f"`{name}`" for name in names), advice) for advice, names in instead().items())
    rows = "".join(f"| {names} | {advice} |\n" for names, advice in named)
    return f"""{LAST}
Names of Azure's that fail with a message: what to use instead. (Made of the code; write it anew with
`python -m tests.house.test_azureml_page`.)

| name | instead |
| --- | --- |
{rows}"""


def test_the_page_says_what_is_not_there_as_the_program_does() -> None:
    assert LAST + PAGE.partition(LAST)[2] == section()


if __name__ == "__main__":
    PATH.write_text(PAGE.partition(LAST)[0].rstrip() + "\n\n" + section(), encoding="utf-8")

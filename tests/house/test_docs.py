"""The pages for people: their links lead somewhere, and what they name (commands, keys, messages) exists."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mpi_prs.cli.main import commands
from mpi_prs.core.errors import EXIT_COMPLETE, EXIT_FAILED, EXIT_RESUMABLE, EXIT_USAGE
from mpi_prs.job.config.model import JobConfig, SlurmSection, load_config
from mpi_prs.job.run.execute import _MASTER_PATIENCE
from tests.support.jobs import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in PAGES}
COMMAND = re.compile(r"(?:mpi-prs|python -m mpi_prs) +([a-z]+)((?: +[^`#\n|&]+)?)")
CODE_SPAN = re.compile(r"`([^`\n]+)`")
A_WHOLE_CONFIG = {
    "name": "example",
    "entry_script": "score.py",
    "inputs": ["in"],
    "output": "out",
    "error_threshold": 1,
}


def anchors(text: str) -> set[str]:
    """What headings are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def examples(language: str) -> list[tuple[str, str]]:
    """Page and text of each block in this language."""
    pattern = re.compile(rf"^( *)```{language}\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
    return [(page, found[2]) for page, text in TEXTS.items() for found in pattern.finditer(text)]


def code() -> Iterator[tuple[str, str]]:
    """Page and text of everything that is written as code: spans, and indented blocks."""
    for page, text in TEXTS.items():
        for span in CODE_SPAN.findall(text):
            yield page, span
        for line in re.findall(r"^ {4,}(.*)$", text, re.MULTILINE):
            yield page, line


def messages() -> set[str]:
    """Every string of the program, with … where something is filled in."""
    found = set()
    for path in (REPOSITORY / "mpi_prs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(re.sub(r"%[ds]", "…", node.value))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page.name]):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        there = page.parent / path if path else page
        if not there.exists() or (anchor and anchor not in anchors(there.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert not wrong


def test_every_hop_that_the_architecture_names_exists() -> None:
    """``module: function`` and ``module: Class.method``, below ``mpi_prs``; and every file that it names."""
    text = TEXTS["architecture.md"]
    lives = text.split("## Four lives, hop by hop")[1].split("\n## ")[0]
    hops = re.findall(r"`([a-z_0-9.]+): ([A-Za-z_.]+)`", lives)
    assert len(hops) > 30
    for module, path in hops:
        found: Any = importlib.import_module(f"mpi_prs.{module}")
        for name in path.split("."):
            found = getattr(found, name)
    files = {str(file.relative_to(REPOSITORY)) for file in REPOSITORY.glob("*/**/*.py")}
    named = re.findall(r"[`(\s]((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)\b", text)
    assert [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)] == []


def test_every_command_and_option_that_a_page_names_exists() -> None:
    wrong, seen = [], 0
    for page, text in code():
        for name, rest in COMMAND.findall(text):
            seen += 1
            command = commands.get_command(click.Context(commands), name)
            known = {option for parameter in command.params for option in parameter.opts} if command else set()
            named = re.findall(r"--[a-z][a-z-]*", rest)
            if command is None or not known.issuperset(named):
                wrong.append(f"{page}: {text}")
    assert not wrong
    assert seen > 20


def test_the_pages_name_every_command() -> None:
    assert isinstance(commands, click.Group)
    text = "\n".join(TEXTS.values())
    names = commands.list_commands(click.Context(commands))
    assert len(names) > 10
    assert [name for name in names if not re.search(rf"(mpi-prs|-m mpi_prs) {name}\b", text)] == []


@pytest.mark.parametrize(("page", "text"), examples("yaml"))
def test_every_piece_of_a_config_can_be_loaded(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    piece: dict[str, Any] = yaml.safe_load(text)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**A_WHOLE_CONFIG, **piece}))
    assert set(piece) <= load_config(path).model_fields_set, page


def test_every_key_of_the_section_slurm_that_a_page_names_exists() -> None:
    named = {key for _, text in code() for key in re.findall(r"(?<![/\w])slurm\.([a-z_]+)", text)}
    assert {"time", "mpi", "max_requeues"} <= named
    assert named <= set(SlurmSection.model_fields)


def test_every_key_that_the_page_for_users_sets_exists() -> None:
    named = set(re.findall(r"`([a-z_]+): ", TEXTS["slurm.md"]))
    assert "gpus_per_process" in named
    assert named <= {*JobConfig.model_fields, *SlurmSection.model_fields}


def test_the_messages_that_the_page_for_users_explains_are_those_of_the_program() -> None:
    known = messages()
    table = TEXTS["slurm.md"].split("## What to do when")[1].split("\n## ")[0]
    explained = [span for row in table.splitlines()[4:] for span in CODE_SPAN.findall(row.split("|")[1])]
    assert len(explained) > 10
    assert [text for text in explained if not any(text in message for message in known)] == []


def test_the_patience_of_the_workers_is_what_the_pages_say() -> None:
    said = re.findall(r"(\d+) × `heartbeat_timeout`", "\n".join(TEXTS.values()))
    assert said
    assert set(said) == {str(_MASTER_PATIENCE)}


def test_the_exit_codes_are_those_of_the_program() -> None:
    table = TEXTS["README.md"].split("| exit code | meaning |")[1].split("\n\n")[0]
    codes = [row.split("|")[1].strip() for row in table.splitlines()[2:]]
    assert codes == [*map(str, (EXIT_COMPLETE, EXIT_FAILED, EXIT_USAGE, EXIT_RESUMABLE)), "128 + n"]

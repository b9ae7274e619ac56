"""The tutorials that the project comes from, as notebooks: their blocks of code in order, none of them edited.

Translation has damaged some: a name is used before the block that defines it, or is defined nowhere. Such a name is
defined in a cell before the block (:data:`DEFINITIONS`); any other is a mistake of this module, and said.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ENTRY_SCRIPT = "Snippets from a sample script"

DEFINITIONS = {
    "os": "import os",
    "__file__": "__file__ = 'digit_identification.py'",
    "PipelineData": "from azureml.pipeline.core import PipelineData",
    "scripts_folder": "scripts_folder = '.'",
    "mnist_data": "mnist_data = mnist_blob",
}
"""What a block may need that no block before it has defined."""


def blocks(text: str) -> list[str]:
    """The Python blocks of a tutorial."""
    return _BLOCK.findall(text)


def entry_script(tutorial: Sequence[str]) -> str:
    """The block that is the entry script, without the magic that writes it to a file."""
    [block] = [block for block in tutorial if _ENTRY_SCRIPT in block]
    return re.sub(r"^%%writefile .*\n", "", block)


def cells(tutorial: Sequence[str]) -> Iterator[str]:
    """The blocks, and before each the names that it needs and does not find."""
    known = set(dir(builtins)) | {"__name__"}
    for block in tutorial:
        if block.startswith("%%"):
            yield block
            continue
        bound, needed = _names(block)
        missing = [name for name in needed if name not in known]
        if missing:
            yield "\n".join(DEFINITIONS[name] for name in missing)
        known |= bound | set(missing)
        yield block


def _names(block: str) -> tuple[set[str], list[str]]:
    """What a block binds, and what it reads before it binds it, in order; functions are only looked at for globals."""
    bound: set[str] = set()
    needed: dict[str, None] = {}
    for statement in ast.parse(block).body:
        if isinstance(statement, ast.FunctionDef):
            bound.add(statement.name)
            bound.update(name for node in ast.walk(statement) if isinstance(node, ast.Global) for name in node.names)
            continue
        stored = set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                needed.update({node.id: None} if node.id not in bound else {})
            elif isinstance(node, ast.Name):
                stored.add(node.id)
            elif isinstance(node, ast.alias):
                stored.add((node.asname or node.name).partition(".")[0])
        for name in stored:  # `if …: x = 1; print(x)` reads what it has bound itself
            needed.pop(name, None)
        bound |= stored
    return bound, list(needed)


_OTHERS = """
Session append argmax array basename columns delimiter environ eval extractall feed_dict format get_tensor_by_name graph
head header import_meta_graph isdir join mkdir mkdtemp open read_csv realpath request reset_default_graph reshape
restore session shape train urlretrieve
"""  # of numpy, pandas, TensorFlow, Pillow and the standard library


def sdk_names(tutorial: Sequence[str]) -> set[str]:
    """The classes, methods, attributes and parameters of the SDK in the blocks."""
    found = set()
    for block in tutorial:
        for node in ast.walk(ast.parse(re.sub(r"^%%.*\n", "", block))):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.keyword) and node.arg:
                found.add(node.arg)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("azureml"):
                found.update(alias.name for alias in node.names)
    return found - set(_OTHERS.split())


def write_notebook(path: Path, sources: Sequence[str]) -> None:
    """A notebook with these cells."""
    notebook: Mapping[str, object] = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": source.splitlines(keepends=True),
            }
            for number, source in enumerate(sources)
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.write_text(json.dumps(notebook))

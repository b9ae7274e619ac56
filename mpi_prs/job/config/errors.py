"""Turning what pydantic found wrong into the one message that a user reads.

Every problem becomes one line: where it was written, the key, what is there, what was expected, and what the key means.
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mpi_prs.core.errors import ConfigError
from mpi_prs.core.secrecy import scrub
from mpi_prs.core.yaml import Document, SourceLine

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text (numbers go in quotes)",
    "greater_than": "more than {gt:.15g}",
    "greater_than_equal": "at least {ge:.15g}",
    "less_than_equal": "at most {le:.15g}",
    "literal_error": "{expected}",
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "a mapping, such as {{key: value}}",
    "model_type": "a mapping, such as {{key: value}}",
    "too_short": "at least one entry",
    "recursion_loop": "a value that does not contain itself",
}

AZURE_NAMES = {
    "max_concurrency_per_instance": "process_count_per_node",
    "mini_batch_error_threshold": "allowed_failed_count",
    "instance_count": "node_count",
    "timeout": "run_invocation_timeout",
    "input_data": "inputs",
    "outputs": "output",
    "code": "source_directory",
    "program_arguments": "arguments",
    "append_row_to": "append_row_file_name",
    "compute": "slurm.partition",
    "compute_target": "slurm.partition",
}
"""Keys of Azure ML's v2 jobs and of its SDK, and what they are called here."""
# What is meant by those that hold several, or count otherwise
_AZURE_SECTIONS = {
    "retry_settings": "run_max_try (one more than max_retries) and run_invocation_timeout (its timeout)",
    "max_retries": "run_max_try, one more than retries",
    "resources": "node_count (its instance_count)",
    "task": "entry_script (its entry_script), source_directory (its code) and arguments (its program_arguments)",
}

# Values below these keys may be secrets, and messages end up in logs.
_MAYBE_SECRET = ("arguments", "environment_variables", "storage")

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 100


def validation_error(
    source: str, problems: Iterable[ErrorDetails], model: type[BaseModel], document: Document
) -> ConfigError:
    """All ``problems`` that ``model`` found in the ``document`` read from ``source``, in one ConfigError."""
    problems = list(problems)
    found: list[tuple[SourceLine | None, str]] = []
    for problem in problems:
        if problem["type"] == "too_short" and any(_is_below(other["loc"], problem["loc"]) for other in problems):
            continue  # pydantic does not count the entries that are wrong
        loc = tuple(part for part in problem["loc"] if part != "[key]")
        place = document.place(loc[:-1] if problem["type"] == "missing" else loc)
        key = ".".join(map(str, loc))
        is_named = place is not None and place.label == f"--set {key}"
        text = _describe(problem, loc, model)
        found.append((place, text if is_named or not key else f"{key}: {text}"))
    found.sort(key=lambda each: each[0] or SourceLine(math.inf, "~"))
    lines = [f"{place.label}: {text}" if place else text for place, text in found]
    if len(lines) == 1:
        return ConfigError(f"{source}, {lines[0]}" if found[0][0] else f"{source}: {lines[0]}")
    return ConfigError(f"{source}: {len(lines)} things to correct:" + "".join(f"\n  {line}" for line in lines))


def _is_below(loc: tuple[str | int, ...], above: tuple[str | int, ...]) -> bool:
    return len(loc) > len(above) and loc[: len(above)] == above


def _describe(problem: ErrorDetails, loc: tuple[str | int, ...], model: type[BaseModel]) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    section, field = _find(loc, model)
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest(str(loc[-1]), section, model)}"
    if kind == "missing" and field is not None:
        example = _as_yaml((field.examples or ["…"])[0])
        return f"missing; add it, such as `{loc[-1]}: {example}`{_meaning(field)}"
    got = f"got {_show(problem['input'], hidden=not set(loc).isdisjoint(_MAYBE_SECRET))}"
    if kind == "value_error":
        return f"{got}; {context['error']}{_meaning(field)}"
    template = _EXPECTED.get(kind)
    expected = f"expected {template.format(**context)}" if template else problem["msg"]
    return f"{got}; {expected}{_meaning(field)}"


def _find(loc: tuple[str | int, ...], model: type[BaseModel]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The section (a model) and the field that ``loc`` is in, as far as they exist."""
    section, field = model, None
    for part in loc:
        if isinstance(part, int):
            continue
        below = _section_of(field) if field is not None else model
        if below is None:
            break
        section, field = below, below.model_fields.get(part)
        if field is None:
            break
    return section, field


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _nearest(key: str, section: type[BaseModel], model: type[BaseModel]) -> str:
    if section is model and (ours := AZURE_NAMES.get(key) or _AZURE_SECTIONS.get(key)):
        return f"what Azure ML calls so is here {ours}"
    known = list(section.model_fields)
    elsewhere = [
        f"{key} below {name}"
        for name, field in model.model_fields.items()
        if (below := _section_of(field)) and below is not section and key in below.model_fields
    ]
    if near := elsewhere or difflib.get_close_matches(key.lower().replace("-", "_"), known, n=3):
        return f"did you mean {' or '.join(near)}?"
    return f"the keys here are {', '.join(known)}"


def _meaning(field: FieldInfo | None) -> str:
    return f" ({field.description})" if field is not None and field.description else ""


def _show(value: object, *, hidden: bool) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    for kind, name in ((dict, "a mapping"), (list, "a list")):
        if isinstance(value, kind):
            return name
    if hidden:
        return "text" if isinstance(value, str) else "another kind of value"
    return _shorten.repr(scrub(value) if isinstance(value, str) else value)


def _as_yaml(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)

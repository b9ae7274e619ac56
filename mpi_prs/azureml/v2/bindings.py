"""Azure's expressions: ``${{inputs.model}}``, ``${{parent.jobs.prepare.outputs.images}}``, and ``$[[ … ]]`` around what
is left out when an optional input has no value. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)

Parts = tuple[str, ...]


def expressions_in(text: str) -> Iterator[Parts]:
    """The expressions in a text, each split at its dots."""
    return (_parts(match[1]) for match in _EXPRESSION.finditer(text))


def only_expression(text: str) -> Parts | None:
    """The expression that is the whole text; ``None``: it is something else, or more."""
    match = _EXPRESSION.fullmatch(text.strip())
    return _parts(match[1]) if match else None


def replaced(text: str, value_of: Callable[[Parts], str]) -> str:
    """The text with a value for each of its expressions."""
    return _EXPRESSION.sub(lambda match: value_of(_parts(match[1])), text)


def shown(parts: Parts) -> str:
    """An expression as it is written."""
    return f"${{{{{'.'.join(parts)}}}}}"


def tightened(text: str) -> str:
    """The text with no blanks inside of expressions, so that it can be split at blanks."""
    return _EXPRESSION.sub(lambda match: shown(_parts(match[1])), text)


def without_options(text: str, has_value: Callable[[Parts], bool]) -> str:
    """The text with what stands in ``$[[ … ]]`` where all expressions in it have a value, and without it elsewhere."""

    def kept(match: re.Match[str]) -> str:
        return match[1] if all(map(has_value, expressions_in(match[1]))) else ""

    return _OPTIONAL.sub(kept, text)


def _parts(inside: str) -> Parts:
    return tuple(part.strip() for part in inside.split("."))

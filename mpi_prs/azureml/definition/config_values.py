"""The values that the settings of a ParallelRunStep take: each checked, and put into one form.

A check takes what the user gave and returns it in the form that the job config has, or raises ValueError saying what is
expected. ``"5"`` is the number 5 wherever a number is taken: pipeline parameters are often text. Pure, standard library
only.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Callable, Mapping  # noqa: UP035  # Python 3.7

LARGEST = 2**31 - 1
YEAR = 365 * 24 * 3600  # seconds; the job config takes no longer timeout

_SIZE = re.compile(r"([0-9]+)\s*(KB|MB|GB|ROWS|)", re.IGNORECASE)

Check = Callable[[Any], Any]


def whole_number(lowest: int, highest: int = LARGEST) -> Check:
    """A check for an int in a range."""
    if highest == LARGEST:
        expected = f"expected a whole number of at least {lowest}"
    else:
        expected = f"expected a whole number from {lowest} to {highest}"

    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value, re.ASCII):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(expected)
        return value

    return check


def percent(value: Any) -> float:
    """A number from 0 to 100."""
    number = _number(value)
    if number is None or not 0 <= number <= 100:  # NaN fails too
        raise ValueError("expected a number from 0 to 100")
    return float(number)


def seconds(value: Any) -> float:
    """A time above 0."""
    number = _number(value)
    if number is None or not 0 < number <= YEAR:
        raise ValueError("expected a number of seconds, more than 0")
    return number if isinstance(number, int) or math.floor(number) != number else int(number)


def _number(value: Any) -> int | float | None:
    """A number, or what its text says; ``None``: it is neither."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def mini_batch_size(value: Any) -> int | str:
    """A number of files or bytes, as an int; or a size such as ``10MB``, in upper case, or ``5000rows``."""
    match = (
        _SIZE.fullmatch(str(value).strip()) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    )
    if match is None or not 0 < int(match[1]) <= LARGEST:
        raise ValueError(
            "expected a number of files such as 10 or, for a TabularDataset, a size such as 1024, 1024KB, 10MB or 1GB"
        )
    unit = match[2].upper()
    if not unit:
        return int(match[1])
    return f"{int(match[1])}{'rows' if unit == 'ROWS' else unit}"


def partition_keys(value: Any) -> list[str]:
    """A list of names, or the JSON text of one: a pipeline parameter cannot be a list."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(key, str) and key for key in value):
        raise ValueError(
            'expected a list of names of partition keys such as ["store", "brand"]; in a PipelineParameter, its JSON '
            "text: json.dumps([...])"
        )
    if len(set(value)) < len(value):
        raise ValueError("expected each partition key once")
    return list(value)


def one_of(*words: str, upper: bool = False) -> Check:
    """A check for one of some words, in any case; they come out in lower or upper case."""

    def check(value: Any) -> str:
        word = (value.strip().upper() if upper else value.strip().lower()) if isinstance(value, str) else None
        if word is None or word not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return word

    return check


def text(value: Any) -> str:
    """A text; a path object counts as one."""
    if hasattr(value, "__fspath__"):
        value = value.__fspath__()
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("expected a text")
    return value


def path(value: Any) -> str:
    """The path of something on this machine, as it was given."""
    given = text(value)
    if not given.strip():
        raise ValueError("expected a path, not an empty text")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", given):
        raise ValueError("expected a path on this machine, not a URL")
    return given


def file_name(value: Any) -> str:
    """The name of a file in the output folder."""
    name = text(value)
    if name.strip() in ("", ".", "..") or "/" in name or "\\" in name:
        raise ValueError("expected the name of a file, without a folder")
    if name.startswith("_run"):
        raise ValueError("names that begin with _run are the run directory's; choose another")
    if len(name.encode()) > 250:
        raise ValueError("expected at most 250 bytes; filesystems take no longer names")
    return name


def variables(value: Any) -> dict[str, str]:
    """Environment variables: names with texts; numbers become text."""
    expected = 'expected a dict of names and texts, such as {"TF_CPP_MIN_LOG_LEVEL": "2"}'
    if not isinstance(value, Mapping):
        raise ValueError(expected)
    found = {}
    for name, content in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} is not the name of an environment variable")
        if isinstance(content, bool) or not isinstance(content, (str, int, float)):
            raise ValueError(f"{expected}; that of {name} is a {type(content).__name__}")
        found[name] = str(content)
    return found

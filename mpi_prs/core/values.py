"""The values that users give, one check a kind: the job config, the SDK's classes and Azure's YAML all ask here.

A check takes a value as it was given and returns it in the one form that we keep, or raises WrongValue. What is refused
at one door is so refused at all of them, with the same words.

====================  ============================================================================================
whole number          an int, a float without a fraction (``5.0``), or the text of one (``"5"``, ``" -1 "``); pipeline
                      parameters and the environment are text. No bool, no digits but 0 to 9
number, seconds,      an int, a float, or the text of one; neither infinite nor NaN, no bool
percent
mini-batch size       a whole number; or a number with KB, MB, GB or rows, in any case, a blank before it or none
bytes                 the same, without rows
text                  a text, a path object, or a number or truth value, which becomes the text that it is written as:
                      Python's ``True`` is ``True``, YAML's ``true`` is ``true``. No NUL, which no process can be passed
name                  a text that is not blank: of an image, a package, a program. No number: that is a slip of the pen
file name             a text that is not blank, without slash, backslash and NUL; not the run directory's
variables, tags       a mapping of names to texts as above
====================  ============================================================================================

Standard library only, for Python 3.7 as well.
"""

from __future__ import annotations

import json
import math
import numbers
import os
import re
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional  # noqa: UP035  # Python 3.7

from mpi_prs.core.urls import is_url

LARGEST = 2**31 - 1
HUGE = 2**63 - 1
YEAR = 365 * 24 * 3600
"""Seconds: above this, timeouts no longer fit the clocks of the operating system; and nobody waits for a year."""

Check = Callable[[Any], Any]

_WHOLE = re.compile(r"\s*([-+]?[0-9]{1,19})(\.0*)?\s*")
_NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
_SIZE = re.compile(r"\s*([0-9]{1,19})\s*(KB|MB|GB|ROWS|)\s*", re.IGNORECASE)
_UNITS = {"": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}


class WrongValue(ValueError):
    """A value that cannot be taken.

    Attributes:
        expected: the sentence that says what is, such as ``expected a whole number of at least 1``.
        got: the value; it may be secret.
        key: which entry of a mapping or list it is; ``None``: the whole.
    """

    def __init__(self, expected: str, got: Any, key: Any = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.got = got
        self.key = key

    def __str__(self) -> str:
        return self.expected if self.key is None else f"of {self.key!r} {self.expected}"

    def at(self, key: Any) -> WrongValue:
        """The same, of one entry."""
        self.key = key
        return self

    def fields(self, label: str, whose: str = "", *, secret: bool = False) -> dict[str, Any]:
        """What an error of ours says of it: ``PipelineError(**wrong.fields("node_count"))``.

        Args:
            label: of the setting.
            whose: where the value comes from, such as `` (PipelineParameter 'nodes')``.
            secret: the value is not to be shown, but its kind.
        """
        got = kind(self.got) if secret else shown(self.got)
        key = label if self.key is None else f"{label}[{self.key!r}]"
        return {"key": key, "got": f"{got}{whose}", "expected": self.expected}


class Size(NamedTuple):
    """How much a mini-batch gets: bytes or rows, at least 1; ``bare``: bytes without a unit."""

    bytes: Optional[int] = None  # noqa: UP045  # Python 3.7
    rows: Optional[int] = None  # noqa: UP045  # Python 3.7
    bare: bool = False


def whole_number(lowest: int, highest: int = LARGEST) -> Check:
    """A check for an int in a range."""
    if highest in (LARGEST, HUGE):
        expected = f"expected a whole number of at least {lowest}"
    else:
        expected = f"expected a whole number from {lowest} to {highest}"

    def check(value: Any) -> int:
        number = _whole(value)
        if number is not None and number > highest:
            raise WrongValue(f"expected a whole number from {lowest} to {highest}", value)
        if number is None or number < lowest:
            raise WrongValue(expected, value)
        return number

    return check


def count_or_auto(value: Any) -> int | str:
    """A whole number of at least 1, or the word auto."""
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    number = _whole(value)
    if number is None or not 0 < number <= LARGEST:
        raise WrongValue("expected a whole number of at least 1, or auto", value)
    return number


def _whole(value: Any) -> int | None:
    if isinstance(value, str):
        match = _WHOLE.fullmatch(value)
        return int(match[1]) if match else None
    if isinstance(value, bool):  # to Python True is the number 1
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, numbers.Integral) else None


def _number(value: Any) -> float | None:
    """A number, or what its text says; ``None``: it is neither."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else None


def number(value: Any) -> float:
    """A number that is neither infinite nor NaN."""
    found = _number(value)
    if found is None or not math.isfinite(found):
        raise WrongValue("expected a number", value)
    return found


def percent(value: Any) -> float:
    """A number from 0 to 100."""
    number = _number(value)
    if number is None or not 0 <= number <= 100:  # NaN fails too
        raise WrongValue("expected a number from 0 to 100", value)
    return number


def seconds(value: Any) -> int | float:
    """A time above 0; an int where it has no fraction."""
    number = seconds_from_zero(value, "more than 0")
    if not number:
        raise WrongValue("expected a number of seconds, more than 0", value)
    return number


def seconds_from_zero(value: Any, lowest: str = "at least 0") -> int | float:
    """A time, which may be 0; an int where it has no fraction."""
    number = _number(value)
    if number is not None and not math.isfinite(number):
        raise WrongValue(f"expected a finite number of seconds, {lowest}", value)
    if number is None or number < 0:
        raise WrongValue(f"expected a number of seconds, {lowest}", value)
    if number > YEAR:
        raise WrongValue(f"expected a number of seconds, at most {YEAR}", value)
    return int(number) if number.is_integer() else number


def partition_keys(value: Any) -> list[str]:
    """A list of names, or the JSON text of one: a pipeline parameter cannot be a list."""
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError:
            found = None
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(key, str) and key for key in found):
        raise WrongValue(
            'expected a list of names of partition keys such as ["store", "brand"]; in a PipelineParameter, its JSON '
            "text: json.dumps([...])",
            value,
        )
    if len(set(found)) < len(found):
        raise WrongValue("expected each partition key once", value)
    return list(found)


def mini_batch_size(value: Any) -> int | str:
    """A number of files or bytes, as an int; or a size of a table's, such as ``10MB`` or ``5000rows``."""
    expected = "expected a whole number such as 10 or, for tables, a size such as 1024KB, 10MB, 1GB or 5000rows"
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or not match[2]:
        number = _whole(value)
        if number is None:
            raise WrongValue(expected, value)
        if not 0 < number <= LARGEST:
            raise WrongValue(f"{expected}; the number is at least 1 and at most {LARGEST}", value)
        return number
    number, unit = int(match[1]), match[2].upper()
    if not 0 < number * _UNITS.get(unit, 1) <= HUGE // 2:
        raise WrongValue(f"{expected}; it is at least 1 and at most {HUGE // 2}", value)
    return f"{number}{'rows' if unit == 'ROWS' else unit}"


def size(value: Any) -> Size:
    """What a mini-batch of a table gets: a number, of bytes, or a size with a unit; 1 KB is 1024 bytes."""
    checked = str(mini_batch_size(value))
    match = _SIZE.fullmatch(checked)
    assert match is not None
    number, unit = int(match[1]), match[2].upper()
    return Size(rows=number) if unit == "ROWS" else Size(bytes=number * _UNITS[unit], bare=not unit)


def byte_size(value: Any) -> int:
    """Bytes: a number, or a size with a unit."""
    expected = "expected a number of bytes such as 500MB or 10GB, at least 1"
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    number = _whole(value) if match is None else int(match[1]) * _UNITS.get(match[2].upper(), 0)
    if number is None or not 0 < number <= HUGE:
        raise WrongValue(expected, value)
    return number


def text(value: Any) -> str:
    """A text; what is no text, but is written as one, becomes it."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, (str, bool, int, float)):
        raise WrongValue("expected text", value)
    return _without_nul(str(value), value)


def name(value: Any) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise WrongValue("expected a text that is not empty", value)
    return _without_nul(value, value)


def _without_nul(found: str, value: Any) -> str:
    if "\0" in found:
        raise WrongValue("expected text without the character NUL, which no process can be passed", value)
    return found


def truth(value: Any) -> bool:
    """True or False; no text, and no number."""
    if not isinstance(value, bool):
        raise WrongValue("expected True or False", value)
    return value


def one_of(*words: str, upper: bool = False) -> Check:
    """A check for one of some words, in any case; they come out in lower or upper case."""

    def check(value: Any) -> str:
        word = (value.strip().upper() if upper else value.strip().lower()) if isinstance(value, str) else None
        if word is None or word not in words:
            raise WrongValue(f"expected one of {', '.join(words)}", value)
        return word

    return check


def path(value: Any) -> str:
    """The path of something on this machine, as it was given."""
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str):
        raise WrongValue("expected a path", value)
    if not found.strip():
        raise WrongValue("expected a path, not empty text", value)
    if "\0" in found:
        raise WrongValue("expected a path; no path holds the character NUL", value)
    if is_url(found):
        raise WrongValue("expected a path on a filesystem that all nodes see, not a URL", value)
    return found


def file_name(value: Any) -> str:
    """The name of a file in the output folder."""
    if not isinstance(value, str):
        raise WrongValue("expected text (numbers go in quotes)", value)
    if value.strip() in ("", ".", "..") or any(char in value for char in "/\\\0"):
        raise WrongValue("expected the name of a file in the output folder, without a slash or backslash", value)
    if value.startswith("_run"):
        raise WrongValue("names that start with _run are the run directory's; choose another", value)
    if len(value.encode("utf-8", "surrogatepass")) > 250:
        raise WrongValue("expected at most 250 bytes; filesystems take no longer names", value)
    return value


def variable_name(value: Any) -> str:
    """The name of an environment variable."""
    if not isinstance(value, str) or not value or "=" in value or "\0" in value:
        raise WrongValue(f"{value!r} is no name of an environment variable: one is not empty and holds no `=`", value)
    return value


def variables(value: Any) -> Dict[str, str]:  # noqa: UP006  # Python 3.7
    """Environment variables."""
    return _pairs(value, 'expected a dict of names and texts, such as {"TF_CPP_MIN_LOG_LEVEL": "2"}', variable_name)


def tags(value: Any) -> Dict[str, str]:  # noqa: UP006  # Python 3.7
    """Tags or properties."""
    return _pairs(value, "expected a dict of texts, such as {'pretrained': 'mnist'}", _tag_name)


def _tag_name(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongValue("expected text for the name of a tag", value)
    return _without_nul(value, value)


def _pairs(value: Any, expected: str, check_name: Callable[[Any], str]) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise WrongValue(expected, value)
    found = {}
    for key, content in value.items():
        key = check_name(key)
        try:
            found[key] = text(content)
        except WrongValue as error:
            raise error.at(key) from None
    return found


def shown(value: Any) -> str:
    """A value as a message shows it; long ones by their kind."""
    found = repr(value)
    return found if len(found) <= 100 else kind(value)


def kind(value: Any) -> str:
    """What a value is, for a message that does not show it since it may be secret."""
    if value is None:
        return "None"
    if isinstance(value, bool):
        return "True or False"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text" if value.strip() else "an empty text"
    return f"a {type(value).__name__}"

"""``program_arguments``: what the script gets, and the settings of the parallel job that are given there. Pure."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_SETTINGS = {
    "error_threshold": "error_threshold",
    "allowed_failed_count": "allowed_failed_count",
    "allowed_failed_percent": "allowed_failed_percent",
    "task_overhead_timeout": "task_overhead_timeout",
    "progress_update_timeout": "progress_update_timeout",
}
"""Azure's predefined arguments → our key."""
_WITHOUT_EFFECT = (
    *("first_task_creation_timeout", "copy_logs_to_parent", "push_metrics_to_parent", "metrics_name_prefix"),
    "resource_monitor_interval",
)
_PREDEFINED = (*_SETTINGS, *_WITHOUT_EFFECT)


@dataclass(frozen=True)
class ProgramArguments:
    """What ``program_arguments`` says.

    Attributes:
        script: the arguments of the script.
        settings: key of the job config → value, as text.
        notes: what a person should know.
    """

    script: list[str] = field(default_factory=list)
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def split(text: str) -> list[str]:
    """The words of a command line, quotes respected.

    Raises:
        ValueError: a quotation does not end.
    """
    try:
        return shlex.split(text)
    except ValueError:
        raise ValueError("a quotation in it does not end; close it, or put the quote itself in other quotes") from None


def understand(words: Sequence[str], value_of: Callable[[str], str]) -> ProgramArguments:
    """Tell the script's arguments from the predefined ones.

    Args:
        words: of the command line.
        value_of: puts values for the expressions in a word.

    Raises:
        ValueError: a predefined argument has no value after it.
    """
    script: list[str] = []
    settings: dict[str, str] = {}
    notes: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in _PREDEFINED:
            script.append(value_of(word))
            if word.startswith("--") and (meant := difflib.get_close_matches(name, _PREDEFINED, n=1, cutoff=0.9)):
                notes.append(f"program_arguments: --{name} is passed to the script; did you mean --{meant[0]}?")
            continue
        if not equals:
            if not left or left[0].startswith("--"):
                raise ValueError(f"--{name} has no value after it")
            value = left.pop(0)
        if name in _SETTINGS:
            settings[_SETTINGS[name]] = value_of(value)
    return ProgramArguments(script, settings, notes)

"""What Azure's service puts into an entry script's ``sys.argv`` before the user's own arguments, and so do we.

Existing scripts read some of it (``--output`` above all), and all of them expect it: they use ``parse_known_args``.
Pure, standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mpi_prs import __version__
from mpi_prs.core import values
from mpi_prs.core.errors import PipelineError

_PASSED = (
    "client_sdk_version",
    "scoring_module_name",
    "mini_batch_size",
    "error_threshold",
    "output_action",
    "logging_level",
    "run_invocation_timeout",
    "run_max_try",
    "create_snapshot_at_runtime",
    "allowed_failed_count",
    "allowed_failed_percent",
    "append_row_file_name",
    "output",
    "process_count_per_node",
    "partition_keys",
)
_RESERVED = re.compile(rf"--({'|'.join(_PASSED)}|input_[a-z]*ds_[0-9]+)(=.*)?", re.DOTALL)
_TIMEOUTS = ("task_overhead_timeout", "progress_update_timeout")


def check_reserved(arguments: Iterable[Any]) -> None:
    """Refuse what the service passes by itself.

    Raises:
        PipelineError: one of the arguments has such a name.
    """
    for argument in arguments:
        found = _RESERVED.fullmatch(argument) if isinstance(argument, str) else None
        if found:
            raise PipelineError(
                f"ParallelRunStep: arguments: --{found[1]} is a reserved name, since every entry script gets it "
                f"anyway; use another. Reserved are {', '.join(_PASSED)} and input_fds_0, input_fds_1, …"
            )


def service_arguments(settings: Mapping[str, Any], script: str, size: int | str | None, output: str) -> list[str]:
    """What comes before the user's arguments.

    Args:
        settings: of the ParallelRunConfig, as plain values.
        script: the entry script as it was given.
        size: of a mini-batch; ``None``: partition keys make them.
        output: the output folder.
    """
    is_append_row = settings["output_action"] == "append_row"
    keys = settings["partition_keys"]
    passed = {
        "client_sdk_version": __version__,
        "scoring_module_name": script,
        "mini_batch_size": size,
        "error_threshold": settings["error_threshold"],
        "output_action": settings["output_action"],
        "logging_level": settings["logging_level"],
        "run_invocation_timeout": settings["run_invocation_timeout"],
        "run_max_try": settings["run_max_try"],
        "create_snapshot_at_runtime": True,
        "allowed_failed_count": settings["allowed_failed_count"],
        "allowed_failed_percent": settings["allowed_failed_percent"],
        "append_row_file_name": settings["append_row_file_name"] if is_append_row else None,
        "output": output,
        "process_count_per_node": settings["process_count_per_node"],
        "partition_keys": None if keys is None else json.dumps(keys),
    }
    return [text for name, value in passed.items() if value is not None for text in (f"--{name}", str(value))]


def timeouts_in(arguments: Iterable[str]) -> dict[str, int | float]:
    """The service's own settings among the user's arguments, such as ``--progress_update_timeout 600``, that the job
    config has a key for: key → seconds.

    Raises:
        PipelineError: one of them has no number of seconds after it.
    """
    words = list(arguments)
    found: dict[str, int | float] = {}
    for index, word in enumerate(words):
        name, equals, value = word[2:].partition("=")
        if not word.startswith("--") or name not in _TIMEOUTS:
            continue
        if not equals:
            value = words[index + 1] if index + 1 < len(words) else ""
        try:
            found[name] = values.seconds(value)
        except values.WrongValue as wrong:
            raise PipelineError(**wrong.fields(f"ParallelRunStep: arguments: --{name}")) from None
    return found

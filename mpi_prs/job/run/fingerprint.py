"""What decides the output of a job, so that a later start knows whether it continues the same one.

Timeouts, thresholds, tries, the number of nodes and processes, logging and Slurm options may differ between two starts
of one run; what is in the fingerprint may not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from mpi_prs.core.secrecy import DIGEST_PREFIX, digest, looks_secret
from mpi_prs.job.config.entry_script_check import read_script
from mpi_prs.job.config.model import JobConfig

_CONTENT = "entry_script_sha256"
_LONGEST = 70  # characters of a value in a message
_MOST = 5  # differences shown of one setting


def fingerprint(config: JobConfig) -> dict[str, Any]:
    """The settings that decide the output, as JSON holds them (str, int, bool, None, list, dict with str keys).

    Values that look secret by their names are replaced by a digest, so the result may be stored. Reads the entry
    script; raises ScriptError when it cannot be read.
    """
    return {
        "entry_script": str(config.entry_script),
        _CONTENT: hashlib.sha256(read_script(config.entry_script)).hexdigest(),
        "inputs": [
            section.model_dump(mode="json", exclude={"storage"}, exclude_defaults=True) for section in config.inputs
        ],
        "mini_batch_size": config.mini_batch_size or (None if config.partition_keys else config.default_size),
        "partition_keys": config.partition_keys and list(config.partition_keys),
        "side_inputs": {name: side.path for name, side in sorted(config.side_inputs.items())},
        "output_action": config.output_action,
        "append_row_file_name": config.append_row_file_name,
        "output_order": config.output_order,
        "to_csv": config.to_csv.model_dump(mode="json"),
        "arguments": list(without_secrets(config.arguments)),
        "environment_variables": {
            name: digest(value) if looks_secret(name) else value
            for name, value in sorted(config.environment_variables.items())
        },
        "environment": None if config.environment is None else str(config.environment),
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One readable line for each difference of two fingerprints, such as ``mini_batch_size: 5 then, 10 now``."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) == new.get(key):
            continue
        if key == _CONTENT:
            # With another path the content is another one anyway.
            if old.get("entry_script") == new.get("entry_script"):
                lines.append(f"entry_script: the file's content has changed ({new.get('entry_script')})")
            continue
        found = list(_compare(key, old.get(key), new.get(key)))
        lines += found[:_MOST]
        if len(found) > _MOST:
            lines.append(f"{key}: and {len(found) - _MOST} more differences")
    return lines


def changes_manifest(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two fingerprints differ in what splits the inputs into mini-batches."""
    return any(old.get(key) != new.get(key) for key in ("inputs", "mini_batch_size", "partition_keys"))


def without_secrets(arguments: tuple[str, ...]) -> Iterator[str]:
    """The arguments, with a digest for the value of each option that looks secret: ``--token X`` and ``--token=X``."""
    is_value_of_secret = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_secret = name.startswith("-") and looks_secret(name)
        if is_value_of_secret and not name.startswith("-"):
            yield digest(argument)
        elif is_secret and equals:
            yield f"{name}={digest(value)}"
        else:
            yield argument
        is_value_of_secret = is_secret and not equals


def _compare(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name):
                yield from _compare(f"{key}.{name}", old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list) and max(len(_json(old)), len(_json(new))) > _LONGEST:
        for index in range(max(len(old), len(new))):
            pair = [values[index] if index < len(values) else None for values in (old, new)]
            if pair[0] != pair[1]:
                yield from _compare(f"{key}.{index}", *pair)
    elif _is_digest(old) and _is_digest(new):
        yield f"{key}: its value has changed"
    else:
        yield f"{key}: {_show(old)} then, {_show(new)} now"


def _show(value: Any) -> str:
    if value is None:
        return "not set"
    if _is_digest(value):
        return "set"
    text = value if isinstance(value, str) and value else _json(value)
    # The end of a path tells more than its beginning.
    return text if len(text) <= _LONGEST else f"{text[:20]} … {text[20 - _LONGEST :]}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(DIGEST_PREFIX)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

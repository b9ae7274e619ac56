"""What decides the output of a job, so that a later start knows whether it continues the same one.

Timeouts, thresholds, tries, the number of nodes and processes, logging and Slurm options may differ between two starts
of one run; what is in the fingerprint may not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from mpi_prs.core.secrecy import digest, is_digest, looks_secret, scrub, seal, seal_arguments
from mpi_prs.job.config.entry_script_check import read_script
from mpi_prs.job.config.model import JobConfig

_CONTENT = "entry_script_sha256"
_LONGEST = 70  # characters of a value in a message
_MOST = 5  # differences shown of one setting


def fingerprint(config: JobConfig) -> dict[str, Any]:
    """The settings that decide the output, as JSON holds them (str, int, bool, None, list, dict with str keys).

    What looks secret is replaced by a digest, so the result may be stored. Reads the entry script; raises ScriptError
    when it cannot be read.
    """
    found = {
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
        "arguments": list(config.arguments),
        "environment_variables": dict(sorted(config.environment_variables.items())),
        "environment": None if config.environment is None else str(config.environment),
        "loaders": config.loaders and True,  # how many does not matter
    }
    return sealed(found)


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


def sealed(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """A fingerprint with digests for what looks secret in it; sealed again it stays. An earlier version sealed less."""
    found = {key: _sealed(value) for key, value in fingerprint.items()}
    arguments = fingerprint.get("arguments")
    if isinstance(arguments, list) and all(isinstance(each, str) for each in arguments):
        found["arguments"] = list(seal_arguments(arguments))
    if isinstance(variables := found.get("environment_variables"), dict):
        found["environment_variables"] = {
            name: digest(value) if looks_secret(name) and isinstance(value, str) else value
            for name, value in variables.items()
        }
    return found


def _sealed(value: Any) -> Any:
    if isinstance(value, str):
        return seal(value)
    if isinstance(value, list):
        return [_sealed(each) for each in value]
    return {key: _sealed(each) for key, each in value.items()} if isinstance(value, dict) else value


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
    elif is_digest(old) and is_digest(new):
        yield f"{key}: its value has changed"
    else:
        then, now = _show(old), _show(new)
        yield f"{key}: {then} then, {now} now" if then != now else f"{key}: its value has changed"


def _show(value: Any) -> str:
    if value is None:
        return "not set"
    if is_digest(value):
        return "set"
    text = scrub(value if isinstance(value, str) and value else _json(value))
    # The end of a path tells more than its beginning.
    return text if len(text) <= _LONGEST else f"{text[:20]} … {text[20 - _LONGEST :]}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

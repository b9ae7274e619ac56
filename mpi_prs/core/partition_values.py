"""The values of the partition keys, as the user's script gets them in ``mini_batch_context.partition_key_value``.

Standard library only: the user process imports this module. What it reads is written by
``mpi_prs.inputs.partitions.to_json``.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

_TYPES: dict[str, Any] = {"datetime": datetime.fromisoformat, "date": date.fromisoformat, "float": float}


def partition_values(data: list[Any]) -> dict[str, Any]:
    """Key → ``str``, ``int``, ``float``, ``bool``, ``datetime.datetime``, ``datetime.date`` or ``None``.

    Args:
        data: from JSON, a pair of key and value for each key, in order. What JSON has no type for is a dict of one
            entry, type → text.
    """
    return {key: _value(value) for key, value in data}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        ((name, text),) = value.items()
        return _TYPES[name](text)
    return value

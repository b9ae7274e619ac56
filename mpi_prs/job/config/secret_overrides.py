"""Overrides of the command line that hold a secret, which a batch script would keep and show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpi_prs.core.errors import ConfigError
from mpi_prs.core.secrecy import holds_secret, looks_secret, seal_arguments
from mpi_prs.core.yaml import KeyPath, read_document
from mpi_prs.job.config.model import JobConfig

_HOLDERS = ("environment_variables", "storage", "options")
"""The sections whose keys may name a secret."""


def refuse_secrets(config: JobConfig, path: Path, overrides: Sequence[str]) -> None:
    """Raises ConfigError naming the first key whose ``--set`` looks like a secret by its name or its value.

    Args:
        config: what the file ``path`` and the overrides say together.
    """
    for override in overrides:
        dotted, _, value = override.partition("=")
        if holds_secret(value):
            raise _refusal(dotted.strip())
    places = read_document(path, overrides, ()).places
    for key in sorted((key for key, place in places.items() if place.label.startswith("--set")), key=str):
        if _is_secret(key) or (key[0] == "arguments" and tuple(seal_arguments(config.arguments)) != config.arguments):
            raise _refusal(".".join(map(str, key)))


def _refusal(dotted: str) -> ConfigError:
    return ConfigError(
        f"--set {dotted}: this looks like a secret, and the batch script would show it to whoever sees the job. Put it "
        "into the config file, or into the environment"
    )


def _is_secret(key: KeyPath) -> bool:
    name = str(key[-1])
    return any(part in _HOLDERS for part in key[:-1]) and looks_secret(name) and not name.endswith("_file")

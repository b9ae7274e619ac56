"""YAML values that know where they were written, so that a message can name file, line and key.

All scalars are text exactly as written: Azure takes ``"5"`` for ``5``, and a literal input is an argument of a script.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpi_prs.core.errors import ConfigError
from mpi_prs.core.words import near
from mpi_prs.core.yaml import Document, KeyPath, SourceLine, read_document
from mpi_prs.job.config.model import TEXT_KEYS
from mpi_prs.job.config.types import absolute

OURS = "mpi_prs"
"""The top-level key of our own settings, which Azure ignores."""


@dataclass(frozen=True)
class YamlFile:
    """A YAML file.

    Attributes:
        name: for messages.
        folder: that relative paths in it start from; a URL of a folder for a remote one.
        document: its content.
    """

    name: str
    folder: str
    document: Document = field(repr=False)


@dataclass(frozen=True)
class YamlNode:
    """A value in a YAML file.

    Attributes:
        value: text, None, a list, or a dict with text keys.
        source: the file.
        key: of the value in the file.
    """

    value: Any
    source: YamlFile
    key: KeyPath = ()

    @property
    def place(self) -> SourceLine | None:
        """Where it was written, for messages of others."""
        return self.source.document.place(self.key)

    @property
    def shown_key(self) -> str:
        """Such as ``jobs.train.inputs.data``."""
        return ".".join(map(str, self.key))

    def wrong(self, problem: str) -> ConfigError:
        """The error that says so of this value."""
        place = self.place
        key = self.shown_key
        if place is None or place.label == f"--set {key}":
            where = place.label if place else key
            return ConfigError(f"{self.source.name}, {where}: {problem}" if where else f"{self.source.name}: {problem}")
        return ConfigError(f"{self.source.name}, {place.label}: {f'{key}: ' if key else ''}{problem}")

    def entries(self) -> dict[str, YamlNode]:
        """The values of a mapping whose keys are names, empty ones too. Raises ConfigError."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            raise self.wrong(f"got {self.kind}; expected a mapping, such as `name: value`")
        return {str(key): YamlNode(value, self.source, (*self.key, key)) for key, value in self.value.items()}

    def fields(self, known: Collection[str]) -> dict[str, YamlNode]:
        """The values of a mapping that has no other keys than these; empty ones are left out. Raises ConfigError."""
        found = self.entries()
        for key, node in found.items():
            if key not in known:
                raise node.wrong(f"unknown key{near(key, known)}")
        return {key: node for key, node in found.items() if node.value is not None}

    def items(self) -> list[YamlNode]:
        """The values of a list. Raises ConfigError."""
        if not isinstance(self.value, list):
            raise self.wrong(f"got {self.kind}; expected a list, such as `- value`")
        return [YamlNode(value, self.source, (*self.key, index)) for index, value in enumerate(self.value)]

    def text(self, expected: str = "text") -> str:
        """Raises ConfigError: it is a mapping, a list, or nothing."""
        if not isinstance(self.value, str):
            raise self.wrong(f"got {self.kind}; expected {expected}")
        return self.value

    def texts(self) -> list[str]:
        """One text, or a list of them. Raises ConfigError."""
        return [self.value] if isinstance(self.value, str) else [node.text() for node in self.items()]

    def local_path(self, text: str | None = None) -> Path:
        """The absolute path of a file or folder on this machine, relative to the file's folder.

        Args:
            text: the path, where it is not the value itself.

        Raises:
            ConfigError: it is no path.
        """
        text = self.text("a path") if text is None else text
        if not text.strip() or "\0" in text or any(len(os.fsencode(name)) > 255 for name in text.split("/")):
            raise self.wrong(f"got {text!r}; expected a path")
        try:
            return Path(absolute(Path(self.source.folder), os.path.expanduser(text)))
        except OSError as error:
            raise self.wrong(f"{text}: {error.strerror}") from None

    def one_of(self, words: Sequence[str]) -> str:
        """The one of some words that it is, in whatever case. Raises ConfigError."""
        text = self.text(f"one of {', '.join(words)}")
        for word in words:
            if word.lower() == text.strip().lower():
                return word
        raise self.wrong(f"got {text!r}; expected one of {', '.join(words)}")

    def flag(self) -> bool:
        """Raises ConfigError: it is neither true nor false."""
        return self.one_of(("true", "false")) == "true"

    @property
    def kind(self) -> str:
        """What it is, for a message."""
        if self.value is None:
            return "nothing"
        if isinstance(self.value, dict | list):
            return "a mapping" if isinstance(self.value, dict) else "a list"
        return repr(self.value)


def read_nodes(
    path: Path, overrides: Sequence[str] = (), name: str | None = None, folder: str | None = None
) -> YamlNode:
    """The root of a YAML file.

    Args:
        path: the file.
        overrides: ``key=value`` each.
        name, folder: of the :class:`YamlFile`, if they are not those of ``path``.

    Raises:
        ConfigError: it cannot be read.
    """
    keys = [str(key) for key in read_document(path, overrides, ()).data if key != OURS]
    keys += [f"{OURS}.{key}" for key in TEXT_KEYS]
    document = read_document(path, overrides, keys)
    return YamlNode(document.data, YamlFile(name or str(path), folder or str(path.absolute().parent), document))

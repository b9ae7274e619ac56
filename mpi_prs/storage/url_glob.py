"""Folders and globs in a store that has no folders, only names with slashes in them.

A pattern is followed folder by folder as long as that saves looking at names; from the first ``**`` on, everything
below is listed in one sweep and sieved. Wildcards match neither hidden names nor run directories (``_run``), unless the
pattern spells them out.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mpi_prs.core.run_directory import RUN_FOLDER

_WILDCARD = re.compile(r"[*?[]")


class Entry(NamedTuple):
    """What a listing has.

    Attributes:
        name: its full name in the store; that of a folder ends with a slash.
        size: in bytes; -1: a folder.
        version: as of :class:`~mpi_prs.storage.stores.Listed`.
    """

    name: str
    size: int
    version: str = ""

    @property
    def is_folder(self) -> bool:
        return self.size < 0


class Lister(Protocol):
    """How a store is listed; both give names in their order."""

    def folder(self, prefix: str) -> Iterator[Entry]:
        """The files and folders whose names begin with ``prefix`` and have no further slash."""

    def below(self, prefix: str) -> Iterator[Entry]:
        """The files whose names begin with ``prefix``, however many slashes follow."""


@dataclass(frozen=True)
class Segment:
    """What stands between two slashes of a pattern.

    Attributes:
        text: as written; ``**`` crosses any number of folders.
        lead: what every match begins with.
        matches: says whether a name matches.
    """

    text: str
    lead: str
    matches: Callable[[str], object]

    @property
    def any_depth(self) -> bool:
        return self.text == "**"

    @property
    def literal(self) -> bool:
        return self.lead == self.text

    @classmethod
    def parse(cls, text: str, hidden: bool) -> Segment:
        """``hidden``: wildcards match a leading dot too."""
        wildcard = _WILDCARD.search(text)
        if wildcard is None:
            return cls(text, text, text.__eq__)
        without = "" if hidden or text.startswith(".") else r"(?!\.)"
        without += "" if text.startswith(RUN_FOLDER) else rf"(?!{RUN_FOLDER}\Z)"
        return cls(text, text[: wildcard.start()], re.compile(without + fnmatch.translate(text)).match)


def is_glob(path: str) -> bool:
    return _WILDCARD.search(path) is not None


def matching(lister: Lister, path: str, *, hidden: bool) -> Iterator[Entry]:
    """The files that a folder or a glob stands for, in the order of their names."""
    if not is_glob(path):
        path = (path.rstrip("/") + "/" if path else "") + "**"
    wildcard = _WILDCARD.search(path)
    assert wildcard is not None
    cut = path.rfind("/", 0, wildcard.start()) + 1
    texts = path[cut:].split("/")
    if not texts[-1]:
        texts[-1] = "**"
    segments = [
        Segment.parse(text, hidden)
        for number, text in enumerate(texts)
        if not (text == "**" and number and texts[number - 1] == "**")
    ]
    return _below(lister, path[:cut], segments)


def _below(lister: Lister, folder: str, segments: Sequence[Segment]) -> Iterator[Entry]:
    first, rest = segments[0], segments[1:]
    if first.any_depth:
        for entry in lister.below(folder):
            if names_match(entry.name[len(folder) :].split("/"), segments):
                yield entry
    elif not rest:
        for entry in lister.folder(folder + first.lead):
            if not entry.is_folder and first.matches(entry.name[len(folder) :]):
                yield entry
    elif first.literal:
        yield from _below(lister, f"{folder}{first.text}/", rest)
    else:
        for entry in lister.folder(folder + first.lead):
            if entry.is_folder and first.matches(entry.name[len(folder) : -1]):
                yield from _below(lister, entry.name, rest)


def names_match(names: Sequence[str], segments: Sequence[Segment]) -> bool:
    """Whether the names between the slashes of a path match the segments. A ``**`` at the end stands for a file too."""
    last = len(segments) - 1
    states = {0}
    for number, name in enumerate(names):
        is_file = number == len(names) - 1
        reached = set()
        for state in states:
            while segments[state].any_depth:
                if segments[state].matches(name):
                    if is_file and state == last:
                        return True
                    reached.add(state)
                if state == last:
                    break
                state += 1
            else:
                if segments[state].matches(name):
                    if is_file and state == last:
                        return True
                    if state < last:
                        reached.add(state + 1)
        states = reached
    return False

"""What names files: a URL or a path, and the globs in both, which mean the same for a folder and for a remote store.

::

    is_url, is_web              what a text is; percent_encoded: a name in a URL of the web
    is_glob, escape, literal    whether it holds wildcards, and how it is written or read without them
    Glob                        a pattern taken apart, and what is followed below a folder, name by name

- ``*``, ``?`` (one character) and the sets ``[a-z]``, ``[!a-z]`` stay within a name, ``**`` crosses any number of
  folders, ``[*]`` is a literal star. ``day-*/`` and ``day-*/.`` are as ``day-*/**``: all files under what matches.
- Wildcards match neither hidden names (a leading dot), unless the pattern spells out the dot, nor run directories
  (``_run``), unless it spells out these: the output of one job is the input of the next. Of tables they match no name
  with a leading underscore either (:class:`Names`).
- ``.`` stands for nothing. Nor does a second slash on a filesystem; in a store, whose names may be empty, it is one.

Standard library only, and for Python 3.7 as well.
"""

from __future__ import annotations

import enum
import fnmatch
import glob
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

from mpi_prs.core.files import RUN_FOLDER

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WILDCARD = re.compile(r"[*?[]")
_DOT = re.compile(r"(?:^|(?<=/))\.(?:/|\Z)")
_ANY_DEPTH = "**"
_Name = TypeVar("_Name", str, bytes)


def is_url(text: str) -> bool:
    """Whether this names something by URL, such as ``abfs://container/path``, and not by path."""
    return _URL.match(text) is not None


def is_web(url: str) -> bool:
    """Whether a URL is one of the web, in which names are percent-encoded."""
    return url.startswith(("http://", "https://"))


def percent_encoded(name: str) -> str:
    """A name as it stands in a URL of the web."""
    return quote(name, safe="/~!$&'()+,;=:@")


def is_glob(path: str) -> bool:
    """Whether there is a wildcard in it."""
    return _WILDCARD.search(path) is not None


def escape(path: str) -> str:
    """The glob that matches this path alone."""
    return glob.escape(path)


def literal(path: str) -> str:
    """The folders of a path in front of its first wildcard, with a slash at the end; all of it if there is none."""
    wildcard = _WILDCARD.search(path)
    return path if wildcard is None else path[: path.rfind("/", 0, wildcard.start()) + 1]


def without_dots(path: str) -> str:
    """The same path without ``.``; at its end, it leaves a slash."""
    return _DOT.sub("", path)


class Names(enum.Enum):
    """Which names wildcards match, those of the folders above a file included; the value is what they do not."""

    ALL = ""
    SEEN = r"\."
    """All but hidden ones."""
    DATA = r"\.|_[^=]*\Z"
    """Those that hold rows for pandas, pyarrow and Spark: ``_SUCCESS``, ``_temporary``, ``_delta_log`` and the like are
    what programs write for themselves. A folder ``_key=value`` is a partition."""


@dataclass(frozen=True)
class GlobSegment(Generic[_Name]):
    """What stands between two slashes of a pattern.

    Attributes:
        text: as written.
        lead: what every match begins with.
        matches: says whether a name matches.
    """

    text: str
    lead: str
    matches: Callable[[_Name], object]

    @property
    def any_depth(self) -> bool:
        return self.text == _ANY_DEPTH

    @property
    def is_literal(self) -> bool:
        return self.lead == self.text


class Glob(Generic[_Name]):
    """A pattern that is followed folder by folder.

    A state is the number of the segment that the next name has to match. ``**`` makes several possible at once, so a
    folder is entered with a set of states.

    Args:
        pattern: all files below it, if it ends with a slash or is empty.
        names: what makes a matcher of a segment, by the type that names have: :func:`of_texts` or :func:`of_bytes`.
        seen: the names that wildcards match.

    Attributes:
        root: the folders in front of the first wildcard, with a slash at the end; may be empty.
        segments: what follows it.
        last: the number of the last segment.
        start: the states with which the root is entered.
    """

    def __init__(
        self, pattern: str, names: Callable[[str, Names], Callable[[_Name], object]], seen: Names = Names.SEEN
    ) -> None:
        whole = without_dots(pattern)
        whole += _ANY_DEPTH if whole.endswith("/") or not whole else ""
        self.root = literal(whole)
        self.segments: list[GlobSegment[_Name]] = []
        for text in whole[len(self.root) :].split("/"):
            if text != _ANY_DEPTH or not self.segments or not self.segments[-1].any_depth:
                wildcard = _WILDCARD.search(text)
                lead = text if wildcard is None else text[: wildcard.start()]
                self.segments.append(GlobSegment(text, lead, names(text, seen)))
        self.last = len(self.segments) - 1
        self.start = self.at(0)

    def at(self, number: int) -> frozenset[int]:
        """The states in a folder that is entered for the segments from this one on."""
        return self._with_skipped({number})

    def enter(self, states: Collection[int], name: _Name) -> frozenset[int]:
        """The states in the folder ``name`` of a folder; none if nothing there can match."""
        reached = set()
        for state in states:
            segment = self.segments[state]
            if segment.matches(name):
                if segment.any_depth:
                    reached.add(state)
                elif state < self.last:
                    reached.add(state + 1)
        return self._with_skipped(reached)

    def _with_skipped(self, states: set[int]) -> frozenset[int]:
        """The states, and those reached when a ``**`` stands for no folder at all."""
        skipped = {state + 1 for state in states if state < self.last and self.segments[state].any_depth}
        return frozenset(states | skipped)

    def takes(self, states: Collection[int], name: _Name) -> bool:
        """Whether the file ``name`` of a folder matches. A ``**`` at the end stands for a file too."""
        return self.last in states and bool(self.segments[self.last].matches(name))


def of_texts(text: str, seen: Names) -> Callable[[str], object]:
    """Says of names whether they match a segment of a pattern."""
    return re.compile(_expression(text, seen)).match if is_glob(text) else text.__eq__


def of_bytes(text: str, seen: Names) -> Callable[[bytes], object]:
    """As :func:`of_texts`, of names as the filesystem keeps them."""
    name = os.fsencode(text)
    if not is_glob(text):
        return name.__eq__
    if "?" in text or "[" in text:  # one character may be several bytes
        characters = of_texts(text, seen)
        return lambda name: characters(os.fsdecode(name))
    # Latin-1 maps bytes to characters one to one, and back
    return re.compile(_expression(name.decode("latin-1"), seen).encode("latin-1")).match


def _expression(text: str, seen: Names) -> str:
    is_spelled_out = text.startswith(".") or (seen is Names.DATA and text.startswith("_"))
    without = "" if seen is Names.ALL or is_spelled_out else f"(?!{seen.value})"
    without += "" if text.startswith(RUN_FOLDER) else rf"(?!{RUN_FOLDER}\Z)"
    return without + fnmatch.translate(text)

"""The listing of a file dataset: from paths, folders and globs to one ordered stream of absolute paths.

Paths are bytes throughout, as the filesystem keeps them, so that a name of any encoding survives. Nothing here holds
more than the names of one folder and of the folders above it, for ten million files must fit.
"""

# pathlib has no paths of bytes:

from __future__ import annotations

import codecs
import itertools
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mpi_prs.core.errors import InputError
from mpi_prs.core.files import is_file_entry, is_folder_entry, leads_back, mode_of
from mpi_prs.core.urls import Glob, Names, is_glob, of_bytes

CHECKED_FILES = 1000
"""So many files at the head of each input are checked to be readable. Checking all would cost a round trip to the file
server for each; one that cannot be read further on is a load error of its mini-batch."""


@dataclass(frozen=True)
class FileInput:
    """One input of a file dataset. Exactly one of ``files`` and ``files_from`` is given.

    Attributes:
        files: paths, folders or globs; relative ones are relative to ``base``.
        files_from: a text file that lists one path a line.
        base: the folder that relative paths start from; itself relative to the working directory.
        names: those that count below folders and in globs.
    """

    files: tuple[str, ...] = ()
    files_from: Path | None = None
    base: Path = Path()
    names: Names = Names.SEEN


class Watch(NamedTuple):
    """What is looked for in the folders that files come from, and those above.

    Attributes:
        names: of entries, whatever they are.
        found: told of each folder that has one of them, once, before the first file comes from it or from below it;
            what it raises ends the listing.
    """

    names: Collection[bytes]
    found: Callable[[bytes], object]


_NO_WATCH = Watch((), lambda _: None)


def list_files(input: FileInput, watch: Watch = _NO_WATCH) -> Iterator[bytes]:
    """The files of one input as absolute paths.

    ``files``: pattern by pattern in the order given, and within a pattern sorted by the bytes of the path. A file that
    two patterns match is listed twice: remembering ten million paths would cost a gigabyte.

    - A path that exists is taken as it is, even if it holds ``*``, ``?`` or ``[``.
    - A folder stands for all files under it.
    - A glob matches files alone; :mod:`mpi_prs.core.urls` says what its signs mean.
    - Hidden names and run directories are skipped, in folders as in globs, unless the pattern spells them out; of
      tables names with a leading underscore, too.
    - Links to files and folders are followed; a link back to a folder that it lies in is not. Broken links, sockets,
      pipes and devices are skipped, unless they are named themselves.

    ``files_from``: in the order of the list. Each line is the path of a file, as raw bytes, with no globs; blank lines
    and lines that start with ``#`` are skipped, and Windows line ends are fine.

    Costs one scan of each folder (no ``stat`` of a file, unless it is a link), or one ``stat`` for each path named; and
    a check of the first files that they can be read (``CHECKED_FILES``).

    Raises:
        InputError: something named does not exist, a pattern matches nothing, or a file or folder cannot be read.
    """
    base = os.fsencode(os.path.abspath(input.base))
    paths = _listed_in(input.files_from, base) if input.files_from is not None else _matching(input, base, watch)
    for path in itertools.islice(paths, CHECKED_FILES):
        if not os.access(path, os.R_OK):
            raise InputError(
                f"cannot read the file {_shown(path)}: check its permissions, or leave it out of the inputs"
            )
        yield path
    yield from paths


def _matching(input: FileInput, base: bytes, watch: Watch) -> Iterator[bytes]:
    for text in input.files:
        pattern = os.fsencode(text)
        if not pattern or b"\0" in pattern:
            raise InputError(
                f"inputs: {text!r} is not a path: expected a file, a folder or a glob such as data/**/*.png"
            )
        named = _absolute(base, pattern)
        mode = _mode(named)
        if stat.S_ISREG(mode):
            yield named
            continue
        if stat.S_ISDIR(mode):
            walk = _Walk(named, Glob("", of_bytes, input.names), watch)
        elif mode or not is_glob(text):
            raise _not_a_file(named, mode)
        else:
            walk = _glob(pattern, base, input.names, watch)
        paths = iter(walk)
        first = next(paths, None)
        if first is None:
            raise _no_match(text, walk, input.names, is_folder=stat.S_ISDIR(mode))
        yield first
        yield from paths


def _listed_in(list_file: Path, base: bytes) -> Iterator[bytes]:
    shown = _shown(os.fsencode(list_file))
    try:
        with open(os.path.join(base, os.fsencode(list_file)), "rb") as lines:
            found = False
            for number, line in _content(lines):
                if b"\0" in line:
                    raise InputError(f"{shown}, line {number}: a NUL byte; expected text with one path a line")
                path = _absolute(base, line)
                mode = _mode(path)
                if stat.S_ISDIR(mode):
                    raise InputError(
                        f"{shown}, line {number}: {_shown(path)} is a folder; a list names files alone. "
                        "List its files, or name the folder in `files`"
                    )
                if not stat.S_ISREG(mode):
                    raise InputError(f"{shown}, line {number}: {_not_a_file(path, mode)}")
                found = True
                yield path
    except OSError as error:
        raise InputError(f"cannot read {shown}, the list of files: {error.strerror}") from error
    if not found:
        raise InputError(f"{shown} lists no files: expected one path a line")


def _content(lines: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines that name something, with their numbers."""
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip() and not line.startswith(b"#"):
            yield number, line.removesuffix(b"\n").removesuffix(b"\r")


# Globs

_SLASHES = re.compile(rb"/+")


def _glob(pattern: bytes, base: bytes, names: Names, watch: Watch) -> _Walk:
    """The walk below the part of a pattern that has no wildcard: only there are folders scanned."""
    found = Glob(os.fsdecode(_SLASHES.sub(b"/", pattern)), of_bytes, names)
    return _Walk(_absolute(base, os.fsencode(found.root)), found, watch)


class _Walk:
    """The files below a folder that match a glob, sorted; each once, in one scan of each folder.

    Attributes:
        root: the folder where the walk begins, absolute.
        folders_matched: so many folders match the whole pattern; known when the walk is over.
    """

    def __init__(self, root: bytes, glob: Glob[bytes], watch: Watch) -> None:
        self.root = root
        self.folders_matched = 0
        self._glob = glob
        self._watch = watch
        self._watched: set[bytes] = set()  # folders that have something watched for

    def __iter__(self) -> Iterator[bytes]:
        if not stat.S_ISDIR(_mode(self.root)):
            return
        folder = self.root.rstrip(b"/") + b"/"
        states = self._glob.start
        above = b""
        for name in folder.split(b"/")[:-2] if self._watch.names else ():
            above += name + b"/"
            self._look_up_watched(above)
        # An explicit stack: a path through nested generators would cost a step for each folder above it
        stack = [(folder, states, self._names(folder, states))]
        while stack:
            folder, states, names = stack[-1]
            if not names:
                stack.pop()
                continue
            name = names.pop()
            if name.endswith(b"/"):
                states = self._glob.enter(states, name[:-1])
                folder += name
                stack.append((folder, states, self._names(folder, states)))
            else:
                if self._watched:
                    self._tell(folder)
                yield folder + name

    def _look_up_watched(self, folder: bytes) -> None:
        if any(os.path.lexists(folder + name) for name in self._watch.names):
            self._watched.add(folder)

    def _tell(self, folder: bytes) -> None:
        for each in [each for each in self._watched if folder.startswith(each)]:
            self._watched.remove(each)
            self._watch.found(each)

    def _names(self, folder: bytes, states: frozenset[int]) -> list[bytes]:
        """The names in a folder that the walk goes on with, the first one last.

        The name of a folder ends with a slash: so sorted, names come in the order of the full paths below them.
        """
        if len(states) == 1 and (segment := self._glob.segments[min(states)]).is_literal:
            if self._watch.names:
                self._look_up_watched(folder)
            return self._literal(folder, os.fsencode(segment.text), is_last=self._glob.last in states)
        final = self._glob.segments[self._glob.last]
        matches = final.matches if self._glob.last in states else None
        descends = states != {self._glob.last} or final.any_depth
        names = []
        watched = self._watch.names
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name in watched:
                        self._watched.add(folder)
                    matched = matches is not None and matches(name)
                    if matched and is_file_entry(entry):
                        names.append(name)
                    elif (matched or descends) and is_folder_entry(entry):
                        self.folders_matched += bool(matched) and not final.any_depth
                        below = self._glob.enter(states, name)
                        if below and not (entry.is_symlink() and self._any_depth(below) and leads_back(entry.path)):
                            names.append(name + b"/")
        except OSError as error:
            raise _unreadable(error.filename or folder, error) from error
        names.sort(reverse=True)
        return names

    def _literal(self, folder: bytes, name: bytes, *, is_last: bool) -> list[bytes]:
        """Looks a name up without a scan: it may lie in a folder that can be searched and not read."""
        mode = _mode(folder + name)
        if is_last:
            self.folders_matched += stat.S_ISDIR(mode)
            return [name] if stat.S_ISREG(mode) else []
        return [name + b"/"] if stat.S_ISDIR(mode) else []

    def _any_depth(self, states: frozenset[int]) -> bool:
        """Whether ``**`` would go round in a folder that contains a link to it."""
        return any(self._glob.segments[state].any_depth for state in states)


# The filesystem


def _mode(path: bytes) -> int:
    try:
        return mode_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _absolute(base: bytes, path: bytes) -> bytes:
    """The path from the base, without ``.``, ``//`` and, where no link makes a difference, ``..``."""
    joined = os.path.join(base, path)
    tidy = os.path.normpath(joined)
    if b".." in path and os.path.realpath(tidy) != os.path.realpath(joined):
        return joined
    return tidy


# Messages


def _shown(path: bytes) -> str:
    """A path for a message: any terminal can print it, and it stays on one line."""
    return path.decode("utf-8", "backslashreplace").replace("\n", "\\n")


def _unreadable(path: bytes, error: OSError) -> InputError:
    return InputError(
        f"cannot read {_shown(path)}: {error.strerror}. Check its permissions and those of the folders above it"
        if isinstance(error, PermissionError)
        else f"cannot read {_shown(path)}: {error.strerror}"
    )


def _not_a_file(path: bytes, mode: int) -> InputError:
    if mode:
        return InputError(f"{_shown(path)} is neither a file nor a folder (a pipe, a socket or a device): name a file")
    if os.path.islink(path):
        return InputError(
            f"{_shown(path)} is a broken link: it leads to {_shown(os.readlink(path))}, which is not there"
        )
    return InputError(f"{_shown(path)} does not exist. {_surroundings(path)}")


def _no_match(pattern: str, walk: _Walk, names: Names, *, is_folder: bool) -> InputError:
    shown = _shown(os.fsencode(pattern))
    if is_folder:
        return InputError(
            f"the folder {shown} has no files under it ({_UNCOUNTED[names]} do not count). {_surroundings(walk.root)}"
        )
    hint = ""
    if walk.folders_matched:
        hint = (
            f" It matches folders ({walk.folders_matched}), and a glob takes files alone: write {shown}/** for theirs."
        )
    elif "[" in pattern:
        hint = " A [ opens a set of characters; write [[] for a literal one."
    return InputError(f"no file matches {shown}. {_surroundings(walk.root)}{hint}")


_UNCOUNTED = {
    Names.ALL: "those of a run directory",
    Names.SEEN: "hidden ones and those of a run directory",
    Names.DATA: "hidden names and those with a leading underscore",
}


def _surroundings(path: bytes) -> str:
    """The nearest folder that exists, and how full it is: most often it shows at once what is wrong."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    try:
        count = len(os.listdir(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    return f"The nearest folder that exists is {_shown(path)}, with {count} {'entry' if count == 1 else 'entries'}."

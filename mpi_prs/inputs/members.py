"""Members of tar archives as items, such as the samples of WebDataset's shards.

An archive's headers are read once, when the inputs are listed; a mini-batch has the places of its members, and a worker
copies these bytes alone. So archives must not be compressed as a whole (what is in them mostly is, by itself).

::

    0001.jpg ┐ one sample: the same name up to the first dot. With ``members: "*.jpg"`` the picture is the item,
    0001.json┘ and what belongs to it is put beside it.
    0002.jpg …
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from mpi_prs.core.errors import InputError
from mpi_prs.core.urls import Glob, of_texts
from mpi_prs.inputs.formats.format import quoted, reading
from mpi_prs.inputs.near.staging import Extract

_log = logging.getLogger("mpi_prs.inputs")

_BLOCK = 512
_PIECE = 2**20
_TOLD = 5


class Span(NamedTuple):
    """A member of an archive: its name, and its bytes in the archive."""

    name: str
    offset: int
    size: int


class Member(NamedTuple):
    """An item; ``others`` are the other members of its sample."""

    span: Span
    others: Sequence[Span]


class Archive(NamedTuple):
    """An archive that has been looked at.

    Attributes:
        path: absolute, as :func:`os.fsdecode` gives it.
        size: in bytes.
        members: the items, in its order.
        names: of some members, whether they are items or not.
    """

    path: str
    size: int
    members: Sequence[Member]
    names: Sequence[str]


def archive_at(path: str, globs: Sequence[str]) -> Archive:
    """Read the headers of a tar archive: about 20 µs each.

    Folders, hidden names, and what is not a file (links, devices, sparse files) are no members; of the latter a warning
    tells.

    Args:
        path: of the archive.
        globs: what the names of items match; one without a slash, the last part of the name. The other members of a
            sample are no items.

    Raises:
        InputError: it cannot be read, is cut, is no tar archive, or has names that lead out of a folder or come twice.
    """
    matches = [_matcher(glob) for glob in globs]
    with reading(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        spans = list(_spans(path, file))
    samples: dict[str, list[Span]] = {}
    items: set[str] = set()
    for span in spans:
        samples.setdefault(_sample_of(span.name), []).append(span)
        if any(each(span.name) for each in matches):
            items.add(span.name)
    members = [
        Member(span, [each for each in samples[_sample_of(span.name)] if each.name not in items])
        for span in spans
        if span.name in items
    ]
    return Archive(path, size, members, [span.name for span in spans[:_TOLD]])


def _sample_of(name: str) -> str:
    """WebDataset's key: the name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _matcher(pattern: str) -> Callable[[str], bool]:
    glob = Glob(pattern if "/" in pattern else f"**/{pattern}", of_texts)

    def matches(name: str) -> bool:
        if not name.startswith(glob.root):
            return False
        *folders, last = name[len(glob.root) :].split("/")
        states = glob.start
        for folder in folders:
            states = glob.enter(states, folder)
        return glob.takes(states, last)

    return matches


def _spans(path: str, file: BinaryIO) -> Iterator[Span]:
    seen: set[str] = set()
    ignored: list[str] = []
    try:
        with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as archive:
            while (found := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if found.isdir():
                    continue
                name = _checked_name(path, found.name)
                if not found.isreg() or found.issparse():
                    ignored.append(name)
                elif name in seen:
                    raise InputError(
                        f"{path} has two members of the name {name!r}: write the archive anew, with one of them"
                    )
                else:
                    seen.add(name)
                    yield Span(name, found.offset_data, found.size)
            _check_end(path, file, archive.offset)
    except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
        if not seen and not ignored:
            raise InputError(
                f"{path} is no tar archive ({error}), or one that is compressed: members of that cannot be reached one "
                "by one, so unpack it to .tar first"
            ) from None
        raise InputError(f"{path} is cut or damaged behind its member {len(seen)} ({error}): copy it anew") from None
    if ignored:
        _log.warning(
            "%s: %d members are links, devices or sparse files and no items: %s", path, len(ignored), quoted(ignored)
        )


def _checked_name(path: str, name: str) -> str:
    """The name without ``.`` and double slashes. Raises InputError: it leads out of the folder it is put into."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        raise InputError(
            f"{path} has a member of the name {name!r}, which leads out of the folder that it would be put into: write "
            "the archive anew, with relative names and without .."
        )
    return "/".join(parts)


def _check_end(path: str, file: BinaryIO, offset: int) -> None:
    """Two blocks of zeros end an archive. Where they are not, tarfile takes noise or the end of the file for them."""
    file.seek(offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise InputError(
            f"{path} is cut or damaged: from byte {offset} on it does not end as a tar archive does, with blocks of "
            "zeros. Copy it anew, or where the program that wrote it did not close it, write it anew"
        )
    while piece := file.read(_PIECE):
        if piece.strip(b"\0"):
            raise InputError(
                f"{path} goes on behind the end of its archive, as if several had been joined by cat: what follows "
                "would be lost. Split it, or join archives by tar --concatenate"
            )


def extracts(
    names: Sequence[str],
    archives: Sequence[tuple[str, int]],
    members: Sequence[tuple[int, tuple[int, int], Sequence[tuple[str, int, int]]]],
) -> tuple[list[Extract], list[Extract]]:
    """What is to be brought near of what :func:`described` gave: the items, and what belongs to them."""
    items, others = [], []
    for name, (number, place, beside) in zip(names, members, strict=True):
        archive = archives[number]
        items.append(Extract(name, *archive, *place))
        others += [Extract(f"{archive[0]}/{other}", *archive, *span) for other, *span in beside]
    return items, others


def described(members: Sequence[tuple[Archive, Member]]) -> tuple[dict[str, Any], list[bytes]]:
    """What a mini-batch of some members has in its header, and their names: ``archive/member``."""
    archives: dict[str, int] = {}
    sizes = []
    places = []
    for archive, member in members:
        if archive.path not in archives:
            archives[archive.path] = len(archives)
            sizes.append([archive.path, archive.size])
        span = [member.span.offset, member.span.size]
        places.append([archives[archive.path], span, [list(each) for each in member.others]])
    names = [os.fsencode(f"{archive.path}/{member.span.name}") for archive, member in members]
    return {"archives": sizes, "members": places}, names

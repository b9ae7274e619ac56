"""What has become of the inputs since they were listed: new files, changed ones, and those that are gone."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from mpi_prs.core.units import count
from mpi_prs.inputs.datasets import InputDataset
from mpi_prs.inputs.manifest import PLAIN, Manifest
from mpi_prs.inputs.payload import parts_of, unpack

SECONDS = 60.0
"""So long the inputs are looked at: who asks wants to know that the run is complete."""
_PIECE = 10_000


@dataclass
class Since:
    """What a listing finds that a manifest does not know, and the other way round.

    Attributes:
        new, changed, gone: numbers of files.
        example: one that is new, else one that has changed; empty: there is none.
        seen: so many files were looked at.
        whole: whether there was time for all of them.
    """

    new: int = 0
    changed: int = 0
    gone: int = 0
    example: str = ""
    seen: int = 0
    whole: bool = True

    def __str__(self) -> str:
        """Such as ``1 000 new, 10 changed, 2 gone``; empty: nothing is known to have changed."""
        counts = {"new": self.new, "changed": self.changed, "gone": self.gone}
        parts = [f"{count(number)} {what}" for what, number in counts.items() if number]
        return ", ".join(parts) + (f" (such as {self.example})" if self.example else "")


def look_again(
    datasets: Sequence[InputDataset], manifest: Manifest, clock: Callable[[], float] = time.monotonic
) -> Since:
    """List the inputs again, and compare with what a run knows of them, within :data:`SECONDS`.

    A file of this machine has changed if its time is later than the manifest's. 16 bytes of memory for each file.

    Raises:
        InputError: they cannot be listed any more.
    """
    deadline = clock() + SECONDS
    known: Any = np.unique(np.frombuffer(array("q", map(hash, _known(manifest))), np.int64))
    listed_at = manifest.path.stat().st_mtime_ns
    found: Any = np.zeros(len(known), bool)
    items_within = any("survey" in described or described.get("members") for described in manifest.inputs)
    since = Since()
    example = ""
    paths = (path for dataset in datasets for path in dataset.paths())
    while piece := list(islice(paths, _PIECE)):
        hashes: Any = np.fromiter(map(hash, piece), np.int64, len(piece))
        places: Any = np.searchsorted(known, hashes)
        is_known = known[np.minimum(places, len(known) - 1)] == hashes
        found[places[is_known]] = True
        for index in np.flatnonzero(~is_known):
            path = piece[index]
            if not items_within or _arrived(path, listed_at):  # one without rows or members is in no mini-batch
                since.new += 1
                since.example = since.example or os.fsdecode(path)
        for index in np.flatnonzero(is_known):
            if _changed(piece[index], listed_at):
                since.changed += 1
                example = example or os.fsdecode(piece[index])
        since.seen += len(piece)
        if clock() > deadline:
            since.whole = False
            break
    since.gone = int(np.count_nonzero(~found)) if since.whole else 0
    since.example = since.example or example
    return since


def _known(manifest: Manifest) -> Iterator[bytes]:
    """The paths of all files in a manifest; one that several mini-batches share may come again."""
    for number in range(manifest.mini_batches):
        payload = manifest.payload(number)
        if manifest.kind == PLAIN:
            yield from payload.split(b"\0")
        else:
            header, rest = unpack(payload)
            if "parts" in header:
                yield from (os.fsencode(part.file) for part in parts_of(header))
            elif "archives" in header:
                yield from (os.fsencode(path) for path, _ in header["archives"])
            else:
                yield from rest.split(b"\0")


def _arrived(path: bytes, listed_at: int) -> bool:
    """Whether a file came after the listing. That of a store: as far as anybody knows."""
    found = _status(path)
    return found is None or max(found.st_ctime_ns, found.st_mtime_ns) > listed_at


def _changed(path: bytes, listed_at: int) -> bool:
    found = _status(path)
    return found is not None and found.st_mtime_ns > listed_at


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path) if path.startswith(b"/") else None  # else it is a URL
    except OSError:
        return None

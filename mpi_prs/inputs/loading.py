"""Loading a mini-batch at a worker: its files are brought here, or its rows are read by a reader process.

It happens ahead of ``run()``, in threads of the worker. What comes out is a payload for the user process (see
:mod:`mpi_prs.child.mini_batch`) and whatever has to live until the mini-batch is answered: files in the scratch folder,
or a segment of shared memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.members import extracts
from mpi_prs.inputs.near.staging import Extract, Staging
from mpi_prs.inputs.payload import pack, paths_of, unpack
from mpi_prs.storage.credentials import Storage
from mpi_prs.wire.parts import bounds, is_part, mini_batch_of


@dataclass
class LoadedMiniBatch:
    """A mini-batch, ready for a user process.

    Attributes:
        items: how many it has, those that were skipped as bad included, but not those in ``failed``.
        payload: what the user process makes the mini-batch from.
        bytes: of memory or scratch space that it holds.
        release: gives them back; call it once, when the mini-batch is answered.
        failed: of records that are bad, where and why; they count behind the items, and each fails for itself.
    """

    items: int
    payload: bytes
    bytes: int
    release: Callable[[], None]
    failed: Sequence[tuple[str, str]] = ()


class FileLoader:
    """Loads mini-batches of one manifest of files; for any number of threads.

    Args:
        manifest: with described payloads.
        scratch: a folder of this worker's own, on this node.
        limit: bytes of scratch space that may be used.
        storages: how to get at the store of each input, with its secrets.
    """

    def __init__(self, manifest: Manifest, scratch: Path, limit: int, storages: Sequence[Storage]) -> None:
        self._manifest = manifest
        self._staging = [
            Staging(scratch / f"input{number}", storage, limit) if described.get("staged") else None
            for number, (described, storage) in enumerate(zip(manifest.inputs, storages, strict=True))
        ]

    def affinity(self, number: int) -> int | None:  # noqa: ARG002 (files share nothing)
        """Mini-batches with the same number share what is decoded for them; ``None``: with nobody."""
        return None

    def load(self, number: int) -> LoadedMiniBatch:
        """Load one mini-batch, or a part of one; blocks.

        Raises:
            InputError: it cannot be read.
            OSError: there is no space left.
        """
        mini_batch = mini_batch_of(number)
        header, rest = unpack(self._manifest.payload(mini_batch))
        input = self._manifest.input_of(mini_batch)
        told = {"input": input, "partition": header.get("partition")}
        if is_part(number):
            each = rest.split(b"\0")
            some = slice(*bounds(number, len(each)))
            rest = b"\0".join(each[some])
            if "members" in header:
                header["members"] = header["members"][some]
        paths = paths_of(rest)
        staging = self._staging[input]
        if staging is None:  # another input of the job is staged
            return LoadedMiniBatch(len(paths), pack(told, rest), 0, _nothing)
        if "problem" in header:
            raise InputError(f"{header['problem']}; then start the run anew with --overwrite")
        sources: Sequence[str | Extract] = paths
        others: list[Extract] = []
        if "members" in header:
            sources, others = extracts(paths, header["archives"], header["members"])
        staged = staging.stage(number, sources, others)
        local = "\0".join(staged.paths).encode("utf-8", "surrogateescape")
        return LoadedMiniBatch(len(paths), pack(told, local), staged.bytes, staged.release)

    def leave(self) -> None:
        """A thread has loaded its last."""

    def close(self) -> None:
        """End what is under way, as far as it can be ended."""
        for staging in self._staging:
            if staging is not None:
                staging.close()


def _nothing() -> None:
    pass

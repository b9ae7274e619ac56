"""Loading files that are values of tables: a reader process decodes the rows, the worker puts them into scratch."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpi_prs.core.errors import InputError
from mpi_prs.inputs.loading import LoadedMiniBatch
from mpi_prs.inputs.manifest import Manifest
from mpi_prs.inputs.near.staging import FileContent, Staging
from mpi_prs.inputs.payload import names, pack, unpack
from mpi_prs.inputs.reader.tables import TableLoader
from mpi_prs.inputs.row_files import files_in
from mpi_prs.storage.credentials import Storage
from mpi_prs.wire.parts import mini_batch_of


class RowFileLoader:
    """Loads mini-batches of one manifest of such files; for any number of threads.

    Args:
        tables: decodes the rows.
        manifest: of these files.
        scratch: a folder of this worker's own, on this node.
        limit: bytes of scratch space that may be used.
    """

    def __init__(self, tables: TableLoader, manifest: Manifest, scratch: Path, limit: int) -> None:
        self._tables = tables
        self._manifest = manifest
        self._staging = Staging(scratch, Storage(), limit)

    def affinity(self, number: int) -> int | None:
        """As of :class:`~mpi_prs.inputs.reader.tables.TableLoader`."""
        return self._tables.affinity(number)

    def load(self, number: int) -> LoadedMiniBatch:
        """Load one mini-batch, or a part of one; blocks.

        Raises:
            InputError: it cannot be read.
            OSError: there is no space left.
        """
        loaded = self._tables.load(number)
        try:
            header, _ = unpack(loaded.payload)
            with open(header["segment"], "r+b", buffering=0) as segment:
                # Never closed here: an error on the way refers to views of it
                view = memoryview(mmap.mmap(segment.fileno(), 0, prot=mmap.PROT_READ))
                staged = self._staging.stage(number, _contents(header, view) if loaded.items else [])
                segment.write(b"\1")  # as a user process lets go of it
        except (ValueError, LookupError, TypeError) as error:
            what = ", ".join(names(self._manifest, mini_batch_of(number)))
            raise InputError(f"{what}: the process that read it said what nobody understands ({error})") from None
        finally:
            loaded.release()
        paths = "\0".join(staged.paths).encode("utf-8", "surrogateescape")
        told = {"input": header["input"], "partition": header["partition"]}
        return LoadedMiniBatch(loaded.items, pack(told, paths), staged.bytes, staged.release, loaded.failed)

    def leave(self) -> None:
        """A thread has loaded its last."""
        self._tables.leave()

    def close(self) -> None:
        """End what is under way."""
        with contextlib.closing(self._tables):
            self._staging.close()


def _contents(header: dict[str, Any], view: memoryview) -> Sequence[FileContent]:
    places = {name: (offset, size) for name, _, _, offset, size in header["arrays"]}
    ends = np.frombuffer(bytes(_part(view, *places["ends"])), np.int64).tolist()
    return [FileContent(*each) for each in files_in(header["names"], ends, _part(view, *places["content"]))]


def _part(view: memoryview, offset: int, size: int) -> memoryview:
    if not 0 <= offset <= offset + size <= len(view):
        raise ValueError("what is beyond its memory")
    return view[offset : offset + size]

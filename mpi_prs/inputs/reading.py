"""Reading a whole tabular dataset in this process, mini-batch by mini-batch, as a job would."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpi_prs.inputs.datasets import TabularDataset
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.loading import MiniBatchLoader
from mpi_prs.inputs.manifest import Manifest, write_manifest
from mpi_prs.inputs.planning import plan

_PIECE = BatchSize(bytes=32 << 20)


def read_tables(dataset: TabularDataset) -> Iterator[Any]:
    """The rows as pieces of about 32 MiB of the files, each a ``pyarrow.Table``. Memory: one piece.

    Raises:
        InputError: the files cannot be read, or are arrays and no tables.
    """
    with tempfile.TemporaryDirectory(prefix="mpi_prs-") as folder:
        path = Path(folder, "manifest.arrow")
        write_manifest(path, plan([dataset], _PIECE))
        manifest = Manifest.open(path)
        loader = MiniBatchLoader(manifest, Path(folder, "staged"), 0, [dataset.storage])
        try:
            for number in range(manifest.mini_batches):
                yield loader.read_table(number)
        finally:
            loader.close()

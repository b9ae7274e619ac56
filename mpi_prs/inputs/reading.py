"""Reading or copying a whole tabular dataset in this process, mini-batch by mini-batch, as a job would."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mpi_prs.inputs.datasets import HIVE, InputTable
from mpi_prs.inputs.decoding import Decoder
from mpi_prs.inputs.formats.format import BatchSize
from mpi_prs.inputs.manifest import Manifest, write_manifest
from mpi_prs.inputs.partition_by import partition_by
from mpi_prs.inputs.planning import plan

_PIECE = BatchSize(bytes=32 << 20)


def read_tables(dataset: InputTable) -> Iterator[Any]:
    """The rows as pieces of about 32 MiB of the files, each a ``pyarrow.Table``. Memory: one piece.

    Raises:
        InputError: the files cannot be read, or are arrays and no tables.
    """
    with tempfile.TemporaryDirectory(prefix="mpi_prs-") as folder:
        path = Path(folder, "manifest.arrow")
        write_manifest(path, plan([dataset], _PIECE))
        manifest = Manifest.open(path)
        decoder = Decoder(manifest, [dataset.storage])
        try:
            for number in range(manifest.mini_batches):
                yield decoder.table(number)
        finally:
            decoder.leave()


def write_partitioned(dataset: InputTable, columns: Sequence[str], target: Path | str) -> InputTable:
    """Write a copy of the rows to a new folder, as Parquet in folders ``column=value``, and return it as a dataset.

    Reads the whole dataset once, in this process. Its ``partition_keys`` in a job are some or all of ``columns``.

    Raises:
        InputError: the files cannot be read, or a column does not exist or cannot name folders.
        OutputError: the target is not empty, or cannot be written.
    """
    partition_by(read_tables(dataset), columns, Path(target))
    return InputTable.from_parquet_files(str(Path(target).absolute()), partition_format=HIVE)

"""How fast tables go through the engine with two workers, how soon the first rows come, and how memory grows.

Run it on an otherwise idle machine with two cores or more, with an MPI beside this Python::

    python benchmarks/tabular.py [--gigabytes 1] [--memory 10] [--folder /tmp]

Every rate is measured in this one run against single processes over the same file: one with the same reader (parts
read one after the other, each made a DataFrame), pandas, and pyarrow on one thread; and against two processes with the
same reader at once, which is what the machine has to give. ``run()`` only counts its rows.
Memory is that of two jobs whose CSV differs in size by ``--memory``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import yaml

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.inputs.datasets import InputTable
from mpi_prs.inputs.reading import read_tables
from mpi_prs.output.journal import read_journal
from mpi_prs.wire.record import unpack_records

REPOSITORY = Path(__file__).resolve().parent.parent
MPIRUN = Path(sys.executable).parent / "mpirun"
SCRIPT = "def run(mini_batch):\n    return [len(mini_batch)] * len(mini_batch)\n"
GIGABYTE = 2**30
ROWS_A_BLOCK = 200_000
SIZE = "4MB"


# The tables


def block(number: int) -> Any:
    """Some rows: two numbers of each kind, two words, and some missing values."""
    rng = np.random.default_rng(number)
    first = number * ROWS_A_BLOCK
    amount = rng.normal(100, 30, ROWS_A_BLOCK).round(4)
    amount[rng.random(ROWS_A_BLOCK) < 0.01] = np.nan
    return pa.table(
        {
            "id": pa.array(np.arange(first, first + ROWS_A_BLOCK)),
            "customer": pa.array(rng.integers(0, 10**7, ROWS_A_BLOCK)),
            "amount": pa.array(amount, from_pandas=True),
            "score": pa.array(rng.random(ROWS_A_BLOCK)),
            "city": pa.array(rng.choice(["Berlin", "Lyon", "Porto", "Turku"], ROWS_A_BLOCK)),
            "note": pa.array([f"order {n}" for n in rng.integers(0, 10**6, ROWS_A_BLOCK)]),
        }
    )


def write_csv(path: Path, size: int) -> int:
    """At least so many bytes; returns the number of rows."""
    rows = 0
    with open(path, "wb") as file:
        while file.tell() < size:
            table = block(rows // ROWS_A_BLOCK)
            pc.write_csv(table, file, pc.WriteOptions(include_header=not rows, quoting_style="needed"))
            rows += table.num_rows
    return rows


def write_parquet(path: Path, size: int) -> int:
    """At least so many bytes, in row groups of a million rows; returns the number of rows."""
    rows = 0
    with pq.ParquetWriter(path, block(0).schema) as writer:
        while not rows or path.stat().st_size < size:
            blocks = [block(rows // ROWS_A_BLOCK + number) for number in range(5)]
            writer.write_table(pa.concat_tables(blocks), row_group_size=5 * ROWS_A_BLOCK)
            rows += 5 * ROWS_A_BLOCK
    return rows


# One process


def same_reader(dataset: InputTable) -> Iterator[int]:
    return (len(table.to_pandas()) for table in read_tables(dataset))


def pandas_csv(path: Path) -> Iterator[int]:
    with pd.read_csv(path, chunksize=50_000) as chunks:
        yield from map(len, chunks)


def pyarrow_csv(path: Path) -> Iterator[int]:
    options = pc.ReadOptions(use_threads=False, block_size=4 << 20)
    with pc.open_csv(path, options) as reader:
        yield from (len(batch.to_pandas()) for batch in reader)


def parquet_batches(path: Path) -> Iterator[int]:
    with pq.ParquetFile(path) as file:
        yield from (len(batch.to_pandas()) for batch in file.iter_batches(50_000, use_threads=False))


def pandas_parquet(path: Path) -> Iterator[int]:
    """pandas reads the whole file: row group by row group, so that it need not all fit."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield len(file.read_row_group(number, use_threads=False).to_pandas())


def rate(read: Callable[[], Iterator[int]], rows: int) -> float:
    """Rows a second."""
    began = time.perf_counter()
    assert sum(read()) == rows
    return rows / (time.perf_counter() - began)


def read_at(begin: float, format: str, path: str) -> tuple[int, float]:
    """Read a table from a moment on; the number of rows, and when it was done."""
    make = {"csv": InputTable.from_delimited_files, "parquet": InputTable.from_parquet_files}[format]
    time.sleep(max(0.0, begin - time.time()))
    return sum(same_reader(make(path))), time.time()


def two_at_once(format: str, path: Path, rows: int) -> float:
    """Rows a second of two such processes that share nothing but the machine: what two workers could reach at best."""
    begin = time.time() + 5  # they start, and import what they need
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        read = list(pool.map(read_at, [begin] * 2, [format] * 2, [str(path)] * 2))
    assert [count for count, _ in read] == [rows, rows]
    return 2 * rows / (max(done for _, done in read) - begin)


# The engine


def start(folder: Path, table: Path, ranks: int = 3) -> subprocess.Popen[bytes]:
    """A job over one file under a real mpirun."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    config = {
        "name": "benchmark",
        "entry_script": "script.py",
        "inputs": [{"table": str(table)}],
        "output": "out",
        "output_action": "summary_only",
        "mini_batch_size": SIZE,
        "error_threshold": 0,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    command = [str(MPIRUN), "-n", str(ranks), sys.executable, "-m", "mpi_prs", "run", str(folder / "job.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def engine(folder: Path, table: Path, rows: int) -> tuple[float, float]:
    """Rows a second from the first ``run()`` to the end of the last; and seconds from the launch to the first one."""
    launched = time.time()
    if start(folder, table).wait():
        raise SystemExit(f"the job in {folder} has failed")
    first, last, items = float("inf"), 0.0, 0
    for entry in read_journal(RunDirectory(folder / "out").journal):
        if entry.results is not None:
            for record in unpack_records(entry.results.records):
                first, last = min(first, record.started), max(last, record.started + record.run)
                items += record.items
    assert items == rows, (items, rows)
    return rows / (last - first), first - launched


def peaks(folder: Path, table: Path) -> dict[str, float]:
    """The highest resident memory of each kind of process during a job, in MiB."""
    process = start(folder, table, ranks=2)
    found: dict[str, float] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    note(entry, found, str(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    over.set()
    watcher.join()
    if code:
        raise SystemExit(f"the job in {folder} has failed")
    return found


def note(entry: Path, found: dict[str, float], text: str) -> None:
    """Take down the peak of one process of the job."""
    try:
        words = (entry / "cmdline").read_bytes()
        status = (entry / "status").read_text()
        environment = (entry / "environ").read_bytes()
    except OSError:
        return
    if not words.startswith(sys.executable.encode()) or "VmHWM" not in status:
        return
    if b"child/host.py" in words:
        role = "user process"
    elif b"reader/serving.py" in words:  # of a survey, too
        role = "reader process"
    elif b"mpi_prs" in words and text.encode() in words:
        role = "master" if b"PMI_RANK=0" in environment.split(b"\0") else "worker"
    else:
        return
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    found[role] = max(found.get(role, 0.0), peak)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the CSV and of the Parquet file")
    parser.add_argument("--memory", type=float, default=10.0, help="how many times as large the second CSV is; 0: none")
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made; default: TMPDIR")
    arguments = parser.parse_args()
    size = int(arguments.gigabytes * GIGABYTE)
    with tempfile.TemporaryDirectory(prefix="mpi_prs-benchmark-", dir=arguments.folder) as name:
        folder = Path(name)
        csv, parquet = folder / "table.csv", folder / "table.parquet"
        rows = write_csv(csv, size)
        compare(
            f"CSV of {arguments.gigabytes:g} GB, {rows:,} rows",
            engine(folder / "csv", csv, rows),
            rate(lambda: same_reader(InputTable.from_delimited_files(str(csv))), rows),
            two_at_once("csv", csv, rows),
            rate(lambda: pandas_csv(csv), rows),
            rate(lambda: pyarrow_csv(csv), rows),
        )
        rows = write_parquet(parquet, size)
        compare(
            f"Parquet of {arguments.gigabytes:g} GB, {rows:,} rows",
            engine(folder / "parquet", parquet, rows),
            rate(lambda: same_reader(InputTable.from_parquet_files(str(parquet))), rows),
            two_at_once("parquet", parquet, rows),
            rate(lambda: pandas_parquet(parquet), rows),
            rate(lambda: parquet_batches(parquet), rows),
        )
        parquet.unlink()
        if arguments.memory:
            memory(folder, csv, arguments.memory)


def compare(what: str, ours: tuple[float, float], same: float, two: float, pandas: float, pyarrow: float) -> None:
    """Print the rates of one file."""
    print(f"{what}: rows a second, 1 master + 2 workers against one process")
    row("mpi_prs", f"{ours[0]:,.0f}")
    row("one process, the same reader", f"{same:,.0f}", f"{ours[0] / same:.2f} × (goal ≥ 1.8)")
    row("two such processes at once", f"{two:,.0f}", f"{ours[0] / two:.2f} ×, they are {two / same:.2f} × one")
    row("one process, pandas", f"{pandas:,.0f}", f"{ours[0] / pandas:.2f} ×")
    row("one process, pyarrow on one thread", f"{pyarrow:,.0f}", f"{ours[0] / pyarrow:.2f} ×")
    row("first run() after mpirun was started", f"{ours[1]:.2f} s")


def memory(folder: Path, csv: Path, times: float) -> None:
    """Print the peaks of a job and of one over a larger file."""
    small = peaks(folder / "small", csv)
    with open(csv, "rb") as source, open(folder / "large.csv", "wb") as target:
        header = source.readline()
        start_of_rows = len(header)
        target.write(header)
        for _ in range(int(times)):
            source.seek(start_of_rows)
            shutil.copyfileobj(source, target, 16 << 20)
    large = peaks(folder / "large", folder / "large.csv")
    print(f"Peak of resident memory over that CSV, and over one {times:g} times as large")
    for role in ("master", "worker", "reader process", "user process"):
        row(role, f"{small[role]:.0f} MiB", f"{large[role]:.0f} MiB, {large[role] / small[role]:.2f} ×")


def row(what: str, figure: str, note: str = "") -> None:
    """One line of the table."""
    print(f"  {what:<52}{figure:>12}   {note}".rstrip())


if __name__ == "__main__":
    main()

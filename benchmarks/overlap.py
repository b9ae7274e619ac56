"""Whether an expensive device waits: for decoding (``load``), and for answers (``async def run``).

Run it on an otherwise idle machine, with an MPI beside this Python::

    python benchmarks/overlap.py [--items 400]

All of it sleeps, so that the figures do not depend on the machine's cores: 20 ms to load an item, and a device that is
busy for 20 ms an item; an engine that answers each mini-batch after 50 ms, 64 in flight. Each figure is compared
with the same work done without us, or without the feature, in this one run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.output.journal import read_journal
from mpi_prs.wire.record import Record, unpack_records

REPOSITORY = Path(__file__).resolve().parent.parent
MPIRUN = Path(sys.executable).parent / "mpirun"

SCRIPT = """
import time

def load(path):
    time.sleep(0.02)
    return path

def device(items):
    began = time.monotonic()
    time.sleep(0.02 * len(items))
    return [f"{began} {time.monotonic()}"] * len(items)
"""
WITHOUT = SCRIPT + "\ndef run(mini_batch):\n    return device([load(path) for path in mini_batch])\n"
WITH = SCRIPT + "\ndef run(mini_batch):\n    return device(mini_batch)\n"

IN_FLIGHT = 64
ENGINE = """
import asyncio

async def run(mini_batch):
    await asyncio.sleep(0.05)
    return mini_batch
"""


def records(folder: Path, script: str, items: int, **settings: Any) -> list[Record]:
    """What the mini-batches of a job under a real mpirun, one worker with one user process, took."""
    folder.mkdir()
    (folder / "item").touch()
    (folder / "files.txt").write_text("item\n" * items)
    (folder / "script.py").write_text(script)
    config = {
        "name": "overlap",
        "entry_script": "script.py",
        "inputs": [{"files_from": "files.txt"}],
        "output": "out",
        "error_threshold": 0,
        **settings,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    command = [str(MPIRUN), "-n", "2", sys.executable, "-m", "mpi_prs", "run", str(folder / "job.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    if subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False).returncode:
        raise SystemExit("the job has failed")
    return list(_records(folder / "out"))


def _records(output: Path) -> Iterator[Record]:
    for entry in read_journal(RunDirectory(output).journal):
        if entry.results is not None:
            yield from unpack_records(entry.results.records)


def device_times(output: Path) -> list[tuple[float, float]]:
    """From when to when the device was busy, a row for each item."""
    rows = RunDirectory(output).output_file("parallel_run_step.txt").read_text().splitlines()
    return sorted({(float(began), float(ended)) for began, ended in (row.split() for row in rows)})


def busy(times: list[tuple[float, float]]) -> tuple[float, float]:
    """The seconds from the first use of the device to the last, and the part of these in which it was busy."""
    span = times[-1][1] - times[0][0]
    return span, sum(ended - began for began, ended in times) / span


async def bare_client(count: int) -> float:
    """Answers a second of the same engine, asked by a client that does nothing else."""
    waiting = iter(range(count))

    async def ask() -> None:
        for _ in waiting:
            await asyncio.sleep(0.05)

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


def row(what: str, figure: str, goal: str = "") -> None:
    """One line of the table."""
    print(f"  {what:<58}{figure:>12}   {goal}".rstrip())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--items", type=int, default=400)
    items = parser.parse_args().items
    with tempfile.TemporaryDirectory(prefix="mpi_prs-benchmark-") as name:
        folder = Path(name)
        records(folder / "without", WITHOUT, items, mini_batch_size=10)
        records(folder / "with", WITH, items, mini_batch_size=10, loaders=2)
        (slow, idle), (fast, full) = (busy(device_times(folder / each / "out")) for each in ("without", "with"))
        print("20 ms of load and 20 ms of a device an item, 10 items a mini-batch, one user process")
        row("without load: the device is busy", f"{100 * idle:.1f} %")
        row("loaders: 2: the device is busy", f"{100 * full:.1f} %", "goal ≥ 95 %")
        row("items a second, with load against without", f"{slow / fast:.2f} ×", "goal ≥ 1.9 ×")
        count = 80 * IN_FLIGHT
        found = records(folder / "engine", ENGINE, count, mini_batch_size=1, mini_batches_in_flight=IN_FLIGHT)
        ours = count / (max(each.started + each.run for each in found) - min(each.started for each in found))
        bare = asyncio.run(bare_client(count))
        print(f"An engine that answers after 50 ms, {IN_FLIGHT} in flight")
        row(
            "async def run: answers a second",
            f"{ours:,.0f}",
            f"{100 * ours / bare:.1f} % of a bare client, goal ≥ 98 %",
        )
        row("a bare asyncio client", f"{bare:,.0f}")


if __name__ == "__main__":
    main()

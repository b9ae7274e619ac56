"""Whether user processes wait for remote files: how idle they are while a slow store is read ahead.

Needs Azurite (``make test`` installs it) and an MPI beside this Python::

    python benchmarks/files.py [--files 1000] [--delay 0.05] [--run 0.02]

A proxy holds back every answer of the store. ``run()`` sleeps; what is compared is the time that a user process spends
in ``run()`` with the time from its first mini-batch to its last, beside a plain loop that fetches each file and then
works on it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # for the tests' blob store and proxy

from mpi_prs.core.run_directory import RunDirectory  # noqa: E402
from mpi_prs.output.journal import read_journal  # noqa: E402
from mpi_prs.storage.remote import RemoteFiles  # noqa: E402
from mpi_prs.wire.record import unpack_records  # noqa: E402
from tests.support.azurite import Azurite, running_azurite  # noqa: E402
from tests.support.fault_proxy import FaultProxy  # noqa: E402

MPIRUN = Path(sys.executable).parent / "mpirun"
SCRIPT = """
import time

def run(mini_batch):
    for path in mini_batch:
        open(path, "rb").read()
    time.sleep({seconds})
    return mini_batch
"""


@contextmanager
def slow_store(files: int, delay: float) -> Iterator[tuple[Azurite, FaultProxy]]:
    """Azurite with a container of small blobs, behind a proxy that holds back every answer."""
    server = running_azurite()
    azurite = next(server)
    azurite.container("benchmark", {f"in/{number:05d}.bin": b"x" * 10_000 for number in range(files)})
    proxy = FaultProxy(azurite.port)
    proxy.delay = delay
    try:
        yield azurite, proxy
    finally:
        proxy.close()
        server.close()


def job(folder: Path, connection: str, run_seconds: float, mini_batch_size: int) -> dict[tuple[int, int], float]:
    """Run the job on two workers; the share of time in which each user process was idle."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT.format(seconds=run_seconds))
    config = {
        "name": "benchmark",
        "entry_script": "script.py",
        "inputs": ["abfs://benchmark/in"],
        "output": "out",
        "output_action": "summary_only",
        "mini_batch_size": mini_batch_size,
        "error_threshold": 0,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    command = [str(MPIRUN), "-n", "3", sys.executable, "-m", "mpi_prs", "run", str(folder / "job.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "AZURE_STORAGE_CONNECTION_STRING": connection}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    spans: dict[tuple[int, int], list[float]] = {}
    for entry in read_journal(RunDirectory(folder / "out").journal):
        if entry.results is not None:
            for record in unpack_records(entry.results.records):
                span = spans.setdefault((entry.results.worker, record.process), [float("inf"), 0.0, 0.0])
                span[0] = min(span[0], record.started)
                span[1] = max(span[1], record.started + record.run)
                span[2] += record.run
    return {key: 1 - busy / (last - first) for key, (first, last, busy) in spans.items()}


def plain_loop(azurite: Azurite, port: int, run_seconds: float, files: int, mini_batch_size: int) -> float:
    """The idle share of a loop that fetches the files of a mini-batch one by one, and then works on them."""
    store = RemoteFiles(azurite.storage(port))
    began, busy = time.monotonic(), 0.0
    for start in range(0, files, mini_batch_size):
        for number in range(start, start + mini_batch_size):
            with store.open(f"abfs://benchmark/in/{number:05d}.bin") as file:
                file.read()
        time.sleep(run_seconds)
        busy += run_seconds
    return 1 - busy / (time.monotonic() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds that the store takes to answer")
    parser.add_argument("--run", type=float, default=0.02, help="seconds that run() takes")
    parser.add_argument("--mini-batch-size", type=int, default=2)
    arguments = parser.parse_args()
    size = arguments.mini_batch_size
    with (
        tempfile.TemporaryDirectory(prefix="mpi_prs-benchmark-") as name,
        slow_store(arguments.files, arguments.delay) as (azurite, proxy),
    ):
        idle = job(Path(name, "job"), azurite.connection_string(proxy.port), arguments.run, size)
        loop = plain_loop(azurite, proxy.port, arguments.run, 20 * size, size)
    print(
        f"run() of {1000 * arguments.run:g} ms on {size} files each, a store that answers after "
        f"{1000 * arguments.delay:g} ms: idle time of a user process"
    )
    for (worker, process), share in sorted(idle.items()):
        print(f"  mpi_prs, worker {worker}, process {process:<20}{100 * share:>10.1f} %   (goal < 5 %)")
    print(f"  a loop that fetches, then works{100 * loop:>19.1f} %")


if __name__ == "__main__":
    main()

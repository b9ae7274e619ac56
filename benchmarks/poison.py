"""What bad items cost with bisect_on_failure: the same items, none of them bad and one of a thousand.

::

    python benchmarks/poison.py [--items 100000] [--processes 2] [--rounds 3]

Each item takes 0.4 ms, in order, and a bad one raises. Everything else is left at its default: ten items a mini-batch,
three tries. The best of some rounds counts, taken in turns.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.output.journal import read_journal
from mpi_prs.wire.record import unpack_records

MOST = 3.0  # percent of the throughput

SCRIPT = """
import os, time

EVERY = {every}

def run(mini_batch):
    names = []
    for path in mini_batch:
        name = os.path.basename(path)
        if EVERY and int(name) * 7919 % EVERY == 0:
            raise ValueError(name)
        time.sleep(0.0004)
        names.append(name)
    return names
"""


def rate(folder: Path, processes: int, every: int) -> float:
    """Items a second, from the first ``run()`` to the last answer; one item of so many is bad (0: none)."""
    (folder / "script.py").write_text(SCRIPT.format(every=every))
    config = {
        **{
            "name": "benchmark",
            "entry_script": "script.py",
            "inputs": [{"files": "in"}],
            "output": "out",
            "error_threshold": -1,
        },
        "bisect_on_failure": True,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "mpi_prs", "run", str(folder / "job.yaml"), "--overwrite"]
    command += ["--local", str(processes)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    directory = RunDirectory(folder / "out")
    records = [
        record
        for entry in read_journal(directory.journal)
        if entry.results is not None
        for record in unpack_records(entry.results.records)
    ]
    took = max(each.started + each.run for each in records) - min(each.started for each in records)
    failed = len(directory.failed_items.read_text().splitlines())
    items = len(list((folder / "in").iterdir()))
    assert failed == (-(-items // every) if every else 0), failed
    return items / took


def main() -> int:
    """Print the figures beside their goal; 1 where it is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rates: dict[int, list[float]] = {0: [], 1000: []}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "in"
        inputs.mkdir()
        for number in range(given.items):
            (inputs / f"{number:07d}").touch()
        for _ in range(given.rounds):
            for every, found in rates.items():
                found.append(rate(Path(folder), given.processes, every))
    clean, poisoned = max(rates[0]), max(rates[1000])
    cost = 100 * (1 - poisoned / clean)
    print(f"no bad item            {clean:9.0f} items/s")
    print(f"one of 1,000 is bad    {poisoned:9.0f} items/s   costs {cost:.2f} % (goal: at most {MOST:g} %)")
    return int(cost > MOST)


if __name__ == "__main__":
    sys.exit(main())

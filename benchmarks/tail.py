"""How long the end of a job takes when one of four workers is ten times slower, with speculative_copies and without.

It needs an MPI beside this Python::

    python benchmarks/tail.py [--mini-batches 260] [--seconds 0.2]

Nothing is computed: ``run()`` sleeps, so four workers need no four cores. The ideal is what they take when none of them
ever waits. The output of both runs is compared byte by byte.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.monitor.statistics import read_statistics
from mpi_prs.output.journal import read_journal
from mpi_prs.wire.record import unpack_records

PROCESSES = 4
SLOWER = 10
MOST = 1.15  # times the ideal
MOST_WASTED = 3.0  # percent of the work

SCRIPT = f"""
import os, time

SECONDS = {{seconds}} * ({SLOWER} if os.getcwd().endswith("process000") else 1)

def run(mini_batch):
    time.sleep(SECONDS)
    return [os.path.basename(path) for path in mini_batch]
"""


def measure(folder: Path, mini_batches: int, seconds: float, *, copies: bool) -> tuple[float, float, bytes]:
    """Seconds from the first ``run()`` to the last answer, seconds wasted, and the output."""
    inputs = folder / "in"
    inputs.mkdir(exist_ok=True)
    for number in range(mini_batches):
        (inputs / f"item-{number:05d}").touch()
    (folder / "script.py").write_text(SCRIPT.format(seconds=seconds))
    output = folder / f"out-{copies}"
    config = {
        **{
            "name": "benchmark",
            "entry_script": "script.py",
            "inputs": [{"files": "in"}],
            "output": str(output),
            "mini_batch_size": 1,
        },
        **{"output_order": "input", "speculative_copies": copies, "error_threshold": 0},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    mpirun = [str(Path(sys.executable).parent / "mpirun"), "-n", str(PROCESSES + 1)]
    command = [*mpirun, sys.executable, "-m", "mpi_prs", "run", str(folder / "job.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    directory = RunDirectory(output)
    records = [
        record
        for entry in read_journal(directory.journal)
        if entry.results is not None
        for record in unpack_records(entry.results.records)
    ]
    took = max(each.started + each.run for each in records) - min(each.started for each in records)
    wasted = read_statistics(directory.journal, lambda _: 1).ended_seconds
    return took, wasted, directory.output_file("parallel_run_step.txt").read_bytes()


def main() -> int:
    """Print the figures beside their goals; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mini-batches", type=int, default=260)
    parser.add_argument("--seconds", type=float, default=0.2)
    given = parser.parse_args()
    ideal = given.mini_batches * given.seconds / (PROCESSES - 1 + 1 / SLOWER)
    with tempfile.TemporaryDirectory() as folder:
        without, _, expected = measure(Path(folder), given.mini_batches, given.seconds, copies=False)
        took, wasted, rows = measure(Path(folder), given.mini_batches, given.seconds, copies=True)
    share = 100 * wasted / (PROCESSES * took)
    print(f"ideal                    {ideal:8.2f} s")
    print(f"without copies           {without:8.2f} s   {without / ideal:.3f} × the ideal")
    print(f"with speculative_copies  {took:8.2f} s   {took / ideal:.3f} × the ideal   (goal: at most {MOST})")
    print(
        f"wasted                   {wasted:8.2f} s   {share:.2f} % of the work      (goal: at most {MOST_WASTED:g} %)"
    )
    print(f"the same output          {rows == expected}")
    return int(took > MOST * ideal or share > MOST_WASTED or rows != expected)


if __name__ == "__main__":
    sys.exit(main())

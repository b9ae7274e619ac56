"""How much the engine costs: mini-batches a second, idle CPU, the gap between two runs, and what is left of two cores.

Run it on an otherwise idle machine with two cores or more, with an MPI beside this Python::

    python benchmarks/dispatch.py [--mini-batches 300000]

Every figure is measured in this one run, as a ratio against something that does the same work: no-op ``run()`` on
mini-batches of 10 items, results written to one file. Ours is measured with everything on: user processes apart from
the ranks, journal, timeouts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from mpi_prs.core.run_directory import RunDirectory
from mpi_prs.output.journal import read_journal
from mpi_prs.wire.record import unpack_records

ITEMS = 10
REPOSITORY = Path(__file__).resolve().parent.parent
MPIRUN = Path(sys.executable).parent / "mpirun"

NO_OP = "def run(mini_batch):\n    return mini_batch\n"

CPU_BOUND = """
import time

def work():
    total = 0
    for number in range({loops}):
        total += number
    return total

def run(mini_batch):
    began = time.monotonic()
    work()
    return [f"{{began}} {{time.monotonic()}}"] * len(mini_batch)
"""

SLEEPY = "import time\ndef run(mini_batch):\n    time.sleep(8)\n    return mini_batch\n"


def mini_batches(folder: Path, count: int) -> Iterator[list[str]]:
    """The same mini-batches as the job has, for the others."""
    names = [str(folder / f"image-{number:02d}.png") for number in range(ITEMS)]
    return (names for _ in range(count))


def run(mini_batch: list[str]) -> list[str]:
    """The no-op of the others."""
    return mini_batch


def pool_rate(folder: Path, count: int) -> float:
    """Mini-batches a second of ``multiprocessing.Pool.imap_unordered`` with two processes."""
    with multiprocessing.Pool(2) as pool, open(folder / "pool.txt", "w") as file:
        pool.map(abs, range(2))
        began = time.perf_counter()
        for rows in pool.imap_unordered(run, mini_batches(folder, count), chunksize=1):
            file.write("\n".join(rows) + "\n")
        return count / (time.perf_counter() - began)


def futures_main(folder: Path, count: int) -> None:
    """Under ``mpirun -n 3 python -m mpi4py.futures``: prints the rate of ``mpi4py.futures`` with two workers."""
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(2) as executor, open(folder / "futures.txt", "w") as file:
        list(executor.map(abs, range(4)))
        began = time.perf_counter()
        for rows in executor.map(run, mini_batches(folder, count), chunksize=1, unordered=True):
            file.write("\n".join(rows) + "\n")
        print(count / (time.perf_counter() - began))


def futures_rate(folder: Path, count: int) -> float:
    command = [str(MPIRUN), "-n", "3", sys.executable, "-m", "mpi4py.futures", __file__]
    done = subprocess.run([*command, "--futures", str(folder), str(count)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def make_job(folder: Path, script: str, count: int, items: int) -> Path:
    """A job of ``count`` mini-batches of ``items`` files; the same few files again and again."""
    folder.mkdir()
    names = [f"image-{number:02d}.png" for number in range(ITEMS)]
    for name in names:
        (folder / name).touch()
    (folder / "files.txt").write_text("".join(f"{names[index % ITEMS]}\n" for index in range(count * items)))
    (folder / "script.py").write_text(script)
    config = folder / "job.yaml"
    settings = {
        "name": "benchmark",
        "entry_script": "script.py",
        "inputs": [{"files_from": "files.txt"}],
        "output": "out",
        "mini_batch_size": items,
        "error_threshold": 0,
    }
    config.write_text(yaml.safe_dump(settings))
    return config


def start(config: Path, ranks: int) -> subprocess.Popen[bytes]:
    """The job under a real mpirun."""
    command = [str(MPIRUN), "-n", str(ranks), sys.executable, "-m", "mpi_prs", "run", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)


def finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise SystemExit("the job has failed")


def our_rate(folder: Path, count: int) -> float:
    """Mini-batches a second, from the first ``run()`` to the end of the last."""
    config = make_job(folder, NO_OP, count, ITEMS)
    finish(start(config, 3))
    first, last, records = float("inf"), 0.0, 0
    for entry in read_journal(RunDirectory(folder / "out").journal):
        if entry.results is not None:
            for record in unpack_records(entry.results.records):
                first, last = min(first, record.started), max(last, record.started + record.run)
                records += 1
    assert records == count
    return count / (last - first)


def idle_cpu(folder: Path) -> tuple[float, float]:
    """CPU of the master and of a worker, in percent of a core, while every user process sleeps in ``run()``."""
    process = start(make_job(folder, SLEEPY, 3, 1), 3)
    lock = RunDirectory(folder / "out").lock
    spent: dict[int, float] = {}
    master = 0
    while len(spent) < 3 and process.poll() is None:
        time.sleep(0.1)
        if lock.exists() and lock.stat().st_size:
            master = json.loads(lock.read_text())["pid"]
            spent = dict.fromkeys(ranks_of(process.pid, str(folder)), 0.0)
    time.sleep(2.5)  # the start is over, run() is not
    before = {pid: cpu_seconds(pid) for pid in spent}
    time.sleep(4)
    used = {pid: 100 * (cpu_seconds(pid) - before[pid]) / 4 for pid in spent}
    finish(process)
    return used.pop(master), max(used.values())


def ranks_of(launcher: int, text: str) -> list[int]:
    """The ranks that a launcher has started: their command line names the job."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != launcher:
            words = (entry / "cmdline").read_bytes() if (entry / "cmdline").exists() else b""
            if words.startswith(sys.executable.encode()) and b"mpi_prs" in words and text.encode() in words:
                found.append(int(entry.name))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loops_for(seconds: float) -> int:
    """How many loops of the CPU-bound script take so long."""
    names: dict[str, object] = {}
    exec(CPU_BOUND.format(loops=1_000_000), names)
    began = time.perf_counter()
    names["work"]()  # type: ignore[operator]
    return int(1_000_000 * seconds / (time.perf_counter() - began))


PLAIN_LOOP = """
import sys, time
names = {}
exec(sys.argv[1], names)
began = time.perf_counter()
for _ in range(int(sys.argv[2])):
    names["run"](["x"])
print(int(sys.argv[2]) / (time.perf_counter() - began))
"""


def plain_loops(script: str, count: int, at_once: int) -> float:
    """Mini-batches a second of plain Python loops, summed over so many processes at once."""
    command = [sys.executable, "-c", PLAIN_LOOP, script, str(count)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    return sum(float(process.communicate()[0]) for process in running)


def cpu_bound(folder: Path, script: str, count: int) -> tuple[float, list[float]]:
    """Mini-batches a second with two workers, and the gaps between two ``run()`` calls of a process, in seconds."""
    finish(start(make_job(folder, script, count, 1), 3))
    ends: dict[int, float] = {}
    gaps, times = [], []
    output = (folder / "out" / "parallel_run_step.txt").read_bytes()
    for entry in read_journal(RunDirectory(folder / "out").journal):
        if entry.results is not None:
            position = entry.results.offset
            for record in unpack_records(entry.results.records):
                began, ended = map(float, output[position : position + record.length].split()[:2])
                position += record.length
                if record.process in ends:
                    gaps.append(began - ends[record.process])
                ends[record.process] = ended
                times += [began, ended]
    return count / (max(times) - min(times)), gaps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--mini-batches", type=int, default=300_000)
    parser.add_argument("--futures", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.futures:
        futures_main(Path(arguments.futures[0]), int(arguments.futures[1]))
        return
    with tempfile.TemporaryDirectory(prefix="mpi_prs-benchmark-") as name:
        folder = Path(name)
        ours = our_rate(folder / "no-op", arguments.mini_batches)
        pool = pool_rate(folder, arguments.mini_batches // 4)
        futures = futures_rate(folder, arguments.mini_batches // 30)
        print(f"No-op run(), {ITEMS} items a mini-batch, 1 master + 2 workers: mini-batches a second")
        row("mpi_prs", f"{ours:,.0f}")
        row("multiprocessing.Pool.imap_unordered(chunksize=1)", f"{pool:,.0f}", f"{ours / pool:.1f} × (goal ≥ 3)")
        row("mpi4py.futures map(unordered, chunksize=1)", f"{futures:,.0f}", f"{ours / futures:.1f} × (goal ≥ 20)")
        script = CPU_BOUND.format(loops=loops_for(0.01))
        one = plain_loops(script, 500, 1)
        two = plain_loops(script, 500, 2)
        rate, gaps = cpu_bound(folder / "cpu", script, 1500)
        middle, late = statistics.median(gaps), statistics.quantiles(gaps, n=20)[-1]
        print("CPU-bound run() of 10 ms, 2 workers")
        row("rate against twice one plain loop", f"{100 * rate / (2 * one):.1f} %", "goal ≥ 97 %")
        row("rate against two plain loops at once", f"{100 * rate / two:.1f} %")
        row("gap between two run() calls: median", f"{1e6 * middle:.0f} µs", "goal ≤ 200 µs")
        row("gap between two run() calls: p95", f"{1e6 * late:.0f} µs")
        master, worker = idle_cpu(folder / "idle")
        print("CPU of a rank while its processes are in run(), of one core")
        row("master", f"{master:.1f} %", "goal < 3 %")
        row("worker", f"{worker:.1f} %", "goal < 1 %")


def row(what: str, figure: str, note: str = "") -> None:
    """One line of the table."""
    print(f"  {what:<52}{figure:>12}   {note}".rstrip())


if __name__ == "__main__":
    main()

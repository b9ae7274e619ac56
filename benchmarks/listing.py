"""How fast files are listed, how much memory the master needs for it, and how fast a worker reads the manifest.

    python benchmarks/listing.py [--files 10000000] [--real-files 200000]

Speed is measured on real, empty files, beside other ways to list them. Memory is measured on a filesystem that is made
up on the fly (ten million real files need a disk that few have), in a process of its own for each shape. Linux only.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mpi_prs.inputs.datasets import InputFiles
from mpi_prs.inputs.listing import FileInput, list_files
from mpi_prs.inputs.manifest import Manifest, write_manifest
from mpi_prs.inputs.planning import plan

MINI_BATCH_SIZE = 10
REAL_FOLDER = 1000
CALLS = 20_000
GOAL_BYTES = 150
MADE_UP = b"/made-up"


# A filesystem made up on the fly


class Entry:
    __slots__ = ("_is_folder", "name")

    def __init__(self, name: bytes, is_folder: bool) -> None:
        self.name = name
        self._is_folder = is_folder

    def is_symlink(self) -> bool:
        return False

    def is_file(self) -> bool:
        return not self._is_folder

    def is_dir(self) -> bool:
        return self._is_folder


class Scan:
    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries

    def __enter__(self) -> Iterator[Entry]:
        return self._entries

    def __exit__(self, *_: object) -> None:
        self._entries.close()


def make_up(files: int, a_folder: int) -> None:
    """Put a tree of so many files below MADE_UP in the place of the functions that look at a filesystem."""
    folder = Path("/").stat()

    def scandir(path: bytes) -> Scan:
        if path == MADE_UP + b"/" and a_folder < files:
            return Scan(Entry(b"folder_%06d" % number, True) for number in range(files // a_folder))
        # In no order, as filesystems have them: 7919 has no factor in common with a power of ten
        return Scan(Entry(b"image_%08d.png" % (number * 7919 % a_folder), False) for number in range(a_folder))

    os.scandir = scandir
    os.stat = lambda *_, **__: folder
    os.access = lambda *_: True


def memory(field: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure_memory(files: int, a_folder: int, path: Path) -> None:
    """In a child: write the manifest of a made-up tree; print seconds and the growth of the peak RSS."""
    original = os.scandir, os.stat, os.access
    make_up(1000, 1000)
    made_up = InputFiles.from_files(os.fsdecode(MADE_UP))
    write_manifest(path, plan([made_up], MINI_BATCH_SIZE))  # whatever a first use loads is not memory for the files
    make_up(files, a_folder)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, start = memory("VmRSS"), time.perf_counter()
    write_manifest(path, plan([made_up], MINI_BATCH_SIZE))
    seconds, growth = time.perf_counter() - start, memory("VmHWM") - before
    os.scandir, os.stat, os.access = original
    print(json.dumps({"seconds": seconds, "growth": growth, "size": path.stat().st_size}))


# What is measured


def best_of_three(function: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def speed(files: int, root: Path) -> Table:
    for number in range(files // REAL_FOLDER):
        folder = root / f"folder_{number:06d}"
        folder.mkdir()
        for name in range(REAL_FOLDER):
            (folder / f"image_{name:08d}.png").touch()
    files = files // REAL_FOLDER * REAL_FOLDER
    pattern = f"{root}/**/*.png"
    find = ["find", "-L", str(root), "-type", "f", "-name", "*.png"]
    manifest = root / "manifest"
    ways: dict[str, Callable[[], object]] = {
        "glob.glob + sort": lambda: sorted(glob.glob(pattern, recursive=True)),
        "find -L (not sorted)": lambda: subprocess.run(find, stdout=subprocess.DEVNULL, check=True),
        "list_files": lambda: sum(1 for _ in list_files(FileInput((pattern,)))),
        "write_manifest": lambda: write_manifest(manifest, plan([InputFiles.from_files(pattern)], MINI_BATCH_SIZE)),
    }
    seconds = {name: best_of_three(way) for name, way in ways.items()}
    table = Table("way", "files/s", "x glob.glob", title=f"{files:,} real files, {REAL_FOLDER:,} a folder, best of 3")
    for name, taken in seconds.items():
        table.add_row(name, f"{files / taken:,.0f}", f"{seconds['glob.glob + sort'] / taken:.2f}")
    return table


def space(files: int, path: Path) -> Table:
    table = Table(
        "shape", "files/s", "peak RSS growth", f"bytes/file (goal {GOAL_BYTES})", "manifest bytes/file",
        title=f"{files:,} made-up files",
    )  # fmt: skip
    for shape, a_folder in (("all in one folder", files), ("1,000 a folder", 1000)):
        command = [sys.executable, __file__, "--measure", str(a_folder), "--files", str(files), "--path", str(path)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        table.add_row(
            shape, f"{files / found['seconds']:,.0f}", f"{found['growth'] / 2**20:,.1f} MiB",
            f"{found['growth'] / files:.1f}", f"{found['size'] / files:.1f}",
        )  # fmt: skip
    return table


def reading(path: Path) -> Table:
    start = time.perf_counter()
    manifest = Manifest.open(path)
    opened = time.perf_counter() - start
    table = Table(
        "mini-batches a call", "µs/call", "of it copying", "bytes/call",
        title=f"Manifest.load, mini-batches of {MINI_BATCH_SIZE} (open: {opened * 1e3:.2f} ms)",
    )  # fmt: skip
    for count in (1, 64, 1024):
        random.seed(0)
        places = [random.randrange(manifest.mini_batches - count) for _ in range(CALLS)]
        for place in places:  # the file is in the page cache, the record batches are known
            loaded = manifest.load(place, count)
        payload = memoryview(bytearray(loaded.payload))

        def load_all(places: list[int] = places, count: int = count) -> None:
            for place in places:
                manifest.load(place, count)

        def copy_all(payload: memoryview = payload) -> None:
            for _ in range(CALLS):
                bytes(payload)

        load, copy = best_of_three(load_all), best_of_three(copy_all)
        table.add_row(str(count), f"{load / CALLS * 1e6:.2f}", f"{copy / CALLS * 1e6:.2f}", f"{len(payload):,}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--files", type=int, default=1_000_000, help="made-up files; a power of ten from 100,000 (default 1,000,000)"
    )
    parser.add_argument("--real-files", type=int, default=200_000, help="real files (default 200,000)")
    parser.add_argument("--measure", type=int, metavar="A_FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_memory(arguments.files, arguments.measure, arguments.path)
        return
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "files").mkdir()
        console.print(speed(arguments.real_files, Path(name) / "files"))
        console.print(space(arguments.files, Path(name) / "manifest"))
        console.print(reading(Path(name) / "manifest"))


if __name__ == "__main__":
    main()

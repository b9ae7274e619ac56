"""Compare the digits job's output with the true labels.

Exits 1 unless every picture has exactly one row and at least 95 % of the digits are right.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
WANTED = 0.95


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the digits job's output with the true labels.")
    parser.add_argument(
        "output",
        type=Path,
        nargs="?",
        default=CHECKOUT / "outputs" / "predict-digits" / "mnist_outputs.txt",
        help="the output file (default: that of configs/digits.yaml)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        default=CHECKOUT / "build" / "digits" / "labels.csv",
        help="the true labels (default: those of configs/digits/prepare.py)",
    )
    args = parser.parse_args()
    for path in (args.output, args.labels):
        if not path.is_file():
            print(f"There is no file {path}; has the job run?", file=sys.stderr)
            return 1

    truth = read_labels(args.labels)
    rows = args.output.read_text(encoding="utf-8").splitlines()
    problems = row_problems(rows, truth)
    right = len(set(rows) & {f"{name}: {label}" for name, label in truth.items()})
    accuracy = right / len(truth)
    if accuracy < WANTED:
        problems.append(f"{accuracy:.1%} of the digits are right, {WANTED:.0%} expected")

    print(f"Accuracy: {right} of {len(truth)} digits ({accuracy:.1%})  output: {os.path.relpath(args.output)}")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    return 1 if problems else 0


def read_labels(path: Path) -> dict[str, str]:
    """File name → digit."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["file"]: row["label"] for row in csv.DictReader(file)}


def row_problems(rows: list[str], truth: dict[str, str]) -> list[str]:
    """One line for each kind of file that hasn't exactly one row of its own."""
    found = Counter(row.partition(": ")[0] for row in rows)
    kinds = {
        "without a row": [name for name in truth if name not in found],
        "with more than one row": [name for name in truth if found[name] > 1],
        "in the output but not in the labels": [name for name in found if name not in truth],
    }
    return [
        f"files {kind}: {len(names)} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        for kind, names in kinds.items()
        if names
    ]


if __name__ == "__main__":
    sys.exit(main())

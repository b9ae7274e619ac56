"""Compare the tumours job's output with the true diagnoses.

Exits 1 unless every tumour has exactly one row and at least 95 % of them are right.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pandas as pd

CHECKOUT = Path(__file__).resolve().parents[2]
WANTED = 0.95


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the tumours job's output with the true diagnoses.")
    parser.add_argument(
        "output",
        type=Path,
        nargs="?",
        default=CHECKOUT / "outputs" / "tumours" / "tumours.parquet",
        help="the output file (default: that of configs/tumours.yaml)",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        default=CHECKOUT / "build" / "tumours" / "truth.csv",
        help="the true diagnoses (default: those of configs/tumours/prepare.py)",
    )
    args = parser.parse_args()
    for path in (args.output, args.truth):
        if not path.is_file():
            print(f"There is no file {path}; has the job run?", file=sys.stderr)
            return 1

    truth = pd.read_csv(args.truth).set_index("tumour")["kind"]
    found = pd.read_parquet(args.output).set_index("tumour")["kind"]
    if sorted(found.index) != sorted(truth.index):
        print("The output does not have exactly one row for each tumour", file=sys.stderr)
        return 1
    right = int((found.loc[truth.index] == truth).sum())
    print(
        f"Accuracy: {right} of {len(truth)} tumours ({right / len(truth):.1%})  output: {os.path.relpath(args.output)}"
    )
    return 0 if right >= WANTED * len(truth) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Merge benchmark folders that were made side by side: python benchmarks/merge.py OUT FOLDER..."""

import sys
from pathlib import Path

from dynamicdps.evaluation.benchmark import read_rows, write_benchmark


def main() -> None:
    out, *folders = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    rows = [row for folder in folders for row in read_rows(folder / "results.csv")]
    write_benchmark(out, rows)
    print(out / "table.md")


if __name__ == "__main__":
    main()

"""Merge benchmark folders that were made side by side: python benchmarks/merge.py OUT FOLDER..."""

import sys
from pathlib import Path

from dynamicdps.evaluation.benchmark import merge_conditions, merged, read_conditions, read_results, write_benchmark


def main() -> None:
    out, *folders = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    results = merged(read_results(folder) for folder in folders)
    write_benchmark(out, results, merge_conditions(map(read_conditions, folders)), folders)
    print(out / "table.md")


if __name__ == "__main__":
    main()

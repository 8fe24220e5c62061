"""Volumes of structures in poor scans of heads, in what `dynamicdps enhance` made of them, and in the good scan that they came from.

    python benchmarks/structure_volumes.py OUT --head NAME HEAD [--head NAME HEAD ...] --runs FOLDER [FOLDER ...] [--segmenter NAME]

HEAD is a good scan at 1 mm with its skull. A folder of runs, as `benchmarks/heads.py` leaves it, holds scans `NAME-*.nii.gz`, and beside
each a folder of that name with the `enhanced.nii.gz` of `enhance`. The reference is the same tool's segmentation of HEAD: what counts is
what the scan loses and the enhanced image brings back, not how good the tool is. Both sides of a structure count together.

Written into OUT: `volumes.csv` (a row a scan, image and structure), `volumes.md` (mean absolute errors by structure, the enhanced image's
less the scan's as a share, and from five scans on its 95 % bootstrap interval over scans; means are over structures, not their sums)
and `agreement.png` (Bland and Altman 1986: difference from the reference against the mean of both).
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

import dynamicdps as dd
from dynamicdps.segmentation.classes import TISSUES

IMAGES = ("scan", "enhanced")
DRAWS = 2000
# Fewer scans than this have no interval.
LEAST_SCANS = 5
Row = dict[str, Any]


def volumes_of(path: Path, segmenter: str) -> dict[str, tuple[float, str]]:
    """Volume in mm3 of each structure, both sides together, and whether it is reliable."""
    found = dd.segment(path, repeats=0, segmenter=segmenter)
    total: dict[str, float] = defaultdict(float)
    reliable = {}
    for each in found.structures:
        total[each.structure.name] += each.mm3
        reliable[each.structure.name] = "yes" if each.reliable else "no"
    return {name: (mm3, reliable[name]) for name, mm3 in total.items()}


def scans_of(name: str, folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Scans of a head with their enhanced images."""
    for folder in folders:
        for scan in sorted(folder.glob(f"{name}-*.nii.gz")):
            enhanced = folder / scan.name.removesuffix(".nii.gz") / "enhanced.nii.gz"
            if enhanced.exists():
                yield scan, enhanced


def errors_of(rows: Sequence[Row], structure: str) -> NDArray[np.float64]:
    """Relative errors of a structure, ``(images, scans)``."""
    chosen = [[row["mm3"] / row["truth_mm3"] - 1 for row in rows if (row["image"], row["structure"]) == (i, structure)] for i in IMAGES]
    return np.array(chosen, dtype=np.float64)


def table(rows: Sequence[Row]) -> str:
    """Mean absolute errors, and how much lower those of the enhanced image are."""
    names = list(dict.fromkeys(row["structure"] for row in rows))
    reliable = {row["structure"]: row["reliable"] for row in rows}
    lines = [
        "| structure | reliable | scan: error | bias | enhanced: error | bias | error lower by (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    every = np.stack([errors_of(rows, name) for name in names])
    chosen = np.array([reliable[name] == "yes" for name in names])
    rng = np.random.default_rng(0)
    index = rng.integers(0, every.shape[2], (DRAWS, every.shape[2]))
    for name, error in zip(names, every, strict=True):
        lines.append(f"| {name} | {reliable[name]} | {_cells(error, index)} |")
    single = np.array([name not in TISSUES for name in names])
    for name, kept in (("mean of all", single), ("mean of the reliable", single & chosen)):
        if kept.any():
            lines.append(f"| {name} | | {_cells(every[kept], index)} |")
    return "\n".join(lines) + "\n"


def _cells(error: NDArray[np.float64], index: NDArray[np.int_]) -> str:
    """Of errors ``(..., images, scans)``: means of their size, means, and the share by which the second image's are smaller."""
    size = np.abs(error).reshape(-1, *error.shape[-2:]).mean(0)
    bias = error.reshape(-1, *error.shape[-2:]).mean((0, 2))
    lower = 1 - size[1].mean() / size[0].mean()
    low, high = np.percentile(1 - size[1][index].mean(1) / size[0][index].mean(1), (2.5, 97.5))
    means = " | ".join(f"{100 * size[k].mean():.1f} % | {100 * bias[k]:+.1f} %" for k in range(2))
    interval = f" ({100 * low:.0f} to {100 * high:.0f})" if error.shape[-1] >= LEAST_SCANS else ""
    return f"{means} | {100 * lower:.0f} %{interval}"


def agreement(rows: Sequence[Row], path: Path) -> None:
    """Difference from the reference against the mean of both, with its mean and limits of agreement, for either image."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["structure"] for row in rows))
    colours = dict(zip(names, pyplot.get_cmap("tab20")(np.linspace(0, 1, 20)).tolist() * 2, strict=False))
    marks = dict(zip(names, "os^vDPX*" * 4, strict=False))
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5.5), sharey=True, layout="constrained")
    for axis, image in zip(axes, IMAGES, strict=True):
        every = []
        for name in names:
            here = [(row["mm3"] / 1000, row["truth_mm3"] / 1000) for row in rows if (row["image"], row["structure"]) == (image, name)]
            found, truth = np.array(here).T
            difference = 200 * (found - truth) / (found + truth)
            axis.scatter((found + truth) / 2, difference, s=22, color=colours[name], marker=marks[name], label=name)
            every.append(difference)
        mean, spread = float(np.mean(every)), 1.96 * float(np.std(every, ddof=1))
        for level, style in ((mean, "-"), (mean - spread, "--"), (mean + spread, "--")):
            axis.axhline(level, color="black", linestyle=style, linewidth=0.8)
        axis.set(
            xscale="log",
            xlabel="mean of both volumes, ml",
            title=f"{image}: {mean:+.0f} %, limits {mean - spread:.0f} to {mean + spread:.0f} %",
        )
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("volume less the reference's, % of their mean")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--head", nargs=2, action="append", required=True, metavar=("NAME", "HEAD"))
    parser.add_argument("--runs", nargs="+", type=Path, required=True)
    parser.add_argument("--segmenter", default="brain-mask")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name, head in given.head:
        truth = volumes_of(Path(head), given.segmenter)
        for scan, enhanced in scans_of(name, given.runs):
            poor = volumes_of(scan, given.segmenter)
            for image, found in (("scan", poor), ("enhanced", volumes_of(enhanced, given.segmenter))):
                for structure, (mm3, _) in found.items():
                    row = {"head": name, "scan": f"{scan.parent.name}/{scan.name}", "image": image, "structure": structure}
                    rows.append(row | {"reliable": poor[structure][1], "mm3": round(mm3, 1), "truth_mm3": round(truth[structure][0], 1)})
            print(scan.name, flush=True)
            with (given.out / "volumes.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    if not rows:
        raise SystemExit("there is no scan NAME-*.nii.gz with a folder NAME-*/enhanced.nii.gz beside it")
    (given.out / "volumes.md").write_text(table(rows))
    print(table(rows))
    agreement(rows, given.out / "agreement.png")


if __name__ == "__main__":
    main()

"""Are unconditional samples heads? Distances between what samples and real slices measure.

usage: python benchmarks/samples.py REAL.nii.gz [...] --samples NAME=samples.nii.gz [NAME=...] [--out samples.json]

REAL are skull-stripped scans that no model has seen, of the level that the samples show; from each come slices at five heights. Each slice
is described by its area, its shares of fluid, grey and white matter, length and width of its outline, how much it resembles its mirror
image, how many parts of it lie apart, and how many pools of fluid lie deep inside. Of each number stands the Wasserstein distance between
the samples' distribution and the real slices', in standard deviations of the real ones; and the same between two halves of the real
subjects, which is what a perfect prior would reach (mean over 200 ways of halving).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import wasserstein_distance

from dynamicdps.volumes import IntensityScale, load

# Intensities between fluid, grey and white matter, and what is background.
EDGES = (0.1, 0.4, 0.75)
HEIGHTS = (0.2, 0.35, 0.5, 0.65, 0.8)
# Smallest part or pool that counts, in square mm.
PART, POOL = 200, 60
# How far inside fluid is that of ventricles, in mm.
DEEP = 30
HALVINGS = 200
NAMES = ("area", "fluid", "grey", "white", "length", "width", "symmetry", "parts", "pools")


def described(image: NDArray[np.float32]) -> list[float]:
    """The numbers of one slice ``(x, y)``; x is left to right."""
    outline = ndimage.binary_fill_holes(ndimage.binary_opening(image > EDGES[0], iterations=2))
    labels, count = ndimage.label(outline)
    sizes = np.bincount(labels.ravel())[1:] if count else np.zeros(1)
    parts = int((sizes >= PART).sum())
    smooth = ndimage.gaussian_filter(image, 1)
    shares = [
        float((outline & (smooth >= low) & (smooth < high)).sum() / max(outline.sum(), 1))
        for low, high in zip((-1, *EDGES[1:]), (*EDGES[1:], 9), strict=True)
    ]
    deep = ndimage.distance_transform_edt(np.pad(outline, 1))[1:-1, 1:-1] > DEEP
    pools, found = ndimage.label(deep & (smooth < EDGES[1]))
    large = int((np.bincount(pools.ravel())[1:] >= POOL).sum()) if found else 0
    at = np.argwhere(outline)
    width, length = (np.ptp(at[:, axis]) if len(at) else 0 for axis in (0, 1))
    middle = round(at[:, 0].mean()) if len(at) else image.shape[0] // 2
    reach = min(middle, image.shape[0] - 1 - middle)
    pair = ndimage.gaussian_filter(image, 4)[middle - reach : middle + reach + 1]
    symmetry = float(np.corrcoef(pair.ravel(), pair[::-1].ravel())[0, 1]) if pair.std() > 0 else 0.0
    return [float(outline.sum()), *shares, float(length), float(width), symmetry, float(parts), float(large)]


def distances(one: NDArray[np.float64], other: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([wasserstein_distance(a, b) for a, b in zip(one.T, other.T, strict=True)]) / spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", nargs="+", type=Path)
    parser.add_argument("--samples", nargs="+", required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    subjects = []
    for path in arguments.real:
        scan = load(path)
        data = IntensityScale.robust(scan.data).apply(scan).data
        subjects.append([described(data[:, :, int(share * data.shape[2])]) for share in HEIGHTS])
    real = np.array(subjects)
    flat = real.reshape(-1, len(NAMES))
    # What is the same in all real slices is counted in units of one.
    spread = np.where(flat.std(0) > 0.05 * np.abs(flat.mean(0)), flat.std(0), np.maximum(0.05 * np.abs(flat.mean(0)), 1e-6))
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(HALVINGS):
        order = rng.permutation(len(real))
        one, other = (real[part].reshape(-1, len(NAMES)) for part in np.array_split(order, 2))
        halves.append(distances(one, other, spread))
    rows = {"two halves of the real subjects": np.mean(halves, 0)}
    counts = {}
    for given in arguments.samples:
        name, path = given.split("=", 1)
        data = load(Path(path)).data
        numbers = np.array([described(data[:, :, k]) for k in range(data.shape[2])])
        rows[name] = distances(numbers, flat, spread)
        counts[name] = {
            "samples": len(numbers),
            "one brain": int((numbers[:, 7] == 1).sum()),
            "at most three pools": int((numbers[:, 8] <= 3).sum()),
        }
    print(f"{'':34}" + "".join(f"{name:>10}" for name in (*NAMES, "mean")))
    for name, row in rows.items():
        print(f"{name:34}" + "".join(f"{value:10.2f}" for value in (*row, row.mean())))
    print("real slices:", len(flat), "one brain:", int((flat[:, 7] == 1).sum()), "at most three pools:", int((flat[:, 8] <= 3).sum()))
    print(counts)
    if arguments.out is not None:
        table = {
            name: dict(zip((*NAMES, "mean"), [round(float(v), 3) for v in (*row, row.mean())], strict=True)) for name, row in rows.items()
        }
        arguments.out.write_text(json.dumps({"distances": table, "counts": counts}, indent=1) + "\n")


if __name__ == "__main__":
    main()

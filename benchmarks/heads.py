"""Whole heads from a scanner that the package does not describe: what `dynamicdps enhance` makes of them, with nothing told.

    python benchmarks/heads.py OUT --head HEAD TRUTH [--head HEAD TRUTH ...] --simulator PROGRAM [--seeds 5] [-- ENHANCE OPTIONS]
    python benchmarks/heads.py OUT --head HEAD TRUTH --simulator PROGRAM --planes axial coronal sagittal [-- ENHANCE OPTIONS]
    python benchmarks/heads.py OUT --scan SCAN [--scan SCAN ...] [-- ENHANCE OPTIONS]

HEAD is a good scan of a head at 1 mm with its skull, TRUTH its brain alone on the same grid. PROGRAM makes a poor scan of it:
`python PROGRAM HEAD SCAN --seed N`. With `--planes` it makes a scan across each of them (`--plane PLANE`, seeds 100 apart, so that each
has its own pose, shading and noise), which are enhanced together; what they are compared with is their plain mean, each interpolated. A
scan without a truth (`--scan`) has only its pictures and what needs no truth. Written into OUT: `heads.csv` (a row an image), `heads.json`
(means, and the paired differences from the scan, or from the mean of several), and a montage in three planes of each scan.

Images are put on the truth's grid by cubic interpolation and compared inside the brain after the best increasing intensity curve, because
neither the scan's contrast nor its units are the truth's. Three more numbers say what users see:

- `stairs`: how much the change along the slices' normal depends on the place within a measured slice, (largest - smallest) / mean over
  the places; 0 for an image without steps.
- `pattern`: power at the period of the measured voxels along each of the scan's axes against that at neighbouring periods, the largest
  of the three, in dB.
- `map_error`, `uncertainty_error` (of the enhanced image): correlation of the true error's size with that of the hallucination map, and
  with the uncertainty, inside the brain, each averaged over a Gaussian of 2 mm; above 0 where the map points at errors.
- `seam`: mean difference from the scan in the 4 mm around the brain mask less that in the next 4 mm, in percent of the brain's median.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import isotonic_regression

from dynamicdps.volumes import Volume, load
from dynamicdps.volumes.grids import Grid, native_grid, sample

Array = NDArray[np.float64]
BINS = 200
COLUMNS = (
    "head",
    "seed",
    "image",
    "correlation",
    "psnr",
    "ssim",
    "change_x",
    "change_y",
    "change_z",
    "stairs",
    "pattern",
    "seam",
    "map_error",
    "uncertainty_error",
    "seconds",
)


class Truth:
    """A brain that images are compared with."""

    def __init__(self, path: Path) -> None:
        self.volume = load(path)
        values = self.volume.data.astype(np.float64)
        self.values = values / np.percentile(values[values > 0], 99) * 0.95
        self.inside = ndimage.binary_erosion(ndimage.binary_fill_holes(self.values > 0.02), iterations=2)

    def compare(self, image: Volume) -> dict[str, float]:
        """Correlation, PSNR in dB, SSIM, and change between neighbours along the three axes as a share of the truth's."""
        x = sample(image, native_grid(self.volume), order=3).data.astype(np.float64)
        matched, truth, inside = increasing_match(x, self.values, self.inside), self.values, self.inside
        changes = [change(matched, axis, inside) / change(truth, axis, inside) for axis in range(3)]
        return {
            "correlation": float(np.corrcoef(x[inside], truth[inside])[0, 1]),
            "psnr": float(-10 * np.log10(((matched - truth)[inside] ** 2).mean())),
            "ssim": structural_similarity(matched * inside, truth * inside, inside),
            **{f"change_{name}": value for name, value in zip("xyz", changes, strict=True)},
        }

    def where_errors_lie(self, image: Volume, folder: Path) -> dict[str, float]:
        """How well the maps in a folder point at an image's errors: `map_error` and `uncertainty_error`."""
        grid = native_grid(self.volume)
        x = sample(image, grid, order=3).data.astype(np.float64)
        error = self._size(increasing_match(x, self.values, self.inside) - self.values)
        found = {}
        for name, file in (("map_error", "hallucination"), ("uncertainty_error", "uncertainty")):
            if (folder / f"{file}.nii.gz").exists():
                size = self._size(sample(load(folder / f"{file}.nii.gz"), grid).data.astype(np.float64))
                found[name] = float(np.corrcoef(size, error)[0, 1])
        return found

    def _size(self, values: Array) -> Array:
        """Mean size around each voxel of the brain, of values inside the brain."""
        inside = self.inside.astype(np.float64)
        around = ndimage.gaussian_filter(np.abs(values) * inside, 2) / np.maximum(ndimage.gaussian_filter(inside, 2), 1e-6)
        return np.asarray(around[self.inside])


def increasing_match(x: Array, truth: Array, inside: NDArray[np.bool_]) -> Array:
    """`x` through the increasing curve that brings it nearest to the truth inside."""
    edges = np.quantile(x[inside], np.linspace(0, 1, BINS + 1))
    bins = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, BINS - 1)
    counts = np.bincount(bins[inside], minlength=BINS)
    sums = np.bincount(bins[inside], truth[inside], BINS)
    used = counts > 0
    curve = isotonic_regression(sums[used] / counts[used], weights=counts[used].astype(float)).x
    return np.asarray(np.interp(x, ((edges[1:] + edges[:-1]) / 2)[used], curve))


def change(x: Array, axis: int, inside: NDArray[np.bool_]) -> float:
    """Mean absolute difference of neighbours inside."""
    both = inside & np.roll(inside, -1, axis)
    return float(np.abs(np.roll(x, -1, axis) - x)[both].mean())


def structural_similarity(a: Array, b: Array, inside: NDArray[np.bool_], width: int = 7) -> float:
    """Mean SSIM inside, uniform window of 7 voxels along each axis, range 1."""

    def mean(v: Array) -> Array:
        return np.asarray(ndimage.uniform_filter(v, width))

    ma, mb = mean(a), mean(b)
    va, vb, covariance = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    value = ((2 * ma * mb + 1e-4) * (2 * covariance + 9e-4)) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    return float(value[inside].mean())


def scan_grid(scan: Volume, steps_mm: tuple[float, float, float], within: Volume | None = None, margin_mm: float = 10.0) -> Grid:
    """A grid along the scan's own axes: over the whole scan, or over what a mask holds with a margin."""
    edges = np.array(scan.spacing)
    low, high = np.zeros(3), np.array(scan.shape) - 1.0
    if within is not None:
        inside = np.argwhere(sample(within, native_grid(scan)).data > 0.5)
        low, high = np.maximum(low, inside.min(0) - margin_mm / edges), np.minimum(high, inside.max(0) + margin_mm / edges)
    # Voxel 0 has its centre where a voxel of the scan has its own: places within a slice are counted from there.
    low = np.floor(low)
    affine = scan.affine.copy()
    affine[:3, 3] = scan.affine[:3, :3] @ low + scan.affine[:3, 3]
    affine[:3, :3] *= np.array(steps_mm) / edges
    x, y, z = (int((b - a) * e / step) + 1 for a, b, e, step in zip(low, high, edges, steps_mm, strict=True))
    return Grid((x, y, z), affine, scan.native)


def lines_along(image: Volume, scan: Volume, mask: Volume, axis: int) -> tuple[Array, NDArray[np.bool_]]:
    """The image on steps of 0.5 mm along one axis of the scan and 2 mm along the others, axis first, and where the brain is inside."""
    grid = scan_grid(scan, tuple(0.5 if a == axis else 2.0 for a in range(3)), mask)  # type: ignore[arg-type]
    inside = sample(mask, grid).data > 0.5
    depth = ndimage.distance_transform_edt(inside, sampling=[0.5 if a == axis else 2.0 for a in range(3)])
    return np.moveaxis(sample(image, grid, order=3).data.astype(np.float64), axis, 0), np.moveaxis(depth > 4, axis, 0)


def artefacts(image: Volume, scan: Volume, mask: Volume) -> dict[str, float]:
    """`stairs`, `pattern` and `seam` of an image; NaN where one means nothing."""
    out = {"stairs": np.nan, "pattern": np.nan, "seam": np.nan}
    across = int(np.argmax(scan.spacing))
    peaks = []
    for axis, length in enumerate(scan.spacing):
        lines, inner = lines_along(image, scan, mask, axis)
        if axis == across and length >= 2:
            both, steps = inner[1:] & inner[:-1], np.abs(np.diff(lines, axis=0))
            place = np.floor(((np.arange(len(steps)) + 0.5) * 0.5 % length) / length * 5).astype(int)
            means = [steps[place == k][both[place == k]].mean() for k in range(5)]
            out["stairs"] = float((max(means) - min(means)) / np.mean(means))
        power = (np.abs(np.fft.rfft(lines * ndimage.gaussian_filter1d(inner.astype(np.float64), 4, axis=0), axis=0)) ** 2).mean((1, 2))
        at = round(len(lines) * 0.5 / length)
        if 8 < at < len(power) - 8:
            around = np.r_[power[at - 8 : at - 3], power[at + 4 : at + 9]]
            peaks.append(10 * np.log10(power[at - 1 : at + 2].max() / np.median(around)))
    if peaks:
        out["pattern"] = float(max(peaks))
    grid = scan_grid(scan, (1.0, 1.0, 1.0), mask)
    x, measured = (sample(v, grid, order=1).data.astype(np.float64) for v in (image, scan))
    inside = sample(mask, grid).data > 0.5
    away = ndimage.distance_transform_edt(~inside)
    median = np.median(x[inside])
    difference = x - measured * median / np.median(measured[inside])
    near, far = (difference[(away > low) & (away <= low + 4)].mean() for low in (0, 4))
    out["seam"] = float(100 * (near - far) / median)
    return out


def montage(path: Path, images: dict[str, Volume], scan: Volume) -> None:
    """Three planes through the middle of the scan, one row an image."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grid = scan_grid(scan, (1.0, 1.0, 1.0))
    figure, axes = plt.subplots(len(images), 3, figsize=(13, 4.6 * len(images)), squeeze=False)
    for row, (name, volume) in zip(axes, images.items(), strict=True):
        data = sample(volume, grid, order=1).data
        top = np.percentile(data[data > 0.05 * data.max()], 98)
        for axis, (panel, plane) in enumerate(zip(row, ("sagittal", "coronal", "axial"), strict=True)):
            panel.imshow(np.take(data, int(data.shape[axis] * 0.55), axis).T, cmap="gray", origin="lower", vmin=0, vmax=top)
            panel.set_title(f"{name}, {plane}", fontsize=9)
            panel.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def plain_mean(paths: list[Path], truth: Truth | None) -> Volume:
    """The mean of scans, each interpolated, on the truth's grid or that of the first scan in steps of 1 mm."""
    scans = [load(path) for path in paths]
    grid = scan_grid(scans[0], (1.0, 1.0, 1.0)) if truth is None else native_grid(truth.volume)
    return Volume(np.mean([sample(each, grid, order=3).data for each in scans], axis=0).astype(np.float32), grid.affine)


def evaluate(name: str, seed: int, paths: list[Path], truth: Truth | None, out: Path, options: list[str]) -> list[dict[str, Any]]:
    """Enhance a scan, or several of one head, and judge what comes out."""
    scan_path = paths[0]
    folder = out / (scan_path.name.split(".nii")[0] + ("-together" if len(paths) > 1 else ""))
    started = time.monotonic()
    if not (folder / "run.json").exists():
        subprocess.run([sys.executable, "-m", "dynamicdps.cli", "enhance", *map(str, paths), "--out", str(folder), *options], check=True)  # noqa: S603 (the package itself)
    seconds = time.monotonic() - started
    scan = load(scan_path)
    first = {"scan": scan} if len(paths) == 1 else {"scan": scan, "mean of scans": plain_mean(paths, truth)}
    images = first | {
        label: load(folder / f"{file}.nii.gz")
        for label, file in (("initial", "initial"), ("enhanced brain", "enhanced_brain"), ("enhanced", "enhanced"))
        if (folder / f"{file}.nii.gz").exists()
    }
    mask = load(folder / "brain_mask.nii.gz") if (folder / "brain_mask.nii.gz").exists() else None
    montage(folder / "montage.png", images, scan)
    rows = []
    for label, image in images.items():
        row: dict[str, Any] = {"head": name, "seed": seed, "image": label, "seconds": round(seconds, 1)}
        if truth is not None:
            row |= truth.compare(image)
        if mask is not None:
            row |= artefacts(image, scan, mask)
        if truth is not None and label == "enhanced":
            row |= truth.where_errors_lie(image, folder)
        rows.append({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of each image's numbers and of their differences from the scan's own, or from the mean of several."""
    found: dict[str, Any] = {}
    measures = [c for c in COLUMNS[3:] if c in rows[0]]
    base = "mean of scans" if any(r["image"] == "mean of scans" for r in rows) else "scan"
    scans = {(r["head"], r["seed"]): r for r in rows if r["image"] == base}
    for label in dict.fromkeys(r["image"] for r in rows):
        mine = [r for r in rows if r["image"] == label]
        found[label] = {m: round(float(np.nanmean([r[m] for r in mine])), 4) for m in measures}
        if "psnr" in measures:
            gains = [r["psnr"] - scans[r["head"], r["seed"]]["psnr"] for r in mine]
            found[label] |= {"psnr_gain": round(float(np.mean(gains)), 3), "smallest_psnr_gain": round(float(min(gains)), 3)}
    return found


def made_scan(arguments: argparse.Namespace, head: str, name: str, seed: int, number: int, plane: str) -> Path:
    """A poor scan of a head by the simulator, across a plane where one is named."""
    path: Path = arguments.out / (f"{name}-{plane}-{seed}.nii.gz" if plane else f"{name}-{seed}.nii.gz")
    if not path.exists():
        program = [sys.executable, str(arguments.simulator), head, str(path), "--seed", str(seed + 100 * number)]
        across = ["--plane", plane] if plane else []
        subprocess.run([*program, *across, *arguments.simulator_options.split()], check=True)  # noqa: S603 (the user's program)
    return path


def main() -> None:
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--head", nargs=2, action="append", default=[], metavar=("HEAD", "TRUTH"))
    parser.add_argument("--scan", type=Path, action="append", default=[])
    parser.add_argument("--simulator", type=Path)
    parser.add_argument("--simulator-options", default="")
    parser.add_argument("--planes", nargs="+", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args(sys.argv[1:at])
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    jobs: list[tuple[str, int, list[Path], Path | None]] = [(path.name.split(".nii")[0], 0, [path], None) for path in arguments.scan]
    for head, truth in arguments.head:
        name = Path(head).name.split("_")[0].removeprefix("sub-")
        for seed in range(arguments.seeds):
            made = [made_scan(arguments, head, name, seed, number, plane) for number, plane in enumerate(arguments.planes or [""])]
            jobs.append((name, seed, made, Path(truth)))
    truths = {path: Truth(path) for path in {job[3] for job in jobs} if path is not None}
    for name, seed, scan, path in jobs:
        rows += evaluate(name, seed, scan, truths[path] if path else None, out, sys.argv[at + 1 :])
        with (out / "heads.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(rows)
        (out / "heads.json").write_text(json.dumps(summary(rows), indent=1) + "\n")
    for label, values in summary(rows).items():
        print(f"{label:16}" + "  ".join(f"{k} {v:.3f}" for k, v in values.items()))


if __name__ == "__main__":
    main()

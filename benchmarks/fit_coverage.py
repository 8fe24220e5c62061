"""How often the intervals of `fit_operator` hold the truth, on scans by a scanner that the package does not describe.

    python benchmarks/fit_coverage.py OUT --head HEAD BRAIN [--head HEAD BRAIN ...] --simulator PROGRAM [--scans 24]

HEAD is a good scan of a head at 1 mm with its skull, BRAIN its brain alone, 0 outside. PROGRAM makes a poor scan of the head:
`python PROGRAM HEAD SCAN --seed N --thickness MM --in-plane MM --snr RATIO`. Thickness (3 to 6 mm), voxel (1.4 to 2.2 mm) and
signal-to-noise ratio (10 to 30) are drawn from a Latin square, so that few scans cover all of them. Fits see the scan alone; nothing is
reconstructed.

What the truth is of a model that the scanner does not follow:

- `slice_thickness`: what PROGRAM was told;
- `gamma`, `blur`: the values that lead from the good brain itself to the scan, by least squares;
- `noise_std`: of the difference to a scan with the same seed and hardly any noise, as strong as it is over blocks of voxels, so that noise
  that neighbouring voxels share counts in full.

Written into OUT: `coverage.csv` (a row a scan: true, fitted, lower and upper value of each parameter) and `coverage.md` (shares). A rerun
goes on where it was stopped.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.calibration.fit import OperatorFit, fit_operator
from dynamicdps.calibration.shading import find_shading
from dynamicdps.volumes import BrainScan, Volume, load, open_brain
from dynamicdps.volumes.grids import native_grid, sample
from dynamicdps.volumes.noise_estimate import scan_noise

NAMES = ("gamma", "blur", "slice_thickness", "noise_std")
THICKNESS, IN_PLANE, RATIO = (3.0, 4.0, 5.0, 6.0), (1.4, 2.2), (10.0, 30.0)
BLOCK, QUIET = 4, 1e6


def settings(count: int) -> list[tuple[float, float, float]]:
    """Thickness, voxel and signal-to-noise ratio of each scan."""
    random = np.random.default_rng(0)
    first, second = (random.permutation(count) / max(1, count - 1) for _ in range(2))
    (fine, coarse), (low, high) = IN_PLANE, RATIO
    return [
        (THICKNESS[k % len(THICKNESS)], round(fine + (coarse - fine) * a, 3), round(low * (high / low) ** b, 2))
        for k, (a, b) in enumerate(zip(first, second, strict=True))
    ]


def simulate(program: Path, head: Path, out: Path, seed: int, thickness: float, in_plane: float, ratio: float) -> Path:
    values = {"seed": seed, "thickness": thickness, "in-plane": in_plane, "snr": ratio}
    words = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    subprocess.run([sys.executable, str(program), str(head), str(out), *words], check=True, capture_output=True)  # noqa: S603 (the user's program)
    return out


def mask_of(brain: Volume, folder: Path) -> Path:
    inside = ndimage.binary_fill_holes(brain.data > 0.02 * brain.data.max())
    path = folder / "mask.nii.gz"
    brain.with_data(np.asarray(inside, dtype=np.float32)).save(path)
    return path


def block_noise(noisy: Volume, quiet: Volume, inside: NDArray[np.bool_]) -> float:
    """Standard deviation of noise, in units of the scan, as if the voxels of a block of a slice were independent."""
    difference = (noisy.data - quiet.data).astype(np.float64)
    nx, ny = (n // BLOCK * BLOCK for n in difference.shape[:2])

    def blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(values[:nx, :ny].reshape(nx // BLOCK, BLOCK, ny // BLOCK, BLOCK, -1).mean((1, 3)))

    kept = blocks(difference)[blocks(inside.astype(np.float64)) == 1]
    return float(kept.std() * BLOCK)


def fit(head: BrainScan) -> tuple[OperatorFit, Volume]:
    """As `enhance` fits a scan with its default models, which say nothing of the operator; and the scan without shading."""
    noise = scan_noise(head)
    first = fit_operator(head.brain, noise=noise)
    inside = head.mask.inside if head.weights is None else head.weights > 0
    shading = find_shading(head.brain, inside, float(first.scanner.gamma), "auto")
    return fit_operator(head.brain, noise=noise, shading=shading), shading.flat(head.brain)


def row_of(name: str, brain: Volume, scan: Path, quiet: Path, mask: Path, thickness: float) -> dict[str, Any]:
    head = open_brain(scan, mask=str(mask))
    found, even = fit(head)
    oracle = fit_operator(even, brain, noise=scan_noise(head)).least_squares
    assert oracle is not None
    noise = block_noise(
        head.brain,
        sample(load(quiet), native_grid(head.brain), order=0),
        head.weights > 0 if head.weights is not None else head.mask.inside,
    )
    scale = float(found.scan_operator.intensity_scale or 1.0)
    truth = {
        "gamma": oracle.values["gamma"],
        "blur": oracle.values["blur"],
        "slice_thickness": thickness,
        "noise_std": noise / scale,
    }
    row: dict[str, Any] = {"head": name, "scan": scan.name}
    for parameter in NAMES:
        low, high = found.intervals[parameter]
        value = float(found.scan_operator.noise.std if parameter == "noise_std" else getattr(found.scanner, parameter))
        row |= {parameter: truth[parameter], f"{parameter}_fit": value, f"{parameter}_low": low, f"{parameter}_high": high}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Shares of intervals that hold the truth, and errors: in percent of the truth, of `blur`, which may be 0, in image voxels."""
    lines = ["| parameter | scans | truth in the 95 % interval | error, median | 5 % to 95 % |", "|---|---|---|---|---|"]
    for name in NAMES:
        true, found, low, high = (np.array([float(r[f"{name}{part}"]) for r in rows]) for part in ("", "_fit", "_low", "_high"))
        held = ((low <= true) & (true <= high)).mean()
        few, middle, most = np.percentile(found - true if name == "blur" else 100 * (found / true - 1), [5, 50, 95])
        form = "{:+.2f}" if name == "blur" else "{:+.0f} %"
        lines.append(f"| {name} | {len(rows)} | {held:.0%} | {form.format(middle)} | {form.format(few)} to {form.format(most)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--head", nargs=2, type=Path, action="append", required=True, metavar=("HEAD", "BRAIN"))
    parser.add_argument("--simulator", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=24)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "coverage.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for seed, (thickness, in_plane, ratio) in enumerate(settings(arguments.scans)):
            head, brain = arguments.head[seed % len(arguments.head)]
            name = f"{seed}-{thickness:g}-{in_plane:g}-{ratio:g}.nii.gz"
            if any(row["scan"] == name for row in rows):
                continue
            scan = simulate(arguments.simulator, head, folder / name, seed, thickness, in_plane, ratio)
            quiet = simulate(arguments.simulator, head, folder / "quiet.nii.gz", seed, thickness, in_plane, QUIET)
            good = load(brain)
            rows.append(row_of(head.name.split(".")[0], good, scan, quiet, mask_of(good, folder), thickness))
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            scan.unlink()
            print(
                ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()),
                flush=True,
            )
    (arguments.out / "coverage.md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()

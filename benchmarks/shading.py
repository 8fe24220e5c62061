"""Coil shading found from the scan alone, and what it is worth.

    python benchmarks/shading.py SCAN... --out FOLDER [--solve N]

Each skull-stripped T1w scan at 1 mm is shaded by three receive coils drawn around the head (0, 10, 20 and 40 % of the mean from the 1st to
the 99th percentile of the brain) and measured by `thick-5mm` and by a scanner like a 64 mT one of inverse contrast (gamma 1.3); the shading
comes before the noise. Then the operator is fitted as `enhance --operator fit` does. recovery.csv has a row each: the standard deviation of
the true gain in the brain, of what is left of it after division by what was found (relative to the mean), what was found divided by gamma
(the number that auto judges), and whether it was kept. With --solve the first N scans are reconstructed too, one posterior sample, without
and with shading in the operator (reconstruction.csv): PSNR in the brain after the best common factor, because a shaded scan has no scale of
its own, start level and data misfit. A rerun goes on where it was stopped.
"""

import argparse
import csv
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from dynamicdps.calibration.fit import FITTED
from dynamicdps.operators import LowField, ScanOperator, preset
from dynamicdps.pipeline.fit import FittedScan, fit_scan
from dynamicdps.priors import Prior, load_prior
from dynamicdps.solvers import make_config, solve
from dynamicdps.volumes import BrainScan, IntensityScale, Volume, bounding_box, brain_mask, crop, from_slices, load, resample_to, to_batch
from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.brain_extraction import BrainMask
from dynamicdps.volumes.grids import native_grid

SCANNERS = {
    "thick-5mm": preset("thick-5mm"),
    "64 mT": ScanOperator(LowField(gamma=1.3, in_plane_factor=1.6, blur=0.7, slice_thickness=5.0), 0.03),
}
SIZES = (0.0, 0.1, 0.2, 0.4)
COIL_MM = 130.0  # from the middle of the brain
REACH_MM = 60.0


def coils(affine: NDArray[np.float64], inside: NDArray[np.bool_], size: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Gain of three coils that fall off with the distance, mean 1 in the brain: smooth, and no polynomial."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in inside.shape], indexing="ij"), -1)
    world = apply_affine(affine, index)
    gain = np.zeros(inside.shape)
    for _ in range(3):
        direction = random.standard_normal(3)
        place = world[inside].mean(0) + COIL_MM * direction / np.linalg.norm(direction)
        gain += random.uniform(0.3, 1) / (np.square(world - place).sum(-1) + REACH_MM**2)
    low, high = np.percentile(gain[inside], [1, 99])
    return np.maximum(1 + size * (gain - gain[inside].mean()) / (high - low), 0.2).astype(np.float32)


def measure(truth: Volume, tied: ScanOperator, size: float, seed: int) -> tuple[BrainScan, NDArray[np.float32]]:
    """A shaded scan of a brain, skull-stripped, and its gain."""
    scanner = replace(tied.operator, image_spacing=truth.spacing[2])
    scale = IntensityScale.robust(truth.data).scale
    x = to_batch(truth.data / scale)
    affine = scanner.grid(native_grid(truth)).affine
    brain = to_batch(brain_mask(truth))
    inside = from_slices(scanner.linear(brain)) > 0.5
    gain = coils(affine, inside, size, np.random.default_rng(seed))
    y = scanner(x) * to_batch(gain)
    y = tied.noise.draw(y, [torch.Generator().manual_seed(seed)])
    data = np.where(inside, np.clip(from_slices(y), 0, None) * scale, 0)
    scan = Volume(data.astype(np.float32), affine)
    return BrainScan(scan, Acquisition(), BrainMask(inside, "none"), scan, None), gain


def recovery(head: BrainScan, gain: NDArray[np.float32], fitted: FittedScan) -> dict[str, Any]:
    inside = head.mask.inside
    assert fitted.shading.estimate is not None
    left = gain[inside] / fitted.shading.estimate.field.data[inside]
    judged = fitted.shading.limit and fitted.shading.spread / fitted.shading.limit
    return {
        "true_std": f"{gain[inside].std():.4f}",
        "left_std": f"{left.std() / left.mean():.4f}",
        "found_of_limit": f"{judged:.3f}",
        "kept": fitted.shading.kept,
        "gamma": f"{float(fitted.fit.scanner.gamma):.3f}",
    }


def reconstruct(head: BrainScan, truth: Volume, fitted: FittedScan, prior: Prior) -> dict[str, Any]:
    config = make_config("dynamicdps", {"samples": 1})
    result = solve("dynamicdps", head.brain, fitted.fit.scan_operator, prior, initial=fitted.initial.volume, config=config)
    inside = brain_mask(truth)
    scale = IntensityScale.robust(truth.data).scale

    def quality(image: Volume) -> float:
        x, t = (v.data[inside].astype(np.float64) / scale for v in (resample_to(image, truth.shape, truth.affine), truth))
        return float(-10 * np.log10(np.mean(np.square(x * (x @ t) / (x @ x) - t))))

    return {
        "psnr_initial": f"{quality(result.initial):.3f}",
        "psnr": f"{quality(result.volume):.3f}",
        "start_sigma": f"{result.start_sigma:.4f}",
        "data_misfit": f"{np.sqrt(np.mean(np.square(result.residual.data[head.mask.inside]))):.3f}",
        "seconds": f"{result.seconds:.0f}",
    }


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    rows.append({name: str(value) for name, value in row.items()})
    print(*rows[-1].values(), flush=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--solve", type=int, default=0, help="scans to reconstruct")
    parser.add_argument("--scanners", default=",".join(SCANNERS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    prior = load_prior("brain", "cpu", torch.bfloat16)
    tables = {name: arguments.out / f"{name}.csv" for name in ("recovery", "reconstruction")}
    rows = {name: read(path) for name, path in tables.items()}
    for number, path in enumerate(arguments.scans):
        whole = load(path)
        whole = whole.with_data(np.clip(whole.data, 0, None))
        truth = crop(whole, bounding_box(brain_mask(whole), 4))
        for name in arguments.scanners.split(","):
            for size in SIZES:
                key = {"scan": path.name.split("_")[0], "scanner": name, "shading": size}

                def known(table: str, **more: str) -> bool:
                    wanted = {k: str(v) for k, v in (key | more).items()}  # noqa: B023
                    return any(wanted.items() <= row.items() for row in rows[table])

                if known("recovery") and (number >= arguments.solve or known("reconstruction", operator="auto")):
                    continue
                head, gain = measure(truth, SCANNERS[name], size, zlib.crc32(path.name.encode()))
                found = fit_scan(head, None, "unet-range", FITTED, {}, shading="auto")
                if not known("recovery"):
                    append(tables["recovery"], rows["recovery"], key | recovery(head, gain, found))
                if number >= arguments.solve:
                    continue
                plain = fit_scan(head, None, "unet-range", FITTED, {}, shading="off") if found.shading.kept else found
                without = reconstruct(head, truth, plain, prior)
                append(tables["reconstruction"], rows["reconstruction"], key | {"operator": "off"} | without)
                # Where nothing is kept both operators are the same, and so are the results.
                with_it = reconstruct(head, truth, found, prior) if found.shading.kept else without
                append(tables["reconstruction"], rows["reconstruction"], key | {"operator": "auto"} | with_it)


if __name__ == "__main__":
    main()

"""Change from slice to slice where thick slices were measured: how much there is, and how much of it is real.

    python benchmarks/through_plane.py SCAN... --out FOLDER

A slab of each scan is measured with 5 mm slices by two scanners, enhanced by the conditional model, and reconstructed by the solvers
below. Writes through_plane.csv and summary.md; a rerun goes on where it was stopped.
"""

import argparse
import csv
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamicdps.atomic_file import atomic_write
from dynamicdps.conditional import ConditionalUNet, load_unet
from dynamicdps.diffusion import Denoiser, load_denoiser
from dynamicdps.evaluation import psnr, ssim, through_plane_calibration, through_plane_roughness
from dynamicdps.operators import LowField, add_noise, preset
from dynamicdps.solvers import make_config, solve_tensors
from dynamicdps.volumes import IntensityScale, Volume, brain_mask, load, to_slices

SCANNERS = {
    "thick-5mm": preset("thick-5mm"),
    "64mt": LowField(gamma=0.7, in_plane_factor=1.6, slice_thickness=5.0, noise_std=0.03),
}
COLUMNS = ("psnr", "ssim", "roughness", "calibration", "misfit", "seconds")


def variants(samples: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Label, solver and settings of each row of the table."""
    found: list[tuple[str, str, dict[str, Any]]] = [("conditional", "conditional", {}), ("data-step", "data-step", {})]
    for label, correlation in (("a noise for each slice", 0.0), ("one noise for all", 1.0)):
        counts = sorted({1, samples})
        found += [(f"dynamicdps, {label}, samples: {n}", "dynamicdps", {"through_plane": correlation, "samples": n}) for n in counts]
    return found


def middle(scan: Volume, slices: int) -> tuple[Tensor, Tensor]:
    """The slices in the middle of a scan as a volume ``(1, 1, depth, height, width)`` in [0, 1], and its brain mask."""
    scaled = IntensityScale.robust(scan.data).apply(scan)
    first = max((scan.shape[2] - slices) // 2, 0)
    slab = Volume(scaled.data[..., first : first + slices], scaled.affine)
    return to_slices(slab.data).movedim(0, 1)[None], to_slices(brain_mask(slab)).movedim(0, 1)[None] > 0


def measure(
    truth: Tensor, brain: Tensor, subject: str, scanner: str, samples: int, unet: ConditionalUNet, prior: Denoiser
) -> list[dict[str, Any]]:
    """One row a variant."""
    operator = SCANNERS[scanner]
    y = add_noise(operator(truth), operator.noise_std, [torch.Generator().manual_seed(zlib.crc32(subject.encode()))])
    initial = unet.enhance(y, operator, tuple(truth.shape))
    rows = []
    for label, name, settings in variants(samples):
        began = time.process_time()
        generator = torch.Generator().manual_seed(0)
        found = solve_tensors(name, y, operator, prior, initial, generator=generator, config=make_config(name, settings))
        seconds = time.process_time() - began
        x, t = found.image[0].movedim(1, 0), truth[0].movedim(1, 0)
        row = {
            "subject": subject,
            "scanner": scanner,
            "variant": label,
            "psnr": float(psnr(x, t).mean()),
            "ssim": float(ssim(x, t).mean()),
            "roughness": float(through_plane_roughness(found.image, truth, brain)),
            "calibration": float(through_plane_calibration(found.image, truth, brain)),
            "misfit": float(found.misfit),
            "seconds": seconds,
        }
        rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """Means over the subjects, a table a scanner."""
    lines = []
    for scanner in dict.fromkeys(row["scanner"] for row in rows):
        here = [row for row in rows if row["scanner"] == scanner]
        lines += [
            f"{scanner}, {len({row['subject'] for row in here})} subjects",
            "",
            f"| | {' | '.join(COLUMNS)} |",
            "|---|" + "--:|" * len(COLUMNS),
        ]
        for label in dict.fromkeys(row["variant"] for row in here):
            of = [row for row in here if row["variant"] == label]
            means = [np.mean([float(row[column]) for row in of]) for column in COLUMNS]
            lines.append(f"| {label} | " + " | ".join(f"{m:.{d}f}" for m, d in zip(means, (2, 3, 2, 2, 2, 0), strict=True)) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=20, help="of each scan, from its middle")
    parser.add_argument("--samples", type=int, default=8, help="of the posterior, beside a single one")
    parser.add_argument("--scanners", default=",".join(SCANNERS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    unet, prior = load_unet("unet-range"), load_denoiser("brain-t1w", "cpu", torch.bfloat16)
    table = arguments.out / "through_plane.csv"
    rows: list[dict[str, Any]] = []
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    for path in arguments.scans:
        subject = path.name.split("_")[0]
        truth, brain = middle(load(path), arguments.slices)
        for scanner in arguments.scanners.split(","):
            if any(row["subject"] == subject and row["scanner"] == scanner for row in rows):
                continue
            rows += measure(truth, brain, subject, scanner, arguments.samples, unet, prior)
            with atomic_write(table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    text = summary(rows)
    (arguments.out / "summary.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

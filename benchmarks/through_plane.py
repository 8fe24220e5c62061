"""Change from slice to slice where thick slices were measured: how much there is, and how much of it is real.

    python benchmarks/through_plane.py SCAN... --out FOLDER

A slab of each scan is measured with 5 mm slices by two scanners, enhanced by the conditional model, and reconstructed by the solvers
below. Writes through_plane.csv and summary.md; a rerun goes on where it was stopped.
"""

import argparse
import copy
import csv
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamicdps.atomic_file import atomic_write
from dynamicdps.conditional import ConditionalUNet, load_unet
from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation import psnr, ssim, through_plane_calibration, through_plane_roughness
from dynamicdps.operators import preset
from dynamicdps.priors import Prior, load_prior
from dynamicdps.solvers import make_config, solve_tensors
from dynamicdps.solvers.dynamicdps import QUALITIES
from dynamicdps.volumes import IntensityScale, Volume, brain_mask, load, to_batch

SCANNERS = {
    "thick-5mm": preset("thick-5mm"),
    "64mt": preset("64mt"),
}
COLUMNS = ("psnr", "ssim", "roughness", "calibration", "misfit", "seconds")


# Label, solver, settings, and whether the prior says how its errors correlate along z.
VARIANTS: tuple[tuple[str, str, dict[str, Any], bool], ...] = (
    ("conditional", "conditional", {}, True),
    ("data-step", "data-step", {}, True),
    ("dynamicdps, fast", "dynamicdps", QUALITIES["fast"], True),
    ("dynamicdps", "dynamicdps", {}, True),
    ("dynamicdps, errors taken as independent", "dynamicdps", {}, False),
    ("dynamicdps, best", "dynamicdps", QUALITIES["best"], True),
)


def middle(scan: Volume, slices: int) -> tuple[Tensor, Tensor]:
    """The slices in the middle of a scan as a volume ``(1, 1, depth, height, width)`` in [0, 1], and its brain mask."""
    scaled = IntensityScale.robust(scan.data).apply(scan)
    first = max((scan.shape[2] - slices) // 2, 0)
    slab = Volume(scaled.data[..., first : first + slices], scaled.affine)
    return to_batch(slab.data), to_batch(brain_mask(slab)) > 0


def measure(truth: Tensor, brain: Tensor, subject: str, scanner: str, unet: ConditionalUNet, prior: Prior) -> list[dict[str, Any]]:
    """One row a variant."""
    operator, noise = SCANNERS[scanner].operator, SCANNERS[scanner].noise
    y = noise.draw(operator(truth), [torch.Generator().manual_seed(zlib.crc32(subject.encode()))])
    initial = unet.enhance(y, operator, tuple(truth.shape))
    rows = []
    independent = copy.copy(prior)
    independent.domain = replace(prior.domain, error_correlation=(1.0,))
    for label, name, settings, known in VARIANTS:
        began = time.process_time()
        seeded, used = torch.Generator().manual_seed(0), prior if known else independent
        found = solve_tensors(name, [DataTerm(y, operator, noise)], used, initial, generator=seeded, config=make_config(name, settings))
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
    parser.add_argument("--slices", type=int, default=32, help="of each scan, from its middle")
    parser.add_argument("--scanners", default=",".join(SCANNERS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    unet, prior = load_unet("unet-range"), load_prior("brain", "cpu", torch.bfloat16)
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
            rows += measure(truth, brain, subject, scanner, unet, prior)
            with atomic_write(table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    text = summary(rows)
    (arguments.out / "summary.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

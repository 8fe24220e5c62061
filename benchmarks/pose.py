"""What a tilted head costs, and what it gains where the image grid is turned upright inside the forward model.

    python benchmarks/pose.py BRAIN --out FILE.csv [--tilts 0:0,20:0,0:20] [--slab MM]

BRAIN is a whole skull-stripped T1w scan at 1 mm, such as ch2bet.nii.gz of Debian's mricron-data (Colin 27). It is tilted by roll and
pitch (degrees about the front-back and the left-right axis) and a slab of it is measured by `thick-5mm`, scanner-aligned; the operator and
the tilt are known, the conditional model is `unet-range`, one posterior sample. `off`: the image grid is the scanner's. `on`: the image
grid is upright, and A has the resampling to the scanner's 1 mm grid between contrast and slice profile; its initial image is the same one,
resampled. Both are compared with the brain interpolated once on their own grid, over the voxels that were measured. A row each:
roll, pitch, align, PSNR of initial image and result in the brain (dB), data misfit, seconds. A rerun goes on where it was stopped.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dynamicdps.conditional import load_conditional
from dynamicdps.operators import AffineResample, Composition, Contrast, PowerLaw, ScanOperator, preset, simulate
from dynamicdps.priors import load_prior
from dynamicdps.solvers import make_config, solve
from dynamicdps.solvers.initial import initial_from_model
from dynamicdps.volumes import Volume, bounding_box, brain_mask, crop, load
from dynamicdps.volumes.grids import Grid, native_grid, prior_grid, sample

MARGIN_MM = 4
COLUMNS = ("roll", "pitch", "align", "psnr_initial", "psnr", "data_misfit", "seconds")


def tilted(brain: Volume, roll: float, pitch: float) -> tuple[Volume, NDArray[np.float64]]:
    """The brain turned about the middle of its box, half a voxel aside so that every tilt interpolates, and that movement."""
    middle = apply_affine(brain.affine, (np.array(brain.shape) - 1) / 2)
    movement = np.eye(4)
    movement[:3, :3] = Rotation.from_euler("xy", (pitch, roll), degrees=True).as_matrix()
    movement[:3, 3] = middle - movement[:3, :3] @ middle + 0.5
    moved = Volume(brain.data, movement @ brain.affine, brain.native)
    found = sample(moved, prior_grid(moved), order=3)
    found = found.with_data(np.clip(found.data, 0, None))
    return crop(found, bounding_box(brain_mask(found), MARGIN_MM)), movement


def psnr_in(image: Volume, truth: Volume, inside: NDArray[np.bool_], scale: float) -> float:
    return float(-10 * np.log10(np.mean(np.square((image.data[inside] - truth.data[inside]) / scale))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brain", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--tilts", default="0:0,20:0,0:20,30:0,0:30,10:0,0:10")
    parser.add_argument("--slab", type=int, default=40, help="height of what is measured, in mm")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    whole = load(arguments.brain)
    brain = whole.with_data(np.clip(whole.data, 0, None))
    brain = crop(brain, bounding_box(brain_mask(brain), MARGIN_MM))
    unet, prior = load_conditional("unet-range"), load_prior("brain", "cpu", torch.bfloat16)
    config = make_config("dynamicdps", {"samples": 1})
    done = arguments.out.exists()
    rows = list(csv.DictReader(arguments.out.open(newline="", encoding="utf-8"))) if done else []
    for text in arguments.tilts.split(","):
        roll, pitch = map(float, text.split(":"))
        if any((float(row["roll"]), float(row["pitch"])) == (roll, pitch) for row in rows):
            continue
        turned, movement = tilted(brain, roll, pitch)
        first = (turned.shape[2] - arguments.slab) // 2
        truth = crop(turned, (slice(None), slice(None), slice(first, first + arguments.slab)))
        y, tied = simulate(truth, preset("thick-5mm"), seed=0)
        scale = float(tied.intensity_scale or 1.0)
        initial = initial_from_model(y, tied, unet, "unet-range").volume
        # Upright: the head's own axes, over what was measured.
        own = Volume(truth.data, np.linalg.inv(movement) @ truth.affine)
        box = prior_grid(own.with_data(brain_mask(truth).astype(np.float32)))
        held = sample(own.with_data(brain_mask(truth).astype(np.float32)), box).data > 0.5
        part = bounding_box(held, MARGIN_MM)
        upright = crop(Volume(held.astype(np.float32), box.affine), part)
        scanner = tied.operator
        matrix = np.linalg.inv(upright.affine) @ own.affine
        aligned = Composition(
            (
                replace(scanner, gamma=1.0),  # type: ignore[type-var]
                AffineResample(torch.from_numpy(matrix).float(), truth.shape),
                Contrast(PowerLaw(scanner.gamma)),  # type: ignore[attr-defined]
            )
        )
        measured = Volume(y.data, np.linalg.inv(movement) @ y.affine)
        # Only what lies in the slab and in the brain is compared, away from the faces of the slab.
        core = np.zeros(truth.shape, np.float32)
        core[:, :, 3:-3] = brain_mask(truth)[:, :, 3:-3]
        cases = {
            "off": (y, tied, initial, truth, core > 0.5),
            "on": (
                measured,
                ScanOperator(aligned, tied.noise, upright.shape, upright.affine, scale),
                sample(Volume(initial.data, own.affine), native_grid(upright), order=3),
                sample(brain, Grid(upright.shape, upright.affine), order=3),
                sample(Volume(core, own.affine), native_grid(upright)).data > 0.99,
            ),
        }
        for name, (scan, operator, start, target, inside) in cases.items():
            result = solve("dynamicdps", scan, operator, prior, initial=start, config=config)
            misfit = float(np.sqrt(np.mean(np.square(result.residual.data))))
            found = [psnr_in(image, target, inside, scale) for image in (start, result.volume)]
            values = (roll, pitch, name, *(f"{v:.2f}" for v in found), f"{misfit:.3f}", f"{result.seconds:.0f}")
            rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
            print(*values, flush=True)
            with arguments.out.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()

"""A whole brain from vertex to cerebellum: geometry, PSNR by level of the brain, and tissue volumes.

    python benchmarks/whole_brain.py BRAIN --out DIR [--samples N]

BRAIN is a whole skull-stripped T1w scan at 1 mm, such as ch2bet.nii.gz of Debian's package mricron-data (Colin 27). It is measured by
`thick-5mm` and by `64mt`, the operator is known, the conditional model is `unet-range`. Printed: PSNR over the brain's
slices, by thirds of the brain's height, tissue volume errors, and how far the result's voxels lie from the truth's in mm. About five
minutes a scanner with one sample on one core.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from dynamicdps.conditional import load_conditional
from dynamicdps.evaluation import TISSUES, psnr, segment, tissue_volumes, volume_errors
from dynamicdps.operators import preset, simulate
from dynamicdps.priors import load_prior
from dynamicdps.solvers import make_config, solve
from dynamicdps.solvers.initial import initial_from_model
from dynamicdps.volumes import IntensityScale, Volume, bounding_box, brain_mask, crop, load, to_slices

SCANNERS = {name: preset(name) for name in ("thick-5mm", "64mt")}
LEVELS = ("below", "middle", "above")


def measure(image: Volume, truth: Volume, scale: IntensityScale) -> dict[str, float]:
    mask = brain_mask(truth)
    x, t = to_slices(scale.apply(image).data), to_slices(scale.apply(truth).data)
    held = np.flatnonzero(mask.mean((0, 1)) > 0.05)
    found = {"psnr": float(psnr(x[held], t[held]).mean())}
    for name, part in zip(LEVELS, np.array_split(held, 3), strict=True):
        found[f"psnr_{name}"] = float(psnr(x[part], t[part]).mean())
    errors = volume_errors(
        tissue_volumes(segment(image.data, mask), truth.spacing), tissue_volumes(segment(truth.data, mask), truth.spacing)
    )
    return found | {f"{tissue}_error": errors[tissue] for tissue in TISSUES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brain", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--samples", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    whole = load(arguments.brain)
    whole = whole.with_data(np.clip(whole.data, 0, None))
    truth = crop(whole, bounding_box(brain_mask(whole), 6))
    scale = IntensityScale.robust(truth.data)
    unet, prior = load_conditional("unet-range"), load_prior("brain", "cpu", torch.bfloat16)
    rows = []
    for name, scanner in SCANNERS.items():
        measurement, tied = simulate(truth, scanner, seed=0)
        initial = initial_from_model(measurement, tied, unet, "unet-range").volume
        config = make_config("dynamicdps", {"samples": arguments.samples})
        result = solve("dynamicdps", measurement, tied, prior, initial=initial, config=config)
        off = float(np.abs(result.volume.affine - truth.affine).max())
        for stage, image in (("conditional", initial), ("dynamicdps", result.volume)):
            found = measure(image, truth, scale)
            rows.append([name, stage, *(f"{value:.5g}" for value in found.values()), f"{off:.2g}", f"{result.seconds:.0f}"])
            levels = " / ".join(f"{found[f'psnr_{level}']:.2f}" for level in LEVELS)
            volumes = " / ".join(f"{found[f'{tissue}_error']:+.1%}" for tissue in TISSUES)
            print(f"| {name} | {stage} | {found['psnr']:.2f} | {levels} | {volumes} | {off:.1g} |", flush=True)
        result.volume.save(arguments.out / f"{name.replace(' ', '')}.nii.gz")
    with (arguments.out / "whole_brain.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scanner", "stage", *measure(truth, truth, scale), "affine_off_mm", "seconds"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()

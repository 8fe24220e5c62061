"""Quality of DynamicDPS against the number of noise levels, from 1 to 50: the fewest that hold it.

    python benchmarks/steps.py SCAN... --out DIR

Slices of the scans (four each) are measured by `blur-mismatch` and `iqt-out`; the conditional model is `unet-iqt-in`. One sample, and
the mean of eight up to ten levels. Prints a table and writes steps.csv. Six scans take ten minutes on one core.
"""

import argparse
import csv
from pathlib import Path

import torch

from dynamicdps.conditional import load_conditional
from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation import psnr, ssim
from dynamicdps.operators import preset
from dynamicdps.priors import load_prior
from dynamicdps.solvers import DynamicDPSConfig, solve_tensors
from dynamicdps.solvers.calibrate import spread_slabs

CONDITIONS = ("blur-mismatch", "iqt-out")
STEPS = (1, 2, 3, 5, 7, 10, 20, 50)
MOST_FOR_EIGHT = 10
SLICES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    truth = spread_slabs(arguments.scans, SLICES)[:, :, 0]
    prior, unet = load_prior("brain", "cpu", torch.bfloat16), load_conditional("unet-iqt-in")
    rows: list[dict[str, str | float]] = []
    print("| condition | samples | steps | passes | PSNR dB | SSIM |\n|---|---|---|---|---|---|")
    for condition in CONDITIONS:
        scanner = preset(condition)
        operator = scanner.operator
        y = scanner.noise.draw(operator(truth), [torch.Generator().manual_seed(i) for i in range(len(truth))])
        initial = unet.enhance(y, operator, truth.shape)
        for samples in (1, 8):
            for steps in STEPS if samples == 1 else [s for s in STEPS if s <= MOST_FOR_EIGHT]:
                generator, config = torch.Generator().manual_seed(0), DynamicDPSConfig(steps=steps, samples=samples)
                image = solve_tensors(
                    "dynamicdps", [DataTerm(y, operator, scanner.noise)], prior, initial, generator=generator, config=config
                ).image
                row: dict[str, str | float] = {"condition": condition, "samples": samples, "steps": steps, "nfe": samples * steps}
                row |= {"psnr": round(float(psnr(image, truth).mean()), 3), "ssim": round(float(ssim(image, truth).mean()), 4)}
                rows.append(row)
                print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    with (arguments.out / "steps.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

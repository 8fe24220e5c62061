"""How well the prior denoises at each level of a brain: where it is out of its depth.

    python benchmarks/prior_levels.py BRAIN --out DIR [--prior NAME|FILE]

BRAIN is a whole skull-stripped T1w scan at 1 mm in the orientation and place of MNI space, such as ch2bet.nii.gz of Debian's package
mricron-data (Colin 27). Noise of known levels is added to axial slices and taken away by the prior. Printed and written to
prior_levels.csv: by 10 mm of height the root mean square error of whole slices over what the model card says of held-out slices of the
training's kind, and the error inside the brain. A minute on one core.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from dynamicdps.priors import load_prior
from dynamicdps.priors.sampling import noise_like
from dynamicdps.volumes import IntensityScale, bounding_box, brain_mask, crop, load, to_slices

SIGMAS = (0.06, 0.12, 0.25)
BIN_MM = 10
EVERY = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brain", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--prior", default="brain")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    whole = load(arguments.brain)
    whole = whole.with_data(np.clip(whole.data, 0, None))
    brain = crop(whole, bounding_box(brain_mask(whole), 4))
    x = to_slices(IntensityScale.robust(brain.data).apply(brain).data)
    inside = to_slices(brain_mask(brain).astype(np.float32)) > 0
    heights = brain.affine[2, 3] + brain.affine[2, 2] * np.arange(len(x))
    prior = load_prior(arguments.prior, "cpu", torch.bfloat16)
    # Of whole slices, as the card's errors are, and of the brain in them: a small section has much background.
    errors, in_brain = (torch.full((len(SIGMAS), len(x)), torch.nan) for _ in range(2))
    for k in range(0, len(x), EVERY):
        if not inside[k].any():
            continue
        for i, sigma in enumerate(SIGMAS):
            level = torch.full((1,), sigma)
            noisy = x[k : k + 1] + sigma * noise_like(x[k : k + 1], [torch.Generator().manual_seed(k)])
            square = (prior(noisy, level) - x[k : k + 1]).square()
            errors[i, k], in_brain[i, k] = square.mean().sqrt(), square[inside[k : k + 1]].mean().sqrt()
    promised = [float(prior.error(torch.tensor([s]))) for s in SIGMAS]
    share = inside.flatten(1).float().mean(1)
    rows: list[dict[str, float]] = []
    for low in range(int(heights[0] // BIN_MM) * BIN_MM, int(heights[-1]) + 1, BIN_MM):
        here = torch.from_numpy((heights >= low) & (heights < low + BIN_MM)) & errors[0].isfinite()
        if not bool(here.any()):
            continue
        row = {"from_mm": low, "to_mm": low + BIN_MM, "brain_share": round(float(share[here].mean()), 3)}
        for sigma, error, own, card in zip(SIGMAS, errors, in_brain, promised, strict=True):
            row[f"of_card@{sigma}"] = round(float(error[here].square().mean().sqrt()) / card, 2)
            row[f"brain_rmse@{sigma}"] = round(float(own[here].square().mean().sqrt()), 4)
        rows.append(row)
    with (arguments.out / "prior_levels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    header = list(rows[0])
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(v) for v in row.values()) + " |")


if __name__ == "__main__":
    main()

"""How well the prior denoises scans of each contrast, told the right contrast, none, or T1w.

    python benchmarks/prior_contrasts.py SCAN_T2w.nii.gz SCAN_FLAIR.nii.gz ... --out prior_contrasts.json [--slices slices.npz]

Scans are skull-stripped, at 1 mm, and were kept out of the training; their names end in their BIDS suffix. Noise of known levels is added
to the 16 middle slices in the box of the brain, as a training does for the error table of a model card, and taken away by the prior. Of
`--slices`, single FLAIR slices `(slices, rows, columns)` with the front in the first row, the last 60 are used: no training has seen them.
Printed: the root mean square error by contrast, what the prior is told, and noise level; `all` is what the card says of unknown contrasts.
Five minutes of one core.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynamicdps.priors import load_prior
from dynamicdps.training.prior_training import VALIDATION_LEVELS, denoising_errors, error_correlation, validation_volume
from dynamicdps.volumes import IntensityScale

HELD_OUT_SLICES = 60
COMPARED = (0.06, 0.12, 0.25, 0.5)
MARGIN = 8


def in_box(volume: Tensor) -> Tensor:
    """The slices ``(depth, height, width)`` without the empty margin around the brain."""
    filled = volume > 0
    box = []
    for axis in (1, 2):
        at = filled.any(0).any(2 - axis).nonzero()[:, 0]
        box.append(slice(max(0, int(at.min()) - MARGIN), int(at.max()) + 1 + MARGIN))
    return volume[:, box[0], box[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--slices", type=Path)
    parser.add_argument("--prior", default="brain")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    groups: dict[str, list[Tensor]] = {}
    for scan in arguments.scans:
        suffix = scan.name.partition(".")[0].rpartition("_")[2]
        groups.setdefault(suffix, []).append(in_box(validation_volume(scan)))
    if arguments.slices is not None:
        # Rows from back to front, as everywhere.
        data = np.load(arguments.slices)["slices"][-HELD_OUT_SLICES:, ::-1].astype(np.float32)
        scaled = [torch.from_numpy(np.ascontiguousarray(each / IntensityScale.robust(each).scale))[None] for each in data]
        groups["FLAIR, single slices"] = [in_box(each) for each in scaled]
    groups["all"] = [volume for volumes in groups.values() for volume in volumes if len(volume) > 1]
    rows = []
    for group, volumes in groups.items():
        own = "unknown" if group == "all" else group.partition(",")[0]
        for told in dict.fromkeys((own, "unknown", "T1w")):
            prior = load_prior(arguments.prior, contrast=told)
            errors = denoising_errors(prior, volumes, VALIDATION_LEVELS if told == own else COMPARED, inner=1)
            row = {"contrast": group, "told": told, "errors": {f"{level:g}": round(error, 6) for level, error in errors.items()}}
            if told == own and any(len(volume) > 1 for volume in volumes):
                row["error_correlation"] = [round(value, 4) for value in error_correlation(prior, volumes)]
            rows.append(row)
            print(f"| {group} | {told} | " + " | ".join(f"{errors[level]:.4f}" for level in COMPARED) + " |", flush=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

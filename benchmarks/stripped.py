"""What it changes that the exact zeros around a stripped brain are no measurement.

Slabs of good scans are measured, stripped on the scanner's grid, and reconstructed twice: with the zeros as data, and with the measured
voxels alone, as `enhance` does. Printed are PSNR inside the brain and SSIM of the brain alone by subject, and the mean difference.

    python benchmarks/stripped.py SCANS --degradation 64mt --samples 3
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dynamicdps.conditional import load_conditional
from dynamicdps.evaluation import psnr_brain, ssim
from dynamicdps.operators import ScanOperator, preset, simulate
from dynamicdps.priors import load_prior
from dynamicdps.solvers import DynamicDPSConfig, solve
from dynamicdps.solvers.initial import initial_from_model
from dynamicdps.volumes import IntensityScale, brain_mask, crop, load, to_slices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path, help="skull-stripped scans that no model was trained on")
    parser.add_argument("--degradation", default="64mt")
    parser.add_argument("--slices", type=int, default=12, help="from the middle")
    parser.add_argument("--samples", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior, model = load_prior("brain"), load_conditional("unet-range")
    config, operator = DynamicDPSConfig(samples=arguments.samples), preset(arguments.degradation)
    without_noise = ScanOperator(replace(operator.operator, gamma=1.0), 1e-6)
    gains = []
    print(f"{'subject':32} {'zeros are data':>16} {'measured alone':>16}")
    for path in arguments.scans:
        whole = load(path)
        first = (whole.shape[2] - arguments.slices) // 2
        truth = crop(whole, (slice(None), slice(None), slice(first, first + arguments.slices)))
        inside = brain_mask(truth).astype(np.float32)
        measured, tied = simulate(truth, operator, seed=1)
        share, _ = simulate(truth.with_data(inside), without_noise, seed=1, scale=IntensityScale(1.0))
        kept = share.data > 0.5
        # A zero inside the mask would be taken for one outside of it.
        stripped = measured.with_data(np.where(kept, np.maximum(measured.data, 1e-6), 0).astype(np.float32))
        initial = initial_from_model(stripped, tied, model, "unet-range").volume
        scale = IntensityScale.robust(truth.data)
        t, brain = to_slices(scale.apply(truth).data).double(), to_slices(inside) > 0
        rows = []
        for forward in (tied, tied.weighted(kept.astype(np.float32))):
            found = solve("dynamicdps", stripped, forward, prior, initial=initial, config=config).volume
            x = to_slices(scale.apply(found).data).double()
            rows.append((float(psnr_brain(x, t, brain).mean()), float(ssim(x * brain, t).mean())))
        gains.append(np.subtract(rows[1], rows[0]))
        print(f"{path.name[:32]:32} " + " ".join(f"{psnr:8.2f} {similarity:7.4f}" for psnr, similarity in rows), flush=True)
    mean = np.mean(gains, axis=0)
    print(f"mean difference: {mean[0]:+.2f} dB, {mean[1]:+.4f} SSIM; smallest {np.min(gains, axis=0)[0]:+.2f} dB")


if __name__ == "__main__":
    main()

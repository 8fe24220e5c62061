"""Our DPS and DiffPIR against deepinv's: the same prior, slices, linear scanner and number of denoiser passes.

    python benchmarks/against_deepinv.py SCAN... [--steps N]

Needs deepinv (extra `peers`, with the torchvision that fits your torch). Prints seconds a slice, passes and PSNR; pairs are timed in turn,
so take the ratios. float32, one sample; five minutes on one core.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from dynamicdps.conditional import load_conditional
from dynamicdps.data_term import DataTerm
from dynamicdps.evaluation import psnr
from dynamicdps.operators import LowField, add_noise
from dynamicdps.priors import load_prior
from dynamicdps.solvers import solve_tensors
from dynamicdps.solvers.calibrate import spread_slabs
from dynamicdps.solvers.deepinv_adapter import register_deepinv
from dynamicdps.solvers.settings import make_config

NOISE = 0.02
OPERATOR = LowField(in_plane_factor=2.0, blur=1.0)
PAIRS = (("diffpir", "deepinv-diffpir"), ("dps", "deepinv-dps"))
ROUNDS = 2
SLICES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    register_deepinv()
    truth = spread_slabs(arguments.scans, SLICES)[:, :, 0]
    y = add_noise(OPERATOR(truth), NOISE, [torch.Generator().manual_seed(i) for i in range(len(truth))])
    prior = load_prior("brain")
    initial = load_conditional("unet-iqt-in").enhance(y, OPERATOR, truth.shape)
    print("| solver | passes | and back | seconds a slice | PSNR dB |\n|---|---|---|---|---|")
    for pair in PAIRS:
        seconds: dict[str, list[float]] = {name: [] for name in pair}
        for _ in range(ROUNDS):
            for name in pair:
                config = make_config(name, {"steps": arguments.steps})
                began = time.perf_counter()
                found = solve_tensors(
                    name, [DataTerm(y, OPERATOR, NOISE)], prior, initial, generator=torch.Generator().manual_seed(0), config=config
                )
                seconds[name].append(time.perf_counter() - began)
                if len(seconds[name]) == ROUNDS:
                    each = min(seconds[name]) / len(truth)
                    cost = f"{int(found.nfe.max())} | {int(found.nbackward.max())}"
                    print(f"| {name} | {cost} | {each:.2f} | {float(psnr(found.image, truth).mean()):.2f} |", flush=True)
        ratio = statistics.median(b / a for a, b in zip(*(seconds[name] for name in pair), strict=True))
        print(f"| {pair[1]} over {pair[0]} | | | {ratio:.2f} | |", flush=True)


if __name__ == "__main__":
    main()

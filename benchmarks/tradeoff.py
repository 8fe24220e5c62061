"""Distortion against realism of DynamicDPS: PSNR and the distance of the spectrum to the truth's, against K and eta.

    python benchmarks/tradeoff.py SCAN... [--prior NAME|FILE]

Draws single samples once and averages the first K of them. Writes docs/images/tradeoff.png and prints the numbers as a table.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from dynamicdps.conditional import load_unet
from dynamicdps.data_term import DataTerm, data_step
from dynamicdps.evaluation.fidelity import psnr
from dynamicdps.operators import preset
from dynamicdps.priors import load_prior
from dynamicdps.solvers import DynamicDPSConfig, solve_dynamicdps
from dynamicdps.solvers.calibrate import spread_slabs

COUNTS = (1, 2, 4, 8, 16)
RUNS = {
    "eta 1, most probable data step (default)": DynamicDPSConfig(),
    "eta 0.5": DynamicDPSConfig(eta=0.5),
    "eta 0": DynamicDPSConfig(eta=0.0),
    "drawn data step (--estimate sample)": DynamicDPSConfig(estimate="sample"),
}
COLOURS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--prior", default="brain")
    parser.add_argument("--degradation", default="blur-mismatch")
    parser.add_argument("--out", type=Path, default=Path("docs/images/tradeoff.png"))
    arguments = parser.parse_args()
    truth = spread_slabs(arguments.scans, 1)[:, :, 0]
    denoiser = load_prior(arguments.prior, "cpu", torch.bfloat16)
    scanner = preset(arguments.degradation)
    operator = scanner.operator
    y = scanner.noise.draw(operator(truth), [torch.Generator().manual_seed(i) for i in range(len(truth))])
    initial = load_unet("unet-iqt-in").enhance(y, operator, truth.shape)
    curves: dict[str, list[tuple[float, float]]] = {}
    print("| run | K | PSNR dB | spectrum dB |\n|---|---|---|---|")
    for name, config in RUNS.items():
        points = curves[name] = []
        total = torch.zeros_like(truth)
        for k in range(max(COUNTS)):
            one = replace(config, samples=1, estimate="sample" if config.estimate == "sample" else "mean")
            found = solve_dynamicdps(
                [DataTerm(y, operator, scanner.noise)], denoiser, initial, generator=torch.Generator().manual_seed(k), config=one
            )
            total += found.image
            if k + 1 in COUNTS:
                spread = torch.full((len(truth),), 0.02)
                mean = data_step(DataTerm(y, operator, scanner.noise), total / (k + 1), spread, iterations=2).x
                points.append((float(psnr(mean, truth).mean()), float(spectral_distance(mean, truth).mean())))
                print(f"| {name} | {k + 1} | {points[-1][0]:.2f} | {points[-1][1]:.2f} |", flush=True)
    flat = solve_dynamicdps(
        [DataTerm(y, operator, scanner.noise)],
        denoiser,
        initial,
        generator=torch.Generator(),
        config=DynamicDPSConfig(estimate="deterministic"),
    )
    for label, image in (("deterministic", flat.image), ("conditional model", initial)):
        point = float(psnr(image, truth).mean()), float(spectral_distance(image, truth).mean())
        curves[label] = [point]
        print(f"| {label} | | {point[0]:.2f} | {point[1]:.2f} |")
    draw(curves, f"Distortion against realism, {arguments.degradation}, {len(truth)} slices", arguments.out)


def draw(curves: dict[str, list[tuple[float, float]]], title: str, path: Path) -> None:
    """One line a run; single points are black."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    colours, markers = iter(COLOURS), iter("sx")
    for name, points in curves.items():
        if len(points) == 1:
            axes.plot(*points[0], next(markers), color="black", label=name)
            continue
        colour = next(colours)
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=name)
        for count, point in ((COUNTS[0], points[0]), (COUNTS[-1], points[-1])):
            axes.annotate(f"K={count}", point, textcoords="offset points", xytext=(7, -3), fontsize=8, color=colour)
    axes.set(xlabel="PSNR, dB (right: less error)", ylabel="distance to the truth's spectrum, dB (down: more real)", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def spectral_distance(x: Tensor, truth: Tensor, rings: int = 40) -> Tensor:
    """Mean absolute difference of the radial power spectra in dB, ``(batch,)``: 0 for an image as sharp and textured as the truth."""
    return (10 * (radial_power(x, rings).log10() - radial_power(truth, rings).log10())).abs().mean(1)


def radial_power(x: Tensor, rings: int) -> Tensor:
    """Power in rings of equal width up to half a cycle a pixel, ``(batch, rings)``."""
    height, width = x.shape[-2:]
    radius = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width)[None] ** 2).sqrt()
    ring = (radius / 0.5 * rings).long().clamp(max=rings)
    power = torch.fft.fft2(x[:, 0]).abs().square()
    return torch.stack([power[:, ring == r].mean(1) for r in range(rings)], dim=1)


if __name__ == "__main__":
    main()

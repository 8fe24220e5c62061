"""How far is each sampler from the exact posterior? A problem small enough to know.

Images of independent normal pixels are measured at half the resolution with noise. Every block of 2 x 2 pixels then is a problem of its
own with a known normal posterior: one direction (the block's mean) is measured, three are not. Block by block, this compares the spread
of each solver's samples in both kinds of direction, and their mean in the measured one, with the posterior's.

Every sampler runs with its default settings, one sample an image, from pure noise unless the name says otherwise; DynamicDPS in both of
its ways to sample. The defaults are chosen for real images, not for this problem.

    python benchmarks/posterior_bias.py

prints a table and writes docs/images/posterior_bias.png (about a minute on one core).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import LowField, add_noise
from dynamicdps.solvers import make_config, solve_tensors

MEAN, STD, NOISE = 0.5, 0.2, 0.05
SIZE, BATCH = 32, 16
OUT = Path(__file__).parents[1] / "docs" / "images" / "posterior_bias.png"

# In orthonormal coordinates of a block: what is measured is its coefficient plus noise of 2 NOISE.
GAIN = STD**2 / (STD**2 + 4 * NOISE**2)
SPREAD = STD * (1 - GAIN) ** 0.5

SAMPLERS: list[tuple[str, str, dict[str, Any]]] = [
    ('DynamicDPS, estimate="sample"', "dynamicdps", {"estimate": "sample", "start_sigma": 10.0}),
    ('DynamicDPS, estimate="mean"', "dynamicdps", {"start_sigma": 10.0}),
    ("PiGDM", "pigdm", {}),
    ('PiGDM, spread="error"', "pigdm", {"spread": "error"}),
    ("DiffPIR", "diffpir", {}),
    ("DAPS", "daps", {}),
    ("DDRM", "ddrm", {}),
    ("DDNM+", "ddnm", {}),
    ("DDS", "dds", {}),
    ("DPS", "dps", {}),
    ("DPS+", "dps+", {}),
    ("MCG", "mcg", {}),
    ("Projection", "projection", {}),
    ("CCDF (start level 0.3)", "ccdf", {}),
    ("RED-diff", "red-diff", {}),
    ("DynamicDPS as in its paper", "dynamicdps-paper", {"start_sigma": 10.0}),
]
DPS_STEPS = np.geomspace(0.01, 10, 37)

MEASURED, UNSEEN, ERROR, QUIET = "#0072B2", "#D55E00", "#000000", "#777777"


class Prior:
    """The exact denoiser of independent normal pixels, with its error r(sigma)."""

    data_mean = MEAN

    def __init__(self) -> None:
        self.errors = {s: s * STD / (s**2 + STD**2) ** 0.5 for s in np.geomspace(1e-3, 30, 200).tolist()}

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        share = STD**2 / (STD**2 + sigma.to(x).view(-1, 1, 1, 1) ** 2)
        return MEAN + share * (x - MEAN)


@dataclass(frozen=True)
class Bias:
    """What a sampler's samples are against the exact posterior.

    Attributes:
        measured: standard deviation of the measured coefficients over the posterior's.
        unseen: of those that are not measured.
        mean: error of the measured coefficients' mean, rms, in the posterior's standard deviations.
        misfit: rms of the residual in standard deviations of the noise.
        passes: denoiser passes of an image, the most.
    """

    measured: float
    unseen: float
    mean: float
    misfit: float
    passes: int


def measure(name: str, settings: dict[str, Any], batch: int = BATCH) -> Bias:
    """Run a solver on `batch` images of independent blocks.

    Given what was measured, the samples of a method are spread around a line: its slope is the error of the mean, the rest the spread.
    """
    operator = LowField(in_plane_factor=2.0)
    truth = MEAN + STD * torch.randn(batch, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    y = add_noise(operator(truth), NOISE, [torch.Generator().manual_seed(i) for i in range(batch)])
    config = make_config(name, {"samples": 1} | settings)
    generator = torch.Generator().manual_seed(1)
    found = solve_tensors(name, [DataTerm(y, operator, NOISE)], Prior(), torch.full_like(truth, MEAN), generator=generator, config=config)
    a, b, c, d = ((found.image.double() - MEAN)[..., i::2, j::2] / 2 for i in (0, 1) for j in (0, 1))
    measured, unseen = a + b + c + d, torch.stack([a + b - c - d, a - b + c - d, a - b - c + d])
    told = 2 * (y.double() - MEAN)
    gain = (measured * told).sum() / told.square().sum()
    return Bias(
        measured=float((measured - gain * told).std()) / SPREAD,
        unseen=float(unseen.std()) / STD,
        mean=float((gain - GAIN).abs() * told.square().mean().sqrt()) / SPREAD,
        misfit=float(found.misfit.double().square().mean().sqrt()),
        passes=int(found.nfe.max()),
    )


def print_table(rows: list[tuple[str, Bias]]) -> None:
    """Markdown; 1 is the exact posterior, for the mean 0."""
    print("| sampler | passes | spread, measured | spread, unmeasured | error of the mean | misfit |")
    print("|---|--:|--:|--:|--:|--:|")
    print("| exact posterior | | 1.00 | 1.00 | 0.00 | 1.00 |")
    for label, bias in rows:
        print(f"| {label} | {bias.passes} | {bias.measured:.2f} | {bias.unseen:.2f} | {bias.mean:.2f} | {bias.misfit:.2f} |")


def draw_dots(axes: Axes, values: list[float], exact: float, colour: str, title: str, label: str) -> None:
    """One row a sampler, its distance from the exact value drawn as a bar."""
    rows = np.arange(len(values))
    axes.axvline(exact, color=QUIET, lw=1.5)
    axes.hlines(rows, exact, values, color=colour, lw=5, alpha=0.35)
    axes.plot(values, rows, "o", color=colour, ms=9)
    for row, value in zip(rows, values, strict=True):
        side = 1 if value >= exact else -1
        axes.annotate(
            f"{value:.2f}", (value, row), xytext=(9 * side, 0), textcoords="offset points", va="center", ha="left" if side > 0 else "right"
        )
    axes.set_title(title, loc="left", fontweight="bold", color=colour)
    axes.set_xlabel(label)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)


def draw_dps(axes: Axes, biases: list[Bias]) -> None:
    """DPS against its step."""
    axes.axhline(1, color=QUIET, lw=1.5)
    axes.text(DPS_STEPS[0], 1.03, "exact spread", color=QUIET, va="bottom")
    lines = [
        ([b.measured for b in biases], MEASURED, "-", "o", "spread, measured directions"),
        ([b.unseen for b in biases], UNSEEN, "--", "s", "spread, unmeasured directions"),
        ([b.mean for b in biases], ERROR, ":", "^", "error of the mean, measured (exact: 0)"),
    ]
    for values, colour, style, marker, label in lines:
        axes.plot(DPS_STEPS, values, style, color=colour, marker=marker, ms=5, lw=2, label=label)
    axes.axvline(1.0, color=QUIET, lw=1, ls=(0, (2, 3)))
    axes.annotate("default", (1.0, 2.25), xytext=(4, 0), textcoords="offset points", color=QUIET)
    axes.set_xscale("log")
    axes.set_xticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axes.set_ylim(0, 2.4)
    axes.set_xlabel("step length of DPS")
    axes.set_ylabel("posterior standard deviations")
    axes.set_title("DPS by its step: none has both the spread and the mean right", loc="left", fontweight="bold")
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)


def draw(rows: list[tuple[str, Bias]], dps: list[Bias], path: Path) -> None:
    """The figure."""
    plt.rcParams.update({"font.size": 11, "axes.titlesize": 12})
    figure = plt.figure(figsize=(14, 10), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)  # type: ignore[union-attr,call-arg]
    grid = figure.add_gridspec(2, 3, height_ratios=[1.9, 1])
    first = figure.add_subplot(grid[0, 0])
    second, third = (figure.add_subplot(grid[0, i], sharey=first) for i in (1, 2))
    ratio = "standard deviation of the samples / exact one"
    draw_dots(first, [b.measured for _, b in rows], 1, MEASURED, "Spread, measured directions", ratio)
    draw_dots(second, [b.unseen for _, b in rows], 1, UNSEEN, "Spread, unmeasured directions", ratio)
    draw_dots(third, [b.mean for _, b in rows], 0, ERROR, "Error of the mean, measured", "posterior standard deviations (exact: 0)")
    first.set_yticks(np.arange(len(rows)), [label for label, _ in rows])
    first.invert_yaxis()
    first.set_xlim(-0.35, 2)
    second.set_xlim(-0.35, 2)
    third.set_xlim(-0.03, 1.03)
    for axes in (second, third):
        axes.tick_params(labelleft=False)
    draw_dps(figure.add_subplot(grid[1, :]), dps)
    figure.suptitle(
        "Samples against a posterior that is known: a spread of 1 is exact, below is too sure, above too unsure",
        fontsize=14,
        fontweight="bold",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Measure, print, draw."""
    torch.set_num_threads(1)
    rows = [(label, measure(name, settings)) for label, name, settings in SAMPLERS]
    print_table(rows)
    dps = [measure("dps", {"step": float(step)}, batch=4) for step in DPS_STEPS]
    draw(rows, dps, OUT)
    print(f"\n{OUT}")


if __name__ == "__main__":
    main()

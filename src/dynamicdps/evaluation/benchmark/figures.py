"""The figures of a benchmark."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dynamicdps.evaluation.benchmark.lesion_summary import LOST
from dynamicdps.evaluation.benchmark.plotting import grid, legend, looks, new_figure, pages, save
from dynamicdps.evaluation.benchmark.rows import LesionRow, Results
from dynamicdps.evaluation.benchmark.summary import Measured
from dynamicdps.evaluation.lesions import LARGEST_MM, SMALLEST_MM
from dynamicdps.evaluation.statistics import bootstrap_interval
from dynamicdps.evaluation.tissue import TISSUES

REFERENCE = "conditional"
PAIRED = {"psnr": ("PSNR, dB", 1.0, "right"), "abs_volume_error": ("volume error, % points", 100.0, "left")}
# Values this many times as far out as most ask for an axis that shows both.
FAR = 6.0
# None has no logarithm: it stands half a decade before one pass.
NO_PASS = 10**-0.5
# Solvers of one cost: factor between neighbours, and between the first and the last at most.
SIDE, SIDES = 1.08, 1.35
DIAMETER_BINS = (3.0, 4.5, 6.5, 9.0, 15.0)


def paired_figures(numbers: Measured, folder: Path) -> list[Path]:
    """Difference of each solver to the conditional model, one dot a subject, with the mean and its 95 % interval."""
    found = []
    conditions = [name for name, solvers in numbers.conditions.items() if REFERENCE in solvers and len(solvers) > 1]
    for suffix, chosen in pages(conditions):
        solvers = _all_solvers(numbers, chosen, without=REFERENCE)
        measures = [name for name in PAIRED if any(numbers.of(c, s, name) for c in chosen for s in solvers)]
        figure = new_figure(0.7 + len(measures) * (0.9 + 0.24 * len(solvers)))
        panels = [(name, condition) for name in measures for condition in chosen]
        for (name, condition), axes in zip(panels, grid(figure, len(panels), len(chosen)), strict=True):
            label, factor, better = PAIRED[name]
            theirs = numbers.of(condition, REFERENCE, name)
            lines = {}
            for solver in solvers:
                ours = numbers.of(condition, solver, name)
                lines[solver] = factor * np.array([value - theirs[s] for s, value in ours.items() if s in theirs])
            _dots(axes, lines, solvers)
            axes.set_xlabel(f"{label} ({better}: better)", fontsize=9)
            axes.set_title(condition if name == measures[0] else "", fontsize=10)
            if condition != chosen[0]:
                axes.tick_params(labelleft=False)
        figure.suptitle("Difference to the conditional model, subject by subject", fontsize=12)
        found.append(save(figure, folder / f"paired{suffix}.png"))
    return found


def volume_figures(numbers: Measured, folder: Path) -> list[Path]:
    """Relative error of each tissue's volume, one dot a subject, with the mean and its 95 % interval."""
    found = []
    with_volumes = [name for name, solvers in numbers.conditions.items() if any(numbers.of(name, s, "csf_error") for s in solvers)]
    for suffix, chosen in pages(with_volumes):
        solvers = _all_solvers(numbers, chosen)
        figure = new_figure(0.7 + len(chosen) * (0.8 + 0.24 * len(solvers)))
        panels = [(condition, tissue) for condition in chosen for tissue in TISSUES]
        for (condition, tissue), axes in zip(panels, grid(figure, len(panels), len(TISSUES)), strict=True):
            lines = {s: 100 * np.array(list(numbers.of(condition, s, f"{tissue}_error").values())) for s in solvers}
            _dots(axes, lines, solvers)
            axes.set_title(f"{condition}: {tissue.upper()}", fontsize=10)
            if condition == chosen[-1]:
                axes.set_xlabel("error of the volume, %", fontsize=9)
            if tissue != TISSUES[0]:
                axes.tick_params(labelleft=False)
        figure.suptitle("Tissue volumes against the truth's (0: right)", fontsize=12)
        found.append(save(figure, folder / f"volumes{suffix}.png"))
    return found


def cost_figures(numbers: Measured, folder: Path) -> list[Path]:
    """PSNR against the cost, denoiser passes and twice the passes back, as means over subjects with 95 % intervals."""
    found = []
    for suffix, chosen in pages(list(numbers.conditions)):
        known = looks(_all_solvers(numbers, list(numbers.conditions)))
        figure = new_figure(1.2 + 3.2 * -(-len(chosen) // 2))
        for condition, axes in zip(chosen, grid(figure, len(chosen), min(2, len(chosen))), strict=True):
            for solver, place in _places(numbers, condition).items():
                estimate = bootstrap_interval(list(numbers.of(condition, solver, "psnr").values()), np.random.default_rng(0))
                look = known[solver]
                bars = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
                style: dict[str, Any] = {"fmt": look.marker, "color": look.colour, "markersize": 7, "capsize": 2, "elinewidth": 1}
                axes.errorbar([place], [estimate.mean], yerr=bars, label=solver, **style)
            axes.set_xscale("log")
            axes.minorticks_off()
            ticks = [tick for i in range(5) for tick in (10**i, 3 * 10**i) if tick < axes.get_xlim()[1]]
            axes.set_xticks([NO_PASS, *ticks], ["0", *(f"{tick}" for tick in ticks)])
            axes.set_title(condition, fontsize=10)
            axes.set_xlabel("NFE + 2 x backward passes an image (equal ones side by side)", fontsize=9)
            axes.set_ylabel("PSNR, dB", fontsize=9)
        legend(figure)
        figure.suptitle("Quality against cost (up and left: better)", fontsize=12)
        found.append(save(figure, folder / f"cost{suffix}.png"))
    return found


def lesion_figures(results: Results, folder: Path) -> list[Path]:
    """Share of each lesion's contrast that is shown against its diameter; filled where the measurement shows the lesion."""
    found = []
    conditions = list(dict.fromkeys(row.condition for row in results.lesions))
    for suffix, chosen in pages(conditions):
        known = looks(list(dict.fromkeys(row.solver for row in results.lesions)))
        figure = new_figure(1.2 + 3.2 * -(-len(chosen) // 2))
        for condition, axes in zip(chosen, grid(figure, len(chosen), min(2, len(chosen))), strict=True):
            for level, style in ((1.0, "-"), (LOST, ":"), (0.0, "-")):
                axes.axhline(level, color="black", linewidth=0.8, linestyle=style)
            for solver, look in known.items():
                rows = [row for row in results.lesions if (row.condition, row.solver) == (condition, solver) and np.isfinite(row.kept)]
                for filled in (True, False):
                    part = [row for row in rows if row.resolvable == filled]
                    face = look.colour if filled else "none"
                    axes.scatter(
                        [row.diameter_mm for row in part],
                        [row.kept for row in part],
                        s=18,
                        marker=look.marker,
                        facecolors=face,
                        edgecolors=look.colour,
                        linewidths=0.8,
                        alpha=0.6,
                    )
                centres, medians = _trend([row for row in rows if row.resolvable])
                axes.plot(centres, medians, color=look.colour, marker=look.marker, linewidth=2, label=solver)
            axes.set_xlim(SMALLEST_MM - 0.5, max((row.diameter_mm for row in results.lesions), default=LARGEST_MM) + 0.5)
            axes.set_ylim(*_limits([row.kept for row in results.lesions if row.condition == condition]))
            axes.set_title(condition, fontsize=10)
            axes.set_xlabel("diameter, mm", fontsize=9)
            axes.set_ylabel("share of the contrast shown", fontsize=9)
        legend(figure)
        figure.suptitle("Inserted lesions: 1 is kept, 0 is lost. Filled, with line of medians: the measurement shows it", fontsize=11)
        found.append(save(figure, folder / f"lesions{suffix}.png"))
    return found


def _places(numbers: Measured, condition: str) -> dict[str, float]:
    """Cost of each solver that has a PSNR; those of one cost stand side by side, the cost in their middle."""
    costs: dict[float, list[str]] = {}
    for solver in numbers.conditions[condition]:
        if numbers.of(condition, solver, "psnr"):
            passes = [float(np.mean(list(numbers.of(condition, solver, name).values()))) for name in ("nfe", "nbackward")]
            costs.setdefault(max(round(passes[0] + 2 * passes[1]), NO_PASS), []).append(solver)
    found: dict[str, float] = {}
    for cost, solvers in costs.items():
        side = min(SIDE, SIDES ** (1 / max(len(solvers) - 1, 1)))
        found |= {solver: cost * side ** (place - (len(solvers) - 1) / 2) for place, solver in enumerate(solvers)}
    return found


def _dots(axes: Any, lines: dict[str, Any], solvers: Sequence[str]) -> None:
    """One line of dots a solver, its mean with interval beside them, the first solver on top."""
    known = looks(solvers)
    for place, (solver, values) in enumerate(lines.items()):
        if len(values) == 0:
            continue
        # Apart by their rank, so that equal ones can be told; the same picture every time.
        offsets = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(1)
        axes.scatter(np.sort(values), place + offsets, s=12, color=known[solver].colour, alpha=0.6, linewidths=0)
        estimate = bootstrap_interval(values, np.random.default_rng(0))
        axes.plot([estimate.low, estimate.high], [place, place], color="black", linewidth=1.5)
        axes.plot([estimate.mean], [place], "|", color="black", markersize=11, markeredgewidth=2)
    axes.axvline(0, color="black", linewidth=0.8)
    size = np.abs(np.concatenate([values for values in lines.values() if len(values)] or [np.ones(1)]))
    usual = float(np.percentile(size, 75))
    if usual > 0 and size.max() > FAR * usual:
        axes.set_xscale("symlog", linthresh=usual)
    axes.set_yticks(range(len(solvers)), solvers, fontsize=9)
    axes.set_ylim(len(solvers) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8)


def _trend(rows: Sequence[LesionRow]) -> tuple[list[float], list[float]]:
    """Median share and median diameter in bins of the diameter that hold at least three lesions."""
    centres, medians = [], []
    for low, high in pairwise(DIAMETER_BINS):
        part = [row for row in rows if low <= row.diameter_mm < high or row.diameter_mm == high == LARGEST_MM]
        if len(part) >= 3:
            centres.append(float(np.median([row.diameter_mm for row in part])))
            medians.append(float(np.median([row.kept for row in part])))
    return centres, medians


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """An axis for nearly all values, 0 and 1 at least."""
    finite = np.array([value for value in values if np.isfinite(value)] or [0.0])
    low, high = np.percentile(finite, [2, 98])
    return min(-0.1, float(low) - 0.1), max(1.2, float(high) + 0.1)


def _all_solvers(numbers: Measured, conditions: Sequence[str], without: str = "") -> list[str]:
    return list(dict.fromkeys(s for condition in conditions for s in numbers.conditions[condition] if s != without))

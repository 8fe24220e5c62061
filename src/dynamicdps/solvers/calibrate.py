"""Calibrating the start level: what the best level was, on images whose truth is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynamicdps.conditional import InitialModel
from dynamicdps.data_term import DataTerm
from dynamicdps.errors import InputError
from dynamicdps.operators import ScanOperator
from dynamicdps.priors import Denoiser
from dynamicdps.priors.levels import cosine_levels
from dynamicdps.solvers.dps import DPSConfig, solve_dps
from dynamicdps.solvers.dynamicdps import DynamicDPSConfig, initial_step, solve_dynamicdps
from dynamicdps.solvers.start_level import CHUNK, PAPER_NORM, BankRule, StartLevelRule, fit_start_level
from dynamicdps.volumes import IntensityScale, load, to_slices

CANDIDATES = (0.01, 0.015, 0.022, 0.033, 0.05, 0.075, 0.11, 0.16, 0.25, 0.4)


@dataclass(frozen=True)
class StartCalibration:
    """The fitted rule with what it was fitted to.

    Attributes:
        rule: misfit to start level.
        misfit: excess misfit of each calibration image, ``(images,)``.
        candidates: start levels tried, ``(levels,)``.
        error: root mean square error of each image from each level, ``(images, levels)``.
        condition: model and degradation of each image.
    """

    rule: StartLevelRule
    misfit: Tensor
    candidates: tuple[float, ...]
    error: Tensor
    condition: list[str]


def spread_slabs(paths: Sequence[str | Path], per_scan: int, depth: int = 1) -> Tensor:
    """Evenly spaced slabs of skull-stripped scans in image intensities, ``(slabs, 1, depth, height, width)``.

    Args:
        paths: scans; slices of other sizes than the first one's, and scans of fewer slices than `depth`, are left out.
        per_scan: slabs of a scan.
        depth: neighbouring slices of each.

    Raises:
        InputError: no scan has so many slices.
    """
    found: list[Tensor] = []
    for path in paths:
        volume = load(path)
        slices = to_slices(IntensityScale.robust(volume.data).apply(volume).data)
        if len(slices) < depth or (found and slices.shape[-2:] != found[0].shape[-2:]):
            continue
        firsts = [(len(slices) - depth + 1) * (2 * i + 1) // (2 * per_scan) for i in range(per_scan)]
        found.append(torch.stack([slices[first : first + depth].movedim(0, 1) for first in firsts]))
    if not found:
        raise InputError(f"no scan has {depth} slices; expected at least as many; give other scans or fewer slices")
    return torch.cat(found)


def calibrate_start(
    truth: Tensor,
    models: dict[str, InitialModel],
    degradations: dict[str, ScanOperator],
    denoiser: Denoiser,
    *,
    config: DynamicDPSConfig,
    seed: int = 0,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> StartCalibration:
    """Reconstruct calibration images from every candidate level and fit the rule to the errors.

    Args:
        truth: good slabs, ``(slabs, 1, depth, height, width)``.
        models: conditional models by name.
        degradations: scanners by name.
        denoiser: the prior.
        config: of DynamicDPS; its start level is varied.
        seed: of noise and samples.
        source: recorded in the rule.
        progress: called with runs done and planned.
    """
    misfits, conditions = [], []
    errors, bases, changes = [], [], []
    total, done = len(models) * len(degradations) * len(CANDIDATES), 0
    for model_name, model in models.items():
        for degradation_name, scanner in degradations.items():
            generators = [torch.Generator().manual_seed(seed + i) for i in range(len(truth))]
            y = scanner.noise.draw(scanner.operator(truth), generators)
            initial = model.enhance(y, scanner.operator, truth.shape)
            term = DataTerm(y, scanner.operator, scanner.noise)
            misfits.append(term.excess(initial))
            conditions += [f"{model_name}/{degradation_name}"] * len(truth)
            row, before, moved = [], [], []
            for level in CANDIDATES:
                base = initial_step(term, initial, torch.full((len(truth),), level), config).x
                found = solve_dynamicdps(
                    [term], denoiser, initial, generator=torch.Generator().manual_seed(seed), config=replace(config, start_sigma=level)
                )
                row.append(_rms(found.image - truth))
                before.append(_rms(base - truth))
                moved.append(_rms(found.image - base))
                done += 1
                if progress is not None:
                    progress(done, total)
            errors.append(torch.stack(row, dim=1))
            bases.append(torch.stack(before, dim=1))
            changes.append(torch.stack(moved, dim=1))
    misfit, error = torch.cat(misfits), torch.cat(errors)
    befores, moves = torch.cat(bases).numpy(), torch.cat(changes).numpy()
    rule = fit_start_level(misfit.tolist(), CANDIDATES, error.numpy(), base=befores, change=moves, source=source)
    return StartCalibration(rule, misfit, CANDIDATES, error, conditions)


def _rms(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(1).sqrt()


def build_bank(
    truth: Tensor,
    degradations: dict[str, ScanOperator],
    denoiser: Denoiser,
    *,
    config: DPSConfig,
    tau: float = 0.4,
    seed: int = 0,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> BankRule:
    """The paper's memory bank: ordinary DPS from pure noise on calibration images, the residual noted at every level.

    Args:
        truth: good slabs, ``(slabs, 1, depth, height, width)``.
        degradations: scanners by name.
        denoiser: the prior.
        config: of the reference run.
        tau: exponent of the rule.
        seed: of noise and samples.
        source: recorded in the rule.
        progress: called with steps done and planned.
    """
    from scipy.optimize import isotonic_regression

    table = cosine_levels().log()
    curves = []
    for index, scanner in enumerate(degradations.values()):
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(truth))]
        term = DataTerm(scanner.noise.draw(scanner.operator(truth), generators), scanner.operator, scanner.noise)

        def tick(done: int, planned: int, index: int = index) -> None:
            if progress is not None:
                progress(index * planned + done, len(degradations) * planned)

        generator = torch.Generator().manual_seed(seed)
        found = solve_dps([term], denoiser, torch.zeros_like(truth), generator=generator, config=config, progress=tick)
        # Falling levels; numpy interpolates on rising ones, and holds the ends for steps that the run does not visit.
        levels = [float(step.sigma[0]) for step in reversed(found.trace)]
        for image in range(len(truth)):
            norms = [PAPER_NORM * scanner.noise.std * float(step.misfit[image]) for step in reversed(found.trace)]
            curves.append(np.exp(np.interp(table.numpy(), np.log(levels), np.log(norms))))
    # Residuals grow with the noise level; what falls is the last steps' unrest.
    means = isotonic_regression(np.mean(curves, axis=0).reshape(-1, CHUNK).mean(axis=1)).x
    return BankRule(tuple(float(f"{mean:.4g}") for mean in means), tau, source)

"""What every solver returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TraceStep:
    """One step of a solver, each tensor ``(batch,)``.

    Attributes:
        step: number of the step, from 0.
        sigma: noise level.
        misfit: rms of ``(y - A(x0)) / noise_std`` after the data step.
        step_length: accepted step length (mean over posterior samples).
        outcome: `dynamicdps.solvers.line_search.Outcome` of the line search (the worst over samples).
    """

    step: int
    sigma: Tensor
    misfit: Tensor
    step_length: Tensor
    outcome: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """Images with what it took to make them.

    Attributes:
        image: the estimate, image shape, batch first.
        misfit: rms of ``(y - A(image)) / noise_std``, ``(batch,)``; 1 where only noise is left.
        nfe: denoiser forward passes of each image, ``(batch,)``.
        nbackward: backward passes through the denoiser, ``(batch,)``.
        start_sigma: noise level of the start, ``(batch,)``; 0 where the prior was not used.
        uncertainty: standard deviation over posterior samples, image shape; `None` with fewer than two.
        samples: the posterior samples, where they were to be kept: ``(batch, samples, 1, ...)``.
        operator_calls: applications of the operator or its Jacobian for an image.
        trace: the steps.
        warnings: what the user should know, one sentence each.
        stopped: why the solver ended.
        outside_calibration: images that explain the measurement worse than any of the start's calibration, ``(batch,)``.
    """

    image: Tensor
    misfit: Tensor
    nfe: Tensor
    nbackward: Tensor
    start_sigma: Tensor
    uncertainty: Tensor | None = None
    samples: Tensor | None = None
    operator_calls: int = 0
    trace: list[TraceStep] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stopped: str = "all steps done"
    outside_calibration: Tensor | None = None


def with_warnings(found: Reconstruction) -> Reconstruction:
    """The reconstruction with a sentence on images beyond the calibration, and on those that diverged, in front of its warnings."""
    warnings = []
    broken = ~torch.isfinite(found.image).flatten(1).all(1)
    if bool(broken.any()):
        warnings.append(f"{int(broken.sum())} of {len(broken)} images diverged: they have values that are not finite")
    outside = found.outside_calibration
    if outside is not None and bool(outside.any()):
        highest = float(found.start_sigma[outside].max())
        warnings.append(
            f"{int(outside.sum())} of {len(outside)} images explain the measurement worse than any calibration image; their "
            f"start level is the highest calibrated one, {highest:.3g}"
        )
    return replace(found, warnings=[*warnings, *found.warnings], stopped="diverged" if bool(broken.any()) else found.stopped)


@dataclass(frozen=True)
class PlainConfig:
    """Configuration of solvers without settings."""


def check_positive(config: Any, may_be_zero: Sequence[str] = ()) -> None:
    """Refuse a configuration with a number that is 0 or below where only positive ones mean something.

    Raises:
        ValueError: with the field's name and value.
    """
    for known in fields(config):
        value = getattr(config, known.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not value > 0 and not (value == 0 and known.name in may_be_zero):
            least = "0 or more" if known.name in may_be_zero else "at least 1" if isinstance(value, int) else "a number greater than 0"
            raise ValueError(f"{known.name} is {value}; expected {least}")


Progress = Callable[[int, int], None]

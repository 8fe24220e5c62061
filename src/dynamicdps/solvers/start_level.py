"""The start level: how much of the initial image to wash away, from how badly it explains the measurement."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamicdps.errors import InputError


@dataclass(frozen=True)
class StartLevelRule:
    """A monotone map from the initial image's misfit to the start level of lowest true error.

    Between the knots it is linear in the logarithms; outside them it holds the end values, with a warning.

    Attributes:
        misfit: knots, increasing, greater than 0: excess misfit in image intensities (see `excess_misfit`).
        sigma: start levels there, not decreasing, greater than 0.
        source: what it was calibrated on.
    """

    misfit: tuple[float, ...]
    sigma: tuple[float, ...]
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.misfit) != len(self.sigma) or not self.misfit:
            raise InputError(f"the start calibration has {len(self.misfit)} misfits and {len(self.sigma)} levels; expected as many of both")
        if (
            min(self.misfit) <= 0
            or min(self.sigma) <= 0
            or list(self.misfit) != sorted(set(self.misfit))
            or list(self.sigma) != sorted(self.sigma)
        ):
            raise InputError("the start calibration is not monotone or not positive; expected rising misfits and levels; calibrate again")

    def __call__(self, misfit: Tensor) -> Tensor:
        """Start level of each image, ``(batch,)``, from its excess misfit."""
        knots, levels = np.log(self.misfit), np.log(self.sigma)
        values = np.interp(misfit.double().clamp_min(1e-12).log().cpu().numpy(), knots, levels)
        return torch.from_numpy(np.exp(values)).to(misfit)

    def outside(self, misfit: Tensor) -> Tensor:
        """Which images lie above the calibrated range, ``(batch,)``; below it doing little is safe."""
        return misfit > self.misfit[-1] * 1.05

    def to_json(self) -> dict[str, Any]:
        return {"kind": "start-level", "rule": "misfit", "misfit": list(self.misfit), "sigma": list(self.sigma), "source": self.source}


def excess_misfit(residual: Tensor, noise_std: float) -> Tensor:
    """Root mean square of a residual ``y - A(x)`` beyond the noise, ``(batch,)``, in image intensities.

    A mean over measurements with the noise's share taken off: the same for any image size, measurement grid and noise level.
    """
    mean_square = residual.double().flatten(1).square().mean(1)
    return (mean_square - noise_std**2).clamp_min(0).sqrt().to(residual.dtype)


def fit_start_level(misfit: Sequence[float], sigma: Sequence[float], error: Any, *, source: str = "", knots: int = 8) -> StartLevelRule:
    """Fit the rule to calibration images.

    For groups of images of similar misfit the level of lowest mean error is taken, then made monotone (pool adjacent violators).

    Args:
        misfit: excess misfit of each calibration image, ``(images,)``.
        sigma: candidate start levels, increasing, ``(levels,)``.
        error: true error of each image's reconstruction from each level, ``(images, levels)``; lower is better, one scale for all.
        source: what it was calibrated on.
        knots: groups.

    Raises:
        InputError: there are fewer than two images.
    """
    from scipy.optimize import isotonic_regression

    m, e = np.asarray(misfit, dtype=float), np.asarray(error, dtype=float)
    if len(m) < 2 or e.shape != (len(m), len(sigma)):
        raise InputError(f"{len(m)} calibration images are too few; expected at least 2; give more scans")
    order = np.argsort(m)
    groups = np.array_split(order, min(knots, len(m)))
    # Relative to each image's best, so that hard images do not outvote easy ones.
    relative = e / e.min(axis=1, keepdims=True)
    centres = np.array([np.exp(np.log(np.maximum(m[g], 1e-6)).mean()) for g in groups])
    best = np.array([np.log(sigma[int(relative[g].mean(axis=0).argmin())]) for g in groups])
    weights = np.array([len(g) for g in groups], dtype=float)
    levels = np.exp(isotonic_regression(best, weights=weights).x)
    keep = np.concatenate([[True], np.diff(centres) > 1e-9])

    def rounded(values: Any) -> tuple[float, ...]:
        return tuple(float(f"{value:.4g}") for value in values[keep])

    return StartLevelRule(rounded(centres), rounded(levels), source)


def read_start_level(path: str | Path | None = None) -> StartLevelRule:
    """The bundled calibration, or one written by ``dynamicdps calibrate start``.

    Raises:
        InputError: the file is missing or is not a start calibration.
    """
    path = Path(str(files("dynamicdps.models"))) / "start-level.json" if path is None else Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["kind"] != "start-level":
            raise ValueError(f"kind {values['kind']!r}")
        return StartLevelRule(tuple(map(float, values["misfit"])), tuple(map(float, values["sigma"])), str(values.get("source", "")))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path} cannot be read as a start calibration ({reason}); expected what `calibrate start` writes; check it"
        ) from error

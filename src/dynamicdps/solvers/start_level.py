"""The start level: how much of the initial image to wash away, from how badly it explains the measurement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynamicdps.data_term import excess_misfit
from dynamicdps.errors import InputError, reason_of
from dynamicdps.json_file import read_json
from dynamicdps.models import FOLDER
from dynamicdps.operators.precision import on_cpu, wide
from dynamicdps.priors import Prior
from dynamicdps.priors.levels import N_STEPS, cosine_levels

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
# The paper's norms are over 256 x 256 pixels of range [0, 2]: what the root mean square of a residual in [0, 1] is multiplied by.
PAPER_NORM = 2 * 256.0
CHUNK = 50
# The model card whose calibration stands in for that of priors without one.
BUNDLED = FOLDER / "brain.json"
# Invented structure as faint as the noise leaves no excess misfit: a start below this many standard deviations cannot take it out.
# Of 0.02, 0.06 and 0.16 the middle one was best on noise of 0.037 (5 mm slices, two training subjects).
NOISE_FLOOR = 1.5


class StartRule(Protocol):
    """A rule from the residual ``y - A(x_c)`` of the initial images to their start levels."""

    def __call__(self, residual: Tensor, noise_std: float, quantile: float | None = None) -> Tensor:
        """Start level of each image, ``(batch,)``; `quantile` as in `DynamicDPSConfig`, where the rule has such a choice."""

    def initial_weight(self, residual: Tensor, noise_std: float) -> Tensor:
        """How much the initial image counts in the estimate beside the mean of samples, 0 to 1, ``(batch,)``."""

    def outside(self, residual: Tensor, noise_std: float) -> Tensor:
        """Which images lie above the calibrated range, ``(batch,)``; below it doing little is safe."""

    def to_json(self) -> dict[str, Any]:
        """What `read_start_level` reads."""


@dataclass(frozen=True)
class StartLevelRule:
    """A monotone map from the initial image's excess misfit to the start level of lowest true error.

    Between the knots it is linear in the logarithms; outside them it holds the end values, with a warning above. Whatever the misfit, the
    start is at least 1.5 standard deviations of the noise.

    Attributes:
        misfit: knots, increasing, greater than 0: excess misfit in image intensities (see `excess_misfit`).
        sigma: start levels of lowest mean error there, not decreasing, greater than 0.
        source: what it was calibrated on.
        quantiles: the user's choice between safe and faithful: quantiles of the images' own best levels, increasing.
        quantile_sigma: start levels at each of them, like `sigma`.
        share: how much the mean of samples counts against the initial image after its data step, 0 to 1, not decreasing; empty
            for 1 everywhere.
    """

    misfit: tuple[float, ...]
    sigma: tuple[float, ...]
    source: str = ""
    quantiles: tuple[float, ...] = ()
    quantile_sigma: tuple[tuple[float, ...], ...] = ()
    share: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.misfit) != len(self.sigma) or not self.misfit:
            raise InputError(f"the start calibration has {len(self.misfit)} misfits and {len(self.sigma)} levels; expected as many of both")
        rows = (self.sigma, *self.quantile_sigma)
        if (
            not np.isfinite([*self.misfit, *self.sigma]).all()
            or min(self.misfit) <= 0
            or list(self.misfit) != sorted(set(self.misfit))
            or any(len(row) != len(self.misfit) or min(row) <= 0 or list(row) != sorted(row) for row in rows)
        ):
            raise InputError("the start calibration is not monotone or not positive; expected rising misfits and levels; calibrate again")
        if self.share and (len(self.share) != len(self.misfit) or not 0 <= min(self.share) <= max(self.share) <= 1):
            raise InputError(f"the start calibration's shares are {self.share}; expected one from 0 to 1 for each misfit; calibrate again")
        if len(self.quantiles) != len(self.quantile_sigma) or list(self.quantiles) != sorted(set(self.quantiles)):
            raise InputError("the start calibration's quantiles do not fit their levels; expected one row of levels each; calibrate again")

    def __call__(self, residual: Tensor, noise_std: float, quantile: float | None = None) -> Tensor:
        """Start level of each image, ``(batch,)``.

        Raises:
            InputError: a quantile is asked for that the calibration does not have.
        """
        return self._interpolated(np.log(self._levels(quantile)), residual, noise_std).exp().clamp_min(NOISE_FLOOR * noise_std)

    def initial_weight(self, residual: Tensor, noise_std: float) -> Tensor:
        """How much the initial image counts in the estimate, ``(batch,)``: where it explains the data it knows what the prior does not.

        0 where the noise decides on the start: then a small misfit says nothing.
        """
        share = 1 - self._interpolated(np.array(self.share or [1.0] * len(self.misfit)), residual, noise_std)
        certain = self._interpolated(np.log(self.sigma), residual, noise_std).exp() >= NOISE_FLOOR * noise_std
        return share * certain

    def lowered(self, share: float, why: str) -> "StartLevelRule":
        """The rule for initial images whose errors are a share, 0 to 1, of those that it was calibrated on; `why` goes into its source."""
        rows = tuple(tuple(share * level for level in row) for row in (self.sigma, *self.quantile_sigma))
        return replace(self, sigma=rows[0], quantile_sigma=rows[1:], source=f"{self.source}; levels times {share:.3f}: {why}")

    def _interpolated(self, values: NDArray[np.float64], residual: Tensor, noise_std: float) -> Tensor:
        excess = on_cpu(excess_misfit(residual, noise_std)).clamp_min(1e-12).log().numpy()
        return torch.from_numpy(np.interp(excess, np.log(self.misfit), values)).to(residual)

    def _levels(self, quantile: float | None) -> tuple[float, ...]:
        if quantile is None:
            return self.sigma
        if not self.quantiles:
            raise InputError("the start calibration has no quantiles; expected one that `calibrate start` wrote; leave the quantile out")
        rows = np.log(self.quantile_sigma)
        return tuple(float(np.exp(np.interp(quantile, self.quantiles, rows[:, k]))) for k in range(len(self.misfit)))

    def outside(self, residual: Tensor, noise_std: float) -> Tensor:
        return excess_misfit(residual, noise_std) > self.misfit[-1] * 1.05

    def to_json(self) -> dict[str, Any]:
        rows = {f"{q:g}": list(row) for q, row in zip(self.quantiles, self.quantile_sigma, strict=True)}
        values = {"kind": "start-level", "rule": "misfit", "misfit": list(self.misfit), "sigma": list(self.sigma)}
        return values | {"quantiles": rows, "share": list(self.share), "source": self.source}


@dataclass(frozen=True)
class BankRule:
    """The paper's rule: the chunk of a reference run whose mean residual is nearest to the initial image's.

    The residual norm of the initial image, to the power tau, is compared with the mean residual norms of ordinary DPS over chunks of 50
    of its 1000 steps. Norms are the paper's (256 x 256 pixels of range 2) whatever the size of the image, so that one bank and
    its tau serve all.

    Attributes:
        means: mean norm of each chunk, from the lowest noise level up.
        tau: exponent on the initial image's norm.
        source: what it was calibrated on.
    """

    means: tuple[float, ...]
    tau: float = 0.4
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.means) != N_STEPS // CHUNK or not np.isfinite(self.means).all() or min(self.means) <= 0 or not 0 < self.tau <= 2:
            raise InputError(
                f"the memory bank has {len(self.means)} means and tau {self.tau}; expected {N_STEPS // CHUNK} positive means and a tau "
                "from 0 to 2; calibrate again"
            )

    def steps(self, residual: Tensor) -> Tensor:
        """Start step of each image, 50 to 1000, ``(batch,)``."""
        norm = PAPER_NORM * wide(residual).flatten(1).square().mean(1).sqrt()
        value = norm**self.tau
        means = torch.tensor(self.means, dtype=value.dtype, device=value.device)
        nearest = (value[:, None] - means[None]).abs().argmin(dim=1)
        # One chunk lower where the bank's mean is below the residual, as the reference implementation has it.
        lower = (means[nearest] < value) & (nearest > 0)
        return CHUNK * (nearest - lower.long() + 1)

    def __call__(self, residual: Tensor, noise_std: float, quantile: float | None = None) -> Tensor:
        del noise_std
        if quantile is not None:
            raise InputError("the paper's bank has no quantiles; expected none; leave the quantile out")
        return cosine_levels().to(residual)[self.steps(residual) - 1]

    def initial_weight(self, residual: Tensor, noise_std: float) -> Tensor:
        del noise_std
        return torch.zeros(len(residual), dtype=residual.dtype, device=residual.device)

    def outside(self, residual: Tensor, noise_std: float) -> Tensor:
        del noise_std
        norm = PAPER_NORM * wide(residual).flatten(1).square().mean(1).sqrt()
        return norm**self.tau > self.means[-1]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "start-level", "rule": "bank", "means": list(self.means), "tau": self.tau, "source": self.source}


def fit_start_level(
    misfit: Sequence[float],
    sigma: Sequence[float],
    error: Any,
    *,
    base: Any = None,
    change: Any = None,
    source: str = "",
    knots: int = 8,
) -> StartLevelRule:
    """Fit the rule to calibration images.

    For groups of images of similar misfit the level of lowest mean error is taken, then made monotone (pool adjacent violators);
    likewise the quantiles of the images' own best levels. With `base` and `change` each level is judged at its best share of the mean of
    samples against the data-stepped initial image, and that share is fitted too.

    Args:
        misfit: excess misfit of each calibration image, ``(images,)``.
        sigma: candidate start levels, increasing, ``(levels,)``.
        error: root mean square error of each image's mean of samples from each level, ``(images, levels)``, one scale for all.
        base: the same of its data-stepped initial image.
        change: root mean square difference of the two.
        source: what it was calibrated on.
        knots: groups.

    Raises:
        InputError: there are fewer than two images.
    """
    from scipy.optimize import isotonic_regression

    m, e = np.asarray(misfit, dtype=float), np.asarray(error, dtype=float)
    if len(m) < 2 or e.shape != (len(m), len(sigma)):
        raise InputError(f"{len(m)} calibration images are too few; expected at least 2; give more scans")
    groups = np.array_split(np.argsort(m), min(knots, len(m)))
    share = np.ones((len(groups), len(sigma)))
    if base is not None and change is not None:
        share, e = _best_shares(groups, e**2, np.asarray(base, dtype=float) ** 2, np.asarray(change, dtype=float) ** 2)
    # Relative to each image's best, so that hard images do not outvote easy ones.
    relative = e / e.min(axis=1, keepdims=True)
    log_sigma = np.log(np.asarray(sigma))
    centres = np.array([np.exp(np.log(np.maximum(m[g], 1e-6)).mean()) for g in groups])
    weights = np.array([len(g) for g in groups], dtype=float)
    # As they will be written: groups whose misfits agree to four digits are one knot.
    keep = np.concatenate([[True], np.diff([float(f"{value:.4g}") for value in centres]) > 0])

    def rising(values: Any) -> NDArray[np.float64]:
        return np.asarray(isotonic_regression(np.asarray(values), weights=weights).x)

    def rounded(values: Any) -> tuple[float, ...]:
        return tuple(float(f"{value:.4g}") for value in values[keep])

    best = rising([log_sigma[int(relative[g].mean(axis=0).argmin())] for g in groups])
    own = log_sigma[relative.argmin(axis=1)]
    rows = tuple(rounded(np.exp(rising([np.quantile(own[g], q) for g in groups]))) for q in QUANTILES)
    nearest = [int(np.abs(log_sigma - level).argmin()) for level in best]
    shares = () if base is None else rounded(rising([share[k, level] for k, level in enumerate(nearest)]))
    return StartLevelRule(rounded(centres), rounded(np.exp(best)), source, QUANTILES, rows, shares)


def _best_shares(
    groups: Sequence[NDArray[np.int64]], found: NDArray[np.float64], base: NDArray[np.float64], change: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share w of least mean square error of ``base + w (found - base)`` for each group and level, and each image's error with it.

    All arguments are mean squares, ``(images, levels)``; the error is a parabola in w that they determine.
    """
    cross = (base + change - found) / 2
    share = np.stack([(cross[g].sum(0) / np.maximum(change[g].sum(0), 1e-12)).clip(0, 1) for g in groups])
    error = np.empty_like(found)
    for w, g in zip(share, groups, strict=True):
        error[g] = np.sqrt(np.maximum(base[g] - 2 * w * cross[g] + w**2 * change[g], 1e-12))
    return share, error


def read_start_level(path: str | Path | None = None) -> StartLevelRule | BankRule:
    """The bundled prior's calibration, or one written by ``dynamicdps calibrate start``.

    Raises:
        InputError: the file is missing or is not a start calibration.
    """
    path = BUNDLED if path is None else Path(path)
    try:
        values = read_json(path)
        if path == BUNDLED:
            values = values["start_level"]
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from error
    return start_rule_from_json(values, path)


def start_rule_from_json(values: Any, source: str | Path) -> StartLevelRule | BankRule:
    """A calibration from its JSON.

    Args:
        values: what `StartRule.to_json` gave.
        source: where they come from, for messages.

    Raises:
        InputError: they are no start calibration.
    """
    try:
        if values["kind"] != "start-level":
            raise ValueError(f"kind {values['kind']!r}")
        made_of = str(values.get("source", ""))
        if values.get("rule") == "bank":
            return BankRule(tuple(map(float, values["means"])), float(values["tau"]), made_of)
        rows = values.get("quantiles", {})
        return StartLevelRule(
            tuple(map(float, values["misfit"])),
            tuple(map(float, values["sigma"])),
            made_of,
            tuple(map(float, rows)),
            tuple(tuple(map(float, row)) for row in rows.values()),
            tuple(map(float, values.get("share", ()))),
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str | Path, error: Exception) -> InputError:
    return InputError(
        f"{source} cannot be read as a start calibration ({reason_of(error)}); expected what `calibrate start` writes; check it"
    )


def start_rule_of(prior: Prior, depth: int = 1) -> StartLevelRule | BankRule:
    """The calibration that a prior's model card holds; for a prior without one the bundled prior's.

    Args:
        prior: what starts.
        depth: slices of the images.

    Raises:
        InputError: the card's calibration is damaged.
    """
    domain = prior.domain
    known = (domain.start_level_of_slices if depth == 1 else {}) or domain.start_level
    if known:
        return start_rule_from_json(known, "the prior's model card")
    return read_start_level() if depth > 1 else start_rule_from_json(read_json(BUNDLED)["start_level_of_slices"], BUNDLED)

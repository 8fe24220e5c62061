"""Tissue volumes of posterior samples: what the measurement leaves open."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.evaluation.tissue import TISSUES, dice, segment, tissue_volumes, volume_errors

Name = TypeVar("Name", bound=Hashable)

# Neighbouring slices whose volumes may move together.
LAGS = 4


@dataclass(frozen=True)
class TissueIntervals:
    """Volumes by tissue over posterior samples, ``csf``, ``gm``, ``wm``.

    Attributes:
        volume_mm3: mean over the samples.
        interval_mm3: prediction interval, low and high.
        volume_error: mean error relative to the truth's volume; empty without a truth.
        error_interval: its prediction interval.
        dice: mean overlap with the truth's labels.
    """

    volume_mm3: dict[str, float]
    interval_mm3: dict[str, tuple[float, float]]
    volume_error: dict[str, float]
    error_interval: dict[str, tuple[float, float]]
    dice: dict[str, float]


def tissue_intervals(
    samples: Sequence[NDArray[Any]],
    mask: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    truth_labels: NDArray[np.uint8] | None = None,
    *,
    estimate: Mapping[str, float] | None = None,
    coverage: float = 0.95,
    pairs: bool = False,
) -> TissueIntervals:
    """Segment every sample, and give means and prediction intervals of the volumes.

    The interval holds the volume of one more sample with the coverage, however few there are: ``mean +- t s sqrt(1 + 1 / n)`` with
    Student's t of ``n - 1`` degrees (Hahn and Meeker 1991, section 4.8), which takes volumes, sums over very many voxels, as normally
    distributed. From the smallest to the largest of n samples it would only be ``(n - 1) / (n + 1)``, 78 % of 8. It holds what the
    posterior leaves open, not the error of the operator, the prior or the segmentation.

    An estimate that is the mean of samples is smoother than each of them, so that its own volumes lie off their mean. The intervals of
    an estimate are around its volumes and hold that distance too: s^2 (1 + 1 / n) plus its square is the posterior's mean squared error.

    Samples in pairs of opposite noise are not independent: within a pair volumes move to opposite sides of its mean. The half differences
    give the part of the variance that is linear in the noise, the means of several pairs the rest. One pair alone would be one number; the
    noise of slices is independent, so that the half differences of a volume's slices are many: their sum's variance is estimated from them
    with the correlation of neighbours (Newey and West 1987), and is never taken smaller than the square of the sum itself.

    Args:
        samples: posterior samples ``(x, y, z)``, at least 2.
        mask: brain, the same shape.
        spacing: voxel size in mm.
        truth_labels: `segment` of the truth, for errors and overlap.
        estimate: volumes in mm3 that the intervals are to be of, by `tissue_volumes`; by default the means of the samples.
        coverage: of the intervals, between 0 and 1.
        pairs: sample 2 k + 1 is sample 2 k with the opposite noise; a last one without its partner is left out.

    Raises:
        InputError: there are fewer than two samples, the coverage is out of range, or a sample cannot be segmented.
    """
    if len(samples) < 2 or not 0 < coverage < 1:
        raise InputError(f"there are {len(samples)} samples for intervals of {coverage}; expected at least 2 and a share between 0 and 1")
    if pairs:
        samples = samples[: len(samples) // 2 * 2]
    labels = [segment(sample, mask) for sample in samples]
    volumes = [tissue_volumes(each, spacing) for each in labels]
    errors: list[dict[str, float]] = []
    overlaps: list[dict[str, float]] = []
    known: dict[str, float] = {}
    if truth_labels is not None:
        known = tissue_volumes(truth_labels, spacing)
        errors = [volume_errors(each, known) for each in volumes]
        overlaps = [dice(each, truth_labels) for each in labels]
    if pairs:
        slices = _slice_volumes(labels, spacing)
        ends = pair_intervals(slices, coverage, 0.0, estimate)
        wrong = {t: (low / known[t] - 1, high / known[t] - 1) for t, (low, high) in ends.items()} if known else {}
    else:
        ends = prediction_intervals(volumes, coverage, 0.0, estimate)
        wrong = prediction_intervals(errors, coverage, -1.0, estimate and volume_errors(dict(estimate), known))
    return TissueIntervals(
        volume_mm3=_means(volumes),
        interval_mm3=ends,
        volume_error=_means(errors),
        error_interval=wrong,
        dice=_means(overlaps),
    )


def _slice_volumes(labels: Sequence[NDArray[np.uint8]], spacing: tuple[float, float, float]) -> dict[str, NDArray[np.float64]]:
    """Volumes of each sample's axial slices by tissue, ``(samples, depth)``, mm3."""
    voxel = float(np.prod(spacing))
    return {t: np.stack([(each == k + 1).sum((0, 1)) * voxel for each in labels]).astype(float) for k, t in enumerate(TISSUES)}


def pair_intervals(
    slices: Mapping[Name, NDArray[np.float64]], coverage: float, least: float, around: Mapping[Name, float] | None = None
) -> dict[Name, tuple[float, float]]:
    """Where one more sample's volume lies with the coverage, from pairs of opposite noise; see `tissue_intervals`.

    Args:
        slices: volumes of each sample's slices by tissue or structure, ``(samples, depth)``; samples 2 k and 2 k + 1 are a pair.
        coverage: of the intervals, between 0 and 1.
        least: what no volume is below.
        around: volumes that the intervals are to be of; by default the means of the samples.
    """
    from scipy.special import stdtrit

    found: dict[Name, tuple[float, float]] = {}
    for tissue, volumes in slices.items():
        half, middle = (volumes[0::2] - volumes[1::2]) / 2, (volumes[0::2] + volumes[1::2]) / 2
        count, depth = half.shape
        # Bartlett's weights, which keep the estimate positive.
        products = [sum((h[: depth - k] * h[k:]).sum() for h in half) / count for k in range(min(LAGS + 1, depth))]
        linear = products[0] + 2 * sum((1 - k / (LAGS + 1)) * product for k, product in enumerate(products) if k)
        linear = max(float(linear), float(np.square(half.sum(1)).mean()))
        totals = middle.sum(1)
        rest = float(totals.var(ddof=1)) * (1 + 1 / count) if count > 1 else 0.0
        centre = float(totals.mean()) if around is None else around[tissue]
        degrees = max(1.0, count * depth / (LAGS + 1))
        reach = float(stdtrit(degrees, (1 + coverage) / 2)) * math.sqrt(linear + rest + (float(totals.mean()) - centre) ** 2)
        found[tissue] = (max(least, centre - reach), centre + reach)
    return found


def _means(values: list[dict[str, float]]) -> dict[str, float]:
    return {tissue: float(np.mean([each[tissue] for each in values])) for tissue in TISSUES} if values else {}


def prediction_intervals(
    values: Sequence[Mapping[Name, float]], coverage: float, least: float, around: Mapping[Name, float] | None = None
) -> dict[Name, tuple[float, float]]:
    """Where one more value lies with the coverage, by tissue or structure, from independent ones; see `tissue_intervals`.

    Args:
        values: by name, of each sample; without any there are no intervals.
        coverage: of the intervals, between 0 and 1.
        least: what no value is below.
        around: values that the intervals are to be of; by default the means of the samples.
    """
    if not values:
        return {}
    from scipy.special import stdtrit

    count = len(values)
    factor = float(stdtrit(count - 1, (1 + coverage) / 2))
    found: dict[Name, tuple[float, float]] = {}
    for tissue in values[0]:
        numbers = np.array([each[tissue] for each in values])
        mean, variance = float(numbers.mean()), float(numbers.var(ddof=1)) * (1 + 1 / count)
        middle = mean if around is None else around[tissue]
        half = factor * math.sqrt(variance + (mean - middle) ** 2)
        found[tissue] = (max(least, middle - half), middle + half)
    return found

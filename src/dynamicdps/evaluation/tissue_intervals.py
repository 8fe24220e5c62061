"""Tissue volumes of posterior samples: what the measurement leaves open."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.evaluation.tissue import TISSUES, dice, segment, tissue_volumes, volume_errors


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
) -> TissueIntervals:
    """Segment every sample, and give means and prediction intervals of the volumes.

    The interval holds the volume of one more sample with the coverage, however few there are: ``mean +- t s sqrt(1 + 1 / n)`` with
    Student's t of ``n - 1`` degrees (Hahn and Meeker 1991, section 4.8), which takes volumes, sums over very many voxels, as normally
    distributed. From the smallest to the largest of n samples it would only be ``(n - 1) / (n + 1)``, 78 % of 8. It holds what the
    posterior leaves open, not the error of the operator, the prior or the segmentation.

    An estimate that is the mean of samples is smoother than each of them, so that its own volumes lie off their mean. The intervals of
    an estimate are around its volumes and hold that distance too: s^2 (1 + 1 / n) plus its square is the posterior's mean squared error.

    Args:
        samples: posterior samples ``(x, y, z)``, at least 2.
        mask: brain, the same shape.
        spacing: voxel size in mm.
        truth_labels: `segment` of the truth, for errors and overlap.
        estimate: volumes in mm3 that the intervals are to be of, by `tissue_volumes`; by default the means of the samples.
        coverage: of the intervals, between 0 and 1.

    Raises:
        InputError: there are fewer than two samples, the coverage is out of range, or a sample cannot be segmented.
    """
    if len(samples) < 2 or not 0 < coverage < 1:
        raise InputError(
            f"there are {len(samples)} samples for intervals of {coverage}; expected at least 2 and a share between 0 and 1; change it"
        )
    labels = [segment(sample, mask) for sample in samples]
    volumes = [tissue_volumes(each, spacing) for each in labels]
    errors: list[dict[str, float]] = []
    overlaps: list[dict[str, float]] = []
    known: dict[str, float] = {}
    if truth_labels is not None:
        known = tissue_volumes(truth_labels, spacing)
        errors = [volume_errors(each, known) for each in volumes]
        overlaps = [dice(each, truth_labels) for each in labels]
    return TissueIntervals(
        volume_mm3=_means(volumes),
        interval_mm3=_intervals(volumes, coverage, 0.0, estimate),
        volume_error=_means(errors),
        error_interval=_intervals(errors, coverage, -1.0, estimate and volume_errors(dict(estimate), known)),
        dice=_means(overlaps),
    )


def _means(values: list[dict[str, float]]) -> dict[str, float]:
    return {tissue: float(np.mean([each[tissue] for each in values])) for tissue in TISSUES} if values else {}


def _intervals(
    values: list[dict[str, float]], coverage: float, least: float, around: Mapping[str, float] | None = None
) -> dict[str, tuple[float, float]]:
    """Where one more value lies with the coverage, by tissue, not below what is possible; nothing without values."""
    if not values:
        return {}
    from scipy.stats import t

    count = len(values)
    factor = float(t.ppf((1 + coverage) / 2, count - 1))
    found = {}
    for tissue in TISSUES:
        numbers = np.array([each[tissue] for each in values])
        mean, variance = float(numbers.mean()), float(numbers.var(ddof=1)) * (1 + 1 / count)
        middle = mean if around is None else around[tissue]
        half = factor * math.sqrt(variance + (mean - middle) ** 2)
        found[tissue] = (max(least, middle - half), middle + half)
    return found

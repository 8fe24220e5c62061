"""Tissue volumes of posterior samples: what the measurement leaves open."""

from collections.abc import Sequence
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
        interval_mm3: percentile interval, low and high.
        volume_error: mean error relative to the truth's volume; empty without a truth.
        error_interval: its percentile interval.
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
    coverage: float = 0.95,
) -> TissueIntervals:
    """Segment every sample, and give means and percentile intervals of the volumes.

    The interval holds what the posterior leaves open, not the error of the operator, the prior or the segmentation. Few samples cannot
    reach far: the widest interval of n, from the smallest to the largest, holds a new one with ``(n - 1) / (n + 1)``.

    Args:
        samples: posterior samples ``(x, y, z)``, at least 2.
        mask: brain, the same shape.
        spacing: voxel size in mm.
        truth_labels: `segment` of the truth, for errors and overlap.
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
    if truth_labels is not None:
        known = tissue_volumes(truth_labels, spacing)
        errors = [volume_errors(each, known) for each in volumes]
        overlaps = [dice(each, truth_labels) for each in labels]
    return TissueIntervals(
        volume_mm3=_means(volumes),
        interval_mm3=_percentiles(volumes, coverage),
        volume_error=_means(errors),
        error_interval=_percentiles(errors, coverage),
        dice=_means(overlaps),
    )


def _means(values: list[dict[str, float]]) -> dict[str, float]:
    return {tissue: float(np.mean([each[tissue] for each in values])) for tissue in TISSUES} if values else {}


def _percentiles(values: list[dict[str, float]], coverage: float) -> dict[str, tuple[float, float]]:
    if not values:
        return {}
    tails = [50 * (1 - coverage), 50 * (1 + coverage)]
    both = {tissue: np.percentile([each[tissue] for each in values], tails) for tissue in TISSUES}
    return {tissue: (float(low), float(high)) for tissue, (low, high) in both.items()}

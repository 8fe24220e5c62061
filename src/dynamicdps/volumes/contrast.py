"""Which contrast a scan has, from its intensities: whatever its name and its header say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.volumes.acquisition import across_slices
from dynamicdps.volumes.morphology import Mask
from dynamicdps.volumes.volume import Volume

# BIDS suffixes of the contrasts that models can be told; the first is that of a scan of which nothing is known.
CONTRASTS = ("unknown", "T1w", "T2w", "FLAIR")
# Measured (docs/scans.md): the tail of T1w and FLAIR scans is 0.2 to 1.3, of T2w scans 1.6 to 4.6; the rise of T1w scans 0.03 to 0.27, of
# FLAIR scans -0.12 to 0.08. Each is compared with the middle between both, over a width that makes the scans there unsure.
T2_TAIL, TAIL_WIDTH = 1.45, 0.05
T1_RISE, RISE_WIDTH = 0.045, 0.012
SURE = 0.7
MIN_VOXELS = 500
# Of the outermost millimetres the mask decides what they show; cortex lies next to the fluid, white matter deeper.
RIM_MM = 4.0
CORTEX_MM, DEEP_MM = (2.5, 4.0), (5.0, 9.0)


@dataclass(frozen=True)
class ContrastLook:
    """What a scan's intensities say of its contrast.

    Attributes:
        bright_tail: how far the brightest tissue lies above the median, against the darkest below it: ``(q98 - q50) / (q50 - q2)``;
            large where fluid is bright.
        deep_rise: median of the tissue 5 to 9 mm from the nearest fluid or the brain's edge less that at 2.5 to 4 mm, as a share of the
            brain's median: above 0 where white matter is brighter than cortex. `None` where too little of either is left.
        likelihood: by contrast, ``T1w``, ``T2w`` and ``FLAIR``; together 1.
    """

    bright_tail: float
    deep_rise: float | None
    likelihood: Mapping[str, float]

    @property
    def contrast(self) -> str:
        """The likeliest contrast."""
        return max(self.likelihood, key=lambda name: self.likelihood[name])

    @property
    def confidence(self) -> float:
        """Likelihood of that contrast, 0 to 1."""
        return self.likelihood[self.contrast]

    @property
    def is_sure(self) -> bool:
        return self.confidence >= SURE

    def in_words(self) -> str:
        """What the intensities say, without a full stop."""
        fluid = "bright" if self.bright_tail > T2_TAIL else "not bright"
        if self.deep_rise is None or self.bright_tail > T2_TAIL:
            return f"fluid is {fluid}: {self.contrast}, likelihood {self.confidence:.2f}"
        order = "brighter" if self.deep_rise > T1_RISE else "not brighter"
        return f"fluid is {fluid}, white matter {order} than cortex: {self.contrast}, likelihood {self.confidence:.2f}"


def look_at_contrast(volume: Volume, inside: Mask, slice_axis: int | None = None) -> ContrastLook | None:
    """Tell T1w, T2w and FLAIR apart by the order of fluid, cortex and white matter.

    In T2w scans fluid is by far the brightest, so that the upper tail of the histogram is long. In T1w scans white matter is brighter than
    cortex, in FLAIR scans it is not: so the intensity rises from the cortex inwards, or does not. Two logistic curves make likelihoods
    of the two numbers. Everything is looked at in the plane of the slices, smoothed over a voxel of about 1 mm.

    Args:
        volume: the scan.
        inside: its brain, same shape.
        slice_axis: axis across the slices; by default that of the longest voxel edge, else z.

    Returns:
        What they say; `None` where too little brain is left, or it has one intensity.
    """
    axis = across_slices(volume.spacing) if slice_axis is None else slice_axis
    axis = 2 if axis is None else axis
    spacing = [s for a, s in enumerate(volume.spacing) if a != axis]
    smooth = ndimage.gaussian_filter(volume.data, [0.0 if a == axis else 0.8 / s for a, s in enumerate(volume.spacing)])
    slices, brain = np.moveaxis(smooth, axis, 0), np.moveaxis(inside, axis, 0)
    inner = brain & (_distances(np.stack([ndimage.binary_fill_holes(each) for each in brain]), spacing) > RIM_MM)
    if inner.sum() < MIN_VOXELS:
        return None
    values = slices[inner]
    low, middle, high = (float(q) for q in np.percentile(values, (2, 50, 98)))
    if not low < middle or not middle > 0:
        return None
    tail = (high - middle) / (middle - low)
    rise = _deep_rise(slices, brain, inner, _darkest_threshold(np.clip(values, *np.percentile(values, (1, 99)))), spacing, middle)
    return ContrastLook(tail, rise, contrast_likelihood(tail, rise))


def contrast_likelihood(
    bright_tail: float, deep_rise: float | None, t2_tail: float = T2_TAIL, t1_rise: float = T1_RISE
) -> dict[str, float]:
    """Likelihood of each contrast by the two numbers of a `ContrastLook`; together 1.

    Args:
        bright_tail: of the scan.
        deep_rise: of the scan; `None` says nothing of it.
        t2_tail: tail above which T2w is likelier than the others.
        t1_rise: rise above which T1w is likelier than FLAIR.
    """
    bright = _logistic(math.log(max(bright_tail, 1e-6) / t2_tail) / TAIL_WIDTH)
    deep = 0.5 if deep_rise is None else _logistic((deep_rise - t1_rise) / RISE_WIDTH)
    return {"T1w": (1 - bright) * deep, "T2w": bright, "FLAIR": (1 - bright) * (1 - deep)}


def _deep_rise(slices: NDArray[np.float32], brain: Mask, inner: Mask, fluid: float, spacing: list[float], middle: float) -> float | None:
    """`ContrastLook.deep_rise`; `fluid` is the intensity below which dark fluid lies."""
    tissue = brain & (slices > fluid)
    distance = _distances(tissue, spacing)
    bands = [slices[inner & tissue & (distance > near) & (distance <= far)] for near, far in (CORTEX_MM, DEEP_MM)]
    if min(len(band) for band in bands) < MIN_VOXELS // 5:
        return None
    cortex, deep = (float(np.median(band)) for band in bands)
    return (deep - cortex) / middle


def _distances(inside: Mask, spacing: list[float]) -> NDArray[np.float32]:
    """Distance to the nearest voxel outside, slice by slice, mm; what lies beyond the slice is outside."""
    found = [ndimage.distance_transform_edt(np.pad(each, 1), sampling=spacing)[1:-1, 1:-1] for each in inside]
    return np.stack(found).astype(np.float32)


def _darkest_threshold(values: NDArray[np.float32], rounds: int = 60) -> float:
    """Middle between the darkest two of three classes of intensities (k-means)."""
    means = np.quantile(values, (1 / 6, 1 / 2, 5 / 6))
    for _ in range(rounds):
        edges = (means[1:] + means[:-1]) / 2
        label = np.digitize(values, edges)
        counts = np.bincount(label, minlength=3)
        updated = np.where(counts > 0, np.bincount(label, values, 3) / np.maximum(counts, 1), means)
        if np.abs(updated - means).max() <= 1e-4 * abs(means[-1]):
            break
        means = updated
    return float(means[:2].mean())


def _logistic(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))

"""Whether a scan's histogram is that of a T2-weighted one, whatever its header says."""

import numpy as np
from scipy import ndimage

from dynamicdps.volumes.acquisition import across_slices
from dynamicdps.volumes.morphology import Mask
from dynamicdps.volumes.volume import Volume

# Measured: T1-weighted scans of 0.055 T 0.31 to 0.42, of 64 mT 1.31, of 1.5 T with contrast exponents of 0.3 to 1.5 0.32 to 1.70;
# T2-weighted scans 1.64 to 4.59.
MOST_TAILS = 1.9
MIN_VOXELS = 500
T2_LIKE = (
    "the brightest tissue stands out as fluid does in T2-weighted scans; the prior knows T1-weighted ones: do not use the result unless "
    "you know that the scan is T1-weighted"
)


def bright_tail(volume: Volume, inside: Mask, slice_axis: int | None = None) -> float | None:
    """How far the brightest tissue lies above the median, against the darkest below it: ``(q98 - q50) / (q50 - q2)``.

    Inside the brain eroded by 5 x 5 voxels of each slice, so that neither the skull nor its fluid counts, smoothed over a voxel in
    the plane, so that noise does not widen both tails.

    Args:
        volume: the scan.
        inside: its brain, same shape.
        slice_axis: axis across the slices; by default that of the longest voxel edge, else z.

    Returns:
        The ratio; `None` where too little brain is left, or it has one intensity.
    """
    axis = across_slices(volume.spacing) if slice_axis is None else slice_axis
    axis = 2 if axis is None else axis
    plane = [1 if a == axis else 5 for a in range(3)]
    inner = ndimage.binary_erosion(inside, np.ones(plane))
    if inner.sum() < MIN_VOXELS:
        return None
    smooth = ndimage.gaussian_filter(volume.data, [0.0 if a == axis else 1.0 for a in range(3)])
    low, middle, high = np.percentile(smooth[inner], (2, 50, 98))
    return float((high - middle) / (middle - low)) if middle > low else None


def contrast_doubts(volume: Volume, inside: Mask, slice_axis: int | None = None) -> list[str]:
    """A sentence where the scan looks T2-weighted; arguments as `bright_tail`."""
    tail = bright_tail(volume, inside, slice_axis)
    return [T2_LIKE] if tail is not None and tail > MOST_TAILS else []

"""The enhanced brain in the head that was scanned."""

import numpy as np

from dynamicdps.errors import InputError
from dynamicdps.volumes.grids import Grid, native_grid, sample
from dynamicdps.volumes.volume import Volume


def blend(enhanced: Volume, scan: Volume, mask: Volume, grid: Grid | None = None) -> Volume:
    """The enhanced image where the mask is 1, the scan where it is 0, and their mean weighted by the mask between.

    The scan is interpolated linearly on the grid and multiplied by one number, so that its median inside the brain is that of the
    enhanced image. What is outside the brain is thus shown as it was measured, never enhanced.

    Args:
        enhanced: result inside the brain, on any grid.
        scan: the measurement.
        mask: brain, 0 to 1, on the scan's grid.
        grid: that of the result; by default that of `enhanced`.

    Raises:
        InputError: the mask is not on the scan's grid, not in [0, 1] or empty, or the images do not overlap in the brain.
    """
    if not native_grid(scan).same_as(mask):
        raise InputError(f"the mask is {mask.shape} voxels, the scan {scan.shape}; expected one grid; resample the mask first")
    if mask.data.min() < 0 or mask.data.max() > 1:
        raise InputError(f"the mask holds {mask.data.min():g} to {mask.data.max():g}; expected 0 to 1; divide it by its maximum")
    grid = native_grid(enhanced) if grid is None else grid
    inner = sample(enhanced, grid, order=3)
    covered = sample(enhanced.with_data(np.ones(enhanced.shape, np.float32)), grid, order=0).data
    outer = sample(scan, grid).data
    weight = sample(mask, grid).data * covered
    brain = weight > 0.99
    if not brain.any() or np.median(outer[brain]) <= 0:
        raise InputError("the scan, its mask and the enhanced image do not overlap; expected one brain in one space; check their affines")
    gain = float(np.median(inner.data[brain]) / np.median(outer[brain]))
    return inner.with_data(weight * inner.data + (1 - weight) * gain * outer)

"""The enhanced brain in the head that was scanned."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.grids import Grid, native_grid, sample
from dynamicdps.volumes.morphology import Spacing, block_mean
from dynamicdps.volumes.volume import Volume

# Over this length the brightness of the scan follows that of the enhanced image: longer than gyri, shorter than shading.
GAIN_MM = 15.0
# The gain is computed on blocks of about this edge, and kept within this factor of its median.
BLOCK_MM, MOST_GAIN = 4.0, 2.0


def blend(enhanced: Volume, scan: Volume, mask: Volume, grid: Grid | None = None) -> Volume:
    """The enhanced image where the mask is 1, the scan where it is 0, and their mean weighted by the mask between.

    The scan is interpolated linearly on the grid and multiplied by a smooth factor, which inside the brain is the ratio of the enhanced
    image to the scan over some centimetres and goes on outside of it: units, shading and contrast are then alike on both sides of the
    mask's edge. What is outside the brain is shown as it was measured, never enhanced; between, no voxel is darker or brighter than both.

    Args:
        enhanced: result inside the brain, on any grid.
        scan: the measurement.
        mask: brain, 0 to 1, on the scan's grid.
        grid: that of the result; by default that of `enhanced`.

    Raises:
        InputError: the mask is not on the scan's grid, not in [0, 1] or empty, or the images do not overlap in the brain.
    """
    return Surroundings.of(enhanced, scan, mask, grid).with_brain(enhanced)


@dataclass(frozen=True)
class Surroundings:
    """What lies around an enhanced brain, for it and for others on its grid, such as posterior samples.

    Attributes:
        grid: of the blended images.
        weight: of the brain, 0 to 1, on that grid.
        rest: the scan with its gain and weight, on that grid, in the units of the brain.
    """

    grid: Grid
    weight: NDArray[np.float32]
    rest: NDArray[np.float32]

    @classmethod
    def of(cls, enhanced: Volume, scan: Volume, mask: Volume, grid: Grid | None = None) -> "Surroundings":
        """Arguments and errors as `blend`."""
        if not native_grid(scan).same_as(mask):
            raise InputError(f"the mask is {mask.shape} voxels, the scan {scan.shape}; expected one grid; resample the mask first")
        if mask.data.min() < 0 or mask.data.max() > 1:
            raise InputError(f"the mask holds {mask.data.min():g} to {mask.data.max():g}; expected 0 to 1; divide it by its maximum")
        grid = native_grid(enhanced) if grid is None else grid
        inner = sample(enhanced, grid, order=3).data
        covered = sample(enhanced.with_data(np.ones(enhanced.shape, np.float32)), grid, order=0).data
        outer = sample(scan, grid).data
        weight = sample(mask, grid).data * covered
        brain = weight > 0.99
        if not brain.any() or np.median(outer[brain]) <= 0:
            raise InputError(
                "the scan, its mask and the enhanced image do not overlap; expected one brain in one space; check their affines"
            )
        gain = _gain(inner, outer, np.where(brain, weight, 0), _edges(grid))
        return cls(grid, weight, (1 - weight) * gain * outer)

    def with_brain(self, enhanced: Volume) -> Volume:
        """The brain in them."""
        inner = sample(enhanced, self.grid, order=3)
        return inner.with_data(self.weight * inner.data + self.rest)


def _edges(grid: Grid) -> Spacing:
    x, y, z = np.linalg.norm(grid.affine[:3, :3], axis=0).tolist()
    return x, y, z


def _gain(inner: NDArray[np.float32], outer: NDArray[np.float32], weight: NDArray[np.float32], spacing: Spacing) -> NDArray[np.float32]:
    """The smooth ratio of two images where the weight is, continued everywhere."""
    from scipy import ndimage

    i, j, k = (max(1, round(BLOCK_MM / edge)) for edge in spacing)
    sums = [block_mean(weight * image.clip(0), (i, j, k)).astype(np.float64) for image in (inner, outer)]
    widths = [GAIN_MM / (edge * f) for edge, f in zip(spacing, (i, j, k), strict=True)]
    median = float(np.median(inner[weight > 0]) / np.median(outer[weight > 0]))
    # Far from the brain nothing is left of it: there, and for stability, a little of the median ratio counts everywhere.
    a, b = (ndimage.gaussian_filter(total, widths, mode="nearest") for total in sums)
    little = 1e-3 * b.max()
    coarse = np.clip((a + little * median) / (b + little), median / MOST_GAIN, median * MOST_GAIN)
    places = np.meshgrid(*((np.arange(n) + 0.5) / f - 0.5 for n, f in zip(inner.shape, (i, j, k), strict=True)), indexing="ij", sparse=True)
    full = np.broadcast_arrays(*places)
    return np.asarray(ndimage.map_coordinates(coarse, full, order=1, mode="nearest"), dtype=np.float32)

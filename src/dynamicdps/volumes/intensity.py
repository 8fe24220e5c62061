"""Brain mask and robust intensity scaling."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.volume import Volume

PERCENTILE = 99.0
PERCENTILE_VALUE = 0.95


@dataclass(frozen=True)
class IntensityScale:
    """Scanner units to image intensities: ``image = scanner / scale``; zero stays zero, nothing is clipped.

    Attributes:
        scale: scanner units of one image-intensity unit, greater than 0.
    """

    scale: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"the intensity scale is {self.scale}; expected a number greater than 0; check the scan's intensities")

    @classmethod
    def robust(cls, data: NDArray[Any], mask: NDArray[Any] | None = None, value: float = PERCENTILE_VALUE) -> "IntensityScale":
        """The scale that puts the 99th percentile inside the brain at 0.95.

        Percentiles, not the maximum: a few bright vessels must not darken the brain. 0.95 leaves them room below 1.

        Args:
            data: intensities of any shape.
            mask: brain, same shape: booleans, or shares of which those of at least one half count; by default voxels greater than 0.
            value: image intensity of that percentile, where the contrast is not the prior's (a measurement).

        Raises:
            InputError: no voxel is greater than 0.
        """
        inside = data[(data > 0) if mask is None else mask >= 0.5]
        if inside.size == 0 or inside.max() <= 0:
            raise InputError("the image has no voxel greater than 0 inside the brain; expected a magnitude image; check sign and mask")
        return cls(float(np.percentile(inside, PERCENTILE)) / value)

    def apply(self, volume: Volume) -> Volume:
        """To image intensities."""
        return volume.with_data(volume.data / self.scale)

    def undo(self, volume: Volume) -> Volume:
        """Back to scanner units."""
        return volume.with_data(volume.data * self.scale)


def brain_mask(volume: Volume, threshold: float = 0.02) -> NDArray[np.bool_]:
    """Brain of a skull-stripped volume: the largest connected region above a threshold, holes filled slice by slice.

    Args:
        volume: skull-stripped intensities.
        threshold: share of the robust intensity range below which a voxel is background.

    Raises:
        InputError: no voxel is greater than 0.
    """
    from scipy import ndimage

    scale = IntensityScale.robust(volume.data).scale
    labels, _ = ndimage.label(volume.data > threshold * scale)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    mask: NDArray[np.bool_] = labels == sizes.argmax()
    for z in range(mask.shape[2]):
        mask[..., z] = ndimage.binary_fill_holes(mask[..., z])
    return mask

"""False and lost structures: connected regions of wrong tissue."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.evaluation.tissue import TISSUES, dice

# A ball of 3 mm.
SMALLEST_MM3 = 14.0


@dataclass(frozen=True)
class Region:
    """One connected region of wrong tissue.

    Attributes:
        tissue: ``csf``, ``gm`` or ``wm``.
        mm3: volume.
        centroid: in voxels ``(x, y, z)``.
        box: first voxel and the one after the last, along x, y, z.
    """

    tissue: str
    mm3: float
    centroid: tuple[float, float, float]
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class StructureErrors:
    """What a reconstruction's tissue map shows that the truth's does not, and the other way round.

    Attributes:
        false: structures that the reconstruction invents, largest first.
        lost: structures of the truth that it does not show, largest first.
        dice: overlap by tissue, from 0 to 1.
    """

    false: list[Region]
    lost: list[Region]
    dice: dict[str, float]

    @property
    def false_mm3(self) -> float:
        return sum(region.mm3 for region in self.false)

    @property
    def lost_mm3(self) -> float:
        return sum(region.mm3 for region in self.lost)


def structure_errors(
    reconstruction: NDArray[np.uint8], truth: NDArray[np.uint8], spacing: tuple[float, float, float], threshold_mm3: float = SMALLEST_MM3
) -> StructureErrors:
    """Compare two tissue maps region by region.

    For each tissue, the voxels that have it in the reconstruction but not in the truth are wrong. Those that are not even beside
    the truth's tissue (one voxel, 26 neighbours; 8 in a single slice) are cores. A connected core with the wrong voxels that touch
    it is a region. It counts where it has at least `threshold_mm3` and its core is more than half of it. A boundary that is off by
    one voxel has no core, wherever it runs; a flat one that is off by two has a core of half. Lost structures are the same
    with both maps exchanged.

    Args:
        reconstruction: labels ``(x, y, z)`` of `segment`; 0 outside the brain.
        truth: likewise, the same shape.
        spacing: voxel size in mm.
        threshold_mm3: smaller regions do not count; by default a ball of 3 mm.

    Raises:
        InputError: the shapes differ or are not those of volumes.
    """
    if reconstruction.shape != truth.shape or truth.ndim != 3:
        raise InputError(
            f"the tissue maps have shapes {reconstruction.shape} and {truth.shape}; expected one shape (x, y, z); resample to the truth's"
        )
    return StructureErrors(
        false=_regions(reconstruction, truth, spacing, threshold_mm3),
        lost=_regions(truth, reconstruction, spacing, threshold_mm3),
        dice=dice(reconstruction, truth),
    )


def _regions(
    shown: NDArray[np.uint8], reference: NDArray[np.uint8], spacing: tuple[float, float, float], threshold_mm3: float
) -> list[Region]:
    from scipy import ndimage

    around: NDArray[Any] = np.ones((3, 3, 3), dtype=bool)
    voxel = float(np.prod(spacing))
    found = []
    for index, tissue in enumerate(TISSUES, start=1):
        there = reference == index
        wrong = (shown == index) & ~there
        cores, count = ndimage.label(wrong & ~ndimage.binary_dilation(there, around), around)
        regions = np.where(cores > 0, cores, ndimage.grey_dilation(cores, footprint=around) * wrong)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        inner = np.bincount(cores.ravel(), minlength=count + 1)
        for number, box in enumerate(ndimage.find_objects(regions, count), start=1):
            if sizes[number] * voxel < threshold_mm3 or 2 * inner[number] <= sizes[number]:
                continue
            start = [part.start for part in box]
            centroid = np.argwhere(regions[box] == number).mean(0) + start
            extent = [(int(part.start), int(part.stop)) for part in box]
            x, y, z = centroid.tolist()
            found.append(Region(tissue, float(sizes[number]) * voxel, (x, y, z), (extent[0], extent[1], extent[2])))
    return sorted(found, key=lambda region: -region.mm3)

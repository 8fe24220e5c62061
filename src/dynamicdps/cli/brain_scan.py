"""A scan as users have it: a file or a DICOM folder, with or without the skull."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.operators import NoiseEstimate, estimate_noise
from dynamicdps.volumes import BrainMask, Volume, blend, bounding_box, covering, crop, extract_brain, read_scan, target_grid, to_slices
from dynamicdps.volumes.acquisition import Acquisition

# Voxels around the brain that stay: what blurs into it from there is part of its measurement.
MARGIN = 6
EDGE_MM = 4.0


@dataclass(frozen=True)
class BrainScan:
    """A scan and its brain.

    Attributes:
        whole: as it was read.
        acquisition: what header and sidecar say.
        mask: the brain on the scan's grid.
        brain: the scan without the rest: of a skull-stripped scan the scan itself, of a head the box around its brain, 0 outside of it.
        weights: 1 in the brain and 0 outside, on the grid of `brain`; `None` for a skull-stripped scan.
    """

    whole: Volume
    acquisition: Acquisition
    mask: BrainMask
    brain: Volume
    weights: NDArray[np.float32] | None

    def noise(self) -> NoiseEstimate:
        """Noise of the scan in its own units, from the air around the head where there is any."""
        y = to_slices(self.whole.data).movedim(0, 1)[None]
        if self.weights is None:
            return estimate_noise(y)
        try:
            return estimate_noise(y, kind="background")
        except InputError:
            # A scanner that sets the air to 0: the quietest tissue of the brain is what is left.
            return estimate_noise(y, to_slices(self.mask.inside.astype(np.float32)).movedim(0, 1)[None] > 0, kind="image")

    def in_head(self, enhanced: Volume, grid: str) -> Volume:
        """The enhanced brain in the scan's own surroundings, on a grid: ``"prior"``, ``"native"`` or a file's.

        Raises:
            InputError: as `target_grid` and `blend`.
        """
        chosen = covering(enhanced, self.whole) if grid == "prior" else target_grid(grid, self.whole)
        return blend(enhanced, self.whole, self.mask.soft(self.whole, EDGE_MM), chosen)


def open_brain(path: Path, series: int | None, mask: str) -> BrainScan:
    """Read a scan and find its brain.

    Args:
        path: image file or DICOM folder.
        series: which one, where a folder holds several.
        mask: as `extract_brain`.

    Raises:
        InputError: as `read_scan` and `extract_brain`.
    """
    scan = read_scan(path, series)
    found = extract_brain(scan.volume, mask)
    if found.method == "none":
        return BrainScan(scan.volume, scan.acquisition, found, scan.volume, None)
    box = bounding_box(found.inside, MARGIN)
    weights = found.inside[box].astype(np.float32)
    part = crop(scan.volume, box)
    return BrainScan(scan.volume, scan.acquisition, found, part.with_data(part.data * weights), weights)

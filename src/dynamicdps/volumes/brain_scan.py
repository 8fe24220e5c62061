"""A scan as users have it: a file or a DICOM folder, with or without the skull."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dynamicdps.volumes.acquisition import Acquisition
from dynamicdps.volumes.blending import Surroundings
from dynamicdps.volumes.brain_extraction import BrainMask, Finder, extract_brain
from dynamicdps.volumes.crop import bounding_box, crop
from dynamicdps.volumes.grids import covering, native_grid, sample, target_grid
from dynamicdps.volumes.reader import read_scan
from dynamicdps.volumes.scan import Scan
from dynamicdps.volumes.volume import Volume

# Voxels around the brain that stay: what blurs into it from there is part of its measurement.
MARGIN = 6
EDGE_MM = 4.0
# The enhanced brain passes into its surroundings over this width inside the mask: beyond it there is no estimate.
RIM_MM = 2.5
# Exact zeros outside the brain beyond which they are a mask's, not a coincidence of rounding.
MASKED_SHARE = 0.05


@dataclass(frozen=True)
class BrainScan:
    """A scan and its brain.

    Attributes:
        whole: as it was read.
        acquisition: what header and sidecar say.
        mask: the brain on the scan's grid.
        brain: the scan without the rest: of a skull-stripped scan the scan itself, of a head the brain, 0 outside of it.
        weights: 1 in the brain and 0 outside, on the grid of `brain`; `None` for a skull-stripped scan.
    """

    whole: Volume
    acquisition: Acquisition
    mask: BrainMask
    brain: Volume
    weights: NDArray[np.float32] | None

    @property
    def measured(self) -> NDArray[np.float32] | None:
        """1 where a voxel of `brain` was measured and 0 where a mask put an exact 0, which has no noise; `None` where all were measured."""
        if self.weights is not None:
            return self.weights
        kept = (self.brain.data != 0) | self.mask.inside
        # Slices beyond the brain have nothing to be left out of.
        kept |= ~kept.any(axis=(0, 1))
        return kept.astype(np.float32) if kept.mean() < 1 - MASKED_SHARE else None

    @property
    def around(self) -> Volume:
        """The scan on the grid of `brain` with what surrounds the brain there."""
        return self.brain if self.weights is None else sample(self.whole, native_grid(self.brain), order=0)

    @property
    def soft_mask(self) -> Volume | None:
        """The brain with its soft edge on the grid of `brain`, 0 to 1; `None` for a skull-stripped scan."""
        return None if self.weights is None else sample(self.mask.soft(self.whole, EDGE_MM), native_grid(self.brain), order=0)

    def inside_on(self, image: Volume) -> NDArray[np.float32]:
        """The brain with its soft edge on the grid of an image, 0 to 1."""
        return sample(self.mask.soft(self.whole, EDGE_MM), native_grid(image)).data

    def surroundings(self, enhanced: Volume, grid: str) -> Surroundings:
        """What lies around an enhanced brain on a grid: ``"prior"``, ``"native"`` or a file's.

        Raises:
            InputError: as `target_grid` and `blend`.
        """
        chosen = covering(enhanced, self.whole) if grid == "prior" else target_grid(grid, self.whole)
        return Surroundings.of(enhanced, self.whole, self.mask.rim(self.whole, RIM_MM), chosen)


def open_brain(path: Path, series: int | None = None, mask: str = "auto", *, cropped: bool = True) -> BrainScan:
    """Read a scan and find its brain.

    Args:
        path: image file or DICOM folder.
        series: which one, where a folder holds several.
        mask: as `extract_brain`.
        cropped: leave of a head only the box around its brain; not where a forward model is tied to the grid of the whole scan.

    Raises:
        InputError: as `read_scan` and `extract_brain`.
    """
    return cut_brain(read_scan(path, series), mask, cropped=cropped)


def cut_brain(scan: Scan, mask: str = "auto", *, cropped: bool = True, network: Finder | None = None) -> BrainScan:
    """Find the brain of a scan; arguments and errors as `open_brain` and `extract_brain`."""
    found = extract_brain(scan.volume, mask, network)
    if found.method == "none":
        return BrainScan(scan.volume, scan.acquisition, found, scan.volume, None)
    box = bounding_box(found.inside, MARGIN) if cropped else (slice(None), slice(None), slice(None))
    weights = found.inside[box].astype(np.float32)
    part = crop(scan.volume, box)
    return BrainScan(scan.volume, scan.acquisition, found, part.with_data(part.data * weights), weights)

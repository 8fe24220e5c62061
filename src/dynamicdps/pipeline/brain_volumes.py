"""Tissue volumes of the images of a run, with what its posterior samples leave open."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.evaluation import StageMetrics, segment, tissue_intervals, tissue_volumes
from dynamicdps.evaluation.tissue import is_cut_off
from dynamicdps.solvers import Result
from dynamicdps.solvers.samplers import SamplerConfig
from dynamicdps.volumes import BrainScan, Volume, brain_mask
from dynamicdps.volumes.grids import native_grid, sample

Intervals = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class BrainVolumes:
    """Volumes in mm3 by ``csf``, ``gm``, ``wm``.

    Attributes:
        of: each image's, by its stage.
        intervals: 95 %, of the estimate; empty without samples.
        slab: whether the image holds a part of the brain only.
        warnings: why there are none.
    """

    of: dict[str, dict[str, float]] = field(default_factory=dict)
    intervals: Intervals = field(default_factory=dict)
    slab: bool = False
    warnings: list[str] = field(default_factory=list)

    def added_to(self, stages: Mapping[str, StageMetrics]) -> dict[str, StageMetrics]:
        """The stages with their volumes."""
        return {name: replace(metrics, volume_mm3=self.of.get(name, {})) for name, metrics in stages.items()}


def keeping_samples(config: Any) -> Any:
    """The configuration with posterior samples kept in memory, where there are several; one of a solver without samples as it is."""
    return replace(config, keep_samples=True) if isinstance(config, SamplerConfig) and config.samples > 1 else config


def brain_on(head: BrainScan, image: Volume) -> NDArray[np.bool_]:
    """The scan's brain mask on the grid of an image: where more than half of a voxel is brain.

    A stripped scan of coarse voxels shows a brain that is larger than it is, by the half-filled voxels around it, mostly in fluid: there
    the estimate's own edge counts too.
    """
    inside = Volume(head.mask.inside.astype(np.float32), head.whole.affine, head.whole.native)
    found = sample(inside, native_grid(image)).data > 0.5
    return found & brain_mask(image) if head.mask.method == "none" and (image.data > 0).any() else found


def measure_volumes(
    images: Mapping[str, Volume], samples: tuple[Volume, ...], mask: NDArray[np.bool_], contrast: str = "T1w"
) -> BrainVolumes:
    """Segment the images of a run and its posterior samples.

    Args:
        images: by stage, all on one grid; the last one is the estimate.
        samples: its posterior samples, may be none.
        mask: the brain on that grid.
        contrast: of the images. The segmentation takes the darkest tissue for fluid and the brightest for white matter, so that of other
            contrasts than T1w there are no volumes.
    """
    if contrast != "T1w":
        return BrainVolumes(slab=is_cut_off(mask), warnings=[f"the scan is {contrast}: tissue volumes are measured in T1w scans only"])
    spacing = next(iter(images.values())).spacing
    try:
        of = {name: tissue_volumes(segment(image.data, mask), spacing) for name, image in images.items()}
        return BrainVolumes(of, volume_intervals(samples, mask, of[list(images)[-1]]), is_cut_off(mask))
    except InputError as error:
        return BrainVolumes(warnings=[f"the tissue volumes are unknown: {error}"])


def volume_intervals(samples: tuple[Volume, ...], mask: NDArray[np.bool_], estimate: Mapping[str, float]) -> Intervals:
    """95 % intervals of the estimate's volumes from its posterior samples; none with fewer than two."""
    if len(samples) < 2:
        return {}
    return tissue_intervals([each.data for each in samples], mask, samples[0].spacing, estimate=estimate, pairs=True).interval_mm3


def without_samples(result: Result) -> Result:
    """The result without posterior samples: their memory is free, and no file of them is written."""
    return replace(result, samples=(), reconstruction=replace(result.reconstruction, samples=None))

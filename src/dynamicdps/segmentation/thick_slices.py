"""A scan of thick slices as an image of about 1 mm: what a conditional model that keeps the contrast makes of it, in the brain."""

import numpy as np

from dynamicdps.conditional import ConditionalVolumeUNet, load_conditional
from dynamicdps.models.names import known_models
from dynamicdps.segmentation.class_chances import ClassChances
from dynamicdps.segmentation.intensity_mixture import fine_grid
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import sample
from dynamicdps.volumes.morphology import depth

SHARPENING_MODEL = "unet-scanners"
# Slices are thick beyond this, unless voxels are as large along every axis: the network sees all of these.
THICK_MM = 2.0
# How far around the brain the model sees the scan, where its image ends, and over which width both fade.
SEEN_MM, MADE_MM, FADING_MM = 4.0, 0.0, 2.0


def has_thick_slices(volume: Volume) -> bool:
    """Whether some edges of a scan's voxels are longer than 2 mm and others are shorter, and there is a model for such scans."""
    return min(volume.spacing) < THICK_MM < max(volume.spacing) and SHARPENING_MODEL in known_models(("volume-unet",))


def without_thick_slices(volume: Volume, chances: ClassChances) -> Volume:
    """The scan on voxels of about 1 mm along its axes: the conditional model's image in the brain, the interpolated scan around it.

    The model undoes blur, thick slices and noise, and leaves contrast and shading. It knows nothing of what is around a brain.

    Args:
        volume: the scan; one without thick slices comes back as it is.
        chances: of the network on it, with a brain.
    """
    if not has_thick_slices(volume) or not chances.inside.any():
        return volume
    model = load_conditional(SHARPENING_MODEL)
    if not isinstance(model, ConditionalVolumeUNet):
        raise TypeError(f"{SHARPENING_MODEL} is no conditional model of whole volumes")
    grid = fine_grid(volume, chances)
    interpolated = sample(volume, grid)
    distance = depth(~chances.brain_on(grid), interpolated.spacing).astype(np.float32)
    seen, made = (np.clip(1 - (distance - start) / FADING_MM, 0, 1) for start in (SEEN_MM, MADE_MM))
    image = model.on_grid(volume, grid, interpolated.with_data(seen))[0, 0].numpy().transpose(2, 1, 0)
    return interpolated.with_data(made * image + (1 - made) * interpolated.data)

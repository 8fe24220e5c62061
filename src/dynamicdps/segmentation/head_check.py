"""What is no scan of a head is refused with a sentence that says what it is instead."""

import numpy as np
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.segmentation.brain_network import on_working_grid
from dynamicdps.segmentation.class_chances import ClassChances
from dynamicdps.segmentation.classes import BRAIN, CLASSES
from dynamicdps.volumes import Volume
from dynamicdps.volumes.morphology import erode

# Air in Hounsfield units, and the share of a CT's voxels that it fills at least.
AIR_HU, AIR_SHARE = (-1100.0, -900.0), 0.05
# Shares of a brain that are cortex and white matter, of whole ones and of slabs at any level.
SHARES = (0.08, 0.92)
# Mean chance of being brain inside of it, at least.
RECOGNISED = 0.5
# Contrast inside a brain, at least: phantoms of one liquid have less than 0.03, scans of brains at 0.055 to 3 T 0.11 and more.
CONTRAST = 0.05
# Where the outline no longer counts, and the width that shading is smooth over, in voxels of 2 mm.
DEEP_MM, SHADING_VOXELS = 8.0, 8.0


def check_scan(volume: Volume) -> None:
    """Refuse what is no MR image.

    Raises:
        InputError: it is a CT or a mask.
    """
    data = volume.data
    if float(((data > AIR_HU[0]) & (data < AIR_HU[1])).mean()) > AIR_SHARE:
        raise InputError(
            "the image has values around -1000 where air is, as a CT in Hounsfield units; expected a magnitude image of MRI; name another "
            "file"
        )
    if ((data == data.min()) | (data == data.max())).all():
        raise InputError("the image has two values only, as a mask; expected a magnitude image of MRI; name the scan that it belongs to")


def check_brain(chances: ClassChances, volume: Volume) -> None:
    """Refuse a brain that none is.

    Args:
        chances: of the volume.
        volume: the scan.

    Raises:
        InputError: nothing is found, or what is found is even inside or has not the tissues of a brain.
    """
    if not chances.inside.any():
        raise InputError("no brain is found in the scan; expected a head or a brain; check the image, or give a mask")
    if (contrast := _contrast(chances, volume)) < CONTRAST:
        raise InputError(
            f"what is found in the scan is no brain: inside it intensities differ by {contrast:.1%} only, as in a phantom; expected a head "
            "or a brain with its tissues; check the image"
        )
    inside = chances.values[:, chances.inside].mean(1)
    recognised = float(inside[list(BRAIN)].sum())
    if recognised < RECOGNISED:
        raise InputError(
            f"{recognised:.0%} of the brain are recognised as brain; expected at least {RECOGNISED:.0%}; check the image, or the mask "
            "if one is given"
        )
    shares = inside / recognised
    cortex, white = (float(shares[CLASSES.index(name)]) for name in ("cortex", "white matter"))
    if not (SHARES[0] <= cortex <= SHARES[1] and SHARES[0] <= white <= SHARES[1]):
        raise InputError(
            f"what is found in the scan is no brain: {cortex:.0%} of it is cortex and {white:.0%} white matter; expected a head or a "
            "brain, not a phantom or another part of the body; check the image"
        )


def _contrast(chances: ClassChances, volume: Volume) -> float:
    """Standard deviation of the intensities deep inside the brain, without noise and shading, as a share of their mean."""
    from scipy import ndimage

    coarse = on_working_grid(volume)
    core = erode(chances.inside, DEEP_MM, coarse.spacing)
    weight = (core if core.any() else chances.inside).astype(np.float32)

    def mean(width: float) -> NDArray[np.float32]:
        """Over a Gaussian of that many voxels, inside only."""
        sums = ndimage.gaussian_filter(coarse.data * weight, width)
        return np.asarray(sums / np.maximum(ndimage.gaussian_filter(weight, width), 1e-3))

    around = mean(SHADING_VOXELS)
    return float((mean(1.0) / np.maximum(around, 1e-6 * max(float(around.max()), 1e-12)))[weight > 0].std())

"""What is no scan of a head is refused with a sentence that says what it is instead."""

from dynamicdps.errors import InputError
from dynamicdps.segmentation.class_chances import ClassChances
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.volumes import Volume

# Air in Hounsfield units, and the share of a CT's voxels that it fills at least.
AIR_HU, AIR_SHARE = (-1100.0, -900.0), 0.05
# Shares of a brain that are cortex and white matter, of whole ones and of slabs at any level.
SHARES = (0.08, 0.92)
# Mean chance of the likeliest class inside a brain below which nothing was recognised.
RECOGNISED = 0.5


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


def check_brain(chances: ClassChances) -> None:
    """Refuse a brain that none is.

    Raises:
        InputError: nothing is found, or what is found has not the tissues of a brain.
    """
    if not chances.inside.any():
        raise InputError("no brain is found in the scan; expected a head or a brain; check the image, or give a mask")
    inside = chances.values[:, chances.inside]
    shares = inside.mean(1) / max(float(inside[2:].sum(0).mean()), 1e-6)
    cortex, white = (float(shares[CLASSES.index(name)]) for name in ("cortex", "white matter"))
    sure = float(inside.max(0).mean())
    if not (SHARES[0] <= cortex <= SHARES[1] and SHARES[0] <= white <= SHARES[1] and sure >= RECOGNISED):
        raise InputError(
            f"what is found in the scan is no brain: {cortex:.0%} of it is cortex and {white:.0%} white matter, with a mean chance of "
            f"{sure:.2f}; expected a head or a brain, not a phantom or another part of the body; check the image"
        )

"""The part of a scan that holds the brain, and its axes in another order."""

from dataclasses import replace

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.volume import Volume


def bounding_box(inside: NDArray[np.bool_], margin: int = 0) -> tuple[slice, slice, slice]:
    """Smallest box that holds all true voxels, wider by `margin` voxels on each side as far as the grid goes.

    Args:
        inside: ``(x, y, z)``.
        margin: voxels, at least 0.

    Raises:
        InputError: nothing is true.
    """
    if not inside.any():
        raise InputError("the mask is empty; expected a brain in it; check the mask")
    spans = []
    for axis in range(3):
        held = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append(slice(max(0, int(held[0]) - margin), min(inside.shape[axis], int(held[-1]) + 1 + margin)))
    return spans[0], spans[1], spans[2]


def crop(volume: Volume, box: tuple[slice, slice, slice]) -> Volume:
    """The voxels of a box; each stays where it is in space.

    Args:
        volume: any.
        box: of `bounding_box`, without steps.
    """
    affine = volume.affine.copy()
    affine[:3, 3] = apply_affine(volume.affine, [axis.start or 0 for axis in box])
    return replace(volume, data=np.ascontiguousarray(volume.data[box]), affine=affine, path=None)


def swap_axes(volume: Volume, axis: int) -> Volume:
    """The volume with one axis and the last one swapped; each voxel stays where it is in space.

    It is no longer in RAS order: for algorithms that want slices along the last axis, not for writing.

    Args:
        volume: any.
        axis: 0 to 2; 2 changes nothing.
    """
    order = list(range(4))
    order[axis], order[2] = order[2], order[axis]
    return Volume(np.ascontiguousarray(volume.data.swapaxes(axis, 2)), volume.affine[:, order])

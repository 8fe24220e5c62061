"""Shapes on grids of any voxel size: distances and radii are in mm."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]


def largest(mask: Mask) -> Mask:
    """The largest connected region; nothing of nothing."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def depth(mask: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """Distance in mm to the nearest voxel outside; 0 outside, infinity where there is none.

    What touches the border of the image goes on beyond it: the cut through a head is not its surface.
    """
    from scipy import ndimage

    if mask.all():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing))


def around(mask: Mask, radius_mm: float, spacing: Spacing) -> tuple[slice, ...]:
    """The box of what lies within a radius of a shape and, but at the border of the image, one voxel more; nothing of nothing."""
    box = []
    for axis, edge in enumerate(spacing):
        reached = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        margin = int(radius_mm / edge) + 1
        box.append(slice(max(0, int(reached[0]) - margin), int(reached[-1]) + margin + 1) if len(reached) else slice(0, 0))
    return tuple(box)


def dilate(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    found = np.zeros_like(mask)
    if mask.any():
        box = around(mask, radius_mm, spacing)
        found[box] = depth(~mask[box], spacing) <= radius_mm
    return found


def erode(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    found = np.zeros_like(mask)
    box = around(mask, 0.0, spacing)
    found[box] = depth(mask[box], spacing) > radius_mm
    return found


def close(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    return erode(dilate(mask, radius_mm, spacing), radius_mm, spacing) | mask


def open_(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    return dilate(erode(mask, radius_mm, spacing), radius_mm, spacing) & mask


def fill_planes(mask: Mask, axis: int) -> Mask:
    """Holes filled in each plane across an axis."""
    from scipy import ndimage

    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(mask, axis, 0)], axis).astype(bool)


def soft_edge(mask: Mask, width_mm: float, spacing: Spacing) -> NDArray[np.float32]:
    """1 inside; outside falling with the distance, in a straight line, to 0 at `width_mm`."""
    if width_mm <= 0:
        return mask.astype(np.float32)
    return np.clip(1 - depth(~mask, spacing) / width_mm, 0, 1).astype(np.float32)


def inner_edge(mask: Mask, width_mm: float, spacing: Spacing) -> NDArray[np.float32]:
    """0 outside; inside rising with the distance from the surface, in a straight line, to 1 at `width_mm`."""
    if width_mm <= 0:
        return mask.astype(np.float32)
    return np.clip(depth(mask, spacing) / width_mm, 0, 1).astype(np.float32)


def block_mean(data: NDArray[Any], factors: tuple[int, int, int]) -> NDArray[np.float32]:
    """Means over blocks of voxels; the last block is filled by repeating the border."""
    padded = np.pad(data, [(0, -n % f) for n, f in zip(data.shape, factors, strict=True)], mode="edge")
    (x, y, z), (i, j, k) = padded.shape, factors
    return np.asarray(padded.reshape(x // i, i, y // j, j, z // k, k).mean((1, 3, 5)), dtype=np.float32)

"""The plane between the halves of a brain."""

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Standard deviations in voxels of the chances that are compared: the first finds the plane from far, the second exactly.
_SMOOTH = (4.0, 1.5)
# Every so many voxels are compared.
_EVERY = 3
_ITERATIONS = 12
# Steps of the differences in mm and in tangents of an angle, and a change that ends the iteration.
_STEPS, _DONE = np.array([1.0, 0.02, 0.02]), np.array([1e-2, 1e-4, 1e-4])
# Most change of an iteration.
_MOST = np.array([10.0, 0.15, 0.15])


@dataclass(frozen=True)
class Midplane:
    """Points x with ``normal . x = offset``.

    Attributes:
        normal: unit vector to the subject's right, RAS.
        offset: mm.
        agreement: share of the brain whose mirror image is of the same class, 0 to 1.
    """

    normal: Array
    offset: float
    agreement: float

    def distance(self, points: Array) -> Array:
        """How far points ``(..., 3)`` in mm lie to the right of the plane, mm; less than 0 on the left."""
        return np.asarray(points @ self.normal - self.offset)


def fit_midplane(chances: NDArray[np.float32], affine: Array) -> Midplane:
    """The plane that mirrors a brain best: least squares of the differences between the chances and their mirror image.

    Gauss-Newton from the plane across the left-right axis through the brain's centre. A mirrored brain gives the mirrored plane.

    Args:
        chances: of some tissues of the brain, ``(tissues, x, y, z)``, not 0 everywhere.
        affine: voxel indices to RAS mm.
    """
    from scipy import ndimage

    weight = chances.sum(0)
    centre = apply_affine(affine, np.argwhere(weight >= 0)).T @ weight.ravel().astype(np.float64) / float(weight.sum())
    reached = [np.flatnonzero(weight.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    index = np.stack(np.meshgrid(*(np.arange(r[0], r[-1] + 1, _EVERY) for r in reached), indexing="ij"), -1).reshape(-1, 3)
    points, inverse = apply_affine(affine, index), np.linalg.inv(affine)
    # Shift along the normal, and the normal's slopes forward and up.
    at = np.zeros(3)
    for width in _SMOOTH:
        smooth = np.stack([ndimage.gaussian_filter(each, width, mode="nearest") for each in chances])
        here = np.stack([each[tuple(index.T)] for each in smooth])

        def differences(p: Array, smooth: NDArray[np.float32] = smooth, here: NDArray[np.float32] = here) -> Array:
            plane = _plane(p, centre)
            mirrored = points - 2 * plane.distance(points)[:, None] * plane.normal
            places = apply_affine(inverse, mirrored).T
            there = [ndimage.map_coordinates(each, places, order=1, mode="nearest") for each in smooth]
            return np.asarray((here - np.stack(there)).ravel(), dtype=np.float64)

        for _ in range(_ITERATIONS):
            slopes = np.stack([(differences(at + step) - differences(at - step)) / (2 * step.sum()) for step in np.diag(_STEPS)], 1)
            normal = slopes.T @ slopes
            # A sliver of damping, for slabs that do not show every angle.
            change = -np.linalg.solve(normal + 1e-6 * np.diag(normal.diagonal() + 1e-9), slopes.T @ differences(at))
            at = at + np.clip(change, -_MOST, _MOST)
            if (np.abs(change) < _DONE).all():
                break
    plane = _plane(at, centre)
    agreement = 1 - float(np.abs(differences(at)).sum()) / max(2 * float(here.sum()), 1e-12)
    return Midplane(plane.normal, plane.offset, agreement)


def _plane(p: Array, centre: Array) -> Midplane:
    normal = np.array([1.0, p[1], p[2]]) / np.sqrt(1 + p[1] ** 2 + p[2] ** 2)
    return Midplane(normal, float(normal @ centre + p[0]), 0.0)

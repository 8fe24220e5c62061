"""Where a head lies relative to the heads that a prior was trained on."""

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from dynamicdps.errors import InputError
from dynamicdps.volumes.grids import prior_grid, sample
from dynamicdps.volumes.volume import Volume

MIN_EXTENT_MM = 80.0
GRID_MM = 4


def template() -> Volume:
    """The brain of the ICBM 152 average of 2009 at 4 mm, from the package nilearn; nothing is downloaded."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=GRID_MM)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64))


def align_to_template(volume: Volume, mask: Volume) -> NDArray[np.float64]:
    """The rigid movement that brings a brain onto the template's, by mutual information (dipy's affine registration).

    The scan itself is not touched: put the matrix inside the forward model, for example as the matrix of
    `operators.AffineResample`, ``inv(image affine) @ movement @ scan affine``.

    Args:
        volume: the scan, best free of shading.
        mask: brain, 0 to 1, on the scan's grid.

    Returns:
        ``(4, 4)``, mm to mm: a point of the scan's space to its place in the template's.

    Raises:
        InputError: the brain is less than 80 mm long in some direction, so that its place cannot be told.
    """
    places = apply_affine(volume.affine, np.argwhere(mask.data > 0.5))
    extent = np.ptp(places, axis=0) if len(places) else np.zeros(3)
    if extent.min() < MIN_EXTENT_MM:
        size = " x ".join(f"{e:.0f}" for e in extent)
        raise InputError(f"the brain in the scan is {size} mm large; expected {MIN_EXTENT_MM:g} mm each way to align it; leave that out")
    static = template()
    masked = volume.with_data(np.maximum(volume.data, 0) * mask.data)
    moving = sample(masked, prior_grid(volume, GRID_MM))
    # The middle of the brain's box, not its centre of mass: coils shade, and a neck that was left pulls.
    target = apply_affine(static.affine, np.argwhere(static.data > 0))
    start = np.eye(4)
    start[:3, 3] = (places.max(0) + places.min(0) - target.max(0) - target.min(0)) / 2
    return rigid_by_mutual_information(static, moving, start)


def rigid_by_mutual_information(fixed: Volume, moving: Volume, start: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """The rigid movement that brings one image onto another, by mutual information (dipy's affine registration).

    Args:
        fixed: on coarse voxels; any contrast.
        moving: likewise.
        start: a point of `fixed` in mm to its first place in `moving`; by default the same.

    Returns:
        ``(4, 4)``, mm to mm: a point of `moving` to its place in `fixed`.
    """
    from dipy.align.imaffine import AffineMap, AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import RigidTransform3D

    search = AffineRegistration(
        metric=MutualInformationMetric(nbins=32), level_iters=[60, 30], sigmas=[1.0, 0.0], factors=[2, 1], verbosity=0
    )
    mapping: AffineMap = search.optimize(
        fixed.data.astype(np.float64),
        moving.data.astype(np.float64),
        RigidTransform3D(),
        None,
        static_grid2world=fixed.affine,
        moving_grid2world=moving.affine,
        starting_affine=np.eye(4) if start is None else start,
    )
    return np.asarray(np.linalg.inv(mapping.affine))

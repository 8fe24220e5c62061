"""Volumes of one scan found again and again from slightly different images of it: how far they depend on chance."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from nibabel.affines import apply_affine

from dynamicdps.segmentation.brain_network import WORKING_MM, BrainNetwork, View
from dynamicdps.segmentation.class_chances import ClassChances
from dynamicdps.segmentation.classes import Structure
from dynamicdps.segmentation.intensity_mixture import EVERY, fine_grid, is_finer, refine_chances
from dynamicdps.segmentation.midplane import Midplane
from dynamicdps.volumes import Volume
from dynamicdps.volumes.crop import crop
from dynamicdps.volumes.grids import Grid, sample

# Most of the logarithm of the exponent of the intensities.
BENDING = 0.2
# How far around the brain and its fluid a draw sees the head.
SEEN_MM = 16.0


def repeated_volumes(
    network: BrainNetwork,
    volume: Volume,
    image: Volume,
    chances: ClassChances,
    plane: Midplane | None,
    *,
    count: int,
    noise_std: float,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> list[dict[Structure, float]]:
    """Volumes of structures in mm3 from drawn images of a scan.

    Each draw adds noise as strong as the scan's own, shifts the network's voxels by up to half of their edge along each axis, bends the
    scale of intensities by an exponent of ``exp(-0.2)`` to ``exp(0.2)``, and looks at the head or, every second time, at its mirror image.
    It sees the head up to 16 mm around the brain and its fluid, with the intensity scale of the whole; chances count where the scan's do.
    Finer chances are found on every second voxel along each axis, which tells volumes as well. The image on which they are found is not
    made anew from thick slices: the noise is interpolated onto it, which is more than the model that made it would let through.

    Args:
        network: what finds the structures.
        volume: the scan.
        image: the scan as `without_thick_slices` makes it.
        chances: of the network on the scan.
        plane: between left and right; `None` where sides are not told apart.
        count: of draws.
        noise_std: standard deviation of the noise that is added, units of the scan.
        seed: of the draws.
        progress: is told how many are done.
    """
    rng = np.random.default_rng(seed)
    counted = Volume(chances.support.astype(np.float32), chances.affine)
    near = _around(volume, chances)
    grid, finer = None, volume
    if is_finer(image, chances):
        fine = fine_grid(image, chances)
        x, y, z = (-(-n // EVERY) for n in fine.shape)
        grid = Grid((x, y, z), fine.affine @ np.diag([EVERY, EVERY, EVERY, 1.0]))
        finer = sample(image, grid)
    found = []
    for k in range(count):
        right, front, up = (float(v) for v in rng.uniform(-0.5, 0.5, 3) * WORKING_MM)
        view = View(bool(k % 2), (right, front, up), float(np.exp(rng.uniform(-BENDING, BENDING))))
        noise = near.with_data(noise_std * rng.standard_normal(near.shape, dtype=np.float32))
        drawn = network.chances(near.with_data(np.abs(near.data + noise.data)), (view,), chances.scale)
        x, y, z = drawn.values.shape[1:]
        drawn = replace(drawn, counted=sample(counted, Grid((x, y, z), drawn.affine), order=0).data > 0.5)
        if grid is not None:
            drawn = refine_chances(drawn, finer.with_data(np.abs(finer.data + sample(noise, grid).data)), grid)
        volumes = drawn.volumes(plane)
        found.append({structure: float(slices.sum()) for structure, slices in volumes.items()})
        progress(k + 1, count)
    return found


def _around(volume: Volume, chances: ClassChances) -> Volume:
    """What a draw sees of a scan."""
    places = apply_affine(np.linalg.inv(volume.affine) @ chances.affine, np.argwhere(chances.support))
    margin = SEEN_MM / np.array(volume.spacing)
    low, high = (places.min(0) - margin, places.max(0) + margin) if len(places) else (np.zeros(3), np.array(volume.shape))
    x, y, z = (slice(max(0, int(a)), int(b) + 2) for a, b in zip(low, high, strict=True))
    return crop(volume, (x, y, z))

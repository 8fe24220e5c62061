"""Volumes of one scan found again and again from slightly different images of it: how far they depend on chance."""

from collections.abc import Callable

import numpy as np

from dynamicdps.segmentation.brain_network import WORKING_MM, BrainNetwork, View
from dynamicdps.segmentation.classes import Structure
from dynamicdps.segmentation.intensity_mixture import refine_chances
from dynamicdps.segmentation.midplane import Midplane
from dynamicdps.volumes import Volume

# Most of the logarithm of the exponent of the intensities.
BENDING = 0.2


def repeated_volumes(
    network: BrainNetwork,
    volume: Volume,
    plane: Midplane | None,
    *,
    count: int,
    noise_std: float,
    brain: Volume | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> list[dict[Structure, float]]:
    """Volumes of structures in mm3 from drawn images of a scan.

    Each draw adds noise as strong as the scan's own, shifts the network's voxels by up to half of their edge along each axis, bends the
    scale of intensities by an exponent of ``exp(-0.2)`` to ``exp(0.2)``, and looks at the head or, every second time, at its mirror image.

    Args:
        network: what finds the structures.
        volume: the scan.
        plane: between left and right; `None` where sides are not told apart.
        count: of draws.
        noise_std: standard deviation of the noise that is added, units of the scan.
        brain: above one half in the brain; by default each draw finds its own.
        seed: of the draws.
        progress: is told how many are done.
    """
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        x, y, z = (float(v) for v in rng.uniform(-0.5, 0.5, 3) * WORKING_MM)
        view = View(bool(k % 2), (x, y, z), float(np.exp(rng.uniform(-BENDING, BENDING))))
        noisy = volume.with_data(np.abs(volume.data + noise_std * rng.standard_normal(volume.shape, dtype=np.float32)))
        chances = network.chances(noisy, (view,))
        volumes = refine_chances(chances if brain is None else chances.within(brain), noisy).volumes(plane)
        found.append({structure: float(slices.sum()) for structure, slices in volumes.items()})
        progress(k + 1, count)
    return found

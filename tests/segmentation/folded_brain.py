"""A brain with folds whose classes are known, scans of it, and what a network that sees no detail says of it."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.segmentation import ClassChances
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.volumes import Volume
from dynamicdps.volumes.grids import Grid, sample

FLUID, CORTEX, WHITE, THALAMUS = (CLASSES.index(name) for name in ("outer fluid", "cortex", "white matter", "thalamus"))
MEANS = {0: 0.1, FLUID: 0.3, CORTEX: 0.6, WHITE: 0.9, THALAMUS: 0.7}
EDGE = 84.0


def grid_of(edges: tuple[float, float, float]) -> Grid:
    """Voxels whose outer faces are those of a cube around the origin."""
    x, y, z = (round(EDGE / e) for e in edges)
    affine = np.diag([*edges, 1.0])
    affine[:3, 3] = [-EDGE / 2 + e / 2 for e in edges]
    return Grid((x, y, z), affine)


def truth(grid: Grid) -> NDArray[np.uint8]:
    """A folded surface of cortex around white matter, with fluid and bone outside and a thalamus on either side."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(index @ grid.affine[:3, :3].T + grid.affine[:3, 3], -1, 0)
    radius = np.sqrt(x**2 + y**2 + z**2)
    folds = 3 * np.cos(np.arctan2(y, x) * 14) * np.cos(z / 4)
    classes = np.select([radius < 24 + folds, radius < 29 + folds, radius < 35], [WHITE, CORTEX, FLUID], 0)
    for side, size in ((-9, 6.0), (11, 7.0)):
        classes[(x - side) ** 2 + y**2 + z**2 < size**2] = THALAMUS
    return classes.astype(np.uint8)


def scan_of(edges: tuple[float, float, float], noise: float = 0.04) -> Volume:
    fine = grid_of((1.0, 1.0, 1.0))
    means = np.zeros(len(CLASSES))
    means[list(MEANS)] = list(MEANS.values())
    image = Volume(means[truth(fine)].astype(np.float32), fine.affine)
    widths = [max(0.0, (e**2 - 1)) ** 0.5 / 2.355 for e in edges]
    scan = sample(image.with_data(ndimage.gaussian_filter(image.data, widths)), grid_of(edges))
    return scan.with_data(np.abs(scan.data + noise * np.random.default_rng(0).standard_normal(scan.shape, dtype=np.float32)))


def network_says() -> ClassChances:
    """Blurred chances of the truth on voxels of 2 mm, as of a network that sees no detail."""
    fine, coarse = grid_of((1.0, 1.0, 1.0)), grid_of((2.0, 2.0, 2.0))
    classes = truth(fine)
    values = [sample(Volume(ndimage.gaussian_filter((classes == k).astype(np.float32), 2.5), fine.affine), coarse).data for k in MEANS]
    chances = np.zeros((len(CLASSES), *coarse.shape), np.float32)
    chances[list(MEANS)] = values
    return ClassChances(chances / chances.sum(0), coarse.affine)

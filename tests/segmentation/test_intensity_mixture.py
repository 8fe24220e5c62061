"""Chances that are made finer by a scan whose classes are known."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from dynamicdps.segmentation import ClassChances, refine_chances
from dynamicdps.segmentation.classes import CLASSES
from dynamicdps.volumes import Volume, native_grid
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


def right(chances: ClassChances) -> float:
    """Share of the voxels of the brain and its fluid, of 1 mm, that have the class that they are of."""
    fine = grid_of((1.0, 1.0, 1.0))
    classes = truth(fine)
    index = np.argwhere(classes > 0)
    found = chances.at(index @ fine.affine[:3, :3].T + fine.affine[:3, 3]).argmax(0).numpy()
    return float((found == classes[tuple(index.T)]).mean())


@pytest.mark.parametrize(("edges", "most"), [((1.0, 1.0, 1.0), 0.08), ((1.5, 1.5, 4.0), 0.25)])
def test_a_scan_tells_what_the_network_does_not_see(edges: tuple[float, float, float], most: float) -> None:
    chances = network_says()
    fine = refine_chances(chances, scan_of(edges))
    before, after = 1 - right(chances), 1 - right(fine)
    assert after < most
    assert after < 0.8 * before
    np.testing.assert_allclose(fine.values.sum(0), 1, atol=1e-4)


def test_scale_and_shading_of_a_scan_do_not_matter() -> None:
    chances, scan = network_says(), scan_of((1.0, 1.0, 1.0))
    fine = refine_chances(chances, scan)
    scaled = refine_chances(chances, scan.with_data(300 * scan.data))
    np.testing.assert_allclose(scaled.values, fine.values, atol=2e-3)
    ramp = np.exp(0.3 * np.linspace(-1, 1, scan.shape[0], dtype=np.float32))[:, None, None]
    shaded = refine_chances(chances, scan.with_data(scan.data * ramp))
    assert right(shaded) > right(fine) - 0.02


def test_a_mirrored_scan_has_mirrored_chances() -> None:
    chances, scan = network_says(), scan_of((1.0, 1.0, 1.0))
    fine = refine_chances(chances, scan)
    swapped = refine_chances(replace(chances, values=chances.values[:, ::-1].copy()), scan.with_data(scan.data[::-1].copy()))
    brain, mirrored = fine.volumes(None), swapped.volumes(None)
    for structure, slices in brain.items():
        np.testing.assert_allclose(mirrored[structure].sum(), slices.sum(), rtol=0.01, atol=1)


def test_chances_follow_the_axes_of_the_scan() -> None:
    chances, scan = network_says(), scan_of((1.0, 1.0, 1.0))
    turned = Volume(np.ascontiguousarray(scan.data.swapaxes(0, 1)), scan.affine[:, [1, 0, 2, 3]])
    np.testing.assert_allclose(sample(turned, native_grid(scan)).data, scan.data, atol=1e-6)
    assert right(refine_chances(chances, turned)) == pytest.approx(right(refine_chances(chances, scan)), abs=0.003)


def test_a_coarse_or_empty_scan_and_no_brain_leave_the_chances_as_they_are() -> None:
    chances, scan = network_says(), scan_of((1.0, 1.0, 1.0))
    assert refine_chances(chances, scan_of((2.0, 2.0, 2.0))) is chances
    assert refine_chances(chances, scan.with_data(np.zeros_like(scan.data))) is chances
    nothing = np.zeros_like(chances.values)
    nothing[0] = 1
    empty = ClassChances(nothing, chances.affine)
    assert refine_chances(empty, scan) is empty


def test_a_given_brain_bounds_finer_chances() -> None:
    chances, scan = network_says(), scan_of((1.0, 1.0, 1.0))
    brain = scan.with_data((np.arange(scan.shape[0])[:, None, None] < 42) * np.ones_like(scan.data))
    whole = refine_chances(chances, scan).volumes(None)
    half = refine_chances(chances.within(brain), scan).volumes(None)
    name = next(structure for structure in whole if structure.name == "white matter")
    assert half[name].sum() < 0.75 * whole[name].sum()

"""Chances that are made finer by a scan whose classes are known."""

from dataclasses import replace

import numpy as np
import pytest

from dynamicdps.segmentation import ClassChances, refine_chances
from dynamicdps.volumes import Volume, native_grid
from dynamicdps.volumes.grids import Grid, sample
from tests.segmentation.folded_brain import grid_of, network_says, scan_of, truth


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


def test_every_second_voxel_tells_the_volumes() -> None:
    chances, scan = network_says(), scan_of((1.0, 1.0, 1.0))
    x, y, z = (-(-n // 2) for n in scan.shape)
    half = refine_chances(chances, scan, Grid((x, y, z), scan.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))).volumes(None)
    for structure, slices in refine_chances(chances, scan).volumes(None).items():
        assert half[structure].sum() == pytest.approx(slices.sum(), rel=0.05, abs=50)

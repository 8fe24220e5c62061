"""Scans of thick slices that become images of 1 mm."""

import numpy as np
import pytest
from scipy import ndimage

from dynamicdps.models import demo_scan
from dynamicdps.segmentation import ClassChances, without_thick_slices
from dynamicdps.segmentation.classes import BRAIN, CLASSES
from dynamicdps.volumes import Volume, load
from dynamicdps.volumes.grids import native_grid, prior_grid, sample
from dynamicdps.volumes.morphology import depth
from tests.segmentation.folded_brain import network_says, scan_of

THICK = (1.5, 1.5, 5.25)


@pytest.mark.parametrize("edges", [(1.0, 1.0, 1.0), (1.5, 1.5, 2.0), (3.0, 3.0, 3.0)])
def test_a_scan_without_thick_slices_comes_back(edges: tuple[float, float, float]) -> None:
    scan = scan_of(edges)
    assert without_thick_slices(scan, network_says()) is scan


def test_a_brain_is_nearer_to_its_finer_scan_than_by_interpolation() -> None:
    """A real scan, which no model has seen, measured with slices of 5 mm; on shapes that are no anatomy a model of brains gains less."""
    good = load(demo_scan())
    good = good.with_data(good.data / np.percentile(good.data[good.data > 0], 99))
    count = good.shape[2] // 5
    slices = ndimage.gaussian_filter(good.data, (0.5, 0.5, 0))[..., : 5 * count].reshape(*good.shape[:2], count, 5).mean(3)
    affine = good.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 5, 2], [0, 0, 0, 1.0]])
    noise = np.random.default_rng(0).standard_normal(slices.shape, dtype=np.float32)
    scan = Volume(np.abs(slices + 0.05 * noise), affine)
    brain = ndimage.binary_fill_holes(good.data > 0.02).astype(np.float32)
    coarse = sample(good.with_data(ndimage.gaussian_filter(brain, 1)), prior_grid(good, 2.0))
    values = np.zeros((len(CLASSES), *coarse.shape), np.float32)
    values[0], values[BRAIN[0]] = 1 - coarse.data, coarse.data
    chances = ClassChances(values, coarse.affine)
    image = without_thick_slices(scan, chances)
    np.testing.assert_allclose(image.spacing, 1.0)
    grid = native_grid(image)
    ideal, interpolated = sample(good, grid).data, sample(scan, grid).data
    inside = chances.brain_on(grid) & (ideal > 0.02)

    def error(data: np.ndarray) -> float:
        return float(np.sqrt(np.mean((data - ideal)[inside] ** 2)))

    assert error(image.data) < 0.9 * error(interpolated)


def test_around_the_brain_lies_the_interpolated_scan() -> None:
    chances, scan = network_says(), scan_of(THICK)
    image = without_thick_slices(scan, chances)
    grid = native_grid(image)
    around = depth(~chances.brain_on(grid), image.spacing) > 2.5
    assert around.any()
    np.testing.assert_array_equal(image.data[around], sample(scan, grid).data[around])
    assert not np.array_equal(image.data, sample(scan, grid).data)


def test_the_scale_of_a_scan_is_kept() -> None:
    chances, scan = network_says(), scan_of(THICK)
    image, scaled = (without_thick_slices(each, chances) for each in (scan, scan.with_data(300 * scan.data)))
    np.testing.assert_allclose(scaled.data, 300 * image.data, rtol=1e-3, atol=0.3)

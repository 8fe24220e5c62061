"""Scans of thick slices that become images of 1 mm."""

import numpy as np
import pytest

from dynamicdps.segmentation import without_thick_slices
from dynamicdps.volumes.grids import native_grid, sample
from dynamicdps.volumes.morphology import depth
from tests.segmentation.folded_brain import network_says, scan_of

THICK = (1.5, 1.5, 5.25)


@pytest.mark.parametrize("edges", [(1.0, 1.0, 1.0), (1.5, 1.5, 2.0), (3.0, 3.0, 3.0)])
def test_a_scan_without_thick_slices_comes_back(edges: tuple[float, float, float]) -> None:
    scan = scan_of(edges)
    assert without_thick_slices(scan, network_says()) is scan


def test_the_brain_is_nearer_to_a_finer_scan_than_by_interpolation() -> None:
    chances, scan = network_says(), scan_of(THICK)
    image = without_thick_slices(scan, chances)
    np.testing.assert_allclose(image.spacing, 1.0)
    grid = native_grid(image)
    inside = chances.brain_on(grid)
    ideal, interpolated = sample(scan_of((1.0, 1.0, 1.0), noise=0.0), grid).data, sample(scan, grid).data

    def error(data: np.ndarray) -> float:
        return float(np.sqrt(np.mean((data - ideal)[inside] ** 2)))

    assert error(image.data) < 0.98 * error(interpolated)
    around = depth(~inside, image.spacing) > 2.5
    np.testing.assert_array_equal(image.data[around], interpolated[around])


def test_the_scale_of_a_scan_is_kept() -> None:
    chances, scan = network_says(), scan_of(THICK)
    image, scaled = (without_thick_slices(each, chances) for each in (scan, scan.with_data(300 * scan.data)))
    np.testing.assert_allclose(scaled.data, 300 * image.data, rtol=1e-3, atol=0.3)

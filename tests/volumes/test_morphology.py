"""Shapes on grids of any voxel size."""

import numpy as np
import pytest
from scipy import ndimage

from dynamicdps.volumes.morphology import Spacing, depth, dilate, erode


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.6, 0.7, 5.0)])
@pytest.mark.parametrize("radius", [0.5, 2.0, 4.0, 30.0])
def test_dilation_and_erosion_are_by_the_distance_from_the_surface(spacing: Spacing, radius: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((24, 30, 20)), 2.0)
    mask = noise > 0.05
    mask[:, :8] = False
    assert mask[0].any()
    np.testing.assert_array_equal(dilate(mask, radius, spacing), depth(~mask, spacing) <= radius)
    np.testing.assert_array_equal(erode(mask, radius, spacing), depth(mask, spacing) > radius)


def test_nothing_and_everything_stay_as_they_are() -> None:
    nothing = np.zeros((6, 7, 5), bool)
    for shape in (dilate, erode):
        assert not shape(nothing, 2.0, (1.0, 1.0, 1.0)).any()
        assert shape(~nothing, 2.0, (1.0, 1.0, 1.0)).all()

"""Intensity scaling can be undone; the brain mask is the brain."""

import numpy as np
import pytest

from dynamicdps.volumes import IntensityScale, Volume, brain_mask
from tests.properties import input_error


def test_apply_and_undo_are_inverse(phantom: Volume) -> None:
    scale = IntensityScale(731.5)
    there = scale.apply(phantom)
    np.testing.assert_allclose(there.data, phantom.data / 731.5, rtol=1e-6)
    np.testing.assert_allclose(scale.undo(there).data, phantom.data, rtol=1e-6)
    assert there.affine is phantom.affine


@pytest.mark.parametrize("unit", [1e-3, 1.0, 4096.0])
def test_robust_scale_puts_the_percentile_in_place(phantom: Volume, unit: float) -> None:
    scaled = IntensityScale.robust(phantom.data * unit).apply(phantom.with_data(phantom.data * unit))
    assert np.percentile(scaled.data[scaled.data > 0], 99) == pytest.approx(0.95, rel=1e-5)


def test_robust_scale_ignores_few_bright_voxels_and_what_lies_outside_the_mask(phantom: Volume) -> None:
    bright = phantom.data.copy()
    bright[24, 20:24, 6] = 50
    assert IntensityScale.robust(bright).scale == pytest.approx(IntensityScale.robust(phantom.data).scale, rel=0.01)
    outside = phantom.data.copy()
    outside[:4] = 50
    mask = phantom.data > 0
    assert IntensityScale.robust(outside, mask).scale == pytest.approx(IntensityScale.robust(phantom.data).scale)
    assert IntensityScale.robust(phantom.data, value=0.5).scale == pytest.approx(IntensityScale.robust(phantom.data).scale * 0.95 / 0.5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scale_must_be_positive(scale: float) -> None:
    with input_error("intensity scale"):
        IntensityScale(scale)


@pytest.mark.parametrize("data", [np.zeros((3, 3, 3)), -np.ones((3, 3, 3))])
def test_image_without_bright_voxels_is_refused(data: np.ndarray) -> None:
    with input_error("no voxel greater than 0"):
        IntensityScale.robust(data)
    with input_error("no voxel greater than 0"):
        IntensityScale.robust(data, np.ones_like(data, dtype=bool))


@pytest.mark.parametrize("unit", [1.0, 900.0])
def test_brain_mask_fills_holes_and_leaves_islands_out(phantom: Volume, unit: float) -> None:
    brain = phantom.data > 0
    data = phantom.data.copy()
    data[22:25, 26:29, 4:7] = 0  # a black ventricle
    data[:3, :3] = 0.5  # an island in the corner
    np.testing.assert_array_equal(brain_mask(phantom.with_data(data * unit)), brain)

"""Inside the mask the result, outside the scan, and no step between."""

import numpy as np
import pytest
from scipy import ndimage

from dynamicdps.volumes import Grid, Volume, blend, prior_grid, sample
from dynamicdps.volumes.blending import Surroundings
from dynamicdps.volumes.brain_extraction import BrainMask
from tests.properties import input_error
from tests.volumes.head import Head, make_head, rotation


@pytest.fixture
def head() -> Head:
    return make_head(noise=0.0)


def mask_of(head: Head) -> Volume:
    return head.volume.with_data(head.brain)


def test_each_side_shows_its_own(head: Head) -> None:
    enhanced = head.volume.with_data(np.where(head.brain, 2 * head.volume.data, 9.0))
    out = blend(enhanced, head.volume, mask_of(head))
    np.testing.assert_allclose(out.data[head.brain], 2 * head.volume.data[head.brain], rtol=1e-5)
    # The scan, so scaled that its brain is as bright as the enhanced one.
    np.testing.assert_allclose(out.data[~head.brain], 2 * head.volume.data[~head.brain], rtol=1e-4)


def test_other_brains_differ_in_the_same_surroundings_by_the_mask_alone(head: Head) -> None:
    share = ndimage.gaussian_filter(head.brain.astype(np.float32), 2)
    mask = head.volume.with_data(share * (share > 1e-3))
    around = Surroundings.of(head.volume, head.volume, mask)
    np.testing.assert_array_equal(around.with_brain(head.volume).data, blend(head.volume, head.volume, mask).data)
    other = head.volume.with_data(head.volume.data + np.random.default_rng(0).normal(size=head.volume.shape))
    difference = around.with_brain(other).data - around.with_brain(head.volume).data
    np.testing.assert_allclose(difference, mask.data * (other.data - head.volume.data), atol=1e-3)


def test_shading_that_was_taken_out_of_the_brain_is_taken_out_around_it(head: Head) -> None:
    along = np.linspace(0.8, 1.2, head.volume.shape[1])[None, :, None]
    shaded = head.volume.with_data(head.volume.data * along)
    out = blend(head.volume, shaded, mask_of(head))
    around = ndimage.binary_dilation(head.brain, iterations=3) & ~head.brain & (head.volume.data > 0)
    ratio = out.data[around] / head.volume.data[around]
    assert ratio.std() < 0.5 * (shaded.data[around] / head.volume.data[around]).std()
    assert abs(ratio.mean() - 1) < 0.05


@pytest.mark.parametrize("width", [0.0, 6.0])
def test_no_voxel_is_darker_or_brighter_than_scan_and_estimate(head: Head, width: float) -> None:
    """The estimate is 0 outside of its mask: with a rim inside the mask it leaves no dark seam."""
    mask = BrainMask(head.brain, "known")
    enhanced = head.volume.with_data(head.volume.data * head.brain)
    out = blend(enhanced, head.volume, mask.rim(head.volume, width))
    np.testing.assert_allclose(out.data, head.volume.data, rtol=1e-3, atol=1e-3)


def test_an_unchanged_scan_comes_out_unchanged(head: Head) -> None:
    soft = head.volume.with_data(0.5 * head.brain + 0.5)
    np.testing.assert_allclose(blend(head.volume, head.volume, soft).data, head.volume.data, rtol=1e-5)


def test_soft_mask_mixes(head: Head) -> None:
    share = np.where(head.brain, 1.0, 0.25)
    out = blend(head.volume.with_data(head.volume.data + 100 * ~head.brain), head.volume, head.volume.with_data(share))
    np.testing.assert_allclose(out.data - head.volume.data, 25 * ~head.brain, atol=1e-3)


def test_any_grid(head: Head) -> None:
    movement = rotation((5.0, -8.0, 10.0), (3.0, 2.0, 1.0))
    moved = Volume(head.volume.data, movement @ head.volume.affine, head.volume.native)
    grid = prior_grid(moved, 3.0)
    enhanced = sample(moved, grid)
    out = blend(enhanced, moved, Volume(mask_of(head).data, moved.affine), grid)
    assert out.shape == grid.shape
    np.testing.assert_array_equal(out.affine, grid.affine)
    inner = enhanced.data > 0
    np.testing.assert_allclose(out.data[inner], enhanced.data[inner], rtol=0.05, atol=30)


def test_outside_the_field_of_view_of_the_result_the_scan_is_shown(head: Head) -> None:
    x, y, z = head.volume.shape
    lower = Grid((x, y, z // 2), head.volume.affine)
    enhanced = sample(head.volume, lower)
    out = blend(enhanced, head.volume, mask_of(head), Grid(head.volume.shape, head.volume.affine))
    np.testing.assert_allclose(out.data, head.volume.data, rtol=1e-3, atol=0.1)


def test_what_does_not_fit_is_refused(head: Head) -> None:
    mask = mask_of(head)
    with input_error("one grid"):
        blend(head.volume, head.volume, Volume(mask.data[1:], mask.affine))
    with input_error("0 to 1"):
        blend(head.volume, head.volume, mask.with_data(255 * mask.data))
    far = head.volume.affine.copy()
    far[0, 3] += 1000
    with input_error("do not overlap"):
        blend(Volume(head.volume.data, far), head.volume, mask)

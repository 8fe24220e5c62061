"""Boxes around a brain: nothing moves in space."""

import numpy as np
import pytest
from nibabel.affines import apply_affine

from dynamicdps.volumes import Volume, bounding_box, covering, crop, sample
from tests.properties import input_error


@pytest.fixture
def scan() -> Volume:
    data = np.random.default_rng(0).random((9, 8, 7))
    affine = np.array([[0.0, -1.5, 0, 10], [2.0, 0, 0.3, -5], [0, 0.1, 3.0, 2], [0, 0, 0, 1]])
    return Volume(data.astype(np.float32), affine)


def test_box_is_the_smallest_and_stays_on_the_grid() -> None:
    inside = np.zeros((9, 8, 7), bool)
    inside[2, 3, 6] = inside[5, 4, 6] = True
    assert bounding_box(inside) == (slice(2, 6), slice(3, 5), slice(6, 7))
    assert bounding_box(inside, 3) == (slice(0, 9), slice(0, 8), slice(3, 7))
    with input_error("empty"):
        bounding_box(np.zeros((3, 3, 3), bool))


def test_voxels_keep_their_place(scan: Volume) -> None:
    part = crop(scan, (slice(2, 6), slice(1, 8), slice(3, 5)))
    assert part.shape == (4, 7, 2)
    np.testing.assert_array_equal(part.data, scan.data[2:6, 1:8, 3:5])
    np.testing.assert_allclose(apply_affine(part.affine, [1, 2, 0]), apply_affine(scan.affine, [3, 3, 3]))


def test_a_covering_grid_continues_the_image(scan: Volume) -> None:
    part = crop(scan, (slice(2, 6), slice(1, 7), slice(3, 5)))
    fine = Volume(np.ones((8, 9, 4), np.float32), part.affine @ np.diag([0.5, 0.7, 0.5, 1.0]))
    grid = covering(fine, scan)
    offset = apply_affine(np.linalg.inv(grid.affine), fine.affine[:3, 3])
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-9)
    for corner in [(0, 0, 0), (8, 7, 6), (0, 7, 0), (8, 0, 6)]:
        place = apply_affine(np.linalg.inv(grid.affine) @ scan.affine, corner)
        assert (place > -0.5).all()
        assert (place < np.array(grid.shape) - 0.5).all()
    on_grid = sample(fine, grid, order=1)
    x, y, z = np.round(offset).astype(int)
    np.testing.assert_array_equal(on_grid.data[x : x + 8, y : y + 9, z : z + 4], fine.data)
    assert covering(scan, scan).same_as(scan)

"""A known movement of a known brain is found."""

import numpy as np
from scipy.spatial.transform import Rotation

from dynamicdps.volumes import Volume, align_to_template
from dynamicdps.volumes.alignment import template
from dynamicdps.volumes.grids import Grid, sample
from tests.properties import input_error
from tests.volumes.head import rotation


def test_known_movement() -> None:
    brain = template()
    movement = rotation((9.0, -7.0, 12.0), (8.0, -12.0, 15.0))
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[:3, 3] = [-110.0, -140.0, -100.0]
    moved = sample(Volume(brain.data, movement @ brain.affine), Grid((105, 135, 42), affine))
    mask = moved.with_data(moved.data > 0.05)
    # Another contrast, noise and units.
    noise = np.random.default_rng(0).standard_normal(moved.shape)
    scan = moved.with_data(np.abs(700 * moved.data**0.6 + 20 * noise))
    rest = align_to_template(scan, mask) @ movement
    angle = np.degrees(Rotation.from_matrix(rest[:3, :3]).magnitude())
    centre = np.array([0.0, -18.0, 10.0, 1.0])
    assert angle < 1
    assert np.linalg.norm((rest @ centre - centre)[:3]) < 1
    np.testing.assert_allclose(rest[:3, :3] @ rest[:3, :3].T, np.eye(3), atol=1e-6)


def test_a_slab_has_no_place() -> None:
    data = np.ones((60, 70, 4), np.float32)
    slab = Volume(data, np.diag([2.0, 2.0, 5.0, 1.0]))
    with input_error("118 x 138 x 15 mm"):
        align_to_template(slab, slab)

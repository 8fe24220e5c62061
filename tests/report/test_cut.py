"""Which voxels a picture shows."""

import numpy as np
import pytest

from dynamicdps.report.cut import Cut
from dynamicdps.volumes import Volume
from tests.conftest import make_phantom


def test_measurement_lies_where_the_image_lies() -> None:
    """On another grid each shown voxel is the nearest one in mm, and 0 outside the field of view."""
    grid = make_phantom((24, 28, 6))
    affine = np.diag([3.0, 2.0, 4.0, 1.0])
    affine[:3, 3] = [-9.0, -13.0, -4.0]
    x, _, z = np.meshgrid(np.arange(7), np.arange(14), np.arange(3), indexing="ij")
    position = Volume((x * 3.0 - 9).astype(np.float32), affine)
    shown = Cut.whole(grid).of(position)[1]
    wanted = np.arange(24) - 11.5
    covered = np.abs(wanted) <= 10.5
    assert (np.abs(shown[covered, 14] - wanted[covered]) <= 1.5).all()
    assert (shown[~covered] == 0).all()
    height = Cut.whole(grid).of(Volume((z * 4.0 - 4).astype(np.float32), affine))
    assert [float(h[12, 14]) for h in height] == [pytest.approx(w, abs=2.0) for w in (-1.5, 0.5, 1.5)]


def test_cut_shows_slices_with_signal_only(phantom: Volume) -> None:
    padded = np.zeros((80, 90, 40), dtype=np.float32)
    padded[10:58, 20:76, 20:32] = phantom.data
    cut = Cut.through(Volume(padded, phantom.affine), 1.0)
    assert len(cut.slices) == 3
    assert all(20 <= z < 32 for z in cut.slices)
    assert 5 <= cut.x.start < 20
    assert 60 > cut.x.stop > 45
    many = Cut.through(Volume(padded, phantom.affine), 1.0, 12, 0.0)
    assert many.slices == tuple(range(20, 32))
    assert many.labels[0] == "z = 14.5 mm"

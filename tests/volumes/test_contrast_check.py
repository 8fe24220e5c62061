"""The histogram of T2-weighted scans is told from that of T1-weighted ones."""

import numpy as np
import pytest

from dynamicdps.volumes import Volume
from dynamicdps.volumes.contrast_check import MOST_TAILS, bright_tail, contrast_doubts
from tests.conftest import CSF, make_phantom


def test_known_percentiles() -> None:
    """Planes of one value each: the smoothing changes nothing, the percentiles are those of the planes."""
    planes = np.repeat(np.linspace(0.0, 1.0, 101)[None, None] ** 2, 30, 0).repeat(30, 1).astype(np.float32)
    tail = bright_tail(Volume(planes, np.eye(4)), np.ones(planes.shape, bool))
    assert tail == pytest.approx((0.98**2 - 0.25) / (0.25 - 0.02**2), rel=1e-4)
    # Only the erosion's plane and the smoothing follow the axis.
    turned = Volume(np.ascontiguousarray(planes.transpose(2, 0, 1)), np.eye(4))
    assert bright_tail(turned, np.ones(turned.shape, bool), 0) == pytest.approx(tail, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.3, 0.6, 1.0, 1.5])
def test_t1_weighted_phantoms_raise_no_doubt(gamma: float) -> None:
    phantom = make_phantom((64, 72, 12))
    noise = 0.03 * np.random.default_rng(0).standard_normal(phantom.shape)
    scan = phantom.with_data((np.maximum(phantom.data, 0) ** gamma + noise) * 700)
    assert contrast_doubts(scan, phantom.data > 0) == []


def test_bright_fluid_raises_a_doubt() -> None:
    phantom = make_phantom((64, 72, 12))
    # Fluid is brightest, grey matter a little brighter than white.
    inverted = np.where(phantom.data > 0, np.where(phantom.data < (CSF + 0.6) / 2, 1.0, 0.5 - 0.25 * phantom.data), 0)
    scan = phantom.with_data(inverted * 400)
    tail = bright_tail(scan, phantom.data > 0)
    assert tail is not None
    assert tail > MOST_TAILS
    (doubt,) = contrast_doubts(scan, phantom.data > 0)
    assert "T2-weighted" in doubt


def test_too_little_to_tell() -> None:
    phantom = make_phantom((16, 16, 4))
    assert bright_tail(phantom, phantom.data > 10) is None
    flat = phantom.with_data(np.ones(phantom.shape))
    assert bright_tail(Volume(np.ones((40, 40, 8), np.float32), np.eye(4)), np.ones((40, 40, 8), bool)) is None
    assert contrast_doubts(flat, np.ones(flat.shape, bool)) == []

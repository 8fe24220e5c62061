"""Statistics of a scan: what they must not depend on, and what they must notice."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicdps.calibration.scan_statistics import COHERENCE, COUNT, LAGS, PERCENTILES, SPECTRUM, scan_statistics
from dynamicdps.operators import LowField, add_noise
from dynamicdps.volumes import to_slices
from tests.conftest import make_phantom
from tests.properties import input_error

NOISE = 0.01
BANDS = len(SPECTRUM) - 1


@pytest.fixture(scope="module")
def head() -> Tensor:
    return to_slices(make_phantom((96, 112, 24)).data)[:, 0]


def measured(head: Tensor, noise: float = NOISE, seed: int = 0, kind: str = "gaussian", **parameters: float) -> Tensor:
    clean = LowField(**parameters)(head[None, None])
    return add_noise(clean, noise, [torch.Generator().manual_seed(seed)], kind)[0, 0]


def spectrum(y: Tensor, noise: float = NOISE, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    return scan_statistics(y, spacing, noise).values[len(PERCENTILES) : len(PERCENTILES) + BANDS]


def test_scale_of_intensities_does_not_count(head: Tensor) -> None:
    y = measured(head)
    one, other = scan_statistics(y, (1.0, 1.0, 1.0), NOISE), scan_statistics(300 * y, (1.0, 1.0, 1.0), 300 * NOISE)
    np.testing.assert_allclose(one.values, other.values, atol=1e-4)
    assert other.top == pytest.approx(300 * one.top, rel=1e-5)
    assert len(one.values) == COUNT
    assert np.isfinite(one.values).all()


def test_background_does_not_count(head: Tensor) -> None:
    noisy, magnitude = measured(head), measured(head, kind="rician")
    stripped = torch.where(head > 0, noisy, 0.0)
    wide = torch.nn.functional.pad(stripped, (20, 20, 20, 20))
    values = [scan_statistics(y, (1.0, 1.0, 1.0), NOISE).values for y in (noisy, magnitude, stripped, wide)]
    for other in values[1:]:
        difference = np.abs(other - values[0])[: len(PERCENTILES) + 20]
        assert difference.max() < 0.15, difference.round(2)


def test_noise_power_is_taken_off(head: Tensor) -> None:
    quiet, loud = spectrum(measured(head, 0.001), 0.001), spectrum(measured(head, 0.05, seed=3), 0.05)
    np.testing.assert_allclose(loud[:14], quiet[:14], atol=0.1)


def test_percentiles_are_those_of_the_head(head: Tensor) -> None:
    y = measured(head, 1e-4)
    found = np.exp(scan_statistics(y, (1.0, 1.0, 1.0), 1e-4).values[: len(PERCENTILES)])
    inside = head[head > 0.1].numpy()
    expected = np.percentile(inside, PERCENTILES) / np.percentile(inside, 99)
    # Edges are smoothed, tissue is not moved.
    np.testing.assert_allclose(found[8:], expected[8:], atol=0.08)


def test_notices_what_a_scanner_does(head: Tensor) -> None:
    plain = scan_statistics(measured(head), (1.0, 1.0, 1.0), NOISE).values
    blurred = scan_statistics(measured(head, blur=1.5), (1.0, 1.0, 1.0), NOISE).values
    contrast = scan_statistics(measured(head, gamma=0.5), (1.0, 1.0, 1.0), NOISE).values
    thick = scan_statistics(measured(head, slice_thickness=5.0, slice_spacing=1.0), (1.0, 1.0, 1.0), NOISE).values
    high = slice(len(PERCENTILES) + 10, len(PERCENTILES) + BANDS)
    assert (blurred[high] < plain[high] - 0.5).mean() > 0.8
    # Without the darkest voxels: what belongs to the head is chosen by intensity.
    low = [4, 5, 6, *range(9, 17)]
    np.testing.assert_allclose(contrast[low], 0.5 * plain[low], atol=0.1)
    first_lag = slice(len(PERCENTILES) + BANDS, len(PERCENTILES) + BANDS + len(COHERENCE) - 1)
    assert (thick[first_lag][3:] > plain[first_lag][3:] + 0.02).all()


def test_not_a_number_beyond_the_grid(head: Tensor) -> None:
    y = measured(head, in_plane_factor=2.0)
    values = scan_statistics(y[:2], (2.0, 2.0, 1.0), NOISE).values
    bands = values[len(PERCENTILES) : len(PERCENTILES) + BANDS]
    beyond = np.array(SPECTRUM[1:]) > 0.25
    assert np.isnan(bands[beyond]).all()
    assert np.isfinite(bands[~beyond]).all()
    coherence = values[len(PERCENTILES) + BANDS : -4].reshape(len(LAGS), -1)
    assert np.isnan(coherence[1:]).all()
    assert np.isfinite(coherence[0, :5]).all()


def test_bad_scans(head: Tensor) -> None:
    with input_error("8 x 8"):
        scan_statistics(head[:, :6], (1.0, 1.0, 1.0), NOISE)
    with input_error("head"):
        scan_statistics(torch.zeros(4, 32, 32), (1.0, 1.0, 1.0), NOISE)

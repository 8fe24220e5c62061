"""Distribution and spectrum of residuals that are known."""

import numpy as np
import pytest

from dynamicdps.report.residuals import histogram, spectrum
from dynamicdps.volumes import Volume


def volume(data: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(data.astype(np.float32), np.diag([*spacing, 1.0]))


def test_white_noise_has_the_normal_distribution_and_a_flat_spectrum() -> None:
    noise = volume(np.random.default_rng(0).standard_normal((64, 48, 40)), (2.0, 1.0, 3.0))
    found = histogram(noise)
    centres = (found.edges[1:] + found.edges[:-1]) / 2
    np.testing.assert_allclose(found.density, np.exp(-0.5 * centres**2) / np.sqrt(2 * np.pi), atol=0.02)
    assert found.outside == 0
    power = spectrum(noise)
    assert power.frequency[-1] < 0.25
    np.testing.assert_allclose(power.power, 1, atol=0.2)


def test_a_wave_is_found_at_its_frequency() -> None:
    x = np.arange(64)
    wave = volume(np.repeat(np.repeat(np.sqrt(2) * np.sin(2 * np.pi * 8 * x / 64)[:, None], 64, 1)[..., None], 3, 2), (2.0, 2.0, 2.0))
    power = spectrum(wave)
    assert power.frequency[power.power.argmax()] == pytest.approx(8 / 128, abs=0.25 / 24)
    assert np.sort(power.power)[-2] < 1e-6 * power.power.max()


def test_an_offset_is_at_frequency_zero_and_far_values_are_counted() -> None:
    power = spectrum(volume(np.full((16, 16, 2), 3.0)))
    assert power.power.argmax() == 0
    assert power.power[1:].max() == pytest.approx(0, abs=1e-9)
    assert histogram(volume(np.where(np.arange(1000).reshape(10, 10, 10) < 100, 9.0, 0.5))).outside == pytest.approx(0.1)


def test_single_voxels_and_missing_values_do_not_stop_it() -> None:
    for shape in ((1, 1, 1), (2, 3, 1)):
        data = np.ones(shape)
        data.flat[0] = np.nan
        assert np.isfinite(spectrum(volume(data)).power).all()
        assert np.isfinite(histogram(volume(data)).density).all()


def test_what_a_mask_leaves_out_is_not_counted() -> None:
    noise = np.random.default_rng(0).standard_normal((64, 48, 20))
    noise[:32] = 0
    found = histogram(volume(noise))
    centres = (found.edges[1:] + found.edges[:-1]) / 2
    np.testing.assert_allclose(found.density, np.exp(-0.5 * centres**2) / np.sqrt(2 * np.pi), atol=0.02)
    np.testing.assert_allclose(spectrum(volume(noise)).power[1:], 1, atol=0.2)

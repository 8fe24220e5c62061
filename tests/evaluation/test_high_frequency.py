import math

import pytest
import torch
from torch import Tensor

from dynamicdps.evaluation import high_frequency_error, nrmse, nyquist_frequency
from dynamicdps.operators import LowField
from tests.properties import assert_batch_independent, input_error


def wave(cycles: int, amplitude: float = 1.0) -> Tensor:
    return amplitude * torch.cos(2 * math.pi * cycles * torch.arange(32) / 32).expand(1, 1, 24, 32)


def test_waves_count_in_their_band_only() -> None:
    truth = wave(4) + wave(12, 2.0)
    image = wave(4) + wave(12, 1.5)
    # 12 cycles in 32 pixels of 2 mm.
    assert float(high_frequency_error(image, truth, low=0.18, spacing=2.0)) == pytest.approx(0.25**2)
    assert float(high_frequency_error(image, truth, low=0.05, high=0.07, spacing=2.0)) == pytest.approx(0, abs=1e-12)
    assert float(high_frequency_error(wave(4), truth, low=0.18, spacing=2.0)) == pytest.approx(1)
    assert float(high_frequency_error(wave(4) - wave(12, 2.0), truth, low=0.18, spacing=2.0)) == pytest.approx(4)


def test_the_whole_spectrum_is_the_squared_nrmse(generator: torch.Generator) -> None:
    truth = torch.rand(3, 1, 24, 32, generator=generator)
    image = truth + 0.1 * torch.randn(truth.shape, generator=generator)
    torch.testing.assert_close(high_frequency_error(image, truth, low=0), nrmse(image, truth).square())
    assert_batch_independent(lambda x: high_frequency_error(x, x.roll(1, -1), low=0.2), truth)


def test_painted_detail_raises_it_and_shade_does_not(generator: torch.Generator) -> None:
    truth = torch.rand(1, 1, 24, 32, generator=generator)
    detail = truth.clone()
    detail[..., 8:16, 8:16:2] += 0.3
    errors = [float(high_frequency_error(x, truth, low=0.25)) for x in (truth, truth + 0.3, detail)]
    assert errors[:2] == pytest.approx([0, 0], abs=1e-9)
    assert errors[2] > 0.01


def test_the_measurements_nyquist_frequency() -> None:
    assert nyquist_frequency(LowField(in_plane_factor=4.0), 0.7) == pytest.approx(1 / 5.6)
    assert nyquist_frequency(LowField(slice_thickness=5.0), 1.0) == 0.5


def test_an_empty_band_is_named() -> None:
    with input_error("the band from 0.8 to inf cycles/mm is empty"):
        high_frequency_error(wave(1), wave(1), low=0.8)
    with pytest.raises(ValueError, match="slices have shapes"):
        high_frequency_error(wave(1), wave(1)[0], low=0.1)


def test_pixels_are_of_1_mm_unless_they_are_said_to_be_larger() -> None:
    """A wave of 8 cycles in 32 pixels has 0.25 cycles/mm of 1 mm and half of that of 2 mm; a band holds its ends."""
    truth = wave(8)
    for band, spacing in (((0.24, 0.26), {}), ((0.25, 0.25), {}), ((0.12, 0.13), {"spacing": 2.0}), ((0.125, 0.125), {"spacing": 2.0})):
        found = high_frequency_error(0.5 * truth, truth, low=band[0], high=band[1], **spacing)
        torch.testing.assert_close(found, torch.full_like(found, 0.25))

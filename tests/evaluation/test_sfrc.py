import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from dynamicdps.evaluation import fourier_ring_correlation, scanning_frc
from tests.properties import input_error


@pytest.fixture
def truth() -> Tensor:
    data = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((2, 64, 96)), (0, 1, 1))
    return torch.from_numpy(0.5 + 0.2 * data / data.std())[:, None]


def test_correlation_of_known_pairs(generator: torch.Generator) -> None:
    a = torch.rand(3, 32, 32, generator=generator, dtype=torch.float64)
    ones = torch.ones(3, 16, dtype=torch.float64)
    torch.testing.assert_close(fourier_ring_correlation(a, a), ones)
    torch.testing.assert_close(fourier_ring_correlation(a, 0.3 + 2 * a), ones)
    torch.testing.assert_close(fourier_ring_correlation(a, -a)[:, 1:], -ones[:, 1:])
    b = torch.rand(3, 32, 32, generator=generator, dtype=torch.float64)
    assert (fourier_ring_correlation(a, b)[:, 5:].mean(1).abs() < 0.15).all()


def test_correlation_of_one_ring_by_hand(generator: torch.Generator) -> None:
    a, b = torch.rand(2, 16, 16, generator=generator, dtype=torch.float64)
    line = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 15)
    fa, fb = (np.fft.fft2((u.numpy() - u.numpy().mean()) * np.outer(line, line)) for u in (a, b))
    numbers = [(i, j) for i in range(-8, 8) for j in range(-8, 8) if round(math.hypot(i, j)) == 3]
    cross = sum((fa[i, j] * fb[i, j].conj()).real for i, j in numbers)
    power = math.sqrt(sum(abs(fa[n]) ** 2 for n in numbers) * sum(abs(fb[n]) ** 2 for n in numbers))
    assert float(fourier_ring_correlation(a[None], b[None])[0, 3]) == pytest.approx(cross / power, abs=1e-12)


def test_noise_below_the_floor_agrees(generator: torch.Generator) -> None:
    a, b = (0.5 + 0.002 * torch.randn(2, 32, 32, generator=generator, dtype=torch.float64) for _ in range(2))
    assert fourier_ring_correlation(a, b, 0.01).min() > 0.9
    assert fourier_ring_correlation(a, b).min() < 0.3


def test_an_invented_structure_is_boxed(truth: Tensor) -> None:
    mask = torch.ones_like(truth, dtype=torch.bool)
    image = truth.clone()
    image[1, :, 40:56, 40:56] -= 0.8
    clean, found = (scanning_frc(x, truth, mask, frequency=0.25, stride=32) for x in (truth, image))
    assert (clean.count, clean.share, clean.patches) == (0, 0, 12)
    assert found.boxes == [(1, 32, 32)]
    assert found.share == pytest.approx(1 / 12)
    assert clean.crossings.isinf().all()


def test_overlap_finds_what_lies_in_the_corners(truth: Tensor) -> None:
    mask = torch.ones_like(truth, dtype=torch.bool)
    image = truth.clone()
    image[0, :, 29:35, 29:35] -= 0.8
    apart, overlapping = (scanning_frc(image, truth, mask, frequency=0.25, stride=stride) for stride in (32, None))
    assert apart.count == 0
    assert (0, 16, 16) in overlapping.boxes


def test_blur_is_found_where_it_cuts(truth: Tensor) -> None:
    """A filter that keeps frequencies below 0.2 cycles/pixel: suspect if 0.3 is asked for, fine if 0.1 is."""
    frequency = torch.fft.fftfreq(64)[:, None].square() + torch.fft.fftfreq(96)[None].square()
    image = torch.fft.ifft2(torch.fft.fft2(truth) * (frequency < 0.2**2)).real
    mask = torch.ones_like(truth, dtype=torch.bool)
    assert scanning_frc(image, truth, mask, frequency=0.3).share == 1
    assert scanning_frc(image, truth, mask, frequency=0.1).share == 0
    crossing = scanning_frc(image, truth, mask, frequency=0.1).crossings.median()
    assert float(crossing) == pytest.approx(0.2, abs=0.05)
    # In pixels of 2 mm the same is half as many cycles a mm.
    torch.testing.assert_close(scanning_frc(image, truth, mask, frequency=0.1, spacing=2.0).crossings.median(), crossing / 2)


def test_patches_outside_of_the_brain_do_not_count(truth: Tensor) -> None:
    mask = torch.zeros_like(truth, dtype=torch.bool)
    mask[:, :, :32, :48] = True
    found = scanning_frc(1 - truth, truth, mask, frequency=0.25, stride=32)
    # Half of the second patch in the row is brain.
    assert found.boxes == [(0, 0, 0), (0, 0, 32), (1, 0, 0), (1, 0, 32)]
    assert math.isnan(scanning_frc(truth, truth, torch.zeros_like(mask), frequency=0.25).share)
    assert scanning_frc(truth, truth, mask, frequency=0.25).patches == 10


def test_unusable_settings_are_named(truth: Tensor) -> None:
    mask = torch.ones_like(truth, dtype=torch.bool)
    with input_error("the patch is 65 pixels"):
        scanning_frc(truth, truth, mask, frequency=0.25, patch=65)
    with input_error("frequency, spacing, threshold, floor and stride are 0, "):
        scanning_frc(truth, truth, mask, frequency=0)
    with pytest.raises(ValueError, match="slices have shapes"):
        scanning_frc(truth[:1], truth, mask, frequency=0.25)

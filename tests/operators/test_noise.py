"""Noise has the statistics of its model, and each image has its own."""

import math

import pytest
import torch
from scipy import special

from dynamicdps.operators import add_noise

SHAPES = {"gaussian": (1, 9, 7), "rician": (1, 3, 9, 7), "noncentral-chi": (1, 9, 7), "poisson": (1, 3, 9, 7), "complex": (2, 9, 7)}


def own_generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + i) for i in range(count)]


def test_gaussian_noise_has_its_standard_deviation() -> None:
    noise = add_noise(torch.full((1, 1, 300, 300), 0.5), 0.03, own_generators(1)) - 0.5
    standard_error = 0.03 / 300
    assert abs(float(noise.mean())) < 5 * standard_error
    assert float(noise.std()) == pytest.approx(0.03, abs=5 * standard_error)


@pytest.mark.parametrize("signal", [0.0, 0.02, 0.1, 0.8])
def test_rician_mean_and_power(signal: float) -> None:
    sigma, pixels = 0.05, 300
    y = add_noise(torch.full((1, 1, pixels, pixels), signal), sigma, own_generators(1), "rician").double()
    u = -(signal**2) / (2 * sigma**2)
    laguerre = (1 - u) * special.ive(0, -u / 2) - u * special.ive(1, -u / 2)
    mean = sigma * math.sqrt(math.pi / 2) * laguerre
    assert (y >= 0).all()
    assert float(y.mean()) == pytest.approx(mean, abs=5 * sigma / pixels)
    assert float(y.square().mean()) == pytest.approx(signal**2 + 2 * sigma**2, rel=0.02)


@pytest.mark.parametrize("coils", [1, 2, 8])
@pytest.mark.parametrize("signal", [0.0, 0.06, 0.8])
def test_noncentral_chi_moments_of_the_square(coils: int, signal: float) -> None:
    """``(m / std) ** 2`` is noncentral chi-squared with 2 L degrees of freedom: mean 2 L + d, variance 2 (2 L + 2 d)."""
    sigma, pixels = 0.05, 300
    y = add_noise(torch.full((1, 1, pixels, pixels), signal), sigma, own_generators(1), "noncentral-chi", coils).double()
    square, shift = (y / sigma).square(), (signal / sigma) ** 2
    variance = 2 * (2 * coils + 2 * shift)
    assert float(square.mean()) == pytest.approx(2 * coils + shift, abs=5 * math.sqrt(variance) / pixels)
    assert float(square.var()) == pytest.approx(variance, rel=0.05)


def test_noncentral_chi_of_one_coil_is_rician(generator: torch.Generator) -> None:
    y = torch.rand(2, 1, 5, 6, generator=generator)
    one_coil = add_noise(y, 0.1, own_generators(2), "noncentral-chi")
    assert torch.equal(one_coil, add_noise(y, 0.1, own_generators(2), "rician"))


@pytest.mark.parametrize("signal", [0.1, 0.5, 1.0])
def test_poisson_noise_grows_with_the_root_of_the_signal(signal: float) -> None:
    std, pixels = 0.03, 300
    y = add_noise(torch.full((1, 1, pixels, pixels), signal), std, own_generators(1), "poisson").double()
    assert float(y.mean()) == pytest.approx(signal, abs=5 * std / pixels)
    assert float(y.std()) == pytest.approx(std * math.sqrt(signal), rel=0.02)


def test_poisson_noise_of_nothing_and_of_little_noise() -> None:
    assert (add_noise(torch.tensor([[[[-0.1, 0.0]]]]), 0.1, own_generators(1), "poisson") == 0).all()
    y = torch.full((1, 1, 200, 200), 0.5, dtype=torch.float64)
    noise = add_noise(y, 1e-5, own_generators(1), "poisson") - y
    assert float(noise.std()) == pytest.approx(1e-5 * math.sqrt(0.5), rel=0.03)


def test_complex_noise_is_in_both_channels_and_independent() -> None:
    std, pixels = 0.03, 300
    noise = add_noise(torch.zeros(1, 2, pixels, pixels), std, own_generators(1), "complex")
    real, imaginary = noise[0]
    for channel in (real, imaginary):
        assert float(channel.std()) == pytest.approx(std, abs=5 * std / pixels)
    assert abs(float((real * imaginary).mean())) < 5 * std**2 / pixels


@pytest.mark.parametrize("kind", SHAPES)
def test_noise_of_an_image_does_not_depend_on_the_batch(kind: str, generator: torch.Generator) -> None:
    y = torch.rand(4, *SHAPES[kind], generator=generator)
    together = add_noise(y, 0.1, own_generators(4), kind, coils=2)
    chunks = [add_noise(y[i : i + 2], 0.1, own_generators(4)[i : i + 2], kind, coils=2) for i in (0, 2)]
    assert together.shape == y.shape
    assert together.dtype == y.dtype
    assert torch.equal(together, torch.cat(chunks))


def test_one_shared_generator_gives_each_image_its_own_noise() -> None:
    noise = add_noise(torch.zeros(2, 1, 8, 8), 1.0, [torch.Generator().manual_seed(0)] * 2)
    assert not torch.equal(noise[0], noise[1])


def test_unknown_noise_is_refused() -> None:
    y = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"expected 'gaussian', 'rician', .* or 'complex'"):
        add_noise(y, 0.1, own_generators(1), "pink")
    with pytest.raises(ValueError, match="coils is 0; expected at least 1"):
        add_noise(y, 0.1, own_generators(1), "noncentral-chi", 0)
    with pytest.raises(ValueError, match=r"expected \(batch, 2, \.\.\.\)"):
        add_noise(y, 0.1, own_generators(1), "complex")

"""Noise has the statistics of its model, and each image has its own."""

import math

import pytest
import torch
from scipy import special

from dynamicdps.operators import add_noise


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


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
@pytest.mark.parametrize("shape", [(1, 9, 7), (1, 3, 9, 7)])
def test_noise_of_an_image_does_not_depend_on_the_batch(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    y = torch.rand(4, *shape, generator=generator)
    together = add_noise(y, 0.1, own_generators(4), kind)
    chunks = [add_noise(y[i : i + 2], 0.1, own_generators(4)[i : i + 2], kind) for i in (0, 2)]
    assert together.shape == y.shape
    assert torch.equal(together, torch.cat(chunks))


def test_one_shared_generator_gives_each_image_its_own_noise() -> None:
    noise = add_noise(torch.zeros(2, 1, 8, 8), 1.0, [torch.Generator().manual_seed(0)] * 2)
    assert not torch.equal(noise[0], noise[1])


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'gaussian' or 'rician'"):
        add_noise(torch.zeros(1, 1, 2, 2), 0.1, own_generators(1), "poisson")

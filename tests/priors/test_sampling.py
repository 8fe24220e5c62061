"""Samplers with the exact denoiser of Gaussian data, where every moment is known."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dynamicdps.networks import NetworkConfig, SliceUNet
from dynamicdps.priors import NetworkDenoiser, SlicePrior, descending_levels, sample_ancestral, sample_heun
from dynamicdps.priors.sampling import image_generators, noise_like
from dynamicdps.training.prior_training import draw_samples

MEAN, STD = 0.4, 0.2
START, STOP = 5.0, 0.01


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    s = sigma.view(-1, 1, 1, 1)
    return MEAN + STD**2 / (STD**2 + s**2) * (x - MEAN)


def start(pixels: int, images: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, list[torch.Generator]]:
    """Noise levels START on data of the prior, and the generators that drew it."""
    generators = image_generators(torch.Generator().manual_seed(1), images)
    blank = torch.full((images, 1, pixels, pixels), MEAN, dtype=dtype)
    return blank + (START**2 + STD**2) ** 0.5 * noise_like(blank, generators), generators


def levels_of(images: int, steps: int) -> Tensor:
    return descending_levels(torch.full((images,), START), steps, STOP, rho=7.0).double()


def test_ancestral_mean_and_variance() -> None:
    """Against the same recursion on scalars, and near the prior's own variance."""
    pixels, steps = 256, 60
    x, generators = start(pixels)
    levels = levels_of(1, steps)
    out = sample_ancestral(gaussian, x, levels, generators=generators)

    variance = START**2 + STD**2
    sigmas = levels[:, 0].tolist()
    for s, down in itertools.pairwise(sigmas):
        share = STD**2 / (STD**2 + s**2)
        ratio = (down / s) ** 2
        variance = (share + ratio * (1 - share)) ** 2 * variance + down**2 * (1 - ratio)
    variance *= (STD**2 / (STD**2 + STOP**2)) ** 2
    assert math.sqrt(variance) == pytest.approx(STD, rel=0.1)

    assert float(out.mean()) == pytest.approx(MEAN, abs=5 * math.sqrt(variance) / pixels)
    assert float(out.var()) == pytest.approx(variance, rel=5 * math.sqrt(2) / pixels)


def test_ancestral_reaches_the_prior_with_many_steps() -> None:
    x, generators = start(128)
    out = sample_ancestral(gaussian, x, levels_of(1, 500), generators=generators)
    assert float(out.std()) == pytest.approx(STD, rel=0.03)


def test_heun_follows_the_probability_flow() -> None:
    """The flow of Gaussian data is a scaling about the mean; the error falls with the square of the step."""
    x, _ = start(16)
    scale = ((STD**2 + STOP**2) / (STD**2 + START**2)) ** 0.5 * STD**2 / (STD**2 + STOP**2)
    expected = MEAN + scale * (x - MEAN)

    def error(steps: int) -> float:
        return float((sample_heun(gaussian, x, levels_of(1, steps)) - expected).abs().max())

    assert error(80) < 0.01 * STD
    assert 3.0 < error(40) / error(80) < 5.5


def test_heun_mean_and_variance() -> None:
    pixels = 256
    x, _ = start(pixels)
    out = sample_heun(gaussian, x, levels_of(1, 60))
    assert float(out.mean()) == pytest.approx(MEAN, abs=5 * STD / pixels)
    assert float(out.std()) == pytest.approx(STD, rel=0.01 + 5 / (math.sqrt(2) * pixels))


@pytest.mark.parametrize("sampler", [sample_ancestral, sample_heun])
def test_one_level_denoises(sampler: Callable[..., Tensor]) -> None:
    x, generators = start(8, 2)
    levels = torch.full((1, 2), 0.3, dtype=torch.float64)
    torch.testing.assert_close(sampler(gaussian, x, levels, generators=generators), gaussian(x, levels[0]))


@pytest.mark.parametrize("sampler", [sample_ancestral, sample_heun])
def test_no_level_is_refused(sampler: Callable[..., Tensor]) -> None:
    x, generators = start(8)
    with pytest.raises(ValueError, match="expected at least one"):
        sampler(gaussian, x, torch.zeros(0, 1), generators=generators)


@pytest.mark.parametrize("sampler", [sample_ancestral, sample_heun])
def test_callback_sees_every_step(sampler: Callable[..., Tensor]) -> None:
    x, generators = start(8)
    seen: list[tuple[int, Tensor]] = []
    out = sampler(gaussian, x, levels_of(1, 5), generators=generators, callback=lambda i, denoised: seen.append((i, denoised)))
    assert [i for i, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[-1][1], out)


@pytest.mark.parametrize("sampler", [sample_ancestral, sample_heun])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_samples_do_not_depend_on_batch_mates(sampler: Callable[..., Tensor], chunk: int) -> None:
    levels = descending_levels(torch.tensor([5.0, 5.0, 1.0, 0.2, 5.0]), 7, STOP)

    def draw(parts: list[slice]) -> Tensor:
        x, generators = start(9, 5, torch.float32)
        return torch.cat([sampler(gaussian, x[p], levels[:, p], generators=generators[p]) for p in parts])

    assert torch.equal(draw([slice(0, 5)]), draw([slice(i, i + chunk) for i in range(0, 5, chunk)]))


def test_first_samples_stay_when_more_are_drawn(tiny_network: NetworkConfig) -> None:
    prior = SlicePrior(NetworkDenoiser(SliceUNet(tiny_network), MEAN, STD))  # a fresh network returns 0
    few, many = draw_samples(prior, 3, 6, 7, steps=4), draw_samples(prior, 11, 6, 7, steps=4)
    assert many.shape == (11, 1, 1, 6, 7)
    assert torch.equal(few, many[:3])
    assert many.flatten(1).unique(dim=0).shape[0] == 11
    assert not torch.equal(few, draw_samples(prior, 3, 6, 7, steps=4, seed=1))


def test_volumes_are_drawn_and_do_not_depend_on_their_number(tiny_network: NetworkConfig) -> None:
    prior = SlicePrior(NetworkDenoiser(SliceUNet(tiny_network), MEAN, STD))
    few, many = (draw_samples(prior, n, 6, 7, depth=5, steps=3) for n in (1, 3))
    assert many.shape == (3, 1, 5, 6, 7)
    assert torch.equal(few, many[:1])

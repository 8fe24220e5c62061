"""The preconditioning: with the network that is best for Gaussian data, the denoiser is the posterior mean."""

import pytest
import torch
from torch import Tensor, nn

from dynamicdps.networks import NetworkConfig, SliceUNet
from dynamicdps.priors import NetworkDenoiser
from dynamicdps.priors.denoiser import denoising_error, network_time
from tests.properties import assert_batch_independent

MEAN, STD = 0.3, 0.25


class Zero(nn.Module):
    """The best network for white Gaussian data: its target, what the skip connection leaves, has mean 0."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Recorder(nn.Module):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.x, self.time = x, time
        return x


@pytest.mark.parametrize("sigma", [0.002, 0.1, 1.0, 40.0])
def test_posterior_mean_of_gaussian_data(sigma: float, generator: torch.Generator) -> None:
    x = MEAN + torch.randn(2, 1, 6, 7, generator=generator) * (STD**2 + sigma**2) ** 0.5
    expected = MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)
    torch.testing.assert_close(NetworkDenoiser(Zero(), MEAN, STD)(x, torch.full((2,), sigma)), expected)


def test_network_sees_unit_variance_and_its_time(generator: torch.Generator) -> None:
    sigma = torch.tensor([0.01, 0.5, 20.0])
    noise = torch.randn(3, 1, 200, 200, generator=generator)
    x = MEAN + noise * (STD**2 + sigma**2).sqrt().view(-1, 1, 1, 1)
    network = Recorder()
    NetworkDenoiser(network, MEAN, STD)(x, sigma)
    torch.testing.assert_close(network.x, noise, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.time, network_time(sigma))


def test_output_scale_is_that_of_the_table() -> None:
    """Karras et al. 2022, table 1: c_out = sigma sigma_data / sqrt(sigma^2 + sigma_data^2)."""

    class One(nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return torch.ones_like(x)

    x, sigma = torch.full((1, 1, 2, 2), 0.8), torch.tensor([0.4])
    difference = NetworkDenoiser(One(), MEAN, STD)(x, sigma) - NetworkDenoiser(Zero(), MEAN, STD)(x, sigma)
    torch.testing.assert_close(difference, torch.full_like(x, 0.4 * STD / (0.4**2 + STD**2) ** 0.5))


def randomised(config: NetworkConfig) -> SliceUNet:
    """A network whose every layer does something (a fresh one returns 0)."""
    torch.manual_seed(0)
    network = SliceUNet(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval().requires_grad_(False)


def test_fresh_network_returns_zero(tiny_network: NetworkConfig) -> None:
    assert not SliceUNet(tiny_network)(torch.rand(1, 1, 16, 16), torch.zeros(1)).any()


@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (3, 30), (1, 1)], ids=str)
def test_any_height_and_width(shape: tuple[int, int], tiny_network: NetworkConfig, generator: torch.Generator) -> None:
    out = randomised(tiny_network)(torch.randn(2, 1, *shape, generator=generator), torch.tensor([10.0, 900.0]))
    assert out.shape == (2, 1, *shape)
    assert out.abs().max() > 0
    assert out.isfinite().all()


def test_network_without_batch_mates(tiny_network: NetworkConfig, generator: torch.Generator) -> None:
    denoiser = NetworkDenoiser(randomised(tiny_network), MEAN, STD)
    x = torch.rand(3, 1, 20, 18, generator=generator)
    assert_batch_independent(lambda part: denoiser(part, torch.full((len(part),), 0.2)), x, rtol=1e-4, atol=1e-5)


def test_reduced_precision_is_close_and_returned_as_single(tiny_network: NetworkConfig, generator: torch.Generator) -> None:
    network = randomised(tiny_network)
    x, sigma = torch.rand(2, 1, 16, 16, generator=generator), torch.tensor([0.1, 0.5])
    full = NetworkDenoiser(network, MEAN, STD)(x, sigma)
    half = NetworkDenoiser(network, MEAN, STD, torch.bfloat16)(x, sigma)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0, atol=0.05 * float(full.abs().max()))


def test_network_config_round_trip(tiny_network: NetworkConfig) -> None:
    assert NetworkConfig.from_json(tiny_network.to_json()) == tiny_network
    assert tiny_network.multiple == 4


def test_expected_error_runs_through_the_measured_ones() -> None:
    """Below them it is at most the noise; above them it grows to the data's own spread, where nothing is known any more."""
    denoiser = NetworkDenoiser(Zero(), MEAN, STD, errors={0.01: 0.005, 0.1: 0.02, 1.0: 0.08})
    sigma = torch.tensor([0.01, 0.1, 1.0, 0.1**1.5, 40.0, 80.0, 0.002, 0.0])
    expected = torch.tensor([0.005, 0.02, 0.08, 0.01, STD, STD, 0.002, 0.0])
    torch.testing.assert_close(denoising_error(denoiser.errors, sigma, STD), expected)
    assert 0.08 < denoising_error(denoiser.errors, torch.tensor([10.0]), STD).item() < STD


def test_expected_error_without_measurement_is_below_the_noise() -> None:
    sigma = torch.logspace(-3, 1, 20)
    error = denoising_error({}, sigma)
    assert (error <= sigma).all()
    assert (error.diff() > 0).all()

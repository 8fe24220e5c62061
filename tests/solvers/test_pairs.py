"""Samples in pairs of opposite noise: what is linear in the noise cancels in their mean, and their spread is the posterior's."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import LowField, add_noise
from dynamicdps.solvers import DynamicDPSConfig, Reconstruction, available, make_config, solve_tensors
from dynamicdps.solvers.registry import find_solver
from dynamicdps.solvers.samplers import PairSpread, SamplerConfig
from tests.solvers.known_posteriors import IsotropicGaussian

NOISE = 0.05
OPERATOR = LowField(in_plane_factor=2.0)
PRIOR = IsotropicGaussian(16, 12)
SAMPLERS = [name for name in available() if issubclass(find_solver(name)[1], SamplerConfig)]
FEW: dict[str, dict[str, Any]] = {
    "dynamicdps-paper": {"steps": 10, "start_sigma": 0.1},
    "dynamicdps": {"start_sigma": 0.2},
    "daps": {"steps": 3},
}


@pytest.fixture
def problem(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    truth = PRIOR.data_mean + PRIOR.std * torch.randn(2, 1, 16, 12, generator=generator)
    return truth, add_noise(OPERATOR(truth), NOISE, [torch.Generator().manual_seed(i) for i in range(2)])


def run(name: str, y: Tensor, initial: Tensor, **settings: Any) -> Reconstruction:
    config = make_config(name, FEW.get(name, {"steps": 4}) | settings)
    return solve_tensors(name, [DataTerm(y, OPERATOR, NOISE)], PRIOR, initial, generator=torch.Generator().manual_seed(0), config=config)


@pytest.mark.parametrize("estimate", ["mean", "sample"])
def test_the_mean_of_a_pair_is_exact_where_all_is_linear(problem: tuple[Tensor, Tensor], estimate: str) -> None:
    """With a Gaussian prior and a linear operator a sample is its mean plus what is linear in the noise: any pair has that mean."""
    truth, y = problem
    settings: dict[str, Any] = {"start_sigma": 0.2, "estimate": estimate, "data_iterations": 4}
    one, three, single = (run("dynamicdps", y, truth, samples=n, **settings).image for n in (2, 6, 1))
    torch.testing.assert_close(one, three, atol=3e-3, rtol=0)
    assert (single - three).abs().max() > 0.03


@pytest.mark.parametrize("name", SAMPLERS)
def test_more_samples_keep_the_first_ones(problem: tuple[Tensor, Tensor], name: str) -> None:
    truth, y = problem
    few = run(name, y, truth, samples=2, keep_samples=True).samples
    many = run(name, y, truth, samples=4, keep_samples=True).samples
    assert few is not None
    assert many is not None
    assert torch.equal(few, many[:, :2])
    assert not torch.allclose(many[:, 2:], few)


def test_the_two_of_a_pair_are_mirrored_about_the_mean(problem: tuple[Tensor, Tensor]) -> None:
    truth, y = problem
    samples = run("dynamicdps", y, truth, samples=4, keep_samples=True, data_iterations=4).samples
    assert samples is not None
    middle = (samples[:, 0::2] + samples[:, 1::2]) / 2
    half = (samples[:, 0::2] - samples[:, 1::2]) / 2
    assert (middle[:, 0] - middle[:, 1]).abs().max() < 3e-3
    assert half.std() > 10 * (middle[:, 0] - middle[:, 1]).std()


def test_spread_of_pairs_is_that_of_independent_samples() -> None:
    """Numbers of a bent function of a normal one: the mean square over many pairs is the variance, odd and even parts together."""
    n = torch.randn(2000, 500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def bent(x: Tensor) -> Tensor:
        return 0.7 * x + 0.4 * x**2

    spread = PairSpread(n[0])
    for each in n:
        spread.add(bent(each))
        spread.add(bent(-each))
    deviation = spread.deviation()
    assert deviation is not None
    # Var(0.7 x) + Var(0.4 x^2) = 0.49 + 0.32.
    assert float(deviation.square().mean()) == pytest.approx(0.81, rel=0.01)
    torch.testing.assert_close(spread.mean.mean(), torch.tensor(0.4, dtype=torch.float64), atol=0.005, rtol=0)


def test_one_sample_has_no_spread_and_one_without_its_partner_does_not_count() -> None:
    spread = PairSpread(torch.zeros(3))
    spread.add(torch.ones(3))
    assert spread.deviation() is None
    spread.add(-torch.ones(3))
    spread.add(torch.full((3,), 9.0))
    deviation = spread.deviation()
    assert deviation is not None
    assert torch.equal(deviation, torch.ones(3))
    assert torch.equal(spread.mean, torch.full((3,), 3.0))


def test_two_samples_are_the_default() -> None:
    assert DynamicDPSConfig().samples == 2

"""The power law, its slope and its inverse."""

import pytest
import torch

from dynamicdps.operators import inverse_power_law, power_law, power_law_slope

GAMMAS = [0.3, 0.4, 0.7, 1.0, 1.3, 2.0, 3.0]


def intensities() -> torch.Tensor:
    positive = torch.cat([torch.logspace(-6, 0.3, 200, dtype=torch.float64), torch.linspace(0.001, 1.5, 200, dtype=torch.float64)])
    return torch.cat([-positive, torch.zeros(1, dtype=torch.float64), positive]).sort().values


def as_gamma(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_odd_and_increasing(gamma: float) -> None:
    x = intensities()
    y = power_law(x, as_gamma(gamma))
    torch.testing.assert_close(power_law(-x, as_gamma(gamma)), -y)
    assert (y.diff() > 0).all()
    assert power_law(torch.zeros(1), torch.tensor(gamma)) == 0


@pytest.mark.parametrize("gamma", GAMMAS)
def test_close_to_the_power_above_a_tenth(gamma: float) -> None:
    x = torch.linspace(0.1, 1.2, 50, dtype=torch.float64)
    torch.testing.assert_close(power_law(x, as_gamma(gamma)), x**gamma, rtol=0.003, atol=0)


def test_identity_at_one() -> None:
    torch.testing.assert_close(power_law(intensities(), as_gamma(1.0)), intensities())


@pytest.mark.parametrize("gamma", GAMMAS)
def test_slope_is_the_derivative(gamma: float) -> None:
    x = intensities().requires_grad_()
    (expected,) = torch.autograd.grad(power_law(x, as_gamma(gamma)).sum(), x)
    slope = power_law_slope(x.detach(), as_gamma(gamma))
    torch.testing.assert_close(slope, expected)
    assert (slope > 0).all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_inverse(gamma: float) -> None:
    x = intensities()
    torch.testing.assert_close(inverse_power_law(power_law(x, as_gamma(gamma)), as_gamma(gamma)), x, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_inverse_in_single_precision(gamma: float) -> None:
    x = torch.linspace(-1.5, 1.5, 301)
    y = power_law(x, torch.tensor(gamma))
    torch.testing.assert_close(inverse_power_law(y, torch.tensor(gamma)), x, rtol=2e-5, atol=1e-6)


def test_gamma_of_each_image() -> None:
    gamma = torch.tensor(GAMMAS, dtype=torch.float64).view(-1, 1)
    x = intensities().expand(len(GAMMAS), -1)
    for function in (power_law, power_law_slope, inverse_power_law):
        together = function(x, gamma)
        torch.testing.assert_close(together, torch.stack([function(x[i], gamma[i]) for i in range(len(GAMMAS))]))
    torch.testing.assert_close(inverse_power_law(power_law(x, gamma), gamma), x, rtol=1e-6, atol=1e-12)

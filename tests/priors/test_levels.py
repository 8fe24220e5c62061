"""Noise levels: the paper's process and the levels of a sampler."""

import math

import pytest
import torch

from dynamicdps.priors import cosine_levels, descending_levels, level_of_step
from dynamicdps.priors.denoiser import network_time
from dynamicdps.priors.levels import SIGMA_MAX, SIGMA_MIN


def alpha_bar(step: int, n_steps: int) -> float:
    """Nichol and Dhariwal 2021, eq. 17, without the clipping."""

    def f(t: int) -> float:
        return math.cos((t / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2

    return f(step) / f(0)


@pytest.mark.parametrize("n_steps", [10, 50, 1000])
def test_cosine_levels_are_those_of_the_process(n_steps: int) -> None:
    levels = cosine_levels(n_steps)
    assert levels.shape == (n_steps,)
    assert (levels.diff() > 0).all()
    found = 1 / (1 + (2 * levels.double()) ** 2)
    expected = torch.tensor([alpha_bar(t, n_steps) for t in range(1, n_steps)], dtype=torch.float64)
    torch.testing.assert_close(found[:-1], expected, rtol=1e-4, atol=0)
    # The last beta would be 1 and is clipped at 0.999.
    assert float(found[-1]) == pytest.approx(alpha_bar(n_steps - 1, n_steps) * 0.001, rel=1e-4)


def test_level_of_step() -> None:
    levels = cosine_levels()
    assert level_of_step(0) == 0
    assert [level_of_step(s) for s in (1, 500, 1000)] == [float(levels[i]) for i in (0, 499, 999)]
    assert level_of_step(10, n_steps=10) == float(cosine_levels(10)[-1])


@pytest.mark.parametrize("step", [-1, 1001])
def test_step_out_of_range(step: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1000"):
        level_of_step(step)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_descending_levels(rho: float) -> None:
    start = torch.tensor([10.0, 1.0, 0.05])
    levels = descending_levels(start, 12, 0.01, rho)
    assert levels.shape == (12, 3)
    torch.testing.assert_close(levels[0], start)
    torch.testing.assert_close(levels[-1], torch.full((3,), 0.01))
    assert (levels.diff(dim=0) < 0).all()
    powers = levels.double() ** (1 / rho)
    torch.testing.assert_close(powers.diff(dim=0), powers.diff(dim=0).mean(0).expand(11, 3), rtol=1e-3, atol=1e-6)
    alone = torch.cat([descending_levels(s[None], 12, 0.01, rho) for s in start], dim=1)
    torch.testing.assert_close(levels, alone)


def test_start_below_the_end_stays() -> None:
    torch.testing.assert_close(descending_levels(torch.tensor([0.005]), 4, 0.01), torch.full((4, 1), 0.005))


def test_one_level_is_the_start() -> None:
    torch.testing.assert_close(descending_levels(torch.tensor([0.3, 2.0]), 1, 0.01), torch.tensor([[0.3, 2.0]]))


def test_time_of_the_network() -> None:
    sigma = torch.tensor([SIGMA_MIN / 10, SIGMA_MIN, math.sqrt(SIGMA_MIN * SIGMA_MAX), SIGMA_MAX, SIGMA_MAX * 10])
    torch.testing.assert_close(network_time(sigma), torch.tensor([0.0, 0.0, 500.0, 1000.0, 1000.0]), atol=1e-2, rtol=0)

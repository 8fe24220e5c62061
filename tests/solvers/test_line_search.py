import pytest
import torch
from torch import Tensor

from dynamicdps.solvers import Outcome, strong_wolfe

C1, C2 = 1e-4, 0.9


def quartic(scale: Tensor, minimum: Tensor):
    """A family of smooth curves with different scales and minima, one an image."""

    def phi(a: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        del active
        t = a / minimum
        return scale * ((t - 1) ** 2 + 0.3 * (t - 1) ** 4), scale * (2 * (t - 1) + 1.2 * (t - 1) ** 3) / minimum

    return phi


@pytest.mark.parametrize("first", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("c2", [0.9, 0.1])
def test_step_satisfies_both_conditions(first: float, c2: float) -> None:
    scale = torch.tensor([1e-6, 1.0, 1e6, 3.0], dtype=torch.float64)
    minimum = torch.tensor([0.01, 1.0, 7.0, 300.0], dtype=torch.float64)
    phi = quartic(scale, minimum)
    zero = torch.zeros(4, dtype=torch.float64)
    value0, slope0 = phi(zero, zero.bool())
    found = strong_wolfe(phi, value0, slope0, torch.full_like(zero, first), c1=C1, c2=c2, max_trials=40)
    value, slope = phi(found.step, zero.bool())
    assert (found.outcome == Outcome.SATISFIED).all()
    assert (value <= value0 + C1 * found.step * slope0).all()
    assert (slope.abs() <= -c2 * slope0).all()
    assert torch.equal(found.value, value)


def test_images_do_not_influence_each_other() -> None:
    scale, minimum = torch.tensor([2.0, 9.0, 1.0]), torch.tensor([0.1, 40.0, 1.0])
    zero = torch.zeros(3)
    phi = quartic(scale, minimum)
    together = strong_wolfe(phi, *phi(zero, zero.bool()), torch.ones(3), max_trials=30)
    for i in range(3):
        alone_phi = quartic(scale[i : i + 1], minimum[i : i + 1])
        alone = strong_wolfe(alone_phi, *alone_phi(zero[:1], zero[:1].bool()), torch.ones(1), max_trials=30)
        assert torch.equal(alone.step[0], together.step[i])
        assert alone.trials[0] == together.trials[i]


def test_ascent_direction_gives_no_step() -> None:
    phi = quartic(torch.ones(1), -torch.ones(1))
    found = strong_wolfe(phi, *phi(torch.zeros(1), torch.ones(1).bool()), torch.ones(1))
    assert found.outcome.item() == Outcome.NO_DESCENT
    assert found.step.item() == 0
    assert found.trials.item() == 0


def test_unbounded_descent_stops_at_the_longest_step() -> None:
    def phi(a: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        del active
        return -a, -torch.ones_like(a)

    found = strong_wolfe(phi, torch.zeros(1), -torch.ones(1), torch.ones(1), c2=0.5, max_step=8.0, max_trials=20)
    assert found.outcome.item() == Outcome.STEP_LIMIT
    assert found.step.item() == 8.0


def test_few_trials_still_decrease_enough() -> None:
    minimum = torch.full((1,), 1e-4)
    phi = quartic(torch.ones(1), minimum)
    value0, slope0 = phi(torch.zeros(1), torch.ones(1).bool())
    found = strong_wolfe(phi, value0, slope0, torch.ones(1), max_trials=2)
    assert found.outcome.item() == Outcome.TRIAL_LIMIT
    assert found.value <= value0 + C1 * found.step * slope0


def test_overflow_counts_as_too_far() -> None:
    def phi(a: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        del active
        bad = a > 0.5
        value = torch.where(bad, torch.full_like(a, torch.nan), (a - 0.3) ** 2)
        return value, torch.where(bad, torch.full_like(a, torch.nan), 2 * (a - 0.3))

    found = strong_wolfe(phi, torch.tensor([0.09]), torch.tensor([-0.6]), torch.ones(1), max_trials=20)
    assert found.outcome.item() == Outcome.SATISFIED
    assert 0 < found.step.item() <= 0.5

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

from dynamicdps.data_term import LineSearch, Outcome, armijo, strong_wolfe
from dynamicdps.data_term.line_search import LINE_SEARCHES, Phi, constant, search
from dynamicdps.operators import power_law
from dynamicdps.operators.contrast import power_law_slope

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


class Lines(NamedTuple):
    """One-dimensional functions, one an image, and where their searches begin; float64."""

    phi: Phi
    value0: Tensor
    slope0: Tensor
    first: Tensor

    def at(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        return self.phi(steps, torch.ones_like(steps, dtype=torch.bool))

    def only(self, i: int) -> "Lines":
        def phi(steps: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
            value, slope = self.phi(steps.expand(len(self.first)), active)
            return value[i : i + 1], slope[i : i + 1]

        return Lines(phi, *(field[i : i + 1] for field in self[1:]))


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


Curve = Callable[[Tensor], tuple[Tensor, Tensor]]
Family = Callable[[torch.Generator, int], Curve]


def quadratic(generator: torch.Generator, count: int) -> Curve:
    """Convex quadratics of six variables along random lines that descend."""
    root = torch.randn(count, 6, 6, generator=generator, dtype=torch.float64)
    hessian = root @ root.mT * 10 ** uniform(generator, -3, 3, count, 1, 1)
    x, b, d = torch.randn(3, count, 6, generator=generator, dtype=torch.float64)
    image = (hessian @ x[..., None])[..., 0]
    d = -d * (d * (image - b)).sum(1, keepdim=True).sign()
    value0, slope0 = (x * (image / 2 - b)).sum(1), (d * (image - b)).sum(1)
    bend = (d * (hessian @ d[..., None])[..., 0]).sum(1)
    return lambda a: (value0 + a * slope0 + a * a * bend / 2, slope0 + a * bend)


def rosenbrock(generator: torch.Generator, count: int) -> Curve:
    """Rosenbrock's valley from random points along steepest descent."""
    x0, y0 = uniform(generator, -2, 2, 2, count)

    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)

    dx, dy = (-part for part in gradient(x0, y0))

    def curve(a: Tensor) -> tuple[Tensor, Tensor]:
        x, y = x0 + a * dx, y0 + a * dy
        gx, gy = gradient(x, y)
        return (1 - x).square() + 100 * (y - x * x).square(), gx * dx + gy * dy

    return curve


def contrast(generator: torch.Generator, count: int) -> Curve:
    """The data term of eight pixels with a contrast that is steep at 0, a quarter of them background."""
    shape = (count, 8)
    gamma = uniform(generator, 0.3, 0.9, count, 1)
    x0 = uniform(generator, 0, 1, *shape) * (uniform(generator, 0, 1, *shape) > 0.25)
    goal = power_law(uniform(generator, 0, 1, *shape), gamma)
    d = (goal - power_law(x0, gamma)) * power_law_slope(x0, gamma) * uniform(generator, 0.1, 1, *shape)

    def curve(a: Tensor) -> tuple[Tensor, Tensor]:
        x = x0 + a[:, None] * d
        residual = goal - power_law(x, gamma)
        return residual.square().sum(1) / 2, -(residual * power_law_slope(x, gamma) * d).sum(1)

    return curve


def waves(generator: torch.Generator, count: int) -> Curve:
    """Waves on a parabola: many minima."""
    minimum, height = uniform(generator, 0.5, 20, count), uniform(generator, 0.1, 2, count)
    rate, phase = uniform(generator, 0.5, 4, count), uniform(generator, 0, 2 * torch.pi, count)

    def curve(a: Tensor) -> tuple[Tensor, Tensor]:
        angle, offset = rate * a + phase, a - minimum
        return 0.05 * offset.square() + height * angle.sin(), 0.1 * offset + height * rate * angle.cos()

    return curve


FAMILIES = {"quadratic": quadratic, "rosenbrock": rosenbrock, "contrast": contrast, "waves": waves}
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
seeds = st.integers(0, 2**32 - 1)


def examples(count: int) -> settings:
    # No deadline and no database: a result must not depend on the machine's load or on earlier runs.
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


def draw(family: Family, seed: int, count: int = 32) -> Lines:
    """Lines of which about a tenth ascends, and first steps over seven orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    curve = family(generator, count)
    side = torch.where(uniform(generator, 0, 1, count) < 0.1, -1.0, 1.0).double()

    def phi(steps: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        del active
        value, slope = curve(side * steps)
        return value, side * slope

    zero = torch.zeros(count, dtype=torch.float64)
    return Lines(phi, *phi(zero, zero.bool()), 10 ** uniform(generator, -5, 2, count))


def assert_promises(found: LineSearch, lines: Lines, c1: float, c2: float | None) -> None:
    """What each outcome promises, without any tolerance; without `c2` the sufficient decrease only."""
    value, slope = lines.at(found.step)
    decreases = value <= lines.value0 + c1 * found.step * lines.slope0
    flat = torch.ones_like(decreases) if c2 is None else slope.abs() <= -c2 * lines.slope0
    assert torch.equal(found.value, value)
    assert torch.equal(found.outcome == Outcome.NO_DESCENT, lines.slope0 >= 0)
    assert (found.step[found.outcome == Outcome.NO_DESCENT] == 0).all()
    assert (decreases & flat & (found.step > 0))[found.outcome == Outcome.SATISFIED].all()
    assert (decreases | (found.step == 0))[found.outcome == Outcome.TRIAL_LIMIT].all()


@families
@given(seed=seeds, c1=st.floats(1e-6, 0.8), share=st.floats(0.05, 0.95), max_trials=st.sampled_from([3, 10, 60]))
@examples(50)
def test_every_outcome_keeps_its_promise(family: Family, seed: int, c1: float, share: float, max_trials: int) -> None:
    lines, c2 = draw(family, seed), c1 + share * (1 - c1)
    found = strong_wolfe(*lines, c1=c1, c2=c2, max_trials=max_trials)
    assert_promises(found, lines, c1, c2)
    assert (found.outcome != Outcome.STEP_LIMIT).all(), "all of these functions rise again before the longest step"
    assert (found.trials <= max_trials).all()


@families
@pytest.mark.parametrize("max_trials", [2, 4, 7])
def test_out_of_trials_gives_the_best_step_that_was_tried(family: Family, max_trials: int) -> None:
    lines = draw(family, 3, count=1024)
    best, best_value = torch.zeros_like(lines.first), lines.value0.clone()

    def watched(steps: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = lines.at(steps)
        better = active & (value <= lines.value0 + 0.1 * steps * lines.slope0) & (value < best_value)
        best[better], best_value[better] = steps[better], value[better]
        return value, slope

    found = strong_wolfe(watched, *lines[1:], c1=0.1, c2=0.11, max_trials=max_trials)
    left = found.outcome == Outcome.TRIAL_LIMIT
    assert left.sum() > 50
    assert torch.equal(found.step[left], best[left])
    assert torch.equal(found.value[left], best_value[left])


@families
@pytest.mark.parametrize(("c1", "c2"), [(1e-4, 0.9), (1e-4, 0.1), (0.3, 0.4)])
def test_nearly_all_searches_end_satisfied(family: Family, c1: float, c2: float) -> None:
    lines = draw(family, 0, count=4096)
    found = strong_wolfe(*lines, c1=c1, c2=c2, max_trials=60)
    assert_promises(found, lines, c1, c2)
    satisfied = (found.outcome == Outcome.SATISFIED)[lines.slope0 < 0].double().mean().item()
    assert satisfied > 0.999


def scipy_succeeds(lines: Lines, i: int, c1: float, c2: float) -> bool:
    def at(x: np.ndarray) -> tuple[Tensor, Tensor]:
        return lines.only(i).at(torch.from_numpy(x))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = optimize.line_search(lambda x: at(x)[0].item(), lambda x: at(x)[1].numpy(), np.zeros(1), np.ones(1), c1=c1, c2=c2)
    # A step without a slope is scipy's last trial, not a success.
    return found[0] is not None and found[5] is not None


@families
@given(seed=seeds, c1=st.floats(1e-6, 0.4), gap=st.floats(0.05, 0.55))
@examples(10)
def test_satisfied_wherever_scipy_is(family: Family, seed: int, c1: float, gap: float) -> None:
    lines, c2 = draw(family, seed, count=16), c1 + gap
    scipy = torch.tensor([scipy_succeeds(lines, i, c1, c2) for i in range(16)])
    found = strong_wolfe(*lines, c1=c1, c2=c2, max_trials=60)
    assert scipy.any()
    assert (found.outcome == Outcome.SATISFIED)[scipy].all()
    assert found.value.isfinite().all()
    assert_promises(found, lines, c1, c2)


@families
@given(seed=seeds, c1=st.floats(1e-6, 0.9), shrink=st.floats(0.1, 0.9))
@examples(30)
def test_backtracking_takes_the_first_trial_that_decreases_enough(family: Family, seed: int, c1: float, shrink: float) -> None:
    lines = draw(family, seed)
    found = armijo(*lines, c1=c1, shrink=shrink, max_trials=40)
    assert_promises(found, lines, c1, None)
    step = lines.first
    for trial in range(1, 41):
        enough = lines.at(step)[0] <= lines.value0 + c1 * step * lines.slope0
        here = (found.outcome == Outcome.SATISFIED) & (found.trials == trial)
        assert torch.equal(found.step[here], step[here])
        assert enough[here].all()
        assert not enough[found.trials > trial].any()
        assert ((step / lines.first - shrink ** (trial - 1)).abs() < 1e-14).all()
        step = shrink * step


@families
@pytest.mark.parametrize("kind", LINE_SEARCHES)
@given(seed=seeds)
@examples(5)
def test_a_search_is_bitwise_the_same_alone(family: Family, kind: str, seed: int) -> None:
    lines = draw(family, seed, count=16)
    together = search(kind, *lines)
    for i in range(16):
        alone = search(kind, *lines.only(i))
        for name in ("step", "value", "outcome", "trials"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[i : i + 1]), name


@families
def test_constant_takes_the_first_trial_where_the_line_descends(family: Family) -> None:
    lines = draw(family, 1, count=256)
    found, descends = constant(*lines), lines.slope0 < 0
    assert 0 < descends.sum() < 256
    assert torch.equal(found.step, torch.where(descends, lines.first, 0.0))
    assert torch.equal(found.value, lines.at(found.step)[0])
    assert (found.outcome[descends] == Outcome.UNCHECKED).all()
    assert (found.outcome[~descends] == Outcome.NO_DESCENT).all()
    assert torch.equal(found.trials, descends.long())


@pytest.mark.parametrize("kind", LINE_SEARCHES)
def test_no_search_moves_where_no_line_descends(kind: str) -> None:
    def phi(a: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("nothing to evaluate")

    value0, slope0 = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, torch.nan])
    found = search(kind, phi, value0, slope0, torch.ones(3))
    assert (found.outcome == Outcome.NO_DESCENT).all()
    assert torch.equal(found.step, torch.zeros(3))
    assert torch.equal(found.value, value0)
    assert torch.equal(found.trials, torch.zeros(3, dtype=torch.long))


def test_search_by_name_is_the_function() -> None:
    lines = draw(rosenbrock, 2)
    named = {
        "wolfe": strong_wolfe(*lines, c1=0.2, max_step=3.0, max_trials=7),
        "armijo": armijo(*lines, c1=0.2),
        "constant": constant(*lines),
    }
    assert tuple(named) == LINE_SEARCHES
    for kind, expected in named.items():
        found = search(kind, *lines, c1=0.2, max_step=3.0, max_trials=7)
        assert torch.equal(found.step, expected.step)
        assert torch.equal(found.outcome, expected.outcome)


def test_unknown_search_is_refused() -> None:
    with pytest.raises(ValueError, match="'bisection'; expected one of wolfe, armijo, constant"):
        search("bisection", *draw(quadratic, 0))

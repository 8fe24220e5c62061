"""Contrast curves, their slopes and their inverses."""

import pytest
import torch

from dynamicdps.operators.contrast import (
    HermiteCurve,
    MonotoneCurve,
    curve_through,
    inverse_power_law,
    power_law,
    power_law_slope,
    tissue_curve,
)
from tests.properties import input_error

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


POSITIONS = torch.tensor([0.0, 0.2, 0.6, 0.9, 1.0], dtype=torch.float64)
VALUES = {
    "identity": [0.0, 0.2, 0.6, 0.9, 1.0],
    "low field": [0.0, 0.45, 0.7, 0.85, 1.0],
    "steep": [0.0, 0.01, 0.9, 0.91, 1.0],
    "steps": [0.1, 0.101, 0.8, 0.801, 2.0],
}
curves = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


def curve_of(values: list[float]) -> MonotoneCurve:
    return MonotoneCurve(POSITIONS, torch.tensor(values, dtype=torch.float64))


def wide_intensities() -> torch.Tensor:
    return torch.linspace(-0.5, 1.5, 2001, dtype=torch.float64)


@curves
def test_curve_passes_through_its_knots_and_increases_everywhere(values: list[float]) -> None:
    curve, x = curve_of(values), wide_intensities()
    torch.testing.assert_close(curve(POSITIONS), curve.values)
    assert (curve(x).diff() > 0).all()
    assert (curve.slope(x) > 0).all()


@curves
def test_curve_slope_is_the_derivative_and_continuous(values: list[float]) -> None:
    curve = curve_of(values)
    x = torch.cat([wide_intensities(), POSITIONS]).requires_grad_()
    (expected,) = torch.autograd.grad(curve(x).sum(), x)
    torch.testing.assert_close(curve.slope(x.detach()), expected)
    torch.testing.assert_close(curve.slope(POSITIONS - 1e-9), curve.slope(POSITIONS + 1e-9), rtol=1e-5, atol=1e-5)


@curves
def test_curve_goes_on_straight_outside_its_knots(values: list[float]) -> None:
    curve = curve_of(values)
    outside = torch.tensor([-2.0, -0.3, 1.4, 3.0], dtype=torch.float64)
    ends, slopes = curve(POSITIONS[[0, 0, -1, -1]]), curve.slope(POSITIONS[[0, 0, -1, -1]])
    torch.testing.assert_close(curve(outside), ends + slopes * (outside - POSITIONS[[0, 0, -1, -1]]))


@curves
def test_curve_inverse(values: list[float]) -> None:
    curve, x = curve_of(values), wide_intensities()
    torch.testing.assert_close(curve.inverse(curve(x)), x, rtol=1e-9, atol=1e-9)
    single = x.float()
    # Rounding of the values moves the argument by its share of the slope.
    rounding = 2e-7 / curve.slope(x).float().clamp_max(1)
    assert ((curve.inverse(curve(single)) - single).abs() <= 1e-5 + 4 * rounding).all()


def test_curve_inverse_in_single_precision_at_common_contrasts() -> None:
    curve, x = curve_of(VALUES["low field"]), wide_intensities().float()
    torch.testing.assert_close(curve.inverse(curve(x)), x, rtol=1e-5, atol=1e-5)


def test_identity_curve() -> None:
    torch.testing.assert_close(curve_of(VALUES["identity"])(wide_intensities()), wide_intensities())


def test_gradient_of_the_curve_and_its_inverse() -> None:
    x = torch.tensor([-0.1, 0.1, 0.35, 0.7, 0.95, 1.2], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([0.0, 0.3, 0.7, 0.85, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, v: MonotoneCurve(POSITIONS, v)(x), (x, values))
    assert torch.autograd.gradcheck(lambda y, v: MonotoneCurve(POSITIONS, v).inverse(y), (x, values))


def test_curve_of_each_image(generator: torch.Generator) -> None:
    values = torch.tensor([VALUES["identity"], VALUES["low field"], VALUES["steep"]], dtype=torch.float64)
    together, x = MonotoneCurve(POSITIONS, values), torch.rand(3, 1, 5, 7, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    for i in range(3):
        alone = MonotoneCurve(POSITIONS, values[i])
        for name in ("__call__", "slope", "inverse"):
            torch.testing.assert_close(getattr(together, name)(x)[i], getattr(alone, name)(x[i]))
    index = torch.tensor([2, 0])
    torch.testing.assert_close(together.select(index)(x[index]), together(x)[index])
    assert alone.select(index) is alone


def test_tissue_curve() -> None:
    curve = tissue_curve((0.2, 0.6, 0.9), (0.5, 0.7, 0.8))
    torch.testing.assert_close(curve(torch.tensor([0.0, 0.2, 0.6, 0.9])), torch.tensor([0.0, 0.5, 0.7, 0.8]))
    batch = tissue_curve((0.2, 0.6, 0.9), torch.tensor([[0.5, 0.7, 0.8], [0.2, 0.6, 0.9]]))
    assert batch.values.shape == (2, 4)


def test_two_knots_are_a_straight_line() -> None:
    curve = MonotoneCurve(torch.tensor([0.0, 1.0]), torch.tensor([0.1, 0.7]))
    x = torch.linspace(-0.5, 1.5, 9)[None]
    torch.testing.assert_close(curve(x), 0.1 + 0.6 * x)


def test_curves_that_do_not_increase_are_refused() -> None:
    with input_error("positions"):
        MonotoneCurve(torch.tensor([0.0, 0.5, 0.5]), torch.tensor([0.0, 0.5, 1.0]))
    with input_error("values"):
        MonotoneCurve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.5, 0.4]]))
    with input_error("values"):
        MonotoneCurve(torch.tensor([0.0, 1.0]), torch.tensor([0.0, float("nan")]))
    with input_error("at least 2 knots"):
        MonotoneCurve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 1.0]))
    with input_error("three numbers"):
        tissue_curve((0.2, 0.6), (0.2, 0.6))


# As fluid, grey and white matter of a T2w scan over a T1w image: rising, then falling, then flat.
FREE = torch.tensor([0.0, 1.0, 0.62, 0.42, 0.42], dtype=torch.float64)


def test_a_free_curve_passes_through_its_knots_and_stays_between_them() -> None:
    curve, x = HermiteCurve(POSITIONS, FREE), torch.linspace(0, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(curve(POSITIONS), FREE)
    piece = torch.bucketize(x, POSITIONS[1:-1])
    low, high = torch.minimum(FREE[:-1], FREE[1:])[piece], torch.maximum(FREE[:-1], FREE[1:])[piece]
    assert (curve(x) >= low - 1e-12).all()
    assert (curve(x) <= high + 1e-12).all()


def test_a_free_curve_is_once_differentiable() -> None:
    curve = HermiteCurve(POSITIONS, FREE)
    x = wide_intensities().requires_grad_()
    (expected,) = torch.autograd.grad(curve(x).sum(), x)
    torch.testing.assert_close(curve.slope(x.detach()), expected)
    torch.testing.assert_close(curve.slope(POSITIONS - 1e-9), curve.slope(POSITIONS + 1e-9), rtol=1e-5, atol=1e-5)
    values = FREE[:4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: HermiteCurve(POSITIONS[:4], v)(torch.tensor([-0.1, 0.1, 0.3, 0.7, 1.2]).double()), values)


def test_a_free_curve_has_no_inverse() -> None:
    with input_error("cannot be undone"):
        HermiteCurve(POSITIONS, FREE).inverse(FREE)


@curves
def test_a_curve_through_rising_knots_is_the_monotone_one(values: list[float]) -> None:
    free, x = HermiteCurve(POSITIONS, torch.tensor(values, dtype=torch.float64)), wide_intensities()
    assert isinstance(curve_through(POSITIONS, free.values), MonotoneCurve)
    assert type(curve_through(POSITIONS, FREE)) is HermiteCurve
    assert torch.equal(free(x), curve_of(values)(x))


@pytest.mark.parametrize(
    ("positions", "values", "said"),
    [([0.0, 0.5, 0.4], [1.0, 0.0, 1.0], "positions"), ([0.0, 0.5, 1.0], [1.0, float("nan"), 1.0], "finite"), ([0.0, 1.0], [1.0], "shape")],
)
def test_knots_that_describe_no_curve(positions: list[float], values: list[float], said: str) -> None:
    with input_error(said):
        HermiteCurve(torch.tensor(positions), torch.tensor(values))

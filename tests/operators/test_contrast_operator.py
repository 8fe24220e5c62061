"""A contrast as an operator: the properties of every operator, and its linear form."""

import json

import pytest
import torch

from dynamicdps.errors import InputError
from dynamicdps.operators import LowField, Operator, spectral
from dynamicdps.operators.contrast import HermiteCurve, MonotoneCurve, PowerLaw
from dynamicdps.operators.contrast_operator import Contrast
from dynamicdps.operators.image_grid import voxel_factors
from tests.properties import assert_batch_independent, assert_jacobian_products, input_error, measured_shape

KNOTS = torch.tensor([0.0, 0.2, 0.6, 0.9], dtype=torch.float64)
BRIGHT = torch.tensor([0.0, 0.5, 0.75, 0.9], dtype=torch.float64)
DARK = torch.tensor([0.0, 0.05, 0.3, 0.9], dtype=torch.float64)
FALLING = torch.tensor([0.1, 1.0, 0.6, 0.4], dtype=torch.float64)
CURVES: dict[str, PowerLaw | HermiteCurve] = {
    "identity": PowerLaw(1.0),
    "gamma 0.4": PowerLaw(0.4),
    "gamma 1.6": PowerLaw(1.6),
    "bright": MonotoneCurve(KNOTS, BRIGHT),
    "dark": MonotoneCurve(KNOTS, DARK),
    "falling": HermiteCurve(KNOTS, FALLING),
    "gamma per image": PowerLaw(torch.tensor([0.5, 1.5], dtype=torch.float64)),
    "curve per image": MonotoneCurve(KNOTS, torch.stack([BRIGHT, DARK])),
}
curves = pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
shared = [name for name in CURVES if "per image" not in name]


def images(generator: torch.Generator) -> torch.Tensor:
    x = torch.rand(2, 1, 4, 6, 5, generator=generator, dtype=torch.float64) * 1.2 - 0.1
    return torch.where(torch.rand(x.shape, generator=generator) < 0.2, 0.0, x)


@curves
def test_jacobian_products(curve: PowerLaw | HermiteCurve, generator: torch.Generator) -> None:
    operator, x = Contrast(curve), images(generator)
    assert_jacobian_products(operator, x, generator)
    own, automatic = operator.linearise(x), Operator.linearise(operator, x)
    w = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    torch.testing.assert_close(own.vjp(w), automatic.vjp(w))


@curves
def test_secant_is_exact_at_both_ends_of_the_spread(curve: PowerLaw | HermiteCurve, generator: torch.Generator) -> None:
    operator, x = Contrast(curve), images(generator)
    spread = torch.tensor([0.05, 0.2], dtype=torch.float64).view(-1, 1, 1, 1, 1)
    near = operator.linearise(x, spread)
    torch.testing.assert_close(2 * near.jvp(spread.expand(x.shape)), operator(x + spread) - operator(x - spread))


@pytest.mark.parametrize("name", shared)
def test_batch_mates_change_nothing(name: str, generator: torch.Generator) -> None:
    assert_batch_independent(Contrast(CURVES[name]), torch.rand(3, 1, 7, 6, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", ["gamma per image", "curve per image"])
def test_parameters_of_each_image_equal_separate_calls(name: str, generator: torch.Generator) -> None:
    together, x = Contrast(CURVES[name]), images(generator)
    direction, step = torch.randn(x.shape, generator=generator, dtype=x.dtype), torch.full((2, 1, 1, 1, 1), 0.1, dtype=x.dtype)
    for i in range(2):
        index = torch.tensor([i])
        alone = together.select(index)
        torch.testing.assert_close(together(x)[index], alone(x[index]))
        for many, one in zip(
            together.search_curve(x, direction)(step), alone.search_curve(x[index], direction[index])(step[index]), strict=True
        ):
            torch.testing.assert_close(many[index], one)
    torch.testing.assert_close(together.select(torch.tensor([1, 0]))(x.flip(0)).flip(0), together(x))


@curves
def test_move(curve: PowerLaw | HermiteCurve, generator: torch.Generator) -> None:
    """Step 0 stays, the velocity is the path's derivative, and where the path bends the measurement is a straight line."""
    operator, x = Contrast(curve), images(generator)
    direction = 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    spread = torch.full((2, 1, 1, 1, 1), 0.1, dtype=x.dtype)

    def point(step: float) -> tuple[torch.Tensor, torch.Tensor]:
        return operator.search_curve(x, direction, spread)(torch.full_like(spread, step))

    torch.testing.assert_close(point(0.0)[0], x, atol=1e-9, rtol=1e-6)
    h = 1e-6
    finite = (point(0.5 + h)[0] - point(0.5 - h)[0]) / (2 * h)
    torch.testing.assert_close(point(0.5)[1], finite, atol=1e-5, rtol=1e-4)
    bend = curve.steep_when_dark(x).expand(2, 1, 1, 1, 1).flatten()
    secant = operator.linearise(x, spread)
    torch.testing.assert_close(operator(point(0.5)[0])[bend], (secant.value + 0.5 * secant.jvp(direction))[bend], atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(point(0.5)[0][~bend], (x + 0.5 * direction)[~bend])


def test_agrees_with_the_contrast_of_the_low_field_scanner(generator: torch.Generator) -> None:
    x = images(generator)
    torch.testing.assert_close(Contrast(PowerLaw(0.6))(x), LowField(gamma=0.6)(x))


@pytest.mark.parametrize("name", [name for name in CURVES if name != "falling"])
def test_linear_problem_undoes_the_contrast(name: str, generator: torch.Generator) -> None:
    curve = CURVES[name]
    operator, x = Contrast(curve), torch.rand(2, 1, 6, 5, generator=generator, dtype=torch.float64)
    problem = operator.linear_problem(operator(x), x.shape, 0.01)
    model = spectral(problem.model)
    torch.testing.assert_close(problem.measurement, x, atol=1e-6, rtol=1e-5)
    for function in (model.forward, model.adjoint, model.pseudo_inverse):
        torch.testing.assert_close(function(x), x)
    assert bool(problem.warnings) != operator.is_linear
    if operator.is_linear:
        assert model.noise_std.tolist() == [0.01]
    else:
        expected = 0.01 * curve.slope(x).pow(-2).flatten(1).mean(1).sqrt()
        torch.testing.assert_close(model.noise_std, expected, atol=1e-9, rtol=1e-4)


def test_a_falling_contrast_is_not_undone(generator: torch.Generator) -> None:
    x = torch.rand(1, 1, 6, 5, generator=generator, dtype=torch.float64)
    operator = Contrast(CURVES["falling"])
    with input_error("cannot be undone"):
        operator.linear_problem(operator(x), x.shape, 0.01)
    assert isinstance(Contrast.from_json(operator.to_json()).curve, HermiteCurve)
    torch.testing.assert_close(Contrast.from_json(operator.to_json())(x), operator(x))


@curves
def test_typical_value_is_the_curve_in_flat_tissue(curve: PowerLaw | HermiteCurve) -> None:
    expected = curve(torch.full((2, 1, 3, 3), 0.8)).mean()
    assert Contrast(curve).typical_value(0.8) == pytest.approx(float(expected), rel=1e-6)


def test_selection_of_a_shared_curve_is_the_operator_itself() -> None:
    operator = Contrast(CURVES["bright"])
    assert operator.select(torch.tensor([1])) is operator


def test_grids_are_equal() -> None:
    operator = Contrast(PowerLaw(0.5))
    assert measured_shape(operator, (4, 5, 6)) == operator.covered_shape((4, 5, 6)) == (4, 5, 6)
    assert voxel_factors(operator) == (1.0, 1.0, 1.0)
    assert not operator.couples_slices


@pytest.mark.parametrize("name", shared)
def test_json_round_trip(name: str, generator: torch.Generator) -> None:
    operator, x = Contrast(CURVES[name]), images(generator)
    again = Contrast.from_json(json.loads(json.dumps(operator.to_json())))
    assert again.to_json() == operator.to_json()
    torch.testing.assert_close(again(x), operator(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gamma per image", "curve per image"])
def test_curves_of_each_image_are_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="per image") as caught:
        Contrast(CURVES[name]).to_json()
    assert not isinstance(caught.value, InputError)
    assert str(Contrast(CURVES[name])).startswith("Contrast(")


def test_bad_parameters_are_named() -> None:
    with input_error("gamma"):
        PowerLaw(torch.tensor([0.5, -1.0]))
    for values in (
        {},
        {"type": "LowField", "gamma": 1.0},
        {"type": "Contrast"},
        {"type": "Contrast", "gamma": 1, "positions": [], "values": []},
    ):
        with input_error("either gamma or positions and values"):
            Contrast.from_json(values)
    with input_error("gamma is 'a'"):
        Contrast.from_json({"type": "Contrast", "gamma": "a"})
    with input_error("positions is 3"):
        Contrast.from_json({"type": "Contrast", "positions": 3, "values": [0.0]})

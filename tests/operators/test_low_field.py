"""The low-field scanner against a slow direct computation, and the properties of every operator."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from dynamicdps.errors import InputError
from dynamicdps.operators import LowField, Operator, preset
from dynamicdps.operators.sampling import axis_matrix, measured_size
from tests.properties import assert_adjoint, assert_batch_independent, assert_jacobian_products, input_error, measured_shape

PER_IMAGE = {"gamma": torch.tensor([0.5, 1.4]), "blur": torch.tensor([0.0, 1.7])}
OPERATORS: dict[str, dict[str, Any]] = {
    "identity": {},
    "contrast": {"gamma": 0.5},
    "iqt": {"gamma": 0.4, "in_plane_factor": 4.0, "blur": 1.0},
    "blur": {"gamma": 1.5, "blur": 2.2},
    "fraction": {"gamma": 0.8, "in_plane_factor": 1.5, "blur": 0.4},
    "odd": {"in_plane_factor": 2.7},
    "thick": {"gamma": 0.7, "in_plane_factor": 1.5, "slice_thickness": 5.0},
    "box": {"gamma": 0.7, "slice_thickness": 3.0, "slice_profile": "box"},
    "gap": {"gamma": 1.2, "slice_thickness": 3.0, "slice_spacing": 4.5, "blur": 0.7},
    "thin": {"slice_thickness": 0.5, "image_spacing": 1.0},
    "coarse": {"slice_thickness": 5.0, "image_spacing": 2.5, "slice_profile": "box"},
    "per-image": {**PER_IMAGE, "in_plane_factor": 2.0},
    "per-image-thick": {**PER_IMAGE, "slice_thickness": 4.0},
}
SHAPES = [(2, 1, 17, 23), (2, 1, 16, 8), (2, 1, 1, 5), (2, 1, 11, 16, 13), (2, 1, 1, 9, 9)]

SINGLE = {name: values for name, values in OPERATORS.items() if "per-image" not in name}

operators = pytest.mark.parametrize("parameters", OPERATORS.values(), ids=OPERATORS)
single_operators = pytest.mark.parametrize("parameters", SINGLE.values(), ids=SINGLE)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def images(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return torch.where(torch.rand(shape, generator=generator) < 0.2, 0.0, x)


@operators
@shapes
def test_adjoint(parameters: dict[str, Any], shape: tuple[int, ...], generator: torch.Generator) -> None:
    operator = LowField(**parameters)
    assert_adjoint(operator.linear, lambda w: operator.linear.adjoint(w, shape), shape, generator)


@operators
@shapes
def test_linearise(parameters: dict[str, Any], shape: tuple[int, ...], generator: torch.Generator) -> None:
    assert_jacobian_products(LowField(**parameters), images(shape, generator), generator)


@operators
def test_linearise_agrees_with_automatic_differentiation(parameters: dict[str, Any], generator: torch.Generator) -> None:
    operator, x = LowField(**parameters), images((2, 1, 6, 9, 11), generator)
    own, automatic = operator.linearise(x), Operator.linearise(operator, x)
    p, w = torch.randn(x.shape, generator=generator, dtype=x.dtype), torch.randn(own.value.shape, generator=generator, dtype=x.dtype)
    torch.testing.assert_close(own.value, automatic.value)
    torch.testing.assert_close(own.jvp(p), automatic.jvp(p))
    torch.testing.assert_close(own.vjp(w), automatic.vjp(w))


def test_secant_is_exact_at_both_ends_of_the_spread(generator: torch.Generator) -> None:
    operator = LowField(gamma=torch.tensor([0.4, 1.5]), in_plane_factor=2.0)
    x = images((2, 1, 8, 9), generator)
    spread = torch.tensor([0.05, 0.2], dtype=torch.float64).view(-1, 1, 1, 1)
    near = operator.linearise(x, spread)
    torch.testing.assert_close(near.value, operator(x))
    torch.testing.assert_close(2 * near.jvp(spread.expand(x.shape)), operator(x + spread) - operator(x - spread))
    assert_adjoint(near.jvp, near.vjp, x.shape, generator)
    narrow = operator.linearise(x, torch.full_like(spread, 1e-6))
    p = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    torch.testing.assert_close(narrow.jvp(p), operator.linearise(x).jvp(p), rtol=1e-4, atol=1e-4)


def slow_axis(line: np.ndarray, factor: float, width: float, blur: float, profile: str) -> np.ndarray:
    """Blur, then average over the scanner's voxels, voxel by voxel."""
    size = len(line)
    blurred = line.copy()
    if blur > 0:
        for i in range(size):
            weights = [math.exp(-((i - j) ** 2) / (2 * blur**2)) for j in range(size)]
            blurred[i] = sum(w * v for w, v in zip(weights, line, strict=True)) / sum(weights)
    measured = max(1, math.ceil(size / factor - 1e-6))
    out = np.zeros(measured)
    for m in range(measured):
        centre = (size - 1) / 2 + (m - (measured - 1) / 2) * factor
        total = share = 0.0
        for j in range(size):
            if profile == "box":
                overlap = max(0.0, min(j + 0.5, centre + width / 2) - max(j - 0.5, centre - width / 2))
            else:
                overlap = 2.0 ** (-4 * ((j - centre) / width) ** 2)
            total += overlap * blurred[j]
            share += overlap
        out[m] = total / share
    return out


def slow_forward(x: np.ndarray, operator: LowField) -> np.ndarray:
    y = np.sign(x) * np.abs(x) * (x**2 + 0.005**2) ** ((operator.gamma - 1) / 2)
    for axis in (-1, -2):
        y = np.apply_along_axis(slow_axis, axis, y, operator.in_plane_factor, operator.in_plane_factor, operator.blur, "box")
    if operator.slice_thickness is not None and x.ndim == 3:
        spacing = operator.slice_spacing or operator.slice_thickness
        factor, width = (max(1.0, v / operator.image_spacing) for v in (spacing, operator.slice_thickness))
        y = np.apply_along_axis(slow_axis, -3, y, factor, width, 0.0, operator.slice_profile)
    return y


@single_operators
@pytest.mark.parametrize("shape", [(17, 22), (16, 16), (11, 9, 13)], ids=str)
def test_forward_is_the_slow_computation(parameters: dict[str, Any], shape: tuple[int, ...], generator: torch.Generator) -> None:
    operator = LowField(**parameters)
    x = images(shape, generator) * 1.2 - 0.1
    expected = torch.from_numpy(slow_forward(x.numpy(), operator))
    torch.testing.assert_close(operator(x[None, None])[0, 0], expected, atol=2e-6, rtol=1e-5)


def test_whole_factors_average_blocks(generator: torch.Generator) -> None:
    x = torch.rand(2, 1, 12, 20, generator=generator)
    blocks = x.view(2, 1, 3, 4, 5, 4).mean(dim=(3, 5))
    torch.testing.assert_close(LowField(in_plane_factor=4.0)(x), blocks)


def test_blur_is_a_gaussian_away_from_the_edges(generator: torch.Generator) -> None:
    x = torch.rand(1, 1, 60, 60, generator=generator, dtype=torch.float64)
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), 2.0, truncate=10)
    np.testing.assert_allclose(LowField(blur=2.0)(x)[0, 0, 20:40, 20:40].numpy(), expected[20:40, 20:40], atol=1e-6)


def test_gaussian_profile_has_half_its_height_at_half_the_thickness() -> None:
    spot = torch.zeros(21, 1, 21, 1, 1)
    spot[torch.arange(21), 0, torch.arange(21)] = 1
    weights = LowField(slice_thickness=4.0)(spot)[:, 0, 3, 0, 0]  # six slices of 4 mm on 21 mm: the fourth lies 2 mm above the centre
    centre = 12
    assert weights.argmax() == centre
    torch.testing.assert_close(weights[[centre - 2, centre + 2]] / weights[centre], torch.tensor([0.5, 0.5]))


@operators
@shapes
def test_constants_stay_constant(parameters: dict[str, Any], shape: tuple[int, ...]) -> None:
    operator = LowField(**{**parameters, "gamma": 1.0})
    y = operator(torch.full(shape, 0.37))
    torch.testing.assert_close(y, torch.full_like(y, 0.37))


@single_operators
def test_batch_mates_change_nothing(parameters: dict[str, Any], generator: torch.Generator) -> None:
    assert_batch_independent(LowField(**parameters), torch.rand(3, 1, 7, 10, 12, generator=generator))


@pytest.mark.parametrize("shape", [(3, 1, 14, 17), (3, 1, 8, 10, 11)], ids=str)
def test_parameters_of_each_image_equal_separate_calls(shape: tuple[int, ...], generator: torch.Generator) -> None:
    x = torch.rand(shape, generator=generator)
    gammas, blurs = [0.4, 1.0, 2.0], [0.0, 0.6, 2.5]
    rest = {"in_plane_factor": 2.0, "slice_thickness": 3.0}
    together = LowField(gamma=torch.tensor(gammas), blur=torch.tensor(blurs), **rest)
    step = torch.tensor([0.1, 0.5, 1.0]).view(-1, *[1] * (len(shape) - 1))
    direction = torch.randn(shape, generator=generator)
    for i, (gamma, blur) in enumerate(zip(gammas, blurs, strict=True)):
        alone = LowField(gamma=gamma, blur=blur, **rest)
        torch.testing.assert_close(together(x)[i], alone(x[i : i + 1])[0])
        moved = zip(together.search_curve(x, direction)(step), alone.search_curve(x[i : i + 1], direction[i : i + 1])(step[i]), strict=True)
        for many, one in moved:
            torch.testing.assert_close(many[i], one[0], rtol=1e-4, atol=1e-5)


def test_selected_images_keep_their_parameters(generator: torch.Generator) -> None:
    x, index = torch.rand(3, 1, 8, 9, generator=generator), torch.tensor([2, 0])
    operator = LowField(gamma=torch.tensor([0.4, 1.0, 2.0]), blur=torch.tensor([0.0, 0.6, 2.5]))
    torch.testing.assert_close(operator.select(index)(x[index]), operator(x)[index])
    shared = LowField(gamma=0.4, blur=1.0)
    assert shared.select(index).to_json() == shared.to_json()


def test_gradient_with_respect_to_the_parameters(generator: torch.Generator) -> None:
    x = images((1, 1, 12, 12), generator)

    def measure(gamma: torch.Tensor, blur: torch.Tensor) -> torch.Tensor:
        return LowField(gamma=gamma, blur=blur, in_plane_factor=2.0)(x)

    parameters = tuple(torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (0.7, 1.1))
    assert torch.autograd.gradcheck(measure, parameters)


def test_autocast_does_not_round_the_measurement(generator: torch.Generator) -> None:
    x = torch.rand(1, 1, 5, 32, 32, generator=generator)
    operator = LowField(gamma=0.6, in_plane_factor=3.0, blur=1.2345, slice_thickness=3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = operator(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, operator(x), rtol=0, atol=0)


def test_first_use_in_inference_mode_does_not_stop_later_gradients(generator: torch.Generator) -> None:
    operator = LowField(in_plane_factor=2.0, blur=1.2346)
    x = torch.rand(1, 1, 13, 13, generator=generator)
    with torch.inference_mode():
        operator(x)
    x.requires_grad_()
    operator(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("gamma", [0.3, 0.7, 1.0, 1.6])
def test_move(gamma: float, generator: torch.Generator) -> None:
    """Step 0 stays; the velocity is the curve's derivative; below gamma 1 the measurement is a straight line."""
    operator = LowField(gamma=gamma, in_plane_factor=2.0)
    x = images((2, 1, 8, 9), generator)
    direction = 0.1 * torch.randn(x.shape, generator=generator, dtype=torch.float64)

    def point(step: float) -> tuple[torch.Tensor, torch.Tensor]:
        return operator.search_curve(x, direction)(torch.full((2, 1, 1, 1), step, dtype=torch.float64))

    start, velocity = point(0.0)
    torch.testing.assert_close(start, x, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(velocity, direction, atol=1e-9, rtol=1e-6)
    for step in (0.05, 0.5):
        h = 1e-6
        finite = (point(step + h)[0] - point(step - h)[0]) / (2 * h)
        torch.testing.assert_close(point(step)[1], finite, atol=1e-5, rtol=1e-4)
    if gamma < 1:
        spread = torch.full((2, 1, 1, 1), 0.1, dtype=torch.float64)
        secant = operator.linearise(x, spread)
        moved, _ = operator.search_curve(x, direction, spread)(torch.full_like(spread, 0.5))
        torch.testing.assert_close(operator(moved), secant.value + 0.5 * secant.jvp(direction), atol=1e-9, rtol=1e-6)
    if gamma <= 1:
        near = operator.linearise(x)
        torch.testing.assert_close(operator(point(0.5)[0]), near.value + 0.5 * near.jvp(direction), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1.25, 1.5, 1.6, 2.0, 2.7, 3.0, 10 / 3, 4.0, 5.0, 7.3])
def test_grid_sizes_are_inverse(factor: float) -> None:
    for count in range(1, 200):
        size = LowField(in_plane_factor=factor).covered_shape((count, 1, 1))[0]
        assert measured_size(size, factor) == count
        assert measured_size(size + 1, factor) == count + 1, "the largest image that so many voxels cover"


@single_operators
@pytest.mark.parametrize("shape", [(5, 7, 3), (16, 24, 10), (37, 41, 1)], ids=str)
def test_grid_shapes(parameters: dict[str, Any], shape: tuple[int, int, int]) -> None:
    operator = LowField(**parameters)
    assert measured_shape(operator, operator.covered_shape(shape)) == shape
    x, y, z = shape
    measured = operator(torch.zeros(1, 1, z, y, x)).shape[2:][::-1]
    assert tuple(measured) == measured_shape(operator, shape)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", 0.0),
        ("gamma", 6.0),
        ("gamma", float("nan")),
        ("gamma", torch.tensor([0.5, -1.0])),
        ("in_plane_factor", 0.5),
        ("in_plane_factor", 100.0),
        ("blur", -0.1),
        ("blur", torch.tensor([1.0, float("inf")])),
        ("slice_thickness", 0.0),
        ("slice_spacing", 80.0),
        ("image_spacing", -1.0),
        ("slice_profile", "triangle"),
    ],
)
def test_parameters_out_of_range_are_named(name: str, value: Any) -> None:
    with input_error(name):
        LowField(**{name: value})


def test_unknown_names() -> None:
    with input_error("there is no degradation 'iqt'"):
        preset("iqt")
    with pytest.raises(ValueError, match="expected 'box' or 'gaussian'"):
        axis_matrix(4, torch.ones(1), 4, torch.zeros(1), "triangle")
    with pytest.raises(ValueError, match="expected"):
        LowField(blur=1.0)(torch.zeros(4, 4))


def test_text_and_plain_values() -> None:
    operator = preset("thick-5mm").operator
    assert "gamma=0.7" in str(operator)
    assert LowField(**{k: v for k, v in operator.to_json().items() if k != "type"}).to_json() == operator.to_json()
    with pytest.raises(ValueError, match="differs per image") as caught:
        LowField(gamma=torch.tensor([0.5, 0.6])).to_json()
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("gamma", 0.05, 5.0),
        ("in_plane_factor", 1.0, 32.0),
        ("blur", 0.0, 20.0),
        ("image_spacing", 0.1, 20.0),
        ("slice_thickness", 0.1, 50.0),
        ("slice_spacing", 0.1, 50.0),
    ],
)
def test_parameters_have_bounds(name: str, low: float, high: float) -> None:
    for value in (low, high):
        assert getattr(LowField(**{name: value}), name) == value
    for value in (low - 0.01, high + 0.01):
        with input_error(name):
            LowField(**{name: value})

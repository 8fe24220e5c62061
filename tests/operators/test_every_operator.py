"""What every operator must have, once for all."""

import json
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators import (
    AnisotropicBlur,
    Composition,
    Identity,
    Inpainting,
    InPlaneResolution,
    KSpace,
    LowField,
    MotionBlur,
    Operator,
    SliceProfile,
    SpectralModel,
    Weighting,
    operator_from_json,
    operator_types,
)
from dynamicdps.operators.contrast_operator import Contrast
from dynamicdps.operators.image_grid import voxel_factors
from tests.operators.every_operator import CASES, LINEAR, PER_IMAGE, SHARED, Case
from tests.properties import assert_adjoint, assert_batch_independent, assert_jacobian_products, input_error, measured_shape, placed


def over(cases: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases.values(), ids=cases)


def test_every_type_is_tried() -> None:
    parts = [part for case in CASES.values() for part in (case.operator.operators if isinstance(case.operator, Composition) else ())]
    tried = {type(operator).__name__ for operator in [*(case.operator for case in CASES.values()), *parts]}
    assert tried == set(operator_types())


@over(CASES)
def test_what_counts_is_what_answers(case: Case, generator: torch.Generator) -> None:
    """Of white noise on all entries, weighed as the outermost operator weighs them, the share `counted` is left in the mean square."""
    y = case.operator(case.image(generator))
    counted = case.operator.measured_fraction(y)
    outer = case.operator.operators[0] if isinstance(case.operator, Composition) else case.operator
    if isinstance(outer, Inpainting | KSpace | Weighting):
        weights = outer.weights if isinstance(outer, Weighting) else outer.mask.double()
        expected = weights.double().square() * torch.ones_like(y[:, :1]).double()
        torch.testing.assert_close(counted, expected.flatten(1).mean(1))
        assert counted.max() < 1
    else:
        assert (counted == 1).all()
    assert counted.shape == (len(y),)


@over(LINEAR)
def test_adjoint(case: Case, generator: torch.Generator) -> None:
    assert_adjoint(case.operator.forward, lambda w: case.operator.adjoint(w, case.shape), case.shape, generator)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(LINEAR)))
def test_nonlinear_operators_have_no_adjoint(name: str) -> None:
    case = CASES[name]
    y = case.operator(torch.rand(case.shape))
    with input_error("is not linear"):
        case.operator.adjoint(y, case.shape)


@over(CASES)
def test_linear_says_whether_it_is(case: Case, generator: torch.Generator) -> None:
    x, z = case.image(generator), case.image(generator)
    together = case.operator(2.5 * x - 0.7 * z)
    apart = 2.5 * case.operator(x) - 0.7 * case.operator(z)
    assert torch.allclose(together, apart, rtol=1e-9, atol=1e-9) == case.operator.is_linear


@over(CASES)
def test_jacobian_products(case: Case, generator: torch.Generator) -> None:
    assert_jacobian_products(case.operator, case.image(generator), generator)


@over(CASES)
def test_linearise_agrees_with_automatic_differentiation(case: Case, generator: torch.Generator) -> None:
    x = case.image(generator)
    own, automatic = case.operator.linearise(x), Operator.linearise(case.operator, x)
    w = torch.randn(own.value.shape, generator=generator, dtype=x.dtype)
    torch.testing.assert_close(own.vjp(w), automatic.vjp(w))


@over({name: case for name, case in CASES.items() if case.operator.is_straight_along_search})
@pytest.mark.parametrize("length", [0.0, 0.4, 1.5])
def test_along_a_straightened_curve_the_measurement_changes_evenly(case: Case, length: float, generator: torch.Generator) -> None:
    x, p = 0.2 + 0.6 * case.image(generator), 0.05 * torch.randn(case.shape, generator=generator, dtype=torch.float64)
    spread = torch.full((len(x), *[1] * (x.ndim - 1)), 0.1, dtype=x.dtype)
    near = case.operator.linearise(x, spread)
    moved, _ = case.operator.search_curve(x, p, spread)(length * torch.ones_like(spread))
    torch.testing.assert_close(case.operator(moved), near.value + length * near.jvp(p), rtol=1e-5, atol=1e-6)


def test_only_what_straightens_says_so() -> None:
    straight = {name for name, case in CASES.items() if case.operator.is_straight_along_search} - set(LINEAR)
    assert {"contrast-per-image", "contrast-knots", "composition-outer-contrast"}.isdisjoint(straight)
    assert {"composition-contrast", "composition-per-image"} <= straight


@over(CASES)
def test_gradient_by_finite_differences(case: Case, generator: torch.Generator) -> None:
    x = 0.2 + 0.8 * case.image(generator)
    w = torch.randn(case.operator(x).shape, generator=generator, dtype=x.dtype)
    p = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    variable = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((w * case.operator(variable)).sum(), variable)
    h = 1e-5
    finite = (w * (case.operator(x + h * p) - case.operator(x - h * p))).sum() / (2 * h)
    torch.testing.assert_close((gradient * p).sum(), finite, rtol=1e-6, atol=1e-6)


def assert_near(actual: Tensor, expected: Tensor, share: float) -> None:
    assert (actual - expected).norm() <= share * expected.norm()


@over(LINEAR)
def test_linear_problem(case: Case, generator: torch.Generator) -> None:
    """The model is the operator; its inverses are inverses; the pseudo-inverse explains what can be explained."""
    x = torch.randn(case.shape, generator=generator, dtype=torch.float64)
    y = case.operator(x)
    problem = case.operator.linear_problem(y, case.shape, 0.03)
    model, w = problem.model, torch.randn(y.shape, generator=generator, dtype=y.dtype)
    assert torch.equal(problem.measurement, y)
    torch.testing.assert_close(model.noise_std, torch.tensor([0.03], dtype=y.dtype))
    torch.testing.assert_close(model(x), y, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(model.adjoint(w), case.operator.adjoint(w, case.shape), rtol=1e-8, atol=1e-8)
    exact = isinstance(model, SpectralModel)
    c = torch.tensor([0.01, 0.5], dtype=y.dtype)
    wide = c.view(-1, *[1] * (y.ndim - 1))
    solved, dual = model.solve_normal(x, c), model.solve_dual(w, c)
    assert_near(model.adjoint(model(solved)) + wide * solved, x, 1e-8 if exact else 1e-5)
    assert_near(model(model.adjoint(dual)) + wide * dual, w, 1e-8 if exact else 1e-5)
    inverse = model.pseudo_inverse(w)
    assert torch.isfinite(inverse).all()
    # What is strongly blurred takes conjugate gradients more steps than they have to be exact.
    assert_near(model(model.pseudo_inverse(y)), y, 1e-6 if exact else 0.02)
    if exact:
        assert_near(model.adjoint(model(inverse)), model.adjoint(w), 1e-6)
        torch.testing.assert_close(model.pseudo_inverse(model(inverse)), inverse, rtol=1e-6, atol=1e-6)


@over(SHARED)
def test_batch_independent(case: Case, generator: torch.Generator) -> None:
    x = torch.rand(3, *case.shape[1:], generator=generator)
    assert_batch_independent(case.operator, x)
    index = torch.tensor([2, 0])
    torch.testing.assert_close(case.operator.select(index)(x[index]), case.operator(x)[index])


@over(PER_IMAGE)
def test_parameters_of_each_image_equal_separate_operators(case: Case, generator: torch.Generator) -> None:
    x = case.image(generator)
    y = case.operator(x)
    w = torch.randn(y.shape, generator=generator, dtype=y.dtype)
    for i, alone in enumerate(case.separate):
        index = torch.tensor([i])
        chosen = case.operator.select(index)
        for operator in (alone, chosen):
            torch.testing.assert_close(operator(x[index]), y[index], rtol=1e-6, atol=1e-6)
        if case.operator.is_linear:
            torch.testing.assert_close(
                alone.adjoint(w[index], x[index].shape), case.operator.adjoint(w, x.shape)[index], rtol=1e-6, atol=1e-6
            )
    swapped = torch.tensor([1, 0])
    torch.testing.assert_close(case.operator.select(swapped)(x[swapped]), y[swapped])


def middle(x: Tensor, count: Iterable[int]) -> Tensor:
    for axis, n in zip((-3, -2, -1), count, strict=True):
        x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


LOCAL: dict[str, Operator] = {
    "identity": Identity(),
    "low-field": LowField(in_plane_factor=2.0, blur=0.7, slice_thickness=3.0),
    "blur": AnisotropicBlur(1.0, 0.5, 0.7, 35.0),
    "motion": MotionBlur(4.0, 50.0),
    "resolution": InPlaneResolution(2.0),
    "profile": SliceProfile(3.0, profile="sinc"),
    "composition": SliceProfile(3.0) @ InPlaneResolution(2.0) @ MotionBlur(2.0, 10.0),
}


@pytest.mark.parametrize("operator", LOCAL.values(), ids=LOCAL)
def test_away_from_the_borders_size_and_place_do_not_matter(operator: Operator, generator: torch.Generator) -> None:
    """An object in the middle of zeros: the same in a larger image, and moved by whole scanner voxels."""
    x = torch.zeros(1, 1, 33, 32, 36, dtype=torch.float64)
    middle(x, (3, 4, 4)).copy_(torch.rand(1, 1, 3, 4, 4, generator=generator, dtype=torch.float64))
    y = operator(x)
    large = torch.nn.functional.pad(x, (8, 8, 4, 4, 6, 6))
    torch.testing.assert_close(middle(operator(large), y.shape[-3:]), y, atol=1e-6, rtol=0)
    moved = operator(x.roll((3, 2, -4), (-3, -2, -1)))
    steps = [round(shift / factor) for shift, factor in zip((3, 2, -4), voxel_factors(operator)[::-1], strict=True)]
    torch.testing.assert_close(moved, y.roll(steps, (-3, -2, -1)), atol=1e-6, rtol=0)


@over(SHARED)
def test_json_round_trip(case: Case, generator: torch.Generator) -> None:
    values = case.operator.to_json()
    assert values["type"] == type(case.operator).__name__
    again = operator_from_json(json.loads(json.dumps(values)))
    assert type(again) is type(case.operator)
    assert again.to_json() == values
    x = case.image(generator)
    torch.testing.assert_close(again(x), case.operator(x))


@over(PER_IMAGE)
def test_parameters_of_many_images_are_not_written(case: Case) -> None:
    with pytest.raises(ValueError, match="differs per image") as caught:
        case.operator.to_json()
    assert not isinstance(caught.value, InputError)


@over(CASES)
def test_printable_form(case: Case) -> None:
    text = str(case.operator)
    assert "\n" not in text
    assert len(text) < 500
    parts = case.operator.operators if isinstance(case.operator, Composition) else (case.operator,)
    assert text == " @ ".join(map(str, parts))
    for part in parts:
        assert str(part).startswith(f"{type(part).__name__}(")


@over(CASES)
def test_inputs_are_not_changed(case: Case, generator: torch.Generator) -> None:
    x = case.image(generator)
    kept = x.clone()
    near = case.operator.linearise(x)
    w = torch.ones_like(near.value)
    y = near.value.clone()
    near.vjp(w)
    near.jvp(x)
    assert torch.equal(x, kept)
    assert torch.equal(w, torch.ones_like(w))
    assert torch.equal(case.operator(x), y), "the same again"


@over(CASES)
def test_grids(case: Case, generator: torch.Generator) -> None:
    depth = case.shape[2] if len(case.shape) == 5 else 1
    shape = case.shape[-1], case.shape[-2], depth
    measured = measured_shape(case.operator, shape)
    assert tuple(case.operator(case.image(generator)).shape[2:]) == (measured[::-1] if len(case.shape) == 5 else measured[1::-1])
    assert measured_shape(case.operator, case.operator.covered_shape(measured)) == measured
    matrix = placed(case.operator, shape)
    assert matrix.shape == (4, 4)
    if not isinstance(case.operator, Composition):
        np.testing.assert_allclose(np.linalg.norm(matrix[:3, :3], axis=0), voxel_factors(case.operator))


@over(CASES)
def test_single_precision_is_kept(case: Case, generator: torch.Generator) -> None:
    x = case.image(generator)
    y = case.operator(x.float())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), case.operator(x), rtol=1e-4, atol=1e-5)
    assert case.operator.linearise(x.float()).vjp(y).dtype == torch.float32


@over(CASES)
def test_wrong_number_of_dimensions_is_refused(case: Case) -> None:
    first = case.operator.operators[-1] if isinstance(case.operator, Composition) else case.operator
    if isinstance(first, Contrast | Identity) or (isinstance(first, LowField) and not first.linear._matrices(case.shape, torch.ones(1))):
        pytest.skip("works on any shape")
    with pytest.raises((ValueError, RuntimeError)):
        case.operator(torch.zeros(4, 4))

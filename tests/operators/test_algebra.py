"""Sums, multiples, stacks, adjoints and compositions of operators."""

import pytest
import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators import (
    AnisotropicBlur,
    BiasField,
    Contrast,
    Identity,
    InPlaneResolution,
    LowField,
    MonotoneCurve,
    MotionBlur,
    Operator,
    PowerLaw,
    Scanner,
    SliceProfile,
    Stack,
    SwapSliceAxis,
    operator_from_json,
)
from tests.properties import assert_adjoint, assert_jacobian_products, input_error

SHAPE = (2, 1, 7, 12, 10)
BLUR, MOTION = AnisotropicBlur(0.8, 0.4), MotionBlur(2.0, 30.0)
SHADING = BiasField(0.2 * torch.ones(1, 2, 2, dtype=torch.float64))
BENT = LowField(gamma=0.6, in_plane_factor=2.0, slice_thickness=3.0)
CURVE = MonotoneCurve(torch.tensor([0.0, 0.4, 1.0]), torch.tensor([0.0, 0.6, 1.0]))


def image(generator: torch.Generator) -> Tensor:
    return torch.rand(SHAPE, generator=generator, dtype=torch.float64)


LINEAR: dict[str, Operator] = {
    "sum": BLUR + MOTION,
    "multiple": 2.5 * BLUR,
    "both": 0.5 * BLUR + MOTION @ SHADING,
    "stack": Stack((BLUR, InPlaneResolution(2.0), SliceProfile(3.0))),
    "adjoint": InPlaneResolution(2.0).H,
}


@pytest.mark.parametrize("operator", LINEAR.values(), ids=LINEAR)
def test_adjoints(operator: Operator, generator: torch.Generator) -> None:
    assert operator.is_linear
    assert_adjoint(operator.forward, lambda w: operator.adjoint(w, SHAPE), SHAPE, generator)


@pytest.mark.parametrize("operator", [BLUR + Contrast(PowerLaw(0.6)), Stack((BENT, BLUR)), 2.0 * BENT], ids=["sum", "stack", "multiple"])
def test_jacobian_products_where_one_is_not_linear(operator: Operator, generator: torch.Generator) -> None:
    assert not operator.is_linear
    assert_jacobian_products(operator, image(generator), generator)


def test_what_they_compute(generator: torch.Generator) -> None:
    x = image(generator)
    torch.testing.assert_close((BLUR + MOTION)(x), BLUR(x) + MOTION(x))
    torch.testing.assert_close((3.0 * BENT)(x), 3 * BENT(x))
    stack = Stack((BLUR, BENT))
    for part, each in zip(stack.split(stack(x), SHAPE), (BLUR(x), BENT(x)), strict=True):
        torch.testing.assert_close(part, each)
    resolution = InPlaneResolution(2.0)
    torch.testing.assert_close(resolution.H(resolution(x)), resolution.adjoint(resolution(x), SHAPE))
    torch.testing.assert_close(resolution.H.H(x), resolution(x))


def test_sums_and_stacks_have_no_file() -> None:
    for operator in (BLUR + MOTION, Stack((BLUR,))):
        with input_error("has no file"):
            operator.to_json()


SCANNERS: dict[str, Operator] = {
    "low-field": BENT,
    "contrast": Contrast(CURVE),
    "plain": Scanner(BLUR, CURVE),
    "shaded": SHADING @ BENT,
    "deep": MOTION @ SHADING @ BENT,
    "sagittal": SwapSliceAxis(SHADING @ BENT, 0),
    "linear": SHADING @ MOTION,
}


@pytest.mark.parametrize("operator", SCANNERS.values(), ids=SCANNERS)
def test_scanners_are_a_linear_part_after_a_contrast(operator: Operator, generator: torch.Generator) -> None:
    x = image(generator)
    linear, contrast = operator.linear, operator.contrast
    assert linear is not None
    torch.testing.assert_close(operator(x), linear(x if contrast is None else contrast(x)))
    assert_adjoint(linear.forward, lambda w: linear.adjoint(w, SHAPE), SHAPE, generator)
    assert_jacobian_products(operator, x, generator)


def test_a_contrast_after_mixing_is_no_scanner(generator: torch.Generator) -> None:
    operator = Contrast(CURVE) @ BLUR
    assert operator.linear is None
    assert_jacobian_products(operator, image(generator), generator)
    with input_error("is not linear"):
        operator.linear_problem(torch.zeros(SHAPE), SHAPE, 0.01)


def test_a_contrast_is_undone_only_behind_what_keeps_constants(generator: torch.Generator) -> None:
    """Behind shading, the inverse of the curve would be taken at the wrong intensity."""
    x = 0.5 * torch.ones(SHAPE, dtype=torch.float64)
    operator = Identity() @ SwapSliceAxis(BENT, 1)
    problem = operator.linear_problem(operator(x), SHAPE, 0.01)
    torch.testing.assert_close(problem.measurement, 0.5 * torch.ones_like(problem.measurement), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="is not linear"):
        (SHADING @ BENT).linear_problem((SHADING @ BENT)(x), SHAPE, 0.01)


def test_files_of_earlier_versions_are_read(generator: torch.Generator) -> None:
    values = SwapSliceAxis(BENT, 0).to_json() | {"type": "Turned"}
    x = image(generator)
    torch.testing.assert_close(operator_from_json(values)(x), SwapSliceAxis(BENT, 0)(x))

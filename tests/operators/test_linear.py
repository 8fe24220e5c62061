"""Linear models against the operator they stand for, dense algebra, and the definitions of their inverses."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from dynamicdps.operators import (
    IterativeModel,
    LinearModel,
    LinearOperator,
    LowField,
    Operator,
    SpectralModel,
    conjugate_gradients,
    inverse_power_law,
    power_law,
    spectral,
)
from dynamicdps.volumes.grids import Grid
from tests.properties import assert_adjoint, assert_batch_independent, input_error

# Blurs are mild: without regularisation an inverse multiplies rounding by the condition.
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "identity": ({}, (2, 1, 7, 6)),
    "half": ({"in_plane_factor": 2.0}, (2, 1, 8, 9)),
    "fraction": ({"in_plane_factor": 2.5, "blur": 0.6}, (2, 1, 11, 8)),
    "thick": ({"in_plane_factor": 1.5, "slice_thickness": 3.0}, (2, 1, 7, 5, 6)),
    "per-image": ({"in_plane_factor": 2.0, "blur": torch.tensor([0.0, 0.8])}, (2, 1, 8, 10)),
}
KINDS = ("spectral", "iterative")
C = torch.tensor([0.01, 0.5], dtype=torch.float64)


class Case(NamedTuple):
    operator: LowField
    model: LinearModel
    shape: tuple[int, ...]
    measured: torch.Size

    def image(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self.shape, generator=generator, dtype=torch.float64)

    def measurement(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self.measured, generator=generator, dtype=torch.float64)

    def dense(self) -> Tensor:
        """The matrix of each image, ``(batch, measured, image)``."""
        size = math.prod(self.shape[1:])
        columns = torch.eye(size, dtype=torch.float64).view(size, 1, *self.shape[1:]).expand(-1, *self.shape)
        return torch.stack([self.operator.linear(column) for column in columns], dim=-1).flatten(1, -2)


@pytest.fixture(params=[f"{name}-{kind}" for name in CASES for kind in KINDS])
def case(request: pytest.FixtureRequest) -> Case:
    name, kind = request.param.rsplit("-", 1)
    parameters, shape = CASES[name]
    operator = LowField(**parameters)
    y = operator.linear(torch.zeros(shape, dtype=torch.float64))
    model = operator.linear_problem(y, shape, 0.01).model
    if kind == "iterative":
        model = IterativeModel(model.noise_std, operator.linear, lambda w: operator.linear.adjoint(w, shape), 500, 1e-12)
    return Case(operator, model, shape, y.shape)


@pytest.fixture(params=CASES)
def spectral_case(request: pytest.FixtureRequest) -> Case:
    parameters, shape = CASES[request.param]
    operator = LowField(**parameters)
    y = operator.linear(torch.zeros(shape, dtype=torch.float64))
    return Case(operator, operator.linear_problem(y, shape, 0.01).model, shape, y.shape)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def test_forward_is_the_resampling(case: Case, generator: torch.Generator) -> None:
    x = case.image(generator)
    close(case.model(x), case.operator.linear(x))
    close(case.model(x), case.operator(x))


def test_adjoint(case: Case, generator: torch.Generator) -> None:
    assert_adjoint(case.model.forward, case.model.adjoint, case.shape, generator)


def test_solve_normal_inverts_the_regularised_normal_matrix(case: Case, generator: torch.Generator) -> None:
    b = case.image(generator)
    for c in (C, C[:1]):
        x = case.model.solve_normal(b, c)
        close(case.model.adjoint(case.model(x)) + c.view(-1, *[1] * (b.ndim - 1)) * x, b)


def test_solve_dual_inverts_the_regularised_dual_matrix(case: Case, generator: torch.Generator) -> None:
    b = case.measurement(generator)
    for c in (C, C[:1]):
        w = case.model.solve_dual(b, c)
        close(case.model(case.model.adjoint(w)) + c.view(-1, *[1] * (b.ndim - 1)) * w, b)


def test_both_solves_give_the_same_ridge_solution(case: Case, generator: torch.Generator) -> None:
    """``(H^T H + c)^-1 H^T = H^T (H H^T + c)^-1``."""
    y = case.measurement(generator)
    close(case.model.solve_normal(case.model.adjoint(y), C), case.model.adjoint(case.model.solve_dual(y, C)))


@pytest.mark.parametrize("c", [1e-2, 1e-4, 1e-6, 1e-8])
def test_dual_solution_is_exact_in_float32_for_little_noise(spectral_case: Case, c: float, generator: torch.Generator) -> None:
    """``1 / c`` must not enlarge rounding: the noise can be a thousandth of the range."""
    case, b = spectral_case, spectral_case.measurement(generator)
    single = case.operator.linear_problem(b.float(), case.shape, 0.01).model
    small = torch.tensor([c], dtype=torch.float64)
    exact = case.model.adjoint(case.model.solve_dual(b, small))
    torch.testing.assert_close(single.adjoint(single.solve_dual(b.float(), small.float())).double(), exact, atol=1e-4, rtol=1e-4)


def test_pseudo_inverse_keeps_the_four_conditions_of_penrose(case: Case, generator: torch.Generator) -> None:
    forward, inverse = case.model.forward, case.model.pseudo_inverse
    x, w = case.image(generator), case.measurement(generator)
    close(forward(inverse(forward(x))), forward(x))
    close(inverse(forward(inverse(w))), inverse(w))
    assert_adjoint(lambda u: inverse(forward(u)), lambda u: inverse(forward(u)), case.shape, generator, tolerance=1e-8)
    assert_adjoint(lambda v: forward(inverse(v)), lambda v: forward(inverse(v)), case.measured, generator, tolerance=1e-8)


def test_pseudo_inverse_is_that_of_the_dense_matrix(case: Case, generator: torch.Generator) -> None:
    w = case.measurement(generator)
    exact = torch.linalg.pinv(case.dense()) @ w.flatten(1)[..., None]
    close(case.model.pseudo_inverse(w), exact.view(case.shape))


def test_singular_values_are_those_of_the_dense_matrix(spectral_case: Case) -> None:
    case, model = spectral_case, spectral(spectral_case.model)
    exact = torch.linalg.svdvals(case.dense())
    found = model.singular_values.expand(case.shape).flatten(1).sort(dim=1, descending=True).values
    close(found[:, : exact.shape[1]], exact)
    assert (found[:, exact.shape[1] :].abs() < 1e-12).all()


def test_bases_are_orthonormal(spectral_case: Case, generator: torch.Generator) -> None:
    case, model = spectral_case, spectral(spectral_case.model)
    x, w = case.image(generator), case.measurement(generator)
    close(model.from_basis(model.to_basis(x)), x)
    close(model.to_basis(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    close(model.data_from_basis(model.data_to_basis(w)), w)
    assert_adjoint(model.data_to_basis, model.data_from_basis, case.measured, generator)


@pytest.mark.parametrize("name", [name for name in CASES if name != "per-image"])
def test_linear_model_is_batch_independent(name: str, generator: torch.Generator) -> None:
    parameters, shape = CASES[name]
    operator = LowField(**parameters)

    def invert(y: Tensor) -> Tensor:
        return operator.linear_problem(y, (len(y), *shape[1:]), 0.01).model.pseudo_inverse(y)

    y = operator(torch.rand(3, *shape[1:], generator=generator, dtype=torch.float64))
    assert_batch_independent(invert, y)


def test_negligible_singular_values_are_each_image_s_own() -> None:
    """An image with large singular values next to it must not cut those of another."""

    def same(x: Tensor) -> Tensor:
        return x

    values = torch.tensor([[1e6, 1.0], [1.0, 1e-3]], dtype=torch.float64).view(2, 1, 1, 2)
    together = SpectralModel(torch.ones(1), same, same, same, same, values)
    expected = torch.tensor([[1e-6, 0.0], [1.0, 1e3]], dtype=torch.float64).view(2, 1, 1, 2)
    close(together.inverse_values, expected)
    for i in range(2):
        close(replace(together, singular_values=values[i : i + 1]).inverse_values, expected[i : i + 1])


def test_noise_and_measurement_are_kept_without_contrast(generator: torch.Generator) -> None:
    operator = LowField(in_plane_factor=2.0)
    y = torch.rand(2, 1, 4, 5, generator=generator)
    problem = operator.linear_problem(y, (2, 1, 8, 10), 0.03)
    assert problem.warnings == []
    assert torch.equal(problem.measurement, y)
    close(problem.model.noise_std, torch.tensor([0.03]))


@pytest.mark.parametrize("gamma", [0.4, 1.6, torch.tensor([0.5, 1.3])], ids=str)
def test_contrast_is_undone_with_a_warning(gamma: float | Tensor, generator: torch.Generator) -> None:
    operator = LowField(gamma=gamma, in_plane_factor=2.0)
    wide = torch.as_tensor(gamma, dtype=torch.float64).view(-1, 1, 1, 1)
    blocks = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64)
    x = blocks.repeat_interleave(2, -1).repeat_interleave(2, -2)
    y = operator(x)
    problem = operator.linear_problem(y, x.shape, 0.01)
    assert len(problem.warnings) == 1
    assert "\n" not in problem.warnings[0]
    assert "contrast was undone" in problem.warnings[0]
    close(problem.measurement, inverse_power_law(y, wide))
    close(power_law(problem.measurement, wide), y)
    close(problem.model(x), problem.measurement)


@pytest.mark.parametrize("gamma", [0.4, 0.7, 1.6])
def test_noise_of_the_undone_contrast_is_that_of_many_draws(gamma: float, generator: torch.Generator) -> None:
    """First order in the noise, so a small one."""
    operator = LowField(gamma=gamma, in_plane_factor=2.0)
    y = operator(0.2 + 0.8 * torch.rand(2, 1, 32, 32, generator=generator, dtype=torch.float64))
    clean = operator.linear_problem(y, (2, 1, 32, 32), 1e-4)
    assert clean.model.noise_std.shape == (2,)
    noise = 1e-4 * torch.randn(200, *y.shape, generator=generator, dtype=torch.float64)
    noisy = inverse_power_law(y + noise, torch.tensor(gamma, dtype=torch.float64))
    spread = (noisy - clean.measurement).square().mean(dim=(0, 2, 3, 4)).sqrt()
    torch.testing.assert_close(clean.model.noise_std, spread, rtol=0.02, atol=0)


class Squares(Operator):
    """A custom operator that is not linear."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square()

    def grid(self, image: Grid) -> Grid:
        return image


class Differences(LinearOperator, Squares):
    """A custom operator that is linear and says no more than its forward model."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 1:] - x[..., :-1]


def test_nonlinear_operator_is_refused() -> None:
    with input_error("Squares is not linear"):
        Squares().linear_problem(torch.zeros(1, 1, 4, 4), (1, 1, 4, 4), 0.01)


def test_custom_linear_operator_needs_only_its_forward_model(generator: torch.Generator) -> None:
    operator, shape = Differences(), (2, 1, 5, 8)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    problem = operator.linear_problem(operator(x), shape, 0.01)
    assert problem.warnings == []
    assert torch.equal(problem.measurement, operator(x))
    assert torch.equal(problem.model(x), operator(x))
    assert_adjoint(problem.model.forward, problem.model.adjoint, shape, generator)
    # Differences lose each row's mean and nothing else.
    close(problem.model.pseudo_inverse(operator(x)), x - x.mean(-1, keepdim=True), 1e-4)


def test_only_known_singular_values_are_spectral() -> None:
    model = LowField(in_plane_factor=2.0).linear_problem(torch.zeros(1, 1, 4, 4), (1, 1, 8, 8), 0.01).model
    assert spectral(model) is model
    with input_error("singular values are not known"):
        spectral(Differences().linear_problem(torch.zeros(1, 1, 4, 3), (1, 1, 4, 4), 0.01).model)


def definite(generator: torch.Generator, count: int = 3, size: int = 12) -> tuple[Tensor, Callable[[Tensor], Callable[[Tensor], Tensor]]]:
    """A random symmetric positive matrix for each image, of different scales, and the product with some of them."""
    root = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    scale = torch.logspace(-3, 3, count, dtype=torch.float64).view(-1, 1, 1)
    matrix = scale * (root @ root.mT / size + 0.1 * torch.eye(size))
    return matrix, lambda some: lambda x: (some @ x.flatten(1)[..., None]).view(x.shape)


def test_conjugate_gradients_solve_each_image(generator: torch.Generator) -> None:
    matrix, product = definite(generator)
    b = torch.randn(3, 1, 3, 4, generator=generator, dtype=torch.float64)
    exact = torch.linalg.solve(matrix, b.flatten(1)).view(b.shape)
    close(conjugate_gradients(product(matrix), b, 200, 1e-12).x, exact)
    start = torch.randn(b.shape, generator=generator, dtype=torch.float64)
    close(conjugate_gradients(product(matrix), b, 200, 1e-12, start).x, exact)
    assert torch.equal(conjugate_gradients(product(matrix), b, 0, start=start).x, start)
    assert torch.equal(conjugate_gradients(product(matrix), b, 200, 1e-6, exact).x, exact), "a solution is done at once"


def test_conjugate_gradients_end_at_the_tolerance(generator: torch.Generator) -> None:
    matrix, product = definite(generator)
    b = torch.randn(3, 1, 3, 4, generator=generator, dtype=torch.float64)
    counts = []
    for tolerance in (1e-1, 1e-8):
        products = []

        def counted(x: Tensor, products: list[int] = products) -> Tensor:
            products.append(len(x))
            return product(matrix)(x)

        x = conjugate_gradients(counted, b, 200, tolerance).x
        share = (b - product(matrix)(x)).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)
        assert (share <= 1.01 * tolerance).all()
        counts.append(len(products))
    assert counts == sorted(set(counts)), "no more steps than needed"


def test_conjugate_gradients_are_batch_independent(generator: torch.Generator) -> None:
    matrix, product = definite(generator)
    b = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    both = torch.cat([matrix, b[..., None]], dim=-1)

    def solve(system: Tensor) -> Tensor:
        return conjugate_gradients(product(system[..., :-1]), system[..., -1], 200, 1e-4).x

    assert_batch_independent(solve, both)


def test_conjugate_gradients_leave_a_zero_image_alone(generator: torch.Generator) -> None:
    matrix, product = definite(generator)
    b = torch.randn(3, 12, generator=generator, dtype=torch.float64)
    b[1] = 0
    x = conjugate_gradients(product(matrix), b, 200, 1e-10).x
    assert torch.equal(x[1], b[1])
    close(x, torch.linalg.solve(matrix, b), 1e-6)

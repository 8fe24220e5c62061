from collections.abc import Sequence

import pytest
import torch

from dynamicdps.data_term import DataTerm, Outcome, data_step
from dynamicdps.data_term.data_step import METHODS
from dynamicdps.operators import Linearisation, LowField, Operator, add_noise
from dynamicdps.operators.inner_products import inner
from dynamicdps.operators.operator import SearchCurve
from dynamicdps.volumes.grids import Grid

SHAPE = (2, 1, 24, 20)
NOISE = 0.02


def blobs(count: int = 2, height: int = 24, width: int = 20) -> torch.Tensor:
    rows = torch.linspace(-1, 1, height)[:, None]
    columns = torch.linspace(-1, 1, width)[None]
    base = ((rows**2 + columns**2) < 0.8).float()
    return torch.stack([base * (0.5 + 0.3 * torch.sin((3 + i) * rows) * columns) for i in range(count)])[:, None]


def ridge(operator: LowField, y: torch.Tensor, centre: torch.Tensor, spread: torch.Tensor, noise_std: float = NOISE) -> torch.Tensor:
    """The minimum for a linear A, with its dense matrix; float64."""
    size = centre[0].numel()
    matrix = operator.linear(torch.eye(size, dtype=torch.float64).view(size, *centre.shape[1:])).flatten(1).T
    data, prior = 1 / noise_std**2, 1 / spread.double().square()
    left = [matrix.T @ matrix * data + torch.eye(size) * p for p in prior]
    right = [matrix.T @ a.flatten() * data + c.flatten() * p for a, c, p in zip(y.double(), centre.double(), prior, strict=True)]
    return torch.linalg.solve(torch.stack(left), torch.stack(right)).view(centre.shape)


def test_linear_operator_against_the_closed_form() -> None:
    """For a linear A the data step is the ridge regression, solved here with the dense matrix."""
    operator = LowField(in_plane_factor=2.0, blur=0.7)
    truth = blobs()
    y = add_noise(operator(truth), 0.02, [torch.Generator().manual_seed(i) for i in range(2)])
    centre, spread = truth + 0.1, torch.tensor([0.05, 0.2])
    found = data_step(DataTerm(y, operator, 0.02), centre, spread, cg_iterations=200, cg_tolerance=1e-6)
    torch.testing.assert_close(found.x.double(), ridge(operator, y, centre, spread), atol=2e-4, rtol=0)


@pytest.mark.parametrize("gamma", [0.4, 0.8, 1.6])
def test_gradient_vanishes_at_the_result(gamma: float) -> None:
    operator = LowField(gamma=gamma, in_plane_factor=2.0, blur=1.0)
    truth = blobs() + 0.1
    y = operator(truth)
    centre, spread = truth * 1.2 + 0.05, torch.full((2,), 0.1)
    x = data_step(DataTerm(y, operator, 0.01), centre, spread, iterations=12, cg_iterations=200, cg_tolerance=1e-6, tolerance=1e-7).x

    def gradient(x: torch.Tensor) -> torch.Tensor:
        linear = operator.linearise(x)
        return (x - centre) / 0.1**2 - linear.vjp(y - linear.value) / 0.01**2

    start, end = gradient(centre), gradient(x)
    assert (inner(end, end) < 1e-3 * inner(start, start)).all()


def test_wrong_contrast_is_mended() -> None:
    operator = LowField(gamma=0.4, in_plane_factor=2.0)
    truth = blobs()
    y = operator(truth)
    step = data_step(DataTerm(y, operator, 0.001), truth**0.5, torch.full((2,), 0.3))
    before, after = DataTerm(y, operator, 0.001).misfit(truth**0.5), step.misfit
    assert (after < 0.05 * before).all()
    assert ((step.x - truth).square().mean() < 0.2 * (truth**0.5 - truth).square().mean()).item()


def test_result_does_not_depend_on_the_batch() -> None:
    operator = LowField(gamma=0.5, in_plane_factor=2.0, blur=1.0)
    truth = blobs(4)
    y, centre = operator(truth), truth + 0.05 * torch.arange(4).view(-1, 1, 1, 1)
    spread = torch.tensor([0.02, 0.05, 0.1, 0.2])
    together = data_step(DataTerm(y, operator, 0.005), centre, spread).x
    for i in range(4):
        alone = data_step(DataTerm(y[i : i + 1], operator, 0.005), centre[i : i + 1], spread[i : i + 1]).x
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)


def test_data_step_on_volumes_with_thick_slices() -> None:
    operator = LowField(gamma=0.7, in_plane_factor=1.5, slice_thickness=3.0)
    volume = blobs(7).movedim(0, 1)[None]
    y = operator(volume)
    step = data_step(DataTerm(y, operator, 0.01), volume * 0.8 + 0.05, torch.full((1,), 0.2))
    assert step.x.shape == volume.shape
    assert step.misfit.item() < 1.0
    assert step.misfit < 0.1 * DataTerm(y, operator, 0.01).misfit(volume * 0.8 + 0.05)


SEARCHED = [(method, line_search) for method in METHODS for line_search in ("wolfe", "armijo")]
ways = pytest.mark.parametrize(("method", "line_search"), [*SEARCHED, ("gauss-newton", "constant")])
descents = pytest.mark.parametrize(("method", "line_search"), SEARCHED)
methods = pytest.mark.parametrize("method", METHODS)


def small_problem(
    operator: LowField, count: int = 2, size: tuple[int, int] = (12, 10), noise_std: float = NOISE
) -> tuple[torch.Tensor, ...]:
    """Noisy measurements of small images, wrong centres, and spreads that differ; float64."""
    truth = blobs(count, *size).double() + 0.1
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    y = add_noise(operator(truth), noise_std, generators)
    return y, truth * 1.2 + 0.05, torch.linspace(0.05, 0.2, count, dtype=torch.float64)


def objective(operator: Operator, y: torch.Tensor, centre: torch.Tensor, spread: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    residual, offset = (y - operator(x)) / NOISE, x - centre
    return inner(residual, residual) / 2 + inner(offset, offset) / (2 * spread.double().square())


@ways
def test_every_way_reaches_the_closed_form(method: str, line_search: str) -> None:
    operator = LowField(in_plane_factor=2.0, blur=0.7)
    y, centre, spread = small_problem(operator)
    found = data_step(
        DataTerm(y, operator, 0.02),
        centre,
        spread,
        method=method,
        line_search=line_search,
        iterations=300,
        cg_tolerance=1e-8,
        tolerance=1e-12,
    )
    torch.testing.assert_close(found.x, ridge(operator, y, centre, spread), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.misfit, DataTerm(y, operator, 0.02).misfit(found.x))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.6])
@descents
def test_objective_never_increases(method: str, line_search: str, gamma: float) -> None:
    operator = LowField(gamma=gamma, in_plane_factor=2.0)
    y, centre, spread = small_problem(operator)
    last = objective(operator, y, centre, spread, centre)
    for iterations in range(1, 9):
        found = data_step(DataTerm(y, operator, 0.02), centre, spread, method=method, line_search=line_search, iterations=iterations)
        value = objective(operator, y, centre, spread, found.x)
        # Images are float32: a step of rounding size may raise the value by as little.
        assert (value <= last * (1 + 1e-6)).all()
        assert (value < last).any() or iterations > 1
        last = value


@methods
def test_discrepancy_stops_before_noise_is_fitted(method: str) -> None:
    operator = LowField(in_plane_factor=2.0, blur=1.0)
    y, centre, _ = small_problem(operator)
    spread = torch.full((2,), 0.5, dtype=torch.float64)
    explained = data_step(DataTerm(y, operator, 0.02), centre, spread, method=method, iterations=100, discrepancy=1.0)
    minimum = data_step(DataTerm(y, operator, 0.02), centre, spread, method=method, iterations=100)
    assert (DataTerm(y, operator, 0.02).misfit(centre) > 1.5).all()
    assert (explained.misfit <= 1.0).all()
    assert (minimum.misfit < 0.8).all()
    assert explained.operator_calls < minimum.operator_calls
    # For a linear A the first Gauss-Newton step is the minimum.
    assert method == "gauss-newton" or (explained.misfit > minimum.misfit + 0.01).all()


@methods
def test_images_that_are_explained_already_stay(method: str) -> None:
    operator = LowField(gamma=0.7, in_plane_factor=2.0)
    y, centre, spread = small_problem(operator, 3)
    # Only the middle image starts away from its data.
    start = centre.clone()
    y[[0, 2]] = operator(centre)[[0, 2]] + 0.01
    mixed = data_step(DataTerm(y, operator, 0.02), centre, spread, method=method, discrepancy=1.0)
    assert torch.equal(mixed.x[[0, 2]], start[[0, 2]])
    assert not torch.equal(mixed.x[1], start[1])
    assert torch.equal(mixed.step[[0, 2]], torch.zeros(2, dtype=torch.float64))
    kept = [0, 2]
    idle = data_step(DataTerm(y[kept], operator, 0.02), centre[kept], spread[kept], method=method, discrepancy=1.0)
    eager = data_step(DataTerm(y[kept], operator, 0.02), centre[kept], spread[kept], method=method)
    assert idle.operator_calls == 1 < eager.operator_calls
    assert mixed.operator_calls > 1


@ways
def test_no_way_depends_on_the_batch(method: str, line_search: str) -> None:
    operator = LowField(gamma=0.6, in_plane_factor=2.0, blur=0.7)
    # Powers of two in float32: the rounding of torch's powers depends on a pixel's place in the last, incomplete vector register,
    # and many iterations enlarge it.
    y, centre, spread = (value.float() for value in small_problem(operator, 4, (16, 16)))

    def step(index: Sequence[int]) -> torch.Tensor:
        return data_step(
            DataTerm(y[index], operator, 0.02), centre[index], spread[index], method=method, line_search=line_search, iterations=8
        ).x

    together = step([0, 1, 2, 3])
    torch.testing.assert_close(torch.cat([step([i]) for i in range(4)]), together, atol=1e-5, rtol=0)
    torch.testing.assert_close(step([3, 2, 1, 0]).flip(0), together, atol=1e-5, rtol=0)
    torch.testing.assert_close(step([2, 0]), together[[2, 0]], atol=1e-5, rtol=0)


@methods
def test_parameters_of_each_image_follow_it_out_of_the_batch(method: str) -> None:
    gamma, blur = torch.tensor([0.5, 1.0, 1.5]), torch.tensor([1.2, 0.0, 0.5])
    y, centre, spread = small_problem(LowField(gamma=gamma, blur=blur, in_plane_factor=2.0), 3)
    together = data_step(
        DataTerm(y, LowField(gamma=gamma, blur=blur, in_plane_factor=2.0), 0.02), centre, spread, method=method, iterations=20
    )
    for i in range(3):
        own = LowField(gamma=gamma[i].item(), blur=blur[i].item(), in_plane_factor=2.0)
        alone = data_step(DataTerm(y[i : i + 1], own, 0.02), centre[i : i + 1], spread[i : i + 1], method=method, iterations=20)
        torch.testing.assert_close(alone.x[0], together.x[i], atol=1e-5, rtol=0)


@ways
def test_inputs_are_not_changed(method: str, line_search: str) -> None:
    operator = LowField(gamma=0.6, in_plane_factor=2.0)
    inputs = small_problem(operator)
    start = inputs[1] * 0.9
    copies = [value.clone() for value in (*inputs, start)]
    data_step(DataTerm(inputs[0], operator, 0.02), *inputs[1:], start=start, method=method, line_search=line_search)
    for value, copy in zip((*inputs, start), copies, strict=True):
        assert torch.equal(value, copy)


@methods
def test_start_does_not_move_the_minimum(method: str) -> None:
    operator = LowField(in_plane_factor=2.0)
    y, centre, spread = small_problem(operator)
    for start in (torch.zeros_like(centre), 3 * centre):
        found = data_step(
            DataTerm(y, operator, 0.02), centre, spread, start=start, method=method, iterations=300, cg_tolerance=1e-8, tolerance=1e-12
        )
        torch.testing.assert_close(found.x, ridge(operator, y, centre, spread), atol=1e-5, rtol=0)


@methods
def test_a_start_without_misfit_still_moves_to_the_minimum(method: str) -> None:
    operator = LowField()
    y, centre, spread = small_problem(operator, noise_std=0.1)
    found = data_step(
        DataTerm(y, operator, 0.1), centre, spread, start=y.clone(), method=method, iterations=300, cg_tolerance=1e-8, tolerance=1e-12
    )
    torch.testing.assert_close(found.x, ridge(operator, y, centre, spread, 0.1), atol=1e-5, rtol=0)


def test_unknown_names_are_refused() -> None:
    operator = LowField(in_plane_factor=2.0)
    inputs = small_problem(operator)
    with pytest.raises(ValueError, match="'newton'; expected one of gauss-newton, l-bfgs, gradient"):
        data_step(DataTerm(inputs[0], operator, 0.02), *inputs[1:], method="newton")
    with pytest.raises(ValueError, match="'exact'; expected one of wolfe, armijo, constant"):
        data_step(DataTerm(inputs[0], operator, 0.02), *inputs[1:], line_search="exact")


class Watched(Operator):
    """Notes how many images each application sees."""

    def __init__(self, operator: LowField, seen: list[int]) -> None:
        self.operator, self.seen = operator, seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        return self.operator(x)

    def linearise(self, x: torch.Tensor, spread: torch.Tensor | None = None) -> Linearisation:
        self.seen.append(len(x))
        return self.operator.linearise(x, spread)

    def search_curve(self, x: torch.Tensor, direction: torch.Tensor, spread: torch.Tensor | None = None) -> SearchCurve:
        return self.operator.search_curve(x, direction, spread)

    def select(self, index: torch.Tensor) -> Operator:
        return Watched(self.operator.select(index), self.seen)

    def grid(self, image: Grid) -> Grid:
        return self.operator.grid(image)


@methods
def test_converged_images_leave_the_batch(method: str) -> None:
    operator = LowField(gamma=torch.tensor([0.6, 0.9, 0.6]), in_plane_factor=2.0)
    y, centre, spread = small_problem(operator, 3)
    # The first image is at its minimum.
    y[0] = operator(centre)[0]
    seen: list[int] = []
    found = data_step(DataTerm(y, Watched(operator, seen), NOISE), centre, spread, method=method, iterations=50)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 3 > seen[-1]
    assert torch.equal(found.x[0], centre[0])
    assert (found.outcome[1:] == Outcome.SATISFIED).all()

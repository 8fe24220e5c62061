import pytest
import torch

from dynamicdps.operators import LowField, add_noise
from dynamicdps.solvers import data_misfit, data_step
from dynamicdps.solvers.data_fidelity import inner

SHAPE = (2, 1, 24, 20)


def blobs(count: int = 2, height: int = 24, width: int = 20) -> torch.Tensor:
    rows = torch.linspace(-1, 1, height)[:, None]
    columns = torch.linspace(-1, 1, width)[None]
    base = ((rows**2 + columns**2) < 0.8).float()
    return torch.stack([base * (0.5 + 0.3 * torch.sin((3 + i) * rows) * columns) for i in range(count)])[:, None]


def test_linear_operator_against_the_closed_form() -> None:
    """For a linear A the data step is the ridge regression, solved here with the dense matrix."""
    operator = LowField(in_plane_factor=2.0, blur=0.7, noise_std=0.02)
    truth = blobs()
    y = add_noise(operator(truth), 0.02, [torch.Generator().manual_seed(i) for i in range(2)])
    centre, spread = truth + 0.1, torch.tensor([0.05, 0.2])
    found = data_step(operator, y, centre, spread, cg_iterations=200, cg_tolerance=1e-6)
    size = truth[0].numel()
    matrix = operator.resample(torch.eye(size).view(size, 1, *SHAPE[-2:])).flatten(1).T.double()
    for i in range(2):
        left = matrix.T @ matrix / 0.02**2 + torch.eye(size) / spread[i].double() ** 2
        right = matrix.T @ y[i].flatten().double() / 0.02**2 + centre[i].flatten().double() / spread[i].double() ** 2
        exact = torch.linalg.solve(left, right)
        torch.testing.assert_close(found.x[i].flatten().double(), exact, atol=2e-4, rtol=0)


@pytest.mark.parametrize("gamma", [0.4, 0.8, 1.6])
def test_gradient_vanishes_at_the_result(gamma: float) -> None:
    operator = LowField(gamma=gamma, in_plane_factor=2.0, blur=1.0, noise_std=0.01)
    truth = blobs() + 0.1
    y = operator(truth)
    centre, spread = truth * 1.2 + 0.05, torch.full((2,), 0.1)
    x = data_step(operator, y, centre, spread, iterations=12, cg_iterations=200, cg_tolerance=1e-6, tolerance=1e-7).x

    def gradient(x: torch.Tensor) -> torch.Tensor:
        linear = operator.linearise(x)
        return (x - centre) / 0.1**2 - linear.vjp(y - linear.value) / 0.01**2

    start, end = gradient(centre), gradient(x)
    assert (inner(end, end) < 1e-3 * inner(start, start)).all()


def test_wrong_contrast_is_mended() -> None:
    operator = LowField(gamma=0.4, in_plane_factor=2.0, noise_std=0.001)
    truth = blobs()
    y = operator(truth)
    step = data_step(operator, y, truth**0.5, torch.full((2,), 0.3))
    before, after = data_misfit(operator, y, truth**0.5), step.misfit
    assert (after < 0.05 * before).all()
    assert ((step.x - truth).square().mean() < 0.2 * (truth**0.5 - truth).square().mean()).item()


def test_result_does_not_depend_on_the_batch() -> None:
    operator = LowField(gamma=0.5, in_plane_factor=2.0, blur=1.0, noise_std=0.005)
    truth = blobs(4)
    y, centre = operator(truth), truth + 0.05 * torch.arange(4).view(-1, 1, 1, 1)
    spread = torch.tensor([0.02, 0.05, 0.1, 0.2])
    together = data_step(operator, y, centre, spread).x
    for i in range(4):
        alone = data_step(operator, y[i : i + 1], centre[i : i + 1], spread[i : i + 1]).x
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)


def test_data_step_on_volumes_with_thick_slices() -> None:
    operator = LowField(gamma=0.7, in_plane_factor=1.5, slice_thickness=3.0, noise_std=0.01)
    volume = blobs(7).movedim(0, 1)[None]
    y = operator(volume)
    step = data_step(operator, y, volume * 0.8 + 0.05, torch.full((1,), 0.2))
    assert step.x.shape == volume.shape
    assert step.misfit.item() < 1.0
    assert step.misfit < 0.1 * data_misfit(operator, y, volume * 0.8 + 0.05)

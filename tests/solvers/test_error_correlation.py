"""Errors of a prior that neighbouring slices share: their covariance, and what the data step makes of it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, data_step
from dynamicdps.data_term.error_correlation import ErrorCorrelation
from dynamicdps.operators import LowField, add_noise
from dynamicdps.priors import Domain, SlicePrior
from dynamicdps.solvers import DynamicDPSConfig, Reconstruction, solve_dynamicdps

DEPTH, HEIGHT, WIDTH = 12, 16, 12
NOISE = 0.02
OPERATOR = LowField(in_plane_factor=2.0, slice_thickness=4.0)
ALIKE = (1.0, 0.5, 0.2, 0.05)


def smoothing(x: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser that leaves a part of its noise in the image: the mean over 3 x 3 pixels."""
    del sigma
    return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


@pytest.fixture
def phantom() -> tuple[Tensor, Tensor]:
    """Two volumes that change along z little by little, and their measurements with thick slices."""
    z, y, x = (torch.linspace(0, 1, n) for n in (DEPTH, HEIGHT, WIDTH))
    one = 0.4 + 0.3 * torch.sin(3 * z[:, None, None] + 2 * y[:, None] + 4 * x)
    truth = torch.stack([one, one.flip(0)])[:, None]
    return truth, add_noise(OPERATOR(truth), NOISE, [torch.Generator().manual_seed(i) for i in range(2)])


def run(y: Tensor, initial: Tensor, operator: LowField = OPERATOR, alike: tuple[float, ...] = ALIKE, **settings: Any) -> Reconstruction:
    config = DynamicDPSConfig(**({"samples": 1, "steps": 3, "start_sigma": 0.2} | settings))
    prior = SlicePrior(smoothing, Domain(error_correlation=alike))
    return solve_dynamicdps([DataTerm(y, operator, NOISE)], prior, initial, generator=torch.Generator().manual_seed(0), config=config)


# A sequence that is no covariance by itself: neighbours much alike, all others opposed.
@pytest.mark.parametrize("alike", [(1.0,), ALIKE, (1.0, 0.9, -0.9)], ids=str)
def test_the_correlation_of_errors_is_a_covariance_with_its_factor_and_inverse(alike: tuple[float, ...]) -> None:
    errors = ErrorCorrelation.of_distances(12, alike)
    torch.testing.assert_close(errors.factor @ errors.factor.mT, errors.matrix, atol=1e-6, rtol=0)
    torch.testing.assert_close(errors.inverse_factor @ errors.factor, torch.eye(12), atol=1e-4, rtol=0)
    assert (errors.matrix.diagonal() - 1).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(errors.matrix).min() > 0
    v = torch.randn(2, 1, 12, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(errors.precision(errors.colour(v)), v, atol=1e-3, rtol=1e-3)


def test_what_is_a_covariance_stays_as_it_is() -> None:
    matrix = ErrorCorrelation.of_distances(12, ALIKE).matrix
    for apart, known in enumerate((*ALIKE, 0.0, 0.0)):
        torch.testing.assert_close(matrix.diagonal(apart), torch.full((12 - apart,), known), atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["gauss-newton", "l-bfgs"])
def test_the_data_step_is_the_gaussian_conditional_mean_for_correlated_errors(method: str) -> None:
    """One column of six slices of which thick ones are measured, against the formula with dense matrices."""
    operator = LowField(slice_thickness=3.0)
    errors = ErrorCorrelation.of_distances(6, ALIKE)
    centre = torch.linspace(0.2, 0.7, 6).view(1, 1, 6, 1, 1)
    y = operator(centre) + torch.tensor([0.1, -0.05]).view(1, 1, 2, 1, 1)
    rows = torch.stack([operator(e.view(1, 1, 6, 1, 1)).flatten() for e in torch.eye(6)], 1).double()
    prior = 0.1**2 * errors.matrix.double()
    gain = prior @ rows.mT @ torch.linalg.inv(rows @ prior @ rows.mT + 0.05**2 * torch.eye(2, dtype=torch.float64))
    expected = centre.flatten().double() + gain @ (y - operator(centre)).flatten().double()
    found = data_step(DataTerm(y, operator, 0.05), centre, torch.tensor([0.1]), method=method, iterations=60, tolerance=1e-9, errors=errors)
    torch.testing.assert_close(found.x.flatten().double(), expected, atol=2e-4, rtol=0)


def test_error_falls_where_errors_are_alike(phantom: tuple[Tensor, Tensor]) -> None:
    """What neighbours err in common the measurement shows, and the data step takes it out of all of them."""
    truth, y = phantom
    # The start is off by the same in all slices.
    initial = truth + 0.1 * torch.sin(torch.arange(WIDTH) / 2.0)
    settings: dict[str, Any] = {"steps": 1, "start_sigma": 0.05, "estimate": "deterministic"}
    known, unknown = ((run(y, initial, alike=a, **settings).image - truth).square().mean() for a in ((1.0, 0.9, 0.8, 0.7, 0.6), (1.0,)))
    assert known < unknown


def test_volume_alone_is_volume_in_a_batch(phantom: tuple[Tensor, Tensor]) -> None:
    truth, y = phantom
    whole = run(y, truth, samples=2)
    generator = torch.Generator().manual_seed(0)
    config = DynamicDPSConfig(samples=2, steps=3, start_sigma=0.2)
    prior = SlicePrior(smoothing, Domain(error_correlation=ALIKE))
    parts = [
        solve_dynamicdps([DataTerm(y[i : i + 1], OPERATOR, NOISE)], prior, truth[i : i + 1], generator=generator, config=config).image
        for i in range(2)
    ]
    torch.testing.assert_close(torch.cat(parts), whole.image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"estimate": "sample"}], ids=str)
def test_single_images_and_draws_are_left_alone(phantom: tuple[Tensor, Tensor], settings: dict[str, Any]) -> None:
    """Slices as a batch of images, a volume of one slice, slices measured one by one, and exact draws: nothing changes, bit by bit."""
    truth, y = phantom
    flat, thin = LowField(in_plane_factor=2.0), truth[:, :, :1]
    for operator, initial in ((flat, truth[0].movedim(0, 1)), (flat, thin), (OPERATOR, thin), (flat, truth)):
        measured = operator(initial)
        known, unknown = (run(measured, initial, operator, a, **settings).image for a in (ALIKE, (1.0,)))
        assert torch.equal(known, unknown)
    known, unknown = (run(y, truth, alike=a, estimate="sample").image for a in (ALIKE, (1.0,)))
    assert torch.equal(known, unknown)


def test_a_prior_says_how_its_errors_are_alike(phantom: tuple[Tensor, Tensor]) -> None:
    truth, y = phantom
    assert not torch.equal(run(y, truth).image, run(y, truth, alike=(1.0,)).image)

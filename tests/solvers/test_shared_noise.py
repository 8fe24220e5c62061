from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.evaluation import through_plane_roughness
from dynamicdps.operators import LowField, add_noise
from dynamicdps.solvers import DynamicDPSConfig, Reconstruction, make_config, sampler, solve_dynamicdps
from dynamicdps.solvers.data_fidelity import data_step
from dynamicdps.solvers.shared_noise import ErrorCorrelation, share_noise
from tests.properties import input_error

DEPTH, HEIGHT, WIDTH = 12, 16, 12
OPERATOR = LowField(in_plane_factor=2.0, slice_thickness=4.0, noise_std=0.02)


class Smoothing:
    """A denoiser that leaves a part of its noise in the image: the mean over 3 x 3 pixels."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        del sigma
        return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


@pytest.fixture
def phantom() -> tuple[Tensor, Tensor]:
    """Two volumes that change along z little by little, and their measurements with thick slices."""
    z, y, x = (torch.linspace(0, 1, n) for n in (DEPTH, HEIGHT, WIDTH))
    one = 0.4 + 0.3 * torch.sin(3 * z[:, None, None] + 2 * y[:, None] + 4 * x)
    truth = torch.stack([one, one.flip(0)])[:, None]
    return truth, add_noise(OPERATOR(truth), OPERATOR.noise_std, [torch.Generator().manual_seed(i) for i in range(2)])


def run(y: Tensor, initial: Tensor, operator: LowField = OPERATOR, seed: int = 0, **settings: Any) -> Reconstruction:
    config = DynamicDPSConfig(**({"samples": 1, "steps": 3, "start_sigma": 0.2} | settings))
    generator = torch.Generator().manual_seed(seed)
    return solve_dynamicdps(y, operator, Smoothing(), initial, generator=generator, config=config)


# The noise.


@pytest.mark.parametrize("correlation", [0.0, 0.6, 1.0])
def test_each_slice_is_standard_normal_and_neighbours_correlate(correlation: float) -> None:
    found = share_noise(torch.randn(4, 1, 6, 100, 100, generator=torch.Generator().manual_seed(0)), correlation)[:, 0]
    # 40000 numbers a slice: four standard errors.
    assert found.mean((0, 2, 3)).abs().max() < 4 / 200
    assert (found.std((0, 2, 3)) - 1).abs().max() < 4 / (200 * 2**0.5)
    assert (found[..., 1:] * found[..., :-1]).mean((0, 2, 3)).abs().max() < 4 / 200
    for apart in (1, 2, 5):
        product = (found[:, apart:] * found[:, :-apart]).mean((0, 2, 3))
        torch.testing.assert_close(product, torch.full_like(product, correlation**apart), atol=4 * 2**0.5 / 200, rtol=0)


def test_whole_correlation_is_one_noise_and_none_is_untouched() -> None:
    noise = torch.randn(2, 1, 4, 5, 6)
    assert share_noise(noise, 0.0) is noise
    assert torch.equal(share_noise(noise, 1.0), noise[:, :, :1].expand_as(noise))
    assert torch.equal(share_noise(noise[:, :, :1], 0.7), noise[:, :, :1])
    assert share_noise(noise[:, :, 0], 1.0).shape == (2, 1, 5, 6)
    assert torch.equal(share_noise(noise[:, :, 0], 1.0), noise[:, :, 0])


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_the_correlation_of_errors_is_a_covariance_with_its_factor_and_inverse(correlation: float) -> None:
    errors = ErrorCorrelation.between_slices(12, correlation)
    one = torch.eye(12)
    torch.testing.assert_close(errors.factor @ errors.factor.mT, errors.matrix, atol=1e-6, rtol=0)
    torch.testing.assert_close(errors.inverse_factor @ errors.factor, one, atol=1e-5, rtol=0)
    assert (errors.matrix.diagonal() - 1).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(errors.matrix).min() > 0
    # Nothing shared is nothing alike; one noise for all leaves a part that does not fall with the distance.
    expected = {0.0: 0.0, 0.5: 0.0, 1.0: 0.45}[correlation]
    assert float(errors.matrix[0, -1]) == pytest.approx(expected, abs=0.01)
    v = torch.randn(2, 1, 12, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(errors.precision(errors.colour(v)), v, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["gauss-newton", "l-bfgs"])
def test_the_data_step_is_the_gaussian_conditional_mean_for_correlated_errors(method: str) -> None:
    """One column of six slices of which thick ones are measured, against the formula with dense matrices."""
    operator = LowField(slice_thickness=3.0, noise_std=0.05)
    errors = ErrorCorrelation.between_slices(6, 1.0)
    centre = torch.linspace(0.2, 0.7, 6).view(1, 1, 6, 1, 1)
    y = operator(centre) + torch.tensor([0.1, -0.05]).view(1, 1, 2, 1, 1)
    rows = torch.stack([operator(e.view(1, 1, 6, 1, 1)).flatten() for e in torch.eye(6)], 1).double()
    prior = 0.1**2 * errors.matrix.double()
    gain = prior @ rows.mT @ torch.linalg.inv(rows @ prior @ rows.mT + 0.05**2 * torch.eye(2, dtype=torch.float64))
    expected = centre.flatten().double() + gain @ (y - operator(centre)).flatten().double()
    found = data_step(operator, y, centre, torch.tensor([0.1]), method=method, iterations=60, tolerance=1e-9, errors=errors)
    torch.testing.assert_close(found.x.flatten().double(), expected, atol=2e-4, rtol=0)


# The solver.


def test_roughness_falls_with_the_correlation(phantom: tuple[Tensor, Tensor]) -> None:
    truth, y = phantom
    brain = torch.ones(truth.shape, dtype=torch.bool)
    rough = [float(through_plane_roughness(run(y, truth, through_plane=c).image, truth, brain).mean()) for c in (0.0, 0.9, 1.0)]
    assert rough[0] > 1.3
    assert rough[0] > rough[1] > rough[2]
    assert 0.9 < rough[2] < 1.1


def test_error_does_not_rise(phantom: tuple[Tensor, Tensor]) -> None:
    """What neighbours err in common the measurement shows, and the data step takes it out."""
    truth, y = phantom
    own, shared = ((run(y, truth, through_plane=c).image - truth).square().mean() for c in (0.0, 1.0))
    assert shared < 0.9 * own


@pytest.mark.parametrize("noise", ["renewed", "ancestral"])
@pytest.mark.parametrize("gradient", ["image", "network"])
def test_slices_that_are_alike_stay_alike(gradient: str, noise: str) -> None:
    """All slices equal, in the truth as in the initial image, and measured one by one: with one noise all results are equal."""
    operator = LowField(in_plane_factor=2.0, noise_std=0.02)
    truth = torch.rand(1, 1, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)).expand(1, 1, 5, HEIGHT, WIDTH)
    y = operator(truth)
    settings: dict[str, Any] = {"gradient": gradient, "noise": noise, "eta": 0.5}
    shared, own = (run(y, truth, operator, through_plane=c, **settings).image for c in (1.0, 0.0))
    torch.testing.assert_close(shared, shared[:, :, :1].expand_as(shared), atol=1e-5, rtol=0)
    assert (own - own[:, :, :1]).abs().max() > 1e-3


@pytest.mark.parametrize("correlation", [0.5, 1.0])
def test_volume_alone_is_volume_in_a_batch(phantom: tuple[Tensor, Tensor], correlation: float) -> None:
    truth, y = phantom
    whole = run(y, truth, through_plane=correlation, samples=2)
    assert len(whole.trace) == 3
    generator = torch.Generator().manual_seed(0)
    config = DynamicDPSConfig(samples=2, steps=3, start_sigma=0.2, through_plane=correlation)
    parts = [
        solve_dynamicdps(y[i : i + 1], OPERATOR, Smoothing(), truth[i : i + 1], generator=generator, config=config).image for i in range(2)
    ]
    torch.testing.assert_close(torch.cat(parts), whole.image, atol=1e-5, rtol=0)


def test_off_draws_what_was_drawn_before(phantom: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the sharing in the code at all the result is the same, bit by bit."""
    truth, y = phantom
    off = run(y, truth, through_plane=0.0, samples=2).image
    monkeypatch.setattr(sampler, "share_noise", lambda noise, _: noise)
    assert torch.equal(off, run(y, truth, through_plane=0.0, samples=2).image)
    assert not torch.equal(off, run(y, truth, samples=2).image)


@pytest.mark.parametrize("settings", [{}, {"estimate": "sample"}], ids=str)
def test_single_images_and_draws_are_left_alone(phantom: tuple[Tensor, Tensor], settings: dict[str, Any]) -> None:
    """Slices as a batch of images, a volume of one slice, and exact draws: the correlation changes nothing, bit by bit."""
    truth, y = phantom
    flat, thin = LowField(in_plane_factor=2.0, noise_std=0.02), truth[:, :, :1]
    for operator, initial in ((flat, truth[0].movedim(0, 1)), (flat, thin), (OPERATOR, thin)):
        measured = operator(initial)
        one, none = (run(measured, initial, operator, through_plane=c, **settings).image for c in (1.0, 0.0))
        assert torch.equal(one, none)
    one, none = (run(y, truth, estimate="sample", through_plane=c).image for c in (1.0, 0.0))
    assert torch.equal(one, none)


def test_reached_by_name_and_checked() -> None:
    assert make_config("dynamicdps", {"through_plane": "0"}).through_plane == 0
    for wrong in (-0.1, 1.1, "nan"):
        with input_error("through_plane"):
            make_config("dynamicdps", {"through_plane": wrong})

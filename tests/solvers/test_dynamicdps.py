from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import LowField, Operator, add_noise
from dynamicdps.solvers import DynamicDPSConfig, StartLevelRule, make_config, solve_dynamicdps, solve_tensors
from dynamicdps.solvers.reconstruction import with_warnings
from dynamicdps.volumes.grids import Grid
from tests.properties import input_error

MEAN, STD, NOISE = 0.5, 0.2, 0.05
HEIGHT, WIDTH = 16, 12


class GaussianDenoiser:
    """The exact posterior mean for images with independent normal pixels."""

    errors = {s: s * STD / (s**2 + STD**2) ** 0.5 for s in torch.logspace(-3, 1, 60).tolist()}  # noqa: RUF012

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.view(-1, 1, 1, 1)
        return MEAN + STD**2 / (STD**2 + s**2) * (x - MEAN)


@pytest.fixture
def problem() -> tuple[LowField, Tensor, Tensor]:
    operator = LowField(in_plane_factor=2.0)
    generator = torch.Generator().manual_seed(3)
    truth = MEAN + STD * torch.randn(8, 1, HEIGHT, WIDTH, generator=generator)
    y = add_noise(operator(truth), NOISE, [torch.Generator().manual_seed(i) for i in range(8)])
    return operator, truth, y


def posterior_mean(operator: LowField, y: Tensor) -> Tensor:
    size = HEIGHT * WIDTH
    matrix = operator.linear(torch.eye(size).view(size, 1, HEIGHT, WIDTH)).flatten(1).T
    left = matrix.T @ matrix / NOISE**2 + torch.eye(size) / STD**2
    right = (y.flatten(1) @ matrix) / NOISE**2 + MEAN / STD**2
    return torch.linalg.solve(left, right.T).T.view(-1, 1, HEIGHT, WIDTH)


def run(problem: tuple[LowField, Tensor, Tensor], initial: Tensor, seed: int = 0, noise_std: float = NOISE, **settings: object) -> Tensor:
    operator, _, y = problem
    config = DynamicDPSConfig(**settings)  # type: ignore[arg-type]
    return solve_dynamicdps(
        [DataTerm(y, operator, noise_std)], GaussianDenoiser(), initial, generator=torch.Generator().manual_seed(seed), config=config
    ).image


def test_mean_of_samples_is_the_posterior_mean(problem: tuple[LowField, Tensor, Tensor]) -> None:
    """From a high start the initial image is forgotten and the mean tends to the closed form."""
    operator, truth, y = problem
    exact = posterior_mean(operator, y)
    many = operator, truth.repeat(64, 1, 1, 1), y.repeat(64, 1, 1, 1)
    found = run(many, torch.full_like(many[1], 0.2), samples=1, steps=12, start_sigma=3.0).unflatten(0, (64, 8)).mean(0)
    error = (found - exact).square().mean().sqrt()
    assert error < 0.15 * (exact - MEAN).square().mean().sqrt()
    assert error < 0.05


@pytest.mark.parametrize("gradient", ["image", "network"])
@pytest.mark.parametrize("size", [1, 3])
def test_same_result_for_any_batch_size(problem: tuple[LowField, Tensor, Tensor], gradient: str, size: int) -> None:
    operator, truth, y = problem
    config = DynamicDPSConfig(samples=2, steps=3, start_sigma=0.2, gradient=gradient)
    whole = solve_dynamicdps(
        [DataTerm(y, operator, NOISE)], GaussianDenoiser(), truth, generator=torch.Generator().manual_seed(5), config=config
    )
    generator = torch.Generator().manual_seed(5)
    parts = [
        solve_dynamicdps(
            [DataTerm(y[i : i + size], operator, NOISE)], GaussianDenoiser(), truth[i : i + size], generator=generator, config=config
        )
        for i in range(0, 8, size)
    ]
    torch.testing.assert_close(torch.cat([p.image for p in parts]), whole.image, atol=2e-5, rtol=0)
    assert torch.equal(torch.cat([p.nfe for p in parts]), whole.nfe)


def test_first_samples_stay_when_more_are_drawn(problem: tuple[LowField, Tensor, Tensor]) -> None:
    _operator, truth, _y = problem
    one, three = (run(problem, truth, samples=n, steps=2, start_sigma=0.3) for n in (1, 3))
    assert not torch.equal(one, three)
    torch.testing.assert_close(one, run(problem, truth, samples=1, steps=2, start_sigma=0.3))


@pytest.mark.parametrize("gradient", ["image", "network"])
def test_data_misfit_falls_and_costs_are_counted(problem: tuple[LowField, Tensor, Tensor], gradient: str) -> None:
    operator, truth, y = problem
    config = DynamicDPSConfig(samples=2, steps=4, start_sigma=0.3, gradient=gradient)
    calls, differentiated = 0, 0

    class Counting(GaussianDenoiser):
        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls, differentiated
            calls += len(x)
            differentiated += len(x) * x.requires_grad
            return super().__call__(x, sigma)

    initial = torch.full_like(truth, 0.9)
    found = solve_dynamicdps([DataTerm(y, operator, NOISE)], Counting(), initial, generator=torch.Generator(), config=config)
    before = ((y - operator(initial)) / NOISE).square().mean().sqrt()
    assert (found.misfit < 0.5 * before).all()
    assert int(found.nfe.sum()) == calls
    assert len(found.trace) == 4
    assert found.uncertainty is not None
    assert found.uncertainty.shape == truth.shape
    assert int(found.nbackward.sum()) == differentiated
    assert (differentiated > 0) == (gradient == "network")


def test_without_noise_the_seed_decides_nothing(problem: tuple[LowField, Tensor, Tensor]) -> None:
    """And one sample is enough: more would be the same."""
    operator, truth, y = problem
    config = DynamicDPSConfig(estimate="deterministic", samples=4, steps=3, start_sigma=0.3)
    found = [
        solve_dynamicdps(
            [DataTerm(y, operator, NOISE)], GaussianDenoiser(), truth, generator=torch.Generator().manual_seed(seed), config=config
        )
        for seed in (0, 1)
    ]
    assert torch.equal(found[0].image, found[1].image)
    assert (found[0].nfe == 3).all()
    assert not torch.equal(found[0].image, run(problem, truth, samples=1, steps=3, start_sigma=0.3))


def test_blending_keeps_the_initial_image_for_longer(problem: tuple[LowField, Tensor, Tensor]) -> None:
    """Where the data say next to nothing, the prior alone forgets an image far from its mean."""
    _, truth, _ = problem
    initial = torch.full_like(truth, 0.9)
    plain, blended = (
        float(run(problem, initial, noise_std=1.0, blend=b, samples=1, steps=6, start_sigma=0.5).mean()) for b in (False, True)
    )
    assert MEAN < plain < blended - 0.02
    assert blended < 0.9


def test_the_last_step_through_the_network_is_taken(problem: tuple[LowField, Tensor, Tensor]) -> None:
    """The image that is returned has the misfit that the last search found."""
    operator, truth, y = problem
    config = DynamicDPSConfig(samples=1, steps=3, start_sigma=0.3, gradient="network")
    found = solve_dynamicdps(
        [DataTerm(y, operator, NOISE)], GaussianDenoiser(), truth, generator=torch.Generator().manual_seed(0), config=config
    )
    torch.testing.assert_close(found.misfit.double(), found.trace[-1].misfit.double(), rtol=1e-3, atol=1e-6)
    assert (found.misfit < 1e-3).all()


def test_start_level_is_chosen_per_image() -> None:
    operator = LowField(in_plane_factor=2.0)
    truth = torch.full((3, 1, HEIGHT, WIDTH), 0.5)
    initial = truth + torch.tensor([0.0, 0.05, 5.0]).view(-1, 1, 1, 1)
    rule = StartLevelRule((0.01, 0.1), (0.02, 0.2))
    config = DynamicDPSConfig(samples=1, steps=2, start_rule=rule)
    found = solve_dynamicdps(
        [DataTerm(operator(truth), operator, 0.01)], GaussianDenoiser(), initial, generator=torch.Generator(), config=config
    )
    expected = 0.02 * 10 ** (torch.tensor(0.05**2 - 0.01**2).sqrt().div(0.01).log10())
    torch.testing.assert_close(found.start_sigma, torch.tensor([0.02, float(expected), 0.2]))
    assert found.outside_calibration is not None
    assert found.outside_calibration.tolist() == [False, False, True]
    (warning,) = with_warnings(found).warnings
    assert warning.startswith("1 of 3 images")


def test_known_solvers_and_their_ablation() -> None:
    operator = LowField(gamma=0.5, in_plane_factor=2.0)
    truth = torch.rand(2, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    y = operator(truth)
    initial = truth.sqrt()
    results = {
        name: solve_tensors(name, [DataTerm(y, operator, 0.01)], GaussianDenoiser(), initial, generator=torch.Generator())
        for name in ("conditional", "data-step")
    }
    assert torch.equal(results["conditional"].image, initial)
    assert (results["data-step"].misfit < 0.2 * results["conditional"].misfit).all()
    assert (results["data-step"].nfe == 0).all()


@pytest.mark.parametrize("gradient", ["image", "network"])
def test_operator_with_nothing_but_a_forward_model(gradient: str) -> None:
    """Jacobian products come from automatic differentiation."""

    class Squared(Operator):
        def forward(self, x: Tensor) -> Tensor:
            return x.square()[..., ::2]

        def grid(self, image: Grid) -> Grid:
            x, y, z = image.shape
            return Grid((x // 2, y, z), image.affine)

    truth = 0.3 + 0.4 * torch.rand(2, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    operator = Squared()
    config = DynamicDPSConfig(samples=1, steps=3, start_sigma=0.2, gradient=gradient)
    initial = torch.full_like(truth, 0.8)
    y = operator(truth)
    found = solve_dynamicdps([DataTerm(y, operator, 0.02)], GaussianDenoiser(), initial, generator=torch.Generator(), config=config)
    assert (found.misfit < 0.3 * ((y - operator(initial)) / 0.02).square().mean().sqrt()).all()


def test_kept_samples_are_those_of_the_mean_and_the_spread(generator: torch.Generator) -> None:
    """Whatever the batches: of slices solved two at a time as of all at once."""
    truth = torch.rand(3, 1, 16, 12, generator=generator)
    operator = LowField(in_plane_factor=2.0)
    y = operator(truth)
    config = DynamicDPSConfig(samples=4, steps=2, start_sigma=0.2, keep_samples=True, estimate="sample")
    found = solve_dynamicdps(
        [DataTerm(y, operator, 0.05)], lambda x, sigma: x, truth, generator=torch.Generator().manual_seed(0), config=config
    )
    assert found.samples is not None
    assert found.samples.shape == (3, 4, 1, 16, 12)
    torch.testing.assert_close(found.samples.mean(1), found.image)
    middle, half = ((found.samples[:, 0::2] + sign * found.samples[:, 1::2]) / 2 for sign in (1, -1))
    torch.testing.assert_close((half.square().mean(1) + middle.var(1)).sqrt(), found.uncertainty)
    without = replace(config, keep_samples=False)
    assert solve_dynamicdps([DataTerm(y, operator, 0.05)], lambda x, sigma: x, truth, generator=generator, config=without).samples is None


@pytest.mark.parametrize("value", [10**400, float("inf"), "1e999", float("nan"), "many", 2.5])
@pytest.mark.parametrize("name", ["samples", "eta"])
def test_settings_that_are_no_such_number(name: str, value: Any) -> None:
    if (name, value) == ("eta", 2.5):
        value = -1.0
    with input_error(name):
        make_config("dynamicdps", {name: value})


def test_the_last_step_does_not_blend(problem: tuple[LowField, Tensor, Tensor]) -> None:
    """The initial image's share ends at 0: of a single step it has none."""
    initial = torch.full_like(problem[1], 0.9)
    plain, blended = (run(problem, initial, blend=blend, samples=1, steps=1, start_sigma=0.5) for blend in (False, True))
    assert torch.equal(plain, blended)

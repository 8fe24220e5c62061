"""The paper's own configuration: what it does beside what all solvers do."""

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.data_term.line_search import Outcome
from dynamicdps.operators import Identity, Inpainting, LowField
from dynamicdps.solvers import dynamicdps_paper as module
from dynamicdps.solvers import solve_tensors
from dynamicdps.solvers.composite_loss import composite_loss
from dynamicdps.solvers.dynamicdps_paper import PaperConfig
from dynamicdps.solvers.samplers import Run
from dynamicdps.solvers.start_level import BankRule
from tests.solvers.known_posteriors import CorrelatedGaussian

NOISE = 0.01
OPERATOR = LowField(in_plane_factor=2.0)


class Flat:
    """The worst of denoisers: one grey for every image."""

    errors: tuple[tuple[float, float], ...] = ()

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 + 0 * x


def test_voxels_that_are_not_measured_do_not_lower_the_start_level() -> None:
    """The same residual on half of the voxels starts where it starts on all of them."""
    mask = torch.zeros(16, 12)
    mask[::2] = 1
    initial = torch.rand(1, 1, 16, 12, generator=torch.Generator().manual_seed(0))
    bank = BankRule(tuple(1.0 + 0.5 * k for k in range(20)), tau=0.4)
    config = PaperConfig(bank=bank, search_every=1000)
    starts = []
    for operator in (Identity(), Inpainting(mask)):
        y = operator(initial) + operator(torch.full_like(initial, 0.004))
        found = solve_tensors(
            "dynamicdps-paper", [DataTerm(y, operator, NOISE)], Flat(), initial, generator=torch.Generator().manual_seed(0), config=config
        )
        starts.append(float(found.start_sigma))
    assert starts[0] == starts[1]
    residual = torch.full_like(initial, 0.004)
    assert bank.steps(residual) != bank.steps(residual * 0.5**0.5)


def test_blending_begins_with_the_initial_image() -> None:
    """At the first step its share is 1. One that explains the measurement is therefore among the estimates, and the best is returned."""
    generator = torch.Generator().manual_seed(0)
    initial = torch.rand(2, 1, 16, 12, generator=generator)
    y = OPERATOR(initial) + 1e-3 * torch.randn(2, 1, 8, 6, generator=generator)
    blended, plain = (
        solve_tensors(
            "dynamicdps-paper",
            [DataTerm(y, OPERATOR, NOISE)],
            Flat(),
            initial,
            generator=generator,
            config=PaperConfig(start_sigma=0.02, blend=blend),
        ).image
        for blend in (True, False)
    )
    assert torch.equal(blended, initial)
    assert (plain == 0.5).all()


def test_the_initial_image_s_share_falls_with_the_steps() -> None:
    """From 0.9 towards the prior's 0.5: the estimate that explains a grey of 0.6 is a quarter initial image."""
    initial = torch.full((1, 1, 16, 12), 0.9)
    y = OPERATOR(torch.full_like(initial, 0.6))
    config = PaperConfig(start_sigma=0.02, blend=True)
    found = solve_tensors(
        "dynamicdps-paper", [DataTerm(y, OPERATOR, NOISE)], Flat(), initial, generator=torch.Generator().manual_seed(0), config=config
    )
    torch.testing.assert_close(found.image, torch.full_like(initial, 0.6), rtol=0, atol=0.4 / len(found.trace))


def test_every_step_starts_at_its_own_noise_level() -> None:
    """The ancestral step keeps what lies between the image and the estimate as noisy as the next level says."""
    seen: list[tuple[float, float]] = []

    class Watched(Flat):
        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            seen.append((float(sigma[0]), float((x.detach() - 0.5).square().mean().sqrt())))
            return super().__call__(x, sigma)

    initial = torch.full((1, 1, 96, 96), 0.5)
    config = PaperConfig(start_sigma=0.1, search_every=1000)
    solve_tensors(
        "dynamicdps-paper",
        [DataTerm(OPERATOR(initial), OPERATOR, NOISE)],
        Watched(),
        initial,
        generator=torch.Generator().manual_seed(0),
        config=config,
    )
    levels = torch.tensor([sigma for sigma, _ in seen])
    assert len(levels.unique()) > 10
    torch.testing.assert_close(torch.tensor([rms for _, rms in seen]), levels, rtol=0.04, atol=0)


@pytest.mark.parametrize("blend", [False, True])
def test_gradient_and_search_are_of_the_loss_that_is_searched(blend: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the initial image blended in too: by automatic differentiation, and at the accepted steps."""
    prior, operator = CorrelatedGaussian(12, 10), LowField(in_plane_factor=2.0)
    generator = torch.Generator().manual_seed(0)
    truth = 0.5 + 0.2 * torch.randn(2, 1, 12, 10, generator=generator, dtype=torch.float64)
    y = operator(truth)
    initial = truth + 0.3 * torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    searches = 0

    def loss(x: Tensor, sigma: Tensor, share: Tensor, start: Tensor) -> Tensor:
        wide = share.view(-1, 1, 1, 1)
        return composite_loss(DataTerm(y[: len(x)], operator, 0.05), (1 - wide) * prior(x, sigma) + wide * start)[0]

    def checked(
        run: Run, x: Tensor, direction: Tensor, gradient: Tensor, value: Tensor, sigma: Tensor, part: DataTerm, *rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        nonlocal searches
        _, start, share = rest
        assert bool((share > 0).all()) == blend
        variable = x.clone().requires_grad_()
        with torch.enable_grad():
            wide = share.view(-1, 1, 1, 1)
            image = (1 - wide) * prior(variable, sigma) + wide * start
        own, slope_of = composite_loss(part, image.detach())
        torch.testing.assert_close(own, value)
        (wanted,) = torch.autograd.grad(image, variable, slope_of)
        torch.testing.assert_close(gradient, wanted)
        length, outcome = search(run, x, direction, gradient, value, sigma, part, *rest)
        slope = -(gradient * direction).flatten(1).sum(1)
        reached = loss(x - length.view(-1, 1, 1, 1) * direction, sigma, share, start)
        satisfied = outcome == int(Outcome.SATISFIED)
        searches += int(satisfied.sum())
        assert (reached <= value + module.C1 * length * slope + 1e-9)[satisfied].all()
        return length, outcome

    search = module._search
    monkeypatch.setattr(module, "_search", checked)
    config = PaperConfig(samples=1, start_sigma=0.05, blend=blend, search_every=1)
    solve_tensors(
        "dynamicdps-paper", [DataTerm(y, operator, 0.05)], prior, initial, generator=torch.Generator().manual_seed(1), config=config
    )
    assert searches > 0

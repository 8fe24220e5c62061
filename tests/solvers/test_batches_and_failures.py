"""Warnings, memory and failures of whole runs: what must not depend on how a scan is cut into batches, and what must be said."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import AffineResample, Inpainting, LowField, ScanOperator, simulate
from dynamicdps.priors import as_prior
from dynamicdps.report.trace import start_rows
from dynamicdps.solvers import DynamicDPSConfig, StartLevelRule, make_config, solve, solve_tensors
from dynamicdps.solvers.dynamicdps import choose_start
from dynamicdps.solvers.samplers import Run
from dynamicdps.volumes import Volume
from tests.conftest import make_phantom
from tests.properties import input_error
from tests.solvers.known_posteriors import CorrelatedGaussian

PRIOR = CorrelatedGaussian(12, 10)
NOISE = 0.05
FLAT = LowField(in_plane_factor=2.0)


class Smooth:
    """A denoiser of images of any size."""

    data_mean = 0.4
    errors = {0.01: 0.008, 0.1: 0.04, 1.0: 0.12}  # noqa: RUF012

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = sigma.to(x).view(-1, 1, 1, 1)
        return (x + s * torch.nn.functional.avg_pool2d(x, 3, 1, 1)) / (1 + s)


def noisy(operator: LowField, truth: Tensor) -> Tensor:
    y = operator(truth)
    return y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)


@pytest.fixture
def truth(generator: torch.Generator) -> Tensor:
    return torch.rand(4, 1, 12, 10, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_warnings_count_the_images_of_the_scan(batch_size: int) -> None:
    head = make_phantom((24, 28, 6))
    scan, operator = simulate(head, ScanOperator(LowField(), 0.02), seed=1)
    wrong = head.data.copy()
    wrong[..., 2:5] = 0.9 * (wrong[..., 2:5] == 0)
    rule = StartLevelRule((0.01, 0.1), (0.02, 0.05))
    config = DynamicDPSConfig(samples=1, steps=2, start_rule=rule)
    result = solve("dynamicdps", scan, operator, Smooth(), initial=head.with_data(wrong), config=config, batch_size=batch_size)
    (warning,) = result.reconstruction.warnings
    assert warning.startswith("3 of 6 images explain the measurement worse than any calibration image")
    assert warning.endswith("0.05")


class Broken(Smooth):
    """Nothing but NaN for the second image."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        out = super().__call__(x, sigma)
        out[1] = torch.nan
        return out


@pytest.mark.parametrize("solver", ["dynamicdps", "dps", "diffpir"])
def test_a_diverged_image_is_said(solver: str, truth: Tensor) -> None:
    config = make_config(solver, {"samples": 1, "steps": 2})
    y = noisy(FLAT, truth)
    found = solve_tensors(solver, [DataTerm(y, FLAT, NOISE)], Broken(), truth, generator=torch.Generator().manual_seed(0), config=config)
    assert found.stopped == "diverged"
    assert found.warnings[0] == "1 of 4 images diverged: they have values that are not finite"
    fine = solve_tensors(solver, [DataTerm(y, FLAT, NOISE)], Smooth(), truth, generator=torch.Generator().manual_seed(0), config=config)
    assert fine.stopped == "all steps done"
    assert not any("diverged" in warning for warning in fine.warnings)


@pytest.mark.parametrize("shape", [(5, 1, 12, 10), (2, 1, 3, 12, 10)])
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_a_gradient_in_chunks_is_the_gradient(shape: tuple[int, ...], chunk: int, generator: torch.Generator) -> None:
    x, w = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    sigma = torch.linspace(0.05, 0.6, len(x), dtype=torch.float64)

    def run(chunk: int) -> Run:
        counts = (torch.zeros(len(x), dtype=torch.long) for _ in range(2))
        return Run(x, sigma[None], [], as_prior(PRIOR), chunk, lambda i: None, *counts)

    whole, parts = run(100), run(chunk)
    (image, pull), (again, pull_again) = whole.denoise_with_pullback(x, sigma), parts.denoise_with_pullback(x, sigma)
    torch.testing.assert_close(again, image)
    torch.testing.assert_close(pull_again(w), pull(w))
    torch.testing.assert_close(as_prior(PRIOR).pullback(x, sigma, w, 2), pull_of(x, sigma, w))
    assert torch.equal(whole.nfe, parts.nfe)
    assert torch.equal(whole.nbackward, parts.nbackward)
    assert parts.nfe.tolist() == [1] * len(x)


def pull_of(x: Tensor, sigma: Tensor, w: Tensor) -> Tensor:
    variable = x.clone().requires_grad_()
    volume = variable if x.ndim == 5 else variable[:, :, None]
    slices = [PRIOR(volume[:, :, z], sigma) for z in range(volume.shape[2])]
    (found,) = torch.autograd.grad(torch.stack(slices, 2), variable, w.reshape(volume.shape))
    return found


@pytest.mark.parametrize("settings", [{"blend": True}, {"discrepancy": 1.0}, {"data_iterations": 2}])
def test_what_the_network_s_gradient_has_no_part_of_is_refused(settings: dict[str, Any]) -> None:
    DynamicDPSConfig(**settings)
    with pytest.raises(ValueError, match=next(iter(settings))):
        DynamicDPSConfig(gradient="network", **settings)


@pytest.mark.parametrize("gradient", ["image", "network"])
def test_misfits_of_the_trace_count_what_is_measured(gradient: str, truth: Tensor) -> None:
    mask = torch.zeros(12, 10)
    mask[:, ::2] = 1
    operator = Inpainting(mask)
    y = mask * (truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    config = DynamicDPSConfig(samples=1, steps=3, start_sigma=0.2, gradient=gradient, estimate="deterministic")
    found = solve_tensors(
        "dynamicdps", [DataTerm(y, operator, 0.05)], PRIOR, truth, generator=torch.Generator().manual_seed(0), config=config
    )
    # The last image's misfit is near that of the last step; without the share it would be less than three quarters of it.
    torch.testing.assert_close(found.trace[-1].misfit.double(), found.misfit.double(), rtol=0.2, atol=0)


@pytest.mark.parametrize("goal", [1.0, 1.5])
def test_discrepancy_ends_the_last_data_step_too(goal: float) -> None:
    """A posterior that explains the data better than asked for is not driven further."""
    values, vectors = PRIOR.spectrum
    images = (torch.randn(4, 120, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * values.sqrt()) @ vectors.T + 0.5
    truth = images.view(4, 1, 12, 10)
    y = noisy(FLAT, truth)
    options = {"samples": 2, "start_sigma": 0.1}
    free, stopped = (
        solve_tensors(
            "dynamicdps",
            [DataTerm(y, FLAT, NOISE)],
            PRIOR,
            truth + 0.1,
            generator=torch.Generator().manual_seed(0),
            config=DynamicDPSConfig(**options, discrepancy=d),  # type: ignore[arg-type]
        )
        for d in (0.0, goal)
    )
    assert (stopped.misfit >= free.misfit - 1e-9).all()
    assert stopped.misfit.mean() > free.misfit.mean() + 0.02
    assert (stopped.misfit < goal + 0.15).all()


def test_an_affine_grid_of_several_slices_is_a_volume() -> None:
    matrix = torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0]))
    operator = AffineResample(matrix, (8, 8, 5))
    assert operator.couples_slices
    assert not AffineResample(matrix, (8, 8, 1)).couples_slices
    data = np.random.default_rng(0).random((15, 15, 5)).astype(np.float32)
    image = Volume(data, np.eye(4))
    scan = Volume(data[::2, ::2], np.diag([2.0, 2.0, 1.0, 1.0]))
    tied = ScanOperator(operator, 0.05, image.shape, image.affine, 1.0)
    result = solve("dynamicdps", scan, tied, Smooth(), initial=image, config=DynamicDPSConfig(samples=1, steps=2))
    assert result.volume.shape == image.shape


def test_exact_zeros_around_a_brain_do_not_lower_its_start() -> None:
    """As a mask leaves them: with weights the start is that of the brain alone, whatever the field of view."""
    operator = LowField()
    generator = torch.Generator().manual_seed(4)
    inside = torch.zeros(1, 1, 40, 40)
    inside[..., 8:32, 10:30] = 1
    truth = 0.6 * inside
    y = inside * (truth + 0.03 * torch.randn(truth.shape, generator=generator))
    wrong = truth + 0.04 * inside * torch.randn(truth.shape, generator=generator)

    def start(pad: int, weighted: bool) -> float:
        wide = [torch.nn.functional.pad(u, [pad] * 4) for u in (y, wrong, inside)]
        term = DataTerm(wide[0], operator, 0.03, weights=wide[2][0, 0] if weighted else None)
        return float(choose_start([term], wide[1], DynamicDPSConfig(), as_prior(PRIOR))[0])

    everywhere = float(
        choose_start(
            [DataTerm(truth[..., 8:32, 10:30] + (y - truth)[..., 8:32, 10:30], operator, 0.03)],
            wrong[..., 8:32, 10:30],
            DynamicDPSConfig(),
            as_prior(PRIOR),
        )[0]
    )
    assert start(0, True) == pytest.approx(everywhere, rel=1e-3)
    assert start(20, True) == pytest.approx(everywhere, rel=1e-3)
    assert start(20, False) < 0.7 * everywhere


@pytest.mark.parametrize("depth", [1, 3])
def test_starts_of_a_head_s_slices(depth: int) -> None:
    """A head is one volume, whose start is over the voxels of its mask; one slice alone too."""
    head = make_phantom((24, 28, 9))
    slab = Volume(head.data[..., 4 : 4 + depth], head.affine)
    scan, operator = simulate(slab, ScanOperator(LowField(), 0.02), seed=1)
    inside = (slab.data > 0.05).astype(np.float32)
    scan, weighted = scan.with_data(scan.data * inside), operator.weighted(inside)
    result = solve("dynamicdps", scan, weighted, Smooth(), initial=slab, config=DynamicDPSConfig(samples=1, steps=2))
    rows = start_rows(result, [(scan, weighted)])
    assert [row["image"] for row in rows] == [0]
    # The truth leaves noise alone.
    assert max(float(row["excess_misfit"]) for row in rows) < 0.01


def test_settings_refused_by_name() -> None:
    with input_error("blend is True with gradient 'network'"):
        make_config("dynamicdps", {"gradient": "network", "blend": "true"})

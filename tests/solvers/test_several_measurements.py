"""Several measurements of one image: known posteriors, and scans on grids of their own."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dynamicdps.data_term import DataTerm, data_step, join
from dynamicdps.operators import LowField, Noise, ScanOperator, SwapSliceAxis
from dynamicdps.operators.posed_voxels import posed
from dynamicdps.solvers import DynamicDPSConfig, available, make_config, solve, solve_tensors
from dynamicdps.solvers.registry import find_solver
from dynamicdps.volumes import IntensityScale, Volume, from_slices, to_slices
from tests.conftest import make_phantom
from tests.properties import input_error, placed
from tests.solvers.known_posteriors import CorrelatedGaussian, Gaussian, IsotropicGaussian, assert_moments, condition, dense, draw

FIRST, SECOND = ScanOperator(LowField(in_plane_factor=2.0), 0.05), ScanOperator(LowField(blur=1.0), 0.1)
BENT = ScanOperator(LowField(gamma=0.6, in_plane_factor=2.0), 0.02)
ONE_TERM_ONLY = {"dynamicdps-paper"}
NEED_SINGULAR_VALUES = {"ddnm", "ddrm"}


def measured(scanner: ScanOperator, truth: Tensor, seed: int) -> DataTerm:
    y = scanner.noise.draw(scanner.operator(truth), [torch.Generator().manual_seed(seed + i) for i in range(len(truth))])
    return DataTerm(y, scanner.operator, scanner.noise)


def truth_of(count: int = 1, size: int = 6) -> Tensor:
    return 0.5 + 0.2 * torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(3))


def posterior(prior: IsotropicGaussian | CorrelatedGaussian, terms: list[DataTerm]) -> Gaussian:
    size = prior.height * prior.width
    covariance = prior.covariance if isinstance(prior, CorrelatedGaussian) else prior.std**2 * torch.eye(size, dtype=torch.float64)
    rows = [dense(term.scanner, prior.height, prior.width) / term.noise.std for term in terms]
    y = torch.cat([term.measurement.flatten() / term.noise.std for term in terms])
    return condition(torch.full((size,), prior.data_mean, dtype=torch.float64), covariance, torch.cat(rows), 1.0, y)


def test_samples_of_two_measurements_have_the_exact_posterior() -> None:
    prior, truth = IsotropicGaussian(), truth_of()
    terms = [measured(FIRST, truth, 1), measured(SECOND, truth, 2)]
    x = draw("dynamicdps", prior, terms, 2000, estimate="sample", steps=3, start_sigma=10.0)
    assert_moments(x, posterior(prior, terms))


def test_the_data_step_reaches_the_mean_of_the_joint_posterior() -> None:
    truth = truth_of()
    terms = [measured(FIRST, truth, 1).to(torch.float64), measured(SECOND, truth, 2).to(torch.float64)]
    centre = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64)
    for order in (terms, terms[::-1]):
        found = data_step(join(order), centre, torch.tensor([0.2]), cg_iterations=200, cg_tolerance=1e-8, tolerance=1e-9)
        torch.testing.assert_close(found.x.flatten(), posterior(IsotropicGaussian(), terms).mean, atol=1e-5, rtol=0)


def test_the_data_step_reaches_the_joint_posterior_of_scans_that_lie_askew() -> None:
    """Thick voxels in any position are as exact a measurement as any other: the mean of the posterior is that of their matrices."""
    shape, turn = (7, 8, 6), np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [4, -3, 5], degrees=True).as_matrix()
    turn[:3, 3] = (0.3, -0.2, 0.4)
    thick = LowField(in_plane_factor=1.5, slice_thickness=3.0)
    scanners = [ScanOperator(thick, 0.05), ScanOperator(LowField(slice_thickness=2.0), 0.1)]
    for across in (0, 1):
        askew = posed(SwapSliceAxis(thick, across), shape, turn, np.eye(4))
        assert askew is not None
        scanners.append(ScanOperator(askew, 0.05))
    generator = torch.Generator().manual_seed(5)
    truth = 0.5 + 0.2 * torch.randn(1, 1, *shape[::-1], generator=generator, dtype=torch.float64)
    terms = [measured(scanner, truth, seed) for seed, scanner in enumerate(scanners)]
    size, r = truth.numel(), 0.2
    basis = torch.eye(size, dtype=torch.float64).view(size, *truth.shape[1:])
    rows = torch.cat([term.scanner(basis).flatten(1).T / term.noise.std for term in terms])
    y = torch.cat([term.measurement.flatten() / term.noise.std for term in terms])
    prior = torch.eye(size, dtype=torch.float64) * r**2
    expected = condition(torch.full((size,), 0.5, dtype=torch.float64), prior, rows, 1.0, y).mean
    for order in (terms, terms[::-1]):
        centre = torch.full_like(truth, 0.5)
        found = data_step(join(order), centre, torch.tensor([r]), cg_iterations=400, cg_tolerance=1e-9, tolerance=1e-10)
        torch.testing.assert_close(found.x.flatten(), expected, atol=1e-5, rtol=0)


def run(name: str, terms: list[DataTerm], initial: Tensor, **settings: float | str) -> Tensor:
    config = {"samples": 1, "steps": 3, "start_sigma": 0.3, "chunk": 8, "iterations": 5, "langevin_steps": 5} | settings
    known = {f.name for f in fields(find_solver(name)[1])}
    made = make_config(name, {key: value for key, value in config.items() if key in known})
    prior = IsotropicGaussian(12, 12)
    return solve_tensors(name, terms, prior, initial, generator=torch.Generator().manual_seed(0), config=made).image


@pytest.mark.parametrize("name", sorted(set(available()) - ONE_TERM_ONLY - NEED_SINGULAR_VALUES))
def test_the_order_of_measurements_does_not_matter(name: str) -> None:
    truth = truth_of(2, 12).double().clamp_min(0.05)
    terms = [measured(scanner, truth, 1) for scanner in (FIRST, SECOND)]
    found, other = run(name, terms, 0.8 * truth), run(name, terms[::-1], 0.8 * truth)
    assert found.isfinite().all()
    torch.testing.assert_close(found, other, atol=2e-3, rtol=0)


@pytest.mark.parametrize("scanner", [FIRST, BENT], ids=["linear", "bent"])
@pytest.mark.parametrize("name", ["data-step", "dynamicdps"])
def test_a_measurement_given_twice_is_one_of_half_the_variance(name: str, scanner: ScanOperator) -> None:
    truth = truth_of(2, 12).clamp_min(0.05)
    term = measured(scanner, truth, 1)
    once = run(name, [replace(term, noise=Noise(term.noise.std / 2**0.5))], 0.8 * truth)
    torch.testing.assert_close(run(name, [term, term], 0.8 * truth), once, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", sorted(ONE_TERM_ONLY | NEED_SINGULAR_VALUES))
def test_solvers_that_take_one_measurement_say_so(name: str) -> None:
    truth = truth_of(1, 12)
    term = measured(FIRST, truth, 1)
    with input_error():
        run(name, [term, term], truth)


def test_the_start_level_answers_to_all_measurements() -> None:
    """Pooled over what was measured, in image intensities: a poor second measurement does not hide an error, nor does the order."""
    truth = truth_of(2, 12).clamp_min(0.05)
    wrong = truth + 0.1
    terms = [measured(ScanOperator(LowField(), noise_std), truth, 1) for noise_std in (0.01, 0.1)]
    starts = [
        solve_tensors("dynamicdps", order, IsotropicGaussian(12, 12), wrong, generator=torch.Generator(), config=DynamicDPSConfig(steps=1))
        for order in (terms, terms[::-1], terms[:1])
    ]
    both, swapped, one = (found.start_sigma for found in starts)
    torch.testing.assert_close(both, swapped)
    assert (both >= 0.5 * one).all()


class Smoother:
    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        weight = (0.04 / (0.04 + sigma**2)).view(-1, 1, 1, 1)
        return weight * x + (1 - weight) * 0.5


def stacks(head: Volume) -> list[tuple[Volume, ScanOperator]]:
    """An axial stack of thick slices of a head and a sagittal one of a part of it, in units of its own."""
    part = Volume(head.data[4:20], head.affine @ np.array([[1, 0, 0, 4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    pairs = []
    for axis, scale, seen in ((2, 1.0, head), (0, 250.0, part)):
        inner = LowField(gamma=0.8, slice_thickness=4.0)
        scanner = ScanOperator(inner if axis == 2 else SwapSliceAxis(inner, axis), 0.01, intensity_scale=scale)
        y = measured(scanner, to_slices(seen.data).movedim(0, 1)[None], axis).measurement
        data = from_slices(y[0].movedim(1, 0)) * scale
        pairs.append((Volume(data, seen.affine @ placed(scanner.operator, seen.shape)), scanner))
    return pairs


def test_two_orthogonal_stacks_make_a_better_image_than_one() -> None:
    """Each on its own grid, the second with its own field of view: what one does not resolve the other does."""
    head = make_phantom((24, 28, 20))
    head = head.with_data(head.data / IntensityScale.robust(head.data).scale)
    pairs = stacks(head)
    smooth = torch.nn.functional.avg_pool3d(torch.from_numpy(head.data)[None], 5, 1, 2)[0].numpy()
    initial = head.with_data(smooth)
    both, one = solve("data-step", pairs, None, Smoother(), initial=initial), solve("data-step", *pairs[0], Smoother(), initial=initial)
    assert both.volume.shape == one.volume.shape == head.shape
    errors = [float(np.sqrt(np.mean((found.volume.data - head.data)[4:20] ** 2))) for found in (both, one)]
    assert errors[0] < 0.85 * errors[1]
    assert [residual.shape for residual in both.other_residuals] == [pairs[1][0].shape]
    # What is predicted and what is left make up what was measured, in image intensities.
    residuals = (both.residual, *both.other_residuals)
    for (scan, scanner), residual, predicted in zip(pairs, residuals, both.predicted, strict=True):
        whole = predicted.data + scanner.noise.std * residual.data
        np.testing.assert_allclose(whole, scan.data / scanner.intensity_scale, atol=1e-3)
    assert float(both.reconstruction.misfit[0]) < 1.5


@pytest.mark.parametrize("name", ["data-step", "dynamicdps"])
def test_a_scan_given_twice_with_half_the_information_each_counts_once(name: str) -> None:
    """Also where it lies askew in the image of another scan."""
    head = make_phantom((24, 28, 8))
    head = head.with_data(head.data / IntensityScale.robust(head.data).scale)
    (first, own), (scan, operator) = stacks(head)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [2, -1, 3], degrees=True).as_matrix()
    scan = Volume(scan.data, turn @ scan.affine)

    noisier = replace(operator, noise=Noise(2**0.5 * operator.noise.std))
    config = make_config(name, {"samples": 1, "steps": 2, "start_sigma": 0.1} if name == "dynamicdps" else {})
    settings = {"initial": head.with_data(0.9 * head.data), "config": config}
    once = solve(name, [(first, own), (scan, operator)], None, Smoother(), **settings)
    half = [(scan, noisier)] * 2
    twice = solve(name, [(first, own), *half], None, Smoother(), **settings)
    # Which is not what it would be with all the information each.
    both = solve(name, [(first, own), *[(scan, operator)] * 2], None, Smoother(), **settings)
    apart, wrong = (float(np.sqrt(np.mean((found.volume.data - once.volume.data) ** 2))) for found in (twice, both))
    assert apart < 1e-3
    assert wrong > 5 * apart
    for residual in twice.other_residuals:
        np.testing.assert_allclose(2**0.5 * residual.data, once.other_residuals[0].data, atol=0.2)


def test_scans_and_operators_go_together() -> None:
    head = make_phantom((24, 28, 8))
    pair = stacks(head)[0]
    for scan, operator in ((head, None), ([pair], pair[1]), ([], None)):
        with input_error("go together"):
            solve("data-step", scan, operator, Smoother(), initial=head)

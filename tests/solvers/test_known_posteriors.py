"""Samplers against posteriors that are known in closed form.

Where a method is exact the test says so; where it is not, the test holds it to what its own theory says that it samples instead.
"Limit" is that of many small steps.
"""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import LowField, add_noise, power_law
from dynamicdps.solvers import make_config, solve_tensors
from tests.solvers.known_posteriors import (
    Blocks,
    CorrelatedGaussian,
    Fit,
    Gaussian,
    IsotropicGaussian,
    TwoGaussians,
    assert_moments,
    draw,
)

SCANNERS = {
    "identity": (LowField(), 0.1),
    "blur": (LowField(blur=1.0), 0.05),
    "subsampling": (LowField(in_plane_factor=2.0), 0.05),
}


def measured(operator: LowField, noise_std: float, truth: Tensor) -> DataTerm:
    return DataTerm(add_noise(operator(truth), noise_std, [torch.Generator().manual_seed(1)]), operator, noise_std)


def checkerboard(height: int, width: int) -> Tensor:
    """Invisible at half the resolution: every 2 x 2 block sums to 0."""
    return (-1.0) ** (torch.arange(height)[:, None] + torch.arange(width))


def two_gaussians(gap: float, size: int = 6) -> TwoGaussians:
    """Two images that differ by a slope, which is measured, and by a checkerboard, which is not."""
    difference = 0.5 * gap * (checkerboard(size, size) + torch.linspace(-1, 1, size)[:, None]).double()
    return TwoGaussians(torch.stack([0.5 + difference, 0.5 - difference]), weight=0.3)


PRIORS = {"isotropic": IsotropicGaussian(2, 2), "correlated": CorrelatedGaussian(2, 2), "mixture": two_gaussians(0.3, 2)}


def prior_draws(prior: Any, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    if isinstance(prior, CorrelatedGaussian):
        x = prior.data_mean + noise @ torch.linalg.cholesky(prior.covariance).T
    elif isinstance(prior, TwoGaussians):
        first = torch.rand(count, 1, generator=generator) < prior.weight
        x = torch.where(first, prior.images[0].flatten(), prior.images[1].flatten()) + prior.std * noise
    else:
        x = prior.data_mean + prior.std * noise
    return x.view(count, 1, 2, 2)


# What the tests rest on.


@pytest.mark.parametrize("name", PRIORS)
def test_denoisers_and_their_errors(name: str) -> None:
    """A posterior mean's error is the best there is: orthogonal to any function of ``x``; its size is the stated r(sigma)."""
    prior = PRIORS[name]
    x0 = prior_draws(prior, 200_000)
    for sigma in list(prior.errors)[60:180:40]:
        x = x0 + sigma * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=x0.dtype)
        error = prior(x, torch.full((len(x),), sigma)) - x0
        assert error.square().mean().sqrt().item() == pytest.approx(prior.errors[sigma], rel=0.01)
        for probe in (torch.ones_like(x), x - 0.5, (5 * x).sin(), (x - 0.5) * (x - 0.5).flip(-1)):
            product = (error * probe).flatten(1).sum(1)
            assert product.mean().abs() < 4.5 * product.std() / len(x) ** 0.5


@pytest.mark.parametrize("name", PRIORS)
def test_closed_forms_against_importance_sampling(name: str) -> None:
    """Draws from the prior, weighted by the likelihood."""
    prior, operator = PRIORS[name], LowField(in_plane_factor=2.0)
    x0 = prior_draws(prior, 200_000)
    y = torch.full((1, 1, 1, 1), 0.55)
    weights = torch.softmax(-0.5 * ((y - operator(x0)) / 0.1).square().flatten(), dim=0)
    found = weights @ x0.flatten(1)
    exact = prior.posterior(DataTerm(y, operator, 0.1))
    if not isinstance(exact, Gaussian):
        chances, parts = exact
        torch.testing.assert_close(found, sum(c * part.mean for c, part in zip(chances, parts, strict=True)), atol=0.003, rtol=0)
        return
    torch.testing.assert_close(found, exact.mean, atol=0.003, rtol=0)
    centred = x0.flatten(1) - found
    torch.testing.assert_close((weights[:, None] * centred).T @ centred, exact.covariance, atol=0.0005, rtol=0)


# DynamicDPS.


@pytest.mark.parametrize("noise", ["renewed", "ancestral"])
@pytest.mark.parametrize("name", SCANNERS)
def test_dynamicdps_samples_are_exact_for_independent_pixels(name: str, noise: str) -> None:
    """There ``p(x0 | x_t)`` is normal with covariance ``r^2 I``, the draw of ``p(x0 | x_t, y)`` is exact, and so is every step.

    No bias is left by steps however few: mean, deviation and correlation in every direction of the image.
    """
    prior = IsotropicGaussian()
    term = measured(*SCANNERS[name], prior.data_mean + prior.std * torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(3)))
    x = draw("dynamicdps", prior, term, 2000, estimate="sample", steps=3, start_sigma=10.0, noise=noise)
    assert_moments(x, prior.posterior(term))


@pytest.mark.parametrize("noise", ["renewed", "ancestral"])
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_dynamicdps_samples_are_exact_for_any_share_of_fresh_noise(noise: str, eta: float) -> None:
    """Given y the drawn x0 and the noise ``(x - x0) / sigma`` are independent: kept or fresh, it is the noise of the next level."""
    blocks = Blocks()
    found = blocks.sample("dynamicdps", estimate="sample", steps=6, eta=eta, noise=noise)
    blocks.assert_fit(found, blocks.posterior(), allowance=0.005)


def correlated_bias(noise: str, steps: int) -> tuple[float, float]:
    """Bias of the mean and of the deviation, rms over directions in units of the posterior's deviation, without Monte Carlo's share."""
    prior, count = CorrelatedGaussian(), 500
    truth = prior.data_mean + torch.linalg.cholesky(prior.covariance) @ torch.randn(36, generator=torch.Generator().manual_seed(3)).double()
    term = measured(*SCANNERS["subsampling"], truth.view(1, 1, 6, 6).float())
    settings = {"estimate": "sample", "start_sigma": 10.0, "stop_sigma": 0.01, "data_iterations": 1}
    x = draw("dynamicdps", prior, term, count, slices=True, steps=steps, noise=noise, **settings)
    z = prior.posterior(term).whiten(x)
    mean = float(z.mean(0).square().mean() - 1 / count)
    deviation = float((z.std(0) - 1).square().mean() - 1 / (2 * count))
    return max(mean, 0.0) ** 0.5, max(deviation, 0.0) ** 0.5


def test_dynamicdps_samples_tend_to_the_exact_posterior_of_correlated_pixels() -> None:
    """With ``r^2 I`` in place of the covariance of ``p(x0 | x_t)`` a step is only right at low levels, where both are ``sigma^2 I``.

    A step there with renewed noise is one of the split Gibbs sampler (Vono et al. 2019), whose chain forgets what earlier levels did
    wrong: the more steps, the lower the level from which it still can. Measured: 0.21 of a deviation with 10 steps, 0.13 with 30,
    0.07 with 100, 0.04 with 300, 0.02 with 1000.
    """
    (few, few_spread), (many, many_spread) = correlated_bias("renewed", 30), correlated_bias("renewed", 300)
    assert 0.1 < few < 0.2
    assert many < 0.06
    assert few_spread > 0.05
    assert many_spread < 0.03


def test_ancestral_noise_leaves_a_bias_for_correlated_pixels() -> None:
    """Small ancestral steps follow the reverse diffusion, whose drift is wrong at all levels: more steps do not help.

    Measured: 0.16 of a deviation with 30 steps, 0.15 with 100, 300 and 1000.
    """
    assert 0.1 < correlated_bias("ancestral", 200)[0] < 0.22


def mode_samples(gap: float, steps: int, count: int = 1000) -> tuple[float, float, list[tuple[float, float]]]:
    """Share of samples in the first mode, the exact one, and for each mode rms errors of mean and deviation over directions."""
    prior, operator = two_gaussians(gap), LowField(in_plane_factor=2.0)
    term = DataTerm(operator(0.5 + 0.1 * torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(1))), operator, 0.1)
    weights, parts = prior.posterior(term)
    settings = {"estimate": "sample", "start_sigma": 10.0, "stop_sigma": 0.003, "data_iterations": 1}
    x = draw("dynamicdps", prior, term, count, slices=True, steps=steps, **settings)
    density = torch.stack([torch.distributions.MultivariateNormal(p.mean, p.covariance).log_prob(x) for p in parts], dim=1)
    chances = torch.softmax(density + weights.log(), dim=1)
    errors = []
    for part, own in zip(parts, (chances[:, 0] > 0.5, chances[:, 0] <= 0.5), strict=True):
        z = part.whiten(x[own])
        mean, deviation = z.mean(0).square().mean() - 1 / len(z), (z.std(0) - 1).square().mean() - 1 / (2 * len(z))
        errors.append((float(mean.clamp_min(0)) ** 0.5, float(deviation.clamp_min(0)) ** 0.5))
    return float(chances[:, 0].mean()), float(weights[0]), errors


def test_dynamicdps_finds_both_modes_of_a_mixture_but_not_their_weights() -> None:
    """Two images 11 standard deviations apart: each mode's mean and deviation are exact, the weights stay near the prior's.

    Which mode a sample ends in is decided at high levels, where the measurement tells the two apart by a correlation over the whole
    image that ``r^2 I`` leaves out: of a posterior weight of 0.94 (prior 0.3) about 0.3 is reached. The error is on the prior's side.
    """
    found, exact, errors = mode_samples(0.15, 60)
    assert exact > 0.9
    assert 0.27 < found < 0.45
    for mean, deviation in errors:
        assert mean < 0.05
        assert deviation < 0.03


def test_weights_of_near_modes_tend_to_the_exact_ones() -> None:
    """Modes 3.6 standard deviations apart: steps at low levels still cross between them. Prior 0.3, posterior 0.59.

    Measured: 0.37 with 10 steps, 0.44 with 100, 0.49 with 300.
    """
    (few, exact, _), (many, _, _) = mode_samples(0.05, 10), mode_samples(0.05, 150)
    assert exact == pytest.approx(0.586, abs=0.001)
    assert 0.3 < few < many - 0.04
    assert many < exact + 0.06


def test_dynamicdps_samples_tend_to_the_exact_posterior_of_a_bent_contrast() -> None:
    """Pixels seen through ``x^0.6``: a skewed posterior, here by a sum over a grid. The perturbed minimum is no exact draw where A bends,
    but A is straight within the reach of a low level's step. Measured: -0.13 of a deviation with 5 steps, -0.02 with 100, -0.01 with 300.
    """
    operator, prior = LowField(gamma=0.6), IsotropicGaussian(64, 64)
    grid = torch.linspace(-0.5, 1.7, 20001, dtype=torch.float64)
    fit = ((0.3 - power_law(grid, torch.tensor(0.6, dtype=torch.float64))) / 0.05).square()
    weights = torch.softmax(-0.5 * (fit + ((grid - prior.data_mean) / prior.std).square()), dim=0)
    mean = weights @ grid
    deviation = (weights @ (grid - mean).square()).sqrt()

    def bias(steps: int, count: int) -> tuple[float, float]:
        term = DataTerm(torch.full((1, 1, 64, 64), 0.3), operator, 0.05)
        x = draw("dynamicdps", prior, term, count, estimate="sample", steps=steps, start_sigma=10.0, stop_sigma=0.003, chunk=1)
        z = (x - mean) / deviation
        return float(z.mean()), float(z.std())

    few, many = bias(5, 2), bias(100, 2)
    error = 1 / (2 * 64 * 64) ** 0.5
    assert few[0] < -0.08
    assert abs(many[0]) < 0.03 + 4 * error
    assert abs(many[1] - 1) < 0.02 + 4 * error


def test_means_of_dynamicdps_have_half_the_posterior_variance() -> None:
    """``estimate="mean"``: its samples are made without the draw in the data step.

    Linear problem: the mean is right. Limit of the spread: a small step moves x0 along the gradient of the log posterior by ``sigma^2`` and
    adds noise of ``sigma^2``, half of what Langevin's equation has, which samples the squared posterior: half the variance. So
    the reported uncertainty is too small by a factor of ``sqrt(2)`` at best; ``estimate="sample"`` reports the posterior's.
    """
    blocks = Blocks()
    found = blocks.sample("dynamicdps", steps=200, spacing="karras", stop_sigma=0.01, data_iterations=1, estimate="mean")
    blocks.assert_fit(found, blocks.posterior(spread=0.5**0.5), allowance=0.05, gain=0.01)
    few = blocks.sample("dynamicdps", steps=5, estimate="mean")
    assert few.gain == pytest.approx(blocks.posterior().gain, abs=0.02)
    assert few.unseen_spread < found.unseen_spread


def test_reported_uncertainty_is_the_posterior_deviation() -> None:
    """Of ``estimate="sample"``, averaged over equal problems: ``E[variance of n samples]`` is the variance for any n."""
    blocks = Blocks()
    found = blocks.run("dynamicdps", estimate="sample", samples=4, steps=3)
    assert found.uncertainty is not None
    exact = blocks.posterior()
    variance = (exact.spread**2 + 3 * exact.unseen_spread**2) / 4
    assert found.uncertainty.double().square().mean().item() == pytest.approx(variance, rel=0.03)


# A wrong initial image.

STARTS = (0.02, 0.1, 0.5, 2.0)


def share_left(estimate: str, start: float, structure: Tensor, **settings: Any) -> float:
    """How much of a structure added to the initial image is left in the result.

    For independent normal pixels and a linear operator the result is an affine map of the initial image, whatever the noise: the difference
    of two runs of one seed shows the map itself.
    """
    blocks = Blocks(size=16, batch=2)
    plain = torch.full((2, 1, 16, 16), blocks.prior.data_mean)
    settings = {"steps": 8, "stop_sigma": 0.01, "start_sigma": start, "estimate": estimate} | settings
    with_it, without = (blocks.run("dynamicdps", initial, **settings).image for initial in (plain + 0.1 * structure, plain))
    return float(((with_it - without) * structure).mean() / (0.1 * structure.square().mean()))


def share_expected(estimate: str, start: float, seen: bool) -> float:
    """Each denoising keeps ``s^2 / (s^2 + sigma^2)`` of it, each data step ``n^2 / (n^2 + r^2)`` where it is measured with noise n.

    There is a data step on the initial image too, with a spread of twice the start level, and one on the mean of samples.
    """
    variance, noise = 0.2**2, (2 * 0.05) ** 2
    levels = make_config("dynamicdps", {"steps": 8, "stop_sigma": 0.01, "spacing": "log"}).levels(torch.tensor([start]))[:, 0].tolist()
    share = math.prod(variance / (variance + level**2) for level in levels)
    if not seen:
        return share
    errors = [variance * level**2 / (variance + level**2) for level in levels]
    spreads = [4 * start**2, *errors] + ([errors[-1]] if estimate == "mean" else [])
    return share * math.prod(noise / (noise + spread) for spread in spreads)


@pytest.mark.parametrize("estimate", ["mean", "sample"])
@pytest.mark.parametrize("seen", [False, True])
def test_wrong_structure_is_washed_out_as_theory_says(estimate: str, seen: bool) -> None:
    """The higher the start the less is left, down to nothing, seen or unseen; a low start keeps what only the prior could tell."""
    structure = torch.ones(16, 16) if seen else checkerboard(16, 16)
    found = [share_left(estimate, start, structure) for start in STARTS]
    assert found == pytest.approx([share_expected(estimate, start, seen) for start in STARTS], abs=1e-4)
    assert found == sorted(found, reverse=True)
    assert abs(found[-1]) < 1e-4
    assert found[0] > (0.5 if seen else 0.9)


def test_less_fresh_noise_keeps_more_of_a_wrong_structure() -> None:
    """What is renewed cannot carry the initial image on: the share left grows as `eta` falls."""
    left = [share_left("sample", 0.2, checkerboard(16, 16), eta=eta) for eta in (1.0, 0.5, 0.0)]
    assert left == sorted(left)
    assert left[2] > 2 * left[0]


@pytest.mark.parametrize("estimate", ["mean", "sample"])
def test_wrong_initial_image_does_not_shift_the_posterior_from_a_high_start(estimate: str) -> None:
    blocks = Blocks()
    initial = (0.5 + 0.2 * checkerboard(64, 64) + 0.2).expand(4, 1, 64, 64)
    found = blocks.fit(blocks.run("dynamicdps", initial, estimate=estimate, steps=6, start_sigma=3.0).image)
    shift = 4 * found.unseen_spread / (3 * blocks.count) ** 0.5
    assert abs(found.unseen_mean) < shift
    assert found.gain == pytest.approx(blocks.posterior().gain, abs=0.02)


# Peers: exact.


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_pigdm_tends_to_the_exact_posterior(eta: float) -> None:
    """With ``r = r(sigma)`` its ``p(y | x_t)`` is exact for independent normal pixels; what is left is the error of the steps."""
    blocks = Blocks()
    coarse, fine = (blocks.sample("pigdm", steps=steps, eta=eta, spread="error") for steps in (25, 400))
    blocks.assert_fit(fine, blocks.posterior(), allowance=0.01)
    assert coarse.unseen_spread < 0.95 * fine.unseen_spread


def test_pigdm_with_the_noise_as_its_spread_leaves_the_measurement_too_little() -> None:
    """``r = sigma`` is more than p(x0 | x_t) has at high levels, where the measurement then counts less.

    Without fresh noise the state follows ``dx / dsigma = (x - x0) / sigma``; for a measured coefficient that is a linear equation in what
    was measured and in the start's noise, here solved in small steps.
    """
    blocks = Blocks()
    variance, noise = blocks.prior.std**2, 4 * blocks.noise_std**2
    gain, spread = 0.0, 10.0
    levels = torch.logspace(1, math.log10(0.003), 20001, dtype=torch.float64).tolist()
    for sigma, down in pairwise(levels):
        share = variance / (variance + sigma**2)
        pull = sigma**2 * share / (sigma**2 + noise)
        step = (down - sigma) / sigma
        gain += step * (gain - share * gain - pull * (1 - share * gain))
        spread += step * spread * (1 - share + pull * share)
    found = blocks.sample("pigdm", steps=400, eta=0.0, spread="noise")
    exact = blocks.posterior()
    blocks.assert_fit(found, Fit(gain, spread, 0.0, exact.unseen_spread), allowance=0.02)
    assert gain < 0.9 * exact.gain
    assert found.misfit > 1.1


UNGUIDED = {
    "projection": {"weight": 1.0},
    "mcg": {"weight": 1.0, "step": 1.0},
    "pigdm": {},
    "ddnm": {"eta": 0.85},
    "dds": {"eta": 1.0, "weight": 5.0, "iterations": 3},
    "dps": {"step": 0.3},
    "dps+": {"step": 0.3, "evaluations": 2},
    "ddrm": {"eta": 0.0},
    "diffpir": {"eta": 0.0},
}


@pytest.mark.parametrize("name", UNGUIDED)
def test_what_is_not_measured_follows_the_prior(name: str) -> None:
    """Independent pixels: nothing that a method does in the range of H reaches its null space, which is plain DDIM sampling.

    In the limit that is the prior, for any `eta` in DDIM steps. DDRM and DiffPIR have a `eta` of their own (see below) and are
    DDIM at 0.
    """
    blocks = Blocks()
    found = blocks.sample(name, steps=300, **UNGUIDED[name])
    exact = blocks.posterior()
    blocks.assert_fit(Fit(exact.gain, exact.spread, found.unseen_mean, found.unseen_spread), exact, allowance=0.02)


@pytest.mark.parametrize("name", ["projection", "mcg", "ccdf", "ddnm", "ddrm"])
def test_without_noise_what_is_measured_is_kept(name: str) -> None:
    """The limit of a noise-free measurement, for which these methods were made: ``H x = y``, the rest sampled."""
    blocks = Blocks(batch=1, noise_std=1e-4)
    found = blocks.sample(name, steps=50)
    assert found.gain == pytest.approx(1.0, abs=1e-4)
    assert found.misfit < 0.02
    assert found.spread < 0.02 * blocks.posterior().spread
    assert found.unseen_spread > 0.8 * blocks.posterior().unseen_spread


# Peers: not exact, and how.


@pytest.mark.parametrize("name", ["projection", "mcg", "ccdf"])
def test_projections_take_the_measurement_for_the_truth(name: str) -> None:
    """Its noise is fitted and the measured part has no spread at all: sure of what is wrong by one deviation of the noise."""
    blocks = Blocks()
    found = blocks.sample(name, steps=30, weight=1.0)
    assert found.gain == pytest.approx(1.0, abs=1e-5)
    assert found.spread < 1e-5
    assert found.misfit < 1e-3


@pytest.mark.parametrize("name", ["projection", "mcg", "ccdf"])
def test_projected_states_are_as_noisy_as_their_level(name: str) -> None:
    """The state is projected on the measurement noised as the state is: what is measured is off by sigma, neither more nor less."""
    blocks, seen = Blocks(), []

    class Recording(IsotropicGaussian):
        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            seen.append((blocks.coefficients(x.detach())[0], float(sigma[0])))
            return super().__call__(x, sigma)

    config = make_config(name, {"samples": 1, "steps": 6, "start_sigma": 1.0, "weight": 1.0})
    initial = torch.full((4, 1, 64, 64), 0.5)
    solve_tensors(name, [blocks.term], Recording(), initial, generator=torch.Generator().manual_seed(0), config=config)
    assert len(seen) == 6
    for measured, sigma in seen[1:]:
        off = measured - 2 * (blocks.y.double() - 0.5)
        assert off.std().item() == pytest.approx(sigma, rel=4 / (2 * blocks.count) ** 0.5)
        assert abs(float(off.mean())) < 4 * sigma / blocks.count**0.5


def test_mcg_joins_dps_and_projection() -> None:
    """Without its projection it is DPS, without its gradient the projection method: the same images where both draw the same noise."""
    blocks = Blocks(size=16, batch=4)

    def image(name: str, **settings: Any) -> Tensor:
        return blocks.run(name, steps=10, **settings).image

    torch.testing.assert_close(image("mcg", step=0.3, weight=1e-12, eta=0.0), image("dps", step=0.3, eta=0.0))
    torch.testing.assert_close(image("mcg", step=1e-12, weight=1.0), image("projection", weight=1.0))


def test_ccdf_keeps_the_unseen_part_of_its_start() -> None:
    """From one level sigma on it keeps ``s^2 / (s^2 + sigma^2)`` of the initial image's null space, however wrong it is.

    In the limit, with ancestral noise: ``p(x0 | x_sigma)`` around the noised initial image.
    """
    blocks, sigma = Blocks(), 0.3
    structure = checkerboard(64, 64)
    initial = (0.5 + 0.2 * structure).expand(4, 1, 64, 64)
    result = blocks.run("ccdf", initial, steps=300, start_sigma=sigma)
    left = float(((result.image - 0.5) * structure).mean() / 0.2)
    variance = blocks.prior.std**2
    expected = variance / (variance + sigma**2)
    assert left == pytest.approx(expected, abs=0.03)
    spread = ((expected * sigma) ** 2 + expected * sigma**2) ** 0.5
    assert blocks.fit(result.image - left * 0.2 * structure).unseen_spread == pytest.approx(spread, rel=0.03)


def test_ddnm_with_noise_fits_the_noise() -> None:
    """DDNM+ counts the measurement's noise as the fresh noise of a step, but it is the same in all: with more steps the measurement is
    believed more, the spread goes to 0 and the misfit with it. With ``eta = 0`` there is no fresh noise and the measurement is
    not used before the last step.
    """
    blocks = Blocks()
    coarse, fine, none = (blocks.sample("ddnm", steps=steps, eta=eta) for steps, eta in ((20, 0.85), (200, 0.85), (50, 0.0)))
    exact = blocks.posterior()
    assert fine.spread < 0.5 * coarse.spread < 0.5 * exact.spread
    assert exact.gain < coarse.gain < fine.gain < 1.01
    assert fine.misfit < 0.1
    assert none.gain < 0.1
    assert none.spread > 1.5 * exact.spread


def test_ddrm_depends_on_its_steps() -> None:
    """Below the level of the measurement's noise ``x' = D + sigma' (sqrt(1 - eta^2) e + eta n)`` replaces noise without the drift to match.

    With ``eta = 1`` every step is half a Langevin step: in the limit what is unseen has half the prior's variance, and what was
    measured is forgotten. With ``eta = 0`` the measured part ends at the measurement without spread. The paper's 20 steps with 0.85
    lie between.
    """
    blocks = Blocks()
    exact = blocks.posterior()
    short, long = (blocks.sample("ddrm", steps=steps, eta=1.0) for steps in (20, 300))
    assert long.gain < 0.1 < 0.3 < short.gain < exact.gain
    assert long.unseen_spread == pytest.approx(0.5**0.5 * exact.unseen_spread, rel=0.03)
    assert blocks.sample("ddrm", steps=300, eta=0.0).spread < 0.01 * exact.spread
    usual = blocks.sample("ddrm", steps=20, stop_sigma=0.01, eta=0.85)
    assert usual.gain == pytest.approx(exact.gain, abs=0.05)
    assert 0.4 * exact.spread < usual.spread < 0.8 * exact.spread


@pytest.mark.parametrize("weight", [1.0, 8.0])
def test_diffpir_samples_the_squared_posterior_of_another_noise(weight: float) -> None:
    """With all noise renewed a small step is ``sigma^2`` times the gradient of ``log p(x) + log p(y | x) / lambda`` plus ``sigma n``.

    That is half of Langevin's noise. Hence in the limit: lambda times the noise's variance is believed, and the variance is half of what
    then were right. With ``lambda = 1`` the mean is the posterior's.
    """
    blocks = Blocks()
    found = blocks.sample("diffpir", steps=500, eta=1.0, weight=weight, spacing="karras")
    blocks.assert_fit(found, blocks.posterior(noise_variance=weight, spread=0.5**0.5), allowance=0.03)


def test_dds_ends_at_the_measurement() -> None:
    """The weight of the data is the same at all levels and knows nothing of their noise: as x0 settles, each step halves what is left of
    the misfit, and the measured part ends at the measurement with next to no spread.
    """
    blocks = Blocks()
    found = blocks.sample("dds", steps=50, weight=5.0, iterations=3, eta=0.85)
    assert found.gain > 0.98
    assert found.misfit < 0.1
    assert found.spread < 0.1 * blocks.posterior().spread


@pytest.mark.parametrize("name", ["dps", "dps+"])
def test_dps_has_no_step_that_is_right(name: str) -> None:
    """A step too short leaves the prior, a longer one fits the noise and then jumps around it by its own length.

    The gradient of ``|r|`` (not squared) has a length of its own: neither the mean nor the spread knows the noise. Here a step of 0.12 has
    the right spread, one of 0.17 the right mean with half the spread; which steps these are depends on their number and on the size of
    the image.
    """
    blocks = Blocks(size=16, batch=32)
    exact = blocks.posterior()
    more = {"evaluations": 2} if name == "dps+" else {}
    found = {step: blocks.sample(name, steps=100, step=step, **more) for step in (0.01, 0.12, 0.14, 0.16, 0.3, 1.0, 3.0)}
    assert found[0.01].gain < 0.1
    assert found[0.01].spread > 1.8 * exact.spread
    for step in (0.3, 1.0):
        assert found[step].gain > 0.95
        assert found[step].spread < 0.25 * exact.spread
        assert found[step].misfit < 0.25
    assert found[0.3].spread < found[1.0].spread < found[3.0].spread
    wrong = {step: max(abs(fit.gain / exact.gain - 1), abs(fit.spread / exact.spread - 1)) for step, fit in found.items()}
    assert min(wrong.values()) > 0.15, wrong


def test_daps_samples_the_posterior_of_a_wider_prior() -> None:
    """``p(x0 | x_t)`` is given the variance ``sigma^2`` around the end of the probability flow, which moves half as far as the mean does.

    So a small step has Langevin's noise and pull of the data, but half the pull of the prior: in the limit the posterior of the square
    root of the prior, here a prior of twice the variance. Long Langevin steps and few Euler steps add some per cent.
    """
    blocks = Blocks(size=32)
    settings = {"langevin_rate": 0.1, "langevin_steps": 40, "ode_steps": 12, "stop_sigma": 0.01}
    found = blocks.sample("daps", steps=60, spacing="karras", **settings)
    blocks.assert_fit(found, blocks.posterior(prior_variance=2.0), allowance=0.05, gain=0.02)
    short = blocks.sample("daps", steps=20, ode_steps=4, langevin_steps=20, langevin_rate=0.3)
    assert short.unseen_spread > 1.2 * blocks.posterior().unseen_spread


def test_red_diff_seeks_one_image() -> None:
    """Gradient descent to a mode: its spread is what the noise of the gradient leaves, less than the posterior's everywhere; it falls with
    more steps where the measurement holds, because the weight of the data stays and that of the regulariser falls with the level.
    """
    blocks = Blocks(size=32)
    short, long = (blocks.sample("red-diff", steps=steps, weight=0.25, learning_rate=0.02) for steps in (50, 300))
    exact = blocks.posterior()
    for found in (short, long):
        assert found.spread < 0.5 * exact.spread
        assert found.unseen_spread < 0.6 * exact.unseen_spread
        assert found.gain > exact.gain
        assert found.misfit < 0.7
    assert long.misfit < short.misfit


def test_gradients_through_the_network_fit_the_noise() -> None:
    """DynamicDPS with ``gradient="network"`` and the paper's own configuration minimise the misfit: hardly any spread where measured."""
    blocks = Blocks(size=16, batch=4)
    exact = blocks.posterior()
    for found in (
        blocks.sample("dynamicdps", gradient="network", steps=20, estimate="sample"),
        blocks.sample("dynamicdps-paper", start_sigma=0.1),
    ):
        assert found.gain > 0.95
        assert found.spread < 0.2 * exact.spread
        assert found.misfit < 0.2


def test_images_of_a_batch_have_noise_of_their_own() -> None:
    """Equal problems in one batch: unrelated samples."""
    prior, operator = IsotropicGaussian(8, 8), LowField(in_plane_factor=2.0)
    y = operator(torch.full((1, 1, 8, 8), 0.5)).expand(64, 1, 4, 4)
    initial = torch.full((64, 1, 8, 8), 0.5)
    config = make_config("dynamicdps", {"estimate": "sample", "samples": 1, "steps": 2, "start_sigma": 10.0})
    x = solve_tensors(
        "dynamicdps", [DataTerm(y, operator, 0.05)], prior, initial, generator=torch.Generator().manual_seed(0), config=config
    ).image.flatten(1)
    between = torch.corrcoef(x - 0.5) - torch.eye(64)
    assert between.abs().max() < 5 / 64**0.5

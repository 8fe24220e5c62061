"""What every solver must have, whatever its method: run over all that are available."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm
from dynamicdps.operators import LinearOperator, LowField, Operator, add_noise
from dynamicdps.priors import as_prior
from dynamicdps.priors.levels import cosine_levels
from dynamicdps.solvers import (
    BankRule,
    Reconstruction,
    Run,
    SamplerConfig,
    StartLevelRule,
    available,
    make_config,
    run_samples,
    solve_tensors,
)
from dynamicdps.solvers.dynamicdps_paper import PaperConfig
from dynamicdps.solvers.registry import find_solver
from dynamicdps.volumes.grids import Grid
from tests.properties import input_error

HEIGHT, WIDTH = 16, 12
NOISE = 0.05
LINEAR = LowField(in_plane_factor=2.0)
BENT = LowField(gamma=0.6, in_plane_factor=2.0)
THICK = LowField(in_plane_factor=2.0, slice_thickness=3.0)

# Few steps; what a solver does not have is left out.
USUAL: dict[str, Any] = {"steps": 4, "samples": 2, "iterations": 20}
OWN: dict[str, dict[str, Any]] = {
    # The first image of the problems starts below the last level and so has one level only.
    "dynamicdps": {"start_rule": StartLevelRule((0.01, 0.03), (0.01, 0.3)), "stop_sigma": 0.1},
    # 8 steps. Its constant steps over a steep contrast make 0.08 of 1e-6 within 19: no place to look for equality.
    "dynamicdps-paper": {"start_sigma": 0.01},
    "daps": {"langevin_steps": 5},
}
NOT_RANDOM = {"conditional", "data-step", "tv"}
NEED_LINEAR = {"projection", "mcg", "ccdf", "pigdm", "ddnm", "ddrm", "diffpir", "dds", "tv"}
NEED_SINGULAR_VALUES = {"ddnm", "ddrm"}
SAMPLERS = [name for name in available() if issubclass(find_solver(name)[1], SamplerConfig)]

every_solver = pytest.mark.parametrize("name", available())
every_sampler = pytest.mark.parametrize("name", SAMPLERS)
both_operators = pytest.mark.parametrize("operator", [LINEAR, BENT], ids=["linear", "bent"])


class TwoTissues:
    """The exact denoiser of independent pixels that are dark or bright: not linear, each pixel for itself."""

    values, deviation, data_mean = (0.2, 0.7), 0.1, 0.45

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        variance = self.deviation**2 + sigma.to(x).view(-1, 1, 1, 1) ** 2
        low, high = self.values
        bright = torch.sigmoid((high - low) * (x - (low + high) / 2) / variance)
        centre = low + (high - low) * bright
        return centre + self.deviation**2 / variance * (x - centre)


class Counting(TwoTissues):
    """Counts the images that pass forward and back."""

    def __init__(self) -> None:
        self.forward, self.backward = 0, 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.forward += len(x)
        out = super().__call__(x, sigma)
        if out.requires_grad:
            out.register_hook(lambda _: setattr(self, "backward", self.backward + len(x)))
        return out


class Half(TwoTissues):
    """Computes in bfloat16."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return super().__call__(x.bfloat16(), sigma.bfloat16()).to(x.dtype)


class Plain(Operator):
    """The linear operator above as a user would write it: nothing but a forward model."""

    def forward(self, x: Tensor) -> Tensor:
        return LINEAR.forward(x)

    def grid(self, image: Grid) -> Grid:
        return LINEAR.grid(image)


class Wrapped(LinearOperator, Plain):
    """It says that it is linear."""


class Squared(Plain):
    """Not linear."""

    def forward(self, x: Tensor) -> Tensor:
        return LINEAR.forward(x.square())


def settings_of(name: str, **more: Any) -> Any:
    """The solver's configuration with few steps."""
    known = {f.name for f in fields(find_solver(name)[1])}
    values = USUAL | OWN.get(name, {}) | more
    return make_config(name, {key: value for key, value in values.items() if key in known})


def problem(operator: Operator, count: int = 4, depth: int | None = None) -> tuple[Tensor, Tensor]:
    """Measurements, and initial images that are off by a tilt, each more than the one before and the first by none."""
    shape = (count, 1, HEIGHT, WIDTH) if depth is None else (count, 1, depth, HEIGHT, WIDTH)
    generator = torch.Generator().manual_seed(7)
    bright = torch.rand(shape, generator=generator) < 0.5
    truth = 0.2 + 0.5 * bright + 0.1 * torch.randn(shape, generator=generator)
    y = add_noise(operator(truth), NOISE, [torch.Generator().manual_seed(i) for i in range(count)])
    wrong = torch.linspace(0, 0.2, count).view(-1, *[1] * (len(shape) - 1))
    return y, (truth + wrong * torch.linspace(-1, 1, WIDTH)).clamp(0, 1)


def run(name: str, y: Tensor, operator: Operator, initial: Tensor, seed: int | torch.Generator = 5, **more: Any) -> Reconstruction:
    denoiser = more.pop("denoiser", TwoTissues())
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    return solve_tensors(name, [DataTerm(y, operator, NOISE)], denoiser, initial, generator=generator, config=settings_of(name, **more))


# Batches.


@every_solver
@both_operators
def test_image_alone_is_image_in_a_batch(name: str, operator: LowField) -> None:
    """An image's noise depends on its place in what is solved, nothing else of it on the others."""
    y, initial = problem(operator)
    whole = run(name, y, operator, initial)
    generator = torch.Generator().manual_seed(5)
    parts = [run(name, y[i : i + 1], operator, initial[i : i + 1], generator) for i in range(len(y))]
    torch.testing.assert_close(torch.cat([part.image for part in parts]), whole.image, atol=1e-5, rtol=0)
    for count in ("nfe", "nbackward"):
        assert torch.equal(torch.cat([getattr(part, count) for part in parts]), getattr(whole, count))
    torch.testing.assert_close(torch.cat([part.start_sigma for part in parts]), whole.start_sigma)


@every_solver
def test_other_images_and_their_order_change_nothing(name: str) -> None:
    """The images at two places stay; those around them change places or are replaced."""
    y, initial = problem(LINEAR)
    whole = run(name, y, LINEAR, initial).image
    for order in ([3, 1, 2, 0], [0, 1, 2, 2], [2, 1, 2, 1]):
        found = run(name, y[order], LINEAR, initial[order]).image
        torch.testing.assert_close(found[1:3], whole[1:3], atol=1e-5, rtol=0)


@every_solver
def test_operator_parameters_of_each_image(name: str) -> None:
    """Contrast and blur that differ per image: in a batch as alone."""
    operator = replace(LINEAR, gamma=torch.tensor([0.6, 1.0, 1.3]), blur=torch.tensor([0.0, 0.5, 1.0]))
    y, initial = problem(operator, 3)
    whole = run(name, y, operator, initial).image
    generator = torch.Generator().manual_seed(5)
    for i in range(3):
        alone = run(name, y[i : i + 1], operator.select(torch.tensor([i])), initial[i : i + 1], generator).image
        torch.testing.assert_close(alone, whole[i : i + 1], atol=2e-4 if name == "tv" else 2e-5, rtol=0)


@every_sampler
def test_chunks_change_nothing(name: str) -> None:
    y, initial = problem(LINEAR)
    one, many = (run(name, y, LINEAR, initial, chunk=chunk).image for chunk in (1, 8))
    torch.testing.assert_close(one, many, atol=1e-5, rtol=0)


# Image size. Where the algorithm is defined by the norm (not squared) of the whole image's residual, its step depends on the size:
# twice the image has a residual sqrt(2) as long, so each pixel's part of the gradient is that much shorter.
GLOBAL_NORM = {
    "dps": "step along the gradient of |y - A(x0)|",
    "dps+": "as DPS",
    "mcg": "as DPS; the projection takes it out of what is measured only",
    "dynamicdps-paper": "step along the gradient of a sum of norms",
}


@every_solver
@both_operators
def test_image_repeated_side_by_side_gives_the_result_repeated(name: str, operator: LowField, monkeypatch: pytest.MonkeyPatch) -> None:
    """No constant of a solver depends on the number of pixels: with noise that is repeated too, both copies give what one gives alone."""
    from dynamicdps.solvers import samplers

    draw = samplers.noise_like

    def tiled(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        # Measurements are half as wide as images.
        own = WIDTH if x.shape[-2] == HEIGHT else WIDTH // 2
        return draw(x[..., :own], generators).repeat(1, 1, 1, x.shape[-1] // own)

    monkeypatch.setattr(samplers, "noise_like", tiled)
    y, initial = problem(operator, 2)
    one = run(name, y, operator, initial)
    two = run(name, y.repeat(1, 1, 1, 2), operator, initial.repeat(1, 1, 1, 2))
    difference = (two.image - one.image.repeat(1, 1, 1, 2)).abs()
    if name == "tv":
        # It joins neighbours: the copies see each other at the seam, and no further than a flat region reaches.
        assert difference[..., : WIDTH // 2].mean() < 0.1 * difference[..., WIDTH - 2 : WIDTH + 2].mean()
        return
    difference = difference.max()
    if name in GLOBAL_NORM:
        assert difference > 1e-4
    else:
        assert difference < 1e-4
        torch.testing.assert_close(two.start_sigma, one.start_sigma, rtol=1e-4, atol=0)
        torch.testing.assert_close(two.misfit, one.misfit, rtol=1e-3, atol=1e-4)


# Seeds and inputs.


@every_solver
def test_same_seed_same_result(name: str) -> None:
    y, initial = problem(BENT)
    first, second, other = (run(name, y, BENT, initial, seed) for seed in (5, 5, 6))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.misfit, second.misfit)
    assert torch.equal(first.image, other.image) == (name in NOT_RANDOM)


@every_sampler
def test_first_samples_stay_when_more_are_drawn(name: str) -> None:
    """The mean of two and the uncertainty hold the sample that is drawn alone; without `finish`, which moves the mean, exactly."""
    y, initial = problem(LINEAR)
    more = {"estimate": "sample"} if name == "dynamicdps" else {}
    one, two, three = (run(name, y, LINEAR, initial, samples=count, **more) for count in (1, 2, 3))
    second = 2 * two.image - one.image
    assert one.uncertainty is None
    assert two.uncertainty is not None
    torch.testing.assert_close(two.uncertainty, (second - one.image).abs() / 2, atol=1e-5, rtol=0)
    # The third waits for its partner.
    torch.testing.assert_close(three.uncertainty, two.uncertainty, atol=1e-5, rtol=0)
    assert not torch.equal(second, one.image)


@every_solver
@both_operators
def test_inputs_are_left_alone(name: str, operator: LowField) -> None:
    y, initial = problem(operator)
    before = y.clone(), initial.clone()
    found = run(name, y, operator, initial)
    found.image.sum()
    assert torch.equal(y, before[0])
    assert torch.equal(initial, before[1])
    assert not found.image.requires_grad
    assert found.image.shape == initial.shape
    assert found.image.isfinite().all()


# Counts.


@every_solver
def test_passes_are_counted(name: str) -> None:
    """``nfe`` and ``nbackward`` are what the denoiser saw, image by image."""
    y, initial = problem(LINEAR)
    counting = Counting()
    found = run(name, y, LINEAR, initial, denoiser=counting)
    assert int(found.nfe.sum()) == counting.forward
    assert int(found.nbackward.sum()) == counting.backward
    assert (counting.forward > 0) == (name in SAMPLERS)


def test_an_image_whose_levels_have_ended_leaves_the_batch() -> None:
    """The first initial image explains its measurement: its start, which the noise decides on, lies below the last level."""
    y, initial = problem(LINEAR)
    counting = Counting()
    config = replace(settings_of("dynamicdps"), stop_sigma=0.1)
    found = solve_tensors("dynamicdps", [DataTerm(y, LINEAR, NOISE)], counting, initial, generator=torch.Generator(), config=config)
    assert found.nfe.tolist() == [2, 8, 8, 8]
    assert int(found.nfe.sum()) == counting.forward


@every_sampler
def test_progress_and_trace_follow_the_steps(name: str) -> None:
    """Steps done rise by one up to what is planned; the trace has one entry a step with one number an image."""
    y, initial = problem(LINEAR)
    seen: list[tuple[int, int]] = []
    found = solve_tensors(
        name,
        [DataTerm(y, LINEAR, NOISE)],
        TwoTissues(),
        initial,
        generator=torch.Generator(),
        config=settings_of(name),
        progress=lambda done, planned: seen.append((done, planned)),
    )
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))]
    assert len(seen) == 2 * len(found.trace)
    levels = torch.stack([step.sigma for step in found.trace])
    assert (levels.diff(dim=0) <= 0).all()
    for i, step in enumerate(found.trace):
        assert step.step == i
        for numbers in (step.sigma, step.misfit, step.step_length, step.outcome):
            assert numbers.shape == (len(y),)
            assert numbers.isfinite().all()


# Precision.


@every_solver
def test_denoiser_in_bfloat16_changes_little(name: str) -> None:
    """Three digits in the denoiser: the result moves by its rounding (0.002 at 0.5), and by no more where it has many steps."""
    y, initial = problem(LINEAR)
    full, half = (run(name, y, LINEAR, initial, denoiser=denoiser).image for denoiser in (TwoTissues(), Half()))
    assert half.dtype == torch.float32
    assert (half - full).square().mean().sqrt() < 0.01


@every_solver
@both_operators
def test_float64_agrees_with_float32(name: str, operator: LowField) -> None:
    y, initial = problem(operator)
    single, double = run(name, y, operator, initial), run(name, y.double(), operator, initial.double())
    assert double.image.dtype == torch.float64
    torch.testing.assert_close(double.image.float(), single.image, atol=1e-3, rtol=0)
    torch.testing.assert_close(double.misfit.float(), single.misfit, atol=0.02, rtol=1e-2)


# Operators.


@every_solver
def test_volumes_with_thick_slices(name: str) -> None:
    """Two volumes of 6 slices measured as 2: shape is kept, and a volume is one image: alone as in a batch."""
    y, initial = problem(THICK, 2, depth=6)
    assert y.shape == (2, 1, 2, HEIGHT // 2, WIDTH // 2)
    found = run(name, y, THICK, initial)
    assert found.image.shape == initial.shape
    assert found.image.isfinite().all()
    assert found.misfit.shape == found.nfe.shape == (2,)
    assert found.uncertainty is None or found.uncertainty.shape == initial.shape
    generator = torch.Generator().manual_seed(5)
    alone = torch.cat([run(name, y[i : i + 1], THICK, initial[i : i + 1], generator).image for i in range(2)])
    torch.testing.assert_close(alone, found.image, atol=1e-4, rtol=0)


@every_solver
def test_operator_that_is_not_linear(name: str) -> None:
    """A solver works with it or says in one sentence that it cannot."""
    operator = Squared()
    y, initial = problem(operator)
    if name in NEED_LINEAR:
        with input_error("not linear"):
            run(name, y, operator, initial)
        return
    found = run(name, y, operator, initial)
    assert found.image.isfinite().all()


@every_solver
def test_linear_operator_with_nothing_but_a_forward_model(name: str) -> None:
    """Inverses by conjugate gradients instead of singular values: the same result."""
    y, initial = problem(LINEAR)
    if name in NEED_SINGULAR_VALUES:
        with input_error("singular values"):
            run(name, y, Wrapped(), initial)
        return
    expected, found = run(name, y, LINEAR, initial), run(name, y, Wrapped(), initial)
    torch.testing.assert_close(found.image, expected.image, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", sorted(NEED_LINEAR))
def test_contrast_is_undone_with_a_warning(name: str) -> None:
    y, initial = problem(BENT)
    assert len(run(name, y, BENT, initial).warnings) == 1
    assert run(name, *(problem(LINEAR)[0], LINEAR, initial)).warnings == []


# Settings.


@every_solver
def test_unknown_setting_is_refused(name: str) -> None:
    with input_error("no setting 'colour'"):
        make_config(name, {"colour": 1})


@every_sampler
@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": "many"},
        {"steps": 2.5},
        {"steps": True},
        {"samples": 0},
        {"chunk": -1},
        {"eta": 1.5},
        {"eta": "nan"},
        {"spacing": "even"},
        {"stop_sigma": 0},
        {"start_sigma": -0.1},
        {"start_sigma": "high"},
        {"rho": 0},
    ],
    ids=str,
)
def test_wrong_values_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with input_error():
        make_config(name, wrong)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("dynamicdps", {"estimate": "best"}),
        ("dynamicdps", {"line_search": "exact"}),
        ("dynamicdps", {"start_quantile": 2}),
        ("dynamicdps", {"blend": "perhaps"}),
        ("dynamicdps", {"start_rule": "bank"}),
        ("dynamicdps-paper", {"search_every": 0}),
        ("dps", {"step": "long"}),
        ("tv", {"weight": [1]}),
        ("conditional", {"steps": 3}),
        ("unknown", {}),
    ],
    ids=str,
)
def test_wrong_values_of_one_solver_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with input_error():
        make_config(name, wrong)


@every_sampler
def test_text_is_read_as_what_the_setting_wants(name: str) -> None:
    config = make_config(name, {"steps": "7", "eta": "0.5", "start_sigma": "0.3", "spacing": "log", "chunk": 2.0})
    assert (config.steps, config.eta, config.start_sigma, config.spacing, config.chunk) == (7, 0.5, 0.3, "log", 2)
    assert isinstance(config.steps, int)
    assert isinstance(config.chunk, int)
    assert make_config("dynamicdps", {"blend": "True", "start_quantile": "0.5"}).blend is True


@every_solver
def test_configuration_of_another_solver_is_refused(name: str) -> None:
    y, initial = problem(LINEAR)
    with pytest.raises(TypeError, match="expected a"):
        solve_tensors(name, [DataTerm(y, LINEAR, NOISE)], TwoTissues(), initial, generator=torch.Generator(), config=LINEAR)


# What samplers share.


def one_run(x: Tensor, sigma: Tensor, levels: Tensor | None = None, chunk: int = 8) -> Run:
    zeros = torch.zeros(len(x), dtype=torch.long)
    generators = [torch.Generator().manual_seed(i) for i in range(len(x))]
    levels = sigma[None] if levels is None else levels
    return Run(x, levels, generators, as_prior(TwoTissues()), chunk, lambda _: None, zeros, zeros.clone())


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (2, 1, 3, 4, 4)])
@pytest.mark.parametrize("chunk", [1, 8])
def test_pullback_is_the_transposed_jacobian(shape: tuple[int, ...], chunk: int) -> None:
    """Against central differences, on slices and volumes, whole and in chunks."""
    generator = torch.Generator().manual_seed(0)
    x, w, p = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    sigma = torch.linspace(0.1, 0.5, len(x), dtype=torch.float64)
    this = one_run(x, sigma, chunk=chunk)
    denoised, pullback = this.denoise_with_pullback(x, sigma)
    step = 1e-5
    ahead, behind = this.denoise(x + step * p, sigma), this.denoise(x - step * p, sigma)
    along = (ahead - behind) / (2 * step)
    torch.testing.assert_close((pullback(w) * p).sum(), (w * along).sum(), rtol=1e-7, atol=1e-9)
    assert torch.equal(denoised, this.denoise(x, sigma))
    assert not denoised.requires_grad
    assert this.nfe.tolist() == [4] * len(x)
    assert this.nbackward.tolist() == [1] * len(x)


@pytest.mark.parametrize("spacing", ["karras", "log", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_levels_fall_from_start_to_stop(spacing: str, steps: int) -> None:
    """Each image from its own start; a start below the stop stays where it is; the table's levels are rounded to its steps."""
    start = torch.tensor([10.0, 1.0, 0.05, 0.004])
    config = SamplerConfig(steps=steps, stop_sigma=0.01, spacing=spacing)
    levels = config.levels(start)
    assert levels.shape == (steps, 4)
    tolerance = 0.2 if spacing == "cosine" else 1e-5
    torch.testing.assert_close(levels[0], start, rtol=tolerance, atol=0)
    if steps > 1:
        torch.testing.assert_close(levels[-1], start.clamp(max=0.01), rtol=tolerance, atol=0)
    falling = levels.diff(dim=0)
    assert (falling <= 1e-9).all()
    if spacing == "cosine":
        assert torch.isin(levels, cosine_levels()).all()
    else:
        assert (falling[:, :3] < 0).all()
        assert (falling[:, 3] == 0).all()
    torch.testing.assert_close(config.levels(start[1:2])[:, 0], levels[:, 1])


def test_spacings_are_what_they_say() -> None:
    """Karras: equal steps in ``sigma^(1 / rho)``; log: equal ratios, the limit of large rho."""
    start = torch.tensor([10.0])
    karras, log, steep = (
        SamplerConfig(steps=20, **more).levels(start)[:, 0].double() for more in ({"rho": 3.0}, {"spacing": "log"}, {"rho": 1e3})
    )
    roots = karras.pow(1 / 3).diff()
    torch.testing.assert_close(roots, roots.mean().expand_as(roots), rtol=1e-4, atol=0)
    ratios = log[1:] / log[:-1]
    torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios), rtol=1e-4, atol=0)
    torch.testing.assert_close(steep, log, rtol=0.05, atol=0)


HIGH, LOW = 0.8, 0.3


def noisy_step(step: Callable[[Run, Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Noise of unit variance before a step from one level to the next, and the state's distance from x0 after it."""
    x0 = torch.rand(1, 1, 400, 400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    levels = torch.tensor([[HIGH], [LOW]], dtype=torch.float64)
    x = x0 + HIGH * noise
    return noise, step(one_run(x, levels[0], levels), x, x0) - x0


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_step(eta: float) -> None:
    """Song et al. 2021: given x0 the state has the next level's variance for any eta.

    With ``eta = 1`` it is the ancestral posterior: mean ``(down / sigma)^2`` of the way, variance ``down^2 (1 - (down / sigma)^2)``.
    """
    noise, after = noisy_step(lambda run, x, x0: run.step_down(x, x0, *run.levels, eta))
    error = 4 / noise.numel() ** 0.5
    assert after.std().item() == pytest.approx(LOW, rel=error)
    slope = float((after * noise).mean() / noise.square().mean())
    fresh = eta * LOW * (1 - (LOW / HIGH) ** 2) ** 0.5
    assert slope == pytest.approx((LOW**2 - fresh**2) ** 0.5, abs=error)
    assert (after - slope * noise).std().item() == pytest.approx(fresh, rel=error, abs=1e-9)
    if eta == 1:
        assert slope == pytest.approx(LOW**2 / HIGH, abs=error)
    if eta == 0:
        torch.testing.assert_close(after, LOW * noise)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_renewed_step(share: float) -> None:
    """Zhu et al. 2023, eq. 14: a share of the noise's variance is drawn anew, the total is the next level's."""
    noise, after = noisy_step(lambda run, x, x0: run.renew(x, x0, *run.levels, share))
    error = 4 / noise.numel() ** 0.5
    assert after.std().item() == pytest.approx(LOW, rel=error)
    slope = float((after * noise).mean() / noise.square().mean())
    assert slope == pytest.approx(LOW * (1 - share) ** 0.5, abs=error)
    if share == 0:
        torch.testing.assert_close(after, LOW * noise)


@pytest.mark.parametrize("warm", [True, False])
def test_start_is_the_initial_image_or_pure_noise(warm: bool) -> None:
    """A warm start is noised from the initial image; pure noise has the prior's mean and does not know the initial image."""
    y, initial = problem(LINEAR)
    starts = []

    def sample(run: Run) -> Tensor:
        starts.append(run.x)
        return run.x

    config = SamplerConfig(steps=1, samples=2, start_sigma=1e-4 if warm else None)
    found = run_samples(sample, DataTerm(y, LINEAR, NOISE), TwoTissues(), initial, config, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.image, torch.stack(starts).mean(0))
    if warm:
        torch.testing.assert_close(starts[0], initial, atol=1e-3, rtol=0)
    else:
        other = run_samples(
            sample, DataTerm(y, LINEAR, NOISE), TwoTissues(), 0 * initial, config, generator=torch.Generator().manual_seed(0)
        )
        assert torch.equal(found.image, other.image)
        level = float(found.start_sigma[0])
        assert abs(float(starts[0].mean()) - 0.45) < 4 * level / starts[0].numel() ** 0.5
        assert starts[0].std().item() == pytest.approx(level, rel=0.1)


# Memory.


@pytest.fixture
def only_new_objects() -> Iterator[None]:
    """What is there already is hidden from the garbage collector."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def images_alive(name: str, **more: Any) -> int:
    """Images and measurements that are alive in the last step."""
    y, initial = problem(LINEAR)
    alive = 0

    def count(done: int, planned: int) -> None:
        nonlocal alive
        if done == planned:
            gc.collect()
            alive = sum(type(o) is Tensor and o.ndim >= 4 for o in gc.get_objects())

    config = settings_of(name, **more)
    solve_tensors(name, [DataTerm(y, LINEAR, NOISE)], TwoTissues(), initial, generator=torch.Generator(), config=config, progress=count)
    return alive


@every_sampler
@pytest.mark.usefixtures("only_new_objects")
def test_memory_does_not_grow_with_steps_or_samples(name: str) -> None:
    few, many = ({"start_sigma": 0.006}, {"start_sigma": 0.02}) if name == "dynamicdps-paper" else ({"steps": 4}, {"steps": 12})
    base = images_alive(name, **few)
    assert base > 2
    assert images_alive(name, **many) == base
    assert images_alive(name, samples=5, **few) == base


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("daps", "noise_scale=0"),
        ("daps", "langevin_rate=-1"),
        ("daps", "ode_steps=0"),
        ("diffpir", "weight=0"),
        ("pigdm", "noise_scale=-2"),
        ("dps", "step=0"),
        ("dynamicdps", "stop_sigma=0"),
        ("dynamicdps", "rho=-1"),
        ("dynamicdps-paper", "search_every=0"),
        ("tv", "weight=-1"),
        ("data-step", "spread=0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(name: str, setting: str) -> None:
    key, value = setting.split("=")
    with input_error(key):
        make_config(name, {key: value})


def test_images_of_different_start_steps_do_not_influence_each_other() -> None:
    """The paper's process counts down from each image's own step: searches and noise are the image's, whoever started earlier."""
    y, initial = (t.double() for t in problem(LINEAR))
    config = PaperConfig(bank=BankRule(tuple(1.0 + k for k in range(20)), tau=0.5))

    def solve_some(index: list[int], generator: torch.Generator) -> Reconstruction:
        return solve_tensors(
            "dynamicdps-paper", [DataTerm(y[index], LINEAR, NOISE)], TwoTissues(), initial[index], generator=generator, config=config
        )

    together = solve_some([0, 1, 2, 3], torch.Generator().manual_seed(5))
    assert len(set(together.start_sigma.tolist())) > 1
    shared = torch.Generator().manual_seed(5)
    alone = [solve_some([k], shared) for k in range(4)]
    torch.testing.assert_close(torch.cat([one.image for one in alone]), together.image, atol=1e-6, rtol=0)
    assert torch.equal(torch.cat([one.nfe for one in alone]), together.nfe)

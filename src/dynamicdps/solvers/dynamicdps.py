"""DynamicDPS (Kim et al. 2025): posterior sampling from the conditional model's output, each image from its own noise level."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, ErrorCorrelation, join, pooled_residual
from dynamicdps.data_term.data_step import METHODS, DataStep, data_step
from dynamicdps.data_term.line_search import LINE_SEARCHES, search
from dynamicdps.operators.inner_products import inner, norm, put, take
from dynamicdps.operators.parameters import per_image
from dynamicdps.operators.precision import wide_type
from dynamicdps.priors import Denoiser, Prior, as_prior
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.registry import register
from dynamicdps.solvers.samplers import Run, SamplerConfig, run_samples
from dynamicdps.solvers.start_level import StartRule, start_rule_of

GRADIENTS = ("image", "network")
ESTIMATES = ("mean", "sample", "deterministic")
NOISES = ("renewed", "ancestral")
KEPT = ("last", "best")
# Of the conjugate gradients in the loop: the next level moves the image by far more than what is left.
LOOP_TOLERANCE = 2e-2
# Of the last data step, where what is left stays; the first keeps the data step's own, for all samples start from it.
LAST_TOLERANCE = 1e-3
# Directions of the first and the last data step: of Gauss-Newton, and of methods that know a gradient only.
OUTER_ITERATIONS = 2
OUTER_ITERATIONS_OF_GRADIENTS = 4


# What `--quality` stands for: docs/performance.md says what each costs and gives.
QUALITIES: dict[str, dict[str, Any]] = {"fast": {"estimate": "deterministic"}, "default": {}, "best": {"samples": 8, "steps": 8}}


@dataclass(frozen=True)
class DynamicDPSConfig(SamplerConfig):
    """How to run DynamicDPS; the defaults are what docs/results.md measures.

    Attributes:
        samples: posterior samples that the mean is of, in pairs of opposite noise; each costs one denoiser pass a level.
        start_sigma: one start level for all images, image intensities; `None` chooses by the start rule.
        start_rule: how each image's start level follows from its misfit; `None` is the calibration in the prior's model card.
        start_quantile: 0 to 1, of the calibrated rule: higher is safer (more of the initial image is washed out), lower is more
            faithful to it; `None` is the level of lowest mean error.
        estimate: ``"mean"`` of the samples; ``"sample"``: posterior samples as they are, drawn and not only most probable in the
            data step (of several the mean is still returned); ``"deterministic"``: no noise anywhere.
        gradient: ``"image"``: data steps on the denoised image (operator calls only); ``"network"``: gradient steps through the
            denoiser, the paper's form; levels fall by DDIM steps with `eta` there, and `noise`, `blend`, `discrepancy` and
            `data_iterations`, which are of the other form, are refused or have no part in it.
        data_method: of the data step: ``"gauss-newton"``, ``"l-bfgs"`` or ``"gradient"``.
        line_search: ``"wolfe"``, ``"armijo"`` or ``"constant"``.
        data_iterations: most steps along a direction in each data step; 0 is 1, and 2 for ``estimate="sample"``, where what one
            step leaves of a bent contrast would be a bias of the draws.
        discrepancy: data steps end at this misfit in standard deviations of the noise; 0 goes to the minimum.
        noise: ``"renewed"``: a share `eta` of the noise's variance is drawn anew (Zhu et al. 2023); ``"ancestral"``: DDIM steps
            with `eta` (Song et al. 2021).
        blend: blend the initial image in, with a share that falls from 1 at the start to 0 at the end (the paper's w).
        keep: return the ``"last"`` estimate of each sample or the one that fits the data ``"best"``.
        spread_scale: factor on the denoiser's error r(sigma) in the data step.
    """

    may_be_zero: ClassVar[tuple[str, ...]] = (*SamplerConfig.may_be_zero, "discrepancy", "start_quantile", "data_iterations")

    samples: int = 2
    steps: int = 5
    stop_sigma: float = 0.02
    start_rule: StartRule | None = None
    start_quantile: float | None = None
    estimate: str = "mean"
    gradient: str = "image"
    data_method: str = "gauss-newton"
    line_search: str = "wolfe"
    data_iterations: int = 0
    discrepancy: float = 0.0
    noise: str = "renewed"
    blend: bool = False
    keep: str = "last"
    spread_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "estimate": ESTIMATES,
            "gradient": GRADIENTS,
            "data_method": METHODS,
            "line_search": LINE_SEARCHES,
            "noise": NOISES,
            "keep": KEPT,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        if self.gradient == "network":
            given = [name for name in ("blend", "discrepancy", "data_iterations") if getattr(self, name)]
            if given:
                raise ValueError(
                    f"{given[0]} is {getattr(self, given[0])} with gradient 'network'; expected none: it is of gradient 'image'"
                )
        if self.start_quantile is not None and not 0 <= self.start_quantile <= 1:
            raise ValueError(f"start_quantile is {self.start_quantile}; expected 0 to 1")

    @property
    def differentiates(self) -> bool:
        return self.gradient == "network"


@register("dynamicdps", config=DynamicDPSConfig)
def solve_dynamicdps(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: DynamicDPSConfig = DynamicDPSConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Take out of an initial image what the measurement contradicts.

    1. The misfit of the initial image gives each image's start level (Kim et al. 2025, section 2.2), and how much of the initial image
       itself goes into the estimate: where it explains the data it knows things that the prior does not.
    2. One data step mends what the operator alone explains (contrast, blur), so that only structure is left to the prior.
    3. From there, noised to the start level, the levels fall; at each the denoised image is made consistent with the data. An image
       whose levels have ended leaves the batch.

    Args:
        terms: what was measured of the images; several measurements of one image are explained together.
        prior: the prior, or a denoiser of slices.
        initial: the conditional model's output, image shape, batch first.
        generator: source of all randomness; an image's noise does not depend on the rest of the batch.
        config: see `DynamicDPSConfig`.
        progress: called with steps done and planned.
    """
    term = join(terms)
    prior = as_prior(prior)
    start, initial_weight, outside = choose_start(terms, initial, config, prior)
    # A draw is exact with independent noise only.
    errors = correlated_errors(prior, term, initial, config)
    first = initial_step(term, initial, start, config, errors)
    if config.estimate == "deterministic":
        config = replace(config, samples=1, eta=0.0)

    def sample(run: Run) -> Tensor:
        if config.estimate == "deterministic":
            run.x = first.x
        if config.gradient == "network":
            return _sample_network(run, term, first.x, config)
        return _sample_image(run, term, first.x, config, errors)

    last_calls = 0

    def finish(mean: Tensor, last_level: Tensor) -> Tensor:
        # Each sample explains the data, their mean does not where A bends: a last data step within what the samples leave open.
        nonlocal last_calls
        mean = mean + per_image(initial_weight, mean) * (first.x - mean)
        spread = config.spread_scale * prior.error(last_level)
        last = data_step(
            term,
            mean,
            spread,
            method=config.data_method,
            line_search=config.line_search,
            iterations=outer_iterations(config),
            cg_tolerance=LAST_TOLERANCE,
            discrepancy=config.discrepancy,
            errors=errors,
        )
        last_calls = last.operator_calls
        return last.x

    found = run_samples(
        sample,
        term,
        prior,
        first.x,
        config,
        generator=generator,
        progress=progress,
        start=start,
        finish=finish if config.estimate == "mean" else None,
    )
    return replace(found, operator_calls=found.operator_calls + first.operator_calls + last_calls, outside_calibration=outside)


def correlated_errors(prior: Prior, term: DataTerm, initial: Tensor, config: DynamicDPSConfig) -> ErrorCorrelation | None:
    """How the prior's errors correlate along z; `None` where that changes nothing or is not wanted.

    Where slices are measured one by one each is corrected by its own measurement. A draw is exact with independent errors only.
    """
    known = prior.domain.error_correlation
    if not term.operator.couples_slices or initial.ndim == 4 or initial.shape[2] == 1 or len(known) == 1 or config.estimate == "sample":
        return None
    return ErrorCorrelation.of_distances(initial.shape[2], known)


def initial_step(
    term: DataTerm,
    initial: Tensor,
    start: Tensor,
    config: DynamicDPSConfig,
    errors: ErrorCorrelation | None = None,
) -> DataStep:
    """The data step on the initial image; it is off by about what its start level washes out: so far the step may take it."""
    return data_step(
        term,
        initial,
        2 * start,
        errors=errors,
        method=config.data_method,
        line_search=config.line_search,
        iterations=outer_iterations(config),
        discrepancy=config.discrepancy,
    )


def outer_iterations(config: DynamicDPSConfig) -> int:
    """Directions of the first and the last data step."""
    return OUTER_ITERATIONS if config.data_method == "gauss-newton" else OUTER_ITERATIONS_OF_GRADIENTS


def choose_start(terms: Sequence[DataTerm], initial: Tensor, config: DynamicDPSConfig, prior: Prior) -> tuple[Tensor, Tensor, Tensor]:
    """Start level of each image, weight of the initial one, and whether it lies outside the calibration, ``(batch,)`` each."""
    if config.start_sigma is not None:
        start = torch.full((len(initial),), config.start_sigma, device=initial.device)
        return start, torch.zeros_like(start), torch.zeros_like(start, dtype=torch.bool)
    rule = config.start_rule or start_rule_of(prior, initial.shape[2] if initial.ndim == 5 else 1)
    residual, noise_std = pooled_residual(terms, initial)
    start = rule(residual, noise_std, config.start_quantile)
    weight = rule.initial_weight(residual, noise_std) if config.start_quantile is None else torch.zeros_like(start)
    return start, weight, rule.outside(residual, noise_std)


def _sample_image(run: Run, term: DataTerm, x0: Tensor, config: DynamicDPSConfig, errors: ErrorCorrelation | None) -> Tensor:
    """One posterior sample with data steps on the denoised image."""
    x, start, out = run.x, x0, x0
    best = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    misfit, step_length = torch.zeros_like(best), torch.ones_like(best)
    outcome = torch.zeros(len(x), dtype=torch.long, device=x.device)
    previous = torch.full_like(run.levels[0], torch.inf)
    for sigma, down in run.steps():
        # An image whose start lies below the last level has that one level only.
        index = (sigma < previous).nonzero()[:, 0]
        previous = sigma
        if len(index):
            part, level = term.select(index), take(sigma, index)
            denoised = run.denoise(take(x, index), level, index)
            if config.blend:
                share = per_image(1 - (level - run.levels[-1][index]) / run.levels[0][index], denoised)
                denoised = share * denoised + (1 - share) * start[index]
            spread = config.spread_scale * run.error(level)
            if config.estimate == "sample":
                # The minimiser of a perturbed problem is a draw (exact for linear A; Papandreou and Yuille 2010).
                part = part.perturbed(run.noise(term.target.shape)[index])
                denoised = denoised + per_image(spread, denoised) * run.noise()[index]
            step = data_step(
                part,
                denoised,
                spread,
                method=config.data_method,
                line_search=config.line_search,
                iterations=config.data_iterations or (2 if config.estimate == "sample" else 1),
                cg_tolerance=LOOP_TOLERANCE,
                discrepancy=config.discrepancy,
                errors=errors,
            )
            run.operator_calls += step.operator_calls
            x0 = put(x0, index, step.x)
            misfit[index], step_length[index], outcome[index] = step.misfit, step.step, step.outcome
            better = index[(step.misfit < best[index]) | (config.keep == "last")]
            out = put(out, better, take(x0, better))
            best[better] = misfit[better]
        run.record(misfit.clone(), step_length.clone(), outcome.clone())
        move = run.step_down if config.noise == "ancestral" else run.renew
        x = move(x, x0, sigma, down, config.eta)
    return out


def _sample_network(run: Run, term: DataTerm, x0: Tensor, config: DynamicDPSConfig) -> Tensor:
    """One posterior sample with gradient steps through the denoiser (Chung et al. 2023, algorithm 1) and searched step lengths."""
    noise, y = term.noise.std, term.target
    x, out = run.x, x0
    best = torch.full((len(y),), torch.inf, dtype=wide_type(y.device), device=y.device)
    first = torch.ones(len(y), dtype=wide_type(y.device), device=y.device)
    size = (y[0].numel() * term.measured_fraction).sqrt()
    for sigma, down in run.steps():
        denoised, pullback = run.denoise_with_pullback(x, sigma)
        linearised = term.linearise(denoised)
        residual = (y - linearised.value) / noise
        # The norm, not its square, as in Chung et al.: its gradient is of one size whatever the misfit, and 1 is a fair first step.
        value = norm(residual)
        gradient = -pullback(linearised.vjp(residual / per_image(value, residual))) / noise
        direction = -noise * gradient
        phi = _through_network(run, x, direction, sigma, term)
        limits = {"c1": 1e-3, "c2": 0.8}
        found = search(config.line_search, phi, value, inner(gradient, direction), first, **limits)
        first = torch.where(found.step > 0, found.step, first).clamp_min(1e-3)
        run.operator_calls += 3 + 2 * int(found.trials.max())
        shift = per_image(found.step, x) * direction
        run.record(found.value / size, found.step, found.outcome)
        if not down.any():
            denoised = run.denoise(x + shift, sigma)
            value = norm(term.whitened(denoised))
        better = (value < best) | (config.keep == "last")
        out, best = torch.where(per_image(better, out) > 0, denoised, out), torch.where(better, value, best)
        x = run.step_down(x, denoised, sigma, down, config.eta) + shift
    return out


def _through_network(
    run: Run, x: Tensor, direction: Tensor, sigma: Tensor, term: DataTerm
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The norm of the standardised residual along a direction of the noisy image, with its slope; each trial is a pass and back."""

    def phi(steps: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        index = active.nonzero()[:, 0]
        denoised, pullback = run.denoise_with_pullback((x + per_image(steps, x) * direction)[index], sigma[index], index)
        part = term.select(index)
        linearised = part.linearise(denoised)
        residual = (part.target - linearised.value) / term.noise.std
        value = norm(residual)
        slope = -inner(pullback(linearised.vjp(residual / per_image(value, residual))), direction[index]) / term.noise.std
        full = torch.full_like(steps, torch.inf), torch.zeros_like(steps)
        return full[0].index_copy(0, index, value), full[1].index_copy(0, index, slope)

    return phi

"""DynamicDPS (Kim et al. 2025): posterior sampling from the conditional model's output, each image from its own noise level."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser, denoising_error, descending_levels
from dynamicdps.diffusion.sampling import image_generators, noise_like
from dynamicdps.operators import Operator
from dynamicdps.solvers.data_fidelity import data_misfit, data_step, inner, per_image
from dynamicdps.solvers.line_search import strong_wolfe
from dynamicdps.solvers.reconstruction import Progress, Reconstruction, TraceStep, denoise_images
from dynamicdps.solvers.start_level import StartLevelRule, excess_misfit, read_start_level

GRADIENTS = ("image", "network")


@dataclass(frozen=True)
class DynamicDPSConfig:
    """How to run DynamicDPS; the defaults are what docs/results.md measures.

    Attributes:
        samples: posterior samples; their mean is the estimate, their spread the uncertainty.
        steps: noise levels from the start down, each one denoiser pass a sample.
        start_sigma: one start level for all images, image intensities; `None` chooses by calibration.
        gradient: ``"image"``: data steps on the denoised image by Gauss-Newton (operator calls only); ``"network"``: gradient
            steps through the denoiser, the paper's form.
        renewal: share of the noise's variance that is drawn anew at each step; 1 forgets its direction, 0 is deterministic.
        stop_sigma: the last noise level.
        spread_scale: factor on the denoiser's error r(sigma) in the data step.
        chunk: slices a denoiser pass.
    """

    samples: int = 8
    steps: int = 5
    start_sigma: float | None = None
    gradient: str = "image"
    renewal: float = 1.0
    stop_sigma: float = 0.02
    spread_scale: float = 1.0
    chunk: int = 8


def solve_dynamicdps(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: DynamicDPSConfig = DynamicDPSConfig(),
    start_level: StartLevelRule | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Take out of an initial image what the measurement contradicts.

    1. The misfit of the initial image gives each image's start level (Kim et al. 2025, section 2.2).
    2. One data step mends what the operator alone explains (contrast, blur), so that only structure is left to the prior.
    3. From there, noised to the start level, the levels fall; at each the denoised image is made consistent with the data.

    Args:
        measurement: y, batch first, range [0, 1].
        operator: forward model A with its noise level.
        denoiser: the prior.
        initial: the conditional model's output, image shape, batch first.
        generator: source of all randomness; an image's noise does not depend on the rest of the batch.
        config: see `DynamicDPSConfig`.
        start_level: calibration; by default the bundled one.
        progress: called with denoiser passes done and planned.

    Raises:
        ValueError: the gradient is unknown or a count is below 1.
    """
    if config.gradient not in GRADIENTS or config.samples < 1 or config.steps < 1:
        raise ValueError(f"{config}: expected gradient image or network, samples and steps at least 1")
    batch = len(initial)
    warnings: list[str] = []
    excess = excess_misfit(measurement - operator(initial), operator.noise_std)
    if config.start_sigma is None:
        rule = start_level or read_start_level()
        start = rule(excess)
        outside = int(rule.outside(excess).sum())
        if outside:
            warnings.append(
                f"{outside} of {batch} images explain the measurement worse than any calibration image; their start level is the highest "
                f"calibrated one, {rule.sigma[-1]:.3g}"
            )
    else:
        start = torch.full((batch,), config.start_sigma, device=initial.device)
    levels = descending_levels(start, config.steps, config.stop_sigma)
    # The initial image is off by about what its start level washes out: that is how far its data step may take it.
    first = data_step(operator, measurement, initial, 2 * start, iterations=4)
    seeds = image_generators(generator, batch)
    mean, square = torch.zeros_like(initial), torch.zeros_like(initial)
    traces: list[list[TraceStep]] = []
    calls, trials = first.operator_calls, torch.zeros(batch, device=initial.device)
    for index in range(config.samples):
        generators = [torch.Generator().manual_seed(g.initial_seed() + index) for g in seeds]
        sampler = _sample_image if config.gradient == "image" else _sample_network

        def tick(step: int, index: int = index) -> None:
            if progress is not None:
                progress(index * config.steps + step + 1, config.samples * config.steps)

        sample, trace, used, extra = sampler(measurement, operator, denoiser, first.x, levels, generators, config, tick)
        traces.append(trace)
        calls, trials = calls + used, trials + extra
        # Welford's update: the spread of nearly equal samples must not cancel.
        delta = sample - mean
        mean = mean + delta / (index + 1)
        square = square + delta * (sample - mean)
    # Each sample explains the data, their mean does not where A bends: a last data step within what the samples leave open.
    spread = config.spread_scale * denoising_error(denoiser, levels[-1])
    last = data_step(operator, measurement, mean, spread, iterations=2)
    image = last.x
    nfe = torch.full((batch,), config.samples * config.steps, device=initial.device) + trials.long()
    return Reconstruction(
        image=image,
        misfit=data_misfit(operator, measurement, image),
        nfe=nfe,
        # The last pass of each sample needs no gradient.
        nbackward=nfe - config.samples if config.gradient == "network" else torch.zeros_like(nfe),
        start_sigma=start,
        uncertainty=(square / (config.samples - 1)).sqrt() if config.samples > 1 else None,
        operator_calls=calls + last.operator_calls,
        trace=_mean_trace(traces),
        warnings=warnings,
    )


def _sample_image(
    y: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    x0: Tensor,
    levels: Tensor,
    generators: Sequence[torch.Generator],
    config: DynamicDPSConfig,
    tick: Callable[[int], None],
) -> tuple[Tensor, list[TraceStep], int, Tensor]:
    """One posterior sample with data steps on the denoised image."""
    x = x0 + per_image(levels[0], x0) * noise_like(x0, generators)
    trace, calls = [], 0
    for i, sigma in enumerate(levels):
        with torch.no_grad():
            denoised = denoise_images(denoiser, x, sigma, config.chunk)
        tick(i)
        spread = config.spread_scale * denoising_error(denoiser, sigma)
        step = data_step(operator, y, denoised, spread, iterations=2)
        calls += step.operator_calls
        trace.append(TraceStep(i, sigma, step.misfit, step.step, step.outcome))
        x0 = step.x
        if i + 1 < len(levels):
            noise = (x - x0) / per_image(sigma, x)
            fresh = noise_like(x, generators)
            x = x0 + per_image(levels[i + 1], x) * ((1 - config.renewal) ** 0.5 * noise + config.renewal**0.5 * fresh)
    return x0, trace, calls, torch.zeros(len(y), device=y.device)


def _sample_network(
    y: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    x0: Tensor,
    levels: Tensor,
    generators: Sequence[torch.Generator],
    config: DynamicDPSConfig,
    tick: Callable[[int], None],
) -> tuple[Tensor, list[TraceStep], int, Tensor]:
    """One posterior sample with gradient steps through the denoiser (Chung et al. 2023, algorithm 1) and Wolfe step lengths."""
    noise = operator.noise_std
    x = x0 + per_image(levels[0], x0) * noise_like(x0, generators)
    trace, calls = [], 0
    passes = torch.zeros(len(y), device=y.device)
    first = torch.ones(len(y), dtype=torch.float64, device=y.device)
    for i, sigma in enumerate(levels):
        with torch.enable_grad():
            variable = x.detach().clone().requires_grad_()
            denoised = denoise_images(denoiser, variable, sigma, config.chunk)
            residual = (y - operator(denoised)) / noise
            # The norm, not its square, as in Chung et al.: its gradient is of one size whatever the misfit, and 1 is a fair first step.
            value = residual.double().flatten(1).square().sum(1).sqrt()
            gradient = torch.autograd.grad(value.sum(), variable)[0]
        tick(i)
        denoised, direction = denoised.detach(), -noise * gradient
        slope = inner(gradient, direction)

        def phi(
            steps: Tensor, active: Tensor, x: Tensor = x, direction: Tensor = direction, sigma: Tensor = sigma
        ) -> tuple[Tensor, Tensor]:
            chosen = active.nonzero()[:, 0]
            with torch.enable_grad():
                trial = (x + per_image(steps, x) * direction)[chosen].detach().requires_grad_()
                at = (y[chosen] - operator.select(chosen)(denoise_images(denoiser, trial, sigma[chosen], config.chunk))) / noise
                values = at.double().flatten(1).square().sum(1).sqrt()
                slopes = inner(torch.autograd.grad(values.sum(), trial)[0], direction[chosen])
            full = torch.full_like(steps, torch.inf), torch.zeros_like(steps)
            return full[0].index_copy(0, chosen, values.detach()), full[1].index_copy(0, chosen, slopes)

        search = strong_wolfe(phi, value.detach(), slope, first, c1=1e-3, c2=0.8)
        passes += search.trials
        first = torch.where(search.step > 0, search.step, first).clamp_min(1e-3)
        calls += 1 + int(search.trials.max())
        shift = per_image(search.step, x) * direction
        trace.append(TraceStep(i, sigma, (search.value / residual[0].numel() ** 0.5).to(x.dtype), search.step.to(x.dtype), search.outcome))
        if i + 1 == len(levels):
            with torch.no_grad():
                x0 = denoise_images(denoiser, x + shift, sigma, config.chunk)
            passes += 1
            break
        down, s = per_image(levels[i + 1], x), per_image(sigma, x)
        mean = denoised + (down / s) ** 2 * (x - denoised)
        x = mean + down * (1 - (down / s) ** 2).clamp_min(0).sqrt() * noise_like(x, generators) + shift
    return x0, trace, calls, passes


def _mean_trace(traces: Sequence[Sequence[TraceStep]]) -> list[TraceStep]:
    """The steps of several samples as one trace."""
    return [
        TraceStep(
            step=steps[0].step,
            sigma=steps[0].sigma,
            misfit=torch.stack([s.misfit for s in steps]).mean(0),
            step_length=torch.stack([s.step_length for s in steps]).mean(0),
            outcome=torch.stack([s.outcome for s in steps]).amax(0),
        )
        for steps in zip(*traces, strict=True)
    ]

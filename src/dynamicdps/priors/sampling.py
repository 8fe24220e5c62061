"""Unconditional sampling from the prior: what it has learned, seen directly."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]


def noise_like(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise, each image from its own generator: who else is in the batch changes nothing."""
    drawn = [torch.randn(x.shape[1:], generator=g, device=g.device) for g in generators]
    return torch.stack(drawn).to(x)


def image_generators(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """One generator an image, seeded in order from the caller's."""
    seeds = torch.randint(2**62, (count,), generator=generator, device=generator.device).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def sample_ancestral(
    denoiser: Step,
    x: Tensor,
    levels: Tensor,
    *,
    generators: Sequence[torch.Generator],
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Ancestral sampling (Song et al. 2021, appendix F; Ho et al. 2020 in noise-level form).

    Args:
        denoiser: the prior.
        x: the start, noised to ``levels[0]``: ``(batch, 1, height, width)``.
        levels: falling noise levels ``(steps, batch)``; after the last one the denoised image is returned.
        generators: one an image.
        callback: called with the step and the denoised image.
    """
    for i, sigma in enumerate(levels):
        denoised = denoiser(x, sigma)
        if callback is not None:
            callback(i, denoised)
        if i + 1 == len(levels):
            return denoised
        down, s = _like(levels[i + 1], x), _like(sigma, x)
        # Posterior of x_down given x and x0: mean on the line between them, variance down^2 (s^2 - down^2) / s^2.
        mean = denoised + (down / s) ** 2 * (x - denoised)
        x = mean + down * (1 - (down / s) ** 2).clamp_min(0).sqrt() * noise_like(x, generators)
    raise ValueError("there are no noise levels; expected at least one")


def sample_heun(
    denoiser: Step,
    x: Tensor,
    levels: Tensor,
    *,
    generators: Sequence[torch.Generator] = (),
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Second-order deterministic sampling (Karras et al. 2022, algorithm 1): Heun steps along the probability-flow ODE.

    Arguments as `sample_ancestral`; `generators` are not used. Costs ``2 * steps - 1`` denoiser evaluations.
    """
    for i, sigma in enumerate(levels):
        denoised = denoiser(x, sigma)
        if callback is not None:
            callback(i, denoised)
        if i + 1 == len(levels):
            return denoised
        s, down = _like(sigma, x), _like(levels[i + 1], x)
        slope = (x - denoised) / s
        euler = x + (down - s) * slope
        corrected = (euler - denoiser(euler, levels[i + 1])) / down
        x = x + (down - s) * (slope + corrected) / 2
    raise ValueError("there are no noise levels; expected at least one")


def _like(levels: Tensor, x: Tensor) -> Tensor:
    """Noise levels ``(batch,)`` in the shape of images."""
    return levels.view(-1, *[1] * (x.ndim - 1))

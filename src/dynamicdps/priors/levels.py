"""Noise levels: the one schedule object of the package.

Time is the standard deviation `sigma` of the noise in image-intensity units ([0, 1]): ``x = x0 + sigma * n``. The 1000-step
variance-preserving process of the paper is the table ``sigma_t = sqrt((1 - abar_t) / abar_t)``.
"""

import math

import torch
from torch import Tensor

SIGMA_MIN = 0.002
SIGMA_MAX = 40.0
N_STEPS = 1000


def cosine_levels(n_steps: int = N_STEPS) -> Tensor:
    """Noise levels of the cosine process, one a step, increasing: shape ``(n_steps,)``.

    Entry ``t`` is the level of step ``t + 1`` of the paper's process (Nichol and Dhariwal 2021, eq. 17, betas clipped at 0.999).
    The variance-preserving process lives on data of range [-1, 1]; its levels are halved to fit images in [0, 1].
    """
    steps = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
    alpha_bar = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    return (((1 - alpha_bar) / alpha_bar).sqrt() / 2).float()


def level_of_step(step: int, n_steps: int = N_STEPS) -> float:
    """Noise level of a step number of the paper's process, 0 (no noise) to `n_steps` (pure noise).

    Raises:
        ValueError: the step is outside that range.
    """
    if not 0 <= step <= n_steps:
        raise ValueError(f"the start step is {step}; expected 0 to {n_steps}")
    return 0.0 if step == 0 else float(cosine_levels(n_steps)[step - 1])


def descending_levels(start: Tensor, n_steps: int, stop: float, rho: float = 3.0) -> Tensor:
    """Levels from each image's start level down to `stop`: shape ``(n_steps, batch)``.

    Karras et al. 2022, eq. 5, with the first level per image. A start below `stop` gives a constant row of the start level.

    Args:
        start: start levels, ``(batch,)``.
        n_steps: number of levels (denoiser evaluations), at least 1.
        stop: the last level.
        rho: how much the levels crowd at the low end.
    """
    end = torch.minimum(start, torch.full_like(start, stop)) ** (1 / rho)
    ramp = torch.linspace(0, 1, n_steps, device=start.device)[:, None] if n_steps > 1 else torch.zeros(1, 1, device=start.device)
    begin = start ** (1 / rho)
    return (begin[None] + ramp * (end - begin)[None]) ** rho

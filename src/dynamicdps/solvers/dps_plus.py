"""DPS+: the gradient of DPS averaged over noisy copies of the denoised image (``ps+`` in the code of Chung et al. 2023)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dynamicdps.operators.inner_products import norm
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.dps import DPSConfig, vp_factor
from dynamicdps.solvers.samplers import Run, Sample, Task, sampler


@dataclass(frozen=True)
class DPSPlusConfig(DPSConfig):
    """How to run DPS+.

    Attributes:
        evaluations: noisy copies.
        jitter: standard deviation of their normal noise, image intensities. The authors' program adds uniform noise from 0 to 0.05 to
            images of range 2, which is narrower and has a mean that shifts the image; this noise has none.
    """

    may_be_zero: ClassVar[tuple[str, ...]] = (*DPSConfig.may_be_zero, "jitter")

    evaluations: int = 5
    jitter: float = 0.025


@sampler("dps+", DPSPlusConfig)
def solve_dps_plus(task: Task, config: DPSPlusConfig) -> Sample:
    """DPS with a smoothed misfit: the mean of ``|y - A(x0_hat + jitter n_k)|``; one backward pass a step, as in DPS."""
    term = task.term

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            denoised, pullback = run.denoise_with_pullback(x, sigma)
            run.record(term.misfit(denoised))
            if not down.any():
                break
            direction = torch.zeros_like(denoised)
            for _ in range(config.evaluations):
                linearised = term.linearise(denoised + config.jitter * run.noise())
                residual = term.target - linearised.value
                direction += linearised.vjp(residual / per_image(norm(residual), residual)) / config.evaluations
            run.operator_calls += 2 * config.evaluations
            shift = per_image(config.step * vp_factor(sigma, down), x) * pullback(direction)
            x = run.step_down(x, denoised, sigma, down, config.eta) + shift
        return denoised

    return sample

"""DPS+: the gradient of DPS averaged over noisy copies of the denoised image (``ps+`` in the code of Chung et al. 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import Operator
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.data_fidelity import data_misfit, norm
from dynamicdps.solvers.dps import DPSConfig, vp_factor
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.sampler import Run, run_samples


@dataclass(frozen=True)
class DPSPlusConfig(DPSConfig):
    """How to run DPS+.

    Attributes:
        evaluations: noisy copies.
        jitter: standard deviation of their normal noise, image intensities. The authors' program adds uniform noise from 0 to 0.05 to
            images of range 2, which is narrower and has a mean that shifts the image; this noise has none.
    """

    evaluations: int = 5
    jitter: float = 0.025


def solve_dps_plus(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: DPSPlusConfig = DPSPlusConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """DPS with a smoothed misfit: the mean of ``|y - A(x0_hat + jitter n_k)|``; one backward pass a step, as in DPS.

    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`.
    """

    def sample(run: Run) -> Tensor:
        x = run.x
        for i, sigma in enumerate(run.levels):
            denoised, pullback = run.denoise_with_pullback(x, sigma)
            run.record(i, data_misfit(operator, measurement, denoised))
            if i + 1 == len(run.levels):
                return denoised
            direction = torch.zeros_like(denoised)
            for _ in range(config.evaluations):
                near = operator.linearise(denoised + config.jitter * run.noise())
                residual = measurement - near.value
                direction += near.vjp(residual / per_image(norm(residual), residual)) / config.evaluations
            run.operator_calls += 2 * config.evaluations
            shift = per_image(config.step * vp_factor(run.levels[i], run.levels[i + 1]), x) * pullback(direction)
            x = run.step_down(x, denoised, i, config.eta) + shift
        raise AssertionError("a schedule has at least one level")

    return run_samples(sample, measurement, operator, denoiser, initial, config, generator=generator, progress=progress)

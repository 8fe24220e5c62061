"""DAPS (Zhang et al., CVPR 2025): decoupled annealing, Langevin steps on the clean image at each level."""

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.errors import InputError
from dynamicdps.operators import Linearisation, LinearModel, Operator
from dynamicdps.operators.inner_products import norm
from dynamicdps.operators.parameters import per_image
from dynamicdps.priors import descending_levels
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, falling, sampler


@dataclass(frozen=True)
class DAPSConfig(SamplerConfig):
    """How to run DAPS; `steps` are annealing levels, and the noise is always renewed (no `eta`).

    Attributes:
        ode_steps: denoiser passes from each level down, for the centre of ``p(x0 | x_t)``.
        langevin_steps: Langevin steps at each level, operator calls only.
        langevin_rate: their length as a share of the longest stable one.
        noise_scale: factor on the noise that the measurement is believed to have (the paper tempers it too).
    """

    steps: int = 50
    ode_steps: int = 4
    langevin_steps: int = 50
    langevin_rate: float = 0.3
    noise_scale: float = 1.0


@sampler("daps", DAPSConfig)
def solve_daps(task: Task, config: DAPSConfig) -> Sample:
    """Algorithm 1 of the paper: ``p(x0 | x_t, y)`` with a Gaussian of deviation sigma around the ODE's end, sampled by Langevin steps.

    A contrast is undone first where that makes the operator linear: Langevin steps stall where A is steep. Other operators are
    used as they are.
    """
    term = task.term
    target: Operator | LinearModel = term.operator
    y, noise, initial = term.target, torch.full((1,), term.noise.std), task.initial
    with suppress(InputError):
        target, y, noise = task.linear.model, task.linear.measurement, task.linear.model.noise_std
    noise = (config.noise_scale * noise).to(initial).expand(len(initial))

    def pull(x: Tensor) -> Tensor:
        """``J_A^T (y - A(x))``."""
        if isinstance(target, LinearModel):
            return target.adjoint(y - target(x))
        linearised = target.linearise(x)
        return linearised.vjp(y - linearised.value)

    bend = _largest_curvature(target, initial)

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            centre = _ode(run, x, sigma, config)
            rate = config.langevin_rate / (1 / sigma.square() + bend / noise.square())
            x0 = centre
            for _ in range(config.langevin_steps):
                slope = (centre - x0) / per_image(sigma.square(), x0) + pull(x0) / per_image(noise.square(), x0)
                x0 = x0 + per_image(rate, x0) * slope + per_image((2 * rate).sqrt(), x0) * run.noise()
            run.operator_calls += 2 * config.langevin_steps
            run.record(term.misfit(x0))
            x = run.renew(x, x0, sigma, down, 1.0)
        return x

    return sample


def _ode(run: Run, x: Tensor, sigma: Tensor, config: DAPSConfig) -> Tensor:
    """Euler steps of the probability flow from a level to its clean end."""
    for level, down in falling(descending_levels(sigma, config.ode_steps, config.stop_sigma, config.rho)):
        denoised = run.denoise(x, level)
        x = denoised + per_image(down / level, x) * (x - denoised)
    return x


def _largest_curvature(target: Operator | LinearModel, x: Tensor, iterations: int = 20) -> Tensor:
    """Largest eigenvalue of ``J^T J`` at `x` for each image, ``(batch,)``, by power iteration from a fixed vector."""
    linearised = Linearisation(x, target.forward, target.adjoint) if isinstance(target, LinearModel) else target.linearise(x)
    v = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x).expand_as(x)
    for _ in range(iterations):
        v = v / per_image(norm(v), v)
        v = linearised.vjp(linearised.jvp(v))
    return norm(v).to(x.dtype)

"""DPS (Chung, Kim, McCann, Klasky, Ye, ICLR 2023): every ancestral step is followed by a gradient step on the data misfit."""

from dataclasses import dataclass

from torch import Tensor

from dynamicdps.operators.inner_products import norm
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, sampler


@dataclass(frozen=True)
class DPSConfig(SamplerConfig):
    """How to run DPS.

    Attributes:
        step: the paper's step length zeta, in the units of its process: variance-preserving, data in [-1, 1].
    """

    spacing: str = "cosine"
    step: float = 1.0

    @property
    def differentiates(self) -> bool:
        return True


@sampler("dps", DPSConfig)
def solve_dps(task: Task, config: DPSConfig) -> Sample:
    """Algorithm 1 of the paper: ``x_{t-1} <- ancestral(x_t, x0_hat) - zeta grad |y - A(x0_hat)|``, through the network."""
    term = task.term

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            denoised, pullback = run.denoise_with_pullback(x, sigma)
            linearised = term.linearise(denoised)
            residual = term.target - linearised.value
            run.operator_calls += 2
            run.record(term.misfit(denoised))
            if not down.any():
                break
            gradient = -pullback(linearised.vjp(residual / per_image(norm(residual), residual)))
            shift = per_image(config.step * vp_factor(sigma, down), x) * gradient
            x = run.step_down(x, denoised, sigma, down, config.eta) - shift
        return denoised

    return sample


def vp_factor(sigma: Tensor, down: Tensor) -> Tensor:
    """What a shift of the variance-preserving state u along ``grad_u |r_u|`` is for ours, ``(batch,)``.

    Theirs: data in [-1, 1], ``u_t = sqrt(abar_t) u_0 + sqrt(1 - abar_t) n``; ours: data in [0, 1], ``x = x0 + sigma n`` with
    ``1 / abar = 1 + 4 sigma^2``. Hence ``x = u / (2 sqrt(abar))`` up to a constant, and ``grad_u |r_u| = grad_x |r_x| / sqrt(abar)``.
    """
    return ((1 + 4 * sigma.square()) * (1 + 4 * down.square())).sqrt() / 2

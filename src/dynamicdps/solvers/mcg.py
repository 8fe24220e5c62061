"""MCG (Chung, Sim, Ryu, Ye, NeurIPS 2022): the gradient of DPS, then a projection on the measurement."""

from dataclasses import dataclass

from torch import Tensor

from dynamicdps.operators.inner_products import norm
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.dps import DPSConfig, vp_factor
from dynamicdps.solvers.projection import project, project_noisy
from dynamicdps.solvers.samplers import Run, Sample, Task, sampler


@dataclass(frozen=True)
class MCGConfig(DPSConfig):
    """How to run MCG.

    Attributes:
        weight: share of the projection that is taken; 1 is the whole.
    """

    weight: float = 1.0


@sampler("mcg", MCGConfig)
def solve_mcg(task: Task, config: MCGConfig) -> Sample:
    """Algorithm 1 of the paper: manifold-constrained gradient, then the state is projected on the noisy measurement.

    Raises:
        InputError: the operator is not linear.
    """
    term = task.term
    problem = task.linear
    model, y = problem.model, problem.measurement

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            denoised, pullback = run.denoise_with_pullback(x, sigma)
            if not down.any():
                break
            residual = y - model(denoised)
            run.record(term.misfit(denoised))
            gradient = -pullback(model.adjoint(residual / per_image(norm(residual), residual)))
            shift = per_image(config.step * vp_factor(sigma, down), x) * gradient
            x = project_noisy(run, model, y, run.step_down(x, denoised, sigma, down, config.eta) - shift, down, config.weight)
            run.operator_calls += 5
        x0 = project(model, y, denoised, config.weight)
        run.record(term.misfit(x0))
        return x0

    return sample

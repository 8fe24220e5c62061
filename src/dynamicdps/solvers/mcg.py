"""MCG (Chung, Sim, Ryu, Ye, NeurIPS 2022): the gradient of DPS, then a projection on the measurement."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import Operator
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.data_fidelity import data_misfit, norm
from dynamicdps.solvers.dps import DPSConfig, vp_factor
from dynamicdps.solvers.projection import project, project_noisy
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.sampler import Run, run_samples


@dataclass(frozen=True)
class MCGConfig(DPSConfig):
    """How to run MCG.

    Attributes:
        weight: share of the projection that is taken; 1 is the whole.
    """

    weight: float = 1.0


def solve_mcg(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: MCGConfig = MCGConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Algorithm 1 of the paper: manifold-constrained gradient, then the state is projected on the noisy measurement.

    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`.

    Raises:
        InputError: the operator is not linear.
    """
    problem = operator.linear_problem(measurement, initial.shape)
    model, y = problem.model, problem.measurement

    def sample(run: Run) -> Tensor:
        x = run.x
        for i, sigma in enumerate(run.levels):
            denoised, pullback = run.denoise_with_pullback(x, sigma)
            if i + 1 == len(run.levels):
                x0 = project(model, y, denoised, config.weight)
                run.record(i, data_misfit(operator, measurement, x0))
                return x0
            residual = y - model(denoised)
            run.record(i, data_misfit(operator, measurement, denoised))
            gradient = -pullback(model.adjoint(residual / per_image(norm(residual), residual)))
            shift = per_image(config.step * vp_factor(run.levels[i], run.levels[i + 1]), x) * gradient
            x = project_noisy(run, model, y, run.step_down(x, denoised, i, config.eta) - shift, i + 1, config.weight)
            run.operator_calls += 5
        raise AssertionError("a schedule has at least one level")

    return run_samples(
        sample, measurement, operator, denoiser, initial, config, generator=generator, progress=progress, warnings=problem.warnings
    )

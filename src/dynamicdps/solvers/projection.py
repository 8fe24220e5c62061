"""Projection (Song, Sohl-Dickstein et al., ICLR 2021; ``projection`` in the code of Chung et al. 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import LinearModel, Operator
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.data_fidelity import data_misfit
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.sampler import Run, SamplerConfig, run_samples


@dataclass(frozen=True)
class ProjectionConfig(SamplerConfig):
    """How to run the projection method.

    Attributes:
        weight: share of the projection that is taken; 1 is the whole.
    """

    weight: float = 1.0


def solve_projection(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: ProjectionConfig = ProjectionConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Unconditional sampling whose state is projected on the noisy measurement after every step.

    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`.

    Raises:
        InputError: the operator is not linear.
    """
    problem = operator.linear_problem(measurement, initial.shape)

    def sample(run: Run) -> Tensor:
        x = run.x
        for i, sigma in enumerate(run.levels):
            denoised = run.denoise(x, sigma)
            if i + 1 == len(run.levels):
                x0 = project(problem.model, problem.measurement, denoised, config.weight)
                run.record(i, data_misfit(operator, measurement, x0))
                return x0
            run.record(i, data_misfit(operator, measurement, denoised))
            stepped = run.step_down(x, denoised, i, config.eta)
            x = project_noisy(run, problem.model, problem.measurement, stepped, i + 1, config.weight)
            run.operator_calls += 4
        raise AssertionError("a schedule has at least one level")

    return run_samples(
        sample, measurement, operator, denoiser, initial, config, generator=generator, progress=progress, warnings=problem.warnings
    )


def project(model: LinearModel, y: Tensor, x: Tensor, weight: float) -> Tensor:
    """``x + weight H^+ (y - H x)``: with weight 1 the nearest image that explains `y`."""
    return x + weight * model.pseudo_inverse(y - model(x))


def project_noisy(run: Run, model: LinearModel, y: Tensor, x: Tensor, i: int, weight: float) -> Tensor:
    """Project the state of level `i` on the measurement, noised as the state is: ``y + sigma H n``.

    For an H with orthonormal rows ``H n`` is white and this is the original's ``y + sigma n``.
    """
    return project(model, y + model(per_image(run.levels[i], x) * run.noise()), x, weight)

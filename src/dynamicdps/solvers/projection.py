"""Projection (Song, Sohl-Dickstein et al., ICLR 2021; ``projection`` in the code of Chung et al. 2023)."""

from dataclasses import dataclass

from torch import Tensor

from dynamicdps.operators import LinearModel
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, sampler


@dataclass(frozen=True)
class ProjectionConfig(SamplerConfig):
    """How to run the projection method.

    Attributes:
        weight: share of the projection that is taken; 1 is the whole.
    """

    weight: float = 1.0


@sampler("projection", ProjectionConfig)
def solve_projection(task: Task, config: ProjectionConfig) -> Sample:
    """Unconditional sampling whose state is projected on the noisy measurement after every step.

    Raises:
        InputError: the operator is not linear.
    """
    term = task.term
    problem = task.linear

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            denoised = run.denoise(x, sigma)
            if not down.any():
                break
            run.record(term.misfit(denoised))
            stepped = run.step_down(x, denoised, sigma, down, config.eta)
            x = project_noisy(run, problem.model, problem.measurement, stepped, down, config.weight)
            run.operator_calls += 4
        x0 = project(problem.model, problem.measurement, denoised, config.weight)
        run.record(term.misfit(x0))
        return x0

    return sample


def project(model: LinearModel, y: Tensor, x: Tensor, weight: float) -> Tensor:
    """``x + weight H^+ (y - H x)``: with weight 1 the nearest image that explains `y`."""
    return x + weight * model.pseudo_inverse(y - model(x))


def project_noisy(run: Run, model: LinearModel, y: Tensor, x: Tensor, sigma: Tensor, weight: float) -> Tensor:
    """Project the state of level `sigma` on the measurement, noised as the state is: ``y + sigma H n``.

    For an H with orthonormal rows ``H n`` is white and this is the original's ``y + sigma n``.
    """
    return project(model, y + model(per_image(sigma, x) * run.noise()), x, weight)

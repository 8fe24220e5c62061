"""Projection (Song, Sohl-Dickstein et al., ICLR 2021; ``projection`` in the code of Chung et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, join
from dynamicdps.diffusion import Denoiser, Prior
from dynamicdps.operators import LinearModel
from dynamicdps.operators.parameters import per_image
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.registry import register
from dynamicdps.solvers.sampler import Run, SamplerConfig, run_samples


@dataclass(frozen=True)
class ProjectionConfig(SamplerConfig):
    """How to run the projection method.

    Attributes:
        weight: share of the projection that is taken; 1 is the whole.
    """

    weight: float = 1.0


@register("projection", config=ProjectionConfig)
def solve_projection(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser,
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
    term = join(terms)
    problem = term.linear_problem(initial.shape)

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

    return run_samples(sample, term, prior, initial, config, generator=generator, progress=progress, warnings=problem.warnings)


def project(model: LinearModel, y: Tensor, x: Tensor, weight: float) -> Tensor:
    """``x + weight H^+ (y - H x)``: with weight 1 the nearest image that explains `y`."""
    return x + weight * model.pseudo_inverse(y - model(x))


def project_noisy(run: Run, model: LinearModel, y: Tensor, x: Tensor, sigma: Tensor, weight: float) -> Tensor:
    """Project the state of level `sigma` on the measurement, noised as the state is: ``y + sigma H n``.

    For an H with orthonormal rows ``H n`` is white and this is the original's ``y + sigma n``.
    """
    return project(model, y + model(per_image(sigma, x) * run.noise()), x, weight)

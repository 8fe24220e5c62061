"""DDS (Chung, Lee, Ye, ICLR 2024): decomposed diffusion sampling, a few conjugate-gradient steps on the denoised image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import Operator, conjugate_gradients
from dynamicdps.solvers.data_fidelity import data_misfit
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.sampler import Run, SamplerConfig, run_samples


@dataclass(frozen=True)
class DDSConfig(SamplerConfig):
    """How to run DDS.

    Attributes:
        weight: the paper's gamma: how much the measurement counts against the denoised image.
        iterations: conjugate-gradient steps.
    """

    steps: int = 50
    eta: float = 0.85
    weight: float = 5.0
    iterations: int = 5


def solve_dds(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: DDSConfig = DDSConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Algorithm 2 of the paper: conjugate gradients on ``(1 + gamma H^T H) x = x0 + gamma H^T y`` from the denoised image, then DDIM.

    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`.

    Raises:
        InputError: the operator is not linear.
    """
    problem = operator.linear_problem(measurement, initial.shape)
    model, back = problem.model, problem.model.adjoint(problem.measurement)

    def product(v: Tensor) -> Tensor:
        return v + config.weight * model.adjoint(model(v))

    def sample(run: Run) -> Tensor:
        x = run.x
        for i, sigma in enumerate(run.levels):
            denoised = run.denoise(x, sigma)
            x0 = conjugate_gradients(product, denoised + config.weight * back, config.iterations, start=denoised)
            run.operator_calls += 2 * (config.iterations + 1)
            run.record(i, data_misfit(operator, measurement, x0))
            if i + 1 == len(run.levels):
                return x0
            x = run.step_down(x, x0, i, config.eta)
        raise AssertionError("a schedule has at least one level")

    return run_samples(
        sample, measurement, operator, denoiser, initial, config, generator=generator, progress=progress, warnings=problem.warnings
    )

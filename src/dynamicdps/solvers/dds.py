"""DDS (Chung, Lee, Ye, ICLR 2024): decomposed diffusion sampling, a few conjugate-gradient steps on the denoised image."""

from dataclasses import dataclass

from torch import Tensor

from dynamicdps.operators import conjugate_gradients
from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, sampler


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


@sampler("dds", DDSConfig)
def solve_dds(task: Task, config: DDSConfig) -> Sample:
    """Algorithm 2 of the paper: conjugate gradients on ``(1 + gamma H^T H) x = x0 + gamma H^T y`` from the denoised image, then DDIM.

    Raises:
        InputError: the operator is not linear.
    """
    term = task.term
    problem = task.linear
    model, back = problem.model, problem.model.adjoint(problem.measurement)

    def product(v: Tensor) -> Tensor:
        return v + config.weight * model.adjoint(model(v))

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            denoised = run.denoise(x, sigma)
            x0 = conjugate_gradients(product, denoised + config.weight * back, config.iterations, start=denoised).x
            run.operator_calls += 2 * (config.iterations + 1)
            run.record(term.misfit(x0))
            x = run.step_down(x, x0, sigma, down, config.eta)
        return x

    return sample

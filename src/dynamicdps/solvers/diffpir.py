"""DiffPIR (Zhu et al., NTIRE at CVPR 2023): plug-and-play half-quadratic splitting along the noise levels."""

from dataclasses import dataclass

from torch import Tensor

from dynamicdps.solvers.samplers import Run, Sample, SamplerConfig, Task, sampler


@dataclass(frozen=True)
class DiffPIRConfig(SamplerConfig):
    """How to run DiffPIR.

    Attributes:
        weight: the paper's lambda: how much the denoised image counts against the measurement.
        eta: share of the noise's variance that is drawn anew (the paper's zeta).
    """

    eta: float = 0.3
    weight: float = 8.0


@sampler("diffpir", DiffPIRConfig)
def solve_diffpir(task: Task, config: DiffPIRConfig) -> Sample:
    """Algorithm 1 of the paper: ``min |y - H x|^2 + rho |x - x0|^2`` with ``rho = lambda sigma_y^2 / sigma^2``, then noise again.

    Raises:
        InputError: the operator is not linear.
    """
    term = task.term
    problem = task.linear
    model, y = problem.model, problem.measurement

    def sample(run: Run) -> Tensor:
        x = run.x
        for sigma, down in run.steps():
            denoised = run.denoise(x, sigma)
            rho = config.weight * (model.noise_std.to(sigma) / sigma).square()
            # The minimum from the denoised image: in its normal form, rounding would be divided by rho.
            x0 = denoised + model.adjoint(model.solve_dual(y - model(denoised), rho))
            run.operator_calls += 4
            run.record(term.misfit(x0))
            x = run.renew(x, x0, sigma, down, config.eta)
        return x

    return sample

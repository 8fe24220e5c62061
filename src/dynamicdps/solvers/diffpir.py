"""DiffPIR (Zhu et al., NTIRE at CVPR 2023): plug-and-play half-quadratic splitting along the noise levels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.diffusion import Denoiser
from dynamicdps.operators import Operator
from dynamicdps.solvers.data_fidelity import data_misfit
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.sampler import Run, SamplerConfig, run_samples


@dataclass(frozen=True)
class DiffPIRConfig(SamplerConfig):
    """How to run DiffPIR.

    Attributes:
        weight: the paper's lambda: how much the denoised image counts against the measurement.
        eta: share of the noise's variance that is drawn anew (the paper's zeta).
    """

    eta: float = 0.3
    weight: float = 8.0


def solve_diffpir(
    measurement: Tensor,
    operator: Operator,
    denoiser: Denoiser,
    initial: Tensor,
    *,
    generator: torch.Generator,
    config: DiffPIRConfig = DiffPIRConfig(),
    progress: Progress | None = None,
) -> Reconstruction:
    """Algorithm 1 of the paper: ``min |y - H x|^2 + rho |x - x0|^2`` with ``rho = lambda sigma_y^2 / sigma^2``, then noise again.

    Arguments as `dynamicdps.solvers.dynamicdps.solve_dynamicdps`.

    Raises:
        InputError: the operator is not linear.
    """
    problem = operator.linear_problem(measurement, initial.shape)
    model, y = problem.model, problem.measurement

    def sample(run: Run) -> Tensor:
        x = run.x
        for i, sigma in enumerate(run.levels):
            denoised = run.denoise(x, sigma)
            rho = config.weight * (model.noise_std.to(sigma) / sigma).square()
            # The minimum from the denoised image: in its normal form, rounding would be divided by rho.
            x0 = denoised + model.adjoint(model.solve_dual(y - model(denoised), rho))
            run.operator_calls += 4
            run.record(i, data_misfit(operator, measurement, x0))
            if i + 1 == len(run.levels):
                return x0
            x = run.renew(x, x0, i, config.eta)
        raise AssertionError("a schedule has at least one level")

    return run_samples(
        sample, measurement, operator, denoiser, initial, config, generator=generator, progress=progress, warnings=problem.warnings
    )

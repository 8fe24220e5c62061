"""DiffPIR (Zhu et al., NTIRE at CVPR 2023): plug-and-play half-quadratic splitting along the noise levels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamicdps.data_term import DataTerm, join
from dynamicdps.diffusion import Denoiser, Prior
from dynamicdps.solvers.reconstruction import Progress, Reconstruction
from dynamicdps.solvers.registry import register
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


@register("diffpir", config=DiffPIRConfig)
def solve_diffpir(
    terms: Sequence[DataTerm],
    prior: Prior | Denoiser,
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
    term = join(terms)
    problem = term.linear_problem(initial.shape)
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

    return run_samples(sample, term, prior, initial, config, generator=generator, progress=progress, warnings=problem.warnings)
